//! gRPC calls and streams of guests: what the embedder is asked for, and the way back of what comes.
//!
//! The guest's side is in `hostcalls/grpc.rs`; the wire is the embedder's.

mod events;
mod message;
mod service;
mod table;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue};

use std::rc::Rc;
use std::time::Duration;

use crate::exchange::ResponseHead;

pub use events::GrpcEvents;
pub(crate) use message::counted;
pub(crate) use service::Service;
pub(crate) use table::{Class, Counted, GrpcTable, UnderWay};

/// A gRPC call or stream that a guest wants.
#[derive(Clone, Debug)]
pub struct GrpcRequest {
    /// Where to: a cluster's name.
    pub cluster: String,
    /// `:authority`
    pub authority: HeaderValue,
    /// `/` service `/` method
    pub path: PathAndQuery,
    /// The guest's metadata, checked; without what gRPC itself sets.
    pub metadata: HeaderMap,
    /// A call or a stream.
    pub kind: GrpcKind,
    /// The most bytes of a message that comes. Tell of a larger one by [`GrpcEvents::message_too_large`].
    pub most_message: u64,
    /// The most bytes that may wait to be sent, each message counted with [`GrpcRequest::MESSAGE_COST`] more.
    pub most_queued: u64,
    /// How many calls there are in a row with this one, each made while the one before is served. To be told to the
    /// server, in case it is a Meshgate.
    pub depth: u32,
    /// As [`crate::HttpCall::ended`].
    pub ended: bool,
}

impl GrpcRequest {
    /// What a message that waits takes beside its bytes: messages may be empty, and many.
    pub const MESSAGE_COST: u64 = 64;
}

/// What a guest wants of a method.
#[derive(Clone, Debug)]
pub enum GrpcKind {
    /// One message there, one back.
    Call {
        /// The message, without its prefix.
        message: Bytes,
        /// How long the whole call may take; none for the embedder's default.
        timeout: Option<Duration>,
    },
    /// Messages both ways, for as long as both sides want.
    Stream,
}

/// The sending side of a call or stream, as the embedder implements it. Dropping it cancels: nothing is delivered
/// any more. Its methods run inside a hostcall and must not call back into a VM.
pub trait GrpcSender {
    /// Queues a message, without its prefix, and ends our side if it is the last. The message counts against what the plugin's
    /// calls may hold until the last clone of it is dropped.
    ///
    /// # Errors
    /// Why the message is not taken; the guest sees BAD_ARGUMENT.
    fn send(&self, message: Option<Bytes>, last: bool) -> Result<(), GrpcSendError>;

    /// Ends the call or stream, which stays until [`GrpcEvents::answer`] or [`GrpcEvents::close`] tells of its end: soon, and from
    /// a fresh stack, with the status CANCELLED. Nothing else is delivered any more.
    fn cancel(&self);
}

/// Why a message is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrpcSendError {
    /// The guest has ended its side.
    #[error("the sending side has ended")]
    Ended,
    /// More than [`GrpcRequest::most_queued`] bytes wait to be sent.
    #[error("too many bytes wait to be sent")]
    Full,
}

/// The status that a call or stream ends with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcStatus {
    /// 0 to 16, or whatever the server said.
    pub code: u32,
    /// The words beside it.
    pub message: Bytes,
}

/// What arrived on a call or stream.
#[derive(Clone, Debug)]
pub(crate) enum GrpcEvent {
    Initial(Rc<GrpcMetadata>),
    Message(Bytes),
    Trailing(Rc<GrpcMetadata>),
    Closed(GrpcStatus),
}

/// Initial or trailing metadata.
#[derive(Clone, Debug)]
pub enum GrpcMetadata {
    /// A response's head, with its status. As trailing metadata: of a response that has nothing else.
    Head(ResponseHead),
    /// Fields, possibly none.
    Fields(HeaderMap),
}

impl GrpcMetadata {
    pub(crate) fn count(&self) -> usize {
        match self {
            GrpcMetadata::Head(head) => head.count(),
            GrpcMetadata::Fields(fields) => fields.len(),
        }
    }
}

impl GrpcStatus {
    /// A status with the host's own words.
    pub fn new(code: u32, message: &'static str) -> GrpcStatus {
        GrpcStatus { code, message: Bytes::from_static(message.as_bytes()) }
    }

    /// What ends a call or stream that the guest gave up.
    pub fn cancelled() -> GrpcStatus {
        const CANCELLED: u32 = 1;
        GrpcStatus::new(CANCELLED, "the filter gave it up")
    }
}
