//! The VMs and plugins of one worker.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::contexts::{Contexts, Entry};
use crate::core::{Binding, Core, Usage};
use crate::engine::Engine;
use crate::error::StartError;
use crate::growth::Growth;
use crate::grpc::GrpcTable;
use crate::host::Host;
use crate::limits::Limit;
use crate::phase::Phase;
use crate::plugin::{Plugin, PluginSpec};
use crate::shared::{InstancePermit, KnownQueues, Mailbox, Queue, Shared, Tenant};
use crate::slot::{Slot, VmKey};
use crate::state::{Running, VmState, thread_time};
use crate::tables::MetricTable;
use crate::vm::Vm;
use crate::waiting::Waiting;

/// Turns of queues in a row, before it is that of the worker's other tasks.
pub(crate) const MOST_TURNS: usize = 32;
/// VMs that failed and were not seen to yet. Those that were before are replaced for the next exchange.
const MOST_FAILED: usize = 1_024;
/// CPU time after which there is no further one.
const TURNS_TIME: Duration = Duration::from_micros(250);
/// CPU time of turns that exchanges notice.
const LONG: Duration = Duration::from_millis(1);
/// How many times as long as these took there are none: nothing waits for them as a client does for its answer.
const REST: u32 = 19;
/// But no longer.
const LONGEST_REST: Duration = Duration::from_millis(100);

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
    /// One for each plugin until it has ended, which it may do long after the embedder let go of it.
    tenants: RefCell<Vec<(Weak<Usage>, Tenant)>>,
    slots: RefCell<HashMap<VmKey, Weak<Slot>>>,
    failed: RefCell<VecDeque<Failed>>,
}

