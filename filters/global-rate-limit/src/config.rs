//! What a user writes under `global-rate-limit:`.

use meshgate_sdk::ConfigError;
use meshgate_sdk::config::{Cluster, Duration, is_token};
use schemars::JsonSchema;
use serde::Deserialize;

/// The configuration of the filter `global-rate-limit`: a service that counts for all proxies, and what it is told of requests.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Where the service is. It speaks `envoy.service.ratelimit.v3.RateLimitService`.
    pub(crate) cluster: Cluster,
    /// Whose limits they are: the service tells applications apart by it.
    #[schemars(length(min = 1))]
    pub(crate) domain: String,
    /// What the service counts requests by. Each is counted by itself, and a request passes if all are within their limits.
    #[schemars(length(min = 1))]
    pub(crate) descriptors: Vec<DescriptorConfig>,
    /// How long the service may take. Default: 20ms.
    #[serde(default)]
    #[schemars(with = "Duration")]
    pub(crate) timeout: Option<Duration>,
    /// What becomes of a request when the service cannot be asked, or fails. Default: allow.
    #[serde(default)]
    pub(crate) on_failure: OnFailure,
    /// The status of the answer then, with `on_failure: deny`. Default: 500.
    #[serde(default)]
    #[schemars(with = "u16", range(min = 400, max = 599))]
    pub(crate) status_on_error: Option<u16>,
    /// The status of the answer to a request over a limit. Default: 429.
    #[serde(default)]
    #[schemars(with = "u16", range(min = 400, max = 599))]
    pub(crate) status: Option<u16>,
    /// How responses tell clients what is left. Default: envoy.
    #[serde(default)]
    pub(crate) headers: HeaderForm,
    /// How many hits a request counts for. Default: 1.
    #[serde(default)]
    #[schemars(with = "u32", range(min = 1))]
    pub(crate) hits: Option<u32>,
    /// A field of the request that says how many hits it counts for, instead of `hits`. Anything but a number above 0 is ignored.
    #[serde(default)]
    #[schemars(with = "String", length(min = 1))]
    pub(crate) hits_header: Option<String>,
    /// How many proxies in front of this one are trusted to say in `x-forwarded-for` where a request comes from. Default: none.
    #[serde(default)]
    pub(crate) trusted_hops: u8,
    /// The service is asked, and what it says is counted, but everything passes as it came.
    #[serde(default)]
    pub(crate) shadow: bool,
}

/// One thing that the service counts by: keys with values, the more general ones first.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DescriptorConfig {
    /// The keys and values, in the order in which the service's limits name them.
    #[schemars(length(min = 1))]
    pub(crate) entries: Vec<EntryConfig>,
    /// A limit that the service is to use instead of its own.
    #[serde(default)]
    #[schemars(with = "LimitConfig")]
    pub(crate) limit: Option<LimitConfig>,
    /// How many hits a request counts for here, instead of what the filter says for all.
    #[serde(default)]
    #[schemars(with = "u64")]
    pub(crate) hits: Option<u64>,
}

/// A key and where its value comes from.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EntryConfig {
    /// Where the value comes from.
    pub(crate) from: Source,
    /// The key. Default: Envoy's name for it, such as `remote_address`; else the name of the field or the property.
    #[serde(default)]
    #[schemars(with = "String", length(min = 1))]
    pub(crate) key: Option<String>,
    /// The value where there is none.
    #[serde(default)]
    #[schemars(with = "String", length(min = 1))]
    pub(crate) default: Option<String>,
    /// The entry alone is left out where there is no value. By default, the whole descriptor is.
    #[serde(default)]
    pub(crate) optional: bool,
}

