//! gRPC servers with the framing written by hand: the service `test.Echo`, whose methods behave well or badly by name, and one
//! whose calls the test answers itself.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::stream::poll_fn;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use tokio::sync::{mpsc, oneshot};

use crate::ask::{Body, BodySender, full, streamed};
use crate::backend::{Answer, Backend, Seen};
use crate::deadline::within;

/// A message with its prefix.
pub fn framed(message: &[u8]) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(message.len().try_into().expect("a message the test wrote"));
    bytes.put_slice(message);
    bytes.freeze()
}

/// The whole messages at the beginning of `bytes`, which are taken out.
pub fn messages(bytes: &mut BytesMut) -> Vec<Bytes> {
    let mut found = Vec::new();
    while let Some([_, length @ ..]) = bytes.first_chunk::<5>() {
        let length = u32::from_be_bytes(*length) as usize;
        if bytes.len() < 5 + length {
            break;
        }
        bytes.advance(5);
        found.push(bytes.split_to(length).freeze());
    }
    found
}

/// A server of `test.Echo`:
///
/// | method | what it does |
/// |---|---|
/// | `Unary` | answers with `echo: ` and the message |
/// | `Stream` | answers each message so, as it comes, and ends when the client has ended |
/// | `Early` | ends as soon as one message came, whatever else the client wants to send |
/// | `Split` | one to many: answers a message with its words, a message each |
/// | `Join` | many to one: answers all messages, when the client has ended, with one that holds them as words |
/// | `Fields` | answers with the request's `:authority` and fields whose names begin with `x-`, `te` and `grpc-` |
/// | `Refuse` | a head with status 7 and nothing else |
/// | `Silent` | never answers |
/// | `Status13`, `Status14` | as `Unary`, but fails with this status after the message |
/// | `Status404`, `Html`, `NoStatus`, `NoTrailers`, `NoMessage`, `TwoMessages` | answers that are not as they should be |
/// | `Compressed`, `Cut`, `Large` | a message with a flag, one that lacks its end, one of 2 MiB |
/// | `ResetEarly`, `ResetLate` | resets the stream before the head; after a message, at the next one or the end |
pub async fn grpc_backend(name: &str) -> Backend {
    Backend::http2(name, answer).await
}

async fn answer(seen: Seen, request: Request<Incoming>) -> Answer {
    let method = seen.path.strip_prefix("/test.Echo/").unwrap_or_default().to_owned();
    let authority = request.uri().authority().map(ToString::to_string).unwrap_or_default();
    let ok = || Response::builder().header("content-type", "application/grpc").header("x-initial", "i");
    let respond = |response: http::response::Builder, body| response.body(body).map_err(io::Error::other);
    match method.as_str() {
        "Stream" | "Early" | "Split" | "Join" | "ResetLate" => {
            let (sender, body) = streamed();
            tokio::spawn(converse(request.into_body(), sender, method));
            return respond(ok(), body);
        }
        "Silent" => return std::future::pending().await,
        "ResetEarly" => return Err(io::Error::other("reset")),
        _ => {}
    }
    let body = request.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
    let message = messages(&mut BytesMut::from(&body[..])).pop().unwrap_or_default();
    let echo = framed(&[b"echo: ", &message[..]].concat());
    let twice = [&echo[..], &echo[..]].concat();
    match method.as_str() {
        "Unary" => respond(ok(), ending(echo, Some("0"))),
        "Fields" => respond(ok(), ending(framed(fields(&authority, &seen).as_bytes()), Some("0"))),
        "Refuse" => respond(ok().header("grpc-status", "7").header("grpc-message", "not for you"), full("")),
        "Status404" => respond(Response::builder().status(StatusCode::NOT_FOUND), full("nothing here")),
        "Html" => respond(Response::builder().header("content-type", "text/html"), ending(echo, Some("0"))),
        "Status13" => respond(ok(), ending(echo, Some("13"))),
        "Status14" => respond(ok(), ending(echo, Some("14"))),
        "NoStatus" => respond(ok(), ending(echo, None)),
        "NoTrailers" => respond(ok(), full(echo)),
        "NoMessage" => respond(ok(), ending(Bytes::new(), Some("0"))),
        "TwoMessages" => respond(ok(), ending(twice.into(), Some("0"))),
        "Compressed" => respond(ok(), ending([&b"\x01"[..], &echo[1..]].concat().into(), Some("0"))),
        "Cut" => respond(ok(), ending(echo.slice(..echo.len() - 1), Some("0"))),
        "Large" => respond(ok(), ending(framed(&vec![b'x'; 2 << 20]), Some("0"))),
        _ => respond(ok().header("grpc-status", "12"), full("")),
    }
}

/// Answers message by message.
async fn converse(mut incoming: Incoming, mut sender: BodySender, method: String) {
    let mut bytes = BytesMut::new();
    let mut answered = 0;
    let mut joined = Vec::new();
    while let Some(Ok(frame)) = incoming.frame().await {
        bytes.extend_from_slice(frame.data_ref().map_or(&[], |chunk| chunk));
        for message in messages(&mut bytes) {
            if method == "ResetLate" && answered > 0 {
                return sender.abort(io::Error::other("reset"));
            }
            answered += 1;
            for answer in answers(&method, &message) {
                let _ = sender.send_data(framed(&answer)).await;
            }
            joined.push(message);
        }
        if method == "Early" && answered > 0 {
            break;
        }
    }
    if method == "ResetLate" {
        return sender.abort(io::Error::other("reset"));
    }
    if method == "Join" {
        let _ = sender.send_data(framed(&joined.join(&b' '))).await;
    }
    let _ = sender.send_trailers(trailers(Some("0"))).await;
}

