//! One connection that speaks HTTP/2, and the task that drives it.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{self, SendRequest};
use meshgate_config::Address;
use meshgate_wasm::{Address as Seen, Tls};
use tokio::sync::Notify;

use crate::message::http2_frames::{FrameBudget, Watched};
use crate::overload;
use crate::tls::Speak;
use crate::upstream::connect::{MAX_HEAD, Socket};
use crate::upstream::dial::{Dialer, Opened};
use crate::upstream::error::{UpstreamError, UpstreamErrorKind};
use crate::upstream::limits::ConnectionSlot;

/// Requests at once on one connection, whatever the peer allows.
pub(super) const MAX_STREAMS: usize = 256;
/// Bytes in flight per response.
const STREAM_WINDOW: u32 = 256 * 1024;
/// The same when memory is short.
const SMALL_WINDOW: u32 = 16 * 1024;
/// Bytes in flight per connection: enough that responses whose clients do not read never stop the others.
const CONNECTION_WINDOW: u32 = MAX_STREAMS as u32 * STREAM_WINDOW;
/// Bytes buffered per request that the peer does not take yet.
const MAX_SEND_BUFFER: usize = 256 * 1024;
/// Frames in a row that bring no response forward; an endpoint with more is let go.
const MAX_FRAMES: u32 = 1000;
/// How long a connection that is let go of may take to say so to its peer.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// A connection. Dropping it closes it; then no request is on it any more.
pub(super) struct Connection {
    /// Never sends: its clones do.
    sender: RefCell<SendRequest<Bytes>>,
    watch: Rc<Watch>,
    /// Our side of it.
    pub(super) local_address: Option<Seen>,
    /// What its TLS handshake settled.
    pub(super) tls: Option<Rc<Tls>>,
    /// Requests on it.
    pub(super) streams: Cell<usize>,
    /// It has carried a request before.
    pub(super) used: Cell<bool>,
    /// The sweep in which it was last in use.
    pub(super) idle_since: Cell<u32>,
}

/// What the driving task and the connection's users tell each other.
struct Watch {
    /// The connection has ended.
    ended: Cell<bool>,
    /// The peer has said how many requests it allows, or the connection has ended.
    settled: Notify,
    /// Nobody wants it any more.
    unwanted: Notify,
    crowd: Rc<Crowd>,
}

/// Those who wait for a stream on one of an endpoint's connections.
#[derive(Default)]
pub(super) struct Crowd {
    pub(super) waiting: Cell<usize>,
    pub(super) changed: Notify,
}

impl Crowd {
    /// One stream is free again.
    pub(super) fn one(&self) {
        if self.waiting.get() > 0 {
            self.changed.notify_one();
        }
    }

    /// Everybody is to look again.
    pub(super) fn all(&self) {
        if self.waiting.get() > 0 {
            self.changed.notify_waiters();
        }
    }
}

impl Connection {
    /// Opens one. It is open when the peer has said how it wants to be spoken to; a peer that does not
    /// speak HTTP/2 shows here, before any request is sent to it.
    pub(super) async fn open(
        address: Address,
        crowd: &Rc<Crowd>,
        dialer: &Dialer,
        slot: ConnectionSlot,
    ) -> Result<Rc<Connection>, UpstreamError> {
        let failed =
            |details: String| UpstreamError::new(UpstreamErrorKind::ConnectFailed, Some(address), details);
        let Opened { transport, local_address, tls } = dialer.open(address, Speak::Http2, None).await?;
        let stream = Socket::new(transport, slot);
        let (sender, connection) = builder()
            .handshake(Watched::new(stream, FrameBudget::new(MAX_FRAMES, 0)))
            .await
            .map_err(|error| failed(error.to_string()))?;
        let watch = Rc::new(Watch {
            ended: Cell::new(false),
            settled: Notify::new(),
            unwanted: Notify::new(),
            crowd: Rc::clone(crowd),
        });
        let driver = Driver { connection, watch: Rc::clone(&watch), allowed: 0, is_small: false };
        tokio::task::spawn_local(driver.run());
        let connection = Rc::new(Connection {
            sender: RefCell::new(sender),
            watch,
            local_address,
            tls,
            streams: Cell::new(0),
            used: Cell::new(false),
            idle_since: Cell::new(0),
        });
        connection.settled().await.map_err(failed)?;
        Ok(connection)
    }

    /// Waits for the peer's settings.
    async fn settled(&self) -> Result<(), String> {
        loop {
            if self.watch.ended.get() {
                return Err("the endpoint does not speak HTTP/2".to_owned());
            }
            if self.sender.borrow().current_max_send_streams() > 0 {
                return Ok(());
            }
            self.watch.settled.notified().await;
        }
    }

    /// Whether it may carry another request now.
    pub(super) fn has_room(&self) -> bool {
        self.streams.get() < self.sender.borrow().current_max_send_streams().min(MAX_STREAMS)
    }

    /// Whether the peer lets streams change their protocol.
    pub(super) fn may_change_protocols(&self) -> bool {
        self.sender.borrow().is_extended_connect_protocol_enabled()
    }

    /// Whether it is of no use any more: closed, broken, or on its way to that by the peer's GOAWAY.
    pub(super) fn is_closed(&self) -> bool {
        let mut nobody = Context::from_waker(std::task::Waker::noop());
        self.watch.ended.get()
            || matches!(self.sender.borrow_mut().poll_ready(&mut nobody), Poll::Ready(Err(_)))
    }

    /// A way to send one request.
    pub(super) fn sender(&self) -> SendRequest<Bytes> {
        self.sender.borrow().clone()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.watch.unwanted.notify_one();
    }
}

fn builder() -> client::Builder {
    let mut builder = client::Builder::new();
    builder
        // None before the peer has said how many: how its settings are waited for.
        .initial_max_send_streams(0)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(MAX_SEND_BUFFER)
        .max_header_list_size(MAX_HEAD as u32)
        .max_concurrent_reset_streams(MAX_STREAMS)
        .enable_push(false);
    builder
}

/// Reads and writes for all requests on the connection.
struct Driver {
    connection: client::Connection<Watched<Socket>, Bytes>,
    watch: Rc<Watch>,
    /// Streams the peer allowed when somebody was last told.
    allowed: usize,
    /// The peer was told to send less ahead.
    is_small: bool,
}

impl Driver {
    async fn run(mut self) {
        let watch = Rc::clone(&self.watch);
        let open = tokio::select! {
            () = poll_fn(|cx| self.poll(cx)) => false,
            () = watch.unwanted.notified() => true,
        };
        if open {
            // With its last user gone it says goodbye; a peer that does not read it is not waited for.
            let _ = tokio::time::timeout(LAST_WORDS, &mut self.connection).await;
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let small = overload::holds();
        if small != self.is_small {
            let window = if small { SMALL_WINDOW } else { STREAM_WINDOW };
            // It fails while the peer has not acknowledged the settings before: the next time, then.
            self.is_small = self.connection.set_initial_window_size(window).map_or(self.is_small, |()| small);
        }
        // What went wrong is told to each request on it.
        let ended = Pin::new(&mut self.connection).poll(cx).is_ready();
        let allowed = self.connection.max_concurrent_send_streams();
        if ended || allowed != self.allowed {
            self.allowed = allowed;
            self.watch.ended.set(ended);
            self.watch.settled.notify_one();
            self.watch.crowd.all();
        }
        if ended { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.watch.ended.set(true);
    }
}
