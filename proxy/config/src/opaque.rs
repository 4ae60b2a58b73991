//! Connections to a listener of HTTP whose clients speak something else: passed on as they are, as on a listener of TCP.

use std::collections::BTreeSet;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::diagnostic::Report;
use crate::model::Listener;
use crate::references::{chains, lasting};
use crate::tree::Node;
use crate::units::DurationText;

const TIMEOUT: Duration = Duration::from_secs(1);

/// `opaque: {cluster: database}`
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OpaqueEntry {
    /// The chain that these connections run through, of filters for TCP. May be left out if `cluster` is given.
    #[serde(default)]
    #[schemars(with = "String")]
    pub(crate) chain: Option<String>,
    /// The cluster for connections for which no filter chooses one.
    #[serde(default)]
    #[schemars(with = "String")]
    pub(crate) cluster: Option<String>,
    /// How long a client may say nothing, or not enough to tell, until it is taken for one that waits for the server to speak
    /// first. Default: 1s.
    #[serde(default)]
    #[schemars(with = "DurationText")]
    pub(crate) timeout: Option<DurationText>,
    /// How long such a connection may stay open with no byte passing in either direction. Default: 1h.
    #[serde(default)]
    #[schemars(with = "DurationText")]
    pub(crate) idle_timeout: Option<DurationText>,
}

/// Where connections go that do not speak HTTP.
#[derive(Clone, Debug)]
pub struct Opaque {
    /// How long a client may say nothing until its connection is one of these.
    pub timeout: Duration,
    /// The listener, as these connections see it: one of TCP.
    pub listener: Box<Listener>,
}

impl Opaque {
    pub(crate) fn new(timeout: Option<DurationText>, listener: Listener) -> Opaque {
        Opaque { timeout: timeout.map_or(TIMEOUT, |timeout| timeout.0), listener: Box::new(listener) }
    }
}

/// Checks what a JSON Schema cannot say about it.
pub(crate) fn check(root: &Node, clusters: &BTreeSet<&str>, report: &mut Report<'_>) {
    for listener in root.get("listeners").map(Node::items).unwrap_or_default() {
        let Some(entry) = listener.entries().iter().find(|entry| entry.key == "opaque") else { continue };
        if listener.get("protocol").and_then(Node::as_text) == Some("tcp") {
            let hint = "with `protocol: tcp`, every connection is passed on as it is";
            report.error_with(entry.at, "`opaque` is for listeners of HTTP", hint);
        }
        if let Some(tls) = listener.get("tls")
            && listener.get("mtls").and_then(Node::as_text) != Some("permissive")
        {
            let message = format!(
                "`opaque` is for what comes in cleartext, and with `tls` in line {} nothing does",
                tls.at.line
            );
            report.error_with(entry.at, message, "with `mtls: permissive`, something may");
        }
        if ["chain", "cluster"].iter().all(|key| entry.value.get(key).is_none()) {
            let hint = "`cluster` says where these connections go, `chain` which filters may choose that";
            report.error_with(entry.at, "`opaque` needs `chain`, `cluster` or both", hint);
        }
        let chains = chains(root);
        for (key, what, known) in [("chain", "chain", &chains), ("cluster", "cluster", clusters)] {
            let name = entry.value.get(key).and_then(|node| Some((node.as_text()?, node.at)));
            if let Some((name, at)) = name.filter(|(name, _)| !known.contains(name)) {
                report.unknown(what, name, at, known);
            }
        }
        lasting(&entry.value, "timeout", report);
        lasting(&entry.value, "idle_timeout", report);
    }
}
