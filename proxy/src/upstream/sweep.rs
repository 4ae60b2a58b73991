//! How connections that nobody uses come to an end: looked through now and then, and at once when others wait for room.
//!
//! Used by the pool of HTTP/1.1 connections and by the HTTP/2 connections of an endpoint.

use std::cell::Cell;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::limits::Limits;

/// An idle connection's age is counted in sweeps, so that keeping one costs no look at the clock.
const SWEEPS_PER_TIMEOUT: u32 = 8;

/// What holds idle connections.
pub(super) trait Swept: 'static {
    /// When they are looked through.
    fn sweeps(&self) -> &Sweeps;

    /// Closes what grew too old or was closed by the peer. False when nothing is left.
    fn close_expired(&self) -> bool;

    /// Closes idle ones for those who wait elsewhere. False when nothing is left.
    fn make_room(&self) -> bool;
}

/// Time, as somebody who holds connections counts it: in sweeps through them, while there are any.
pub(super) struct Sweeps {
    limits: Arc<Limits>,
    idle_timeout: Duration,
    count: Cell<u32>,
    running: Cell<bool>,
}

impl Sweeps {
    pub(super) fn new(idle_timeout: Duration, limits: &Arc<Limits>) -> Sweeps {
        let limits = Arc::clone(limits);
        Sweeps { limits, idle_timeout, count: Cell::new(0), running: Cell::new(false) }
    }

    /// For [`Sweeps::expired`].
    pub(super) fn now(&self) -> u32 {
        self.count.get()
    }

    /// Whether what has been idle since then was so for longer than it may.
    pub(super) fn expired(&self, since: u32) -> bool {
        self.count.get().wrapping_sub(since) > SWEEPS_PER_TIMEOUT
    }

    /// Whether nothing may be idle at all.
    pub(super) fn keeps_nothing(&self) -> bool {
        self.idle_timeout.is_zero()
    }
}

/// Sweeps until nothing is left; does nothing where that goes on already. To be called when a connection is added.
pub(super) fn start(swept: &Rc<impl Swept>) {
    let sweeps = swept.sweeps();
    if !sweeps.running.replace(true) {
        let period = (sweeps.idle_timeout / SWEEPS_PER_TIMEOUT).max(Duration::from_millis(1));
        tokio::task::spawn_local(sweep(Rc::downgrade(swept), Arc::clone(&sweeps.limits), period));
    }
}

async fn sweep(swept: Weak<impl Swept>, limits: Arc<Limits>, period: Duration) {
    let mut next = Instant::now() + period;
    loop {
        let mut wanted = pin!(limits.wanted());
        // Whoever begins to wait from here on wakes us up, and who did before is seen now.
        wanted.as_mut().enable();
        let Some(open) = swept.upgrade() else { return };
        if !open.make_room() {
            return open.sweeps().running.set(false);
        }
        drop(open);
        tokio::select! {
            () = wanted => continue,
            () = tokio::time::sleep_until(next) => {}
        }
        next += period;
        let Some(open) = swept.upgrade() else { return };
        open.sweeps().count.set(open.sweeps().now().wrapping_add(1));
        if !open.close_expired() {
            return open.sweeps().running.set(false);
        }
    }
}
