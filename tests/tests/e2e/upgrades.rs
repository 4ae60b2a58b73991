//! Connections that change their protocol in the middle: WebSocket and others. Heads are an exchange's, bytes are the two
//! sides' alone; both ends are passed on as they were.

use std::sync::Arc;

use meshgate_tests::{
    Ask, Backend, Ended, Meshgate, Message, RawBackend, Setup, Socket, SocketBackend, WebSocket,
    WebSocketBackend, Wire, until, written,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What clients of `x-tunnel` send, and what its servers answer.
const OFFER: &str = "GET /up HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: x-tunnel\r\n\r\n";
const TAKEN: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x-tunnel\r\n\r\n";

fn proxy(chain: &str, address: std::net::SocketAddr) -> Setup {
    Meshgate::chain(chain).cluster_of("one", &[address], "")
}

/// A proxy that lets clients change to `x-tunnel`, with these keys of the listener, and its backend.
async fn tunnelling(keys: &[&str]) -> (Meshgate, SocketBackend) {
    let backend = SocketBackend::start().await;
    let setup = proxy("", backend.address()).listener("upgrades: [websocket, x-tunnel]");
    (keys.iter().fold(setup, |setup, key| setup.listener(key)).start().await, backend)
}

/// Reads a head up to its empty line.
async fn head(socket: &mut Socket) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(socket.read(1).await);
    }
    String::from_utf8(head).unwrap()
}

/// A client and the backend's connection, both past the change.
async fn tunnel(gate: &Meshgate, backend: &SocketBackend) -> (Socket, Socket) {
    let mut client = Socket::connect(gate.address()).await;
    client.write(OFFER).await;
    let mut server = backend.accept().await;
    assert!(head(&mut server).await.starts_with("GET /up HTTP/1.1\r\n"));
    server.write(TAKEN).await;
    assert!(head(&mut client).await.starts_with("HTTP/1.1 101 "));
    (client, server)
}

async fn active(gate: &Meshgate) -> f64 {
    gate.metrics().await.sum("meshgate_downstream_upgrades_active", &[("listener", "web")])
}

/// Ways in which `ender` ends a stream.
pub(crate) const CLOSES: &str = "(drop (call $close (i32.const 1)))";
pub(crate) const ANSWERS: &str = "(call $answer (i32.const 429))";

