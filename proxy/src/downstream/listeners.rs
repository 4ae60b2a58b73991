//! The listeners' counters, summed over the workers when somebody asks.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};

use super::{ByAddress, ListenerStats};
use crate::telemetry::Registry;

type ByName = BTreeMap<String, Vec<Arc<ListenerStats>>>;

/// The counters of all listeners that ever were: counters do not go away with what they counted.
#[derive(Debug, Default)]
pub struct Listeners {
    stats: Mutex<ByName>,
    addresses: Mutex<BTreeMap<String, Arc<ByAddress>>>,
}

/// Name, type, help and value of a metric.
type Metric = (&'static str, &'static str, &'static str, fn(&ListenerStats) -> u64);

const METRICS: [Metric; 14] = [
    ("connections_total", "counter", "Connections accepted", ListenerStats::accepted),
    ("connections_active", "gauge", "Connections that are open", ListenerStats::active),
    (
        "connections_rejected_total",
        "counter",
        "Connections closed at once for being too many",
        ListenerStats::rejected,
    ),
    (
        "connections_crowded_total",
        "counter",
        "Connections closed because their client's address had too many",
        ListenerStats::crowded,
    ),
    (
        "connections_timed_out_total",
        "counter",
        "Connections closed for being too slow",
        ListenerStats::timed_out,
    ),
    (
        "connections_malformed_total",
        "counter",
        "Connections closed for what came not being acceptable HTTP",
        ListenerStats::malformed,
    ),
    (
        "connections_flooded_total",
        "counter",
        "Connections closed for too many HTTP/2 frames that carry nothing",
        ListenerStats::flooded,
    ),
    (
        "connections_unproxied_total",
        "counter",
        "Connections closed for having no PROXY protocol header that is believed",
        ListenerStats::unproxied,
    ),
    (
        "connections_drained_total",
        "counter",
        "Connections told to leave because their listener drains or has other terms now",
        ListenerStats::drained,
    ),
    (
        "accept_errors_total",
        "counter",
        "Times that accepting failed for want of a resource",
        ListenerStats::accept_errors,
    ),
    ("tls_handshakes_total", "counter", "TLS handshakes that came to their end", ListenerStats::handshakes),
    (
        "tls_handshakes_resumed_total",
        "counter",
        "TLS handshakes by which a session was taken up again",
        ListenerStats::handshakes_resumed,
    ),
    (
        "tls_handshakes_failed_total",
        "counter",
        "Connections closed because their TLS handshake failed",
        ListenerStats::handshakes_failed,
    ),
    (
        "tls_handshakes_timed_out_total",
        "counter",
        "Connections closed because their TLS handshake took too long, or was the oldest of too many",
        ListenerStats::handshakes_timed_out,
    ),
];

impl Listeners {
    /// No counters yet; what is added appears in the registry's metrics.
    pub fn register(registry: &Registry) -> Arc<Listeners> {
        let listeners = Arc::new(Listeners::default());
        let shown = Arc::clone(&listeners);
        registry.append(move |out| render(&shown.stats.lock().unwrap_or_else(PoisonError::into_inner), out));
        listeners
    }

    /// The connections of a listener by client address, counted over all workers.
    pub fn addresses(&self, name: &str) -> Arc<ByAddress> {
        let mut all = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(name.to_owned()).or_default())
    }

    /// Adds the counters of one worker's part of a listener.
    pub fn add(&self, name: &str, stats: &Arc<ListenerStats>) {
        let mut all = self.stats.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(name.to_owned()).or_default().push(Arc::clone(stats));
    }
}

fn render(listeners: &ByName, out: &mut String) {
    for (name, kind, help, value) in METRICS {
        let metric = format!("meshgate_downstream_{name}");
        // Writing to a string does not fail.
        let _ = write!(out, "# HELP {metric} {help}\n# TYPE {metric} {kind}\n");
        for (listener, workers) in listeners {
            let sum: u64 = workers.iter().map(|stats| value(stats)).fold(0, u64::wrapping_add);
            // A listener's name has no character that the format would need escaped but these.
            let listener = listener.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = writeln!(out, "{metric}{{listener=\"{listener}\"}} {sum}");
        }
    }
}
