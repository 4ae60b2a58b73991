//! Room for a request's body. When memory is short a body that has not begun is not read: what its client has sent waits in the
//! kernel, and the client waits with the rest.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

use crate::message::{BodyError, BodyFault, BodyReason};
use crate::overload;

/// How often those who wait look whether there is room.
const LOOK: Duration = Duration::from_millis(100);

/// Whether a body may be read.
pub(super) enum Room {
    /// It may, until its end.
    Given,
    /// It has not been asked for; how long it may wait.
    New(Duration),
    /// It waits, until then at most.
    Awaited(Pin<Box<Sleep>>, Instant),
}

impl Room {
    pub(super) fn new(patience: Duration) -> Room {
        Room::New(patience)
    }

    pub(super) fn is_given(&self) -> bool {
        matches!(self, Room::Given)
    }

    /// Ready when there is room, or was none for too long.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        while overload::holds() {
            match self {
                Room::Given => break,
                Room::New(patience) => {
                    overload::count_held();
                    *self = Room::Awaited(Box::pin(sleep(LOOK)), Instant::now() + *patience);
                }
                Room::Awaited(timer, end) => {
                    ready!(timer.as_mut().poll(cx));
                    let now = Instant::now();
                    if now >= *end {
                        let details = "memory was short for the listener's body_timeout";
                        return Poll::Ready(Err(BodyError::new(
                            BodyFault::Internal,
                            BodyReason::Overload,
                            details,
                        )));
                    }
                    timer.as_mut().reset(now + LOOK);
                }
            }
        }
        *self = Room::Given;
        Poll::Ready(Ok(()))
    }
}
