//! What all VMs of the process share: shared data, shared queues, metrics.

use std::sync::Arc;

use crate::ledger::{Ledger, Ledgers};
use crate::metrics::Metrics;

mod bounds;
mod data;
mod hold;
mod mailbox;
mod queues;

pub use bounds::Bounds;
pub(crate) use bounds::InstancePermit;
pub(crate) use data::{Added, Namespace, SharedData};
pub(crate) use hold::Hold;
pub(crate) use mailbox::Mailbox;
pub(crate) use queues::{KnownQueues, Queue, Queues, Registrant, Tenant};

/// What all VMs of the process share. One per process (a trial run of a configuration has its own).
#[derive(Debug, Default)]
pub struct Shared {
    data: SharedData,
    queues: Queues,
    metrics: Arc<Metrics>,
    ledgers: Ledgers,
    bounds: Arc<Bounds>,
}

impl Shared {
    /// Empty.
    pub fn new() -> Arc<Shared> {
        Arc::new(Shared::default())
    }

    /// The metrics that filters keep.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// What plugins have used and how they failed, by their names.
    pub fn ledgers(&self) -> Vec<(String, Arc<Ledger>)> {
        self.ledgers.all()
    }

    /// What all plugins may use together.
    pub fn bounds(&self) -> &Arc<Bounds> {
        &self.bounds
    }

    pub(crate) fn ledger(&self, name: &str) -> Arc<Ledger> {
        self.ledgers.of(name)
    }

    pub(crate) fn data(&self) -> &SharedData {
        &self.data
    }

    pub(crate) fn queues(&self) -> &Queues {
        &self.queues
    }
}

/// Locks; a thread that panicked while it held the lock left the map whole, as no step in between can fail.
pub(crate) fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
