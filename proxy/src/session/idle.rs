//! The clock of a session: it ends when nothing passed in either direction for too long.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep};

use super::end::End;
use super::record::Record;

/// One timer per session. Bytes that pass only leave a note of when they did; the timer looks at it when it fires.
pub(super) struct Idle {
    timer: Pin<Box<Sleep>>,
}

impl Idle {
    pub(super) fn new(record: &Record) -> Idle {
        Idle { timer: Box::pin(tokio::time::sleep(record.listener.config.idle_timeout)) }
    }

    /// Ready with the session's end when the time is up.
    pub(super) fn poll<T>(&mut self, record: &Record, cx: &mut Context<'_>) -> Poll<Result<T, End>> {
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let due = record.last_passed() + record.listener.config.idle_timeout;
            if due <= Instant::now() {
                return Poll::Ready(Err(End::Idle));
            }
            self.timer.as_mut().reset(due);
        }
    }
}
