//! Properties: what is served, in which encoding, and the filters' own.

use std::time::{Duration, SystemTime};

use http::HeaderMap;

use super::world::*;
use crate::pairs;
use crate::*;

fn read(path: &str) -> Vec<Step> {
    let mut scratch = Scratch::default();
    let (path, length) = scratch.put(path.replace('.', "\0"));
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
    let world = World::new();
    let plugin = world.plugin();
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
        attributes.upstream_address = Some("192.0.2.9:9000".parse().unwrap());
        attributes.attempts = 2;
        attributes.response_flags = 4;
        attributes.response_code_details = Some("details".into());
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
        ("node", ""),
        ("xds.node", ""),
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
        ("listener_direction", 0),
        ("xds.listener_direction", 0),
    ];
    for (path, number) in expected {
        assert_eq!(logged(path), Some(u64::to_le_bytes(number).to_vec()), "{path}");
    }
    assert_eq!(logged("connection.mtls"), Some(vec![0]));
}

#[test]
fn maps_are_pairs() {
    let all = logged("response.headers").unwrap();
    let expected: [(&[u8], &[u8]); 2] = [(b":status", b"404"), (b"x-r", b"r")];
    assert_eq!(pairs::decode(&all).unwrap(), expected);
    assert_eq!(pairs::decode(&logged("request.headers").unwrap()).unwrap().len(), 9);
    assert_eq!(pairs::decode(&logged("response.trailers").unwrap()).unwrap().len(), 1);
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
        "connection.tls_version",
        "connection.requested_server_name",
        "upstream.local_address",
        "metadata.filter_metadata.x",
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
    assert_eq!(http.attributes.custom.find(b"my\0key").unwrap(), "again");
    assert_eq!(http.attributes.custom.iter().count(), 2);
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
        assert!(custom.set(number.to_string().as_bytes(), "x".into()));
    }
    assert!(!custom.set(b"more", "x".into()));
    let large = bytes::Bytes::from(vec![0; CustomProperties::MAX_BYTES - 10_000]);
    assert!(custom.set(b"1", large.clone()) && custom.set(b"1", large.clone()) && !custom.set(b"2", large));
    assert!(custom.set(b"1", "".into()));
}
