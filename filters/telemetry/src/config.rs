//! What a user writes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration as Time;

use meshgate_sdk::Cluster;
use meshgate_sdk::config::{Duration, Size};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

use crate::failures::Failures;
use crate::format::Format;
use crate::shape::Shape;

/// What is told of exchanges, and to whom. Nothing said: requests and durations are counted by route, cluster and code.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// What is counted, under which names and labels.
    #[serde(default)]
    pub(crate) metrics: MetricsConfig,
    /// Traces: which context goes on with requests, and where spans go. Left out: headers of traces pass as they are.
    #[serde(default)]
    #[schemars(with = "TracesConfig")]
    pub(crate) traces: Option<TracesConfig>,
    /// What the access log says of each exchange. Left out: the proxy's own line.
    #[serde(default)]
    #[schemars(with = "AccessLogConfig")]
    pub(crate) access_log: Option<AccessLogConfig>,
    /// Which statuses are failures: codes, classes (`5xx`), ranges (`500-503`), and gRPC's by their names (`unavailable`).
    /// Default: 5xx, and of gRPC those for which the caller is not to blame.
    #[serde(default)]
    pub(crate) failures: Failures,
    /// The application beside the proxy, for labels of Istio's metrics and for what is exported. What is left out is taken from
    /// the node's metadata.
    #[serde(default)]
    pub(crate) workload: WorkloadConfig,
}

/// What is counted, under which names and labels.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MetricsConfig {
    /// Whose names and labels. Default: meshgate.
    #[serde(default)]
    pub(crate) preset: Preset,
    /// The labels, of the preset meshgate. Default: route, cluster, code.
    #[serde(default)]
    #[schemars(with = "Vec<LabelName>")]
    pub(crate) labels: Option<Vec<LabelName>>,
    /// More labels, or others in the place of the preset's: a name, and a text with Envoy's format operators, such as
    /// `%REQ(x-tenant)%`. Its values must be few.
    #[serde(default)]
    pub(crate) tags: BTreeMap<String, Format>,
    /// Whether bytes of bodies are counted too, by the preset meshgate. Default: false.
    #[serde(default)]
    pub(crate) sizes: bool,
    /// The most sets of labels on each worker. What comes with one more counts under `other`. Default: 1000.
    #[serde(default = "MetricsConfig::max_series")]
    pub(crate) max_series: u32,
    /// How often what has passed on open TCP connections is counted. Default: 5s.
    #[serde(default = "MetricsConfig::tcp_interval")]
    pub(crate) tcp_interval: Duration,
}

/// Whose names and labels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Preset {
    /// `meshgate_http_requests_total` and its like.
    #[default]
    Meshgate,
    /// `istio_requests_total` and its like.
    Istio,
    /// `response_total` and its like.
    Linkerd,
    /// Nothing is counted.
    None,
}

/// A label of the preset meshgate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LabelName {
    /// The decided route.
    Route,
    /// The decided cluster.
    Cluster,
    /// The response's status.
    Code,
    /// Its class: `2xx`.
    Class,
    /// Response flags: `UF`.
    Flags,
    /// `success` or `failure`.
    Outcome,
    /// The client's identity, by its certificate.
    Source,
    /// The endpoint's identity, by its certificate.
    Destination,
    /// The endpoint's address.
    Endpoint,
    /// The request's method.
    Method,
    /// The request's protocol: `HTTP/2`.
    Protocol,
    /// The status of a gRPC call.
    GrpcStatus,
    /// `inbound`, `outbound` or `gateway`.
    Direction,
}

