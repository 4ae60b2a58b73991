//! Health checks: a cluster's `health_check`, in the file's form and in the model's.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::address;
use crate::diagnostic::Report;
use crate::references::{lasting, whole};
use crate::tree::{Kind, Node};
use crate::units::DurationText;
use crate::words::quoted;

/// How endpoints are asked whether they are well.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HealthCheck {
    /// What is asked, and what is a good answer.
    pub probe: Probe,
    /// The port to ask at; none: the endpoint's.
    pub port: Option<u16>,
    /// From one check to the next.
    pub interval: Duration,
    /// The same while the endpoint is unhealthy.
    pub unhealthy_interval: Duration,
    /// The same before the cluster has had its first request.
    pub no_traffic_interval: Duration,
    /// How much longer an interval is at most, in percent.
    pub jitter: u32,
    /// How long a check may take.
    pub timeout: Duration,
    /// Good answers in a row that make an unhealthy endpoint healthy.
    pub healthy_threshold: u32,
    /// Failures in a row that make a healthy endpoint unhealthy.
    pub unhealthy_threshold: u32,
    /// A good answer ends an ejection by outlier detection.
    pub ends_ejection: bool,
}

/// What a health check asks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Probe {
    /// An HTTP request, in the cluster's protocol.
    Http(HttpProbe),
    /// A connection, and bytes over it.
    Tcp {
        /// What is sent.
        send: String,
        /// What is to come; nothing is waited for if it is empty.
        expect: String,
    },
    /// A call of `grpc.health.v1.Health/Check`.
    Grpc {
        /// Which service is asked for; empty: the server as a whole.
        service: String,
        /// The call's authority; none: the endpoint's address.
        authority: Option<String>,
    },
}

/// The request of a health check.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HttpProbe {
    /// Its method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Its authority; none: the endpoint's address.
    pub host: Option<String>,
    /// More fields, by name.
    pub headers: BTreeMap<String, String>,
    /// The statuses that are good answers: from, to.
    pub statuses: Vec<(u16, u16)>,
}

/// `health_check: {http: {path: /healthz}, interval: 5s}`
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HealthCheckEntry {
    /// Asks by an HTTP request, over the cluster's protocol.
    #[serde(default)]
    #[schemars(with = "HttpEntry")]
    http: Option<HttpEntry>,
    /// Asks by a connection.
    #[serde(default)]
    #[schemars(with = "TcpEntry")]
    tcp: Option<TcpEntry>,
    /// Asks by gRPC's health protocol (`grpc.health.v1`).
    #[serde(default)]
    #[schemars(with = "GrpcEntry")]
    grpc: Option<GrpcEntry>,
    /// The port to ask at. Default: the endpoint's.
    #[serde(default)]
    #[schemars(with = "u16", range(min = 1, max = 65535))]
    port: Option<u16>,
    /// From one check to the next. Default: 10s.
    #[serde(default)]
    #[schemars(with = "DurationText")]
    interval: Option<DurationText>,
    /// The same while the endpoint is unhealthy. Default: as `interval`.
    #[serde(default)]
    #[schemars(with = "DurationText")]
    unhealthy_interval: Option<DurationText>,
    /// The same before the cluster has had its first request. Default: as `interval`.
    #[serde(default)]
    #[schemars(with = "DurationText")]
    no_traffic_interval: Option<DurationText>,
    /// Intervals are longer by up to so many percent, at random, so that many proxies do not ask at once. Default: 10.
    #[serde(default)]
    #[schemars(with = "u32", range(min = 0, max = 100))]
    jitter: Option<u32>,
    /// How long a check may take. Default: 2s.
    #[serde(default)]
    #[schemars(with = "DurationText")]
    timeout: Option<DurationText>,
    /// So many good answers in a row make an unhealthy endpoint healthy. An endpoint's first answer decides by itself.
    /// Default: 2.
    #[serde(default)]
    #[schemars(with = "u32", range(min = 1, max = 1000))]
    healthy_threshold: Option<u32>,
    /// So many failures in a row make a healthy endpoint unhealthy. Default: 3.
    #[serde(default)]
    #[schemars(with = "u32", range(min = 1, max = 1000))]
    unhealthy_threshold: Option<u32>,
    /// Whether a good answer ends an ejection by outlier detection. Default: true.
    #[serde(default)]
    #[schemars(with = "bool")]
    ends_ejection: Option<bool>,
}

/// `http: {path: /healthz, statuses: [200, 204]}`
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct HttpEntry {
    /// Path and query.
    #[schemars(regex(pattern = "^/[!-~]*$"))]
    path: String,
    /// Its authority. Default: the endpoint's address.
    #[serde(default)]
    #[schemars(with = "String", regex(pattern = "^[!-~]+$"))]
    host: Option<String>,
    /// Its method. Default: GET.
    #[serde(default)]
    #[schemars(with = "String", regex(pattern = "^[A-Z]+$"))]
    method: Option<String>,
    /// More header fields, by name.
    #[serde(default)]
    #[schemars(extend(
        "propertyNames" = {"type": "string", "pattern": "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"},
        "additionalProperties" = {"type": "string", "pattern": "^[ -~]*$"}
    ))]
    headers: BTreeMap<String, String>,
    /// The statuses that are good answers: numbers, or ranges such as `200-299`. Default: 200.
    #[serde(default = "StatusForm::default_list")]
    #[schemars(length(min = 1))]
    statuses: Vec<StatusForm>,
}

