//! The form of the configuration file: one type per map in it. The JSON Schema that the file is checked against, and
//! that `meshgate schema` prints, comes from these types; so their doc comments are the file's manual.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use crate::Compatibility;
use crate::address::{Address, SocketMode};
use crate::cluster::{ClusterLimitsEntry, EndpointForm, LoadBalancer, OutlierEntry, SubsetEntry};
use crate::discovery::DnsEntry;
use crate::forwarded::ForwardedEntry;
use crate::health::HealthCheckEntry;
use crate::isolation::{Capabilities, Isolation};
use crate::limits::{LimitsEntry, WasmEntry};
use crate::model::{AccessLogFormat, ClusterProtocol, Direction, Metadata, OnError, Protocol, ProxyVersion};
use crate::opaque::OpaqueEntry;
use crate::overload::OverloadEntry;
use crate::passthrough::PassthroughEntry;
use crate::range::AddressRange;
use crate::tls::{ClusterTlsEntry, ListenerTlsEntry, Mtls};
use crate::units::{DurationText, SizeText};

/// A Meshgate configuration.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Meshgate configuration")]
pub(crate) struct File {
    /// The admin API. Without it there is none.
    #[serde(default)]
    #[schemars(with = "AdminEntry")]
    pub(crate) admin: Option<AdminEntry>,
    /// What is written for each request.
    #[serde(default)]
    #[schemars(with = "AccessLogEntry")]
    pub(crate) access_log: Option<AccessLogEntry>,
    /// Number of worker threads. Default: one per core.
    #[serde(default)]
    #[schemars(with = "usize", range(min = 1, max = 1024))]
    pub(crate) workers: Option<usize>,
    /// What this proxy is, for filters to read.
    #[serde(default)]
    #[schemars(with = "NodeEntry")]
    pub(crate) node: Option<NodeEntry>,
    /// What happens at shutdown.
    #[serde(default)]
    #[schemars(with = "DrainEntry")]
    pub(crate) drain: Option<DrainEntry>,
    /// How another binary takes the place of this one.
    #[serde(default)]
    #[schemars(with = "UpgradeEntry")]
    pub(crate) upgrade: Option<UpgradeEntry>,
    /// What happens when memory runs short.
    #[serde(default)]
    #[schemars(with = "OverloadEntry")]
    pub(crate) overload: OverloadEntry,
    /// How long before a certificate ends the log warns of it. Default: 720h and 168h, which are 30 days and 7.
    #[serde(default)]
    #[schemars(with = "Vec<DurationText>")]
    pub(crate) expiry_warnings: Option<Vec<DurationText>>,
    /// Sockets to accept on.
    #[schemars(length(min = 1))]
    pub(crate) listeners: Vec<ListenerEntry>,
    /// Ordered lists of filters, by name. Requests run down a list, responses run back up.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, ChainForm>", extend("propertyNames" = {"type": "string", "format": "name"}))]
    #[expect(dead_code, reason = "chains are built from the tree, which knows positions")]
    chains: serde::de::IgnoredAny,
    /// Names for modules. The standard filters need no entry; one for them sets their limits.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, FilterEntry>", extend("propertyNames" = {"type": "string", "format": "name"}))]
    #[expect(dead_code, reason = "entries are read one by one, so that one mistake does not hide others")]
    filters: serde::de::IgnoredAny,
    /// Filters that run without requests, in the form of a chain: once on each worker, or once in the process.
    #[serde(default)]
    #[schemars(with = "ChainForm")]
    #[expect(dead_code, reason = "built from the tree, which knows positions")]
    services: serde::de::IgnoredAny,
    /// What all filters may use together.
    #[serde(default)]
    #[schemars(with = "WasmEntry")]
    pub(crate) wasm: WasmEntry,
    /// Groups of endpoints that requests are sent to.
    #[serde(default)]
    pub(crate) clusters: Vec<ClusterEntry>,
}

/// `admin: {address: 127.0.0.1:9901}`
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AdminEntry {
    /// IP address and port to listen on.
    #[schemars(extend("format" = "socket-address"))]
    pub(crate) address: std::net::SocketAddr,
}

