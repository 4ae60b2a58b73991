//! Which metrics and labels TCP connections have, by the names of Meshgate, Istio and Linkerd.

use meshgate_sdk::ConfigError;

use super::label::{CLIENT_TLS, Label, SERVER_TLS, Source};
use super::presets::{LINKERD, add_tags, istio, own};
use super::{Measure, Metric, Plan};
use crate::config::{Config, LabelName, Preset};

/// One of the sets of series that a connection counts in.
pub(super) struct Side {
    pub(super) plan: Plan,
    /// Only where there is a connection to an endpoint.
    pub(super) of_endpoint: bool,
}

/// The configured sets; none if nothing is to be counted.
///
/// # Errors
/// The configuration makes no sense.
pub(super) fn sides(config: &Config) -> Result<Vec<Side>, ConfigError> {
    let sides = match config.metrics.preset {
        Preset::None => Vec::new(),
        Preset::Meshgate => {
            let names = [
                "meshgate_tcp_connections_opened_total",
                "meshgate_tcp_connections_closed_total",
                "meshgate_tcp_received_bytes_total",
                "meshgate_tcp_sent_bytes_total",
            ];
            vec![(own(config, LabelName::is_of_connections), counters(names), false)]
        }
        Preset::Istio => {
            let names = [
                "istio_tcp_connections_opened_total",
                "istio_tcp_connections_closed_total",
                "istio_tcp_received_bytes_total",
                "istio_tcp_sent_bytes_total",
            ];
            let mut labels = istio(&config.workload);
            labels.retain(|label| !matches!(label.name.as_str(), "response_code" | "grpc_response_status"));
            vec![(labels, counters(names), false)]
        }
        Preset::Linkerd => vec![
            (linkerd("src"), of_linkerd(Measure::Received, Measure::Sent), false),
            // What comes from the endpoint is what goes to the client.
            (linkerd("dst"), of_linkerd(Measure::Sent, Measure::Received), true),
        ],
    };
    let side = |(mut labels, metrics, of_endpoint)| {
        add_tags(config, &mut labels)?;
        Ok(Side { plan: Plan { labels, metrics }, of_endpoint })
    };
    sides.into_iter().map(side).collect()
}

fn counters([opened, closed, received, sent]: [&'static str; 4]) -> Vec<Metric> {
    vec![
        Metric::number(opened, "TCP connections that have begun.", Measure::Opened),
        Metric::number(closed, "TCP connections that have ended.", Measure::Closed),
        Metric::number(received, "Bytes from the clients of TCP connections.", Measure::Received),
        Metric::number(sent, "Bytes to the clients of TCP connections.", Measure::Sent),
    ]
}

fn of_linkerd(read: Measure, written: Measure) -> Vec<Metric> {
    vec![
        Metric::number("tcp_open_total", "TCP connections that have begun.", Measure::Opened),
        Metric::number("tcp_open_connections", "TCP connections that are open.", Measure::Open),
        Metric::number("tcp_close_total", "TCP connections that have ended.", Measure::Closed),
        Metric::number("tcp_read_bytes_total", "Bytes that came from the peer.", read),
        Metric::number("tcp_write_bytes_total", "Bytes that went to the peer.", written),
        Metric::histogram(
            "tcp_connection_duration_ms",
            "How long TCP connections were open, in milliseconds.",
            Measure::Duration,
            LINKERD,
            1e-3,
        ),
    ]
}

fn linkerd(peer: &'static str) -> Vec<Label> {
    let (target, tls, name, identity) = match peer {
        "src" => ("destination/address", CLIENT_TLS, "client_id", "connection/uri_san_peer_certificate"),
        _ => ("upstream/address", SERVER_TLS, "server_id", "upstream/uri_san_peer_certificate"),
    };
    vec![
        Label::new("direction", Source::Direction(["outbound", "inbound", "outbound"]), ""),
        Label::new("peer", Source::Fixed(peer), ""),
        Label::new("target_addr", Source::Property(target), ""),
        Label::new("tls", Source::Tls(tls), ""),
        Label::new(name, Source::Property(identity), ""),
    ]
}

impl LabelName {
    /// Whether it is about connections, and known as long as one is open.
    fn is_of_connections(self) -> bool {
        match self {
            Self::Route
            | Self::Cluster
            | Self::Flags
            | Self::Source
            | Self::Destination
            | Self::Endpoint
            | Self::Direction => true,
            Self::Code | Self::Class | Self::Outcome | Self::Method | Self::Protocol | Self::GrpcStatus => {
                false
            }
        }
    }
}
