//! The SDK for Meshgate filters: typed, asynchronous, without panics.
//!
//! A filter built on it is a plain Proxy-Wasm 0.2.1 module. It runs in other hosts too, where the `meshgate.*` functions
//! are answered with `NOT_FOUND` and the SDK falls back on what they have.
//!
//! ```
//! use meshgate_sdk::prelude::*;
//!
//! /// The configuration of the filter: its fields are the keys in the YAML.
//! #[derive(Deserialize, JsonSchema)]
//! #[serde(deny_unknown_fields)]
//! struct Config {
//!     /// The field to set on every request.
//!     header: String,
//!     /// The value to set it to.
//!     value: String,
//! }
//!
//! struct Stamp {
//!     config: Config,
//! }
//!
//! #[filter]
//! impl Filter for Stamp {
//!     fn configure(config: Config) -> Result<Self, ConfigError> {
//!         Ok(Self { config })
//!     }
//!
//!     fn on_request(&self, exchange: &Exchange<Self>) -> Outcome {
//!         exchange.request().headers().set(&self.config.header, &self.config.value)?;
//!         Ok(())
//!     }
//! }
//! # fn main() {}
//! ```
//!
//! Where to go from here: [`Filter`] has the callbacks, [`Exchange`] what they see, [`Call`] and [`GrpcCall`] ask others,
//! [`Body`] reads and changes bodies, [`SharedMap`] is seen by all workers, [`metric`] counts, and `testing` runs a filter in
//! `cargo test`. The guide is `docs/writing-filters.md`.
#![deny(missing_docs)]

pub mod attempts;
pub mod config;
pub mod log;
pub mod metric;
pub mod property;
pub mod route;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;

mod body;
mod call;
mod error;
mod exchange;
mod filter;
mod grpc;
mod headers;
mod host;
mod json_path;
#[cfg(not(target_arch = "wasm32"))]
mod manifest;
mod message;
mod reply;
mod runtime;
mod shared;
mod target;
mod time;

pub use body::{Body, BodyError};
pub use call::{Call, CallError, CallResponse};
pub use config::{Cluster, ConfigError};
pub use error::{Outcome, Refused, Stop};
pub use exchange::Exchange;
pub use filter::Filter;
pub use grpc::{GrpcCall, GrpcError};
pub use headers::{Headers, Pairs};
pub use host::Status;
/// Makes `impl Filter for T` the module's filter.
///
/// It fills in the associated types that are left out, exports the callbacks that the filter has and no others, and adds a
/// test that writes the module's manifest. It takes no arguments, and a crate has one of it.
///
/// ```
/// use meshgate_sdk::prelude::*;
///
/// struct Nothing;
///
/// #[filter]
/// impl Filter for Nothing {
///     fn configure(_: Empty) -> Result<Self, ConfigError> {
///         Ok(Self)
///     }
/// }
/// # fn main() {}
/// ```
///
/// A callback that does not exist is an error that says what was meant:
///
/// ```compile_fail
/// # use meshgate_sdk::prelude::*;
/// # struct Nothing;
/// #[filter]
/// impl Filter for Nothing {
/// #   fn configure(_: Empty) -> Result<Self, ConfigError> { Ok(Self) }
///     // error: a filter has no `on_http_request_headers`; write `on_request`
///     fn on_http_request_headers(&self, _: usize) {}
/// }
/// # fn main() {}
/// ```
pub use meshgate_sdk_macros::filter;
pub use message::{Request, Response};
pub use reply::Reply;
pub use shared::{SharedCounter, SharedMap};
pub use target::Target;
pub use time::{TimedOut, join, join_all, now, sleep, tick_every, timeout};

/// What most filters use: `use meshgate_sdk::prelude::*;`.
///
/// Beside the SDK's own names these are serde's `Deserialize` and `Serialize`, schemars' `JsonSchema` (a filter's crate
/// depends on both, since their derives say so) and the standard library's `Duration`.
pub mod prelude {
    pub use std::time::Duration;

    pub use schemars::JsonSchema;
    pub use serde::{Deserialize, Serialize};

    pub use crate::config::Empty;
    pub use crate::metric::{Counter, Family, Gauge, Histogram};
    pub use crate::{
        Body, CallError, Cluster, ConfigError, Exchange, Filter, Outcome, Reply, SharedMap, Stop, filter,
    };
}

/// What the macros of this crate expand to. Not for use by hand.
#[doc(hidden)]
pub mod private {
    #[cfg(target_arch = "wasm32")]
    pub use crate::host::allocate;
    #[cfg(not(target_arch = "wasm32"))]
    pub use crate::manifest::write as write_manifest;
    pub use crate::runtime::Module;

    /// Once, when the VM starts. Without it a trap says where the module stopped, but not why.
    pub fn report_panics() {
        std::panic::set_hook(Box::new(|panic| {
            crate::log::line(crate::log::Level::Critical, &panic.to_string());
        }));
    }
}

