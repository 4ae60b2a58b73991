//! SIGTERM: nothing that was accepted is lost, and the process ends in order. A second signal ends it at once.

use std::collections::HashSet;
use std::sync::Arc;

use http::Response;
use http_body_util::BodyExt;
use meshgate_tests::{
    Ask, Backend, Client, Frames, Load, Meshgate, Reply, Wire, full, kind, streamed, until, within,
};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

/// A backend that answers each request only when the test gives it a permit.
async fn held() -> (Backend, Arc<Semaphore>) {
    let permits = Arc::new(Semaphore::new(0));
    let waiting = Arc::clone(&permits);
    let backend = Backend::answering("held", move |seen, _| {
        let waiting = Arc::clone(&waiting);
        async move {
            waiting.acquire().await.unwrap().forget();
            Ok(Response::new(full(seen.path)))
        }
    })
    .await;
    (backend, permits)
}

/// Waits until the proxy says that it drains.
async fn draining(gate: &Meshgate) {
    until("GET /ready is answered by 503", || async {
        (gate.admin("/ready").await.status == 503).then_some(())
    })
    .await;
}

#[tokio::test]
async fn exchanges_in_flight_finish() {
    let (held, permits) = held().await;
    let gate = Meshgate::chain("").workers(2).cluster("held", &[&held]).start().await;
    let (mut http1, mut http2) = (gate.client().await, Client::http2(gate.address()).await);
    let mut begun = vec![http1.begin(Ask::get("/1")).await.unwrap()];
    begun.push(http2.begin(Ask::get("/2")).await.unwrap());
    begun.push(http2.begin(Ask::get("/3")).await.unwrap());
    held.wait_for_requests(3).await;
    let mut idle = Wire::connect(gate.address()).await;
    idle.write("GET /idle HTTP/1.1\r\nhost: a\r\n\r\n").await;
    permits.add_permits(1);
    held.wait_for_requests(4).await;

    gate.terminate();
    draining(&gate).await;
    let address = gate.address();
    until("new connections are refused", || async {
        TcpStream::connect(address).await.is_err().then_some(())
    })
    .await;

    permits.add_permits(4);
    let mut paths = Vec::new();
    for response in begun {
        let reply = Reply::collect(within("an answer", response).await.unwrap()).await.unwrap();
        assert_eq!(reply.status, 200);
        paths.push(reply.text());
    }
    assert_eq!(paths, ["/1", "/2", "/3"]);
    assert_eq!(idle.read_reply().await.body, b"/idle");
    assert!(idle.read_to_end().await.is_empty(), "the connection ends after its answer");
    let stopped = gate.wait().await;
    assert!(stopped.status.success(), "{}", stopped.status);
    assert_eq!(stopped.access_log.len(), 4, "{:?}", stopped.access_log);
}

#[tokio::test]
async fn body_in_flight_is_written_to_its_end() {
    let go_on = Arc::new(Semaphore::new(0));
    let waiting = Arc::clone(&go_on);
    let one = Backend::answering("one", move |_, _| {
        let waiting = Arc::clone(&waiting);
        let (mut sender, body) = streamed();
        tokio::spawn(async move {
            for part in ["first ", "second"] {
                sender.send_data(part.into()).await.unwrap();
                waiting.acquire().await.unwrap().forget();
            }
        });
        async { Ok(Response::new(body)) }
    })
    .await;
    let gate = Meshgate::chain("").cluster("one", &[&one]).start().await;
    let mut client = gate.client().await;
    let mut body = within("a head", client.start(Ask::get("/"))).await.unwrap().into_body();
    assert_eq!(within("a part", body.frame()).await.unwrap().unwrap().into_data().unwrap(), "first ");

    gate.terminate();
    draining(&gate).await;
    go_on.add_permits(2);
    assert_eq!(within("the rest", body.collect()).await.unwrap().to_bytes(), "second");
    assert!(gate.wait().await.status.success());
}

