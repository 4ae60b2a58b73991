//! Fields that a proxy drops, adds or rewrites (RFC 9110 section 7.6), and requests to change the protocol.

use std::collections::HashSet;

use http::{Method, Response};
use meshgate_tests::{Ask, Backend, Client, Meshgate, Wire, empty, full};

#[tokio::test]
async fn fields_of_one_hop_end_there() {
    let one = Backend::answering("one", async |_, _| {
        let answer = Response::builder()
            .header("connection", "x-drop-me")
            .header("x-drop-me", "1")
            .header("keep-alive", "timeout=5")
            .header("proxy-connection", "keep-alive")
            .header("proxy-authenticate", "Basic")
            .header("x-kept", "1");
        Ok(answer.body(full("ok")).unwrap())
    })
    .await;
    let gate = Meshgate::chain("").cluster("one", &[&one]).start().await;

    let ask = Ask::get("/")
        .header("connection", "keep-alive, X-Drop-Me")
        .header("x-drop-me", "1")
        .header("keep-alive", "timeout=5")
        .header("proxy-connection", "keep-alive")
        .header("proxy-authorization", "Basic Zm9vOmJhcg==")
        .header("te", "gzip")
        .header("x-kept", "1");
    let reply = gate.call(ask).await;

    let seen = &one.seen()[0];
    for name in ["x-drop-me", "keep-alive", "proxy-connection", "proxy-authorization", "te"] {
        assert!(!seen.headers.contains_key(name), "{name} went upstream: {seen:?}");
    }
    assert_eq!(seen.header("x-kept"), "1");
    for name in ["x-drop-me", "keep-alive", "proxy-connection", "proxy-authenticate"] {
        assert!(!reply.headers.contains_key(name), "{name} went downstream: {reply:?}");
    }
    assert_eq!(reply.header("x-kept"), "1");

    let over_http2 = Client::http2(gate.address()).await.get("/").await;
    assert_eq!((over_http2.status.as_u16(), over_http2.text().as_str()), (200, "ok"));
    assert!(!over_http2.headers.contains_key("connection"));
}

#[tokio::test]
async fn connection_cannot_switch_off_a_check() {
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain("").cluster("one", &[&one]).start().await;
    for name in ["authorization", "x-forwarded-for", "host", "cookie"] {
        let reply = gate.call(Ask::get("/").header("connection", name).header("authorization", "x")).await;
        assert_eq!(reply.status, 400, "connection: {name}");
    }
    assert_eq!(one.requests(), 0);
}

#[tokio::test]
async fn via_is_added_to_requests() {
    let one = Backend::answering("one", async |_, _| {
        Ok(Response::builder().header("via", "1.1 inside").body(empty()).unwrap())
    })
    .await;
    let gate = Meshgate::chain("").cluster("one", &[&one]).start().await;

    let all = |headers: &http::HeaderMap| {
        let values = headers.get_all("via").iter().map(|value| value.to_str().unwrap().to_owned());
        values.collect::<Vec<_>>().join(", ")
    };
    let reply = gate.call(Ask::get("/").header("via", "1.0 outside")).await;
    Client::http2(gate.address()).await.get("/").await;
    let seen = one.seen();
    assert_eq!(all(&seen[0].headers), "1.0 outside, 1.1 meshgate");
    assert_eq!(all(&seen[1].headers), "2 meshgate");
    // A gateway need not add itself to responses (RFC 9110 section 7.6.3), and keeps what others wrote there.
    assert!(all(&reply.headers).starts_with("1.1 inside"));
}

#[tokio::test]
async fn origin_is_told_by_the_proxy_not_by_the_client() {
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain("").cluster("one", &[&one]).start().await;

    let forged = Ask::get("/")
        .header("x-forwarded-for", "6.6.6.6")
        .header("x-forwarded-proto", "https")
        .header("x-forwarded-host", "bank.example")
        .header("forwarded", "for=6.6.6.6")
        .header("x_forwarded_for", "6.6.6.6");
    let seen = gate.call(forged).await.json()["headers"].clone();
    assert_eq!(seen["x-forwarded-for"], "127.0.0.1");
    assert_eq!(seen["x-forwarded-proto"], "http");
    assert!(!seen.to_string().contains("6.6.6.6") && !seen.to_string().contains("bank.example"), "{seen}");
}

