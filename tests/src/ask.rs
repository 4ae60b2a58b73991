//! Requests and bodies, in few words: what `Client` sends and what `Backend` answers with.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use tokio::sync::mpsc;

/// A body of any kind; an `io::Error` in the middle aborts the message.
pub type Body = BoxBody<Bytes, io::Error>;

/// No body at all.
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed()
}

/// A body that is known as a whole, sent with its length.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

/// A body under the test's control: sent frame by frame, chunked on HTTP/1.
pub fn streamed() -> (BodySender, Body) {
    let (sender, frames) = mpsc::channel(1);
    (BodySender(sender), Streamed(frames).boxed())
}

/// Sends a body frame by frame; dropped, it ends the body.
///
/// The frames and the error go one way: with `http_body_util::channel`, which has a way of its own for each, a body can end
/// before the last frame that was sent.
#[derive(Debug)]
pub struct BodySender(mpsc::Sender<io::Result<Frame<Bytes>>>);

/// Nobody reads the body any more.
#[derive(Debug)]
pub struct Unread;

impl BodySender {
    /// Sends content, when there is room for it.
    ///
    /// # Errors
    /// Nobody reads it.
    pub async fn send_data(&mut self, bytes: Bytes) -> Result<(), Unread> {
        self.0.send(Ok(Frame::data(bytes))).await.map_err(|_| Unread)
    }

    /// Sends trailers, when there is room for them.
    ///
    /// # Errors
    /// Nobody reads them.
    pub async fn send_trailers(&mut self, trailers: HeaderMap) -> Result<(), Unread> {
        self.0.send(Ok(Frame::trailers(trailers))).await.map_err(|_| Unread)
    }

    /// Breaks the body off, when what was sent before has been read.
    pub fn abort(self, error: io::Error) {
        tokio::spawn(async move { self.0.send(Err(error)).await });
    }
}

struct Streamed(mpsc::Receiver<io::Result<Frame<Bytes>>>);

impl http_body::Body for Streamed {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.0.poll_recv(task)
    }
}

/// A request to send: method, path, header fields, body, trailers.
pub struct Ask {
    request: Request<Body>,
}

impl Ask {
    /// A GET without body.
    pub fn get(path: &str) -> Ask {
        Ask::new(Method::GET, path, empty())
    }

    /// A POST of a whole body.
    pub fn post(path: &str, body: impl Into<Bytes>) -> Ask {
        Ask::new(Method::POST, path, full(body))
    }

    /// Any method with any body.
    pub fn new(method: Method, path: &str, body: Body) -> Ask {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().expect("a path the test wrote");
        Ask { request }
    }

    /// Adds a header field; a name may come several times.
    pub fn header(mut self, name: &str, value: &str) -> Ask {
        let name = HeaderName::try_from(name).expect("a field name the test wrote");
        let value = HeaderValue::from_bytes(value.as_bytes()).expect("a field value the test wrote");
        self.request.headers_mut().append(name, value);
        self
    }

    /// Sends these trailers after the body (over HTTP/1 it becomes chunked).
    pub fn trailers(self, fields: &[(&'static str, &'static str)]) -> Ask {
        let fields: HeaderMap = fields
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        let names = fields.keys().map(HeaderName::as_str).collect::<Vec<_>>().join(", ");
        let mut ask = self.header("trailer", &names);
        let body = std::mem::replace(ask.request.body_mut(), empty());
        *ask.request.body_mut() = WithTrailers { body, trailers: Some(fields) }.boxed();
        ask
    }

    /// The request as hyper sends it.
    pub fn into_request(self) -> Request<Body> {
        self.request
    }
}

/// A body, then trailers. Its length is not told, so HTTP/1 sends it chunked, the only form that can carry trailers.
struct WithTrailers {
    body: Body,
    trailers: Option<HeaderMap>,
}

impl http_body::Body for WithTrailers {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match Pin::new(&mut self.body).poll_frame(task) {
            Poll::Ready(None) => Poll::Ready(self.trailers.take().map(Frame::trailers).map(Ok)),
            other => other,
        }
    }
}
