//! One worker: a thread with its own runtime, its own sockets, its own VMs and its own connections. A request lives and
//! dies on it. The server speaks to it by [`Command`]s and by the drain watch; nothing else is shared on a request's
//! path.

mod host;
mod serve;
mod timers;

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use meshgate_config::Diagnostic;
use meshgate_wasm::{Engine, Vms};
use tokio::runtime;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{self, LocalSet};

use self::host::WorkerHost;
use crate::admin;
use crate::downstream::{Acceptor, Bound, Listeners};
use crate::drain::DrainWatch;
use crate::message::failpoint;
use crate::snapshot::{Listener, Seat, Shared, Snapshot, WorkerSnapshot};
use crate::telemetry::{AccessLog, AccessLogSink, ExchangeMetrics};
use crate::upstream::Upstream;

/// Commands that may wait: a reload has two, and one reload runs at a time.
const COMMANDS: usize = 4;

/// A worker's stack, in bytes, whatever `RUST_MIN_STACK` says: guests take up to 512 KiB of it, and what a hostcall finds
/// above them must be enough.
const STACK: usize = 2 << 20;

/// What a worker is started with.
pub struct Parts {
    /// The compiler of modules.
    pub engine: Engine,
    /// What all VMs of the process share.
    pub shared: Arc<meshgate_wasm::Shared>,
    /// Where access log lines go.
    pub access_log: AccessLogSink,
    /// The counters of exchanges.
    pub metrics: ExchangeMetrics,
    /// Where plugins' counters are registered.
    pub admin: Arc<admin::State>,
    /// Where listeners' counters are registered.
    pub listeners: Arc<Listeners>,
    /// Tells when to stop.
    pub drain: DrainWatch,
    /// How many workers there are.
    pub workers: usize,
}

/// A socket for a listener that a worker does not have yet.
pub struct ListenerSocket {
    /// The listener's name.
    pub name: String,
    /// Bound and listening.
    pub socket: Bound,
}

/// What the server asks of a worker.
pub enum Command {
    /// Build the parts of this snapshot beside the running ones.
    Prepare {
        /// What to build.
        snapshot: Arc<Snapshot>,
        /// Sockets of listeners that the worker does not have yet.
        sockets: Vec<ListenerSocket>,
        /// Whether it worked.
        reply: oneshot::Sender<Result<(), Box<Diagnostic>>>,
    },
    /// Serve by what was prepared, from the next request on.
    Commit {
        /// Answered when it is done.
        reply: oneshot::Sender<()>,
    },
    /// Let go of what was prepared.
    Abandon,
    /// Give other handles to the sockets that are accepted from.
    Handles {
        /// Each with its listener's name.
        reply: oneshot::Sender<io::Result<Vec<ListenerSocket>>>,
    },
}

/// A running worker, as the server holds it.
pub struct Worker {
    commands: mpsc::Sender<Command>,
    thread: JoinHandle<()>,
}

impl Worker {
    /// Starts a worker's thread.
    ///
    /// # Errors
    /// The thread, or its runtime, cannot be made.
    pub fn start(index: usize, parts: Parts) -> io::Result<Worker> {
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let thread =
            thread::Builder::new().name(format!("worker-{index}")).stack_size(STACK).spawn(move || {
                LocalSet::new().block_on(&runtime, Running::new(index, parts).run(receiver));
                // What is left are connections past the drain's deadline: dropped with the runtime.
            })?;
        Ok(Worker { commands, thread })
    }

    /// Has the worker build a snapshot's parts; `Err(None)` if the worker is gone.
    ///
    /// # Errors
    /// Why it cannot, or `None` if the worker is gone.
    pub async fn prepare(
        &self,
        snapshot: Arc<Snapshot>,
        sockets: Vec<ListenerSocket>,
    ) -> Result<(), Option<Box<Diagnostic>>> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Prepare { snapshot, sockets, reply }).await.map_err(|_| None)?;
        answer.await.map_err(|_| None)?.map_err(Some)
    }

    /// Has the worker serve by what it prepared. Returns when it does.
    pub async fn commit(&self) {
        let (reply, done) = oneshot::channel();
        if self.commands.send(Command::Commit { reply }).await.is_ok() {
            let _ = done.await;
        }
    }

    /// Has the worker let go of what it prepared.
    pub async fn abandon(&self) {
        let _ = self.commands.send(Command::Abandon).await;
    }

    /// Other handles to the sockets that it accepts from.
    ///
    /// # Errors
    /// There are too many open files, or the worker is gone, or accepts no more.
    pub async fn handles(&self) -> io::Result<Vec<ListenerSocket>> {
        let gone = || io::Error::other("a worker thread has ended");
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Handles { reply }).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Whether the thread has ended.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }
}

/// The worker's own side.
struct Running {
    vms: Vms,
    host: Rc<WorkerHost>,
    shared: Shared,
    metrics: ExchangeMetrics,
    admin: Arc<admin::State>,
    drain: DrainWatch,
    current: Option<WorkerSnapshot>,
    prepared: Option<Prepared>,
    acceptors: HashMap<String, Acceptor<Listener>>,
    /// Listeners that are gone and have open connections.
    leaving: Vec<task::JoinHandle<()>>,
    listeners: Arc<Listeners>,
}

struct Prepared {
    snapshot: WorkerSnapshot,
    sockets: Vec<ListenerSocket>,
}

