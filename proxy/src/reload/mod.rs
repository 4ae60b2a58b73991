//! Reloading: watch → check → build → swap.
//!
//! Certificates that are renamed into their places are taken at once and by themselves ([`Rebuild::renew`]): they are renewed by
//! machines, at any time, and neither another file's burst of changes nor a mistake in one is to hold them up.
//!
//! The [`Reloader`] runs on the main thread. It watches the configuration and everything it refers to, waits for a burst of changes to end, makes sure
//! by content that something did change, and has the server load the files again ([`Rebuild`]). It knows nothing of what is in the files: an attempt
//! either yields a new version or leaves everything as it was, and both are visible in the log, in `/reload` and in metrics.

mod status;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::SystemTime;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::files::{Fingerprint, Notice, Watch, look, look_at_few};
use crate::telemetry::Registry;
pub use status::{ReloadHandle, ReloadOutcome, ReloadStatus};
use status::{ReloadMetrics, ReloadRequest};

/// Requests to reload that may wait while one is being carried out.
const WAITING_REQUESTS: usize = 16;

/// Loads the configuration anew. The server implements it: load and check, compile, build a snapshot, try it, hand it to the workers.
pub trait Rebuild {
    /// Makes one attempt. When it fails, what runs has not been touched. Long work belongs on another thread: the main thread also serves the admin
    /// API and signals.
    fn rebuild(&mut self) -> impl Future<Output = ReloadOutcome>;

    /// The files of what runs that can be taken by themselves.
    fn renewable(&self) -> BTreeSet<PathBuf> {
        BTreeSet::new()
    }

    /// Takes what is in these files now, and leaves everything else as it is. The new version; none if they cannot be used as they are, such as a
    /// certificate whose key is not there yet, or if they say nothing new. Then nothing has been touched.
    fn renew(&mut self) -> impl Future<Output = Option<String>> {
        std::future::ready(None)
    }
}

/// The load that happened before there was a reloader.
#[derive(Debug, Clone)]
pub struct FirstLoad {
    /// The version it yielded.
    pub version: String,
    /// Every file it looked at.
    pub files: Vec<PathBuf>,
    /// When it began, before the first file was read: files that changed since are looked at again.
    pub began: SystemTime,
}

/// Watches files and has them loaded again. The server spawns [`Reloader::run`].
#[derive(Debug)]
pub struct Reloader<R> {
    rebuild: R,
    watch: Watch,
    /// What the last attempt saw.
    loaded: Fingerprint,
    requests: mpsc::Receiver<ReloadRequest>,
    status: tokio::sync::watch::Sender<ReloadStatus>,
    metrics: ReloadMetrics,
}

/// How far a burst of changes has come.
enum Burst {
    /// It is long, and all of it so far was renewed.
    GoesOn,
    /// It has ended, or is not waited for any longer.
    Over { renewed: bool },
}

impl<R: Rebuild> Reloader<R> {
    /// A reloader that goes on from the load at the start, and the handle to ask it.
    #[must_use]
    pub fn new(rebuild: R, first: FirstLoad, registry: &Registry) -> (Self, ReloadHandle) {
        Self::with_watch(rebuild, first, registry, Watch::start())
    }

    fn with_watch(
        rebuild: R,
        first: FirstLoad,
        registry: &Registry,
        mut watch: Watch,
    ) -> (Self, ReloadHandle) {
        let (request, requests) = mpsc::channel(WAITING_REQUESTS);
        let status = ReloadStatus { at: SystemTime::now(), version: first.version, error: None, attempts: 1 };
        let metrics = ReloadMetrics::register(registry);
        metrics.show(&status);
        let files = first.files.into_iter().collect();
        watch.arm(&files);
        let now = Fingerprint::default().retake(&files);
        let loaded = now.as_loaded(&Fingerprint::default(), first.began);
        if !loaded.same_content(&now) {
            watch.touch();
        }
        let (status, receiver) = tokio::sync::watch::channel(status);
        let handle = ReloadHandle { requests: request, status: receiver };
        (Self { rebuild, watch, loaded, requests, status, metrics }, handle)
    }

