//! The ABI's contexts: root contexts (plugins) and stream contexts (a filter on an exchange), by id.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};

use crate::body::BodyBuffer;
use crate::callout::Cancellation;
use crate::core::Core;
use crate::exchange::Exchange;
use crate::hostcalls::Declarations;
use crate::shared::Hold;
use crate::stream::Own;
use crate::vm::Vm;
use crate::waiting::Past;

/// A root context: a plugin in one VM.
pub(crate) struct Root {
    pub(crate) id: u32,
    pub(crate) core: Rc<Core>,
    pub(crate) vm: Weak<Vm>,
    /// HTTP calls of the plugin under way.
    pub(crate) http_calls: Rc<Cell<u32>>,
    /// Those of this VM, by token.
    pub(crate) open_calls: RefCell<HashMap<u32, Rc<Cancellation>>>,
    /// gRPC calls and streams of the plugin under way.
    pub(crate) grpc_calls: Rc<Cell<u32>>,
    /// How properties are kept that the plugin sets.
    pub(crate) declarations: Declarations,
    /// `proxy_on_done` returned false; `proxy_done` is awaited.
    pub(crate) pending: Cell<bool>,
}

impl Root {
    pub(crate) fn new(id: u32, core: &Rc<Core>, vm: Weak<Vm>) -> Root {
        Root {
            id,
            core: core.clone(),
            vm,
            http_calls: core.usage.http_calls.clone(),
            open_calls: RefCell::default(),
            grpc_calls: core.usage.grpc_calls.clone(),
            declarations: Declarations::default(),
            pending: Cell::new(false),
        }
    }
}

/// A stream context: one filter on one exchange.
pub(crate) struct Stream {
    pub(crate) id: u32,
    pub(crate) place: u32,
    pub(crate) root: Rc<Root>,
    /// The root's, which each callback asks for.
    pub(crate) core: Rc<Core>,
    pub(crate) exchange: Reach,
    /// Of a TCP connection, not of an HTTP exchange.
    pub(crate) tcp: bool,
    /// The request's body, or what the client of a TCP connection sent.
    pub(crate) request_body: RefCell<BodyBuffer>,
    /// The response's body, or what the endpoint of a TCP connection sent.
    pub(crate) response_body: RefCell<BodyBuffer>,
    pub(crate) marks: Cell<Marks>,
    pub(crate) http_calls: Cell<u32>,
    pub(crate) grpc_calls: Cell<u32>,
    pub(crate) pending: Cell<bool>,
    /// What it holds of shared numbers until its exchange is over.
    pub(crate) holds: RefCell<Vec<Hold>>,
    /// While `proxy_done` is awaited: the instance, if it is its own. It ends after the stream.
    pub(crate) own: Cell<Option<Own>>,
}

/// The way from a stream context to its exchange.
pub(crate) struct Reach {
    /// Weak, so that an exchange may own its contexts.
    exchange: Weak<dyn Exchange>,
    /// What there is in its place for a context that is not done when the exchange is over.
    past: OnceCell<Rc<dyn Exchange>>,
}

impl Reach {
    pub(crate) fn to(exchange: &Rc<dyn Exchange>) -> Reach {
        Reach { exchange: Rc::downgrade(exchange), past: OnceCell::new() }
    }

    /// The exchange; none if it is gone.
    pub(crate) fn upgrade(&self) -> Option<Rc<dyn Exchange>> {
        self.past.get().cloned().or_else(|| self.exchange.upgrade())
    }

    /// From now on the context sees the exchange as it is now, whatever becomes of it.
    pub(crate) fn outlast(&self) {
        if let Some(exchange) = self.exchange.upgrade() {
            // Set only once: a context ends only once.
            let _ = self.past.set(Rc::new(Past::of(&*exchange)));
        }
    }
}

/// What hostcalls left on a stream for the embedder to see.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Marks(u8);

impl Marks {
    /// Of TCP: what comes from the client.
    pub(crate) const RESUMED_REQUEST: Marks = Marks(1);
    /// Of TCP: what comes from the endpoint.
    pub(crate) const RESUMED_RESPONSE: Marks = Marks(2);
    pub(crate) const CLOSED: Marks = Marks(4);
    pub(crate) const ANSWERED: Marks = Marks(8);
}

