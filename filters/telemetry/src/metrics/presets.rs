//! Which metrics and labels there are: Meshgate's own, those of Istio, and those of Linkerd, by the names that their dashboards ask for.

use meshgate_sdk::{ConfigError, property};

use super::label::{Label, ServicePart, Source};
use super::{Measure, Metric, Plan};
use crate::config::{Config, LabelName, Preset, WorkloadConfig};

/// Upper bounds in seconds: from what a proxy adds up to what people wait for.
const SECONDS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// In bytes, each four times the one before.
const BYTES: &[f64] = &[
    64.0,
    256.0,
    1_024.0,
    4_096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];
/// Istio's: Envoy's default, for milliseconds and bytes alike.
const ENVOY: &[f64] = &[
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1_000.0,
    2_500.0,
    5_000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];
/// Linkerd's, in milliseconds.
pub(super) const LINKERD: &[f64] =
    &[1.0, 10.0, 50.0, 100.0, 200.0, 300.0, 400.0, 500.0, 1_000.0, 5_000.0, 10_000.0];

/// Labels of a set of metrics.
const MOST_LABELS: usize = 32;

impl Metric {
    /// A counter, or a gauge, with all labels.
    pub(super) fn number(name: &'static str, help: &'static str, measure: Measure) -> Self {
        Self { name, help, measure, labels: u64::MAX, buckets: &[], scale: 0.0 }
    }

    /// A histogram with all labels.
    pub(super) fn histogram(
        name: &'static str,
        help: &'static str,
        measure: Measure,
        buckets: &'static [f64],
        scale: f64,
    ) -> Self {
        Self { name, help, measure, labels: u64::MAX, buckets, scale }
    }
}

/// The configured set of metrics; none if nothing is to be counted.
///
/// # Errors
/// It makes no sense.
pub(super) fn build(config: &Config) -> Result<Option<Plan>, ConfigError> {
    let (mut labels, without) = match config.metrics.preset {
        Preset::None => return Ok(None),
        Preset::Meshgate => (own(config, |_| true), 0),
        Preset::Istio => (istio(&config.workload), 0),
        Preset::Linkerd => linkerd(),
    };
    if config.metrics.labels.is_some() && config.metrics.preset != Preset::Meshgate {
        let error = ConfigError::new("the preset has its own labels; `tags` adds some, or replaces them");
        return Err(error.at("metrics/labels"));
    }
    add_tags(config, &mut labels)?;
    Ok(Some(Plan { labels, metrics: metrics(config, without) }))
}

/// Adds the configured labels, or puts them in the place of the preset's.
///
/// # Errors
/// One makes no sense.
pub(super) fn add_tags(config: &Config, labels: &mut Vec<Label>) -> Result<(), ConfigError> {
    for (name, format) in &config.metrics.tags {
        let at = |message: String| ConfigError::new(message).at(format!("metrics/tags/{name}"));
        if !is_label(name) {
            return Err(at(format!("`{name}` is not the name of a label")));
        }
        let label = Label::new(name, Source::Format(format.clone()), "");
        match labels.iter().position(|known| known.name == *name) {
            Some(place) => labels.splice(place..=place, [label]).for_each(drop),
            None if labels.len() < MOST_LABELS => labels.push(label),
            None => return Err(at(format!("more than {MOST_LABELS} labels"))),
        }
    }
    Ok(())
}

fn is_label(name: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    name.bytes().all(letter)
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && !name.is_empty()
        && !name.starts_with("__")
        && name != "le"
}

/// The metrics; `of_end` are the labels that only those about the end have.
fn metrics(config: &Config, of_end: u64) -> Vec<Metric> {
    let counter = |name, help| Metric::number(name, help, Measure::Count);
    let histogram = Metric::histogram;
    match config.metrics.preset {
        Preset::None => Vec::new(),
        Preset::Meshgate => {
            let mut all = vec![
                counter(
                    "meshgate_http_requests_total",
                    "Requests that have ended, by route, cluster and response code.",
                ),
                histogram(
                    "meshgate_http_request_duration_seconds",
                    "Time from a request's first byte to its response's last, in seconds.",
                    Measure::Duration,
                    SECONDS,
                    1e-6,
                ),
            ];
            if config.metrics.sizes {
                all.push(histogram(
                    "meshgate_http_request_bytes",
                    "Bytes of requests' bodies.",
                    Measure::RequestBytes,
                    BYTES,
                    0.0,
                ));
                all.push(histogram(
                    "meshgate_http_response_bytes",
                    "Bytes of responses' bodies.",
                    Measure::ResponseBytes,
                    BYTES,
                    0.0,
                ));
            }
            all
        }
        Preset::Istio => vec![
            counter("istio_requests_total", "Requests that have ended."),
            histogram(
                "istio_request_duration_milliseconds",
                "Time from a request's first byte to its response's last, in milliseconds.",
                Measure::Duration,
                ENVOY,
                1e-3,
            ),
            histogram("istio_request_bytes", "Bytes of requests' bodies.", Measure::RequestBytes, ENVOY, 0.0),
            histogram(
                "istio_response_bytes",
                "Bytes of responses' bodies.",
                Measure::ResponseBytes,
                ENVOY,
                0.0,
            ),
            Metric::number(
                "istio_request_messages_total",
                "Messages of gRPC from clients.",
                Measure::RequestMessages,
            ),
            Metric::number(
                "istio_response_messages_total",
                "Messages of gRPC to clients.",
                Measure::ResponseMessages,
            ),
        ],
        Preset::Linkerd => vec![
            Metric { labels: !of_end, ..counter("request_total", "Requests.") },
            counter("response_total", "Responses that have ended."),
            Metric {
                labels: !of_end | 1 << LINKERD_CODE,
                ..histogram(
                    "response_latency_ms",
                    "Time from a request's first byte to its response's head, in milliseconds.",
                    Measure::ToResponse,
                    LINKERD,
                    1e-3,
                )
            },
        ],
    }
}

