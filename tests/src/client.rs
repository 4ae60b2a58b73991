//! Clients that know what they sent: hyper over HTTP/1.1 or HTTP/2 with prior knowledge, every request with its own id.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, ready};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::ask::{Ask, Body};
use crate::deadline::within;

/// Carries the id that every request gets, so that a backend's list and a client's can be compared.
pub(crate) const ID: &str = "x-test-id";

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// A response's head, on its way.
pub type Begun = BoxFuture<'static, Result<Response<Incoming>, hyper::Error>>;

/// Why there is no connection.
type ConnectError = Box<dyn std::error::Error + Send + Sync>;

/// One connection to a server.
pub struct Client {
    sender: Sender,
    /// See [`drive`].
    turns: Arc<Mutex<()>>,
    authority: String,
}

enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

impl Client {
    /// Connects and speaks HTTP/1.1.
    pub async fn http1(address: SocketAddr) -> Client {
        Client::try_http1(address).await.unwrap_or_else(|error| panic!("connect to {address}: {error}"))
    }

    /// Connects and speaks HTTP/1.1; an `Err` when nobody accepts.
    pub async fn try_http1(address: SocketAddr) -> Result<Client, ConnectError> {
        Client::connect(address, false).await
    }

    /// Connects and speaks HTTP/2 at once, without asking (prior knowledge).
    pub async fn http2(address: SocketAddr) -> Client {
        Client::try_http2(address).await.unwrap_or_else(|error| panic!("connect to {address}: {error}"))
    }

    /// As [`Client::http2`]; an `Err` when nobody accepts, or the connection is closed at once.
    pub async fn try_http2(address: SocketAddr) -> Result<Client, ConnectError> {
        Client::connect(address, true).await
    }

    async fn connect(address: SocketAddr, http2: bool) -> Result<Client, ConnectError> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Client::try_over(stream, http2, &address.to_string()).await?)
    }

    /// Speaks HTTP over a connection that is there.
    pub(crate) async fn over<S>(stream: S, http2: bool, authority: &str) -> Client
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        Client::try_over(stream, http2, authority).await.expect("HTTP over an open connection")
    }

    /// Speaks HTTP over a connection that may be on its way to its end.
    pub async fn try_over<S>(stream: S, http2: bool, authority: &str) -> Result<Client, hyper::Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let stream = TokioIo::new(stream);
        let (sender, turns) = if http2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
            (Sender::Http2(sender), drive(connection))
        } else {
            let (sender, connection) = http1::handshake(stream).await?;
            (Sender::Http1(sender), drive(connection))
        };
        Ok(Client { sender, turns, authority: authority.to_owned() })
    }

    /// The authority that requests carry from now on, instead of the address.
    pub fn authority(mut self, authority: &str) -> Client {
        authority.clone_into(&mut self.authority);
        self
    }

    /// Sends, and waits for the response's head; its body still streams.
    pub async fn start(&mut self, ask: Ask) -> Result<Response<Incoming>, hyper::Error> {
        self.begin(ask).await?.await
    }

    /// Waits until the connection can take a request, and sends. The future is the response's head; on an HTTP/2
    /// connection, other requests can begin before it comes.
    pub async fn begin(&mut self, ask: Ask) -> Result<Begun, hyper::Error> {
        let request = self.addressed(ask);
        match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await?;
                let _turn = self.turns.lock().expect("nobody panics in a turn");
                Ok(Box::pin(sender.send_request(request)))
            }
            Sender::Http2(sender) => {
                sender.ready().await?;
                let _turn = self.turns.lock().expect("nobody panics in a turn");
                Ok(Box::pin(sender.send_request(request)))
            }
        }
    }

    /// Sends, and waits for the whole response.
    pub async fn try_call(&mut self, ask: Ask) -> Result<Reply, hyper::Error> {
        Reply::collect(self.start(ask).await?).await
    }

    /// Sends, and waits for the whole response; anything else than a response fails the test.
    pub async fn call(&mut self, ask: Ask) -> Reply {
        match within("a response", self.try_call(ask)).await {
            Ok(reply) => reply,
            Err(error) => panic!("no whole response: {error:?}"),
        }
    }

    /// `call` of a GET.
    pub async fn get(&mut self, path: &str) -> Reply {
        self.call(Ask::get(path)).await
    }

    /// True once the server ended the connection.
    pub fn is_closed(&self) -> bool {
        match &self.sender {
            Sender::Http1(sender) => sender.is_closed(),
            Sender::Http2(sender) => sender.is_closed(),
        }
    }

    fn addressed(&self, ask: Ask) -> Request<Body> {
        let mut request = ask.into_request();
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        request.headers_mut().entry(ID).or_insert(HeaderValue::from(id));
        match self.sender {
            Sender::Http1(_) => {
                let authority = HeaderValue::try_from(&self.authority).expect("an authority the test wrote");
                request.headers_mut().entry(http::header::HOST).or_insert(authority);
            }
            Sender::Http2(_) => {
                let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
                let uri = format!("http://{}{path}", self.authority);
                *request.uri_mut() = uri.parse::<Uri>().expect("an authority the test wrote");
                *request.version_mut() = Version::HTTP_2;
            }
        }
        request
    }
}

/// Runs a connection in a task of its own, in turns with who hands requests to it: what is put into its queue on one thread while it ends
/// on another is neither sent nor refused, and who waits for the answer would do so for ever.
fn drive(connection: impl Future + Send + 'static) -> Arc<Mutex<()>> {
    let turns = Arc::new(Mutex::new(()));
    let (own, mut connection) = (Arc::clone(&turns), Some(Box::pin(connection)));
    tokio::spawn(poll_fn(move |cx| {
        let _turn = own.lock().expect("nobody panics in a turn");
        if let Some(running) = &mut connection {
            ready!(running.as_mut().poll(cx));
        }
        // The queue goes with it.
        connection = None;
        Poll::Ready(())
    }));
    turns
}

/// A whole response.
#[derive(Debug)]
pub struct Reply {
    /// The status code.
    pub status: StatusCode,
    /// The version it came in.
    pub version: Version,
    /// The header fields.
    pub headers: HeaderMap,
    /// The body, all of it.
    pub body: Bytes,
    /// The trailers; empty when there were none.
    pub trailers: HeaderMap,
}

impl Reply {
    /// Reads `response` to its end.
    pub async fn collect(response: Response<Incoming>) -> Result<Reply, hyper::Error> {
        let (head, body) = response.into_parts();
        let body = body.collect().await?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        Ok(Reply {
            status: head.status,
            version: head.version,
            headers: head.headers,
            body: body.to_bytes(),
            trailers,
        })
    }

    /// The first value of a header field, "" when it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("a field value in ASCII"))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        match serde_json::from_slice(&self.body) {
            Ok(value) => value,
            Err(error) => panic!("not JSON ({error}): {} {}", self.status, self.text()),
        }
    }
}
