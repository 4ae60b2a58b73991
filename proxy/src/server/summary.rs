//! What the admin API shows of a snapshot.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::admin::{CertificateSummary, ClusterSummary, FilterSummary, SnapshotSummary};
use crate::snapshot::Snapshot;
use meshgate_config::{
    ClusterProtocol, ClusterTls, Config, Discovery, DnsName, FilterConfiguration, FilterLimits, FilterUse,
    Isolation, ListenerTls, Protocol, ProxyVersion, TlsVersion,
};

/// The snapshot in the words of the admin API.
pub(super) fn summarize(snapshot: &Snapshot, file: &Path) -> SnapshotSummary {
    let config = &snapshot.config;
    let chains = config.chains.iter().flat_map(|chain| chain.filters.iter().map(|_| &chain.name));
    let filters = snapshot.filters().zip(chains).map(|((filter, spec), chain)| FilterSummary {
        name: filter.name.clone(),
        chain: Some(chain.clone()),
        singleton: false,
        module: filter.module.to_string(),
        plugin: spec.clone(),
    });
    let services = snapshot.services().map(|(service, spec)| FilterSummary {
        name: service.name.clone(),
        chain: None,
        singleton: service.singleton,
        module: service.module.to_string(),
        plugin: spec.clone(),
    });
    let clusters = snapshot.clusters().map(|(configuration, shared, tls)| ClusterSummary {
        configuration: configuration.clone(),
        shared: Arc::clone(shared),
        tls_failures: tls.map(|tls| Arc::clone(tls.failures())),
    });
    SnapshotSummary {
        version: snapshot.version.clone(),
        loaded: SystemTime::now(),
        file: file.to_owned(),
        configuration: configuration(config),
        filters: filters.chain(services).collect(),
        clusters: clusters.collect(),
        certificates: certificates(snapshot),
        expiry_warnings: config.expiry_warnings.clone(),
    }
}

/// Every certificate once, with all who use it.
fn certificates(snapshot: &Snapshot) -> Vec<CertificateSummary> {
    let mut certificates: Vec<CertificateSummary> = Vec::new();
    for (user, held) in snapshot.certificates() {
        let same = |known: &&mut CertificateSummary| {
            known.held.file == held.file
                && known.held.role == held.role
                && known.held.facts.sha256 == held.facts.sha256
        };
        match certificates.iter_mut().find(same) {
            Some(known) => known.used_by.push(user),
            None => certificates.push(CertificateSummary { used_by: vec![user], held: held.clone() }),
        }
    }
    certificates
}

/// The configuration as it was understood: defaults filled in, names resolved, sub-chains as chains.
fn configuration(config: &Config) -> Value {
    json!({
        "admin": config.admin.as_ref().map(|admin| json!({"address": admin.address.to_string()})),
        "listeners": config.listeners.iter().map(|listener| json!({
            "name": listener.name,
            "address": listener.address.to_string(),
            "protocol": match listener.protocol {
                Protocol::Http => "http",
                Protocol::Tcp => "tcp",
            },
            "tls": listener.tls.as_ref().map(tls),
            "chain": config.chain(listener.chain).name,
            "cluster": listener.cluster,
            "opaque": listener.opaque.as_ref().map(|opaque| json!({
                "chain": config.chain(opaque.listener.chain).name,
                "cluster": opaque.listener.cluster,
                "timeout_ms": opaque.timeout.as_millis() as u64,
                "idle_timeout_ms": opaque.listener.idle_timeout.as_millis() as u64,
            })),
            "request_timeout_ms": listener.request_timeout.map(|timeout| timeout.as_millis() as u64),
            "max_request_body": listener.max_request_body,
            "proxy_protocol": listener.proxy_protocol.as_ref().map(|protocol| json!({
                "from": protocol.from.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "timeout_ms": protocol.timeout.as_millis() as u64,
            })),
            "forwarded": listener.forwarded.as_ref().map(|forwarded| json!({
                "from": forwarded.from.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "fields": forwarded.fields,
            })),
            "body_timeout_ms": listener.body_timeout.as_millis() as u64,
            "min_body_rate": listener.min_body_rate,
            "stream_idle_timeout_ms": listener.stream_idle_timeout.as_millis() as u64,
            "max_streams": listener.max_streams,
            "max_control_frames": listener.max_control_frames,
            "upgrades": listener.upgrades,
            "upgrade_idle_timeout_ms": listener.upgrade_idle_timeout.as_millis() as u64,
        })).collect::<Vec<_>>(),
        "chains": config.chains.iter().map(|chain| {
            let filters = chain.filters.iter().map(filter).collect();
            (chain.name.clone(), Value::Array(filters))
        }).collect::<serde_json::Map<_, _>>(),
        "services": config.services.iter().map(filter).collect::<Vec<_>>(),
        "clusters": config.clusters.iter().map(|cluster| json!({
            "name": cluster.name,
            "endpoints": cluster.endpoints.iter().map(|endpoint| json!({
                "address": endpoint.address.to_string(),
                "weight": endpoint.weight,
                "priority": endpoint.priority,
                "labels": endpoint.labels,
            })).collect::<Vec<_>>(),
            "subset_of": cluster.subset.as_ref().map(|subset| &subset.of),
            "discovery": match &cluster.discovery {
                Discovery::Static => Value::Null,
                Discovery::Dns(dns) => match &dns.name {
                    DnsName::Host { host, port } => json!({"dns": format!("{host}:{port}")}),
                    DnsName::Srv(name) => json!({"srv": name}),
                },
                Discovery::File(path) => json!({"file": path.display().to_string()}),
            },
            "protocol": match cluster.protocol {
                ClusterProtocol::Http1 => "http1",
                ClusterProtocol::Http2 => "http2",
            },
            "proxy_protocol": cluster.proxy_protocol.map(|version| match version {
                ProxyVersion::V1 => "v1",
                ProxyVersion::V2 => "v2",
            }),
            "tls": cluster.tls.as_ref().map(cluster_tls),
            "connect_timeout_ms": cluster.connect_timeout.as_millis() as u64,
            "idle_timeout_ms": cluster.idle_timeout.as_millis() as u64,
        })).collect::<Vec<_>>(),
    })
}

