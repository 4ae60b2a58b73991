//! The way to the endpoints: clusters, load balancing, pooled connections, one request at a time.
//!
//! `Upstream::send` picks an endpoint, takes a connection and sends. It tries again by itself only when nothing of the
//! request left the process; everything else is the caller's decision, who sees in `UpstreamError` what happened.
//! Over HTTP/1.1 a request has a connection to itself (`pool`), over HTTP/2 it has a stream (`http2`).
//! All of it lives on one worker: no lock, no `Send`.

mod attempt;
pub mod balance;
pub mod callout;
mod care;
pub mod cluster;
pub mod connect;
mod dial;
mod discovery;
pub mod endpoint;
pub mod error;
pub mod grpc;
mod health;
mod http2;
mod interim;
mod levels;
pub mod limits;
mod outlier;
pub mod pool;
mod send;
mod shadow;
mod shared;
mod sweep;
mod tcp;
mod tunnel;
mod upload;

pub use attempt::Queued;
pub use care::{Caretaker, Preparation};
pub use cluster::{Cluster, Clusters, ConfiguredCluster};
pub use endpoint::{Endpoint, place};
pub use error::{UpstreamError, UpstreamErrorKind};
pub use health::Health;
pub use limits::Limits;
pub use outlier::Outcome;
pub use send::{Lease, Upstream, UpstreamBody, switched_unasked};
pub use shadow::{Copied, send_copy};
pub use shared::{Member, Members, SharedCluster, SharedClusters};
pub use tcp::TcpConnection;
pub use tunnel::UpstreamTunnel;

#[cfg(test)]
mod tests;
