//! How requests are spread over a cluster's endpoints, and which of these are left out: the parts of a cluster's entry that are
//! more than one value. Used by the file's form and by the model alike, where both are the same.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::address::Address;
use crate::discovery::Locality;
use crate::file::{EndpointText, Name};
use crate::model::Cluster;
use crate::units::DurationText;

/// One server of a cluster.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Endpoint {
    /// Where it listens.
    pub address: Address,
    /// Its share of the requests beside the other endpoints' weights.
    pub weight: u32,
    /// It is used while too few endpoints of a lower number can be.
    pub priority: u32,
    /// What subsets are chosen by.
    pub labels: Labels,
    /// Where it is.
    pub locality: Locality,
    /// The host name, without the port, by which it was found; none if it was written as an address.
    pub host: Option<Arc<str>>,
}

/// Names and values.
pub type Labels = BTreeMap<String, String>;

/// Some of another cluster's endpoints.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Subset {
    /// The name of that cluster.
    pub of: String,
    /// They have all these labels.
    pub labels: Labels,
}

impl Cluster {
    /// Whether an endpoint of this cluster, or of the one that it is a subset of, is in it.
    pub fn holds(&self, endpoint: &Endpoint) -> bool {
        let has = |(name, value)| endpoint.labels.get(name) == Some(value);
        self.subset.as_ref().is_none_or(|subset| subset.labels.iter().all(has))
    }
}

/// How an endpoint is chosen.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum LoadBalancer {
    /// One after the other, by weight.
    #[default]
    RoundRobin,
    /// Of two drawn at random, the one with fewer requests in flight.
    LeastRequest,
    /// Of two drawn at random, the one that answers faster: its latency of late times its requests in flight.
    PeakEwma,
    /// One drawn at random, by weight.
    Random,
    /// Always the same endpoint for the same key: a ring, in which an endpoint that comes or goes moves only its own keys.
    RingHash(HashBy),
    /// As `ring_hash`, but spread more evenly; an endpoint that comes or goes moves a few other keys too.
    Maglev(HashBy),
}

/// What decides the endpoint, and how far one may be loaded beside the others.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct HashBy {
    /// The part of the request that is the key. A request without it goes to any endpoint.
    pub by: HashKey,
    /// An endpoint whose requests in flight would be more than this many times the average passes its key on to the next
    /// endpoint. Default: no bound.
    #[serde(default)]
    #[schemars(with = "f64", range(min = 1, max = 1000))]
    pub max_load: Option<f64>,
}

/// A part of a request.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum HashKey {
    /// The first value of a header field.
    Header(#[schemars(length(min = 1))] String),
    /// The value of a cookie.
    Cookie(#[schemars(length(min = 1))] String),
    /// The value of a query parameter, as it is written.
    Query(#[schemars(length(min = 1))] String),
    /// The client's IP address.
    SourceAddress,
}

/// When endpoints are left out for a while by what they answer.
#[derive(Clone, Debug, PartialEq)]
pub struct OutlierDetection {
    /// So many answers of 5xx in a row eject, or requests without an answer, unless those are counted apart.
    pub consecutive_errors: Option<u32>,
    /// So many answers of 502, 503 or 504 in a row eject.
    pub consecutive_gateway_errors: Option<u32>,
    /// So many requests without an answer in a row eject.
    pub consecutive_local_errors: Option<u32>,
    /// Success rates are compared.
    pub success_rate: Option<SuccessRate>,
    /// How often success rates are compared and old ejections forgiven.
    pub interval: Duration,
    /// How long the first ejection lasts.
    pub ejection_time: Duration,
    /// How long any ejection lasts at most.
    pub max_ejection_time: Duration,
    /// Most endpoints ejected at a time, in percent; one always may be.
    pub max_ejection_percent: u32,
}

/// Ejects endpoints whose share of successes is far below the average.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct SuccessRate {
    /// An endpoint with fewer requests in an interval is not compared. Default: 100.
    #[serde(default = "SuccessRate::requests")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub requests: u32,
    /// With fewer endpoints to compare nothing is done. Default: 5.
    #[serde(default = "SuccessRate::endpoints")]
    #[schemars(range(min = 2, max = 100_000))]
    pub endpoints: u32,
    /// So many standard deviations below the average are too many. Default: 1.9.
    #[serde(default = "SuccessRate::deviations")]
    #[schemars(range(min = 0.1, max = 100))]
    pub deviations: f64,
}

impl SuccessRate {
    fn requests() -> u32 {
        100
    }

    fn endpoints() -> u32 {
        5
    }

    fn deviations() -> f64 {
        1.9
    }
}

/// How much of a cluster may be in use at a time, by all workers together.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ClusterLimits {
    /// Open connections, TCP sessions included.
    pub connections: usize,
    /// Requests that wait because no further connection may be opened.
    pub pending_requests: usize,
    /// How long a request waits for that.
    pub pending_timeout: Duration,
    /// Requests on a connection, from their first byte to the response's last.
    pub active_requests: usize,
    /// Requests that are sent again.
    pub retries: usize,
    /// Interim responses to one request.
    pub interim_responses: usize,
}

