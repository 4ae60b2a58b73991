//! The messages of tests: what clients, filters and servers send.

use std::time::Duration;

use meshgate_abi::TraceContext;
use serde::Serialize;

/// Name and value of each field.
///
/// ```
/// use meshgate_sdk::testing::{Fields, Response};
///
/// let response = Response::new(204).header("X-A", "1");
/// let fields: &Fields = response.head();
/// assert_eq!(*fields, [(":status".to_owned(), b"204".to_vec()), ("x-a".to_owned(), b"1".to_vec())]);
/// ```
pub type Fields = Vec<(String, Vec<u8>)>;

/// The client of a TCP connection: what is known of it.
///
/// ```
/// use meshgate_sdk::testing::Client;
///
/// let client = Client::new().property("source/address", "192.0.2.7:555").peer_identity("spiffe://mesh/ann");
/// assert_eq!(client.facts().len(), 3);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Client {
    facts: Vec<(String, Vec<u8>)>,
}

impl Client {
    /// One of which nothing is known.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a property that is text, such as `source/address`.
    #[must_use]
    pub fn property(mut self, path: &str, value: &str) -> Self {
        self.facts.push((path.to_owned(), value.as_bytes().to_vec()));
        self
    }

    /// Says who the client is, by a certificate.
    #[must_use]
    pub fn peer_identity(mut self, uri: &str) -> Self {
        self.facts.push(("connection/mtls".to_owned(), vec![1]));
        self.property("connection/uri_san_peer_certificate", uri)
    }

    /// The properties, by their paths.
    pub fn facts(&self) -> &[(String, Vec<u8>)] {
        &self.facts
    }
}

/// A request: of a client, as a test makes it, or as a server got it.
///
/// ```
/// use meshgate_sdk::testing::Request;
///
/// let request = Request::post("/orders?dry=1", "[1, 2]").header("content-type", "application/json");
/// assert_eq!(request.method(), "POST");
/// assert_eq!(request.target(), "/orders?dry=1");
/// assert_eq!(request.field("content-type").as_deref(), Some("application/json"));
/// assert_eq!(request.text(), "[1, 2]");
/// ```
///
/// A body may come in parts, and with fields after it:
///
/// ```
/// use meshgate_sdk::testing::Request;
///
/// let request = Request::new("PUT", "/notes/7")
///     .header(":authority", "notes.example")
///     .property("source/address", "192.0.2.7:555")
///     .peer_identity("spiffe://mesh/ann")
///     .parts(["one ", "two"])
///     .trailer("x-sum", "7")
///     .recorded();
/// assert_eq!((request.body_parts().len(), request.bytes()), (2, b"one two".to_vec()));
/// assert_eq!(request.trailer_field("x-sum").as_deref(), Some("7"));
/// assert_eq!(request.facts()[0].0, "source/address");
/// assert!(request.trace().is_some());
///
/// let received = Request::received(request.head().clone(), request.bytes(), request.trailers().clone());
/// assert_eq!(received.field(":authority").as_deref(), Some("notes.example"));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    pub(crate) head: Fields,
    pub(crate) parts: Vec<Vec<u8>>,
    pub(crate) tail: Fields,
    pub(crate) facts: Vec<(String, Vec<u8>)>,
    pub(crate) recorded: bool,
}

impl Request {
    /// A request with this method and target, for the authority `example.com`.
    pub fn new(method: &str, target: &str) -> Self {
        let field = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
        // In the order in which Meshgate lists them.
        let head = vec![
            field(":authority", "example.com"),
            field(":method", method),
            field(":path", target),
            field(":scheme", "http"),
        ];
        Self { head, ..Self::default() }
    }

    /// A `GET` request.
    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    /// A `POST` request with a body.
    pub fn post(target: &str, body: impl Into<Vec<u8>>) -> Self {
        Self::new("POST", target).body(body)
    }

    /// A request as it arrived somewhere.
    pub fn received(head: Fields, body: Vec<u8>, tail: Fields) -> Self {
        let parts = if body.is_empty() { Vec::new() } else { vec![body] };
        Self { head, parts, tail, ..Self::default() }
    }

