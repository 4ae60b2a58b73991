//! The host's properties, in Envoy's names and encodings: text and bytes raw, numbers and times as 8 bytes
//! little-endian, booleans as one byte, maps as serialized pairs.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::Duration;

use http::{HeaderMap, Version, header};

use crate::attributes::Attributes;
use crate::exchange::HttpStream;
use crate::fields;
use crate::hostcalls::clock::nanoseconds;
use crate::pairs;
use crate::plugin::PluginSpec;

type Value<'a> = Option<Cow<'a, [u8]>>;

/// Where a property is read.
pub(crate) struct Place<'a> {
    /// The effective stream's, if it is one of HTTP; none in a root context.
    pub(crate) http: Option<&'a HttpStream>,
    /// The effective stream's, whatever it is.
    pub(crate) attributes: Option<&'a Attributes>,
    pub(crate) spec: &'a PluginSpec,
}

/// The value at a path: segments separated by NUL. A NUL at the end is tolerated.
pub(crate) fn find<'a>(place: &Place<'a>, path: &[u8]) -> Value<'a> {
    let trimmed = path.strip_suffix(&[0]).unwrap_or(path);
    let mut segments = trimmed.split(|byte| *byte == 0);
    let (first, rest) = (segments.next()?, trimmed);
    let tail = rest.get(first.len() + 1..).unwrap_or_default();
    let served = match first {
        b"request" => match place.http {
            Some(http) => request(http, tail),
            None => place.attributes.and_then(|attributes| received(attributes, tail)),
        },
        b"response" => match place.http {
            Some(http) => response(http, tail),
            None => place.attributes.and_then(|attributes| sent(attributes, tail)),
        },
        b"source" => place.attributes.and_then(|known| address(known.connection.source, tail)),
        b"destination" => place.attributes.and_then(|known| address(known.connection.destination, tail)),
        b"connection" => place.attributes.and_then(|attributes| connection(attributes, tail)),
        b"connection_id" if tail.is_empty() => place.attributes.and_then(|known| connection(known, b"id")),
        b"upstream" => place.attributes.and_then(|attributes| upstream(attributes, tail)),
        b"xds" => xds(place, tail),
        b"plugin_name" | b"plugin_root_id" | b"plugin_vm_id" if tail.is_empty() => plugin(place.spec, first),
        b"cluster_name" | b"route_name" | b"listener_direction" if tail.is_empty() => xds(place, first),
        // Filters made for a mesh look into it; there is nothing, which is an empty message.
        b"node" if tail.is_empty() => bytes(b""),
        _ => None,
    };
    served.or_else(|| custom(place.attributes?, path))
}

fn custom<'a>(attributes: &'a Attributes, path: &[u8]) -> Value<'a> {
    attributes.custom.find(path).map(|value| Cow::Borrowed(&value[..]))
}

fn plugin<'a>(spec: &'a PluginSpec, name: &[u8]) -> Value<'a> {
    bytes(match name {
        b"plugin_name" => spec.name.as_bytes(),
        b"plugin_root_id" => spec.root_id.as_bytes(),
        _ => spec.vm_id.as_bytes(),
    })
}

fn xds<'a>(place: &Place<'a>, name: &[u8]) -> Value<'a> {
    let attributes = place.attributes;
    match name {
        b"node" => bytes(b""),
        b"cluster_name" => bytes(attributes?.cluster.as_ref()?.as_bytes()),
        b"route_name" => bytes(attributes?.route.as_ref()?.as_bytes()),
        // Unspecified: a gateway is neither inbound nor outbound.
        b"listener_direction" => number(0),
        _ => None,
    }
}

fn request<'a>(http: &'a HttpStream, name: &[u8]) -> Value<'a> {
    let head = &http.request;
    let attributes = &http.attributes;
    if let Some(value) = header_property(Some(&head.headers), name, || pairs::encode(|| head.pairs())) {
        return value;
    }
    match name {
        b"path" => bytes(head.path.as_str().as_bytes()),
        b"url_path" => bytes(head.path.path().as_bytes()),
        b"query" => bytes(head.path.query().unwrap_or_default().as_bytes()),
        b"host" => bytes(head.authority.as_bytes()),
        b"scheme" => bytes(head.scheme.as_str().as_bytes()),
        b"method" => bytes(head.method.as_str().as_bytes()),
        b"referer" => field(&head.headers, header::REFERER.as_str()),
        b"useragent" => field(&head.headers, header::USER_AGENT.as_str()),
        b"id" => field(&head.headers, "x-request-id"),
        b"protocol" => bytes(protocol(head.version)),
        b"headers_bytes" => number(size(head.pairs())),
        b"size" => number(content_length(&head.headers).unwrap_or(attributes.request_bytes)),
        b"total_size" => {
            let trailers = http.request_trailers.as_ref().map_or(0, |map| size(fields::pairs(map)));
            number(size(head.pairs()) + attributes.request_bytes + trailers)
        }
        b"time" => number(nanoseconds(attributes.start)),
        b"duration" => duration(attributes.duration?),
        _ => None,
    }
}

/// What there is of `request` on a TCP connection.
fn received<'a>(attributes: &'a Attributes, name: &[u8]) -> Value<'a> {
    match name {
        b"size" => number(attributes.request_bytes),
        b"time" => number(nanoseconds(attributes.start)),
        b"duration" => duration(attributes.duration?),
        _ => None,
    }
}

