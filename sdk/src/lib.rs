//! The SDK for Meshgate filters: typed, asynchronous, without panics.
//!
//! It stands on the `proxy-wasm` crate, and a filter built on it is a plain Proxy-Wasm 0.2.1 module. It runs in other hosts
//! too, where the `meshgate.*` functions are answered with `NOT_FOUND` and the SDK falls back on what they have.
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
//! Where to go from here: [`Filter`] has the callbacks, [`Exchange`] what they see ([`TcpFilter`] and
//! [`Connection`] of TCP), [`Call`], [`GrpcCall`] and [`GrpcStream`] ask others,
//! [`Body`] reads and changes bodies, [`SharedMap`] is seen by all workers, [`metric`] counts, and `testing` runs a filter in
//! `cargo test`. The guide is `docs/writing-filters.md`.
#![deny(missing_docs)]

pub mod attempts;
pub mod config;
pub mod credential;
pub mod encoding;
pub mod log;
pub mod metric;
pub mod property;
pub mod route;
pub mod signature;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
pub mod trace;

mod access_log;
mod body;
mod call;
mod callbacks;
mod dice;
mod encode;
mod error;
mod exchange;
mod filter;
mod grpc;
mod grpc_stream;
mod headers;
mod hold;
mod host;
mod json_path;
mod kv;
#[cfg(not(target_arch = "wasm32"))]
mod manifest;
mod message;
mod queue;
mod reply;
mod runtime;
mod shared;
mod target;
mod tcp;
mod time;

pub use access_log::Flag;
pub use body::{Body, BodyError, GrpcMessage};
pub use call::{Call, CallError, CallResponse};
pub use callbacks::{leave_out, leave_out_but_for_grpc};
pub use config::{Cluster, ConfigError};
pub use dice::Dice;
pub use error::{Outcome, Refused, Stop};
pub use exchange::Exchange;
pub use filter::Filter;
pub use grpc::{GrpcCall, GrpcError};
pub use grpc_stream::{GrpcStream, OpenGrpcStream};
pub use headers::{Headers, Pairs};
pub use host::Status;
/// Makes `impl Filter for T` or `impl TcpFilter for T` the module's filter.
///
/// It fills in the associated types that are left out, makes the filter what the module's exports call, and adds a test that
/// writes the module's manifest, which lists the callbacks that the filter has. A crate has one of it, unless its
/// filter serves both protocols.
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
///
/// A filter that serves TCP as well has two of it, which know of each other. What is not about a connection stands in
/// `impl Filter`:
///
/// ```
/// use meshgate_sdk::prelude::*;
/// use meshgate_sdk::{Connection, TcpFilter};
///
/// /// The networks that may come in.
/// #[derive(Deserialize, JsonSchema)]
/// struct Config {
///     /// How their addresses begin.
///     from: String,
/// }
///
/// struct Fence(Config);
///
/// impl Fence {
///     fn admits(&self, address: Option<String>) -> bool {
///         address.is_some_and(|address| address.starts_with(&self.0.from))
///     }
/// }
///
/// #[filter(tcp)]
/// impl Filter for Fence {
///     fn configure(config: Config) -> Result<Self, ConfigError> {
///         Ok(Self(config))
///     }
///
///     fn on_request(&self, exchange: &Exchange<Self>) -> Outcome {
///         if self.admits(exchange.source_address()) { Ok(()) } else { Reply::new(403).into() }
///     }
/// }
///
/// #[filter(http)]
/// impl TcpFilter for Fence {
///     fn on_connection(&self, connection: &Connection<Self>) -> Outcome {
///         if self.admits(connection.source_address()) { Ok(()) } else { connection.close() }
///     }
/// }
/// # fn main() {
/// # use meshgate_sdk::testing::{Client, Proxy, Request};
/// # let configuration = r#"{"from": "10."}"#;
/// # let request = Request::get("/").property("source/address", "11.0.0.1:9");
/// # assert_eq!(Proxy::new::<Fence>(configuration).send(request).status(), 403);
/// # let client = Client::new().property("source/address", "10.0.0.1:9");
/// # assert!(!Proxy::tcp::<Fence>(configuration).connect(&client).is_closed());
/// # }
/// ```
pub use meshgate_sdk_macros::filter;
pub use message::{Request, Response};
pub use queue::SharedQueue;
pub use reply::Reply;
pub use shared::{Change, Changed, SharedCounter, SharedCounters, SharedMap};
pub use target::Target;
pub use tcp::{ClosedBy, Connection, TcpFilter};
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
    pub use proxy_wasm;

    #[cfg(not(target_arch = "wasm32"))]
    pub use crate::manifest::{write_both, write_http, write_tcp};
    #[cfg(target_arch = "wasm32")]
    pub use crate::runtime::{start_both, start_http, start_tcp};

    /// Natively there is no module to start; naming the filter keeps the compiler from calling it unused.
    #[cfg(not(target_arch = "wasm32"))]
    pub const fn start_http<F: crate::Filter>() {}

    /// As `start_http`.
    #[cfg(not(target_arch = "wasm32"))]
    pub const fn start_tcp<F: crate::TcpFilter>() {}

    /// As `start_http`.
    #[cfg(not(target_arch = "wasm32"))]
    pub const fn start_both<F: crate::Filter + crate::TcpFilter>() {}
}

/// Makes a filter the module's. [`#[filter]`](macro@filter) does this.
#[doc(hidden)]
#[macro_export]
macro_rules! export {
    ($filter:ty, $start:ident, $write:ident) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            $crate::private::proxy_wasm::main! {{ $crate::private::$start::<$filter>(); }}
        };

        #[cfg(not(target_arch = "wasm32"))]
        const _: () = $crate::private::$start::<$filter>();

        #[cfg(test)]
        #[test]
        fn meshgate_manifest() {
            let written = $crate::private::$write::<$filter>(
                ::core::env!("CARGO_PKG_NAME"),
                ::core::env!("CARGO_PKG_VERSION"),
            );
            ::core::assert!(written.is_ok(), "the manifest cannot be written: {written:?}");
        }
    };
}
