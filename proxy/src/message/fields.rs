//! Which header fields belong to one hop, which carry weight for security, and which may be trailers.
//!
//! All names are lower case, as the `http` crate keeps them.

use http::HeaderMap;
use http::header::{CONNECTION, HeaderName, HeaderValue, TRAILER};

/// Fields that end at this hop (RFC 9110 section 7.6.1, and what was used for it before). `te` is not here: its one
/// harmless value is kept; neither is `trailer`, which tells the next hop what to expect and is only cleaned.
pub fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-authentication-info"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
    )
}

/// Fields in which the sender's word about where a request comes from stands. Ours replaces it.
pub fn is_provenance(name: &str) -> bool {
    name.starts_with("x-forwarded-") || name.starts_with("x-meshgate-") || name == "forwarded"
}

/// Fields that `connection` must not make us remove: a client could switch off the next server's checks.
pub fn is_protected(name: &str) -> bool {
    is_provenance(name)
        || matches!(
            name,
            "authorization"
                | "cache-control"
                | "content-encoding"
                | "content-length"
                | "content-range"
                | "content-type"
                | "cookie"
                | "date"
                | "expect"
                | "host"
                | "location"
                | "origin"
                | "range"
                | "set-cookie"
                | "transfer-encoding"
                | "via"
                | "www-authenticate"
                | "x-real-ip"
                | "x-request-id"
        )
}

/// Fields that mean something only before the body (RFC 9110 section 6.5.1): framing, routing, authentication,
/// modifiers and control data.
pub fn is_forbidden_trailer(name: &str) -> bool {
    is_hop_by_hop(name)
        || is_protected(name)
        || matches!(
            name,
            "accept"
                | "age"
                | "allow"
                | "expires"
                | "if-match"
                | "if-modified-since"
                | "if-none-match"
                | "if-range"
                | "if-unmodified-since"
                | "max-forwards"
                | "pragma"
                | "retry-after"
                | "te"
                | "trailer"
                | "vary"
                | "warning"
        )
}

/// Whether a name is a disguise of a field that we set or trust: some servers read `_` as `-`.
pub(super) fn is_disguised(name: &str) -> bool {
    name.contains('_') && is_protected(&name.replace('_', "-"))
}

/// Removes what must not be in a trailer section.
pub fn clean_trailers(trailers: &mut HeaderMap) {
    if trailers.keys().any(|name| is_forbidden_trailer(name.as_str())) {
        let forbidden: Vec<HeaderName> =
            trailers.keys().filter(|name| is_forbidden_trailer(name.as_str())).cloned().collect();
        for name in &forbidden {
            trailers.remove(name);
        }
    }
}

/// The names in a list of tokens, over all its fields. None if it holds something else.
pub(super) fn tokens(headers: &HeaderMap, field: HeaderName) -> Option<Vec<HeaderName>> {
    let mut names = Vec::new();
    for value in headers.get_all(field) {
        for token in value.as_bytes().split(|byte| *byte == b',') {
            let token = token.trim_ascii();
            if !token.is_empty() {
                names.push(HeaderName::from_bytes(token).ok()?);
            }
        }
    }
    Some(names)
}

/// Whether `connection` says only whether the connection stays open, as it mostly does.
pub(super) fn connection_names_nothing(headers: &HeaderMap) -> bool {
    headers.get_all(CONNECTION).iter().all(|value| {
        let value = value.as_bytes();
        value.eq_ignore_ascii_case(b"keep-alive") || value.eq_ignore_ascii_case(b"close")
    })
}

/// The fields that `connection` names.
pub(super) fn named_by_connection(headers: &HeaderMap) -> Option<Vec<HeaderName>> {
    tokens(headers, CONNECTION)
}

/// Leaves in `trailer` only names that may be trailers.
pub(super) fn clean_trailer_field(headers: &mut HeaderMap) {
    let names = tokens(headers, TRAILER).unwrap_or_default();
    let kept: Vec<&str> =
        names.iter().map(HeaderName::as_str).filter(|name| !is_forbidden_trailer(name)).collect();
    match HeaderValue::from_str(&kept.join(", ")) {
        Ok(value) if !value.is_empty() => headers.insert(TRAILER, value),
        _ => headers.remove(TRAILER),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailers_lose_what_belongs_before_the_body() {
        let mut trailers = HeaderMap::new();
        for name in
            ["content-length", "transfer-encoding", "host", "authorization", "cookie", "x-forwarded-for"]
        {
            trailers.insert(HeaderName::from_static(name), HeaderValue::from_static("1"));
        }
        trailers.append("grpc-status", HeaderValue::from_static("0"));
        trailers.append("x-checksum", HeaderValue::from_static("a"));
        trailers.append("x-checksum", HeaderValue::from_static("b"));
        clean_trailers(&mut trailers);
        let mut names: Vec<_> = trailers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["grpc-status", "x-checksum"]);
        assert_eq!(trailers.len(), 3);
    }

    #[test]
    fn the_trailer_field_announces_only_what_may_come() {
        let cases = [
            ("x-checksum", Some("x-checksum")),
            ("X-A, content-length ,x-b", Some("x-a, x-b")),
            ("host", None),
            (" , ", None),
            ("not a name", None),
        ];
        for (announced, expected) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(TRAILER, HeaderValue::from_static(announced));
            clean_trailer_field(&mut headers);
            assert_eq!(headers.get(TRAILER).map(|value| value.to_str().unwrap()), expected, "{announced}");
        }
    }

    #[test]
    fn disguises_are_seen_through() {
        assert!(is_disguised("x_forwarded_for"));
        assert!(is_disguised("x_forwarded-for"));
        assert!(is_disguised("content_length"));
        assert!(!is_disguised("my_field"));
        assert!(!is_disguised("x-forwarded-for"));
    }
}
