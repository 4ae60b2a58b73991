//! One endpoint: its address, its unused connections and its counts, as one worker sees it.

use std::cell::Cell;
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::balance::Candidate;
use super::http2;
use super::levels::Standing;
use super::limits::Limits;
use super::pool::Pool;
use super::shared::SharedEndpoint;

/// One server of a cluster.
pub struct Endpoint {
    /// Its number among the cluster's.
    index: usize,
    weight: f64,
    priority: u32,
    shared: Arc<SharedEndpoint>,
    standing: Standing,
    pool: Rc<Pool>,
    http2: Rc<http2::Connections>,
    in_flight: Cell<usize>,
    limits: Arc<Limits>,
}

impl Endpoint {
    pub(super) fn new(
        index: usize,
        configuration: &meshgate_config::Endpoint,
        shared: &Arc<SharedEndpoint>,
        limits: &Arc<Limits>,
        idle_timeout: Duration,
    ) -> Endpoint {
        let weight = f64::from(configuration.weight.max(1));
        Endpoint {
            index,
            weight,
            priority: configuration.priority,
            shared: Arc::clone(shared),
            standing: Standing::new(weight),
            pool: Pool::new(idle_timeout, limits),
            http2: http2::Connections::new(configuration.address, idle_timeout, limits),
            in_flight: Cell::new(0),
            limits: Arc::clone(limits),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.shared.address()
    }

    /// Exchanges of this worker that it works on right now.
    pub fn in_flight(&self) -> usize {
        self.in_flight.get()
    }

    /// Connections of this worker that wait for the next request.
    pub fn idle_connections(&self) -> usize {
        self.pool.len() + self.http2.idle()
    }

    /// Its connections for HTTP/2.
    pub(super) fn http2(&self) -> &Rc<http2::Connections> {
        &self.http2
    }

    pub(super) fn pool(&self) -> &Rc<Pool> {
        &self.pool
    }

    /// Its cluster's limits.
    pub(super) fn limits(&self) -> &Arc<Limits> {
        &self.limits
    }

    pub(super) fn index(&self) -> usize {
        self.index
    }

    pub(super) fn priority(&self) -> u32 {
        self.priority
    }

    /// Its weight as configured, without slow start.
    pub(super) fn full_weight(&self) -> f64 {
        self.weight
    }

    pub(super) fn shared(&self) -> &Arc<SharedEndpoint> {
        &self.shared
    }

    pub(super) fn standing(&self) -> &Standing {
        &self.standing
    }

    pub(super) fn is_usable(&self) -> bool {
        self.standing.is_usable()
    }

    pub(super) fn begin(&self) {
        self.in_flight.set(self.in_flight.get() + 1);
        self.shared.begin();
    }

    pub(super) fn end(&self) {
        self.in_flight.set(self.in_flight.get().saturating_sub(1));
        self.shared.end();
    }
}

impl Candidate for Rc<Endpoint> {
    fn weight(&self) -> f64 {
        self.standing.weight()
    }

    fn in_flight(&self) -> usize {
        self.shared.in_flight()
    }

    fn latency(&self) -> f64 {
        self.shared.latency().seconds()
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("address", &self.address())
            .field("in_flight", &self.in_flight.get())
            .field("idle_connections", &self.idle_connections())
            .finish()
    }
}
