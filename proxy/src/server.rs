//! The process: load, build, bind, start the workers, serve the admin API, reload, wait for a signal, drain.

mod build;
mod rollout;
mod summary;

use std::future::pending;
use std::io;
use std::num::NonZeroUsize;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::net::TcpListener;
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;

pub use self::build::{Builder, Built};
use self::rollout::Rollout;
use crate::admin::{self, Readiness};
use crate::downstream::Listeners;
use crate::drain::DrainTrigger;
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
/// Why it did not start. Once it runs, nothing but a signal ends it.
pub fn run(options: Options) -> Result<(), ServerError> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(system("start the main thread's runtime"))?;
    LocalSet::new().block_on(&runtime, serve(options))
}

async fn serve(options: Options) -> Result<(), ServerError> {
    let began = SystemTime::now();
    let registry = Arc::new(Registry::new());
    let state = admin::State::new(Arc::clone(&registry));
    let shared = meshgate_wasm::Shared::new();
    let metrics = Arc::clone(shared.metrics());
    registry.append(move |out| metrics.render(out));

    let mut builder = Builder::new(options.configuration.clone())?;
    let built = builder.build().await;
    let snapshot = built.outcome.map_err(ServerError::Configuration)?;
    let config = &snapshot.config;

    let access_log = AccessLogWriter::start(&registry).map_err(system("start the access log"))?;
    let target = AccessLogTarget::open(&config.access_log).map_err(system("open the access log"))?;
    access_log.switch(target);

    let listeners = Listeners::register(&registry);
    let (drain, watch) = DrainTrigger::new();
    let metrics = ExchangeMetrics::register(&registry);
    let count = options.workers.map(usize::from).or(config.workers).unwrap_or_else(cores);
    let mut workers = Vec::with_capacity(count);
    for index in 0..count {
        let parts = Parts {
            engine: builder.engine().clone(),
            shared: Arc::clone(&shared),
            access_log: access_log.sink(),
            metrics: metrics.clone(),
            admin: Arc::clone(&state),
            listeners: Arc::clone(&listeners),
            drain: watch.clone(),
        };
        workers.push(Worker::start(index, parts).map_err(system("start a worker"))?);
    }
    drop(watch);

    let admin_socket = match &config.admin {
        Some(admin) => Some(bind_admin(admin.address).await?),
        None => None,
    };
    let patience = config.drain.timeout;
    let rollout = Rollout::new(builder, workers, access_log, Arc::clone(&state), options.configuration);
    rollout.swap(snapshot.clone()).await.map_err(ServerError::Configuration)?;

    if let Some(socket) = admin_socket {
        tokio::spawn(admin::serve(socket, Arc::clone(&state)));
    }
    let access_log = rollout.access_log();
    let first = FirstLoad { version: snapshot.version.clone(), files: built.files, began };
    let (reloader, handle) = Reloader::new(rollout.clone(), first, &registry);
    state.set_reload(handle);
    let reloading = tokio::task::spawn_local(reloader.run());
    state.set_readiness(Readiness::Ready);
    tracing::info!(version = %snapshot.version, workers = count, "ready");

    wait_for_end(&rollout).await?;

    state.set_readiness(Readiness::Draining);
    tracing::info!(timeout = ?patience, "draining: no new connections, requests in flight are finished");
    reloading.abort();
    drain.start();
    tokio::select! {
        () = drain.finished() => tracing::info!("drained"),
        () = tokio::time::sleep(patience) => tracing::warn!("not everything was finished in time"),
        () = end_signal() => tracing::warn!("told to stop a second time: not waiting any longer"),
    }
    drop(rollout);
    if let Some(access_log) = access_log.take()
        && !access_log.close(LOG_PATIENCE)
    {
        tracing::warn!("the last lines of the access log could not be written");
    }
    Ok(())
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

async fn bind_admin(address: SocketAddr) -> Result<TcpListener, ServerError> {
    let bind = |error| ServerError::Bind { what: "the admin API", address, error };
    let socket = TcpListener::bind(address).await.map_err(bind)?;
    let address = socket.local_addr().map_err(bind)?;
    tracing::info!(%address, "admin listening");
    Ok(socket)
}

/// Waits for SIGTERM or SIGINT; SIGHUP reopens the access log.
async fn wait_for_end(rollout: &Rollout) -> Result<(), ServerError> {
    let mut hangup = signal(SignalKind::hangup()).map_err(system("watch for signals"))?;
    let mut end = std::pin::pin!(end_signal());
    loop {
        tokio::select! {
            () = &mut end => return Ok(()),
            _ = hangup.recv() => rollout.reopen_access_log(),
        }
    }
}

/// Waits for SIGTERM or SIGINT.
async fn end_signal() {
    match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(mut terminate), Ok(mut interrupt)) => tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        },
        (terminate, interrupt) => {
            tracing::error!(error = ?terminate.err().or(interrupt.err()), "cannot watch for signals");
            pending().await
        }
    }
}
