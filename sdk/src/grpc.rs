//! Unary gRPC calls that a filter makes. Streams are in `grpc_stream.rs`.

use std::fmt;
use std::time::Duration;

use prost::Message;

use crate::call::bounded;
use crate::config::Cluster;
use crate::error::Stop;
use crate::headers::text;
use crate::host::{self, GrpcCall as Wire, Status};
use crate::reply::Reply;
use crate::runtime::calls;
use crate::trace;

/// A unary gRPC call, to one of the host's clusters. It begins with [`Cluster::grpc`].
///
/// Messages are prost's; [`send_bytes`](Self::send_bytes) is for those who encode them in another way.
///
/// ```
/// # use meshgate_sdk::prelude::*;
/// # #[derive(Clone, PartialEq, prost::Message)]
/// # struct CheckRequest { #[prost(string, tag = "1")] path: String }
/// # #[derive(Clone, PartialEq, prost::Message)]
/// # struct CheckResponse { #[prost(bool, tag = "1")] allowed: bool }
/// # struct Check { policy: Cluster }
/// # #[filter]
/// # impl Filter for Check {
/// # fn configure(_: Empty) -> Result<Self, ConfigError> { Ok(Self { policy: "policy".into() }) }
/// async fn on_request(&self, exchange: &Exchange<Self>) -> Outcome {
///     let question = CheckRequest { path: exchange.request().path() };
///     let answer: CheckResponse =
///         self.policy.grpc("example.Policy", "Check").timeout(Duration::from_millis(50)).send(&question).await?;
///     if answer.allowed { Ok(()) } else { Reply::new(403).into() }
/// }
/// # }
/// # fn main() {}
/// ```
#[must_use = "a call is made by `.send(…).await`"]
#[derive(Clone, Debug)]
pub struct GrpcCall {
    cluster: String,
    service: String,
    method: String,
    metadata: Vec<(String, String)>,
    timeout: Duration,
}

impl Cluster {
    /// Begins a gRPC call to this cluster, of a service by its full name (`package.Service`). Without
    /// [`timeout`](GrpcCall::timeout) it has five seconds.
    pub fn grpc(&self, service: impl Into<String>, method: impl Into<String>) -> GrpcCall {
        GrpcCall {
            cluster: self.as_str().to_owned(),
            service: service.into(),
            method: method.into(),
            metadata: Vec::new(),
            timeout: Duration::from_secs(5),
        }
    }
}

impl GrpcCall {
    /// Adds a field of metadata.
    pub fn metadata(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.push((name.into(), value.into()));
        self
    }

    /// Carries a trace on, as [`Call::trace`](crate::Call::trace).
    pub fn trace(self, context: Option<trace::Context>) -> Self {
        context
            .iter()
            .flat_map(trace::Context::fields)
            .fold(self, |call, (name, value)| call.metadata(name, value))
    }

    /// Bounds the time until the answer is there.
    pub fn timeout(mut self, timeout: impl Into<Duration>) -> Self {
        self.timeout = timeout.into();
        self
    }

    /// Makes the call with this message and waits for the answer. Whoever waits no longer has cancelled it.
    ///
    /// # Errors
    /// The call ended with a status other than OK, or with a message of another type; [`GrpcError`] says which.
    pub async fn send<T: Message + Default>(self, message: &impl Message) -> Result<T, GrpcError> {
        let answer = self.send_bytes(message.encode_to_vec()).await?;
        T::decode(&*answer).map_err(|error| GrpcError { status: 13, message: error.to_string() })
    }

    /// Makes the call with this message, encoded, and waits for the answer, encoded.
    ///
    /// # Errors
    /// As for [`send`](Self::send).
    pub async fn send_bytes(self, message: impl Into<Vec<u8>>) -> Result<Vec<u8>, GrpcError> {
        calls::place().await.map_err(GrpcError::refused)?;
        let metadata = self.metadata.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        let token = host::grpc_call(Wire {
            cluster: &self.cluster,
            service: &self.service,
            method: &self.method,
            metadata: metadata.collect(),
            message: &message.into(),
            timeout: bounded(self.timeout),
        });
        match calls::grpc(token.map_err(GrpcError::refused)?).await {
            Ok(answer) => Ok(answer),
            Err((status, message)) => Err(GrpcError { status, message: text(message) }),
        }
    }
}

/// The status with which a gRPC call ended, if not OK.
///
/// `?` in a callback answers the exchange with 504 for `DEADLINE_EXCEEDED`, with 503 for `UNAVAILABLE`, else with 502.
///
/// ```
/// use meshgate_sdk::{GrpcError, Stop};
///
/// fn fallback(result: Result<u32, GrpcError>) -> Result<u32, Stop> {
///     match result {
///         Err(error) if error.status() == GrpcError::NOT_FOUND => Ok(0),
///         other => Ok(other?),
///     }
/// }
/// # assert_eq!(fallback(Ok(3)).unwrap(), 3);
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GrpcError {
    status: u32,
    message: String,
}

impl GrpcError {
    /// Somebody gave it up.
    pub const CANCELLED: u32 = 1;
    /// It took longer than its timeout.
    pub const DEADLINE_EXCEEDED: u32 = 4;
    /// What was asked for does not exist.
    pub const NOT_FOUND: u32 = 5;
    /// The caller may not do that.
    pub const PERMISSION_DENIED: u32 = 7;
    /// There is too much of something.
    pub const RESOURCE_EXHAUSTED: u32 = 8;
    /// It is too late for that, or too early.
    pub const FAILED_PRECONDITION: u32 = 9;
    /// There is no such method.
    pub const UNIMPLEMENTED: u32 = 12;
    /// Something is broken: also an answer that cannot be decoded.
    pub const INTERNAL: u32 = 13;
    /// The service cannot be reached: also a cluster that does not exist, or too many calls.
    pub const UNAVAILABLE: u32 = 14;
    /// The caller did not say who it is.
    pub const UNAUTHENTICATED: u32 = 16;

    #[cold]
    pub(crate) fn new(status: u32, message: &str) -> Self {
        Self { status, message: message.to_owned() }
    }

    #[cold]
    pub(crate) fn refused(status: Status) -> Self {
        Self { status: Self::UNAVAILABLE, message: format!("the host did not make the call: {status}") }
    }

    /// The status, as gRPC numbers it.
    pub fn status(&self) -> u32 {
        self.status
    }

    /// The words beside it; often empty.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for GrpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the call ended with gRPC status {}: {}", self.status, self.message)
    }
}

impl std::error::Error for GrpcError {}

impl From<GrpcError> for Stop {
    #[cold]
    fn from(error: GrpcError) -> Self {
        crate::warn!("{error}");
        let status = match error.status {
            GrpcError::DEADLINE_EXCEEDED => 504,
            GrpcError::UNAVAILABLE => 503,
            _ => 502,
        };
        Reply::new(status).details("grpc_call_failed").into()
    }
}
