//! Puts the checked parts together: fills in defaults and turns names into numbers. Nothing can be wrong any more.

use std::sync::Arc;
use std::time::Duration;

use crate::address::SocketMode;
use crate::cluster::{Endpoint, OutlierEntry, Subset, SubsetEntry};
use crate::discovery::Locality;
use crate::file::{
    AccessLogEntry, ClusterEntry, DrainEntry, File, ListenerEntry, NodeEntry, ProxyProtocolEntry,
};
use crate::files::Files;
use crate::forwarded::ForwardedEntry;
use crate::health::HealthCheckEntry;
use crate::model::{
    AccessLog, AccessLogOutput, Admin, Chain, ChainId, Cluster, Config, Drain, FilterUse, Listener,
    NodeFacts, Protocol, ProxyProtocol,
};
use crate::opaque::Opaque;
use crate::passthrough::PassthroughEntry;
use crate::tree::Node;
use crate::units::DurationText;
use crate::{Position, Source, discovery, references};

pub(crate) const DRAIN: Duration = Duration::from_secs(30);
const UPGRADE: Duration = Duration::from_secs(60);
const DRAIN_SPREAD: Duration = Duration::from_secs(5);
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
const TCP_IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
const PROXY_PROTOCOL_TIMEOUT: Duration = Duration::from_secs(5);
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
const MIN_BODY_RATE: u64 = 100;
const STREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
const MAX_STREAMS: u32 = 100;
const MAX_CONTROL_FRAMES: u32 = 1000;
const UPGRADE_IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
const MAX_CONNECTIONS: usize = 20_000;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const EXPIRY_WARNINGS: [Duration; 2] =
    [Duration::from_secs(30 * 24 * 3600), Duration::from_secs(7 * 24 * 3600)];
const MAX_HEADERS: usize = 100;
const MAX_HEADER_BYTES: u64 = 64 << 10;

/// What was worked out while the file was checked.
pub(crate) struct Resolved {
    /// The named chains in the file's order, then the sub-chains.
    pub(crate) chains: Vec<Chain>,
    /// The filters of `services`.
    pub(crate) services: Vec<FilterUse>,
    /// The endpoints of each cluster, in the file's order.
    pub(crate) endpoints: Vec<Vec<Endpoint>>,
}

/// Makes the configuration.
///
/// # Errors
/// Why the file does not have its form, which it was checked for.
pub(crate) fn assemble(
    source: &Arc<Source>,
    root: &Node,
    resolved: Resolved,
    files: &Files,
) -> Result<Config, serde_json::Error> {
    let file: File = serde_json::from_value(root.to_value())?;
    let mut chains = resolved.chains;
    let names: Vec<String> = chains.iter().map(|chain| chain.name.clone()).collect();
    let named = references::chains(root).len();
    let mut listeners = Vec::new();
    for (mut entry, node) in file.listeners.into_iter().zip(items(root, "listeners")) {
        let mut chain = |name: Option<&String>| {
            let written = name.and_then(|name| names[..named].iter().position(|chain| chain == name));
            written.map_or_else(|| without_filters(&mut chains), ChainId)
        };
        let (requests, opaque) = (chain(entry.chain.as_ref()), entry.opaque.take());
        let mut listener = listener(entry, requests, node, files);
        listener.opaque = opaque.map(|entry| {
            let side = opaque_side(&listener, chain(entry.chain.as_ref()), entry.cluster, entry.idle_timeout);
            Opaque::new(entry.timeout, side)
        });
        listeners.push(listener);
    }
    let locality = file.node.as_ref().and_then(|node| node.locality.as_deref()).map(Locality::parse);
    let locality = locality.unwrap_or_default();
    let entries = file.clusters.into_iter().zip(resolved.endpoints).zip(items(root, "clusters"));
    let mut clusters = Vec::new();
    for ((mut entry, endpoints), node) in entries {
        let subsets = std::mem::take(&mut entry.subsets);
        let whole = cluster(entry, endpoints, &locality, files, node);
        let places = node.get("subsets").map(Node::items).unwrap_or_default();
        let parts = subsets.into_iter().zip(places);
        let parts = parts.map(|(entry, node)| subset(&whole, entry, place(node, "name"))).collect::<Vec<_>>();
        clusters.push(whole);
        clusters.extend(parts);
    }
    let admin_at = root.get("admin").map(|admin| place(admin, "address")).unwrap_or_default();
    Ok(Config {
        source: Arc::clone(source),
        admin: file.admin.map(|admin| Admin { address: admin.address, at: admin_at }),
        access_log: file.access_log.map(|entry| access_log(entry, files)).unwrap_or_default(),
        workers: file.workers,
        node: file.node.map(node).unwrap_or_default(),
        drain: drain(file.drain),
        upgrade_timeout: or(file.upgrade.and_then(|upgrade| upgrade.timeout), UPGRADE),
        overload: file.overload.resolve(),
        listeners,
        services: resolved.services,
        wasm: file.wasm.resolve(),
        clusters,
        chains,
        expiry_warnings: expiry_warnings(file.expiry_warnings),
    })
}

