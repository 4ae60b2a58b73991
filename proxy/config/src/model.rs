//! The configuration once it is checked: names resolved, defaults filled in, units converted. The proxy builds its
//! snapshot from this and finds no mistakes that [`load`](crate::load) could have found.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::cluster::{ClusterLimits, Endpoint, LoadBalancer, OutlierDetection, Subset};
use crate::discovery::{Discovery, Locality};
use crate::forwarded::Forwarded;
use crate::health::HealthCheck;
use crate::opaque::Opaque;
use crate::passthrough::Passthrough;
use crate::tls::{ClusterTls, ListenerTls};
use crate::{
    Address, AddressRange, Capabilities, Compatibility, FilterLimits, Isolation, ModuleSource, Overload,
    Position, SocketMode, Source, WasmBounds,
};

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
    /// How long a process that is to take this one's place may need until it is ready.
    pub upgrade_timeout: Duration,
    /// What happens when memory runs short.
    pub overload: Overload,
    /// Sockets to accept on, in the file's order.
    pub listeners: Vec<Listener>,
    /// The named chains, and the sub-chains found in filters' configurations. [`ChainId`] indexes it.
    pub chains: Vec<Chain>,
    /// Filters that run without requests, in the file's order.
    pub services: Vec<FilterUse>,
    /// What all filters may use together.
    pub wasm: WasmBounds,
    /// Groups of endpoints, in the file's order.
    pub clusters: Vec<Cluster>,
    /// How long before a certificate ends it is warned of, the longest first.
    pub expiry_warnings: Vec<Duration>,
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
    /// Where it is.
    pub locality: Locality,
    /// Anything else.
    pub metadata: Metadata,
}

/// What happens at shutdown, and to the connections of a listener that is taken away.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Drain {
    /// How long exchanges in flight may take to finish.
    pub timeout: Duration,
    /// Over how long connections are told to end.
    pub spread: Duration,
    /// How long new connections are still served at shutdown.
    pub delay: Duration,
}

/// A socket that is accepted on.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Its name, unique among listeners.
    pub name: String,
    /// Its address, unique among listeners.
    pub address: Address,
    /// Who may connect to it, if it is a Unix socket.
    pub socket_mode: SocketMode,
    /// What its clients speak.
    pub protocol: Protocol,
    /// TLS, if its clients speak that.
    pub tls: Option<ListenerTls>,
    /// TLS that is passed on as it is, by server names.
    pub tls_passthrough: Option<Passthrough>,
    /// Where connections go whose clients do not speak HTTP.
    pub opaque: Option<Opaque>,
    /// The chain that its requests, or TCP connections, run through.
    pub chain: ChainId,
    /// The cluster for requests, or TCP connections, for which no filter decided a route.
    pub cluster: Option<String>,
    /// How long a request's head may take to arrive, from its first byte (from accept, on a new connection).
    pub header_timeout: Duration,
    /// How long a connection may stay open between requests; of TCP: how long it may carry nothing.
    pub idle_timeout: Duration,
    /// Of TCP: an endpoint is connected to only when something of what the client sent has passed the filters.
    pub wait_for_data: bool,
    /// Most connections at a time.
    pub max_connections: usize,
    /// Most connections at a time of one client address; none: no limit.
    pub max_connections_per_address: Option<usize>,
    /// How long a client may take none of the bytes that wait for it.
    pub write_timeout: Duration,
    /// How long an exchange may take if its route does not say; `None`: as long as it needs.
    pub request_timeout: Option<Duration>,
    /// Most header fields in a request.
    pub max_headers: usize,
    /// Most bytes in a request's head.
    pub max_header_bytes: usize,
    /// Most bytes in a request's body; `None`: no limit.
    pub max_request_body: Option<u64>,
    /// Who says for whom it connects, if anybody.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Who says for whom it asks, by fields of requests, if anybody.
    pub forwarded: Option<Forwarded>,
    /// How long a request's body may bring less than `min_body_rate`.
    pub body_timeout: Duration,
    /// Least bytes of a request's body per second.
    pub min_body_rate: u64,
    /// How long a response that has begun may bring nothing.
    pub stream_idle_timeout: Duration,
    /// HTTP/2: most requests at a time on a connection.
    pub max_streams: u32,
    /// HTTP/2: most frames in a row that carry nothing.
    pub max_control_frames: u32,
    /// Protocols that a client may change to, in lower case.
    pub upgrades: Vec<String>,
    /// How long a connection that changed its protocol may carry nothing.
    pub upgrade_idle_timeout: Duration,
    /// Where its traffic goes, for filters to read.
    pub direction: Direction,
    /// Anything else for filters to read: maps by the name of who reads them.
    pub metadata: Metadata,
    /// Where its address is written.
    pub at: Position,
}

