//! Requests and bodies, in few words: what `Client` sends and what `Backend` answers with.

use std::io;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full, channel};

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
pub fn streamed() -> (channel::Sender<Bytes, io::Error>, Body) {
    let (sender, body) = channel::Channel::new(1);
    (sender, body.boxed())
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
        mut self: std::pin::Pin<&mut Self>,
        task: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, io::Error>>> {
        use std::task::Poll;
        match std::pin::Pin::new(&mut self.body).poll_frame(task) {
            Poll::Ready(None) => Poll::Ready(self.trailers.take().map(http_body::Frame::trailers).map(Ok)),
            other => other,
        }
    }
}