/// A filter that looks at no body. It answers requests with `x-end`, and the next tick ends the stream of the last request
/// without in this way.
pub(crate) fn ender(end: &str) -> Vec<u8> {
    written(
        r#"(import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_set_tick_period_milliseconds" (func $tick (param i32) (result i32)))
        (import "env" "proxy_set_effective_context" (func $effective (param i32) (result i32)))
        (import "env" "proxy_close_stream" (func $close (param i32) (result i32)))
        (import "env" "proxy_send_local_response"
            (func $send (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))"#,
        &format!(
            r#"(data (i32.const 16) "x-end")
            (global $stream (mut i32) (i32.const 0))
            (global $due (mut i32) (i32.const 0))
            (func $answer (param $status i32)
              (drop (call $send (local.get $status) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
                (i32.const 0) (i32.const 0) (i32.const -1))))
            (func (export "proxy_on_configure") (param i32 i32) (result i32)
              (drop (call $tick (i32.const 10))) (i32.const 1))
            (func (export "proxy_on_request_headers") (param $context i32) (param i32 i32) (result i32)
              (if (call $get (i32.const 0) (i32.const 16) (i32.const 5) (i32.const 32) (i32.const 36)) (then
                (global.set $stream (local.get $context))
                (return (i32.const 0))))
              (global.set $due (i32.const 1))
              (call $answer (i32.const 200))
              (i32.const 1))
            (func (export "proxy_on_tick") (param i32)
              (if (i32.eqz (global.get $due)) (then (return)))
              (global.set $due (i32.const 0))
              (drop (call $effective (global.get $stream)))
              {end})"#
        ),
    )
}

/// Has the next tick of `ender` end the stream of the last request.
pub(crate) async fn end_from_a_tick(gate: &Meshgate) {
    assert_eq!(gate.call(Ask::get("/").header("x-end", "1")).await.status, 200);
}

#[tokio::test]
async fn websocket_lives_on_across_a_reload() {
    let backend = WebSocketBackend::start().await;
    let chain = "- headers: {request: {set: {x-in: seen}}, response: {set: {x-out: seen}}}";
    let setup = proxy(chain, backend.address());
    let gate = setup.clone().start().await;
    let offered = [("sec-websocket-protocol", "chat"), ("origin", "http://a.example")];
    let (mut client, answer) = WebSocket::asking(gate.address(), "/chat?room=1", &offered).await;
    assert_eq!(
        (&answer["x-out"], &answer["sec-websocket-protocol"]),
        (&"seen".parse().unwrap(), &"chat".parse().unwrap())
    );
    let seen = backend.seen().remove(0);
    assert_eq!(seen.uri(), "/chat?room=1");
    for (name, value) in [
        ("x-in", "seen"),
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("origin", "http://a.example"),
        ("via", "1.1 meshgate"),
        ("x-forwarded-for", "127.0.0.1"),
    ] {
        assert_eq!(seen.headers()[name], value, "{name}");
    }
    client.echo("before").await;
    assert_eq!(active(&gate).await, 1.0);

    let before = gate.reload().await;
    let fewer = setup.with_chain("- headers: {response: {set: {x-out: changed}}}").listener("upgrades: []");
    gate.replace("meshgate.yaml", fewer.yaml());
    gate.reloaded(&before).await;
    client.echo("after").await;
    let large = vec![7; 1 << 20];
    client.send(large.clone()).await;
    assert_eq!(client.next().await, Some(Message::binary(large)));
    client.close().await;

    let entry = gate.access("/chat?room=1").await;
    assert_eq!(entry["response_code"], 101, "{entry}");
    assert!(entry["response_flags"].is_null(), "{entry}");
    assert!(entry["bytes_received"].as_u64() > Some(1 << 20) && entry["bytes_sent"].as_u64() > Some(1 << 20));
    assert_eq!(active(&gate).await, 0.0);
    let metrics = gate.metrics().await;
    assert_eq!(metrics.sum("meshgate_downstream_upgrades_total", &[]), 1.0);
    assert_eq!(metrics.sum("meshgate_downstream_requests_total", &[("response_code_class", "1xx")]), 1.0);
}

#[tokio::test]
async fn endpoint_may_say_goodbye_first() {
    let backend = WebSocketBackend::start().await;
    let gate = proxy("", backend.address()).start().await;
    let mut client = WebSocket::connect(gate.address(), "/").await;
    client.send("bye").await;
    assert!(client.next().await.unwrap().is_close());
    assert_eq!(client.next().await, None);
    drop(client);
    assert!(gate.access("/").await["response_flags"].is_null());
}

#[tokio::test]
async fn refused_offer_is_an_ordinary_exchange() {
    let one = Backend::echo("one").await;
    let gate = proxy("", one.address()).start().await;
    let mut wire = Wire::connect(gate.address()).await;
    for _ in 0..3 {
        wire.write("GET /no HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await;
        let reply = wire.read_reply().await;
        assert_eq!((reply.status(), reply.header("upgrade"), reply.header("connection")), (200, "", ""));
    }
    assert_eq!(one.seen()[2].header("upgrade"), "websocket");
    assert_eq!(one.connections(), 1, "the endpoint's connection is as good as before");
}

#[tokio::test]
async fn offers_that_are_not_allowed_end_here() {
    let one = Backend::echo("one").await;
    let gate = proxy("", one.address()).listener("upgrades: []").start().await;
    let allowed = proxy("", one.address()).start().await;
    let (plain, body) = ("connection: upgrade\r\nupgrade: websocket\r\n", "content-length: 2\r\n");
    for (gate, version, offer, content) in [
        (&gate, "1.1", plain, ""),
        (
            &allowed,
            "1.1",
            "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n",
            "",
        ),
        (&allowed, "1.1", "upgrade: websocket\r\n", ""),
        (&allowed, "1.1", &format!("{plain}{body}"), "hi"),
        (&allowed, "1.0", plain, ""),
    ] {
        let mut wire = Wire::connect(gate.address()).await;
        wire.write(format!("GET /offer HTTP/{version}\r\nhost: a\r\n{offer}\r\n{content}")).await;
        assert_eq!(wire.read_reply().await.status(), 200, "{offer}");
    }
    assert_eq!(one.requests(), 5);
    for seen in one.seen() {
        for name in ["upgrade", "http2-settings", "connection"] {
            assert!(!seen.headers.contains_key(name), "{name}: {seen:?}");
        }
    }
}

#[tokio::test]
async fn filters_see_the_offer_and_may_take_it_back_or_answer() {
    let one = Backend::echo("one").await;
    let gate = proxy("- headers: {request: {remove: [upgrade]}}", one.address()).start().await;
    let offer = || Ask::get("/").header("connection", "upgrade").header("upgrade", "websocket");
    let headers = gate.call(offer()).await.json()["headers"].clone();
    assert!(headers["upgrade"].is_null() && headers["connection"].is_null(), "{headers}");

    // No route for them: the filters' answer takes the place of the change.
    let routing = "- routing: {routes: [{name: plain, match: {headers: {x-plain: \"1\"}}, to: one}]}";
    let gate = proxy(routing, one.address()).without_default_cluster().start().await;
    assert_eq!(gate.call(offer()).await.status, 404);
    assert_eq!(gate.call(offer().header("x-plain", "1")).await.status, 200);
}

#[tokio::test]
async fn a_pooled_connection_leaves_the_pool() {
    let backend = RawBackend::start(|number, mut wire| async move {
        while let Some(head) = wire.read_head().await {
            if head.contains("upgrade: x-tunnel") {
                wire.write(format!("{TAKEN}{number}")).await;
                wire.read_to_end().await;
                return;
            }
            wire.write(format!("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{number}")).await;
        }
    })
    .await;
    let gate = proxy("", backend.address()).listener("upgrades: [x-tunnel]").start().await;
    assert_eq!(gate.get("/").await.text(), "1");
    let mut tunnel = Wire::connect(gate.address()).await;
    tunnel.write(OFFER).await;
    assert!(tunnel.read_head().await.unwrap().starts_with("HTTP/1.1 101 "));
    assert_eq!(tunnel.read(1).await, b"1", "over the connection that was there");
    assert_eq!(gate.get("/").await.text(), "2", "which serves nobody else from then on");
    tunnel.finish_writing().await;
    tunnel.read_to_end().await;
    assert_eq!(gate.get("/").await.text(), "2");
}

#[tokio::test]
async fn bytes_that_come_with_a_head_are_passed_on() {
    let (gate, backend) = tunnelling(&[]).await;
    let mut client = Socket::connect(gate.address()).await;
    client.write(format!("{OFFER}early")).await;
    let mut server = backend.accept().await;
    head(&mut server).await;
    server.write(format!("{TAKEN}welcome")).await;
    assert!(head(&mut client).await.starts_with("HTTP/1.1 101 "));
    client.expect("welcome").await;
    server.expect("early").await;
    client.write("more").await;
    server.expect("more").await;
    server.finish().await;
    assert_eq!(client.end().await, Ended::in_order(""));
    client.finish().await;
    assert_eq!(server.end().await, Ended::in_order(""));
    let entry = gate.access("/up").await;
    assert_eq!((entry["bytes_received"].as_u64(), entry["bytes_sent"].as_u64()), (Some(9), Some(7)));
}

#[tokio::test]
async fn either_side_may_end_first_and_still_hear_the_other() {
    let (gate, backend) = tunnelling(&[]).await;
    let (mut client, mut server) = tunnel(&gate, &backend).await;
    client.write("question").await;
    client.finish().await;
    assert_eq!(server.end().await, Ended::in_order("question"));
    server.write("answer").await;
    server.finish().await;
    assert_eq!(client.end().await, Ended::in_order("answer"));

    let (mut client, mut server) = tunnel(&gate, &backend).await;
    server.write("greeting").await;
    server.finish().await;
    assert_eq!(client.end().await, Ended::in_order("greeting"));
    client.write("thanks").await;
    client.finish().await;
    assert_eq!(server.end().await, Ended::in_order("thanks"));
    until("both are logged", || async { (gate.access_log().len() == 2).then_some(()) }).await;
    assert!(gate.access_log().iter().all(|entry| entry["response_flags"].is_null()));
}

#[tokio::test]
async fn a_reset_is_passed_on_as_one() {
    let (gate, backend) = tunnelling(&[]).await;
    let (client, mut server) = tunnel(&gate, &backend).await;
    client.reset();
    assert!(server.end().await.reset);
    let (mut client, server) = tunnel(&gate, &backend).await;
    server.reset();
    assert!(client.end().await.reset);
    until("both are logged", || async { (gate.access_log().len() == 2).then_some(()) }).await;
    let flags: Vec<_> = gate.access_log().iter().map(|entry| entry["response_flags"].clone()).collect();
    assert_eq!(flags, ["DC", "UC"]);
}

#[tokio::test]
async fn silence_ends_it_and_bytes_do_not() {
    let (gate, backend) = tunnelling(&["upgrade_idle_timeout: 300ms", "idle_timeout: 10ms"]).await;
    let (mut client, mut server) = tunnel(&gate, &backend).await;
    for _ in 0..10 {
        client.write("x").await;
        server.expect("x").await;
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(client.end().await, Ended::in_order(""));
    assert_eq!(server.end().await, Ended::in_order(""));
    let entry = gate.access("/up").await;
    assert_eq!(
        (&entry["response_flags"], &entry["response_code_details"]),
        (&"SI".into(), &"idle_timeout".into())
    );
}

#[tokio::test]
async fn a_filter_ends_it_from_a_tick() {
    let chat = WebSocketBackend::start().await;
    for (end, details) in [(CLOSES, "wasm_close"), (ANSWERS, "wasm_late_response")] {
        let gate = proxy("- ender", chat.address()).filter("ender", &ender(end), "").start().await;
        let mut client = WebSocket::connect(gate.address(), "/chat").await;
        client.echo("before").await;
        end_from_a_tick(&gate).await;
        assert_eq!(client.next().await, None, "{end}");
        let entry = gate.access("/chat").await;
        assert_eq!(
            (&entry["response_flags"], &entry["response_code_details"]),
            (&"LR".into(), &details.into()),
            "{entry}"
        );
        assert_eq!(entry["response_code"], 101, "{entry}");
        until("it is over", || async { (active(&gate).await == 0.0).then_some(()) }).await;
    }

    // Nobody is to take what came for the whole.
    let backend = SocketBackend::start().await;
    let setup = proxy("- ender", backend.address()).listener("upgrades: [x-tunnel]");
    let gate = setup.filter("ender", &ender(CLOSES), "").start().await;
    let (mut client, mut server) = tunnel(&gate, &backend).await;
    client.write("to the server").await;
    server.expect("to the server").await;
    end_from_a_tick(&gate).await;
    assert!(client.end().await.reset && server.end().await.reset);
}

#[tokio::test]
async fn answers_that_nobody_offered_are_refused() {
    let other = TAKEN.replace("x-tunnel", "x-other");
    let (plain, offer) = ("GET /up HTTP/1.1\r\nhost: a\r\n\r\n", OFFER);
    for (request, answer) in [(plain, TAKEN), (offer, other.as_str())] {
        let (gate, backend) = tunnelling(&[]).await;
        let mut client = Socket::connect(gate.address()).await;
        client.write(request).await;
        let mut server = backend.accept().await;
        head(&mut server).await;
        server.write(answer).await;
        assert!(head(&mut client).await.starts_with("HTTP/1.1 502 "));
        assert_eq!(gate.access("/up").await["response_flags"], "UPE");
        assert_eq!(server.end().await.bytes, b"", "the connection is of no use any more");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_directions_run_at_once_and_unchanged() {
    let (gate, backend) = tunnelling(&[]).await;
    let (client, server) = tunnel(&gate, &backend).await;
    let up: Arc<Vec<u8>> = Arc::new((0..8_000_000_u32).map(|at| (at % 251) as u8).collect());
    let down: Arc<Vec<u8>> = Arc::new((0..8_000_000_u32).map(|at| (at % 241) as u8).collect());
    let mut tasks = tokio::task::JoinSet::new();
    for (side, sends, expects) in [(client, up.clone(), down.clone()), (server, down, up)] {
        let (mut from, mut to) = side.split();
        tasks.spawn(async move {
            to.write_all(&sends).await.unwrap();
            to.shutdown().await.unwrap();
            true
        });
        tasks.spawn(async move {
            let mut bytes = Vec::new();
            from.read_to_end(&mut bytes).await.unwrap();
            bytes == *expects
        });
    }
    assert!(tasks.join_all().await.into_iter().all(|good| good));
}

#[tokio::test]
async fn a_drain_lets_it_end_by_itself() {
    let (gate, backend) = tunnelling(&[]).await;
    let (mut client, mut server) = tunnel(&gate, &backend).await;
    gate.terminate();
    until("GET /ready is answered by 503", || async {
        (gate.admin("/ready").await.status == 503).then_some(())
    })
    .await;
    client.write("still here").await;
    server.expect("still here").await;
    server.finish().await;
    assert_eq!(client.end().await, Ended::in_order(""));
    client.finish().await;
    let stopped = gate.wait().await;
    assert!(stopped.status.success());
    assert_eq!(stopped.access_log.len(), 1);
}

#[tokio::test]
async fn a_drain_does_not_wait_for_it_for_ever() {
    let backend = SocketBackend::start().await;
    let setup = proxy("", backend.address()).listener("upgrades: [x-tunnel]");
    let gate = setup.top("drain: {timeout: 200ms}").start().await;
    let (mut client, mut server) = tunnel(&gate, &backend).await;
    gate.terminate();
    assert_eq!(client.end().await.bytes, b"");
    assert_eq!(server.end().await.bytes, b"");
    let stopped = gate.wait().await;
    let entry = &stopped.access_log[0];
    assert_eq!(
        (&entry["response_flags"], &entry["response_code_details"]),
        (&"LR".into(), &"shutdown".into())
    );
}
