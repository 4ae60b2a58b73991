//! What the access log counts about itself.

use prometheus_client::metrics::counter::Counter;

use crate::telemetry::Registry;

/// Lines written and lines lost.
#[derive(Debug, Clone, Default)]
pub(super) struct AccessLogMetrics {
    pub(super) written: Counter,
    pub(super) dropped: Counter,
}

impl AccessLogMetrics {
    pub(super) fn register(registry: &Registry) -> Self {
        let metrics = Self::default();
        registry.area(|area| {
            area.register("access_log_lines_written", "Access log lines written", metrics.written.clone());
            area.register(
                "access_log_lines_dropped",
                "Access log lines lost because the output was too slow or failed",
                metrics.dropped.clone(),
            );
        });
        metrics
    }
}
