//! Properties: what is served, in which encoding, and the filters' own.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::HeaderMap;
use serde_json::json;

use super::world::*;
use crate::pairs;
use crate::*;

fn read(path: &str) -> Vec<Step> {
    let mut scratch = Scratch::default();
    let (path, length) = scratch.put(path.replace('.', "\0").replace('!', "."));
    vec![scratch.step(), call("proxy_get_property", [path, length, OUT, OUT + 4])]
}

fn write(path: &str, value: &str) -> Vec<Step> {
    let mut scratch = Scratch::default();
    let (path, length) = scratch.put(path.replace('.', "\0"));
    let (value, size) = scratch.put(value);
    vec![scratch.step(), call("proxy_set_property", [path, length, value, size])]
}

/// A complete exchange, read when it is logged.
fn logged(path: &str) -> Option<Vec<u8>> {
    logged_as(PropertyForm::Binary, path)
}

fn metadata(value: serde_json::Value) -> Metadata {
    match value {
        serde_json::Value::Object(map) => map,
        other => panic!("{other}"),
    }
}

fn certificate(name: &str) -> Option<Arc<Certificate>> {
    Some(Arc::new(Certificate {
        subject: format!("CN={name}").into(),
        dns_san: Some(format!("{name}.example").into()),
        uri_san: (name == "peer").then(|| "spiffe://example/peer".into()),
        sha256: "abc".into(),
        pem: "-----BEGIN%20".into(),
    }))
}

