//! Connections to endpoints: opening one, speaking HTTP/1.1 on it, closing it at once when it must not be used again.
//! HTTP/2 is in `http2`.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use meshgate_config::Address;
use meshgate_wasm::{Address as Seen, Tls};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::AbortHandle;

use super::dial::{Dialer, Opened};
use super::error::{UpstreamError, UpstreamErrorKind};
use super::interim::{InterimWatch, Requests};
use super::limits::ConnectionSlot;
use super::upload::RequestBody;
use crate::tls::{Speak, Transport};

/// Most bytes of a response head.
pub(super) const MAX_HEAD: usize = 64 * 1024;

/// Most bytes buffered per connection and direction: a full head fits, and a slow peer cannot make it grow.
const MAX_BUFFER: usize = 2 * MAX_HEAD;

/// A socket as HTTP/1.1 is spoken on it, and as it is given back when the protocol changes.
pub(super) type Io = TokioIo<Socket>;

/// An open connection, driven by a task of its own. Dropping it closes the socket at once, whatever is in flight.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) sender: http1::SendRequest<RequestBody>,
    /// The requests that it has carried.
    pub(super) requests: Requests,
    task: AbortHandle,
    /// Our side of it.
    pub(super) local_address: Option<Seen>,
    /// What its TLS handshake settled.
    pub(super) tls: Option<Rc<Tls>>,
    /// It has carried a request before.
    pub(super) reused: bool,
    /// The endpoint was told whose request it is for: it is for no other.
    pub(super) only_once: bool,
    /// How long opening it took.
    pub(super) opened_in: Duration,
}

impl Connection {
    /// Whether it may carry another request, as far as we can know without asking the peer.
    pub(super) fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A socket to an endpoint, counted among its cluster's connections for as long as it is open.
#[derive(Debug)]
pub(super) struct Socket {
    stream: Transport,
    /// Over HTTP/1.1; over HTTP/2 others count.
    interim: Option<InterimWatch>,
    slot: ConnectionSlot,
}

impl Socket {
    pub(super) fn new(stream: Transport, slot: ConnectionSlot) -> Socket {
        Socket { stream, interim: None, slot }
    }

    /// As `new`, for HTTP/1.1 with these requests.
    fn http1(stream: Transport, slot: ConnectionSlot, requests: Requests) -> Socket {
        let most = slot.limits().interim_responses().most();
        Socket { stream, interim: Some(InterimWatch::new(requests, most)), slot }
    }

    pub(super) fn stream(&self) -> &Transport {
        &self.stream
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if let (Some(watch), Poll::Ready(Ok(()))) = (&mut self.interim, &read)
            && let Err(error) = watch.received(&buffer.filled()[before..])
        {
            self.slot.limits().count_interim_overflow();
            return Poll::Ready(Err(io::Error::other(error)));
        }
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Opens a connection for HTTP/1.1.
pub(super) async fn connect(
    address: Address,
    dialer: &Dialer,
    slot: ConnectionSlot,
    greeting: Option<&[u8]>,
) -> Result<Connection, UpstreamError> {
    let began = Instant::now();
    let Opened { transport, local_address, tls } = dialer.open(address, Speak::Http1, greeting).await?;
    let requests = Requests::default();
    let socket = Socket::http1(transport, slot, requests.clone());
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_BUFFER)
        .max_header_size(MAX_HEAD)
        .handshake(TokioIo::new(socket))
        .await
        .map_err(|error| {
            UpstreamError::new(UpstreamErrorKind::ConnectFailed, Some(address), error.to_string())
        })?;
    // Its errors reach the exchange through the sender or the body; what happens to an idle connection is no news.
    let task = tokio::task::spawn_local(async move { connection.with_upgrades().await.ok() }).abort_handle();
    let (only_once, opened_in) = (greeting.is_some(), began.elapsed());
    Ok(Connection { sender, requests, task, local_address, tls, reused: false, only_once, opened_in })
}
