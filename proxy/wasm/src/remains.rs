//! What is left of a VM with much memory goes to a thread of its own: to give pages back takes the system 0.4 µs for each,
//! 1.3 ms for 13 MB, in which a worker would serve nobody. Used by VMs that failed or are dropped.

use std::ops::{Deref, DerefMut};
use std::sync::mpsc::{self, SyncSender};
use std::{mem, thread};

use rustix::mm::Advice;
use wasmtime::{Memory, Store};

use crate::error::EngineError;
use crate::state::VmState;

/// Bytes of memory that are given back where the VM is dropped: some tenths of a millisecond.
const LITTLE: usize = 4 << 20;
/// Bytes of a piece of it.
const PIECE: usize = 256 << 10;
/// VMs that may wait; with more, workers give back what is theirs.
const MOST_WAITING: usize = 16;
/// How far the thread steps back behind the workers.
const NICENESS: i32 = 10;

/// The data of a VM's store: none only in what is left of a store, which nobody looks into.
pub(crate) struct Data(Option<VmState>);

impl Data {
    pub(crate) fn new(state: VmState) -> Data {
        Data(Some(state))
    }
}

impl Deref for Data {
    type Target = VmState;

    #[expect(clippy::expect_used, reason = "of what has none, nobody asks")]
    fn deref(&self) -> &VmState {
        self.0.as_ref().expect("a VM has its state")
    }
}

impl DerefMut for Data {
    #[expect(clippy::expect_used, reason = "of what has none, nobody asks")]
    fn deref_mut(&mut self) -> &mut VmState {
        self.0.as_mut().expect("a VM has its state")
    }
}

/// A store without its data, and the memory in it.
struct Remains {
    store: Store<Data>,
    memory: Option<Memory>,
}

impl Remains {
    /// Leaves the data behind, in a store with nothing else.
    fn of(store: &mut Store<Data>) -> Remains {
        let nothing = Store::new(store.engine(), Data(None));
        let mut left = mem::replace(store, nothing);
        let mut state = left.data_mut().0.take();
        let memory = state.as_mut().and_then(VmState::forget_instance);
        store.data_mut().0 = state;
        Remains { store: left, memory }
    }

    fn is_large(&self) -> bool {
        self.memory.is_some_and(|memory| memory.data_size(&self.store) > LITTLE)
    }

    /// Gives the pages back a few at a time: for as long as that takes, the system keeps others from changing the process's map of its
    /// memory, as each new VM does. When the store is dropped, nothing is left to give.
    fn clear(&self) {
        let Some(memory) = &self.memory else { return };
        let (start, size) = (memory.data_ptr(&self.store), memory.data_size(&self.store));
        for at in (0..size).step_by(PIECE) {
            let length = PIECE.min(size - at);
            #[expect(unsafe_code, reason = "wasmtime does the same, but all at once")]
            // SAFETY: whole pages of a private mapping that is the store's, for as long as it lives; its guest will not run again, and
            // nobody else looks into its memory.
            let given = unsafe { rustix::mm::madvise(start.add(at).cast(), length, Advice::LinuxDontNeed) };
            if given.is_err() {
                // Then it is all at once.
                return;
            }
        }
    }
}

#[expect(unsafe_code, reason = "a store with data that cannot be sent, whose data was taken out")]
// SAFETY: a store may be sent if its data may. Its data are of this thread, but `Remains::of`, which alone makes these, has taken them
// out, and nobody puts others in: what is left is `None`.
unsafe impl Send for Remains {}

/// The way to the thread, which ends with the last handle.
#[derive(Clone)]
pub(crate) struct Reaper(SyncSender<Remains>);

impl Reaper {
    pub(crate) fn new() -> Result<Reaper, EngineError> {
        let (sender, receiver) = mpsc::sync_channel::<Remains>(MOST_WAITING);
        let work = || {
            // So that it does not take the core of the worker that wakes it. Without the right to, it stays as it is.
            let _ = rustix::process::nice(NICENESS);
            receiver.into_iter().for_each(|remains| remains.clear());
        };
        thread::Builder::new()
            .name("wasm-remains".into())
            .spawn(work)
            .map_err(|error| EngineError(format!("the thread for what is left of VMs: {error}")))?;
        Ok(Reaper(sender))
    }

    /// Takes what there is in the store of a VM that failed: who still knows of it needs the data alone.
    pub(crate) fn take(&self, store: &mut Store<Data>) {
        let remains = Remains::of(store);
        if remains.is_large() {
            // Given back here if too many wait.
            let _ = self.0.try_send(remains);
        }
    }

    /// As [`Reaper::take`], of a VM that is dropped: nothing, if it has little memory.
    pub(crate) fn take_if_large(&self, store: &mut Store<Data>) {
        if store.data().memory.is_some_and(|memory| memory.data_size(&*store) > LITTLE) {
            self.take(store);
        }
    }
}
