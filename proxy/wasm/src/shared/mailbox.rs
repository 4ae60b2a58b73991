//! What one worker is to tell its plugins: which queues have something new in them.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, Weak};
use std::task::Waker;

use super::lock;
use super::queues::Queue;

/// The queues with something new for plugins of one worker, posted by any. Each is there once, however much is new in it.
#[derive(Debug, Default)]
pub(crate) struct Mailbox(Mutex<Letters>);

#[derive(Debug, Default)]
struct Letters {
    due: VecDeque<Letter>,
    /// For plugins that are not to run now.
    held: Vec<Letter>,
    /// The tokens of both.
    tokens: HashSet<u32>,
    waker: Option<Waker>,
}

/// A queue and its token, by which it is known even when it is gone.
type Letter = (u32, Weak<Queue>);

impl Mailbox {
    /// There is something new in this queue. Wakes the worker.
    pub(crate) fn post(&self, queue: &Arc<Queue>) {
        let mut letters = lock(&self.0);
        letters.add(queue);
        let waker = letters.waker.take();
        drop(letters);
        wake(waker);
    }

    /// There is more in a queue whose turn has been: it comes again after the others.
    pub(crate) fn put_back(&self, queue: &Arc<Queue>) {
        lock(&self.0).add(queue);
    }

    /// The queue's plugin is not to run now: its turn is after the next [`Mailbox::resume`].
    pub(crate) fn hold(&self, queue: &Arc<Queue>) {
        let mut letters = lock(&self.0);
        if letters.tokens.insert(queue.token()) {
            letters.held.push((queue.token(), Arc::downgrade(queue)));
        }
    }

    /// Wakes the worker, for something that is not in here.
    pub(crate) fn wake(&self) {
        let waker = lock(&self.0).waker.take();
        wake(waker);
    }

    /// Looks again at the queues that were held back.
    pub(crate) fn resume(&self) {
        let mut letters = lock(&self.0);
        if letters.held.is_empty() {
            return;
        }
        let held = std::mem::take(&mut letters.held);
        letters.due.extend(held);
        let waker = letters.waker.take();
        drop(letters);
        wake(waker);
    }

    /// Wakes this one, or none, for what comes from now on.
    pub(crate) fn listen(&self, waker: Option<&Waker>) {
        lock(&self.0).waker = waker.cloned();
    }

    /// The queue whose turn it is; none if there is nothing to tell now.
    pub(crate) fn take_next(&self) -> Option<Arc<Queue>> {
        let mut letters = lock(&self.0);
        loop {
            let (token, queue) = letters.due.pop_front()?;
            letters.tokens.remove(&token);
            if let Some(queue) = queue.upgrade() {
                return Some(queue);
            }
        }
    }

    /// Whether a queue waits for its turn.
    pub(crate) fn has_next(&self) -> bool {
        !lock(&self.0).due.is_empty()
    }
}

impl Letters {
    fn add(&mut self, queue: &Arc<Queue>) {
        if self.tokens.insert(queue.token()) {
            self.due.push_back((queue.token(), Arc::downgrade(queue)));
        }
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}