/// Where a value comes from.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Source {
    /// The client's address: see `trusted_hops`.
    ClientAddress,
    /// The network of the client's address: `{client_network: {v4: 24, v6: 64}}`.
    ClientNetwork(Network),
    /// Who the client is by its certificate.
    PeerIdentity,
    /// The method.
    Method,
    /// The authority, without its port.
    Host,
    /// The path, without the query.
    Path,
    /// The decided cluster. Known in a route's own filters.
    Cluster,
    /// The decided route. Known in a route's own filters.
    Route,
    /// A text: `{value: checkout}`.
    Value(String),
    /// A field of the request: `{header: x-user}`.
    Header(String),
    /// A property, such as one that another filter sets: `{property: jwt.principal}`.
    Property(String),
}

/// How many leading bits of an address count.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Network {
    /// Of IPv4. Default: 32.
    #[serde(default = "all_v4")]
    #[schemars(range(max = 32))]
    pub(crate) v4: u8,
    /// Of IPv6. Default: 128.
    #[serde(default = "all_v6")]
    #[schemars(range(max = 128))]
    pub(crate) v6: u8,
}

fn all_v4() -> u8 {
    32
}

fn all_v6() -> u8 {
    128
}

/// A limit.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LimitConfig {
    /// How many requests.
    pub(crate) requests: u32,
    /// In which time.
    pub(crate) per: Unit,
}

/// A unit of time.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Unit {
    Second,
    Minute,
    Hour,
    Day,
    Week,
    /// Of 30 days.
    Month,
    /// Of 365 days.
    Year,
}

/// What becomes of a request when the service fails.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OnFailure {
    /// It passes.
    #[default]
    Allow,
    /// It is refused.
    Deny,
}

/// How responses tell clients what is left.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum HeaderForm {
    /// As Envoy does: `x-ratelimit-limit`, `-remaining` and `-reset`, and `x-envoy-ratelimited` for a request over a limit.
    #[default]
    Envoy,
    /// Not at all.
    None,
}

impl Config {
    /// What a schema cannot say.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let refuse = |path: &str, message: &str| Err(ConfigError::new(message).at(path));
        if self.domain.is_empty() {
            return refuse("domain", "the service needs to know whose limits they are");
        }
        for (key, status) in [("status", self.status), ("status_on_error", self.status_on_error)] {
            if status.is_some_and(|status| !(400..600).contains(&status)) {
                return refuse(key, "a refusal has a status of 400 to 599");
            }
        }
        if self.hits == Some(0) {
            return refuse("hits", "a request counts for one at least");
        }
        if let Some(header) = self.hits_header.as_ref().filter(|header| !is_token(header)) {
            return refuse("hits_header", &format!("{header:?} is not a field name"));
        }
        if self.descriptors.is_empty() {
            return refuse("descriptors", "without a descriptor the service has nothing to count by");
        }
        for (index, descriptor) in self.descriptors.iter().enumerate() {
            let within = format!("descriptors/{index}/entries");
            if descriptor.entries.is_empty() {
                return refuse(&within, "a descriptor has one entry at least");
            }
            for (index, entry) in descriptor.entries.iter().enumerate() {
                entry.check().map_err(|error| error.within(&format!("{within}/{index}")))?;
            }
        }
        Ok(())
    }
}

impl EntryConfig {
    fn check(&self) -> Result<(), ConfigError> {
        let refuse = |path: &str, message: &str| Err(ConfigError::new(message).at(path));
        for (path, text) in [("key", &self.key), ("default", &self.default)] {
            if text.as_ref().is_some_and(String::is_empty) {
                return refuse(path, "the service takes no empty texts");
            }
        }
        match &self.from {
            Source::Header(name) if !is_token(name) => {
                refuse("from/header", &format!("{name:?} is not a field name"))
            }
            Source::Value(text) | Source::Property(text) if text.is_empty() => {
                refuse("from", "the service takes no empty texts")
            }
            Source::ClientNetwork(Network { v4, v6 }) if *v4 > 32 || *v6 > 128 => {
                refuse("from/client_network", "an address has 32 bits, or 128")
            }
            _ => Ok(()),
        }
    }
}