fn drain(written: Option<DrainEntry>) -> Drain {
    let (timeout, spread, delay) =
        written.map_or((None, None, None), |written| (written.timeout, written.spread, written.delay));
    let timeout = or(timeout, DRAIN);
    Drain { timeout, spread: or(spread, DRAIN_SPREAD.min(timeout / 2)), delay: or(delay, Duration::ZERO) }
}

fn expiry_warnings(written: Option<Vec<DurationText>>) -> Vec<Duration> {
    let mut warnings: Vec<Duration> = match written {
        Some(written) => written.into_iter().map(|warning| warning.0).collect(),
        None => EXPIRY_WARNINGS.to_vec(),
    };
    warnings.sort_unstable_by(|a, b| b.cmp(a));
    warnings.dedup();
    warnings
}

fn items<'n>(root: &'n Node, key: &str) -> &'n [Node] {
    root.get(key).map(Node::items).unwrap_or_default()
}

fn place(node: &Node, key: &str) -> Position {
    node.get(key).map_or(node.at, |value| value.at)
}

fn or(written: Option<DurationText>, default: Duration) -> Duration {
    written.map_or(default, |written| written.0)
}

/// The chain of listeners that name none. No name in the file can have a space.
fn without_filters(chains: &mut Vec<Chain>) -> ChainId {
    const NAME: &str = "no filters";
    let known = chains.iter().position(|chain| chain.name == NAME);
    ChainId(known.unwrap_or_else(|| {
        chains.push(Chain { name: NAME.to_owned(), filters: Vec::new() });
        chains.len() - 1
    }))
}

fn node(entry: NodeEntry) -> NodeFacts {
    let NodeEntry { id, cluster, locality, metadata } = entry;
    let locality = locality.as_deref().map(Locality::parse).unwrap_or_default();
    NodeFacts { id, cluster, locality, metadata }
}

fn access_log(entry: AccessLogEntry, files: &Files) -> AccessLog {
    let output = match entry.to.as_deref() {
        None | Some("stdout") => AccessLogOutput::Stdout,
        Some("none") => AccessLogOutput::Off,
        Some(path) => AccessLogOutput::File(files.locate(path)),
    };
    AccessLog { format: entry.format, output }
}

/// A listener of HTTP, as those of its connections see it that carry something else.
fn opaque_side(
    listener: &Listener,
    chain: ChainId,
    cluster: Option<String>,
    idle_timeout: Option<DurationText>,
) -> Listener {
    Listener {
        protocol: Protocol::Tcp,
        tls: None,
        chain,
        cluster,
        idle_timeout: or(idle_timeout, TCP_IDLE_TIMEOUT),
        ..listener.clone()
    }
}

