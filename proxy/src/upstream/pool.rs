//! Connections that wait for the next request, per endpoint and worker, and the requests that wait for a connection.
//!
//! The one used last is used next: the others grow old and are closed, so the pool shrinks to what the load needs. When
//! the cluster has as many connections as it may have, a request waits for whichever comes first: one of this pool that is
//! free again, or leave to open another one. Idle connections make room for requests that wait elsewhere.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::connect::Connection;
use super::limits::{ConnectionSlot, Limits};
use super::sweep::{self, Sweeps, Swept};

/// Most connections kept per endpoint and worker; more are closed when their exchange ends.
const MAX_IDLE: usize = 256;

/// While others wait too, a pool's connections pass from request to request of its own so many times, and then one is
/// closed for whoever has waited longest.
const MAX_HANDOVERS: u32 = 16;

/// An endpoint's idle connections.
pub(super) struct Pool {
    idle: RefCell<Vec<Idle>>,
    limits: Arc<Limits>,
    /// Requests that wait for one of them.
    waiting: Cell<usize>,
    /// Tells the one who has waited longest that one is free.
    freed: Notify,
    handovers: Cell<u32>,
    sweeps: Sweeps,
}

struct Idle {
    connection: Connection,
    since: u32,
}

/// What was waited for.
pub(super) enum Found {
    /// A connection that is free again.
    Idle(Connection),
    /// Leave to open one.
    Room(ConnectionSlot),
}

/// Why waiting was in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InVain {
    /// Too many wait already.
    TooMany,
    /// It took too long.
    TooLong,
}

impl Pool {
    pub(super) fn new(idle_timeout: Duration, limits: &Arc<Limits>) -> Rc<Pool> {
        Rc::new(Pool {
            idle: RefCell::default(),
            limits: Arc::clone(limits),
            waiting: Cell::new(0),
            freed: Notify::new(),
            handovers: Cell::new(0),
            sweeps: Sweeps::new(idle_timeout, limits),
        })
    }

    pub(super) fn len(&self) -> usize {
        self.idle.borrow().len()
    }

    /// How many of them the peer has not closed, as far as we know.
    #[cfg(test)]
    pub(super) fn open(&self) -> usize {
        self.idle.borrow().iter().filter(|idle| idle.connection.is_open()).count()
    }

    /// The connection used last that is still open, unless somebody has waited for it before.
    pub(super) fn take(&self) -> Option<Connection> {
        if self.waiting.get() == 0 { self.pop() } else { None }
    }

    fn pop(&self) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        while let Some(Idle { connection, .. }) = idle.pop() {
            if connection.is_open() {
                return Some(connection);
            }
        }
        None
    }

    /// Waits for a connection that is free again, or for leave to open one.
    pub(super) async fn wait(&self) -> Result<Found, InVain> {
        let _pending = self.limits.wait().ok_or(InVain::TooMany)?;
        let waiting = Waiting::new(self);
        if self.waiting.get() == 1
            && let Some(connection) = self.pop()
        {
            return Ok(Found::Idle(connection));
        }
        let mut room = pin!(self.limits.next_connection());
        let mut late = pin!(tokio::time::sleep(self.limits.pending_timeout()));
        loop {
            tokio::select! {
                biased;
                () = self.freed.notified() => if let Some(connection) = self.pop() {
                    drop(waiting);
                    // Several may have become free before one who waits had its turn.
                    if self.waiting.get() > 0 && self.len() > 0 {
                        self.freed.notify_one();
                    }
                    return Ok(Found::Idle(connection));
                },
                slot = &mut room => return Ok(Found::Room(slot)),
                () = &mut late => return Err(InVain::TooLong),
            }
        }
    }

    /// Keeps a connection on which everything was sent and read, if it may be used again.
    pub(super) fn put(self: &Rc<Self>, mut connection: Connection) {
        if !connection.is_open() || connection.only_once || !self.may_keep() {
            return;
        }
        connection.reused = true;
        let mut idle = self.idle.borrow_mut();
        if idle.len() < MAX_IDLE {
            idle.push(Idle { connection, since: self.sweeps.now() });
        }
        drop(idle);
        sweep::start(self);
    }

    /// Whether a free connection stays here; if so, somebody who waits for it is told.
    fn may_keep(&self) -> bool {
        let here = self.waiting.get();
        let elsewhere = self.limits.pending().now() > here;
        if here == 0 {
            return !elsewhere && !self.sweeps.keeps_nothing();
        }
        let handovers = self.handovers.get() + 1;
        if elsewhere && handovers > MAX_HANDOVERS {
            self.handovers.set(0);
            return false;
        }
        self.handovers.set(handovers);
        self.freed.notify_one();
        true
    }
}

impl Swept for Pool {
    fn sweeps(&self) -> &Sweeps {
        &self.sweeps
    }

    fn close_expired(&self) -> bool {
        let mut idle = self.idle.borrow_mut();
        idle.retain(|idle| idle.connection.is_open() && !self.sweeps.expired(idle.since));
        !idle.is_empty()
    }

    fn make_room(&self) -> bool {
        let mut idle = self.idle.borrow_mut();
        let here = self.waiting.get();
        let elsewhere = self.limits.shortage().saturating_sub(here);
        let spare = idle.len().saturating_sub(here).min(elsewhere);
        // The oldest come first.
        idle.drain(..spare);
        !idle.is_empty()
    }
}

/// Counts one who waits.
struct Waiting<'a>(&'a Pool);

impl Waiting<'_> {
    fn new(pool: &Pool) -> Waiting<'_> {
        pool.waiting.set(pool.waiting.get() + 1);
        Waiting(pool)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get().saturating_sub(1));
        // One that was meant for us may be what others wait for.
        self.0.make_room();
    }
}
