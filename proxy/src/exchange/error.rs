//! Why an exchange ended without the endpoint's response: whose fault it is, and, in one place, which status, response
//! flag and words each failure has. Every 4xx and 5xx that the proxy makes by itself is in [`ExchangeError::verdict`].

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use meshgate_wasm::{LocalResponse, VmError};

use crate::filter::{FilterFailure, FilterFault, vm_details};
use crate::message::{BodyError, BodyFault, BodyReason, Rejection, ResponseFlag};
use crate::upstream::{UpstreamError, UpstreamErrorKind};

/// The details of a request whose body came too slowly.
pub(super) const REQUEST_BODY_TIMEOUT: &str = "request_body_timeout";
/// What gRPC calls a timeout. By its HTTP status it would be UNAVAILABLE, which invites to try again.
const DEADLINE_EXCEEDED: i32 = 4;

/// What clients are told when memory is short.
const OVERLOAD_WORDS: &str = "overloaded";

/// Says that the request was refused because of a cluster's limits: to send it again would make things worse. Envoy's name,
/// which other proxies and clients know.
const OVERLOADED: HeaderName = HeaderName::from_static("x-envoy-overloaded");

/// Says that a response is the proxy's own and not the endpoint's, and what went wrong (RFC 9209).
const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// Who is to blame for a failed exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The client.
    Downstream,
    /// A filter.
    Filter,
    /// The configuration: nothing says where the request goes.
    Route,
    /// The endpoint, or the way to it.
    Upstream,
    /// The proxy itself.
    Internal,
}

/// Why an exchange ended without the endpoint's response.
#[derive(Debug)]
pub enum ExchangeError {
    /// The request's head is not acceptable.
    Head(Rejection),
    /// The request's body broke before anything was sent.
    RequestBody(BodyError),
    /// The response's body broke while its head was still held back.
    ResponseBody(BodyError),
    /// A filter failed.
    Filter(FilterFailure),
    /// A filter closed the stream.
    Closed,
    /// No filter decided a route, and the listener has no default cluster.
    NoRoute,
    /// The decided cluster does not exist in this configuration.
    NoCluster(String),
    /// The endpoint, or the way to it.
    Upstream(UpstreamError),
    /// The client wants to go on in another protocol, and got a success that does not.
    NotTaken,
    /// The route's timeout passed.
    Timeout,
    /// The process is short of memory.
    Overloaded,
    /// A try took longer than a filter allows.
    TryTimeout,
    /// The request could not be written for the endpoint.
    Internal(String),
}

/// What an error looks like from outside.
#[derive(Clone, Copy, Debug)]
pub struct Verdict {
    /// Who is to blame.
    pub fault: Fault,
    /// The response's status.
    pub status: StatusCode,
    /// The flag in the access log, if the failure has one.
    pub flag: Option<ResponseFlag>,
    /// `response_code_details`: one word for this failure.
    pub details: &'static str,
}

impl ExchangeError {
    /// Whose fault it is, and what the client and the access log get.
    pub fn verdict(&self) -> Verdict {
        use Fault::{Downstream, Filter, Internal, Route};
        use ResponseFlag as Flag;
        match self {
            Self::Head(error) => {
                verdict(Downstream, error.status, Some(Flag::DownstreamProtocolError), "invalid_request_head")
            }
            Self::RequestBody(error) => body_verdict(error),
            Self::ResponseBody(_) => verdict(
                Fault::Upstream,
                StatusCode::BAD_GATEWAY,
                Some(Flag::UpstreamReset),
                "upstream_reset_after_response_started",
            ),
            Self::Filter(failure) => filter_verdict(failure),
            Self::Closed => {
                verdict(Filter, StatusCode::SERVICE_UNAVAILABLE, Some(Flag::LocalReset), "wasm_close")
            }
            Self::NoRoute => verdict(Route, StatusCode::NOT_FOUND, Some(Flag::NoRoute), "route_not_found"),
            Self::NoCluster(_) => {
                verdict(Route, StatusCode::SERVICE_UNAVAILABLE, Some(Flag::NoCluster), "cluster_not_found")
            }
            Self::Upstream(error) => upstream_verdict(error),
            Self::NotTaken => verdict(
                Fault::Upstream,
                StatusCode::BAD_GATEWAY,
                Some(Flag::UpstreamProtocolError),
                "upgrade_not_taken",
            ),
            Self::Timeout => verdict(
                Fault::Upstream,
                StatusCode::GATEWAY_TIMEOUT,
                Some(Flag::UpstreamTimeout),
                "upstream_response_timeout",
            ),
            Self::Overloaded => overload_verdict(),
            Self::TryTimeout => verdict(
                Fault::Upstream,
                StatusCode::GATEWAY_TIMEOUT,
                Some(Flag::UpstreamTimeout),
                "upstream_per_try_timeout",
            ),
            Self::Internal(_) => verdict(Internal, StatusCode::INTERNAL_SERVER_ERROR, None, "internal_error"),
        }
    }

