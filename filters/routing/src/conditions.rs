//! Comparing a request with a route's conditions.

use std::cell::OnceCell;

use meshgate_sdk::{ConfigError, Request, Target};

use crate::config::Conditions;
use crate::path::PathPattern;

/// What conditions ask of a request. The host's copy is read once, and only what some condition asks for.
pub(crate) struct Incoming<S> {
    source: S,
    target: OnceCell<Target>,
    authority: OnceCell<Vec<u8>>,
    method: OnceCell<Vec<u8>>,
}

/// Where a request's parts come from: the host, or a test.
pub(crate) trait Source {
    fn target(&self) -> Target;
    fn authority(&self) -> Vec<u8>;
    fn method(&self) -> Vec<u8>;
    fn header(&self, name: &str) -> Option<Vec<u8>>;
}

impl Source for &Request {
    fn target(&self) -> Target {
        Request::target(self)
    }

    fn authority(&self) -> Vec<u8> {
        self.headers().get_bytes(":authority").unwrap_or_default()
    }

    fn method(&self) -> Vec<u8> {
        self.headers().get_bytes(":method").unwrap_or_default()
    }

    fn header(&self, name: &str) -> Option<Vec<u8>> {
        self.headers().get_bytes(name)
    }
}

impl<S: Source> Incoming<S> {
    pub(crate) fn new(source: S) -> Self {
        Self { source, target: OnceCell::new(), authority: OnceCell::new(), method: OnceCell::new() }
    }

    fn target(&self) -> &Target {
        self.target.get_or_init(|| self.source.target())
    }
}

/// Conditions that must all hold, prepared.
#[derive(Debug)]
pub(crate) struct Alternative {
    path: Option<PathPattern>,
    host: Option<HostPattern>,
    method: Option<String>,
    headers: Vec<(String, String)>,
    query: Vec<(String, String)>,
}

impl Alternative {
    pub(crate) fn new(conditions: &Conditions) -> Result<Self, ConfigError> {
        let path = conditions.path.as_deref().map(PathPattern::new).transpose();
        let host = conditions.host.as_deref().map(HostPattern::new).transpose();
        if let Some(name) = conditions.headers.keys().find(|name| !is_token(name)) {
            return Err(ConfigError::new(format_args!("{name:?} is not a field name")).at("headers"));
        }
        if let Some(method) = conditions.method.as_deref().filter(|method| !is_token(method)) {
            return Err(ConfigError::new(format_args!("{method:?} is not a method")).at("method"));
        }
        let owned = |(name, value): (&String, &String)| (name.clone(), value.clone());
        Ok(Self {
            path: path.map_err(|error| error.at("path"))?.filter(|pattern| *pattern != PathPattern::Every),
            host: host.map_err(|error| error.at("host"))?,
            method: conditions.method.clone(),
            headers: conditions
                .headers
                .iter()
                .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
                .collect(),
            query: conditions.query.iter().map(owned).collect(),
        })
    }

    pub(crate) fn matches<S: Source>(&self, incoming: &Incoming<S>) -> bool {
        self.path.as_ref().is_none_or(|pattern| pattern.matches(incoming.target().path().as_bytes()))
            && self.host.as_ref().is_none_or(|pattern| {
                pattern.matches(incoming.authority.get_or_init(|| incoming.source.authority()))
            })
            && self.method.as_ref().is_none_or(|method| {
                *incoming.method.get_or_init(|| incoming.source.method()) == method.as_bytes()
            })
            && self.query.iter().all(|(name, value)| {
                incoming.target().raw_parameter(name).is_some_and(|given| given == value)
            })
            && self.headers.iter().all(|(name, value)| {
                incoming.source.header(name).is_some_and(|given| given == value.as_bytes())
            })
    }
}

/// Refuses what is no host's name: one without a port, and without a `*`.
pub(crate) fn check_host(text: &str) -> Result<(), ConfigError> {
    match HostPattern::new(text)? {
        HostPattern::Exact(_) => Ok(()),
        HostPattern::Under(_) => Err(ConfigError::new(format_args!("{text:?} stands for many hosts"))),
    }
}

