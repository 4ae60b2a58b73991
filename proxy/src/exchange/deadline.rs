//! An exchange's timeout: from the end of the request to the end of the response, and no later than a client that said how
//! long it waits.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// A timeout that begins to run when the request has been received as a whole. Without one, nothing is armed.
#[derive(Debug)]
pub(super) struct Deadline {
    timeout: Option<Duration>,
    started: bool,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    pub(super) fn new(timeout: Option<Duration>) -> Deadline {
        Deadline { timeout, started: false, timer: None }
    }

    /// Sets the time, before it runs.
    pub(super) fn limit(&mut self, timeout: Option<Duration>) {
        self.timeout = timeout;
    }

    /// The time runs from here, unless it does already.
    pub(super) fn start(&mut self) {
        if let Some(timeout) = self.timeout.filter(|_| !self.started) {
            self.end_within(timeout);
        }
        self.started = true;
    }

    /// It ends after so long, if it would not end sooner.
    pub(super) fn end_within(&mut self, time: Duration) {
        let end = Instant::now() + time;
        if self.timer.as_ref().is_none_or(|timer| timer.deadline() > end) {
            self.timer = Some(Box::pin(sleep_until(end)));
        }
    }

    /// How much time there is; none if there is no limit.
    pub(super) fn left(&self) -> Option<Duration> {
        match &self.timer {
            Some(timer) => Some(timer.deadline().saturating_duration_since(Instant::now())),
            None => self.timeout,
        }
    }

    /// Ready when the time is up.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(timer) = &mut self.timer else { return Poll::Pending };
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(())
    }
}