impl Default for ClusterLimits {
    fn default() -> ClusterLimits {
        ClusterLimitsEntry::default().with_defaults()
    }
}

/// `{address: 127.0.0.1:9001, weight: 3}`
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(untagged)]
#[expect(dead_code, reason = "read from the tree, which knows positions")]
pub(crate) enum EndpointForm {
    /// `IP:PORT`, `HOST:PORT`, or `unix:` and the absolute path of a Unix socket.
    Address(#[schemars(with = "EndpointText")] String),
    /// An address and more.
    Entry(EndpointEntry),
}

/// `{address: 127.0.0.1:9001, weight: 3}`
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "read from the tree, which knows positions")]
pub(crate) struct EndpointEntry {
    /// `IP:PORT`, `HOST:PORT`, or `unix:` and the absolute path of a Unix socket.
    #[schemars(with = "EndpointText")]
    address: String,
    /// Its share of the requests beside the other endpoints' weights. Default: 1.
    #[serde(default)]
    #[schemars(with = "u32", range(min = 1, max = 1000))]
    weight: Option<u32>,
    /// Endpoints of priority 1 are used while too few of priority 0 can be, and so on. Default: 0.
    #[serde(default)]
    #[schemars(with = "u32", range(min = 0, max = 15))]
    priority: Option<u32>,
    /// What subsets are chosen by.
    #[serde(default)]
    labels: Labels,
    /// Where it is: `REGION/ZONE/SUBZONE`, of which the later parts may be left out.
    #[serde(default)]
    #[schemars(with = "String", regex(pattern = "^[^/]+(/[^/]+){0,2}$"))]
    locality: Option<String>,
}

/// `- {name: reviews-v1, labels: {version: v1}}`
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SubsetEntry {
    /// Its name, unique among clusters and subsets.
    pub(crate) name: Name,
    /// Its endpoints are those that have all these labels.
    #[schemars(extend("minProperties" = 1))]
    pub(crate) labels: Labels,
}

