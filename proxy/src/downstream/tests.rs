//! A listener and its clients on real sockets.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::LocalSet;

use super::*;
use crate::drain::DrainTrigger;

/// Longer than anything here takes; a test that waits for it has failed.
const LIMIT: Duration = Duration::from_secs(20);

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(LIMIT, test).await.expect("the test takes too long")
    });
}

fn ip(socket: &Bound) -> SocketAddr {
    match socket.address().unwrap() {
        meshgate_wasm::Address::Ip(address) => address,
        other => panic!("{other}"),
    }
}

/// Answers with what was asked; `/slow` waits for `go`, `/reset` gives no response.
struct Echo {
    limits: ConnectionLimits,
    name: &'static str,
    go: Notify,
    started: Notify,
    cancelled: Rc<Cell<usize>>,
    seen: RefCell<Vec<(u64, meshgate_wasm::Address)>>,
}

struct OnDrop(Option<Rc<Cell<usize>>>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        if let Some(count) = &self.0 {
            count.set(count.get() + 1);
        }
    }
}

impl Serve for Echo {
    type Error = std::io::Error;

    fn limits(&self) -> ConnectionLimits {
        self.limits
    }

    async fn serve(
        self: Rc<Self>,
        peer: Rc<Peer>,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Self::Error> {
        let mut unfinished = OnDrop(Some(self.cancelled.clone()));
        self.seen.borrow_mut().push((peer.connection.id, peer.connection.source));
        self.started.notify_one();
        match request.uri().path() {
            "/slow" => self.go.notified().await,
            "/reset" => return Err(std::io::Error::other("reset")),
            "/unread" => {
                unfinished.0 = None;
                return Ok(Response::new(Body::full("unread")));
            }
            _ => {}
        }
        let version = request.version();
        let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes);
        unfinished.0 = None;
        let body = body.map_err(std::io::Error::other)?;
        Ok(Response::new(Body::full(format!("{} {version:?} {}", self.name, body.len()))))
    }
}

fn echo(limits: ConnectionLimits) -> Rc<Echo> {
    Rc::new(Echo {
        limits,
        name: "first",
        go: Notify::new(),
        started: Notify::new(),
        cancelled: Rc::default(),
        seen: RefCell::default(),
    })
}

struct Running {
    address: SocketAddr,
    acceptor: Acceptor<Echo>,
    echo: Rc<Echo>,
    trigger: DrainTrigger,
}

fn start(limits: ConnectionLimits) -> Running {
    let socket = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = ip(&socket);
    let (trigger, watch) = DrainTrigger::new();
    let echo = echo(limits);
    let acceptor = Acceptor::start(socket, echo.clone(), Arc::default(), watch).unwrap();
    Running { address, acceptor, echo, trigger }
}

impl Running {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }
}

/// Reads one response with a content-length.
async fn response(stream: &mut TcpStream) -> (String, String) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).await.unwrap();
    (head, String::from_utf8(body).unwrap())
}

/// What comes until the other side closes.
async fn rest(stream: &mut TcpStream) -> String {
    let mut rest = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut chunk).await {
        rest.extend_from_slice(&chunk[..length]);
    }
    String::from_utf8_lossy(&rest).into_owned()
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";

type Http2 = hyper::client::conn::http2::SendRequest<http_body_util::Full<Bytes>>;

async fn http2(address: SocketAddr) -> (Http2, tokio::task::JoinHandle<hyper::Result<()>>) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    (sender, tokio::task::spawn_local(connection))
}

fn http2_request(path: &str, body: &'static str) -> Request<http_body_util::Full<Bytes>> {
    Request::post(format!("http://a{path}"))
        .body(http_body_util::Full::new(Bytes::from_static(body.as_bytes())))
        .unwrap()
}

