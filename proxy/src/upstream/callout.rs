//! HTTP calls of filters to clusters: one request, one complete response, delivered later.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, TRAILER, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use meshgate_wasm::{CallError, CallFailure, HttpCall, HttpCallReply, HttpCallResponse, ResponseHead};

use super::attempt::Attempt;
use super::cluster::Cluster;
use super::error::UpstreamErrorKind;
use super::send::{Upstream, UpstreamBody};
use crate::message::{Body, BodyError, call_depth, response_arrived, upstream_request};

/// How long a call may take if nobody says.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// Calls that a worker has under way at most, those of gRPC included.
pub(super) const MAX_CALLS: usize = 1024;

/// Sends `call` to `cluster` from a task of its own and delivers the outcome, never before this returns.
///
/// # Errors
/// Too many calls are under way on this worker; nothing will be delivered.
pub fn start(
    upstream: &Rc<Upstream>,
    cluster: Rc<Cluster>,
    call: HttpCall,
    reply: HttpCallReply,
) -> Result<(), CallError> {
    begin(upstream, cluster, call, reply)
}

/// Who made a call: a filter, or a test.
trait Caller {
    /// Is ready when the outcome is not wanted any more.
    fn cancelled(&self) -> impl Future<Output = ()> + 'static;
    /// Whether so many bytes more of the response may be held.
    fn has_room(&self, bytes: usize) -> bool;
    fn deliver(self, outcome: Result<HttpCallResponse, CallFailure>);
}

impl Caller for HttpCallReply {
    fn cancelled(&self) -> impl Future<Output = ()> + 'static {
        HttpCallReply::cancelled(self)
    }

    fn has_room(&self, bytes: usize) -> bool {
        HttpCallReply::has_room(self, bytes)
    }

    fn deliver(self, outcome: Result<HttpCallResponse, CallFailure>) {
        HttpCallReply::deliver(self, outcome);
    }
}

fn begin(
    upstream: &Rc<Upstream>,
    cluster: Rc<Cluster>,
    call: HttpCall,
    caller: impl Caller + 'static,
) -> Result<(), CallError> {
    if upstream.calls().get() >= MAX_CALLS {
        return Err(CallError::CannotStart);
    }
    let counted = Counted::new(upstream.calls());
    let upstream = upstream.clone();
    tokio::task::spawn_local(async move {
        let outcome = tokio::select! {
            outcome = perform(&upstream, &cluster, call, &caller) => outcome,
            // The request is broken off, as a client's that leaves.
            () = caller.cancelled() => Err(CallFailure::Reset),
        };
        drop(counted);
        caller.deliver(outcome);
    });
    Ok(())
}

/// Counts a call of a filter for as long as it lives.
pub(super) struct Counted {
    under_way: Rc<Cell<usize>>,
}

impl Counted {
    pub(super) fn new(under_way: &Rc<Cell<usize>>) -> Counted {
        under_way.set(under_way.get() + 1);
        Counted { under_way: under_way.clone() }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.under_way.set(self.under_way.get().saturating_sub(1));
    }
}

async fn perform(
    upstream: &Upstream,
    cluster: &Cluster,
    call: HttpCall,
    caller: &impl Caller,
) -> Result<HttpCallResponse, CallFailure> {
    // Zero means that the filter did not say: a call without any limit would stay for ever.
    let timeout = call.timeout.filter(|timeout| !timeout.is_zero()).unwrap_or(DEFAULT_TIMEOUT);
    let most_body = usize::try_from(call.most_body).unwrap_or(usize::MAX);
    let attempt = Attempt::default();
    let exchange = async {
        let response = exchange(upstream, cluster, request(call), &attempt).await?;
        collect(response, most_body, caller).await
    };
    tokio::time::timeout(timeout, exchange).await.unwrap_or_else(|_| {
        attempt.is_late(cluster);
        Err(CallFailure::Timeout)
    })
}

fn request(call: HttpCall) -> Request<Body> {
    let HttpCall { mut request, body, trailers, depth, .. } = call;
    let mut headers = std::mem::take(&mut request.headers);
    call_depth::mark(&mut headers, depth);
    let body = if trailers.is_empty() {
        if !body.is_empty() {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        }
        Body::full(body)
    } else {
        headers.remove(CONTENT_LENGTH);
        // The length is known, so hyper would not send chunks, and without chunks no trailers.
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        announce(&mut headers, &trailers);
        Body::stream(Body::full(body).with_trailers(std::future::ready(Some(Ok::<_, BodyError>(trailers)))))
    };
    upstream_request(&request, headers, body)
}

/// HTTP/1.1 sends only trailers that the head announced.
fn announce(headers: &mut HeaderMap, trailers: &HeaderMap) {
    let names: Vec<&str> = trailers.keys().map(HeaderName::as_str).collect();
    if let Ok(names) = HeaderValue::from_str(&names.join(", ")) {
        headers.insert(TRAILER, names);
    }
}

async fn exchange(
    upstream: &Upstream,
    cluster: &Cluster,
    request: Request<Body>,
    attempt: &Attempt,
) -> Result<Response<UpstreamBody>, CallFailure> {
    let answered = upstream.send_over(cluster.protocol(), cluster, request, attempt).await;
    answered.map_err(|error| match error.kind {
        UpstreamErrorKind::NoEndpoint => CallFailure::NoEndpoint,
        UpstreamErrorKind::ConnectFailed
        | UpstreamErrorKind::ConnectTimeout
        | UpstreamErrorKind::Unsent
        | UpstreamErrorKind::TlsFailed
        | UpstreamErrorKind::Overflow => CallFailure::ConnectFailed,
        UpstreamErrorKind::Reset { .. }
        | UpstreamErrorKind::StreamReset { .. }
        | UpstreamErrorKind::Refused
        | UpstreamErrorKind::Protocol => CallFailure::Unanswered,
        UpstreamErrorKind::NoUpgrades | UpstreamErrorKind::RequestBody(_) => CallFailure::Reset,
    })
}

/// The response is kept in memory as a whole, as far as there is room.
async fn collect(
    response: Response<UpstreamBody>,
    most_body: usize,
    caller: &impl Caller,
) -> Result<HttpCallResponse, CallFailure> {
    let (parts, body) = response.into_parts();
    let mut headers = parts.headers;
    // A head that is not acceptable is none.
    response_arrived(&mut headers).map_err(|_| CallFailure::Unanswered)?;
    let mut body = Limited::new(body, most_body);
    let mut bytes = Chunks::default();
    let mut trailers = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| match error.is::<LengthLimitError>() {
            true => CallFailure::TooLarge,
            false => CallFailure::Reset,
        })?;
        match frame.into_data() {
            Ok(chunk) if !caller.has_room(chunk.len()) => return Err(CallFailure::NoRoom),
            Ok(chunk) => bytes.push(chunk),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    let head = ResponseHead { status: parts.status, headers };
    Ok(HttpCallResponse { head, body: bytes.join(), trailers })
}

/// A body's chunks; the usual single one is not copied.
#[derive(Default)]
struct Chunks {
    first: Bytes,
    joined: BytesMut,
}

impl Chunks {
    fn push(&mut self, chunk: Bytes) {
        if self.first.is_empty() && self.joined.is_empty() {
            self.first = chunk;
        } else {
            let first = std::mem::take(&mut self.first);
            self.joined.extend_from_slice(&first);
            self.joined.extend_from_slice(&chunk);
        }
    }

    fn join(self) -> Bytes {
        if self.joined.is_empty() { self.first } else { self.joined.freeze() }
    }
}

#[cfg(test)]
mod tests;