/// What a message is answered with, at once.
fn answers(method: &str, message: &[u8]) -> Vec<Vec<u8>> {
    match method {
        "Split" => message.split(|byte| *byte == b' ').map(<[u8]>::to_vec).collect(),
        "Join" => Vec::new(),
        _ => vec![[b"echo: ", message].concat()],
    }
}

fn trailers(status: Option<&'static str>) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-trailing", HeaderValue::from_static("t"));
    if let Some(status) = status {
        trailers.insert("grpc-status", HeaderValue::from_static(status));
    }
    trailers
}

fn ending(bytes: Bytes, status: Option<&'static str>) -> Body {
    let (mut sender, body) = streamed();
    tokio::spawn(async move {
        if !bytes.is_empty() {
            sender.send_data(bytes).await?;
        }
        sender.send_trailers(trailers(status)).await
    });
    body
}

fn fields(authority: &str, seen: &Seen) -> String {
    let wanted = |name: &str| {
        let of_gateway = ["x-forwarded-", "x-request-", "x-envoy-", "x-meshgate-"]
            .iter()
            .any(|start| name.starts_with(start));
        (name.starts_with("x-") && !of_gateway)
            || name.starts_with("grpc-")
            || ["te", "content-type"].contains(&name)
    };
    let mut lines = vec![format!(":authority={authority}")];
    let mut names: Vec<_> =
        seen.headers.keys().map(http::HeaderName::as_str).filter(|name| wanted(name)).collect();
    names.sort_unstable();
    lines.extend(names.into_iter().map(|name| format!("{name}={}", seen.header(name))));
    lines.join(" ")
}

/// The messages of a body one by one as they come, and the trailers behind them.
pub struct Messages {
    body: Incoming,
    read: BytesMut,
    whole: VecDeque<Bytes>,
    trailers: HeaderMap,
}

impl Messages {
    /// Those of a request or of a response.
    pub fn of(body: Incoming) -> Messages {
        Messages { body, read: BytesMut::new(), whole: VecDeque::new(), trailers: HeaderMap::new() }
    }

    /// The next one; `None` at the end.
    ///
    /// # Errors
    /// The body was broken off.
    pub async fn next(&mut self) -> Result<Option<Bytes>, hyper::Error> {
        while self.whole.is_empty() {
            let Some(frame) = within("a message or the end", self.body.frame()).await else {
                assert!(self.read.is_empty(), "the body ends inside of a message: {:?}", self.read);
                return Ok(None);
            };
            match frame?.into_data() {
                Ok(bytes) => self.read.extend_from_slice(&bytes),
                Err(other) => self.trailers = other.into_trailers().unwrap_or_default(),
            }
            self.whole.extend(messages(&mut self.read));
        }
        Ok(self.whole.pop_front())
    }

    /// A field of the trailers, "" when it is absent. They are there when the messages have ended.
    pub fn trailer(&self, name: &str) -> &str {
        self.trailers.get(name).map_or("", |value| value.to_str().expect("a field value in ASCII"))
    }
}

/// A gRPC server that leaves its calls to the test, which reads and answers them step by step.
pub struct GrpcCalls {
    backend: Backend,
    calls: mpsc::UnboundedReceiver<GrpcCall>,
}

impl GrpcCalls {
    /// On a free port.
    pub async fn start(name: &str) -> GrpcCalls {
        let (taken, calls) = mpsc::unbounded_channel();
        let backend = Backend::http2(name, move |seen, request| take(taken.clone(), seen, request)).await;
        GrpcCalls { backend, calls }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.backend.address()
    }

    /// The next call.
    pub async fn next(&mut self) -> GrpcCall {
        within("a call at the endpoint", self.calls.recv()).await.expect("the backend lives")
    }
}

/// A call as its endpoint holds it.
pub struct GrpcCall {
    /// Its head.
    pub seen: Seen,
    /// What the client sends.
    pub asked: Messages,
    head: Option<oneshot::Sender<()>>,
    frames: mpsc::Sender<io::Result<Frame<Bytes>>>,
}

impl GrpcCall {
    /// Sends a message; before the first one, the response's head.
    pub async fn answer(&mut self, message: &[u8]) {
        self.send(Frame::data(framed(message))).await;
    }

    /// Ends it in order, with this status.
    pub async fn end(mut self, status: &'static str) {
        self.send(Frame::trailers(trailers(Some(status)))).await;
    }

    /// Waits until the client has given it up.
    pub async fn given_up(self) {
        within("the call is given up", self.frames.closed()).await;
    }

    async fn send(&mut self, frame: Frame<Bytes>) {
        if let Some(head) = self.head.take() {
            let _ = head.send(());
        }
        let sent = within("room for an answer", self.frames.send(Ok(frame))).await;
        assert!(sent.is_ok(), "nobody waits for an answer any more");
    }
}

async fn take(calls: mpsc::UnboundedSender<GrpcCall>, seen: Seen, request: Request<Incoming>) -> Answer {
    let (head, begun) = oneshot::channel();
    let (frames, mut sent) = mpsc::channel(1);
    let call = GrpcCall { seen, asked: Messages::of(request.into_body()), head: Some(head), frames };
    let _ = calls.send(call);
    // When the client gives up before, this ends here, and `sent` with it.
    begun.await.map_err(io::Error::other)?;
    let body = StreamBody::new(poll_fn(move |task| sent.poll_recv(task)));
    let response = Response::builder().header("content-type", "application/grpc");
    response.body(body.boxed()).map_err(io::Error::other)
}