#[test]
fn both_protocols_share_a_port() {
    run(async {
        let running = start(ConnectionLimits::default());
        let mut plain = running.connect().await;
        for _ in 0..3 {
            plain.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc").await.unwrap();
            let (head, body) = response(&mut plain).await;
            assert!(head.starts_with("http/1.1 200 ok\r\n") && head.contains("\r\ndate: "), "{head}");
            assert_eq!(body, "first HTTP/1.1 3");
        }
        let (mut sender, _connection) = http2(running.address).await;
        let both = tokio::join!(
            sender.clone().send_request(http2_request("/", "four")),
            sender.send_request(http2_request("/", "fives"))
        );
        for (answer, expected) in [(both.0, "first HTTP/2.0 4"), (both.1, "first HTTP/2.0 5")] {
            let answer = answer.unwrap();
            assert!(!answer.headers().contains_key("connection"));
            assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), expected);
        }
        let stats = running.acceptor.stats();
        assert_eq!((stats.accepted(), stats.active(), stats.requests()), (2, 2, 5));
        let seen = running.echo.seen.borrow();
        assert_eq!(seen[0], seen[2]);
        assert_eq!(seen[3].0, seen[4].0);
        assert_ne!(seen[0].0, seen[3].0);
        assert_eq!(seen[0].1, plain.local_addr().unwrap().into());
    });
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    run(async {
        let running = start(ConnectionLimits::default());
        let mut client = running.connect().await;
        client
            .write_all(
                b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\naPOST / HTTP/1.1\r\nhost: a\r\n\
                  transfer-encoding: chunked\r\n\r\n2\r\nbb\r\n0\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
            )
            .await
            .unwrap();
        let text = rest(&mut client).await;
        let bodies: Vec<_> =
            text.match_indices("first HTTP/1.1 ").map(|(at, word)| &text[at + word.len()..][..1]).collect();
        assert_eq!(bodies, ["1", "2", "0"], "{text}");
    });
}

