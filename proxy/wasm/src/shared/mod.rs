//! What all VMs of the process share: shared data, shared queues, metrics.

use std::sync::Arc;

use crate::metrics::Metrics;

mod data;
mod queues;

pub(crate) use data::{Namespace, SharedData};
pub(crate) use queues::{Mailbox, Queues};

/// What all VMs of the process share. One per process (a trial run of a configuration has its own).
#[derive(Debug, Default)]
pub struct Shared {
    data: SharedData,
    queues: Queues,
    metrics: Arc<Metrics>,
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

    pub(crate) fn data(&self) -> &SharedData {
        &self.data
    }

    pub(crate) fn queues(&self) -> &Queues {
        &self.queues
    }
}

/// Locks; a thread that panicked while it held the lock left the map whole, as no step in between can fail.
fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
