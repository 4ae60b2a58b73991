//! Names of hosts, in conditions and elsewhere.

use meshgate_sdk::ConfigError;

/// A pattern for an authority without its port. It is kept in lower case.
#[derive(Debug)]
pub enum HostPattern {
    /// This very one.
    Exact(String),
    /// `*.example.com`, kept as `.example.com`: one or more labels in front.
    Under(String),
}

impl HostPattern {
    /// Reads what a user writes.
    ///
    /// # Errors
    /// It is no host's name.
    pub fn new(text: &str) -> Result<Self, ConfigError> {
        let lower = text.to_ascii_lowercase();
        let (under, name) = match lower.strip_prefix('*') {
            Some(rest) => (true, rest),
            None => (false, lower.as_str()),
        };
        let refuse = |message: &str| Err(ConfigError::new(format_args!("{text:?}: {message}")));
        if name.contains('*') || (under && (!name.starts_with('.') || name.len() < 2)) {
            return refuse("a * stands only at the beginning, before a dot");
        }
        if without_port(name.as_bytes()).len() != name.len() {
            return refuse("the port does not take part in the comparison: leave it out");
        }
        let brackets = name.starts_with('[') && name.ends_with(']');
        if name.is_empty()
            || name.contains('/')
            || (name.contains(':') && !brackets)
            || !name.bytes().all(|byte| byte.is_ascii_graphic())
        {
            return refuse("not a host name");
        }
        Ok(if under { Self::Under(name.to_owned()) } else { Self::Exact(name.to_owned()) })
    }

    /// Whether a request for this authority is meant.
    pub fn matches(&self, authority: &[u8]) -> bool {
        let host = without_port(authority);
        match self {
            Self::Exact(name) => host.eq_ignore_ascii_case(name.as_bytes()),
            Self::Under(name) => host
                .len()
                .checked_sub(name.len())
                .filter(|labels| *labels > 0)
                .and_then(|labels| host.get(labels..))
                .is_some_and(|end| end.eq_ignore_ascii_case(name.as_bytes())),
        }
    }

    /// How much it says of a host: a kind, and a length within the kind.
    pub fn precision(&self) -> (u8, usize) {
        match self {
            Self::Exact(name) => (2, name.len()),
            Self::Under(name) => (1, name.len()),
        }
    }
}

/// Refuses what is no host's name: one without a port, and without a `*`.
///
/// # Errors
/// It is none.
pub fn check_host(text: &str) -> Result<(), ConfigError> {
    match HostPattern::new(text)? {
        HostPattern::Exact(_) => Ok(()),
        HostPattern::Under(_) => Err(ConfigError::new(format_args!("{text:?} stands for many hosts"))),
    }
}

/// The authority up to its port. The colons inside `[::1]` are not the port's.
pub fn without_port(authority: &[u8]) -> &[u8] {
    match authority.iter().rposition(|byte| *byte == b':') {
        Some(colon) if authority[colon + 1..].iter().all(u8::is_ascii_digit) => &authority[..colon],
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(pattern: &str, authority: &str) -> bool {
        HostPattern::new(pattern).unwrap().matches(authority.as_bytes())
    }

    #[test]
    fn hosts_compare_without_case_and_port() {
        for authority in ["example.com", "EXAMPLE.com:8080", "example.com:"] {
            assert!(host("Example.COM", authority), "{authority}");
        }
        assert!(!host("example.com", "xexample.com") && !host("example.com", "example.com:x"));
        assert!(host("[::1]", "[::1]:80") && host("[::1]", "[::1]"));
    }

    #[test]
    fn a_star_stands_for_one_or_more_labels() {
        assert!(host("*.example.com", "a.example.com:1") && host("*.example.com", "a.B.Example.com"));
        for other in ["example.com", ".example.com", "aexample.com", "a.example.org"] {
            assert!(!host("*.example.com", other), "{other}");
        }
    }
}
