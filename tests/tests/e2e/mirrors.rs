//! Copies of requests for other clusters: the mirrors of the standard filter `routing`.

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body_util::BodyExt;
use meshgate_tests::{
    Ask, Backend, Meshgate, Setup, WebSocket, WebSocketBackend, empty, full, streamed, until,
    within_binomial_bounds,
};

/// The context of a trace that is recorded.
const TRACED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// A proxy that sends everything to `main`, and copies to `shadow` by a mirror with these keys.
fn mirrored(main: &Backend, mirror: &str) -> Setup {
    let chain = format!(
        "- routing: {{routes: [{{name: all, to: main, mirrors: [{{to: shadow{mirror}}}], timeout: 20s}}]}}"
    );
    Meshgate::chain(&chain).without_default_cluster().cluster("main", &[main])
}

/// Waits until so many copies had this result.
async fn until_copied(gate: &Meshgate, result: &str, count: f64) {
    let labels = [("cluster", "shadow"), ("result", result)];
    until(&format!("{count} copies are {result}"), || async {
        let metrics = gate.metrics().await;
        (metrics.sum("meshgate_mirrored_requests_total", &labels) == count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn row_9_mirror_gets_a_copy_and_its_answer_is_dropped() {
    let main = Backend::echo("main").await;
    let shadow = Backend::answering("shadow", async |_, request| {
        let body = request.into_body().collect().await.map_err(std::io::Error::other)?.to_bytes();
        let mut answer = Response::new(full(vec![b'x'; 100_000]));
        *answer.status_mut() = if body == "right" { StatusCode::OK } else { StatusCode::BAD_REQUEST };
        Ok(answer)
    })
    .await;
    let gate = mirrored(&main, ", compare: true").cluster("shadow", &[&shadow]).start().await;
    let mut client = gate.client().await.authority("shop.example:8080");
    for _ in 0..3 {
        let ask = Ask::post("/orders?x=1", "right").header("x-colour", "blue");
        let ask = ask.header("traceparent", TRACED);
        assert_eq!(client.call(ask).await.header("x-backend"), "main");
    }
    until_copied(&gate, "answered", 3.0).await;
    assert_eq!(client.call(Ask::post("/orders", "wrong")).await.status, 200);
    until_copied(&gate, "answered", 4.0).await;
    let seen = shadow.seen();
    let one = &seen[0];
    assert_eq!((&one.method, &*one.path), (&Method::POST, "/orders?x=1"));
    assert_eq!((one.header("host"), one.header("x-colour")), ("shop.example-shadow:8080", "blue"));
    assert_eq!(main.seen()[0].header("host"), "shop.example:8080");
    // A copy is nobody's span.
    assert_eq!(main.seen()[0].header("traceparent"), TRACED);
    assert_eq!(one.header("traceparent"), TRACED.replace("-01", "-00"));
    assert_eq!(one.header("x-request-id"), main.seen()[0].header("x-request-id"));
    // Answers are read to their end, so that connections are used again.
    assert!(shadow.connections() < 4, "{}", shadow.connections());

    let metrics = gate.metrics().await;
    for (result, count) in [("same", 3.0), ("different", 1.0)] {
        let labels = [("cluster", "shadow"), ("result", result)];
        assert_eq!(metrics.sum("meshgate_mirror_comparisons_total", &labels), count, "{result}");
    }
    // Copies are no requests of clients: neither counted as such nor logged.
    assert_eq!(metrics.sum("meshgate_downstream_requests_total", &[]), 4.0);
    until("all requests are logged", || async { (gate.access_log().len() >= 4).then_some(()) }).await;
    assert_eq!(gate.access_log().len(), 4);
}

#[tokio::test]
async fn row_9_mirror_can_see_the_same_authority_and_have_no_body() {
    let (main, shadow) = (Backend::echo("main").await, Backend::echo("shadow").await);
    let setup = mirrored(&main, ", authority_suffix: \"\"").cluster("shadow", &[&shadow]);
    let gate = setup.start().await;
    let mut client = gate.client().await.authority("shop.example");
    client.get("/").await;
    client.call(Ask::new(Method::HEAD, "/", empty())).await;
    shadow.wait_for_requests(2).await;
    assert!(shadow.seen().iter().all(|seen| seen.header("host") == "shop.example"));
    // A body that comes in chunks, with trailers, is the same body there.
    let whole = client.call(Ask::post("/", "abc").trailers(&[("x-end", "1")])).await;
    assert_eq!(whole.json()["body"], "abc");
    until_copied(&gate, "answered", 3.0).await;
}

#[tokio::test]
async fn row_9_slow_mirror_changes_neither_status_nor_time() {
    let main = Backend::echo("main").await;
    // Reads nothing of a body and never answers.
    let shadow = Backend::answering("shadow", async |_, _| std::future::pending().await).await;
    let gate = mirrored(&main, "").cluster("shadow", &[&shadow]).start().await;
    for _ in 0..20 {
        assert_eq!(gate.get("/").await.header("x-backend"), "main");
    }
    shadow.wait_for_requests(20).await;
    let reply = gate.call(Ask::post("/", vec![b'x'; 4 << 20])).await;
    assert_eq!((reply.header("x-backend"), reply.json()["length"].as_u64()), ("main", Some(4 << 20)));
    until_copied(&gate, "overrun", 1.0).await;
}

#[tokio::test]
async fn row_9_copies_end_with_the_routes_timeout() {
    let main = Backend::echo("main").await;
    let shadow = Backend::answering("shadow", async |_, _| std::future::pending().await).await;
    let gate =
        Meshgate::chain("- routing: {routes: [{name: all, to: main, mirrors: [{to: shadow}], timeout: 1s}]}")
            .cluster("main", &[&main])
            .cluster("shadow", &[&shadow])
            .start()
            .await;
    assert_eq!(gate.get("/").await.status, 200);
    until_copied(&gate, "failed", 1.0).await;
    shadow.wait_until_unused().await;
}

#[tokio::test]
async fn row_9_dead_mirror_changes_nothing() {
    let main = Backend::echo("main").await;
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gate = mirrored(&main, "").cluster_of("shadow", &[gone], "").start().await;
    for _ in 0..10 {
        assert_eq!(gate.call(Ask::post("/", "body")).await.json()["body"], "body");
    }
    until_copied(&gate, "failed", 10.0).await;
    assert!(gate.access_log().iter().all(|entry| entry["response_flags"] == ""));
}

#[tokio::test]
async fn row_9_limits_of_the_mirrors_cluster_hold() {
    let main = Backend::echo("main").await;
    let shadow = Backend::answering("shadow", async |_, _| std::future::pending().await).await;
    let limits = "limits: {active_requests: 2}";
    let gate = mirrored(&main, "").cluster_of("shadow", &[shadow.address()], limits).start().await;
    for _ in 0..2 {
        assert_eq!(gate.get("/").await.status, 200);
    }
    shadow.wait_for_requests(2).await;
    for _ in 0..3 {
        assert_eq!(gate.get("/").await.status, 200);
    }
    until_copied(&gate, "refused", 3.0).await;
    assert_eq!(shadow.requests(), 2);
}

#[tokio::test]
async fn row_9_percentage_is_kept_and_drawn_apart_from_the_split() {
    const REQUESTS: usize = 4_000;
    let (one, two) = (Backend::echo("one").await, Backend::echo("two").await);
    let shadow = Backend::echo("shadow").await;
    let gate = Meshgate::chain(
        "- routing: {routes: [{name: all, to: {one: 50, two: 50}, mirrors: [{to: shadow, percent: 10}]}]}",
    )
    .cluster("one", &[&one])
    .cluster("two", &[&two])
    .cluster("shadow", &[&shadow])
    .start()
    .await;
    let mut client = gate.client().await;
    for _ in 0..REQUESTS {
        client.get("/").await;
    }
    until("all copies are answered", || async {
        let answered = [("cluster", "shadow"), ("result", "answered")];
        let copies = gate.metrics().await.sum("meshgate_mirrored_requests_total", &answered);
        (copies == shadow.requests() as f64).then_some(())
    })
    .await;
    let copies = shadow.requests();
    assert!(within_binomial_bounds(copies, REQUESTS, 0.1), "{copies} of {REQUESTS} for 10 %");
    // Of what is copied, half went to each: one draw for both would send all of it to one.
    let ids: std::collections::HashSet<_> =
        shadow.seen().iter().map(|seen| seen.header("x-request-id").to_owned()).collect();
    let of_one = one.seen().iter().filter(|seen| ids.contains(seen.header("x-request-id"))).count();
    assert!(within_binomial_bounds(of_one, copies, 0.5), "{of_one} of {copies}");
}

#[tokio::test]
async fn row_9_what_becomes_a_conversation_is_not_copied() {
    let main = WebSocketBackend::start().await;
    let shadow = Backend::echo("shadow").await;
    let gate = Meshgate::chain("- routing: {routes: [{name: all, to: main, mirrors: [{to: shadow}]}]}")
        .listener("upgrades: [websocket]")
        .cluster_of("main", &[main.address()], "")
        .cluster("shadow", &[&shadow])
        .start()
        .await;
    let mut client = WebSocket::connect(gate.address(), "/").await;
    client.echo("hello").await;
    client.close().await;
    gate.access("/").await;
    let metrics = gate.metrics().await;
    assert_eq!((shadow.requests(), metrics.sum("meshgate_mirrored_requests_total", &[])), (0, 0.0));
}

#[tokio::test]
async fn row_9_broken_body_breaks_the_copy() {
    let main = Backend::echo("main").await;
    let shadow = Backend::echo("shadow").await;
    let gate = mirrored(&main, "").cluster("shadow", &[&shadow]).start().await;
    let (mut body, stream) = streamed();
    let mut client = gate.client().await;
    let begun = client.begin(Ask::new(Method::POST, "/", stream)).await;
    body.send_data(Bytes::from_static(b"half")).await.unwrap();
    shadow.wait_for_requests(1).await;
    body.abort(std::io::Error::other("the client breaks off"));
    drop((begun, client));
    until_copied(&gate, "failed", 1.0).await;
    shadow.wait_until_unused().await;
}

#[tokio::test]
async fn row_9_unknown_mirrors_and_wrong_shares_are_refused() {
    for (mirror, reason) in [
        ("{to: nowhere}", "unknown cluster `nowhere`"),
        ("{to: main, percent: 101}", "percent"),
        ("{to: main, percent: ten}", "percent"),
        ("{to: main, authority_suffix: \":80\"}", "authority_suffix"),
        ("{to: main, buffer: 64}", "buffer"),
    ] {
        let main = Backend::echo("main").await;
        let chain = format!("- routing:\n    routes:\n      - {{name: a, to: main, mirrors: [{mirror}]}}\n");
        let finished = Meshgate::chain(&chain).cluster("main", &[&main]).check().await;
        assert_eq!(finished.code, Some(2), "{mirror}: {finished:?}");
        assert!(finished.stderr.contains(reason), "{mirror}: {finished:?}");
    }
}
