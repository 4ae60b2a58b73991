//! One endpoint: its address, its unused connections and its counts, as one worker sees it.

use std::cell::Cell;
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::pool::Pool;

/// One server of a cluster.
pub struct Endpoint {
    address: SocketAddr,
    pool: Rc<Pool>,
    in_flight: Cell<usize>,
}

impl Endpoint {
    pub(super) fn new(address: SocketAddr, idle_timeout: Duration) -> Endpoint {
        Endpoint { address, pool: Pool::new(idle_timeout), in_flight: Cell::new(0) }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Exchanges of this worker that it works on right now.
    pub fn in_flight(&self) -> usize {
        self.in_flight.get()
    }

    /// Connections of this worker that wait for the next request.
    pub fn idle_connections(&self) -> usize {
        self.pool.len()
    }

    pub(super) fn pool(&self) -> &Rc<Pool> {
        &self.pool
    }

    pub(super) fn begin(&self) {
        self.in_flight.set(self.in_flight.get() + 1);
    }

    pub(super) fn end(&self) {
        self.in_flight.set(self.in_flight.get().saturating_sub(1));
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("address", &self.address)
            .field("in_flight", &self.in_flight.get())
            .field("idle_connections", &self.pool.len())
            .finish()
    }
}
