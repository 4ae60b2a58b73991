//! The one body type of the proxy: what goes upstream as a request body and downstream as a response body.
//!
//! A body that nobody looks at is hyper's own stream handed through, without a copy and without an allocation.
//! Everything lives on one worker thread, so bodies need not be `Send`.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Version;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

use super::Tunnel;

/// A request or response body: nothing, bytes at hand, or a stream. Or no body, but what takes its place.
pub struct Body {
    content: Content,
}

enum Content {
    Empty,
    Full(Bytes),
    Http1(Incoming),
    Http2(Incoming),
    Stream(Pin<Box<dyn http_body::Body<Data = Bytes, Error = BodyError>>>),
    Tunnel(Tunnel),
}

impl Body {
    /// A body without a byte; HTTP/1 sends no framing for it where none is needed.
    pub fn empty() -> Body {
        Body { content: Content::Empty }
    }

    /// A body whose bytes are all here.
    pub fn full(bytes: impl Into<Bytes>) -> Body {
        let bytes = bytes.into();
        if bytes.is_empty() { Body::empty() } else { Body { content: Content::Full(bytes) } }
    }

    /// A client's request body, handed through as it arrives by this version of HTTP.
    pub fn downstream(incoming: Incoming, version: Version) -> Body {
        let content = match version {
            _ if http_body::Body::is_end_stream(&incoming) => Content::Empty,
            Version::HTTP_2 => Content::Http2(incoming),
            _ => Content::Http1(incoming),
        };
        Body { content }
    }

    /// Any stream of frames.
    pub fn stream(stream: impl http_body::Body<Data = Bytes, Error = BodyError> + 'static) -> Body {
        if http_body::Body::is_end_stream(&stream) {
            Body::empty()
        } else {
            Body { content: Content::Stream(Box::pin(stream)) }
        }
    }

    /// What follows a head that changes the protocol. As a body it is empty.
    pub fn tunnel(tunnel: Tunnel) -> Body {
        Body { content: Content::Tunnel(tunnel) }
    }

    /// Takes out the tunnel, if that is what there is.
    pub fn take_tunnel(&mut self) -> Option<Tunnel> {
        if !matches!(self.content, Content::Tunnel(_)) {
            return None;
        }
        match std::mem::replace(&mut self.content, Content::Empty) {
            Content::Tunnel(tunnel) => Some(tunnel),
            _ => None,
        }
    }
}

impl Default for Body {
    fn default() -> Body {
        Body::empty()
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Body {
        Body::full(bytes)
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.content {
            Content::Empty => "empty",
            Content::Full(_) => "full",
            Content::Http1(_) | Content::Http2(_) => "downstream",
            Content::Stream(_) => "stream",
            Content::Tunnel(_) => "tunnel",
        };
        f.debug_struct("Body").field("kind", &kind).field("size", &http_body::Body::size_hint(self)).finish()
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.content {
            Content::Empty | Content::Tunnel(_) => Poll::Ready(None),
            Content::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                self.content = Content::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Content::Http1(incoming) => poll_downstream(incoming, cx),
            Content::Http2(incoming) => {
                let frame = ready!(poll_downstream(incoming, cx));
                // hyper takes a reset without an error for the end: but from a client that was still sending, it is not.
                if frame.is_none() && !incoming.is_end_stream() {
                    let cut = "the client reset its stream before the end";
                    return Poll::Ready(Some(Err(BodyError::new(
                        BodyFault::Downstream,
                        BodyReason::Closed,
                        cut,
                    ))));
                }
                Poll::Ready(frame)
            }
            Content::Stream(stream) => stream.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Empty | Content::Tunnel(_) => true,
            Content::Full(_) => false,
            Content::Http1(incoming) | Content::Http2(incoming) => incoming.is_end_stream(),
            Content::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Empty | Content::Tunnel(_) => SizeHint::with_exact(0),
            Content::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Http1(incoming) | Content::Http2(incoming) => incoming.size_hint(),
            Content::Stream(stream) => stream.size_hint(),
        }
    }
}

fn poll_downstream(
    incoming: &mut Incoming,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
    let frame = Pin::new(incoming).poll_frame(cx);
    frame.map(|frame| frame.map(|frame| frame.map_err(|error| BodyError::downstream(&error))))
}

/// Who is to blame for a body that ended before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFault {
    /// The client went away or sent nonsense.
    Downstream,
    /// The endpoint went away or sent nonsense.
    Upstream,
    /// A filter broke, or refused the body.
    Filter,
    /// We did.
    Internal,
}

