//! One client's connection, from its first byte to its last.

use std::cell::RefCell;
use std::error::Error;
use std::future::{Future, poll_fn};
use std::io::ErrorKind;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONNECTION;
use http::{HeaderValue, Method, Request, Response, Version};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::{Service, service_fn};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::{TokioIo, TokioTimer};

use super::io::Socket;
use super::preface::{self, Beginning, Protocol};
use super::slots::{InFlight, Order, Phase, Slot};
use super::{ConnectionLimits, ListenerStats, Serve};
use crate::message::{Body, BodyError, Duplex, Peer, Tunnel};
use crate::overload;
use crate::socket::Socket as PlainSocket;
use crate::tls::Transport;

/// HTTP/2: bytes that a client may send on one stream, and on all of them, before we take them.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// HTTP/2: bytes of one response that wait for the client.
const MAX_SEND_BUFFER: usize = 256 * 1024;
/// HTTP/2: the same of connections that open when memory is short. A connection's window cannot be smaller.
const SMALL_WINDOW: u32 = 65_535;
const SMALL_SEND_BUFFER: usize = 32 * 1024;
/// A response of so many bytes does not wait for memory.
const SMALL_BODY: u64 = 16 * 1024;
/// HTTP/2: streams that we had to reset for the client's mistakes before the connection is closed.
const MAX_ERROR_RESETS: usize = 128;
/// HTTP/2: a ping after so much silence, and so long to answer it.
const PING_INTERVAL: Duration = Duration::from_secs(60);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// HTTP/1: how long, and how many bytes, a client may go on sending after its last response.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1024 * 1024;

/// Who serves a listener's requests now; a reload changes it between two requests.
pub(super) struct Serving<S> {
    current: RefCell<Rc<S>>,
}

impl<S> Serving<S> {
    pub(super) fn new(serve: Rc<S>) -> Rc<Serving<S>> {
        Rc::new(Serving { current: RefCell::new(serve) })
    }

    pub(super) fn current(&self) -> Rc<S> {
        self.current.borrow().clone()
    }

    pub(super) fn swap(&self, serve: Rc<S>) {
        // The old one is dropped outside of the borrow: its end may run code of its own.
        let old = self.current.replace(serve);
        drop(old);
    }
}

/// What one connection needs to know.
pub(super) struct Connection<S> {
    pub(super) serving: Rc<Serving<S>>,
    pub(super) peer: Rc<Peer>,
    pub(super) slot: Rc<Slot>,
    pub(super) limits: ConnectionLimits,
    pub(super) stats: Arc<ListenerStats>,
}

impl<S: Serve> Connection<S> {
    /// Serves the client until it or we have had enough. What it speaks is known, or its first bytes tell.
    pub(super) async fn run(self, stream: Transport, known: Option<Protocol>) {
        let mut beginning = Beginning::default();
        let mut opaque = None;
        let protocol = match known {
            Some(protocol) => protocol,
            None => {
                opaque = self.serving.current().opaque();
                let patience = opaque.as_ref().map(|(_, patience)| *patience);
                match self.protocol(stream.socket(), &mut beginning, patience).await {
                    Some(told) => told,
                    None => return,
                }
            }
        };
        match (protocol, opaque) {
            (Protocol::Http1, _) => self.http1(stream, beginning).await,
            (Protocol::Http2, _) => self.http2(stream, beginning).await,
            (Protocol::Opaque, Some(_)) if overload::refuses() => {
                overload::count_refused();
                self.stats.count_rejected();
            }
            (Protocol::Opaque, Some((serve, _))) => {
                let ahead = Bytes::from(beginning.take(usize::MAX));
                carry_whole(serve, &self.slot, self.peer, stream, ahead).await;
            }
            (Protocol::Opaque, None) => {}
        }
    }

    /// What the client speaks, by its first bytes. With `patience`, it may be anything, and one that says too little for so long
    /// waits for the server.
    async fn protocol(
        &self,
        stream: &PlainSocket,
        beginning: &mut Beginning,
        patience: Option<Duration>,
    ) -> Option<Protocol> {
        let mut reading = std::pin::pin!(preface::read(stream, beginning, patience.is_some()));
        // Boxed: most listeners have none.
        let mut silence = patience.map(|patience| Box::pin(tokio::time::sleep(patience)));
        poll_fn(|cx| match self.slot.order(cx) {
            Some(Order::Late(_)) => {
                self.stats.count_timed_out();
                Poll::Ready(None)
            }
            Some(Order::Finish | Order::Abuse) => Poll::Ready(None),
            None => {
                if let Poll::Ready(read) = reading.as_mut().poll(cx) {
                    return Poll::Ready(read.ok().flatten());
                }
                let silence = silence.as_mut().map(|silence| silence.as_mut().poll(cx));
                if silence.is_some_and(|silence| silence.is_ready()) {
                    return Poll::Ready(Some(Protocol::Opaque));
                }
                Poll::Pending
            }
        })
        .await
    }

