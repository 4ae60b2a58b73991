//! One attempt at sending a request, for whoever gives it up when it takes too long: was that the endpoint's fault?

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Instant;

use super::cluster::Cluster;
use super::endpoint::Endpoint;
use super::outlier::Outcome;

/// Whether a request waits in this process because its cluster's limits leave it no connection. Time spent so says nothing
/// about the endpoint. It stays true when the wait is given up.
#[derive(Debug, Default)]
pub struct Queued(Cell<bool>);

impl Queued {
    /// Whether it waits, or waited to the end.
    pub fn is_waiting(&self) -> bool {
        self.0.get()
    }

    /// It waits from here on.
    pub(super) fn begin(&self) {
        self.0.set(true);
    }

    /// It waits no longer.
    pub(super) fn end(&self) {
        self.0.set(false);
    }
}

/// A call that waits for the head of its response: where, and since when.
#[derive(Debug, Default)]
pub(super) struct Attempt {
    sent: RefCell<Option<(Rc<Endpoint>, Instant)>>,
    pub(super) queued: Queued,
}

impl Attempt {
    pub(super) fn begin(&self, endpoint: &Rc<Endpoint>, sent: Instant) {
        self.sent.replace(Some((Rc::clone(endpoint), sent)));
    }

    pub(super) fn end(&self) {
        self.sent.take();
    }

    /// The call's time is over. If the endpoint had the request and no head has come, it has not answered.
    pub(super) fn is_late(&self, cluster: &Cluster) {
        if let Some((endpoint, sent)) = self.sent.take()
            && !self.queued.is_waiting()
        {
            cluster.report(&endpoint, Outcome::NoAnswer, sent.elapsed());
        }
    }
}
