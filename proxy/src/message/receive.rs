//! A request's head as it arrives: checked, cleaned of what belongs to its own hop, and marked with where it came from.
//!
//! hyper has parsed it; here stand the rules that hyper leaves to us. What passes is what filters see, and what filters
//! leave is what the endpoint gets.

use std::borrow::Cow;

use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, TE, TRANSFER_ENCODING, UPGRADE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version, request};
use hyper::ext::Protocol;
use meshgate_wasm::RequestHead;

use super::{Forwarding, Origin, Peer, Upgrade, authority, fields, path};

/// Longest request target, in bytes.
pub const MAX_TARGET: usize = 8 * 1024;

/// Longest method, in bytes; the longest registered one has 16.
const MAX_METHOD: usize = 32;

/// A request that goes no further than here. The client is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// What to answer; never a success.
    pub status: StatusCode,
    /// Why, in words for the log.
    pub reason: &'static str,
}

impl Rejection {
    const fn new(status: StatusCode, reason: &'static str) -> Rejection {
        Rejection { status, reason }
    }

    const fn bad_request(reason: &'static str) -> Rejection {
        Rejection::new(StatusCode::BAD_REQUEST, reason)
    }
}

/// A request's head that is acceptable.
#[derive(Debug)]
pub struct ArrivedRequest {
    /// As filters see it.
    pub head: RequestHead,
    /// Where it comes from.
    pub origin: Origin,
    /// The protocol that the client offers to change to. The head says so, in the proxy's own words.
    pub upgrade: Option<Upgrade>,
}

/// Checks a request's head and makes it ours. It may have so many fields, and offer to change to one of `upgrades`.
///
/// # Errors
/// Why it goes no further, and what is left of its fields.
pub fn request_arrived(
    parts: request::Parts,
    peer: &Peer,
    forwarding: &Forwarding,
    max_fields: usize,
    upgrades: &[String],
) -> Result<ArrivedRequest, (Rejection, HeaderMap)> {
    let request::Parts { method, uri, version, mut headers, extensions, .. } = parts;
    if let Err(rejection) = check_number(&headers, max_fields) {
        return Err((rejection, headers));
    }
    let connect = extensions.get::<Protocol>().filter(|_| method == Method::CONNECT).map(Protocol::as_str);
    // In what follows, an offer over HTTP/2 reads as one over HTTP/1.1 does.
    let method = if connect.is_some() { Method::GET } else { method };
    match accept(&method, uri, version, &mut headers, Offers { connect, allowed: upgrades }) {
        Ok(Accepted { authority, .. }) if !peer.may_ask_for(&authority) => {
            let reason = "not the server that the TLS handshake asked for";
            Err((Rejection::new(StatusCode::MISDIRECTED_REQUEST, reason), headers))
        }
        Ok(Accepted { authority, path, claims, upgrade }) => {
            let origin = forwarding.mark(&mut headers, peer, claims);
            if let Some(upgrade) = &upgrade {
                upgrade.offer(&mut headers);
            }
            let scheme = origin.scheme.clone();
            let head = RequestHead { method, scheme, authority, path, version, headers };
            Ok(ArrivedRequest { head, origin, upgrade })
        }
        Err(rejection) => Err((rejection, headers)),
    }
}

/// hyper counts the fields of HTTP/1.1 as it reads them; of HTTP/2 nobody does, and small ones are many within the bound for
/// their size. Each line counts, so each piece of a cookie that a client sends in pieces does.
fn check_number(headers: &HeaderMap, most: usize) -> Result<(), Rejection> {
    if headers.len() > most {
        return Err(Rejection::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "too many fields"));
    }
    Ok(())
}

/// What was taken out of a head that is acceptable.
struct Accepted {
    authority: HeaderValue,
    path: PathAndQuery,
    /// It came with fields that say where it comes from.
    claims: bool,
    upgrade: Option<Upgrade>,
}

/// Changes of the protocol: the one that an extended CONNECT asks for, if it is one, and those that may be.
struct Offers<'a> {
    connect: Option<&'a str>,
    allowed: &'a [String],
}

