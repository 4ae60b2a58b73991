//! `meshgate filter dev`: builds, runs and watches, so that a change is live as soon as it compiles.
//!
//! Meshgate runs as a process of its own and follows the module's file as always; here the sources are watched.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use meshgate_kit::package::Package;
use meshgate_kit::say;
use notify::{Event, EventKind, RecursiveMode, Watcher};
use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

/// An editor writes several files, or one several times: what comes within this time is one change.
const QUIET: Duration = Duration::from_millis(100);
/// How often it is looked whether Meshgate still runs.
const LOOK: Duration = Duration::from_millis(250);

/// Runs until Meshgate ends.
pub(super) fn dev(package: &Package, config: Option<PathBuf>) -> Result<ExitCode> {
    let config = config.unwrap_or_else(|| package.folder.join("meshgate.yaml"));
    ensure!(
        config.is_file(),
        "{} is not there: which configuration shall run? --config FILE says it",
        config.display()
    );
    let (sender, changes) = channel();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        // Whoever does not listen any more is ending.
        let _ = sender.send(event);
    })?;
    watcher.watch(&package.folder, RecursiveMode::NonRecursive)?;
    watcher.watch(&package.folder.join("src"), RecursiveMode::Recursive)?;
    let serving = Serving::default();
    serving.forward_signals()?;
    let mut running = None;
    loop {
        if rebuild(package) && running.is_none() {
            running = Some(serving.start(&config)?);
        }
        if let Some(code) = next_change(package, &changes, &mut running)? {
            return Ok(code);
        }
    }
}

/// Builds, and says what came of it: whether there is a module.
fn rebuild(package: &Package) -> bool {
    let begun = Instant::now();
    match super::build(package, None) {
        Ok(built) => {
            let seconds = begun.elapsed().as_secs_f64();
            let size = built.size.div_ceil(1024);
            let changed = if built.changed { "" } else { ", as it was" };
            say(&format!("built {} in {seconds:.1} s: {size} KiB{changed}", package.filter()));
            true
        }
        // The compiler has said what is wrong, and the module that was there stays.
        Err(error) => {
            say(&format!("{error:#}: waiting for a change"));
            false
        }
    }
}

/// The Meshgate that runs, as signals find it.
#[derive(Clone, Default)]
struct Serving(Arc<Mutex<Option<Pid>>>);

impl Serving {
    fn start(&self, config: &Path) -> Result<Child> {
        let program = std::env::current_exe().context("where this program lies is not known")?;
        let mut command = Command::new(program);
        // In a group of its own, so that it gets a signal of the terminal from here, and once.
        command.arg("run").arg(config).process_group(0);
        let child = command.spawn().context("cannot start Meshgate")?;
        let id = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = id;
        Ok(child)
    }

    /// Whoever ends this program means Meshgate: it drains, and this program ends with it. Before there is one, this ends at once.
    fn forward_signals(&self) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let entered = runtime.enter();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        drop(entered);
        let serving = self.clone();
        std::thread::spawn(move || {
            runtime.block_on(async move {
                loop {
                    let signal = tokio::select! {
                        _ = terminate.recv() => Signal::TERM,
                        _ = interrupt.recv() => Signal::INT,
                        _ = hang_up.recv() => Signal::HUP,
                    };
                    match *serving.0.lock().unwrap_or_else(PoisonError::into_inner) {
                        // One that has ended by itself is noticed in a moment.
                        Some(id) => drop(kill_process(id, Signal::TERM)),
                        None => std::process::exit(128 + signal.as_raw()),
                    }
                }
            });
        });
        Ok(())
    }
}

/// Waits for a change to the sources. `Some`: Meshgate has ended instead.
fn next_change(
    package: &Package,
    changes: &Receiver<notify::Result<Event>>,
    running: &mut Option<Child>,
) -> Result<Option<ExitCode>> {
    let mut changed = false;
    loop {
        match changes.recv_timeout(if changed { QUIET } else { LOOK }) {
            Ok(event) => changed |= is_change(package, &event?),
            Err(RecvTimeoutError::Timeout) if changed => return Ok(None),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => anyhow::bail!("files can no longer be watched"),
        }
        if let Some(child) = running
            && let Some(status) = child.try_wait()?
        {
            let code = status.code().and_then(|code| u8::try_from(code).ok());
            return Ok(Some(code.map_or(ExitCode::FAILURE, ExitCode::from)));
        }
    }
}

/// Whether it is one of the sources that changed: what cargo writes beside them is none.
fn is_change(package: &Package, event: &Event) -> bool {
    let source = |path: &PathBuf| {
        path.starts_with(package.folder.join("src")) || *path == package.folder.join("Cargo.toml")
    };
    !matches!(event.kind, EventKind::Access(_)) && event.paths.iter().any(source)
}