/// What happened to a body that ended before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyReason {
    /// The sender closed or reset its stream in the middle.
    Closed,
    /// The sender broke the framing of HTTP.
    Protocol,
    /// More bytes than the limit allows.
    TooLarge,
    /// Nothing came, or not enough, for too long.
    Timeout,
    /// The sender reset its stream, with this code of HTTP/2.
    Reset {
        /// The code.
        code: u32,
    },
    /// Somebody decided that this body must not go on.
    Aborted,
    /// There was no memory for it.
    Overload,
}

/// Why a body ended before its end. Small and cheap to clone, so that it can travel through hyper and back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyError {
    /// Who is to blame.
    pub fault: BodyFault,
    /// What happened.
    pub reason: BodyReason,
    /// The cause in words, for the log; never shown to a peer.
    pub details: Box<str>,
}

impl BodyError {
    /// An error with its cause in words.
    pub fn new(fault: BodyFault, reason: BodyReason, details: impl Into<Box<str>>) -> BodyError {
        BodyError { fault, reason, details: details.into() }
    }

    /// What hyper says about a client's body.
    pub fn downstream(error: &hyper::Error) -> BodyError {
        BodyError::new(BodyFault::Downstream, BodyReason::of(error), describe(error))
    }

    /// What is said about the body of an endpoint that speaks HTTP/2.
    pub fn upstream_http2(error: &h2::Error) -> BodyError {
        let reason = match error.reason() {
            Some(_) if error.is_library() => BodyReason::Protocol,
            Some(code) if error.is_remote() => BodyReason::Reset { code: code.into() },
            _ => BodyReason::Closed,
        };
        BodyError::new(BodyFault::Upstream, reason, describe(error))
    }

    /// What hyper says about an endpoint's body.
    pub fn upstream(error: &hyper::Error) -> BodyError {
        BodyError::new(BodyFault::Upstream, BodyReason::of(error), describe(error))
    }
}

impl BodyReason {
    fn of(error: &hyper::Error) -> BodyReason {
        if error.is_parse() || error.is_parse_too_large() { BodyReason::Protocol } else { BodyReason::Closed }
    }
}

/// hyper's own message and all causes below it, in one line.
pub(crate) fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fault = match self.fault {
            BodyFault::Downstream => "downstream",
            BodyFault::Upstream => "upstream",
            BodyFault::Filter => "filter",
            BodyFault::Internal => "internal",
        };
        let reason = match self.reason {
            BodyReason::Closed => "closed before its end",
            BodyReason::Protocol => "malformed",
            BodyReason::TooLarge => "too large",
            BodyReason::Timeout => "timed out",
            BodyReason::Reset { .. } => "reset before its end",
            BodyReason::Aborted => "aborted",
            BodyReason::Overload => "no memory",
        };
        write!(f, "{fault} body {reason}: {}", self.details)
    }
}

impl std::error::Error for BodyError {}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    #[tokio::test(flavor = "current_thread")]
    async fn bytes_come_out_as_they_went_in() {
        for (body, expected) in
            [(Body::empty(), ""), (Body::full("abc"), "abc"), (Body::full(""), ""), (Body::default(), "")]
        {
            assert_eq!(http_body::Body::size_hint(&body).exact(), Some(expected.len() as u64));
            assert_eq!(http_body::Body::is_end_stream(&body), expected.is_empty());
            assert_eq!(body.collect().await.unwrap().to_bytes(), expected);
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_stream_keeps_its_trailers() {
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
        let source = Body::full("x").with_trailers(std::future::ready(Some(Ok(trailers.clone()))));
        let collected = Body::stream(source).collect().await.unwrap();
        assert_eq!(collected.trailers(), Some(&trailers));
        assert_eq!(collected.to_bytes(), "x");
    }
}
