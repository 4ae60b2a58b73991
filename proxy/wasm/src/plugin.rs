//! A plugin: a module with one configuration, running on one worker.

use std::cell::{Cell, RefCell};
use std::hash::{Hash, Hasher};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::action::Callbacks;
use crate::contexts::{Entry, Root};
use crate::error::{StartError, VmError};
use crate::exchange::Exchange;
use crate::limits::Limits;
use crate::module::Module;
use crate::node::Node;
use crate::properties::PropertyForm;
use crate::slot::Slot;
use crate::state::Deadline;
use crate::stream::StreamContext;
use crate::vm::Vm;

/// What makes a plugin. Two equal specs on one worker are one plugin, with one state.
#[derive(Clone, Debug)]
pub struct PluginSpec {
    /// For logs, metrics and the `plugin_name` property.
    pub name: String,
    /// Which root context the module makes, for modules that hold several; mostly empty.
    pub root_id: String,
    /// Plugins of one module with equal id, VM configuration, environment and memory limit share a VM.
    pub vm_id: String,
    /// The module.
    pub module: Module,
    /// For `proxy_on_vm_start`.
    pub vm_configuration: Vec<u8>,
    /// For `proxy_on_configure`.
    pub configuration: Vec<u8>,
    /// What it may use.
    pub limits: Limits,
    /// Environment variables the guest sees.
    pub environment: Vec<(String, String)>,
    /// Where hosts differ, which way to go.
    pub compatibility: Compatibility,
    /// The proxy it runs in, as filters may know it.
    pub node: Arc<Node>,
}

/// Switches for filters that rely on what another host does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Compatibility {
    /// Headers callbacks may return StopIteration and still get the body. Otherwise, as other hosts do by
    /// default, it stops everything.
    pub stop_iteration: bool,
    /// Memory for the guest comes from `malloc` even if it exports `proxy_on_memory_allocate`.
    pub prefer_malloc: bool,
    /// `get_header_map_value` answers BAD_ARGUMENT, not NOT_FOUND, for a map that does not exist in this phase.
    pub strict_maps: bool,
    /// The form in which properties are handed out.
    pub properties: PropertyForm,
    /// HTTP calls that fail end without a response, whatever the reason. Otherwise those that could not be connected
    /// or took too long end with a 503 or 504 in the response's place.
    pub empty_failures: bool,
    /// A null pointer for a shared value stores an empty one. Otherwise, as the Rust SDK means it, it removes the key.
    pub store_null: bool,
}

impl PluginSpec {
    /// A plugin with this module and configuration, everything else at its default.
    pub fn new(name: impl Into<String>, module: Module, configuration: impl Into<Vec<u8>>) -> PluginSpec {
        PluginSpec {
            name: name.into(),
            root_id: String::new(),
            vm_id: String::new(),
            module,
            vm_configuration: Vec::new(),
            configuration: configuration.into(),
            limits: Limits::default(),
            environment: Vec::new(),
            compatibility: Compatibility::default(),
            node: Arc::default(),
        }
    }

    /// What makes two specs one plugin.
    fn identity(&self) -> impl Eq + Hash {
        let PluginSpec { name, root_id, vm_id, module, vm_configuration, configuration, .. } = self;
        let PluginSpec { limits, environment, compatibility, node, .. } = self;
        let names = (name, root_id, vm_id, module.hash());
        (names, vm_configuration, configuration, limits, environment, compatibility, node)
    }
}

impl PartialEq for PluginSpec {
    fn eq(&self, other: &PluginSpec) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for PluginSpec {}

impl Hash for PluginSpec {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

/// How much a plugin ran on one worker. Written by that worker alone, readable from any thread.
#[derive(Debug, Default)]
pub struct PluginStats {
    callbacks: AtomicU64,
    nanoseconds: AtomicU64,
    traps: AtomicU64,
    dropped_log_lines: AtomicU64,
}

/// One callback in so many is timed: reading the clock costs a tenth of a callback. A prime, so that the few callbacks
/// of an exchange take turns; and never the first, which runs cold.
const SAMPLE: u64 = 17;

impl PluginStats {
    /// Callbacks run.
    pub fn callbacks(&self) -> u64 {
        self.callbacks.load(Ordering::Relaxed)
    }

    /// Nanoseconds spent in them, estimated from one in seventeen.
    pub fn nanoseconds(&self) -> u64 {
        self.nanoseconds.load(Ordering::Relaxed)
    }

    /// Callbacks that failed.
    pub fn traps(&self) -> u64 {
        self.traps.load(Ordering::Relaxed)
    }

    /// Log lines over the plugin's rate.
    pub fn dropped_log_lines(&self) -> u64 {
        self.dropped_log_lines.load(Ordering::Relaxed)
    }

    /// Whether this callback is to be timed.
    pub(crate) fn count_callback(&self) -> bool {
        add(&self.callbacks, 1) % SAMPLE == SAMPLE - 1
    }

    pub(crate) fn record(&self, sample: Duration) {
        add(&self.nanoseconds, u64::try_from(sample.as_nanos()).unwrap_or(0).saturating_mul(SAMPLE));
    }

    pub(crate) fn count_trap(&self) {
        add(&self.traps, 1);
    }

