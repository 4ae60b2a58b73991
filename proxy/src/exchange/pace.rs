//! How fast a request's body must come. A client that sends a byte now and then holds an exchange, and a connection to an
//! endpoint, for nothing.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// If the timer is looked at so much later than it fired, it was not the client who was waited for.
const LATE: Duration = Duration::from_secs(1);

/// The pace of one body. A body that is there when it is asked for never arms a timer.
pub(super) struct Pace {
    window: Duration,
    /// Bytes that a window must bring.
    least: u64,
    received: u64,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    pub(super) fn new(window: Duration, per_second: u64) -> Pace {
        let least = u128::from(per_second).saturating_mul(window.as_millis()) / 1000;
        let least = u64::try_from(least).unwrap_or(u64::MAX).max(1);
        Pace { window, least, received: 0, timer: None }
    }

    /// So many bytes came.
    pub(super) fn received(&mut self, bytes: u64) {
        self.received = self.received.saturating_add(bytes);
    }

    /// Nothing is there to be read. Ready when that has gone on, more or less, for a whole window.
    pub(super) fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let window = self.window;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(window)));
        loop {
            ready!(timer.as_mut().poll(cx));
            let late = timer.deadline().elapsed() > LATE;
            if !late && self.received < self.least {
                return Poll::Ready(());
            }
            self.received = 0;
            timer.as_mut().reset(Instant::now() + window);
        }
    }
}
