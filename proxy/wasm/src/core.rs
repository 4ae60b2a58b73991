//! What a plugin keeps over the replacement of its VM: its limits' counters, its quarantine, its timer's name.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::action::Callbacks;
use crate::contexts::Root;
use crate::engine::TICK;
use crate::error::{StartError, VmError, excerpt};
use crate::ledger::{Account, Ledger};
use crate::limits::Limit;
use crate::phase::Phase;
use crate::plugin::{Isolation, PluginSpec};
use crate::quarantine::{Admission, Quarantine};
use crate::share::{Share, wanted_time};
use crate::slot::Slot;
use crate::state::{Deadline, thread_time};
use crate::stats::{PluginStats, SAMPLE};
use crate::tick::TickHandle;
use crate::vm::Vm;

/// Names that refusals are told for, of one plugin: enough for people, too few to fill a log.
const MOST_TOLD: usize = 32;
/// Bytes of such a name that are told: it is the guest's, and may be anything.
const MAX_TOLD: usize = 256;
/// How many times as long as at first a plugin may take to start when its VM is replaced under traffic.
const RESTART_PATIENCE: u32 = 4;

/// A callback that is stopped by its deadline counts as one more failure for each of these that it had: no other exchange
/// of the worker was served meanwhile, and a neighbour's 99th percentile is one second in a hundred.
const COSTLY: Duration = Duration::from_millis(10);

/// A plugin's VM and its root context there.
#[derive(Clone)]
pub(crate) struct Binding {
    pub(crate) vm: Rc<Vm>,
    pub(crate) root: Rc<Root>,
}

/// A plugin on one worker, or its part in an instance of its own for one exchange.
pub(crate) struct Core {
    pub(crate) spec: Arc<PluginSpec>,
    pub(crate) stats: Arc<PluginStats>,
    pub(crate) usage: Rc<Usage>,
    /// Names its timer to the embedder.
    pub(crate) key: u64,
    pub(crate) slot: Rc<Slot>,
    pub(crate) binding: RefCell<Option<Binding>>,
    /// Why it could not be configured again after its VM was replaced.
    pub(crate) refused: RefCell<Option<StartError>>,
    /// The embedder let go of it; it may still wait for `proxy_done`.
    pub(crate) ended: Cell<bool>,
    /// Started again without an exchange or a tick that asks for it.
    pub(crate) supervised: Cell<bool>,
    /// It has a timer.
    pub(crate) ticking: Cell<bool>,
    /// The callbacks that it has no use for, by what it said when it was configured.
    pub(crate) unused: Cell<Callbacks>,
    /// Those that it has a use for only where the request is one of gRPC.
    pub(crate) grpc_only: Cell<Callbacks>,
    // What each callback asks for, one step away.
    pub(crate) hostcalls: u32,
    pub(crate) copied: u64,
    deadline: Deadline,
    body_deadline: Deadline,
    asks_streams: bool,
}

/// What is counted for a plugin on one worker, whichever of its instances it happens in.
pub(crate) struct Usage {
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) quarantine: Quarantine,
    pub(crate) share: Share,
    /// HTTP calls under way.
    pub(crate) http_calls: Rc<Cell<u32>>,
    /// gRPC calls and streams under way.
    pub(crate) grpc_calls: Rc<Cell<u32>>,
    /// Bytes that its calls under way hold.
    pub(crate) call_bytes: Arc<Account>,
    /// Bodies that are encoded for it.
    pub(crate) encodings: Rc<Cell<u32>>,
    start_deadline: Cell<Deadline>,
    log_second: Cell<Option<Instant>>,
    log_lines: Cell<u32>,
    told: RefCell<HashSet<(Limit, String)>>,
    /// The limits that were said in the log, one bit each.
    told_limits: Cell<u64>,
}

impl Usage {
    fn new(spec: &PluginSpec, ledger: Arc<Ledger>) -> Usage {
        Usage {
            ledger,
            quarantine: Quarantine::new(),
            share: Share::new(spec.limits.cpu_percent),
            http_calls: Rc::default(),
            grpc_calls: Rc::default(),
            call_bytes: Arc::default(),
            encodings: Rc::default(),
            start_deadline: Cell::new(Deadline::new(spec.limits.start_time)),
            log_second: Cell::new(None),
            log_lines: Cell::new(0),
            told: RefCell::default(),
            told_limits: Cell::new(0),
        }
    }
}

impl Core {
    pub(crate) fn new(spec: Arc<PluginSpec>, slot: Rc<Slot>, ledger: Arc<Ledger>) -> Core {
        let stats = Arc::new(PluginStats::of(slot.stats()));
        let usage = Rc::new(Usage::new(&spec, ledger));
        Core::assemble(spec, stats, usage, slot)
    }

