//! The SDK for Meshgate filters: typed, without panics, on top of the `proxy-wasm` crate.
//!
//! A filter built on it is a plain Proxy-Wasm 0.2.1 module. It runs in other hosts too, where the `meshgate.*` functions
//! are answered with `NOT_FOUND` and the SDK falls back on what they have.
//!
//! ```no_run
//! use meshgate_sdk::{ConfigError, Exchange, Filter, Flow, Outcome, filter};
//! use schemars::JsonSchema;
//! use serde::Deserialize;
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
//!     type Config = Config;
//!
//!     fn configure(config: Config) -> Result<Self, ConfigError> {
//!         Ok(Self { config })
//!     }
//!
//!     fn on_request_headers(&self, exchange: &mut Exchange<Self>, _: bool) -> Outcome {
//!         exchange.request().headers().set(&self.config.header, &self.config.value)?;
//!         Ok(Flow::Continue)
//!     }
//! }
//! # fn main() {}
//! ```

pub mod config;
pub mod log;
pub mod metric;
pub mod property;
pub mod route;

mod call;
mod dispatch;
mod error;
mod exchange;
mod filter;
mod headers;
mod host;
mod json_path;
#[cfg(not(target_arch = "wasm32"))]
mod manifest;
mod message;
#[cfg(not(target_arch = "wasm32"))]
mod native;
mod reply;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use call::{Call, CallFailed, CallResponse};
pub use config::ConfigError;
pub use error::{Flow, Outcome, Refused, Stop};
pub use exchange::Exchange;
pub use filter::Filter;
pub use headers::{Headers, Pairs, Value};
pub use host::Status;
pub use meshgate_sdk_macros::filter;
pub use message::{Body, Request, Response, Target};
pub use reply::Reply;

/// The host's clock.
pub fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(host::now_nanoseconds())
}

/// Has [`Filter::on_tick`] called again and again, on every worker; zero stops it. Call it in [`Filter::configure`].
///
/// # Errors
/// The host has no clock for filters.
pub fn tick_every(period: Duration) -> Result<(), Refused> {
    host::set_tick_period(period).map_err(|status| Refused::new("cannot set the tick period", status))
}

/// What the macros of this crate expand to. Not for use by hand.
#[doc(hidden)]
pub mod private {
    pub use crate::dispatch::start;
    #[cfg(not(target_arch = "wasm32"))]
    pub use crate::manifest::write as write_manifest;
}

/// Exports a filter from a module. [`#[filter]`](macro@filter) does this.
#[doc(hidden)]
#[macro_export]
macro_rules! export {
    ($filter:ty) => {
        #[cfg(target_arch = "wasm32")]
        #[allow(unsafe_code, reason = "the host finds the module's entry by its name")]
        const _: () = {
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
                $crate::private::start::<$filter>();
            }
        };

        // Nothing calls a filter natively; this keeps the compiler from calling it unused.
        #[cfg(not(target_arch = "wasm32"))]
        const _: fn() = $crate::private::start::<$filter>;

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
