//! Meshgate's Proxy-Wasm host: loads modules, runs their callbacks and answers their hostcalls, on wasmtime.
//!
//! Who uses it: the proxy's workers, and the control plane to try a module before it is pushed. The crate knows
//! no sockets, no HTTP library and no clusters. What it needs from its surroundings it asks of two traits:
//! [`Host`], one per worker (HTTP and gRPC calls, timers, foreign functions, log), and [`Exchange`], one per request or TCP
//! connection.
//!
//! The way in: [`Engine`] compiles bytes to a [`Module`]; each worker has [`Vms`], which turns a [`PluginSpec`]
//! into a running [`Plugin`]; a plugin gives a [`StreamContext`] per exchange, whose methods are the callbacks.
//!
//! Everything but [`Engine`], [`Module`], [`PluginSpec`] and [`Shared`] belongs to one thread.
//! While a method of [`StreamContext`] runs, the embedder must hold no borrow of what [`Exchange`] gives out.

mod action;
mod address;
mod attributes;
mod body;
mod bulk;
mod cache;
mod callout;
mod capabilities;
mod contexts;
mod core;
mod engine;
mod error;
mod exchange;
mod exports;
mod fields;
mod growth;
mod grpc;
mod host;
mod hostcalls;
mod ledger;
mod limits;
mod memory;
mod metrics;
mod module;
mod node;
mod pairs;
mod phase;
mod plugin;
mod properties;
mod quarantine;
mod remains;
mod share;
mod shared;
mod slot;
mod state;
mod stats;
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

pub use action::{BodyAction, Callbacks, HeadersAction, PeerType, TcpAction, TrailersAction};
pub use address::Address;
pub use attributes::{
    Attributes, Certificate, Connection, CustomProperties, Direction, EndpointFacts, ListenerFacts, Tls,
};
pub use body::BodyBuffer;
pub use callout::{Cancelled, HttpCallReply};
pub use capabilities::{Capabilities, PropertyGroup, PropertyGroups};
pub use engine::{Engine, EngineOptions};
pub use error::{EngineError, Frame, ModuleError, StartError, VmError};
pub use exchange::{Exchange, HttpStream, LocalResponse, RequestHead, ResponseHead};
pub use grpc::{GrpcEvents, GrpcKind, GrpcMetadata, GrpcRequest, GrpcSendError, GrpcSender, GrpcStatus};
pub use host::{CallError, CallFailure, ForeignCaller, Host, HttpCall, HttpCallResponse, Permit};
pub use ledger::Ledger;
pub use limits::{Limit, Limits};
pub use metrics::{MetricKind, Metrics, Series, SeriesSpec};
pub use module::{AbiVersion, Module, ModuleBounds, ModuleHash, manifest_section};
pub use node::{Locality, Metadata, Node};
pub use plugin::{Compatibility, Isolation, Plugin, PluginSpec};
pub use properties::PropertyForm;
pub use shared::{Bounds, Shared};
pub use stats::PluginStats;
pub use status::{LogLevel, Status};
pub use stream::StreamContext;
pub use tick::TickHandle;
pub use vms::Vms;