/// `outlier_detection: {consecutive_errors: 5, ejection_time: 30s}`
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OutlierEntry {
    /// So many answers of 5xx in a row eject an endpoint; a request that got no answer counts as one, unless
    /// `consecutive_local_errors` is given. 0: none do. Default: 5.
    #[serde(default)]
    #[schemars(with = "u32", range(min = 0, max = 1_000_000))]
    consecutive_errors: Option<u32>,
    /// So many answers of 502, 503 or 504 in a row eject an endpoint. Default: none do.
    #[serde(default)]
    #[schemars(with = "u32", range(min = 1, max = 1_000_000))]
    consecutive_gateway_errors: Option<u32>,
    /// So many requests in a row that got no answer (connection failed, reset, too late) eject an endpoint, and are no
    /// errors for the other counts. Default: they are.
    #[serde(default)]
    #[schemars(with = "u32", range(min = 1, max = 1_000_000))]
    consecutive_local_errors: Option<u32>,
    /// Ejects endpoints whose share of successes is far below the average. Default: none.
    #[serde(default)]
    #[schemars(with = "SuccessRate")]
    success_rate: Option<SuccessRate>,
    /// How often success rates are compared, and an ejection forgiven. Default: 10s.
    #[serde(default)]
    #[schemars(with = "DurationText")]
    interval: Option<DurationText>,
    /// How long an ejection lasts, times the number of the endpoint's ejections of late. Default: 30s.
    #[serde(default)]
    #[schemars(with = "DurationText")]
    ejection_time: Option<DurationText>,
    /// How long it lasts at most. Default: 5m.
    #[serde(default)]
    #[schemars(with = "DurationText")]
    max_ejection_time: Option<DurationText>,
    /// Most endpoints ejected at a time, in percent; one always may be. Default: 10.
    #[serde(default)]
    #[schemars(with = "u32", range(min = 0, max = 100))]
    max_ejection_percent: Option<u32>,
}

impl OutlierEntry {
    pub(crate) fn with_defaults(self) -> OutlierDetection {
        let lasting = |written: Option<DurationText>, default| written.map_or(default, |written| written.0);
        OutlierDetection {
            consecutive_errors: Some(self.consecutive_errors.unwrap_or(5)).filter(|count| *count > 0),
            consecutive_gateway_errors: self.consecutive_gateway_errors,
            consecutive_local_errors: self.consecutive_local_errors,
            success_rate: self.success_rate,
            interval: lasting(self.interval, Duration::from_secs(10)),
            ejection_time: lasting(self.ejection_time, Duration::from_secs(30)),
            max_ejection_time: lasting(self.max_ejection_time, Duration::from_secs(300)),
            max_ejection_percent: self.max_ejection_percent.unwrap_or(10),
        }
    }
}

/// `limits: {connections: 100, pending_requests: 50}`
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClusterLimitsEntry {
    /// Most connections to the endpoints. With all of them busy, requests wait for one, and TCP connections are closed.
    /// Default: 1024.
    #[serde(default)]
    #[schemars(with = "usize", range(min = 1, max = 1_000_000))]
    connections: Option<usize>,
    /// Most requests that wait so; one more is answered with 503. Default: 1024.
    #[serde(default)]
    #[schemars(with = "usize", range(min = 0, max = 1_000_000))]
    pending_requests: Option<usize>,
    /// How long a request waits so at most, before it is answered with 503. Default: 30s.
    #[serde(default)]
    #[schemars(with = "DurationText")]
    pending_timeout: Option<DurationText>,
    /// Most requests on connections, from the first byte to the response's last; one more is answered with 503.
    /// Default: 1024.
    #[serde(default)]
    #[schemars(with = "usize", range(min = 1, max = 1_000_000))]
    active_requests: Option<usize>,
    /// Most requests that are being sent again. Default: 3.
    #[serde(default)]
    #[schemars(with = "usize", range(min = 0, max = 1_000_000))]
    retries: Option<usize>,
    /// Most interim responses (1xx) to one request; with one more it is answered with 502. Default: 10.
    #[serde(default)]
    #[schemars(with = "usize", range(min = 0, max = 1_000_000))]
    interim_responses: Option<usize>,
}

impl ClusterLimitsEntry {
    pub(crate) fn with_defaults(self) -> ClusterLimits {
        ClusterLimits {
            connections: self.connections.unwrap_or(1024),
            pending_requests: self.pending_requests.unwrap_or(1024),
            pending_timeout: self.pending_timeout.map_or(Duration::from_secs(30), |written| written.0),
            active_requests: self.active_requests.unwrap_or(1024),
            retries: self.retries.unwrap_or(3),
            interim_responses: self.interim_responses.unwrap_or(10),
        }
    }
}
