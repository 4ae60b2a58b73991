//! Where Proxy-Wasm hosts differ: the switches of a filter (`compatibility`), and what filters made for other hosts ask
//! for: properties about the proxy itself, values by which Envoy is steered.

use meshgate_tests::{Ask, Backend, Client, Meshgate, RawBackend, Reply, Setup, until, written};

/// A chain of one `plain` with this configuration and these switches.
fn plain(configuration: &str, switches: &str) -> Setup {
    let more = format!("compatibility: {{{switches}}}");
    Meshgate::chain(&format!("- plain: {configuration}")).guest("plain", &more)
}

async fn over_both(gate: &Meshgate, ask: impl Fn() -> Ask) -> [Reply; 2] {
    [gate.call(ask()).await, Client::http2(gate.address()).await.call(ask()).await]
}

#[tokio::test]
async fn properties_come_as_bytes_or_as_text() {
    let one = Backend::echo("one").await;
    let properties = "{properties: {x-code: response/code, x-mtls: connection/mtls, x-path: request/path}}";
    for (switches, code, mtls) in [
        ("", "c800000000000000", "00"),
        ("properties: binary", "c800000000000000", "00"),
        ("properties: text", "200", "false"),
    ] {
        let gate = plain(properties, switches).cluster("one", &[&one]).start().await;
        let reply = gate.get("/a?b").await;
        assert_eq!(
            (reply.header("x-code"), reply.header("x-mtls"), reply.header("x-path")),
            (code, mtls, "/a?b")
        );
    }
}

#[tokio::test]
async fn a_failed_call_has_a_response_or_none() {
    let one = Backend::echo("one").await;
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    for (switches, status) in
        [("", "503"), ("failed_calls: response", "503"), ("failed_calls: empty", "failed")]
    {
        let gate = plain("{call: {at: request_headers, cluster: closed, path: /}}", switches)
            .cluster("one", &[&one])
            .cluster_of("closed", &[closed], "")
            .start()
            .await;
        assert_eq!(gate.get("/").await.json()["headers"]["x-call-status"], status, "{switches}");
    }
}

#[tokio::test]
async fn filters_read_what_the_configuration_says_of_the_proxy() {
    let (one, two) = (Backend::echo("one").await, Backend::echo("two").await);
    let gate = Meshgate::chain(
        "- plain: {properties: {x-id: node/id, x-group: xds/node/cluster, x-region: node/metadata/REGION, \
          x-first: node/metadata/LIST/0, x-direction: listener_direction, \
          x-listener: xds/listener_metadata/filter_metadata/me/k, \
          x-cluster: cluster_metadata/filter_metadata/me/k, x-root: plugin_root_id, \
          x-name: cluster_name, x-endpoints: upstream/num_endpoints, x-attempts: upstream/request_attempt_count, \
          x-ready: upstream/cx_pool_ready_duration, x-tls: connection/tls_version}}",
    )
    .guest("plain", "root_id: outer")
    .top("node: {id: gate-7, cluster: gates, metadata: {REGION: north, LIST: [a, b]}}")
    .listener("direction: inbound")
    .listener("metadata: {me: {k: of the listener}}")
    .cluster_of("one", &[one.address(), two.address()], "metadata: {me: {k: of the cluster}}")
    .start()
    .await;
    let reply = gate.get("/").await;
    let shown = |name| reply.header(name);
    assert_eq!((shown("x-id"), shown("x-group"), shown("x-region")), ("gate-7", "gates", "north"));
    assert_eq!((shown("x-first"), shown("x-direction")), ("a", "0100000000000000"));
    assert_eq!((shown("x-listener"), shown("x-cluster")), ("of the listener", "of the cluster"));
    assert_eq!((shown("x-root"), shown("x-name")), ("outer", "one"));
    assert_eq!((shown("x-endpoints"), shown("x-attempts")), ("0200000000000000", "0100000000000000"));
    assert_eq!(shown("x-ready").len(), 16, "{}", shown("x-ready"));
    assert_eq!(shown("x-tls"), "(none)");
}