impl Running {
    fn new(index: usize, parts: Parts) -> Running {
        let upstream = Rc::new(Upstream::default());
        let host = Rc::new(WorkerHost::new(Rc::clone(&upstream)));
        let vms = Vms::new(parts.engine, Rc::clone(&host) as Rc<dyn meshgate_wasm::Host>, parts.shared);
        let access_log = Rc::new(AccessLog::new(parts.access_log));
        Running {
            vms,
            host,
            shared: Shared { upstream, access_log, seat: Seat { index, of: parts.workers } },
            metrics: parts.metrics,
            admin: parts.admin,
            drain: parts.drain,
            current: None,
            prepared: None,
            acceptors: HashMap::new(),
            leaving: Vec::new(),
            listeners: parts.listeners,
        }
    }

    /// Serves until the drain is over and every connection has ended.
    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let access_log = Rc::clone(&self.shared.access_log);
        task::spawn_local(async move { access_log.run().await });
        let vms = self.vms.clone();
        task::spawn_local(async move {
            loop {
                let rest = poll_fn(|cx| vms.poll_events(cx)).await;
                if rest.is_zero() {
                    // What the network has for the worker comes first.
                    task::yield_now().await;
                } else {
                    tokio::time::sleep(rest).await;
                }
            }
        });
        let (vms, host) = (self.vms.clone(), Rc::clone(&self.host));
        task::spawn_local(async move {
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                while vms.sweep() {
                    task::yield_now().await;
                }
                if !vms.has_pending() {
                    host.forget_clusters();
                }
            }
        });
        let mut drain = self.drain.clone();
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.obey(command),
                    None => break,
                },
                () = drain.draining() => break,
            }
        }
        self.leaving.extend(self.acceptors.drain().map(|(_, acceptor)| acceptor.leave()));
        for leaving in self.leaving.drain(..) {
            // It fails only if the task panicked, which the runtime has told.
            let _ = leaving.await;
        }
        // Streams of connections that were broken off end in tasks of their own.
        task::yield_now().await;
        // The plugins end with their last owner; one that is not done at once gets the time that a reload gives it.
        self.prepared = None;
        self.current = None;
        poll_fn(|cx| self.vms.poll_ended(cx)).await;
        self.shared.access_log.flush();
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Prepare { snapshot, sockets, reply } => {
                let _ = reply.send(self.prepare(snapshot, sockets));
            }
            Command::Commit { reply } => {
                self.commit();
                let _ = reply.send(());
            }
            Command::Abandon => self.abandon(),
            Command::Handles { reply } => {
                let asked = self.acceptors.iter().map(|(name, acceptor)| (name.clone(), acceptor.handles()));
                let asked: Vec<_> = asked.collect();
                task::spawn_local(async move {
                    let _ = reply.send(handles(asked).await);
                });
            }
        }
    }

    fn prepare(
        &mut self,
        snapshot: Arc<Snapshot>,
        sockets: Vec<ListenerSocket>,
    ) -> Result<(), Box<Diagnostic>> {
        // A filter that starts may call any cluster of the configuration that it starts with.
        let host = Rc::clone(&self.host);
        let built = WorkerSnapshot::build(
            snapshot,
            &self.vms,
            &self.shared,
            &self.metrics,
            self.current.as_ref(),
            &|clusters| host.use_clusters(clusters.clone()),
        );
        match built {
            Ok(snapshot) => {
                for plugin in &snapshot.plugins {
                    self.admin.add_plugin(plugin);
                }
                self.prepared = Some(Prepared { snapshot, sockets });
                Ok(())
            }
            Err(diagnostic) => {
                self.abandon();
                Err(Box::new(diagnostic))
            }
        }
    }

    fn abandon(&mut self) {
        self.prepared = None;
        let clusters = self.current.as_ref().map(|current| current.clusters.clone());
        self.host.use_clusters(clusters.unwrap_or_default());
    }

    /// The swap: everything was built before, so this cannot fail and takes no time.
    fn commit(&mut self) {
        let Some(Prepared { snapshot, sockets }) = self.prepared.take() else { return };
        // Connections of a listener that is gone finish what they have begun, at the end of the process too.
        self.leaving.retain(|leaving| !leaving.is_finished());
        let gone = self.acceptors.extract_if(|name, _| !snapshot.listeners.contains_key(name));
        self.leaving.extend(gone.map(|(_, acceptor)| acceptor.leave()));
        for (name, listener) in &snapshot.listeners {
            if let Some(acceptor) = self.acceptors.get(name) {
                acceptor.swap(Rc::clone(listener));
            }
        }
        for ListenerSocket { name, socket } in sockets {
            let Some(listener) = snapshot.listeners.get(&name) else { continue };
            failpoint::reach(&format!("{name} on worker {}", self.shared.seat.index));
            if let Some(acceptor) = self.acceptors.get_mut(&name) {
                if let Err(error) = acceptor.also(socket, self.drain.clone()) {
                    tracing::error!(listener = %name, %error, "cannot accept connections");
                }
                continue;
            }
            let addresses = self.listeners.addresses(&name);
            match Acceptor::start(socket, Rc::clone(listener), addresses, self.drain.clone()) {
                Ok(acceptor) => {
                    self.listeners.add(&name, acceptor.stats());
                    self.acceptors.insert(name, acceptor);
                }
                Err(error) => tracing::error!(listener = %name, %error, "cannot accept connections"),
            }
        }
        // The old snapshot goes when its last exchange ends.
        self.current = Some(snapshot);
    }
}

async fn handles(
    asked: Vec<(String, impl Future<Output = io::Result<Vec<Bound>>>)>,
) -> io::Result<Vec<ListenerSocket>> {
    let mut all = Vec::new();
    for (name, handles) in asked {
        let handles = handles.await?.into_iter();
        all.extend(handles.map(|socket| ListenerSocket { name: name.clone(), socket }));
    }
    Ok(all)
}
