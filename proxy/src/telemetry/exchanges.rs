//! What is counted of every exchange, by listener. The exchange counts; `snapshot` hands each listener its part.

use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use super::Registry;

type Labels<const N: usize> = [(&'static str, Arc<str>); N];

/// The counters of all exchanges.
#[derive(Clone, Debug, Default)]
pub struct ExchangeMetrics {
    requests: Family<Labels<2>, Counter>,
    flags: Family<Labels<2>, Counter>,
    active: Family<Labels<1>, Gauge>,
    slow_bodies: Family<Labels<1>, Counter>,
    forwarded_malformed: Family<Labels<1>, Counter>,
    mirrored: Family<Labels<2>, Counter>,
    compared: Family<Labels<2>, Counter>,
    upgrades: Family<Labels<1>, Counter>,
    upgrades_active: Family<Labels<1>, Gauge>,
    tcp_received: Family<Labels<1>, Counter>,
    tcp_sent: Family<Labels<1>, Counter>,
    tcp_flags: Family<Labels<2>, Counter>,
}

/// One TCP listener's counters, at hand without a look-up.
#[derive(Clone, Debug)]
pub struct TcpMetrics {
    name: Arc<str>,
    received: Counter,
    sent: Counter,
    flags: Family<Labels<2>, Counter>,
}

/// One listener's counters, at hand without a look-up.
#[derive(Clone, Debug)]
pub struct ListenerMetrics {
    name: Arc<str>,
    all: ExchangeMetrics,
    active: Gauge,
    slow_bodies: Counter,
    forwarded_malformed: Counter,
    upgrades: Counter,
    upgrades_active: Gauge,
    by_class: [Counter; CLASSES.len()],
}

/// `response_code_class`: the first digit of the status. Without a response there is none.
const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

impl ExchangeMetrics {
    /// The counters, as the process shows them.
    #[must_use]
    pub fn register(registry: &Registry) -> ExchangeMetrics {
        let metrics = ExchangeMetrics::default();
        registry.area(|area| {
            area.register(
                "downstream_requests",
                "Requests that ended, by the class of the response's status",
                metrics.requests.clone(),
            );
            area.register(
                "downstream_response_flags",
                "Requests that ended with a response flag",
                metrics.flags.clone(),
            );
            area.register(
                "downstream_requests_active",
                "Requests that have begun and not ended",
                metrics.active.clone(),
            );
            area.register(
                "downstream_slow_bodies",
                "Requests given up because their body came too slowly",
                metrics.slow_bodies.clone(),
            );
            area.register(
                "downstream_forwarded_malformed",
                "Requests of trusted proxies with an x-forwarded-for that is no list of addresses",
                metrics.forwarded_malformed.clone(),
            );
            area.register(
                "mirrored_requests",
                "Copies of requests that were sent to a mirror, by what became of them",
                metrics.mirrored.clone(),
            );
            area.register(
                "mirror_comparisons",
                "Answers of mirrors whose status was compared with that of the endpoint's answer",
                metrics.compared.clone(),
            );
            area.register(
                "downstream_upgrades",
                "Requests after which the connection changed its protocol",
                metrics.upgrades.clone(),
            );
            area.register(
                "downstream_upgrades_active",
                "Connections that have changed their protocol and not ended",
                metrics.upgrades_active.clone(),
            );
            area.register(
                "downstream_tcp_received_bytes",
                "Bytes received from clients of TCP listeners",
                metrics.tcp_received.clone(),
            );
            area.register(
                "downstream_tcp_sent_bytes",
                "Bytes sent to clients of TCP listeners",
                metrics.tcp_sent.clone(),
            );
            area.register(
                "downstream_tcp_response_flags",
                "TCP connections that ended with a response flag",
                metrics.tcp_flags.clone(),
            );
        });
        metrics
    }

    /// The counters of the listener with this name.
    #[must_use]
    pub fn listener(&self, name: &str) -> ListenerMetrics {
        let name: Arc<str> = name.into();
        let by_class = CLASSES.map(|class| {
            let labels = [("listener", Arc::clone(&name)), ("response_code_class", class.into())];
            self.requests.get_or_create_owned(&labels)
        });
        let labels = [("listener", Arc::clone(&name))];
        ListenerMetrics {
            active: self.active.get_or_create_owned(&labels),
            slow_bodies: self.slow_bodies.get_or_create_owned(&labels),
            forwarded_malformed: self.forwarded_malformed.get_or_create_owned(&labels),
            upgrades: self.upgrades.get_or_create_owned(&labels),
            upgrades_active: self.upgrades_active.get_or_create_owned(&labels),
            name,
            all: self.clone(),
            by_class,
        }
    }

    /// The counters of the TCP listener with this name.
    #[must_use]
    pub fn tcp_listener(&self, name: &str) -> TcpMetrics {
        let name: Arc<str> = name.into();
        let labels = [("listener", Arc::clone(&name))];
        TcpMetrics {
            received: self.tcp_received.get_or_create_owned(&labels),
            sent: self.tcp_sent.get_or_create_owned(&labels),
            flags: self.tcp_flags.clone(),
            name,
        }
    }
}

impl TcpMetrics {
    /// Bytes came from the client.
    pub fn received(&self, bytes: u64) {
        self.received.inc_by(bytes);
    }

    /// Bytes went to the client.
    pub fn sent(&self, bytes: u64) {
        self.sent.inc_by(bytes);
    }

    /// A connection ended; `flags` holds the letters of its response flags.
    pub fn end(&self, flags: &str) {
        for flag in flags.split(',').filter(|flag| !flag.is_empty()) {
            let labels = [("listener", Arc::clone(&self.name)), ("flag", flag.into())];
            self.flags.get_or_create(&labels).inc();
        }
    }
}

impl ListenerMetrics {
    /// An exchange begins.
    pub fn begin(&self) {
        self.active.inc();
    }

    /// A request's body came too slowly.
    pub fn slow_body(&self) {
        self.slow_bodies.inc();
    }

    /// A proxy that is believed has said something else than addresses.
    pub fn forwarded_malformed(&self) {
        self.forwarded_malformed.inc();
    }

    /// A copy of a request was sent to this cluster, with this result.
    pub fn mirrored(&self, cluster: &str, result: &'static str) {
        let labels = [("cluster", cluster.into()), ("result", result.into())];
        self.all.mirrored.get_or_create(&labels).inc();
    }

    /// An answer of this mirror had the status of the endpoint's answer, or another one.
    pub fn compared(&self, cluster: &str, same: bool) {
        let result = if same { "same" } else { "different" };
        let labels = [("cluster", cluster.into()), ("result", result.into())];
        self.all.compared.get_or_create(&labels).inc();
    }

    /// A connection has changed its protocol.
    pub fn begin_upgrade(&self) {
        self.upgrades.inc();
        self.upgrades_active.inc();
    }

    /// It has ended.
    pub fn end_upgrade(&self) {
        self.upgrades_active.dec();
    }

    /// An exchange ended. `status` is 0 if there was no response; `flags` holds the letters of its response flags.
    pub fn end(&self, status: u16, flags: &str) {
        self.active.dec();
        let class = usize::from(status / 100);
        self.by_class[if class < CLASSES.len() { class } else { 0 }].inc();
        for flag in flags.split(',').filter(|flag| !flag.is_empty()) {
            let labels = [("listener", Arc::clone(&self.name)), ("flag", flag.into())];
            self.all.flags.get_or_create(&labels).inc();
        }
    }
}
