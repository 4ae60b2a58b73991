//! Comparing a request with conditions.

use std::cell::OnceCell;

use meshgate_sdk::config::is_token;
use meshgate_sdk::{ConfigError, Request, Target, property};

use crate::config::{Conditions, Matches};
use crate::expression::{Expression, NoExpressions};
use crate::host::HostPattern;
use crate::path::PathPattern;
use crate::text::{Text, TextConfig};

/// Where the host keeps who the client is by its certificate.
const IDENTITY: &str = "connection/uri_san_peer_certificate";

/// What conditions ask of a request. The host's copy is read once, and only what some condition asks for.
#[derive(Debug)]
pub struct Incoming<S> {
    source: S,
    target: OnceCell<Target>,
    authority: OnceCell<Vec<u8>>,
    method: OnceCell<Vec<u8>>,
}

/// Where a request's parts come from: the host, or a test.
pub trait Source {
    /// The path with the query.
    fn target(&self) -> Target;
    /// The authority.
    fn authority(&self) -> Vec<u8>;
    /// The method.
    fn method(&self) -> Vec<u8>;
    /// The first value of a field.
    fn header(&self, name: &str) -> Option<Vec<u8>>;
    /// A property.
    fn property(&self, path: &str) -> Option<Vec<u8>>;
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

    fn property(&self, path: &str) -> Option<Vec<u8>> {
        property::bytes(path)
    }
}

impl<S: Source> Incoming<S> {
    /// Nothing of it is read yet.
    pub fn new(source: S) -> Self {
        Self { source, target: OnceCell::new(), authority: OnceCell::new(), method: OnceCell::new() }
    }

    /// The path with the query.
    pub fn target(&self) -> &Target {
        self.target.get_or_init(|| self.source.target())
    }

    /// The authority.
    pub fn authority(&self) -> &[u8] {
        self.authority.get_or_init(|| self.source.authority())
    }

    fn method(&self) -> &[u8] {
        self.method.get_or_init(|| self.source.method())
    }
}

/// Rules for texts that have names.
type Named<E> = Box<[(String, Text<E>)]>;

/// Conditions that must all hold, prepared.
#[derive(Debug)]
pub struct Alternative<E = NoExpressions> {
    path: Option<PathPattern<E>>,
    host: Option<HostPattern>,
    methods: Box<[String]>,
    headers: Named<E>,
    query: Named<E>,
    identity: Option<Text<E>>,
    properties: Named<E>,
}

/// How much conditions say: the greater is the more precise.
pub type Precision = ((u8, usize), (u8, usize), bool, usize, usize);

impl<E: Expression> Alternative<E> {
    /// The alternatives that a `match` stands for.
    ///
    /// # Errors
    /// Something in it cannot be meant; its place begins with `match`.
    pub fn all(config: &Matches) -> Result<Vec<Self>, ConfigError> {
        let list = match config {
            Matches::All(conditions) => {
                return Ok(vec![Self::new(conditions).map_err(|error| error.within("match"))?]);
            }
            Matches::Any(list) => list,
        };
        if list.is_empty() {
            return Err(ConfigError::new("an empty list of conditions matches nothing").at("match"));
        }
        let alternatives = list.iter().enumerate().map(|(index, conditions)| {
            Self::new(conditions).map_err(|error| error.within(&format!("match/{index}")))
        });
        alternatives.collect()
    }