/// A VM that failed, in a callback of the plugin with this key.
pub(crate) struct Failed {
    pub(crate) vm: Weak<Vm>,
    pub(crate) plugin: u64,
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
            tenants: RefCell::default(),
            slots: RefCell::default(),
            failed: RefCell::default(),
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
        // It may register queues while it starts.
        let tenant = Tenant::new(&self.0.shared, &ledger);
        let core = Rc::new(Core::new(spec.clone(), self.0.slot(&spec), ledger));
        core.slot.start(&core)?;
        self.0.tenants.borrow_mut().push((Rc::downgrade(&core.usage), tenant));
        let plugin = Rc::new(Plugin { core });
        let mut plugins = self.0.plugins.borrow_mut();
        plugins.retain(|_, plugin| plugin.strong_count() > 0);
        plugins.insert(spec, Rc::downgrade(&plugin));
        Ok(plugin)
    }

    /// Replaces VMs that failed, so that the next exchange finds them there, and tells plugins of this worker of new items in
    /// their queues: some of them. Ready if there are more: call it again after so long, if only when the worker has seen to all
    /// else, the network included. A task that woke itself would be run dozens of times before that.
    pub fn poll_events(&self, task: &mut Context<'_>) -> Poll<Duration> {
        // What plugins leave for each other must not wake the task before its turn.
        self.0.mailbox.listen(None);
        let began = thread_time();
        for _ in 0..MOST_TURNS {
            let did_something = self.0.replace_next() || self.0.tell_next();
            let took = thread_time().saturating_sub(began);
            if took >= LONG {
                // Who had to wait for it is not to meet the next one at each step.
                return Poll::Ready((took * REST).min(LONGEST_REST));
            }
            if !did_something || took >= TURNS_TIME {
                break;
            }
        }
        if !self.0.has_events() {
            self.0.mailbox.listen(Some(task.waker()));
        }
        // Others post as well, and may have just now.
        if self.0.has_events() { Poll::Ready(Duration::ZERO) } else { Poll::Pending }
    }

    /// Lets go of what waits for its end (contexts whose `proxy_on_done` returned false) when its time is up, and of
    /// queues whose plugins have ended; starts supervised plugins again, and has those told of their queues that were over
    /// their share of the CPU. Call it about once per second; it costs nothing when nothing waits. True if there was no
    /// time for all of it: call it again when others of the worker have run.
    pub fn sweep(&self) -> bool {
        let more = self.sweep_at(Instant::now());
        self.0.tenants.borrow_mut().retain(|(usage, _)| usage.strong_count() > 0);
        self.0.mailbox.resume();
        let plugins: Vec<_> = self.0.plugins.borrow().values().filter_map(Weak::upgrade).collect();
        for plugin in plugins.iter().filter(|plugin| plugin.core.supervised.get()) {
            // What fails here was told to the host, and is tried again.
            let _ = plugin.core.bound();
        }
        more
    }

    /// Whether a context waits for its end.
    pub fn has_pending(&self) -> bool {
        !self.0.waiting.is_empty()
    }

    /// Ready once no context waits for its end. Whoever shuts down goes on calling [`Vms::sweep`] meanwhile.
    pub fn poll_ended(&self, task: &mut Context<'_>) -> Poll<()> {
        self.0.waiting.poll_empty(task)
    }

    /// As [`Vms::sweep`], for contexts alone.
    pub(crate) fn sweep_at(&self, now: Instant) -> bool {
        self.0.waiting.sweep(now)
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
        let slot = Rc::new(Slot::new(self, self.shared.data().namespace(&spec.vm_id)));
        slots.insert(key, Rc::downgrade(&slot));
        slot
    }

    /// A new VM, on behalf of one of its plugins.
    pub(crate) fn start_vm(&self, core: &Rc<Core>) -> Result<Rc<Vm>, StartError> {
        self.start(core, None)
    }

    /// A new VM for one exchange, if there may be one more.
    pub(crate) fn start_instance(&self, core: &Rc<Core>) -> Result<Rc<Vm>, StartError> {
        let Some(permit) = self.shared.bounds().instance(&core.usage.ledger) else {
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
            queues: KnownQueues::default(),
            grpc: GrpcTable::default(),
            running: Running::new(self.engine.ticks()),
            ended: Vec::new(),
            growth: Growth::new(&spec.limits, &core.usage.ledger, self.shared.bounds(), core.slot.stats()),
            permit,
        };
        Vm::start(state, &self.engine, core, self.waiting.clone())
    }

    /// The running plugin with this key.
    fn plugin(&self, key: u64) -> Option<Rc<Plugin>> {
        let plugins = self.plugins.borrow();
        let mut running = plugins.values().filter_map(Weak::upgrade);
        running.find(|plugin| plugin.core.key == key)
    }

    /// A VM failed. It is seen to when whoever runs now has ended its turn: the answer to its client comes first.
    pub(crate) fn failed(&self, failed: Failed) {
        let mut all = self.failed.borrow_mut();
        if all.len() == MOST_FAILED {
            all.pop_front();
        }
        all.push_back(failed);
        drop(all);
        self.mailbox.wake();
    }

    fn has_events(&self) -> bool {
        self.mailbox.has_next() || !self.failed.borrow().is_empty()
    }

    /// Replaces one VM that failed. False if there is none.
    fn replace_next(&self) -> bool {
        let Some(Failed { vm, plugin }) = self.failed.borrow_mut().pop_front() else { return false };
        let vm = vm.upgrade();
        // None if it has ended. What fails here was told to the host; the next exchange or timer tries again.
        drop(self.plugin(plugin).map(|plugin| plugin.core.bound()));
        // The new one comes first: while memory is given back, the system is slow to find some.
        if let Some(vm) = vm {
            vm.clear();
        }
        true
    }

    /// Tells a plugin of one new item. False if there is none.
    fn tell_next(&self) -> bool {
        self.mailbox.take_next().map(|queue| self.tell_of(&queue)).is_some()
    }

    /// Tells the plugin that registered this queue last of one new item.
    fn tell_of(&self, queue: &Arc<Queue>) {
        let Some(key) = queue.listener(&self.mailbox) else { return };
        let Some(plugin) = self.plugin(key) else { return queue.untold(&self.mailbox) };
        let share = &plugin.core.usage.share;
        if !share.is_calm() && share.wait(Instant::now()).is_some() {
            // As little as it ticks now. But an item that it is not told of could lie there for ever.
            return self.mailbox.hold(queue);
        }
        // What fails here was told to the host. A plugin that starts again registers its queues, and is told then.
        let Ok(binding) = plugin.core.bound() else { return queue.untold(&self.mailbox) };
        if queue.told(&self.mailbox) {
            self.mailbox.put_back(queue);
        }
        binding.queue_ready(queue);
    }
}

impl Binding {
    fn queue_ready(&self, queue: &Arc<Queue>) {
        let Some(ready) = &self.vm.exports.queue_ready else { return };
        // The plugin has registered it, if perhaps in a VM that is gone.
        self.vm.with_state(|state| state.queues.learn(queue, true));
        let entry = Entry::Root(self.root.clone());
        // What fails here was told to the host.
        let _ = self.vm.enter(&entry, Phase::QueueReady, false, ready, (self.root.id, queue.token()));
    }
}
