//! What a user writes under `match:`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::text::TextConfig;

/// Conditions: one map, or a list of maps.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "expected a map of conditions (path, host, method, headers, query, identity, properties) or a list of such maps"
)]
pub enum Matches {
    /// All conditions must hold.
    All(Conditions),
    /// All conditions of one of the maps must hold.
    Any(#[schemars(length(min = 1))] Vec<Conditions>),
}

impl Default for Matches {
    fn default() -> Self {
        Self::All(Conditions::default())
    }
}

/// Conditions that must all hold. What is left out holds always.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Conditions {
    /// The path without the query: exact (`/login`), everything below (`/reviews/**`), `*` for a part of a segment, or
    /// `{regex: …}` for all of it.
    #[serde(default)]
    #[schemars(with = "PathConfig")]
    pub path: Option<PathConfig>,
    /// The authority without the port, in any case: exact, or `*.example.com`.
    pub host: Option<String>,
    /// The method, exactly as written (methods are case-sensitive), or a list of methods.
    #[serde(default)]
    #[schemars(with = "MethodConfig")]
    pub method: Option<MethodConfig>,
    /// Fields: what the first value of each must be.
    #[serde(default)]
    pub headers: BTreeMap<String, TextConfig>,
    /// Parameters of the query: what the first value of each must be, as it stands in the URL.
    #[serde(default)]
    pub query: BTreeMap<String, TextConfig>,
    /// Who the client is by its certificate: the first URI in it, such as `spiffe://example.org/ns/a/sa/b`.
    #[serde(default)]
    #[schemars(with = "TextConfig")]
    pub identity: Option<TextConfig>,
    /// Properties that are text, with `/` in their paths: what the host knows, and what earlier filters have set.
    #[serde(default)]
    pub properties: BTreeMap<String, TextConfig>,
}

/// What a path must be: a pattern, or a rule.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a path such as /reviews/**, or {regex: …}")]
pub enum PathConfig {
    /// An exact path, one with `*` for parts of segments, or with `/**` at the end for everything below.
    Pattern(String),
    /// By a regular expression, where the filter knows them.
    Rule(PathRule),
}

/// A rule for a path.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PathRule {
    /// All of the path fits this regular expression.
    pub regex: String,
}

/// One method, or several.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a method or a list of methods")]
pub enum MethodConfig {
    /// This one.
    One(String),
    /// Any of these.
    Any(#[schemars(length(min = 1))] Vec<String>),
}

impl MethodConfig {
    /// All of them.
    pub fn as_slice(&self) -> &[String] {
        match self {
            Self::One(method) => std::slice::from_ref(method),
            Self::Any(methods) => methods,
        }
    }
}
