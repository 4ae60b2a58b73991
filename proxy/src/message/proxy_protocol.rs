//! The PROXY protocol, versions 1 and 2 (HAProxy's `proxy-protocol.txt`): a few bytes before everything else on a
//! connection, in which a proxy says for whom it connects. Read by `downstream`, written by `upstream`.
//!
//! The reader is strict: whoever may say where others come from has no reason to be vague. It never asks for a byte beyond
//! the header, because what follows belongs to another protocol.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use meshgate_wasm::Address;

/// What version 1 begins with.
const PREFIX: &[u8] = b"PROXY ";
/// What version 2 begins with: no protocol in use would take it for its own.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The shortest line of version 1, `PROXY UNKNOWN` and its end. Version 2 is longer.
const SHORTEST: usize = 15;
/// The longest line of version 1, with its end.
const LONGEST_LINE: usize = 107;
/// The part of version 2 whose length is known: signature, version and command, family, length of the rest.
const HEAD: usize = 16;
/// The most that may follow it: addresses, and whatever else a proxy cares to tell.
const LONGEST_REST: usize = 4096;

/// Why bytes are not a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(&'static str);

/// For whom a connection was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Addresses {
    /// The client.
    pub source: SocketAddr,
    /// What it had connected to.
    pub destination: SocketAddr,
}

impl Addresses {
    /// Of a client and what it had connected to; none if one of them has no address that could be told.
    pub fn of(source: Address, destination: Address) -> Option<Addresses> {
        match (source, destination) {
            (Address::Ip(source), Address::Ip(destination)) => Some(Addresses { source, destination }),
            _ => None,
        }
    }
}

/// How far a header has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// At most so many bytes more: none of them lies beyond the header.
    More(usize),
    /// Bytes up to and with the next line feed, at most so many.
    Line(usize),
    /// The header is whole. Without addresses, the connection is the proxy's own, or nothing is known.
    Whole(Option<Addresses>),
}

/// Looks at what has been read of a header.
///
/// # Errors
/// What came is no header, and will not become one.
pub fn read(bytes: &[u8]) -> Result<Progress, Malformed> {
    if begins(bytes, SIGNATURE) && !bytes.is_empty() {
        return read_v2(bytes);
    }
    if !begins(bytes, PREFIX) {
        return Err(Malformed("neither version 1 nor version 2"));
    }
    match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) if end + 1 == bytes.len() => read_line(bytes).map(Progress::Whole),
        Some(_) => Err(Malformed("line too short")),
        None if bytes.len() < SHORTEST => Ok(Progress::More(SHORTEST - bytes.len())),
        None if bytes.len() < LONGEST_LINE => Ok(Progress::Line(LONGEST_LINE - bytes.len())),
        None => Err(Malformed("line too long")),
    }
}

/// Whether they are the beginning of the other, or the other way round.
fn begins(bytes: &[u8], with: &[u8]) -> bool {
    bytes.iter().zip(with).all(|(one, other)| one == other)
}

/// `PROXY TCP4 192.0.2.1 192.0.2.2 4711 443`, with its end.
fn read_line(line: &[u8]) -> Result<Option<Addresses>, Malformed> {
    let line = line.strip_suffix(b"\r\n").ok_or(Malformed("line ends without a carriage return"))?;
    let line = std::str::from_utf8(line).map_err(|_| Malformed("not ASCII"))?;
    let mut words = line.split(' ').skip(1);
    let family = words.next();
    if family == Some("UNKNOWN") {
        return Ok(None);
    }
    let (Some(source), Some(destination), Some(from), Some(to), None) =
        (words.next(), words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Malformed("not six words"));
    };
    let address = |text: &str| match family {
        Some("TCP4") => text.parse::<Ipv4Addr>().map(IpAddr::V4).ok(),
        Some("TCP6") => text.parse::<Ipv6Addr>().map(IpAddr::V6).ok(),
        _ => None,
    };
    let (Some(source), Some(destination)) = (address(source), address(destination)) else {
        return Err(Malformed("no address of the family"));
    };
    let (Some(from), Some(to)) = (port(from), port(to)) else {
        return Err(Malformed("no port"));
    };
    Ok(Some(Addresses {
        source: SocketAddr::new(source, from),
        destination: SocketAddr::new(destination, to),
    }))
}

/// A port in its one form: digits alone, and no zeros before them.
fn port(text: &str) -> Option<u16> {
    let canonical = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if canonical { text.parse().ok() } else { None }
}