    pub(crate) fn count_dropped_log_line(&self) {
        add(&self.dropped_log_lines, 1);
    }
}

/// Adds without a locked instruction: there is one writer. Returns what was there.
fn add(counter: &AtomicU64, amount: u64) -> u64 {
    let before = counter.load(Ordering::Relaxed);
    counter.store(before.wrapping_add(amount), Ordering::Relaxed);
    before
}

/// A running plugin. Dropping the last `Rc` ends it: `proxy_on_done`, `proxy_on_delete` of its root context.
pub struct Plugin {
    pub(crate) core: Rc<Core>,
}

impl Plugin {
    /// What the plugin was made from.
    pub fn spec(&self) -> &Arc<PluginSpec> {
        &self.core.spec
    }

    /// The callbacks that are worth calling.
    pub fn callbacks(&self) -> Callbacks {
        self.core.spec.module.callbacks()
    }

    /// How much it ran.
    pub fn stats(&self) -> &Arc<PluginStats> {
        &self.core.stats
    }

    /// Makes the stream context of an exchange, at the first event the filter is to see. If the plugin's VM
    /// failed, a fresh one is started first. `place` is the filter's place in the exchange; it comes back with
    /// local responses and foreign function calls. The context does not keep the exchange alive.
    ///
    /// # Errors
    /// The guest failed in `proxy_on_context_create`, or no VM can be started now.
    pub fn stream(self: &Rc<Self>, exchange: Rc<dyn Exchange>, place: u32) -> Result<StreamContext, VmError> {
        let binding = self.core.bound().map_err(|error| VmError::Unavailable(Box::new(error)))?;
        StreamContext::create(self.clone(), binding, &exchange, place)
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        self.core.ended.set(true);
        let binding = self.core.binding.borrow().clone();
        if let Some(Binding { vm, root }) = binding {
            vm.end(&Entry::Root(root));
        }
    }
}

/// A plugin's VM and its root context there.
#[derive(Clone)]
pub(crate) struct Binding {
    pub(crate) vm: Rc<Vm>,
    pub(crate) root: Rc<Root>,
}

/// What a plugin keeps over the replacement of its VM.
pub(crate) struct Core {
    pub(crate) spec: Arc<PluginSpec>,
    pub(crate) stats: Arc<PluginStats>,
    /// Names its timer to the embedder.
    pub(crate) key: u64,
    pub(crate) slot: Rc<Slot>,
    pub(crate) binding: RefCell<Option<Binding>>,
    /// Why it could not be configured again after its VM was replaced.
    pub(crate) refused: RefCell<Option<StartError>>,
    /// The embedder let go of it; it may still wait for `proxy_done`.
    pub(crate) ended: Cell<bool>,
    pub(crate) deadline: Deadline,
    pub(crate) start_deadline: Deadline,
    asks_streams: bool,
    log_second: Cell<Option<Instant>>,
    log_lines: Cell<u32>,
}

impl Core {
    pub(crate) fn new(spec: Arc<PluginSpec>, slot: Rc<Slot>) -> Core {
        static KEYS: AtomicU64 = AtomicU64::new(1);
        Core {
            deadline: Deadline::new(spec.limits.time),
            start_deadline: Deadline::new(spec.limits.start_time),
            asks_streams: spec.module.callbacks().contains(Callbacks::DONE),
            spec,
            stats: Arc::default(),
            key: KEYS.fetch_add(1, Ordering::Relaxed),
            slot,
            binding: RefCell::new(None),
            refused: RefCell::new(None),
            ended: Cell::new(false),
            log_second: Cell::new(None),
            log_lines: Cell::new(0),
        }
    }

    /// Its VM and root context, replaced if the VM failed.
    pub(crate) fn bound(&self) -> Result<Binding, StartError> {
        if let Some(binding) = &*self.binding.borrow()
            && !binding.vm.is_poisoned()
        {
            return Ok(binding.clone());
        }
        self.slot.restart(self)
    }

    /// The plugin's root context in `vm` is gone.
    pub(crate) fn unbind(&self, vm: &Vm) {
        let ours = self.binding.borrow().as_ref().is_some_and(|binding| std::ptr::eq(&*binding.vm, vm));
        // Dropped after the borrow: it may be the VM's last owner.
        let binding = if ours { self.binding.borrow_mut().take() } else { None };
        drop(binding);
    }

    /// Whether stream contexts are asked by `proxy_on_done`: not if the manifest says it does nothing.
    pub(crate) fn asks_streams_if_done(&self) -> bool {
        self.asks_streams
    }

    /// Whether a log line is within the plugin's rate; counts it.
    pub(crate) fn may_log(&self) -> bool {
        let now = Instant::now();
        let fresh =
            self.log_second.get().is_none_or(|start| now.duration_since(start) >= Duration::from_secs(1));
        if fresh {
            self.log_second.set(Some(now));
            self.log_lines.set(0);
        }
        let lines = self.log_lines.get();
        let allowed = lines < self.spec.limits.log_lines;
        if allowed {
            self.log_lines.set(lines + 1);
        } else {
            self.stats.count_dropped_log_line();
        }
        allowed
    }
}
