//! Each way an exchange can fail: its status, its flag, and who notices.

use std::net::{SocketAddr, TcpListener};

use http::Response;
use http_body_util::BodyExt;
use meshgate_tests::{
    Ask, Backend, Client, Meshgate, RawBackend, Reply, Wire, full, streamed, until, within,
};
use serde_json::Value;
use socket2::{Domain, Socket, Type};

/// Status, flag and cluster of an answer that the proxy made itself for this reason (RFC 9209), checked for what all of them have in
/// common.
async fn own_answer(gate: &Meshgate, path: &str, error: &str) -> (u16, Value) {
    let over_http2 = Client::http2(gate.address()).await.get(&format!("{path}?2")).await;
    let over_http1 = gate.get(path).await;
    assert_eq!(over_http1.status, over_http2.status);
    for Reply { headers, body, .. } in [&over_http1, &over_http2] {
        assert!(!body.is_empty(), "says what happened");
        assert_eq!(headers["content-type"], "text/plain");
        assert_eq!(headers["content-length"], body.len().to_string());
        assert_eq!(headers["proxy-status"], format!("meshgate; error={error}"));
    }
    let entry = gate.access(path).await;
    assert_eq!(entry["response_code"], over_http1.status.as_u16());
    assert_eq!(entry["bytes_sent"], over_http1.body.len());
    assert!(entry["response_code_details"].is_string(), "{entry}");
    (over_http1.status.as_u16(), entry)
}

/// An address where nobody listens: bound and released again.
fn closed_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn no_route_is_404_nr() {
    let gate = Meshgate::chain("").start().await;
    let (status, entry) = own_answer(&gate, "/nowhere", "destination_not_found").await;
    assert_eq!((status, &entry["response_flags"]), (404, &"NR".into()));
    assert!(entry["cluster"].is_null() && entry["route"].is_null(), "{entry}");
}

#[tokio::test]
async fn refused_connection_is_503_uf() {
    let gate = Meshgate::chain("").cluster_of("gone", &[closed_port()], "").start().await;
    let (status, entry) = own_answer(&gate, "/refused", "destination_unavailable").await;
    assert_eq!((status, &entry["response_flags"]), (503, &"UF".into()));
    assert_eq!(entry["cluster"], "gone");
}

#[tokio::test]
async fn connection_that_nobody_accepts_is_given_up() {
    // A listening socket whose queue is full drops further SYNs: the connection attempt gets no answer at all.
    let full_queue = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    full_queue.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    full_queue.listen(0).unwrap();
    let address = full_queue.local_addr().unwrap().as_socket().unwrap();
    let waiting: Vec<_> = (0..4)
        .map(|_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            let _ = socket.connect(&address.into());
            socket
        })
        .collect();

    let gate = Meshgate::chain("").cluster_of("deaf", &[address], "connect_timeout: 100ms").start().await;
    let (status, entry) = own_answer(&gate, "/silence", "connection_timeout").await;
    assert_eq!((status, &entry["response_flags"]), (503, &"UF".into()));
    drop(waiting);
}

#[tokio::test]
async fn other_clusters_are_untouched_by_a_failing_one() {
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain("- routing: {routes: [{name: only, match: {path: /gone}, to: gone}]}")
        .cluster("one", &[&one])
        .cluster_of("gone", &[closed_port()], "")
        .start()
        .await;
    assert_eq!(gate.get("/gone").await.status, 503);
    assert_eq!(gate.get("/").await.status, 200);
}

#[tokio::test]
async fn answer_that_never_comes_is_504_ut_and_cancelled_upstream() {
    let one = Backend::answering("one", async |_, _| std::future::pending().await).await;
    let gate = Meshgate::chain("").listener("request_timeout: 200ms").cluster("one", &[&one]).start().await;
    let (status, entry) = own_answer(&gate, "/never", "http_response_timeout").await;
    assert_eq!((status, &entry["response_flags"]), (504, &"UT".into()));
    assert_eq!(entry["upstream_address"], one.address().to_string());
    one.wait_until_unused().await;
}

#[tokio::test]
async fn body_that_never_ends_is_broken_off_at_the_timeout() {
    let one = Backend::answering("one", async |_, _| {
        let (mut sender, body) = streamed();
        tokio::spawn(async move {
            sender.send_data("half".into()).await.unwrap();
            // Held open, and silent, until the proxy ends it.
            std::future::pending::<()>().await;
        });
        Ok(Response::new(body))
    })
    .await;
    let gate = Meshgate::chain("").listener("request_timeout: 500ms").cluster("one", &[&one]).start().await;
    let mut client = gate.client().await;
    let response = within("a response head", client.start(Ask::get("/half"))).await.unwrap();
    assert_eq!(response.status(), 200);
    within("the end of the body", response.into_body().collect()).await.unwrap_err();
    assert_eq!(gate.access("/half").await["response_flags"], "UT");
    one.wait_until_unused().await;
}

#[tokio::test]
async fn backend_that_leaves_without_an_answer_is_503_uc() {
    let one = RawBackend::start(|_, mut wire| async move {
        let head = wire.read_head().await.unwrap();
        if head.contains("/reset") {
            wire.reset();
        }
    })
    .await;
    let gate = Meshgate::chain("").raw_cluster("one", &one).start().await;
    for path in ["/close", "/reset"] {
        let (status, entry) = own_answer(&gate, path, "connection_terminated").await;
        assert_eq!((status, &entry["response_flags"]), (503, &"UC".into()), "{path}");
    }
}

