//! What a user writes under `ext-authz:`.

use std::collections::BTreeMap;

use meshgate_sdk::ConfigError;
use meshgate_sdk::config::{Cluster, Duration, is_token};
use schemars::JsonSchema;
use serde::Deserialize;

/// The configuration of the filter `ext-authz`: a service that speaks HTTP (`http`) or gRPC (`grpc`), and what is made of its answers.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The service speaks HTTP: a status of 200 to 299 lets in.
    #[serde(default)]
    #[schemars(with = "HttpConfig")]
    pub(crate) http: Option<HttpConfig>,
    /// The service speaks gRPC: `envoy.service.auth.v3.Authorization`.
    #[serde(default)]
    #[schemars(with = "GrpcConfig")]
    pub(crate) grpc: Option<GrpcConfig>,
    /// How long the service may take. Default: 1s.
    #[serde(default)]
    #[schemars(with = "Duration")]
    pub(crate) timeout: Option<Duration>,
    /// The request's fields that the service sees; `x-*` stands for all that begin so. Default: `authorization` and `cookie` over
    /// HTTP, all over gRPC.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub(crate) request_headers: Option<Vec<String>>,
    /// The fields of the service's answer that go to the endpoint, if it lets in. What clients send there is removed. Default: none
    /// over HTTP, all over gRPC.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub(crate) upstream_headers: Option<Vec<String>>,
    /// The fields of the service's answer that go to the client, if it refuses. Default: `www-authenticate`, `location`,
    /// `set-cookie` and `content-type` over HTTP, all over gRPC.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub(crate) client_headers: Option<Vec<String>>,
    /// The request's body goes to the service, too.
    #[serde(default)]
    #[schemars(with = "BodyConfig")]
    pub(crate) body: Option<BodyConfig>,
    /// What becomes of a request when the service cannot be asked, or fails. Default: deny.
    #[serde(default)]
    pub(crate) on_failure: OnFailure,
    /// The status of the answer then. Default: 403.
    #[serde(default)]
    #[schemars(with = "u16", range(min = 400, max = 599))]
    pub(crate) status_on_error: Option<u16>,
    /// Remembers decisions, for all workers.
    #[serde(default)]
    #[schemars(with = "CacheConfig")]
    pub(crate) cache: Option<CacheConfig>,
    /// The service is asked, and what it says is counted, but nothing is done about it.
    #[serde(default)]
    pub(crate) shadow: bool,
}

/// A service that speaks HTTP.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HttpConfig {
    /// Where the service is.
    pub(crate) cluster: Cluster,
    /// The path that it is asked for, by `GET`. Left out: the request's own, by the request's method.
    #[serde(default)]
    #[schemars(with = "String", regex(pattern = "^/"))]
    pub(crate) path: Option<String>,
    /// What is put before the request's own path.
    #[serde(default)]
    #[schemars(with = "String", regex(pattern = "^/"))]
    pub(crate) path_prefix: Option<String>,
    /// The authority. Default: the request's own, or with `path` the cluster's name.
    #[serde(default)]
    #[schemars(with = "String", length(min = 1))]
    pub(crate) authority: Option<String>,
}

/// A service that speaks gRPC.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GrpcConfig {
    /// Where the service is.
    pub(crate) cluster: Cluster,
    /// What the service is told beside the request: `context_extensions`.
    #[serde(default)]
    pub(crate) context: BTreeMap<String, String>,
}

/// How much of the body goes to the service.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BodyConfig {
    /// The longest body, in bytes; a longer one is answered with 413.
    #[schemars(range(min = 1, max = 1_048_576))]
    pub(crate) max_bytes: u32,
}

/// What becomes of a request when the service fails.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OnFailure {
    /// It is refused.
    #[default]
    Deny,
    /// It goes on.
    Allow,
}

/// What is remembered, and for how long.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CacheConfig {
    /// What a decision depends on: requests that agree in all of it get the same.
    #[schemars(length(min = 1))]
    pub(crate) key: Vec<String>,
    /// How long a decision is good for.
    pub(crate) ttl: Duration,
    /// The most decisions that are remembered. Default: 1000.
    #[serde(default)]
    #[schemars(with = "u32", range(min = 1, max = 10_000))]
    pub(crate) size: Option<u32>,
}

/// Names of fields: exact ones, and those that begin so.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Names(Vec<Name>);

#[derive(Debug, PartialEq, Eq)]
enum Name {
    Exact(String),
    Prefix(String),
}

impl Names {
    /// Every field.
    pub(crate) fn all() -> Self {
        Self(vec![Name::Prefix(String::new())])
    }

    pub(crate) fn new(key: &str, names: &[String]) -> Result<Self, ConfigError> {
        let named = names.iter().enumerate().map(|(index, name)| {
            let lower = name.to_ascii_lowercase();
            match lower.strip_suffix('*') {
                Some(start) if start.is_empty() || is_token(start) && !start.contains('*') => {
                    Ok(Name::Prefix(start.to_owned()))
                }
                None if is_token(&lower) && !lower.contains('*') => Ok(Name::Exact(lower)),
                _ => {
                    let error = ConfigError::new(format_args!("{name:?} is not a field name"));
                    Err(error.at(format!("{key}/{index}")))
                }
            }
        });
        Ok(Self(named.collect::<Result<_, _>>()?))
    }

    /// `name` is in lower case.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.0.iter().any(|known| match known {
            Name::Exact(exact) => exact == name,
            Name::Prefix(start) => name.starts_with(start.as_str()),
        })
    }

    /// Whether every field is meant, which nobody listed one by one.
    pub(crate) fn is_all(&self) -> bool {
        *self == Self::all()
    }
}

/// A part of a request that a decision depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KeyPart {
    Method,
    Host,
    /// Without the query.
    Path,
    Query,
    /// The client's address, without its port.
    Address,
    /// Who the client is by its certificate.
    Identity,
    Header(String),
}

impl KeyPart {
    pub(crate) fn new(text: &str) -> Result<Self, ConfigError> {
        Ok(match text {
            "method" => Self::Method,
            "host" => Self::Host,
            "path" => Self::Path,
            "query" => Self::Query,
            "address" => Self::Address,
            "identity" => Self::Identity,
            _ => match text.strip_prefix("header:").filter(|name| is_token(name)) {
                Some(name) => Self::Header(name.to_ascii_lowercase()),
                None => {
                    return Err(ConfigError::new(format_args!(
                        "{text:?} is none of method, host, path, query, address, identity and header:NAME"
                    )));
                }
            },
        })
    }
}
