//! Header maps as guests see them: pseudo headers first, names in lower case; and what guests may write.
//!
//! What a guest writes is checked like input from the network: a bad name, value or pseudo header is refused
//! (BAD_ARGUMENT, on which the Rust SDK traps): leaving the old value in place silently could let a client's
//! spoofed field through. Two things are not worth a trap and are ignored with OK: removing a required pseudo
//! header, and writing fields that belong to the connection (framing is the proxy's own).

use http::header::{self, Entry, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, StatusCode};

use crate::exchange::{RequestHead, ResponseHead};
use crate::pairs::Pair;
use crate::status::Status;

/// Fields of a map, after a guest's writes.
const MAX_FIELDS: usize = 1_024;
/// Small fields are added without a look at all others, as long as there are few.
const SMALL: usize = 512;
const FEW: usize = 64;

impl RequestHead {
    /// Fields including pseudo headers.
    pub fn count(&self) -> usize {
        3 + usize::from(!self.authority.is_empty()) + self.headers.len()
    }

    pub(crate) fn pairs(&self) -> impl Iterator<Item = Pair<'_>> {
        let authority =
            Some((&b":authority"[..], self.authority.as_bytes())).filter(|pair| !pair.1.is_empty());
        let pseudo: [Option<Pair<'_>>; 4] = [
            authority,
            Some((b":method", self.method.as_str().as_bytes())),
            Some((b":path", self.path.as_str().as_bytes())),
            Some((b":scheme", self.scheme.as_str().as_bytes())),
        ];
        pseudo.into_iter().flatten().chain(pairs(&self.headers))
    }

    pub(crate) fn find(&self, key: &[u8]) -> Option<&[u8]> {
        match key {
            b":method" => Some(self.method.as_str().as_bytes()),
            b":path" => Some(self.path.as_str().as_bytes()),
            b":scheme" => Some(self.scheme.as_str().as_bytes()),
            b":authority" => Some(self.authority.as_bytes()).filter(|authority| !authority.is_empty()),
            _ if key.eq_ignore_ascii_case(b"host") => self.find(b":authority"),
            _ => find(&self.headers, key),
        }
    }

    /// Adds a field or replaces all of its name; pseudo headers are always replaced. The fields have `most` bytes then.
    pub(crate) fn write(&mut self, (key, value): Pair<'_>, replace: bool, most: usize) -> Result<(), Status> {
        if is_pseudo(key) || key.eq_ignore_ascii_case(b"host") {
            return self.write_pseudo(key, value);
        }
        write(&mut self.headers, (key, value), replace, most)
    }

    pub(crate) fn remove(&mut self, key: &[u8]) {
        if !is_pseudo(key) && !key.eq_ignore_ascii_case(b"host") {
            remove(&mut self.headers, key);
        }
    }

    /// Replaces everything; pseudo headers that are left out stay.
    pub(crate) fn replace_all(&mut self, pairs: &[Pair<'_>], most: usize) -> Result<(), Status> {
        let mut head = RequestHead { headers: connection_fields(&self.headers), ..self.clone() };
        for pair in pairs {
            head.write(*pair, false, most)?;
        }
        *self = head;
        Ok(())
    }

    fn write_pseudo(&mut self, key: &[u8], value: &[u8]) -> Result<(), Status> {
        match key {
            b":method" => self.method = Method::from_bytes(value).map_err(|_| Status::BadArgument)?,
            b":path" => self.path = parse_path(value)?,
            b":scheme" => self.scheme = parse_scheme(value)?,
            b":authority" => self.authority = parse_authority(value)?,
            _ if key.eq_ignore_ascii_case(b"host") => self.authority = parse_authority(value)?,
            _ => return Err(Status::BadArgument),
        }
        Ok(())
    }
}

impl ResponseHead {
    /// Fields including `:status`.
    pub fn count(&self) -> usize {
        1 + self.headers.len()
    }