/// `access_log: {format: json, to: /var/log/meshgate.log}`
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AccessLogEntry {
    /// How an entry is written. Default: text.
    #[serde(default)]
    pub(crate) format: AccessLogFormat,
    /// `stdout`, `none`, or the path of a file. Default: stdout.
    #[serde(default)]
    #[schemars(with = "String", length(min = 1))]
    pub(crate) to: Option<String>,
}

/// `node: {id: gateway-1, cluster: gateways, metadata: {REGION: north}}`
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeEntry {
    /// Which one it is: the property `xds.node.id`.
    #[serde(default)]
    pub(crate) id: String,
    /// The group of proxies it belongs to: the property `xds.node.cluster`.
    #[serde(default)]
    pub(crate) cluster: String,
    /// Where it is: `REGION/ZONE/SUBZONE`, of which the later parts may be left out. For `locality_failover`.
    #[serde(default)]
    #[schemars(with = "String", regex(pattern = "^[^/]+(/[^/]+){0,2}$"))]
    pub(crate) locality: Option<String>,
    /// Anything else: the properties below `xds.node.metadata`.
    #[serde(default)]
    pub(crate) metadata: Metadata,
}

/// `drain: {timeout: 30s, spread: 5s}`
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DrainEntry {
    /// How long exchanges in flight may take to finish at shutdown. Default: 30s.
    #[serde(default)]
    #[schemars(with = "DurationText")]
    pub(crate) timeout: Option<DurationText>,
    /// Over how long connections are told to end, each at a moment of its own, at shutdown and when a reload takes their
    /// listener away. At most `timeout`. Default: 5s, or half of `timeout` if that is less.
    #[serde(default)]
    #[schemars(with = "DurationText")]
    pub(crate) spread: Option<DurationText>,
    /// How long new connections are still served at shutdown, while `/ready` says 503. Default: 0s.
    #[serde(default)]
    #[schemars(with = "DurationText")]
    pub(crate) delay: Option<DurationText>,
}

/// `upgrade: {timeout: 60s}`
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpgradeEntry {
    /// How long the new process may need until it is ready; then it is given up. Default: 60s.
    #[serde(default)]
    #[schemars(with = "DurationText")]
    pub(crate) timeout: Option<DurationText>,
}

