//! gRPC calls and streams of filters to clusters. Always over HTTP/2, whatever the cluster's protocol.
//!
//! Each is a task of its own, which ends with the last word to the filter, or when the filter lets go of its sending side.

mod framing;
mod incoming;
mod outgoing;
mod status;

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, TE};
use http::uri::Scheme;
use http::{HeaderMap, HeaderValue, Method, Response, Version};
use meshgate_config::ClusterProtocol;
use meshgate_wasm::{
    CallError, GrpcEvents, GrpcKind, GrpcMetadata, GrpcRequest, GrpcSender, GrpcStatus, RequestHead,
};

use self::framing::Single;
use self::incoming::{Incoming, Item, Opened};
use self::outgoing::{Outbox, Sender};
use super::attempt::Attempt;
use super::callout::{Counted, MAX_CALLS};
use super::cluster::Cluster;
use super::error::UpstreamErrorKind;
use super::send::{Upstream, UpstreamBody};
use crate::message::{Body, call_depth, upstream_request};

/// How long a call may take if the filter does not say. Streams last as long as both sides want.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Sends `request` to `cluster` from a task of its own, and delivers what comes, never before this returns.
///
/// # Errors
/// Too many calls are under way on this worker; nothing will be delivered.
pub fn start(
    upstream: &Rc<Upstream>,
    cluster: Rc<Cluster>,
    request: GrpcRequest,
    events: GrpcEvents,
) -> Result<Box<dyn GrpcSender>, CallError> {
    if upstream.calls().get() >= MAX_CALLS {
        return Err(CallError::CannotStart);
    }
    let counted = Counted::new(upstream.calls());
    let outbox = Outbox::new(request.most_queued);
    let callee = Callee {
        upstream: Rc::clone(upstream),
        cluster,
        attempt: Attempt::default(),
        max_message: usize::try_from(request.most_message).unwrap_or(usize::MAX),
    };
    let GrpcRequest { authority, path, metadata, kind, depth, .. } = request;
    let mut head = RequestHead {
        method: Method::POST,
        scheme: Scheme::HTTP,
        authority,
        path,
        version: Version::HTTP_2,
        headers: headers(metadata, depth),
    };
    let task = match kind {
        GrpcKind::Call { message, timeout } => {
            head.headers.extend(timeout.map(|timeout| (GRPC_TIMEOUT, timeout_value(timeout))));
            let timeout = timeout.unwrap_or(DEFAULT_TIMEOUT);
            let outbox = Rc::clone(&outbox);
            tokio::task::spawn_local(async move {
                let call = tokio::time::timeout(timeout, callee.call(&head, message, &events));
                let outcome = tokio::select! {
                    outcome = call => outcome.unwrap_or_else(|_| {
                        callee.attempt.is_late(&callee.cluster);
                        Err(status::deadline_exceeded())
                    }),
                    () = outbox.cancelled() => Err(GrpcStatus::cancelled()),
                };
                drop(counted);
                events.answer(outcome);
            })
        }
        GrpcKind::Stream => {
            let outbox = Rc::clone(&outbox);
            tokio::task::spawn_local(async move {
                let _counted = counted;
                let end = tokio::select! {
                    end = callee.stream(&head, outbox.body(), &events) => end,
                    () = outbox.cancelled() => None,
                };
                events.close(end.unwrap_or_else(GrpcStatus::cancelled));
            })
        }
    };
    Ok(Box::new(Sender::new(outbox, task.abort_handle())))
}

/// The fields of a request: the filter's, and gRPC's own.
fn headers(metadata: HeaderMap, depth: u32) -> HeaderMap {
    let mut headers = metadata;
    call_depth::mark(&mut headers, depth);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    headers
}

/// Whole milliseconds, of which there may be eight digits.
fn timeout_value(timeout: Duration) -> HeaderValue {
    let milliseconds = timeout.as_millis().min(99_999_999);
    HeaderValue::try_from(format!("{milliseconds}m")).unwrap_or_else(|_| HeaderValue::from_static("0m"))
}

