//! Shared queues: items that one plugin puts in and another, maybe on another worker, takes out.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, Weak};
use std::task::Waker;

use bytes::Bytes;

use super::lock;
use crate::status::Status;

/// Items in a queue.
const MAX_ITEMS: usize = 1_000;
/// Bytes in a queue.
const MAX_BYTES: usize = 8 << 20;
/// Queues of the process.
const MAX_QUEUES: usize = 1_000;
/// Events that wait for a worker.
const MAX_EVENTS: usize = 100_000;

/// All queues. Few calls per request at most, so one lock.
#[derive(Debug, Default)]
pub(crate) struct Queues(Mutex<Registry>);

#[derive(Debug, Default)]
struct Registry {
    tokens: HashMap<(String, Vec<u8>), u32>,
    /// By token - 1.
    queues: Vec<Queue>,
}

#[derive(Debug)]
struct Queue {
    items: VecDeque<Bytes>,
    bytes: usize,
    /// Who is told of new items: the plugin that registered last.
    mailbox: Weak<Mailbox>,
    plugin: u64,
}

impl Queues {
    /// The queue of this name, made if there is none. Events go to `plugin` on the worker of `mailbox` from now
    /// on.
    pub(crate) fn register(
        &self,
        vm_id: &str,
        name: &[u8],
        mailbox: &Arc<Mailbox>,
        plugin: u64,
    ) -> Result<u32, Status> {
        let mut registry = lock(&self.0);
        let key = (vm_id.to_owned(), name.to_owned());
        let mailbox = Arc::downgrade(mailbox);
        if let Some(token) = registry.tokens.get(&key).copied() {
            let queue = registry.queue(token)?;
            queue.mailbox = mailbox;
            queue.plugin = plugin;
            return Ok(token);
        }
        if registry.queues.len() >= MAX_QUEUES {
            return Err(Status::InternalFailure);
        }
        registry.queues.push(Queue { items: VecDeque::new(), bytes: 0, mailbox, plugin });
        let token = registry.queues.len() as u32;
        registry.tokens.insert(key, token);
        Ok(token)
    }

    /// The token of a registered queue.
    pub(crate) fn resolve(&self, vm_id: &str, name: &[u8]) -> Result<u32, Status> {
        let key = (vm_id.to_owned(), name.to_owned());
        lock(&self.0).tokens.get(&key).copied().ok_or(Status::NotFound)
    }

    /// Puts an item in and tells the registered plugin.
    pub(crate) fn enqueue(&self, token: u32, item: &[u8]) -> Result<(), Status> {
        let mut registry = lock(&self.0);
        let queue = registry.queue(token)?;
        if queue.items.len() >= MAX_ITEMS || queue.bytes + item.len() > MAX_BYTES {
            return Err(Status::InternalFailure);
        }
        queue.bytes += item.len();
        queue.items.push_back(Bytes::copy_from_slice(item));
        let (mailbox, plugin) = (queue.mailbox.upgrade(), queue.plugin);
        drop(registry);
        if let Some(mailbox) = mailbox {
            mailbox.post(QueueEvent { plugin, queue: token });
        }
        Ok(())
    }

    /// Takes the oldest item out.
    pub(crate) fn dequeue(&self, token: u32) -> Result<Bytes, Status> {
        let mut registry = lock(&self.0);
        let queue = registry.queue(token)?;
        let item = queue.items.pop_front().ok_or(Status::Empty)?;
        queue.bytes -= item.len();
        Ok(item)
    }
}

impl Registry {
    fn queue(&mut self, token: u32) -> Result<&mut Queue, Status> {
        let index = (token as usize).checked_sub(1).ok_or(Status::NotFound)?;
        self.queues.get_mut(index).ok_or(Status::NotFound)
    }
}

/// A queue has a new item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct QueueEvent {
    /// The key of the plugin to tell.
    pub(crate) plugin: u64,
    pub(crate) queue: u32,
}

/// Events for one worker, posted by any.
#[derive(Debug, Default)]
pub(crate) struct Mailbox(Mutex<(Vec<QueueEvent>, Option<Waker>)>);

impl Mailbox {
    fn post(&self, event: QueueEvent) {
        let mut mailbox = lock(&self.0);
        // A worker that does not look gets no more: the items stay in their queues.
        if mailbox.0.len() < MAX_EVENTS {
            mailbox.0.push(event);
        }
        let waker = mailbox.1.take();
        drop(mailbox);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The events since the last time; wakes for the next.
    pub(crate) fn take(&self, waker: &Waker) -> Vec<QueueEvent> {
        let mut mailbox = lock(&self.0);
        mailbox.1 = Some(waker.clone());
        std::mem::take(&mut mailbox.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_come_out_in_order_and_each_is_announced() {
        let queues = Queues::default();
        let mailbox = Arc::new(Mailbox::default());
        let token = queues.register("vm", b"q", &mailbox, 7).unwrap();
        assert_ne!(token, 0);
        assert_eq!(queues.register("vm", b"q", &mailbox, 8), Ok(token));
        assert_eq!(queues.resolve("vm", b"q"), Ok(token));
        assert_eq!(queues.resolve("other", b"q"), Err(Status::NotFound));
        assert_eq!(queues.dequeue(token), Err(Status::Empty));
        assert_eq!(queues.dequeue(0), Err(Status::NotFound));
        assert_eq!(queues.enqueue(token + 1, b"x"), Err(Status::NotFound));
        queues.enqueue(token, b"1").unwrap();
        queues.enqueue(token, b"2").unwrap();
        let event = QueueEvent { plugin: 8, queue: token };
        assert_eq!(mailbox.take(Waker::noop()), [event, event]);
        assert_eq!(mailbox.take(Waker::noop()), []);
        assert_eq!(
            (queues.dequeue(token).unwrap(), queues.dequeue(token).unwrap()),
            ("1".into(), "2".into())
        );
    }

    #[test]
    fn a_full_queue_takes_no_more() {
        let queues = Queues::default();
        let token = queues.register("vm", b"q", &Arc::default(), 1).unwrap();
        for _ in 0..MAX_ITEMS {
            queues.enqueue(token, b"").unwrap();
        }
        assert_eq!(queues.enqueue(token, b""), Err(Status::InternalFailure));
        queues.dequeue(token).unwrap();
        assert_eq!(queues.enqueue(token, &vec![0; MAX_BYTES + 1]), Err(Status::InternalFailure));
        assert_eq!(queues.enqueue(token, b""), Ok(()));
    }
}
