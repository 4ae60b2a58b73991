//! Where something listens: an IP address and a port, or the path of a Unix socket.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use crate::formats;

/// The longest path that the system takes for a socket, less the byte at its end.
pub(crate) const LONGEST_PATH: usize = 107;

/// What the path of a Unix socket begins with in the file.
const UNIX: &str = "unix:";

/// Where something listens. Small and to be copied: it stands in each exchange.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Address {
    /// An IP address and a port.
    Ip(SocketAddr),
    /// The path of a Unix socket.
    Unix(UnixPath),
}

/// The path of a Unix socket. Each one that a configuration ever named is kept once, for as long as the process lives: they are
/// short and few, and so their copies cost nothing.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct UnixPath(&'static str);

static KNOWN: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());

impl UnixPath {
    /// The path with this text.
    pub fn new(text: &str) -> UnixPath {
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = known.get(text) {
            return UnixPath(path);
        }
        let path: &'static str = Box::leak(text.into());
        known.insert(path);
        UnixPath(path)
    }

    /// The path as text.
    pub fn as_str(self) -> &'static str {
        self.0
    }
}

impl AsRef<Path> for UnixPath {
    fn as_ref(&self) -> &Path {
        Path::new(self.0)
    }
}

impl Address {
    /// `IP:PORT`, or `unix:` and a path; `None` if it is neither.
    pub(crate) fn parse(text: &str) -> Option<Address> {
        match text.strip_prefix(UNIX) {
            Some(path) => is_path(path).then(|| Address::Unix(UnixPath::new(path))),
            None => text.parse().ok().map(Address::Ip),
        }
    }

    /// The IP address, if there is one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Address::Ip(address) => Some(address.ip()),
            Address::Unix(_) => None,
        }
    }

    /// The path of a Unix socket, if it is one.
    pub fn unix_path(&self) -> Option<UnixPath> {
        match self {
            Address::Ip(_) => None,
            Address::Unix(path) => Some(*path),
        }
    }
}

/// Whether the text is to be the address of a Unix socket, well formed or not.
pub(crate) fn is_unix(text: &str) -> bool {
    text.starts_with(UNIX)
}

/// The path in the address of a Unix socket.
pub(crate) fn path_in(text: &str) -> Option<&str> {
    text.strip_prefix(UNIX)
}

/// Whether a Unix socket can have the path.
fn is_path(path: &str) -> bool {
    path.len() > 1
        && path.len() <= LONGEST_PATH
        && path.starts_with('/')
        && !path.ends_with('/')
        && !path.contains('\0')
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Address {
        Address::Ip(address)
    }
}

impl fmt::Display for Address {
    /// As it is written in the file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Ip(address) => address.fmt(f),
            Address::Unix(path) => write!(f, "{UNIX}{}", path.0),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Address, D::Error> {
        let text = String::deserialize(deserializer)?;
        let wrong = |complaint: formats::Complaint| serde::de::Error::custom(complaint.message);
        formats::complaint("listener-address", &text).map_or(Ok(()), |complaint| Err(wrong(complaint)))?;
        Address::parse(&text).ok_or_else(|| serde::de::Error::custom("is not an address"))
    }
}

impl JsonSchema for Address {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Address".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "listener-address"})
    }
}

/// Who may connect to a Unix socket: its file's permissions, in octal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SocketMode(pub u32);

impl SocketMode {
    /// The owner and the group.
    pub(crate) const DEFAULT: SocketMode = SocketMode(0o660);
}

impl<'de> Deserialize<'de> for SocketMode {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<SocketMode, D::Error> {
        let text = String::deserialize(deserializer)?;
        u32::from_str_radix(&text, 8).map(SocketMode).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for SocketMode {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "SocketMode".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^0?[0-7]{3}$"})
    }
}
