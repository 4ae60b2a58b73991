//! `meshgate.cancel`: a call, or a gRPC stream, ends, and its end is told.

use prost::Message;

/// The call or stream that is to end. Argument of [`function::CANCEL`](crate::function::CANCEL).
///
/// ```proto
/// message Cancel {
///   uint32 call = 1;
/// }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Message)]
pub struct Cancel {
    /// Its id, as `proxy_http_call`, `proxy_grpc_call` or `proxy_grpc_stream` gave it.
    #[prost(uint32, tag = "1")]
    pub call: u32,
}