/// `- {name: web, address: 0.0.0.0:8080, chain: web}`
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListenerEntry {
    /// Its name, unique among listeners.
    pub(crate) name: Name,
    /// IP address and port to accept on, or `unix:` and the absolute path of a Unix socket.
    pub(crate) address: Address,
    /// Who may connect to a Unix socket: its file's permissions, in octal, in quotes. Default: "0660".
    #[serde(default)]
    #[schemars(with = "SocketMode")]
    pub(crate) socket_mode: Option<SocketMode>,
    /// What its clients speak. Default: http.
    #[serde(default)]
    pub(crate) protocol: Protocol,
    /// TLS. Without it, clients speak in cleartext.
    #[serde(default)]
    #[schemars(with = "ListenerTlsEntry")]
    pub(crate) tls: Option<ListenerTlsEntry>,
    /// `strict`: every client must show a certificate, as `client_certificates.mode: required` has it. `permissive`: those that
    /// speak TLS must, and others may speak in cleartext on the same port. Default: what `tls` says.
    #[serde(default)]
    #[schemars(with = "Mtls")]
    pub(crate) mtls: Option<Mtls>,
    /// With `protocol: tcp`: TLS is passed on as it is, to a cluster by the server name that the client asks for. What does not
    /// begin as TLS does is closed.
    #[serde(default)]
    #[schemars(with = "PassthroughEntry")]
    pub(crate) tls_passthrough: Option<PassthroughEntry>,
    /// Where connections go whose clients do not speak HTTP, as the first bytes tell, or that nothing comes on. Without it they are
    /// refused.
    #[serde(default)]
    #[schemars(with = "OpaqueEntry")]
    pub(crate) opaque: Option<OpaqueEntry>,
    /// The chain that its requests, or TCP connections, run through. May be left out if `cluster` is given.
    #[serde(default)]
    #[schemars(with = "String")]
    pub(crate) chain: Option<String>,
    /// The cluster for requests for which no filter decides a route. Without it they are answered with 404, and TCP
    /// connections are closed.
    #[serde(default)]
    #[schemars(with = "String")]
    pub(crate) cluster: Option<String>,
    /// How long a request's head may take to arrive. Default: 10s. For HTTP only, as are the keys for requests below.
    #[serde(default)]
    #[schemars(with = "DurationText")]
    pub(crate) header_timeout: Option<DurationText>,
    /// How long a connection may stay open between requests. Default: 60s. With `protocol: tcp`: how long it may stay
    /// open with no byte passing in either direction. Default: 1h.
    #[serde(default)]
    #[schemars(with = "DurationText")]
    pub(crate) idle_timeout: Option<DurationText>,
    /// With `protocol: tcp`: connect to an endpoint only when the first bytes of the client have passed the filters, which
    /// may choose the cluster by them. Not for protocols in which the server speaks first. Default: false.
    #[serde(default)]
    pub(crate) wait_for_data: bool,
    /// Most connections at a time, over all workers; more are closed as they come. Default: 20000.
    #[serde(default)]
    #[schemars(with = "usize", range(min = 1, max = 1_000_000))]
    pub(crate) max_connections: Option<usize>,
    /// Most connections at a time of one client address, over all workers; more are closed as they come. IPv6 addresses count
    /// by their first 64 bits. Behind a proxy or a NAT many clients have one address. Default: no limit.
    #[serde(default)]
    #[schemars(with = "usize", range(min = 1, max = 1_000_000))]
    pub(crate) max_connections_per_address: Option<usize>,
    /// How long a client may take none of the bytes that wait for it; then the connection is closed. Default: 60s.
    #[serde(default)]
    #[schemars(with = "DurationText")]
    pub(crate) write_timeout: Option<DurationText>,
    /// How long an exchange may take if its route does not say. Default: as long as it needs.
    #[serde(default)]
    #[schemars(with = "DurationText")]
    pub(crate) request_timeout: Option<DurationText>,
    /// Most header fields in a request. Default: 100.
    #[serde(default)]
    #[schemars(with = "usize", range(min = 1, max = 10_000))]
    pub(crate) max_headers: Option<usize>,
    /// Most bytes in a request's head. Default: 64KiB.
    #[serde(default)]
    #[schemars(with = "SizeText")]
    pub(crate) max_header_bytes: Option<SizeText>,
    /// Most bytes in a request's body. Default: no limit.
    #[serde(default)]
    #[schemars(with = "SizeText")]
    pub(crate) max_request_body: Option<SizeText>,
    /// Proxies in front of this one say for whom they connect, by the PROXY protocol, before anything else on a connection.
    #[serde(default)]
    #[schemars(with = "ProxyProtocolEntry")]
    pub(crate) proxy_protocol: Option<ProxyProtocolEntry>,
    /// Proxies in front of this one say in `x-forwarded-for` and fields like it for whom they ask. From everybody else, what
    /// stands in such fields is removed.
    #[serde(default)]
    #[schemars(with = "ForwardedEntry")]
    pub(crate) forwarded: Option<ForwardedEntry>,
    /// How long a request's body may bring nothing, or less than `min_body_rate`. Then the request is answered with 408. Not
    /// for gRPC, and not once the response has begun. Default: 30s.
    #[serde(default)]
    #[schemars(with = "DurationText")]
    pub(crate) body_timeout: Option<DurationText>,
    /// Least bytes of a request's body per second, over any `body_timeout`. Default: 100B.
    #[serde(default)]
    #[schemars(with = "SizeText")]
    pub(crate) min_body_rate: Option<SizeText>,
    /// How long a response may bring nothing once it has begun; then it is broken off. Default: 1h.
    #[serde(default)]
    #[schemars(with = "DurationText")]
    pub(crate) stream_idle_timeout: Option<DurationText>,
    /// HTTP/2: most requests at a time on one connection. Default: 100.
    #[serde(default)]
    #[schemars(with = "u32", range(min = 1, max = 10_000))]
    pub(crate) max_streams: Option<u32>,
    /// HTTP/2: most frames in a row that carry nothing (PING, SETTINGS, WINDOW_UPDATE, RST_STREAM and the like); a connection
    /// with more is closed. Messages, their content and time make room for more. Default: 1000.
    #[serde(default)]
    #[schemars(with = "u32", range(min = 10, max = 1_000_000))]
    pub(crate) max_control_frames: Option<u32>,
    /// Protocols that clients may change to in the middle of a connection, if the endpoint does too. From then on bytes pass
    /// both ways, and no filter sees them. An offer of another one is not passed on. Default: [websocket].
    #[serde(default)]
    #[schemars(with = "Vec<UpgradeText>")]
    pub(crate) upgrades: Option<Vec<String>>,
    /// How long a connection that has changed its protocol may stay open with no byte passing in either direction.
    /// Default: 1h.
    #[serde(default)]
    #[schemars(with = "DurationText")]
    pub(crate) upgrade_idle_timeout: Option<DurationText>,
    /// Where its traffic goes, for filters that ask: the property `xds.listener_direction`. Default: unspecified.
    #[serde(default)]
    pub(crate) direction: Direction,
    /// For filters: the properties below `xds.listener_metadata.filter_metadata`, maps by the name of who reads them.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, Metadata>")]
    pub(crate) metadata: Metadata,
}

