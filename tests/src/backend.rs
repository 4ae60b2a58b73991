//! Upstream servers over HTTP/1.1 or HTTP/2 that answer as a test says and remember what they saw. For single bytes see `RawBackend`.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use http::{HeaderMap, Method, Request, Response, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use crate::ask::{Body, full};
use crate::client::ID;
use crate::deadline::within;

/// What a backend answers with; an error resets the connection.
pub type Answer = io::Result<Response<Body>>;

/// The head of a request as a backend received it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Which of the backend's connections it came on, counted from 1.
    pub connection: usize,
    /// The method.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// The header fields.
    pub headers: HeaderMap,
}

impl Seen {
    /// The id that the harness's client gave the request, "" for a request from elsewhere.
    pub fn id(&self) -> &str {
        self.header(ID)
    }

    /// The first value of a header field, "" when it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("a field value in ASCII"))
    }
}

/// A server on a free port of 127.0.0.1, gone when dropped.
pub struct Backend {
    name: String,
    address: SocketAddr,
    record: Arc<Record>,
    accepting: AbortHandle,
}

struct Record {
    seen: Mutex<Vec<Seen>>,
    requests: watch::Sender<usize>,
    accepted: AtomicUsize,
    open: watch::Sender<usize>,
}

impl Backend {
    /// Answers every request with a description of it: see `describe`.
    pub async fn echo(name: &str) -> Backend {
        let named = name.to_owned();
        Backend::answering(name, move |seen, request| describe(named.clone(), seen, request)).await
    }

    /// `echo` at this address.
    pub async fn echo_at(name: &str, address: SocketAddr) -> Backend {
        let named = name.to_owned();
        let answer = move |seen, request| describe(named.clone(), seen, request);
        Backend::listening(address, Version::HTTP_11, name, answer).await
    }

    /// Answers every request by `answer`.
    pub async fn answering<A, F>(name: &str, answer: A) -> Backend
    where
        A: Fn(Seen, Request<Incoming>) -> F + Clone + Send + 'static,
        F: Future<Output = Answer> + Send + 'static,
    {
        Backend::speaking(Version::HTTP_11, name, answer).await
    }

    /// `answering` over HTTP/2 with prior knowledge.
    pub async fn http2<A, F>(name: &str, answer: A) -> Backend
    where
        A: Fn(Seen, Request<Incoming>) -> F + Clone + Send + 'static,
        F: Future<Output = Answer> + Send + 'static,
    {
        Backend::speaking(Version::HTTP_2, name, answer).await
    }

    /// `echo` over HTTP/2.
    pub async fn http2_echo(name: &str) -> Backend {
        let named = name.to_owned();
        Backend::http2(name, move |seen, request| describe(named.clone(), seen, request)).await
    }

    async fn speaking<A, F>(version: Version, name: &str, answer: A) -> Backend
    where
        A: Fn(Seen, Request<Incoming>) -> F + Clone + Send + 'static,
        F: Future<Output = Answer> + Send + 'static,
    {
        Backend::listening(SocketAddr::from(([127, 0, 0, 1], 0)), version, name, answer).await
    }

    async fn listening<A, F>(address: SocketAddr, version: Version, name: &str, answer: A) -> Backend
    where
        A: Fn(Seen, Request<Incoming>) -> F + Clone + Send + 'static,
        F: Future<Output = Answer> + Send + 'static,
    {
        let listener = TcpListener::bind(address).await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let record = Arc::new(Record {
            seen: Mutex::default(),
            requests: watch::Sender::new(0),
            accepted: AtomicUsize::new(0),
            open: watch::Sender::new(0),
        });
        let accepting = tokio::spawn(accept(listener, version, Arc::clone(&record), answer)).abort_handle();
        Backend { name: name.to_owned(), address, record, accepting }
    }

    /// Its name, which `echo` puts into every answer.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The heads of all requests until now.
    pub fn seen(&self) -> Vec<Seen> {
        self.record.seen.lock().expect("nobody panics while pushing").clone()
    }

    /// How many requests came until now.
    pub fn requests(&self) -> usize {
        *self.record.requests.borrow()
    }

    /// Waits until `count` requests came in all.
    pub async fn wait_for_requests(&self, count: usize) {
        let mut requests = self.record.requests.subscribe();
        let what = format!("{count} requests at backend {}", self.name);
        let _ = within(what, requests.wait_for(|now| *now >= count)).await;
    }

    /// How many connections were accepted until now.
    pub fn connections(&self) -> usize {
        self.record.accepted.load(Ordering::SeqCst)
    }

    /// Waits until no connection is open.
    pub async fn wait_until_unused(&self) {
        let mut open = self.record.open.subscribe();
        let what = format!("every connection to backend {} is closed", self.name);
        let _ = within(what, open.wait_for(|now| *now == 0)).await;
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept<A, F>(listener: TcpListener, version: Version, record: Arc<Record>, answer: A)
where
    A: Fn(Seen, Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.expect("accept");
        let connection = record.accepted.fetch_add(1, Ordering::SeqCst) + 1;
        record.open.send_modify(|open| *open += 1);
        connections.spawn(serve(stream, version, connection, Arc::clone(&record), answer.clone()));
        while connections.try_join_next().is_some() {}
    }
}

async fn serve<A, F>(stream: TcpStream, version: Version, connection: usize, record: Arc<Record>, answer: A)
where
    A: Fn(Seen, Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let _ = stream.set_nodelay(true);
    let remember = Arc::clone(&record);
    let service = service_fn(move |request: Request<Incoming>| {
        let seen = Seen {
            connection,
            method: request.method().clone(),
            path: request.uri().path_and_query().map_or_else(String::new, ToString::to_string),
            headers: request.headers().clone(),
        };
        remember.seen.lock().expect("nobody panics while pushing").push(seen.clone());
        remember.requests.send_modify(|count| *count += 1);
        answer(seen, request)
    });
    // An error here is the peer leaving or an answer that the test broke off on purpose.
    let stream = TokioIo::new(stream);
    if version == Version::HTTP_2 {
        let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service).await;
    } else {
        let _ = http1::Builder::new().serve_connection(stream, service).await;
    }
    record.open.send_modify(|open| *open -= 1);
}

/// Reads the whole request and describes it in JSON: `backend`, `connection`, `method`, `path`, `headers` (an object;
/// repeated fields joined by ", "), `trailers`, `length`, `sha256` and, as text, `body`.
async fn describe(backend: String, seen: Seen, request: Request<Incoming>) -> Answer {
    let body = request.into_body().collect().await.map_err(io::Error::other)?;
    let trailers = body.trailers().map(fields);
    let body = body.to_bytes();
    let sha256 = Sha256::digest(&body).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let description = json!({
        "backend": backend,
        "connection": seen.connection,
        "method": seen.method.as_str(),
        "path": seen.path,
        "headers": fields(&seen.headers),
        "trailers": trailers,
        "length": body.len(),
        "sha256": sha256,
        "body": String::from_utf8_lossy(&body),
    });
    let answer = Response::builder()
        .header("content-type", "application/json")
        .header("x-backend", backend)
        .body(full(description.to_string()));
    answer.map_err(io::Error::other)
}

fn fields(headers: &HeaderMap) -> serde_json::Map<String, serde_json::Value> {
    let joined = |name| {
        let values = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
        values.collect::<Vec<_>>().join(", ")
    };
    headers.keys().map(|name| (name.to_string(), joined(name).into())).collect()
}
