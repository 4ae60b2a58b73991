//! What one peer may cost: slow bodies, silent responses, floods of frames, streams; and how long gRPC clients wait.

use std::time::Duration;

use http::{Method, Response};
use meshgate_tests::{
    Ask, Backend, Client, Meshgate, PREFACE, RawBackend, Socket, Wire, empty, frame, framed, full, kind,
    streamed, within,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn a_body_that_hardly_comes_is_given_up() {
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain("")
        .listener("body_timeout: 300ms")
        .listener("min_body_rate: 1KiB")
        .cluster("one", &[&one])
        .start()
        .await;
    let mut slow = Wire::connect(gate.address()).await;
    slow.write("POST /slow HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n").await;
    assert_eq!(slow.read_reply().await.status(), 408);
    let entry = gate.access("/slow").await;
    assert_eq!(entry["response_code_details"], "request_body_timeout", "{entry}");
    assert_eq!(gate.metrics().await.sum("meshgate_downstream_slow_bodies_total", &[]), 1.0);

    // One that comes, with pauses shorter than that, takes as long as it takes.
    let mut steady = Wire::connect(gate.address()).await;
    steady.write("POST /steady HTTP/1.1\r\nhost: a\r\ncontent-length: 12000\r\n\r\n").await;
    for _ in 0..12 {
        tokio::time::sleep(Duration::from_millis(60)).await;
        steady.write([b'x'; 1000]).await;
    }
    assert_eq!(steady.read_reply().await.status(), 200);
}

#[tokio::test]
async fn a_grpc_client_may_pause_and_one_that_is_answered_too() {
    let one = Backend::http2_echo("one").await;
    let gate = Meshgate::chain("")
        .listener("body_timeout: 50ms")
        .cluster_of("one", &[one.address()], "protocol: http2")
        .start()
        .await;
    let mut client = Client::http2(gate.address()).await;
    let (mut sender, body) = streamed();
    let ask = Ask::new(Method::POST, "/", body).header("content-type", "application/grpc");
    let answer = client.begin(ask).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    sender.send_data("x".into()).await.unwrap();
    drop(sender);
    assert_eq!(within("an answer", answer).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_response_that_falls_silent_is_broken_off() {
    let one = Backend::answering("one", |_, _| {
        let (mut sender, body) = streamed();
        tokio::spawn(async move {
            sender.send_data("first".into()).await.unwrap();
            std::future::pending::<()>().await;
        });
        async { Ok(Response::new(body)) }
    })
    .await;
    let gate =
        Meshgate::chain("").listener("stream_idle_timeout: 200ms").cluster("one", &[&one]).start().await;
    let mut client = gate.client().await;
    within("its end", client.try_call(Ask::get("/silent"))).await.unwrap_err();
    let entry = gate.access("/silent").await;
    assert_eq!(entry["response_flags"], "SI", "{entry}");
}

#[tokio::test]
async fn the_clients_own_deadline_ends_a_call() {
    let one = Backend::http2("one", |_, _| std::future::pending()).await;
    let gate = Meshgate::chain("").cluster_of("one", &[one.address()], "protocol: http2").start().await;
    let ask = Ask::new(Method::POST, "/call", full(framed(b"x")))
        .header("content-type", "application/grpc")
        .header("grpc-timeout", "200m");
    let reply = Client::http2(gate.address()).await.call(ask).await;
    assert_eq!((reply.status.as_u16(), reply.header("grpc-status")), (200, "4"));
    assert_eq!(one.seen()[0].header("grpc-timeout"), "200m");
    assert_eq!(gate.access("/call").await["response_flags"], "UT");
}

#[tokio::test]
async fn frames_that_carry_nothing_end_the_connection() {
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain("").listener("max_control_frames: 100").cluster("one", &[&one]).start().await;
    let floods = [
        frame(kind::PING, 0, 0, &[0; 8]),
        frame(kind::SETTINGS, 0, 0, &[]),
        frame(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]),
        frame(kind::PRIORITY, 0, 1, &[0, 0, 0, 0, 1]),
    ];
    for (count, flood) in floods.iter().enumerate() {
        let (mut from, mut to) = Socket::connect(gate.address()).await.split();
        let bytes = [PREFACE, &frame(kind::SETTINGS, 0, 0, &[]), &flood.repeat(2_000)].concat();
        let writing = tokio::spawn(async move {
            // It may be closed before it took all.
            let _ = to.write_all(&bytes).await;
            to
        });
        let mut answers = Vec::new();
        // In order or by a reset: what matters is that it ends.
        let _ = within("the end of the connection", from.read_to_end(&mut answers)).await;
        writing.await.unwrap();
        let metrics = gate.metrics().await;
        let flooded = metrics.sum("meshgate_downstream_connections_flooded_total", &[("listener", "web")]);
        assert_eq!(flooded, (count + 1) as f64);
    }
    // A client beside them works, and so does one that works a lot on one connection.
    let mut client = Client::http2(gate.address()).await;
    for _ in 0..300 {
        assert_eq!(client.call(Ask::post("/", vec![7; 1000])).await.status, 200);
    }
}

#[tokio::test]
async fn an_endpoint_that_floods_is_let_go() {
    let backend = RawBackend::start(|_, mut wire| async move {
        wire.write(frame(kind::SETTINGS, 0, 0, &[])).await;
        wire.read(PREFACE.len()).await;
        wire.write(frame(kind::PING, 0, 0, &[0; 8]).repeat(3_000)).await;
        wire.read_to_end().await;
    })
    .await;
    let gate = Meshgate::chain("").cluster_of("one", &[backend.address()], "protocol: http2").start().await;
    let reply = gate.call(Ask::new(Method::POST, "/", empty())).await;
    assert_eq!(reply.status, 503);
}

#[tokio::test]
async fn streams_of_one_connection_are_limited() {
    let one = Backend::answering("one", |_, _| std::future::pending()).await;
    let gate = Meshgate::chain("").listener("max_streams: 2").cluster("one", &[&one]).start().await;
    let mut socket = Socket::connect(gate.address()).await;
    socket.write(PREFACE).await;
    socket.write(frame(kind::SETTINGS, 0, 0, &[])).await;
    // :method GET, :scheme http, :path /, :authority a
    let block = [0x82, 0x86, 0x84, 0x41, 1, b'a'];
    for stream in [1, 3, 5] {
        socket.write(frame(kind::HEADERS, 5, stream, &block)).await;
    }
    let refused = loop {
        let head = socket.read(9).await;
        let length = usize::from(head[1]) << 8 | usize::from(head[2]);
        let payload = socket.read(length).await;
        if head[3] == 3 {
            break (head[8], payload);
        }
    };
    assert_eq!(refused, (5, vec![0, 0, 0, 7]), "REFUSED_STREAM for the third");
    one.wait_for_requests(2).await;
}
