//! What came of the last reload, and how to ask for one.

use std::path::PathBuf;
use std::time::SystemTime;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{mpsc, oneshot, watch};

use crate::telemetry::Registry;

/// What one attempt to load came to, as [`Rebuild`](super::Rebuild) returns it.
#[derive(Debug, Clone)]
pub struct ReloadOutcome {
    /// The version that runs now; or why the one before goes on running: all diagnostics as text.
    pub result: Result<String, String>,
    /// Every file the attempt looked at, or tried to, also when it failed.
    pub files: Vec<PathBuf>,
}

/// The last attempt, as `/reload` shows it.
#[derive(Debug, Clone)]
pub struct ReloadStatus {
    /// When the attempt ended.
    pub at: SystemTime,
    /// The version of the configuration that runs, whatever came of the attempt.
    pub version: String,
    /// Why the attempt failed; `None` if it did not.
    pub error: Option<String>,
    /// How many attempts came to an end, the load at the start included.
    pub attempts: u64,
}

/// Asks for a reload, and answers what came of the last one. The admin API holds it.
#[derive(Debug, Clone)]
pub struct ReloadHandle {
    pub(super) requests: mpsc::Sender<ReloadRequest>,
    pub(super) status: watch::Receiver<ReloadStatus>,
}

/// "Reload now", and where the answer goes.
pub(super) type ReloadRequest = oneshot::Sender<ReloadStatus>;

impl ReloadHandle {
    /// The last attempt.
    #[must_use]
    pub fn status(&self) -> ReloadStatus {
        self.status.borrow().clone()
    }

    /// Loads the files again even if nothing has changed, and answers what came of it. `None` when too many wait already, or the process is ending.
    pub async fn reload(&self) -> Option<ReloadStatus> {
        let (reply, answer) = oneshot::channel();
        self.requests.try_send(reply).ok()?;
        answer.await.ok()
    }
}

/// The metrics of reloading.
#[derive(Debug, Default)]
pub(super) struct ReloadMetrics {
    reloads: Family<Vec<(&'static str, &'static str)>, Counter>,
    last_successful: Gauge,
    last_time: Gauge,
    running: Family<Vec<(&'static str, String)>, Gauge>,
}

impl ReloadMetrics {
    pub(super) fn register(registry: &Registry) -> Self {
        let metrics = Self::default();
        for result in ["success", "failure"] {
            // So that both series exist from the start and a first failure is an increase.
            drop(metrics.reloads.get_or_create(&vec![("result", result)]));
        }
        registry.area(|area| {
            area.register("reloads", "Attempts to reload the configuration", metrics.reloads.clone());
            area.register(
                "config_last_reload_successful",
                "1 if the last attempt to load the configuration succeeded",
                metrics.last_successful.clone(),
            );
            area.register(
                "config_last_reload_timestamp_seconds",
                "When the last attempt to load the configuration ended",
                metrics.last_time.clone(),
            );
            area.register("config_info", "The version of the running configuration", metrics.running.clone());
        });
        metrics
    }

    /// Counts an attempt, whose success need not end the error of an earlier one.
    pub(super) fn count(&self, succeeded: bool, status: &ReloadStatus) {
        let result = if succeeded { "success" } else { "failure" };
        self.reloads.get_or_create(&vec![("result", result)]).inc();
        self.show(status);
    }

    /// Sets the gauges.
    pub(super) fn show(&self, status: &ReloadStatus) {
        self.last_successful.set(i64::from(status.error.is_none()));
        let since = status.at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.last_time.set(i64::try_from(since.as_secs()).unwrap_or(i64::MAX));
        self.running.clear();
        self.running.get_or_create(&vec![("version", status.version.clone())]).set(1);
    }
}
