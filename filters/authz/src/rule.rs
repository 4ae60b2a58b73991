//! Rules, prepared: everything that does not depend on the request is done when the filter is configured.

use std::collections::BTreeMap;

use meshgate_sdk::ConfigError;
use meshgate_sdk::config::is_token;
use serde_json::Value;

use crate::config::{Any, From, List, Rule, To, When};
use crate::facts::Facts;
use crate::path::PathPattern;
use crate::pattern::{self, Range, Text};

/// A rule.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) name: String,
    pub(crate) dry_run: bool,
    /// All of them must hold: `from`, `to` and `when`, as far as they are there.
    parts: Vec<Alternatives>,
}

/// One of them must hold.
type Alternatives = Vec<Conditions>;
/// All of them must hold.
type Conditions = Vec<Condition>;

/// One condition: any of its patterns fits, or, if it is one of the `not_` kind, none does.
#[derive(Debug)]
struct Condition {
    subject: Subject,
    wanted: bool,
}

/// What is compared with what.
#[derive(Debug)]
enum Subject {
    Identity(Vec<Text>),
    Namespace(Vec<Text>),
    Principal(Vec<Text>),
    Claim(String, Vec<Text>),
    Address(Vec<Range>),
    ClientAddress(Vec<Range>),
    Port(Vec<u16>),
    ServerName(Vec<Text>),
    Host(Vec<Text>),
    Method(Vec<Text>),
    Path(Vec<PathPattern>),
    Field(String, Vec<Text>),
}

impl Prepared {
    pub(crate) fn new(name: &str, rule: &Rule) -> Result<Self, ConfigError> {
        let mut parts = Vec::new();
        parts.extend(rule.from.as_ref().map(|from| part("from", from, from_conditions)).transpose()?);
        parts.extend(rule.to.as_ref().map(|to| part("to", to, to_conditions)).transpose()?);
        parts.extend(rule.when.as_ref().map(|when| part("when", when, when_conditions)).transpose()?);
        Ok(Self { name: name.to_owned(), dry_run: rule.dry_run, parts })
    }

    /// Whether the rule matches. `unclear` is what a condition counts for about which nobody can say whether it holds: one about
    /// HTTP on a TCP connection, or about a path that can be taken in two ways.
    pub(crate) fn matches(&self, facts: &Facts, unclear: bool) -> bool {
        self.parts.iter().all(|alternatives| {
            alternatives.iter().any(|conditions| {
                conditions.iter().all(|condition| match condition.subject.fits(facts) {
                    Some(fits) => fits == condition.wanted,
                    None => unclear,
                })
            })
        })
    }
}

fn part<T>(
    name: &str,
    part: &Any<T>,
    conditions: fn(&T) -> Result<Conditions, ConfigError>,
) -> Result<Alternatives, ConfigError> {
    let alternatives = part.alternatives();
    if alternatives.is_empty() {
        return Err(ConfigError::new("an empty list matches nothing").at(name));
    }
    let prepared = alternatives.iter().enumerate().map(|(index, alternative)| {
        conditions(alternative).map_err(|error| match part {
            Any::One(_) => error.within(name),
            Any::Of(_) => error.within(&format!("{name}/{index}")),
        })
    });
    prepared.collect()
}

fn from_conditions(from: &From) -> Result<Conditions, ConfigError> {
    let mut made = Conditions::new();
    list(
        &mut made,
        "identities",
        &from.identities,
        &from.not_identities,
        pattern::identity,
        Subject::Identity,
    )?;
    list(&mut made, "namespaces", &from.namespaces, &from.not_namespaces, Text::new, Subject::Namespace)?;
    list(&mut made, "principals", &from.principals, &from.not_principals, Text::new, Subject::Principal)?;
    list(&mut made, "addresses", &from.addresses, &from.not_addresses, Range::new, Subject::Address)?;
    let (client, not_client) = (&from.client_addresses, &from.not_client_addresses);
    list(&mut made, "client_addresses", client, not_client, Range::new, Subject::ClientAddress)?;
    Ok(made)
}

fn to_conditions(to: &To) -> Result<Conditions, ConfigError> {
    let mut made = Conditions::new();
    list(&mut made, "hosts", &to.hosts, &to.not_hosts, pattern::host, Subject::Host)?;
    list(&mut made, "methods", &to.methods, &to.not_methods, pattern::method, Subject::Method)?;
    list(&mut made, "paths", &to.paths, &to.not_paths, PathPattern::new, Subject::Path)?;
    for (name, ports, wanted) in [("ports", &to.ports, true), ("not_ports", &to.not_ports, false)] {
        if let Some(ports) = ports {
            if ports.is_empty() {
                return Err(ConfigError::new("an empty list matches nothing").at(name));
            }
            made.push(Condition { subject: Subject::Port(ports.clone()), wanted });
        }
    }
    Ok(made)
}

