//! The servers of a case: each answers as the case says, and remembers what it was asked.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Either, Full};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;

use super::grpc::{self, Came, Conversation, GrpcAnswering};

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
    /// Those of a call or stream of gRPC.
    pub(super) messages: Came,
}

/// What a server does with the next requests.
#[derive(Clone, Debug)]
pub(crate) struct Answering {
    pub(crate) response: Response<Bytes>,
    pub(crate) delay: Duration,
    pub(crate) fails: bool,
    pub(crate) grpc: Option<GrpcAnswering>,
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
        let mut builder = auto::Builder::new(OnThisThread);
        // One request each: a connection that fails is none that was used before, which would be tried again.
        builder.http1().keep_alive(false);
        tokio::task::spawn_local(async move {
            // How a connection ends is for the proxy to say.
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// Runs what belongs to a connection of HTTP/2 beside it.
#[derive(Clone, Copy)]
struct OnThisThread;

impl<F: Future + 'static> Executor<F> for OnThisThread {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}

/// Why a connection is closed without an answer.
type Failure = Box<dyn std::error::Error + Send + Sync>;

type Answered = Response<Either<Full<Bytes>, Conversation>>;

async fn answer(request: Request<Incoming>, state: Rc<State>) -> Result<Answered, Failure> {
    let (head, body) = request.into_parts();
    let path = head.uri.path_and_query().map_or_else(String::new, ToString::to_string);
    let (mut headers, mut body) = (head.headers, Some(body));
    if let Some(authority) = head.uri.authority() {
        // As HTTP/1.1 has it, which cases are written for.
        headers.insert(http::header::HOST, authority.as_str().parse()?);
    }
    let is_grpc = grpc::is_grpc(&headers);
    let mut message = Message { method: head.method.to_string(), path, headers, ..Message::default() };
    if let Some(body) = body.take_if(|_| !is_grpc) {
        message.body = body.collect().await?.to_bytes();
    }
    let came = Rc::clone(&message.messages);
    state.asked.borrow_mut().push(message);
    let answering = state.answering.borrow().clone();
    let answering = answering.filter(|answering| !answering.fails).ok_or("it is to fail")?;
    tokio::time::sleep(answering.delay).await;
    Ok(match (body, answering.grpc) {
        (None, _) => answering.response.map(|body| Either::Left(Full::new(body))),
        (Some(body), Some(answering)) => grpc::respond(answering, body, came).map(Either::Right),
        (Some(_), None) => grpc::unimplemented().map(Either::Left),
    })
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