fn read_v2(bytes: &[u8]) -> Result<Progress, Malformed> {
    let Some((head, rest)) = bytes.split_at_checked(HEAD) else {
        return Ok(Progress::More(HEAD - bytes.len()));
    };
    let (command, family) = (head[12], head[13]);
    if command >> 4 != 2 {
        return Err(Malformed("unknown version"));
    }
    let length = usize::from(u16::from_be_bytes([head[14], head[15]]));
    if length > LONGEST_REST {
        return Err(Malformed("too long"));
    }
    if rest.len() < length {
        return Ok(Progress::More(length - rest.len()));
    }
    match command & 0x0f {
        // The proxy's own connection, such as a health check: what else it says is not about a client.
        0 => Ok(Progress::Whole(None)),
        1 => read_addresses(family, rest).map(Progress::Whole),
        _ => Err(Malformed("unknown command")),
    }
}

fn read_addresses(family: u8, rest: &[u8]) -> Result<Option<Addresses>, Malformed> {
    let short = Malformed("too short for its addresses");
    let (addresses, more) = match family {
        0x00 => (None, rest),
        0x11 => {
            let (block, more) = rest.split_first_chunk::<12>().ok_or(short)?;
            let at = |at: usize| Ipv4Addr::from([block[at], block[at + 1], block[at + 2], block[at + 3]]);
            (Some((at(0).into(), at(4).into(), [block[8], block[9], block[10], block[11]])), more)
        }
        0x21 => {
            let (block, more) = rest.split_first_chunk::<36>().ok_or(short)?;
            let (source, other) = block.split_first_chunk::<16>().ok_or(short)?;
            let (destination, ports) = other.split_first_chunk::<16>().ok_or(short)?;
            let ports = [ports[0], ports[1], ports[2], ports[3]];
            (Some((Ipv6Addr::from(*source).into(), Ipv6Addr::from(*destination).into(), ports)), more)
        }
        // Two paths of Unix sockets say nothing about a client's address.
        0x31 => (None, rest.split_first_chunk::<216>().ok_or(short)?.1),
        _ => return Err(Malformed("not a stream of a known family")),
    };
    check_values(more)?;
    Ok(addresses.map(|(source, destination, ports): (IpAddr, IpAddr, [u8; 4])| Addresses {
        source: SocketAddr::new(source, u16::from_be_bytes([ports[0], ports[1]])),
        destination: SocketAddr::new(destination, u16::from_be_bytes([ports[2], ports[3]])),
    }))
}

/// Type, length and value, again and again: nothing in them is used, but they must fill what is left.
fn check_values(mut rest: &[u8]) -> Result<(), Malformed> {
    while let Some(([_, high, low], more)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        rest = more.get(length..).ok_or(Malformed("value beyond the end"))?;
    }
    if rest.is_empty() { Ok(()) } else { Err(Malformed("bytes after the last value")) }
}

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// A header. Without addresses it says that the connection is the proxy's own.
pub fn write(version: Version, addresses: Option<Addresses>) -> Vec<u8> {
    let addresses = addresses.map(of_one_family);
    match version {
        Version::V1 => write_v1(addresses).into_bytes(),
        Version::V2 => write_v2(addresses),
    }
}

/// A socket for both families shows IPv4 in the form of IPv6; a header has one family for both addresses.
fn of_one_family(addresses: Addresses) -> (IpAddr, IpAddr, u16, u16) {
    let Addresses { source, destination } = addresses;
    let (from, to) = (source.port(), destination.port());
    match (source.ip().to_canonical(), destination.ip().to_canonical()) {
        (IpAddr::V4(source), destination @ IpAddr::V6(_)) => {
            (source.to_ipv6_mapped().into(), destination, from, to)
        }
        (source @ IpAddr::V6(_), IpAddr::V4(destination)) => {
            (source, destination.to_ipv6_mapped().into(), from, to)
        }
        (source, destination) => (source, destination, from, to),
    }
}

fn write_v1(addresses: Option<(IpAddr, IpAddr, u16, u16)>) -> String {
    let Some((source, destination, from, to)) = addresses else { return "PROXY UNKNOWN\r\n".to_owned() };
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let mut line = String::with_capacity(LONGEST_LINE);
    // Writing to a string cannot fail.
    let _ = write!(line, "PROXY {family} {source} {destination} {from} {to}\r\n");
    line
}

fn write_v2(addresses: Option<(IpAddr, IpAddr, u16, u16)>) -> Vec<u8> {
    let mut bytes = SIGNATURE.to_vec();
    let Some((source, destination, from, to)) = addresses else {
        bytes.extend([0x20, 0x00, 0, 0]);
        return bytes;
    };
    let (family, length) = if source.is_ipv4() { (0x11, 12) } else { (0x21, 36) };
    bytes.extend([0x21, family, 0, length]);
    for address in [source, destination] {
        match address {
            IpAddr::V4(address) => bytes.extend(address.octets()),
            IpAddr::V6(address) => bytes.extend(address.octets()),
        }
    }
    for port in [from, to] {
        bytes.extend(port.to_be_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests;
