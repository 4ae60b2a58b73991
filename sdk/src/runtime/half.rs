//! One way of an exchange or a connection: what runs for it, and what the host was told.

use std::cell::{Cell, RefCell};
use std::task::Poll;

use super::task::Task;
use crate::body::{Arrived, Wants};
use crate::error::Outcome;
use crate::host::Action;

/// The callback whose task is under way, or was the last one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    Head,
    Body,
    Trailers,
}

/// The request or the response; of a connection, what comes from the client or from the endpoint.
pub(crate) struct Half {
    pub(crate) stage: Cell<Stage>,
    /// What waits.
    task: RefCell<Option<Task>>,
    /// The host was told to wait.
    held: Cell<bool>,
    /// A body or trailers follow the head.
    pub(crate) has_more: Cell<bool>,
    /// The callback for the body has run.
    pub(crate) has_begun: Cell<bool>,
    pub(crate) body: Arrived,
    /// Trailers have arrived while something else was under way.
    pub(crate) trailers_due: Cell<bool>,
}

impl Half {
    pub(crate) const fn new() -> Self {
        Self {
            stage: Cell::new(Stage::Head),
            task: RefCell::new(None),
            held: Cell::new(false),
            has_more: Cell::new(false),
            has_begun: Cell::new(false),
            body: Arrived::new(),
            trailers_due: Cell::new(false),
        }
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.task.borrow().is_some()
    }

    /// Runs a task until it waits, and keeps it then.
    pub(crate) fn start(&self, task: Task) -> Poll<Outcome> {
        self.task.replace(Some(task));
        self.poll()
    }

    /// Runs the task that waits, if there is one.
    pub(crate) fn poll(&self) -> Poll<Outcome> {
        let Some(mut task) = self.task.take() else { return Poll::Pending };
        let outcome = task.poll();
        if outcome.is_pending() {
            self.task.replace(Some(task));
        }
        outcome
    }

    /// Nobody is interested any more: what waits is dropped where it stands.
    pub(crate) fn cancel(&self) {
        drop(self.task.take());
    }

    /// What the host is told when a callback for a head or trailers returns while its task waits.
    pub(crate) fn hold(&self) -> Action {
        self.held.set(true);
        Action::Pause
    }

    /// What the host is told when a callback returns and lets go what has arrived.
    pub(crate) fn pass(&self) -> Action {
        self.held.set(false);
        self.body.released();
        Action::Continue
    }

    /// What the host is told when a callback for the body returns while its task waits: what the filter has seen may go
    /// on if it waits for the next part.
    pub(crate) fn hold_body(&self) -> Action {
        if self.wants() == Wants::Next { self.pass() } else { self.hold() }
    }

    /// A task has gone on outside of a callback for this way, and may let go what the host holds: whether it holds something.
    pub(crate) fn take_held(&self) -> bool {
        let held = self.held.get();
        if held {
            self.pass();
        }
        held
    }

    pub(crate) fn wants(&self) -> Wants {
        self.body.wants()
    }
}