fn when_conditions(when: &When) -> Result<Conditions, ConfigError> {
    let mut made = Conditions::new();
    let names = (&when.server_names, &when.not_server_names);
    list(&mut made, "server_names", names.0, names.1, pattern::host, Subject::ServerName)?;
    for (name, fields, wanted) in
        [("headers", &when.headers, true), ("not_headers", &when.not_headers, false)]
    {
        named(&mut made, name, fields, wanted, |field, patterns| {
            if field.starts_with(':') || !is_token(field) {
                return Err(ConfigError::new(format_args!("{field:?} is not a field name")));
            }
            Ok(Subject::Field(field.to_ascii_lowercase(), patterns))
        })?;
    }
    for (name, claims, wanted) in [("claims", &when.claims, true), ("not_claims", &when.not_claims, false)] {
        named(&mut made, name, claims, wanted, |claim, patterns| {
            Ok(Subject::Claim(claim.to_owned(), patterns))
        })?;
    }
    Ok(made)
}

/// Adds the conditions of a list, and of its opposite.
fn list<P>(
    made: &mut Conditions,
    name: &str,
    any: &List,
    none: &List,
    pattern: fn(&str) -> Result<P, ConfigError>,
    subject: fn(Vec<P>) -> Subject,
) -> Result<(), ConfigError> {
    for (texts, wanted) in [(any, true), (none, false)] {
        let Some(texts) = texts else { continue };
        let key = if wanted { name.to_owned() } else { format!("not_{name}") };
        let patterns = patterns(texts, pattern).map_err(|error| error.within(&key))?;
        made.push(Condition { subject: subject(patterns), wanted });
    }
    Ok(())
}

/// Adds a condition for each name of a map.
fn named(
    made: &mut Conditions,
    name: &str,
    map: &BTreeMap<String, Vec<String>>,
    wanted: bool,
    subject: impl Fn(&str, Vec<Text>) -> Result<Subject, ConfigError>,
) -> Result<(), ConfigError> {
    for (key, texts) in map {
        let subject = patterns(texts, Text::new)
            .and_then(|patterns| subject(key, patterns))
            .map_err(|error| error.within(&format!("{name}/{key}")))?;
        made.push(Condition { subject, wanted });
    }
    Ok(())
}

fn patterns<P>(texts: &[String], pattern: fn(&str) -> Result<P, ConfigError>) -> Result<Vec<P>, ConfigError> {
    if texts.is_empty() {
        return Err(ConfigError::new("an empty list matches nothing"));
    }
    let prepared = texts
        .iter()
        .enumerate()
        .map(|(index, text)| pattern(text).map_err(|error| error.within(&index.to_string())));
    prepared.collect()
}

impl Subject {
    /// Whether any pattern fits; `None` if nobody can say.
    fn fits(&self, facts: &Facts) -> Option<bool> {
        let text =
            |patterns: &[Text], text: Option<&str>| text.is_some_and(|text| any(patterns, text.as_bytes()));
        Some(match self {
            Self::Identity(patterns) => text(patterns, facts.identity()),
            Self::Namespace(patterns) => text(patterns, facts.namespace()),
            Self::ServerName(patterns) => text(patterns, facts.server_name()),
            Self::Address(ranges) => within(ranges, facts.address()),
            Self::ClientAddress(ranges) => within(ranges, facts.client_address()),
            Self::Port(ports) => ports.iter().any(|port| facts.port() == Some(i64::from(*port))),
            Self::Principal(patterns) => {
                facts.request()?;
                text(patterns, facts.principal())
            }
            Self::Claim(name, patterns) => {
                facts.request()?;
                facts.claim(name).is_some_and(|value| claim(patterns, name, value))
            }
            Self::Host(patterns) => any(patterns, facts.host(facts.request()?)),
            Self::Method(patterns) => any(patterns, facts.method(facts.request()?)),
            Self::Path(patterns) => {
                let path = facts.path(facts.request()?)?;
                patterns.iter().any(|pattern| pattern.matches(path))
            }
            Self::Field(name, patterns) => {
                let pairs = facts.request()?.headers().pairs();
                pairs.all(name).any(|value| any(patterns, value))
            }
        })
    }
}

fn any(patterns: &[Text], text: &[u8]) -> bool {
    patterns.iter().any(|pattern| pattern.matches(text))
}

fn within(ranges: &[Range], address: Option<std::net::IpAddr>) -> bool {
    address.is_some_and(|address| ranges.iter().any(|range| range.contains(address)))
}

/// A list's elements are compared one by one, and so are the words of a scope. Numbers and truth values are compared as JSON
/// writes them.
fn claim(patterns: &[Text], name: &str, value: &Value) -> bool {
    match value {
        Value::Null | Value::Object(_) => false,
        Value::Array(values) => values.iter().any(|value| claim(patterns, "", value)),
        Value::String(text) if matches!(name, "scope" | "scp") => {
            text.split_ascii_whitespace().any(|word| any(patterns, word.as_bytes()))
        }
        Value::String(text) => any(patterns, text.as_bytes()),
        other => any(patterns, other.to_string().as_bytes()),
    }
}
