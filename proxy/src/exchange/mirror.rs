//! Copies of a request for the clusters that its route mirrors it to. Nothing of the exchange waits for them: a body is copied
//! as it passes, into buffers that are bounded, and what does not keep up gets no more of it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use meshgate_wasm::RequestHead;

use super::body::Received;
use super::record::Exchange;
use crate::filter::{FilteredBody, Mirror};
use crate::message::{Body, BodyError, BodyFault, BodyReason, authority, never_sample, upstream_request};
use crate::snapshot::Listener;
use crate::upstream::{Copied, send_copy};

/// How long a copy may take if the exchange may take any time.
const DEFAULT_TIME: Duration = Duration::from_secs(30);

/// Begins the copies that the route asks for, and gives back the request's body, which they are fed from.
pub(super) fn begin(
    exchange: &Exchange,
    head: &RequestHead,
    headers: &HeaderMap,
    body: FilteredBody<Received>,
) -> Body {
    let body = Body::stream(body);
    let Some(extras) = exchange.stream.extras().filter(|extras| !extras.mirrors.is_empty()) else {
        return body;
    };
    if head.method == Method::CONNECT || exchange.offer.is_made() {
        // What follows such a head is a conversation.
        return body;
    }
    let comparison =
        extras.mirrors.iter().any(|mirror| mirror.compare).then(|| Rc::new(Comparison::default()));
    let mut feeds = Vec::new();
    for mirror in &extras.mirrors {
        let buffer = (!body.is_end_stream()).then(|| Rc::new(Buffer::new(mirror.buffer)));
        feeds.extend(buffer.clone().map(Feed));
        send(exchange, mirror, head, headers, buffer, comparison.clone().filter(|_| mirror.compare));
    }
    if let Some(comparison) = comparison {
        exchange.compare_with(comparison);
    }
    if feeds.is_empty() {
        return body;
    }
    let left = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    Body::stream(Tee { body, feeds, left })
}

/// Sends a copy, from a task of its own.
fn send(
    exchange: &Exchange,
    mirror: &Mirror,
    head: &RequestHead,
    headers: &HeaderMap,
    buffer: Option<Rc<Buffer>>,
    comparison: Option<Rc<Comparison>>,
) {
    // It exists: that was checked when the route was decided.
    let Some(cluster) = exchange.listener.clusters.find(&mirror.cluster) else { return };
    let mut head = head.clone();
    head.authority = shadow(&head.authority, &mirror.suffix);
    let body = buffer.clone().map_or_else(Body::empty, |buffer| Body::stream(CopyBody(buffer)));
    let mut headers = headers.clone();
    never_sample(&mut headers);
    let mut request = upstream_request(&head, headers, body);
    if cluster.tells_clients()
        && let Some(client) = exchange.client()
    {
        request.extensions_mut().insert(client);
    }
    let listener = Rc::clone(&exchange.listener);
    let time = exchange.time_limit().unwrap_or(DEFAULT_TIME);
    tokio::task::spawn_local(async move {
        let name = Rc::clone(cluster.name());
        let counted = |copied: Copied| {
            let overrun = buffer.is_some_and(|buffer| buffer.end.get() == End::Overrun);
            listener.metrics.mirrored(&name, if overrun { "overrun" } else { word(copied) });
            if let (Copied::Answered(status), Some(comparison)) = (copied, comparison) {
                comparison.copy(&listener, &name, status);
            }
        };
        send_copy(&listener.upstream, &cluster, request, time, counted).await;
    });
}

fn word(copied: Copied) -> &'static str {
    match copied {
        Copied::Answered(_) => "answered",
        Copied::Failed => "failed",
        Copied::Refused => "refused",
    }
}

/// The authority with something at the end of its host; an IP address in brackets stays as it is.
fn shadow(authority: &HeaderValue, suffix: &str) -> HeaderValue {
    let bytes = authority.as_bytes();
    let host = authority::host(bytes);
    if suffix.is_empty() || host.is_empty() || host.starts_with(b"[") {
        return authority.clone();
    }
    let mut shadowed = BytesMut::with_capacity(bytes.len() + suffix.len());
    shadowed.extend_from_slice(host);
    shadowed.extend_from_slice(suffix.as_bytes());
    shadowed.extend_from_slice(&bytes[host.len()..]);
    HeaderValue::from_maybe_shared(shadowed.freeze()).unwrap_or_else(|_| authority.clone())
}

