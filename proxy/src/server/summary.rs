//! What the admin API shows of a snapshot.

use std::path::Path;
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::admin::{FilterSummary, SnapshotSummary};
use crate::snapshot::Snapshot;
use meshgate_config::{Config, FilterConfiguration, FilterUse};

/// The snapshot in the words of the admin API.
pub(super) fn summarize(snapshot: &Snapshot, file: &Path) -> SnapshotSummary {
    let config = &snapshot.config;
    let chains = config.chains.iter().flat_map(|chain| chain.filters.iter().map(|_| &chain.name));
    let filters = snapshot.filters().zip(chains).map(|((filter, spec), chain)| FilterSummary {
        name: filter.name.clone(),
        chain: chain.clone(),
        module: filter.module.to_string(),
        plugin: spec.clone(),
    });
    SnapshotSummary {
        version: snapshot.version.clone(),
        loaded: SystemTime::now(),
        file: file.to_owned(),
        configuration: configuration(config),
        filters: filters.collect(),
    }
}

/// The configuration as it was understood: defaults filled in, names resolved, sub-chains as chains.
fn configuration(config: &Config) -> Value {
    json!({
        "admin": config.admin.as_ref().map(|admin| json!({"address": admin.address.to_string()})),
        "listeners": config.listeners.iter().map(|listener| json!({
            "name": listener.name,
            "address": listener.address.to_string(),
            "chain": config.chain(listener.chain).name,
            "cluster": listener.cluster,
            "request_timeout_ms": listener.request_timeout.map(|timeout| timeout.as_millis() as u64),
            "max_request_body": listener.max_request_body,
        })).collect::<Vec<_>>(),
        "chains": config.chains.iter().map(|chain| {
            let filters = chain.filters.iter().map(filter).collect();
            (chain.name.clone(), Value::Array(filters))
        }).collect::<serde_json::Map<_, _>>(),
        "clusters": config.clusters.iter().map(|cluster| json!({
            "name": cluster.name,
            "endpoints": cluster.endpoints.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "connect_timeout_ms": cluster.connect_timeout.as_millis() as u64,
            "idle_timeout_ms": cluster.idle_timeout.as_millis() as u64,
        })).collect::<Vec<_>>(),
    })
}

fn filter(filter: &FilterUse) -> Value {
    let configuration = match &filter.configuration {
        FilterConfiguration::Text(text) => Value::from(text.as_str()),
        FilterConfiguration::Json(value) => value.clone(),
    };
    json!({
        "name": filter.name,
        "module": filter.module.to_string(),
        "configuration": configuration,
        "limits": {
            "time_ms": filter.limits.time.as_millis() as u64,
            "memory": filter.limits.memory,
            "body": filter.limits.body,
        },
    })
}