    /// The plugin once more, for an instance that serves one exchange.
    pub(crate) fn for_exchange(&self) -> Core {
        Core::assemble(self.spec.clone(), self.stats.clone(), self.usage.clone(), self.slot.clone())
    }

    fn assemble(spec: Arc<PluginSpec>, stats: Arc<PluginStats>, usage: Rc<Usage>, slot: Rc<Slot>) -> Core {
        static KEYS: AtomicU64 = AtomicU64::new(1);
        Core {
            hostcalls: spec.limits.hostcalls,
            copied: spec.limits.copied,
            deadline: Deadline::new(spec.limits.time),
            body_deadline: Deadline::new(spec.limits.body_time),
            asks_streams: spec.module.callbacks().contains(Callbacks::DONE),
            spec,
            stats,
            usage,
            key: KEYS.fetch_add(1, Ordering::Relaxed),
            slot,
            binding: RefCell::new(None),
            refused: RefCell::new(None),
            ended: Cell::new(false),
            supervised: Cell::new(false),
            ticking: Cell::new(false),
            unused: Cell::default(),
            grpc_only: Cell::default(),
        }
    }

    /// The longest the running callback may take.
    pub(crate) fn deadline(&self, phase: Phase, starting: bool) -> Deadline {
        match phase {
            _ if starting => self.usage.start_deadline.get(),
            Phase::RequestBody | Phase::ResponseBody | Phase::DownstreamData | Phase::UpstreamData => {
                self.body_deadline
            }
            _ => self.deadline,
        }
    }

    /// Starts it by `start`, the first time: how long that takes says how long it may take under traffic. Where that is each
    /// exchange's, no longer than other callbacks. Told by the clock: to ask for the thread's time takes a tenth of a start.
    pub(crate) fn start_first<T>(
        &self,
        start: impl FnOnce() -> Result<T, StartError>,
    ) -> Result<T, StartError> {
        let limits = &self.spec.limits;
        let began = Instant::now();
        let started = start()?;
        let took = began.elapsed().saturating_mul(RESTART_PATIENCE);
        let patience = match self.spec.isolation {
            Isolation::Shared => took.max(limits.time),
            Isolation::Exchange => limits.time,
        };
        let patience = patience.min(limits.start_time);
        self.usage.start_deadline.set(Deadline::new(patience));
        Ok(started)
    }

    /// Its VM and root context, if they did not fail: what an exchange has nearly always.
    #[inline]
    pub(crate) fn running(&self) -> Option<Binding> {
        self.binding.borrow().as_ref().filter(|binding| !binding.vm.is_poisoned()).cloned()
    }

    /// Its VM and root context, replaced if the VM failed.
    pub(crate) fn bound(&self) -> Result<Binding, StartError> {
        if let Some(binding) = self.running() {
            return Ok(binding);
        }
        if self.is_for_exchange() {
            // An instance that failed has had its exchange.
            return Err(self.unavailable());
        }
        self.slot.restart(self)
    }

    /// Lets go of a VM that failed. It may have been kept by nothing else.
    pub(crate) fn forget_failed(&self) {
        let failed = self.binding.borrow_mut().take_if(|binding| binding.vm.is_poisoned());
        drop(failed);
    }

    /// Whether the plugin may run for any exchange, as far as that is known without a look at the clock.
    #[inline]
    pub(crate) fn is_calm(&self) -> bool {
        self.usage.quarantine.is_calm() && self.usage.share.is_calm()
    }

    /// Whether the plugin, which is not [calm](Core::is_calm), may run for another exchange; `true` if that exchange tries it out.
    pub(crate) fn admit(&self) -> Result<bool, VmError> {
        let Usage { quarantine, share, .. } = &*self.usage;
        let now = Instant::now();
        if share.wait(now).is_some() {
            self.usage.ledger.count(Limit::Cpu);
            return Err(VmError::Shed { plugin: self.spec.name.clone() });
        }
        match quarantine.admit(now) {
            Admission::Free => Ok(false),
            Admission::Probe => Ok(true),
            Admission::Refused(retry_after) => Err(self.quarantined(retry_after).into()),
        }
    }

    pub(crate) fn quarantined(&self, retry_after: Duration) -> StartError {
        StartError::Quarantined { plugin: self.spec.name.clone(), retry_after }
    }

    fn unavailable(&self) -> StartError {
        StartError::Instantiate { plugin: self.spec.name.clone(), reason: "its instance failed".into() }
    }

    fn is_for_exchange(&self) -> bool {
        self.spec.isolation == Isolation::Exchange
    }

    /// A callback of the plugin failed: counts it, and sends the plugin into quarantine if that happens too often.
    #[cold]
    pub(crate) fn failed(&self, error: &VmError, limit: Option<Limit>) {
        self.stats.count_trap();
        self.usage.ledger.count_failure(error.cause());
        if let Some(limit) = limit {
            self.usage.ledger.count(limit);
        }
        self.slot.host().failed(&self.spec, error);
        let worker_stood_still = match error {
            VmError::Deadline { limit, .. } => limit.as_millis() / COSTLY.as_millis(),
            _ => 0,
        };
        self.count_crashes(u32::try_from(worker_stood_still).unwrap_or(u32::MAX).saturating_add(1));
    }