/// The status of the endpoint's answer beside those of the copies', whichever comes first.
#[derive(Default)]
pub(super) struct Comparison {
    endpoint: Cell<Option<StatusCode>>,
    early: RefCell<Vec<(Rc<str>, StatusCode)>>,
}

impl Comparison {
    /// The endpoint has answered.
    pub(super) fn endpoint(&self, listener: &Listener, status: StatusCode) {
        self.endpoint.set(Some(status));
        for (cluster, copy) in self.early.take() {
            listener.metrics.compared(&cluster, copy == status);
        }
    }

    fn copy(&self, listener: &Listener, cluster: &Rc<str>, status: StatusCode) {
        match self.endpoint.get() {
            Some(endpoint) => listener.metrics.compared(cluster, endpoint == status),
            None => self.early.borrow_mut().push((Rc::clone(cluster), status)),
        }
    }
}

/// What has passed of a body, and waits to be sent to a mirror.
struct Buffer {
    frames: RefCell<VecDeque<Frame<Bytes>>>,
    bytes: Cell<usize>,
    most: usize,
    end: Cell<End>,
    waker: Cell<Option<Waker>>,
}

/// How far a body has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// More may follow.
    Open,
    /// All of it has passed.
    Whole,
    /// The request's own body broke, or nobody reads it to its end.
    Broken,
    /// The mirror did not keep up.
    Overrun,
    /// The mirror wants no more.
    Gone,
}

impl Buffer {
    fn new(most: usize) -> Buffer {
        Buffer {
            frames: RefCell::default(),
            bytes: Cell::new(0),
            most,
            end: Cell::new(End::Open),
            waker: Cell::new(None),
        }
    }

    fn push(&self, frame: &Frame<Bytes>) {
        if self.end.get() != End::Open {
            return;
        }
        let (copy, length) = match (frame.data_ref(), frame.trailers_ref()) {
            (Some(bytes), _) => (Frame::data(bytes.clone()), bytes.len()),
            (None, Some(trailers)) => (Frame::trailers(trailers.clone()), 0),
            (None, None) => return,
        };
        let bytes = self.bytes.get() + length;
        // One frame always has room: how large frames are is not for the one who sets the limit to know.
        if bytes > self.most && !self.frames.borrow().is_empty() {
            self.frames.borrow_mut().clear();
            return self.finish(End::Overrun);
        }
        self.bytes.set(bytes);
        self.frames.borrow_mut().push_back(copy);
        self.wake();
    }

    /// No more will come.
    fn finish(&self, end: End) {
        if self.end.get() == End::Open {
            self.end.set(end);
            self.wake();
        }
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// The end of a buffer that is written.
struct Feed(Rc<Buffer>);

impl Drop for Feed {
    fn drop(&mut self) {
        self.0.finish(End::Broken);
    }
}

/// The body of a copy.
struct CopyBody(Rc<Buffer>);

impl http_body::Body for CopyBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let buffer = &self.0;
        if let Some(frame) = buffer.frames.borrow_mut().pop_front() {
            buffer.bytes.set(buffer.bytes.get() - frame.data_ref().map_or(0, Bytes::len));
            return Poll::Ready(Some(Ok(frame)));
        }
        let details = match buffer.end.get() {
            End::Open => {
                buffer.waker.set(Some(cx.waker().clone()));
                return Poll::Pending;
            }
            End::Whole => return Poll::Ready(None),
            End::Overrun => "the mirror is slower than its buffer allows",
            End::Broken | End::Gone => "the request's own body broke",
        };
        let error = BodyError::new(BodyFault::Internal, BodyReason::Aborted, details);
        Poll::Ready(Some(Err(error)))
    }

    fn is_end_stream(&self) -> bool {
        self.0.end.get() == End::Whole && self.0.frames.borrow().is_empty()
    }
}

