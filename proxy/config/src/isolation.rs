//! How far a filter is kept apart: with whom it shares an instance of its module, and what it may do.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::diagnostic::Report;
use crate::model::{Chain, FilterUse};
use crate::tree::Node;
use crate::words::quoted;

/// With whom a filter shares an instance of its module.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, JsonSchema, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// One VM per worker serves all exchanges, and all filters of the module.
    #[default]
    Shared,
    /// Each exchange gets a fresh instance, which is never used again.
    Exchange,
}

/// A group of properties that a filter may read.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum PropertyGroup {
    /// `request.*`
    Request,
    /// `response.*`
    Response,
    /// `connection.*`, `source.*`, `destination.*`
    Connection,
    /// `upstream.*`
    Upstream,
    /// `xds.*`, `node`, `route_name` and the like.
    Proxy,
    /// What filters have set.
    Filters,
}

/// How finely a filter sees the time.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, JsonSchema, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Clock {
    /// In nanoseconds.
    #[default]
    Precise,
    /// In milliseconds.
    Coarse,
}

/// What a filter may do. Default: everything.
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Capabilities {
    /// The clusters it may call. Default: all.
    #[schemars(with = "Vec<String>")]
    pub call: Option<Vec<String>>,
    /// The groups of properties it may read. Default: all.
    #[schemars(with = "Vec<PropertyGroup>")]
    pub read: Option<Vec<PropertyGroup>>,
    /// How finely it sees the time. Default: precise.
    pub clock: Clock,
}

/// Checks the clusters that filters may call.
pub(crate) fn clusters(root: &Node, clusters: &BTreeSet<&str>, report: &mut Report<'_>) {
    for filter in root.get("filters").map(Node::entries).unwrap_or_default() {
        let calls = filter.value.get("may").and_then(|may| may.get("call"));
        for node in calls.map(Node::items).unwrap_or_default() {
            if let Some(name) = node.as_text().filter(|name| !clusters.contains(name)) {
                report.unknown("cluster", name, node.at, clusters);
            }
        }
    }
}

/// Checks that no filter stands where it cannot run.
pub(crate) fn places(chains: &[Chain], services: &[FilterUse], report: &mut Report<'_>) {
    for filter in chains.iter().flat_map(|chain| &chain.filters).filter(|filter| filter.singleton) {
        let message = format!("{} is a singleton, which has no exchanges", quoted(&filter.name));
        report.error_with(filter.at, message, "name it in `services:`, or give its entry no `singleton`");
    }
    for service in services.iter().filter(|service| service.isolation == Isolation::Exchange) {
        let message =
            format!("{} has an instance for each exchange, and a service has none", quoted(&service.name));
        report.error_with(service.at, message, "give its entry no `isolation: exchange`");
    }
}