    async fn http1(self, stream: Transport, beginning: Beginning) {
        let mut builder = http1::Builder::new();
        builder
            // A client that closes its side is taken for gone, so that work for it ends: see docs/decisions.
            .half_close(false)
            .header_read_timeout(None)
            .max_header_size(self.limits.max_header_bytes)
            .max_buf_size(buffer_size(self.limits.max_header_bytes));
        if self.limits.max_headers != ConnectionLimits::default().max_headers {
            // hyper's own maximum is the same, and setting it costs an allocation per request.
            builder.max_headers(self.limits.max_headers);
        }
        let socket = Socket::new(stream, beginning, self.slot.clone());
        let mut connection = builder.serve_connection(socket, self.exchanges());
        let end = poll_fn(|cx| {
            match self.slot.order(cx) {
                Some(Order::Finish) => Pin::new(&mut connection).graceful_shutdown(),
                Some(Order::Late(phase)) => return Poll::Ready(End::Late(phase)),
                Some(Order::Abuse) => return Poll::Ready(End::Abuse),
                None => {}
            }
            Pin::new(&mut connection).poll(cx).map(End::Over)
        })
        .await;
        self.count(&end);
        match end {
            End::Late(Phase::Head) => refuse_late(connection.into_parts().io.into_stream()),
            End::Over(Ok(())) => {
                let parts = connection.into_parts();
                if let Some(tunnel) = self.slot.take_tunnel() {
                    // Whoever carries it watches its clock, and a drain waits for its end.
                    let _busy = self.slot.begin().answered();
                    tunnel.carry(parts.io.into_stream(), parts.read_buf).await;
                } else {
                    // Boxed: few connections end like this, and none should carry the room for it all its life.
                    Box::pin(linger(parts.io.into_stream())).await;
                }
            }
            End::Over(Err(_)) | End::Late(_) | End::Abuse => {}
        }
    }

    async fn http2(self, stream: Transport, beginning: Beginning) {
        self.slot.set_multiplexed();
        let frames = self.limits.max_control_frames;
        let socket = Socket::http2(stream, beginning, self.slot.clone(), frames);
        let mut builder = http2::Builder::new(LocalExecutor);
        let (stream_window, connection_window, send_buffer) = if overload::holds() {
            (SMALL_WINDOW, SMALL_WINDOW, SMALL_SEND_BUFFER)
        } else {
            (STREAM_WINDOW, CONNECTION_WINDOW, MAX_SEND_BUFFER)
        };
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.limits.max_streams)
            .initial_stream_window_size(stream_window)
            .initial_connection_window_size(connection_window)
            .max_send_buf_size(send_buffer)
            .max_header_list_size(u32::try_from(self.limits.max_header_bytes).unwrap_or(u32::MAX))
            .max_local_error_reset_streams(MAX_ERROR_RESETS)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT);
        if self.limits.may_upgrade {
            builder.enable_connect_protocol();
        }
        let mut connection = std::pin::pin!(builder.serve_connection(socket, self.exchanges()));
        let mut finishing = false;
        let end = poll_fn(|cx| {
            match self.slot.order(cx) {
                // An idle connection is told why it ends; if it does not go then, the next sweep closes it.
                Some(Order::Finish | Order::Late(Phase::Idle)) if !finishing => {
                    finishing = true;
                    connection.as_mut().graceful_shutdown();
                }
                Some(Order::Finish) | None => {}
                Some(Order::Late(phase)) => return Poll::Ready(End::Late(phase)),
                Some(Order::Abuse) => return Poll::Ready(End::Abuse),
            }
            connection.as_mut().poll(cx).map(End::Over)
        })
        .await;
        self.count(&end);
    }

    /// The connection's requests, as hyper hands them over.
    fn exchanges(
        &self,
    ) -> impl Service<
        Request<Incoming>,
        Response = Response<ResponseBody>,
        Error = Box<dyn Error + Send + Sync>,
        Future: 'static,
    > + use<S> {
        let (serving, peer, slot, stats) =
            (self.serving.clone(), self.peer.clone(), self.slot.clone(), self.stats.clone());
        service_fn(move |mut request: Request<Incoming>| {
            stats.count_request();
            let in_flight = slot.begin();
            let closes = request.version() < Version::HTTP_2;
            let connects = !closes && request.method() == Method::CONNECT;
            let stream = connects.then(|| hyper::upgrade::on(&mut request));
            let (slot, peer, serve) = (slot.clone(), peer.clone(), serving.current());
            async move {
                // An exchange takes kilobytes: made in its box, it is not moved again with what hyper keeps per request.
                let response = Box::pin(serve.serve(peer, request)).await;
                let in_flight = in_flight.answered();
                let mut response = response.map_err(Into::into)?;
                if let Some(tunnel) = response.body_mut().take_tunnel() {
                    let Some(stream) = stream else {
                        slot.put_tunnel(tunnel);
                        return Ok(response.map(|body| ResponseBody::new(body, Some(in_flight))));
                    };
                    let carrying = tokio::task::spawn_local(carry(tunnel, stream, in_flight));
                    slot.carries(carrying.abort_handle());
                    return Ok(response.map(|body| ResponseBody::new(body, None)));
                } else if closes && slot.is_leaving() {
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok(response.map(|body| ResponseBody::new(body, Some(in_flight))))
            }
        })
    }

    fn count(&self, end: &End) {
        match end {
            End::Late(Phase::Head | Phase::Busy) => self.stats.count_timed_out(),
            // The HTTP/2 code keeps to itself what an error of the socket was.
            End::Over(_) if self.slot.is_flooding() => {
                self.stats.count_flooded();
                tracing::info!(client = %self.peer.connection.source, "client floods with empty frames, closed");
            }
            End::Over(Err(error)) if error.is_parse() || is_protocol_error(error) => {
                self.stats.count_malformed();
                tracing::debug!(client = %self.peer.connection.source, %error, "malformed request");
            }
            End::Abuse => {
                self.stats.count_malformed();
                tracing::info!(client = %self.peer.connection.source, "client takes its requests back, closed");
            }
            End::Late(Phase::Handshake | Phase::Idle) | End::Over(_) => {}
        }
    }
}