fn accept(
    method: &Method,
    uri: Uri,
    version: Version,
    headers: &mut HeaderMap,
    offers: Offers<'_>,
) -> Result<Accepted, Rejection> {
    check_method(method)?;
    let seen = Seen::of(headers);
    check_framing(version, headers, &seen)?;
    let authority = take_authority(&uri, version, headers, &seen)?;
    let path = take_path(method, uri)?;
    // With a body on its way, nobody could tell where that ends and the other protocol begins. HTTP/1.0 has no offers.
    let may_offer = seen.upgrade && version == Version::HTTP_11 && has_no_body(headers, &seen);
    let upgrade = match offers.connect {
        Some(protocol) => {
            let unknown =
                Rejection::new(StatusCode::NOT_IMPLEMENTED, "CONNECT for a protocol that is not offered");
            Some(Upgrade::extended(protocol, offers.allowed).ok_or(unknown)?)
        }
        None if may_offer => Upgrade::offered(headers, offers.allowed),
        None => None,
    };
    clean(headers, &seen)?;
    Ok(Accepted { authority, path, claims: seen.provenance, upgrade })
}

fn has_no_body(headers: &HeaderMap, seen: &Seen) -> bool {
    !seen.transfer_encoding && headers.get(CONTENT_LENGTH).is_none_or(|length| length == "0")
}

/// What one walk over the names found, so that a usual request costs no further look-ups.
#[derive(Default)]
struct Seen {
    connection: bool,
    hop_by_hop: bool,
    te: bool,
    trailer: bool,
    transfer_encoding: bool,
    upgrade: bool,
    expect: bool,
    disguised: bool,
    provenance: bool,
    hosts: usize,
}

impl Seen {
    fn of(headers: &HeaderMap) -> Seen {
        let mut seen = Seen::default();
        for name in headers.keys() {
            match name.as_str() {
                "host" => seen.hosts = headers.get_all(HOST).iter().count(),
                "te" => seen.te = true,
                "trailer" => seen.trailer = true,
                "expect" => seen.expect = true,
                "connection" => seen.connection = true,
                "transfer-encoding" => {
                    seen.transfer_encoding = true;
                    seen.hop_by_hop = true;
                }
                "upgrade" => {
                    seen.upgrade = true;
                    seen.hop_by_hop = true;
                }
                name => {
                    seen.hop_by_hop |= fields::is_hop_by_hop(name);
                    seen.provenance |= fields::is_provenance(name);
                    seen.disguised |= fields::is_disguised(name);
                }
            }
        }
        seen
    }
}

fn check_method(method: &Method) -> Result<(), Rejection> {
    match *method {
        Method::GET | Method::POST => Ok(()),
        Method::CONNECT => Err(Rejection::new(StatusCode::METHOD_NOT_ALLOWED, "CONNECT is not offered")),
        Method::TRACE => Err(Rejection::new(StatusCode::METHOD_NOT_ALLOWED, "TRACE is not offered")),
        _ if method.as_str().len() > MAX_METHOD => {
            Err(Rejection::new(StatusCode::NOT_IMPLEMENTED, "method too long"))
        }
        _ => Ok(()),
    }
}

