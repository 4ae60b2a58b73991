//! Shared queues: items that one plugin puts in and another, maybe on another worker, takes out.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use bytes::Bytes;

use super::{Mailbox, Shared, lock};
use crate::ledger::Ledger;
use crate::limits::{Limit, Limits};
use crate::status::Status;

/// Queues of the process.
const MAX_QUEUES: usize = 1_000;
/// Bytes of a queue's name, and of a VM's id that a guest asks for: more than a configuration may give one.
const MAX_NAME: usize = 256;

/// All queues, by name. Locked to register and to find one; what is in a queue has a lock of its own.
#[derive(Debug, Default)]
pub(crate) struct Queues(Mutex<Registry>);

#[derive(Debug, Default)]
struct Registry {
    queues: HashMap<Key, Registered>,
    /// The last token. None is given twice: who still has one of a queue that is gone must not meet another queue.
    token: u32,
    /// How many plugins there are of a filter, by its ledger's address.
    tenants: HashMap<usize, usize>,
}

/// The VM's id and the name.
type Key = (String, Box<[u8]>);

#[derive(Debug)]
struct Registered {
    queue: Arc<Queue>,
    /// The filters that have registered it. It is let go with the last plugin of the last of them.
    by: Vec<Arc<Ledger>>,
}

/// A queue. Gone, with its items, when no filter is left that registered it.
#[derive(Debug)]
pub(crate) struct Queue {
    token: u32,
    /// The filter that made it, whose quota it counts for, and its items.
    owner: Arc<Ledger>,
    most_items: usize,
    most_bytes: usize,
    content: Mutex<Content>,
}

#[derive(Debug, Default)]
struct Content {
    items: VecDeque<Bytes>,
    /// How many of them the plugin has not been told of; more, if some were taken out before it was.
    news: usize,
    /// It is in the mailbox.
    posted: bool,
    /// Who is told of new items: the plugin that registered last, on the worker of its mailbox.
    plugin: u64,
    mailbox: Weak<Mailbox>,
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
    /// The queue of this name, made if there is none. The plugin is told of new items from now on, on the worker of its
    /// mailbox.
    pub(crate) fn register(
        &self,
        vm_id: &str,
        name: &[u8],
        by: &Registrant<'_>,
    ) -> Result<Arc<Queue>, Status> {
        if name.len() > MAX_NAME {
            return Err(Status::BadArgument);
        }
        let key = key(vm_id, name);
        let mut registry = lock(&self.0);
        let known = registry.queues.get_mut(&key).map(|known| known.join(by.owner));
        let queue = match known {
            Some(queue) => queue,
            None => registry.make(key, by)?,
        };
        drop(registry);
        queue.announce_to(by);
        Ok(queue)
    }

    /// A queue that is registered.
    pub(crate) fn resolve(&self, vm_id: &str, name: &[u8]) -> Result<Arc<Queue>, Status> {
        if vm_id.len().max(name.len()) > MAX_NAME {
            return Err(Status::NotFound);
        }
        let key = key(vm_id, name);
        lock(&self.0).queues.get(&key).map(|known| known.queue.clone()).ok_or(Status::NotFound)
    }

    fn enter(&self, owner: &Arc<Ledger>) {
        *lock(&self.0).tenants.entry(address(owner)).or_default() += 1;
    }

    fn leave(&self, owner: &Arc<Ledger>) {
        let gone = lock(&self.0).leave(owner);
        // Their items may be many: let go while nobody waits for the lock.
        drop(gone);
    }
}

fn key(vm_id: &str, name: &[u8]) -> Key {
    (vm_id.to_owned(), name.into())
}

fn address(owner: &Arc<Ledger>) -> usize {
    Arc::as_ptr(owner).addr()
}

