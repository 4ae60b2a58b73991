//! What comes back on a gRPC call or stream, on its way to the guest.

use std::cell::Cell;
use std::rc::{Rc, Weak};

use bytes::Bytes;

use super::table::Class;
use super::{GrpcEvent, GrpcMetadata, GrpcStatus};
use crate::contexts::{Entry, Root};
use crate::error::VmError;
use crate::ledger::Held;
use crate::limits::Limit;
use crate::phase::Phase;
use crate::vm::Vm;

/// The way back of a call or stream to its guest. All of it is to be called from a fresh stack, never from inside of a
/// hostcall. What fails in the guest is told by [`crate::Host::failed`].
///
/// For a call: [`answer`](Self::answer), once. For a stream: the events in their order, then [`close`](Self::close);
/// an event that answers false says that nobody listens any more.
pub struct GrpcEvents {
    id: u32,
    root: Weak<Root>,
    /// What the request takes.
    held: Cell<Option<Held>>,
    /// What has come of a message whose end has not.
    begun: Cell<Option<Held>>,
}

impl GrpcEvents {
    pub(crate) fn new(id: u32, root: &Rc<Root>, held: Held) -> GrpcEvents {
        GrpcEvents { id, root: Rc::downgrade(root), held: Cell::new(Some(held)), begun: Cell::default() }
    }

    /// `proxy_on_grpc_receive` for the message of a call that went well, else `proxy_on_grpc_close`.
    pub fn answer(self, outcome: Result<Bytes, GrpcStatus>) {
        debug_assert!(Class::GrpcCall.is_of(self.id), "a stream is closed, not answered");
        match outcome {
            // The guest forgets the call as soon as it has the message.
            Ok(message) if self.is_listened_to() => self.deliver(true, GrpcEvent::Message(message)),
            // It came while the guest gave it up.
            Ok(_) => self.deliver(true, GrpcEvent::Closed(GrpcStatus::cancelled())),
            Err(status) => self.deliver(true, GrpcEvent::Closed(status)),
        };
    }

    /// `proxy_on_grpc_receive_initial_metadata`
    pub fn initial_metadata(&self, metadata: GrpcMetadata) -> bool {
        self.deliver(false, GrpcEvent::Initial(Rc::new(metadata)))
    }

    /// `proxy_on_grpc_receive`
    pub fn message(&self, message: Bytes) -> bool {
        self.deliver(false, GrpcEvent::Message(message))
    }

    /// `proxy_on_grpc_receive_trailing_metadata`
    pub fn trailing_metadata(&self, metadata: GrpcMetadata) -> bool {
        self.deliver(false, GrpcEvent::Trailing(Rc::new(metadata)))
    }

    /// `proxy_on_grpc_close`
    pub fn close(self, status: GrpcStatus) {
        self.deliver(true, GrpcEvent::Closed(status));
    }

    /// A message that came was larger than it may be; the call or stream is to end.
    pub fn message_too_large(&self) {
        if let Some(root) = self.root.upgrade() {
            root.core.exceeded(Limit::CallBody);
        }
    }

    /// So many bytes have come of a message whose end has not, and wait for that. False, and counted, if the plugin's calls would
    /// hold more than they may; the call or stream is to end then.
    pub fn has_room(&self, bytes: usize) -> bool {
        drop(self.begun.take());
        let hold = || self.root.upgrade()?.core.hold_for_call(bytes);
        bytes == 0 || hold().map(|held| self.begun.set(Some(held))).is_some()
    }

    fn is_listened_to(&self) -> bool {
        let vm = self.root.upgrade().and_then(|root| root.vm.upgrade());
        vm.and_then(|vm| vm.with_state(|state| state.grpc.is_listened_to(self.id))) == Some(true)
    }

    /// Tells the guest, if the call or stream is still under way, and says whether it is afterwards. After the last
    /// event it is over: the id names nothing any more, in the callback already.
    fn deliver(&self, last: bool, event: GrpcEvent) -> bool {
        if last {
            // The guest may make its next call right now.
            drop((self.held.take(), self.begun.take()));
        }
        let Some(root) = self.root.upgrade() else { return false };
        let Some(vm) = root.vm.upgrade() else { return false };
        let taken = vm.with_state(|state| {
            let listens =
                if last { state.grpc.contains(self.id) } else { state.grpc.is_listened_to(self.id) };
            let known = state.contexts.find(root.id).is_some() && listens;
            let over = if last { state.grpc.remove(self.id) } else { None };
            if known {
                state.running.grpc = Some(event.clone());
            }
            known.then_some(over)
        });
        // Dropped where nothing is borrowed.
        let Some(Some(over)) = taken else { return false };
        drop(over);
        if !vm.is_poisoned() {
            // What fails here was told to the host.
            let _ = enter(&vm, root, self.id, &event);
            drop(vm.with_state(|state| state.running.grpc.take()));
        }
        let under_way = vm.with_state(|state| state.grpc.is_listened_to(self.id));
        under_way == Some(true)
    }
}

fn enter(vm: &Vm, root: Rc<Root>, id: u32, event: &GrpcEvent) -> Result<(), VmError> {
    let exports = &vm.exports;
    let (phase, callback, number) = match event {
        GrpcEvent::Initial(metadata) => {
            (Phase::GrpcInitialMetadata, &exports.grpc_initial_metadata, metadata.count())
        }
        GrpcEvent::Message(message) => (Phase::GrpcReceive, &exports.grpc_receive, message.len()),
        GrpcEvent::Trailing(metadata) => {
            (Phase::GrpcTrailingMetadata, &exports.grpc_trailing_metadata, metadata.count())
        }
        GrpcEvent::Closed(status) => (Phase::GrpcClose, &exports.grpc_close, status.code as usize),
    };
    let Some(callback) = callback else { return Ok(()) };
    let parameters = (root.id, id, u32::try_from(number).unwrap_or(u32::MAX));
    vm.enter(&Entry::Root(root), phase, false, callback, parameters)
}
