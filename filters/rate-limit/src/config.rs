//! What a user writes under `rate-limit:`.

use std::collections::BTreeMap;

use meshgate_conditions::Matches;
use meshgate_sdk::ConfigError;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::rate::Rate;

/// The configuration of the filter `rate-limit`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The rules. A request passes if all of them let it; if one does not, the others do not count it.
    pub(crate) rules: Vec<RuleConfig>,
    /// How responses tell clients what is left. Default: standard.
    #[serde(default)]
    pub(crate) headers: HeaderForm,
    /// What becomes of a request that could not be counted. Default: allow.
    #[serde(default)]
    pub(crate) if_uncounted: IfUncounted,
}

/// One rule.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RuleConfig {
    /// The rule's name, for logs, metrics and clients: printable ASCII. No two rules of a filter have the same.
    pub(crate) name: String,
    /// Which requests count: conditions as those of a route in `routing`, without regular expressions. Left out: all.
    #[serde(default)]
    pub(crate) r#match: Matches,
    /// How many requests in which time: `100/s`, `5/m`, `1000/h`, `20/30s`.
    pub(crate) limit: Rate,
    /// How many may come at once. Default: as many as `limit` says.
    #[serde(default)]
    #[schemars(with = "u32", range(min = 1))]
    pub(crate) burst: Option<u32>,
    /// What requests are told apart by: each combination has a count of its own. Left out: one count for all.
    #[serde(default)]
    pub(crate) key: Vec<KeyPart>,
    /// Other limits for some values of the key; the values of several parts with `|` between them.
    #[serde(default)]
    pub(crate) overrides: BTreeMap<String, Override>,
    /// Counts and tells what it would do, but lets everything pass. Default: false.
    #[serde(default)]
    pub(crate) dry_run: bool,
}

/// What a request is told apart by.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Eq, Hash)]
#[serde(rename_all = "snake_case")]
pub(crate) enum KeyPart {
    /// The client's address, without its port.
    ClientAddress,
    /// Who the client is by its certificate.
    PeerIdentity,
    /// The method.
    Method,
    /// The authority, without its port.
    Host,
    /// The path, without the query.
    Path,
    /// A field of the request: `{header: x-api-key}`.
    Header(String),
    /// A property, such as one that another filter sets: `{property: a/b}`.
    Property(String),
}

/// Another limit for one value of the key.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(untagged, expecting = "expected a rate such as 100/s, or `unlimited`")]
pub(crate) enum Override {
    /// No limit at all.
    Unlimited(Unlimited),
    /// Another rate. As many as it says may come at once.
    Limit(Rate),
}

/// The word for no limit.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unlimited {
    /// No limit at all.
    Unlimited,
}

/// How responses tell clients what is left.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum HeaderForm {
    /// By `RateLimit` and `RateLimit-Policy`.
    #[default]
    Standard,
    /// As Envoy does: `X-RateLimit-Limit`, `-Remaining` and `-Reset`, and `X-Envoy-RateLimited` with a 429.
    Envoy,
    /// Not at all.
    None,
}

/// What becomes of a request that could not be counted.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum IfUncounted {
    /// It passes.
    #[default]
    Allow,
    /// It is answered with 503.
    Deny,
}

impl Config {
    /// Refuses names that are empty or used twice: metrics could not tell the rules apart.
    pub(crate) fn check_names(&self) -> Result<(), ConfigError> {
        for (index, rule) in self.rules.iter().enumerate() {
            let refuse = |message: &str| Err(ConfigError::new(message).at(format!("rules/{index}/name")));
            if rule.name.is_empty() {
                return refuse("a rule needs a name");
            }
            if !rule.name.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
                return refuse("clients are told a rule's name: printable ASCII only");
            }
            if self.rules.iter().take(index).any(|other| other.name == rule.name) {
                return refuse("another rule has this name already");
            }
        }
        Ok(())
    }
}
