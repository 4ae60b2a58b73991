//! A VM's gRPC calls and streams under way, by id.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::{Rc, Weak};

use super::GrpcSender;
use crate::contexts::{Root, Stream};

/// Which kind of call an id names: its two low bits, as in other hosts, so that an id says by itself what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Class {
    Http = 0,
    GrpcCall = 1,
    GrpcStream = 2,
}

impl Class {
    const MASK: u32 = 3;

    pub(crate) fn is_of(self, id: u32) -> bool {
        id & Class::MASK == self as u32
    }
}

/// The calls and streams of one VM, and the ids of those and of HTTP calls.
#[derive(Default)]
pub(crate) struct GrpcTable {
    open: HashMap<u32, UnderWay>,
    last: u32,
}

/// A call or stream under way. Dropping it cancels it.
pub(crate) struct UnderWay {
    pub(crate) root: Weak<Root>,
    pub(crate) sender: Box<dyn GrpcSender>,
    /// The guest waits for nothing but its end.
    pub(crate) cancelled: Cell<bool>,
    pub(crate) _counted: Counted,
}

impl GrpcTable {
    /// An id that names nothing now. Guests keep contexts by id, so one does not come again while it may be
    /// remembered: not before all others.
    pub(crate) fn next(&mut self, class: Class) -> u32 {
        loop {
            // Negative numbers confuse guests that take ids for signed.
            self.last = self.last.checked_add(4).filter(|id| i32::try_from(*id).is_ok()).unwrap_or(4);
            let id = self.last | class as u32;
            if !self.open.contains_key(&id) {
                return id;
            }
        }
    }

    pub(crate) fn insert(&mut self, id: u32, under_way: UnderWay) {
        self.open.insert(id, under_way);
    }

    /// The call or stream of that id, if it belongs to this plugin.
    pub(crate) fn find(&self, id: u32, root: &Rc<Root>) -> Option<&UnderWay> {
        self.open.get(&id).filter(|under_way| under_way.is_of(root))
    }

    pub(crate) fn contains(&self, id: u32) -> bool {
        self.open.contains_key(&id)
    }

    /// Whether the guest is to hear more of it than its end.
    pub(crate) fn is_listened_to(&self, id: u32) -> bool {
        self.open.get(&id).is_some_and(|under_way| !under_way.cancelled.get())
    }

    pub(crate) fn remove(&mut self, id: u32) -> Option<UnderWay> {
        self.open.remove(&id)
    }

    /// All those of a plugin that ends.
    #[must_use = "to be dropped where nothing is borrowed"]
    pub(crate) fn remove_all_of(&mut self, root: &Root) -> Vec<UnderWay> {
        let of_root = |under_way: &UnderWay| std::ptr::eq(under_way.root.as_ptr(), root);
        self.open.extract_if(|_, under_way| of_root(under_way)).map(|(_, under_way)| under_way).collect()
    }

    /// All, as the VM failed.
    #[must_use = "to be dropped where nothing is borrowed"]
    pub(crate) fn remove_all(&mut self) -> Vec<UnderWay> {
        self.open.drain().map(|(_, under_way)| under_way).collect()
    }
}

impl UnderWay {
    /// Ends it; the guest hears of that later.
    pub(crate) fn cancel(&self) {
        if !self.cancelled.replace(true) {
            self.sender.cancel();
        }
    }

    fn is_of(&self, root: &Rc<Root>) -> bool {
        std::ptr::eq(self.root.as_ptr(), Rc::as_ptr(root))
    }
}

/// Counts a call or stream on its plugin, and on the stream context that made it, for as long as it lives.
pub(crate) struct Counted {
    /// Calls of the plugin under way. The root context may be gone before.
    calls: Rc<Cell<u32>>,
    stream: Option<Weak<Stream>>,
}

impl Counted {
    pub(crate) fn new(root: &Rc<Root>, stream: Option<&Rc<Stream>>) -> Counted {
        let more = |calls: &Cell<u32>| calls.set(calls.get() + 1);
        more(&root.grpc_calls);
        if let Some(stream) = stream {
            more(&stream.grpc_calls);
        }
        Counted { calls: root.grpc_calls.clone(), stream: stream.map(Rc::downgrade) }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let less = |calls: &Cell<u32>| calls.set(calls.get().saturating_sub(1));
        less(&self.calls);
        if let Some(stream) = self.stream.as_ref().and_then(Weak::upgrade) {
            less(&stream.grpc_calls);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_grow_by_class_and_stay_positive() {
        let mut table = GrpcTable::default();
        let classes = [Class::Http, Class::GrpcCall, Class::GrpcStream, Class::Http];
        assert_eq!(classes.map(|class| table.next(class)), [4, 9, 14, 16]);
        for id in [9, 14, 16] {
            let of = [Class::Http, Class::GrpcCall, Class::GrpcStream].map(|class| class.is_of(id));
            assert_eq!(of.iter().filter(|of| **of).count(), 1);
        }
        table.last = i32::MAX as u32 - 3;
        assert_eq!(table.next(Class::GrpcStream), 6, "after the last one it begins again");
    }
}