/// The application beside the proxy.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WorkloadConfig {
    /// Its name. In the node's metadata: WORKLOAD_NAME.
    #[serde(default)]
    #[schemars(with = "String")]
    pub(crate) name: Option<String>,
    /// Its namespace. In the node's metadata: NAMESPACE.
    #[serde(default)]
    #[schemars(with = "String")]
    pub(crate) namespace: Option<String>,
    /// In the node's metadata: `app` in LABELS.
    #[serde(default)]
    #[schemars(with = "String")]
    pub(crate) app: Option<String>,
    /// In the node's metadata: `version` in LABELS.
    #[serde(default)]
    #[schemars(with = "String")]
    pub(crate) version: Option<String>,
    /// The group of machines that it runs on. In the node's metadata: CLUSTER_ID.
    #[serde(default)]
    #[schemars(with = "String")]
    pub(crate) cluster: Option<String>,
    /// The service that it is a part of. Default: its `app`, or its name.
    #[serde(default)]
    #[schemars(with = "String")]
    pub(crate) service: Option<String>,
}

/// Traces.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TracesConfig {
    /// Where spans go. Left out: nowhere, and the context goes on all the same.
    #[serde(default)]
    #[schemars(with = "ReceiverConfig")]
    pub(crate) receiver: Option<ReceiverConfig>,
    /// Percent of the traces that begin here that are recorded. A trace that began elsewhere is recorded if it says so.
    /// Default: 1.
    #[serde(default = "TracesConfig::sampling")]
    #[schemars(range(min = 0, max = 100))]
    pub(crate) sampling: f64,
    /// The forms of the context that are read, in this order, and written: the first of them always, and others where the request
    /// has them. Default: w3c, b3, b3-multi.
    #[serde(default = "TracesConfig::propagation")]
    #[schemars(length(min = 1))]
    pub(crate) propagation: Vec<Propagation>,
    /// Whether a request's own context counts. Where clients are strangers, it should not. Default: true.
    #[serde(default = "TracesConfig::trust")]
    pub(crate) trust: bool,
    /// Whether traces begin here. Default: true.
    #[serde(default = "TracesConfig::start")]
    pub(crate) start: bool,
    /// The spans of an exchange: `server` for the whole, `client` for the endpoint's part. Default: `server` where the listener's
    /// traffic is inbound, `client` where it is outbound, else both.
    #[serde(default)]
    #[schemars(with = "SpanKinds")]
    pub(crate) spans: Option<SpanKinds>,
    /// More attributes of spans: a name, and a text with Envoy's format operators.
    #[serde(default)]
    pub(crate) attributes: BTreeMap<String, Format>,
}

/// A form in which requests carry the context of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Propagation {
    /// `traceparent` and `tracestate`.
    W3c,
    /// `b3`.
    B3,
    /// `x-b3-traceid` and its like.
    B3Multi,
}

/// Which spans an exchange has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SpanKinds {
    /// Of the whole exchange.
    Server,
    /// Of the endpoint's part.
    Client,
    /// Both, one in the other.
    Both,
}

/// What the access log says of each exchange: a line in the place of the proxy's own, as text or as JSON; a record for a receiver
/// of OTLP; or both.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AccessLogConfig {
    /// A line with Envoy's format operators; `envoy` and `istio` are the default lines of these.
    #[serde(default)]
    #[schemars(with = "Line")]
    pub(crate) text: Option<Line>,
    /// A map whose values are texts with Envoy's format operators, maps, lists, or constants.
    #[serde(default)]
    #[schemars(with = "Shape")]
    pub(crate) json: Option<Shape>,
    /// Records for a receiver of OTLP.
    #[serde(default)]
    #[schemars(with = "OtlpLogConfig")]
    pub(crate) otlp: Option<OtlpLogConfig>,
}

/// Records for a receiver of OTLP.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OtlpLogConfig {
    /// Where they go.
    pub(crate) receiver: ReceiverConfig,
    /// The text of a record. Default: envoy.
    #[serde(default)]
    pub(crate) body: Line,
    /// Attributes: a name, and a text with Envoy's format operators. One without a value is left out.
    #[serde(default)]
    pub(crate) attributes: BTreeMap<String, Format>,
}

/// A line of text.
#[derive(Clone, Debug)]
pub(crate) struct Line(pub(crate) Format);