/// `proxy_protocol: {from: [10.0.0.0/8]}`
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProxyProtocolEntry {
    /// Who is believed: every connection from there begins with a header, version 1 or 2. Connections from elsewhere are
    /// closed.
    #[schemars(length(min = 1))]
    pub(crate) from: Vec<AddressRange>,
    /// How long the header may take to arrive. Default: 5s.
    #[serde(default)]
    #[schemars(with = "DurationText")]
    pub(crate) timeout: Option<DurationText>,
}

/// `stamp: {module: ./stamp.wasm, on_error: skip}`
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FilterEntry {
    /// Path of the WebAssembly module, relative to this file. May be left out for the standard filters.
    #[serde(default)]
    #[schemars(with = "String", length(min = 1))]
    #[expect(dead_code, reason = "read from the tree, which knows positions")]
    module: Option<String>,
    /// The module's SHA-256. A module with another one is refused.
    #[serde(default)]
    #[schemars(with = "String", extend("format" = "sha256"))]
    #[expect(dead_code, reason = "read from the tree, which knows positions")]
    sha256: Option<String>,
    /// What a request gets when the filter fails. Default: deny.
    #[serde(default)]
    pub(crate) on_error: OnError,
    /// What the filter may use.
    #[serde(default)]
    pub(crate) limits: LimitsEntry,
    /// Which of its root contexts a module that holds several makes: the property `plugin_root_id`. Default: empty.
    #[serde(default)]
    pub(crate) root_id: String,
    /// What its VM is started with: a string as it stands, anything else as JSON. Default: nothing.
    #[serde(default)]
    pub(crate) vm_configuration: serde_json::Value,
    /// Environment variables that its module sees. It never sees the process's.
    #[serde(default)]
    pub(crate) environment: BTreeMap<String, String>,
    /// Which way it wants it where Proxy-Wasm hosts differ.
    #[serde(default)]
    pub(crate) compatibility: Compatibility,
    /// What the filter may do. Default: everything.
    #[serde(default)]
    pub(crate) may: Capabilities,
    /// With whom it shares an instance of its module. Default: shared.
    #[serde(default)]
    pub(crate) isolation: Isolation,
    /// Filters with the same module and the same name here share a VM, and filters with the same name here share data.
    #[serde(default)]
    #[schemars(with = "Name")]
    pub(crate) vm: Option<Name>,
    /// For `services`: runs once in the process, not on each worker. Default: false.
    #[serde(default)]
    pub(crate) singleton: bool,
}

