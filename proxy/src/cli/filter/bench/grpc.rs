//! The gRPC calls and streams of a filter that is measured: what each is answered waits until it is fetched.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use meshgate_wasm::{GrpcEvents, GrpcKind, GrpcMetadata, GrpcRequest, GrpcSendError, GrpcSender, GrpcStatus};

use super::exchange::GrpcAnswered;

/// Those under way, in the order in which they began.
#[derive(Default)]
pub(super) struct Grpc(RefCell<VecDeque<UnderWay>>);

struct UnderWay {
    cluster: String,
    timeout: Option<Duration>,
    is_call: bool,
    events: GrpcEvents,
    sent: Rc<Sent>,
    /// How many messages were answered, and whether the metadata before them was.
    answered: usize,
    begun: bool,
}

/// What the filter has done with a call or a stream.
#[derive(Default)]
struct Sent {
    messages: Cell<usize>,
    ended: Cell<bool>,
    cancelled: Cell<bool>,
    /// Nobody listens.
    dropped: Cell<bool>,
}

impl Grpc {
    pub(super) fn begin(&self, request: GrpcRequest, events: GrpcEvents) -> Box<dyn GrpcSender> {
        let (is_call, timeout) = match request.kind {
            GrpcKind::Call { timeout, .. } => (true, timeout),
            GrpcKind::Stream => (false, None),
        };
        let sent = Rc::new(Sent::default());
        let under_way = UnderWay {
            cluster: request.cluster,
            timeout,
            is_call,
            events,
            sent: Rc::clone(&sent),
            answered: 0,
            begun: false,
        };
        self.0.borrow_mut().push_back(under_way);
        Box::new(Sender(sent))
    }

    /// Delivers the next thing that is due, `answer` says what: false if there is nothing.
    pub(super) fn deliver(&self, answer: impl Fn(&str) -> GrpcAnswered) -> bool {
        let due = {
            let mut all = self.0.borrow_mut();
            all.retain(|under_way| !under_way.sent.dropped.get());
            let due = all.iter().position(|under_way| under_way.is_due(&answer(&under_way.cluster)));
            due.and_then(|position| all.remove(position))
        };
        // Out of the table while it is told: the filter may begin others.
        let Some(under_way) = due else { return false };
        let answered = answer(&under_way.cluster);
        if let Some(rest) = under_way.go_on(&answered) {
            self.0.borrow_mut().push_front(rest);
        }
        true
    }
}

impl UnderWay {
    fn is_due(&self, answered: &GrpcAnswered) -> bool {
        let (came, each) =
            (self.sent.messages.get(), answered.answer.as_ref().is_some_and(|answer| answer.each));
        let in_turn = self.answered < came || (self.left(answered).is_none() && came > 0);
        self.is_call
            || self.sent.cancelled.get()
            || self.sent.ended.get()
            || (each && in_turn)
            || answered.answer.is_none()
    }

    fn left<'a>(&self, answered: &'a GrpcAnswered) -> Option<&'a Vec<u8>> {
        answered.answer.as_ref()?.messages.get(self.answered)
    }

    /// Tells the filter of one thing. None if that was the last.
    fn go_on(mut self, answered: &GrpcAnswered) -> Option<UnderWay> {
        if self.sent.cancelled.get() {
            self.end(GrpcStatus::cancelled());
            return None;
        }
        if self.is_call {
            self.events.answer(answered.of_call(self.timeout));
            return None;
        }
        if !std::mem::replace(&mut self.begun, true) {
            self.events.initial_metadata(GrpcMetadata::Fields(HeaderMap::new()));
            return Some(self);
        }
        if let Some(message) = self.left(answered) {
            self.events.message(Bytes::copy_from_slice(message));
            self.answered += 1;
            return Some(self);
        }
        self.events.trailing_metadata(GrpcMetadata::Fields(HeaderMap::new()));
        self.events.close(answered.status());
        None
    }

    fn end(self, status: GrpcStatus) {
        if self.is_call { self.events.answer(Err(status)) } else { self.events.close(status) }
    }
}

/// The filter's side.
struct Sender(Rc<Sent>);

impl GrpcSender for Sender {
    fn send(&self, message: Option<Bytes>, last: bool) -> Result<(), GrpcSendError> {
        if self.0.ended.get() {
            return Err(GrpcSendError::Ended);
        }
        self.0.messages.set(self.0.messages.get() + usize::from(message.is_some()));
        self.0.ended.set(last);
        Ok(())
    }

    fn cancel(&self) {
        self.0.cancelled.set(true);
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.0.dropped.set(true);
    }
}