/// Serves a connection that does not speak HTTP, from its first byte to its last.
pub(super) async fn carry_whole<S: Serve>(
    serve: Rc<S>,
    slot: &Rc<Slot>,
    peer: Rc<Peer>,
    client: Transport,
    ahead: Bytes,
) {
    // Busy all its life: whoever carries it watches its clock, and a drain waits for its end.
    let _busy = slot.begin().answered();
    // Boxed, as is the end: HTTP connections should not carry the room for it.
    if let Some(client) = Box::pin(serve.carry(peer, client, ahead)).await {
        Box::pin(linger(client)).await;
    }
}

/// How a connection ended.
enum End {
    Over(hyper::Result<()>),
    Late(Phase),
    Abuse,
}

/// HTTP/2 errors that the client is told about.
fn is_protocol_error(error: &hyper::Error) -> bool {
    !error.is_canceled()
        && !error.is_closed()
        && !error.is_incomplete_message()
        && !error.is_user()
        && !is_io(error)
        && !error.is_timeout()
}

fn is_io(error: &hyper::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.is::<std::io::Error>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Room for a full head and as much again, within what one slow client may cost.
fn buffer_size(max_header_bytes: usize) -> usize {
    max_header_bytes.saturating_mul(2).clamp(16 * 1024, 1024 * 1024)
}

/// A head that did not come in time is answered if the socket takes the answer without waiting. When memory is short it may have
/// come, and not have been read.
fn refuse_late(stream: Transport) {
    let status =
        if overload::holds() { "503 Service Unavailable\r\nretry-after: 1" } else { "408 Request Timeout" };
    let words = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    stream.say_at_once(words.as_bytes());
}

/// Reads on for a moment after the last response. A client that was answered while it was still sending would otherwise
/// meet a reset, and with it could lose the response (RFC 9112 section 9.6).
pub(super) async fn linger(stream: Transport) {
    let stream = stream.into_socket();
    let rest = async {
        let mut thrown_away = [0; 4096];
        let mut left = LINGER_BYTES;
        while left > 0 && stream.readable().await.is_ok() {
            match stream.try_read(&mut thrown_away) {
                Ok(0) => break,
                Ok(read) => left = left.saturating_sub(read),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
        }
    };
    // The connection ends either way.
    let _ = tokio::time::timeout(LINGER, rest).await;
}

/// What goes on with a stream of HTTP/2 that changes its protocol; while it lasts, the connection is not idle.
async fn carry(tunnel: Tunnel, stream: OnUpgrade, _busy: InFlight) {
    // It fails if the client leaves before it has the response's head.
    if let Ok(stream) = stream.await {
        tunnel.carry(TokioIo::new(stream), Bytes::new()).await;
    }
}

/// A stream of HTTP/2. There is no way to break it off: it ends with what was written.
impl Duplex for TokioIo<Upgraded> {}

/// Runs HTTP/2's streams on the worker's own thread.
#[derive(Clone, Copy)]
struct LocalExecutor;

impl<F> Executor<F> for LocalExecutor
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

/// A response's body; while it lasts, so does the exchange.
struct ResponseBody {
    body: Body,
    /// None if something else lasts longer.
    in_flight: Option<InFlight>,
}

impl ResponseBody {
    fn new(body: Body, in_flight: Option<InFlight>) -> ResponseBody {
        ResponseBody { body, in_flight }
    }

    /// Whether what is left of it takes next to no memory.
    fn is_small(&self) -> bool {
        http_body::Body::size_hint(&self.body).upper().is_some_and(|most| most <= SMALL_BODY)
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if !overload::holds() || self.is_small() {
            return Pin::new(&mut self.body).poll_frame(cx);
        }
        if let Some(in_flight) = &self.in_flight {
            ready!(in_flight.poll_turn(cx));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let (Some(in_flight), Some(Ok(_))) = (&self.in_flight, &frame) {
            in_flight.gave();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
