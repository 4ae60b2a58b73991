//! The standard filter `ext-authz`: services over HTTP and gRPC, their failures, decisions that are remembered.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use bytes::BytesMut;
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::BodyExt;
use meshgate_tests::{
    Ask, Backend, Client, Envoy, Load, Meshgate, Reply, filter, framed, full, messages, streamed,
    with_custom_section,
};
use serde_json::json;

/// A service over HTTP that lets in who says `good`, and whose status for others can be changed.
async fn policy() -> (Backend, Arc<AtomicU16>) {
    let status = Arc::new(AtomicU16::new(403));
    let for_others = Arc::clone(&status);
    let backend = Backend::answering("policy", move |seen, request| {
        let good = seen.header("authorization") == "good";
        let status = if good { 200 } else { for_others.load(Ordering::Relaxed) };
        async move {
            let body = request.into_body().collect().await.map_err(std::io::Error::other)?.to_bytes();
            let answer = Response::builder().status(status).header("x-user", "ann").header("x-why", "policy");
            answer.body(full(format!("no, {} bytes\n", body.len()))).map_err(std::io::Error::other)
        }
    })
    .await;
    (backend, status)
}

fn good() -> Ask {
    Ask::get("/a?b=c").header("authorization", "good").header("x-user", "root")
}

#[tokio::test]
async fn a_service_over_http_decides() {
    let (backend, (policy, status)) = (Backend::echo("one").await, policy().await);
    let gate = Meshgate::chain(
        "- ext-authz: {http: {cluster: policy}, upstream_headers: [x-user], client_headers: [x-why]}",
    )
    .cluster("one", &[&backend])
    .cluster("policy", &[&policy])
    .start()
    .await;
    for mut client in [gate.client().await, Client::http2(gate.address()).await] {
        let reply = client.call(good()).await;
        assert_eq!((reply.status.as_u16(), &reply.json()["headers"]["x-user"]), (200, &"ann".into()));
        let reply = client.get("/denied").await;
        assert_eq!((reply.status.as_u16(), reply.header("x-why")), (403, "policy"));
        assert_eq!((reply.text().as_str(), reply.header("x-user")), ("no, 0 bytes\n", ""));
    }
    let denied = gate.access("/denied").await;
    assert_eq!(
        (&denied["response_code_details"], &denied["response_flags"]),
        (&"ext_authz_denied".into(), &"UAEX".into())
    );
    assert_eq!(policy.seen()[0].path, "/a?b=c");
    status.store(500, Ordering::Relaxed);
    assert_eq!(gate.get("/error").await.status, 403);
    let error = gate.access("/error").await;
    assert_eq!(
        (&error["response_code_details"], &error["response_flags"]),
        (&"ext_authz_error".into(), &"UAEX".into())
    );
    assert_eq!(backend.requests(), 2);
}

#[tokio::test]
async fn when_there_is_no_service_the_configuration_decides() {
    let backend = Backend::echo("one").await;
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let silent = Backend::answering("silent", async |_, _| pending().await).await;
    for (more, expected) in
        [("", 403), (", status_on_error: 503", 503), (", on_failure: allow", 200), (", shadow: true", 200)]
    {
        for cluster in ["gone", "silent"] {
            let chain = format!("- ext-authz: {{http: {{cluster: {cluster}}}, timeout: 100ms{more}}}");
            let gate = Meshgate::chain(&chain)
                .cluster("one", &[&backend])
                .cluster_of("gone", &[gone], "")
                .cluster("silent", &[&silent])
                .start()
                .await;
            assert_eq!(gate.get("/").await.status, expected, "{chain}");
        }
    }
}

#[tokio::test]
async fn a_body_is_held_until_the_service_has_seen_it() {
    let (backend, (policy, status)) = (Backend::echo("one").await, policy().await);
    let gate = Meshgate::chain("- ext-authz: {http: {cluster: policy}, body: {max_bytes: 1000}}")
        .cluster("one", &[&backend])
        .cluster("policy", &[&policy])
        .start()
        .await;
    let post = |size: usize| Ask::post("/", "x".repeat(size));
    assert_eq!(gate.call(post(700)).await.text(), "no, 700 bytes\n");
    assert_eq!(gate.call(post(1001)).await.status, 413);
    assert_eq!(gate.get("/").await.text(), "no, 0 bytes\n");
    let (mut sender, body) = streamed();
    tokio::spawn(async move { sender.send_data("x".into()).await });
    assert_eq!(gate.call(Ask::new(http::Method::POST, "/", body)).await.status, 411);
    assert_eq!(backend.requests(), 0, "the endpoint saw nothing of them");
    status.store(200, Ordering::Relaxed);
    let reply = gate.call(post(700)).await;
    assert_eq!((reply.status.as_u16(), &reply.json()["length"]), (200, &700.into()));
}

