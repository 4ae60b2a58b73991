//! A VM's place: what stays when a failed VM is replaced, the brake on replacing it over and over, and the instances
//! that serve one exchange each.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::contexts::Entry;
use crate::core::{Binding, Core};
use crate::error::StartError;
use crate::host::Host;
use crate::module::ModuleHash;
use crate::plugin::{Isolation, PluginSpec};
use crate::shared::Namespace;
use crate::state::thread_time;
use crate::stats::PlaceStats;
use crate::vm::Vm;
use crate::vms::{Failed, Set};

/// Plugins of a VM that may fail at its start before it is tried without them another time.
const MOST_OTHERS: usize = 3;

/// What plugins must have in common to share a VM.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct VmKey {
    id: String,
    module: ModuleHash,
    configuration: Vec<u8>,
    environment: Vec<(String, String)>,
    memory: u64,
    prefer_malloc: bool,
    isolation: Isolation,
}

impl VmKey {
    pub(crate) fn of(spec: &PluginSpec) -> VmKey {
        VmKey {
            id: spec.vm_id.clone(),
            module: *spec.module.hash(),
            configuration: spec.vm_configuration.clone(),
            environment: spec.environment.clone(),
            memory: spec.limits.memory,
            prefer_malloc: spec.compatibility.prefer_malloc,
            isolation: spec.isolation,
        }
    }
}

/// The place of one VM on a worker. Lives as long as plugins use it.
pub(crate) struct Slot {
    set: Weak<Set>,
    host: Rc<dyn Host>,
    plugins: RefCell<Vec<Weak<Core>>>,
    current: RefCell<Weak<Vm>>,
    brake: Brake,
    stats: Arc<PlaceStats>,
    /// The shared data of its VMs, which outlives each of them.
    #[expect(dead_code, reason = "kept for the next VM")]
    namespace: Arc<Namespace>,
}

impl Slot {
    pub(crate) fn new(set: &Rc<Set>, namespace: Arc<Namespace>) -> Slot {
        Slot {
            set: Rc::downgrade(set),
            host: set.host.clone(),
            plugins: RefCell::default(),
            current: RefCell::new(Weak::new()),
            brake: Brake::new(Instant::now()),
            stats: Arc::default(),
            namespace,
        }
    }

    pub(crate) fn stats(&self) -> &Arc<PlaceStats> {
        &self.stats
    }

    pub(crate) fn host(&self) -> &Rc<dyn Host> {
        &self.host
    }

    /// Starts a plugin that is new here, in the running VM or in a new one. One that has an instance for each exchange
    /// only shows that it can start.
    pub(crate) fn start(&self, core: &Rc<Core>) -> Result<(), StartError> {
        if core.spec.isolation == Isolation::Exchange {
            match core.start_first(|| self.make_instance(core)) {
                Ok(Binding { vm, root }) => vm.end(&Entry::Root(root)),
                // All are busy, which says nothing against the plugin.
                Err(StartError::Overloaded { .. }) => {}
                Err(error) => return Err(error),
            }
            return Ok(());
        }
        let (vm, root) = core.start_first(|| {
            let vm = match self.running() {
                Some(vm) => vm,
                None => self.replace(core)?,
            };
            let root = vm.add_root(core)?;
            Ok((vm, root))
        })?;
        core.binding.replace(Some(Binding { vm, root }));
        self.plugins.borrow_mut().push(Rc::downgrade(core));
        Ok(())
    }

    /// An instance for one exchange, with the plugin configured in it.
    pub(crate) fn instance(&self, core: &Core) -> Result<Binding, StartError> {
        let made = self.make_instance(core);
        if let Err(StartError::Refused { .. }) = &made {
            core.count_crashes(1);
        }
        made
    }

    fn make_instance(&self, plugin: &Core) -> Result<Binding, StartError> {
        let core = Rc::new(plugin.for_exchange());
        let set = self.set(plugin)?;
        let vm = set.start_instance(&core)?;
        let root = vm.add_root(&core)?;
        let binding = Binding { vm, root };
        core.binding.replace(Some(binding.clone()));
        Ok(binding)
    }

    /// A new VM for a plugin whose VM failed, with all plugins of the failed one; or the plugin's part in the VM that
    /// runs, if it was not fit to be started with the others.
    pub(crate) fn restart(&self, wanted: &Core) -> Result<Binding, StartError> {
        if let Some(retry_after) = wanted.usage.quarantine.wait(Instant::now()) {
            return Err(wanted.quarantined(retry_after));
        }
        if let Some(retry_after) = self.brake.wait(Instant::now()) {
            return Err(StartError::BackingOff { plugin: wanted.spec.name.clone(), retry_after });
        }
        let began = thread_time();
        let mut outcome = match self.running() {
            Some(vm) => self.rejoin(wanted, &vm),
            None => self.restart_all(wanted),
        };
        // Others of the VM that fail at their start go into quarantine; this one is not to wait for them.
        for _ in 0..MOST_OTHERS {
            if outcome.is_ok() || wanted.refused.borrow().is_some() || self.running().is_some() {
                break;
            }
            outcome = self.restart_all(wanted);
        }
        self.brake.charge(thread_time().saturating_sub(began));
        if let Err(error) = &outcome
            && !matches!(error, StartError::Overloaded { .. })
        {
            wanted.start_failed();
        }
        outcome
    }

