//! Plain proxying over HTTP/1.1 and HTTP/2, with no filter in the way.

use futures_util::future::join_all;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response, Version};
use http_body_util::BodyExt;
use meshgate_tests::{
    Ask, Backend, Client, Meshgate, RawBackend, Reply, Wire, empty, full, streamed, within,
};

#[tokio::test]
async fn http1_request_and_response_arrive_as_sent() {
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain("").cluster("one", &[&one]).start().await;

    let ask = Ask::post("/a/b%20c?d=e&f", "hello").header("x-custom", "kept").header("cookie", "a=1");
    let reply = gate.call(ask).await;

    assert_eq!((reply.status.as_u16(), reply.version), (200, Version::HTTP_11));
    assert_eq!(reply.header("x-backend"), "one");
    assert_eq!(reply.header("content-type"), "application/json");
    let seen = reply.json();
    assert_eq!(
        (&seen["method"], &seen["path"], &seen["body"]),
        (&"POST".into(), &"/a/b%20c?d=e&f".into(), &"hello".into())
    );
    assert_eq!(seen["headers"]["x-custom"], "kept");
    assert_eq!(seen["headers"]["cookie"], "a=1");
    assert_eq!(seen["headers"]["host"], gate.address().to_string());
    assert_eq!(seen["headers"]["content-length"], "5");
}

#[tokio::test]
async fn http2_with_prior_knowledge_shares_the_port() {
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain("").cluster("one", &[&one]).start().await;

    let mut http2 = Client::http2(gate.address()).await.authority("shop.example");
    let reply = http2.call(Ask::post("/over/two", "hello")).await;
    assert_eq!((reply.status.as_u16(), reply.version), (200, Version::HTTP_2));
    let seen = reply.json();
    assert_eq!((&seen["path"], &seen["body"]), (&"/over/two".into(), &"hello".into()));
    assert_eq!(seen["headers"]["host"], "shop.example");

    assert_eq!(gate.get("/over/one").await.version, Version::HTTP_11);
    assert_eq!(http2.get("/again").await.status, 200);
}

#[tokio::test]
async fn http2_streams_of_one_connection_run_side_by_side() {
    const STREAMS: usize = 40;
    // Every answer waits until all requests are there: no stream may wait for another one.
    let together = std::sync::Arc::new(tokio::sync::Barrier::new(STREAMS));
    let one = Backend::answering("one", move |seen, _| {
        let together = together.clone();
        async move {
            together.wait().await;
            Ok(Response::new(full(seen.path)))
        }
    })
    .await;
    let gate = Meshgate::chain("").cluster("one", &[&one]).start().await;

    let mut client = Client::http2(gate.address()).await;
    let mut begun = Vec::new();
    for number in 0..STREAMS {
        begun.push(client.begin(Ask::get(&format!("/{number}"))).await.unwrap());
    }
    for (number, response) in within("all answers", join_all(begun)).await.into_iter().enumerate() {
        let reply = Reply::collect(response.unwrap()).await.unwrap();
        assert_eq!(reply.text(), format!("/{number}"));
    }
}

#[tokio::test]
async fn methods_pass() {
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain("").cluster("one", &[&one]).start().await;
    let mut client = gate.client().await;
    for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "PURGE"] {
        let ask = Ask::new(Method::from_bytes(method.as_bytes()).unwrap(), "/", empty());
        assert_eq!(client.call(ask).await.json()["method"], method);
    }
}

#[tokio::test]
async fn upstream_connection_is_kept_and_used_again() {
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain("").cluster("one", &[&one]).start().await;
    for _ in 0..5 {
        assert_eq!(gate.call(Ask::post("/", "body")).await.status, 200);
    }
    assert_eq!((one.requests(), one.connections()), (5, 1));
}