#[tokio::test]
async fn decisions_are_remembered_for_all_workers() {
    let (backend, (policy, _)) = (Backend::echo("one").await, policy().await);
    let gate = Meshgate::chain(
        "- ext-authz: {http: {cluster: policy}, upstream_headers: [x-user], cache: {key: [\"header:authorization\"], ttl: 1m}}",
    )
    .workers(2)
    .cluster("one", &[&backend])
    .cluster("policy", &[&policy])
    .start()
    .await;
    for _ in 0..10 {
        assert_eq!(gate.call(good()).await.json()["headers"]["x-user"], "ann");
        assert_eq!(gate.get("/").await.status, 403);
    }
    assert_eq!(policy.requests(), 2);
    let metrics = gate.metrics().await;
    let count = |outcome| {
        metrics.sum("meshgate_ext_authz_requests_total", &[("outcome", outcome), ("from", "cache")])
    };
    assert_eq!((count("allowed"), count("denied")), (9.0, 9.0));
}

/// A field of a message of Protocol Buffers.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, u8::try_from(content.len()).expect("a short field")], content].concat()
}

/// A service that speaks Envoy's protocol, and lets in whose question holds `good`.
async fn grpc_policy() -> Backend {
    Backend::http2("policy", async |seen, request| {
        let body = request.into_body().collect().await.map_err(std::io::Error::other)?.to_bytes();
        let question = messages(&mut BytesMut::from(&body[..])).pop().unwrap_or_default();
        let holds = |text: &[u8]| question.windows(text.len()).any(|part| part == text);
        let known = seen.path == "/envoy.service.auth.v3.Authorization/Check"
            && holds(b"127.0.0.1")
            && holds(b"/a?b=c");
        let set =
            |name: &[u8], value: &[u8]| field(2, &field(1, &[field(1, name), field(2, value)].concat()));
        let answer = match (known, holds(b"good")) {
            (true, true) => [field(1, b""), field(3, &set(b"x-user", b"ann"))].concat(),
            // PERMISSION_DENIED, and 401 with a field and a body.
            (true, false) => {
                let denied =
                    [field(1, &[0x08, 0x91, 0x03]), set(b"x-why", b"policy"), field(3, b"no\n")].concat();
                [field(1, &[0x08, 7]), field(2, &denied)].concat()
            }
            _ => return Err(std::io::Error::other("not a question of Envoy's protocol")),
        };
        let (mut sender, body) = streamed();
        let trailers = HeaderMap::from_iter([(
            http::HeaderName::from_static("grpc-status"),
            HeaderValue::from_static("0"),
        )]);
        tokio::spawn(async move {
            sender.send_data(framed(&answer)).await?;
            sender.send_trailers(trailers).await
        });
        Ok(Response::builder().header("content-type", "application/grpc").body(body).unwrap())
    })
    .await
}

#[tokio::test]
async fn a_service_over_grpc_decides() {
    let (backend, policy) = (Backend::echo("one").await, grpc_policy().await);
    let gate = Meshgate::chain("- ext-authz: {grpc: {cluster: policy}}")
        .cluster("one", &[&backend])
        .cluster_of("policy", &[policy.address()], "protocol: http2")
        .start()
        .await;
    let reply = gate.call(good()).await;
    assert_eq!((reply.status.as_u16(), &reply.json()["headers"]["x-user"]), (200, &"ann".into()));
    let reply = gate.get("/a?b=c").await;
    assert_eq!(
        (reply.status.as_u16(), reply.header("x-why"), reply.text().as_str()),
        (401, "policy", "no\n")
    );
    // A question that the service breaks off is no decision.
    assert_eq!(gate.get("/other").await.status, 403);
    let metrics = gate.metrics().await;
    assert_eq!(metrics.sum("meshgate_ext_authz_requests_total", &[("outcome", "error")]), 1.0);
}

#[tokio::test]
async fn the_module_is_swapped_under_load_without_a_failed_request() {
    let (backend, (policy, _)) = (Backend::echo("one").await, policy().await);
    let module = filter("ext-authz");
    let gate = Meshgate::chain("- guard: {http: {cluster: policy}, upstream_headers: [x-user]}")
        .filter("guard", &module, "")
        .workers(2)
        .cluster("one", &[&backend])
        .cluster("policy", &[&policy])
        .start()
        .await;
    let judge = |reply: &Reply| match (reply.status.as_u16(), reply.text().contains("\"x-user\":\"ann\"")) {
        (200, true) => Ok(()),
        (other, _) => Err(other.to_string()),
    };
    let load = Load::start(gate.address(), 4, good, judge);
    for round in 0..3_u8 {
        load.wait_for_more(200).await;
        let before = gate.reload().await;
        gate.replace("guard.wasm", with_custom_section(&module, "round", &[round]));
        gate.reloaded(&before).await;
    }
    load.wait_for_more(200).await;
    load.stop().await.all_good();
}

