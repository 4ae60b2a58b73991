//! Connections that wait for the next request, per endpoint and worker.
//!
//! The one used last is used next: the others grow old and are closed, so the pool shrinks to what the load needs.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::time::Duration;

use super::connect::Connection;

/// Most connections kept per endpoint and worker; more are closed when their exchange ends.
const MAX_IDLE: usize = 256;

/// The age of an idle connection is counted in sweeps, so that keeping one costs no look at the clock.
const SWEEPS_PER_TIMEOUT: u32 = 8;

/// An endpoint's idle connections.
pub(super) struct Pool {
    idle: RefCell<Vec<Idle>>,
    idle_timeout: Duration,
    sweep: Cell<u32>,
    sweeping: Cell<bool>,
}

struct Idle {
    connection: Connection,
    since: u32,
}

impl Pool {
    pub(super) fn new(idle_timeout: Duration) -> Rc<Pool> {
        Rc::new(Pool {
            idle: RefCell::default(),
            idle_timeout,
            sweep: Cell::new(0),
            sweeping: Cell::new(false),
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

    /// The connection used last that is still open.
    pub(super) fn take(&self) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        while let Some(Idle { connection, .. }) = idle.pop() {
            if connection.is_open() {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection on which everything was sent and read.
    pub(super) fn put(self: &Rc<Self>, mut connection: Connection) {
        if !connection.is_open() || self.idle_timeout.is_zero() {
            return;
        }
        connection.reused = true;
        let mut idle = self.idle.borrow_mut();
        if idle.len() < MAX_IDLE {
            idle.push(Idle { connection, since: self.sweep.get() });
        }
        drop(idle);
        if !self.sweeping.replace(true) {
            tokio::task::spawn_local(sweep(Rc::downgrade(self), self.idle_timeout / SWEEPS_PER_TIMEOUT));
        }
    }

    /// Closes what grew too old or was closed by the peer. False when nothing is left.
    fn close_expired(&self) -> bool {
        let now = self.sweep.get().wrapping_add(1);
        self.sweep.set(now);
        let mut idle = self.idle.borrow_mut();
        idle.retain(|idle| idle.connection.is_open() && now.wrapping_sub(idle.since) <= SWEEPS_PER_TIMEOUT);
        !idle.is_empty()
    }
}

/// Runs while the pool holds connections; `Pool::put` starts it again.
async fn sweep(pool: Weak<Pool>, period: Duration) {
    loop {
        tokio::time::sleep(period).await;
        let Some(pool) = pool.upgrade() else { return };
        if !pool.close_expired() {
            pool.sweeping.set(false);
            return;
        }
    }
}