    /// Adds a field; a pseudo-header is set.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let known = self.head.iter_mut().find(|(known, _)| name.starts_with(':') && known == name);
        if let Some((_, known)) = known {
            *known = value.as_ref().to_vec();
        } else {
            self.head.push((name.to_ascii_lowercase(), value.as_ref().to_vec()));
        }
        self
    }

    /// Sets the body, which arrives in one part.
    #[must_use]
    pub fn body(self, body: impl Into<Vec<u8>>) -> Self {
        self.parts([body.into()])
    }

    /// Sets the body, which arrives in these parts.
    #[must_use]
    pub fn parts<P: Into<Vec<u8>>>(mut self, parts: impl IntoIterator<Item = P>) -> Self {
        self.parts = parts.into_iter().map(Into::into).collect();
        self
    }

    /// Adds a field after the body.
    #[must_use]
    pub fn trailer(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.tail.push((name.to_ascii_lowercase(), value.as_ref().to_vec()));
        self
    }

    /// Sets a property that is text, such as `source/address`.
    #[must_use]
    pub fn property(mut self, path: &str, value: &str) -> Self {
        self.facts.push((path.to_owned(), value.as_bytes().to_vec()));
        self
    }

    /// Says who the client is, by a certificate.
    #[must_use]
    pub fn peer_identity(mut self, uri: &str) -> Self {
        self.facts.push(("connection/mtls".to_owned(), vec![1]));
        self.property("connection/uri_san_peer_certificate", uri)
    }

    /// Lets its trace be recorded, as if the filter `telemetry` stood before this one: see
    /// [`Done::spans`](super::Done::spans).
    #[must_use]
    pub fn recorded(mut self) -> Self {
        self.recorded = true;
        self
    }

    /// The trace that is recorded.
    pub fn trace(&self) -> Option<TraceContext> {
        self.recorded.then(|| TraceContext {
            trace_id: vec![0xab; 16],
            span_id: vec![0xcd; 8],
            ..TraceContext::default()
        })
    }

    /// The method.
    pub fn method(&self) -> String {
        self.field(":method").unwrap_or_default()
    }

    /// Path and query.
    pub fn target(&self) -> String {
        self.field(":path").unwrap_or_default()
    }

    /// The first value of a field of its head.
    pub fn field(&self, name: &str) -> Option<String> {
        first(&self.head, name)
    }

    /// The first value of a field after its body.
    pub fn trailer_field(&self, name: &str) -> Option<String> {
        first(&self.tail, name)
    }

    /// The body.
    pub fn bytes(&self) -> Vec<u8> {
        self.parts.concat()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        crate::headers::text(self.bytes())
    }

    /// The fields of its head, pseudo-headers included.
    pub fn head(&self) -> &Fields {
        &self.head
    }

    /// The fields after its body.
    pub fn trailers(&self) -> &Fields {
        &self.tail
    }

    /// The parts of its body.
    pub fn body_parts(&self) -> &[Vec<u8>] {
        &self.parts
    }

    /// The properties that were set, as hosts serialize them.
    pub fn facts(&self) -> &[(String, Vec<u8>)] {
        &self.facts
    }
}

/// A response: of a server, as a test makes it, or as a client got it. Or what becomes of a call without one.
///
/// ```
/// use std::time::Duration;
///
/// use meshgate_sdk::testing::Response;
///
/// let response = Response::new(200).header("etag", "1").body("hello").after(Duration::from_millis(20));
/// assert_eq!((response.status(), response.text().as_str()), (200, "hello"));
///
/// let nobody_home = Response::refused();
/// # assert_eq!(nobody_home.status(), 0);
/// ```
///
/// ```
/// use meshgate_sdk::testing::Response;
///
/// let response = Response::json(&[1, 2]).trailer("x-sum", "3");
/// assert_eq!((response.field("content-type").as_deref(), response.bytes()), (Some("application/json"), b"[1,2]".to_vec()));
/// assert_eq!((response.trailer_field("x-sum").as_deref(), response.trailers().len()), (Some("3"), 1));
///
/// let parts = Response::new(200).parts(["one ", "two"]);
/// let received = Response::received(parts.head().clone(), parts.bytes(), parts.trailers().clone());
/// assert_eq!((parts.body_parts().len(), received.body_parts().len()), (2, 1));
///
/// assert_eq!(Response::grpc("yes").grpc_outcome(), Ok(b"yes".to_vec()));
/// assert_eq!(Response::grpc_status(7, "not you").grpc_outcome(), Err((7, "not you".to_owned())));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Response {
    pub(crate) head: Fields,
    pub(crate) parts: Vec<Vec<u8>>,
    pub(crate) tail: Fields,
    pub(crate) after: Duration,
    pub(crate) failure: Option<Failure>,
}

/// Why there is no response.
///
/// ```
/// use meshgate_sdk::testing::{Failure, Response};
///
/// assert_eq!(Response::timeout().failure(), Some(Failure::Timeout));
/// assert_eq!(Response::refused().failure(), Some(Failure::Refused));
/// assert_eq!(Response::reset().failure(), Some(Failure::Reset));
/// assert_eq!(Response::new(503).failure(), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// None came in time.
    Timeout,
    /// There was no connection.
    Refused,
    /// The connection broke.
    Reset,
}