/// `- {name: reviews, endpoints: [127.0.0.1:9001, 127.0.0.1:9002]}`
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClusterEntry {
    /// Its name, unique among clusters.
    pub(crate) name: Name,
    /// `IP:PORT`, `HOST:PORT` or `unix:PATH`, or a map with `address` and more; a host name stands for all addresses it has when the file
    /// is loaded. An empty list answers every request with 503.
    #[serde(default)]
    #[schemars(with = "Vec<EndpointForm>")]
    #[expect(dead_code, reason = "read from the tree, which knows positions")]
    endpoints: Option<Vec<EndpointForm>>,
    /// Has the endpoints from DNS, and follows it.
    #[serde(default)]
    #[schemars(with = "DnsEntry")]
    pub(crate) dns: Option<DnsEntry>,
    /// Has the endpoints from a file, and follows it: a list in the form of `endpoints`, in YAML or JSON.
    #[serde(default)]
    #[schemars(with = "String", length(min = 1))]
    pub(crate) endpoints_file: Option<String>,
    /// Asks endpoints at intervals whether they are well, and leaves out those that are not. Default: none is asked.
    #[serde(default)]
    #[schemars(with = "HealthCheckEntry")]
    pub(crate) health_check: Option<HealthCheckEntry>,
    /// Names for some of the endpoints, which can be used wherever a cluster's name can.
    #[serde(default)]
    pub(crate) subsets: Vec<SubsetEntry>,
    /// Prefers endpoints that are near: in the proxy's own subzone, zone or region (`node.locality`), in this order, as if
    /// they had the better priority. Default: false.
    #[serde(default)]
    pub(crate) locality_failover: bool,
    /// What its endpoints speak: `http2` for gRPC. Default: http1.
    #[serde(default)]
    pub(crate) protocol: ClusterProtocol,
    /// TLS to its endpoints. Without it they are spoken to in cleartext.
    #[serde(default)]
    #[schemars(with = "ClusterTlsEntry")]
    pub(crate) tls: Option<ClusterTlsEntry>,
    /// How an endpoint is chosen. Default: round_robin.
    #[serde(default)]
    pub(crate) load_balancer: LoadBalancer,
    /// For so long, an endpoint that is new, or was ejected, gets fewer requests than its weight: from a tenth on, more every
    /// moment. Default: it gets its share at once.
    #[serde(default)]
    #[schemars(with = "DurationText")]
    pub(crate) slow_start: Option<DurationText>,
    /// Leaves endpoints out for a while by what they answer. Default: none is left out.
    #[serde(default)]
    #[schemars(with = "OutlierEntry")]
    pub(crate) outlier_detection: Option<OutlierEntry>,
    /// When fewer than this many percent of the endpoints can be used, all are: too few would break under the load of all.
    /// Default: 0, never.
    #[serde(default)]
    #[schemars(with = "u32", range(min = 0, max = 100))]
    pub(crate) panic_threshold: Option<u32>,
    /// How much of it may be in use at a time, by all workers together.
    #[serde(default)]
    pub(crate) limits: ClusterLimitsEntry,
    /// Say for whom a connection is made, by this version of the PROXY protocol, before anything else on it. Then each request
    /// over HTTP/1.1 has a connection to itself. Not with `protocol: http2`. Default: say nothing.
    #[serde(default)]
    #[schemars(with = "ProxyVersion")]
    pub(crate) proxy_protocol: Option<ProxyVersion>,
    /// How long a connection attempt may take. Default: 5s.
    #[serde(default)]
    #[schemars(with = "DurationText")]
    pub(crate) connect_timeout: Option<DurationText>,
    /// How long an unused connection is kept. Default: 60s.
    #[serde(default)]
    #[schemars(with = "DurationText")]
    pub(crate) idle_timeout: Option<DurationText>,
    /// For filters: the properties below `xds.cluster_metadata.filter_metadata`, maps by the name of who reads them.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, Metadata>")]
    pub(crate) metadata: Metadata,
}

/// A name: any characters but spaces and control characters.
#[derive(Deserialize)]
pub(crate) struct Name(pub(crate) String);

impl JsonSchema for Name {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Name".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "name"})
    }
}

/// Schema of an endpoint's address.
pub(crate) struct EndpointText;

impl JsonSchema for EndpointText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Endpoint".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "endpoint"})
    }
}

/// Schema of the name of a protocol that may be changed to.
struct UpgradeText;

impl JsonSchema for UpgradeText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Upgrade".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "upgrade"})
    }
}

/// Schema of a chain. For editors: the loader checks chains itself, here and inside filters' configurations alike, and
/// ignores what this says.
struct ChainForm;

impl JsonSchema for ChainForm {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Chain".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Filters, first to last: `- name: {configuration}`, or `- name` without configuration.",
            "type": "array",
            "items": {"anyOf": [{"type": "string"}, {"type": "object", "minProperties": 1, "maxProperties": 1}]},
        })
    }
}

/// The JSON Schema of the configuration file, draft 2020-12, for editors and for `meshgate schema`.
///
/// What a filter's configuration may hold is not in it: that is in each module's manifest.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(File).to_value()
}
