//! The clusters and their endpoints: the page and the metrics.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Instant;

use meshgate_config::{Discovery, LoadBalancer};
use serde_json::{Value, json};

use super::filters::escaped;
use super::state::{ClusterSummary, State};
use crate::upstream::limits::Usage;
use crate::upstream::{Health, Limits, Member};

/// `/clusters`: every cluster with its endpoints, and which of these are left out.
pub(super) fn page(state: &State) -> Value {
    let snapshot = state.snapshot();
    let clusters = snapshot.as_ref().map_or(&[][..], |snapshot| &snapshot.clusters);
    let clusters: Vec<Value> = clusters.iter().map(describe).collect();
    json!({ "version": snapshot.map(|snapshot| snapshot.version.clone()), "clusters": clusters })
}

fn describe(cluster: &ClusterSummary) -> Value {
    let now = Instant::now();
    let (configuration, shared) = (&cluster.configuration, &cluster.shared);
    let members = shared.members();
    let ours = members.iter().filter(|member| configuration.holds(member.configuration()));
    let limits = shared.limits_of(configuration);
    let limits: serde_json::Map<String, Value> = LIMITS
        .iter()
        .map(|(name, usage)| {
            let usage = usage(&limits);
            let shown = json!({ "now": usage.now(), "most": usage.most(), "overflows": usage.overflows() });
            ((*name).to_owned(), shown)
        })
        .collect();
    json!({
        "name": configuration.name,
        "subset_of": configuration.subset.as_ref().map(|subset| &subset.of),
        "discovery": discovery(cluster),
        "limits": limits,
        "endpoints": ours.map(|member| endpoint(cluster, member, now)).collect::<Vec<_>>(),
    })
}

fn discovery(cluster: &ClusterSummary) -> Value {
    let kind = match cluster.configuration.discovery {
        Discovery::Static => return json!({ "from": "configuration" }),
        Discovery::Dns(_) => "dns",
        Discovery::File(_) => "file",
    };
    let source = cluster.shared.source();
    json!({
        "from": kind,
        "updates": source.updates(),
        "failures": source.failures(),
        "error": source.error(),
    })
}

fn endpoint(cluster: &ClusterSummary, member: &Member, now: Instant) -> Value {
    let (described, known) = (member.configuration(), member.shared());
    let away = cluster.shared.away(known, now);
    let (checks, failed) = known.checks();
    let latency = match cluster.configuration.load_balancer {
        LoadBalancer::PeakEwma => Some(known.average_latency() * 1_000.0),
        _ => None,
    };
    let locality = &described.locality;
    json!({
        "address": described.address.to_string(),
        "weight": described.weight,
        "priority": described.priority,
        "labels": described.labels,
        "locality": [&locality.region, &locality.zone, &locality.subzone],
        "health": known.health().word(),
        "checks": checks,
        "failed_checks": failed,
        "ejected_for_ms": away.map(|away| u64::try_from(away.as_millis()).unwrap_or(u64::MAX)),
        "ejections": known.ejections(),
        "active_requests": known.in_flight(),
        "latency_ms": latency,
    })
}

/// One of a cluster's limits.
type Limit = fn(&Limits) -> &Usage;

/// The limits by the names of their keys.
const LIMITS: [(&str, Limit); 5] = [
    ("connections", Limits::connections),
    ("pending_requests", Limits::pending),
    ("active_requests", Limits::requests),
    ("retries", Limits::retries),
    ("interim_responses", Limits::interim_responses),
];

/// Appends what clusters do to `/metrics`.
pub(super) fn metrics(state: &Arc<State>, out: &mut String) {
    let Some(snapshot) = state.snapshot() else { return };
    let mut page = Page { clusters: &snapshot.clusters, now: Instant::now(), out };
    page.tls_failures();
    page.limits();
    page.endpoints();
}

/// The metrics under way.
struct Page<'a> {
    clusters: &'a [ClusterSummary],
    now: Instant,
    out: &'a mut String,
}

