//! What the parts of the file say about each other: names are unique and lead somewhere, addresses do not collide, and
//! hosts resolve. Reads the tree, so that it can say all of it even where other parts of the file are wrong.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::ToSocketAddrs;
use std::sync::Arc;

use crate::address::Address;
use crate::cluster::Endpoint;
use crate::diagnostic::Report;
use crate::discovery::Locality;
use crate::files::Files;
use crate::tree::{Kind, Node};
use crate::words::quoted;
use crate::{Position, assemble, discovery, formats, health, limits, overload, units};

/// The names of the clusters and of their subsets; a name given twice is reported.
pub(crate) fn clusters<'n>(root: &'n Node, report: &mut Report<'_>) -> BTreeSet<&'n str> {
    let clusters = root.get("clusters");
    let subsets = clusters.map(Node::items).unwrap_or_default().iter().map(|cluster| cluster.get("subsets"));
    unique(texts(clusters, "name").chain(subsets.flat_map(|list| texts(list, "name"))), "cluster", report)
}

/// The names of chains.
pub(crate) fn chains(root: &Node) -> BTreeSet<&str> {
    root.get("chains").map(Node::entries).unwrap_or_default().iter().map(|entry| entry.key.as_str()).collect()
}

fn names<'n>(list: Option<&'n Node>, what: &str, report: &mut Report<'_>) -> BTreeSet<&'n str> {
    unique(texts(list, "name"), what, report)
}

fn unique<'n>(
    names: impl Iterator<Item = (&'n str, Position)>,
    what: &str,
    report: &mut Report<'_>,
) -> BTreeSet<&'n str> {
    let mut seen: HashMap<&str, Position> = HashMap::new();
    for (name, at) in names {
        if let Some(first) = seen.get(name) {
            let hint = format!("it is already the name of the one in line {}", first.line);
            report.error_with(at, format!("duplicate {what} name {}", quoted(name)), hint);
        } else {
            seen.insert(name, at);
        }
    }
    seen.into_keys().collect()
}

/// The strings under a key of the maps in a list, and where they stand.
fn texts<'n>(list: Option<&'n Node>, key: &str) -> impl Iterator<Item = (&'n str, Position)> {
    let nodes = list.map(Node::items).unwrap_or_default().iter().filter_map(move |item| item.get(key));
    nodes.filter_map(|node| Some((node.as_text()?, node.at)))
}

/// Checks what listeners refer to, and that they do not collide.
pub(crate) fn listeners(root: &Node, clusters: &BTreeSet<&str>, report: &mut Report<'_>) {
    let list = root.get("listeners");
    names(list, "listener", report);
    let chains = chains(root);
    for (name, at) in texts(list, "chain") {
        if !chains.contains(name) {
            report.unknown("chain", name, at, &chains);
        }
    }
    for (name, at) in texts(list, "cluster") {
        if !clusters.contains(name) {
            report.unknown("cluster", name, at, clusters);
        }
    }
    for listener in list.map(Node::items).unwrap_or_default() {
        if matches!(listener.kind, Kind::Map(_))
            && ["chain", "cluster", "tls_passthrough"].iter().all(|key| listener.get(key).is_none())
        {
            let hint = "`chain` names the filters its requests run through, `cluster` where they go if no filter decides";
            report.error_with(listener.at, "a listener needs `chain`, `cluster` or both", hint);
        }
        if listener.get("protocol").and_then(Node::as_text) == Some("tcp") {
            http_only(listener, report);
        } else if let Some(entry) = listener.entries().iter().find(|entry| entry.key == "wait_for_data") {
            let message = "`wait_for_data` is for TCP, and this listener has no `protocol: tcp`";
            report.error(entry.at, message);
        }
    }
    addresses(root, report);
    for listener in list.map(Node::items).unwrap_or_default() {
        unix_sockets(listener, report);
    }
}

