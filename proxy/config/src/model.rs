//! The configuration once it is checked: names resolved, defaults filled in, units converted. The proxy builds its
//! snapshot from this and finds no mistakes that [`load`](crate::load) could have found.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{Compatibility, ModuleSource, Position, Source};

/// A whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The text it came from, for errors found later.
    pub source: Arc<Source>,
    /// Where the admin API listens, if anywhere.
    pub admin: Option<Admin>,
    /// What is written for each request.
    pub access_log: AccessLog,
    /// Number of worker threads; `None`: one per core.
    pub workers: Option<usize>,
    /// What the proxy is, for filters to read.
    pub node: NodeFacts,
    /// What happens at shutdown.
    pub drain: Drain,
    /// Sockets to accept on, in the file's order.
    pub listeners: Vec<Listener>,
    /// The named chains, and the sub-chains found in filters' configurations. [`ChainId`] indexes it.
    pub chains: Vec<Chain>,
    /// Groups of endpoints, in the file's order.
    pub clusters: Vec<Cluster>,
}

impl Config {
    /// The chain with this number, which must come from this configuration.
    pub fn chain(&self, id: ChainId) -> &Chain {
        &self.chains[id.0]
    }
}

/// The admin API.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Address to listen on.
    pub address: SocketAddr,
    /// Where the address is written.
    pub at: Position,
}

/// The access log.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct AccessLog {
    /// How an entry is written.
    pub format: AccessLogFormat,
    /// Where entries go.
    pub output: AccessLogOutput,
}

/// How an access log entry is written.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum AccessLogFormat {
    /// One line for people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Where access log entries go.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum AccessLogOutput {
    /// The process's standard output.
    #[default]
    Stdout,
    /// Appended to a file.
    File(PathBuf),
    /// Nowhere.
    Off,
}

/// Named values for filters to read, nested as in JSON.
pub type Metadata = serde_json::Map<String, serde_json::Value>;

/// What a proxy is told about itself.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct NodeFacts {
    /// Which one it is.
    pub id: String,
    /// The group of proxies it belongs to.
    pub cluster: String,
    /// Anything else.
    pub metadata: Metadata,
}

/// What happens at shutdown.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Drain {
    /// How long exchanges in flight may take to finish.
    pub timeout: Duration,
}

/// A socket that is accepted on.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Its name, unique among listeners.
    pub name: String,
    /// Its address, unique among listeners.
    pub address: SocketAddr,
    /// The chain that its requests run through.
    pub chain: ChainId,
    /// The cluster for requests for which no filter decided a route.
    pub cluster: Option<String>,
    /// How long a request's head may take to arrive, from its first byte (from accept, on a new connection).
    pub header_timeout: Duration,
    /// How long a connection may stay open between requests.
    pub idle_timeout: Duration,
    /// How long an exchange may take if its route does not say; `None`: as long as it needs.
    pub request_timeout: Option<Duration>,
    /// Most header fields in a request.
    pub max_headers: usize,
    /// Most bytes in a request's head.
    pub max_header_bytes: usize,
    /// Most bytes in a request's body; `None`: no limit.
    pub max_request_body: Option<u64>,
    /// Where its traffic goes, for filters to read.
    pub direction: Direction,
    /// Anything else for filters to read: maps by the name of who reads them.
    pub metadata: Metadata,
    /// Where its address is written.
    pub at: Position,
}

/// Where a listener's traffic goes, seen from the application beside the proxy.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Neither to nor from it: a gateway.
    #[default]
    Unspecified,
    /// To the application.
    Inbound,
    /// From the application.
    Outbound,
}

/// Names a chain of the same [`Config`]: its index in [`Config::chains`].
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ChainId(pub usize);

/// An ordered list of filters: requests run down it, responses run back up.
#[derive(Clone, Debug)]
pub struct Chain {
    /// The name in the file; for a sub-chain the way to it, such as `web/2/routing/routes/0/filters` (the third
    /// filter of chain `web`, then the place in its configuration).
    pub name: String,
    /// Its filters, first to last.
    pub filters: Vec<FilterUse>,
}

