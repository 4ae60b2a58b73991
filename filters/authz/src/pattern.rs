//! Patterns for texts and for addresses.

use std::net::IpAddr;

use meshgate_sdk::ConfigError;

/// A text, or many: a `*` at the end or at the beginning stands for anything.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Text {
    /// This very text.
    Exact(String),
    /// `abc*`
    Prefix(String),
    /// `*abc`
    Suffix(String),
    /// `*`: anything but nothing.
    Present,
}

impl Text {
    pub(crate) fn new(text: &str) -> Result<Self, ConfigError> {
        let pattern = match (text.strip_prefix('*'), text.strip_suffix('*')) {
            (Some(""), _) => Self::Present,
            (Some(rest), None) => Self::Suffix(rest.to_owned()),
            (None, Some(rest)) => Self::Prefix(rest.to_owned()),
            (None, None) if text.is_empty() => {
                return Err(ConfigError::new(
                    "an empty text never matches: write `not_…: [\"*\"]` for \"nothing there\"",
                ));
            }
            (None, None) => Self::Exact(text.to_owned()),
            (Some(_), Some(_)) => return Err(two_stars(text)),
        };
        match &pattern {
            Self::Exact(rest) | Self::Prefix(rest) | Self::Suffix(rest) if rest.contains('*') => {
                Err(two_stars(text))
            }
            _ => Ok(pattern),
        }
    }

    pub(crate) fn matches(&self, text: &[u8]) -> bool {
        match self {
            Self::Exact(exact) => text == exact.as_bytes(),
            Self::Prefix(start) => text.starts_with(start.as_bytes()),
            Self::Suffix(end) => text.ends_with(end.as_bytes()),
            Self::Present => !text.is_empty(),
        }
    }
}

fn two_stars(text: &str) -> ConfigError {
    ConfigError::new(format_args!("{text:?}: one * stands at the beginning or at the end, and nowhere else"))
}

/// A pattern for a client's identity: one without a scheme means SPIFFE's.
pub(crate) fn identity(text: &str) -> Result<Text, ConfigError> {
    if text.contains("://") || text.starts_with('*') {
        Text::new(text)
    } else {
        Text::new(&format!("spiffe://{text}"))
    }
}

/// A pattern for a host's name, in lower case.
pub(crate) fn host(text: &str) -> Result<Text, ConfigError> {
    if text.contains(['/', ' ']) {
        return Err(ConfigError::new(format_args!("{text:?} is not the name of a host")));
    }
    let name = text.trim_start_matches('*');
    if without_port(name.as_bytes()).len() != name.len() {
        return Err(ConfigError::new(format_args!(
            "{text:?}: the port does not take part in the comparison: leave it out, or use `ports`"
        )));
    }
    Text::new(text.to_ascii_lowercase().trim_end_matches('.'))
}

/// The authority up to its port. The colons inside `[::1]` are not the port's.
pub(crate) fn without_port(authority: &[u8]) -> &[u8] {
    match authority.iter().rposition(|byte| *byte == b':') {
        Some(colon) if authority.iter().skip(colon + 1).all(u8::is_ascii_digit) => {
            authority.get(..colon).unwrap_or_default()
        }
        _ => authority,
    }
}

/// Methods of HTTP as registered, to tell what a pattern in small letters was meant to be.
const METHODS: [&str; 9] = ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"];

/// A pattern for a method.
pub(crate) fn method(text: &str) -> Result<Text, ConfigError> {
    let upper = text.to_ascii_uppercase();
    if upper != text && METHODS.contains(&upper.as_str()) {
        return Err(ConfigError::new(format_args!(
            "{text:?}: methods are case-sensitive, did you mean {upper}?"
        )));
    }
    Text::new(text)
}

/// A range of addresses.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Range {
    /// As IPv6, IPv4 among them at its mapped place.
    first: u128,
    /// How many leading bits count.
    bits: u32,
}

