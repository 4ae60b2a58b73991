//! The two formats of a line.
//!
//! Text, in the order of Envoy's default format, with cluster, route, client and listener added at the end:
//! `[start] "METHOD path protocol" status flags details received sent duration upstream-time "x-forwarded-for" "user-agent" "request-id" "authority"
//! "upstream" cluster route downstream listener`, times in milliseconds; then, for each field that a filter added, `name="value"`.
//!
//! JSON: one object per line, always with the same keys; what filters added is an object under `fields`.
//!
//! A filter may have a line of its own in the place of either.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use meshgate_wasm::Address;

use super::escape::{json_string, text_bare, text_quoted};
use super::fields::LogFields;
use super::record::AccessRecord;
use crate::telemetry::timestamp::DateCache;

/// Appends the record as one line of text.
pub(super) fn text(record: &AccessRecord<'_>, dates: &mut DateCache, out: &mut Vec<u8>) {
    out.push(b'[');
    dates.write(record.start, out);
    out.extend_from_slice(b"] \"");
    text_bare(dash(record.method.as_bytes()), out);
    out.push(b' ');
    text_bare(dash(record.path), out);
    out.push(b' ');
    text_bare(record.protocol.as_bytes(), out);
    out.extend_from_slice(b"\" ");
    number(record.status, out);
    bare(record.flags.as_bytes(), out);
    bare(record.details.as_bytes(), out);
    out.push(b' ');
    number(record.bytes_received, out);
    out.push(b' ');
    number(record.bytes_sent, out);
    out.push(b' ');
    number(milliseconds(record.duration), out);
    out.push(b' ');
    match record.upstream_time {
        Some(time) => number(milliseconds(time), out),
        None => out.push(b'-'),
    }
    for value in [record.forwarded_for, record.user_agent, record.request_id, record.authority] {
        out.push(b' ');
        text_quoted(value.filter(|value| !value.is_empty()).unwrap_or(b"-"), out);
    }
    out.extend_from_slice(b" \"");
    match record.upstream_address {
        Some(upstream) => address(upstream, out),
        None => out.push(b'-'),
    }
    out.push(b'"');
    bare(record.cluster.unwrap_or_default().as_bytes(), out);
    bare(record.route.unwrap_or_default().as_bytes(), out);
    out.push(b' ');
    address(record.downstream_address, out);
    bare(record.listener.as_bytes(), out);
    for (name, value) in record.fields.iter() {
        out.push(b' ');
        out.extend_from_slice(name.as_bytes());
        out.push(b'=');
        text_quoted(value, out);
    }
    out.push(b'\n');
}

/// Appends a filter's line. One line stays one line, and no terminal is moved by it.
pub(super) fn of_filter(line: &[u8], out: &mut Vec<u8>) {
    out.extend(line.iter().map(|byte| if (b' '..=b'~').contains(byte) { *byte } else { b' ' }));
    out.push(b'\n');
}

/// Appends a space and the value, or a dash if it is empty.
fn bare(value: &[u8], out: &mut Vec<u8>) {
    out.push(b' ');
    text_bare(dash(value), out);
}

/// A dash in the place of nothing.
fn dash(value: &[u8]) -> &[u8] {
    if value.is_empty() { b"-" } else { value }
}

/// Appends the record as one JSON object and a line feed.
pub(super) fn json(record: &AccessRecord<'_>, dates: &mut DateCache, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"start_time\":\"");
    dates.write(record.start, out);
    out.push(b'"');
    string("method", present(record.method), out);
    string("path", Some(record.path).filter(|path| !path.is_empty()), out);
    string("protocol", Some(record.protocol.as_bytes()), out);
    key("response_code", out);
    number(record.status, out);
    string("response_flags", present(record.flags), out);
    string("response_code_details", present(record.details), out);
    key("bytes_received", out);
    number(record.bytes_received, out);
    key("bytes_sent", out);
    number(record.bytes_sent, out);
    key("duration_ms", out);
    number(milliseconds(record.duration), out);
    key("upstream_time_ms", out);
    match record.upstream_time {
        Some(time) => number(milliseconds(time), out),
        None => out.extend_from_slice(b"null"),
    }
    string("x_forwarded_for", record.forwarded_for, out);
    string("user_agent", record.user_agent, out);
    string("request_id", record.request_id, out);
    string("authority", record.authority, out);
    string("requested_server_name", record.server_name.map(str::as_bytes), out);
    key("upstream_address", out);
    match record.upstream_address {
        Some(upstream) => quoted(upstream, out),
        None => out.extend_from_slice(b"null"),
    }
    string("upstream_failure", record.upstream_failure.map(str::as_bytes), out);
    string("cluster", record.cluster.map(str::as_bytes), out);
    string("route", record.route.map(str::as_bytes), out);
    key("downstream_address", out);
    quoted(record.downstream_address, out);
    string("listener", Some(record.listener.as_bytes()), out);
    key("fields", out);
    fields(record.fields, out);
    out.extend_from_slice(b"}\n");
}

fn present(value: &str) -> Option<&[u8]> {
    (!value.is_empty()).then_some(value.as_bytes())
}

fn key(name: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn string(name: &str, value: Option<&[u8]>, out: &mut Vec<u8>) {
    key(name, out);
    match value {
        Some(value) => json_string(value, out),
        None => out.extend_from_slice(b"null"),
    }
}

/// What filters added. Their names need no escaping.
fn fields(fields: &LogFields, out: &mut Vec<u8>) {
    if fields.iter().len() == 0 {
        return out.extend_from_slice(b"null");
    }
    let mut before = b'{';
    for (name, value) in fields.iter() {
        out.push(before);
        json_string(name.as_bytes(), out);
        out.push(b':');
        json_string(value, out);
        before = b',';
    }
    out.push(b'}');
}

fn quoted(value: Address, out: &mut Vec<u8>) {
    match value {
        Address::Ip(_) => {
            out.push(b'"');
            address(value, out);
            out.push(b'"');
        }
        // A path may have any character.
        Address::Unix(_) => json_string(value.to_string().as_bytes(), out),
    }
}

/// The address as its `Display` has it; for IPv4 without the detour through `fmt`, which takes longer than the rest of a line.
fn address(value: Address, out: &mut Vec<u8>) {
    match value {
        Address::Ip(SocketAddr::V4(value)) => {
            let [a, b, c, d] = value.ip().octets();
            for (octet, after) in [(a, b'.'), (b, b'.'), (c, b'.'), (d, b':')] {
                number(octet, out);
                out.push(after);
            }
            number(value.port(), out);
        }
        // Writing to a Vec cannot fail, and an address has no character that needs escaping.
        Address::Ip(SocketAddr::V6(value)) => drop(write!(out, "{value}")),
        Address::Unix(_) => text_bare(value.to_string().as_bytes(), out),
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Decimal digits.
fn number(value: impl Into<u64>, out: &mut Vec<u8>) {
    let mut value = value.into();
    let mut digits = [0; 20];
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[first..]);
}
