//! HTTP messages as they pass through: bodies, forwarding rules, responses of our own.
//!
//! The lowest layer: it knows neither filters nor sockets. `downstream`, `exchange` and `upstream` speak to each
//! other in these types.

pub mod body;

pub use body::{Body, BodyError, BodyFault, BodyReason};