/// Exports a filter from a module. [`#[filter]`](macro@filter) does this.
#[doc(hidden)]
#[macro_export]
macro_rules! export {
    ($filter:ty: $($callback:ident)*) => {
        #[cfg(target_arch = "wasm32")]
        #[allow(unsafe_code, reason = "the host finds the module's callbacks by their names")]
        const _: () = {
            ::std::thread_local! {
                static MODULE: $crate::private::Module<$filter> = const { $crate::private::Module::new() };
            }

            #[cfg(target_os = "wasi")]
            unsafe extern "C" {
                fn __wasm_call_ctors();
            }

            #[unsafe(no_mangle)]
            extern "C" fn _initialize() {
                #[cfg(target_os = "wasi")]
                // SAFETY: the host calls this function once, before any other.
                unsafe {
                    __wasm_call_ctors();
                }
                $crate::private::report_panics();
            }

            #[unsafe(no_mangle)]
            extern "C" fn proxy_abi_version_0_2_1() {}

            #[unsafe(no_mangle)]
            extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {
                $crate::private::allocate(size)
            }

            #[unsafe(no_mangle)]
            extern "C" fn proxy_on_context_create(context: u32, root: u32) {
                MODULE.with(|module| module.create(context, root));
            }

            #[unsafe(no_mangle)]
            extern "C" fn proxy_on_vm_start(_: u32, _: usize) -> u32 {
                1
            }

            #[unsafe(no_mangle)]
            extern "C" fn proxy_on_configure(root: u32, size: usize) -> u32 {
                MODULE.with(|module| module.configure(root, size)).into()
            }

            #[unsafe(no_mangle)]
            extern "C" fn proxy_on_delete(context: u32) {
                MODULE.with(|module| module.delete(context));
            }

            $($crate::export_callback! { $callback })*
        };

        // Nothing calls a filter natively; this keeps the compiler from calling it unused.
        #[cfg(not(target_arch = "wasm32"))]
        const _: fn() -> $crate::private::Module<$filter> = $crate::private::Module::<$filter>::new;

        #[cfg(test)]
        #[test]
        fn meshgate_manifest() {
            let written = $crate::private::write_manifest::<$filter>(
                ::core::env!("CARGO_PKG_NAME"),
                ::core::env!("CARGO_PKG_VERSION"),
            );
            ::core::assert!(written.is_ok(), "the manifest cannot be written: {written:?}");
        }
    };
}

/// One callback of [`export!`].
#[doc(hidden)]
#[macro_export]
macro_rules! export_callback {
    (request_headers) => {
        #[unsafe(no_mangle)]
        extern "C" fn proxy_on_request_headers(context: u32, _: usize, end: u32) -> u32 {
            MODULE.with(|module| module.request_head(context, end != 0))
        }
    };
    (request_body) => {
        #[unsafe(no_mangle)]
        extern "C" fn proxy_on_request_body(context: u32, size: usize, end: u32) -> u32 {
            MODULE.with(|module| module.request_body(context, size, end != 0))
        }
    };
    (request_trailers) => {
        #[unsafe(no_mangle)]
        extern "C" fn proxy_on_request_trailers(context: u32, _: usize) -> u32 {
            MODULE.with(|module| module.request_trailers(context))
        }
    };
    (response_headers) => {
        #[unsafe(no_mangle)]
        extern "C" fn proxy_on_response_headers(context: u32, _: usize, end: u32) -> u32 {
            MODULE.with(|module| module.response_head(context, end != 0))
        }
    };
    (response_body) => {
        #[unsafe(no_mangle)]
        extern "C" fn proxy_on_response_body(context: u32, size: usize, end: u32) -> u32 {
            MODULE.with(|module| module.response_body(context, size, end != 0))
        }
    };
    (response_trailers) => {
        #[unsafe(no_mangle)]
        extern "C" fn proxy_on_response_trailers(context: u32, _: usize) -> u32 {
            MODULE.with(|module| module.response_trailers(context))
        }
    };
    (log) => {
        #[unsafe(no_mangle)]
        extern "C" fn proxy_on_log(context: u32) {
            MODULE.with(|module| module.log(context));
        }
    };
    (foreign_function) => {
        #[unsafe(no_mangle)]
        extern "C" fn proxy_on_foreign_function(context: u32, function: u32, size: usize) {
            MODULE.with(|module| module.foreign_function(context, function, size));
        }
    };
    (tick) => {
        #[unsafe(no_mangle)]
        extern "C" fn proxy_on_tick(root: u32) {
            MODULE.with(|module| module.tick(root));
        }
    };
    (calls) => {
        #[unsafe(no_mangle)]
        extern "C" fn proxy_on_http_call_response(
            _: u32,
            token: u32,
            headers: u32,
            body: u32,
            trailers: u32,
        ) {
            MODULE.with(|module| module.http_call_response(token, headers, body, trailers));
        }

        #[unsafe(no_mangle)]
        extern "C" fn proxy_on_grpc_receive(_: u32, token: u32, size: u32) {
            MODULE.with(|module| module.grpc_receive(token, size));
        }

        #[unsafe(no_mangle)]
        extern "C" fn proxy_on_grpc_close(_: u32, token: u32, status: u32) {
            MODULE.with(|module| module.grpc_close(token, status));
        }
    };
}
