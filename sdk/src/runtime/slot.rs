//! A place where a future waits for one value that a callback brings.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Shared by the future that waits and the table that the callback looks into.
pub(crate) struct Slot<T>(Rc<RefCell<State<T>>>);

enum State<T> {
    Empty,
    Waiting(Waker),
    Full(T),
}

impl<T> Slot<T> {
    pub(crate) fn new() -> Self {
        Self(Rc::new(RefCell::new(State::Empty)))
    }

    /// Another owner of the same place.
    pub(crate) fn share(&self) -> Self {
        Self(Rc::clone(&self.0))
    }

    pub(crate) fn fill(&self, value: T) {
        if let State::Waiting(waker) = self.0.replace(State::Full(value)) {
            waker.wake();
        }
    }

    pub(crate) fn poll(&self, context: &mut Context<'_>) -> Poll<T> {
        match self.0.replace(State::Waiting(context.waker().clone())) {
            State::Full(value) => {
                self.0.replace(State::Empty);
                Poll::Ready(value)
            }
            _ => Poll::Pending,
        }
    }
}