/// Those of the configured labels that are of use.
pub(super) fn own(config: &Config, is_of_use: impl Fn(LabelName) -> bool) -> Vec<Label> {
    const DEFAULT: &[LabelName] = &[LabelName::Route, LabelName::Cluster, LabelName::Code];
    let names = config.metrics.labels.as_deref().unwrap_or(DEFAULT);
    names
        .iter()
        .filter(|name| is_of_use(**name))
        .map(|name| Label::new(name.as_str(), name.source(), ""))
        .collect()
}

impl LabelName {
    fn source(self) -> Source {
        match self {
            Self::Route => Source::Property("xds/route_name"),
            Self::Cluster => Source::Property("xds/cluster_name"),
            Self::Code => Source::Code,
            Self::Class => Source::Class,
            Self::Flags => Source::Flags,
            Self::Outcome => Source::Outcome("success", "failure"),
            Self::Source => Source::Property("connection/uri_san_peer_certificate"),
            Self::Destination => Source::Property("upstream/uri_san_peer_certificate"),
            Self::Endpoint => Source::Property("upstream/address"),
            Self::Method => Source::Method,
            Self::Protocol => Source::Property("request/protocol"),
            Self::GrpcStatus => Source::GrpcStatus,
            Self::Direction => Source::Direction(["gateway", "inbound", "outbound"]),
        }
    }
}

/// What the configuration, or else the node's metadata, says of the application beside the proxy.
fn said(configured: Option<&String>, paths: &[&str]) -> String {
    let found = || paths.iter().find_map(|path| property::text(&format!("xds/node/metadata/{path}")));
    configured.cloned().or_else(found).unwrap_or_default()
}

pub(super) fn istio(workload: &WorkloadConfig) -> Vec<Label> {
    const UNKNOWN: &str = "unknown";
    const CLIENT: &str = "connection/uri_san_peer_certificate";
    const SERVER: &str = "upstream/uri_san_peer_certificate";
    let label = |name, source| Label::new(name, source, UNKNOWN);
    let name = said(workload.name.as_ref(), &["WORKLOAD_NAME"]);
    let namespace = said(workload.namespace.as_ref(), &["NAMESPACE"]);
    let app = said(workload.app.as_ref(), &["LABELS/app"]);
    let version = said(workload.version.as_ref(), &["LABELS/version"]);
    let cluster = said(workload.cluster.as_ref(), &["CLUSTER_ID"]);
    let service = workload.service.as_ref().unwrap_or(if app.is_empty() { &name } else { &app }).clone();
    let mut labels = vec![label("reporter", Source::Direction(["source", "destination", "source"]))];
    for (side, is_source) in [("source", true), ("destination", false)] {
        let peer = if is_source { CLIENT } else { SERVER };
        let mut own = |key: &str, value: &str, peer| {
            let source = Source::Own { is_source, value: value.to_owned(), peer };
            labels.push(Label::new(&format!("{side}_{key}"), source, UNKNOWN));
        };
        own("workload", &name, None);
        own("workload_namespace", &namespace, Some(peer));
        own("app", &app, None);
        own("version", &version, None);
        own("cluster", &cluster, None);
        own("canonical_service", &service, None);
        own("canonical_revision", if version.is_empty() { "latest" } else { &version }, None);
    }
    labels.extend([
        label(
            "source_principal",
            Source::Sided { inbound: CLIENT, else_where: "upstream/uri_san_local_certificate" },
        ),
        label(
            "destination_principal",
            Source::Sided { inbound: "connection/uri_san_local_certificate", else_where: SERVER },
        ),
        label("destination_service", Source::Service(ServicePart::Host)),
        label("destination_service_name", Source::Service(ServicePart::Name)),
        label("destination_service_namespace", Source::Service(ServicePart::Namespace)),
        label("request_protocol", Source::Kind),
        label("response_code", Source::Code),
        Label::new("grpc_response_status", Source::GrpcStatus, ""),
        Label::new("response_flags", Source::Flags, "-"),
        label("connection_security_policy", Source::Security(["mutual_tls", "none", UNKNOWN])),
    ]);
    labels
}

/// The place of `status_code` among Linkerd's labels.
const LINKERD_CODE: usize = 6;

/// And those that only the metrics about the end have.
fn linkerd() -> (Vec<Label>, u64) {
    let labels = vec![
        Label::new("direction", Source::Direction(["outbound", "inbound", "outbound"]), ""),
        Label::new("authority", Source::Property("request/host"), ""),
        Label::new(
            "target_addr",
            Source::Sided { inbound: "destination/address", else_where: "upstream/address" },
            "",
        ),
        Label::new("tls", Source::FarTls, ""),
        Label::new(
            "client_id",
            Source::Sided { inbound: "connection/uri_san_peer_certificate", else_where: "" },
            "",
        ),
        Label::new(
            "server_id",
            Source::Sided { inbound: "", else_where: "upstream/uri_san_peer_certificate" },
            "",
        ),
        Label::new("status_code", Source::Code, ""),
        Label::new("classification", Source::Outcome("success", "failure"), ""),
        Label::new("grpc_status", Source::GrpcStatus, ""),
    ];
    (labels, 0b111 << LINKERD_CODE)
}
