//! Meshgate's Proxy-Wasm host: loads modules, runs their callbacks and answers their hostcalls, on wasmtime.
//!
//! Who uses it: the proxy's workers, and the control plane to try a module before it is pushed. The crate knows
//! no sockets, no HTTP library and no clusters. What it needs from its surroundings it asks of two traits:
//! [`Host`], one per worker (HTTP calls, timers, foreign functions, log), and [`Exchange`], one per request.
//!
//! The way in: [`Engine`] compiles bytes to a [`Module`]; each worker has [`Vms`], which turns a [`PluginSpec`]
//! into a running [`Plugin`]; a plugin gives a [`StreamContext`] per exchange, whose methods are the callbacks.
//!
//! Everything but [`Engine`], [`Module`], [`PluginSpec`] and [`Shared`] belongs to one thread.
//! While a method of [`StreamContext`] runs, the embedder must hold no borrow of [`Exchange::http`].

mod action;
mod attributes;
mod body;
mod cache;
mod callout;
mod contexts;
mod engine;
mod error;
mod exchange;
mod exports;
mod fields;
mod host;
mod hostcalls;
mod limits;
mod memory;
mod metrics;
mod module;
mod node;
mod pairs;
mod phase;
mod plugin;
mod properties;
mod shared;
mod slot;
mod state;
mod status;
mod stream;
mod tables;
#[cfg(test)]
mod tests;
mod tick;
mod trap;
mod vm;
mod vms;
mod waiting;

pub use action::{BodyAction, Callbacks, HeadersAction, TrailersAction};
pub use attributes::{Attributes, Certificate, Connection, CustomProperties, Direction, ListenerFacts, Tls};
pub use body::BodyBuffer;
pub use callout::HttpCallReply;
pub use engine::{Engine, EngineOptions};
pub use error::{EngineError, Frame, ModuleError, StartError, VmError};
pub use exchange::{Exchange, HttpStream, LocalResponse, RequestHead, ResponseHead};
pub use host::{CallError, CallFailure, ForeignCaller, Host, HttpCall, HttpCallResponse};
pub use limits::Limits;
pub use metrics::{MetricKind, Metrics, Series, SeriesSpec};
pub use module::{AbiVersion, Module, ModuleHash, manifest_section};
pub use node::{Metadata, Node};
pub use plugin::{Compatibility, Plugin, PluginSpec, PluginStats};
pub use properties::PropertyForm;
pub use shared::Shared;
pub use status::{LogLevel, Status};
pub use stream::StreamContext;
pub use tick::TickHandle;
pub use vms::Vms;