    fn new(conditions: &Conditions) -> Result<Self, ConfigError> {
        let path = conditions.path.as_ref().map(PathPattern::new).transpose();
        let host = conditions.host.as_deref().map(HostPattern::new).transpose();
        if let Some(name) = conditions.headers.keys().find(|name| !is_token(name)) {
            return Err(ConfigError::new(format_args!("{name:?} is not a field name")).at("headers"));
        }
        let methods = conditions.method.as_ref().map(|methods| methods.as_slice()).unwrap_or_default();
        if let Some(method) = methods.iter().find(|method| !is_token(method)) {
            return Err(ConfigError::new(format_args!("{method:?} is not a method")).at("method"));
        }
        if conditions.method.is_some() && methods.is_empty() {
            return Err(ConfigError::new("an empty list of methods matches nothing").at("method"));
        }
        if let Some(path) = conditions.properties.keys().find(|path| path.split('/').any(str::is_empty)) {
            let message = format!("{path:?} is not the path of a property: write it as source/address");
            return Err(ConfigError::new(message).at("properties"));
        }
        let identity = conditions.identity.as_ref().map(Text::new).transpose();
        let mut headers = named(&conditions.headers, "headers")?;
        for (name, _) in &mut headers {
            name.make_ascii_lowercase();
        }
        Ok(Self {
            path: path.map_err(|error| error.within("path"))?,
            host: host.map_err(|error| error.at("host"))?,
            methods: methods.into(),
            headers,
            query: named(&conditions.query, "query")?,
            identity: identity.map_err(|error| error.within("identity"))?,
            properties: named(&conditions.properties, "properties")?,
        })
    }

    /// Whether a request meets all of them.
    pub fn matches<S: Source>(&self, incoming: &Incoming<S>) -> bool {
        // In the order of what the comparisons cost.
        let source = &incoming.source;
        self.path.as_ref().is_none_or(|pattern| {
            matches!(pattern, PathPattern::Every) || pattern.matches(incoming.target().path().as_bytes())
        }) && self.host.as_ref().is_none_or(|pattern| pattern.matches(incoming.authority()))
            && (self.methods.is_empty()
                || self.methods.iter().any(|method| method.as_bytes() == incoming.method()))
            && self
                .query
                .iter()
                .all(|(name, text)| text.matches(incoming.target().raw_parameter(name).map(str::as_bytes)))
            && self.headers.iter().all(|(name, text)| text.matches(source.header(name).as_deref()))
            && self.identity.as_ref().is_none_or(|text| text.matches(source.property(IDENTITY).as_deref()))
            && self.properties.iter().all(|(path, text)| text.matches(source.property(path).as_deref()))
    }

    /// How many bytes of a path that matches a rewrite of its prefix replaces; `None` if the pattern names no prefix.
    pub fn prefix(&self, path: &[u8]) -> Option<usize> {
        self.path.as_ref().map_or(Some(0), |pattern| pattern.prefix(path))
    }

    /// How much the conditions say: the order of the Gateway API.
    pub fn precision(&self) -> Precision {
        (
            self.host.as_ref().map_or((0, 0), HostPattern::precision),
            self.path.as_ref().map_or((0, 0), PathPattern::precision),
            !self.methods.is_empty(),
            self.headers.len(),
            self.query.len(),
        )
    }
}