impl Page<'_> {
    fn tls_failures(&mut self) {
        if !self.clusters.iter().any(|cluster| cluster.tls_failures.is_some()) {
            return;
        }
        let name = "meshgate_upstream_tls_failures_total";
        self.head(name, "counter", "Connections to endpoints that came to nothing because TLS failed.");
        for cluster in self.clusters {
            let of = escaped(&cluster.configuration.name);
            for (reason, count) in cluster.tls_failures.iter().flat_map(|failures| failures.counts()) {
                let reason = reason.label();
                // Writing to a String cannot fail.
                let _ = writeln!(self.out, "{name}{{cluster=\"{of}\",reason=\"{reason}\"}} {count}");
            }
        }
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = write!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    /// What is in use of each cluster.
    fn limits(&mut self) {
        self.limit(
            "meshgate_cluster_in_use",
            "gauge",
            "What counts against the cluster's limits.",
            |usage| usage.now() as u64,
        );
        let help = "How much of it there may be.";
        self.limit("meshgate_cluster_limit", "gauge", help, |usage| usage.most() as u64);
        let help = "How often a limit was met: for connections something waited, the others refused.";
        self.limit("meshgate_cluster_overflows_total", "counter", help, Usage::overflows);
        self.retries();
    }

    /// How often requests were sent again; a request that was counts once everywhere else.
    fn retries(&mut self) {
        if self.clusters.is_empty() {
            return;
        }
        let name = "meshgate_cluster_retries_total";
        self.head(name, "counter", "Tries that were not a request's first.");
        for cluster in self.clusters {
            let of = escaped(&cluster.configuration.name);
            let retried = cluster.shared.limits_of(&cluster.configuration).retried();
            let _ = writeln!(self.out, "{name}{{cluster=\"{of}\"}} {retried}");
        }
    }

    fn limit(&mut self, name: &str, kind: &str, help: &str, value: impl Fn(&Usage) -> u64) {
        if self.clusters.is_empty() {
            return;
        }
        self.head(name, kind, help);
        for cluster in self.clusters {
            let cluster_name = escaped(&cluster.configuration.name);
            let limits = cluster.shared.limits_of(&cluster.configuration);
            for (limit, usage) in LIMITS {
                let value = value(usage(&limits));
                let _ = writeln!(self.out, "{name}{{cluster=\"{cluster_name}\",limit=\"{limit}\"}} {value}");
            }
        }
    }

    /// What is known of each cluster's endpoints; a subset's are its cluster's.
    fn endpoints(&mut self) {
        let ejecting = |cluster: &ClusterSummary| cluster.configuration.outlier_detection.is_some();
        let (name, help) =
            ("meshgate_endpoint_ejected", "1 while outlier detection leaves the endpoint out.");
        let now = self.now;
        self.endpoint(name, "gauge", help, ejecting, |cluster, member| {
            u64::from(cluster.shared.away(member.shared(), now).is_some())
        });
        let (name, help) = ("meshgate_endpoint_ejections_total", "Ejections by outlier detection.");
        self.endpoint(name, "counter", help, ejecting, |_, member| member.shared().ejections());

        let checking = |cluster: &ClusterSummary| cluster.configuration.health_check.is_some();
        let (name, help) = ("meshgate_endpoint_healthy", "1 while health checks find the endpoint well.");
        self.endpoint(name, "gauge", help, checking, |_, member| {
            u64::from(member.shared().health() == Health::Healthy)
        });
        let (name, help) = ("meshgate_endpoint_health_checks_total", "Health checks of the endpoint.");
        self.endpoint(name, "counter", help, checking, |_, member| member.shared().checks().0);
        let (name, help) = ("meshgate_endpoint_failed_health_checks_total", "Those that it failed.");
        self.endpoint(name, "counter", help, checking, |_, member| member.shared().checks().1);

        self.cluster(
            "meshgate_cluster_endpoints",
            "gauge",
            "Endpoints.",
            |_| true,
            |cluster| cluster.shared.members().len() as u64,
        );
        let following = |cluster: &ClusterSummary| cluster.configuration.discovery != Discovery::Static;
        let (name, help) = (
            "meshgate_cluster_discovery_updates_total",
            "Answers of DNS, or loads of the file, that could be used.",
        );
        self.cluster(name, "counter", help, following, |cluster| cluster.shared.source().updates());
        let (name, help) =
            ("meshgate_cluster_discovery_failures_total", "Those that could not: the last list stands.");
        self.cluster(name, "counter", help, following, |cluster| cluster.shared.source().failures());
    }

    fn endpoint(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        which: impl Fn(&ClusterSummary) -> bool,
        value: impl Fn(&ClusterSummary, &Member) -> u64,
    ) {
        let clusters: Vec<&ClusterSummary> =
            self.clusters.iter().filter(|one| one.is_whole() && which(one)).collect();
        if clusters.is_empty() {
            return;
        }
        self.head(name, kind, help);
        for cluster in clusters {
            let cluster_name = escaped(&cluster.configuration.name);
            for member in cluster.shared.members().iter() {
                let (address, value) = (member.shared().address(), value(cluster, member));
                let _ =
                    writeln!(self.out, "{name}{{cluster=\"{cluster_name}\",endpoint=\"{address}\"}} {value}");
            }
        }
    }

    fn cluster(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        which: impl Fn(&ClusterSummary) -> bool,
        value: impl Fn(&ClusterSummary) -> u64,
    ) {
        let clusters: Vec<&ClusterSummary> =
            self.clusters.iter().filter(|one| one.is_whole() && which(one)).collect();
        if clusters.is_empty() {
            return;
        }
        self.head(name, kind, help);
        for cluster in clusters {
            let cluster_name = escaped(&cluster.configuration.name);
            let _ = writeln!(self.out, "{name}{{cluster=\"{cluster_name}\"}} {}", value(cluster));
        }
    }
}

impl ClusterSummary {
    /// Whether it is no subset of another one.
    fn is_whole(&self) -> bool {
        self.configuration.subset.is_none()
    }
}