impl Registry {
    fn make(&mut self, key: Key, by: &Registrant<'_>) -> Result<Arc<Queue>, Status> {
        let token = self.token.checked_add(1).filter(|_| self.queues.len() < MAX_QUEUES);
        let Some(token) = token.filter(|_| by.owner.queues.take(1, by.limits.queues as usize)) else {
            by.owner.count(Limit::Queues);
            return Err(Status::InternalFailure);
        };
        self.token = token;
        let queue = Arc::new(Queue {
            token,
            owner: by.owner.clone(),
            most_items: by.limits.queue_items as usize,
            most_bytes: usize::try_from(by.limits.queue_bytes).unwrap_or(usize::MAX),
            content: Mutex::default(),
        });
        self.queues.insert(key, Registered { queue: queue.clone(), by: vec![by.owner.clone()] });
        Ok(queue)
    }

    /// A plugin of this filter has ended. The queues that nobody has registered any more.
    fn leave(&mut self, owner: &Arc<Ledger>) -> Vec<Registered> {
        let left = self.tenants.get_mut(&address(owner)).map(|plugins| {
            *plugins = plugins.saturating_sub(1);
            *plugins
        });
        if left.is_some_and(|plugins| plugins > 0) {
            return Vec::new();
        }
        self.tenants.remove(&address(owner));
        let gone = self.queues.extract_if(|_, registered| registered.leave(owner));
        gone.map(|(_, registered)| registered).collect()
    }
}

impl Registered {
    /// This filter registers it, maybe once more.
    fn join(&mut self, owner: &Arc<Ledger>) -> Arc<Queue> {
        if !self.by.iter().any(|by| Arc::ptr_eq(by, owner)) {
            self.by.push(owner.clone());
        }
        self.queue.clone()
    }

    /// This filter has no plugin any more. Whether nobody is left.
    fn leave(&mut self, owner: &Arc<Ledger>) -> bool {
        self.by.retain(|by| !Arc::ptr_eq(by, owner));
        self.by.is_empty()
    }
}

impl Queue {
    /// By which guests know it.
    pub(crate) fn token(&self) -> u32 {
        self.token
    }

    /// The plugin is the one to tell from now on, also of what nobody has been told of so far.
    fn announce_to(self: &Arc<Self>, by: &Registrant<'_>) {
        let mut content = lock(&self.content);
        content.plugin = by.plugin;
        if !content.is_announced_in(by.mailbox) {
            content.mailbox = Arc::downgrade(by.mailbox);
            // It may be in the mailbox of another worker, which finds nobody to tell.
            content.posted = false;
        }
        self.announce(content);
    }

    /// Has the plugin told of what is new, unless it is to be told already.
    fn announce(self: &Arc<Self>, mut content: MutexGuard<'_, Content>) {
        if content.posted || content.news == 0 {
            return;
        }
        let Some(mailbox) = content.mailbox.upgrade() else { return };
        content.posted = true;
        drop(content);
        mailbox.post(self);
    }

    /// Puts an item in and has the registered plugin told.
    pub(crate) fn enqueue(self: &Arc<Self>, item: &[u8]) -> Result<(), Status> {
        if !self.owner.queue_bytes.take(item.len(), self.most_bytes) {
            self.owner.count(Limit::QueueBytes);
            return Err(Status::InternalFailure);
        }
        // Copied before others have to wait for it.
        let item = Bytes::copy_from_slice(item);
        let mut content = lock(&self.content);
        if content.items.len() >= self.most_items {
            drop(content);
            self.owner.queue_bytes.give_back(item.len());
            self.owner.count(Limit::QueueItems);
            return Err(Status::InternalFailure);
        }
        content.items.push_back(item);
        // One for each item, and not one for each that has ever been put in.
        content.news = content.items.len().min(content.news.saturating_add(1));
        self.announce(content);
        Ok(())
    }

    /// Takes the oldest item out.
    pub(crate) fn dequeue(&self) -> Result<Bytes, Status> {
        let item = lock(&self.content).items.pop_front().ok_or(Status::Empty)?;
        self.owner.queue_bytes.give_back(item.len());
        Ok(item)
    }