    pub(crate) fn pairs(&self) -> impl Iterator<Item = Pair<'_>> {
        [(&b":status"[..], self.status.as_str().as_bytes())].into_iter().chain(pairs(&self.headers))
    }

    pub(crate) fn find(&self, key: &[u8]) -> Option<&[u8]> {
        match key {
            b":status" => Some(self.status.as_str().as_bytes()),
            _ => find(&self.headers, key),
        }
    }

    pub(crate) fn write(&mut self, (key, value): Pair<'_>, replace: bool, most: usize) -> Result<(), Status> {
        if key == b":status" {
            self.status = parse_status(value)?;
            return Ok(());
        }
        if is_pseudo(key) {
            return Err(Status::BadArgument);
        }
        write(&mut self.headers, (key, value), replace, most)
    }

    pub(crate) fn remove(&mut self, key: &[u8]) {
        if !is_pseudo(key) {
            remove(&mut self.headers, key);
        }
    }

    pub(crate) fn replace_all(&mut self, pairs: &[Pair<'_>], most: usize) -> Result<(), Status> {
        let mut head = ResponseHead { status: self.status, headers: connection_fields(&self.headers) };
        for pair in pairs {
            head.write(*pair, false, most)?;
        }
        *self = head;
        Ok(())
    }
}

/// All fields of a plain map.
pub(crate) fn pairs(map: &HeaderMap) -> impl Iterator<Item = Pair<'_>> {
    map.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()))
}

/// The first value of a name in any case.
pub(crate) fn find<'a>(map: &'a HeaderMap, key: &[u8]) -> Option<&'a [u8]> {
    // Parses and lowers the name without allocating; a name that is none is not there.
    map.get(std::str::from_utf8(key).ok()?).map(HeaderValue::as_bytes)
}

/// Adds a field to a map of fields or trailers, or replaces all of its name. The map has `most` bytes then.
pub(crate) fn write(
    map: &mut HeaderMap,
    (key, value): Pair<'_>,
    replace: bool,
    most: usize,
) -> Result<(), Status> {
    // Before anything is copied.
    if !has_room(map, (key, value), replace, most) {
        return Err(Status::InternalFailure);
    }
    let (name, value) = parse(key, value)?;
    if is_of_connection(&name, &value) {
        return Ok(());
    }
    if name == header::CONTENT_LENGTH && !value.as_bytes().iter().all(u8::is_ascii_digit) {
        return Err(Status::BadArgument);
    }
    if map.len() >= MAX_FIELDS && !(replace && map.contains_key(&name)) {
        return Err(Status::InternalFailure);
    }
    let written = if replace || name == header::CONTENT_LENGTH {
        map.try_insert(name, value).map(drop)
    } else {
        map.try_append(name, value).map(drop)
    };
    written.map_err(|_| Status::InternalFailure)
}

/// Whether a map has `most` bytes with a field more. What it has is counted where it matters only.
fn has_room(map: &HeaderMap, (key, value): Pair<'_>, replace: bool, most: usize) -> bool {
    let bytes = key.len() + value.len();
    let staying = || pairs(map).filter(|(name, _)| !(replace && name.eq_ignore_ascii_case(key)));
    let size = || staying().map(|(name, value)| name.len() + value.len()).sum::<usize>();
    bytes <= SMALL && map.len() < FEW || size().saturating_add(bytes) <= most
}

/// Removes all fields of a name; fine if there is none.
pub(crate) fn remove(map: &mut HeaderMap, key: &[u8]) {
    if let Ok(name) = std::str::from_utf8(key) {
        map.remove(name);
    }
}

