//! The process: load, build, bind, start the workers, serve the admin API, reload, wait for a signal, drain.

mod build;
mod expiry;
mod inherited;
mod pressure;
mod rollout;
mod signals;
mod summary;
mod systemd;
mod upgrade;

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use meshgate_config::Drain;
use meshgate_wasm::Engine;
use tokio::net::TcpListener;
use tokio::runtime;
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;

pub use self::build::{Builder, Built};
use self::inherited::Predecessor;
use self::rollout::Rollout;
use self::signals::{Asked, Signals};
use self::systemd::{ActivationSockets, Notifier};
use self::upgrade::Upgrade;
use crate::admin::{self, Readiness};
use crate::downstream::Listeners;
use crate::drain::{DrainTrigger, DrainWatch};
use crate::overload;
use crate::reload::{FirstLoad, Reloader};
use crate::telemetry::{AccessLogTarget, AccessLogWriter, ExchangeMetrics, Registry};
use crate::worker::{Parts, Worker};

/// What the server is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The configuration's file.
    pub configuration: PathBuf,
    /// Worker threads, instead of what the configuration says or one per core.
    pub workers: Option<NonZeroUsize>,
}

/// How long workers may take to break off what was not finished.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How long the access log's last lines may take to be written at the end.
const LOG_PATIENCE: Duration = Duration::from_secs(2);

/// Why the server did not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The configuration cannot be used. All diagnostics, as text.
    #[error("{0}")]
    Configuration(String),
    /// An address cannot be listened on.
    #[error("cannot listen on {address} for {what}: {error}")]
    Bind {
        /// Whose address it is.
        what: &'static str,
        /// The address.
        address: SocketAddr,
        /// The system's words.
        error: io::Error,
    },
    /// The system refuses something else that the process needs.
    #[error("cannot {what}: {error}")]
    System {
        /// What was attempted.
        what: &'static str,
        /// The system's words.
        error: io::Error,
    },
    /// A worker's own loop, or one that accepts connections, ended by a panic.
    #[error("a worker has ended by a defect; what was under way elsewhere was finished")]
    WorkerLost,
    /// The WebAssembly engine does not start.
    #[error(transparent)]
    Engine(#[from] meshgate_wasm::EngineError),
}

fn system(what: &'static str) -> impl Fn(io::Error) -> ServerError {
    move |error| ServerError::System { what, error }
}

/// Runs the proxy until it is told to stop.
///
/// # Errors
/// Why it did not start, or that a worker was lost: without it, this process is not what it says it is, and whoever watches
/// over it can start another one.
pub fn run(options: Options) -> Result<(), ServerError> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(system("start the main thread's runtime"))?;
    LocalSet::new().block_on(&runtime, serve(options))
}

