//! A VM's place: what stays when a failed VM is replaced, and the brake on replacing it over and over.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use crate::error::StartError;
use crate::host::Host;
use crate::module::ModuleHash;
use crate::plugin::{Binding, Core, PluginSpec};
use crate::state::thread_time;
use crate::vm::Vm;
use crate::vms::Set;

/// What plugins must have in common to share a VM.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct VmKey {
    id: String,
    module: ModuleHash,
    configuration: Vec<u8>,
    environment: Vec<(String, String)>,
    memory: u64,
    prefer_malloc: bool,
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
}

impl Slot {
    pub(crate) fn new(set: &Rc<Set>) -> Slot {
        Slot {
            set: Rc::downgrade(set),
            host: set.host.clone(),
            plugins: RefCell::default(),
            current: RefCell::new(Weak::new()),
            brake: Brake::new(Instant::now()),
        }
    }

    pub(crate) fn host(&self) -> &Rc<dyn Host> {
        &self.host
    }

    /// Starts a plugin that is new here, in the running VM or in a new one.
    pub(crate) fn start(&self, core: &Rc<Core>) -> Result<(), StartError> {
        let running = self.current.borrow().upgrade().filter(|vm| !vm.is_poisoned());
        let vm = match running {
            Some(vm) => vm,
            None => self.replace(core)?,
        };
        let root = vm.add_root(core)?;
        core.binding.replace(Some(Binding { vm, root }));
        self.plugins.borrow_mut().push(Rc::downgrade(core));
        Ok(())
    }

    /// A new VM for a plugin whose VM failed, with all plugins of the failed one.
    pub(crate) fn restart(&self, wanted: &Core) -> Result<Binding, StartError> {
        let refused = wanted.refused.borrow().clone();
        let running = self.current.borrow().upgrade().is_some_and(|vm| !vm.is_poisoned());
        if let Some(retry_after) = self.brake.wait(Instant::now()) {
            return Err(StartError::BackingOff { plugin: wanted.spec.name.clone(), retry_after });
        }
        if running && let Some(error) = refused {
            // The others run; this one refuses its configuration, and will again.
            return Err(error);
        }
        let began = thread_time();
        let outcome = self.restart_all(wanted);
        self.brake.charge(thread_time().saturating_sub(began), Instant::now(), outcome.is_ok());
        outcome
    }

    fn restart_all(&self, wanted: &Core) -> Result<Binding, StartError> {
        self.plugins.borrow_mut().retain(|core| core.strong_count() > 0);
        let plugins: Vec<Rc<Core>> = self.plugins.borrow().iter().filter_map(Weak::upgrade).collect();
        let live = plugins.iter().filter(|core| !core.ended.get());
        let mut vm = None;
        for core in live {
            let running = match &vm {
                Some(vm) => Rc::clone(vm),
                None => self.replace(core)?,
            };
            // The VM that failed goes when its last stream has gone.
            let outcome = running.add_root(core);
            match outcome {
                Ok(root) => {
                    core.refused.replace(None);
                    core.binding.replace(Some(Binding { vm: running.clone(), root }));
                }
                Err(error) => {
                    core.refused.replace(Some(error));
                    core.binding.replace(None);
                    if running.is_poisoned() {
                        break;
                    }
                }
            }
            vm = Some(running);
        }
        let binding = wanted.binding.borrow().clone().filter(|binding| !binding.vm.is_poisoned());
        let refused = wanted.refused.borrow().clone();
        binding.ok_or_else(|| {
            refused.unwrap_or_else(|| StartError::Instantiate {
                plugin: wanted.spec.name.clone(),
                reason: "another plugin of its VM failed".into(),
            })
        })
    }

    fn replace(&self, core: &Rc<Core>) -> Result<Rc<Vm>, StartError> {
        let Some(set) = self.set.upgrade() else {
            return Err(StartError::Instantiate {
                plugin: core.spec.name.clone(),
                reason: "the worker ends".into(),
            });
        };
        let vm = set.start_vm(core)?;
        self.current.replace(Rc::downgrade(&vm));
        Ok(vm)
    }
}

/// Keeps replacing a VM that fails again and again from eating up the worker: replacements may take a tenth of
/// its CPU time, with a second in advance; and after one that failed there is a pause, doubled each time.
struct Brake {
    /// Seconds; below zero, what was used too much is waited for.
    credit: Cell<f64>,
    counted: Cell<Instant>,
    failures: Cell<u32>,
    pause_until: Cell<Option<Instant>>,
}

impl Brake {
    const CREDIT: f64 = 1.0;
    const SHARE: f64 = 0.1;
    const FIRST_PAUSE: Duration = Duration::from_secs(1);
    const LAST_PAUSE: Duration = Duration::from_secs(60);

    fn new(now: Instant) -> Brake {
        Brake {
            credit: Cell::new(Brake::CREDIT),
            counted: Cell::new(now),
            failures: Cell::new(0),
            pause_until: Cell::new(None),
        }
    }

    /// How long to wait before the next replacement; none if it may be made now.
    fn wait(&self, now: Instant) -> Option<Duration> {
        if let Some(pause) = self.pause_until.get().and_then(|until| until.checked_duration_since(now)) {
            return Some(pause).filter(|pause| !pause.is_zero());
        }
        let earned = now.saturating_duration_since(self.counted.get()).as_secs_f64() * Brake::SHARE;
        let credit = (self.credit.get() + earned).min(Brake::CREDIT);
        self.credit.set(credit);
        self.counted.set(now);
        (credit < 0.0)
            .then(|| Duration::try_from_secs_f64(-credit / Brake::SHARE).unwrap_or(Brake::LAST_PAUSE))
    }

    fn charge(&self, took: Duration, now: Instant, succeeded: bool) {
        self.credit.set(self.credit.get() - took.as_secs_f64());
        if succeeded {
            self.failures.set(0);
            return;
        }
        let failures = self.failures.get();
        let pause = Brake::FIRST_PAUSE.saturating_mul(1 << failures.min(6)).min(Brake::LAST_PAUSE);
        self.failures.set(failures + 1);
        self.pause_until.set(Some(now + pause));
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
                brake.charge(Duration::from_millis(100), now, true);
                made += 1;
            }
            now += Duration::from_millis(100);
        }
        // 1 s in advance and a tenth of 20 s, at 100 ms each.
        assert!((28..=31).contains(&made), "{made}");
    }

    #[test]
    fn failed_replacements_pause_longer_each_time() {
        let mut now = Instant::now();
        let brake = Brake::new(now);
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(brake.wait(now), None);
            brake.charge(Duration::ZERO, now, false);
            assert_eq!(brake.wait(now), Some(Duration::from_secs(seconds)));
            now += Duration::from_secs(seconds);
        }
        brake.charge(Duration::ZERO, now, true);
        brake.charge(Duration::ZERO, now, false);
        assert_eq!(brake.wait(now), Some(Duration::from_secs(1)));
    }
}