impl Range {
    pub(crate) fn new(text: &str) -> Result<Self, ConfigError> {
        let refuse = |message: &str| ConfigError::new(format_args!("{text:?}: {message}"));
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr =
            address.parse().map_err(|_| refuse("not an IP address or a range such as 10.0.0.0/8"))?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            Some(bits) => {
                bits.parse().ok().filter(|bits| *bits <= most).ok_or_else(|| refuse("no such range"))?
            }
            None => most,
        };
        let range = Self { first: number(address), bits: bits + 128 - most };
        if range.first & !range.mask() != 0 {
            return Err(refuse("the address has bits behind the range's; write those as 0"));
        }
        Ok(range)
    }

    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        number(address) & self.mask() == self.first
    }

    fn mask(&self) -> u128 {
        u128::MAX.checked_shl(128 - self.bits).unwrap_or(0)
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        Text::new(pattern).unwrap().matches(text.as_bytes())
    }

    #[test]
    fn a_star_stands_at_one_end() {
        assert!(matches("abc", "abc") && !matches("abc", "abcd") && !matches("abc", "ABC"));
        assert!(matches("abc*", "abc") && matches("abc*", "abcd") && !matches("abc*", "ab"));
        assert!(matches("*abc", "abc") && matches("*abc", "xabc") && !matches("*abc", "abcx"));
        assert!(matches("*", "x") && !matches("*", ""));
        for wrong in ["", "a*b", "*a*", "**", "***", "*a*b"] {
            assert!(Text::new(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_identity_without_a_scheme_is_a_spiffe_id() {
        let id = b"spiffe://cluster.local/ns/a/sa/b";
        for pattern in
            ["cluster.local/ns/a/sa/b", "cluster.local/ns/a/*", "spiffe://cluster.local/*", "*/sa/b", "*"]
        {
            assert!(identity(pattern).unwrap().matches(id), "{pattern}");
        }
        assert!(!identity("https://cluster.local/ns/a/*").unwrap().matches(id));
    }

    #[test]
    fn hosts_have_no_port_and_no_case() {
        assert_eq!(host("Shop.Example.").unwrap(), Text::Exact("shop.example".to_owned()));
        assert_eq!(host("*.Example").unwrap(), Text::Suffix(".example".to_owned()));
        assert!(host("[::1]").is_ok());
        for wrong in ["shop.example:80", "http://shop.example", "", "a b", "*.example:8080"] {
            assert!(host(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn methods_are_written_as_they_are() {
        assert!(method("GET").is_ok() && method("P*").is_ok() && method("x-own").is_ok());
        assert!(method("get").unwrap_err().to_string().contains("did you mean GET?"));
    }

    #[test]
    fn ranges_contain_their_addresses() {
        let contains =
            |range: &str, address: &str| Range::new(range).unwrap().contains(address.parse().unwrap());
        assert!(contains("10.0.0.0/8", "10.255.0.1") && !contains("10.0.0.0/8", "11.0.0.1"));
        assert!(contains("10.1.2.3", "10.1.2.3") && !contains("10.1.2.3", "10.1.2.4"));
        assert!(contains("10.0.0.0/8", "::ffff:10.0.0.1"), "IPv4 within IPv6 is IPv4");
        assert!(contains("0.0.0.0/0", "1.2.3.4") && !contains("0.0.0.0/0", "2001:db8::1"));
        assert!(contains("::/0", "2001:db8::1") && contains("2001:db8::/32", "2001:db8:1::1"));
        assert!(!contains("2001:db8::/32", "2001:db9::1") && !contains("::1", "127.0.0.1"));
        for wrong in
            ["", "10.0.0.0/33", "::/129", "10.0.0.1/8", "10.0.0", "example.com", "10.0.0.0/", "10.0.0.0/-1"]
        {
            assert!(Range::new(wrong).is_err(), "{wrong}");
        }
    }
}