fn listener(entry: ListenerEntry, chain: ChainId, node: &Node, files: &Files) -> Listener {
    let max_header_bytes = entry.max_header_bytes.map_or(MAX_HEADER_BYTES, |size| size.0);
    let http = entry.protocol == Protocol::Http;
    let idle_timeout = match entry.protocol {
        Protocol::Http => IDLE_TIMEOUT,
        Protocol::Tcp => TCP_IDLE_TIMEOUT,
    };
    Listener {
        name: entry.name.0,
        address: entry.address,
        socket_mode: entry.socket_mode.unwrap_or(SocketMode::DEFAULT),
        protocol: entry.protocol,
        tls: entry.tls.zip(node.get("tls")).map(|(tls, node)| tls.resolve(node, http, entry.mtls, files)),
        tls_passthrough: entry.tls_passthrough.map(PassthroughEntry::with_defaults),
        opaque: None,
        chain,
        cluster: entry.cluster,
        header_timeout: or(entry.header_timeout, HEADER_TIMEOUT),
        idle_timeout: or(entry.idle_timeout, idle_timeout),
        wait_for_data: entry.wait_for_data,
        max_connections: entry.max_connections.unwrap_or(MAX_CONNECTIONS),
        max_connections_per_address: entry.max_connections_per_address,
        write_timeout: or(entry.write_timeout, WRITE_TIMEOUT),
        request_timeout: entry.request_timeout.map(|timeout| timeout.0),
        max_headers: entry.max_headers.unwrap_or(MAX_HEADERS),
        // Its bounds have been checked.
        max_header_bytes: usize::try_from(max_header_bytes).unwrap_or(usize::MAX),
        max_request_body: entry.max_request_body.map(|size| size.0),
        proxy_protocol: entry.proxy_protocol.map(proxy_protocol),
        forwarded: entry.forwarded.map(ForwardedEntry::with_defaults),
        body_timeout: or(entry.body_timeout, BODY_TIMEOUT),
        min_body_rate: entry.min_body_rate.map_or(MIN_BODY_RATE, |rate| rate.0),
        stream_idle_timeout: or(entry.stream_idle_timeout, STREAM_IDLE_TIMEOUT),
        max_streams: entry.max_streams.unwrap_or(MAX_STREAMS),
        max_control_frames: entry.max_control_frames.unwrap_or(MAX_CONTROL_FRAMES),
        upgrades: upgrades(entry.upgrades),
        upgrade_idle_timeout: or(entry.upgrade_idle_timeout, UPGRADE_IDLE_TIMEOUT),
        direction: entry.direction,
        metadata: entry.metadata,
        at: place(node, "address"),
    }
}

fn proxy_protocol(entry: ProxyProtocolEntry) -> ProxyProtocol {
    ProxyProtocol { from: entry.from, timeout: or(entry.timeout, PROXY_PROTOCOL_TIMEOUT) }
}

fn upgrades(written: Option<Vec<String>>) -> Vec<String> {
    let Some(written) = written else { return vec!["websocket".to_owned()] };
    written.into_iter().map(|protocol| protocol.to_ascii_lowercase()).collect()
}

fn cluster(
    entry: ClusterEntry,
    endpoints: Vec<Endpoint>,
    here: &Locality,
    files: &Files,
    node: &Node,
) -> Cluster {
    Cluster {
        name: entry.name.0,
        subset: None,
        endpoints,
        discovery: discovery::of(entry.dns, entry.endpoints_file.as_deref(), files),
        health_check: entry.health_check.map(HealthCheckEntry::with_defaults),
        near: entry.locality_failover.then(|| here.clone()),
        protocol: entry.protocol,
        tls: entry.tls.zip(node.get("tls")).map(|(tls, written)| tls.resolve(written, node, files)),
        load_balancer: entry.load_balancer,
        slow_start: entry.slow_start.map(|time| time.0),
        outlier_detection: entry.outlier_detection.map(OutlierEntry::with_defaults),
        panic_threshold: entry.panic_threshold.unwrap_or(0),
        limits: entry.limits.with_defaults(),
        proxy_protocol: entry.proxy_protocol,
        connect_timeout: or(entry.connect_timeout, CONNECT_TIMEOUT),
        idle_timeout: or(entry.idle_timeout, IDLE_TIMEOUT),
        metadata: entry.metadata,
        at: place(node, "name"),
    }
}

/// Some of a cluster's endpoints, as a cluster: with its settings, and with limits of its own.
fn subset(whole: &Cluster, entry: SubsetEntry, at: Position) -> Cluster {
    let SubsetEntry { name, labels } = entry;
    Cluster { name: name.0, subset: Some(Subset { of: whole.name.clone(), labels }), at, ..whole.clone() }
}
