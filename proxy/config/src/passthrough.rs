//! TLS that a listener passes on as it is, to a cluster chosen by the server name that the client asks for.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::diagnostic::Report;
use crate::references::{lasting, size, whole};
use crate::tree::Node;
use crate::units::{DurationText, SizeText};
use crate::words::quoted;
use crate::{Position, formats};

const TIMEOUT: Duration = Duration::from_secs(5);
const MAX_HELLO: u64 = 16 << 10;
const MAX_WAITING: usize = 1000;

/// `tls_passthrough: {names: {shop.example.com: shop, "*.example.com": others}}`
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PassthroughEntry {
    /// Clusters by the server name that a client asks for: `shop.example.com`, or `*.example.com` for all names with one
    /// label more. Clients that ask for another name, or for none, get the listener's `cluster`.
    #[serde(default)]
    names: BTreeMap<String, String>,
    /// How long a client may take to say which server it wants, from accept. Default: 5s.
    #[serde(default)]
    #[schemars(with = "DurationText")]
    timeout: Option<DurationText>,
    /// Most bytes that it may need to say it. Default: 16KiB.
    #[serde(default)]
    #[schemars(with = "SizeText")]
    max_hello: Option<SizeText>,
    /// Most clients at a time on each worker that have not said it yet; with one more, the oldest is given up. Default: 1000.
    #[serde(default)]
    #[schemars(with = "usize", range(min = 1, max = 1_000_000))]
    max_waiting: Option<usize>,
}

/// TLS that is passed on as it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Passthrough {
    /// Names of servers, or `*.` and the rest of one, each with a cluster that exists.
    pub names: Vec<(String, String)>,
    /// How long a client's first message may take.
    pub timeout: Duration,
    /// Most bytes of it.
    pub max_hello: usize,
    /// Most clients at a time whose first message is waited for.
    pub max_waiting: usize,
}

impl PassthroughEntry {
    pub(crate) fn with_defaults(self) -> Passthrough {
        let max_hello = self.max_hello.map_or(MAX_HELLO, |size| size.0);
        Passthrough {
            names: self.names.into_iter().collect(),
            timeout: self.timeout.map_or(TIMEOUT, |timeout| timeout.0),
            // Its bounds have been checked.
            max_hello: usize::try_from(max_hello).unwrap_or(usize::MAX),
            max_waiting: self.max_waiting.unwrap_or(MAX_WAITING),
        }
    }
}

/// Checks what a JSON Schema cannot say about it.
pub(crate) fn check(root: &Node, clusters: &BTreeSet<&str>, report: &mut Report<'_>) {
    for listener in root.get("listeners").map(Node::items).unwrap_or_default() {
        let Some(entry) = listener.entries().iter().find(|entry| entry.key == "tls_passthrough") else {
            continue;
        };
        if listener.get("protocol").and_then(Node::as_text) != Some("tcp") {
            let hint = "what is in it cannot be read; or let the listener speak TLS itself, with `tls`";
            report.error_with(entry.at, "`tls_passthrough` needs `protocol: tcp`", hint);
        }
        if let Some(tls) = listener.get("tls") {
            let message =
                format!("`tls_passthrough` leaves to endpoints what `tls` in line {} does", tls.at.line);
            report.error(entry.at, message);
        }
        lasting(&entry.value, "timeout", report);
        size(&entry.value, "max_hello", 1 << 10, 64 << 10, report);
        whole(&entry.value, "max_waiting", report);
        names(&entry.value, clusters, report);
    }
}

fn names(passthrough: &Node, clusters: &BTreeSet<&str>, report: &mut Report<'_>) {
    let mut seen: HashMap<String, Position> = HashMap::new();
    for entry in passthrough.get("names").map(Node::entries).unwrap_or_default() {
        let name = entry.key.as_str();
        if !formats::is_dns_name(name.strip_prefix("*.").unwrap_or(name)) {
            let hint = "write a host name such as `shop.example.com`, or `*.example.com`";
            report.error_with(entry.at, format!("{} is not a name of a server", quoted(name)), hint);
        } else if let Some(first) = seen.insert(name.to_ascii_lowercase(), entry.at) {
            let hint = format!("line {} has it already", first.line);
            report.error_with(entry.at, format!("duplicate name {}", quoted(name)), hint);
        }
        if let Some(cluster) = entry.value.as_text().filter(|cluster| !clusters.contains(cluster)) {
            report.unknown("cluster", cluster, entry.value.at, clusters);
        }
    }
}
