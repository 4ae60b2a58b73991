//! Room for a request's body. When memory is short a body that has not begun is not read: what its client has sent waits in the
//! kernel, and the client waits with the rest. One that has begun is read until what is left is for new requests, and then a
//! few go on slowly.

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
pub(super) struct Room {
    /// It has been read from; then it may wait before each piece.
    begun: bool,
    /// How long it may wait each time.
    patience: Duration,
    /// It waits, until then at most.
    awaited: Option<(Pin<Box<Sleep>>, Instant)>,
}

impl Room {
    /// For a body of which nothing has been read; `begun`: or that needs no room.
    pub(super) fn new(patience: Duration, begun: bool) -> Room {
        Room { begun, patience, awaited: None }
    }

    /// Whether there is none now.
    pub(super) fn is_short(&self) -> bool {
        overload::holds() && !(self.begun && overload::has_room_for_bodies())
    }

    /// It is read from.
    pub(super) fn begin(&mut self) {
        self.begun = true;
        self.awaited = None;
    }

    /// Ready when it may be read; or may not, since there was no room for too long. One that has begun and `may_pause` is not
    /// given up: its client may have nothing to say.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, may_pause: bool) -> Poll<Result<(), BodyError>> {
        while self.is_short() {
            let patience = self.patience;
            let (timer, end) = self.awaited.get_or_insert_with(|| {
                overload::count_held();
                (Box::pin(sleep(LOOK)), Instant::now() + patience)
            });
            ready!(timer.as_mut().poll(cx));
            if self.begun && overload::take_turn() {
                break;
            }
            let now = Instant::now();
            if now >= *end && !(self.begun && may_pause) {
                let details = "memory was short for the listener's body_timeout";
                let error = BodyError::new(BodyFault::Internal, BodyReason::Overload, details);
                return Poll::Ready(Err(error));
            }
            timer.as_mut().reset(now + LOOK);
        }
        Poll::Ready(Ok(()))
    }
}
