//! Where a request comes from: the client that connected or, if that is a proxy which is believed, whoever it asks for. Used
//! by `receive`, which marks each request with it.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::header::HeaderName;
use http::uri::Scheme;
use http::{HeaderMap, HeaderValue};
use meshgate_config::Forwarded;
use meshgate_wasm::Address;

use super::forwarding::{Peer, X_FORWARDED_CLIENT_CERT, X_FORWARDED_FOR, X_FORWARDED_PROTO, X_REQUEST_ID};
use super::{fields, request_id};

/// Where a request comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The client's address.
    pub client: Address,
    /// The scheme of what the client asked for.
    pub scheme: Scheme,
    /// A proxy that is believed has written something else than addresses where those stand.
    pub malformed: bool,
}

/// Who is believed about where requests come from, and what. By default nobody: who connects is the client, and what it
/// claims is replaced.
#[derive(Clone, Debug, Default)]
pub struct Forwarding(Option<Forwarded>);

impl Forwarding {
    /// Of a listener.
    pub fn new(forwarded: Option<&Forwarded>) -> Forwarding {
        Forwarding(forwarded.cloned())
    }

    /// The client of a request with these fields, which are as they came.
    pub fn client(&self, headers: &HeaderMap, peer: &Peer) -> Address {
        let way = self.of(peer).map(|proxies| Way::read(headers, proxies));
        way.and_then(|way| way.client()).unwrap_or(peer.connection.source)
    }

    /// Marks a request with where it comes from, and with an id. `claims`: it came with such marks.
    pub(super) fn mark(&self, headers: &mut HeaderMap, peer: &Peer, claims: bool) -> Origin {
        let certificate = peer.certificate.as_ref().map(|certificate| certificate.field(headers));
        let origin = match self.of(peer).filter(|_| claims) {
            Some(proxies) => follow(headers, peer, proxies),
            None => replace(headers, peer, claims),
        };
        match certificate {
            Some(Some(value)) => drop(headers.insert(X_FORWARDED_CLIENT_CERT, value)),
            Some(None) => drop(headers.remove(X_FORWARDED_CLIENT_CERT)),
            None => {}
        }
        let mut ids = headers.get_all(X_REQUEST_ID).iter();
        let kept = ids.next().is_some_and(|id| request_id::is_valid(id.as_bytes())) && ids.next().is_none();
        if !kept {
            headers.insert(X_REQUEST_ID, request_id::new());
        }
        origin
    }

    /// The proxies that are believed, if the one that connected is one of them.
    fn of(&self, peer: &Peer) -> Option<&Forwarded> {
        let proxies = self.0.as_ref()?;
        match peer.connection.source {
            Address::Ip(address) => is_among(proxies, address.ip()).then_some(proxies),
            // Who may connect there is for the file's permissions to say.
            Address::Unix(_) => Some(proxies),
        }
    }
}

/// Puts what we know in the place of what a stranger claims.
fn replace(headers: &mut HeaderMap, peer: &Peer, claims: bool) -> Origin {
    if claims {
        remove_claims(headers, |_| false);
    }
    if let Some(address) = &peer.address {
        headers.insert(X_FORWARDED_FOR, address.clone());
    }
    headers.insert(X_FORWARDED_PROTO, peer.scheme_value());
    Origin { client: peer.connection.source, scheme: peer.scheme.clone(), malformed: false }
}

/// Takes what a proxy says that is believed, and adds the proxy itself.
fn follow(headers: &mut HeaderMap, peer: &Peer, proxies: &Forwarded) -> Origin {
    remove_claims(headers, |name| is_believed(proxies, name));
    let way = Way::read(headers, proxies);
    match way.field(peer) {
        Some(value) => drop(headers.insert(X_FORWARDED_FOR, value)),
        None => drop(headers.remove(X_FORWARDED_FOR)),
    }
    let scheme = said_scheme(headers);
    if scheme.is_none() {
        headers.insert(X_FORWARDED_PROTO, peer.scheme_value());
    }
    Origin {
        client: way.client().unwrap_or(peer.connection.source),
        scheme: scheme.unwrap_or_else(|| peer.scheme.clone()),
        malformed: way.malformed,
    }
}