/// `200`, or `200-299`
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(untagged)]
enum StatusForm {
    /// One status.
    One(#[schemars(range(min = 100, max = 599))] u16),
    /// All from one to another.
    Range(#[schemars(regex(pattern = "^[1-5][0-9][0-9]-[1-5][0-9][0-9]$"))] String),
}

impl StatusForm {
    fn default_list() -> Vec<StatusForm> {
        vec![StatusForm::One(200)]
    }

    fn bounds(&self) -> (u16, u16) {
        match self {
            StatusForm::One(status) => (*status, *status),
            StatusForm::Range(text) => range(text).unwrap_or((0, 0)),
        }
    }
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (from, to) = text.split_once('-')?;
    Some((from.parse().ok()?, to.parse().ok()?))
}

/// `tcp: {send: "PING\r\n", expect: "+PONG"}`
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TcpEntry {
    /// What is sent once the connection is open. Default: nothing.
    #[serde(default)]
    #[schemars(length(max = 4096))]
    send: String,
    /// What the endpoint is to say, somewhere in its first 64 KiB. Default: nothing; then it is enough that it accepts.
    #[serde(default)]
    #[schemars(length(max = 4096))]
    expect: String,
}

/// `grpc: {service: reviews.Reviews}`
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct GrpcEntry {
    /// Which service is asked for. Default: the server as a whole.
    #[serde(default)]
    service: String,
    /// The call's authority. Default: the endpoint's address.
    #[serde(default)]
    #[schemars(with = "String", regex(pattern = "^[!-~]+$"))]
    authority: Option<String>,
}

impl HealthCheckEntry {
    pub(crate) fn with_defaults(self) -> HealthCheck {
        let lasting = |written: Option<DurationText>, default| written.map_or(default, |written| written.0);
        let interval = lasting(self.interval, Duration::from_secs(10));
        let probe = match (self.http, self.grpc, self.tcp) {
            (Some(http), ..) => Probe::Http(HttpProbe {
                method: http.method.unwrap_or_else(|| "GET".to_owned()),
                path: http.path,
                host: http.host,
                headers: http.headers,
                statuses: http.statuses.iter().map(StatusForm::bounds).collect(),
            }),
            (None, Some(grpc), _) => Probe::Grpc { service: grpc.service, authority: grpc.authority },
            // That there is one of the three has been checked.
            (None, None, tcp) => {
                let (send, expect) = tcp.map(|tcp| (tcp.send, tcp.expect)).unwrap_or_default();
                Probe::Tcp { send, expect }
            }
        };
        HealthCheck {
            probe,
            port: self.port,
            interval,
            unhealthy_interval: lasting(self.unhealthy_interval, interval),
            no_traffic_interval: lasting(self.no_traffic_interval, interval),
            jitter: self.jitter.unwrap_or(10),
            timeout: lasting(self.timeout, Duration::from_secs(2)),
            healthy_threshold: self.healthy_threshold.unwrap_or(2),
            unhealthy_threshold: self.unhealthy_threshold.unwrap_or(3),
            ends_ejection: self.ends_ejection.unwrap_or(true),
        }
    }
}

/// What a schema cannot say about a cluster's `health_check`.
pub(crate) fn check(cluster: &Node, report: &mut Report<'_>) {
    let Some(check) = cluster.get("health_check") else { return };
    for key in ["interval", "unhealthy_interval", "no_traffic_interval", "timeout"] {
        lasting(check, key, report);
    }
    for key in ["port", "jitter", "healthy_threshold", "unhealthy_threshold"] {
        whole(check, key, report);
    }
    if !matches!(check.kind, Kind::Map(_)) {
        return;
    }
    let mut endpoints = cluster.get("endpoints").map(Node::items).unwrap_or_default().iter();
    let is_unix =
        |entry: &Node| entry.get("address").unwrap_or(entry).as_text().is_some_and(address::is_unix);
    if let Some(port) = check.get("port").filter(|_| endpoints.any(is_unix)) {
        report.error(port.at, "`port` is for endpoints with an IP address, and one is on a Unix socket");
    }
    let mut probes = check.entries().iter().filter(|entry| ["http", "tcp", "grpc"].contains(&&*entry.key));
    match (probes.next(), probes.next()) {
        (None, _) => {
            let hint = "`http: {path: /healthz}`, `tcp: {}` or `grpc: {}`";
            report.error_with(check.at, "a health check needs something to ask", hint);
        }
        (Some(first), Some(second)) => {
            let message = format!("a health check asks in one way: by {} already", quoted(&first.key));
            report.error(second.at, message);
        }
        _ => {}
    }
    let statuses = check.get("http").and_then(|http| http.get("statuses"));
    for status in statuses.map(Node::items).unwrap_or_default() {
        if let Some((from, to)) = status.as_text().and_then(range)
            && from > to
        {
            report.error(status.at, format!("the range ends before it begins: {from}-{to}"));
        }
    }
}