async fn serve(options: Options) -> Result<(), ServerError> {
    let began = SystemTime::now();
    let mut signals = Signals::new().map_err(system("watch for signals"))?;
    let systemd = Rc::new(Notifier::from_environment());
    let predecessor = Predecessor::take().map_err(system("take the place of another process"))?.map(Rc::new);
    let activation = ActivationSockets::take();
    let process = Process::new();
    let upgrade = Upgrade::new(&process.registry);
    let mut builder = Builder::new(options.configuration.clone())?;
    let Built { outcome, files } = builder.build().await;
    let snapshot = outcome.map_err(ServerError::Configuration)?;

    let access_log = AccessLogWriter::start(&process.registry).map_err(system("start the access log"))?;
    let target = AccessLogTarget::open(&snapshot.config.access_log);
    access_log.switch(target.map_err(system("open the access log"))?);
    let (drain, watch) = DrainTrigger::new();
    let count = options.workers.map(usize::from).or(snapshot.config.workers).unwrap_or_else(cores);
    let workers = process.start_workers(count, builder.engine(), &access_log, watch)?;
    let mut admin = match &snapshot.config.admin {
        Some(admin) => Some(bind_admin(admin.address, predecessor.as_deref(), &upgrade).await?),
        None => None,
    };
    let mut serving_admin = None;
    if predecessor.is_none() {
        // Whoever asks meanwhile is told that this process starts; another one that is there says what it does.
        serving_admin =
            admin.take().map(|socket| tokio::spawn(admin::serve(socket, Arc::clone(&process.state))));
    }

    let rollout = Rollout::new(rollout::Parts {
        builder,
        workers,
        access_log,
        state: Arc::clone(&process.state),
        shared: Arc::clone(&process.shared),
        file: options.configuration,
        activation,
        predecessor: predecessor.clone(),
        systemd: Rc::clone(&systemd),
        running: RefCell::new(None),
        socket_files: RefCell::default(),
        caretaker: RefCell::default(),
    });
    let version = snapshot.version.clone();
    rollout.swap(snapshot).await.map_err(ServerError::Configuration)?;
    let first = FirstLoad { version: version.clone(), files, began };
    let (reloader, handle) = Reloader::new(rollout.clone(), first, &process.registry);
    process.state.set_reload(handle);
    let reloading = tokio::task::spawn_local(reloader.run());
    // It goes on in the drain: what is finished there takes memory, too.
    tokio::task::spawn_local(pressure::watch(Arc::clone(&process.state), rollout.clone()));
    let watching = tokio::task::spawn_local(expiry::watch(Arc::clone(&process.state)));
    let (requests, mut asked) = mpsc::channel(1);
    process.state.set_upgrade(requests);
    process.state.set_readiness(Readiness::Ready);
    if let Some(predecessor) = &predecessor {
        predecessor.tell_ready().map_err(system("tell the process before this one"))?;
    }
    if let Some(socket) = admin {
        serving_admin = Some(tokio::spawn(admin::serve(socket, Arc::clone(&process.state))));
    }
    systemd.ready();
    tracing::info!(%version, workers = count, "ready");

    let end = tokio::select! {
        end = wait_for_end(&mut signals, &mut asked, &rollout, &upgrade) => end,
        () = drain.lost() => {
            tracing::error!("a worker has ended by a defect: what is under way elsewhere is finished, then the process ends");
            Ended::Broken
        }
        never = systemd.keep_alive() => match never {},
    };
    // Whoever asks from now on is told that this is not the time.
    drop(asked);
    let mut how = rollout.drain();
    let outcome = if matches!(end, Ended::Broken) { Err(ServerError::WorkerLost) } else { Ok(()) };
    match end {
        Ended::Told | Ended::Broken => systemd.stopping(how.delay + how.timeout + rollout.filters_end()),
        Ended::Replaced(pid) => {
            systemd.replaced_by(pid);
            rollout.leave_socket_files();
            if let Some(serving) = serving_admin {
                serving.abort();
            }
            // New connections are served, if not by this process.
            how.delay = Duration::ZERO;
        }
    }
    process.state.set_readiness(Readiness::Draining);
    reloading.abort();
    watching.abort();
    finish(drain, how, &mut signals, rollout).await;
    outcome
}

/// Finishes what is in flight, within the time the configuration gives, and writes the access log's last lines.
async fn finish(drain: DrainTrigger, how: Drain, signals: &mut Signals, rollout: Rollout) {
    let Drain { delay, timeout, spread } = how;
    tracing::info!(?delay, ?timeout, ?spread, "draining: requests in flight are finished");
    let last_words = tokio::select! {
        // Filters have their time after what was broken off, too.
        () = drained(&drain, &rollout, delay, timeout) => LAST_WORDS + rollout.filters_end(),
        () = told_again(signals, &rollout) => {
            tracing::warn!("told to stop a second time: not waiting any longer");
            LAST_WORDS
        }
    };
    rollout.remove_socket_files();
    // What is left is broken off, and logged.
    drain.cut();
    tokio::select! {
        _ = tokio::time::timeout(last_words, drain.finished()) => {}
        () = told_again(signals, &rollout) => {}
    }
    if !rollout.close_access_log(LOG_PATIENCE) {
        tracing::warn!("the last lines of the access log could not be written");
    }
}

/// Waits until the drain is over, or its time. New connections are served until `delay` has passed: whoever sends them may not
/// have heard yet that there should be none.
async fn drained(drain: &DrainTrigger, rollout: &Rollout, delay: Duration, patience: Duration) {
    tokio::time::sleep(delay).await;
    rollout.remove_socket_files();
    drain.start();
    tokio::select! {
        () = drain.finished() => tracing::info!("drained"),
        () = tokio::time::sleep(patience) => tracing::warn!("not everything was finished in time"),
    }
}