/// What there is of `response` on a TCP connection.
fn sent<'a>(attributes: &'a Attributes, name: &[u8]) -> Value<'a> {
    match name {
        b"size" => number(attributes.response_bytes),
        _ => outcome(attributes, name),
    }
}

fn outcome<'a>(attributes: &'a Attributes, name: &[u8]) -> Value<'a> {
    match name {
        b"flags" => number(attributes.response_flags),
        b"code_details" => bytes(attributes.response_code_details.as_deref()?.as_bytes()),
        b"backend_latency" => duration(attributes.backend_latency?),
        _ => None,
    }
}

fn response<'a>(http: &'a HttpStream, name: &[u8]) -> Value<'a> {
    let attributes = &http.attributes;
    if let b"flags" | b"code_details" | b"backend_latency" = name {
        return outcome(attributes, name);
    }
    if let Some(name) = name.strip_prefix(b"trailers") {
        let trailers = http.response_trailers.as_ref()?;
        return match name.strip_prefix(&[0]) {
            Some(name) => joined(trailers, name),
            None if name.is_empty() => Some(Cow::Owned(pairs::encode(|| fields::pairs(trailers)))),
            None => None,
        };
    }
    let head = http.response.as_ref()?;
    if let Some(value) = header_property(Some(&head.headers), name, || pairs::encode(|| head.pairs())) {
        return value;
    }
    match name {
        b"code" => number(head.status.as_u16().into()),
        b"headers_bytes" => number(size(head.pairs())),
        b"size" => number(attributes.response_bytes),
        b"total_size" => {
            let trailers = http.response_trailers.as_ref().map_or(0, |map| size(fields::pairs(map)));
            number(size(head.pairs()) + attributes.response_bytes + trailers)
        }
        b"grpc_status" => {
            let trailers = http.response_trailers.as_ref().and_then(|map| fields::find(map, b"grpc-status"));
            let status = trailers.or_else(|| fields::find(&head.headers, b"grpc-status"))?;
            number(std::str::from_utf8(status).ok()?.parse().ok()?)
        }
        _ => None,
    }
}

/// `headers` and `headers.NAME`; the outer none if the name is neither.
fn header_property<'a>(
    map: Option<&'a HeaderMap>,
    name: &[u8],
    all: impl FnOnce() -> Vec<u8>,
) -> Option<Value<'a>> {
    let name = name.strip_prefix(b"headers")?;
    match name.strip_prefix(&[0]) {
        Some(name) => Some(map.and_then(|map| joined(map, name))),
        None if name.is_empty() => Some(Some(Cow::Owned(all()))),
        None => None,
    }
}

/// All values of a name, joined by commas.
fn joined<'a>(map: &'a HeaderMap, name: &[u8]) -> Value<'a> {
    let mut values = map.get_all(std::str::from_utf8(name).ok()?).iter();
    let first = values.next()?;
    let mut all = Cow::Borrowed(first.as_bytes());
    for value in values {
        let all = all.to_mut();
        all.push(b',');
        all.extend_from_slice(value.as_bytes());
    }
    Some(all)
}

fn connection<'a>(attributes: &'a Attributes, name: &[u8]) -> Value<'a> {
    let connection = &attributes.connection;
    match name {
        b"id" => number(connection.id),
        b"mtls" => Some(Cow::Owned(vec![u8::from(connection.mtls)])),
        b"requested_server_name" => bytes(connection.requested_server_name.as_ref()?.as_bytes()),
        b"tls_version" => bytes(connection.tls_version?.as_bytes()),
        _ => None,
    }
}

fn upstream<'a>(attributes: &'a Attributes, name: &[u8]) -> Value<'a> {
    match name {
        b"address" | b"port" => address(attributes.upstream_address?, name),
        b"local_address" => address(attributes.upstream_local_address?, b"address"),
        b"local_port" => address(attributes.upstream_local_address?, b"port"),
        b"request_attempt_count" => number(attributes.attempts.into()),
        _ => None,
    }
}

fn address<'a>(address: SocketAddr, name: &[u8]) -> Value<'a> {
    match name {
        b"address" => Some(Cow::Owned(address.to_string().into_bytes())),
        b"port" => number(address.port().into()),
        _ => None,
    }
}

#[expect(clippy::unnecessary_wraps, reason = "reads as one of the values")]
fn bytes(value: &[u8]) -> Value<'_> {
    Some(Cow::Borrowed(value))
}

#[expect(clippy::unnecessary_wraps, reason = "reads as one of the values")]
fn number<'a>(value: u64) -> Value<'a> {
    Some(Cow::Owned(value.to_le_bytes().to_vec()))
}

fn duration<'a>(value: Duration) -> Value<'a> {
    number(u64::try_from(value.as_nanos()).unwrap_or(u64::MAX))
}

fn field<'a>(map: &'a HeaderMap, name: &str) -> Value<'a> {
    map.get(name).map(|value| Cow::Borrowed(value.as_bytes()))
}

fn size<'a>(pairs: impl Iterator<Item = pairs::Pair<'a>>) -> u64 {
    pairs.map(|(key, value)| key.len() as u64 + value.len() as u64).sum()
}

fn content_length(map: &HeaderMap) -> Option<u64> {
    map.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn protocol(version: Version) -> &'static [u8] {
    match version {
        Version::HTTP_09 => b"HTTP/0.9",
        Version::HTTP_10 => b"HTTP/1.0",
        Version::HTTP_2 => b"HTTP/2",
        Version::HTTP_3 => b"HTTP/3",
        _ => b"HTTP/1.1",
    }
}
