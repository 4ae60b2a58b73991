//! What the admin API shows, gathered from all over the process.
//!
//! The server makes one [`State`], hands `Arc`s of it to the admin API and to itself, and keeps it up to date: readiness as it changes, a
//! [`SnapshotSummary`] after every swap, the reloader's handle once there is one. Workers register the counters of their plugins when they create them.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, Weak};
use std::time::{Duration, SystemTime};

use meshgate_wasm::{Plugin, PluginSpec, PluginStats, Shared};
use tokio::sync::{mpsc, oneshot};

use crate::reload::ReloadHandle;
use crate::telemetry::Registry;
use crate::tls::{Held, TlsFailures};
use crate::upstream::SharedCluster;

/// Where requests go that a new process should take over. The answer is its id, or why there is none.
pub type UpgradeRequests = mpsc::Sender<oneshot::Sender<Result<u32, String>>>;

/// Whether traffic should be sent here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Readiness {
    /// Not yet: the first snapshot is still being built.
    Starting,
    /// All workers accept connections.
    Ready,
    /// Not any more: the process is finishing what it has begun.
    Draining,
}

/// The snapshot that runs.
#[derive(Debug, Clone)]
pub struct SnapshotSummary {
    /// Its version, a hash of everything it was built from.
    pub version: String,
    /// When the workers got it.
    pub loaded: SystemTime,
    /// The file it was loaded from.
    pub file: PathBuf,
    /// The configuration as JSON, as `/config` shows it.
    pub configuration: serde_json::Value,
    /// Every place in every chain, in the order of the configuration.
    pub filters: Vec<FilterSummary>,
    /// Every cluster, in the order of the configuration.
    pub clusters: Vec<ClusterSummary>,
    /// Every certificate in use, each once.
    pub certificates: Vec<CertificateSummary>,
    /// How long before a certificate ends it is warned of, the longest first.
    pub expiry_warnings: Vec<Duration>,
}

/// One certificate.
#[derive(Debug, Clone)]
pub struct CertificateSummary {
    /// The listeners and clusters that use it.
    pub used_by: Vec<String>,
    /// What it says, and where it comes from.
    pub held: Held,
}

/// One cluster.
#[derive(Debug, Clone)]
pub struct ClusterSummary {
    /// As it is configured.
    pub configuration: meshgate_config::Cluster,
    /// What all workers know of its endpoints.
    pub shared: Arc<SharedCluster>,
    /// How often TLS with its endpoints failed, if they are spoken to through TLS.
    pub tls_failures: Option<Arc<TlsFailures>>,
}

/// One filter in one chain.
#[derive(Debug, Clone)]
pub struct FilterSummary {
    /// Its name in the chain.
    pub name: String,
    /// The chain it is in; none for a service.
    pub chain: Option<String>,
    /// Whether it runs once in the process.
    pub singleton: bool,
    /// Where the module comes from.
    pub module: String,
    /// The plugin it runs. Filters with equal module and configuration run the same one.
    pub plugin: Arc<PluginSpec>,
}

/// What a plugin has done since it was created, and where it stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct PluginTotals {
    pub(super) callbacks: u64,
    pub(super) time: Duration,
    pub(super) traps: u64,
    pub(super) dropped_log_lines: u64,
    pub(super) contexts: u64,
    pub(super) vms: u64,
    pub(super) memory: u64,
    pub(super) workers: u64,
    pub(super) quarantined: u64,
    /// Until when the last worker has it in quarantine.
    pub(super) quarantined_until: Option<SystemTime>,
}

impl PluginTotals {
    fn of(stats: &PluginStats) -> Self {
        let quarantined_until = stats.quarantined_until();
        Self {
            callbacks: stats.callbacks(),
            time: Duration::from_nanos(stats.nanoseconds()),
            traps: stats.traps(),
            dropped_log_lines: stats.dropped_log_lines(),
            contexts: stats.contexts(),
            vms: stats.vms(),
            memory: stats.memory(),
            workers: 1,
            quarantined: u64::from(quarantined_until.is_some()),
            quarantined_until,
        }
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            callbacks: self.callbacks + other.callbacks,
            time: self.time + other.time,
            traps: self.traps + other.traps,
            dropped_log_lines: self.dropped_log_lines + other.dropped_log_lines,
            contexts: self.contexts + other.contexts,
            vms: self.vms + other.vms,
            memory: self.memory + other.memory,
            workers: self.workers + other.workers,
            quarantined: self.quarantined + other.quarantined,
            quarantined_until: self.quarantined_until.max(other.quarantined_until),
        }
    }
}