/// Field names and methods are tokens.
fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// A pattern for an authority without its port. It is kept in lower case.
#[derive(Debug)]
enum HostPattern {
    Exact(String),
    /// `*.example.com`, kept as `.example.com`: one or more labels in front.
    Under(String),
}

impl HostPattern {
    fn new(text: &str) -> Result<Self, ConfigError> {
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
        if name.is_empty() || name.contains('/') || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
            return refuse("not a host name");
        }
        Ok(if under { Self::Under(name.to_owned()) } else { Self::Exact(name.to_owned()) })
    }

    fn matches(&self, authority: &[u8]) -> bool {
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
}

/// The authority up to its port. The colons inside `[::1]` are not the port's.
pub(crate) fn without_port(authority: &[u8]) -> &[u8] {
    match authority.iter().rposition(|byte| *byte == b':') {
        Some(colon) if authority[colon + 1..].iter().all(u8::is_ascii_digit) => &authority[..colon],
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Clone, Default)]
    struct Sample {
        target: &'static str,
        authority: &'static str,
        method: &'static str,
        header: Option<(&'static str, &'static str)>,
    }

    impl Source for Sample {
        fn target(&self) -> Target {
            self.target.into()
        }

        fn authority(&self) -> Vec<u8> {
            self.authority.as_bytes().to_vec()
        }

        fn method(&self) -> Vec<u8> {
            self.method.as_bytes().to_vec()
        }

        fn header(&self, name: &str) -> Option<Vec<u8>> {
            self.header.filter(|(known, _)| *known == name).map(|(_, value)| value.as_bytes().to_vec())
        }
    }

    fn matches(conditions: &Conditions, sample: Sample) -> bool {
        Alternative::new(conditions).unwrap().matches(&Incoming::new(sample))
    }

    fn map(name: &str, value: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(name.to_owned(), value.to_owned())])
    }

    #[test]
    fn no_conditions_match_every_request() {
        assert!(matches(&Conditions::default(), Sample::default()));
        let every = Conditions { path: Some("/**".into()), ..Conditions::default() };
        assert!(matches(&every, Sample { target: "*", ..Sample::default() }));
    }

    #[test]
    fn all_conditions_of_a_map_must_hold() {
        let conditions = Conditions {
            path: Some("/a".into()),
            host: Some("example.com".into()),
            method: Some("GET".into()),
            headers: map("X-Canary", "true"),
            query: map("v", "2"),
        };
        let sample = Sample {
            target: "/a?v=2",
            authority: "example.com",
            method: "GET",
            header: Some(("x-canary", "true")),
        };
        assert!(matches(&conditions, sample.clone()));
        for other in [
            Sample { target: "/b?v=2", ..sample.clone() },
            Sample { target: "/a?v=3", ..sample.clone() },
            Sample { target: "/a", ..sample.clone() },
            Sample { authority: "example.org", ..sample.clone() },
            Sample { method: "get", ..sample.clone() },
            Sample { header: None, ..sample.clone() },
            Sample { header: Some(("x-canary", "True")), ..sample.clone() },
        ] {
            assert!(!matches(&conditions, other));
        }
    }

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

    #[test]
    fn wrong_conditions_are_refused_with_their_place() {
        let place = |conditions: Conditions| Alternative::new(&conditions).unwrap_err().to_string();
        for wrong in ["", "*", "*.", "a*b", "a.*", "example.com:80", "http://a", "a b"] {
            let error = place(Conditions { host: Some(wrong.into()), ..Conditions::default() });
            assert!(error.starts_with("host: "), "{error}");
        }
        assert!(place(Conditions { path: Some("x".into()), ..Conditions::default() }).starts_with("path: "));
        assert!(
            place(Conditions { method: Some("G T".into()), ..Conditions::default() }).starts_with("method: ")
        );
        assert!(
            place(Conditions { headers: map("a b", ""), ..Conditions::default() }).starts_with("headers: ")
        );
    }
}
