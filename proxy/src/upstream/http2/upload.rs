//! The body of a request on its way into a stream.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::Body as _;
use tokio::task::AbortHandle;

use crate::message::{Body, BodyError, detach};

/// An upload under way. Dropping it before its end resets the stream.
pub(super) struct Upload {
    task: Option<AbortHandle>,
    failure: Rc<RefCell<Option<BodyError>>>,
}

impl Upload {
    /// Sends what there is of the body at once; for the rest there is a task.
    pub(super) fn start(body: Body, stream: SendStream<Bytes>) -> Upload {
        let failure = Rc::default();
        let mut sending = Box::pin(send(body, stream, Rc::clone(&failure)));
        // Most bodies are small and all here.
        let mut nobody = Context::from_waker(std::task::Waker::noop());
        let task = match sending.as_mut().poll(&mut nobody) {
            Poll::Ready(()) => None,
            Poll::Pending => Some(tokio::task::spawn_local(sending).abort_handle()),
        };
        Upload { task, failure }
    }

    /// Why the body broke, if it did.
    pub(super) fn failure(&self) -> Option<BodyError> {
        self.failure.borrow().clone()
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // With the task goes its half of the stream; when the other half has gone too, the stream is reset.
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

async fn send(mut body: Body, mut stream: SendStream<Bytes>, failure: Rc<RefCell<Option<BodyError>>>) {
    // The peer may have all it wants before the end: that is told by the response, or by its absence.
    if let Err(Some(error)) = poll_fn(|cx| poll_send(&mut body, &mut stream, cx)).await {
        failure.replace(Some(error));
        stream.send_reset(Reason::CANCEL);
    }
}

/// Moves the body. `Err(None)`: the peer does not take more; `Err(Some)`: the body broke.
fn poll_send(
    body: &mut Body,
    stream: &mut SendStream<Bytes>,
    cx: &mut Context<'_>,
) -> Poll<Result<(), Option<BodyError>>> {
    loop {
        ready!(poll_room(stream, cx))?;
        let Some(frame) = ready!(Pin::new(&mut *body).poll_frame(cx)) else {
            return Poll::Ready(stream.send_data(Bytes::new(), true).map_err(|_| None));
        };
        match frame.map_err(Some)?.into_data() {
            Ok(chunk) => {
                let last = body.is_end_stream();
                if !chunk.is_empty() || last {
                    stream.send_data(chunk, last).map_err(|_| None)?;
                }
                if last {
                    return Poll::Ready(Ok(()));
                }
            }
            Err(frame) => {
                // None: a kind of frame that is not sent.
                if let Ok(mut trailers) = frame.into_trailers() {
                    // Header compression remembers them for as long as the connection lives.
                    detach(&mut trailers);
                    return Poll::Ready(stream.send_trailers(trailers).map_err(|_| None));
                }
            }
        }
    }
}

/// Waits until the peer takes at least a byte: nothing is asked of the body before that, so that a slow peer holds its
/// sender back.
fn poll_room(stream: &mut SendStream<Bytes>, cx: &mut Context<'_>) -> Poll<Result<(), Option<BodyError>>> {
    stream.reserve_capacity(1);
    while stream.capacity() == 0 {
        match ready!(stream.poll_capacity(cx)) {
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return Poll::Ready(Err(None)),
        }
    }
    match stream.poll_reset(cx) {
        Poll::Ready(_) => Poll::Ready(Err(None)),
        Poll::Pending => Poll::Ready(Ok(())),
    }
}
