//! A request's body on its way into an HTTP/1.1 connection, and how far it has come. Used by `send`; HTTP/2 has its own.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http_body::{Body as _, Frame, SizeHint};

use crate::message::{Body, BodyError};

/// How far the body of a request has come, seen from the body of its response.
#[derive(Debug)]
pub(super) struct Progress {
    /// Bytes still to come if the length was announced.
    remaining: Cell<Option<u64>>,
    complete: Cell<bool>,
    failure: RefCell<Option<BodyError>>,
}

impl Progress {
    pub(super) fn is_complete(&self) -> bool {
        self.complete.get()
    }

    pub(super) fn failure(&self) -> Option<BodyError> {
        self.failure.borrow().clone()
    }

    /// Notes what hyper took from the body. It stops asking once the announced length is there.
    fn note(&self, frame: Option<&Result<Frame<Bytes>, BodyError>>, is_end_stream: bool) {
        match frame {
            Some(Ok(frame)) => {
                let length = frame.data_ref().map_or(0, |bytes| bytes.len() as u64);
                let remaining = self.remaining.get().map(|remaining| remaining.saturating_sub(length));
                self.remaining.set(remaining);
                if is_end_stream || frame.is_trailers() || remaining == Some(0) {
                    self.complete.set(true);
                }
            }
            Some(Err(error)) => {
                self.failure.borrow_mut().get_or_insert_with(|| error.clone());
            }
            None => self.complete.set(self.remaining.get().is_none_or(|remaining| remaining == 0)),
        }
    }
}

/// A request's body on its way into a connection.
#[derive(Debug)]
pub(super) struct RequestBody {
    body: Body,
    /// None if there is nothing to send: most requests need no bookkeeping.
    progress: Option<Rc<Progress>>,
}

impl RequestBody {
    pub(super) fn new(body: Body, headers: &HeaderMap) -> (RequestBody, Option<Rc<Progress>>) {
        if body.is_end_stream() {
            return (RequestBody { body, progress: None }, None);
        }
        let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let length = if headers.contains_key(TRANSFER_ENCODING) {
            None // In chunks: it ends with its last chunk.
        } else {
            body.size_hint().exact().or(announced)
        };
        let progress = Rc::new(Progress {
            remaining: Cell::new(length),
            complete: Cell::new(false),
            failure: RefCell::default(),
        });
        (RequestBody { body, progress: Some(progress.clone()) }, Some(progress))
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(progress) = &self.progress {
            progress.note(frame.as_ref(), self.body.is_end_stream());
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
