//! The standard filter `cors`.

use http::{Method, Response};
use meshgate_tests::{Ask, Backend, Client, Meshgate, Reply, empty};

const CHAIN: &str = "
    - cors:
        origins: [https://www.example.org, \"https://*.example.net\"]
        methods: [GET, PUT]
        headers: [x-a]
        expose: [etag]
        max_age: 1m
        credentials: true
    ";

fn preflight(origin: &str) -> Ask {
    let ask = Ask::new(Method::OPTIONS, "/", empty()).header("origin", origin);
    ask.header("access-control-request-method", "PUT").header("access-control-request-headers", "x-a")
}

fn allowed(reply: &Reply) -> [&str; 3] {
    ["access-control-allow-origin", "access-control-allow-credentials", "vary"].map(|name| reply.header(name))
}

#[tokio::test]
async fn preflights_are_answered_and_nobody_behind_hears_of_them() {
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain(CHAIN).cluster("one", &[&one]).start().await;
    for mut client in [Client::http1(gate.address()).await, Client::http2(gate.address()).await] {
        let reply = client.call(preflight("https://www.example.org")).await;
        assert_eq!((reply.status.as_u16(), reply.text()), (204, String::new()));
        assert_eq!(allowed(&reply), ["https://www.example.org", "true", "origin"]);
        for (name, value) in [("methods", "GET, PUT"), ("headers", "x-a")] {
            assert_eq!(reply.header(&format!("access-control-allow-{name}")), value);
        }
        assert_eq!(reply.header("access-control-max-age"), "60");
    }
    assert_eq!(one.requests(), 0);
    let reply = gate.call(preflight("https://evil.example")).await;
    assert_eq!((reply.header("x-backend"), allowed(&reply)), ("one", ["", "", "origin"]));
}

#[tokio::test]
async fn responses_say_who_may_read_them_and_caches_learn_of_it() {
    let one = Backend::answering("one", async |_, _| {
        let answer = Response::builder().header("access-control-allow-origin", "https://other.example");
        Ok(answer.header("vary", "accept").body(empty()).unwrap())
    })
    .await;
    let gate = Meshgate::chain(CHAIN).cluster("one", &[&one]).start().await;
    let reply = gate.call(Ask::get("/").header("origin", "https://a.example.net")).await;
    assert_eq!(reply.header("access-control-allow-origin"), "https://a.example.net");
    assert_eq!(reply.headers.get_all("access-control-allow-origin").iter().count(), 1);
    assert_eq!(reply.header("access-control-expose-headers"), "etag");
    let vary: Vec<_> = reply.headers.get_all("vary").iter().collect();
    assert_eq!(vary, ["accept", "origin"]);
    let reply = gate.call(Ask::get("/").header("origin", "https://evil.example")).await;
    assert_eq!(reply.header("access-control-allow-origin"), "");
    let reply = gate.get("/").await;
    assert_eq!(reply.headers.get_all("vary").iter().collect::<Vec<_>>(), ["accept", "origin"]);
}

#[tokio::test]
async fn answers_of_the_proxy_can_be_read_too() {
    let gate = Meshgate::chain(CHAIN).start().await;
    let reply = gate.call(Ask::get("/").header("origin", "https://www.example.org")).await;
    assert_eq!(
        (reply.status.as_u16(), allowed(&reply)),
        (404, ["https://www.example.org", "true", "origin"])
    );
}

#[tokio::test]
async fn other_origins_are_rejected_where_that_is_wanted() {
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain("- cors: {origins: [https://www.example.org], reject: true}")
        .cluster("one", &[&one])
        .start()
        .await;
    assert_eq!(gate.call(Ask::post("/", "").header("origin", "https://evil.example")).await.status, 403);
    assert_eq!(gate.call(preflight("null")).await.status, 403);
    assert_eq!(one.requests(), 0);
    assert_eq!(gate.call(Ask::post("/", "").header("origin", "https://www.example.org")).await.status, 200);
    assert_eq!(gate.get("/").await.status, 200);
}