/// What there is one of in the process, whatever the configuration.
struct Process {
    registry: Arc<Registry>,
    state: Arc<admin::State>,
    /// What the filters' VMs share.
    shared: Arc<meshgate_wasm::Shared>,
    listeners: Arc<Listeners>,
    metrics: ExchangeMetrics,
}

impl Process {
    fn new() -> Process {
        let registry = Arc::new(Registry::new());
        let shared = meshgate_wasm::Shared::new();
        let filters = Arc::clone(shared.metrics());
        registry.append(move |out| filters.render(out));
        registry.append(overload::metrics);
        Process {
            state: admin::State::new(Arc::clone(&registry), Arc::clone(&shared)),
            listeners: Listeners::register(&registry),
            metrics: ExchangeMetrics::register(&registry),
            shared,
            registry,
        }
    }

    fn start_workers(
        &self,
        count: usize,
        engine: &Engine,
        access_log: &AccessLogWriter,
        drain: DrainWatch,
    ) -> Result<Vec<Worker>, ServerError> {
        let parts = || Parts {
            engine: engine.clone(),
            shared: Arc::clone(&self.shared),
            access_log: access_log.sink(),
            metrics: self.metrics.clone(),
            admin: Arc::clone(&self.state),
            listeners: Arc::clone(&self.listeners),
            drain: drain.clone(),
            workers: count,
        };
        let workers = (0..count).map(|index| Worker::start(index, parts()));
        workers.collect::<io::Result<_>>().map_err(system("start a worker"))
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The admin API's socket: the one that the process before this one has, or one of our own.
async fn bind_admin(
    configured: SocketAddr,
    predecessor: Option<&Predecessor>,
    upgrade: &Upgrade,
) -> Result<TcpListener, ServerError> {
    let bind = |error| ServerError::Bind { what: "the admin API", address: configured, error };
    let name = configured.to_string();
    let socket = match predecessor.and_then(|predecessor| predecessor.admin(&name)) {
        Some(given) => TcpListener::from_std(given),
        None => TcpListener::bind(configured).await,
    };
    let socket = socket.map_err(bind)?;
    let address = socket.local_addr().map_err(bind)?;
    upgrade.note_admin(&name, &socket).map_err(bind)?;
    tracing::info!(%address, "admin listening");
    Ok(socket)
}

/// Why the process ends.
enum Ended {
    /// A signal told it to.
    Told,
    /// A new process, with this id, has taken its place.
    Replaced(u32),
    /// A worker was lost.
    Broken,
}

/// Where somebody waits for what becomes of an upgrade.
type Upgraded = oneshot::Sender<Result<u32, String>>;

/// Waits for a signal that ends, or for another process to take over; obeys the other signals.
async fn wait_for_end(
    signals: &mut Signals,
    asked: &mut mpsc::Receiver<Upgraded>,
    rollout: &Rollout,
    upgrade: &Upgrade,
) -> Ended {
    loop {
        let waiting = tokio::select! {
            signal = signals.next() => match signal {
                Asked::End => return Ended::Told,
                Asked::Reopen => {
                    rollout.reopen_access_log();
                    continue;
                }
                Asked::Upgrade => None,
            },
            Some(waiting) = asked.recv() => Some(waiting),
        };
        let outcome = tokio::select! {
            outcome = upgrade.attempt(rollout) => outcome,
            // What was started meanwhile is ended with it.
            () = told_again(signals, rollout) => return Ended::Told,
        };
        let end = outcome.as_ref().ok().map(|pid| Ended::Replaced(*pid));
        if let Some(waiting) = waiting {
            let _ = waiting.send(outcome);
        }
        if let Some(end) = end {
            return end;
        }
    }
}

/// Waits for a signal that ends, while the process ends or is being replaced.
async fn told_again(signals: &mut Signals, rollout: &Rollout) {
    loop {
        match signals.next().await {
            Asked::End => return,
            Asked::Reopen => rollout.reopen_access_log(),
            Asked::Upgrade => {}
        }
    }
}
