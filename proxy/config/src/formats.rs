//! Kinds of strings that the file and filters' configurations consist of: the `format`s of our JSON Schemas.

use std::net::SocketAddr;

use crate::address::{self, Address};
use crate::forwarded;
use crate::range::parse_range;
use crate::units::{UnitError, parse_duration, parse_size};

/// Why a string is not of the format: the end of a sentence about the value, and how to mend it.
pub(crate) struct Complaint {
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

type Check = fn(&str) -> Result<(), Complaint>;

/// Every format that we know beyond JSON Schema's own. `duration` replaces the ISO 8601 one of that name.
pub(crate) const FORMATS: [(&str, Check); 11] = [
    ("duration", |text| parse_duration(text).map(drop).map_err(Complaint::from)),
    ("size", |text| parse_size(text).map(drop).map_err(Complaint::from)),
    ("socket-address", socket_address),
    ("listener-address", listener_address),
    ("endpoint", endpoint),
    ("sha256", sha256),
    ("name", name),
    ("upgrade", upgrade),
    ("address-range", address_range),
    ("status-codes", status_codes),
    ("forwarded-field", forwarded::field),
];

impl From<UnitError> for Complaint {
    fn from(error: UnitError) -> Self {
        Self { message: error.what, hint: error.hint }
    }
}

impl Complaint {
    fn plain(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    fn hinted(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: Some(hint.into()) }
    }
}

/// Why the text is not of the format; `None` if it is, or if the format is none of ours.
pub(crate) fn complaint(format: &str, text: &str) -> Option<Complaint> {
    let (_, check) = FORMATS.iter().find(|(name, _)| *name == format)?;
    check(text).err()
}

/// What a string of the format looks like, for "must be …".
pub(crate) fn description(format: &str) -> Option<&'static str> {
    Some(match format {
        "duration" => "a duration such as `10s`",
        "size" => "a size such as `64KiB`",
        "socket-address" => "an address such as `127.0.0.1:8080`",
        "listener-address" => "an address such as `127.0.0.1:8080` or `unix:/run/web.sock`",
        "endpoint" => "an endpoint such as `127.0.0.1:9001`",
        "sha256" => "a SHA-256 in hex",
        "name" => "a name",
        "address-range" => "a range of addresses such as `10.0.0.0/8`",
        "status-codes" => "status codes such as `500-503`",
        "upgrade" => "a protocol such as `websocket`",
        "forwarded-field" => "a field such as `x-forwarded-for`",
        _ => return None,
    })
}

fn socket_address(text: &str) -> Result<(), Complaint> {
    if text.parse::<SocketAddr>().is_ok() {
        return Ok(());
    }
    let hint = match text.strip_prefix(':') {
        Some(port) if port.parse::<u16>().is_ok() => {
            format!("write `0.0.0.0:{port}` or `[::]:{port}` for all interfaces")
        }
        _ if text.parse::<std::net::IpAddr>().is_ok() => "add a port".to_owned(),
        _ => "write an IP address and a port, such as `0.0.0.0:8080` or `[::]:8080`".to_owned(),
    };
    Err(Complaint::hinted("is not an address", hint))
}

fn listener_address(text: &str) -> Result<(), Complaint> {
    if address::is_unix(text) { unix_socket(text) } else { socket_address(text) }
}

fn unix_socket(text: &str) -> Result<(), Complaint> {
    if Address::parse(text).is_some() {
        return Ok(());
    }
    let path = address::path_in(text).unwrap_or_default();
    Err(if path.len() > address::LONGEST_PATH {
        let hint = format!("the system takes {} bytes at most", address::LONGEST_PATH);
        Complaint::hinted("has too long a path", hint)
    } else {
        Complaint::hinted(
            "is not the path of a Unix socket",
            "write an absolute path, such as `unix:/run/web.sock`",
        )
    })
}

/// The form only; whether the name resolves is asked later.
fn endpoint(text: &str) -> Result<(), Complaint> {
    if address::is_unix(text) && !text.starts_with("unix://") {
        return unix_socket(text);
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return if address.port() == 0 { Err(Complaint::plain("has port 0")) } else { Ok(()) };
    }
    if let Some((scheme, _)) = text.split_once("://") {
        return Err(Complaint::hinted(
            "is not an endpoint",
            format!("leave out `{scheme}://`: host and port only"),
        ));
    }
    match text.rsplit_once(':') {
        _ if text.parse::<std::net::IpAddr>().is_ok() => {
            Err(Complaint::hinted("has no port", "write `ADDRESS:PORT`"))
        }
        None => Err(Complaint::hinted("has no port", "write `HOST:PORT`")),
        Some((host, _)) if host.is_empty() || !host.bytes().all(is_host_byte) => {
            Err(Complaint::hinted("is not an endpoint", "write `HOST:PORT`, and an IPv6 address in brackets"))
        }
        Some((_, port)) => match port.parse::<u16>() {
            Ok(0) => Err(Complaint::plain("has port 0")),
            Ok(_) => Ok(()),
            Err(_) => Err(Complaint::hinted("has no port", "the port is a number from 1 to 65535")),
        },
    }
}

fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')
}

/// A host name, as DNS has it.
pub(crate) fn is_dns_name(text: &str) -> bool {
    let is_label = |label: &str| {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        (1..=63).contains(&label.len())
            && label.bytes().all(is_allowed)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(is_label) && text.parse::<std::net::IpAddr>().is_err()
}

fn sha256(text: &str) -> Result<(), Complaint> {
    let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if text.len() == 64 && text.bytes().all(hex) {
        return Ok(());
    }
    let hint = if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        "write it in lower case"
    } else {
        "64 lower-case hex digits, as `sha256sum` prints them"
    };
    Err(Complaint::hinted("is not a SHA-256", hint))
}

fn address_range(text: &str) -> Result<(), Complaint> {
    let complain = |(message, hint): (&str, Option<String>)| Complaint { message: message.to_owned(), hint };
    parse_range(text).map(drop).map_err(complain)
}

/// One status of HTTP, or a range of them.
fn status_codes(text: &str) -> Result<(), Complaint> {
    let status =
        |text: &str| text.parse::<u16>().ok().filter(|code| text.len() == 3 && (100..600).contains(code));
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (status(first), status(last)) {
        (Some(first), Some(last)) if first <= last => Ok(()),
        (Some(first), Some(last)) => {
            Err(Complaint::hinted("is not a range", format!("did you mean `{last}-{first}`?")))
        }
        _ => {
            // Other proxies have words around them.
            let inside = text.split(|c: char| !c.is_ascii_digit()).find(|part| status(part).is_some());
            let hint = match inside {
                Some(code) => format!("did you mean `{code}`?"),
                None => "write a status such as `503`, or a range such as `500-503`".to_owned(),
            };
            Err(Complaint::hinted("is not a status code", hint))
        }
    }
}

/// A protocol that a connection may change to. Versions of HTTP, and TLS, are not changed to through a proxy.
fn upgrade(text: &str) -> Result<(), Complaint> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~/".contains(&byte);
    if text.is_empty() || !text.bytes().all(token) {
        return Err(Complaint::hinted(
            "is not a protocol",
            "one name, as in the field `upgrade`: `websocket`",
        ));
    }
    let name = text.split('/').next().unwrap_or_default();
    if ["h2c", "h2", "http", "tls"].iter().any(|refused| name.eq_ignore_ascii_case(refused)) {
        return Err(Complaint::hinted(
            "cannot be changed to through a proxy",
            "clients speak HTTP/2 to this port from their first byte, or by ALPN",
        ));
    }
    Ok(())
}

fn name(text: &str) -> Result<(), Complaint> {
    if text.is_empty() {
        return Err(Complaint::plain("is empty"));
    }
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(Complaint::plain("must not contain spaces or control characters"));
    }
    if text.len() > 200 {
        return Err(Complaint::plain("is longer than 200 bytes"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        for text in ["127.0.0.1:1", "[::1]:80", "localhost:80", "a-b_c.example.:65535"] {
            assert!(complaint("endpoint", text).is_none(), "{text}");
        }
        for text in [
            "127.0.0.1",
            "127.0.0.1:0",
            "::1",
            "localhost",
            "localhost:",
            "localhost:0",
            "localhost:65536",
            ":80",
            "a b:80",
            "http://x:80",
            "",
            "x:y:80",
        ] {
            assert!(complaint("endpoint", text).is_some(), "{text}");
        }
    }

    #[test]
    fn pins() {
        assert!(complaint("sha256", &"0a".repeat(32)).is_none());
        for text in ["", "0a", &"0A".repeat(32), &"0g".repeat(32), &"0a".repeat(33)] {
            assert!(complaint("sha256", text).is_some(), "{text}");
        }
    }

    #[test]
    fn upgrades() {
        for text in ["websocket", "WebSocket", "x-tunnel", "irc/6.9"] {
            assert!(complaint("upgrade", text).is_none(), "{text}");
        }
        for text in ["", "web socket", "a,b", "h2c", "H2C", "h2", "HTTP/2.0", "TLS/1.0"] {
            assert!(complaint("upgrade", text).is_some(), "{text}");
        }
    }

    #[test]
    fn every_format_has_a_description() {
        for (format, _) in FORMATS {
            assert!(description(format).is_some(), "{format}");
        }
        assert!(complaint("date", "x").is_none());
    }
}