impl Line {
    const ENVOY: &'static str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
        %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
        %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \
        \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"";
    /// Without what a connection's end is told by: nothing here knows it.
    const ISTIO: &'static str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
        %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% - \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" \
        %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \
        \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% \
        %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% \
        %ROUTE_NAME%";

    fn parse(text: &str) -> Result<Self, String> {
        Format::parse(match text {
            "envoy" => Self::ENVOY,
            "istio" => Self::ISTIO,
            // Envoy's own lines have their end in them.
            other => other.strip_suffix('\n').unwrap_or(other),
        })
        .map(Self)
    }
}

impl Default for Line {
    fn default() -> Self {
        // A test reads it.
        Self::parse("envoy").unwrap_or_else(|_| Self(Format::default()))
    }
}

impl<'de> Deserialize<'de> for Line {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&Cow::<str>::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

impl JsonSchema for Line {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Line".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string"})
    }
}

/// Who gets what is exported by OTLP.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReceiverConfig {
    /// The cluster of the receivers.
    pub(crate) cluster: Cluster,
    /// OTLP over gRPC, or over HTTP. Default: grpc.
    #[serde(default)]
    pub(crate) protocol: Protocol,
    /// The path, over HTTP. Default: /v1/traces or /v1/logs.
    #[serde(default)]
    #[schemars(with = "String")]
    pub(crate) path: Option<String>,
    /// Fields of each request to the receiver: keys of an account, for example.
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
    /// How often what there is is sent. Default: 1s.
    #[serde(default = "ReceiverConfig::interval")]
    pub(crate) interval: Duration,
    /// How long the receiver may take. Default: 10s.
    #[serde(default = "ReceiverConfig::timeout")]
    pub(crate) timeout: Duration,
    /// The most that waits to be sent, on each worker. What is too much is dropped and counted. Default: 2MiB.
    #[serde(default = "ReceiverConfig::queue")]
    pub(crate) queue: Size,
    /// Attributes of what sends: a name and a value. `service.name` and a few others are set by themselves.
    #[serde(default)]
    pub(crate) resource: BTreeMap<String, String>,
}

/// What OTLP goes over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Protocol {
    /// Unary calls of gRPC.
    #[default]
    Grpc,
    /// POST requests with Protocol Buffers.
    Http,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self {
            preset: Preset::default(),
            labels: None,
            tags: BTreeMap::new(),
            sizes: false,
            max_series: Self::max_series(),
            tcp_interval: Self::tcp_interval(),
        }
    }
}

impl MetricsConfig {
    fn max_series() -> u32 {
        1_000
    }

    fn tcp_interval() -> Duration {
        Time::from_secs(5).into()
    }
}

impl LabelName {
    /// As the label is called.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::Cluster => "cluster",
            Self::Code => "code",
            Self::Class => "class",
            Self::Flags => "flags",
            Self::Outcome => "outcome",
            Self::Source => "source",
            Self::Destination => "destination",
            Self::Endpoint => "endpoint",
            Self::Method => "method",
            Self::Protocol => "protocol",
            Self::GrpcStatus => "grpc_status",
            Self::Direction => "direction",
        }
    }
}

impl TracesConfig {
    fn sampling() -> f64 {
        1.0
    }

    fn propagation() -> Vec<Propagation> {
        vec![Propagation::W3c, Propagation::B3, Propagation::B3Multi]
    }

    fn trust() -> bool {
        true
    }

    fn start() -> bool {
        true
    }
}

impl ReceiverConfig {
    fn interval() -> Duration {
        Time::from_secs(1).into()
    }

    fn timeout() -> Duration {
        Time::from_secs(10).into()
    }

    fn queue() -> Size {
        Size::of(2 << 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_by_name_are_lines() {
        for name in ["envoy", "istio"] {
            assert!(Line::parse(name).is_ok(), "{name}");
        }
    }
}
