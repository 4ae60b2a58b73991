//! Streams that change their protocol (RFC 8441). Everybody above speaks of that in the words of HTTP/1.1: an offer in a request's
//! fields, a 101 that takes it. Here it becomes an extended CONNECT, and a success that answers it becomes a 101.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::ext::Protocol;
use h2::{RecvStream, SendStream};
use http::header::{CONNECTION, CONTENT_LENGTH, UPGRADE};
use http::{HeaderValue, Method, StatusCode, request, response};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::message::{Duplex, websocket};

/// Most bytes that are written at a time, and so most of those that wait in a stream that does not take them.
const CHUNK: usize = 16 * 1024;

/// An offer of another protocol on its way to an endpoint.
pub(super) struct Offer {
    protocol: HeaderValue,
    /// The answer that the client waits for. An endpoint that speaks HTTP/2 is not asked for it.
    accept: Option<HeaderValue>,
}

impl Offer {
    /// Makes the offer in a request's fields an extended CONNECT. None if there is none.
    pub(super) fn of(head: &mut request::Parts) -> Option<Offer> {
        let protocol = head.headers.remove(UPGRADE)?;
        head.extensions.insert(Protocol::from(protocol.to_str().ok()?));
        head.method = Method::CONNECT;
        head.headers.remove(CONTENT_LENGTH);
        let key = head.headers.remove(websocket::KEY);
        let accept = key.and_then(|key| HeaderValue::try_from(websocket::accept(key.as_bytes())).ok());
        Some(Offer { protocol, accept })
    }

    /// Says in a response's head that it is taken.
    pub(super) fn take(self, head: &mut response::Parts) {
        head.status = StatusCode::SWITCHING_PROTOCOLS;
        head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        head.headers.insert(UPGRADE, self.protocol);
        if let Some(accept) = self.accept {
            head.headers.insert(websocket::ACCEPT, accept);
        }
    }
}

/// A stream as bytes both ways. Dropped before both ends, it is reset.
pub(in crate::upstream) struct Stream {
    up: SendStream<Bytes>,
    down: RecvStream,
    /// What was received and not yet read.
    received: Bytes,
}

impl Stream {
    pub(super) fn new(up: SendStream<Bytes>, down: RecvStream) -> Stream {
        Stream { up, down, received: Bytes::new() }
    }
}

/// Its reset is what becomes of it when it is dropped.
impl Duplex for Stream {}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.received.is_empty() {
            match ready!(this.down.poll_data(cx)) {
                Some(chunk) => this.received = chunk.map_err(broken)?,
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = this.received.len().min(buffer.remaining());
        buffer.put_slice(&this.received[..length]);
        this.received.advance(length);
        // It fails only for more than was received.
        let _ = this.down.flow_control().release_capacity(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let up = &mut self.up;
        up.reserve_capacity(bytes.len().min(CHUNK));
        while up.capacity() == 0 {
            match ready!(up.poll_capacity(cx)) {
                Some(capacity) => drop(capacity.map_err(broken)?),
                None => return Poll::Ready(Err(ErrorKind::BrokenPipe.into())),
            }
        }
        let length = bytes.len().min(up.capacity());
        up.send_data(Bytes::copy_from_slice(&bytes[..length]), false).map_err(broken)?;
        Poll::Ready(Ok(length))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The connection's task sends what was written.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.up.send_data(Bytes::new(), true).map_err(broken))
    }
}

/// A stream that was reset ends like a connection that was.
fn broken(error: h2::Error) -> io::Error {
    if error.is_reset() {
        return io::Error::new(ErrorKind::ConnectionReset, error);
    }
    error.into_io().unwrap_or_else(|| ErrorKind::BrokenPipe.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    #[test]
    fn an_offer_becomes_an_extended_connect_and_its_answer_a_101() {
        let offered = Request::get("/chat?room=1")
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        let (mut head, ()) = offered.body(()).unwrap().into_parts();
        let offer = Offer::of(&mut head).unwrap();
        assert_eq!((head.method.as_str(), head.uri.path()), ("CONNECT", "/chat"));
        assert_eq!(head.extensions.get::<Protocol>().unwrap().as_str(), "websocket");
        assert!(!head.headers.contains_key("upgrade") && !head.headers.contains_key("sec-websocket-key"));
        assert_eq!(head.headers["sec-websocket-version"], "13");

        let (mut answer, ()) = http::Response::new(()).into_parts();
        offer.take(&mut answer);
        assert_eq!(answer.status, 101);
        assert_eq!(
            (&answer.headers["connection"], &answer.headers["upgrade"]),
            (&"upgrade".parse().unwrap(), &"websocket".parse().unwrap())
        );
        assert_eq!(answer.headers["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn a_request_without_an_offer_stays_as_it_is() {
        let (mut head, ()) = Request::get("/").header("x-a", "1").body(()).unwrap().into_parts();
        assert!(Offer::of(&mut head).is_none());
        assert_eq!((head.method.as_str(), head.headers.len()), ("GET", 1));
    }
}