fn remove_claims(headers: &mut HeaderMap, but: impl Fn(&str) -> bool) {
    let goes = |name: &&HeaderName| fields::is_provenance(name.as_str()) && !but(name.as_str());
    let names: Vec<HeaderName> = headers.keys().filter(goes).cloned().collect();
    for name in &names {
        headers.remove(name);
    }
}

fn is_among(proxies: &Forwarded, address: IpAddr) -> bool {
    proxies.from.iter().any(|range| range.contains(address))
}

fn is_believed(proxies: &Forwarded, field: &str) -> bool {
    proxies.fields.iter().any(|believed| believed == field)
}

/// The scheme that one field names, and no other. Some proxies write that of WebSocket.
fn said_scheme(headers: &HeaderMap) -> Option<Scheme> {
    let mut said = headers.get_all(X_FORWARDED_PROTO).iter();
    let (one, more) = (said.next()?.as_bytes(), said.next());
    let is = |name: &[u8]| one.eq_ignore_ascii_case(name);
    match () {
        () if more.is_some() => None,
        () if is(b"https") || is(b"wss") => Some(Scheme::HTTPS),
        () if is(b"http") || is(b"ws") => Some(Scheme::HTTP),
        () => None,
    }
}

/// The way of a request to the proxy that connected: from the last address in `x-forwarded-for` back to the first that is not
/// one of a proxy. What stands before that was written by somebody who is not believed.
struct Way {
    /// The latest first.
    addresses: Vec<SocketAddr>,
    malformed: bool,
}

impl Way {
    fn read(headers: &HeaderMap, proxies: &Forwarded) -> Way {
        let mut way = Way { addresses: Vec::new(), malformed: false };
        if !is_believed(proxies, X_FORWARDED_FOR.as_str()) {
            return way;
        }
        let lines = headers.get_all(X_FORWARDED_FOR).iter().rev().map(HeaderValue::as_bytes);
        let entries = lines.flat_map(|line| line.rsplit(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
        for entry in entries.filter(|entry| !entry.is_empty()) {
            let Some(address) = address(entry) else {
                way.malformed = true;
                break;
            };
            way.addresses.push(address);
            if !is_among(proxies, address.ip()) {
                break;
            }
        }
        way
    }

    /// Its beginning; none if nothing is known of it.
    fn client(&self) -> Option<Address> {
        self.addresses.last().map(|address| Address::Ip(*address))
    }

    /// `x-forwarded-for` for the next hop: the way, and who connected.
    fn field(&self, peer: &Peer) -> Option<HeaderValue> {
        let mut text = String::new();
        for address in self.addresses.iter().rev() {
            let comma = if text.is_empty() { "" } else { ", " };
            // Writing to a string does not fail.
            let _ = write!(text, "{comma}{}", address.ip());
        }
        match &peer.address {
            Some(address) if text.is_empty() => return Some(address.clone()),
            Some(address) => {
                text.push_str(", ");
                text.push_str(address.to_str().unwrap_or("unknown"));
            }
            None if text.is_empty() => return None,
            None => {}
        }
        HeaderValue::try_from(text).ok()
    }
}

/// An address as proxies write it: with or without a port, and that of IPv6 with or without brackets.
fn address(entry: &[u8]) -> Option<SocketAddr> {
    let text = std::str::from_utf8(entry).ok()?;
    let in_brackets = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let alone = match in_brackets {
        Some(text) => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => text.parse().ok(),
    };
    let (address, port) = match alone {
        Some(address) => (address, 0),
        None => text.parse::<SocketAddr>().map(|address| (address.ip(), address.port())).ok()?,
    };
    Some(SocketAddr::new(address.to_canonical(), port))
}

#[cfg(test)]
mod tests;