    /// Puts an item back that was just taken out. It had its place, so no limit stands in the way.
    pub(crate) fn put_back(&self, item: Bytes) {
        let _ = self.owner.queue_bytes.take(item.len(), usize::MAX);
        lock(&self.content).items.push_front(item);
    }

    /// The key of the plugin to tell, when the queue's turn has come in this mailbox. None if what was new has been taken
    /// out meanwhile, or if somebody else is the one to tell.
    pub(crate) fn listener(&self, mailbox: &Arc<Mailbox>) -> Option<u64> {
        let mut content = lock(&self.content);
        if !content.is_announced_in(mailbox) {
            return None;
        }
        content.posted = content.has_news();
        content.posted.then_some(content.plugin)
    }

    /// The plugin is told of one new item. Whether there is another one to tell it of, so that the queue is to be put
    /// back.
    pub(crate) fn told(&self, mailbox: &Arc<Mailbox>) -> bool {
        let mut content = lock(&self.content);
        if !content.is_announced_in(mailbox) {
            return false;
        }
        content.news = content.news.saturating_sub(1);
        content.posted = content.has_news();
        content.posted
    }

    /// The plugin cannot be told. What is new is told with the next item, or when the queue is registered again.
    pub(crate) fn untold(&self, mailbox: &Arc<Mailbox>) {
        let mut content = lock(&self.content);
        if content.is_announced_in(mailbox) {
            content.posted = false;
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        let bytes: usize = lock(&self.content).items.iter().map(Bytes::len).sum();
        self.owner.queue_bytes.give_back(bytes);
        self.owner.queues.give_back(1);
    }
}

impl Content {
    fn is_announced_in(&self, mailbox: &Arc<Mailbox>) -> bool {
        std::ptr::eq(self.mailbox.as_ptr(), Arc::as_ptr(mailbox))
    }

    /// Whether something is new that was not taken out meanwhile.
    fn has_news(&mut self) -> bool {
        self.news = self.news.min(self.items.len());
        self.news > 0
    }
}

/// A plugin, from before it starts until it has ended: for as long the queues stay that its filter has registered.
#[derive(Debug)]
pub(crate) struct Tenant {
    shared: Arc<Shared>,
    owner: Arc<Ledger>,
}

impl Tenant {
    pub(crate) fn new(shared: &Arc<Shared>, owner: &Arc<Ledger>) -> Tenant {
        shared.queues().enter(owner);
        Tenant { shared: shared.clone(), owner: owner.clone() }
    }
}

impl Drop for Tenant {
    fn drop(&mut self) {
        self.shared.queues().leave(&self.owner);
    }
}

/// The queues that a VM has registered or found. Tokens are small numbers, and the process's: a guest that tries them out
/// reaches only these.
#[derive(Debug, Default)]
pub(crate) struct KnownQueues(HashMap<u32, Known>);

#[derive(Debug)]
struct Known {
    queue: Weak<Queue>,
    /// It is of the VM's own id.
    own: bool,
}

impl KnownQueues {
    /// The VM may use this queue from now on. Only if it is of its own id, it may take something out.
    pub(crate) fn learn(&mut self, queue: &Arc<Queue>, own: bool) {
        // At most half of so many can still be there.
        if self.0.len() >= 2 * MAX_QUEUES {
            self.0.retain(|_, known| known.queue.strong_count() > 0);
        }
        self.0.insert(queue.token, Known { queue: Arc::downgrade(queue), own });
    }

    /// To put something in.
    pub(crate) fn find(&self, token: u32) -> Result<Arc<Queue>, Status> {
        self.0.get(&token).and_then(|known| known.queue.upgrade()).ok_or(Status::NotFound)
    }

