//! Streaming with back-pressure, early answers, bodies broken off, large bodies under load.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Response};
use http_body_util::BodyExt;
use meshgate_tests::{Ask, Backend, Client, Meshgate, RawBackend, Wire, full, streamed, within};
use tokio::sync::{Notify, Semaphore, mpsc};

#[tokio::test]
async fn request_body_streams_while_it_is_written() {
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let one = Backend::answering("one", move |_, request| {
        let arrived = arrived.clone();
        async move {
            let mut body = request.into_body();
            while let Some(Ok(frame)) = body.frame().await {
                arrived.send(frame.into_data().unwrap()).unwrap();
            }
            Ok(Response::new(full("all read")))
        }
    })
    .await;
    let gate = Meshgate::chain("").cluster("one", &[&one]).start().await;

    for mut client in [gate.client().await, Client::http2(gate.address()).await] {
        let (mut sender, body) = streamed();
        let call = tokio::spawn(async move { client.call(Ask::new(Method::POST, "/", body)).await });
        for part in ["first", "second", "third"] {
            sender.send_data(Bytes::from(part)).await.unwrap();
            // The next part is written only when this one has come through.
            assert_eq!(within(part, arrivals.recv()).await.unwrap(), part);
        }
        drop(sender);
        assert_eq!(call.await.unwrap().text(), "all read");
    }
}

#[tokio::test]
async fn response_body_streams_while_it_is_written() {
    let received = Arc::new(Semaphore::new(0));
    let permits = Arc::clone(&received);
    let one = Backend::answering("one", move |_, _| {
        let permits = Arc::clone(&permits);
        async move {
            let (mut sender, body) = streamed();
            tokio::spawn(async move {
                for part in ["first", "second", "third"] {
                    sender.send_data(Bytes::from(part)).await.unwrap();
                    permits.acquire().await.unwrap().forget();
                }
            });
            Ok(Response::new(body))
        }
    })
    .await;
    let gate = Meshgate::chain("").cluster("one", &[&one]).start().await;

    for mut client in [gate.client().await, Client::http2(gate.address()).await] {
        let response = within("a response head", client.start(Ask::get("/"))).await.unwrap();
        let mut body = response.into_body();
        for part in ["first", "second", "third"] {
            let frame = within(part, body.frame()).await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), part);
            received.add_permits(1);
        }
        assert!(within("the end of the body", body.collect()).await.unwrap().to_bytes().is_empty());
    }
}

/// More than all buffers on the way can hold together: sockets, hyper, HTTP/2 windows.
const MORE_THAN_BUFFERS: usize = 64 * 1024 * 1024;
/// What a proxy may hold of it at most.
const HELD: u64 = 16 * 1024 * 1024;

