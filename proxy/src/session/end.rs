//! How sessions end: whose doing it was, what stands in the access log, and how the sockets are closed. The table of all
//! endings is [`End::verdict`].

use std::{fmt, io};

use meshgate_wasm::PeerType;

use crate::filter::{FilterFailure, FilterFault, Side, Stop, vm_details};
use crate::message::ResponseFlag;
use crate::upstream::{UpstreamError, UpstreamErrorKind};

/// How a session ended.
#[derive(Debug)]
pub(super) enum End {
    /// Both sides said all they had to say; this one was the last.
    Over(Side),
    /// A side broke its connection off.
    Aborted(Side, io::Error),
    /// A filter failed.
    Filter(FilterFailure),
    /// A filter closed the session.
    Closed,
    /// No filter chose a cluster, and the listener has none.
    NoRoute,
    /// The chosen cluster does not exist in this configuration.
    NoCluster,
    /// There is no connection to an endpoint.
    Upstream(UpstreamError),
    /// Nothing passed in either direction for too long.
    Idle,
    /// The process ended first.
    Cut,
}

/// How sockets are closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// In order: what was written is delivered.
    Orderly,
    /// In order, and slowly enough for the client to read what was written although it is sending.
    Lingering,
    /// By a reset: nobody is to take what came for the whole.
    Reset,
}

impl End {
    /// The flag and the details in the access log.
    pub(super) fn verdict(&self) -> (Option<ResponseFlag>, &'static str) {
        use ResponseFlag as Flag;
        match self {
            Self::Over(_) => (None, "via_upstream"),
            Self::Aborted(Side::Downstream, _) => {
                (Some(Flag::DownstreamTermination), "downstream_remote_disconnect")
            }
            Self::Aborted(Side::Upstream, _) => (Some(Flag::UpstreamTermination), "upstream_remote_reset"),
            Self::Filter(failure) => filter_verdict(&failure.fault),
            Self::Closed => (Some(Flag::LocalReset), "wasm_close"),
            Self::NoRoute => (Some(Flag::NoRoute), "route_not_found"),
            Self::NoCluster => (Some(Flag::NoCluster), "cluster_not_found"),
            Self::Upstream(error) => match error.kind {
                UpstreamErrorKind::NoEndpoint => (Some(Flag::NoHealthyUpstream), "no_healthy_upstream"),
                UpstreamErrorKind::Overflow => (Some(Flag::UpstreamOverflow), "upstream_overflow"),
                UpstreamErrorKind::ConnectTimeout => {
                    (Some(Flag::UpstreamConnectFailure), "upstream_connect_timeout")
                }
                UpstreamErrorKind::TlsFailed => (Some(Flag::UpstreamConnectFailure), "upstream_tls_failure"),
                _ => (Some(Flag::UpstreamConnectFailure), "upstream_connect_failure"),
            },
            Self::Idle => (Some(Flag::StreamIdleTimeout), "idle_timeout"),
            Self::Cut => (Some(Flag::LocalReset), "shutdown"),
        }
    }

    /// Who closed the client's connection, and who the endpoint's, as filters are told.
    pub(super) fn peers(&self) -> (PeerType, PeerType) {
        match self {
            Self::Over(Side::Downstream) | Self::Aborted(Side::Downstream, _) => {
                (PeerType::Remote, PeerType::Local)
            }
            // The client's connection ended when the endpoint's end was passed on to it.
            Self::Over(Side::Upstream) | Self::Aborted(Side::Upstream, _) => {
                (PeerType::Local, PeerType::Remote)
            }
            _ => (PeerType::Local, PeerType::Local),
        }
    }

    /// How the sockets are closed. Whatever may have cut a side's words short ends in a reset of the other.
    pub(super) fn manner(&self) -> Manner {
        match self {
            Self::Aborted(..) | Self::Filter(_) | Self::Cut => Manner::Reset,
            Self::Closed => Manner::Lingering,
            Self::Over(_) | Self::NoRoute | Self::NoCluster | Self::Upstream(_) | Self::Idle => {
                Manner::Orderly
            }
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Aborted(Side::Downstream, error) => write!(f, "the client broke off: {error}"),
            Self::Aborted(Side::Upstream, error) => write!(f, "the endpoint broke off: {error}"),
            Self::Filter(failure) => failure.fmt(f),
            Self::Upstream(error) => error.fmt(f),
            other => f.write_str(other.verdict().1),
        }
    }
}

fn filter_verdict(fault: &FilterFault) -> (Option<ResponseFlag>, &'static str) {
    match fault {
        FilterFault::Vm(error) if error.flag() == "WL" => (Some(ResponseFlag::WasmLimit), vm_details(error)),
        FilterFault::Vm(error) => (Some(ResponseFlag::WasmTrap), vm_details(error)),
        FilterFault::PauseTimeout => (Some(ResponseFlag::WasmLimit), "wasm_pause_timeout"),
        _ => (Some(ResponseFlag::WasmLimit), "wasm_data_limit"),
    }
}

impl From<Stop> for End {
    fn from(stop: Stop) -> End {
        match stop {
            Stop::Failed(failure) => End::Filter(failure),
            // There are no local responses on TCP.
            Stop::Closed | Stop::Responded => End::Closed,
        }
    }
}
