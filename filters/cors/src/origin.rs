//! Origins: how they are written, and which are meant.

use meshgate_sdk::ConfigError;

/// Which origins are meant.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum OriginPattern {
    /// Every one: `*`.
    Every,
    /// This very one, in lower case.
    Exact(String),
    /// `https://*.example.org:8443`: one or more labels in front of `.example.org:8443`.
    Under { scheme: String, end: String },
}

impl OriginPattern {
    pub(crate) fn new(text: &str) -> Result<Self, ConfigError> {
        let refuse = |message: &str| Err(ConfigError::new(format_args!("{text:?}: {message}")));
        let lower = text.to_ascii_lowercase();
        if lower == "*" {
            return Ok(Self::Every);
        }
        // What pages without an origin of their own send.
        if lower == "null" {
            return Ok(Self::Exact(lower));
        }
        let Some((scheme, host)) = lower.split_once("://") else {
            return refuse("an origin is a scheme and a host, such as https://www.example.org");
        };
        let sound = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:[]*".contains(&byte);
        if scheme.is_empty()
            || !scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
        {
            return refuse("not a scheme");
        }
        if host.contains(['/', '?', '#']) {
            return refuse("an origin ends with the host and its port: no path, and no / either");
        }
        if host.is_empty() || !host.bytes().all(sound) {
            return refuse("not a host");
        }
        let default_port = match scheme {
            "http" => ":80",
            "https" => ":443",
            _ => "",
        };
        if !default_port.is_empty() && host.ends_with(default_port) {
            return refuse("browsers leave the scheme's own port out: leave it out here, too");
        }
        match host.strip_prefix('*') {
            None if host.contains('*') => refuse("a * stands only at the host's beginning, before a dot"),
            None => Ok(Self::Exact(lower)),
            Some(end) if end.contains('*') || !end.starts_with('.') || end.len() < 2 => {
                refuse("a * stands only at the host's beginning, before a dot")
            }
            Some(end) => Ok(Self::Under { scheme: scheme.to_owned(), end: end.to_owned() }),
        }
    }

    /// Whether this origin is meant.
    pub(crate) fn matches(&self, origin: &str) -> bool {
        match self {
            Self::Every => true,
            Self::Exact(exact) => origin.eq_ignore_ascii_case(exact),
            Self::Under { scheme, end } => {
                let Some((of, host)) = origin.split_once("://") else { return false };
                let labels = host.len().checked_sub(end.len()).filter(|labels| *labels > 0);
                of.eq_ignore_ascii_case(scheme)
                    && labels.is_some_and(|labels| {
                        let (front, rest) = (host.as_bytes().get(..labels), host.as_bytes().get(labels..));
                        rest.is_some_and(|rest| rest.eq_ignore_ascii_case(end.as_bytes()))
                            && front.is_some_and(|front| front.iter().all(|byte| is_of_name(*byte)))
                    })
            }
        }
    }
}

/// What a host's labels are made of. Anything else in front of a known end could be read as another host by somebody.
fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, origin: &str) -> bool {
        OriginPattern::new(pattern).unwrap().matches(origin)
    }

    #[test]
    fn origins_match_as_a_whole() {
        assert!(matches("https://www.example.org", "https://www.example.org"));
        assert!(matches("https://WWW.example.org", "https://www.EXAMPLE.org"));
        assert!(matches("http://localhost:3000", "http://localhost:3000"));
        assert!(matches("null", "null") && matches("*", "null") && matches("*", "app://x"));
        for other in [
            "http://www.example.org",
            "https://www.example.org:8443",
            "https://www.example.org.evil.example",
            "https://evil.example/https://www.example.org",
            "https://xwww.example.org",
            "https://www.example.org/",
            "null",
            "",
        ] {
            assert!(!matches("https://www.example.org", other), "{other}");
        }
    }

    #[test]
    fn a_star_stands_for_labels_and_nothing_else() {
        for origin in ["https://a.example.org", "https://a.b.example.org", "https://A.Example.org"] {
            assert!(matches("https://*.example.org", origin), "{origin}");
        }
        for other in [
            "https://example.org",
            "https://.example.org",
            "http://a.example.org",
            "https://aexample.org",
            "https://a.example.org:8443",
            "https://a.example.org.evil.example",
            "https://evil.example/.example.org",
            "https://evil.example#.example.org",
            "https://user@evil.example:1.example.org",
            "a.example.org",
        ] {
            assert!(!matches("https://*.example.org", other), "{other}");
        }
        assert!(matches("https://*.example.org:8443", "https://a.example.org:8443"));
    }

    #[test]
    fn what_no_browser_sends_is_refused() {
        for wrong in [
            "",
            "example.org",
            "*.example.org",
            "https://",
            "https://example.org/",
            "https://example.org/app",
            "https://example.org:443",
            "http://example.org:80",
            "https://*",
            "https://*.",
            "https://*example.org",
            "https://a.*.org",
            "https://*.*.org",
            "https://exa mple.org",
            "ht tp://example.org",
        ] {
            assert!(OriginPattern::new(wrong).is_err(), "{wrong}");
        }
    }
}
