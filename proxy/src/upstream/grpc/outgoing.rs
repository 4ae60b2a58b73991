//! What a filter sends on a stream, from its hostcalls into the request's body.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::Frame;
use meshgate_wasm::{GrpcRequest, GrpcSendError, GrpcSender};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::framing::prefix;
use crate::message::{Body, BodyError};

/// Messages that wait to be sent.
#[derive(Debug)]
pub(super) struct Outbox {
    messages: RefCell<VecDeque<Bytes>>,
    /// The message whose prefix has been sent.
    begun: RefCell<Option<Bytes>>,
    /// What all of them take, and how much that may be.
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
            begun: RefCell::default(),
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

    fn push(&self, message: Bytes) -> Result<(), GrpcSendError> {
        let bytes = self.bytes.get() + cost(&message);
        if bytes > self.limit {
            return Err(GrpcSendError::Full);
        }
        self.bytes.set(bytes);
        self.messages.borrow_mut().push_back(message);
        Ok(())
    }

    /// The next piece: a message's prefix, or the message behind it.
    fn pop(&self) -> Option<Bytes> {
        if let Some(message) = self.begun.take() {
            self.free(&message);
            return Some(message);
        }
        let message = self.messages.borrow_mut().pop_front()?;
        let prefix = prefix(&message);
        if message.is_empty() {
            self.free(&message);
        } else {
            self.begun.replace(Some(message));
        }
        Some(prefix)
    }

    fn free(&self, message: &Bytes) {
        self.bytes.set(self.bytes.get().saturating_sub(cost(message)));
    }

    fn is_over(&self) -> bool {
        self.ended.get() && self.messages.borrow().is_empty() && self.begun.borrow().is_none()
    }
}

/// What a message takes while it waits.
fn cost(message: &Bytes) -> u64 {
    message.len() as u64 + GrpcRequest::MESSAGE_COST
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
            Some(piece) => Poll::Ready(Some(Ok(Frame::data(piece)))),
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
            self.outbox.push(message)?;
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

#[cfg(test)]
mod tests {
    use http_body::Body as _;

    use super::*;

    /// All that is there to be sent, and whether that was the end.
    fn sent(body: &mut Outgoing) -> (Vec<u8>, bool) {
        let mut nobody = Context::from_waker(Waker::noop());
        let mut bytes = Vec::new();
        loop {
            match Pin::new(&mut *body).poll_frame(&mut nobody) {
                Poll::Ready(Some(Ok(frame))) => bytes.extend(frame.into_data().unwrap()),
                Poll::Ready(None) => return (bytes, true),
                Poll::Pending => return (bytes, false),
                Poll::Ready(Some(Err(error))) => panic!("{error}"),
            }
        }
    }

    #[test]
    fn messages_wait_with_what_they_take_beside_their_bytes() {
        let message = |text: &'static str| Bytes::from_static(text.as_bytes());
        let outbox = Outbox::new(2 * GrpcRequest::MESSAGE_COST + 3);
        let mut body = Outgoing(Rc::clone(&outbox));
        assert_eq!(outbox.push(message("abcd")), Ok(()));
        assert_eq!(outbox.push(message("")), Err(GrpcSendError::Full), "empty messages wait, too");
        assert_eq!(sent(&mut body), (b"\0\0\0\0\x04abcd".to_vec(), false));
        assert_eq!(outbox.push(message("")), Ok(()));
        assert_eq!(outbox.push(message("abc")), Ok(()));
        assert_eq!(outbox.push(message("")), Err(GrpcSendError::Full));
        outbox.ended.set(true);
        assert!(!body.is_end_stream());
        assert_eq!(sent(&mut body), (b"\0\0\0\0\0\0\0\0\0\x03abc".to_vec(), true));
        assert!(body.is_end_stream());
        assert_eq!(outbox.bytes.get(), 0);
    }

    #[test]
    fn the_end_comes_with_the_last_piece() {
        let mut nobody = Context::from_waker(Waker::noop());
        for (text, pieces) in [("", 1), ("x", 2)] {
            let outbox = Outbox::new(1_000);
            let mut body = Outgoing(Rc::clone(&outbox));
            assert_eq!(outbox.push(Bytes::from_static(text.as_bytes())), Ok(()));
            outbox.ended.set(true);
            for piece in 1..=pieces {
                assert!(!body.is_end_stream());
                assert!(Pin::new(&mut body).poll_frame(&mut nobody).is_ready());
                assert_eq!(body.is_end_stream(), piece == pieces);
            }
        }
    }
}
