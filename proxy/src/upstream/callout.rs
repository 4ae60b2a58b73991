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
    let cancelled = reply.cancelled();
    begin(upstream, cluster, call, cancelled, |outcome| reply.deliver(outcome))
}

fn begin(
    upstream: &Rc<Upstream>,
    cluster: Rc<Cluster>,
    call: HttpCall,
    cancelled: impl Future<Output = ()> + 'static,
    deliver: impl FnOnce(Result<HttpCallResponse, CallFailure>) + 'static,
) -> Result<(), CallError> {
    if upstream.calls().get() >= MAX_CALLS {
        return Err(CallError::CannotStart);
    }
    let counted = Counted::new(upstream.calls());
    let upstream = upstream.clone();
    tokio::task::spawn_local(async move {
        let outcome = tokio::select! {
            outcome = perform(&upstream, &cluster, call) => outcome,
            // The request is broken off, as a client's that leaves.
            () = cancelled => Err(CallFailure::Reset),
        };
        drop(counted);
        deliver(outcome);
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
) -> Result<HttpCallResponse, CallFailure> {
    // Zero means that the filter did not say: a call without any limit would stay for ever.
    let timeout = call.timeout.filter(|timeout| !timeout.is_zero()).unwrap_or(DEFAULT_TIMEOUT);
    // The response is kept in memory as a whole.
    let most_body = usize::try_from(call.most_body).unwrap_or(usize::MAX);
    let attempt = Attempt::default();
    let exchange = exchange(upstream, cluster, request(call), most_body, &attempt);
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
    most_body: usize,
    attempt: &Attempt,
) -> Result<HttpCallResponse, CallFailure> {
    match upstream.send_over(cluster.protocol(), cluster, request, attempt).await {
        Ok(response) => collect(response, most_body).await,
        Err(error) => Err(match error.kind {
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
        }),
    }
}

async fn collect(
    response: Response<UpstreamBody>,
    most_body: usize,
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