    /// Reloads whenever something changes or somebody asks. Never returns: drop it to stop.
    pub async fn run(mut self) {
        // Something was renewed since the last burst was over.
        let mut renewed = false;
        loop {
            tokio::select! {
                notice = self.watch.touched(&self.loaded) => match self.settle(notice).await {
                    // However often something is renewed, whoever asks for a reload has a turn.
                    Burst::GoesOn => {
                        renewed = true;
                        self.watch.touch();
                    }
                    Burst::Over { renewed: lately } => {
                        // What was refused may be good with what was renewed.
                        let mended = (renewed || lately) && self.status.borrow().error.is_some();
                        renewed = false;
                        if self.has_changed().await || mended {
                            self.attempt().await;
                        }
                    }
                },
                Some(request) = self.requests.recv() => {
                    let status = self.attempt().await;
                    // Whoever asked may have gone away.
                    let _ = request.send(status);
                }
            }
        }
    }

    /// Waits for the end of a burst of changes. What can be renewed is, as soon as it is there.
    async fn settle(&mut self, notice: Notice) -> Burst {
        let (began, mut burst) = (Instant::now(), Instant::now());
        let (mut told, mut renewed) = (notice == Notice::Told, false);
        loop {
            if told && self.renew().await {
                renewed = true;
                if Watch::is_long(began) {
                    return Burst::GoesOn;
                }
                burst = Instant::now();
            }
            if !self.watch.goes_on(burst).await {
                return Burst::Over { renewed };
            }
            told = true;
        }
    }

    async fn renew(&mut self) -> bool {
        // A file that is being written may have its first half only, and look whole.
        if !self.watch.only_renamed() {
            return false;
        }
        let Some(now) = look_at_few(&self.loaded, self.rebuild.renewable()).await else { return false };
        let Some(version) = self.rebuild.renew().await else { return false };
        self.loaded = now;
        self.watch.arm(&self.loaded.files());
        let last = self.status.borrow().clone();
        tracing::info!(version, from = last.version, "certificates renewed");
        let status =
            ReloadStatus { at: SystemTime::now(), version, error: last.error, attempts: last.attempts + 1 };
        self.metrics.count(true, &status);
        self.status.send_replace(status);
        true
    }

    /// Whether a file differs in content from what the last attempt saw. Also looks where the files are now: a link may point elsewhere, to the same
    /// content.
    async fn has_changed(&mut self) -> bool {
        let files = self.loaded.files();
        self.watch.arm(&files);
        let now = look(&self.loaded, files).await;
        let changed = !self.loaded.same_content(&now);
        if !changed {
            self.loaded = now;
        }
        changed
    }

    async fn attempt(&mut self) -> ReloadStatus {
        let known = self.loaded.files();
        let before = look(&self.loaded, known.clone()).await;
        let began = SystemTime::now();
        let outcome = self.rebuild.rebuild().await;
        let mut files: BTreeSet<PathBuf> = outcome.files.into_iter().collect();
        if outcome.result.is_err() {
            // A failed load may have stopped early; whatever mattered before still does.
            files.extend(known);
        }
        self.watch.arm(&files);
        let after = look(&before, files).await;
        self.loaded = after.as_loaded(&before, began);
        if !self.loaded.same_content(&after) {
            // Something changed while it was being read: which half was seen is not known, so once more.
            self.watch.touch();
        }
        self.publish(outcome.result)
    }

    fn publish(&mut self, result: Result<String, String>) -> ReloadStatus {
        let last = self.status.borrow().clone();
        let (version, error) = match result {
            Ok(version) => (version, None),
            Err(error) => (last.version.clone(), Some(error)),
        };
        match &error {
            None if version == last.version => {
                tracing::debug!(version, "configuration loaded again; nothing has changed")
            }
            None => tracing::info!(version, from = last.version, "configuration reloaded"),
            Some(error) => tracing::error!("configuration refused; version {version} goes on\n{error}"),
        }
        let status = ReloadStatus { at: SystemTime::now(), version, error, attempts: last.attempts + 1 };
        self.metrics.count(status.error.is_none(), &status);
        self.status.send_replace(status.clone());
        status
    }
}