    /// Counts so many failures against [`crate::Limits::crashes`].
    pub(crate) fn count_crashes(&self, weight: u32) {
        let pause = self.usage.quarantine.failed(Instant::now(), weight, self.spec.limits.crashes);
        if let Some(pause) = pause {
            self.tell_quarantine(pause);
        }
    }

    /// The plugin could not be started again.
    pub(crate) fn start_failed(&self) {
        let pause = self.usage.quarantine.send_out(Instant::now());
        self.tell_quarantine(pause);
    }

    fn tell_quarantine(&self, pause: Duration) {
        self.usage.ledger.count(Limit::Crashes);
        // Nobody enters the failed VM again: its memory need not wait for the plugin's return.
        self.forget_failed();
        self.stats.begin_quarantine(pause);
        tracing::warn!(filter = %self.spec.name, ?pause, "filter in quarantine: it keeps failing");
    }

    /// Takes the time of a callback in that ran by itself: a long one by what the ticks say, others by the samples.
    #[cold]
    pub(crate) fn record(&self, sampled: Option<Instant>, ticks: u64) {
        let now = Instant::now();
        let wall = match sampled {
            Some(began) if ticks <= 1 => (now - began).saturating_mul(SAMPLE),
            _ => TICK.saturating_mul(u32::try_from(ticks).unwrap_or(u32::MAX)),
        };
        self.stats.record(wall);
        self.usage.share.estimate(wall, now, wanted_time);
    }

    /// Takes the CPU time of a callback in, of a plugin that is watched.
    #[cold]
    pub(crate) fn measure(&self, began: Duration) {
        let took = thread_time().saturating_sub(began);
        if self.usage.share.measure(took, Instant::now(), wanted_time) {
            tracing::warn!(
                filter = %self.spec.name, percent = self.spec.limits.cpu_percent,
                "filter over its share of the CPU (limits.cpu_percent): not run for the rest of the second"
            );
        }
    }

    /// Counts that a limit was met, and says so the first time.
    #[cold]
    pub(crate) fn exceeded(&self, limit: Limit) {
        self.usage.ledger.count(limit);
        let (told, bit) = (self.usage.told_limits.get(), 1 << (limit as u32 % u64::BITS));
        if told & bit == 0 {
            self.usage.told_limits.set(told | bit);
            tracing::warn!(filter = %self.spec.name, limit = limit.name(), "filter met a limit; told once, always counted");
        }
    }

    /// Something that the configuration does not allow this plugin; counted each time, said once per name.
    #[cold]
    pub(crate) fn refuse(&self, limit: Limit, name: &str) {
        self.usage.ledger.count(limit);
        let mut told = self.usage.told.borrow_mut();
        if told.len() >= MOST_TOLD {
            return;
        }
        let name = excerpt(name, MAX_TOLD);
        if told.insert((limit, name.clone())) {
            tracing::warn!(filter = %self.spec.name, %name, "refused: not in the filter's `{}`", limit.name());
        }
    }

    /// The plugin's root context in `vm` is gone.
    pub(crate) fn unbind(self: &Rc<Self>, vm: &Vm) {
        self.stop_timer();
        let ours = self.binding.borrow().as_ref().is_some_and(|binding| std::ptr::eq(&*binding.vm, vm));
        // Dropped after the borrow: it may be the VM's last owner.
        let binding = if ours { self.binding.borrow_mut().take() } else { None };
        drop(binding);
    }

    /// A timer would keep the embedder busy until it fires the next time.
    pub(crate) fn stop_timer(self: &Rc<Self>) {
        if self.ticking.take() {
            self.slot.host().tick(TickHandle::new(self), None);
        }
    }

    /// Whether stream contexts are asked by `proxy_on_done`: not if the manifest says it does nothing.
    pub(crate) fn asks_streams_if_done(&self) -> bool {
        self.asks_streams
    }

    /// Whether a log line is within the plugin's rate; counts it.
    pub(crate) fn may_log(&self) -> bool {
        let Usage { log_second, log_lines, .. } = &*self.usage;
        let now = Instant::now();
        let fresh = log_second.get().is_none_or(|start| now.duration_since(start) >= Duration::from_secs(1));
        if fresh {
            log_second.set(Some(now));
            log_lines.set(0);
        }
        let lines = log_lines.get();
        let allowed = lines < self.spec.limits.log_lines;
        if allowed {
            log_lines.set(lines + 1);
        } else {
            self.stats.count_dropped_log_line();
            self.exceeded(Limit::LogLines);
        }
        allowed
    }
}