/// What a listener on a Unix socket may not have, and what only one may.
fn unix_sockets(listener: &Node, report: &mut Report<'_>) {
    let at = |key: &str| listener.entries().iter().find(|entry| entry.key == key).map(|entry| entry.at);
    let address = listener.get("address").and_then(Node::as_text).and_then(Address::parse);
    match address {
        Some(Address::Ip(_)) => {
            if let Some(at) = at("socket_mode") {
                report.error(at, "`socket_mode` is for Unix sockets, and this listener has an IP address");
            }
        }
        Some(Address::Unix(_)) => {
            if let Some(at) = at("proxy_protocol") {
                let hint = "who may connect is for `socket_mode` to say";
                let message =
                    "`proxy_protocol` believes by IP addresses, and clients of a Unix socket have none";
                report.error_with(at, message, hint);
            }
            if let Some(mtls) = listener.get("mtls").filter(|mtls| mtls.as_text() == Some("permissive")) {
                report.error(
                    mtls.at,
                    "what clients of a Unix socket speak is not looked for: TLS, or cleartext",
                );
            }
        }
        None => {}
    }
}

/// Keys of a TCP listener that mean something for HTTP alone.
fn http_only(listener: &Node, report: &mut Report<'_>) {
    const KEYS: [&str; 14] = [
        "forwarded",
        "write_timeout",
        "header_timeout",
        "request_timeout",
        "max_headers",
        "max_header_bytes",
        "max_request_body",
        "body_timeout",
        "min_body_rate",
        "stream_idle_timeout",
        "max_streams",
        "max_control_frames",
        "upgrades",
        "upgrade_idle_timeout",
    ];
    for entry in listener.entries().iter().filter(|entry| KEYS.contains(&entry.key.as_str())) {
        let message = format!("{} is for HTTP, and this listener has `protocol: tcp`", quoted(&entry.key));
        report.error_with(entry.at, message, "take it out, or make the listener one of HTTP");
    }
}

fn addresses(root: &Node, report: &mut Report<'_>) {
    let mut seen: HashMap<Address, Position> = HashMap::new();
    let admin = root.get("admin").and_then(|admin| admin.get("address"));
    let admin = admin.and_then(|node| Some((node.as_text()?, node.at)));
    for (text, at) in admin.into_iter().chain(texts(root.get("listeners"), "address")) {
        let Some(address) = Address::parse(text) else { continue };
        // Port 0 is another port each time.
        if matches!(address, Address::Ip(address) if address.port() == 0) {
            continue;
        }
        if let Some(first) = seen.get(&address) {
            let lines = if first < &at { (at, *first) } else { (*first, at) };
            let hint = format!("line {} already listens there", lines.1.line);
            report.error_with(lines.0, format!("duplicate address {}", quoted(text)), hint);
        } else {
            seen.insert(address, at);
        }
    }
}

/// The answers to host names that were asked for.
pub(crate) type Asked<'n> = HashMap<&'n str, Result<Vec<Address>, String>>;

/// The endpoints of the clusters in the file's order, host names resolved. Those of a cluster that is wrong in other
/// respects may lack some.
pub(crate) fn endpoints(root: &Node, files: &mut Files, report: &mut Report<'_>) -> Vec<Vec<Endpoint>> {
    let mut asked = Asked::new();
    let mut clusters = Vec::new();
    for cluster in root.get("clusters").map(Node::items).unwrap_or_default() {
        let in_file = discovery::endpoints_in_file(cluster, files, report);
        clusters.push(match (in_file, cluster.get("endpoints")) {
            (Some(endpoints), _) => endpoints,
            (None, Some(list)) => {
                let endpoints = endpoints_of(list, &mut asked, report);
                subsets_of_none(cluster, &endpoints, report);
                endpoints
            }
            (None, None) => Vec::new(),
        });
    }
    clusters
}

/// Subsets of written endpoints are as they are: one without any would answer nothing but 503. Where endpoints come and go,
/// there may be some later.
fn subsets_of_none(cluster: &Node, endpoints: &[Endpoint], report: &mut Report<'_>) {
    // A list without any that could be read has been reported, or is empty on purpose.
    if endpoints.is_empty() {
        return;
    }
    for subset in cluster.get("subsets").map(Node::items).unwrap_or_default() {
        let Some(labels) = subset.get("labels") else { continue };
        let has = |endpoint: &Endpoint| {
            labels
                .entries()
                .iter()
                .all(|label| endpoint.labels.get(&label.key).map(String::as_str) == label.value.as_text())
        };
        if !endpoints.iter().any(has) {
            let name = subset.get("name").and_then(Node::as_text).unwrap_or_default();
            let message = format!("no endpoint has the labels of the subset {}", quoted(name));
            let hint = "an endpoint has labels as in `{address: 127.0.0.1:9001, labels: {version: v2}}`";
            report.error_with(labels.at, message, hint);
        }
    }
}

