//! The connections on both sides of an exchange: `source`, `destination`, `connection`, `upstream`.

use super::value::Value;
use crate::address::Address;
use crate::attributes::{Attributes, Certificate, Tls};

pub(super) fn downstream<'a>(attributes: &'a Attributes, name: &[u8]) -> Option<Value<'a>> {
    let connection = &attributes.connection;
    let tls = connection.tls.as_ref();
    match name {
        b"id" => Some(Value::Number(connection.id)),
        b"mtls" => Some(Value::Bool(tls.is_some_and(|tls| tls.peer.is_some()))),
        b"requested_server_name" => Some(Value::Bytes(tls?.server_name.as_ref()?.as_bytes())),
        _ => of_tls(tls?, name),
    }
}

pub(super) fn upstream<'a>(attributes: &'a Attributes, name: &[u8]) -> Option<Value<'a>> {
    match name {
        b"address" | b"port" => address(attributes.upstream_address?, name),
        [b'l', b'o', b'c', b'a', b'l', b'i', b't', b'y', part @ ..] => {
            let part = if part.is_empty() { part } else { part.strip_prefix(b"\0")? };
            super::locality(&attributes.upstream_facts.as_ref()?.locality, part)
        }
        b"local_address" => Some(Value::Address(attributes.upstream_local_address?)),
        b"local_port" => Some(Value::Number(attributes.upstream_local_address?.port()?.into())),
        b"request_attempt_count" => Some(Value::Number(attributes.attempts.into())),
        b"num_endpoints" => Some(Value::Number(attributes.upstream_endpoints?)),
        b"cx_pool_ready_duration" => Some(Value::Duration(attributes.upstream_ready_after?)),
        b"transport_failure_reason" => Some(Value::Bytes(attributes.upstream_failure.as_ref()?.as_bytes())),
        _ => of_tls(attributes.upstream_tls.as_ref()?, name),
    }
}

pub(super) fn address<'a>(address: Address, name: &[u8]) -> Option<Value<'a>> {
    match name {
        b"address" => Some(Value::Address(address)),
        b"port" => Some(Value::Number(address.port()?.into())),
        _ => None,
    }
}

/// What both sides' TLS has.
fn of_tls<'a>(tls: &'a Tls, name: &[u8]) -> Option<Value<'a>> {
    let (local, peer) = (tls.local.as_deref(), tls.peer.as_deref());
    let text = match name {
        b"tls_version" => tls.version?,
        b"subject_local_certificate" => &local?.subject,
        b"subject_peer_certificate" => &peer?.subject,
        b"dns_san_local_certificate" => san(local, |certificate| &certificate.dns_san)?,
        b"dns_san_peer_certificate" => san(peer, |certificate| &certificate.dns_san)?,
        b"uri_san_local_certificate" => san(local, |certificate| &certificate.uri_san)?,
        b"uri_san_peer_certificate" => san(peer, |certificate| &certificate.uri_san)?,
        b"sha256_peer_certificate_digest" => &peer?.sha256,
        b"peer_certificate" => &peer?.pem,
        _ => return None,
    };
    Some(Value::Bytes(text.as_bytes()))
}

fn san(certificate: Option<&Certificate>, of: impl Fn(&Certificate) -> &Option<Box<str>>) -> Option<&str> {
    of(certificate?).as_deref()
}