    /// Whether the exchange had no more time, whoever took it.
    fn is_timeout(&self) -> bool {
        match self {
            Self::Timeout | Self::TryTimeout => true,
            Self::Filter(failure) => matches!(failure.fault, FilterFault::PauseTimeout),
            _ => false,
        }
    }

    /// The response that the client gets.
    pub fn response(&self) -> LocalResponse {
        let verdict = self.verdict();
        let body: Cow<'static, str> = match self {
            Self::Head(rejection) => rejection.reason.into(),
            Self::RequestBody(error) => request_body_words(error).into(),
            Self::ResponseBody(_) => "upstream response broke".into(),
            Self::Filter(_) | Self::Closed => "filter failure".into(),
            Self::NoRoute => "no route".into(),
            Self::NoCluster(_) => "no such cluster".into(),
            Self::Upstream(error) => upstream_body(&error.kind).into(),
            Self::NotTaken => "upstream does not change the protocol".into(),
            Self::Timeout | Self::TryTimeout => "upstream request timeout".into(),
            Self::Overloaded => OVERLOAD_WORDS.into(),
            Self::Internal(_) => "internal error".into(),
        };
        let mut headers = HeaderMap::new();
        headers.insert(PROXY_STATUS, HeaderValue::from_static(self.proxy_status()));
        if let Some(pause) = retry_after(self) {
            // Whole seconds, and never "at once".
            headers.insert(RETRY_AFTER, HeaderValue::from(pause.as_secs() + 1));
        }
        if let Self::Upstream(UpstreamError { kind: UpstreamErrorKind::Overflow, .. }) = self {
            headers.insert(OVERLOADED, HeaderValue::from_static("true"));
        }
        LocalResponse {
            status: verdict.status,
            headers,
            body: match body {
                Cow::Borrowed(text) => text.into(),
                Cow::Owned(text) => text.into(),
            },
            grpc_status: self.is_timeout().then_some(DEADLINE_EXCEEDED),
            details: verdict.details.into(),
            place: 0,
        }
    }
}

impl ExchangeError {
    /// The value of `proxy-status`, with the type of error (RFC 9209 section 2.3).
    fn proxy_status(&self) -> &'static str {
        match self {
            Self::Head(_) => "meshgate; error=http_request_error",
            Self::RequestBody(error) => proxy_status_of_body(error),
            Self::ResponseBody(_) => "meshgate; error=http_response_incomplete",
            Self::NoRoute => "meshgate; error=destination_not_found",
            Self::NoCluster(_) => "meshgate; error=proxy_configuration_error",
            Self::Upstream(error) => proxy_status_of_upstream(&error.kind),
            Self::NotTaken => "meshgate; error=http_upgrade_failed",
            Self::Timeout | Self::TryTimeout => "meshgate; error=http_response_timeout",
            Self::Filter(_) | Self::Closed | Self::Overloaded | Self::Internal(_) => INTERNAL_ERROR,
        }
    }
}

const INTERNAL_ERROR: &str = "meshgate; error=proxy_internal_error";

fn proxy_status_of_body(error: &BodyError) -> &'static str {
    match error.fault {
        BodyFault::Downstream => "meshgate; error=http_request_error",
        _ => INTERNAL_ERROR,
    }
}

fn proxy_status_of_upstream(kind: &UpstreamErrorKind) -> &'static str {
    match kind {
        UpstreamErrorKind::NoEndpoint | UpstreamErrorKind::ConnectFailed => {
            "meshgate; error=destination_unavailable"
        }
        UpstreamErrorKind::ConnectTimeout => "meshgate; error=connection_timeout",
        UpstreamErrorKind::TlsFailed => "meshgate; error=tls_protocol_error",
        UpstreamErrorKind::Overflow => "meshgate; error=connection_limit_reached",
        UpstreamErrorKind::Unsent
        | UpstreamErrorKind::Refused
        | UpstreamErrorKind::StreamReset { .. }
        | UpstreamErrorKind::Reset { .. } => "meshgate; error=connection_terminated",
        UpstreamErrorKind::NoUpgrades => "meshgate; error=http_upgrade_failed",
        UpstreamErrorKind::Protocol => "meshgate; error=http_protocol_error",
        UpstreamErrorKind::RequestBody(error) => proxy_status_of_body(error),
    }
}

