//! Requests with bodies: what is kept of them, and what must never be sent twice.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use meshgate_tests::{
    Answer, Ask, Authority, Backend, END, END_HEADERS, Meshgate, PREFACE, RawBackend, Reply, Says, Seen,
    TlsFront, Wire, empty, fields, frame, full, kind, streamed, within,
};

use super::{before, number, retried, status};

/// Reads the whole request. Answers the first try by 500, and others by the length of the body and its trailers.
async fn second_time(seen: Seen, request: Request<Incoming>) -> Answer {
    let body = request.into_body().collect().await.map_err(io::Error::other)?;
    if number(&seen) < 2 {
        return status(500);
    }
    let last = body.trailers().and_then(|trailers| trailers.get("x-last"));
    let last = last.map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
    let bytes = body.to_bytes();
    let sound = bytes.iter().enumerate().all(|(index, byte)| *byte == (index % 251) as u8);
    let announced = seen.header("content-length").to_owned();
    Ok(Response::new(full(format!("{} {sound} {announced} {last}", bytes.len()))))
}

fn bytes(length: usize) -> Bytes {
    (0..length).map(|index| (index % 251) as u8).collect::<Vec<_>>().into()
}

async fn backend(http2: bool) -> Backend {
    if http2 {
        Backend::http2("bodies", second_time).await
    } else {
        Backend::answering("bodies", second_time).await
    }
}

#[tokio::test]
async fn bodies_up_to_the_limit_are_sent_again() {
    for http2 in [false, true] {
        let backend = backend(http2).await;
        let gate = before(&backend, http2, "{if: [5xx], methods: [POST]}").start().await;
        let reply = gate.call(Ask::post("/", bytes(65_536))).await;
        assert_eq!((reply.text().trim_end(), backend.requests()), ("65536 true 65536", 2), "http2: {http2}");
        // In parts, without a length, with trailers.
        let (mut sender, body) = streamed();
        let mut client = gate.client().await;
        let ask = Ask::new(Method::POST, "/", body).trailers(&[("x-last", "z")]);
        let asked = client.begin(ask).await.unwrap();
        let whole = bytes(30_000);
        for part in [0..1, 1..10_000, 10_000..30_000] {
            sender.send_data(whole.slice(part)).await.unwrap();
        }
        drop(sender);
        let reply = Reply::collect(within("a response", asked).await.unwrap()).await.unwrap();
        assert_eq!((reply.text().as_str(), backend.requests()), ("30000 true  z", 4), "http2: {http2}");
    }
}

#[tokio::test]
async fn longer_bodies_pass_and_are_not_sent_again() {
    for http2 in [false, true] {
        let backend = backend(http2).await;
        let gate = before(&backend, http2, "{if: [5xx], methods: [POST], replay: 1KiB}").start().await;
        assert_eq!(gate.call(Ask::post("/", bytes(1_024))).await.status, 200);
        for (length, hits) in [(1_025, 3), (300_000, 4)] {
            let reply = gate.call(Ask::post("/", bytes(length))).await;
            assert_eq!((reply.status.as_u16(), backend.requests()), (500, hits), "{length}");
        }
        // Without a length, nobody knows before it has passed.
        let (mut sender, body) = streamed();
        let mut client = gate.client().await;
        let asked = client.begin(Ask::new(Method::POST, "/", body)).await.unwrap();
        for _ in 0..10 {
            sender.send_data(bytes(1_000)).await.unwrap();
        }
        drop(sender);
        let response = within("a response", asked).await.unwrap();
        assert_eq!((response.status().as_u16(), backend.requests()), (500, 5));
        let metrics = gate.metrics().await;
        assert_eq!(metrics.sum("meshgate_retries_refused_total", &[("because", "body")]), 3.0);
    }
}

#[tokio::test]
async fn a_response_before_the_end_of_the_body_is_delivered() {
    for http2 in [false, true] {
        let answer = |_, _| async { status(503) };
        let hasty = if http2 {
            Backend::http2("hasty", answer).await
        } else {
            Backend::answering("hasty", answer).await
        };
        let gate = before(&hasty, http2, "{if: [5xx], methods: [POST]}").start().await;
        let (mut sender, body) = streamed();
        let mut client = gate.client().await;
        let asked = client.begin(Ask::new(Method::POST, "/", body)).await.unwrap();
        sender.send_data(bytes(10)).await.unwrap();
        let response = within("a response", asked).await.unwrap();
        assert_eq!((response.status().as_u16(), hasty.requests()), (503, 1));
        drop(sender);
    }
}

#[tokio::test]
async fn a_post_is_never_sent_twice_after_it_left() {
    // The endpoint takes the whole request and closes its connection.
    let script = |_, mut wire: Wire| async move {
        let head = wire.read_head().await.unwrap_or_default();
        if head.starts_with("POST") {
            wire.read(4).await;
        }
    };
    let raw = RawBackend::start(script).await;
    let gate = Meshgate::chain("- retry: {if: [5xx], attempts: 3}").raw_cluster("one", &raw).start().await;
    assert_eq!((gate.call(Ask::post("/", "body")).await.status.as_u16(), raw.connections()), (503, 1));
    let metrics = gate.metrics().await;
    assert_eq!(metrics.sum("meshgate_retries_refused_total", &[("because", "method")]), 1.0);
    // What may be done twice is.
    assert_eq!((gate.get("/").await.status.as_u16(), raw.connections()), (503, 5));
    // And what its owner says may be.
    let chain = "- retry: {if: [reset], attempts: 1, methods: [POST]}";
    let gate = Meshgate::chain(chain).raw_cluster("one", &raw).start().await;
    assert_eq!((gate.call(Ask::post("/", "body")).await.status.as_u16(), raw.connections()), (503, 7));
}