#[tokio::test]
async fn answers_that_are_not_http_are_502() {
    const ANSWERS: [&str; 5] = [
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
        "HTTP/1.1 abc OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nbad name: x\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
    ];
    let one = RawBackend::start(|_, mut wire| async move {
        let head = wire.read_head().await.unwrap();
        let number = head.split(['/', '?', ' ']).nth(2).unwrap().parse::<usize>().unwrap();
        wire.write(ANSWERS[number]).await;
        wire.read_to_end().await;
    })
    .await;
    let gate = Meshgate::chain("").raw_cluster("one", &one).start().await;
    for (number, answer) in ANSWERS.iter().enumerate() {
        let (status, entry) = own_answer(&gate, &format!("/{number}"), "http_protocol_error").await;
        assert_eq!(status, 502, "{answer:?}");
        assert_eq!(entry["response_flags"], "UPE", "{answer:?}");
    }
}

#[tokio::test]
async fn client_that_leaves_cancels_the_request_upstream() {
    let one = Backend::answering("one", async |_, _| std::future::pending().await).await;
    let gate = Meshgate::chain("").cluster("one", &[&one]).start().await;

    // A client that closes its side cannot be told from one that closed both: it is taken for gone.
    for (count, path) in ["/close", "/half-close", "/reset"].into_iter().enumerate() {
        let mut wire = Wire::connect(gate.address()).await;
        wire.write(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n")).await;
        one.wait_for_requests(count + 1).await;
        match path {
            "/close" => drop(wire),
            "/half-close" => {
                wire.finish_writing().await;
                assert!(wire.read_to_end().await.is_empty());
            }
            _ => wire.reset(),
        }
        one.wait_until_unused().await;
        let entry = gate.access(path).await;
        assert_eq!((&entry["response_flags"], &entry["response_code"]), (&"DC".into(), &0.into()), "{entry}");
    }

    let mut client = Client::http2(gate.address()).await;
    let begun = client.begin(Ask::get("/http2")).await.unwrap();
    one.wait_for_requests(4).await;
    drop(begun);
    one.wait_until_unused().await;
    assert_eq!(gate.access("/http2").await["response_flags"], "DC");
    assert!(!client.is_closed(), "only the stream was reset");
}

#[tokio::test]
async fn kept_connection_that_the_backend_closed_meanwhile_costs_no_request() {
    // Answers once per connection, then closes it without saying so beforehand.
    let one = RawBackend::start(|_, mut wire| async move {
        wire.read_head().await.unwrap();
        wire.write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    })
    .await;
    let gate = Meshgate::chain("").raw_cluster("one", &one).start().await;
    let mut client = gate.client().await;
    for number in 0..20 {
        let reply = client.get("/").await;
        assert_eq!((reply.status.as_u16(), reply.text().as_str()), (200, "ok"), "request {number}");
    }
}

#[tokio::test]
async fn bytes_nobody_asked_for_are_not_the_next_answer() {
    let one = RawBackend::start(|_, mut wire| async move {
        wire.read_head().await.unwrap();
        wire.write("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood").await;
        wire.write("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil").await;
        wire.read_to_end().await;
    })
    .await;
    let gate = Meshgate::chain("").raw_cluster("one", &one).start().await;
    let mut client = gate.client().await;
    for _ in 0..10 {
        assert_eq!(client.get("/").await.text(), "good");
    }
}

#[tokio::test]
async fn idle_client_is_let_go() {
    let one = Backend::answering("one", async |_, _| Ok(Response::new(full("ok")))).await;
    let gate = Meshgate::chain("").listener("idle_timeout: 100ms").cluster("one", &[&one]).start().await;
    let mut wire = Wire::connect(gate.address()).await;
    wire.write("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(wire.read_reply().await.body, b"ok");
    assert!(wire.read_to_end().await.is_empty());
}

#[tokio::test]
async fn want_of_files_holds_up_new_connections_and_nothing_else() {
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain("").cluster("one", &[&one]).start().await;
    let mut kept = gate.client().await;
    assert_eq!(kept.get("/before").await.status, 200);
    let open = gate.open_files();
    gate.limit_open_files(open as u64 + 5);

    let mut waiting = Vec::new();
    for _ in 0..30 {
        waiting.push(Wire::connect(gate.address()).await);
    }
    let complaint = "cannot accept connections";
    gate.log().wait(complaint, |line| line.contains(complaint).then_some(())).await;
    for _ in 0..10 {
        assert_eq!(kept.get("/meanwhile").await.status, 200, "who is there is served");
        assert_eq!(gate.admin("/ready").await.status, 200, "one file is kept for whoever asks why");
    }
    let refused = gate.metrics().await.sum("meshgate_downstream_accept_errors_total", &[]);
    assert!(refused >= 1.0, "the metrics say why");
    drop(waiting);
    until("new connections are accepted", || async {
        let mut client = Client::try_http1(gate.address()).await.ok()?;
        client.try_call(Ask::get("/after")).await.is_ok().then_some(())
    })
    .await;
    assert_eq!(kept.get("/after").await.status, 200);
    assert_eq!(gate.admin("/ready").await.status, 200);
}