/// A filter's place in a chain.
#[derive(Clone, Debug)]
pub struct FilterUse {
    /// The filter's name, as the chain gives it.
    pub name: String,
    /// Where the module comes from.
    pub module: ModuleSource,
    /// The pin that the module's bytes were checked against.
    pub sha256: Option<String>,
    /// What a request gets when the filter fails.
    pub on_error: OnError,
    /// What the filter may use.
    pub limits: FilterLimits,
    /// What its module finds around it.
    pub surroundings: Surroundings,
    /// What the module is configured with.
    pub configuration: FilterConfiguration,
    /// The sub-chains in the configuration, by their key.
    pub chains: Vec<(String, ChainId)>,
    /// The clusters that the configuration names; all exist. Sorted, each once.
    pub clusters: Vec<String>,
    /// Where the filter is named in the chain.
    pub at: Position,
}

/// What a request gets when a filter fails.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, JsonSchema, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum OnError {
    /// A 503, made by the proxy.
    #[default]
    Deny,
    /// Go on as if the filter were not there.
    Skip,
}

/// A filter's configuration as its module receives it.
#[derive(Clone, Debug, PartialEq)]
pub enum FilterConfiguration {
    /// The bytes of a string, as they stand. Empty if the chain gives no configuration and the module has no schema,
    /// or one that allows none; with any other schema, none is the same as `{}`.
    Text(String),
    /// Anything else, as JSON. Each sub-chain is replaced by its key, a string: the JSON pointer to it without the
    /// leading slash, such as `routes/0/filters`. Marked files are replaced by their resolved paths. Keys are sorted, so
    /// that moving a line in the file does not make another configuration of it.
    Json(serde_json::Value),
}

impl FilterConfiguration {
    /// A string as it stands, nothing as nothing, anything else as JSON.
    pub(crate) fn of(value: serde_json::Value) -> Self {
        match value {
            serde_json::Value::Null => Self::Text(String::new()),
            serde_json::Value::String(text) => Self::Text(text),
            other => Self::Json(other),
        }
    }

    /// The bytes given to `on_configure`.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Text(text) => text.clone().into_bytes(),
            Self::Json(value) => value.to_string().into_bytes(),
        }
    }
}

/// What a filter's module finds around it.
#[derive(Clone, Debug, PartialEq)]
pub struct Surroundings {
    /// Which of its root contexts a module that holds several makes; mostly empty.
    pub root_id: String,
    /// What `on_vm_start` is given.
    pub vm_configuration: FilterConfiguration,
    /// Environment variables, sorted.
    pub environment: Vec<(String, String)>,
    /// Which way it wants it where hosts differ.
    pub compatibility: Compatibility,
}

impl Default for Surroundings {
    fn default() -> Self {
        Self {
            root_id: String::new(),
            vm_configuration: FilterConfiguration::Text(String::new()),
            environment: Vec::new(),
            compatibility: Compatibility::default(),
        }
    }
}

/// What a filter may use.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct FilterLimits {
    /// Longest time in one callback.
    pub time: Duration,
    /// Most linear memory of one VM, in bytes.
    pub memory: u64,
    /// Most body bytes buffered for it per exchange and direction.
    pub body: u64,
}

/// A group of endpoints.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Its name, unique among clusters.
    pub name: String,
    /// Its endpoints, in the file's order, each once; a host name stands for all its addresses at load.
    pub endpoints: Vec<SocketAddr>,
    /// How an endpoint is chosen.
    pub load_balancer: LoadBalancer,
    /// How long a connection attempt may take.
    pub connect_timeout: Duration,
    /// How long an unused connection is kept.
    pub idle_timeout: Duration,
    /// Anything for filters to read: maps by the name of who reads them.
    pub metadata: Metadata,
    /// Where its name is written.
    pub at: Position,
}

/// How an endpoint is chosen.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum LoadBalancer {
    /// One after the other.
    #[default]
    RoundRobin,
}
