//! The clusters and their endpoints: the page and the metrics.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};

use super::filters::escaped;
use super::state::{ClusterSummary, State};
use crate::upstream::Limits;
use crate::upstream::limits::Usage;

/// `/clusters`: every cluster with its endpoints, and which of these are left out.
pub(super) fn page(state: &State) -> Value {
    let snapshot = state.snapshot();
    let clusters = snapshot.as_ref().map_or(&[][..], |snapshot| &snapshot.clusters);
    let clusters: Vec<Value> = clusters.iter().map(describe).collect();
    json!({ "version": snapshot.map(|snapshot| snapshot.version.clone()), "clusters": clusters })
}

fn describe(cluster: &ClusterSummary) -> Value {
    let now = Instant::now();
    let endpoints = cluster.configuration.endpoints.iter().zip(cluster.shared.endpoints());
    let endpoints: Vec<Value> = endpoints
        .map(|(endpoint, shared)| {
            let away = cluster.shared.away(shared, now);
            json!({
                "address": endpoint.address.to_string(),
                "weight": endpoint.weight,
                "priority": endpoint.priority,
                "ejected_for_ms": away.map(|away| u64::try_from(away.as_millis()).unwrap_or(u64::MAX)),
                "ejections": shared.ejections(),
                "active_requests": shared.in_flight(),
            })
        })
        .collect();
    let limits = cluster.shared.limits();
    let limits: serde_json::Map<String, Value> = LIMITS
        .iter()
        .map(|(name, usage)| {
            let usage = usage(limits);
            let shown = json!({ "now": usage.now(), "most": usage.most(), "overflows": usage.overflows() });
            ((*name).to_owned(), shown)
        })
        .collect();
    json!({ "name": cluster.configuration.name, "limits": limits, "endpoints": endpoints })
}

/// One of a cluster's limits.
type Limit = fn(&Limits) -> &Usage;

/// The limits by the names of their keys.
const LIMITS: [(&str, Limit); 4] = [
    ("connections", Limits::connections),
    ("pending_requests", Limits::pending),
    ("active_requests", Limits::requests),
    ("retries", Limits::retries),
];

/// Appends what clusters do to `/metrics`.
pub(super) fn metrics(state: &Arc<State>, out: &mut String) {
    let Some(snapshot) = state.snapshot() else { return };
    limits(&snapshot.clusters, out);
    outliers(&snapshot.clusters, out);
}

/// What is in use of each cluster.
fn limits(clusters: &[ClusterSummary], out: &mut String) {
    if clusters.is_empty() {
        return;
    }
    let mut series = |name: &str, kind: &str, help: &str, value: &dyn Fn(&Usage) -> u64| {
        // Writing to a String cannot fail.
        let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        for cluster in clusters {
            let name_of = escaped(&cluster.configuration.name);
            for (limit, usage) in LIMITS {
                let value = value(usage(cluster.shared.limits()));
                let _ = writeln!(out, "{name}{{cluster=\"{name_of}\",limit=\"{limit}\"}} {value}");
            }
        }
    };
    series("meshgate_cluster_in_use", "gauge", "What counts against the cluster's limits.", &|usage| {
        usage.now() as u64
    });
    series("meshgate_cluster_limit", "gauge", "How much of it there may be.", &|usage| usage.most() as u64);
    let help = "How often a limit was met: for connections something waited, the others refused.";
    series("meshgate_cluster_overflows_total", "counter", help, &Usage::overflows);
}

/// What outlier detection does.
fn outliers(clusters: &[ClusterSummary], out: &mut String) {
    let now = Instant::now();
    let watched: Vec<&ClusterSummary> =
        clusters.iter().filter(|cluster| cluster.configuration.outlier_detection.is_some()).collect();
    if watched.is_empty() {
        return;
    }
    let mut series = |name: &str, kind: &str, help: &str, value: &dyn Fn(&ClusterSummary, usize) -> u64| {
        // Writing to a String cannot fail.
        let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        for cluster in &watched {
            for (index, endpoint) in cluster.shared.endpoints().iter().enumerate() {
                let (name_of, address) = (escaped(&cluster.configuration.name), endpoint.address());
                let value = value(cluster, index);
                let _ = writeln!(out, "{name}{{cluster=\"{name_of}\",endpoint=\"{address}\"}} {value}");
            }
        }
    };
    series(
        "meshgate_endpoint_ejected",
        "gauge",
        "1 while outlier detection leaves the endpoint out.",
        &|cluster, index| {
            let endpoint = cluster.shared.endpoints().get(index);
            u64::from(endpoint.is_some_and(|endpoint| cluster.shared.away(endpoint, now).is_some()))
        },
    );
    let ejections = |cluster: &ClusterSummary, index: usize| {
        cluster.shared.endpoints().get(index).map_or(0, |endpoint| endpoint.ejections())
    };
    series("meshgate_endpoint_ejections_total", "counter", "Ejections by outlier detection.", &ejections);
}
