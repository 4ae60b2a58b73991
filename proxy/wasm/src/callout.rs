//! HTTP calls: the way an outcome takes back to the guest.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

use crate::contexts::{Entry, Root, Stream};
use crate::core::Core;
use crate::host::{CallFailure, HttpCallResponse};
use crate::ledger::Held;
use crate::limits::Limit;
use crate::phase::Phase;

impl Core {
    /// Room for so many bytes of a call, HTTP or gRPC, until what comes of it is dropped. None, and counted, if the plugin's calls
    /// would hold more than they may.
    pub(crate) fn hold_for_call(&self, bytes: usize) -> Option<Held> {
        let held = self.usage.call_bytes.hold(bytes, self.most_call_bytes());
        if held.is_none() {
            self.exceeded(Limit::CallBytes);
        }
        held
    }

    /// As [`Core::hold_for_call`], for what comes back.
    fn hold_more_for_call(&self, held: &mut Held, bytes: usize) -> bool {
        let fits = held.grow(bytes, self.most_call_bytes());
        if !fits {
            self.exceeded(Limit::CallBytes);
        }
        fits
    }

    fn most_call_bytes(&self) -> usize {
        usize::try_from(self.spec.limits.call_bytes).unwrap_or(usize::MAX)
    }
}

/// Whether the guest has given a call up, and who waits to hear that.
#[derive(Default)]
pub(crate) struct Cancellation {
    cancelled: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Cancellation {
    pub(crate) fn cancel(&self) {
        self.cancelled.set(true);
        let waker = self.waker.take();
        waker.into_iter().for_each(Waker::wake);
    }
}

/// Is ready when the guest has given the call up (`meshgate.cancel`).
pub struct Cancelled(Rc<Cancellation>);

impl Future for Cancelled {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.0.cancelled.get() {
            return Poll::Ready(());
        }
        self.0.waker.replace(Some(context.waker().clone()));
        Poll::Pending
    }
}

/// The way back of an HTTP call's outcome. Dropping it is fine when the worker ends; otherwise deliver, also when the call was
/// cancelled: guests keep what they know of a call until they hear of its end.
pub struct HttpCallReply {
    token: u32,
    root: Weak<Root>,
    stream: Option<Weak<Stream>>,
    cancellation: Rc<Cancellation>,
    /// Calls of the plugin under way. The root context may be gone before the call is over.
    calls: Rc<Cell<u32>>,
    /// What the request takes, and what has come of the response.
    held: RefCell<Held>,
}

impl HttpCallReply {
    /// Counts the call on the plugin and on the stream it was made for, until the reply is dropped, and what its request takes
    /// until it is over.
    pub(crate) fn new(token: u32, root: &Rc<Root>, stream: Option<&Rc<Stream>>, held: Held) -> HttpCallReply {
        root.http_calls.set(root.http_calls.get() + 1);
        if let Some(stream) = stream {
            stream.http_calls.set(stream.http_calls.get() + 1);
        }
        let cancellation = Rc::<Cancellation>::default();
        root.open_calls.borrow_mut().insert(token, cancellation.clone());
        let calls = root.http_calls.clone();
        let (root, stream) = (Rc::downgrade(root), stream.map(Rc::downgrade));
        HttpCallReply { token, root, stream, cancellation, calls, held: RefCell::new(held) }
    }

    /// Waits until the guest gives the call up: nothing of its response is of use to anybody then.
    pub fn cancelled(&self) -> Cancelled {
        Cancelled(self.cancellation.clone())
    }

    /// Whether the guest has given the call up.
    pub fn is_cancelled(&self) -> bool {
        self.cancellation.cancelled.get()
    }

    /// Whether there is room for so many bytes of the response; they count until it is delivered. There is none, and that counts
    /// too, if the plugin's calls would hold more than they may: the call then failed ([`CallFailure::NoRoom`]).
    pub fn has_room(&self, bytes: usize) -> bool {
        self.root
            .upgrade()
            .is_some_and(|root| root.core.hold_more_for_call(&mut self.held.borrow_mut(), bytes))
    }

    /// Calls `proxy_on_http_call_response` on the plugin's root context, if it still lives. What fails in it is
    /// told by [`crate::Host::failed`]. Not to be called from inside of a hostcall.
    pub fn deliver(self, outcome: Result<HttpCallResponse, CallFailure>) {
        // The guest may make its next call right now.
        self.held.borrow_mut().give_back();
        let Some(root) = self.root.upgrade() else { return };
        let Some(vm) = root.vm.upgrade() else { return };
        let Some(callback) = &vm.exports.http_call_response else { return };
        let empty = root.core.spec.compatibility.empty_failures;
        let outcome =
            outcome.or_else(|failure| if empty { Err(failure) } else { failure.stand_in().ok_or(failure) });
        let (headers, body, trailers) = match &outcome {
            Ok(response) => (
                response.head.headers.len() as u32 + 1,
                response.body.len() as u32,
                response.trailers.as_ref().map_or(0, |trailers| trailers.len() as u32),
            ),
            Err(_) => (0, 0, 0),
        };
        if matches!(outcome, Err(CallFailure::TooLarge)) {
            root.core.exceeded(Limit::CallBody);
        }
        let entry = Entry::Root(root.clone());
        let alive = vm.with_state(|state| {
            let alive = state.contexts.find(root.id).is_some();
            state.running.call = alive.then(|| outcome.map(Rc::new));
            alive
        });
        if alive == Some(true) && !vm.is_poisoned() {
            let parameters = (root.id, self.token, headers, body, trailers);
            // What fails here was told to the host.
            let _ = vm.enter(&entry, Phase::HttpCallResponse, false, callback, parameters);
            drop(vm.with_state(|state| state.running.call.take()));
        }
    }
}

impl Drop for HttpCallReply {
    fn drop(&mut self) {
        let less = |calls: &Cell<u32>| calls.set(calls.get().saturating_sub(1));
        less(&self.calls);
        if let Some(root) = self.root.upgrade() {
            root.open_calls.borrow_mut().remove(&self.token);
        }
        if let Some(stream) = self.stream.as_ref().and_then(Weak::upgrade) {
            less(&stream.http_calls);
        }
    }
}
