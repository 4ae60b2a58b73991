//! The scenario of `scenario.rs` on the crate `proxy-wasm` 0.1, which speaks ABI 0.1.0: header callbacks without the end of
//! the stream, `proxy_get_configuration`, `proxy_continue_request`.
#![allow(unsafe_code, reason = "this version of the crate has no macro for the entry")]

#[path = "../../scenario-rust-0-2/src/scenario.rs"]
mod scenario;

use proxy_wasm::traits::RootContext;
use proxy_wasm::types::LogLevel;

/// Registers the root context.
#[unsafe(no_mangle)]
pub extern "C" fn _start() {
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(scenario::Root::default()));
}

/// The header callbacks, as this version of the crate has them.
macro_rules! headers_callback {
    ($name:ident, $method:ident) => {
        fn $name(&mut self, _: usize) -> Action {
            self.$method()
        }
    };
}
use headers_callback;

fn configuration(root: &impl RootContext) -> Option<Vec<u8>> {
    root.get_configuration()
}
