//! The scenario of `scenario.rs` on the crate `proxy-wasm` 0.2, which speaks ABI 0.2.1.
#![allow(missing_docs, reason = "the entry that `proxy_wasm::main!` writes has none")]

mod scenario;

use proxy_wasm::traits::RootContext;
use proxy_wasm::types::LogLevel;

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(scenario::Root::default()));
}}

/// The header callbacks, as this version of the crate has them.
macro_rules! headers_callback {
    ($name:ident, $method:ident) => {
        fn $name(&mut self, _: usize, _: bool) -> Action {
            self.$method()
        }
    };
}
use headers_callback;

fn configuration(root: &impl RootContext) -> Option<Vec<u8>> {
    root.get_plugin_configuration()
}