/// The endpoints in a list.
pub(crate) fn endpoints_of<'n>(
    list: &'n Node,
    asked: &mut Asked<'n>,
    report: &mut Report<'_>,
) -> Vec<Endpoint> {
    let mut endpoints: Vec<Endpoint> = Vec::new();
    let mut known: HashSet<Address> = HashSet::new();
    let mut written = BTreeSet::new();
    for entry in list.items() {
        let node = entry.get("address").unwrap_or(entry);
        let Some(text) = node.as_text().filter(|text| formats::complaint("endpoint", text).is_none()) else {
            continue;
        };
        if !written.insert(text) {
            report.error(node.at, format!("the endpoint {} is listed twice", quoted(text)));
            continue;
        }
        match asked.entry(text).or_insert_with(|| resolve(text)) {
            Ok(found) => {
                let new = found.iter().filter(|address| known.insert(**address));
                let host = Address::parse(text).is_none().then(|| host_name(text));
                endpoints.extend(new.map(|address| endpoint(entry, *address, host.clone())));
            }
            Err(reason) => {
                report.error(node.at, format!("the endpoint {} does not resolve: {reason}", quoted(text)))
            }
        }
    }
    endpoints
}

/// The host of `HOST:PORT`, as others are to be told of it.
fn host_name(text: &str) -> Arc<str> {
    let host = text.rsplit_once(':').map_or(text, |(host, _)| host);
    host.trim_end_matches('.').into()
}

/// What an entry says of an endpoint.
fn endpoint(entry: &Node, address: Address, host: Option<Arc<str>>) -> Endpoint {
    let labels = entry.get("labels").map(Node::entries).unwrap_or_default().iter();
    let labels =
        labels.filter_map(|label| Some((label.key.clone(), label.value.as_text()?.to_owned()))).collect();
    let locality = entry.get("locality").and_then(Node::as_text).map(Locality::parse).unwrap_or_default();
    Endpoint {
        address,
        weight: number(entry, "weight", 1),
        priority: number(entry, "priority", 0),
        labels,
        locality,
        host,
    }
}

/// Where the value of a key stands; where the map does if there is none.
pub(crate) fn position_of(map: &Node, key: &str) -> Position {
    map.get(key).map_or(map.at, |value| value.at)
}

/// A small number in a map, whose bounds the schema checks.
fn number(map: &Node, key: &str, default: u32) -> u32 {
    let written = match map.get(key).map(|node| &node.kind) {
        Some(Kind::Number(number, _)) => number.as_u64().and_then(|number| u32::try_from(number).ok()),
        _ => None,
    };
    written.unwrap_or(default)
}

