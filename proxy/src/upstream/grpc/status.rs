//! The gRPC status that a call or stream ends with, whatever became of it, as the gRPC specification maps it.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use meshgate_wasm::GrpcStatus;

use crate::message::grpc::{self, GRPC_MESSAGE, GRPC_STATUS};
use crate::message::{BodyError, BodyReason};
use crate::upstream::{UpstreamError, UpstreamErrorKind};

pub(super) const OK: u32 = 0;
pub(super) const CANCELLED: u32 = 1;
pub(super) const UNKNOWN: u32 = 2;
pub(super) const DEADLINE_EXCEEDED: u32 = 4;
pub(super) const PERMISSION_DENIED: u32 = 7;
pub(super) const RESOURCE_EXHAUSTED: u32 = 8;
pub(super) const INTERNAL: u32 = 13;
pub(super) const UNAVAILABLE: u32 = 14;

/// The server's own word. None, or none that is a number, is UNKNOWN.
pub(super) fn of_fields(fields: &HeaderMap) -> GrpcStatus {
    let code = fields.get(GRPC_STATUS).and_then(|code| code.to_str().ok()?.parse().ok());
    let message = fields.get(GRPC_MESSAGE).map(|message| Bytes::copy_from_slice(message.as_bytes()));
    GrpcStatus { code: code.unwrap_or(UNKNOWN), message: message.unwrap_or_default() }
}

/// A status as a server would say it.
pub(super) fn fields(status: &GrpcStatus) -> HeaderMap {
    let mut fields = HeaderMap::with_capacity(2);
    fields.insert(GRPC_STATUS, HeaderValue::from(status.code));
    // Our own words are plain ones.
    fields
        .extend(HeaderValue::from_maybe_shared(status.message.clone()).ok().map(|text| (GRPC_MESSAGE, text)));
    fields
}

/// A response that is not one of gRPC, by its HTTP status.
pub(super) fn of_http(status: StatusCode) -> GrpcStatus {
    GrpcStatus::new(grpc::status_of(status).unsigned_abs(), "the response is not one of gRPC")
}

/// A request without a response.
pub(super) fn of_upstream(error: &UpstreamError) -> GrpcStatus {
    match error.kind {
        UpstreamErrorKind::NoEndpoint => GrpcStatus::new(UNAVAILABLE, "no healthy upstream"),
        UpstreamErrorKind::ConnectFailed
        | UpstreamErrorKind::ConnectTimeout
        | UpstreamErrorKind::Unsent
        | UpstreamErrorKind::TlsFailed => GrpcStatus::new(UNAVAILABLE, "upstream connect error"),
        UpstreamErrorKind::Overflow => GrpcStatus::new(UNAVAILABLE, "too many requests wait"),
        UpstreamErrorKind::Refused => GrpcStatus::new(UNAVAILABLE, "upstream refused the request"),
        UpstreamErrorKind::Reset { .. } => GrpcStatus::new(UNAVAILABLE, "upstream connection ended"),
        UpstreamErrorKind::StreamReset { code } => of_reset(code),
        UpstreamErrorKind::NoUpgrades => internal("upstream does not change the protocol"),
        UpstreamErrorKind::Protocol => internal("the response is not valid HTTP"),
        UpstreamErrorKind::RequestBody(_) => internal("the request broke"),
    }
}

/// A response that broke.
pub(super) fn of_body(error: &BodyError) -> GrpcStatus {
    match error.reason {
        BodyReason::Reset { code } => of_reset(code),
        BodyReason::Protocol => internal("the response is not valid HTTP"),
        _ => GrpcStatus::new(UNAVAILABLE, "upstream connection ended"),
    }
}

/// A stream that the server reset, by HTTP/2's code for it.
fn of_reset(code: u32) -> GrpcStatus {
    let code = match code {
        0..=4 | 6 | 9 | 10 => INTERNAL,
        7 => UNAVAILABLE,
        8 => CANCELLED,
        11 => RESOURCE_EXHAUSTED,
        12 => PERMISSION_DENIED,
        _ => UNKNOWN,
    };
    GrpcStatus::new(code, "upstream reset the stream")
}

pub(super) fn deadline_exceeded() -> GrpcStatus {
    GrpcStatus::new(DEADLINE_EXCEEDED, "upstream request timeout")
}

pub(super) fn internal(message: &'static str) -> GrpcStatus {
    GrpcStatus::new(INTERNAL, message)
}
