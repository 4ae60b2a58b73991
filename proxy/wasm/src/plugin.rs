//! A plugin: a module with one configuration, running on one worker.

use std::hash::{Hash, Hasher};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use crate::action::Callbacks;
use crate::capabilities::Capabilities;
use crate::contexts::Entry;
use crate::core::{Binding, Core};
use crate::error::VmError;
use crate::exchange::Exchange;
use crate::ledger::Ledger;
use crate::limits::{Limit, Limits};
use crate::module::Module;
use crate::node::Node;
use crate::properties::PropertyForm;
use crate::stats::PluginStats;
use crate::stream::{Own, StreamContext};

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
    /// What it may do.
    pub may: Capabilities,
    /// With whom it shares an instance.
    pub isolation: Isolation,
    /// Environment variables the guest sees.
    pub environment: Vec<(String, String)>,
    /// Where hosts differ, which way to go.
    pub compatibility: Compatibility,
    /// The proxy it runs in, as filters may know it.
    pub node: Arc<Node>,
}

/// With whom a plugin's streams share an instance of its module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Isolation {
    /// With all streams of all plugins of the VM, on one worker.
    #[default]
    Shared,
    /// With nobody: each exchange gets a fresh instance, which is never used again.
    Exchange,
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
            may: Capabilities::default(),
            isolation: Isolation::default(),
            environment: Vec::new(),
            compatibility: Compatibility::default(),
            node: Arc::default(),
        }
    }

    /// What makes two specs one plugin.
    fn identity(&self) -> impl Eq {
        let PluginSpec { name, root_id, vm_id, module, vm_configuration, configuration, .. } = self;
        let PluginSpec { limits, may, isolation, environment, compatibility, node, .. } = self;
        let names = (name, root_id, vm_id, module.hash());
        let bounds = (limits, may, isolation);
        (names, vm_configuration, configuration, bounds, environment, compatibility, node)
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
        // What specs nearly always differ in: to hash all their limits takes nearly a tenth of a VM's start.
        (&self.name, self.module.hash(), &self.configuration).hash(state);
    }
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

    /// The callbacks that are worth calling: the module's, but those that its configuration has no use for.
    pub fn callbacks(&self) -> Callbacks {
        self.core.spec.module.callbacks().without(self.core.unused.get())
    }

    /// Those of them that are worth calling only where the request is one of gRPC.
    pub fn grpc_only(&self) -> Callbacks {
        self.core.grpc_only.get()
    }

    /// How much it ran.
    pub fn stats(&self) -> &Arc<PluginStats> {
        &self.core.stats
    }

    /// What all plugins of its name have used, and how they failed.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.core.usage.ledger
    }

    /// Counts a limit that the embedder enforces.
    pub fn exceeded(&self, limit: Limit) {
        self.core.exceeded(limit);
    }

    /// Has the plugin started again also when it failed for so long that it was in quarantine, not only when an exchange or its
    /// timer needs it: for plugins without streams. [`crate::Vms::sweep`] does it.
    pub fn supervise(&self) {
        self.core.supervised.set(true);
    }

    /// Makes the stream context of an exchange, at the first event the filter is to see. If the plugin's VM
    /// failed and was not replaced yet, a fresh one is started first; if each exchange has an instance of its own, always. `place` is the filter's place in the exchange; it comes back with
    /// local responses and foreign function calls. The context does not keep the exchange alive.
    ///
    /// # Errors
    /// The guest failed in `proxy_on_context_create`, or no VM can be started now.
    pub fn stream(self: &Rc<Self>, exchange: Rc<dyn Exchange>, place: u32) -> Result<StreamContext, VmError> {
        if self.core.is_calm() {
            return self.start_stream(&exchange, place, false);
        }
        let probe = self.core.admit()?;
        let trial = Trial { core: &self.core, probe };
        let context = self.start_stream(&exchange, place, probe)?;
        trial.goes_on();
        Ok(context)
    }

    fn start_stream(
        self: &Rc<Self>,
        exchange: &Rc<dyn Exchange>,
        place: u32,
        probe: bool,
    ) -> Result<StreamContext, VmError> {
        let core = &self.core;
        let (binding, own) = match core.spec.isolation {
            Isolation::Shared => match core.running() {
                Some(binding) => (binding, None),
                None => (core.bound()?, None),
            },
            Isolation::Exchange => {
                let instance = core.slot.instance(core)?;
                (instance.clone(), Some(Own(instance)))
            }
        };
        StreamContext::create(self, binding, own, exchange, place, probe)
    }
}

/// A trial of a plugin that is in quarantine, until there is a stream context that goes on with it.
struct Trial<'a> {
    core: &'a Core,
    probe: bool,
}

impl Trial<'_> {
    fn goes_on(mut self) {
        self.probe = false;
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        if self.probe {
            self.core.usage.quarantine.tried(Instant::now(), false);
        }
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        self.core.ended.set(true);
        let binding = self.core.binding.borrow().clone();
        match binding {
            Some(Binding { vm, root }) => vm.end(&Entry::Root(root)),
            // In quarantine: there is nobody to end, but a timer waits to try again.
            None => self.core.stop_timer(),
        }
    }
}
