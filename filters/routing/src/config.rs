//! What a user writes under `routing:`.

use std::collections::{BTreeMap, HashSet};

use meshgate_sdk::ConfigError;
use meshgate_sdk::config::{Cluster, ClusterMap, Duration, SubChain};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::conditions::Alternative;

/// The configuration of the filter `routing`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The routes. The first one that matches a request decides; the order of this list is all that counts.
    pub(crate) routes: Vec<RouteConfig>,
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
    /// The cluster that requests go to, or several with weights. A route has this or `redirect`.
    #[serde(default)]
    #[schemars(with = "Targets")]
    pub(crate) to: Option<Targets>,
    /// Sends clients elsewhere, to the same path and query: `{scheme: https}`. A route has this or `to`.
    #[serde(default)]
    #[schemars(with = "RedirectConfig")]
    pub(crate) redirect: Option<RedirectConfig>,
    /// How long an exchange may take from the end of its request to the end of its response.
    pub(crate) timeout: Option<Duration>,
    /// Filters for this route only. They run after this one.
    pub(crate) filters: Option<SubChain>,
}

/// Conditions: one map, or a list of maps.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "expected a map of conditions (path, host, method, headers, query) or a list of such maps"
)]
pub(crate) enum Matches {
    /// All conditions must hold.
    All(Conditions),
    /// All conditions of one of the maps must hold.
    Any(#[schemars(length(min = 1))] Vec<Conditions>),
}

impl Default for Matches {
    fn default() -> Self {
        Self::All(Conditions::default())
    }
}

/// Conditions that must all hold. What is left out holds always.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Conditions {
    /// The path without the query: exact (`/login`), everything below (`/reviews/**`), or `*` for a part of a segment.
    pub(crate) path: Option<String>,
    /// The authority without the port, in any case: exact, or `*.example.com`.
    pub(crate) host: Option<String>,
    /// The method, exactly as written: methods are case-sensitive.
    pub(crate) method: Option<String>,
    /// Fields that the request must have, with exactly these values.
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
    /// Parameters that the query must have, with exactly these values, as they stand in the URL.
    #[serde(default)]
    pub(crate) query: BTreeMap<String, String>,
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

/// Where clients are sent. What is left out is as in the request, but for the port, which is the scheme's own.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RedirectConfig {
    /// The scheme.
    #[serde(default)]
    #[schemars(with = "Scheme")]
    pub(crate) scheme: Option<Scheme>,
    /// The host, without a port.
    #[serde(default)]
    #[schemars(with = "String", length(min = 1))]
    pub(crate) host: Option<String>,
    /// The port. Default: 443 for https, 80 for http.
    #[serde(default)]
    #[schemars(with = "u16", range(min = 1))]
    pub(crate) port: Option<u16>,
    /// The status. With 307 and 308 clients keep method and body. Default: 301.
    #[serde(default)]
    #[schemars(with = "u16", extend("enum" = [301, 302, 303, 307, 308]))]
    pub(crate) code: Option<u16>,
}

/// A scheme that clients can be sent to.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Scheme {
    /// Cleartext.
    Http,
    /// Through TLS.
    Https,
}

impl Scheme {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }

    pub(crate) fn port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }
}

impl Config {
    /// Refuses names that are empty or used twice: metrics could not tell the routes apart.
    pub(crate) fn check_names(&self) -> Result<(), ConfigError> {
        let mut seen = HashSet::new();
        for (index, route) in self.routes.iter().enumerate() {
            let refuse = |message: String| Err(ConfigError::new(message).at(format!("routes/{index}/name")));
            if route.name.is_empty() {
                return refuse("a route needs a name".to_owned());
            }
            if !seen.insert(route.name.as_str()) {
                return refuse(format!("another route is named {:?} already", route.name));
            }
        }
        Ok(())
    }
}

impl RouteConfig {
    /// The conditions, prepared for matching.
    pub(crate) fn alternatives(&self) -> Result<Vec<Alternative>, ConfigError> {
        match &self.r#match {
            Matches::All(conditions) => {
                Ok(vec![Alternative::new(conditions).map_err(|error| error.within("match"))?])
            }
            Matches::Any(list) if list.is_empty() => {
                Err(ConfigError::new("an empty list of conditions matches nothing").at("match"))
            }
            Matches::Any(list) => {
                let alternatives = list.iter().enumerate().map(|(index, conditions)| {
                    Alternative::new(conditions).map_err(|error| error.within(&format!("match/{index}")))
                });
                alternatives.collect()
            }
        }
    }
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
