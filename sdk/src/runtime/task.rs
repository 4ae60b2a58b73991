//! Futures that wait: who polls them again, and when.
//!
//! There is one thread and no run loop of our own: whatever is waited for ends in a callback of the host. What a callback
//! wakes is noted in a list, and before the callback returns, the plugin polls what is its own of it.

use std::cell::RefCell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use crate::error::{Outcome, Stop};
use crate::host::Direction;

thread_local! {
    static WOKEN: RefCell<Vec<Wakeup>> = const { RefCell::new(Vec::new()) };
}

/// Which task is meant: one way of a stream context, or (with `Request`) a root context's own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Wakeup {
    pub(crate) plugin: u32,
    pub(crate) context: u32,
    pub(crate) direction: Direction,
}

impl Wake for Wakeup {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        WOKEN.with_borrow_mut(|woken| {
            if !woken.contains(self) {
                woken.push(**self);
            }
        });
    }
}

/// The plugin's task that was woken last, of those that were not polled since. A host lets no plugin act for another, so
/// another's tasks wait for a callback of its own.
pub(crate) fn next_woken(plugin: u32) -> Option<Wakeup> {
    WOKEN.with_borrow_mut(|woken| {
        let position = woken.iter().rposition(|wakeup| wakeup.plugin == plugin)?;
        Some(woken.remove(position))
    })
}

/// A future that waits, with what wakes it.
pub(crate) struct Task {
    future: Pin<Box<dyn Future<Output = Outcome>>>,
    waker: Waker,
}

impl Task {
    pub(crate) fn new(wakeup: Wakeup, future: impl Future<Output = Outcome> + 'static) -> Self {
        Self { future: Box::pin(future), waker: Waker::from(Arc::new(wakeup)) }
    }

    pub(crate) fn poll(&mut self) -> Poll<Outcome> {
        self.future.as_mut().poll(&mut Context::from_waker(&self.waker))
    }
}

/// The outcome of a callback that waits for nothing: it is run where it stands, without an allocation.
pub(crate) fn now(future: impl Future<Output = Outcome>) -> Outcome {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => outcome,
        // `#[filter]` found no `.await` in it.
        Poll::Pending => Err(Stop::failed("it waits without `.await`")),
    }
}

/// Whether a list of callbacks has this one. Evaluated by the compiler.
pub(crate) const fn has(list: &[&str], name: &str) -> bool {
    let mut index = 0;
    while index < list.len() {
        if equal(list[index].as_bytes(), name.as_bytes()) {
            return true;
        }
        index += 1;
    }
    false
}

const fn equal(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    let mut index = 0;
    while index < one.len() {
        if one[index] != other[index] {
            return false;
        }
        index += 1;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_lists() {
        const { assert!(has(&["request_body", "log"], "log")) };
        assert!(!has(&["request_body"], "request") && !has(&[], "log"));
    }

    #[test]
    fn what_was_woken_is_polled_once() {
        let wakeup = Arc::new(Wakeup { plugin: 2, context: 3, direction: Direction::Response });
        let waker = Waker::from(Arc::clone(&wakeup));
        waker.wake_by_ref();
        waker.wake();
        assert_eq!(next_woken(1), None);
        assert_eq!(next_woken(2), Some(*wakeup));
        assert_eq!(next_woken(2), None);
    }
}
