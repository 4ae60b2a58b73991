//! The servers of a case: each answers as the case says, and remembers what it was asked.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// A request or a response, whole.
#[derive(Clone, Debug, Default)]
pub(super) struct Message {
    /// The method and the target, or nothing.
    pub(super) method: String,
    pub(super) path: String,
    /// The status, or 0.
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// What a server does with the next requests.
#[derive(Clone, Debug)]
pub(crate) struct Answering {
    pub(crate) response: Response<Bytes>,
    pub(crate) delay: Duration,
    pub(crate) fails: bool,
}

/// A server; it ends with its runtime.
pub(super) struct Server {
    address: SocketAddr,
    state: Rc<State>,
}

#[derive(Default)]
struct State {
    answering: RefCell<Option<Answering>>,
    asked: RefCell<Vec<Message>>,
}

impl Server {
    /// A server on a port of its own.
    pub(super) async fn start() -> io::Result<Server> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let server = Server { address: listener.local_addr()?, state: Rc::default() };
        tokio::task::spawn_local(accept(listener, Rc::clone(&server.state)));
        Ok(server)
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on it answers so, and has been asked nothing.
    pub(super) fn answer(&self, answering: Answering) {
        self.state.answering.replace(Some(answering));
        self.state.asked.take();
    }

    /// What it was asked since.
    pub(super) fn asked(&self) -> Vec<Message> {
        self.state.asked.borrow().clone()
    }
}

async fn accept(listener: TcpListener, state: Rc<State>) {
    while let Ok((stream, _)) = listener.accept().await {
        let state = Rc::clone(&state);
        let service = service_fn(move |request| answer(request, Rc::clone(&state)));
        // One request each: a connection that fails is none that was used before, which would be tried again.
        let mut builder = hyper::server::conn::http1::Builder::new();
        let connection = builder.keep_alive(false).serve_connection(TokioIo::new(stream), service);
        // How a connection ends is for the proxy to say.
        tokio::task::spawn_local(async move { drop(connection.await) });
    }
}

/// Why a connection is closed without an answer.
type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn answer(request: Request<Incoming>, state: Rc<State>) -> Result<Response<Full<Bytes>>, Failure> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let path = head.uri.path_and_query().map_or_else(String::new, ToString::to_string);
    let message = Message { method: head.method.to_string(), path, status: 0, headers: head.headers, body };
    state.asked.borrow_mut().push(message);
    let answering = state.answering.borrow().clone();
    let answering = answering.filter(|answering| !answering.fails).ok_or("it is to fail")?;
    tokio::time::sleep(answering.delay).await;
    Ok(answering.response.map(Full::new))
}

/// Asks the proxy, on a connection of its own.
pub(super) async fn ask(address: SocketAddr, request: Request<Full<Bytes>>) -> Result<Message, Failure> {
    let stream = tokio::net::TcpStream::connect(address).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::task::spawn_local(async move { drop(connection.await) });
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok(Message { status: head.status.as_u16(), headers: head.headers, body, ..Message::default() })
}