#[tokio::test]
async fn idle_connections_are_closed() {
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain("").cluster("one", &[&one]).start().await;
    let mut used = Wire::connect(gate.address()).await;
    used.write("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(used.read_reply().await.status(), 200);
    let mut unused = Wire::connect(gate.address()).await;
    let mut http2 = Client::http2(gate.address()).await;
    assert_eq!(http2.get("/").await.status, 200);

    gate.terminate();
    assert!(used.read_to_end().await.is_empty());
    assert!(unused.read_to_end().await.is_empty());
    assert!(gate.wait().await.status.success());
    until("the HTTP/2 connection ends", || async { http2.is_closed().then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_loses_nothing() {
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain("- telemetry: {}").workers(2).cluster("one", &[&one]).start().await;
    let judge = |reply: &Reply| match reply.status.as_u16() {
        200 => Ok(()),
        status => Err(format!("{status}: {}", reply.text())),
    };
    let load = Load::start(gate.address(), 64, || Ask::post("/", "body"), judge);
    load.wait_for_more(2_000).await;
    gate.terminate();

    let tally = load.ended().await;
    assert!(tally.bad.is_empty(), "{} bad answers, such as {}", tally.bad.len(), tally.bad[0]);
    // A request may meet a connection that is just being closed, or one that was never accepted. HTTP/1.1 allows that, if
    // the client can tell: nothing was answered, and nothing was done with it.
    let reached: HashSet<_> = one.seen().iter().map(|seen| seen.id().to_owned()).collect();
    for lost in &tally.unanswered {
        assert!(lost.untouched && !reached.contains(&lost.id), "lost: {lost:?}");
    }
    assert_eq!(tally.good + tally.unanswered.len() as u64, tally.sent);
    let stopped = gate.wait().await;
    assert!(stopped.status.success(), "{}", stopped.status);
    assert_eq!(stopped.access_log.len() as u64, tally.good, "each answer has its entry");
}

#[tokio::test]
async fn second_signal_ends_it_at_once() {
    let (held, _permits) = held().await;
    let gate = Meshgate::chain("").cluster("held", &[&held]).start().await;
    let mut client = gate.client().await;
    let begun = client.begin(Ask::get("/")).await.unwrap();
    held.wait_for_requests(1).await;
    gate.terminate();
    draining(&gate).await;
    gate.terminate();
    gate.wait().await;
    within("the end of the connection", begun).await.unwrap_err();
}

#[tokio::test]
async fn drain_does_not_wait_for_ever() {
    let (held, _permits) = held().await;
    let gate = Meshgate::chain("").top("drain: {timeout: 200ms}").cluster("held", &[&held]).start().await;
    let mut client = gate.client().await;
    let begun = client.begin(Ask::get("/")).await.unwrap();
    held.wait_for_requests(1).await;
    gate.terminate();
    gate.wait().await;
    within("the end of the connection", begun).await.unwrap_err();
}

/// Waits until a worker has heard that it drains.
async fn closed(gate: &Meshgate) {
    let address = gate.address();
    until("new connections are refused", || async {
        TcpStream::connect(address).await.is_err().then_some(())
    })
    .await;
}

const GET: &[(&str, &str)] = &[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")];

#[tokio::test]
async fn connections_are_not_told_all_at_once() {
    let one = Backend::echo("one").await;
    let top = "drain: {timeout: 5000h, spread: 4000h}";
    let gate = Meshgate::chain("").top(top).cluster("one", &[&one]).start().await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = Wire::connect(gate.address()).await;
        client.write("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert_eq!(client.read_reply().await.status(), 200);
        clients.push(client);
    }
    let mut http2 = Client::http2(gate.address()).await;
    assert_eq!(http2.get("/").await.status, 200);

    gate.terminate();
    closed(&gate).await;
    // Of 4000 hours nothing worth mentioning has passed.
    for client in &mut clients {
        client.write("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let reply = client.read_reply().await;
        assert_eq!((reply.status(), reply.header("connection")), (200, ""));
    }
    assert_eq!(http2.get("/").await.status, 200);
    assert_eq!(gate.metrics().await.sum("meshgate_downstream_connections_drained_total", &[]), 0.0);
    gate.terminate();
    gate.wait().await;
}

#[tokio::test]
async fn every_connection_is_told_in_its_time() {
    let one = Backend::echo("one").await;
    let top = "drain: {timeout: 60s, spread: 1s}";
    let gate = Meshgate::chain("").workers(2).top(top).cluster("one", &[&one]).start().await;
    let mut clients = Vec::new();
    for _ in 0..30 {
        let mut client = Wire::connect(gate.address()).await;
        client.write("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert_eq!(client.read_reply().await.status(), 200);
        clients.push(tokio::spawn(async move {
            loop {
                client.write("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
                // A connection that was idle for a while is closed without a word, and never after one.
                let Some(head) = client.read_head().await else { return false };
                let length = head
                    .to_ascii_lowercase()
                    .split("content-length: ")
                    .nth(1)
                    .map(|rest| rest.split("\r\n").next().unwrap().parse::<usize>().unwrap());
                client.read(length.unwrap()).await;
                if head.to_ascii_lowercase().contains("connection: close") {
                    assert!(client.read_to_end().await.is_empty());
                    return true;
                }
            }
        }));
    }
    gate.terminate();
    let mut told = 0;
    for client in clients {
        told += u32::from(within("the end of a connection", client).await.unwrap());
    }
    assert!(told > 0, "clients that are never idle are told by a response");
    let stopped = gate.wait().await;
    assert!(stopped.status.success(), "{}", stopped.status);
}

#[tokio::test]
async fn http2_is_told_in_two_steps_and_loses_nothing_between() {
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain("").top("drain: {spread: 0s}").cluster("one", &[&one]).start().await;
    let mut client = Frames::connect(gate.address()).await;
    client.ask(1, true, GET).await;
    client.next_of(&[kind::HEADERS]).await;

    gate.terminate();
    let first = client.next_of(&[kind::GOAWAY]).await;
    assert_eq!(first.last_stream(), 0x7fff_ffff, "nothing is refused yet");
    // This request crosses the announcement, and is served.
    client.ask(3, true, GET).await;
    let ping = client.next_of(&[kind::PING]).await;
    client.send(kind::PING, meshgate_tests::END, 0, &ping.payload).await;
    let (mut answered, mut last) = (false, None);
    while !answered || last.is_none() {
        let frame = client.next_of(&[kind::HEADERS, kind::GOAWAY]).await;
        match frame.kind {
            kind::GOAWAY => last = Some(frame.last_stream()),
            _ => answered = frame.stream == 3,
        }
    }
    assert_eq!(last, Some(3), "now the last one is known");
    let stopped = gate.wait().await;
    assert!(stopped.status.success(), "{}", stopped.status);
    assert_eq!(stopped.access_log.len(), 2, "{:?}", stopped.access_log);
}

#[tokio::test]
async fn new_connections_are_served_for_the_delay() {
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain("").top("drain: {delay: 1h}").cluster("one", &[&one]).start().await;
    gate.terminate();
    draining(&gate).await;
    let mut client = gate.client().await;
    let reply = client.get("/").await;
    assert_eq!((reply.status.as_u16(), reply.header("connection")), (200, ""));
    gate.terminate();
    gate.wait().await;
}

#[tokio::test]
async fn connections_of_a_listener_that_was_taken_away_are_finished_at_the_end_too() {
    let (held, permits) = held().await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let setup = Meshgate::chain("").top("drain: {spread: 0s}").cluster("held", &[&held]);
    let more = format!("listeners:\n  - {{name: more, address: \"{free}\", chain: web, cluster: held}}");
    let with = setup.yaml().replace("listeners:", &more);
    let gate = setup.start().await;
    let before = gate.reload().await;
    gate.replace("meshgate.yaml", with);
    let between = gate.reloaded(&before).await;
    let (mut busy, mut idle) = (Client::http1(free).await, Wire::connect(free).await);
    let begun = busy.begin(Ask::get("/busy")).await.unwrap();
    held.wait_for_requests(1).await;

    gate.replace("meshgate.yaml", gate.setup().yaml());
    gate.reloaded(&between).await;
    assert!(idle.read_to_end().await.is_empty(), "a connection that does nothing leaves");
    gate.terminate();
    closed(&gate).await;
    permits.add_permits(1);
    let response = within("an answer", begun).await.unwrap();
    assert_eq!(response.headers()["connection"], "close");
    assert_eq!(Reply::collect(response).await.unwrap().text(), "/busy");
    let stopped = gate.wait().await;
    assert!(stopped.status.success(), "{}", stopped.status);
    assert_eq!(stopped.access_log.len(), 1, "{:?}", stopped.access_log);
}