fn named<'c, E: Expression>(
    rules: impl IntoIterator<Item = (&'c String, &'c TextConfig)>,
    key: &str,
) -> Result<Named<E>, ConfigError> {
    let rule = |(name, config): (&String, _)| {
        let text = Text::new(config).map_err(|error| error.within(name).within(key))?;
        Ok((name.clone(), text))
    };
    rules.into_iter().map(rule).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::tests::Literal;

    #[derive(Clone, Default)]
    struct Sample {
        target: &'static str,
        authority: &'static str,
        method: &'static str,
        header: Option<(&'static str, &'static str)>,
        property: Option<(&'static str, &'static str)>,
    }

    fn value(pair: Option<(&str, &str)>, name: &str) -> Option<Vec<u8>> {
        pair.filter(|(known, _)| *known == name).map(|(_, value)| value.as_bytes().to_vec())
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
            value(self.header, name)
        }

        fn property(&self, path: &str) -> Option<Vec<u8>> {
            value(self.property, path)
        }
    }

    fn alternative(conditions: &str) -> Result<Alternative<Literal>, String> {
        let conditions = serde_json::from_str(conditions).map_err(|error| error.to_string())?;
        Alternative::new(&conditions).map_err(|error| error.to_string())
    }

    fn matches(conditions: &str, sample: Sample) -> bool {
        alternative(conditions).unwrap().matches(&Incoming::new(sample))
    }

    #[test]
    fn no_conditions_match_every_request() {
        assert!(matches("{}", Sample::default()));
        assert!(matches(r#"{"path": "/**"}"#, Sample { target: "*", ..Sample::default() }));
    }

    #[test]
    fn all_conditions_of_a_map_must_hold() {
        let conditions = r#"{
            "path": "/a", "host": "example.com", "method": ["GET", "HEAD"], "headers": {"X-Canary": "true"},
            "query": {"v": {"prefix": "2"}}, "identity": {"prefix": "spiffe://mesh/"}
        }"#;
        let sample = Sample {
            target: "/a?v=21",
            authority: "example.com",
            method: "GET",
            header: Some(("x-canary", "true")),
            property: Some((IDENTITY, "spiffe://mesh/ns/a")),
        };
        assert!(matches(conditions, sample.clone()));
        assert!(matches(conditions, Sample { method: "HEAD", ..sample.clone() }));
        for other in [
            Sample { target: "/b?v=2", ..sample.clone() },
            Sample { target: "/a?v=3", ..sample.clone() },
            Sample { target: "/a", ..sample.clone() },
            Sample { authority: "example.org", ..sample.clone() },
            Sample { method: "get", ..sample.clone() },
            Sample { method: "POST", ..sample.clone() },
            Sample { header: None, ..sample.clone() },
            Sample { header: Some(("x-canary", "True")), ..sample.clone() },
            Sample { property: None, ..sample.clone() },
            Sample { property: Some((IDENTITY, "spiffe://else/ns/a")), ..sample.clone() },
        ] {
            assert!(!matches(conditions, other));
        }
    }

    #[test]
    fn what_is_absent_can_be_asked_for() {
        let absent =
            r#"{"headers": {"x-canary": {"present": false}}, "properties": {"tier": {"present": false}}}"#;
        assert!(matches(absent, Sample::default()));
        let canary = Sample { header: Some(("x-canary", "")), ..Sample::default() };
        assert!(
            !matches(absent, canary.clone())
                && matches(r#"{"headers": {"x-canary": {"present": true}}}"#, canary)
        );
        let gold = Sample { property: Some(("tier", "gold")), ..Sample::default() };
        assert!(!matches(absent, gold.clone()) && matches(r#"{"properties": {"tier": "gold"}}"#, gold));
    }

    #[test]
    fn paths_can_fit_an_expression() {
        let path = r#"{"path": {"regex": "/v1|/v12/x"}}"#;
        assert!(matches(path, Sample { target: "/v12/x?y", ..Sample::default() }));
        assert!(!matches(path, Sample { target: "/v12", ..Sample::default() }));
    }

    #[test]
    fn more_specific_conditions_go_first() {
        let ranked = [
            r#"{}"#,
            r#"{"query": {"a": "b"}}"#,
            r#"{"query": {"a": "b", "c": "d"}}"#,
            r#"{"headers": {"a": "b"}}"#,
            r#"{"method": "GET"}"#,
            r#"{"path": "/a/**", "method": "GET"}"#,
            r#"{"path": "/a/b/**"}"#,
            r#"{"path": "/a/*"}"#,
            r#"{"path": "/a"}"#,
            r#"{"host": "*.example"}"#,
            r#"{"host": "a.example"}"#,
        ];
        let ranked = ranked.map(|conditions| alternative(conditions).unwrap().precision());
        assert!(ranked.windows(2).all(|pair| pair[0] < pair[1]), "{ranked:?}");
    }

    #[test]
    fn wrong_conditions_are_refused_with_their_place() {
        for (conditions, place) in [
            (r#"{"host": "a b"}"#, "host: "),
            (r#"{"path": "x"}"#, "path: "),
            (r#"{"path": {"regex": "("}}"#, "path/regex: "),
            (r#"{"method": "G T"}"#, "method: "),
            (r#"{"method": []}"#, "method: "),
            (r#"{"headers": {"a b": ""}}"#, "headers: "),
            (r#"{"headers": {"a": {"regex": "("}}}"#, "headers/a/regex: "),
            (r#"{"query": {"a": {"prefix": ""}}}"#, "query/a/prefix: "),
            (r#"{"identity": {"suffix": ""}}"#, "identity/suffix: "),
            (r#"{"properties": {"a//b": ""}}"#, "properties: "),
        ] {
            let error = alternative(conditions).unwrap_err();
            assert!(error.starts_with(place), "{conditions}: {error}");
        }
    }
}
