//! What the worker offers to the filters' VMs: HTTP and gRPC calls, timers, the `meshgate.*` functions and the log.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use meshgate_wasm::{
    CallError, ForeignCaller, GrpcEvents, GrpcRequest, GrpcSender, Host, HttpCall, HttpCallReply, LogLevel,
    PluginSpec, Status, TickHandle, VmError,
};

use super::timers::Timers;
use crate::filter::foreign_function;
use crate::filter::guest_log;
use crate::upstream::{Cluster, Clusters, Upstream, callout, grpc};

/// The worker's side of the VMs' needs.
pub(super) struct WorkerHost {
    upstream: Rc<Upstream>,
    clusters: RefCell<Clusters>,
    /// Those of configurations that are gone, oldest first, as long as filters that came with them have something left to do.
    former: RefCell<Vec<Clusters>>,
    timers: Timers,
    failures: Rate,
    told: Kinds,
}

/// A failure's filter, cause and callback.
type Kind = (String, &'static str, &'static str);

/// How long a kind of failure that was told is not told again.
const QUIET: Duration = Duration::from_secs(60);
/// Kinds that are kept apart. With more, some are told too often.
const MOST_KINDS: usize = 1_000;

/// The kinds of failures that were told, when, and how often they happened since.
#[derive(Default)]
struct Kinds(RefCell<HashMap<Kind, (Instant, u64)>>);

impl Kinds {
    /// Whether this one is told, and how many of its kind were not before.
    fn next(&self, kind: Kind) -> Option<u64> {
        let mut kinds = self.0.borrow_mut();
        let now = Instant::now();
        if let Some((told, silent)) = kinds.get_mut(&kind) {
            if now - *told < QUIET {
                *silent += 1;
                return None;
            }
            *told = now;
            return Some(std::mem::take(silent));
        }
        if kinds.len() >= MOST_KINDS {
            kinds.clear();
        }
        kinds.insert(kind, (now, 0));
        Some(0)
    }
}

/// Lines that a worker logs of filters' failures in one second.
const MOST_FAILURES: u64 = 10;

/// Lets so many events through in a second, and counts the others.
#[derive(Default)]
struct Rate {
    second: Cell<Option<Instant>>,
    events: Cell<u64>,
}

impl Rate {
    /// Whether this event is told, and how many of the second before were not.
    fn next(&self) -> Option<u64> {
        let now = Instant::now();
        if self.second.get().is_none_or(|second| now - second >= Duration::from_secs(1)) {
            self.second.set(Some(now));
            return Some(self.events.replace(1).saturating_sub(MOST_FAILURES));
        }
        self.events.set(self.events.get() + 1);
        (self.events.get() <= MOST_FAILURES).then_some(0)
    }
}

impl WorkerHost {
    pub(super) fn new(upstream: Rc<Upstream>) -> WorkerHost {
        WorkerHost {
            upstream,
            clusters: RefCell::default(),
            former: RefCell::default(),
            timers: Timers::default(),
            failures: Rate::default(),
            told: Kinds::default(),
        }
    }

    /// From now on filters call these clusters.
    pub(super) fn use_clusters(&self, clusters: Clusters) {
        let former = self.clusters.replace(clusters);
        self.former.borrow_mut().push(former);
    }

    /// Lets go of clusters that are in no running snapshot. Not while a filter has something left to do.
    pub(super) fn forget_clusters(&self) {
        self.former.borrow_mut().retain(Clusters::are_shared);
    }

    /// The cluster that a filter means. One that is at its end may mean one that the running configuration has not.
    fn cluster(&self, name: &str, ended: bool) -> Result<Rc<Cluster>, CallError> {
        let former = || self.former.borrow().iter().rev().find_map(|clusters| clusters.find(name));
        let found = self.clusters.borrow().find(name);
        found.or_else(|| if ended { former() } else { None }).ok_or(CallError::UnknownCluster)
    }
}

impl Host for WorkerHost {
    fn http_call(&self, plugin: &PluginSpec, call: HttpCall, reply: HttpCallReply) -> Result<(), CallError> {
        let cluster = self.cluster(&call.cluster, call.ended)?;
        tracing::trace!(plugin = %plugin.name, cluster = %call.cluster, "HTTP call");
        callout::start(&self.upstream, cluster, call, reply)
    }

    fn grpc(
        &self,
        plugin: &PluginSpec,
        request: GrpcRequest,
        events: GrpcEvents,
    ) -> Result<Box<dyn GrpcSender>, CallError> {
        let cluster = self.cluster(&request.cluster, request.ended)?;
        tracing::trace!(plugin = %plugin.name, cluster = %request.cluster, path = %request.path, "gRPC");
        grpc::start(&self.upstream, cluster, request, events)
    }

    fn tick(&self, plugin: TickHandle, period: Option<Duration>) {
        self.timers.set(plugin, period);
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
        // A filter that fails with every request must not fill the disk: each failure is counted all the same, and
        // each kind is told once a minute.
        let kind = (plugin.name.clone(), error.cause(), error.callback());
        let Some(repeated) = self.told.next(kind) else { return };
        if let Some(silenced) = self.failures.next() {
            tracing::error!(
                filter = %plugin.name, cause = error.cause(), repeated, silenced, %error,
                "filter failed; its VM is replaced"
            );
        }
    }
}
