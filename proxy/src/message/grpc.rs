//! gRPC over HTTP: how a message is recognised, and the statuses of both.

use std::fmt::Write as _;

use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, StatusCode};

/// `grpc-status`
pub const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// `grpc-message`
pub const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

const APPLICATION_GRPC: &[u8] = b"application/grpc";

/// Whether a message is gRPC (not gRPC-Web, whose status is in the body), by its fields.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|content_type| {
        let content_type = content_type.as_bytes();
        content_type.starts_with(APPLICATION_GRPC)
            && matches!(content_type.get(APPLICATION_GRPC.len()), None | Some(b'+' | b';' | b' '))
    })
}

/// The gRPC status for an HTTP status, by the gRPC specification's own table; OK stays OK.
pub fn status_of(status: StatusCode) -> i32 {
    match status.as_u16() {
        200 => 0,
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}

/// `grpc-message` is percent-encoded: everything but printable ASCII, and `%` itself.
pub(super) fn percent_encode(message: &[u8]) -> String {
    let mut text = String::with_capacity(message.len());
    for byte in message {
        match byte {
            b'%' | 0..b' ' | 0x7f.. => {
                // Writing to a string cannot fail.
                let _ = write!(text, "%{byte:02X}");
            }
            _ => text.push(char::from(*byte)),
        }
    }
    text
}
