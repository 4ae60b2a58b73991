//! Proxies in front that are believed when they say for whom they ask: what becomes of their word in requests, filters, logs
//! and load balancing.

use std::collections::HashSet;

use meshgate_tests::{Ask, Backend, Client, Meshgate, Socket, SocketBackend, Wire};
use tempfile::TempDir;

/// A listener whose clients in these tests are proxies that are believed.
const BELIEVED: &str = "forwarded: {from: [127.0.0.0/8, 10.0.0.0/8]}";
/// A filter that shows properties in fields of the response.
const SHOWN: &str =
    "- plain: {properties: {x-client: source/address, x-port: source/port, x-scheme: request/scheme}}";

/// A request of a proxy for a client that has lied to it.
fn passed_on(path: &str) -> Ask {
    Ask::get(path)
        .header("x-forwarded-for", "6.6.6.6, 192.0.2.7")
        .header("x-forwarded-for", "10.0.0.3")
        .header("x-forwarded-proto", "https")
        .header("x-forwarded-host", "shop.example")
        .header("x-forwarded-client-cert", "URI=spiffe://a/admin")
        .header("forwarded", "for=6.6.6.6")
        .header("x-request-id", "made-in-front")
}

#[tokio::test]
async fn requests_come_from_whom_a_proxy_names() {
    let one = Backend::echo("one").await;
    let gate =
        Meshgate::chain(SHOWN).guest("plain", "").listener(BELIEVED).cluster("one", &[&one]).start().await;
    for (path, mut client) in
        [("/over-http1", gate.client().await), ("/over-http2", Client::http2(gate.address()).await)]
    {
        let reply = client.call(passed_on(path)).await;
        assert_eq!(reply.header("x-client"), "192.0.2.7:0");
        assert_eq!((reply.header("x-port"), reply.header("x-scheme")), ("0000000000000000", "https"));
        let seen = one.seen().pop().unwrap();
        assert_eq!(seen.header("x-forwarded-for"), "192.0.2.7, 10.0.0.3, 127.0.0.1");
        assert_eq!(seen.header("x-forwarded-proto"), "https");
        assert_eq!(seen.header("x-forwarded-host"), "shop.example");
        assert_eq!(seen.header("x-request-id"), "made-in-front");
        for name in ["x-forwarded-client-cert", "forwarded"] {
            assert!(!seen.headers.contains_key(name), "{name} is not believed: {seen:?}");
        }
        let entry = gate.access(path).await;
        assert_eq!(entry["downstream_address"], "192.0.2.7:0");
        assert_eq!(entry["x_forwarded_for"], "192.0.2.7, 10.0.0.3, 127.0.0.1");
        // The connection carries others' requests, too, and the proxy's own.
        let reply = client.call(Ask::get("/other").header("x-forwarded-for", "192.0.2.8:99")).await;
        assert_eq!((reply.header("x-client"), reply.header("x-scheme")), ("192.0.2.8:99", "http"));
        assert!(client.get("/own").await.header("x-client").starts_with("127.0.0.1:"));
        assert_eq!(one.seen().pop().unwrap().header("x-forwarded-for"), "127.0.0.1");
    }
}

#[tokio::test]
async fn strangers_are_not_believed() {
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain(SHOWN)
        .guest("plain", "")
        .listener("forwarded: {from: [10.0.0.0/8, \"::1\"]}")
        .cluster("one", &[&one])
        .start()
        .await;
    let reply = gate.call(passed_on("/")).await;
    assert!(reply.header("x-client").starts_with("127.0.0.1:"));
    assert_eq!(reply.header("x-scheme"), "http");
    let seen = one.seen().pop().unwrap();
    assert_eq!((seen.header("x-forwarded-for"), seen.header("x-forwarded-proto")), ("127.0.0.1", "http"));
    assert!(!seen.headers.contains_key("x-forwarded-host"), "{seen:?}");
}

#[tokio::test]
async fn what_is_no_address_is_counted_and_goes_no_further() {
    let one = Backend::echo("one").await;
    let gate =
        Meshgate::chain(SHOWN).guest("plain", "").listener(BELIEVED).cluster("one", &[&one]).start().await;
    for (count, (said, client, left)) in [
        ("unknown", "127.0.0.1:", "127.0.0.1"),
        ("192.0.2.7, evil, 10.0.0.3", "10.0.0.3:0", "10.0.0.3, 127.0.0.1"),
        ("192.0.2.7;10.0.0.3", "127.0.0.1:", "127.0.0.1"),
    ]
    .into_iter()
    .enumerate()
    {
        let reply = gate.call(Ask::get("/").header("x-forwarded-for", said)).await;
        assert!(reply.header("x-client").starts_with(client), "{said}: {reply:?}");
        assert_eq!(one.seen().pop().unwrap().header("x-forwarded-for"), left, "{said}");
        let metrics = gate.metrics().await;
        let counted = metrics.sum("meshgate_downstream_forwarded_malformed_total", &[("listener", "web")]);
        assert_eq!(counted, (count + 1) as f64, "{said}");
    }
    // A request that is refused before any filter sees it has the same client in the log.
    let mut wire = Wire::connect(gate.address()).await;
    wire.write("TRACE /refused HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 192.0.2.7\r\n\r\n").await;
    assert_eq!(wire.read_reply().await.status(), 405);
    assert_eq!(gate.access("/refused").await["downstream_address"], "192.0.2.7:0");
}

