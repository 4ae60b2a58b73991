//! Sockets at work: surviving what accepting can fail with, drained to the last connection.

use std::future::Future;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use meshgate_wasm::{Address, Connection as Facts, Tls};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::accept::{Accepted, Bound, Listening};
use super::addresses::{ByAddress, Place};
use super::connection::{self, Connection, Serving};
use super::handshake::{Handshake, Shaken};
use super::hello::{self, Greeting};
use super::preface::Protocol;
use super::slots::{Slot, Slots};
use super::{ConnectionLimits, ListenerStats, Serve, proxied};
use crate::drain::{DrainTrigger, DrainWatch};
use crate::message::Peer;
use crate::message::proxy_protocol::Addresses;
use crate::overload;
use crate::socket::Socket;
use crate::tls::Transport;

/// Pause after accepting failed for want of a resource; doubled up to the longest while it lasts.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Unique in the process; taken once per connection.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// A listener at work on its worker: one or several sockets, with their connections. Dropping it closes the sockets; the
/// connections leave, one by one, and finish what is under way.
pub struct Acceptor<S> {
    open: Rc<Opener<S>>,
    stop: DrainTrigger,
    stopped: DrainWatch,
    loops: Vec<Loop>,
}

/// One of its sockets at work.
struct Loop {
    task: JoinHandle<()>,
    asks: mpsc::Sender<AskedForHandle>,
}

/// Where another handle to a socket goes.
type AskedForHandle = oneshot::Sender<io::Result<Bound>>;

impl<S: Serve> Acceptor<S> {
    /// Begins to accept, until the drain starts.
    ///
    /// # Errors
    /// The runtime cannot watch the socket.
    pub fn start(
        socket: Bound,
        serve: Rc<S>,
        addresses: Arc<ByAddress>,
        drain: DrainWatch,
    ) -> io::Result<Acceptor<S>> {
        let serving = Serving::new(serve);
        let stats = Arc::new(ListenerStats::default());
        let slots = Slots::new(stats.clone());
        let (stop, stopped) = DrainTrigger::new();
        let open = Rc::new(Opener { serving, stats, slots, addresses });
        let mut acceptor = Acceptor { open, stop, stopped, loops: Vec::new() };
        acceptor.also(socket, drain)?;
        Ok(acceptor)
    }

    /// Accepts from another socket, too.
    ///
    /// # Errors
    /// The runtime cannot watch it.
    pub fn also(&mut self, socket: Bound, drain: DrainWatch) -> io::Result<()> {
        let socket = Listening::new(socket)?;
        let (asks, asked) = mpsc::channel(1);
        let accepting = accept(socket, Rc::clone(&self.open), asked, drain, self.stopped.clone());
        self.loops.push(Loop { task: tokio::task::spawn_local(accepting), asks });
        Ok(())
    }

    /// Gives requests to `serve` from now on, those on open connections too. If these were let in by other terms than hold
    /// now, they leave, little by little.
    pub fn swap(&self, serve: Rc<S>) {
        let Opener { serving, slots, .. } = &*self.open;
        let leave = !serve.has_the_terms_of(&serving.current());
        let window = serve.drain_spread();
        serving.swap(serve);
        if leave {
            slots.leave(window);
        }
    }

    /// Its counts on this worker.
    pub fn stats(&self) -> &Arc<ListenerStats> {
        &self.open.stats
    }

    /// Other handles to its sockets, for a process that is to accept from them too.
    pub fn handles(&self) -> impl Future<Output = io::Result<Vec<Bound>>> + use<S> {
        let ask = |one: &Loop| {
            let (reply, answer) = oneshot::channel();
            one.asks.try_send(reply).map(|()| answer).map_err(|_| leaving())
        };
        let answers: Vec<_> = self.loops.iter().map(ask).collect();
        async move {
            let mut handles = Vec::with_capacity(answers.len());
            for answer in answers {
                handles.push(answer?.await.map_err(|_| leaving())??);
            }
            Ok(handles)
        }
    }

    /// Stops accepting. What it gives back ends when its last connection is closed.
    pub fn leave(self) -> JoinHandle<()> {
        self.stop.start();
        tokio::task::spawn_local(async move {
            for one in self.loops {
                // It fails only if the task panicked, which the runtime has told.
                let _ = one.task.await;
            }
        })
    }
}

fn leaving() -> io::Error {
    io::Error::other("the listener does not accept any more")
}

