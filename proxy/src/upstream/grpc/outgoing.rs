//! What a filter sends on a stream, from its hostcalls into the request's body.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::Frame;
use meshgate_wasm::{GrpcSendError, GrpcSender};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::framing::prefixed;
use crate::message::{Body, BodyError};

/// Messages that wait to be sent.
#[derive(Debug)]
pub(super) struct Outbox {
    messages: RefCell<VecDeque<Bytes>>,
    /// Bytes of all of them, and how many there may be.
    bytes: Cell<u64>,
    limit: u64,
    ended: Cell<bool>,
    reader: RefCell<Option<Waker>>,
    cancelled: Notify,
}

impl Outbox {
    pub(super) fn new(limit: u64) -> Rc<Outbox> {
        Rc::new(Outbox {
            messages: RefCell::default(),
            bytes: Cell::new(0),
            limit,
            ended: Cell::new(false),
            reader: RefCell::default(),
            cancelled: Notify::new(),
        })
    }

    /// Waits until the filter gives the call or stream up.
    pub(super) async fn cancelled(&self) {
        self.cancelled.notified().await;
    }

    /// The body of the stream's request. There is one.
    pub(super) fn body(self: &Rc<Self>) -> Body {
        Body::stream(Outgoing(Rc::clone(self)))
    }

    fn push(&self, message: &Bytes) -> Result<(), GrpcSendError> {
        let message = prefixed(message);
        let bytes = self.bytes.get() + message.len() as u64;
        if bytes > self.limit {
            return Err(GrpcSendError::Full);
        }
        self.bytes.set(bytes);
        self.messages.borrow_mut().push_back(message);
        Ok(())
    }

    fn pop(&self) -> Option<Bytes> {
        let message = self.messages.borrow_mut().pop_front()?;
        self.bytes.set(self.bytes.get().saturating_sub(message.len() as u64));
        Some(message)
    }

    fn is_over(&self) -> bool {
        self.ended.get() && self.messages.borrow().is_empty()
    }
}

struct Outgoing(Rc<Outbox>);

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.0.pop() {
            Some(message) => Poll::Ready(Some(Ok(Frame::data(message)))),
            None if self.0.ended.get() => Poll::Ready(None),
            None => {
                self.0.reader.replace(Some(cx.waker().clone()));
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_over()
    }
}

/// The filter's side of a call or stream. Dropping it cancels.
pub(super) struct Sender {
    outbox: Rc<Outbox>,
    task: AbortHandle,
}

impl Sender {
    pub(super) fn new(outbox: Rc<Outbox>, task: AbortHandle) -> Sender {
        Sender { outbox, task }
    }
}

impl GrpcSender for Sender {
    fn send(&self, message: Option<Bytes>, last: bool) -> Result<(), GrpcSendError> {
        if self.outbox.ended.get() {
            return Err(GrpcSendError::Ended);
        }
        if let Some(message) = message {
            self.outbox.push(&message)?;
        }
        self.outbox.ended.set(last);
        if let Some(reader) = self.outbox.reader.take() {
            reader.wake();
        }
        Ok(())
    }

    fn cancel(&self) {
        self.outbox.cancelled.notify_one();
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        // The task may be the one that drops this, with its last word: then there is nothing to stop any more.
        self.task.abort();
    }
}