fn logged_as(form: PropertyForm, path: &str) -> Option<Vec<u8>> {
    let world = World::new();
    let mut with = spec("");
    with.compatibility.properties = form;
    let names = metadata(json!({"REGION": "north", "PORTS": [80], "DEEP": {"on": true}}));
    let here = Locality { region: "north".into(), zone: "north-1".into(), sub_zone: "north-1-a".into() };
    with.node =
        Arc::new(Node { id: "node-1".into(), cluster: "gateways".into(), locality: here, metadata: names });
    let plugin = world.vms.plugin(with.into()).unwrap();
    let exchange = world.exchange();
    {
        let mut http = exchange.http().borrow_mut();
        http.request.headers.insert("user-agent", "agent".parse().unwrap());
        http.request.headers.insert("x-request-id", "id-1".parse().unwrap());
        let mut head = response(404);
        head.headers.insert("x-r", "r".parse().unwrap());
        http.response = Some(head);
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "5".parse().unwrap());
        http.response_trailers = Some(trailers);
        let attributes = &mut http.attributes;
        attributes.start = SystemTime::UNIX_EPOCH + Duration::from_secs(3);
        attributes.duration = Some(Duration::from_millis(2));
        attributes.request_bytes = 10;
        attributes.response_bytes = 20;
        attributes.route = Some("the route".into());
        attributes.cluster = Some("the cluster".into());
        attributes.upstream_address = Some(Address::Ip("192.0.2.9:9000".parse().unwrap()));
        attributes.attempts = 2;
        attributes.response_flags = 4;
        attributes.response_code_details = Some("details".into());
        attributes.upstream_local_address = Some(Address::Ip("192.0.2.3:40000".parse().unwrap()));
        attributes.upstream_endpoints = Some(3);
        let locality = Locality { region: "north".into(), zone: "north-1".into(), ..Locality::default() };
        let facts = metadata(json!({"envoy.lb": {"version": "v2"}}));
        attributes.upstream_facts = Some(Rc::new(EndpointFacts { locality, metadata: facts }));
        for (name, value) in
            [("envoy.filters.http.jwt_authn", r#"{"jwt": {"sub": "eve", "n": [1]}}"#), ("a.text", "text")]
        {
            assert!(attributes.custom.set(name.as_bytes(), value.as_bytes()));
        }
        attributes.upstream_ready_after = Some(Duration::from_micros(5));
        attributes.upstream_failure = Some("refused".into());
        attributes.upstream_tls =
            Some(Rc::new(Tls { version: Some("TLSv1.2"), peer: certificate("peer"), ..Tls::default() }));
        attributes.cluster_metadata = Some(Rc::new(metadata(json!({"a.filter": {"k": "of the cluster"}}))));
        let facts = metadata(json!({"a.filter": {"k": "of the listener"}}));
        attributes.listener =
            Some(Rc::new(ListenerFacts { direction: Direction::Outbound, metadata: facts }));
        let mut connection =
            Connection::cleartext(7, attributes.connection.source, attributes.connection.destination);
        connection.tls = Some(Tls {
            version: Some("TLSv1.3"),
            server_name: Some("web.example".into()),
            local: certificate("local"),
            peer: certificate("peer"),
        });
        attributes.connection = Rc::new(connection);
    }
    let stream = plugin.stream(exchange.clone(), 0).unwrap();
    world.script("proxy_on_log", [read(path), vec![Step::PeekAt(OUT)]].concat());
    world.take();
    drop(stream);
    match &world.take()[2..] {
        [Event::Status(0), Event::Peek(value), ..] => Some(value.clone()),
        [Event::Status(1), ..] => None,
        other => panic!("{path}: {other:?}"),
    }
}

#[test]
fn text_is_raw() {
    let expected = [
        ("request.path", "/path?query=1"),
        ("request.url_path", "/path"),
        ("request.query", "query=1"),
        ("request.host", "example.com"),
        ("request.scheme", "http"),
        ("request.method", "GET"),
        ("request.useragent", "agent"),
        ("request.id", "id-1"),
        ("request.protocol", "HTTP/2"),
        ("request.headers.x-a", "1,2"),
        ("request.headers.X-A", "1,2"),
        ("response.headers.x-r", "r"),
        ("response.trailers.grpc-status", "5"),
        ("response.code_details", "details"),
        ("source.address", "192.0.2.1:1234"),
        ("destination.address", "192.0.2.2:80"),
        ("upstream.address", "192.0.2.9:9000"),
        ("xds.route_name", "the route"),
        ("xds.cluster_name", "the cluster"),
        ("route_name", "the route"),
        ("cluster_name", "the cluster"),
        ("plugin_name", "puppet"),
        ("plugin_root_id", ""),
        ("plugin_vm_id", ""),
        ("node.id", "node-1"),
        ("xds.node.cluster", "gateways"),
        ("node.metadata.REGION", "north"),
        ("xds.cluster_metadata.filter_metadata.a!filter.k", "of the cluster"),
        ("cluster_metadata.filter_metadata.a!filter.k", "of the cluster"),
        ("xds.listener_metadata.filter_metadata.a!filter.k", "of the listener"),
        ("connection.requested_server_name", "web.example"),
        ("connection.tls_version", "TLSv1.3"),
        ("connection.subject_local_certificate", "CN=local"),
        ("connection.subject_peer_certificate", "CN=peer"),
        ("connection.dns_san_local_certificate", "local.example"),
        ("connection.dns_san_peer_certificate", "peer.example"),
        ("connection.uri_san_peer_certificate", "spiffe://example/peer"),
        ("connection.sha256_peer_certificate_digest", "abc"),
        ("connection.peer_certificate", "-----BEGIN%20"),
        ("upstream.local_address", "192.0.2.3:40000"),
        ("upstream.tls_version", "TLSv1.2"),
        ("upstream.uri_san_peer_certificate", "spiffe://example/peer"),
        ("upstream.transport_failure_reason", "refused"),
        ("upstream.locality.region", "north"),
        ("upstream.locality.zone", "north-1"),
        ("upstream_host_metadata.filter_metadata.envoy!lb.version", "v2"),
        ("xds.upstream_host_metadata.filter_metadata.envoy!lb.version", "v2"),
        ("metadata.filter_metadata.envoy!filters!http!jwt_authn.jwt.sub", "eve"),
        ("node.locality.sub_zone", "north-1-a"),
        // A NUL at the end.
        ("request.method.", "GET"),
    ];
    for (path, text) in expected {
        let found = logged(path).map(|value| String::from_utf8(value).unwrap());
        assert_eq!(found.as_deref(), Some(text), "{path}");
    }
}

#[test]
fn numbers_are_eight_bytes_and_booleans_one() {
    let expected = [
        ("source.port", 1234),
        ("destination.port", 80),
        ("upstream.port", 9000),
        ("connection.id", 7),
        ("connection_id", 7),
        ("request.size", 10),
        ("request.time", 3_000_000_000),
        ("request.duration", 2_000_000),
        ("response.code", 404),
        ("response.size", 20),
        ("response.flags", 4),
        ("response.grpc_status", 5),
        ("response.headers_bytes", 14),
        ("response.total_size", 46),
        ("upstream.request_attempt_count", 2),
        ("upstream.local_port", 40_000),
        ("upstream.num_endpoints", 3),
        ("upstream.cx_pool_ready_duration", 5_000),
        ("listener_direction", 2),
        ("xds.listener_direction", 2),
    ];
    for (path, number) in expected {
        assert_eq!(logged(path), Some(u64::to_le_bytes(number).to_vec()), "{path}");
    }
    assert_eq!(logged("connection.mtls"), Some(vec![1]));
    assert_eq!(logged("node.metadata.DEEP.on"), Some(vec![1]));
    assert_eq!(logged("node.metadata.PORTS.0"), Some(80_f64.to_le_bytes().to_vec()));
}

#[test]
fn a_filter_may_have_them_all_as_text() {
    let expected = [
        ("request.path", "/path?query=1"),
        ("response.code", "404"),
        ("request.time", "3.000"),
        ("request.duration", "0.002"),
        ("source.address", "192.0.2.1"),
        ("source.port", "1234"),
        ("connection.mtls", "true"),
        ("node.metadata.DEEP", r#"{"on":true}"#),
        ("xds.listener_direction", "2"),
    ];
    for (path, text) in expected {
        let found = logged_as(PropertyForm::Text, path).map(|value| String::from_utf8(value).unwrap());
        assert_eq!(found.as_deref(), Some(text), "{path}");
    }
}

#[test]
fn a_cleartext_connection_has_nothing_of_tls() {
    let world = World::new();
    let paths = ["tls_version", "requested_server_name", "subject_peer_certificate", "peer_certificate"];
    let mut steps: Vec<Step> = paths.iter().flat_map(|name| read(&format!("connection.{name}"))).collect();
    steps.extend(read("upstream.tls_version"));
    steps.extend([read("connection.mtls"), vec![Step::PeekAt(OUT)]].concat());
    world.script("proxy_on_request_headers", steps);
    let plugin = world.plugin();
    let stream = plugin.stream(world.exchange(), 0).unwrap();
    world.take();
    stream.on_request_headers(true).unwrap();
    let events = world.take();
    assert_eq!(events[1..6], [const { Event::Status(1) }; 5]);
    assert_eq!(events[6..], [Event::Status(0), Event::Peek(vec![0])]);
}

#[test]
fn what_lasts_as_long_as_the_connection_is_found_by_later_exchanges() {
    let world = World::new();
    let plugin = world.plugin();
    let exchange = world.exchange();
    {
        let http = exchange.http().borrow();
        let mut custom = http.attributes.connection.custom.borrow_mut();
        assert!(custom.set(b"kept", b"of the connection") && custom.set(b"both", b"hidden"));
    }
    assert!(exchange.http().borrow_mut().attributes.custom.set(b"both", b"of the exchange"));
    let found =
        ["kept", "both", "filter_state.wasm!kept"].map(|path| [read(path), vec![Step::PeekAt(OUT)]].concat());
    world.script("proxy_on_request_headers", found.concat());
    let stream = plugin.stream(exchange, 0).unwrap();
    world.take();
    stream.on_request_headers(true).unwrap();
    let texts = |event| if let Event::Peek(bytes) = event { String::from_utf8(bytes).ok() } else { None };
    let texts: Vec<_> = world.take().into_iter().filter_map(texts).collect();
    assert_eq!(texts, ["of the connection", "of the exchange", "of the connection"]);
}

#[test]
fn maps_are_pairs() {
    let all = logged("response.headers").unwrap();
    let expected: [(&[u8], &[u8]); 2] = [(b":status", b"404"), (b"x-r", b"r")];
    assert_eq!(pairs::decode(&all).unwrap(), expected);
    assert_eq!(pairs::decode(&logged("request.headers").unwrap()).unwrap().len(), 9);
    assert_eq!(pairs::decode(&logged("response.trailers").unwrap()).unwrap().len(), 1);
    assert_eq!(pairs::decode(&logged("xds.node.metadata").unwrap()).unwrap().len(), 3);
    assert_eq!(pairs::decode(&logged("xds.cluster_metadata.filter_metadata").unwrap()).unwrap().len(), 1);
    // Messages begin with their first field.
    assert_eq!(logged("upstream.locality").unwrap(), b"\x0a\x05north\x12\x07north-1");
    assert!(logged("upstream_host_metadata").unwrap().starts_with(b"\x0a"));
    let claims = logged("metadata.filter_metadata.envoy!filters!http!jwt_authn.jwt").unwrap();
    assert_eq!(pairs::decode(&claims).unwrap().len(), 2);
    assert!(logged("node").unwrap().starts_with(b"\x0a\x06node-1\x12\x08gateways"));
    assert!(logged("xds.listener_metadata").unwrap().starts_with(b"\x0a"));
}

#[test]
fn what_is_not_there_is_not_found() {
    let missing = [
        "",
        ".",
        "request",
        "request.nothing",
        "request.headers.x-none",
        "request.headersx",
        "response.backend_latency",
        "connection.uri_san_local_certificate",
        "connection.termination_details",
        "upstream.subject_local_certificate",
        "upstream.locality.sub_zone",
        "upstream.localities",
        "node.locality.nothing",
        "node.metadata.NOWHERE",
        "xds.route_metadata",
        "xds.virtual_host_name",
        "filter_state.nothing",
        "metadata.filter_metadata",
        "metadata.filter_metadata.x",
        "metadata.filter_metadata.a!text",
        "metadata.filter_metadata.envoy!filters!http!jwt_authn.jwt.x",
        "filter_state.x",
        "nothing",
        "plugin_name.x",
    ];
    for path in missing {
        assert_eq!(logged(path), None, "{path}");
    }
    let world = World::new();
    let statuses =
        world.run([read("response.code"), read("request.duration"), read("upstream.address")].concat());
    assert_eq!(statuses, [1, 1, 1], "not yet");
}

#[test]
fn filters_leave_properties_for_each_other() {
    let world = World::new();
    let plugin = world.plugin();
    let exchange = world.exchange();
    let first = plugin.stream(exchange.clone(), 0).unwrap();
    let writes = [
        write("my.key", "value"),
        write("my.key", "again"),
        write("request.method", "PUT"),
        write("", "x"),
        write(&"x".repeat(2_000), "x"),
        vec![call("proxy_set_property", [OUT, 4, u32::MAX, 4])],
    ];
    world.script("proxy_on_request_headers", writes.concat());
    world.take();
    first.on_request_headers(true).unwrap();
    assert_eq!(world.statuses(), [0, 0, 0, 2, 2, 6]);
    let second = plugin.stream(exchange.clone(), 1).unwrap();
    let reads = [
        read("my.key"),
        vec![Step::PeekAt(OUT)],
        read("request.method"),
        vec![Step::PeekAt(OUT)],
        read("my"),
    ];
    world.script("proxy_on_request_headers", reads.concat());
    world.take();
    second.on_request_headers(true).unwrap();
    let expected = [
        Event::Status(0),
        Event::Peek(b"again".to_vec()),
        Event::Status(0),
        Event::Peek(b"GET".to_vec()),
        Event::Status(1),
    ];
    assert_eq!(world.take()[1..], expected, "what the host serves does not change");
    let http = exchange.http().borrow();
    assert_eq!(http.attributes.custom.find(b"my\0key").unwrap(), b"again");
    assert_eq!(http.attributes.custom.iter().count(), 1, "nothing is kept in its place");
}

#[test]
fn a_plugin_without_a_stream_has_its_names_only() {
    let world = World::new();
    let steps = [read("plugin_name"), read("request.path"), write("x", "y"), read("node")];
    world.script("proxy_on_configure", steps.concat());
    let _plugin = world.vms.plugin(spec("").into()).unwrap();
    assert_eq!(world.statuses(), [0, 1, 1, 0]);
}

#[test]
fn what_filters_leave_is_bounded() {
    let mut custom = CustomProperties::default();
    for number in 0..CustomProperties::MAX_ENTRIES {
        assert!(custom.set(number.to_string().as_bytes(), b"x"));
    }
    assert!(!custom.set(b"more", b"x"));
    let large = vec![0; CustomProperties::MAX_BYTES - 10_000];
    assert!(custom.set(b"1", &large) && custom.set(b"1", &large) && !custom.set(b"2", &large));
    let other = vec![1; large.len()];
    assert!(custom.set(b"1", &other) && custom.find(b"1") == Some(&other), "of the same length");
    assert!(custom.set(b"1", b""));
    assert_eq!(custom.find(b"1"), Some(&b""[..]));
}
