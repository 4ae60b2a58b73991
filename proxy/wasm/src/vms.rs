//! The VMs and plugins of one worker.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use crate::contexts::Contexts;
use crate::core::Core;
use crate::engine::Engine;
use crate::error::StartError;
use crate::growth::Growth;
use crate::grpc::GrpcTable;
use crate::host::Host;
use crate::limits::Limit;
use crate::phase::Phase;
use crate::plugin::{Plugin, PluginSpec};
use crate::shared::{InstancePermit, Mailbox, Shared};
use crate::slot::{Slot, VmKey};
use crate::state::{Running, VmState};
use crate::tables::MetricTable;
use crate::vm::Vm;
use crate::waiting::Waiting;

/// The VMs and plugins of one worker. Clones are handles to the same set.
#[derive(Clone)]
pub struct Vms(Rc<Set>);

/// What the handles share.
pub(crate) struct Set {
    pub(crate) host: Rc<dyn Host>,
    engine: Engine,
    shared: Arc<Shared>,
    mailbox: Arc<Mailbox>,
    waiting: Rc<Waiting>,
    plugins: RefCell<HashMap<Arc<PluginSpec>, Weak<Plugin>>>,
    slots: RefCell<HashMap<VmKey, Weak<Slot>>>,
}

impl Vms {
    /// No VMs yet.
    pub fn new(engine: Engine, host: Rc<dyn Host>, shared: Arc<Shared>) -> Vms {
        Vms(Rc::new(Set {
            host,
            engine,
            shared,
            mailbox: Arc::default(),
            waiting: Rc::default(),
            plugins: RefCell::default(),
            slots: RefCell::default(),
        }))
    }

    /// The running plugin of this spec, started if there is none: an equal spec gives the same plugin, with its
    /// state.
    ///
    /// # Errors
    /// The plugin cannot start, or refuses its configuration.
    pub fn plugin(&self, spec: Arc<PluginSpec>) -> Result<Rc<Plugin>, StartError> {
        self.sweep();
        let running = self.0.plugins.borrow().get(&spec).and_then(Weak::upgrade);
        if let Some(plugin) = running {
            return Ok(plugin);
        }
        let ledger = self.0.shared.ledger(&spec.name);
        let core = Rc::new(Core::new(spec.clone(), self.0.slot(&spec), ledger));
        core.slot.start(&core)?;
        let plugin = Rc::new(Plugin { core });
        let mut plugins = self.0.plugins.borrow_mut();
        plugins.retain(|_, plugin| plugin.strong_count() > 0);
        plugins.insert(spec, Rc::downgrade(&plugin));
        Ok(plugin)
    }

    /// Delivers queue events meant for plugins of this worker. Never ready: run it as a task of the worker, by
    /// `poll_fn(|cx| vms.poll_events(cx))`.
    pub fn poll_events(&self, task: &mut Context<'_>) -> Poll<()> {
        for event in self.0.mailbox.take(task.waker()) {
            let plugin = self
                .0
                .plugins
                .borrow()
                .values()
                .find_map(|plugin| plugin.upgrade().filter(|plugin| plugin.core.key == event.plugin));
            if let Some(plugin) = plugin {
                plugin.core.queue_ready(event.queue);
            }
        }
        Poll::Pending
    }

    /// Lets go of what waits for its end (contexts whose `proxy_on_done` returned false) when its time is up, and
    /// starts supervised plugins again. Call it about once per second; it costs nothing when nothing waits.
    pub fn sweep(&self) {
        self.sweep_at(Instant::now());
        let plugins: Vec<_> = self.0.plugins.borrow().values().filter_map(Weak::upgrade).collect();
        for plugin in plugins.iter().filter(|plugin| plugin.core.supervised.get()) {
            // What fails here was told to the host, and is tried again.
            let _ = plugin.core.bound();
        }
    }

    /// Whether a context waits for its end.
    pub fn has_pending(&self) -> bool {
        !self.0.waiting.is_empty()
    }

    /// Ready once no context waits for its end. Whoever shuts down goes on calling [`Vms::sweep`] meanwhile.
    pub fn poll_ended(&self, task: &mut Context<'_>) -> Poll<()> {
        self.0.waiting.poll_empty(task)
    }

    pub(crate) fn sweep_at(&self, now: Instant) {
        self.0.waiting.sweep(now);
    }
}

impl Set {
    fn slot(self: &Rc<Set>, spec: &PluginSpec) -> Rc<Slot> {
        let key = VmKey::of(spec);
        let mut slots = self.slots.borrow_mut();
        if let Some(slot) = slots.get(&key).and_then(Weak::upgrade) {
            return slot;
        }
        slots.retain(|_, slot| slot.strong_count() > 0);
        let slot = Rc::new(Slot::new(self));
        slots.insert(key, Rc::downgrade(&slot));
        slot
    }

    /// A new VM, on behalf of one of its plugins.
    pub(crate) fn start_vm(&self, core: &Rc<Core>) -> Result<Rc<Vm>, StartError> {
        self.start(core, None)
    }

    /// A new VM for one exchange, if there may be one more.
    pub(crate) fn start_instance(&self, core: &Rc<Core>) -> Result<Rc<Vm>, StartError> {
        let Some(permit) = self.shared.bounds().instance() else {
            core.exceeded(Limit::Instances);
            return Err(StartError::Overloaded { plugin: core.spec.name.clone() });
        };
        self.start(core, Some(permit))
    }

    fn start(&self, core: &Rc<Core>, permit: Option<InstancePermit>) -> Result<Rc<Vm>, StartError> {
        let spec = &core.spec;
        let mut environment = Vec::new();
        for (name, value) in &spec.environment {
            environment.extend_from_slice(format!("{name}={value}\0").as_bytes());
        }
        let state = VmState {
            vm: Weak::new(),
            host: self.host.clone(),
            shared: self.shared.clone(),
            mailbox: self.mailbox.clone(),
            namespace: self.shared.data().namespace(&spec.vm_id),
            abi: spec.module.abi(),
            environment,
            environment_count: spec.environment.len() as u32,
            memory: None,
            allocate: None,
            contexts: Contexts::new(),
            metrics: MetricTable::default(),
            grpc: GrpcTable::default(),
            running: Running::new(),
            ended: Vec::new(),
            growth: Growth::new(&spec.limits, &core.usage.ledger, self.shared.bounds(), core.slot.stats()),
            permit,
        };
        Vm::start(state, self.engine.wasmtime(), core, self.waiting.clone())
    }
}

impl Core {
    fn queue_ready(&self, queue: u32) {
        // What fails here was told to the host.
        let Ok(binding) = self.bound() else { return };
        if let Some(ready) = &binding.vm.exports.queue_ready {
            let entry = crate::contexts::Entry::Root(binding.root.clone());
            let _ = binding.vm.enter(&entry, Phase::QueueReady, false, ready, (binding.root.id, queue));
        }
    }
}