/// Files by their names alone: what is in them is not for showing.
fn tls(tls: &ListenerTls) -> Value {
    json!({
        "certificates": tls.certificates.iter().map(|pair| json!({
            "certificate": pair.certificate.path,
            "key": pair.key.path,
            "names": pair.names,
        })).collect::<Vec<_>>(),
        "alpn": tls.alpn,
        "min_version": version(tls.min_version),
        "max_version": version(tls.max_version),
        "handshake_timeout_ms": tls.handshake_timeout.as_millis() as u64,
        "max_handshakes": tls.max_handshakes,
        "client_certificates": tls.clients.as_ref().map(|clients| json!({
            "mode": if clients.required { "required" } else { "optional" },
            "ca": clients.ca.path,
            "identities": clients.identities,
            "match_authority": clients.match_authority,
            "forward": format!("{:?}", clients.forward).to_lowercase(),
        })),
        "permissive": tls.permissive,
    })
}

fn cluster_tls(tls: &ClusterTls) -> Value {
    json!({
        "server_name": tls.server_name,
        "names": tls.names,
        "identities": tls.identities,
        "ca": tls.ca.as_ref().map(|ca| &ca.path),
        "certificate": tls.certificate.as_ref().map(|pair| &pair.certificate.path),
        "key": tls.certificate.as_ref().map(|pair| &pair.key.path),
        "min_version": version(tls.min_version),
        "max_version": version(tls.max_version),
        "handshake_timeout_ms": tls.handshake_timeout.map(|timeout| timeout.as_millis() as u64),
    })
}

fn version(version: TlsVersion) -> &'static str {
    match version {
        TlsVersion::Tls12 => "tls1.2",
        TlsVersion::Tls13 => "tls1.3",
    }
}

fn filter(filter: &FilterUse) -> Value {
    let mut configuration = match &filter.configuration {
        FilterConfiguration::Text(text) => Value::from(text.as_str()),
        FilterConfiguration::Json(value) => value.clone(),
    };
    // What was read from a file may be long, or a secret.
    for (pointer, path) in &filter.file_texts {
        if let Some(text) = configuration.pointer_mut(pointer) {
            *text = json!({"file": path.display().to_string()});
        }
    }
    json!({
        "name": filter.name,
        "module": filter.module.to_string(),
        "configuration": configuration,
        "vm": filter.vm,
        "isolation": match filter.isolation {
            Isolation::Shared => "shared",
            Isolation::Exchange => "exchange",
        },
        "singleton": filter.singleton,
        "may": {
            "call": filter.may.call,
            "read": filter.may.read.as_ref().map(|groups| {
                groups.iter().map(|group| format!("{group:?}").to_lowercase()).collect::<Vec<_>>()
            }),
            "clock": format!("{:?}", filter.may.clock).to_lowercase(),
        },
        "limits": limits(&filter.limits),
    })
}

fn limits(limits: &FilterLimits) -> Value {
    let ms = |duration: Duration| duration.as_millis() as u64;
    json!({
        "time_ms": ms(limits.time),
        "body_time_ms": ms(limits.body_time),
        "start_time_ms": ms(limits.start_time),
        "cpu_percent": limits.cpu_percent,
        "memory": limits.memory,
        "total_memory": limits.total_memory,
        "body": limits.body,
        "pause_ms": ms(limits.pause),
        "done_ms": ms(limits.done),
        "contexts": limits.contexts,
        "crashes": limits.crashes,
        "hostcalls": limits.hostcalls,
        "copied": limits.copied,
        "log_lines": limits.log_lines,
        "log_bytes": limits.log_bytes,
        "spans": limits.spans,
        "span_bytes": limits.span_bytes,
        "http_calls": limits.http_calls,
        "stream_http_calls": limits.stream_http_calls,
        "grpc_calls": limits.grpc_calls,
        "stream_grpc_calls": limits.stream_grpc_calls,
        "grpc_queue": limits.grpc_queue,
        "call_time_ms": ms(limits.call_time),
        "call_body": limits.call_body,
        "call_bytes": limits.call_bytes,
        "call_depth": limits.call_depth,
        "encodings": limits.encodings,
        "metrics": limits.metrics,
        "series": limits.series,
        "shared_keys": limits.shared_keys,
        "shared_bytes": limits.shared_bytes,
        "queues": limits.queues,
        "queue_items": limits.queue_items,
        "queue_bytes": limits.queue_bytes,
        "tick_ms": ms(limits.tick),
    })
}
