//! What the worker offers to the filters' VMs: HTTP calls, timers, the `meshgate.*` functions and the log.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use meshgate_wasm::{
    CallError, ForeignCaller, Host, HttpCall, HttpCallReply, LogLevel, PluginSpec, Status, TickHandle,
    VmError,
};
use tokio::task::AbortHandle;
use tokio::time::MissedTickBehavior;

use crate::filter::foreign_function;
use crate::filter::guest_log;
use crate::upstream::{Clusters, Upstream, callout};

/// The worker's side of the VMs' needs.
pub(super) struct WorkerHost {
    upstream: Rc<Upstream>,
    clusters: RefCell<Clusters>,
    timers: RefCell<HashMap<u64, AbortHandle>>,
}

impl WorkerHost {
    pub(super) fn new(upstream: Rc<Upstream>) -> WorkerHost {
        WorkerHost { upstream, clusters: RefCell::default(), timers: RefCell::default() }
    }

    /// From now on filters call these clusters.
    pub(super) fn use_clusters(&self, clusters: Clusters) {
        *self.clusters.borrow_mut() = clusters;
    }
}

impl Host for WorkerHost {
    fn http_call(&self, plugin: &PluginSpec, call: HttpCall, reply: HttpCallReply) -> Result<(), CallError> {
        let cluster = self.clusters.borrow().find(&call.cluster).ok_or(CallError::UnknownCluster)?;
        tracing::trace!(plugin = %plugin.name, cluster = %call.cluster, "HTTP call");
        callout::start(&self.upstream, cluster, call, reply)
    }

    fn tick(&self, plugin: TickHandle, period: Option<Duration>) {
        let mut timers = self.timers.borrow_mut();
        timers.retain(|_, timer| !timer.is_finished());
        if let Some(old) = timers.remove(&plugin.key()) {
            old.abort();
        }
        let Some(period) = period else { return };
        let key = plugin.key();
        let timer = tokio::task::spawn_local(async move {
            let first = tokio::time::Instant::now() + period;
            let mut interval = tokio::time::interval_at(first, period);
            // The next tick is one period after this one, however long this one took.
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                interval.tick().await;
                if !plugin.tick() {
                    return;
                }
            }
        });
        timers.insert(key, timer.abort_handle());
    }

    fn foreign_function(
        &self,
        caller: &mut ForeignCaller<'_>,
        name: &str,
        argument: &[u8],
    ) -> Result<Vec<u8>, Status> {
        foreign_function(caller, name, argument)
    }

    fn log(&self, plugin: &PluginSpec, level: LogLevel, message: &str) {
        guest_log::write(plugin, level, message);
    }

    fn log_level(&self) -> LogLevel {
        guest_log::level()
    }

    fn failed(&self, plugin: &PluginSpec, error: &VmError) {
        tracing::error!(filter = %plugin.name, cause = error.cause(), %error, "filter failed; its VM is replaced");
    }
}
