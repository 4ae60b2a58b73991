//! An exchange's timeout: from the end of the request to the end of the response.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Sleep;

/// A timeout that begins to run when the request has been received as a whole. Without one, nothing is armed.
#[derive(Debug)]
pub(super) struct Deadline {
    timeout: Option<Duration>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    pub(super) fn new(timeout: Option<Duration>) -> Deadline {
        Deadline { timeout, timer: None }
    }

    /// Sets the time, before it runs.
    pub(super) fn limit(&mut self, timeout: Option<Duration>) {
        self.timeout = timeout;
    }

    /// The time runs from here, unless it does already.
    pub(super) fn start(&mut self) {
        if self.timer.is_none() {
            self.timer = self.timeout.map(|timeout| Box::pin(tokio::time::sleep(timeout)));
        }
    }

    /// Ready when the time is up.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(timer) = &mut self.timer else { return Poll::Pending };
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(())
    }
}
