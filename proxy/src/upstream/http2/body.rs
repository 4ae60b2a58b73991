//! The body of a response over HTTP/2.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body::{Frame, SizeHint};

use super::change::Stream;
use crate::message::BodyError;

/// A response's body. What is taken from it makes room for as much more on its way; what is not taken holds the peer back.
pub(in crate::upstream) struct Http2Body {
    stream: RecvStream,
    /// Bytes still to come if the length was announced.
    remaining: Option<u64>,
    only_trailers: bool,
    /// The other direction of a stream that has changed its protocol.
    upward: Option<SendStream<Bytes>>,
}

impl Http2Body {
    pub(super) fn new(stream: RecvStream, headers: &HeaderMap) -> Http2Body {
        let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        // A response without a body may say how long it would have been.
        let remaining = if stream.is_end_stream() { Some(0) } else { announced };
        Http2Body { stream, remaining, only_trailers: false, upward: None }
    }

    /// The stream has changed its protocol.
    pub(super) fn goes_on_with(&mut self, upward: SendStream<Bytes>) {
        self.upward = Some(upward);
    }

    /// The stream itself, if it has changed its protocol.
    pub(in crate::upstream) fn into_stream(self) -> Option<Stream> {
        self.upward.map(|upward| Stream::new(upward, self.stream))
    }
}

impl http_body::Body for Http2Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        while !this.only_trailers {
            let Some(chunk) = ready!(this.stream.poll_data(cx)) else {
                this.only_trailers = true;
                break;
            };
            // A reset is never a body's end, whatever its code: that is what the END_STREAM flag is for.
            let chunk = chunk.map_err(|error| BodyError::upstream_http2(&error))?;
            // It fails only for more than was received.
            let _ = this.stream.flow_control().release_capacity(chunk.len());
            if !chunk.is_empty() {
                this.remaining = this.remaining.map(|left| left.saturating_sub(chunk.len() as u64));
                return Poll::Ready(Some(Ok(Frame::data(chunk))));
            }
        }
        let trailers = ready!(this.stream.poll_trailers(cx));
        let trailers = trailers.map_err(|error| BodyError::upstream_http2(&error)).transpose();
        Poll::Ready(trailers.map(|trailers| trailers.map(Frame::trailers)))
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.remaining.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