/// hyper frames by the last transfer coding alone; the next server may read the others too.
fn check_framing(version: Version, headers: &HeaderMap, seen: &Seen) -> Result<(), Rejection> {
    if seen.transfer_encoding {
        if version < Version::HTTP_11 {
            return Err(Rejection::bad_request("transfer-encoding in HTTP/1.0"));
        }
        if headers.contains_key(CONTENT_LENGTH) {
            return Err(Rejection::bad_request("both content-length and transfer-encoding"));
        }
        let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
        let (first, more) = (codings.next(), codings.next());
        let chunked = first.is_some_and(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
        if more.is_some() || !chunked {
            return Err(Rejection::new(StatusCode::NOT_IMPLEMENTED, "transfer coding other than chunked"));
        }
    }
    if seen.expect && headers.get_all(EXPECT).iter().any(|value| !is_continue(value)) {
        return Err(Rejection::new(StatusCode::EXPECTATION_FAILED, "unknown expectation"));
    }
    Ok(())
}

fn is_continue(value: &HeaderValue) -> bool {
    value.as_bytes().eq_ignore_ascii_case(b"100-continue")
}

/// The authority: the target's own wins over `host`, which is taken out of the fields.
fn take_authority(
    uri: &Uri,
    version: Version,
    headers: &mut HeaderMap,
    seen: &Seen,
) -> Result<HeaderValue, Rejection> {
    if seen.hosts > 1 {
        return Err(Rejection::bad_request("more than one host field"));
    }
    let host = if seen.hosts == 1 { headers.remove(HOST) } else { None };
    if host.is_none() && version == Version::HTTP_11 {
        return Err(Rejection::bad_request("no host field"));
    }
    let bad = Err(Rejection::bad_request("invalid authority"));
    if host.as_ref().is_some_and(|host| !authority::is_valid(host.as_bytes())) {
        return bad;
    }
    let Some(target) = uri.authority() else {
        return match host {
            Some(host) => Ok(host),
            None if version < Version::HTTP_11 => Ok(HeaderValue::from_static("")),
            None => Err(Rejection::bad_request("no authority")),
        };
    };
    if !authority::is_valid(target.as_str().as_bytes()) {
        return bad;
    }
    match host {
        Some(host) if host.as_bytes().eq_ignore_ascii_case(target.as_str().as_bytes()) => Ok(host),
        Some(_) if version >= Version::HTTP_2 => Err(Rejection::bad_request("host is not :authority")),
        _ => HeaderValue::from_str(target.as_str()).or(bad),
    }
}

/// The path and query in their one form.
fn take_path(method: &Method, uri: Uri) -> Result<PathAndQuery, Rejection> {
    let absolute = uri.scheme().is_some();
    if absolute && !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(Rejection::bad_request("target of another scheme"));
    }
    if uri.authority().is_some() && !absolute {
        return Err(Rejection::bad_request("target is an authority"));
    }
    let Some(target) = uri.into_parts().path_and_query else {
        return Err(Rejection::bad_request("target without a path"));
    };
    if target.as_str().len() > MAX_TARGET {
        return Err(Rejection::new(StatusCode::URI_TOO_LONG, "target too long"));
    }
    if target.as_str() == "*" {
        return match *method {
            Method::OPTIONS => Ok(target),
            _ => Err(Rejection::bad_request("target * without OPTIONS")),
        };
    }
    let bad = Rejection::bad_request("invalid path");
    // Of `http://host#x` the type keeps an empty path, which reads as `/` but would be sent as nothing.
    if target.as_str() == "/" {
        return Ok(PathAndQuery::from_static("/"));
    }
    let path = path::canonical(target.path()).map_err(|_| bad)?;
    // Of `http://host?x` it keeps the query alone, so that the slash must be put before it.
    if matches!(path, Cow::Borrowed(_)) && target.as_str().starts_with('/') {
        return Ok(target);
    }
    let text = match target.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.into_owned(),
    };
    PathAndQuery::try_from(text).map_err(|_| bad)
}

/// Removes what ends here.
fn clean(headers: &mut HeaderMap, seen: &Seen) -> Result<(), Rejection> {
    if seen.connection {
        remove_named(headers)?;
    }
    if seen.hop_by_hop || seen.disguised {
        let ends_here = |name: &str| fields::is_hop_by_hop(name) || fields::is_disguised(name);
        let names: Vec<HeaderName> =
            headers.keys().filter(|name| ends_here(name.as_str())).cloned().collect();
        for name in &names {
            headers.remove(name);
        }
    }
    if seen.te {
        let trailers = headers.get_all(TE).iter().any(accepts_trailers);
        headers.remove(TE);
        if trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
    }
    if seen.trailer {
        fields::clean_trailer_field(headers);
    }
    if seen.expect {
        // hyper asks the client to continue as soon as the body is wanted.
        headers.remove(EXPECT);
    }
    Ok(())
}

fn remove_named(headers: &mut HeaderMap) -> Result<(), Rejection> {
    if !fields::connection_names_nothing(headers) {
        let names = fields::named_by_connection(headers)
            .ok_or(Rejection::bad_request("connection holds what is not a name"))?;
        if names.iter().any(|name| fields::is_protected(name.as_str())) {
            return Err(Rejection::bad_request("connection names a protected field"));
        }
        for name in names {
            // `te` has its own rule, and must be named here to be legal at all.
            if name != TE && name != UPGRADE {
                headers.remove(name);
            }
        }
        headers.remove(UPGRADE);
    }
    headers.remove(CONNECTION);
    Ok(())
}

fn accepts_trailers(value: &HeaderValue) -> bool {
    value.as_bytes().split(|byte| *byte == b',').any(|token| {
        let name = token.split(|byte| *byte == b';').next().unwrap_or_default();
        name.trim_ascii().eq_ignore_ascii_case(b"trailers")
    })
}

#[cfg(test)]
mod tests;