/// Where calls go.
struct Callee {
    upstream: Rc<Upstream>,
    cluster: Rc<Cluster>,
    attempt: Attempt,
    max_message: usize,
}

impl Callee {
    /// One message there, one back.
    async fn call(
        &self,
        head: &RequestHead,
        message: Bytes,
        events: &GrpcEvents,
    ) -> Result<Bytes, GrpcStatus> {
        let mut response = self.send(head, Body::stream(Single::new(message.clone()))).await;
        if let Err(error) = &response
            && error.kind == UpstreamErrorKind::Refused
        {
            // It was not begun with, and it is all here.
            response = self.send(head, Body::stream(Single::new(message))).await;
        }
        let response = response.map_err(|error| status::of_upstream(&error))?;
        let Opened { head, incoming } = Opened::of(response, self.max_message)?;
        match incoming {
            Some(incoming) => single(incoming, events).await,
            None => Err(missing_message(status::of_fields(&head.headers))),
        }
    }

    async fn send(
        &self,
        head: &RequestHead,
        body: Body,
    ) -> Result<Response<UpstreamBody>, super::UpstreamError> {
        let request = upstream_request(head, head.headers.clone(), body);
        self.upstream.send_over(ClusterProtocol::Http2, &self.cluster, request, &self.attempt).await
    }

    /// Messages both ways. Whatever happens, the filter gets initial metadata, messages and trailing metadata in this order; then
    /// comes the end, with the status that this says. None if nobody listens any more.
    async fn stream(&self, head: &RequestHead, body: Body, events: &GrpcEvents) -> Option<GrpcStatus> {
        let none = || GrpcMetadata::Fields(HeaderMap::new());
        let opened = match self.send(head, body).await {
            Ok(response) => Opened::of(response, self.max_message).map_err(|status| (none(), status)),
            Err(error) => {
                let status = status::of_upstream(&error);
                Err((GrpcMetadata::Fields(status::fields(&status)), status))
            }
        };
        let initial = match &opened {
            Ok(Opened { head, incoming: Some(_) }) => GrpcMetadata::Head(head.clone()),
            _ => none(),
        };
        if !events.initial_metadata(initial) {
            return None;
        }
        let end = match opened {
            Ok(Opened { incoming: Some(incoming), .. }) => receive(incoming, events).await,
            Ok(Opened { head, incoming: None }) => {
                let status = status::of_fields(&head.headers);
                Some((GrpcMetadata::Head(head), status))
            }
            Err(failed) => Some(failed),
        };
        let (trailers, status) = end?;
        events.trailing_metadata(trailers).then_some(status)
    }
}

/// Delivers the messages of a stream, and says how it ended; none if nobody listens any more.
async fn receive(mut incoming: Incoming, events: &GrpcEvents) -> Option<(GrpcMetadata, GrpcStatus)> {
    loop {
        match incoming.next(events).await {
            Ok(Item::Message(message)) => {
                if !events.message(message) {
                    return None;
                }
                // Thousands of small messages may come in one go: everybody else's turn comes in between.
                tokio::task::consume_budget().await;
            }
            Ok(Item::End(trailers)) => {
                let status = status::of_fields(&trailers);
                return Some((GrpcMetadata::Fields(trailers), status));
            }
            Err(status) => return Some((GrpcMetadata::Fields(HeaderMap::new()), status)),
        }
    }
}

/// The one message of a call's response, if its status is OK.
async fn single(mut incoming: Incoming, events: &GrpcEvents) -> Result<Bytes, GrpcStatus> {
    let mut answer = None;
    loop {
        match incoming.next(events).await? {
            Item::Message(message) if answer.is_none() => answer = Some(message),
            Item::Message(_) => return Err(status::internal("more than one message")),
            Item::End(trailers) => {
                let status = status::of_fields(&trailers);
                return match answer {
                    Some(message) if status.code == status::OK => Ok(message),
                    _ => Err(missing_message(status)),
                };
            }
        }
    }
}

/// A call that goes well has a message.
fn missing_message(status: GrpcStatus) -> GrpcStatus {
    if status.code == status::OK { status::internal("no message") } else { status }
}
