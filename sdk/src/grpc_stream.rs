//! gRPC streams that a filter opens.

use std::fmt;
use std::future::poll_fn;

use prost::Message;

use crate::config::Cluster;
use crate::grpc::GrpcError;
use crate::headers::{Pairs, text};
use crate::host::{self, GrpcOpening, Status};
use crate::runtime::calls;
use crate::runtime::grpc_streams::{End, Handle};
use crate::trace;

/// Bytes of messages that may wait to be read, unless the filter says otherwise.
const MOST_UNREAD: usize = 1 << 20;

/// A gRPC stream that is to be opened, to one of the host's clusters. It begins with [`Cluster::grpc_stream`], and
/// [`open`](Self::open) makes a [`GrpcStream`] of it.
///
/// ```
/// # use meshgate_sdk::{Cluster, GrpcError, GrpcStream};
/// async fn watch(rules: &Cluster) -> Result<GrpcStream, GrpcError> {
///     rules.grpc_stream("example.Rules", "Watch").metadata("x-tenant", "web").unread(64 << 10).open().await
/// }
/// ```
#[must_use = "a stream is opened by `.open().await`"]
#[derive(Clone, Debug)]
pub struct OpenGrpcStream {
    cluster: String,
    service: String,
    method: String,
    metadata: Vec<(String, String)>,
    most_unread: usize,
}

impl Cluster {
    /// Begins a gRPC stream to this cluster: messages both ways, of a method of a service by its full name
    /// (`package.Service`). A call with one message each way is [`grpc`](Self::grpc).
    pub fn grpc_stream(&self, service: impl Into<String>, method: impl Into<String>) -> OpenGrpcStream {
        OpenGrpcStream {
            cluster: self.as_str().to_owned(),
            service: service.into(),
            method: method.into(),
            metadata: Vec::new(),
            most_unread: MOST_UNREAD,
        }
    }
}

impl OpenGrpcStream {
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

    /// Bounds the bytes of messages that have come and that the filter has not read yet: 1 MiB, if it says nothing. Hosts hold
    /// nothing back, so a stream of which more comes is cancelled, and ends with `RESOURCE_EXHAUSTED`.
    pub fn unread(mut self, bytes: usize) -> Self {
        self.most_unread = bytes;
        self
    }

    /// Opens the stream. It does not wait for the server: what becomes of it is heard from the first message on.
    ///
    /// A stream belongs to the exchange (or the tick) in whose callback it is opened, and ends with it.
    ///
    /// # Errors
    /// `UNAVAILABLE`: there is no such cluster, or there are too many calls and streams.
    pub async fn open(self) -> Result<GrpcStream, GrpcError> {
        calls::place().await.map_err(GrpcError::refused)?;
        let metadata = self.metadata.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        let id = host::grpc_stream(GrpcOpening {
            cluster: &self.cluster,
            service: &self.service,
            method: &self.method,
            metadata: metadata.collect(),
        });
        let id = id.map_err(GrpcError::refused)?;
        Ok(GrpcStream { handle: Handle::new(id, self.most_unread), closed: false })
    }
}

/// A gRPC stream under way: messages go and come, in their order. When it is dropped, it is cancelled.
///
/// ```
/// # use meshgate_sdk::prelude::*;
/// # #[derive(Clone, PartialEq, prost::Message)]
/// # struct Part { #[prost(bytes = "vec", tag = "1")] bytes: Vec<u8> }
/// # #[derive(Clone, PartialEq, prost::Message)]
/// # struct Verdict { #[prost(bool, tag = "1")] harmful: bool }
/// # struct Scan { scanner: Cluster }
/// # #[filter]
/// # impl Filter for Scan {
/// # fn configure(_: Empty) -> Result<Self, ConfigError> { Ok(Self { scanner: "scanner".into() }) }
/// async fn on_request_body(&self, _: &Exchange<Self>, body: &mut Body) -> Outcome {
///     let mut stream = self.scanner.grpc_stream("example.Scanner", "Scan").open().await?;
///     while let Some(bytes) = body.next().await? {
///         stream.send(&Part { bytes })?;
///     }
///     stream.close()?;                                             // nothing more from us
///     while let Some(verdict) = stream.message::<Verdict>().await? {
///         if verdict.harmful {
///             return Reply::new(422).into();                       // and the stream is cancelled
///         }
///     }
///     Ok(())
/// }
/// # }
/// # fn main() {
/// # use meshgate_sdk::testing::{Proxy, Request, StreamEvent};
/// # use prost::Message;
/// # let mut proxy = Proxy::new::<Scan>("");
/// # proxy.grpc_streams("scanner", |stream, event| match event {
/// #     StreamEvent::Message(part) => stream.send(Verdict { harmful: part.ends_with(b"!") }.encode_to_vec()),
/// #     StreamEvent::Ended => stream.end(),
/// #     _ => {}
/// # });
/// # assert_eq!(proxy.send(Request::post("/", "good")).status(), 200);
/// # assert_eq!(proxy.send(Request::post("/", "bad!")).status(), 422);
/// # }
/// ```
///
/// Nothing bounds the time that a stream takes but [`timeout`](crate::timeout) around what is awaited. One that is to outlive the
/// exchange is opened in `on_tick`, and kept in the filter.
#[must_use = "a stream that is dropped is cancelled"]
pub struct GrpcStream {
    handle: Handle,
    /// Our side has ended.
    closed: bool,
}