#[tokio::test]
async fn fast_client_waits_for_a_slow_backend() {
    let read_on = Arc::new(Notify::new());
    let waiting = Arc::clone(&read_on);
    let one = RawBackend::start(move |_, mut wire| {
        let waiting = Arc::clone(&waiting);
        async move {
            wire.read_head().await.unwrap();
            waiting.notified().await;
            wire.read(MORE_THAN_BUFFERS).await;
            wire.write("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        }
    })
    .await;
    let gate = Meshgate::chain("").raw_cluster("one", &one).start().await;
    let (before, _) = gate.memory();

    let mut wire = Wire::connect(gate.address()).await;
    wire.write(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {MORE_THAN_BUFFERS}\r\n\r\n")).await;
    let sent = fill(&mut wire, MORE_THAN_BUFFERS).await;
    assert!(sent < MORE_THAN_BUFFERS, "the backend reads nothing, and yet all of the body was taken");
    assert!(
        gate.memory().1 < before + HELD,
        "{before} bytes at rest, {} with a body held up",
        gate.memory().1
    );

    read_on.notify_one();
    wire.write(vec![0; MORE_THAN_BUFFERS - sent]).await;
    assert_eq!(wire.read_reply().await.status(), 200);
}

#[tokio::test]
async fn fast_backend_waits_for_a_slow_client() {
    let (stuck, mut stuck_at) = mpsc::unbounded_channel();
    let one = RawBackend::start(move |_, mut wire| {
        let stuck = stuck.clone();
        async move {
            while wire.read_head().await.is_some() {
                wire.write(format!("HTTP/1.1 200 OK\r\ncontent-length: {MORE_THAN_BUFFERS}\r\n\r\n")).await;
                let sent = fill(&mut wire, MORE_THAN_BUFFERS).await;
                stuck.send(sent).unwrap();
                wire.write(vec![0; MORE_THAN_BUFFERS - sent]).await;
            }
        }
    })
    .await;
    let gate = Meshgate::chain("").raw_cluster("one", &one).start().await;
    let (before, _) = gate.memory();

    let mut wire = Wire::connect(gate.address()).await;
    wire.write("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let sent = within("the backend is stuck", stuck_at.recv()).await.unwrap();
    assert!(sent < MORE_THAN_BUFFERS, "the client reads nothing, and yet all of the body was taken");
    assert!(
        gate.memory().1 < before + HELD,
        "{before} bytes at rest, {} with a body held up",
        gate.memory().1
    );
    assert_eq!(wire.read_reply().await.body.len(), MORE_THAN_BUFFERS);

    // The same over HTTP/2: the client never opens the stream's window further.
    let mut http2 = Client::http2(gate.address()).await;
    let response = within("a response head", http2.start(Ask::get("/"))).await.unwrap();
    let sent = within("the backend is stuck", stuck_at.recv()).await.unwrap();
    assert!(sent < MORE_THAN_BUFFERS, "the client reads nothing, and yet all of the body was taken");
    let body = within("the rest", response.into_body().collect()).await.unwrap().to_bytes();
    assert_eq!(body.len(), MORE_THAN_BUFFERS);
    assert!(gate.memory().1 < before + HELD, "{before} bytes at rest, {} at the highest", gate.memory().1);
}

/// Writes zeros until nothing more is taken. Nobody reads at the other end, so that moment comes, and it is recognised by silence: the only place where a
/// test looks at the clock, and a busy machine can only make it see too little written, never too much.
async fn fill(wire: &mut Wire, most: usize) -> usize {
    const SILENCE: std::time::Duration = std::time::Duration::from_secs(1);
    let mut sent = 0;
    let zeros = vec![0; 64 * 1024];
    while sent < most {
        match tokio::time::timeout(SILENCE, wire.write_some(&zeros[..zeros.len().min(most - sent)])).await {
            Ok(Ok(written)) => sent += written,
            Ok(Err(error)) => panic!("the connection broke instead of holding: {error}"),
            Err(_) => break,
        }
    }
    sent
}

#[tokio::test]
async fn early_answer_arrives_while_the_body_is_being_written() {
    let one = RawBackend::start(|number, mut wire| async move {
        wire.read_head().await.unwrap();
        wire.write(format!(
            "HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\nx-connection: {number}\r\n\r\nno"
        ))
        .await;
        wire.read_to_end().await;
    })
    .await;
    let gate = Meshgate::chain("").raw_cluster("one", &one).start().await;

    for number in 1..=3 {
        let mut wire = Wire::connect(gate.address()).await;
        wire.write("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\nonly this much").await;
        let reply = wire.read_reply().await;
        assert_eq!((reply.status(), reply.body.as_slice()), (403, b"no".as_slice()));
        // The rest of the first body never came: its upstream connection must not carry the next request.
        assert_eq!(reply.header("x-connection"), number.to_string());
    }

    let mut http2 = Client::http2(gate.address()).await;
    let (sender, body) = streamed();
    let reply = http2.call(Ask::new(Method::POST, "/", body)).await;
    assert_eq!((reply.status.as_u16(), reply.text()), (403, "no".to_owned()));
    drop(sender);
}

#[tokio::test]
async fn connection_after_an_early_answer_is_never_read_as_the_next_request() {
    let one = Backend::answering("one", async |seen, request| {
        if seen.path == "/early" {
            return Ok(Response::builder().status(403).body(full("no")).unwrap());
        }
        let body = request.into_body().collect().await.map_err(std::io::Error::other)?.to_bytes();
        Ok(Response::new(full(body)))
    })
    .await;
    let gate = Meshgate::chain("").cluster("one", &[&one]).start().await;

    // The body's bytes look like a request. They are either swallowed as the body they are, or never answered.
    let smuggled = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
    let mut wire = Wire::connect(gate.address()).await;
    wire.write(format!("POST /early HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", smuggled.len()))
        .await;
    assert_eq!(wire.read_reply().await.status(), 403);
    wire.write(smuggled).await;
    wire.finish_writing().await;
    let rest = wire.read_to_end().await;
    assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
    assert!(one.seen().iter().all(|seen| seen.path != "/smuggled"));
}

#[tokio::test]
async fn body_that_the_client_breaks_off_never_looks_whole() {
    let (told, mut ends) = mpsc::unbounded_channel();
    let one = Backend::answering("one", move |seen, request| {
        let told = told.clone();
        async move {
            let whole = request.into_body().collect().await.is_ok();
            told.send((seen.path, whole)).unwrap();
            Ok(Response::new(full("")))
        }
    })
    .await;
    let gate = Meshgate::chain("").cluster("one", &[&one]).start().await;

    let requests = [
        ("/length", "POST /length HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nhalf"),
        ("/chunked", "POST /chunked HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n"),
    ];
    for (count, (path, bytes)) in requests.into_iter().enumerate() {
        let mut wire = Wire::connect(gate.address()).await;
        wire.write(bytes).await;
        one.wait_for_requests(count + 1).await;
        drop(wire);
        assert_eq!(within("the end of the body", ends.recv()).await, Some((path.to_owned(), false)));
        let entry = gate.access(path).await;
        assert_eq!(entry["response_flags"], "DC", "{entry}");
    }

    // And what follows comes on a connection where nothing is left over.
    assert_eq!(gate.call(Ask::post("/whole", "abc")).await.status, 200);
    assert_eq!(within("the next body", ends.recv()).await, Some(("/whole".to_owned(), true)));
}

#[tokio::test]
async fn body_that_the_backend_breaks_off_never_looks_whole() {
    let one = RawBackend::start(|_, mut wire| async move {
        let head = wire.read_head().await.unwrap();
        if head.starts_with("GET /length") {
            wire.write("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf").await;
        } else {
            wire.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n").await;
        }
        if head.contains("reset") {
            wire.reset();
        }
    })
    .await;
    let gate = Meshgate::chain("").raw_cluster("one", &one).start().await;

    let mut http2 = Client::http2(gate.address()).await;
    for path in ["/length", "/chunked", "/length-reset", "/chunked-reset"] {
        let mut http1 = gate.client().await;
        for (version, client) in [("1", &mut http1), ("2", &mut http2)] {
            let path = format!("{path}?{version}");
            // A reset may overtake the head. Either way, nothing may look like a whole answer. All four run on the
            // same HTTP/2 connection: a broken stream leaves the others alone.
            let response = within("a response head", client.start(Ask::get(&path))).await.unwrap();
            if response.status() == 200 {
                let end = within("the end of the body", response.into_body().collect()).await;
                assert!(end.is_err(), "{path}: a broken body ended like a whole one");
            }
            let entry = gate.access(&path).await;
            assert_eq!(entry["response_flags"], "UR", "{entry}");
        }
    }
    assert_eq!(one.connections(), 8, "no connection with a broken body is used again");
}

#[tokio::test]
async fn body_that_the_client_does_not_want_is_not_read_on() {
    let one = Backend::answering("one", async |_, _| {
        let (mut sender, body) = streamed();
        tokio::spawn(async move { while sender.send_data(Bytes::from(vec![0; 16384])).await.is_ok() {} });
        Ok(Response::new(body))
    })
    .await;
    let gate = Meshgate::chain("").cluster("one", &[&one]).start().await;

    let mut wire = Wire::connect(gate.address()).await;
    wire.write("GET /endless HTTP/1.1\r\nhost: a\r\n\r\n").await;
    wire.read_head().await.unwrap();
    drop(wire);
    one.wait_until_unused().await;
    assert_eq!(gate.access("/endless").await["response_flags"], "DC");

    // Over HTTP/2 only the stream ends.
    let mut http2 = Client::http2(gate.address()).await;
    drop(within("a response head", http2.start(Ask::get("/reset"))).await.unwrap());
    one.wait_until_unused().await;
    assert_eq!(gate.access("/reset").await["response_flags"], "DC");
    assert!(!http2.is_closed());
}
