//! A plugin: a module with one configuration, running on one worker.

use std::cell::RefCell;
use std::hash::{Hash, Hasher};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::action::Callbacks;
use crate::error::VmError;
use crate::exchange::Exchange;
use crate::limits::Limits;
use crate::module::Module;
use crate::stream::StreamContext;

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
        }
    }

    #[allow(clippy::type_complexity, reason = "the fields that count, in one place")]
    fn identity(
        &self,
    ) -> (&str, &str, &str, &[u8], &[u8], &[u8], &Limits, &[(String, String)], Compatibility) {
        (
            &self.name,
            &self.root_id,
            &self.vm_id,
            &self.module.hash().0,
            &self.vm_configuration,
            &self.configuration,
            &self.limits,
            &self.environment,
            self.compatibility,
        )
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

impl PluginStats {
    /// Callbacks run.
    pub fn callbacks(&self) -> u64 {
        self.callbacks.load(Ordering::Relaxed)
    }

    /// Nanoseconds spent in them, estimated from one in sixteen.
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
}

/// A running plugin. Dropping the last `Rc` ends it: `proxy_on_done`, `proxy_on_delete` of its root context.
pub struct Plugin {
    spec: Arc<PluginSpec>,
    stats: Arc<PluginStats>,
    binding: RefCell<()>,
}

impl Plugin {
    /// What the plugin was made from.
    pub fn spec(&self) -> &Arc<PluginSpec> {
        &self.spec
    }

    /// The callbacks that are worth calling.
    pub fn callbacks(&self) -> Callbacks {
        self.spec.module.callbacks()
    }

    /// How much it ran.
    pub fn stats(&self) -> &Arc<PluginStats> {
        &self.stats
    }

    /// Makes the stream context of an exchange, at the first event the filter is to see. If the plugin's VM
    /// failed, a fresh one is started first. `place` is the filter's place in the exchange; it comes back with
    /// local responses and foreign function calls.
    ///
    /// # Errors
    /// The guest failed in `proxy_on_context_create`, or no VM can be started now.
    pub fn stream(self: &Rc<Self>, exchange: Rc<dyn Exchange>, place: u32) -> Result<StreamContext, VmError> {
        let _ = (&self.binding, exchange, place);
        Err(VmError::Poisoned { plugin: self.spec.name.clone() })
    }
}