#[test]
fn a_beginning_in_pieces_is_understood() {
    run(async {
        let running = start(ConnectionLimits::default());
        let mut client = running.connect().await;
        client.set_nodelay(true).unwrap();
        // The first letter of both protocols' beginnings.
        for piece in [&b"P"[..], b"OST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n"] {
            client.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!(response(&mut client).await.1, "first HTTP/1.1 0");
    });
}

#[test]
fn a_client_that_closes_its_side_is_taken_for_gone() {
    run(async {
        let running = start(ConnectionLimits::default());
        let mut client = running.connect().await;
        client.write_all(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        running.echo.started.notified().await;
        client.shutdown().await.unwrap();
        // Nobody lets the answer go: the connection ends because of the client.
        assert_eq!(rest(&mut client).await, "");
    });
}

#[test]
fn a_client_that_resets_its_stream_cancels_the_exchange() {
    run(async {
        let running = start(ConnectionLimits::default());
        let (mut sender, _connection) = http2(running.address).await;
        let waiting = sender.send_request(http2_request("/slow", ""));
        tokio::select! {
            _ = waiting => panic!("answered"),
            () = running.echo.started.notified() => {}
        }
        while running.echo.cancelled.get() == 0 {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn a_client_that_takes_all_its_requests_back_is_left() {
    run(async {
        let running = start(ConnectionLimits::default());
        let (mut sender, connection) = http2(running.address).await;
        let mut taken_back = 0;
        while !connection.is_finished() && taken_back < 1000 {
            let waiting = sender.send_request(http2_request("/slow", ""));
            tokio::select! {
                _ = waiting => break,
                () = running.echo.started.notified() => taken_back += 1,
            }
        }
        assert!((100..150).contains(&taken_back), "closed after {taken_back}");
        assert_eq!(running.acceptor.stats().malformed(), 1);

        // Others are served, and may take back a few.
        let (mut sender, connection) = http2(running.address).await;
        for _ in 0..50 {
            tokio::select! {
                _ = sender.send_request(http2_request("/slow", "")) => panic!("answered"),
                () = running.echo.started.notified() => {}
            }
            assert!(sender.send_request(http2_request("/", "")).await.is_ok());
            running.echo.started.notified().await;
        }
        assert!(!connection.is_finished());
    });
}

#[test]
fn no_response_means_a_closed_connection_or_a_reset_stream() {
    run(async {
        let running = start(ConnectionLimits::default());
        let mut client = running.connect().await;
        client.write_all(b"GET /reset HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        assert_eq!(rest(&mut client).await, "");
        let (mut sender, _connection) = http2(running.address).await;
        assert!(sender.send_request(http2_request("/reset", "")).await.is_err());
        assert!(sender.send_request(http2_request("/", "")).await.is_ok());
    });
}

#[test]
fn upgrades_are_not_taken_and_the_request_is_served() {
    run(async {
        let running = start(ConnectionLimits::default());
        let mut client = running.connect().await;
        client
            .write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
            .await
            .unwrap();
        let (head, body) = response(&mut client).await;
        assert!(head.starts_with("http/1.1 200 "), "{head}");
        assert_eq!(body, "first HTTP/1.1 0");
        client.write_all(GET).await.unwrap();
        assert_eq!(response(&mut client).await.1, "first HTTP/1.1 0");
    });
}

#[test]
fn an_early_answer_to_a_request_whose_body_nobody_reads() {
    run(async {
        let running = start(ConnectionLimits::default());
        let mut client = running.connect().await;
        client
            .write_all(b"POST /unread HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\nsome")
            .await
            .unwrap();
        assert_eq!(response(&mut client).await.1, "unread");
    });
}

#[test]
fn what_is_not_http_is_refused_and_counted() {
    run(async {
        let running = start(ConnectionLimits::default());
        let large = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "a".repeat(70 * 1024));
        let many = format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: y\r\n".repeat(101));
        for (text, status) in [
            ("nonsense\r\n\r\n", "400"),
            ("GET / HTTP/1.1\r\nhost : a\r\n\r\n", "400"),
            ("GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", "400"),
            ("GET / HTTP/1.1\r\nhost: a\r\nx: a\0b\r\n\r\n", "400"),
            (&large, "431"),
            (&many, "431"),
        ] {
            let before = running.acceptor.stats().malformed();
            let mut client = running.connect().await;
            client.write_all(text.as_bytes()).await.unwrap();
            let answer = rest(&mut client).await;
            assert_eq!(answer.get(9..12), Some(status), "{:.50}: {answer}", text);
            assert_eq!(running.acceptor.stats().malformed(), before + 1, "{:.50}", text);
        }
        assert_eq!(running.acceptor.stats().requests(), 0);
    });
}

#[test]
fn slow_heads_and_idle_connections_end_in_time() {
    run(async {
        let limits = ConnectionLimits {
            header_timeout: Duration::from_millis(80),
            idle_timeout: Duration::from_millis(160),
            ..ConnectionLimits::default()
        };
        let running = start(limits);
        let stats = running.acceptor.stats();
        let mut silent = running.connect().await;
        assert_eq!(rest(&mut silent).await, "");
        assert_eq!(stats.timed_out(), 1);

        let mut slow = running.connect().await;
        slow.write_all(b"GET / HTTP/1.1\r\nhost: ").await.unwrap();
        assert!(rest(&mut slow).await.starts_with("HTTP/1.1 408 "));
        assert_eq!(stats.timed_out(), 2);

        let mut idle = running.connect().await;
        idle.write_all(GET).await.unwrap();
        response(&mut idle).await;
        assert_eq!(rest(&mut idle).await, "");
        assert_eq!(stats.timed_out(), 2, "an idle connection is not late");

        let (mut sender, connection) = http2(running.address).await;
        sender.send_request(http2_request("/", "")).await.unwrap().into_body().collect().await.unwrap();
        connection.await.unwrap().unwrap();
    });
}

#[test]
fn an_exchange_may_take_longer_than_the_timeouts_of_the_connection() {
    run(async {
        let limits = ConnectionLimits {
            header_timeout: Duration::from_millis(40),
            idle_timeout: Duration::from_millis(40),
            ..ConnectionLimits::default()
        };
        let running = start(limits);
        let mut client = running.connect().await;
        client.write_all(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        running.echo.started.notified().await;
        // A silent connection beside it shows that the time is over.
        assert_eq!(rest(&mut running.connect().await).await, "");
        assert_eq!(rest(&mut running.connect().await).await, "");
        running.echo.go.notify_one();
        assert_eq!(response(&mut client).await.1, "first HTTP/1.1 0");
    });
}

#[test]
fn too_many_connections_are_closed_as_they_come() {
    run(async {
        let running = start(ConnectionLimits { max_connections: 1, ..ConnectionLimits::default() });
        let mut first = running.connect().await;
        first.write_all(GET).await.unwrap();
        response(&mut first).await;
        assert_eq!(rest(&mut running.connect().await).await, "");
        assert_eq!(running.acceptor.stats().rejected(), 1);
        drop(first);
        while running.acceptor.stats().active() > 0 {
            tokio::task::yield_now().await;
        }
        let mut next = running.connect().await;
        next.write_all(GET).await.unwrap();
        response(&mut next).await;
    });
}

#[test]
fn a_swap_concerns_the_next_request_on_an_open_connection() {
    run(async {
        let running = start(ConnectionLimits::default());
        let mut client = running.connect().await;
        client.write_all(GET).await.unwrap();
        assert_eq!(response(&mut client).await.1, "first HTTP/1.1 0");
        let second = Echo { name: "second", ..Rc::into_inner(echo(ConnectionLimits::default())).unwrap() };
        running.acceptor.swap(Rc::new(second));
        client.write_all(GET).await.unwrap();
        assert_eq!(response(&mut client).await.1, "second HTTP/1.1 0");
    });
}

#[test]
fn a_drain_finishes_what_is_under_way_and_loses_nothing() {
    run(async {
        let Running { address, acceptor, echo, trigger } = start(ConnectionLimits::default());
        let mut busy = TcpStream::connect(address).await.unwrap();
        busy.write_all(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        echo.started.notified().await;
        let mut idle = TcpStream::connect(address).await.unwrap();
        idle.write_all(GET).await.unwrap();
        response(&mut idle).await;
        let mut late = TcpStream::connect(address).await.unwrap();
        late.write_all(GET).await.unwrap();
        response(&mut late).await;
        let (mut sender, connection) = http2(address).await;
        let multiplexed = tokio::task::spawn_local(sender.send_request(http2_request("/slow", "")));
        while echo.seen.borrow().len() < 4 {
            tokio::task::yield_now().await;
        }

        trigger.start();
        // This request is on its way when the drain starts.
        late.write_all(GET).await.unwrap();
        let (head, _) = response(&mut late).await;
        assert!(head.contains("connection: close\r\n"), "{head}");
        assert_eq!(rest(&mut late).await, "");
        assert_eq!(rest(&mut idle).await, "");
        assert!(TcpStream::connect(address).await.is_err(), "nobody accepts any more");

        let finished = acceptor.leave();
        echo.go.notify_waiters();
        let (head, body) = response(&mut busy).await;
        assert!(head.contains("connection: close\r\n"), "{head}");
        assert_eq!(body, "first HTTP/1.1 0");
        let answer = multiplexed.await.unwrap().unwrap();
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "first HTTP/2.0 0");
        connection.await.unwrap().unwrap();
        finished.await.unwrap();
        trigger.finished().await;
    });
}

#[test]
fn a_dropped_acceptor_lets_its_connections_finish() {
    run(async {
        let Running { address, acceptor, echo, trigger } = start(ConnectionLimits::default());
        let mut busy = TcpStream::connect(address).await.unwrap();
        busy.write_all(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        echo.started.notified().await;
        drop(acceptor);
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        echo.go.notify_one();
        assert_eq!(response(&mut busy).await.1, "first HTTP/1.1 0");
        trigger.finished().await;
    });
}

#[test]
fn a_client_that_does_not_read_is_left() {
    struct Endless;
    impl Serve for Endless {
        type Error = std::io::Error;
        fn limits(&self) -> ConnectionLimits {
            ConnectionLimits { write_timeout: Duration::from_millis(100), ..ConnectionLimits::default() }
        }
        async fn serve(
            self: Rc<Self>,
            _: Rc<Peer>,
            _: Request<Incoming>,
        ) -> Result<Response<Body>, Self::Error> {
            Ok(Response::new(Body::full(vec![b'x'; 64 * 1024 * 1024])))
        }
    }
    run(async {
        let socket = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = ip(&socket);
        let (_trigger, watch) = DrainTrigger::new();
        let acceptor = Acceptor::start(socket, Rc::new(Endless), Arc::default(), watch).unwrap();
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(GET).await.unwrap();
        while acceptor.stats().timed_out() == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(acceptor.stats().requests(), 1);
        drop(client);
    });
}

#[test]
fn two_workers_share_an_address() {
    let first = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let second = bind(ip(&first)).unwrap();
    assert_eq!(ip(&first), ip(&second));
}

#[test]
fn trailers_reach_a_client_that_wants_them() {
    struct Trailers;
    impl Serve for Trailers {
        type Error = std::io::Error;
        fn limits(&self) -> ConnectionLimits {
            ConnectionLimits::default()
        }
        async fn serve(
            self: Rc<Self>,
            _: Rc<Peer>,
            _: Request<Incoming>,
        ) -> Result<Response<Body>, Self::Error> {
            let mut trailers = HeaderMap::new();
            trailers.insert("x-sum", HeaderValue::from_static("1"));
            let body = Body::full("x").with_trailers(std::future::ready(Some(Ok(trailers))));
            let mut response = Response::new(Body::stream(body));
            response.headers_mut().insert("trailer", HeaderValue::from_static("x-sum"));
            response.headers_mut().insert("transfer-encoding", HeaderValue::from_static("chunked"));
            Ok(response)
        }
    }
    run(async {
        let socket = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = ip(&socket);
        let (_trigger, watch) = DrainTrigger::new();
        let _acceptor = Acceptor::start(socket, Rc::new(Trailers), Arc::default(), watch).unwrap();
        let mut client = TcpStream::connect(address).await.unwrap();
        client
            .write_all(b"GET / HTTP/1.1\r\nhost: a\r\nte: trailers\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        let text = rest(&mut client).await;
        assert!(text.ends_with("1\r\nx\r\n0\r\nx-sum: 1\r\n\r\n"), "{text}");
    });
}
