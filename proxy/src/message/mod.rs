//! HTTP messages as they pass through: bodies, forwarding rules, responses of our own.
//!
//! The lowest layer: it knows neither filters nor sockets. `downstream`, `exchange` and `upstream` speak to each
//! other in these types.

pub mod authority;
pub mod body;
pub mod call_depth;
pub mod detach;
pub mod failpoint;
pub mod fields;
pub mod flags;
pub mod forwarding;
pub mod grpc;
pub mod http2_frames;
pub mod local_response;
pub mod origin;
pub mod path;
pub mod proxy_protocol;
pub mod receive;
pub mod request_id;
pub mod sampling;
pub mod tunnel;
pub mod upgrade;
pub mod websocket;

pub use body::{Body, BodyError, BodyFault, BodyReason};
pub use detach::detach;
pub use flags::ResponseFlag;
pub use forwarding::{ForwardedCertificate, Peer, response_arrived, upstream_request};
pub use local_response::local_response;
pub use origin::{Forwarding, Origin};
pub use receive::{ArrivedRequest, Rejection, request_arrived};
pub use sampling::never_sample;
pub use tunnel::{Duplex, Tunnel};
pub use upgrade::Upgrade;
