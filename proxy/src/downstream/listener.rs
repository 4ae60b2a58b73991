//! Sockets that accept: bound per worker, surviving what accepting can fail with, drained to the last connection.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use meshgate_wasm::Connection as Facts;
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::connection::{self, Connection, Serving};
use super::handshake::{Handshake, Shaken};
use super::preface::Protocol;
use super::slots::{Slot, Slots};
use super::{ConnectionLimits, ListenerStats, Serve, proxied};
use crate::drain::{DrainTrigger, DrainWatch};
use crate::message::Peer;
use crate::message::proxy_protocol::Addresses;
use crate::tls::Transport;

/// Connections that wait in the kernel to be accepted; the system's own limit may be lower.
const BACKLOG: i32 = 1024;

/// Pause after accepting failed for want of a resource; doubled up to the longest while it lasts.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Unique in the process; taken once per connection.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// Binds a socket for one worker. All workers bind the same address: the kernel spreads the connections over them.
///
/// # Errors
/// The address is taken by another process, is not ours, or may not be bound.
pub fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(socket2::Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A listening socket at work on its worker, with its connections. Dropping it closes the socket; the connections finish
/// what is under way, then close.
pub struct Acceptor<S> {
    serving: Rc<Serving<S>>,
    stats: Arc<ListenerStats>,
    stop: DrainTrigger,
    task: JoinHandle<()>,
}

impl<S: Serve> Acceptor<S> {
    /// Begins to accept, until the drain starts.
    ///
    /// # Errors
    /// The runtime cannot watch the socket.
    pub fn start(socket: std::net::TcpListener, serve: Rc<S>, drain: DrainWatch) -> io::Result<Acceptor<S>> {
        let socket = TcpListener::from_std(socket)?;
        let serving = Serving::new(serve);
        let stats = Arc::new(ListenerStats::default());
        let open = Opener { serving: serving.clone(), stats: stats.clone(), slots: Slots::new() };
        let (stop, stopped) = DrainTrigger::new();
        let task = tokio::task::spawn_local(accept(socket, open, drain, stopped));
        Ok(Acceptor { serving, stats, stop, task })
    }

    /// Gives requests to `serve` from now on, those on open connections too.
    pub fn swap(&self, serve: Rc<S>) {
        self.serving.swap(serve);
    }

    /// Its counts on this worker.
    pub fn stats(&self) -> &Arc<ListenerStats> {
        &self.stats
    }

    /// Stops accepting and waits until its last connection is closed.
    pub async fn finished(self) {
        self.stop.start();
        // It fails only if the task panicked, which the runtime has told.
        let _ = self.task.await;
    }
}

/// Accepts until one of the two drains starts, then waits for the open connections.
async fn accept<S: Serve>(
    socket: TcpListener,
    open: Opener<S>,
    mut drain: DrainWatch,
    mut stopped: DrainWatch,
) {
    let mut pause = SHORTEST_PAUSE;
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = drain.draining() => break,
            () = stopped.draining() => break,
        };
        match accepted {
            Ok((stream, source)) => {
                pause = SHORTEST_PAUSE;
                open.connection(stream, source);
            }
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                open.stats.count_accept_error();
                tracing::warn!(%error, ?pause, "cannot accept connections, trying again after a pause");
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = drain.draining() => break,
                    () = stopped.draining() => break,
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
    open.slots.drain();
    accept_waiting(socket, &open);
    tokio::select! {
        () = open.slots.emptied() => {}
        () = drain.cut() => {
            open.slots.abort();
            open.slots.emptied().await;
        }
    }
}

/// Connections that the kernel has accepted for us would be reset with the socket: they are served as well.
fn accept_waiting<S: Serve>(socket: TcpListener, open: &Opener<S>) {
    let Ok(socket) = socket.into_std() else { return };
    while let Ok((stream, source)) = socket.accept() {
        let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
        if let Ok(stream) = stream {
            open.connection(stream, source);
        }
    }
}

/// What went wrong concerns a connection that is gone already, not the socket.
fn is_about_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
            | io::ErrorKind::TimedOut
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
    )
}

/// Opens a listener's connections.
struct Opener<S> {
    serving: Rc<Serving<S>>,
    stats: Arc<ListenerStats>,
    slots: Rc<Slots>,
}

