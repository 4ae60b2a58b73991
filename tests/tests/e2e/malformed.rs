//! Bytes that are not HTTP, or HTTP that two servers would read differently: refused here, never forwarded.

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use meshgate_tests::{
    Ask, Backend, Client, END, Frames, Meshgate, PREFACE, Seen, Wire, empty, fields, frame, kind, within,
};

/// Requests, and the status each is refused with. Every connection ends after the answer.
const REFUSED: &[(&str, u16)] = &[
    ("GET /\r\n\r\n", 400),
    ("GET / HTTP/9.9\r\nhost: a\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nhost: a@b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nhost: a/b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nhost: a, b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nhost: a\r\nbad name: x\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nhost: a\r\nname : x\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nhost: a\r\nname: x\0y\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nhost: a\r\n: x\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nhost: a\r\nx: 1\r\n folded\r\n\r\n", 400),
    ("GET /%00 HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    ("GET /a%2fb HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    ("GET /../x HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    ("GET /a\\b HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    ("GET /%zz HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab", 400),
    ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +5\r\n\r\nhello", 400),
    ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5, 5\r\n\r\nhello", 400),
    ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999999999999999\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
    ("POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
];

#[tokio::test]
async fn malformed_heads_are_refused() {
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain("").cluster("one", &[&one]).start().await;
    for (request, status) in REFUSED {
        let mut wire = Wire::connect(gate.address()).await;
        wire.write(request).await;
        let reply = wire.read_reply().await;
        assert_eq!(reply.status(), *status, "{request:?}");
    }
    assert_eq!(one.requests(), 0, "{:?}", one.seen());
    assert_eq!(gate.get("/still-there").await.status, 200);
}

#[tokio::test]
async fn request_with_two_lengths_is_not_two_requests() {
    // The proxy may refuse it or believe one of the two, but a backend must never see the second request inside.
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain("").cluster("one", &[&one]).start().await;
    let mut wire = Wire::connect(gate.address()).await;
    let inside = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
    let head = format!("content-length: {}\r\ntransfer-encoding: chunked", inside.len());
    wire.write(format!("POST /outer HTTP/1.1\r\nhost: a\r\n{head}\r\n\r\n{inside}")).await;
    wire.finish_writing().await;
    wire.read_to_end().await;
    assert!(one.seen().iter().all(|seen| seen.path != "/smuggled"), "{:?}", one.seen());
}

#[tokio::test]
async fn malformed_chunks_never_end_in_a_whole_body() {
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain("").cluster("one", &[&one]).start().await;
    for chunks in
        ["0x5\r\nhello\r\n0\r\n\r\n", "+5\r\nhello\r\n0\r\n\r\n", "5\r\nhelloX\r\n0\r\n\r\n", "\r\n\r\n"]
    {
        let mut wire = Wire::connect(gate.address()).await;
        wire.write(format!("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{chunks}")).await;
        let answer = String::from_utf8_lossy(&wire.read_to_end().await).into_owned();
        assert!(!answer.starts_with("HTTP/1.1 200"), "{chunks:?}: {answer}");
    }
}

#[tokio::test]
async fn heads_are_bounded() {
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain("").cluster("one", &[&one]).start().await;
    let long = "x".repeat(1 << 20);
    let target = "x".repeat(20_000);
    let many: String = (0..1000).map(|number| format!("x-{number}: 1\r\n")).collect();
    for (request, expected) in [
        (format!("GET / HTTP/1.1\r\nhost: a\r\nx-long: {long}\r\n\r\n"), 431),
        (format!("GET / HTTP/1.1\r\nhost: a\r\n{many}\r\n"), 431),
        (format!("GET /{target} HTTP/1.1\r\nhost: a\r\n\r\n"), 414),
    ] {
        let mut wire = Wire::connect(gate.address()).await;
        wire.write(&request).await;
        let reply = wire.read_reply().await;
        assert_eq!(reply.status(), expected, "{}", &request[..60]);
    }
    assert_eq!(one.requests(), 0);
}

#[tokio::test]
async fn bounds_of_heads_are_the_listeners() {
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain("")
        .listener("max_headers: 10")
        .listener("max_header_bytes: 8KiB")
        .cluster("one", &[&one])
        .start()
        .await;
    for (fields, length, expected) in [(8, 700, 200), (12, 1, 431), (2, 5_000, 431)] {
        let with = |ask: Ask, number| ask.header(&format!("x-{number}"), &"x".repeat(length));
        let ask = (0..fields).fold(Ask::get("/"), with);
        assert_eq!(gate.call(ask).await.status, expected, "{fields} fields of {length} bytes");
    }
}

#[tokio::test]
async fn number_of_fields_is_bounded_over_http2() {
    let one = Backend::echo("one").await;
    // What is not 403 did not come to the filter that denies everything.
    for (chain, served) in [("", 200), ("- authz: {default: deny}", 403)] {
        let gate = Meshgate::chain(chain).listener("max_headers: 10").cluster("one", &[&one]).start().await;
        let mut client = Client::http2(gate.address()).await;
        for cookie in [false, true] {
            let name = |number: usize| if cookie { "cookie".to_owned() } else { format!("x-{number}") };
            // The id that the client gives each request is one more.
            for (path, fields, expected) in [("/", 9, served), ("/over", 10, 431), ("/", 9, served)] {
                let with = |ask: Ask, number| ask.header(&name(number), "a=b");
                let reply = client.call((0..fields).fold(Ask::get(path), with)).await;
                assert_eq!(reply.status, expected, "{chain:?}, {fields} fields, cookie: {cookie}");
            }
        }
        assert!(!client.is_closed(), "only the request was refused");
        let entry = gate.access("/over").await;
        assert_eq!((&entry["response_code"], &entry["response_flags"]), (&431.into(), &"DPE".into()));
        assert_eq!(entry["response_code_details"], "invalid_request_head");
    }
    assert_eq!(one.requests(), 4, "{:?}", one.seen());
}

#[tokio::test]
async fn request_body_over_the_listeners_limit_is_413() {
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain("").listener("max_request_body: 1KiB").cluster("one", &[&one]).start().await;
    for head in ["content-length: 2000", "transfer-encoding: chunked"] {
        let mut wire = Wire::connect(gate.address()).await;
        wire.write(format!("POST / HTTP/1.1\r\nhost: a\r\n{head}\r\n\r\n")).await;
        wire.write(format!("7d0\r\n{}\r\n0\r\n\r\n", "x".repeat(2000))).await;
        assert_eq!(wire.read_reply().await.status(), 413, "{head}");
    }
    let mut client = gate.client().await;
    assert_eq!(client.call(Ask::post("/", vec![b'x'; 1024])).await.status, 200);
}

#[tokio::test]
async fn half_a_head_is_given_up() {
    let gate = Meshgate::chain("").listener("header_timeout: 100ms").start().await;
    let mut wire = Wire::connect(gate.address()).await;
    wire.write("GET / HTTP/1.1\r\nhost:").await;
    let answer = String::from_utf8_lossy(&wire.read_to_end().await).into_owned();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408 "), "{answer}");

    // Nothing at all is given up as well.
    assert!(Wire::connect(gate.address()).await.read_to_end().await.is_empty());
}

#[tokio::test]
async fn half_a_head_is_given_up_over_http2() {
    let one = Backend::echo("one").await;
    let setup = Meshgate::chain("").listener("header_timeout: 100ms").listener("idle_timeout: 1h");
    let gate = setup.cluster("one", &[&one]).start().await;
    let mut patient = Client::http2(gate.address()).await;
    assert_eq!(patient.get("/").await.status, 200);

    let head = fields(&[(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")]);
    // More of the head is due: in this frame, or in another one.
    let whole = frame(kind::HEADERS, END, 1, &head);
    for half in [&whole[..whole.len() - 5], &whole[..]] {
        let mut wire = Wire::connect(gate.address()).await;
        wire.write([PREFACE, &frame(kind::SETTINGS, 0, 0, &[]), half].concat()).await;
        wire.read_to_end().await;
    }
    let timed_out = gate.metrics().await.sum("meshgate_downstream_connections_timed_out_total", &[]);
    assert_eq!(timed_out, 2.0);
    assert_eq!(patient.get("/").await.status, 200, "who says nothing between two requests is not late");
}

#[tokio::test]
async fn garbage_ends_its_own_connection_only() {
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain("").cluster("one", &[&one]).start().await;
    let mut neighbour = Client::http2(gate.address()).await;
    for bytes in [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), // a TLS hello
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(), // a frame without end
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n".to_vec(),
        vec![0; 1000],
    ] {
        let mut wire = Wire::connect(gate.address()).await;
        wire.write(&bytes).await;
        wire.finish_writing().await;
        wire.read_to_end().await;
        assert_eq!(neighbour.get("/").await.status, 200);
    }
}

/// A client that takes back its upload without an error has not sent it: the endpoint must not take the part for the whole.
#[tokio::test]
async fn half_a_body_is_never_a_whole_one_over_http2() {
    let (ended, mut ends) = tokio::sync::mpsc::unbounded_channel();
    for http2 in [false, true] {
        let ended = ended.clone();
        let answer = move |_: Seen, request: Request<Incoming>| {
            let ended = ended.clone();
            async move {
                let body = request.into_body().collect().await.map_err(std::io::Error::other);
                ended.send(body.as_ref().map(drop).map_err(drop)).unwrap();
                body?;
                Ok(Response::new(empty()))
            }
        };
        let (one, protocol) = if http2 {
            (Backend::http2("one", answer).await, "protocol: http2")
        } else {
            (Backend::answering("one", answer).await, "")
        };
        let gate = Meshgate::chain("").cluster_of("one", &[one.address()], protocol).start().await;
        let mut frames = Frames::connect(gate.address()).await;
        let head = [(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/")];
        frames.ask(1, false, &head).await;
        frames.send(kind::DATA, 0, 1, b"half").await;
        one.wait_for_requests(1).await;
        frames.send(kind::RST_STREAM, 0, 1, &0_u32.to_be_bytes()).await;
        assert_eq!(within("the body's end", ends.recv()).await, Some(Err(())), "{http2}");
    }
}
