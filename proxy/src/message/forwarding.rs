//! What becomes of a message's head on its way through: what every request on a connection is marked with, the request as it
//! goes upstream, and what ends here of a response (RFC 9110 section 7.6).

use std::net::IpAddr;
use std::rc::Rc;

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderName, TRAILER, TRANSFER_ENCODING, VIA};
use http::uri::Scheme;
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version};
use meshgate_wasm::{Connection, RequestHead};

use super::{Body, authority, fields};

/// `x-forwarded-for`
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// `x-forwarded-proto`
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// `x-forwarded-client-cert`
pub const X_FORWARDED_CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
/// `x-request-id`
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A client's connection, with what every request on it is marked with made once.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The facts that filters see.
    pub connection: Rc<Connection>,
    /// The scheme of its requests; what a target says about it counts for nothing.
    pub scheme: Scheme,
    /// None for one on a Unix socket.
    pub(super) address: Option<HeaderValue>,
    /// The host that its requests must be for; none if they may be for any.
    authority: Option<Rc<str>>,
    pub(super) certificate: Option<ForwardedCertificate>,
}

/// What requests say of their client's certificate (`x-forwarded-client-cert`).
#[derive(Clone, Debug)]
pub struct ForwardedCertificate {
    /// What the client says there stays.
    pub keep: bool,
    /// What we say.
    pub add: Option<HeaderValue>,
}

impl Peer {
    /// A client on a cleartext connection.
    pub fn cleartext(connection: Rc<Connection>) -> Peer {
        let address = connection.source.ip().map(address_value);
        Peer { connection, scheme: Scheme::HTTP, address, authority: None, certificate: None }
    }

    /// A client on a connection through TLS: the host that its requests must be for, if they must, and what they say
    /// of its certificate.
    pub fn secure(
        connection: Rc<Connection>,
        authority: Option<Rc<str>>,
        certificate: Option<ForwardedCertificate>,
    ) -> Peer {
        Peer { scheme: Scheme::HTTPS, authority, certificate, ..Peer::cleartext(connection) }
    }

    /// Whether its requests may be for this authority. A client that was let in by a name may not ask for another: who is
    /// let in by that is for its own handshake to settle.
    pub(super) fn may_ask_for(&self, authority: &HeaderValue) -> bool {
        let Some(name) = &self.authority else { return true };
        let host = authority::host(authority.as_bytes());
        host.strip_suffix(b".").unwrap_or(host).eq_ignore_ascii_case(name.as_bytes())
    }

    pub(super) fn scheme_value(&self) -> HeaderValue {
        HeaderValue::from_static(if self.scheme == Scheme::HTTPS { "https" } else { "http" })
    }
}

impl ForwardedCertificate {
    /// The field's value, given a request's fields as they came.
    pub(super) fn field(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let came = headers.get_all(X_FORWARDED_CLIENT_CERT).iter().filter(|_| self.keep);
        let mut values: Vec<&[u8]> =
            came.map(HeaderValue::as_bytes).filter(|value| !value.is_empty()).collect();
        values.extend(self.add.as_ref().map(HeaderValue::as_bytes));
        match *values {
            [] => None,
            // What was put together from values is one.
            _ => HeaderValue::from_bytes(&values.join(&b","[..])).ok(),
        }
    }
}

fn address_value(address: IpAddr) -> HeaderValue {
    HeaderValue::from_str(&address.to_canonical().to_string())
        .unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}

/// The request as it goes upstream: origin form, `host`, `via`. `headers` are those of `head`, taken or cloned.
pub fn upstream_request(head: &RequestHead, mut headers: HeaderMap, body: Body) -> Request<Body> {
    headers.insert(HOST, head.authority.clone());
    let via = match head.version {
        Version::HTTP_2 => "2 meshgate",
        Version::HTTP_10 => "1.0 meshgate",
        _ => "1.1 meshgate",
    };
    headers.append(VIA, HeaderValue::from_static(via));
    let unframed =
        http_body::Body::size_hint(&body).exact().is_none() && !headers.contains_key(CONTENT_LENGTH);
    if unframed && matches!(head.method, Method::GET | Method::HEAD) {
        // For these methods hyper sends a body only if told how.
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    let mut request = Request::new(body);
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = Uri::from(head.path.clone());
    *request.headers_mut() = headers;
    request
}

/// An endpoint's response that must not be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadResponse {
    /// Why, in words for the log.
    pub reason: &'static str,
}

/// Removes from a response's head what ends at this hop.
pub fn response_arrived(headers: &mut HeaderMap) -> Result<(), BadResponse> {
    let (mut connection, mut hop_by_hop, mut trailer) = (false, false, false);
    for name in headers.keys() {
        match name.as_str() {
            "connection" => connection = true,
            "trailer" => trailer = true,
            name => hop_by_hop |= name == "te" || fields::is_hop_by_hop(name),
        }
    }
    if hop_by_hop {
        let chunked = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"chunked");
        let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
        if !codings.next().is_none_or(chunked) || codings.next().is_some() {
            return Err(BadResponse { reason: "transfer coding other than chunked" });
        }
    }
    if connection {
        if !fields::connection_names_nothing(headers) {
            let named = fields::named_by_connection(headers).unwrap_or_default();
            // The endpoint has no business in hiding what concerns security: such fields stay.
            for name in named.iter().filter(|name| !fields::is_protected(name.as_str())) {
                headers.remove(name);
            }
        }
        headers.remove(CONNECTION);
    }
    if hop_by_hop {
        let ends_here = |name: &str| name == "te" || fields::is_hop_by_hop(name);
        let names: Vec<HeaderName> =
            headers.keys().filter(|name| ends_here(name.as_str())).cloned().collect();
        for name in &names {
            headers.remove(name);
        }
    }
    if trailer && headers.contains_key(TRAILER) {
        fields::clean_trailer_field(headers);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