    /// To take something out.
    pub(crate) fn find_own(&self, token: u32) -> Result<Arc<Queue>, Status> {
        let known = self.0.get(&token).filter(|known| known.own);
        known.and_then(|known| known.queue.upgrade()).ok_or(Status::NotFound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Ledgers;

    /// Tells plugins of what is new, as the worker of this mailbox does: their keys and the queues' tokens.
    fn tell(mailbox: &Arc<Mailbox>) -> Vec<(u64, u32)> {
        let mut told = Vec::new();
        while let Some(queue) = mailbox.take_next() {
            let Some(plugin) = queue.listener(mailbox) else { continue };
            if queue.told(mailbox) {
                mailbox.put_back(&queue);
            }
            told.push((plugin, queue.token()));
        }
        told
    }

    #[test]
    fn items_come_out_in_order_and_each_is_announced() {
        let queues = Queues::default();
        let (owner, mailbox) = (Ledgers::default().of("one"), Arc::default());
        let limits = Limits::default();
        let by = |plugin| Registrant { owner: &owner, limits: &limits, mailbox: &mailbox, plugin };
        let queue = queues.register("vm", b"q", &by(7)).unwrap();
        assert_ne!(queue.token(), 0);
        let again = queues.register("vm", b"q", &by(8)).unwrap();
        let found = queues.resolve("vm", b"q").unwrap();
        assert!(Arc::ptr_eq(&queue, &again) && Arc::ptr_eq(&queue, &found));
        assert_eq!(queues.resolve("other", b"q").map(drop), Err(Status::NotFound));
        assert_eq!(queue.dequeue(), Err(Status::Empty));
        queue.enqueue(b"1").unwrap();
        queue.enqueue(b"2").unwrap();
        assert_eq!(tell(&mailbox), [(8, queue.token()); 2]);
        assert!(tell(&mailbox).is_empty());
        assert_eq!([queue.dequeue().unwrap(), queue.dequeue().unwrap()], ["1", "2"]);
    }

    #[test]
    fn what_was_taken_out_is_not_announced() {
        let queues = Queues::default();
        let (owner, mailbox) = (Ledgers::default().of("one"), Arc::default());
        let by = Registrant { owner: &owner, limits: &Limits::default(), mailbox: &mailbox, plugin: 1 };
        let queue = queues.register("vm", b"q", &by).unwrap();
        for _ in 0..10_000 {
            queue.enqueue(b"x").unwrap();
            queue.dequeue().unwrap();
        }
        assert!(tell(&mailbox).is_empty());
        for _ in 0..3 {
            queue.enqueue(b"x").unwrap();
        }
        queue.dequeue().unwrap();
        assert_eq!(tell(&mailbox), [(1, queue.token()); 2], "one for each that is there");
        queue.enqueue(b"x").unwrap();
        assert_eq!(tell(&mailbox), [(1, queue.token())], "whatever else is there");
    }

    #[test]
    fn queues_take_turns() {
        let queues = Queues::default();
        let (owner, mailbox) = (Ledgers::default().of("one"), Arc::default());
        let by = Registrant { owner: &owner, limits: &Limits::default(), mailbox: &mailbox, plugin: 1 };
        let [one, two] = [b"1", b"2"].map(|name| queues.register("vm", name, &by).unwrap());
        for _ in 0..3 {
            one.enqueue(b"x").unwrap();
        }
        two.enqueue(b"x").unwrap();
        let tokens: Vec<_> = tell(&mailbox).into_iter().map(|(_, token)| token).collect();
        assert_eq!(tokens, [one.token(), two.token(), one.token(), one.token()]);
    }

    #[test]
    fn who_registers_anew_is_told_of_what_nobody_was_told_of() {
        let queues = Queues::default();
        let owner = Ledgers::default().of("one");
        let mailboxes: [Arc<Mailbox>; 2] = [Arc::default(), Arc::default()];
        let limits = Limits::default();
        let by = |at: usize| Registrant {
            owner: &owner,
            limits: &limits,
            mailbox: &mailboxes[at],
            plugin: at as u64,
        };
        let queue = queues.register("vm", b"q", &by(0)).unwrap();
        queue.enqueue(b"x").unwrap();
        queues.register("vm", b"q", &by(1)).unwrap();
        assert_eq!((tell(&mailboxes[0]), tell(&mailboxes[1])), (vec![], vec![(1, queue.token())]));
        queues.register("vm", b"q", &by(0)).unwrap();
        assert!(tell(&mailboxes[0]).is_empty(), "once");
        // Its plugin cannot be told: it is when it registers the queue again.
        queue.enqueue(b"y").unwrap();
        let due = mailboxes[0].take_next().unwrap();
        assert_eq!(due.listener(&mailboxes[0]), Some(0));
        due.untold(&mailboxes[0]);
        assert!(!mailboxes[0].has_next());
        queues.register("vm", b"q", &by(0)).unwrap();
        assert_eq!(tell(&mailboxes[0]), [(0, queue.token())]);
    }

    #[test]
    fn what_is_held_back_waits_until_it_is_looked_at_again() {
        let queues = Queues::default();
        let (owner, mailbox) = (Ledgers::default().of("one"), Arc::default());
        let by = Registrant { owner: &owner, limits: &Limits::default(), mailbox: &mailbox, plugin: 1 };
        let queue = queues.register("vm", b"q", &by).unwrap();
        queue.enqueue(b"x").unwrap();
        mailbox.hold(&mailbox.take_next().unwrap());
        queue.enqueue(b"y").unwrap();
        assert!(!mailbox.has_next());
        mailbox.resume();
        assert_eq!(tell(&mailbox), [(1, queue.token()); 2]);
    }

    #[test]
    fn an_item_put_back_is_the_first_again() {
        let queues = Queues::default();
        let (owner, mailbox) = (Ledgers::default().of("one"), Arc::default());
        let by = Registrant { owner: &owner, limits: &Limits::default(), mailbox: &mailbox, plugin: 1 };
        let queue = queues.register("vm", b"q", &by).unwrap();
        for item in [b"1", b"2"] {
            queue.enqueue(item).unwrap();
        }
        let first = queue.dequeue().unwrap();
        queue.put_back(first);
        assert_eq!(owner.queue_bytes.used(), 2);
        assert_eq!([queue.dequeue().unwrap(), queue.dequeue().unwrap()], ["1", "2"]);
        assert_eq!((queue.dequeue(), owner.queue_bytes.used()), (Err(Status::Empty), 0));
    }

    #[test]
    fn a_filters_queues_hold_no_more_than_its_quota() {
        let queues = Queues::default();
        let (owner, mailbox) = (Ledgers::default().of("one"), Arc::default());
        let limits = Limits { queues: 2, queue_items: 3, queue_bytes: 100, ..Limits::default() };
        let by = Registrant { owner: &owner, limits: &limits, mailbox: &mailbox, plugin: 1 };
        let one = queues.register("vm", b"1", &by).unwrap();
        let two = queues.register("vm", b"2", &by).unwrap();
        assert_eq!(queues.register("vm", b"3", &by).map(drop), Err(Status::InternalFailure));
        assert!(Arc::ptr_eq(&queues.register("vm", b"2", &by).unwrap(), &two), "it is there already");
        for _ in 0..3 {
            one.enqueue(b"").unwrap();
        }
        assert_eq!(one.enqueue(b""), Err(Status::InternalFailure));
        one.dequeue().unwrap();
        assert_eq!(one.enqueue(&[0; 101]), Err(Status::InternalFailure));
        one.enqueue(&[0; 60]).unwrap();
        assert_eq!(one.enqueue(&[0; 40]), Err(Status::InternalFailure));
        assert_eq!(owner.queue_bytes.used(), 60, "what did not go in takes nothing");
        assert_eq!(two.enqueue(&[0; 60]), Err(Status::InternalFailure), "together");
        assert_eq!(two.enqueue(&[0; 40]), Ok(()));
        let exceeded =
            [Limit::Queues, Limit::QueueItems, Limit::QueueBytes].map(|limit| owner.exceeded(limit));
        assert_eq!(exceeded, [1, 2, 2]);
    }

    #[test]
    fn names_have_an_end() {
        let queues = Queues::default();
        let (owner, mailbox) = (Ledgers::default().of("one"), Arc::default());
        let by = Registrant { owner: &owner, limits: &Limits::default(), mailbox: &mailbox, plugin: 1 };
        let name = [b'x'; MAX_NAME + 1];
        assert_eq!(queues.register("vm", &name, &by).map(drop), Err(Status::BadArgument));
        assert_eq!((owner.queues.used(), owner.exceeded(Limit::Queues)), (0, 0));
        assert!(queues.register("vm", &name[1..], &by).is_ok() && queues.resolve("vm", &name[1..]).is_ok());
        assert_eq!(queues.resolve("vm", &name).map(drop), Err(Status::NotFound));
        assert_eq!(queues.resolve(&"x".repeat(MAX_NAME + 1), b"q").map(drop), Err(Status::NotFound));
    }

    #[test]
    fn queues_go_with_the_last_plugin_of_the_filters_that_registered_them() {
        let shared = Shared::new();
        let [one, other] = ["one", "other"].map(|name| shared.ledger(name));
        let mailbox = Arc::default();
        let limits = Limits::default();
        let register = |name: &[u8], owner: &Arc<Ledger>| {
            let by = Registrant { owner, limits: &limits, mailbox: &mailbox, plugin: 1 };
            shared.queues().register("vm", name, &by).unwrap()
        };
        let [first, second, third] = [&one, &one, &other].map(|owner| Tenant::new(&shared, owner));
        let mut known = KnownQueues::default();
        let (alone, together) = (register(b"alone", &one), register(b"together", &one));
        register(b"together", &other);
        for queue in [&alone, &together] {
            known.learn(queue, true);
            queue.enqueue(b"item").unwrap();
        }
        let tokens = [alone.token(), together.token()];
        drop((alone, together));
        let there = || tokens.map(|token| known.find(token).is_ok());
        drop(first);
        assert_eq!(there(), [true, true]);
        drop(second);
        assert_eq!(there(), [false, true], "the other filter has registered it, too");
        assert_eq!((one.queues.used(), one.queue_bytes.used()), (1, 4));
        assert_eq!(known.find_own(tokens[0]).map(drop), Err(Status::NotFound));
        assert_eq!(shared.queues().resolve("vm", b"alone").map(drop), Err(Status::NotFound));
        drop(third);
        assert_eq!((there(), one.queues.used(), one.queue_bytes.used()), ([false, false], 0, 0));
        let _tenant = Tenant::new(&shared, &one);
        assert!(!tokens.contains(&register(b"alone", &one).token()), "another queue has another token");
    }

    #[test]
    fn a_vm_takes_out_of_its_own_queues_only() {
        let queues = Queues::default();
        let (owner, mailbox) = (Ledgers::default().of("one"), Arc::default());
        let by = Registrant { owner: &owner, limits: &Limits::default(), mailbox: &mailbox, plugin: 1 };
        let [own, theirs, unknown] = ["own", "theirs", "unknown"].map(|id| queues.register(id, b"q", &by));
        let mut known = KnownQueues::default();
        known.learn(own.as_ref().unwrap(), true);
        known.learn(theirs.as_ref().unwrap(), false);
        let may = [own, theirs, unknown].map(|queue| {
            let token = queue.unwrap().token();
            (known.find(token).is_ok(), known.find_own(token).is_ok())
        });
        assert_eq!(may, [(true, true), (true, false), (false, false)]);
    }
}
