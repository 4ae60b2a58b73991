//! What a user writes under `routing:`.

use std::collections::BTreeMap;

use meshgate_conditions::Matches;
use meshgate_sdk::config::{Cluster, ClusterMap, Duration, SubChain};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::keys::KeysConfig;
use crate::mirror::MirrorConfig;
use crate::redirect::RedirectConfig;
use crate::rewrite::RewriteConfig;

/// The configuration of the filter `routing`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The routes of requests for hosts that no virtual host is for. The first one that matches decides.
    #[serde(default)]
    pub(crate) routes: Vec<RouteConfig>,
    /// Routes by the host that a request is for.
    #[serde(default)]
    pub(crate) virtual_hosts: Vec<VirtualHostConfig>,
    /// In which order routes are tried. Default: that of the list.
    #[serde(default)]
    pub(crate) order: Order,
}

/// The routes of some hosts.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct VirtualHostConfig {
    /// The hosts: `shop.example`, `*.shop.example`, `*` for all others; with `:8443` only those at this port.
    #[schemars(length(min = 1))]
    pub(crate) hosts: Vec<String>,
    /// Their routes. The first one that matches decides.
    pub(crate) routes: Vec<RouteConfig>,
}

/// In which order routes are tried.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Order {
    /// As they are written.
    #[default]
    List,
    /// The most specific first: by host, then an exact path, then the longest prefix, then a method, then the most fields,
    /// then the most parameters, then as they are written.
    Specific,
}

/// One route.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RouteConfig {
    /// The route's name, for logs and metrics. No two routes have the same.
    pub(crate) name: String,
    /// Which requests take the route: all conditions of one map, or those of any map in a list. Left out: all requests.
    #[serde(default)]
    pub(crate) r#match: Matches,
    /// The cluster that requests go to, or several with weights. A route has this, `redirect` or `answer`.
    #[serde(default)]
    #[schemars(with = "Targets")]
    pub(crate) to: Option<Targets>,
    /// Sends clients elsewhere: `{scheme: https}`. A route has this, `to` or `answer`.
    #[serde(default)]
    #[schemars(with = "RedirectConfig")]
    pub(crate) redirect: Option<RedirectConfig>,
    /// Answers by itself: `{status: 410}`. A route has this, `to` or `redirect`.
    #[serde(default)]
    #[schemars(with = "AnswerConfig")]
    pub(crate) answer: Option<AnswerConfig>,
    /// How long an exchange may take from the end of its request to the end of its response; `0s`: as long as it takes.
    pub(crate) timeout: Option<Duration>,
    /// With several clusters in `to`: by what a client stays with the one it had. Left out: drawn for each request.
    #[serde(default)]
    #[schemars(with = "KeysConfig")]
    pub(crate) sticky: Option<KeysConfig>,
    /// By what a load balancer of the kind `ring_hash` or `maglev` chooses the endpoint, in the place of the cluster's own key.
    #[serde(default)]
    #[schemars(with = "KeysConfig")]
    pub(crate) hash: Option<KeysConfig>,
    /// What to change in the request's path and authority on the way.
    #[serde(default)]
    #[schemars(with = "RewriteConfig")]
    pub(crate) rewrite: Option<RewriteConfig>,
    /// Clusters that get a copy of the requests, or of some. Their answers are dropped.
    #[serde(default)]
    pub(crate) mirrors: Vec<MirrorConfig>,
    /// Filters for this route only. They run after this one.
    pub(crate) filters: Option<SubChain>,
}

/// Where a route's requests go.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "expected the name of a cluster, or a map from clusters to whole numbers (their weights)"
)]
pub(crate) enum Targets {
    /// All to one cluster.
    One(Cluster),
    /// To each in proportion to its weight. Weights are relative; 0 means none.
    Weighted(ClusterMap<u32>),
}

impl Targets {
    /// The clusters with their weights.
    pub(crate) fn weighted(&self) -> Vec<(&Cluster, u32)> {
        match self {
            Targets::One(cluster) => vec![(cluster, 1)],
            Targets::Weighted(clusters) => {
                clusters.iter().map(|(cluster, weight)| (cluster, *weight)).collect()
            }
        }
    }
}

/// What a route answers by itself.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AnswerConfig {
    /// The status. Default: 200.
    #[serde(default)]
    #[schemars(with = "u16", range(min = 200, max = 599))]
    pub(crate) status: Option<u16>,
    /// The body. Default: none.
    #[serde(default)]
    pub(crate) body: String,
    /// Fields of the head.
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
}