    /// A VM failed in a callback of this plugin: has it replaced soon, without an exchange that waits for it.
    pub(crate) fn failed(&self, vm: Weak<Vm>, core: &Core) {
        if let Some(set) = self.set.upgrade() {
            set.failed(Failed { vm, plugin: core.key });
        }
    }

    fn running(&self) -> Option<Rc<Vm>> {
        self.current.borrow().upgrade().filter(|vm| !vm.is_poisoned())
    }

    /// The other plugins run in `vm` already.
    fn rejoin(&self, wanted: &Core, vm: &Rc<Vm>) -> Result<Binding, StartError> {
        let plugins: Vec<Rc<Core>> = self.plugins.borrow().iter().filter_map(Weak::upgrade).collect();
        let core = plugins.iter().find(|core| core.key == wanted.key);
        if let Some(core) = core {
            self.add(core, vm);
        }
        Slot::outcome(wanted)
    }

    fn add(&self, core: &Rc<Core>, vm: &Rc<Vm>) {
        match vm.add_root(core) {
            Ok(root) => {
                core.refused.replace(None);
                core.binding.replace(Some(Binding { vm: vm.clone(), root }));
            }
            Err(error) => {
                core.refused.replace(Some(error));
                core.binding.replace(None);
            }
        }
    }

    fn outcome(wanted: &Core) -> Result<Binding, StartError> {
        let binding = wanted.binding.borrow().clone().filter(|binding| !binding.vm.is_poisoned());
        let refused = wanted.refused.borrow().clone();
        binding.ok_or_else(|| {
            refused.unwrap_or_else(|| StartError::Instantiate {
                plugin: wanted.spec.name.clone(),
                reason: "another plugin of its VM failed".into(),
            })
        })
    }

    fn restart_all(&self, wanted: &Core) -> Result<Binding, StartError> {
        self.plugins.borrow_mut().retain(|core| core.strong_count() > 0);
        let plugins: Vec<Rc<Core>> = self.plugins.borrow().iter().filter_map(Weak::upgrade).collect();
        plugins.iter().for_each(|core| core.forget_failed());
        let now = Instant::now();
        // What is in quarantine comes back by itself, not with the others.
        let fit = |core: &&Rc<Core>| {
            core.key == wanted.key || (!core.ended.get() && core.usage.quarantine.wait(now).is_none())
        };
        let mut vm = None;
        for core in plugins.iter().filter(fit) {
            let running = match &vm {
                Some(vm) => Rc::clone(vm),
                None => self.replace(core)?,
            };
            self.add(core, &running);
            let failed = core.refused.borrow().is_some();
            if failed && core.key != wanted.key {
                core.start_failed();
            }
            if running.is_poisoned() {
                break;
            }
            vm = Some(running);
        }
        Slot::outcome(wanted)
    }

    fn replace(&self, core: &Rc<Core>) -> Result<Rc<Vm>, StartError> {
        let vm = self.set(core)?.start_vm(core)?;
        self.current.replace(Rc::downgrade(&vm));
        Ok(vm)
    }

    fn set(&self, core: &Core) -> Result<Rc<Set>, StartError> {
        self.set.upgrade().ok_or_else(|| StartError::Instantiate {
            plugin: core.spec.name.clone(),
            reason: "the worker ends".into(),
        })
    }
}

/// Keeps replacing VMs from eating up the worker: it may take a tenth of its CPU time, with a second in advance.
struct Brake {
    /// Seconds; below zero, what was used too much is waited for.
    credit: Cell<f64>,
    counted: Cell<Instant>,
}

impl Brake {
    const CREDIT: f64 = 1.0;
    const SHARE: f64 = 0.1;

    fn new(now: Instant) -> Brake {
        Brake { credit: Cell::new(Brake::CREDIT), counted: Cell::new(now) }
    }

    /// How long to wait before the next replacement; none if it may be made now.
    fn wait(&self, now: Instant) -> Option<Duration> {
        let earned = now.saturating_duration_since(self.counted.get()).as_secs_f64() * Brake::SHARE;
        let credit = (self.credit.get() + earned).min(Brake::CREDIT);
        self.credit.set(credit);
        self.counted.set(now);
        (credit < 0.0).then(|| Duration::try_from_secs_f64(-credit / Brake::SHARE).unwrap_or(Duration::MAX))
    }

    fn charge(&self, took: Duration) {
        self.credit.set(self.credit.get() - took.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replacements_take_a_tenth_of_the_time_after_the_advance() {
        let start = Instant::now();
        let brake = Brake::new(start);
        let mut made = 0;
        let mut now = start;
        while now < start + Duration::from_secs(20) {
            if brake.wait(now).is_none() {
                brake.charge(Duration::from_millis(100));
                made += 1;
            }
            now += Duration::from_millis(100);
        }
        // 1 s in advance and a tenth of 20 s, at 100 ms each.
        assert!((28..=31).contains(&made), "{made}");
    }
}
