//! What a user writes under `jwt:`.

use std::collections::BTreeMap;

use meshgate_sdk::ConfigError;
use meshgate_sdk::config::{Cluster, Duration, FileText};
use meshgate_sdk::credential::Place;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

/// The configuration of the filter `jwt`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Who issues tokens, by a name of your choice.
    #[schemars(extend("minProperties" = 1))]
    pub(crate) providers: BTreeMap<String, ProviderConfig>,
    /// Whose tokens a request must bring. Default: one of any provider.
    #[serde(default)]
    #[schemars(with = "RequireConfig")]
    pub(crate) require: Option<RequireConfig>,
    /// Requests without a token go on; those with a bad one do not.
    #[serde(default)]
    pub(crate) allow_missing: bool,
    /// How many verified tokens each worker remembers, so that a signature is checked once. Default: 1000.
    #[serde(default)]
    #[schemars(with = "u32", range(max = 100_000))]
    pub(crate) cache: Option<u32>,
}

/// Which tokens a request must bring.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RequireConfig {
    /// One of any of these providers.
    #[serde(default)]
    #[schemars(with = "Vec<String>", length(min = 1))]
    pub(crate) any_of: Option<Vec<String>>,
    /// One of each of these providers.
    #[serde(default)]
    #[schemars(with = "Vec<String>", length(min = 1))]
    pub(crate) all_of: Option<Vec<String>>,
}

/// One issuer of tokens.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProviderConfig {
    /// Whom the tokens must be from: their claim `iss`.
    pub(crate) issuer: String,
    /// For whom the tokens must be: one of these is in their claim `aud`. Left out: for anybody.
    #[serde(default)]
    #[schemars(with = "Vec<String>", length(min = 1))]
    pub(crate) audiences: Option<Vec<String>>,
    /// The keys that the tokens are signed with.
    pub(crate) keys: KeysConfig,
    /// The algorithms that are accepted. Default: all that use public keys.
    #[serde(default)]
    #[schemars(with = "Vec<AlgorithmName>", length(min = 1))]
    pub(crate) algorithms: Option<Vec<AlgorithmName>>,
    /// By how much clocks may differ. Default: 60s.
    #[serde(default)]
    #[schemars(with = "Duration")]
    pub(crate) clock_skew: Option<Duration>,
    /// Whether a token must say when it expires. Default: true.
    #[serde(default)]
    #[schemars(with = "bool")]
    pub(crate) require_expiry: Option<bool>,
    /// Claims that the tokens must have, each with one of these values; an empty list stands for any value.
    #[serde(default)]
    pub(crate) required_claims: BTreeMap<String, Vec<String>>,
    /// Where the token is looked for, in this order. Default: `authorization: Bearer …`.
    #[serde(default)]
    #[schemars(with = "Vec<Place>", length(min = 1))]
    pub(crate) from: Option<Vec<Place>>,
    /// Leaves the token in the request. By default it is taken out.
    #[serde(default)]
    pub(crate) forward: bool,
    /// Fields of the request to set, and the claims that they are set to: `{x-user: sub}`. What clients send there is removed.
    #[serde(default)]
    pub(crate) claims_to_headers: BTreeMap<String, String>,
    /// For filters that were written for Envoy's `jwt_authn`: the claims are the metadata of this name below
    /// `envoy.filters.http.jwt_authn`.
    #[serde(default)]
    #[schemars(with = "String", length(min = 1))]
    pub(crate) payload_in_metadata: Option<String>,
}

/// Where keys come from: one of `inline`, `file` and `cluster`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeysConfig {
    /// The keys themselves, as a JSON Web Key Set: `{keys: […]}`.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, Value>")]
    pub(crate) inline: Option<Value>,
    /// A file with a JSON Web Key Set. It is watched.
    #[serde(default)]
    #[schemars(with = "FileText")]
    pub(crate) file: Option<FileText>,
    /// The cluster that is asked for the JSON Web Key Set.
    #[serde(default)]
    #[schemars(with = "Cluster")]
    pub(crate) cluster: Option<Cluster>,
    /// The path that the cluster is asked for. Default: `/.well-known/jwks.json`.
    #[serde(default)]
    #[schemars(with = "String", regex(pattern = "^/"))]
    pub(crate) path: Option<String>,
    /// The authority that the cluster is asked for. Default: the cluster's name.
    #[serde(default)]
    #[schemars(with = "String", length(min = 1))]
    pub(crate) authority: Option<String>,
    /// How often the cluster is asked again. Default: 5m.
    #[serde(default)]
    #[schemars(with = "Duration")]
    pub(crate) refresh: Option<Duration>,
    /// How long the cluster may take. Default: 3s.
    #[serde(default)]
    #[schemars(with = "Duration")]
    pub(crate) timeout: Option<Duration>,
}

/// An algorithm by its name in tokens.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq)]
pub(crate) enum AlgorithmName {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    ES512,
    #[serde(rename = "EdDSA")]
    EdDsa,
}

impl RequireConfig {
    /// The names of the providers, and whether all of them are needed.
    pub(crate) fn names(&self) -> Result<(&[String], bool), ConfigError> {
        match (&self.any_of, &self.all_of) {
            (Some(names), None) if !names.is_empty() => Ok((names, false)),
            (None, Some(names)) if !names.is_empty() => Ok((names, true)),
            _ => Err(ConfigError::new("say `any_of` or `all_of`, with the names of providers")),
        }
    }
}
