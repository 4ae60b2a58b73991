//! Contexts that are not done yet: their `proxy_on_done` returned false, so they stay until the guest calls
//! `proxy_done`, but not for ever.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use crate::contexts::Entry;
use crate::limits::Limit;
use crate::vm::Vm;

/// The contexts of one worker that wait for their end.
#[derive(Default)]
pub(crate) struct Waiting {
    endings: RefCell<Vec<Ending>>,
    /// Who waits until nothing does any more.
    waker: Cell<Option<Waker>>,
}

struct Ending {
    until: Instant,
    vm: Rc<Vm>,
    entry: Entry,
}

impl Waiting {
    pub(crate) fn add(&self, vm: &Rc<Vm>, entry: &Entry) {
        self.push(vm, entry, Instant::now() + entry.root().core.spec.limits.done);
    }

    /// For a context that could not be ended where it was dropped; ended at the next sweep.
    pub(crate) fn add_overdue(&self, vm: &Rc<Vm>, entry: &Entry) {
        self.push(vm, entry, Instant::now());
    }

    fn push(&self, vm: &Rc<Vm>, entry: &Entry, until: Instant) {
        self.endings.borrow_mut().push(Ending { until, vm: vm.clone(), entry: entry.clone() });
    }

    /// The context ended by itself.
    pub(crate) fn forget(&self, vm: &Vm, id: u32) {
        let mut endings = self.endings.borrow_mut();
        let position =
            endings.iter().position(|ending| std::ptr::eq(&*ending.vm, vm) && ending.entry.id() == id);
        let ended = position.map(|position| endings.swap_remove(position));
        drop(endings);
        drop(ended);
        self.wake();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.endings.borrow().is_empty()
    }

    /// Ready once nothing waits.
    pub(crate) fn poll_empty(&self, task: &mut Context<'_>) -> Poll<()> {
        if self.is_empty() {
            return Poll::Ready(());
        }
        self.waker.set(Some(task.waker().clone()));
        Poll::Pending
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Ends those whose time is up, and those whose VM failed.
    pub(crate) fn sweep(&self, now: Instant) {
        // Those before `at` are not due: looked at once each, however many there are.
        let mut at = 0;
        loop {
            let mut endings = self.endings.borrow_mut();
            let due = |ending: &Ending| ending.until <= now || ending.vm.is_poisoned();
            let Some(next) = endings.iter().skip(at).position(due) else { return };
            at += next;
            let ending = endings.swap_remove(at);
            drop(endings);
            if ending.entry.is_pending() && !ending.vm.is_poisoned() {
                ending.entry.root().core.exceeded(Limit::Done);
            }
            ending.vm.close(&ending.entry);
            self.wake();
        }
    }
}
