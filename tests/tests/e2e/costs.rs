//! What one peer may cost: slow bodies, silent responses, floods of frames, streams; and how long gRPC clients wait.

use std::time::Duration;

use http::{Method, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use meshgate_tests::{
    Ask, Backend, Client, END, END_HEADERS, Meshgate, PREFACE, RawBackend, Seen, Socket, Wire, empty, fields,
    frame, framed, full, kind, streamed, until, within,
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

#[tokio::test]
async fn a_listener_has_so_many_connections_over_all_workers() {
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain("").workers(2).listener("max_connections: 5").cluster("one", &[&one]);
    let gate = gate.start().await;
    let mut open = Vec::new();
    for _ in 0..5 {
        let mut client = gate.client().await;
        assert_eq!(client.get("/").await.status, 200);
        open.push(client);
    }
    for _ in 0..5 {
        assert_eq!(Socket::connect(gate.address()).await.end().await.bytes, b"", "one too many");
    }
    assert_eq!(gate.metrics().await.sum("meshgate_downstream_connections_rejected_total", &[]), 5.0);
    open.pop();
    until("there is room", || async {
        let mut client = Client::try_http1(gate.address()).await.ok()?;
        client.try_call(Ask::get("/again")).await.is_ok().then_some(())
    })
    .await;
}

/// Uploads that nobody takes leave room for another one on the same connection.
#[tokio::test]
async fn stalled_uploads_do_not_hold_up_others() {
    let answer = |seen: Seen, request: Request<Incoming>| async move {
        if seen.path == "/stalled" {
            return std::future::pending().await;
        }
        let length = request.into_body().collect().await.map_err(std::io::Error::other)?.to_bytes().len();
        Ok(Response::new(full(length.to_string())))
    };
    let one = Backend::answering("one", answer).await;
    let gate = Meshgate::chain("").cluster("one", &[&one]).start().await;
    let mut client = Client::http2(gate.address()).await;
    let mut stalled = Vec::new();
    for _ in 0..10 {
        stalled.push(client.begin(Ask::post("/stalled", vec![b'x'; 1 << 20])).await.unwrap());
    }
    one.wait_for_requests(10).await;
    let reply = client.call(Ask::post("/taken", vec![b'x'; 1 << 20])).await;
    assert_eq!(reply.text(), (1 << 20).to_string());
}

#[tokio::test]
async fn an_address_has_so_many_connections_over_all_workers() {
    let one = Backend::echo("one").await;
    let setup =
        Meshgate::chain("").workers(2).listener("max_connections_per_address: 5").cluster("one", &[&one]);
    let gate = setup.start().await;
    let mut open = Vec::new();
    for _ in 0..5 {
        let mut client = gate.client().await;
        assert_eq!(client.get("/").await.status, 200);
        open.push(client);
    }
    for _ in 0..5 {
        assert_eq!(Socket::connect(gate.address()).await.end().await.bytes, b"", "one too many");
    }
    assert_eq!(gate.metrics().await.sum("meshgate_downstream_connections_crowded_total", &[]), 5.0);
    // Another address has its own, and one that leaves makes room.
    let other = tokio::net::TcpSocket::new_v4().unwrap();
    other.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut other = other.connect(gate.address()).await.unwrap();
    other.write_all(b"GET /other HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut said = String::new();
    within("an answer", other.read_to_string(&mut said)).await.unwrap();
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    open.pop();
    until("there is room", || async {
        let mut client = Client::try_http1(gate.address()).await.ok()?;
        client.try_call(Ask::get("/again")).await.is_ok().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_closed_and_an_idle_one_is_not() {
    let one = Backend::answering("one", |_, _| async { Ok(Response::new(full(vec![b'x'; 64 << 20]))) }).await;
    let setup = Meshgate::chain("").listener("write_timeout: 200ms").cluster("one", &[&one]);
    let gate = setup.start().await;
    let mut idle = Wire::connect(gate.address()).await;
    idle.write("HEAD / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    idle.read_head().await.unwrap();
    let mut stuck = Wire::connect(gate.address()).await;
    stuck.write("GET /stuck HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let entry = gate.access("/stuck").await;
    assert_eq!(entry["response_flags"], "DC", "{entry}");
    assert_eq!(gate.metrics().await.sum("meshgate_downstream_connections_timed_out_total", &[]), 1.0);
    idle.write("HEAD / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(idle.read_head().await.is_some(), "it has nothing to take");
}

#[tokio::test]
async fn interim_responses_are_bounded() {
    let narrow = "limits: {interim_responses: 2}";
    for (more, count, status) in
        [("", 10, 200), ("", 11, 502), ("", 10_000, 502), (narrow, 2, 200), (narrow, 3, 502)]
    {
        let backend = RawBackend::start(move |_, mut wire| async move {
            while wire.read_head().await.is_some() {
                wire.write(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".repeat(count)).await;
                wire.write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            }
        })
        .await;
        let gate = Meshgate::chain("").cluster_of("one", &[backend.address()], more).start().await;
        let mut client = gate.client().await;
        for _ in 0..2 {
            assert_eq!(client.get("/").await.status, status, "after {count}");
        }
        assert_eq!(interim_overflows(&gate).await, if status == 502 { 2.0 } else { 0.0 });
        if status == 502 {
            let entry = gate.access("/").await;
            assert_eq!(entry["response_flags"], "UPE", "{entry}");
        } else {
            assert_eq!(backend.connections(), 1, "the connection is as good as before");
        }
    }
}

async fn interim_overflows(gate: &Meshgate) -> f64 {
    let labels = [("cluster", "one"), ("limit", "interim_responses")];
    gate.metrics().await.sum("meshgate_cluster_overflows_total", &labels)
}

#[tokio::test]
async fn interim_responses_over_http2_are_bounded() {
    let narrow = ", limits: {interim_responses: 0}";
    for (more, count, status) in [("", 10, 200), ("", 11, 502), (narrow, 0, 200), (narrow, 1, 502)] {
        let backend = RawBackend::start(move |_, mut wire| async move {
            wire.write(frame(kind::SETTINGS, 0, 0, &[])).await;
            wire.read(PREFACE.len()).await;
            loop {
                let head = wire.read(9).await;
                let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
                wire.read(length).await;
                if head[3] != kind::HEADERS {
                    continue;
                }
                let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
                let interim = frame(kind::HEADERS, END_HEADERS, stream, &fields(&[(":status", "103")]));
                wire.write(interim.repeat(count)).await;
                wire.write(frame(kind::HEADERS, END_HEADERS | END, stream, &fields(&[(":status", "200")])))
                    .await;
            }
        })
        .await;
        let setup =
            Meshgate::chain("").cluster_of("one", &[backend.address()], &format!("protocol: http2{more}"));
        let gate = setup.start().await;
        let mut client = gate.client().await;
        for _ in 0..2 {
            assert_eq!(client.get("/").await.status, status, "after {count}");
        }
        assert_eq!(interim_overflows(&gate).await, if status == 502 { 2.0 } else { 0.0 });
        assert_eq!(backend.connections(), 1, "the connection goes on");
    }
}