impl<S: Serve> Opener<S> {
    fn connection(&self, stream: TcpStream, source: SocketAddr) {
        let serve = self.serving.current();
        let limits = serve.limits();
        if self.slots.len() >= limits.max_connections {
            self.stats.count_rejected();
            return;
        }
        // Both fail only when the client is gone already.
        let Ok(destination) = stream.local_addr() else { return };
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let (slot, open) = self.slots.open(id, &limits);
        let counted = Counted::new(self.stats.clone());
        let arrived = Arrived {
            id,
            source,
            destination,
            serving: self.serving.clone(),
            serve,
            slot: slot.clone(),
            limits,
            stats: self.stats.clone(),
        };
        let task = tokio::task::spawn_local(async move {
            let _guards = (open, counted);
            arrived.run(stream).await;
        });
        slot.set_task(task.abort_handle());
    }
}

/// A connection that was accepted, and by whom it is served.
struct Arrived<S> {
    id: u64,
    source: SocketAddr,
    destination: SocketAddr,
    serving: Rc<Serving<S>>,
    serve: Rc<S>,
    slot: Rc<Slot>,
    limits: ConnectionLimits,
    stats: Arc<ListenerStats>,
}

impl<S: Serve> Arrived<S> {
    async fn run(mut self, stream: TcpStream) {
        // Boxed: it is over soon.
        if self.serve.proxy_protocol().is_some() && !Box::pin(self.learn_client(&stream)).await {
            return;
        }
        let Some((transport, protocol, peer)) = self.begin(stream).await else { return };
        let Arrived { serving, serve, slot, limits, stats, .. } = self;
        let peer = Rc::new(peer);
        if serve.is_tcp() {
            // Busy all its life: whoever carries it watches its clock, and a drain waits for its end.
            let _busy = slot.begin().answered();
            // Boxed, as is the end: HTTP connections should not carry the room for it.
            if let Some(client) = Box::pin(serve.carry(peer, transport)).await {
                Box::pin(connection::linger(client)).await;
            }
            return;
        }
        // Each request asks anew who serves it: what a reload replaced is let go.
        drop(serve);
        Connection { serving, peer, slot, limits, stats }.run(transport, protocol).await;
    }

    /// Notes for whom the proxy in front has connected. False: the connection is not to be served.
    async fn learn_client(&mut self, stream: &TcpStream) -> bool {
        let Some(trusted) = self.serve.proxy_protocol() else { return true };
        match proxied::addresses(stream, self.source.ip(), trusted, &self.stats).await {
            Some(Some(Addresses { source, destination })) => {
                self.source = source;
                self.destination = destination;
                true
            }
            // The proxy's own connection: it is the client.
            Some(None) => true,
            None => false,
        }
    }

    /// The connection as its bytes go over it, what is spoken on it if that is known, and who is on the other side.
    async fn begin(&self, stream: TcpStream) -> Option<(Transport, Option<Protocol>, Peer)> {
        let cleartext =
            |stream, facts| Some((Transport::Plain(stream), None, Peer::cleartext(Rc::new(facts))));
        let facts = Facts::cleartext(self.id, self.source, self.destination);
        let Some(tls) = self.serve.tls() else { return cleartext(stream, facts) };
        let handshake = Handshake {
            tls: &tls,
            client: self.source,
            slot: &self.slot,
            stats: &self.stats,
            may_be_silent: self.serve.is_tcp(),
        };
        // Boxed: it is over soon, and the room for it is large.
        match Box::pin(handshake.run(stream)).await? {
            Shaken::Cleartext(stream) => cleartext(stream, facts),
            Shaken::Secured { transport, protocol, settled } => {
                let facts = Facts { tls: Some(settled.tls), ..facts };
                let peer = Peer::secure(Rc::new(facts), settled.authority, settled.forwarded);
                Some((transport, Some(protocol), peer))
            }
        }
    }
}

/// Counts a connection for as long as it is open, however it ends.
struct Counted {
    stats: Arc<ListenerStats>,
}

impl Counted {
    fn new(stats: Arc<ListenerStats>) -> Counted {
        stats.count_accepted();
        Counted { stats }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.stats.count_closed();
    }
}
