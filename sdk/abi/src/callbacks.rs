//! `meshgate.callbacks`: callbacks that a plugin has no use for.

use prost::Message;

/// What the host need not call for this plugin. Argument of [`function::CALLBACKS`](crate::function::CALLBACKS).
///
/// ```proto
/// message Callbacks { repeated string unused = 1; repeated string grpc_only = 2; }
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct Callbacks {
    /// Callbacks of a stream, as manifests write them: without `proxy_on_`, such as `request_headers`.
    #[prost(string, repeated, tag = "1")]
    pub unused: Vec<String>,
    /// Those that are of no use but for requests of gRPC.
    #[prost(string, repeated, tag = "2")]
    pub grpc_only: Vec<String>,
}
