//! Cutting a head loose from the buffer it was read into.

use bytes::BytesMut;
use http::{HeaderMap, HeaderValue};

/// Moves all values into one small allocation of their own.
///
/// A value that was read from a connection is a slice of the buffer it was read into, and keeps all of it alive: up to
/// 128 KiB. That is no matter while the exchange lasts, but HTTP/2's header compression remembers the values that it
/// sent, for as long as the client's connection lives.
pub fn detach(headers: &mut HeaderMap) {
    let mut bytes = BytesMut::with_capacity(headers.values().map(HeaderValue::len).sum());
    for value in headers.values() {
        bytes.extend_from_slice(value.as_bytes());
    }
    let mut bytes = bytes.freeze();
    for value in headers.values_mut() {
        // It cannot fail: these bytes are a value already.
        if let Ok(mut own) = HeaderValue::from_maybe_shared(bytes.split_to(value.len())) {
            own.set_sensitive(value.is_sensitive());
            *value = own;
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn values_stay_and_their_buffer_goes() {
        let buffer = Bytes::from(b"one two \xff three".to_vec());
        let value = |range| HeaderValue::from_maybe_shared(buffer.slice(range)).unwrap();
        let mut headers = HeaderMap::new();
        headers.append("a", value(0..3));
        headers.append("a", value(4..7));
        headers.append("b", value(8..15));
        headers.append("c", value(0..0));
        let mut secret = value(9..15);
        secret.set_sensitive(true);
        headers.append("d", secret);
        let before = headers.clone();
        detach(&mut headers);
        assert_eq!(headers, before);
        assert!(headers["d"].is_sensitive() && !headers["b"].is_sensitive());
        drop(before);
        assert!(buffer.is_unique(), "nothing holds the buffer any more");
    }
}
