//! A VM: one store with one instance, and the way into it. A VM that failed once is never entered again.

use std::cell::{Cell, RefCell, RefMut};
use std::collections::VecDeque;
use std::panic::{self, AssertUnwindSafe};
use std::rc::{Rc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use wasmtime::{Store, TypedFunc, WasmParams, WasmResults};

use crate::contexts::{Entry, Root, Stream};
use crate::core::Core;
use crate::engine::Engine;
use crate::error::{StartError, VmError};
use crate::exports::Exports;
use crate::limits::Limit;
use crate::phase::Phase;
use crate::remains::{Data, Reaper};
use crate::state::{self, VmState, thread_time};
use crate::trap;
use crate::waiting::Waiting;

/// Contexts that a callback ends are ended with it for so long; the sweep ends the others.
const ENDING: Duration = Duration::from_millis(1);

/// A store with its instance.
pub(crate) struct Vm {
    store: RefCell<Store<Data>>,
    reaper: Reaper,
    pub(crate) exports: Exports,
    poisoned: Cell<bool>,
    waiting: Rc<Waiting>,
    /// Contexts that are done, and whether somebody is about to end them.
    ended: RefCell<VecDeque<u32>>,
    ending: Cell<bool>,
}

impl Drop for Vm {
    fn drop(&mut self) {
        self.reaper.take_if_large(self.store.get_mut());
    }
}

impl Vm {
    /// Instantiates the module and runs its `_initialize` or `_start`, on behalf of `core`.
    pub(crate) fn start(
        state: VmState,
        engine: &Engine,
        core: &Rc<Core>,
        waiting: Rc<Waiting>,
    ) -> Result<Rc<Vm>, StartError> {
        let module = &core.spec.module;
        let mut store = Store::new(engine.wasmtime(), Data::new(state));
        store.limiter(|data| &mut data.growth);
        store.epoch_deadline_callback(state::epoch_reached);
        let nobody = Entry::Root(Rc::new(Root::new(0, core, Weak::new())));
        let ticks = store.data_mut().running.begin(Phase::Initialize, &nobody, false);
        store.set_epoch_deadline(ticks);
        let instantiated =
            panic::catch_unwind(AssertUnwindSafe(|| module.instance().instantiate(&mut store)));
        let instance = match instantiated {
            Ok(Ok(instance)) => instance,
            Ok(Err(error)) => return Err(trap::at_instantiation(error, core, store.data())),
            Err(_) => return Err(trap::panicked_at_instantiation(core)),
        };
        let places = module.exported();
        let memory = places.memory(&instance, &mut store);
        let mut exports = Exports::of(places, &instance, &mut store);
        let allocate = exports.take_allocator(core.spec.compatibility.prefer_malloc);
        store.data_mut().memory = memory;
        store.data_mut().allocate = allocate.map(Rc::new);
        let vm = Rc::new(Vm {
            store: RefCell::new(store),
            reaper: engine.reaper(),
            exports,
            poisoned: Cell::new(false),
            waiting,
            ended: RefCell::default(),
            ending: Cell::new(false),
        });
        vm.store.borrow_mut().data_mut().vm = Rc::downgrade(&vm);
        vm.initialize(&nobody).map_err(StartError::Failed)?;
        Ok(vm)
    }

    /// Runs what the toolchain wants run first: a reactor's `_initialize` and its `main`, else a command's
    /// `_start`.
    fn initialize(&self, nobody: &Entry) -> Result<(), VmError> {
        let Exports { initialize, start, main, main_void, .. } = &self.exports;
        let Some(initialize) = initialize else {
            return start.as_ref().map_or(Ok(()), |start| self.run_once(nobody, start, ()));
        };
        self.run_once(nobody, initialize, ())?;
        if let Some(main) = main {
            return self.run_once(nobody, main, (0, 0));
        }
        main_void.as_ref().map_or(Ok(()), |main| self.run_once(nobody, main, ()))
    }

    fn run_once<P: WasmParams, R: WasmResults>(
        &self,
        nobody: &Entry,
        function: &TypedFunc<P, R>,
        parameters: P,
    ) -> Result<(), VmError> {
        match self.enter(nobody, Phase::Initialize, false, function, parameters) {
            // A command's `_start` that ended by `proc_exit(0)`.
            Err(_) if !self.is_poisoned() => Ok(()),
            outcome => outcome.map(drop),
        }
    }

    pub(crate) fn is_poisoned(&self) -> bool {
        self.poisoned.get()
    }

    /// Access to the store's data between callbacks; none from inside of a hostcall.
    pub(crate) fn with_state<T>(&self, access: impl FnOnce(&mut VmState) -> T) -> Option<T> {
        self.store.try_borrow_mut().ok().map(|mut store| access(store.data_mut()))
    }

    /// Runs a callback on a context: the only way into the guest, the allocator apart.
    pub(crate) fn enter<P: WasmParams, R: WasmResults>(
        &self,
        entry: &Entry,
        phase: Phase,
        end_of_stream: bool,
        callback: &TypedFunc<P, R>,
        parameters: P,
    ) -> Result<R, VmError> {
        let core = entry.core();
        if self.poisoned.get() {
            return Err(VmError::Poisoned { plugin: core.spec.name.clone() });
        }
        let Ok(mut store) = self.store.try_borrow_mut() else {
            return Err(VmError::Reentered { plugin: core.spec.name.clone(), callback: phase.callback() });
        };
        let sampled = core.stats.count_callback().then(Instant::now);
        let watched = core.usage.share.is_watched().then(thread_time);
        store.data_mut().growth.refused = None;
        let first_look = store.data_mut().running.begin(phase, entry, end_of_stream);
        store.set_epoch_deadline(first_look);
        // Poisoned while it runs, so that nothing that goes wrong on the way out leaves it usable.
        self.poisoned.set(true);
        // A panic in a hostcall travels through the guest's frames to here.
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| callback.call(&mut *store, parameters)));
        let state = store.data_mut();
        let ticks = state.running.ticks();
        // Its last hostcall may have taken far too long.
        let outcome = outcome.map(|done| done.and_then(|result| state.running.returned(result, ticks)));
        state.running.finish();
        if (ticks > 1 || sampled.is_some()) && !phase.is_start() {
            core.record(sampled, ticks);
        }
        if let Some(began) = watched {
            core.measure(began);
        }
        match outcome {
            Ok(Ok(result)) if state.ended.is_empty() => {
                self.poisoned.set(false);
                Ok(result)
            }
            outcome => self.settle(core, phase, outcome, store),
        }
    }

    /// What comes of a callback that ended contexts, or did not return.
    #[cold]
    fn settle<R>(
        &self,
        core: &Core,
        phase: Phase,
        outcome: thread::Result<wasmtime::Result<R>>,
        mut store: RefMut<'_, Store<Data>>,
    ) -> Result<R, VmError> {
        let state = store.data_mut();
        match outcome {
            Ok(Ok(result)) => {
                self.poisoned.set(false);
                let ended = std::mem::take(&mut state.ended);
                drop(store);
                self.end_all(ended);
                Ok(result)
            }
            Ok(Err(error)) if trap::is_clean_exit(&error, phase) => {
                self.poisoned.set(false);
                Err(trap::classify(&error, core, phase, state))
            }
            Ok(Err(error)) => {
                let limit = trap::limit(&error, phase);
                let error = trap::classify(&error, core, phase, state);
                drop(store);
                Err(self.failed(core, error, limit))
            }
            Err(_) => {
                drop(store);
                Err(self.failed(core, trap::panicked(core, phase), None))
            }
        }
    }

    /// Tells the world that this VM failed: the host, the streams that wait for something in it, and who replaces it.
    #[cold]
    fn failed(&self, core: &Core, error: VmError, limit: Option<Limit>) -> VmError {
        let exchanges = |state: &mut VmState| -> Vec<_> {
            state.contexts.streams().filter_map(|stream| stream.exchange.upgrade()).collect()
        };
        self.with_state(exchanges).unwrap_or_default().iter().for_each(|exchange| exchange.wake());
        // Nobody is left to hear of them.
        drop(self.with_state(|state| state.grpc.remove_all()));
        core.failed(&error, limit);
        // Its memory is given back soon: a VM in its place must not be refused for it.
        let given = self.with_state(|state| {
            state.growth.give_all_back();
            state.vm.clone()
        });
        core.slot.failed(given.unwrap_or_default(), core);
        error
    }

    /// Gives back what the guest has, which nobody enters again. Streams may know of the VM for days.
    pub(crate) fn clear(&self) {
        if let Ok(mut store) = self.store.try_borrow_mut() {
            self.reaper.take(&mut store);
        }
    }

    /// Makes a plugin's root context and configures it.
    pub(crate) fn add_root(self: &Rc<Vm>, core: &Rc<Core>) -> Result<Rc<Root>, StartError> {
        let refused = |callback| StartError::Refused { plugin: core.spec.name.clone(), callback };
        let full = || StartError::Instantiate {
            plugin: core.spec.name.clone(),
            reason: "its VM has too many contexts".into(),
        };
        let most = core.spec.limits.contexts;
        let id = self.with_state(|state| state.contexts.reserve(most)).flatten().ok_or_else(full)?;
        let root = Rc::new(Root::new(id, core, Rc::downgrade(self)));
        let entry = Entry::Root(root.clone());
        self.with_state(|state| state.contexts.insert(entry.clone()));
        let configured = self.configure_root(&entry);
        match configured {
            Ok(None) => Ok(root),
            Ok(Some(callback)) => {
                self.close(&entry);
                Err(refused(callback))
            }
            Err(error) => {
                self.remove(&entry);
                Err(StartError::Failed(error))
            }
        }
    }

    /// The callback that refused, if any.
    fn configure_root(&self, entry: &Entry) -> Result<Option<&'static str>, VmError> {
        let (id, spec) = (entry.id(), &entry.core().spec);
        if let Some(create) = &self.exports.context_create {
            self.enter(entry, Phase::ContextCreate, false, create, (id, 0))?;
        }
        if let Some(vm_start) = &self.exports.vm_start {
            let size = spec.vm_configuration.len() as u32;
            if self.enter(entry, Phase::VmStart, false, vm_start, (id, size))? == 0 {
                return Ok(Some(Phase::VmStart.callback()));
            }
        }
        if let Some(configure) = &self.exports.configure {
            let size = spec.configuration.len() as u32;
            if self.enter(entry, Phase::Configure, false, configure, (id, size))? == 0 {
                return Ok(Some(Phase::Configure.callback()));
            }
        }
        Ok(None)
    }

    /// Ends a context: asks whether it is done, and if so, logs and deletes it. A context that is not done stays
    /// until it calls `proxy_done` or its time is up.
    pub(crate) fn end(self: &Rc<Vm>, entry: &Entry) {
        let asked = match entry {
            Entry::Root(_) => true,
            Entry::Stream(stream) => stream.core.asks_streams_if_done(),
        };
        if let Some(done) = self.exports.done.as_ref().filter(|_| asked) {
            match self.enter(entry, Phase::Done, false, done, entry.id()) {
                Ok(0) => {
                    entry.set_pending(true);
                    self.waiting.add(self, entry);
                    return;
                }
                Ok(_) => {}
                Err(VmError::Reentered { .. }) => return self.waiting.add_overdue(self, entry),
                // Told to the host already, or nothing to tell.
                Err(_) => {}
            }
        }
        self.close(entry);
    }

    /// Logs and deletes a context. On a failed VM it is only forgotten. An instance that was kept for the stream
    /// ends after it.
    pub(crate) fn close(&self, entry: &Entry) {
        entry.set_pending(false);
        if let (Entry::Stream(_), Some(log)) = (entry, &self.exports.log) {
            // Told to the host, and the VM is poisoned: nothing more to do here.
            let _ = self.enter(entry, Phase::Log, false, log, entry.id());
        }
        if let Some(delete) = &self.exports.delete {
            let _ = self.enter(entry, Phase::Delete, false, delete, entry.id());
        }
        self.remove(entry);
        match entry {
            Entry::Root(root) => {
                drop(self.with_state(|state| state.grpc.remove_all_of(root)));
                root.core.unbind(self);
            }
            Entry::Stream(stream) => drop(stream.own.take()),
        }
    }

    fn remove(&self, entry: &Entry) {
        // Dropped after the store is released: it may be the last owner of something.
        drop(self.with_state(|state| state.contexts.remove(entry.id())));
        if let Entry::Stream(stream) = entry {
            stream.core.stats.end_context();
        }
    }

    /// Ends contexts that are done now. Their last callbacks may say so of others: these end after them, never within, since
    /// each would take a part of the stack.
    fn end_all(&self, ids: Vec<u32>) {
        self.ended.borrow_mut().extend(ids);
        if self.ending.replace(true) {
            return;
        }
        let began = Instant::now();
        loop {
            let next = self.ended.borrow_mut().pop_front();
            let Some(id) = next else { break };
            let entry = self.with_state(|state| state.contexts.find(id).cloned()).flatten();
            let Some(entry) = entry.filter(Entry::is_pending) else { continue };
            if began.elapsed() > ENDING {
                entry.set_pending(false);
                self.waiting.hurry(self, id);
            } else {
                self.waiting.forget(self, id);
                self.close(&entry);
            }
        }
        self.ending.set(false);
    }

    /// Makes a stream context known and creates it in the guest.
    pub(crate) fn add_stream(
        &self,
        stream: impl FnOnce(u32) -> Stream,
        core: &Core,
    ) -> Result<(Rc<Stream>, Entry), VmError> {
        let full = || {
            core.exceeded(Limit::Contexts);
            VmError::Limit {
                plugin: core.spec.name.clone(),
                callback: Phase::ContextCreate.callback(),
                what: "too many live contexts".into(),
                frames: Vec::new().into(),
            }
        };
        let most = core.spec.limits.contexts;
        let added = self.with_state(|state| {
            let stream = Rc::new(stream(state.contexts.reserve(most)?));
            state.contexts.insert(Entry::Stream(stream.clone()));
            Some(stream)
        });
        let stream = added.flatten().ok_or_else(full)?;
        let entry = Entry::Stream(stream.clone());
        core.stats.begin_context();
        if let Some(create) = &self.exports.context_create
            && let Err(error) =
                self.enter(&entry, Phase::ContextCreate, false, create, (stream.id, stream.root.id))
        {
            self.remove(&entry);
            return Err(error);
        }
        Ok((stream, entry))
    }
}
