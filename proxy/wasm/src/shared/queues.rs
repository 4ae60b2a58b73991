//! Shared queues: items that one plugin puts in and another, maybe on another worker, takes out.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, Weak};
use std::task::Waker;

use bytes::Bytes;

use super::lock;
use crate::ledger::Ledger;
use crate::limits::{Limit, Limits};
use crate::status::Status;

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
    /// The filter that made it, whose quota its items count for.
    owner: Arc<Ledger>,
    most_items: usize,
    most_bytes: usize,
    /// Who is told of new items: the plugin that registered last.
    mailbox: Weak<Mailbox>,
    plugin: u64,
}

/// Who registers a queue.
#[derive(Clone, Copy)]
pub(crate) struct Registrant<'a> {
    pub(crate) owner: &'a Arc<Ledger>,
    pub(crate) limits: &'a Limits,
    /// Of the plugin's worker.
    pub(crate) mailbox: &'a Arc<Mailbox>,
    /// The plugin's key.
    pub(crate) plugin: u64,
}

impl Queues {
    /// The queue of this name, made if there is none. Events go to the plugin on the worker of its mailbox from now
    /// on.
    pub(crate) fn register(&self, vm_id: &str, name: &[u8], by: &Registrant<'_>) -> Result<u32, Status> {
        let Registrant { owner, limits, mailbox, plugin } = *by;
        let mut registry = lock(&self.0);
        let key = (vm_id.to_owned(), name.to_owned());
        let mailbox = Arc::downgrade(mailbox);
        if let Some(token) = registry.tokens.get(&key).copied() {
            let queue = registry.queue(token)?;
            queue.mailbox = mailbox;
            queue.plugin = plugin;
            return Ok(token);
        }
        if registry.queues.len() >= MAX_QUEUES || !owner.queues.take(1, limits.queues as usize) {
            owner.count(Limit::Queues);
            return Err(Status::InternalFailure);
        }
        registry.queues.push(Queue {
            items: VecDeque::new(),
            owner: owner.clone(),
            most_items: limits.queue_items as usize,
            most_bytes: usize::try_from(limits.queue_bytes).unwrap_or(usize::MAX),
            mailbox,
            plugin,
        });
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
        if queue.items.len() >= queue.most_items {
            queue.owner.count(Limit::QueueItems);
            return Err(Status::InternalFailure);
        }
        if !queue.owner.queue_bytes.take(item.len(), queue.most_bytes) {
            queue.owner.count(Limit::QueueBytes);
            return Err(Status::InternalFailure);
        }
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
        queue.owner.queue_bytes.give_back(item.len());
        Ok(item)
    }

    /// Puts an item back that was just taken out. It had its place, so no limit stands in the way.
    pub(crate) fn put_back(&self, token: u32, item: Bytes) {
        if let Ok(queue) = lock(&self.0).queue(token) {
            let _ = queue.owner.queue_bytes.take(item.len(), usize::MAX);
            queue.items.push_front(item);
        }
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
    use crate::ledger::Ledgers;

    #[test]
    fn items_come_out_in_order_and_each_is_announced() {
        let queues = Queues::default();
        let (owner, mailbox) = (Ledgers::default().of("one"), Arc::new(Mailbox::default()));
        let limits = Limits::default();
        let by = |plugin| Registrant { owner: &owner, limits: &limits, mailbox: &mailbox, plugin };
        let token = queues.register("vm", b"q", &by(7)).unwrap();
        assert_ne!(token, 0);
        assert_eq!(queues.register("vm", b"q", &by(8)), Ok(token));
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
    fn an_item_put_back_is_the_first_again() {
        let queues = Queues::default();
        let (owner, mailbox) = (Ledgers::default().of("one"), Arc::default());
        let by = Registrant { owner: &owner, limits: &Limits::default(), mailbox: &mailbox, plugin: 1 };
        let token = queues.register("vm", b"q", &by).unwrap();
        for item in [b"1", b"2"] {
            queues.enqueue(token, item).unwrap();
        }
        let first = queues.dequeue(token).unwrap();
        queues.put_back(token, first);
        assert_eq!(owner.queue_bytes.used(), 2);
        assert_eq!([queues.dequeue(token).unwrap(), queues.dequeue(token).unwrap()], ["1", "2"]);
        assert_eq!((queues.dequeue(token), owner.queue_bytes.used()), (Err(Status::Empty), 0));
    }

    #[test]
    fn a_filters_queues_hold_no_more_than_its_quota() {
        let queues = Queues::default();
        let (owner, mailbox) = (Ledgers::default().of("one"), Arc::default());
        let limits = Limits { queues: 2, queue_items: 3, queue_bytes: 100, ..Limits::default() };
        let by = Registrant { owner: &owner, limits: &limits, mailbox: &mailbox, plugin: 1 };
        let one = queues.register("vm", b"1", &by).unwrap();
        let two = queues.register("vm", b"2", &by).unwrap();
        assert_eq!(queues.register("vm", b"3", &by), Err(Status::InternalFailure));
        assert_eq!(queues.register("vm", b"2", &by), Ok(two), "it is there already");
        for _ in 0..3 {
            queues.enqueue(one, b"").unwrap();
        }
        assert_eq!(queues.enqueue(one, b""), Err(Status::InternalFailure));
        queues.dequeue(one).unwrap();
        assert_eq!(queues.enqueue(one, &[0; 101]), Err(Status::InternalFailure));
        queues.enqueue(one, &[0; 60]).unwrap();
        assert_eq!(queues.enqueue(two, &[0; 60]), Err(Status::InternalFailure), "together");
        assert_eq!(queues.enqueue(two, &[0; 40]), Ok(()));
        let exceeded =
            [Limit::Queues, Limit::QueueItems, Limit::QueueBytes].map(|limit| owner.exceeded(limit));
        assert_eq!(exceeded, [1, 1, 2]);
    }
}
