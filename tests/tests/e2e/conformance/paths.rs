//! Every property path that `docs/proxy-wasm-support.md` names, in every callback: whether it is there, and what it says, in
//! either form. `page` checks that none is left out.

use http::Method;
use meshgate_tests::{
    Ask, Authority, Backend, Client, Meshgate, Says, TlsClient, TlsFront, framed, full, grpc_backend,
};
use serde_json::Value;

use super::matrix::{
    ALL, ANSWERED, CONNECTED, ENDING, NOWHERE, PHASES, Phases, RESPONSE_TRAILERS, Row, STREAM, check_on, row,
    script,
};
use super::script::Arg::{Bytes, Message, T};
use super::script::Field::{Number, Text};
use super::script::{NOT_FOUND, OK, Report, Script, call, entered};
use super::world::{LIMITS, World, exchange, last};

/// What a property says.
#[derive(Clone, Copy, Debug)]
pub(super) enum Is {
    Text(&'static str),
    /// Any text but an empty one.
    Some,
    Number(u64),
    AnyNumber,
    Flag(bool),
    Time,
    Duration,
    Address,
    /// The version of HTTP.
    Protocol,
    /// Serialized pairs, the first of which has this name.
    Map(&'static str),
    /// Metadata, of which the text is this JSON and the first key is that.
    Metadata(&'static str, &'static str),
    /// A message that contains this text.
    Message(&'static str),
    /// It is nowhere.
    Nothing,
}

/// A property of the documentation.
pub(super) struct Property {
    /// As the documentation names it.
    pub(super) name: &'static str,
    pub(super) there: Phases,
    pub(super) says: Is,
}

macro_rules! properties {
    ($($name:literal, $path:literal, $there:expr, $says:expr;)*) => {
        pub(super) const PROPERTIES: &[Property] =
            &[$(Property { name: $name, there: $there, says: $says }),*];
        /// As calls.
        pub(super) const ROWS: &[Row] =
            &[$(row("proxy_get_property", &[T($path), Bytes], &[($there, OK), (ALL, NOT_FOUND)])),*];
    };
}

/// The filter before the guest chose a route. The guest's context is created when the first callback is due.
const ROUTED: Phases = STREAM;
const TRAILED: Phases = RESPONSE_TRAILERS.or(ENDING);

properties! {
    "request.path", "request\0path", STREAM, Is::Text("/path?query=1");
    "request.url_path", "request\0url_path", STREAM, Is::Text("/path");
    "request.host", "request\0host", STREAM, Is::Some;
    "request.scheme", "request\0scheme", STREAM, Is::Text("http");
    "request.method", "request\0method", STREAM, Is::Text("POST");
    "request.referer", "request\0referer", STREAM, Is::Text("http://from.example/");
    "request.useragent", "request\0useragent", STREAM, Is::Text("suite/1");
    "request.id", "request\0id", STREAM, Is::Text("7e0c4f9a-0000-4000-8000-0123456789ab");
    "request.protocol", "request\0protocol", STREAM, Is::Protocol;
    "request.query", "request\0query", STREAM, Is::Text("query=1");
    "request.headers", "request\0headers", STREAM, Is::Map(":");
    "request.headers.NAME", "request\0headers\0x-a", STREAM, Is::Text("1,2");
    "request.headers_bytes", "request\0headers_bytes", STREAM, Is::AnyNumber;
    "request.size", "request\0size", STREAM, Is::AnyNumber;
    "request.total_size", "request\0total_size", STREAM, Is::AnyNumber;
    "request.time", "request\0time", STREAM, Is::Time;
    "request.duration", "request\0duration", ENDING, Is::Duration;
    "response.code", "response\0code", ANSWERED, Is::Number(200);
    "response.code_details", "response\0code_details", ANSWERED, Is::Text("via_upstream");
    "response.flags", "response\0flags", STREAM, Is::Number(0);
    "response.grpc_status", "response\0grpc_status", NOWHERE, Is::Nothing;
    "response.size", "response\0size", ANSWERED, Is::AnyNumber;
    "response.total_size", "response\0total_size", ANSWERED, Is::AnyNumber;
    "response.headers_bytes", "response\0headers_bytes", ANSWERED, Is::AnyNumber;
    "response.headers", "response\0headers", ANSWERED, Is::Map(":status");
    "response.headers.NAME", "response\0headers\0x-b", ANSWERED, Is::Text("back");
    "response.trailers", "response\0trailers", TRAILED, Is::Map("x-sum");
    "response.trailers.NAME", "response\0trailers\0x-sum", TRAILED, Is::Text("42");
    "response.backend_latency", "response\0backend_latency", ANSWERED, Is::Duration;
    "source.address", "source\0address", STREAM, Is::Address;
    "source.port", "source\0port", STREAM, Is::AnyNumber;
    "destination.address", "destination\0address", STREAM, Is::Address;
    "destination.port", "destination\0port", STREAM, Is::AnyNumber;
    "connection.id", "connection\0id", STREAM, Is::AnyNumber;
    "connection_id", "connection_id", STREAM, Is::AnyNumber;
    "connection.mtls", "connection\0mtls", STREAM, Is::Flag(false);
    // Of TLS, which this connection does not speak.
    "connection.requested_server_name", "connection\0requested_server_name", NOWHERE, Is::Nothing;
    "connection.tls_version", "connection\0tls_version", NOWHERE, Is::Nothing;
    "connection.subject_local_certificate", "connection\0subject_local_certificate", NOWHERE, Is::Nothing;
    "connection.subject_peer_certificate", "connection\0subject_peer_certificate", NOWHERE, Is::Nothing;
    "connection.dns_san_local_certificate", "connection\0dns_san_local_certificate", NOWHERE, Is::Nothing;
    "connection.dns_san_peer_certificate", "connection\0dns_san_peer_certificate", NOWHERE, Is::Nothing;
    "connection.uri_san_local_certificate", "connection\0uri_san_local_certificate", NOWHERE, Is::Nothing;
    "connection.uri_san_peer_certificate", "connection\0uri_san_peer_certificate", NOWHERE, Is::Nothing;
    "connection.sha256_peer_certificate_digest", "connection\0sha256_peer_certificate_digest", NOWHERE, Is::Nothing;
    "connection.peer_certificate", "connection\0peer_certificate", NOWHERE, Is::Nothing;
    "connection.termination_details", "connection\0termination_details", NOWHERE, Is::Nothing;
    "connection.transport_failure_reason", "connection\0transport_failure_reason", NOWHERE, Is::Nothing;
    "upstream.address", "upstream\0address", CONNECTED, Is::Address;
    "upstream.port", "upstream\0port", CONNECTED, Is::AnyNumber;
    "upstream.local_address", "upstream\0local_address", ANSWERED, Is::Address;
    "upstream.local_port", "upstream\0local_port", ANSWERED, Is::AnyNumber;
    "upstream.request_attempt_count", "upstream\0request_attempt_count", STREAM, Is::AnyNumber;
    "upstream.num_endpoints", "upstream\0num_endpoints", CONNECTED, Is::Number(1);
    "upstream.cx_pool_ready_duration", "upstream\0cx_pool_ready_duration", ANSWERED, Is::Duration;
    // It did not fail.
    "upstream.transport_failure_reason", "upstream\0transport_failure_reason", NOWHERE, Is::Nothing;
    "upstream.tls_version", "upstream\0tls_version", NOWHERE, Is::Nothing;
    "upstream.subject_local_certificate", "upstream\0subject_local_certificate", NOWHERE, Is::Nothing;
    "upstream.subject_peer_certificate", "upstream\0subject_peer_certificate", NOWHERE, Is::Nothing;
    "upstream.dns_san_local_certificate", "upstream\0dns_san_local_certificate", NOWHERE, Is::Nothing;
    "upstream.dns_san_peer_certificate", "upstream\0dns_san_peer_certificate", NOWHERE, Is::Nothing;
    "upstream.uri_san_local_certificate", "upstream\0uri_san_local_certificate", NOWHERE, Is::Nothing;
    "upstream.uri_san_peer_certificate", "upstream\0uri_san_peer_certificate", NOWHERE, Is::Nothing;
    "upstream.sha256_peer_certificate_digest", "upstream\0sha256_peer_certificate_digest", NOWHERE, Is::Nothing;
    "upstream.peer_certificate", "upstream\0peer_certificate", NOWHERE, Is::Nothing;
    "upstream.locality", "upstream\0locality", NOWHERE, Is::Nothing;
    "upstream.locality.region", "upstream\0locality\0region", NOWHERE, Is::Nothing;
    "upstream.locality.zone", "upstream\0locality\0zone", NOWHERE, Is::Nothing;
    "upstream.locality.sub_zone", "upstream\0locality\0sub_zone", NOWHERE, Is::Nothing;
    "xds.upstream_host_locality_metadata", "xds\0upstream_host_locality_metadata", NOWHERE, Is::Nothing;
    "xds.node", "xds\0node", ALL, Is::Message("gate-7");
    "xds.node.id", "xds\0node\0id", ALL, Is::Text("gate-7");
    "xds.node.cluster", "xds\0node\0cluster", ALL, Is::Text("gates");
    "xds.node.locality.region", "xds\0node\0locality\0region", ALL, Is::Text("north");
    "xds.node.locality.zone", "xds\0node\0locality\0zone", ALL, Is::Text("north-1");
    "xds.node.locality.sub_zone", "xds\0node\0locality\0sub_zone", ALL, Is::Text("a");
    "xds.node.metadata.KEY…", "xds\0node\0metadata\0REGION", ALL, Is::Text("north");
    "node", "node", ALL, Is::Message("gate-7");
    "node.id", "node\0id", ALL, Is::Text("gate-7");
    "node.cluster", "node\0cluster", ALL, Is::Text("gates");
    "node.locality.region", "node\0locality\0region", ALL, Is::Text("north");
    "node.locality.zone", "node\0locality\0zone", ALL, Is::Text("north-1");
    "node.locality.sub_zone", "node\0locality\0sub_zone", ALL, Is::Text("a");
    "node.metadata.KEY…", "node\0metadata\0LIST\x001", ALL, Is::Text("b");
    "xds.cluster_name", "xds\0cluster_name", ROUTED, Is::Text("one");
    "cluster_name", "cluster_name", ROUTED, Is::Text("one");
    "xds.route_name", "xds\0route_name", ROUTED, Is::Text("all");
    "route_name", "route_name", ROUTED, Is::Text("all");
    "xds.cluster_metadata", "xds\0cluster_metadata", ROUTED, Is::Message("of the cluster");
    "xds.cluster_metadata.filter_metadata.NAME.KEY…", "xds\0cluster_metadata\0filter_metadata\0suite\0key", ROUTED,
        Is::Text("of the cluster");
    "cluster_metadata", "cluster_metadata", ROUTED, Is::Message("of the cluster");
    "cluster_metadata.filter_metadata.NAME.KEY…", "cluster_metadata\0filter_metadata\0suite", ROUTED,
        Is::Metadata("key", r#"{"key":"of the cluster"}"#);
    // Whatever the listener, none is known while a plugin is configured.
    "xds.listener_direction", "xds\0listener_direction", ALL, Is::AnyNumber;
    "listener_direction", "listener_direction", ALL, Is::AnyNumber;
    "xds.listener_metadata", "xds\0listener_metadata", STREAM, Is::Message("of the listener");
    "xds.listener_metadata.filter_metadata.NAME.KEY…", "xds\0listener_metadata\0filter_metadata\0suite\0key", STREAM,
        Is::Text("of the listener");
    "listener_metadata", "listener_metadata", STREAM, Is::Message("of the listener");
    "listener_metadata.filter_metadata.NAME.KEY…", "listener_metadata\0filter_metadata\0suite", STREAM,
        Is::Metadata("key", r#"{"key":"of the listener"}"#);
    "xds.route_metadata", "xds\0route_metadata", NOWHERE, Is::Nothing;
    "route_metadata", "route_metadata", NOWHERE, Is::Nothing;
    "xds.virtual_host_name", "xds\0virtual_host_name", NOWHERE, Is::Nothing;
    "xds.virtual_host_metadata", "xds\0virtual_host_metadata", NOWHERE, Is::Nothing;
    "xds.upstream_host_metadata", "xds\0upstream_host_metadata", NOWHERE, Is::Nothing;
    "xds.upstream_host_metadata.filter_metadata.envoy.lb.LABEL",
        "xds\0upstream_host_metadata\0filter_metadata\0envoy.lb\0version", NOWHERE, Is::Nothing;
    "upstream_host_metadata", "upstream_host_metadata", NOWHERE, Is::Nothing;
    "upstream_host_metadata.filter_metadata.envoy.lb.LABEL",
        "upstream_host_metadata\0filter_metadata\0envoy.lb\0version", NOWHERE, Is::Nothing;
    "xds.filter_chain_name", "xds\0filter_chain_name", NOWHERE, Is::Nothing;
    "metadata.filter_metadata.NAME.KEY…", "metadata\0filter_metadata\0suite\0key", NOWHERE, Is::Nothing;
    // Nothing set it: `of_the_filter_state` does.
    "filter_state.NAME", "filter_state\0envoy.tcp_proxy.cluster", NOWHERE, Is::Nothing;
    "filter_state.wasm.NAME", "filter_state\0wasm.mine", NOWHERE, Is::Nothing;
    "upstream_filter_state.NAME", "upstream_filter_state\0envoy.tcp_proxy.cluster", NOWHERE, Is::Nothing;
    "plugin_name", "plugin_name", ALL, Is::Text("conformance");
    "plugin_root_id", "plugin_root_id", ALL, Is::Text("suite_root");
    "plugin_vm_id", "plugin_vm_id", ALL, Is::Text("suite_vm");
    "ngx.NAME", "ngx\0host", NOWHERE, Is::Nothing;
    "wasmx.NAME", "wasmx\0unset", NOWHERE, Is::Nothing;
}

/// What decides the route before the guest.
pub(super) const ROUTING: &str = "- routing: {routes: [{name: all, match: {path: /**}, to: one}]}";

/// Keys of a filter, so that the properties about plugins say something.
const PLUGIN: &str = "root_id: suite_root, vm: suite_vm";

impl Is {
    fn admits(self, bytes: &[u8], version: u8, as_text: bool) -> bool {
        let text = || std::str::from_utf8(bytes).unwrap_or_default();
        let number = || match as_text {
            true => text().parse().ok(),
            false => bytes.try_into().ok().map(u64::from_le_bytes),
        };
        // Seconds with three decimals.
        let seconds = || {
            text().split_once('.').is_some_and(|(_, decimals)| decimals.len() == 3)
                && text().parse::<f64>().is_ok()
        };
        match self {
            Is::Text(expected) => bytes == expected.as_bytes(),
            Is::Some => !text().is_empty(),
            Is::Number(expected) => number() == Some(expected),
            Is::AnyNumber => number().is_some(),
            Is::Flag(expected) if as_text => text() == expected.to_string(),
            Is::Flag(expected) => bytes == [u8::from(expected)],
            Is::Time | Is::Duration if as_text => seconds(),
            // Since 2001, in nanoseconds; of a minute at most.
            Is::Time => number().is_some_and(|nanoseconds| nanoseconds > 1_000_000_000_000_000_000),
            Is::Duration => number().is_some_and(|nanoseconds| nanoseconds < 60_000_000_000),
            Is::Protocol => text() == if version == 1 { "HTTP/1.1" } else { "HTTP/2" },
            Is::Address if as_text => text() == "127.0.0.1",
            Is::Address => text().strip_prefix("127.0.0.1:").is_some_and(|port| port.parse::<u16>().is_ok()),
            Is::Map(name) => first_name(bytes).is_some_and(|found| found.starts_with(name.as_bytes())),
            Is::Metadata(_, json) if as_text => text() == json,
            Is::Metadata(name, _) => {
                first_name(bytes).is_some_and(|found| found.starts_with(name.as_bytes()))
            }
            Is::Message(part) => bytes.windows(part.len()).any(|window| window == part.as_bytes()),
            Is::Nothing => false,
        }
    }
}

/// The first name in serialized pairs, and what follows it.
fn first_name(bytes: &[u8]) -> Option<&[u8]> {
    let count = u32::from_le_bytes(*bytes.first_chunk()?);
    bytes.get(4 + 8 * usize::try_from(count).ok()?..)
}

/// The bytes that a guest reported.
fn bytes_of(value: &Value) -> Vec<u8> {
    match value {
        Value::String(text) => text.clone().into_bytes(),
        value => {
            let digits = value["hex"].as_str().unwrap_or_default();
            let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
            (0..digits.len()).step_by(2).map(byte).collect()
        }
    }
}

/// Compares every value in every callback with what the property is to say.
fn check_values(reports: &[Report], version: u8, as_text: bool) {
    let mut wrong = Vec::new();
    for (phase, callback) in PHASES {
        let report = last(reports, callback);
        for (place, property) in PROPERTIES.iter().enumerate() {
            if !property.there.contains(phase) {
                continue;
            }
            let value = report.value(place);
            if !property.says.admits(&bytes_of(value), version, as_text) {
                wrong.push(format!("{} in {callback}: {value}, not {:?}", property.name, property.says));
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test]
pub(super) async fn in_either_form() {
    for (form, as_text) in [("binary", false), ("text", true)] {
        for version in [1, 2] {
            let keys = format!("{LIMITS}, {PLUGIN}, compatibility: {{properties: {form}}}");
            let running = World::start().await.run_behind(ROUTING, &script(ROWS.iter()), &keys).await;
            let reports = check_on(running, version, ROWS).await;
            check_values(&reports, version, as_text);
        }
    }
}

/// Reads these in the last callback of an exchange.
fn reading<const COUNT: usize>(paths: [&'static str; COUNT]) -> Script {
    Script::default().on("log", paths.map(|path| call("proxy_get_property", &[T(path), Bytes])))
}

/// What is read of an exchange whose endpoint is not there.
pub(super) const OF_FAILURES: [&str; 4] =
    ["response\0code", "upstream\0transport_failure_reason", "upstream\0address", "response\0flags"];
/// What is read of an answer of gRPC.
pub(super) const OF_GRPC: [&str; 1] = ["response\0grpc_status"];

/// What the table's exchange does not have.
#[tokio::test]
pub(super) async fn of_other_exchanges() {
    // An endpoint that is not there.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let script = reading(OF_FAILURES);
    let quoted = serde_json::to_string(&script.json()).unwrap();
    let setup = Meshgate::chain(&format!("- conformance: {quoted}")).guest("conformance", LIMITS);
    let gate = setup.cluster_of("gone", &[gone], "").start().await;
    gate.get("/").await;
    let report = entered(gate.log(), "log", 1).await.pop().unwrap();
    assert_eq!(report.statuses(), [OK; 4]);
    assert_eq!(bytes_of(report.value(0)), 503_u64.to_le_bytes());
    assert!(!bytes_of(report.value(1)).is_empty(), "{report:?}");
    assert_eq!(report.value(2), &gone.to_string());
    // Envoy's bit for a failure to connect.
    assert_eq!(bytes_of(report.value(3)), 0x20_u64.to_le_bytes());

    // An answer of gRPC, with its status in the trailers and in the head.
    for (method, status) in [("Unary", 0_u64), ("Refuse", 7)] {
        let script = reading(OF_GRPC);
        let quoted = serde_json::to_string(&script.json()).unwrap();
        let setup = Meshgate::chain(&format!("- conformance: {quoted}")).guest("conformance", LIMITS);
        let rpc = grpc_backend("rpc").await;
        let gate = setup.cluster_of("rpc", &[rpc.address()], "protocol: http2").start().await;
        let ask = Ask::new(Method::POST, &format!("/test.Echo/{method}"), full(framed(b"hi")));
        let ask = ask.header("content-type", "application/grpc").header("te", "trailers");
        Client::http2(gate.address()).await.call(ask).await;
        let report = entered(gate.log(), "log", 1).await.pop().unwrap();
        assert_eq!(
            (report.status(0), bytes_of(report.value(0))),
            (OK, status.to_le_bytes().to_vec()),
            "{method}"
        );
    }
}

/// What is read of the filter state.
pub(super) const OF_THE_FILTER_STATE: [&str; 3] =
    ["filter_state\0envoy.tcp_proxy.cluster", "filter_state\0wasm.mine", "mine"];

/// What filters leave in the filter state, by its names.
#[tokio::test]
pub(super) async fn of_the_filter_state() {
    let choose = Message(&[(1, Text("envoy.tcp_proxy.cluster")), (2, Text("one"))]);
    let script = reading(OF_THE_FILTER_STATE).on(
        "request_headers",
        [
            call("proxy_call_foreign_function", &[T("set_envoy_filter_state"), choose, Bytes]),
            call("proxy_set_property", &[T("mine"), T("value")]),
        ],
    );
    let (_, reports) = exchange(&script).await;
    let log = last(&reports, "log");
    assert_eq!(log.statuses(), [OK; 3]);
    assert_eq!([0, 1, 2].map(|place| log.value(place).clone()), ["one", "value", "value"]);
}

/// What is read of an endpoint of which more is said than its address.
pub(super) const OF_ENDPOINTS: [&str; 8] = [
    "upstream\0locality\0region",
    "upstream\0locality\0zone",
    "upstream\0locality\0sub_zone",
    "upstream_host_metadata\0filter_metadata\0envoy.lb\0version",
    "xds\0upstream_host_metadata\0filter_metadata\0envoy.lb\0version",
    "upstream\0locality",
    "upstream_host_metadata",
    "xds\0upstream_host_metadata",
];

/// The endpoint's locality and labels.
#[tokio::test]
pub(super) async fn of_endpoints() {
    let one = Backend::echo("one").await;
    let quoted = serde_json::to_string(&reading(OF_ENDPOINTS).json()).unwrap();
    let setup = Meshgate::chain(&format!("- conformance: {quoted}")).guest("conformance", LIMITS);
    let endpoint =
        format!("{{address: \"{}\", labels: {{version: v2}}, locality: south/a/1}}", one.address());
    let clusters = format!("clusters: [{{name: one, endpoints: [{endpoint}]}}]");
    let gate = setup.top(&clusters).listener("cluster: one").start().await;
    assert_eq!(gate.get("/").await.status, 200);
    let report = entered(gate.log(), "log", 1).await.pop().unwrap();
    assert_eq!(report.statuses(), [OK; 8]);
    let texts: Vec<_> = (0..5).map(|place| report.value(place).clone()).collect();
    assert_eq!(texts, ["south", "a", "1", "v2", "v2"]);
    assert_eq!(bytes_of(report.value(5)), b"\x0a\x05south\x12\x01a\x1a\x011");
    for place in [6, 7] {
        assert!(Is::Message("version").admits(&bytes_of(report.value(place)), 2, false), "{report:?}");
    }
}

/// What is read of what filters left under their names, as JSON.
pub(super) const OF_DYNAMIC_METADATA: [&str; 4] = [
    "metadata\0filter_metadata\0suite\0key",
    "metadata\0filter_metadata\0suite\0deep\x001",
    "metadata\0filter_metadata\0suite\0nowhere",
    "metadata\0filter_metadata\0text\0key",
];

/// Envoy's filters leave metadata by their names; filters here leave properties, and one of JSON can be looked into.
#[tokio::test]
pub(super) async fn of_dynamic_metadata() {
    let set = |name, value| call("proxy_set_property", &[T(name), T(value)]);
    let script = reading(OF_DYNAMIC_METADATA).on(
        "request_headers",
        [set("suite", r#"{"key": "of a filter", "deep": [1, "two"]}"#), set("text", "key")],
    );
    let (_, reports) = exchange(&script).await;
    let log = last(&reports, "log");
    assert_eq!(log.statuses(), [OK, OK, NOT_FOUND, NOT_FOUND]);
    assert_eq!([0, 1].map(|place| log.value(place).clone()), ["of a filter", "two"]);
}

/// What only the host says, no filter says, not even for all of the connection: other filters decide by it.
#[tokio::test]
async fn of_the_host_alone() {
    let names =
        ["connection\0uri_san_peer_certificate", "request\0mine", "filter_state\0envoy.tcp_proxy.cluster"];
    let declare = [
        Message(&[(1, Text("connection\0uri_san_peer_certificate")), (5, Number(2))]),
        Message(&[(1, Text("request\0mine")), (5, Number(2))]),
    ];
    let declare =
        declare.map(|message| call("proxy_call_foreign_function", &[T("declare_property"), message, Bytes]));
    let set = names.map(|name| call("proxy_set_property", &[T(name), T("forged")]));
    let read = || names.map(|name| call("proxy_get_property", &[T(name), Bytes]));
    let script =
        Script::default().on("configure", declare).on("request_headers", set).on("request_headers", read());
    let (_, reports) = exchange(&script.on("log", read())).await;
    let statuses = last(&reports, "request_headers").statuses().to_vec();
    assert_eq!(statuses, [OK, OK, OK, NOT_FOUND, NOT_FOUND, NOT_FOUND]);
    assert_eq!(last(&reports, "log").statuses(), [NOT_FOUND; 3]);
}

/// What is read of a client's connection with TLS.
pub(super) const OF_TLS: [&str; 11] = [
    "connection\0requested_server_name",
    "connection\0tls_version",
    "connection\0dns_san_local_certificate",
    "connection\0dns_san_peer_certificate",
    "connection\0uri_san_local_certificate",
    "connection\0uri_san_peer_certificate",
    "connection\0subject_local_certificate",
    "connection\0subject_peer_certificate",
    "connection\0sha256_peer_certificate_digest",
    "connection\0peer_certificate",
    "connection\0mtls",
];

/// Of a connection on which both sides showed a certificate: the table's has none.
#[tokio::test]
pub(super) async fn of_tls() {
    const TLS: &str = "tls: {certificates: [{certificate: web.pem, key: web.key}], \
                       client_certificates: {mode: required, ca: ca.pem}}";
    let authority = Authority::new();
    let web = authority.issue(&Says::name("web.example").and_uri("spiffe://mesh.example/web"));
    let theirs = authority.issue(&Says::name("client.example").and_uri("spiffe://mesh.example/client"));
    let script = reading(OF_TLS);
    let quoted = serde_json::to_string(&script.json()).unwrap();
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain(&format!("- conformance: {quoted}"))
        .guest("conformance", LIMITS)
        .listener(TLS)
        .pair("web", &web)
        .file("ca.pem", authority.certificate())
        .cluster("one", &[&one])
        .start()
        .await;
    let client = TlsClient::with_certificate("web.example", &authority, &theirs);
    client.http1(gate.address()).await.get("/").await;
    let report = entered(gate.log(), "log", 1).await.pop().unwrap();
    assert_eq!(report.statuses(), [OK; 11]);
    let values: Vec<_> =
        (0..11).map(|place| String::from_utf8(bytes_of(report.value(place))).unwrap()).collect();
    let names =
        ["web.example", "client.example", "spiffe://mesh.example/web", "spiffe://mesh.example/client"];
    assert_eq!((&*values[0], &*values[1]), ("web.example", "TLSv1.3"));
    assert_eq!(values[2..6], names);
    assert_eq!(values[8].len(), 64, "{values:?}");
    assert!(values[9].starts_with("-----BEGIN%20CERTIFICATE-----"), "{values:?}");
    assert_eq!(values[10], "\u{1}");
}

/// What is read of a connection to an endpoint with TLS.
pub(super) const OF_TLS_TO_THE_ENDPOINT: [&str; 9] = [
    "upstream\0tls_version",
    "upstream\0subject_local_certificate",
    "upstream\0subject_peer_certificate",
    "upstream\0dns_san_local_certificate",
    "upstream\0dns_san_peer_certificate",
    "upstream\0uri_san_local_certificate",
    "upstream\0uri_san_peer_certificate",
    "upstream\0sha256_peer_certificate_digest",
    "upstream\0peer_certificate",
];

/// Of a connection to an endpoint on which both sides showed a certificate.
#[tokio::test]
pub(super) async fn of_tls_to_the_endpoint() {
    const TLS: &str = "tls: {ca: ca.pem, server_name: api.example, certificate: own.pem, key: own.key}";
    let authority = Authority::new();
    let theirs = authority.issue(&Says::name("api.example").and_uri("spiffe://mesh.example/api"));
    let own = authority.issue(&Says::name("gate.example").and_uri("spiffe://mesh.example/gate"));
    let one = Backend::echo("one").await;
    let front = TlsFront::to(one.address(), &theirs).asking(&authority).start().await;
    let quoted = serde_json::to_string(&reading(OF_TLS_TO_THE_ENDPOINT).json()).unwrap();
    let gate = Meshgate::chain(&format!("- conformance: {quoted}"))
        .guest("conformance", LIMITS)
        .pair("own", &own)
        .file("ca.pem", authority.certificate())
        .cluster_of("one", &[front.address()], TLS)
        .start()
        .await;
    assert_eq!(gate.get("/").await.status, 200);
    let report = entered(gate.log(), "log", 1).await.pop().unwrap();
    assert_eq!(report.statuses(), [OK; 9]);
    let values: Vec<_> =
        (0..9).map(|place| String::from_utf8(bytes_of(report.value(place))).unwrap()).collect();
    let (digest, pem) = (theirs.sha256(), theirs.url_encoded());
    let expected = [
        "TLSv1.3",
        "CN=gate.example,O=Test\\, Inc.",
        "CN=api.example,O=Test\\, Inc.",
        "gate.example",
        "api.example",
        "spiffe://mesh.example/gate",
        "spiffe://mesh.example/api",
        &digest,
        &pem,
    ];
    assert_eq!(values, expected);
}