impl GrpcStream {
    /// Sends a message. It does not wait: what cannot go on yet is queued in the host.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED`: too much waits to be sent (`limits.grpc_queue`); nothing of the message was taken, and the stream
    /// goes on. `FAILED_PRECONDITION`: this side was closed, or the stream has ended well. Else the status with which it has ended.
    pub fn send(&self, message: &impl Message) -> Result<(), GrpcError> {
        self.send_bytes(message.encode_to_vec())
    }

    /// As [`send`](Self::send), for those who encode messages in another way.
    ///
    /// # Errors
    /// As for [`send`](Self::send).
    pub fn send_bytes(&self, message: impl AsRef<[u8]>) -> Result<(), GrpcError> {
        self.check()?;
        host::grpc_send(self.handle.id(), message.as_ref()).map_err(|status| match status {
            Status::BAD_ARGUMENT => {
                GrpcError::new(GrpcError::RESOURCE_EXHAUSTED, "too much waits to be sent")
            }
            status => GrpcError::refused(status),
        })
    }

    /// Ends this side of the stream: the server learns that nothing more follows. What it sends still comes.
    ///
    /// # Errors
    /// As for [`send`](Self::send); closing twice is none.
    pub fn close(&mut self) -> Result<(), GrpcError> {
        if self.closed {
            return Ok(());
        }
        self.check()?;
        self.closed = true;
        host::grpc_close(self.handle.id()).map_err(GrpcError::refused)
    }

    /// Waits for the next message; `None` when the server has ended the stream well.
    ///
    /// # Errors
    /// The stream ended with a status other than OK, or the message is of another type; [`GrpcError`] says which.
    pub async fn message<T: Message + Default>(&mut self) -> Result<Option<T>, GrpcError> {
        let Some(message) = self.message_bytes().await? else { return Ok(None) };
        let message = T::decode(&*message);
        message.map(Some).map_err(|error| GrpcError::new(GrpcError::INTERNAL, &error.to_string()))
    }

    /// As [`message`](Self::message), encoded.
    ///
    /// # Errors
    /// The stream ended with a status other than OK.
    pub async fn message_bytes(&mut self) -> Result<Option<Vec<u8>>, GrpcError> {
        let next = poll_fn(|context| self.handle.poll_message(context));
        match next.await {
            Ok(message) => Ok(Some(message)),
            Err((0, _)) => Ok(None),
            Err(end) => Err(failure(end)),
        }
    }

    /// Waits for what the server says before its first message. There is none if it says nothing but how the stream ends.
    pub async fn metadata(&mut self) -> Pairs {
        Pairs::new(poll_fn(|context| self.handle.poll_metadata(context)).await)
    }

    /// What the server said at the end; empty before that.
    pub fn trailers(&self) -> Pairs {
        Pairs::new(self.handle.trailers())
    }

    /// Whether something can still be sent.
    fn check(&self) -> Result<(), GrpcError> {
        match self.handle.end() {
            _ if self.closed => Err(GrpcError::new(GrpcError::FAILED_PRECONDITION, "this side is closed")),
            None => Ok(()),
            Some((0, _)) => Err(GrpcError::new(GrpcError::FAILED_PRECONDITION, "the stream has ended")),
            Some(end) => Err(failure(end)),
        }
    }
}

fn failure((status, words): End) -> GrpcError {
    GrpcError::new(status, &text(words))
}

impl fmt::Debug for GrpcStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrpcStream").field("id", &self.handle.id()).finish_non_exhaustive()
    }
}