/// Accepts until one of the two drains starts, then waits for the open connections.
async fn accept<S: Serve>(
    socket: Listening,
    open: Rc<Opener<S>>,
    mut asked: mpsc::Receiver<AskedForHandle>,
    mut drain: DrainWatch,
    mut stopped: DrainWatch,
) {
    let mut pause = SHORTEST_PAUSE;
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            Some(reply) = asked.recv() => {
                let _ = reply.send(socket.handle());
                continue;
            }
            () = drain.draining() => break,
            () = stopped.draining() => break,
        };
        match accepted {
            Ok(accepted) => {
                pause = SHORTEST_PAUSE;
                open.connection(accepted);
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
    accept_waiting(socket, &open);
    open.slots.leave(open.serving.current().drain_spread());
    tokio::select! {
        () = open.slots.emptied() => {}
        () = drain.cut() => {
            open.slots.abort();
            open.slots.emptied().await;
        }
    }
}

/// Connections that the kernel has accepted for us would be reset with the socket: they are served as well.
fn accept_waiting<S: Serve>(socket: Listening, open: &Opener<S>) {
    for accepted in socket.waiting() {
        open.connection(accepted);
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
    addresses: Arc<ByAddress>,
}

impl<S: Serve> Opener<S> {
    fn connection(&self, Accepted { socket, source, destination }: Accepted) {
        let serve = self.serving.current();
        let limits = serve.limits();
        if overload::closes() {
            overload::count_closed();
            self.stats.count_rejected();
            return;
        }
        if overload::refuses() && serve.is_tcp() {
            overload::count_refused();
            self.stats.count_rejected();
            return;
        }
        let Some(admitted) = self.addresses.admit(limits.max_connections) else {
            self.stats.count_rejected();
            return;
        };
        overload::took(overload::EXCHANGE);
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
            addresses: self.addresses.clone(),
        };
        let task = tokio::task::spawn_local(async move {
            let _guards = (admitted, open, counted);
            arrived.run(socket).await;
        });
        slot.set_task(task.abort_handle());
    }
}

/// A connection that was accepted, and by whom it is served.
struct Arrived<S> {
    id: u64,
    source: Address,
    destination: Address,
    serving: Rc<Serving<S>>,
    serve: Rc<S>,
    slot: Rc<Slot>,
    limits: ConnectionLimits,
    stats: Arc<ListenerStats>,
    addresses: Arc<ByAddress>,
}

impl<S: Serve> Arrived<S> {
    async fn run(mut self, stream: Socket) {
        // Boxed: it is over soon.
        if self.serve.proxy_protocol().is_some() && !Box::pin(self.learn_client(&stream)).await {
            return;
        }
        let Some(_place) = self.place() else {
            self.stats.count_crowded();
            tracing::debug!(client = %self.source, "too many connections of this address, closed");
            return;
        };
        let Some(Begun { transport, protocol, peer, ahead }) = self.begin(stream).await else { return };
        let Arrived { serving, serve, slot, limits, stats, .. } = self;
        let peer = Rc::new(peer);
        if serve.is_tcp() {
            return connection::carry_whole(serve, &slot, peer, transport, ahead).await;
        }
        // Each request asks anew who serves it: what a reload replaced is let go.
        drop(serve);
        Connection { serving, peer, slot, limits, stats }.run(transport, protocol).await;
    }

    /// A place among the connections of its address. The outer `None`: there is none left; the inner: nobody counts them.
    fn place(&self) -> Option<Option<Place>> {
        match (self.limits.max_connections_per_address, self.source.ip()) {
            (Some(most), Some(address)) => self.addresses.enter(address, most).map(Some),
            _ => Some(None),
        }
    }

    /// Notes for whom the proxy in front has connected. False: the connection is not to be served.
    async fn learn_client(&mut self, stream: &Socket) -> bool {
        let Some(trusted) = self.serve.proxy_protocol() else { return true };
        let Some(from) = self.source.ip() else { return false };
        match proxied::addresses(stream, from, trusted, &self.stats).await {
            Some(Some(Addresses { source, destination })) => {
                self.source = source.into();
                self.destination = destination.into();
                true
            }
            // The proxy's own connection: it is the client.
            Some(None) => true,
            None => false,
        }
    }

    /// Waits until what comes before the first byte of the protocol is over.
    async fn begin(&self, stream: Socket) -> Option<Begun> {
        let facts = Facts::cleartext(self.id, self.source, self.destination);
        if let Some(most) = self.serve.passthrough() {
            // Boxed, as is the handshake: it is over soon, and the room for it is large.
            let read = Box::pin(hello::read(&stream, self.source, most, &self.slot, &self.stats));
            let Greeting { hello, bytes } = read.await?;
            let tls = Some(Tls { server_name: hello.server_name, ..Tls::default() });
            return Some(Begun { ahead: bytes, ..Begun::cleartext(stream, Facts { tls, ..facts }) });
        }
        let Some(tls) = self.serve.tls() else { return Some(Begun::cleartext(stream, facts)) };
        let handshake = Handshake {
            tls: &tls,
            client: self.source,
            slot: &self.slot,
            stats: &self.stats,
            may_be_silent: self.serve.is_tcp() || self.serve.opaque().is_some(),
        };
        match Box::pin(handshake.run(stream)).await? {
            Shaken::Cleartext(stream) => Some(Begun::cleartext(stream, facts)),
            Shaken::Secured { transport, protocol, settled } => {
                let facts = Facts { tls: Some(settled.tls), ..facts };
                let peer = Peer::secure(Rc::new(facts), settled.authority, settled.forwarded);
                Some(Begun { transport, protocol: Some(protocol), peer, ahead: Bytes::new() })
            }
        }
    }
}

/// A connection whose client can be served.
struct Begun {
    /// As its bytes go over it.
    transport: Transport,
    /// What is spoken on it, if that is known.
    protocol: Option<Protocol>,
    /// Who is on the other side.
    peer: Peer,
    /// What has been read of it.
    ahead: Bytes,
}

impl Begun {
    fn cleartext(stream: Socket, facts: Facts) -> Begun {
        let peer = Peer::cleartext(Rc::new(facts));
        Begun { transport: Transport::from(stream), protocol: None, peer, ahead: Bytes::new() }
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