fn verdict(fault: Fault, status: StatusCode, flag: Option<ResponseFlag>, details: &'static str) -> Verdict {
    Verdict { fault, status, flag, details }
}

fn overload_verdict() -> Verdict {
    verdict(Fault::Internal, StatusCode::SERVICE_UNAVAILABLE, Some(ResponseFlag::Overload), "overload")
}

fn filter_verdict(failure: &FilterFailure) -> Verdict {
    let filter = |status, flag, details| verdict(Fault::Filter, status, Some(flag), details);
    match &failure.fault {
        FilterFault::Vm(error) => {
            let flag = if is_limit(error) { ResponseFlag::WasmLimit } else { ResponseFlag::WasmTrap };
            filter(StatusCode::SERVICE_UNAVAILABLE, flag, vm_details(error))
        }
        FilterFault::PauseTimeout => {
            filter(StatusCode::GATEWAY_TIMEOUT, ResponseFlag::WasmLimit, "wasm_pause_timeout")
        }
        FilterFault::RequestBodyLimit(_) => {
            filter(StatusCode::PAYLOAD_TOO_LARGE, ResponseFlag::WasmLimit, "wasm_request_body_limit")
        }
        FilterFault::ResponseBodyLimit(_) => {
            filter(StatusCode::BAD_GATEWAY, ResponseFlag::WasmLimit, "wasm_response_body_limit")
        }
        FilterFault::RequestHeadLimit => filter(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            ResponseFlag::WasmLimit,
            "wasm_request_head_limit",
        ),
        FilterFault::ResponseHeadLimit => {
            filter(StatusCode::BAD_GATEWAY, ResponseFlag::WasmLimit, "wasm_response_head_limit")
        }
        FilterFault::DataLimit(_) => {
            filter(StatusCode::BAD_GATEWAY, ResponseFlag::WasmLimit, "wasm_data_limit")
        }
        FilterFault::LengthChanged => {
            filter(StatusCode::BAD_GATEWAY, ResponseFlag::LocalReset, "wasm_length_changed")
        }
        FilterFault::ResponseBegun => {
            filter(StatusCode::BAD_GATEWAY, ResponseFlag::LocalReset, "wasm_late_response")
        }
    }
}

fn is_limit(error: &VmError) -> bool {
    error.flag() == "WL"
}

/// When the client may try again, where that is known.
fn retry_after(error: &ExchangeError) -> Option<Duration> {
    match error {
        ExchangeError::Filter(FilterFailure { fault: FilterFault::Vm(error), .. }) => error.retry_after(),
        ExchangeError::Overloaded => Some(Duration::ZERO),
        ExchangeError::RequestBody(error)
        | ExchangeError::Upstream(UpstreamError { kind: UpstreamErrorKind::RequestBody(error), .. }) => {
            (error.reason == BodyReason::Overload).then_some(Duration::ZERO)
        }
        _ => None,
    }
}

fn upstream_verdict(error: &UpstreamError) -> Verdict {
    use ResponseFlag as Flag;
    let upstream = |status, flag, details| verdict(Fault::Upstream, status, Some(flag), details);
    match &error.kind {
        UpstreamErrorKind::NoEndpoint => {
            upstream(StatusCode::SERVICE_UNAVAILABLE, Flag::NoHealthyUpstream, "no_healthy_upstream")
        }
        UpstreamErrorKind::ConnectFailed | UpstreamErrorKind::Unsent => upstream(
            StatusCode::SERVICE_UNAVAILABLE,
            Flag::UpstreamConnectFailure,
            "upstream_connect_failure",
        ),
        UpstreamErrorKind::ConnectTimeout => upstream(
            StatusCode::SERVICE_UNAVAILABLE,
            Flag::UpstreamConnectFailure,
            "upstream_connect_timeout",
        ),
        UpstreamErrorKind::TlsFailed => {
            upstream(StatusCode::SERVICE_UNAVAILABLE, Flag::UpstreamConnectFailure, "upstream_tls_failure")
        }
        UpstreamErrorKind::Overflow => {
            upstream(StatusCode::SERVICE_UNAVAILABLE, Flag::UpstreamOverflow, "upstream_overflow")
        }
        UpstreamErrorKind::Refused => {
            upstream(StatusCode::SERVICE_UNAVAILABLE, Flag::UpstreamReset, "upstream_refused_request")
        }
        UpstreamErrorKind::StreamReset { .. } => {
            upstream(StatusCode::SERVICE_UNAVAILABLE, Flag::UpstreamReset, "upstream_reset_before_response")
        }
        UpstreamErrorKind::Reset { .. } => upstream(
            StatusCode::SERVICE_UNAVAILABLE,
            Flag::UpstreamTermination,
            "upstream_reset_before_response",
        ),
        UpstreamErrorKind::NoUpgrades => {
            upstream(StatusCode::BAD_GATEWAY, Flag::UpstreamProtocolError, "upstream_upgrade_unsupported")
        }
        UpstreamErrorKind::Protocol => {
            upstream(StatusCode::BAD_GATEWAY, Flag::UpstreamProtocolError, "upstream_protocol_error")
        }
        UpstreamErrorKind::RequestBody(error) => body_verdict(error),
    }
}