impl Stream {
    pub(crate) fn mark(&self, mark: Marks) {
        self.marks.set(Marks(self.marks.get().0 | mark.0));
    }

    /// Whether the mark is set; it no longer is.
    pub(crate) fn take(&self, mark: Marks) -> bool {
        let marks = self.marks.get();
        self.marks.set(Marks(marks.0 & !mark.0));
        marks.0 & mark.0 != 0
    }
}

/// A context of either kind.
#[derive(Clone)]
pub(crate) enum Entry {
    Root(Rc<Root>),
    Stream(Rc<Stream>),
}

impl Entry {
    pub(crate) fn id(&self) -> u32 {
        match self {
            Entry::Root(root) => root.id,
            Entry::Stream(stream) => stream.id,
        }
    }

    pub(crate) fn root(&self) -> &Rc<Root> {
        match self {
            Entry::Root(root) => root,
            Entry::Stream(stream) => &stream.root,
        }
    }

    pub(crate) fn core(&self) -> &Rc<Core> {
        match self {
            Entry::Root(root) => &root.core,
            Entry::Stream(stream) => &stream.core,
        }
    }

    pub(crate) fn set_pending(&self, pending: bool) {
        match self {
            Entry::Root(root) => root.pending.set(pending),
            Entry::Stream(stream) => stream.pending.set(pending),
        }
    }

    pub(crate) fn is_pending(&self) -> bool {
        match self {
            Entry::Root(root) => root.pending.get(),
            Entry::Stream(stream) => stream.pending.get(),
        }
    }
}

/// The live contexts of a VM.
///
/// Ids grow and are not used again before they wrap: the Rust SDK keeps tokens of HTTP calls by context id, and a
/// late response must not meet another stream under the same id. An id's slot is its low bits; ids whose slot is
/// taken are skipped, so that a look-up is one comparison.
pub(crate) struct Contexts {
    slots: Vec<Option<Entry>>,
    next: u32,
    live: usize,
}

impl Contexts {
    pub(crate) fn new() -> Contexts {
        Contexts { slots: vec![const { None }; 64], next: 1, live: 0 }
    }

    /// An id for a new context; none if there are so many already.
    pub(crate) fn reserve(&mut self, most: u32) -> Option<u32> {
        if self.live >= most as usize {
            return None;
        }
        if self.live * 2 >= self.slots.len() {
            self.grow();
        }
        loop {
            let id = self.next;
            self.next = self.next.checked_add(1).unwrap_or(1);
            // 0 is the VM itself; negative numbers confuse guests that take ids for signed.
            if id != 0 && id <= i32::MAX as u32 && self.slots[self.slot(id)].is_none() {
                return Some(id);
            }
            if id > i32::MAX as u32 {
                self.next = 1;
            }
        }
    }

    pub(crate) fn insert(&mut self, entry: Entry) {
        let slot = self.slot(entry.id());
        debug_assert!(self.slots[slot].is_none(), "the slot was reserved");
        self.slots[slot] = Some(entry);
        self.live += 1;
    }

    pub(crate) fn find(&self, id: u32) -> Option<&Entry> {
        self.slots[self.slot(id)].as_ref().filter(|entry| entry.id() == id)
    }

    pub(crate) fn remove(&mut self, id: u32) -> Option<Entry> {
        let slot = self.slot(id);
        let entry = self.slots[slot].take_if(|entry| entry.id() == id);
        self.live -= usize::from(entry.is_some());
        entry
    }

    /// The live stream contexts.
    pub(crate) fn streams(&self) -> impl Iterator<Item = &Rc<Stream>> {
        self.slots.iter().filter_map(|slot| match slot {
            Some(Entry::Stream(stream)) => Some(stream),
            _ => None,
        })
    }

    fn slot(&self, id: u32) -> usize {
        id as usize & (self.slots.len() - 1)
    }

    /// Doubles the slots; ids that differed in their low bits still do.
    fn grow(&mut self) {
        let entries = std::mem::take(&mut self.slots);
        self.slots = vec![const { None }; entries.len() * 2];
        for entry in entries.into_iter().flatten() {
            let slot = self.slot(entry.id());
            self.slots[slot] = Some(entry);
        }
    }
}