#[tokio::test]
async fn a_change_of_the_node_reaches_filters() {
    let one = Backend::echo("one").await;
    let gate = plain("{properties: {x-id: node/id}}", "")
        .top("node: {id: before}")
        .cluster("one", &[&one])
        .start()
        .await;
    assert_eq!(gate.get("/").await.header("x-id"), "before");
    gate.edit("meshgate.yaml", gate.setup().yaml().replace("before", "after"));
    until("the new node to be read", || async {
        (gate.get("/").await.header("x-id") == "after").then_some(())
    })
    .await;
}

/// A filter that holds the request's and the response's headers until their bodies have come as a whole, and then adds
/// `x-held: yes` to them.
fn holder() -> Vec<u8> {
    let direction = |name: &str, map: u32| {
        format!(
            r#"(func (export "proxy_on_{name}_headers") (param i32 i32 i32) (result i32) (i32.eqz (local.get 2)))
            (func (export "proxy_on_{name}_body") (param i32 i32 i32) (result i32)
              (if (i32.eqz (local.get 2)) (then (return (i32.const 1))))
              (call $mark (i32.const {map})) (i32.const 0))
            (func (export "proxy_on_{name}_trailers") (param i32 i32) (result i32)
              (call $mark (i32.const {map})) (i32.const 0))"#
        )
    };
    let mark = r#"(data (i32.const 16) "x-heldyes")
        (func $mark (param i32)
          (drop (call $set (local.get 0) (i32.const 16) (i32.const 6) (i32.const 22) (i32.const 3))))"#;
    written(
        r#"(import "env" "proxy_replace_header_map_value" (func $set (param i32 i32 i32 i32 i32) (result i32)))"#,
        &format!("{mark} {} {}", direction("request", 0), direction("response", 2)),
    )
}

const HOLD: &str = "compatibility: {stop_iteration: hold_headers}";

#[tokio::test]
async fn headers_are_held_until_the_body_was_seen() {
    let one = Backend::echo("one").await;
    for chain in [
        "- holder",
        "- holder\n- plain: {request_body: {append: \"!\"}, request: {set: {x-later: seen}}}",
        "- plain: {request_body: {append: \"!\"}, request: {set: {x-later: seen}}}\n- holder",
        "- holder\n- holder\n- holder",
    ] {
        let gate = Meshgate::chain(chain)
            .filter("holder", &holder(), HOLD)
            .guest("plain", "")
            .cluster("one", &[&one])
            .start()
            .await;
        let plain = chain.contains("plain");
        let expected = if plain { "a body!" } else { "a body" };
        for reply in over_both(&gate, || Ask::post("/", "a body")).await {
            let seen = reply.json();
            assert_eq!(
                (&seen["body"], &seen["headers"]["x-held"]),
                (&expected.into(), &"yes".into()),
                "{chain}"
            );
            assert_eq!(seen["headers"]["x-later"].is_null(), !plain, "{chain}");
            assert_eq!((reply.status.as_u16(), reply.header("x-held")), (200, "yes"), "{chain}");
        }
        // No body, nothing to hold.
        for reply in over_both(&gate, || Ask::get("/")).await {
            assert!(reply.json()["headers"]["x-held"].is_null(), "{chain}");
        }
        for reply in over_both(&gate, || Ask::post("/", "with trailers").trailers(&[("x-sum", "1")])).await {
            assert_eq!(reply.json()["headers"]["x-held"], "yes", "{chain}");
        }
    }
}

#[tokio::test]
async fn a_held_body_longer_than_the_limit_is_refused() {
    let one = Backend::echo("one").await;
    let limited = "limits: {body: 64KiB}, compatibility: {stop_iteration: hold_headers}";
    let gate = Meshgate::chain("- holder")
        .filter("holder", &holder(), limited)
        .cluster("one", &[&one])
        .start()
        .await;
    let reply = gate.call(Ask::post("/", vec![b'x'; 3 << 20])).await;
    assert_eq!((reply.status.as_u16(), one.requests()), (413, 0));
    assert_eq!(gate.access("/").await["response_flags"], "WL");
    assert_eq!(gate.call(Ask::post("/", vec![b'x'; 10 << 10])).await.status, 200);
}