#[tokio::test]
async fn other_fields_are_believed_if_they_are_named() {
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain(SHOWN)
        .guest("plain", "")
        .listener("forwarded: {from: [127.0.0.1], fields: [X-Forwarded-Client-Cert, forwarded]}")
        .cluster("one", &[&one])
        .start()
        .await;
    let reply = gate.call(passed_on("/")).await;
    assert!(reply.header("x-client").starts_with("127.0.0.1:"));
    assert_eq!(reply.header("x-scheme"), "http");
    let seen = one.seen().pop().unwrap();
    assert_eq!(seen.header("x-forwarded-client-cert"), "URI=spiffe://a/admin");
    assert_eq!(seen.header("forwarded"), "for=6.6.6.6");
    assert_eq!((seen.header("x-forwarded-for"), seen.header("x-forwarded-proto")), ("127.0.0.1", "http"));
    assert!(!seen.headers.contains_key("x-forwarded-host"), "{seen:?}");
}

#[tokio::test]
async fn filters_and_balancers_go_by_the_client() {
    let (one, two) = (Backend::echo("one").await, Backend::echo("two").await);
    let chain = "\
- authz: {deny: {strangers: {from: {addresses: [192.0.2.0/25]}}}}
- routing:
    routes:
      - {name: secure, match: {path: /secure, properties: {request/scheme: http}}, redirect: {scheme: https}}
      - {name: rest, match: {path: /**}, to: both}";
    let both = "load_balancer: {ring_hash: {by: source_address}}";
    let gate = Meshgate::chain(chain)
        .listener(BELIEVED)
        .cluster_of("both", &[one.address(), two.address()], both)
        .start()
        .await;
    let mut proxy = gate.client().await;
    let ask = |path: &str, client: &str| Ask::get(path).header("x-forwarded-for", client);
    assert_eq!(proxy.call(ask("/", "192.0.2.7")).await.status, 403);
    assert_eq!(proxy.call(ask("/", "192.0.2.7, 192.0.2.200")).await.status, 200);

    assert_eq!(proxy.call(ask("/secure", "192.0.2.200")).await.status, 301);
    let secure = ask("/secure", "192.0.2.200").header("x-forwarded-proto", "https");
    assert_eq!(proxy.call(secure).await.status, 200, "the client's connection is secure already");

    let mut used = HashSet::new();
    for number in 130..180 {
        let client = format!("192.0.2.{number}");
        let endpoint = proxy.call(ask("/", &client)).await.header("x-backend").to_owned();
        assert_eq!(proxy.call(ask("/", &client)).await.header("x-backend"), endpoint, "{client}");
        used.insert(endpoint);
    }
    assert_eq!(used.len(), 2, "one connection, many clients");
}

#[tokio::test]
async fn endpoints_are_told_the_client_by_the_proxy_protocol() {
    let backend = SocketBackend::start().await;
    let gate = Meshgate::chain("")
        .listener("proxy_protocol: {from: [127.0.0.0/8]}")
        .listener("forwarded: {from: [203.0.113.0/24]}")
        .cluster_of("one", &[backend.address()], "proxy_protocol: v1")
        .start()
        .await;
    // A balancer of connections in front of the proxy in front.
    for (edge, client) in [("203.0.113.5", "192.0.2.7"), ("198.51.100.5", "198.51.100.5")] {
        let mut front = Socket::connect(gate.address()).await;
        front.write(format!("PROXY TCP4 {edge} 127.0.0.1 4711 443\r\n")).await;
        front.write("GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 192.0.2.7\r\n\r\n").await;
        let mut server = backend.accept().await;
        server.expect(&format!("PROXY TCP4 {client} 127.0.0.1 ")).await;
    }
}

#[tokio::test]
async fn a_reload_changes_who_is_believed_on_open_connections() {
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain(SHOWN)
        .guest("plain", "")
        .listener("forwarded: {from: [10.0.0.0/8]}")
        .cluster("one", &[&one])
        .start()
        .await;
    let mut client = gate.client().await;
    for (from, expected) in [
        ("127.0.0.1", "10.0.0.3:0"),
        ("192.0.2.0/24", "127.0.0.1:"),
        ("127.0.0.0/8, 10.0.0.0/8", "192.0.2.7:0"),
    ] {
        let before = gate.reload().await;
        gate.edit("meshgate.yaml", gate.setup().yaml().replace("10.0.0.0/8", from));
        gate.reloaded(&before).await;
        let reply = client.call(passed_on("/")).await;
        assert!(reply.header("x-client").starts_with(expected), "{from}: {reply:?}");
    }
    assert_eq!(
        gate.metrics().await.sum("meshgate_downstream_connections_total", &[("listener", "web")]),
        1.0
    );
}

#[tokio::test]
async fn whoever_connects_to_a_unix_socket_is_believed() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("web.sock");
    let one = Backend::echo("one").await;
    let yaml = format!(
        "admin: {{address: \"127.0.0.1:0\"}}
access_log: {{format: json}}
listeners:
  - {{name: web, address: \"127.0.0.1:0\", cluster: one}}
  - {{name: local, address: \"unix:{}\", cluster: one, forwarded: {{from: [10.0.0.0/8]}}}}
clusters:
  - {{name: one, endpoints: [\"{}\"]}}
",
        path.display(),
        one.address()
    );
    let gate = Meshgate::with(&yaml).start().await;
    for (asked, ask, client, told) in [
        ("/named", passed_on("/named"), "192.0.2.7:0", Some("192.0.2.7, 10.0.0.3")),
        ("/own", Ask::get("/own"), "unix:", None),
    ] {
        assert_eq!(Client::unix(&path, false).await.call(ask).await.status, 200);
        let seen = one.seen().pop().unwrap();
        let forwarded_for = seen.headers.get("x-forwarded-for").map(|value| value.to_str().unwrap());
        assert_eq!(forwarded_for, told);
        assert_eq!(gate.access(asked).await["downstream_address"], client);
    }
}
