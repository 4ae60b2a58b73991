//! The standard filter `headers`.

use http::Response;
use meshgate_tests::{Ask, Backend, Client, Meshgate, empty};

#[tokio::test]
async fn request_fields_are_set_added_and_removed() {
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain(
        "
        - headers:
            request:
              set: {x-set: by-the-filter, x-new: fresh}
              add: {x-add: second}
              remove: [x-remove, x-absent]
        ",
    )
    .cluster("one", &[&one])
    .start()
    .await;
    let ask = || {
        Ask::post("/", "body")
            .header("x-set", "by-the-client")
            .header("x-set", "twice")
            .header("x-add", "first")
            .header("x-remove", "1")
            .header("x-other", "kept")
    };
    for reply in [gate.call(ask()).await, Client::http2(gate.address()).await.call(ask()).await] {
        let headers = &reply.json()["headers"];
        assert_eq!(headers["x-set"], "by-the-filter");
        assert_eq!(headers["x-new"], "fresh");
        assert_eq!(headers["x-add"], "first, second");
        assert!(headers["x-remove"].is_null());
        assert_eq!(headers["x-other"], "kept");
        assert_eq!(reply.json()["body"], "body");
    }
}

#[tokio::test]
async fn response_fields_are_set_added_and_removed() {
    let one = Backend::answering("one", async |_, _| {
        let answer = Response::builder()
            .header("x-set", "by-the-backend")
            .header("x-add", "first")
            .header("server", "x");
        Ok(answer.body(empty()).unwrap())
    })
    .await;
    let gate = Meshgate::chain(
        "
        - headers:
            response:
              set: {x-set: by-the-filter}
              add: {x-add: second}
              remove: [server]
        ",
    )
    .cluster("one", &[&one])
    .start()
    .await;
    let reply = gate.get("/").await;
    assert_eq!(reply.header("x-set"), "by-the-filter");
    let added: Vec<_> = reply.headers.get_all("x-add").iter().collect();
    assert_eq!(added, ["first", "second"]);
    assert!(!reply.headers.contains_key("server"));
}

#[tokio::test]
async fn requests_run_down_the_chain_and_responses_up() {
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain(
        "
        - headers: {request: {add: {x-order: first}}, response: {add: {x-order: first}}}
        - headers: {request: {add: {x-order: second}}, response: {add: {x-order: second}}}
        - headers: {request: {add: {x-order: third}}, response: {add: {x-order: third}}}
        ",
    )
    .cluster("one", &[&one])
    .start()
    .await;
    let reply = gate.get("/").await;
    assert_eq!(reply.json()["headers"]["x-order"], "first, second, third");
    let order: Vec<_> = reply.headers.get_all("x-order").iter().collect();
    assert_eq!(order, ["third", "second", "first"]);
}

#[tokio::test]
async fn answers_made_by_the_proxy_pass_the_chain_too() {
    let gate = Meshgate::chain("- headers: {response: {set: {x-stamp: here}}}").start().await;
    let reply = gate.get("/").await;
    assert_eq!((reply.status.as_u16(), reply.header("x-stamp")), (404, "here"));
}

#[tokio::test]
async fn framing_fields_are_not_the_filters_to_set() {
    let one = Backend::echo("one").await;
    for (name, value) in [("transfer-encoding", "chunked"), ("connection", "close"), ("content-length", "3")]
    {
        let setup = Meshgate::chain(&format!("- headers: {{request: {{set: {{{name}: \"{value}\"}}}}}}"));
        let finished = setup.clone().cluster("one", &[&one]).check().await;
        if finished.code == Some(0) {
            // Accepted as a configuration: then it must at least do no harm to the message.
            let gate = setup.cluster("one", &[&one]).start().await;
            let reply = gate.call(Ask::post("/", "five5")).await;
            assert!(reply.status == 503 || reply.json()["length"] == 5, "{name}: {}", reply.text());
            assert_ne!(one.seen().last().unwrap().header("connection"), "close");
        }
    }
}
