//! Spans of exchanges, as OTLP has them and with the names of OpenTelemetry's conventions.

use std::collections::BTreeMap;
use std::time::SystemTime;

use meshgate_sdk::{Exchange, property};

use super::Trace;
use super::context::SpanId;
use crate::format::{Format, Words, flags};
use crate::otlp::proto::Writer;
use crate::otlp::{Exporter, nanoseconds};
use crate::seen::Seen;

/// `SpanKind`
const SERVER: u64 = 2;
const CLIENT: u64 = 3;
/// `STATUS_CODE_ERROR`
const ERROR: u64 = 2;
/// The fields of a span's attributes.
const ATTRIBUTES: u32 = 9;

/// Attributes that the configuration adds.
pub(super) struct Attributes(Vec<(String, Format)>);

impl Attributes {
    pub(super) fn new(configured: &BTreeMap<String, Format>) -> Self {
        Self(configured.iter().map(|(name, format)| (name.clone(), format.clone())).collect())
    }

    /// Whether one of them needs to know when the response began.
    pub(super) fn needs_response(&self) -> bool {
        self.0.iter().any(|(_, format)| format.needs_response())
    }
}

/// What a span is about, beside its attributes.
struct Outline {
    id: SpanId,
    parent: Option<SpanId>,
    kind: u64,
    start: SystemTime,
    end: SystemTime,
}

/// Hands the spans of an exchange over.
pub(super) fn record(trace: &Trace, seen: &Seen<'_>, attributes: &Attributes, exporter: &Exporter) {
    let Some((exchange, start)) = seen.exchange().zip(seen.started()) else { return };
    let end = start + seen.duration().unwrap_or_default();
    if let Some(id) = trace.server {
        let outline = Outline { id, parent: trace.parent, kind: SERVER, start, end };
        exporter.add(|span| write(span, trace, seen, &outline, attributes));
    }
    // Without an endpoint there was nothing to be a client of; a proxy that has no other span tells of the exchange all the same.
    let upstream = exchange.upstream_address();
    if let Some(id) = trace.client.filter(|_| upstream.is_some() || trace.server.is_none()) {
        let parent = trace.server.or(trace.parent);
        let outline = Outline { id, parent, kind: CLIENT, start: sent(seen, start, end), end };
        exporter.add(|span| write(span, trace, seen, &outline, attributes));
    }
}

/// When the request went to the endpoint, the last time if there were several.
fn sent(seen: &Seen<'_>, start: SystemTime, end: SystemTime) -> SystemTime {
    let Some(took) = seen.exchange().and_then(Exchange::upstream_duration) else { return start };
    let answered = seen.response_at().unwrap_or(end);
    answered.checked_sub(took).unwrap_or(start).clamp(start, end)
}

fn write(span: &mut Writer<'_>, trace: &Trace, seen: &Seen<'_>, outline: &Outline, attributes: &Attributes) {
    let Some(exchange) = seen.exchange() else { return };
    let request = exchange.request();
    let method = request.method();
    let route = exchange.route_name().unwrap_or_default();
    span.bytes(1, &trace.id_bytes());
    span.bytes(2, &outline.id.bytes());
    span.text(3, &request.header("tracestate").unwrap_or_default());
    if let Some(parent) = outline.parent {
        span.bytes(4, &parent.bytes());
    }
    let name = if route.is_empty() { method.clone() } else { format!("{method} {route}") };
    span.text(5, &name);
    span.number(6, outline.kind);
    span.fixed64(7, nanoseconds(outline.start));
    span.fixed64(8, nanoseconds(outline.end));
    write_attributes(span, seen, outline.kind, &method, &route);
    for (name, format) in &attributes.0 {
        if let Some(value) = format.text(seen) {
            span.attribute(ATTRIBUTES, name, &value);
        }
    }
    if seen.failed() {
        span.message(15, |status| status.number(3, ERROR));
    }
    // Recorded, and whether the parent is elsewhere is known.
    let remote = if outline.kind == SERVER || trace.server.is_none() { 0x200 } else { 0 };
    span.fixed32(16, 1 | 0x100 | if outline.parent.is_some() { remote } else { 0 });
}

fn write_attributes(span: &mut Writer<'_>, seen: &Seen<'_>, kind: u64, method: &str, route: &str) {
    let Some(exchange) = seen.exchange() else { return };
    let request = exchange.request();
    let mut text = |name: &str, value: Option<&str>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            span.attribute(ATTRIBUTES, name, value);
        }
    };
    let target = request.target();
    text("http.request.method", Some(method));
    text("url.scheme", Some(&request.scheme()));
    text("url.path", Some(target.path()));
    text("url.query", target.query());
    text("user_agent.original", request.header("user-agent").as_deref());
    text(
        "network.protocol.version",
        exchange.protocol().as_deref().and_then(|name| name.strip_prefix("HTTP/")),
    );
    text("http.route", Some(route));
    text("meshgate.cluster", exchange.cluster_name().as_deref());
    text("meshgate.request_id", exchange.id().as_deref());
    text("meshgate.response_flags", Some(&flags(seen.flags(), Words::Short)));
    text("meshgate.response_details", exchange.response_details().as_deref());
    text("meshgate.source", exchange.peer_identity().as_deref());
    text("meshgate.destination", property::text("upstream/uri_san_peer_certificate").as_deref());
    let peer = if kind == SERVER { exchange.source_address() } else { exchange.upstream_address() };
    let (host, port) = split(peer.as_deref().unwrap_or_default());
    text("network.peer.address", Some(host));
    let authority = request.authority();
    text("server.address", Some(split(&authority).0));
    let mut number = |name: &str, value: Option<u64>| {
        if let Some(value) = value {
            span.count(ATTRIBUTES, name, value);
        }
    };
    number("network.peer.port", port);
    number("http.response.status_code", Some(seen.code().into()).filter(|code| *code != 0));
    number("rpc.grpc.status_code", seen.grpc_status().map(u64::from));
    number("http.request.body.size", seen.received());
    number("http.response.body.size", seen.sent());
    let attempts =
        property::integer("upstream/request_attempt_count").and_then(|count| u64::try_from(count).ok());
    number(
        "http.request.resend_count",
        attempts.and_then(|count| count.checked_sub(1)).filter(|count| *count > 0),
    );
}

/// Host and port.
fn split(address: &str) -> (&str, Option<u64>) {
    if address.starts_with('/') {
        return (address, None);
    }
    match address.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
            (host.trim_matches(['[', ']']), port.parse().ok())
        }
        _ => (address.trim_matches(['[', ']']), None),
    }
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn addresses_are_split() {
        assert_eq!(split("127.0.0.1:80"), ("127.0.0.1", Some(80)));
        assert_eq!(split("[::1]:80"), ("::1", Some(80)));
        assert_eq!(split("[::1]"), ("::1", None));
        assert_eq!(split("::1"), ("::1", None));
        assert_eq!(split("shop.example"), ("shop.example", None));
        assert_eq!(split("/run/app:1.sock"), ("/run/app:1.sock", None));
    }
}