/// Replaces a map of trailers.
pub(crate) fn replace_trailers(map: &mut HeaderMap, pairs: &[Pair<'_>], most: usize) -> Result<(), Status> {
    *map = parse_all(pairs, |map, pair| write_trailer(map, pair, false, most))?;
    Ok(())
}

/// As [`write`], for trailers: fields that frame or route a message are ignored.
pub(crate) fn write_trailer(
    map: &mut HeaderMap,
    (key, value): Pair<'_>,
    replace: bool,
    most: usize,
) -> Result<(), Status> {
    let forbidden = [header::CONTENT_LENGTH, header::HOST, header::TRAILER];
    let name = HeaderName::from_bytes(key).map_err(|_| Status::BadArgument)?;
    if !forbidden.contains(&name) {
        return write(map, (key, value), replace, most);
    }
    HeaderValue::from_bytes(trim(value)).map(drop).map_err(|_| Status::BadArgument)
}

/// The fields of a local response: pseudo headers and framing are ours.
pub(crate) fn local_response(pairs: &[Pair<'_>]) -> Result<HeaderMap, Status> {
    parse_all(pairs, |map, (key, value)| {
        if is_pseudo(key) || key.eq_ignore_ascii_case(b"content-length") {
            return Ok(());
        }
        // As many as serialized pairs may have.
        write(map, (key, value), false, usize::MAX)
    })
}

/// A map of trailers for an HTTP call.
pub(crate) fn trailers(pairs: &[Pair<'_>]) -> Result<HeaderMap, Status> {
    parse_all(pairs, |map, pair| write_trailer(map, pair, false, usize::MAX))
}

fn parse_all(
    pairs: &[Pair<'_>],
    write: impl Fn(&mut HeaderMap, Pair<'_>) -> Result<(), Status>,
) -> Result<HeaderMap, Status> {
    let mut map = HeaderMap::with_capacity(pairs.len());
    for pair in pairs {
        write(&mut map, *pair)?;
    }
    Ok(map)
}

fn parse(key: &[u8], value: &[u8]) -> Result<(HeaderName, HeaderValue), Status> {
    let name = HeaderName::from_bytes(key).map_err(|_| Status::BadArgument)?;
    let value = HeaderValue::from_bytes(trim(value)).map_err(|_| Status::BadArgument)?;
    Ok((name, value))
}

/// Without the white space that parsing a message would take off. Not line breaks: those are refused.
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

fn is_pseudo(key: &[u8]) -> bool {
    key.first() == Some(&b':')
}

/// Whether the field belongs to the connection, not the message. `te: trailers` is a message's.
fn is_of_connection(name: &HeaderName, value: &HeaderValue) -> bool {
    const OTHERS: [&str; 3] = ["keep-alive", "proxy-connection", "http2-settings"];
    let known = [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE];
    known.contains(name) || OTHERS.contains(&name.as_str()) || (*name == header::TE && value != "trailers")
}

/// What a guest that replaces a whole map cannot drop.
fn connection_fields(map: &HeaderMap) -> HeaderMap {
    let of_connection = map.iter().filter(|(name, value)| is_of_connection(name, value));
    let mut kept = HeaderMap::new();
    for (name, value) in of_connection {
        match kept.entry(name) {
            Entry::Occupied(mut entry) => entry.append(value.clone()),
            Entry::Vacant(entry) => drop(entry.insert(value.clone())),
        }
    }
    kept
}

fn parse_path(value: &[u8]) -> Result<PathAndQuery, Status> {
    let visible = value.iter().all(|byte| matches!(byte, 0x21..=0x7e) && *byte != b'#');
    if !visible || !(value.starts_with(b"/") || value == b"*") {
        return Err(Status::BadArgument);
    }
    PathAndQuery::try_from(value).map_err(|_| Status::BadArgument)
}

fn parse_scheme(value: &[u8]) -> Result<Scheme, Status> {
    match value {
        b"http" => Ok(Scheme::HTTP),
        b"https" => Ok(Scheme::HTTPS),
        _ => Err(Status::BadArgument),
    }
}

fn parse_authority(value: &[u8]) -> Result<HeaderValue, Status> {
    let authority = Authority::try_from(value).map_err(|_| Status::BadArgument)?;
    if authority.as_str().contains('@') {
        return Err(Status::BadArgument);
    }
    HeaderValue::from_bytes(value).map_err(|_| Status::BadArgument)
}

/// A final status.
fn parse_status(value: &[u8]) -> Result<StatusCode, Status> {
    let status = StatusCode::from_bytes(value).map_err(|_| Status::BadArgument)?;
    if status.is_informational() { Err(Status::BadArgument) } else { Ok(status) }
}

/// The head of an HTTP call's request. `:method`, `:path` and `:authority` are required.
pub(crate) fn call_head(pairs: &[Pair<'_>]) -> Result<RequestHead, Status> {
    let value = |wanted: &[u8]| pairs.iter().find(|(key, _)| *key == wanted).map(|(_, value)| *value);
    let required = |wanted: &[u8]| value(wanted).ok_or(Status::BadArgument);
    let mut head = RequestHead {
        method: Method::from_bytes(required(b":method")?).map_err(|_| Status::BadArgument)?,
        scheme: value(b":scheme").map_or(Ok(Scheme::HTTP), parse_scheme)?,
        authority: parse_authority(required(b":authority")?)?,
        path: parse_path(required(b":path")?)?,
        version: http::Version::HTTP_11,
        headers: HeaderMap::with_capacity(pairs.len()),
    };
    for (key, value) in pairs {
        // The body's length is known; a `host` beside `:authority` has no say.
        let ours = key.eq_ignore_ascii_case(b"content-length") || key.eq_ignore_ascii_case(b"host");
        if is_pseudo(key) {
            let known: [&[u8]; 4] = [b":method", b":scheme", b":authority", b":path"];
            if !known.contains(key) {
                return Err(Status::BadArgument);
            }
        } else if !ours {
            write(&mut head.headers, (key, value), false, usize::MAX)?;
        }
    }
    Ok(head)
}
