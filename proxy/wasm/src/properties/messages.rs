//! The two messages of an exchange: `request` and `response`.

use http::{HeaderMap, Version, header};

use super::value::Value;
use crate::attributes::Attributes;
use crate::exchange::HttpStream;
use crate::fields;
use crate::pairs;

pub(super) fn request<'a>(http: &'a HttpStream, name: &[u8]) -> Option<Value<'a>> {
    let head = &http.request;
    let attributes = &http.attributes;
    match name {
        b"path" => text(head.path.as_str()),
        b"url_path" => text(head.path.path()),
        b"query" => text(head.path.query().unwrap_or_default()),
        b"host" => Some(Value::Bytes(head.authority.as_bytes())),
        b"scheme" => text(head.scheme.as_str()),
        b"method" => text(head.method.as_str()),
        b"referer" => field(&head.headers, header::REFERER.as_str()),
        b"useragent" => field(&head.headers, header::USER_AGENT.as_str()),
        b"id" => field(&head.headers, "x-request-id"),
        b"protocol" => text(protocol(head.version)),
        b"headers_bytes" => Some(Value::Number(size(head.pairs()))),
        b"size" => Some(Value::Number(content_length(&head.headers).unwrap_or(attributes.request_bytes))),
        b"total_size" => {
            let trailers = http.request_trailers.as_ref().map_or(0, |map| size(fields::pairs(map)));
            Some(Value::Number(size(head.pairs()) + attributes.request_bytes + trailers))
        }
        b"time" => Some(Value::Time(attributes.start)),
        b"duration" => Some(Value::Duration(attributes.duration?)),
        _ => fields_at(&head.headers, name.strip_prefix(b"headers")?, || pairs::encode(|| head.pairs())),
    }
}

/// What there is of `request` on a TCP connection.
pub(super) fn received<'a>(attributes: &'a Attributes, name: &[u8]) -> Option<Value<'a>> {
    match name {
        b"size" => Some(Value::Number(attributes.request_bytes)),
        b"time" => Some(Value::Time(attributes.start)),
        b"duration" => Some(Value::Duration(attributes.duration?)),
        _ => None,
    }
}

/// What there is of `response` on a TCP connection.
pub(super) fn sent<'a>(attributes: &'a Attributes, name: &[u8]) -> Option<Value<'a>> {
    match name {
        b"size" => Some(Value::Number(attributes.response_bytes)),
        _ => outcome(attributes, name),
    }
}

fn outcome<'a>(attributes: &'a Attributes, name: &[u8]) -> Option<Value<'a>> {
    match name {
        b"flags" => Some(Value::Number(attributes.response_flags)),
        b"code_details" => text(attributes.response_code_details.as_deref()?),
        b"backend_latency" => Some(Value::Duration(attributes.backend_latency?)),
        _ => None,
    }
}

pub(super) fn response<'a>(http: &'a HttpStream, name: &[u8]) -> Option<Value<'a>> {
    let attributes = &http.attributes;
    if let b"flags" | b"code_details" | b"backend_latency" = name {
        return outcome(attributes, name);
    }
    if let Some(name) = name.strip_prefix(b"trailers") {
        let trailers = http.response_trailers.as_ref()?;
        return fields_at(trailers, name, || pairs::encode(|| fields::pairs(trailers)));
    }
    let head = http.response.as_ref()?;
    match name {
        b"code" => Some(Value::Number(head.status.as_u16().into())),
        b"headers_bytes" => Some(Value::Number(size(head.pairs()))),
        b"size" => Some(Value::Number(attributes.response_bytes)),
        b"total_size" => {
            let trailers = http.response_trailers.as_ref().map_or(0, |map| size(fields::pairs(map)));
            Some(Value::Number(size(head.pairs()) + attributes.response_bytes + trailers))
        }
        b"grpc_status" => {
            let trailers = http.response_trailers.as_ref().and_then(|map| fields::find(map, b"grpc-status"));
            let status = trailers.or_else(|| fields::find(&head.headers, b"grpc-status"))?;
            Some(Value::Number(std::str::from_utf8(status).ok()?.parse().ok()?))
        }
        _ => fields_at(&head.headers, name.strip_prefix(b"headers")?, || pairs::encode(|| head.pairs())),
    }
}

/// What follows `headers` or `trailers` in a path: nothing for all fields, or a name.
fn fields_at<'a>(map: &'a HeaderMap, rest: &[u8], all: impl FnOnce() -> Vec<u8>) -> Option<Value<'a>> {
    match rest {
        [] => Some(Value::Made(all())),
        [0, name @ ..] => joined(map, name),
        _ => None,
    }
}

/// All values of a name, joined by commas.
fn joined<'a>(map: &'a HeaderMap, name: &[u8]) -> Option<Value<'a>> {
    let mut values = map.get_all(std::str::from_utf8(name).ok()?).iter();
    let first = values.next()?.as_bytes();
    let Some(second) = values.next() else { return Some(Value::Bytes(first)) };
    let mut all = [first, b",", second.as_bytes()].concat();
    for value in values {
        all.push(b',');
        all.extend_from_slice(value.as_bytes());
    }
    Some(Value::Made(all))
}

#[expect(clippy::unnecessary_wraps, reason = "reads as one of the values")]
fn text(value: &str) -> Option<Value<'_>> {
    Some(Value::Bytes(value.as_bytes()))
}

fn field<'a>(map: &'a HeaderMap, name: &str) -> Option<Value<'a>> {
    map.get(name).map(|value| Value::Bytes(value.as_bytes()))
}

fn size<'a>(pairs: impl Iterator<Item = pairs::Pair<'a>>) -> u64 {
    pairs.map(|(key, value)| key.len() as u64 + value.len() as u64).sum()
}

fn content_length(map: &HeaderMap) -> Option<u64> {
    map.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_3 => "HTTP/3",
        _ => "HTTP/1.1",
    }
}
