//! One way of an exchange: what runs for it, and what the host was told.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::task::Poll;

use super::task::Task;
use crate::body::{Arrived, Wants};
use crate::error::Outcome;
use crate::host::{self, Direction};

/// The callback whose task is under way, or was the last one.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) enum Stage {
    #[default]
    Head,
    Body,
    Trailers,
}

/// The request or the response.
#[derive(Default)]
pub(crate) struct Half {
    pub(crate) stage: Cell<Stage>,
    /// What waits.
    task: RefCell<Option<Task>>,
    /// The host was told to wait.
    held: Cell<bool>,
    /// A body or trailers follow the head.
    pub(crate) has_more: Cell<bool>,
    /// There is a body, and a callback for it.
    pub(crate) body: OnceCell<Rc<Arrived>>,
    /// Trailers have arrived while something else was under way.
    pub(crate) trailers_due: Cell<bool>,
}

impl Half {
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
    pub(crate) fn hold(&self) -> u32 {
        self.held.set(true);
        host::PAUSE
    }

    /// What the host is told when a callback returns and lets go what has arrived.
    pub(crate) fn pass(&self) -> u32 {
        self.held.set(false);
        if let Some(body) = self.body.get() {
            body.released();
        }
        host::CONTINUE
    }

    /// What the host is told when a callback for the body returns while its task waits: what the filter has seen may go
    /// on if it waits for the next part.
    pub(crate) fn hold_body(&self) -> u32 {
        if self.wants() == Wants::Next { self.pass() } else { self.hold() }
    }

    /// A task has gone on outside of a callback for this way: lets go what the host holds, if it may.
    pub(crate) fn let_go(&self, direction: Direction, callback: &str) {
        if self.held.get() {
            self.pass();
            if let Err(status) = host::resume(direction) {
                crate::log::line(
                    crate::log::Level::Error,
                    &format!("{callback}: the host does not resume: {status}"),
                );
            }
        }
    }

    pub(crate) fn wants(&self) -> Wants {
        self.body.get().map_or(Wants::Nothing, |body| body.wants())
    }
}