fn resolve(text: &str) -> Result<Vec<Address>, String> {
    if let Some(address) = Address::parse(text) {
        return Ok(vec![address]);
    }
    match text.to_socket_addrs() {
        Ok(addresses) => {
            let addresses: Vec<Address> = addresses.map(Address::from).collect();
            if addresses.is_empty() { Err("it has no address".to_owned()) } else { Ok(addresses) }
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Bounds of our own durations and sizes, which a JSON Schema cannot express for values with units.
pub(crate) fn bounds(root: &Node, report: &mut Report<'_>) {
    for listener in root.get("listeners").map(Node::items).unwrap_or_default() {
        for key in [
            "header_timeout",
            "idle_timeout",
            "write_timeout",
            "request_timeout",
            "body_timeout",
            "stream_idle_timeout",
            "upgrade_idle_timeout",
        ] {
            lasting(listener, key, report);
        }
        if let Some(entry) = listener.get("proxy_protocol") {
            lasting(entry, "timeout", report);
        }
        // Less would not hold an ordinary request, more would be an invitation.
        size(listener, "max_header_bytes", 8 << 10, 1 << 20, report);
        whole(listener, "max_headers", report);
        for key in ["max_connections", "max_connections_per_address", "max_streams", "max_control_frames"] {
            whole(listener, key, report);
        }
    }
    for cluster in root.get("clusters").map(Node::items).unwrap_or_default() {
        lasting(cluster, "connect_timeout", report);
        for key in ["idle_timeout", "slow_start"] {
            lasting(cluster, key, report);
        }
        cluster_numbers(cluster, report);
        discovery::check(cluster, report);
        let node_locality = root.get("node").and_then(|node| node.get("locality"));
        if let Some(near) = cluster.get("locality_failover")
            && matches!(near.kind, Kind::Bool(true))
            && node_locality.is_none()
        {
            let hint = "`node: {locality: REGION/ZONE/SUBZONE}`";
            report.error_with(near.at, "to know what is near, the proxy must know where it is", hint);
        }
        health::check(cluster, report);
        if let Some(node) = cluster.get("proxy_protocol")
            && cluster.get("protocol").and_then(Node::as_text) == Some("http2")
        {
            let message =
                "`proxy_protocol` cannot be told over HTTP/2: its connections carry requests of many clients";
            report.error(node.at, message);
        }
    }
    if let Some(drain) = root.get("drain") {
        let duration =
            |key| drain.get(key).and_then(Node::as_text).and_then(|text| units::parse_duration(text).ok());
        let timeout =
            if drain.get("timeout").is_some() { duration("timeout") } else { Some(assemble::DRAIN) };
        if duration("spread") > timeout && timeout.is_some() {
            report.error(
                position_of(drain, "spread"),
                "`spread` is longer than `timeout`: connections told to end after that would not be",
            );
        }
    }
    if let Some(upgrade) = root.get("upgrade") {
        lasting(upgrade, "timeout", report);
    }
    limits::bounds(root, report);
    overload::check(root, report);
    whole(root, "workers", report);
}

fn cluster_numbers(cluster: &Node, report: &mut Report<'_>) {
    whole(cluster, "panic_threshold", report);
    if let Some(list) = cluster.get("endpoints") {
        endpoint_numbers(list, report);
    }
    if let Some(limits) = cluster.get("limits") {
        lasting(limits, "pending_timeout", report);
        for key in ["connections", "pending_requests", "active_requests", "retries", "interim_responses"] {
            whole(limits, key, report);
        }
    }
    let Some(outliers) = cluster.get("outlier_detection") else { return };
    for key in ["interval", "ejection_time", "max_ejection_time"] {
        lasting(outliers, key, report);
    }
    let counts = [
        "consecutive_errors",
        "consecutive_gateway_errors",
        "consecutive_local_errors",
        "max_ejection_percent",
    ];
    for key in counts {
        whole(outliers, key, report);
    }
    if let Some(rate) = outliers.get("success_rate") {
        whole(rate, "requests", report);
        whole(rate, "endpoints", report);
    }
}

/// What a schema cannot say of a list of endpoints.
pub(crate) fn endpoint_numbers(list: &Node, report: &mut Report<'_>) {
    for endpoint in list.items() {
        whole(endpoint, "weight", report);
        whole(endpoint, "priority", report);
    }
}

pub(crate) fn lasting(map: &Node, key: &str, report: &mut Report<'_>) {
    let Some(node) = map.get(key) else { return };
    if node
        .as_text()
        .and_then(|text| units::parse_duration(text).ok())
        .is_some_and(|duration| duration.is_zero())
    {
        report.error(node.at, format!("{} must be longer than zero", quoted(key)));
    }
}

pub(crate) fn size(map: &Node, key: &str, least: u64, most: u64, report: &mut Report<'_>) {
    let Some(node) = map.get(key) else { return };
    let Some(size) = node.as_text().and_then(|text| units::parse_size(text).ok()) else { return };
    if size < least {
        report.error(node.at, format!("{} must be at least {}", quoted(key), units::show_size(least)));
    } else if size > most {
        report.error(node.at, format!("{} must be at most {}", quoted(key), units::show_size(most)));
    }
}

/// JSON Schema counts `4.0` among the whole numbers.
pub(crate) fn whole(map: &Node, key: &str, report: &mut Report<'_>) {
    if let Some(Node { at, kind: Kind::Number(number, written) }) = map.get(key)
        && number.is_f64()
        && number.as_f64().is_some_and(|value| value.fract() == 0.0)
    {
        report.error(*at, format!("{} must be a whole number, not {}", quoted(key), quoted(written)));
    }
}