/// A request body that broke while it was sent: the endpoint is not to blame.
fn body_verdict(error: &BodyError) -> Verdict {
    match (error.fault, error.reason) {
        (BodyFault::Downstream, BodyReason::TooLarge) => {
            verdict(Fault::Downstream, StatusCode::PAYLOAD_TOO_LARGE, None, "request_payload_too_large")
        }
        (BodyFault::Downstream, BodyReason::Timeout) => verdict(
            Fault::Downstream,
            StatusCode::REQUEST_TIMEOUT,
            Some(ResponseFlag::DownstreamTermination),
            REQUEST_BODY_TIMEOUT,
        ),
        (BodyFault::Downstream, _) => verdict(
            Fault::Downstream,
            StatusCode::BAD_REQUEST,
            Some(ResponseFlag::DownstreamTermination),
            "downstream_body_broken",
        ),
        (_, BodyReason::Overload) => overload_verdict(),
        _ => verdict(
            Fault::Internal,
            StatusCode::BAD_GATEWAY,
            Some(ResponseFlag::LocalReset),
            "request_body_broken",
        ),
    }
}

fn upstream_body(kind: &UpstreamErrorKind) -> &'static str {
    match kind {
        UpstreamErrorKind::NoEndpoint => "no healthy upstream",
        UpstreamErrorKind::ConnectFailed
        | UpstreamErrorKind::ConnectTimeout
        | UpstreamErrorKind::Unsent
        | UpstreamErrorKind::TlsFailed => "upstream connection failure",
        UpstreamErrorKind::Overflow => "upstream is at its limits",
        UpstreamErrorKind::Refused => "upstream refused the request",
        UpstreamErrorKind::StreamReset { .. } => "upstream reset the request before a response",
        UpstreamErrorKind::Reset { .. } => "upstream connection ended before a response",
        UpstreamErrorKind::NoUpgrades => "upstream does not change the protocol",
        UpstreamErrorKind::Protocol => "upstream response is not valid HTTP",
        UpstreamErrorKind::RequestBody(error) => request_body_words(error),
    }
}

fn request_body_words(error: &BodyError) -> &'static str {
    match error.reason {
        BodyReason::TooLarge => "request body too large",
        BodyReason::Timeout => "request body too slow",
        BodyReason::Overload => OVERLOAD_WORDS,
        _ => "request body broke",
    }
}

impl fmt::Display for ExchangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head(rejection) => f.write_str(rejection.reason),
            Self::RequestBody(error) | Self::ResponseBody(error) => error.fmt(f),
            Self::Filter(failure) => failure.fmt(f),
            Self::Closed => f.write_str("a filter closed the stream"),
            Self::NoRoute => {
                f.write_str("no filter decided a route, and the listener has no default cluster")
            }
            Self::NoCluster(name) => write!(f, "cluster {name} does not exist"),
            Self::Upstream(error) => error.fmt(f),
            Self::NotTaken => f.write_str("a success that does not take the offer of another protocol"),
            Self::Timeout => f.write_str("the route's timeout passed"),
            Self::Overloaded => f.write_str("memory is short"),
            Self::TryTimeout => f.write_str("the try's timeout passed"),
            Self::Internal(what) => f.write_str(what),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    #[test]
    fn every_timeout_of_ours_is_one_for_grpc() {
        let filter = |fault| ExchangeError::Filter(FilterFailure { filter: Rc::from("slow"), fault });
        for (error, expected) in [
            (ExchangeError::Timeout, Some(DEADLINE_EXCEEDED)),
            (ExchangeError::TryTimeout, Some(DEADLINE_EXCEEDED)),
            (filter(FilterFault::PauseTimeout), Some(DEADLINE_EXCEEDED)),
            (filter(FilterFault::RequestBodyLimit(1)), None),
            (ExchangeError::NoRoute, None),
            (ExchangeError::Overloaded, None),
        ] {
            let response = error.response();
            assert_eq!(response.grpc_status, expected, "{error}");
            let timed_out = response.status == StatusCode::GATEWAY_TIMEOUT;
            assert_eq!(timed_out, expected.is_some(), "{error}");
        }
    }
}
