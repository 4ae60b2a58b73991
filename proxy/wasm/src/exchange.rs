//! One exchange (a request and its response, or a TCP connection) as hostcalls see it. The embedder owns the
//! [`HttpStream`], or the [`Attributes`] of the connection, and implements [`Exchange`] on its own state; the hostcalls
//! read and write it while a callback runs.

use std::any::Any;
use std::borrow::Cow;
use std::cell::RefCell;

use bytes::Bytes;
use http::header::HeaderMap;
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderValue, Method, StatusCode, Version};

use crate::attributes::Attributes;

/// An exchange as its filters' hostcalls reach it: one of HTTP, or a TCP connection. What it is never changes.
pub trait Exchange: 'static {
    /// The messages and attributes; none for a TCP connection. The embedder must hold no borrow while a callback runs.
    fn http(&self) -> Option<&RefCell<HttpStream>> {
        None
    }

    /// The attributes of a TCP connection; none for an HTTP exchange. Not to be borrowed while a callback runs, either.
    fn tcp(&self) -> Option<&RefCell<Attributes>> {
        None
    }

    /// A filter changed something from outside of its own callback (it resumed, closed or answered the stream
    /// while an HTTP call's response, a tick or an event was delivered), or resumed the other direction from its own: look at
    /// the stream contexts again.
    /// Must not call back into a VM.
    fn wake(&self);

    /// For foreign functions of the embedder, which know the type behind.
    fn as_any(&self) -> &dyn Any;
}

/// The messages and attributes of one exchange.
#[derive(Debug)]
pub struct HttpStream {
    /// The request's head. Filters write it until the exchange is logged.
    pub request: RequestHead,
    /// The request's trailers, once they arrived or a filter made some.
    pub request_trailers: Option<HeaderMap>,
    /// The response's head, once there is one.
    pub response: Option<ResponseHead>,
    /// The response's trailers, once they arrived or a filter made some.
    pub response_trailers: Option<HeaderMap>,
    /// What is known beside the messages.
    pub attributes: Attributes,
    /// The response a filter wants to give instead of the upstream's. See [`HttpStream::answer`].
    pub local_response: Option<LocalResponse>,
    /// Whether a local response was accepted before: the first wins, later ones are ignored.
    pub answered: bool,
    /// Bytes that a head may have. Of a value that is longer than that by itself, filters write one byte more, and no further
    /// bytes are copied: the embedder refuses such a head.
    pub most_head_bytes: usize,
}

impl HttpStream {
    /// A stream whose request's head has just arrived.
    pub fn new(request: RequestHead, attributes: Attributes) -> HttpStream {
        HttpStream {
            request,
            request_trailers: None,
            response: None,
            response_trailers: None,
            attributes,
            local_response: None,
            answered: false,
            most_head_bytes: usize::MAX,
        }
    }

    /// So much of a value that a filter writes into a head as shows whether it is too long.
    pub(crate) fn telling<'a>(&self, value: &'a [u8]) -> &'a [u8] {
        value.get(..self.most_head_bytes.saturating_add(1)).unwrap_or(value)
    }

    /// Bytes that filters may bring a head to: so many more than it may have that the embedder sees that it is too large, whatever
    /// they take away again.
    pub(crate) fn most_written(&self) -> usize {
        self.most_head_bytes.saturating_mul(2).saturating_add(1)
    }

    /// Leaves a local response for the embedder to take. False, and no change, if there was one before.
    pub fn answer(&mut self, response: LocalResponse) -> bool {
        if self.answered {
            return false;
        }
        self.answered = true;
        self.local_response = Some(response);
        true
    }
}

/// A request's head.
#[derive(Clone, Debug)]
pub struct RequestHead {
    /// `:method`
    pub method: Method,
    /// `:scheme`
    pub scheme: Scheme,
    /// `:authority`, also served as `host`; empty if the request had none.
    pub authority: HeaderValue,
    /// `:path`, with the query.
    pub path: PathAndQuery,
    /// The version it arrived in.
    pub version: Version,
    /// All other fields; never `host`.
    pub headers: HeaderMap,
}

/// A response's head.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    /// `:status`
    pub status: StatusCode,
    /// All fields.
    pub headers: HeaderMap,
}

/// A response made by a filter.
#[derive(Clone, Debug)]
pub struct LocalResponse {
    /// 200 to 999.
    pub status: StatusCode,
    /// Fields as the filter gave them, checked; without pseudo headers and framing fields.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// The gRPC status to answer a gRPC request with, 0 to 16.
    pub grpc_status: Option<i32>,
    /// Why, for the log: the filter's words, white space replaced by `_`.
    pub details: Cow<'static, str>,
    /// The place of the filter in the exchange, as given to [`crate::Plugin::stream`].
    pub place: u32,
}