impl Listener {
    /// The listener, and as those of its clients see it that do not speak HTTP.
    pub fn sides(&self) -> impl Iterator<Item = &Listener> {
        std::iter::once(self).chain(self.opaque.as_ref().map(|opaque| &*opaque.listener))
    }

    /// To how many bytes a head may grow on its way through the filters: twice what is accepted from a client.
    pub fn most_filtered_head_bytes(&self) -> usize {
        self.max_header_bytes.saturating_mul(2)
    }
}

/// Proxies in front, which say for whom they connect.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ProxyProtocol {
    /// Who is believed. Connections from elsewhere are closed.
    pub from: Vec<AddressRange>,
    /// How long the header may take.
    pub timeout: Duration,
}

/// What a listener's clients speak.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1 or HTTP/2: the first bytes tell.
    #[default]
    Http,
    /// Anything: bytes are passed on as they come.
    Tcp,
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
    /// What the filter may do.
    pub may: Capabilities,
    /// With whom it shares an instance of its module.
    pub isolation: Isolation,
    /// The name of its VM; empty for the one that filters without a name share.
    pub vm: String,
    /// As a service: runs once in the process.
    pub singleton: bool,
    /// What its module finds around it.
    pub surroundings: Surroundings,
    /// What the module is configured with.
    pub configuration: FilterConfiguration,
    /// The sub-chains in the configuration, by their key.
    pub chains: Vec<(String, ChainId)>,
    /// The texts in the configuration that were read from files: the JSON pointer to each, and its file.
    pub file_texts: Vec<(String, PathBuf)>,
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
    /// leading slash, such as `routes/0/filters`. Marked files are replaced by their resolved paths,
    /// or by what is in them. Keys are sorted, so
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

/// A group of endpoints.
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    /// Its name, unique among clusters.
    pub name: String,
    /// Some of another cluster's endpoints; none: it has its own. What this says of endpoints is then what that cluster says.
    pub subset: Option<Subset>,
    /// Its endpoints, in the file's order, each once; a host name stands for all its addresses at load. From a file: as it
    /// was at load.
    pub endpoints: Vec<Endpoint>,
    /// Where its endpoints come from after that.
    pub discovery: Discovery,
    /// How its endpoints are asked whether they are well.
    pub health_check: Option<HealthCheck>,
    /// The place that near endpoints are preferred to; none: they are not.
    pub near: Option<Locality>,
    /// What the endpoints speak.
    pub protocol: ClusterProtocol,
    /// TLS, if they speak that.
    pub tls: Option<ClusterTls>,
    /// How an endpoint is chosen.
    pub load_balancer: LoadBalancer,
    /// How long an endpoint that is new, or was ejected, gets fewer requests.
    pub slow_start: Option<Duration>,
    /// When endpoints are left out by what they answer.
    pub outlier_detection: Option<OutlierDetection>,
    /// With a smaller share of usable endpoints, in percent, all are used.
    pub panic_threshold: u32,
    /// How much of it may be in use at a time.
    pub limits: ClusterLimits,
    /// By which version of the PROXY protocol endpoints are told for whom a connection is made.
    pub proxy_protocol: Option<ProxyVersion>,
    /// How long a connection attempt may take.
    pub connect_timeout: Duration,
    /// How long an unused connection is kept.
    pub idle_timeout: Duration,
    /// Anything for filters to read: maps by the name of who reads them.
    pub metadata: Metadata,
    /// Where its name is written.
    pub at: Position,
}

/// What the endpoints of a cluster speak.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum ClusterProtocol {
    /// HTTP/1.1: one request at a time on each connection.
    #[default]
    Http1,
    /// HTTP/2: many requests at once on each connection. What gRPC needs. In cleartext it is spoken without asking (prior
    /// knowledge); with `tls`, the endpoint has to agree to it by ALPN.
    Http2,
}

/// A version of the PROXY protocol.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}
