//! What all VMs of the process share: shared data, shared queues, metrics.

use std::sync::Arc;

use crate::metrics::Metrics;

/// What all VMs of the process share. One per process (a trial run of a configuration has its own).
#[derive(Debug, Default)]
pub struct Shared {
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
}