/// All that the admin API needs to know.
pub struct State {
    registry: Arc<Registry>,
    readiness: AtomicU8,
    overloaded: AtomicBool,
    snapshot: RwLock<Option<Arc<SnapshotSummary>>>,
    reload: OnceLock<ReloadHandle>,
    upgrade: OnceLock<UpgradeRequests>,
    plugins: Mutex<HashMap<Arc<PluginSpec>, Vec<Weak<PluginStats>>>>,
    shared: Arc<Shared>,
}

impl State {
    /// Nothing is ready, nothing is loaded. The plugins' counters appear in the registry's metrics.
    #[must_use]
    pub fn new(registry: Arc<Registry>, shared: Arc<Shared>) -> Arc<Self> {
        let state = Arc::new(Self {
            registry,
            readiness: AtomicU8::new(Readiness::Starting as u8),
            overloaded: AtomicBool::new(false),
            snapshot: RwLock::default(),
            reload: OnceLock::new(),
            upgrade: OnceLock::new(),
            plugins: Mutex::default(),
            shared,
        });
        let weak = Arc::downgrade(&state);
        state.registry.append(move |out| {
            if let Some(state) = weak.upgrade() {
                super::filters::metrics(&state, out);
                super::clusters::metrics(&state, out);
                super::certificates::metrics(&state, out);
            }
        });
        state
    }

    /// Says whether traffic should be sent here.
    pub fn set_readiness(&self, readiness: Readiness) {
        self.readiness.store(readiness as u8, Ordering::Release);
    }

    /// What [`set_readiness`](Self::set_readiness) said last.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        match self.readiness.load(Ordering::Acquire) {
            state if state == Readiness::Ready as u8 => Readiness::Ready,
            state if state == Readiness::Draining as u8 => Readiness::Draining,
            _ => Readiness::Starting,
        }
    }

    /// Says whether requests are refused for want of memory.
    pub fn set_overloaded(&self, overloaded: bool) {
        self.overloaded.store(overloaded, Ordering::Release);
    }

    /// What [`set_overloaded`](Self::set_overloaded) said last.
    pub(super) fn is_overloaded(&self) -> bool {
        self.overloaded.load(Ordering::Acquire)
    }

    /// Shows another snapshot, after the workers have swapped.
    pub fn publish(&self, snapshot: SnapshotSummary) {
        *self.snapshot.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(snapshot));
    }

    /// The snapshot that runs; `None` before the first.
    #[must_use]
    pub fn snapshot(&self) -> Option<Arc<SnapshotSummary>> {
        self.snapshot.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes `/reload` work. A second handle is ignored: there is one reloader.
    pub fn set_reload(&self, handle: ReloadHandle) {
        let _ = self.reload.set(handle);
    }

    pub(super) fn reload(&self) -> Option<&ReloadHandle> {
        self.reload.get()
    }

    /// Makes `/upgrade` work. Others are ignored: there is one who upgrades.
    pub fn set_upgrade(&self, requests: UpgradeRequests) {
        let _ = self.upgrade.set(requests);
    }

    /// Has a new process take over. None: that cannot be asked for now.
    pub(super) async fn upgrade(&self) -> Option<Result<u32, String>> {
        let (reply, answer) = oneshot::channel();
        self.upgrade.get()?.try_send(reply).ok()?;
        answer.await.ok()
    }

    /// What the filters' VMs share: counters by filter, and what is in use.
    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(super) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Adds a worker's plugin, to show how much it runs for as long as it does. Called once per worker and plugin, when the plugin is created.
    pub fn add_plugin(&self, plugin: &Plugin) {
        let stats = Arc::downgrade(plugin.stats());
        let mut plugins = self.plugins.lock().unwrap_or_else(PoisonError::into_inner);
        plugins.retain(|_, workers| {
            workers.retain(|stats| stats.strong_count() > 0);
            !workers.is_empty()
        });
        let workers = plugins.entry(Arc::clone(plugin.spec())).or_default();
        if !workers.iter().any(|known| known.ptr_eq(&stats)) {
            workers.push(stats);
        }
    }

    /// What a plugin has done, summed over the workers; `None` if no worker runs it.
    pub(super) fn totals(&self, plugin: &PluginSpec) -> Option<PluginTotals> {
        let plugins = self.plugins.lock().unwrap_or_else(PoisonError::into_inner);
        sum(plugins.get(plugin)?)
    }

    /// The name of each plugin that some worker runs, and what it has done.
    pub(super) fn all_totals(&self) -> Vec<(String, PluginTotals)> {
        let plugins = self.plugins.lock().unwrap_or_else(PoisonError::into_inner);
        plugins.iter().filter_map(|(spec, workers)| Some((spec.name.clone(), sum(workers)?))).collect()
    }
}

fn sum(workers: &[Weak<PluginStats>]) -> Option<PluginTotals> {
    workers.iter().filter_map(Weak::upgrade).map(|stats| PluginTotals::of(&stats)).reduce(PluginTotals::plus)
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("readiness", &self.readiness()).finish_non_exhaustive()
    }
}