/// Plays an endpoint over HTTP/2 that ends its first request like this, and answers all others by 200.
async fn first_ends_by(
    first: impl Fn(u32) -> Vec<u8> + Clone + Send + 'static,
    hits: &Arc<AtomicUsize>,
) -> RawBackend {
    let hits = Arc::clone(hits);
    let script = move |_, mut wire: Wire| {
        let (hits, first) = (Arc::clone(&hits), first.clone());
        async move {
            wire.read(PREFACE.len()).await;
            wire.write(frame(kind::SETTINGS, 0, 0, &[])).await;
            loop {
                let head = wire.read(9).await;
                let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
                let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
                let payload = wire.read(length).await;
                match head[3] {
                    kind::HEADERS if hits.fetch_add(1, Ordering::SeqCst) == 0 => {
                        wire.write(first(stream)).await
                    }
                    kind::HEADERS => {
                        let answer = fields(&[(":status", "200")]);
                        wire.write(frame(kind::HEADERS, END | END_HEADERS, stream, &answer)).await;
                    }
                    kind::SETTINGS if head[4] & END == 0 => {
                        wire.write(frame(kind::SETTINGS, END, 0, &[])).await
                    }
                    kind::PING if head[4] & END == 0 => wire.write(frame(kind::PING, END, 0, &payload)).await,
                    _ => {}
                }
            }
        }
    };
    RawBackend::start(script).await
}

#[tokio::test]
async fn a_post_that_was_not_begun_with_may_be_sent_again() {
    let reset = |code: u32| move |stream| frame(kind::RST_STREAM, 0, stream, &code.to_be_bytes());
    let goaway = |_| frame(kind::GOAWAY, 0, 0, &[0; 8]);
    let (refused, cancelled) = (7, 8);
    for (conditions, expected) in
        [("[refused-stream]", (200, 2)), ("[5xx]", (200, 2)), ("[connect-failure]", (503, 1))]
    {
        for way in 0..2 {
            let hits = Arc::default();
            let raw = match way {
                0 => first_ends_by(reset(refused), &hits).await,
                _ => first_ends_by(goaway, &hits).await,
            };
            let chain = format!("- retry: {{if: {conditions}}}");
            let gate =
                Meshgate::chain(&chain).cluster_of("one", &[raw.address()], "protocol: http2").start().await;
            let reply = gate.call(Ask::post("/", "body")).await;
            assert_eq!((reply.status.as_u16(), hits.load(Ordering::SeqCst)), expected, "{conditions} {way}");
        }
    }
    // Any other reset says nothing about what was done.
    let hits = Arc::default();
    let raw = first_ends_by(reset(cancelled), &hits).await;
    let gate = Meshgate::chain("- retry: {if: [5xx]}").cluster_of("one", &[raw.address()], "protocol: http2");
    let gate = gate.start().await;
    let reply = gate.call(Ask::post("/", "body")).await;
    assert_eq!((reply.status.as_u16(), hits.load(Ordering::SeqCst)), (503, 1));
}

/// The connection was gone before anything was sent: nobody can have begun with it.
#[tokio::test]
async fn row_6_retries_what_was_reset_before_the_request() {
    let authority = Authority::new();
    let issued = authority.issue(&Says::name("one.example"));
    for (conditions, expected) in [
        ("[reset-before-request]", (200, 1)),
        ("[reset]", (200, 1)),
        ("[connect-failure, 5xx]", (200, 1)),
        ("[500]", (503, 0)),
    ] {
        let backend = Backend::echo("one").await;
        let front = TlsFront::to(backend.address(), &issued).hanging_up(1).start().await;
        let gate = Meshgate::chain(&format!("- retry: {{if: {conditions}}}"))
            .file("ca.pem", authority.certificate())
            .cluster_of("one", &[front.address()], "tls: {ca: ca.pem, server_name: one.example}")
            .start()
            .await;
        let reply = gate.call(Ask::post("/", "body")).await;
        assert_eq!((reply.status.as_u16(), backend.requests()), expected, "{conditions}");
        assert_eq!(retried(&gate).await, expected.1 as f64, "{conditions}");
        if conditions == "[reset-before-request]" {
            let labels = [("because", "reset-before-request")];
            assert_eq!(gate.metrics().await.sum("meshgate_retries_total", &labels), 1.0);
        }
    }
}

#[tokio::test]
async fn what_the_proxy_sends_again_without_a_filter_it_sends_again_with_one() {
    let hits = Arc::default();
    let reset = |stream| frame(kind::RST_STREAM, 0, stream, &7_u32.to_be_bytes());
    let raw = first_ends_by(reset, &hits).await;
    let gate = Meshgate::chain("- retry: {if: [500]}").cluster_of("one", &[raw.address()], "protocol: http2");
    let gate = gate.start().await;
    assert_eq!((gate.get("/").await.status.as_u16(), hits.load(Ordering::SeqCst)), (200, 2));
    assert_eq!(retried(&gate).await, 0.0, "that is not a retry");
}

#[tokio::test]
async fn a_response_that_nobody_gets_leaves_its_connection_fit_for_others() {
    let answer = |seen: Seen, _| async move {
        if number(&seen) == 1 { status(500) } else { Ok(Response::new(empty())) }
    };
    let backend = Backend::answering("twice", answer).await;
    let filter = "{if: [5xx], back_off: {base: 20ms}}";
    let gate = before(&backend, false, filter).start().await;
    let mut client = gate.client().await;
    for _ in 0..20 {
        assert_eq!(client.get("/").await.status, 200);
    }
    assert_eq!(backend.requests(), 40);
    // A pause is drawn from 0 to 20 ms; the bytes are here before it has begun.
    assert!(backend.connections() < 15, "{} connections", backend.connections());
}