#[tokio::test]
async fn a_filter_that_holds_headers_may_answer_when_it_has_seen_the_body() {
    let one = Backend::echo("one").await;
    let module = written(
        r#"(import "env" "proxy_send_local_response"
            (func $answer (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))"#,
        r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 1))
        (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32)
          (drop (call $answer (i32.const 403) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
            (i32.const 0) (i32.const 0) (i32.const -1)))
          (i32.const 1))"#,
    );
    let gate = Meshgate::chain("- plain: {response: {set: {x-outer: seen}}}\n- judge")
        .filter("judge", &module, HOLD)
        .guest("plain", "")
        .cluster("one", &[&one])
        .start()
        .await;
    for reply in over_both(&gate, || Ask::post("/", "a body")).await {
        assert_eq!((reply.status.as_u16(), reply.header("x-outer"), one.requests()), (403, "seen", 0));
    }
}

#[tokio::test]
async fn a_response_that_breaks_while_its_headers_are_held_is_no_response() {
    let backend = RawBackend::start(|_, mut wire| async move {
        wire.read_head().await;
        wire.write("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this").await;
    })
    .await;
    let gate = Meshgate::chain("- plain: {response: {set: {x-outer: seen}}}\n- holder")
        .filter("holder", &holder(), HOLD)
        .guest("plain", "")
        .raw_cluster("one", &backend)
        .start()
        .await;
    let reply = gate.get("/").await;
    assert_eq!((reply.status.as_u16(), reply.header("x-outer")), (502, "seen"));
}

/// A filter that asks for cluster `two` for requests that carry `x-two`, for as long as `span` says.
fn chooser(span: u8) -> Vec<u8> {
    let message = ["\\0a\\17envoy.tcp_proxy.cluster\\12\\03two\\18", &format!("\\{span:02x}")].concat();
    written(
        r#"(import "env" "proxy_call_foreign_function"
            (func $foreign (param i32 i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))"#,
        &format!(
            r#"(data (i32.const 16) "set_envoy_filter_state") (data (i32.const 64) "{message}")
            (data (i32.const 128) "x-two")
            (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
              (if (i32.eqz (call $get (i32.const 0) (i32.const 128) (i32.const 5) (i32.const 200) (i32.const 204)))
                (then
                  (if (call $foreign (i32.const 16) (i32.const 22) (i32.const 64) (i32.const 32) (i32.const 0) (i32.const 0))
                    (then unreachable))))
              (i32.const 0))"#
        ),
    )
}

#[tokio::test]
async fn a_filter_made_for_envoy_chooses_the_cluster() {
    let (one, two) = (Backend::echo("one").await, Backend::echo("two").await);
    for (span, after) in [(0, "one"), (1, "one"), (2, "two")] {
        let gate = Meshgate::chain(
            "- chooser\n- plain: {properties: {x-state: filter_state/envoy.tcp_proxy.cluster}}",
        )
        .filter("chooser", &chooser(span), "")
        .guest("plain", "")
        .cluster("one", &[&one])
        .cluster("two", &[&two])
        .start()
        .await;
        let mut client = gate.client().await;
        assert_eq!(client.get("/").await.header("x-backend"), "one");
        let chosen = client.call(Ask::get("/").header("x-two", "1")).await;
        assert_eq!((chosen.header("x-backend"), chosen.header("x-state")), ("two", "two"));
        assert_eq!(client.get("/").await.header("x-backend"), after, "span {span}");
        assert_eq!(gate.get("/").await.header("x-backend"), "one", "another connection");
    }
}

#[tokio::test]
async fn a_module_that_imports_more_than_there_is_runs_and_is_named_in_the_log() {
    let one = Backend::echo("one").await;
    let module = written(
        r#"(import "env" "proxy_redis_call" (func $redis (param i32 i32 i32 i32 i32) (result i32)))"#,
        r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (if (i32.ne (i32.const 12) (call $redis (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)))
              (then unreachable))
            (i32.const 0))"#,
    );
    let gate = Meshgate::chain("- odd").filter("odd", &module, "").cluster("one", &[&one]).start().await;
    let named = |line: &str| line.contains("env.proxy_redis_call").then_some(());
    gate.log().wait("the import to be named", named).await;
    assert_eq!(gate.get("/").await.status, 200);
}