#[tokio::test]
async fn request_id_is_kept_or_made() {
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain("").cluster("one", &[&one]).start().await;
    let mut client = gate.client().await;

    client.call(Ask::get("/kept").header("x-request-id", "my-own-id")).await;
    assert_eq!(one.seen()[0].header("x-request-id"), "my-own-id");
    assert_eq!(gate.access("/kept").await["request_id"], "my-own-id");

    client.call(Ask::get("/harmful").header("x-request-id", "a\" b")).await;
    assert_ne!(one.seen()[1].header("x-request-id"), "a\" b");

    for _ in 0..50 {
        client.get("/made").await;
    }
    let made: HashSet<_> =
        one.seen()[1..].iter().map(|seen| seen.header("x-request-id").to_owned()).collect();
    assert_eq!(made.len(), 51, "each request has its own: {made:?}");
    assert!(made.contains(gate.access("/made").await["request_id"].as_str().unwrap()));
}

#[tokio::test]
async fn absolute_target_wins_over_host() {
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain("").cluster("one", &[&one]).start().await;
    let mut wire = Wire::connect(gate.address()).await;
    wire.write("GET http://shop.example/cart?x=1 HTTP/1.1\r\nhost: other.example\r\n\r\n").await;
    assert_eq!(wire.read_reply().await.status(), 200);
    let seen = &one.seen()[0];
    assert_eq!((seen.path.as_str(), seen.header("host")), ("/cart?x=1", "shop.example"));
}

#[tokio::test]
async fn dots_in_a_path_are_resolved_once_for_all() {
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain("").cluster("one", &[&one]).start().await;
    let mut wire = Wire::connect(gate.address()).await;
    for (sent, expected) in [("/a/../b", "/b"), ("/a/%2e%2E/b?q=/../", "/b?q=/../"), ("/a/./b", "/a/b")] {
        wire.write(format!("GET {sent} HTTP/1.1\r\nhost: a\r\n\r\n")).await;
        assert_eq!(wire.read_reply().await.status(), 200);
        assert_eq!(one.seen().last().unwrap().path, expected);
    }
}

#[tokio::test]
async fn change_of_protocol_is_declined() {
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain("").cluster("one", &[&one]).start().await;

    // An offer to change the protocol may be declined by not taking it: the request is good as it stands (RFC 9110 section
    // 7.8). The offer ends here, and what the client sends next is HTTP/1.1 as before.
    for offer in [
        "connection: upgrade\r\nupgrade: x-other\r\n",
        "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n",
    ] {
        let mut wire = Wire::connect(gate.address()).await;
        for _ in 0..2 {
            wire.write(format!("GET /offer HTTP/1.1\r\nhost: a\r\n{offer}\r\n")).await;
            let reply = wire.read_reply().await;
            assert_eq!((reply.status(), reply.header("upgrade")), (200, ""));
        }
    }
    for seen in one.seen() {
        for name in ["upgrade", "http2-settings", "connection"] {
            assert!(!seen.headers.contains_key(name), "{name}: {seen:?}");
        }
    }
}

#[tokio::test]
async fn methods_that_are_for_proxies_are_not_forwarded() {
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain("").cluster("one", &[&one]).start().await;
    let reply = gate.call(Ask::new(Method::TRACE, "/", empty())).await;
    assert_eq!(reply.status, 405);
    let mut wire = Wire::connect(gate.address()).await;
    wire.write("CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\n\r\n").await;
    assert_eq!(wire.read_reply().await.status(), 405);
    assert_eq!(one.requests(), 0);
}