impl Response {
    /// A response with this status.
    pub fn new(status: u16) -> Self {
        Self { head: vec![(":status".to_owned(), status.to_string().into_bytes())], ..Self::default() }
    }

    /// A response 200 whose body is a value, written as JSON.
    ///
    /// # Panics
    /// The value cannot be written as JSON.
    #[expect(clippy::expect_used, reason = "a test fails by a panic")]
    pub fn json(value: &impl Serialize) -> Self {
        let body = serde_json::to_vec(value).expect("the value can be written as JSON");
        Self::new(200).header("content-type", "application/json").body(body)
    }

    /// The answer to a unary gRPC call, encoded.
    pub fn grpc(message: impl Into<Vec<u8>>) -> Self {
        Self::grpc_status(0, "").body(message)
    }

    /// A gRPC call that ends with this status and these words.
    pub fn grpc_status(status: u32, words: &str) -> Self {
        let response = Self::new(200).header("content-type", "application/grpc");
        response.header("grpc-status", status.to_string()).header("grpc-message", words)
    }

    /// No response: the caller's time is over before.
    pub fn timeout() -> Self {
        Self { failure: Some(Failure::Timeout), ..Self::default() }
    }

    /// No response: there is no connection.
    pub fn refused() -> Self {
        Self { failure: Some(Failure::Refused), ..Self::default() }
    }

    /// No response: the connection breaks.
    pub fn reset() -> Self {
        Self { failure: Some(Failure::Reset), ..Self::default() }
    }

    /// A response as it arrived somewhere.
    pub fn received(head: Fields, body: Vec<u8>, tail: Fields) -> Self {
        let parts = if body.is_empty() { Vec::new() } else { vec![body] };
        Self { head, parts, tail, ..Self::default() }
    }

    /// Adds a field.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.head.push((name.to_ascii_lowercase(), value.as_ref().to_vec()));
        self
    }

    /// Sets the body, which arrives in one part.
    #[must_use]
    pub fn body(self, body: impl Into<Vec<u8>>) -> Self {
        self.parts([body.into()])
    }

    /// Sets the body, which arrives in these parts.
    #[must_use]
    pub fn parts<P: Into<Vec<u8>>>(mut self, parts: impl IntoIterator<Item = P>) -> Self {
        self.parts = parts.into_iter().map(Into::into).collect();
        self
    }

    /// Adds a field after the body.
    #[must_use]
    pub fn trailer(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.tail.push((name.to_ascii_lowercase(), value.as_ref().to_vec()));
        self
    }

    /// Lets it take so long.
    #[must_use]
    pub fn after(mut self, time: Duration) -> Self {
        self.after = time;
        self
    }

    /// The status; 0 if there is no response.
    pub fn status(&self) -> u16 {
        self.field(":status").and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    /// The first value of a field of its head.
    pub fn field(&self, name: &str) -> Option<String> {
        first(&self.head, name)
    }

    /// The first value of a field after its body.
    pub fn trailer_field(&self, name: &str) -> Option<String> {
        first(&self.tail, name)
    }

    /// The body.
    pub fn bytes(&self) -> Vec<u8> {
        self.parts.concat()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        crate::headers::text(self.bytes())
    }

    /// The fields of its head, pseudo-headers included.
    pub fn head(&self) -> &Fields {
        &self.head
    }

    /// The fields after its body.
    pub fn trailers(&self) -> &Fields {
        &self.tail
    }

    /// The parts of its body.
    pub fn body_parts(&self) -> &[Vec<u8>] {
        &self.parts
    }

    /// What a gRPC call came to: its answer, or the status that it ended with, and the words beside it.
    ///
    /// # Errors
    /// The call ended with a status other than OK.
    pub fn grpc_outcome(&self) -> Result<Vec<u8>, (u32, String)> {
        let status = match self.failure {
            Some(Failure::Timeout) => 4,
            Some(Failure::Refused | Failure::Reset) => 14,
            None => self.field("grpc-status").and_then(|status| status.parse().ok()).unwrap_or(2),
        };
        let words = || self.field("grpc-message").unwrap_or_default();
        if status == 0 { Ok(self.bytes()) } else { Err((status, words())) }
    }

    /// Why there is none.
    pub fn failure(&self) -> Option<Failure> {
        self.failure
    }
}

fn first(fields: &Fields, name: &str) -> Option<String> {
    let (_, value) = fields.iter().find(|(known, _)| known.eq_ignore_ascii_case(name))?;
    Some(String::from_utf8_lossy(value).into_owned())
}