impl Drop for CopyBody {
    fn drop(&mut self) {
        self.0.finish(End::Gone);
        self.0.frames.borrow_mut().clear();
    }
}

/// A request's body, of which each frame is copied as it passes.
struct Tee {
    body: Body,
    feeds: Vec<Feed>,
    /// Bytes still to come, if their number was announced: nobody asks for more when they are there.
    left: Option<u64>,
}

impl Tee {
    fn end(&mut self, end: End) {
        for feed in self.feeds.drain(..) {
            feed.0.finish(end);
        }
    }
}

impl http_body::Body for Tee {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                for feed in &this.feeds {
                    feed.0.push(frame);
                }
                let length = frame.data_ref().map_or(0, |bytes| bytes.len() as u64);
                this.left = this.left.map(|left| left.saturating_sub(length));
                if this.body.is_end_stream() || frame.is_trailers() || this.left == Some(0) {
                    this.end(End::Whole);
                }
            }
            Some(Err(_)) => this.end(End::Broken),
            None => this.end(End::Whole),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    fn data(text: &'static str) -> Frame<Bytes> {
        Frame::data(Bytes::from_static(text.as_bytes()))
    }

    fn buffer(most: usize) -> (Feed, CopyBody) {
        let buffer = Rc::new(Buffer::new(most));
        (Feed(Rc::clone(&buffer)), CopyBody(buffer))
    }

    #[test]
    fn hosts_get_a_suffix_before_their_port() {
        for (authority, expected) in [
            ("shop.example", "shop.example-shadow"),
            ("shop.example:8080", "shop.example-shadow:8080"),
            ("[::1]:8080", "[::1]:8080"),
            ("", ""),
        ] {
            let authority = HeaderValue::from_static(authority);
            assert_eq!(shadow(&authority, "-shadow"), expected);
            assert_eq!(shadow(&authority, ""), authority);
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_copy_has_the_whole_body_and_its_trailers() {
        let (feed, copy) = buffer(100);
        feed.0.push(&data("ab"));
        feed.0.push(&data("c"));
        let mut trailers = HeaderMap::new();
        trailers.insert("x-end", HeaderValue::from_static("1"));
        feed.0.push(&Frame::trailers(trailers.clone()));
        feed.0.finish(End::Whole);
        drop(feed);
        let whole = copy.collect().await.unwrap();
        assert_eq!(whole.trailers(), Some(&trailers));
        assert_eq!(whole.to_bytes(), "abc");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_copy_that_does_not_keep_up_is_given_up() {
        let (feed, mut copy) = buffer(3);
        feed.0.push(&data("abcd"));
        assert_eq!(copy.frame().await.unwrap().unwrap().into_data().unwrap(), "abcd");
        feed.0.push(&data("ab"));
        feed.0.push(&data("c"));
        assert_eq!(copy.0.bytes.get(), 3);
        feed.0.push(&data("d"));
        feed.0.finish(End::Whole);
        assert!(copy.0.frames.borrow().is_empty());
        assert_eq!(copy.frame().await.unwrap().unwrap_err().reason, BodyReason::Aborted);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_copy_of_a_broken_body_breaks() {
        let (feed, mut copy) = buffer(100);
        feed.0.push(&data("ab"));
        drop(feed);
        assert!(copy.frame().await.unwrap().is_ok() && copy.frame().await.unwrap().is_err());
    }

    #[test]
    fn nothing_is_kept_for_a_mirror_that_is_gone() {
        let (feed, copy) = buffer(100);
        feed.0.push(&data("ab"));
        drop(copy);
        feed.0.push(&data("cd"));
        assert!(feed.0.frames.borrow().is_empty());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn an_announced_length_ends_the_copies() {
        let (feed, copy) = buffer(100);
        let mut tee = Tee { body: Body::full("abc"), feeds: vec![feed], left: Some(3) };
        assert!(tee.frame().await.unwrap().is_ok());
        drop(tee);
        assert_eq!(copy.collect().await.unwrap().to_bytes(), "abc");
    }
}