#[tokio::test]
async fn upstream_connection_that_the_backend_closes_is_not_used_again() {
    let one = Backend::answering("one", async |_, _| {
        Ok(Response::builder().header("connection", "close").body(full("bye")).unwrap())
    })
    .await;
    let gate = Meshgate::chain("").cluster("one", &[&one]).start().await;
    let mut client = gate.client().await;
    for _ in 0..3 {
        assert_eq!(client.get("/").await.text(), "bye");
    }
    assert_eq!(one.connections(), 3);
}

#[tokio::test]
async fn endpoints_take_turns() {
    let (a, b, c) = (Backend::echo("a").await, Backend::echo("b").await, Backend::echo("c").await);
    let gate = Meshgate::chain("").cluster("all", &[&a, &b, &c]).start().await;
    let mut client = gate.client().await;
    for _ in 0..12 {
        client.get("/").await;
    }
    assert_eq!([a.requests(), b.requests(), c.requests()], [4, 4, 4]);
}

#[tokio::test]
async fn head_carries_the_length_and_no_body() {
    let one = Backend::answering("one", async |_, _| Ok(Response::new(full("twelve bytes")))).await;
    let gate = Meshgate::chain("").cluster("one", &[&one]).start().await;

    let mut wire = Wire::connect(gate.address()).await;
    wire.write("HEAD / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let head = wire.read_head().await.unwrap().to_lowercase();
    assert!(head.contains("content-length: 12"), "{head}");
    // If bytes of a body followed, they would stand before the next status line.
    wire.write("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(wire.read_reply().await.body, b"twelve bytes");

    let mut http2 = Client::http2(gate.address()).await;
    let reply = http2.call(Ask::new(Method::HEAD, "/", empty())).await;
    assert_eq!((reply.header("content-length"), reply.body.len()), ("12", 0));
}

#[tokio::test]
async fn statuses_without_a_body_have_none() {
    let one = Backend::answering("one", async |seen, _| {
        let status = seen.path.trim_start_matches('/').to_owned();
        Ok(Response::builder().status(status.as_str()).header("etag", "\"v1\"").body(empty()).unwrap())
    })
    .await;
    let gate = Meshgate::chain("").cluster("one", &[&one]).start().await;

    let mut wire = Wire::connect(gate.address()).await;
    for status in [204, 304, 204] {
        wire.write(format!("GET /{status} HTTP/1.1\r\nhost: a\r\n\r\n")).await;
        let head = wire.read_head().await.unwrap().to_lowercase();
        assert!(head.starts_with(&format!("http/1.1 {status} ")), "{head}");
        assert!(head.contains("etag: \"v1\""), "{head}");
        assert!(!head.contains("transfer-encoding"), "{head}");
    }
}

#[tokio::test]
async fn trailers_pass_in_both_directions() {
    // A raw backend, because the trailers of its answer must not depend on what hyper thinks of `te`.
    let one = RawBackend::start(|_, mut wire| async move {
        while let Some(head) = wire.read_head().await {
            assert!(head.to_lowercase().contains("transfer-encoding: chunked"), "{head}");
            let body = wire.read_chunked().await;
            let answer = format!("{}|{}", String::from_utf8_lossy(&body.content), body.trailers);
            wire.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n").await;
            wire.write(format!("{:x}\r\n{answer}\r\n0\r\nx-sum: 42\r\n\r\n", answer.len())).await;
        }
    })
    .await;
    let gate = Meshgate::chain("").raw_cluster("one", &one).start().await;

    let ask = |path| Ask::post(path, "body").header("te", "trailers").trailers(&[("x-last", "z")]);
    let over_http2 = Client::http2(gate.address()).await.call(ask("/over-http2")).await;
    assert_eq!(over_http2.text(), "body|x-last: z");
    assert_eq!(over_http2.trailers["x-sum"], "42");

    let over_http1 = gate.call(ask("/over-http1")).await;
    assert_eq!(over_http1.text(), "body|x-last: z");
    assert_eq!(over_http1.trailers["x-sum"], "42");
    for path in ["/over-http2", "/over-http1"] {
        assert!(gate.access(path).await["response_flags"].is_null(), "the client has all of it");
    }
}

/// Servers that merge trailers into the head would believe them (RFC 9110, section 6.5.1).
#[tokio::test]
async fn trailers_say_nothing_that_belongs_before_the_body() {
    let one = Backend::http2("one", async |_, request| {
        let body = request.into_body().collect().await.map_err(std::io::Error::other)?;
        let names = body.trailers().map(|sent| format!("{:?}", sent.keys().collect::<Vec<_>>()));
        let (mut sender, body) = streamed();
        let trailers = ["x-sum", "set-cookie", "content-length", "x-forwarded-for"]
            .map(|name| (HeaderName::from_static(name), HeaderValue::from_static("1")));
        tokio::spawn(async move {
            sender.send_data(names.unwrap_or_default().into()).await?;
            sender.send_trailers(HeaderMap::from_iter(trailers)).await
        });
        Ok(Response::new(body))
    })
    .await;
    let gate = Meshgate::chain("").cluster_of("one", &[one.address()], "protocol: http2").start().await;
    let trailers = [("x-last", "z"), ("authorization", "x"), ("x-forwarded-for", "192.0.2.1"), ("host", "a")];
    let ask = Ask::post("/", "body").header("te", "trailers").trailers(&trailers);
    let reply = Client::http2(gate.address()).await.call(ask).await;
    assert_eq!(reply.text(), r#"["x-last"]"#);
    assert_eq!(reply.trailers.keys().collect::<Vec<_>>(), ["x-sum"]);
}

#[tokio::test]
async fn expectation_is_met_before_the_body() {
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain("").cluster("one", &[&one]).start().await;

    let mut wire = Wire::connect(gate.address()).await;
    wire.write("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n").await;
    let interim = wire.read_head().await.unwrap();
    assert!(interim.starts_with("HTTP/1.1 100 "), "{interim}");
    wire.write("hello").await;
    let reply = wire.read_reply().await;
    assert_eq!(reply.status(), 200);
    assert_eq!(one.requests(), 1);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let one = Backend::answering("one", async |seen, _| Ok(Response::new(full(seen.path)))).await;
    let gate = Meshgate::chain("").cluster("one", &[&one]).start().await;

    let mut wire = Wire::connect(gate.address()).await;
    let requests: String =
        (0..10).map(|number| format!("GET /{number} HTTP/1.1\r\nhost: a\r\n\r\n")).collect();
    wire.write(requests).await;
    for number in 0..10 {
        assert_eq!(wire.read_reply().await.body, format!("/{number}").as_bytes());
    }
}

#[tokio::test]
async fn http1_0_client_gets_its_answer_and_the_end() {
    let one = Backend::answering("one", async |_, _| Ok(Response::new(full("for an old one")))).await;
    let gate = Meshgate::chain("").cluster("one", &[&one]).start().await;

    let mut wire = Wire::connect(gate.address()).await;
    wire.write("GET / HTTP/1.0\r\nhost: a\r\n\r\n").await;
    let head = wire.read_head().await.unwrap();
    assert!(head.contains(" 200 "), "{head}");
    assert!(!head.to_lowercase().contains("transfer-encoding"), "HTTP/1.0 knows no chunks: {head}");
    assert_eq!(wire.read_to_end().await, b"for an old one");
}

#[tokio::test]
async fn every_worker_serves() {
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain("").workers(2).cluster("one", &[&one]).start().await;
    // The kernel spreads connections by a hash of their addresses: 40 of them on one of two sockets has a chance of 2^-39.
    let mut clients = join_all((0..40).map(|_| gate.client())).await;
    for client in &mut clients {
        assert_eq!(client.get("/").await.status, 200);
    }
    // Each worker keeps its own upstream connections and every request came alone: as many as there are workers.
    assert_eq!(one.connections(), 2);
}