/// What a client and the backend see of an answer.
fn seen(reply: &Reply) -> [String; 6] {
    let sent = reply.status.is_success().then(|| reply.json()["headers"]["x-user"].to_string());
    let body = if sent.is_some() { String::new() } else { reply.text() };
    let header = |name: &str| reply.header(name).to_owned();
    [
        reply.status.to_string(),
        body,
        sent.unwrap_or_default(),
        header("x-why"),
        header("location"),
        header("x-user"),
    ]
}

/// Envoy's own filter with the same service, over HTTP and over gRPC, answers as ours does.
#[tokio::test]
async fn envoys_own_filter_answers_alike() {
    if Envoy::installed().is_none() {
        println!("Envoy is not installed: nothing to compare with");
        return;
    }
    let (backend, (policy, status), grpc) = (Backend::echo("one").await, policy().await, grpc_policy().await);
    let exact = |name: &str| json!({"patterns": [{"exact": name}]});
    let over_http = json!({"transport_api_version": "V3", "http_service": {
        "server_uri": {"uri": "http://policy", "cluster": "policy", "timeout": "5s"},
        "authorization_response": {"allowed_upstream_headers": exact("x-user"), "allowed_client_headers": exact("x-why")},
    }});
    let over_grpc = json!({"transport_api_version": "V3", "grpc_service": {
        "envoy_grpc": {"cluster_name": "grpc"}, "timeout": "5s",
    }});
    let http = "http: {cluster: policy}, upstream_headers: [x-user], client_headers: [x-why]";
    for (configuration, own) in [(http, over_http), ("grpc: {cluster: grpc}", over_grpc)] {
        let gate = Meshgate::chain(&format!("- ext-authz: {{{configuration}, timeout: 5s}}"))
            .cluster("one", &[&backend])
            .cluster("policy", &[&policy])
            .cluster_of("grpc", &[grpc.address()], "protocol: http2")
            .start()
            .await;
        let envoy = Envoy::setup()
            .own_filter("ext_authz", "ext_authz.v3.ExtAuthz", own)
            .cluster("one", backend.address())
            .cluster("policy", policy.address())
            .http2_cluster("grpc", grpc.address())
            .start()
            .await;
        // Whoever is not let in gets the service's status, and one of a service that fails is no decision.
        for (for_others, ask) in [
            (403, good as fn() -> Ask),
            (403, || Ask::get("/a?b=c")),
            (401, || Ask::post("/a?b=c", "hello").header("authorization", "bad")),
            (302, || Ask::get("/a?b=c").header("x-user", "root")),
            (503, || Ask::get("/a?b=c")),
            (200, || Ask::get("/a?b=c").header("x-user", "root")),
            (403, || Ask::get("/other")),
        ] {
            status.store(for_others, Ordering::Relaxed);
            let ours = gate.call(ask()).await;
            let theirs = Client::http1(envoy.address()).await.call(ask()).await;
            assert_eq!(seen(&ours), seen(&theirs), "{configuration} {for_others}");
        }
    }
}

/// Nobody waits for the decision about a request whose client is gone: the question is taken back, not left to its timeout.
#[tokio::test]
async fn a_service_is_not_kept_busy_for_clients_that_are_gone() {
    let (backend, silent) =
        (Backend::echo("one").await, Backend::answering("silent", |_, _| pending()).await);
    let gate = Meshgate::chain("- ext-authz: {http: {cluster: silent}, timeout: 1h}")
        .cluster("one", &[&backend])
        .cluster("silent", &[&silent])
        .start()
        .await;
    for (asked, mut client) in [(1, gate.client().await), (2, Client::http2(gate.address()).await)] {
        let response = client.begin(Ask::get("/")).await.expect("it is sent");
        silent.wait_for_requests(asked).await;
        drop((response, client));
        silent.wait_until_unused().await;
    }
    assert_eq!(backend.requests(), 0);
}

/// What a later filter does to the head lets no body by without a decision.
#[tokio::test]
async fn a_body_is_decided_about_whatever_becomes_of_its_length() {
    let (backend, (policy, _)) = (Backend::echo("one").await, policy().await);
    let gate = Meshgate::chain(
        "
        - ext-authz: {http: {cluster: policy}, body: {max_bytes: 1000}}
        - headers: {request: {remove: [content-length]}}
        ",
    )
    .cluster("one", &[&backend])
    .cluster("policy", &[&policy])
    .start()
    .await;
    for mut client in [gate.client().await, Client::http2(gate.address()).await] {
        assert_eq!(client.call(Ask::post("/", "bad")).await.status, 403);
        let good = Ask::post("/", "good").header("authorization", "good");
        assert_eq!(client.call(good).await.status, 200);
    }
    assert_eq!((policy.requests(), backend.requests()), (4, 2));
}
