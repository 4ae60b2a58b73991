//! Streams of HTTP/2 that go on in another protocol (RFC 8441): WebSocket and others, over HTTP/1.1 to endpoints. For endpoints
//! that speak HTTP/2 see `extended_connect_upstream`.

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::ext::Protocol;
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo};
use meshgate_tests::{
    Backend, Frames, Meshgate, Message, Setup, Socket, SocketBackend, WebSocketBackend, kind, until, within,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;

/// An HTTP/2 connection.
pub(crate) struct Client {
    sender: SendRequest<Full<Bytes>>,
}

impl Client {
    pub(crate) async fn connect(gate: &Meshgate) -> Client {
        let stream = TcpStream::connect(gate.address()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut client = Client { sender };
        // Behind the first answer are the server's settings.
        client.get("/settle").await;
        client
    }

    pub(crate) async fn get(&mut self, path: &str) -> StatusCode {
        let request = Request::get(format!("http://a{path}")).body(Full::default()).unwrap();
        let response = within("a response", self.sender.send_request(request)).await.unwrap();
        let status = response.status();
        response.into_body().collect().await.unwrap();
        status
    }

    pub(crate) async fn ask(&mut self, protocol: &'static str, path: &str) -> Response<Incoming> {
        let request = Request::builder().method(Method::CONNECT).uri(format!("http://a{path}"));
        let request = request.header("sec-websocket-version", "13").header("origin", "http://a.example");
        let request = request.extension(Protocol::from_static(protocol)).body(Full::default()).unwrap();
        within("a response", self.sender.send_request(request)).await.unwrap()
    }

    /// What goes on behind a head that takes the offer.
    pub(crate) async fn tunnel(
        &mut self,
        protocol: &'static str,
        path: &str,
    ) -> (TokioIo<Upgraded>, Response<()>) {
        let response = self.ask(protocol, path).await;
        assert_eq!(response.status(), 200);
        let (head, body) = response.into_parts();
        let mut response = Response::from_parts(head.clone(), body);
        let stream = hyper::upgrade::on(&mut response).await.unwrap();
        (TokioIo::new(stream), Response::from_parts(head, ()))
    }
}

fn proxy(chain: &str, address: std::net::SocketAddr) -> Setup {
    Meshgate::chain(chain).listener("upgrades: [websocket, x-tunnel]").cluster_of("one", &[address], "")
}

async fn active(gate: &Meshgate) -> f64 {
    gate.metrics().await.sum("meshgate_downstream_upgrades_active", &[("listener", "web")])
}

#[tokio::test]
async fn websocket_over_http2_reaches_an_endpoint_that_speaks_http1() {
    let backend = WebSocketBackend::start().await;
    let chain = "- headers: {request: {set: {x-in: seen}}, response: {set: {x-out: seen}}}";
    let gate = proxy(chain, backend.address()).start().await;
    let mut client = Client::connect(&gate).await;
    let (stream, head) = client.tunnel("websocket", "/chat?room=1").await;
    assert_eq!(head.headers()["x-out"], "seen");
    for name in ["connection", "upgrade", "sec-websocket-accept"] {
        assert!(!head.headers().contains_key(name), "{head:?}");
    }
    let seen = backend.seen().pop().unwrap();
    assert_eq!((seen.method(), seen.uri().to_string()), (&Method::GET, "/chat?room=1".to_owned()));
    for (name, value) in [
        ("x-in", "seen"),
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("origin", "http://a.example"),
    ] {
        assert_eq!(seen.headers()[name], value, "{name}");
    }

    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
    for message in [Message::text("hello"), Message::binary(vec![7; 1 << 20])] {
        socket.send(message.clone()).await.unwrap();
        assert_eq!(within("an echo", socket.next()).await.unwrap().unwrap(), message);
    }
    assert_eq!(active(&gate).await, 1.0);
    // A second one, and requests, on the same connection.
    let (second, _) = client.tunnel("websocket", "/second").await;
    let mut second = WebSocketStream::from_raw_socket(second, Role::Client, None).await;
    second.send(Message::text("too")).await.unwrap();
    assert_eq!(within("an echo", second.next()).await.unwrap().unwrap(), Message::text("too"));
    drop(second);

    socket.close(None).await.unwrap();
    while let Some(Ok(_)) = within("the end", socket.next()).await {}
    drop(socket);
    let entry = gate.access("/chat?room=1").await;
    assert_eq!((&entry["response_code"], &entry["method"]), (&200.into(), &"CONNECT".into()), "{entry}");
    assert!(entry["response_flags"].is_null(), "{entry}");
    assert!(entry["bytes_received"].as_u64() > Some(1 << 20) && entry["bytes_sent"].as_u64() > Some(1 << 20));
    until("both are over", || async { (active(&gate).await == 0.0).then_some(()) }).await;
}

/// A WebSocket in a stream of HTTP/2.
pub(crate) type Tunnelled = WebSocketStream<TokioIo<Upgraded>>;

/// Sends a message and expects it back.
async fn echo(socket: &mut Tunnelled, message: Message) {
    socket.send(message.clone()).await.unwrap();
    assert_eq!(within("an echo", socket.next()).await.unwrap().unwrap(), message);
}

/// Waits until this connection has been told that the proxy drains.
pub(crate) async fn until_told(gate: &Meshgate) {
    until("the connection is told", || async {
        let told = gate.metrics().await.sum("meshgate_downstream_connections_drained_total", &[]);
        (told == 1.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn websocket_over_http2_lives_on_across_a_reload() {
    let backend = WebSocketBackend::start().await;
    let gate = proxy("", backend.address()).start().await;
    let mut client = Client::connect(&gate).await;
    let (stream, _) = client.tunnel("websocket", "/chat").await;
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
    echo(&mut socket, Message::text("before")).await;

    // Another chain, another cluster, and no WebSocket from now on.
    let before = gate.reload().await;
    let changed = gate.setup().clone().with_chain("- headers: {response: {set: {x-out: changed}}}").yaml();
    let changed = changed.replace("upgrades: [websocket, x-tunnel]", "upgrades: [x-tunnel]");
    gate.replace("meshgate.yaml", changed.replace("name: one, ", "name: one, connect_timeout: 7s, "));
    gate.reloaded(&before).await;
    echo(&mut socket, Message::text("after")).await;
    echo(&mut socket, Message::binary(vec![7; 1 << 20])).await;
    assert_eq!(active(&gate).await, 1.0);
    assert_eq!(client.ask("websocket", "/next").await.status(), 501, "the next one is not taken");
    echo(&mut socket, Message::text("and the first one goes on")).await;

    socket.close(None).await.unwrap();
    while let Some(Ok(_)) = within("the end", socket.next()).await {}
    drop(socket);
    let entry = gate.access("/chat").await;
    assert_eq!(entry["response_code"], 200, "{entry}");
    assert!(entry["response_flags"].is_null(), "{entry}");
}

#[tokio::test]
async fn a_drain_lets_websocket_over_http2_end_by_itself() {
    let backend = WebSocketBackend::start().await;
    let gate = proxy("", backend.address()).top("drain: {spread: 0s}").start().await;
    let mut client = Client::connect(&gate).await;
    let (stream, _) = client.tunnel("websocket", "/chat").await;
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
    echo(&mut socket, Message::text("before")).await;

    gate.terminate();
    until_told(&gate).await;
    for text in ["still", "here"] {
        echo(&mut socket, Message::text(text)).await;
    }
    echo(&mut socket, Message::binary(vec![7; 1 << 20])).await;
    socket.close(None).await.unwrap();
    while let Some(Ok(_)) = within("the end", socket.next()).await {}
    drop(socket);
    let stopped = gate.wait().await;
    assert!(stopped.status.success(), "{}\n{}", stopped.status, stopped.log.join("\n"));
    let entry = stopped.access_log.iter().find(|entry| entry["path"] == "/chat").unwrap();
    assert_eq!(entry["response_code"], 200, "{entry}");
    assert!(entry["response_flags"].is_null(), "{entry}");
}

#[tokio::test]
async fn a_drain_does_not_wait_for_websocket_over_http2_for_ever() {
    let backend = WebSocketBackend::start().await;
    let gate = proxy("", backend.address()).top("drain: {timeout: 200ms}").start().await;
    let mut client = Client::connect(&gate).await;
    let (stream, _) = client.tunnel("websocket", "/chat").await;
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
    echo(&mut socket, Message::text("before")).await;
    gate.terminate();
    while let Some(Ok(_)) = within("the end", socket.next()).await {}
    let stopped = gate.wait().await;
    let entry = stopped.access_log.iter().find(|entry| entry["path"] == "/chat").unwrap();
    assert_eq!(
        (&entry["response_flags"], &entry["response_code_details"]),
        (&"LR".into(), &"shutdown".into()),
        "{entry}"
    );
}

#[tokio::test]
async fn ends_are_passed_on_both_ways() {
    let backend = SocketBackend::start().await;
    let gate = proxy("", backend.address()).listener("idle_timeout: 300ms").start().await;
    let mut client = connected(&gate).await;
    let accepting = async {
        let mut server = backend.accept().await;
        let head = head(&mut server).await;
        assert!(head.starts_with("GET /up HTTP/1.1\r\n") && !head.contains("sec-websocket-key"), "{head}");
        server
            .write(
                "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x-tunnel\r\n\r\nfirst",
            )
            .await;
        server
    };
    let (mut server, (mut stream, _)) = tokio::join!(accepting, client.tunnel("x-tunnel", "/up"));
    let mut first = [0; 5];
    within("what came with the head", stream.read_exact(&mut first)).await.unwrap();
    assert_eq!(&first, b"first");
    // Longer than a connection may be idle: this one is not.
    tokio::time::sleep(std::time::Duration::from_millis(900)).await;
    stream.write_all(b"question").await.unwrap();
    server.expect("question").await;
    stream.shutdown().await.unwrap();
    assert_eq!(server.end().await.bytes, b"");
    server.write("answer").await;
    server.finish().await;
    let mut answer = String::new();
    within("the end", stream.read_to_string(&mut answer)).await.unwrap();
    assert_eq!(answer, "answer");
    assert!(gate.access("/up").await["response_flags"].is_null());
}

/// A connection whose settings are there, though no endpoint answers.
async fn connected(gate: &Meshgate) -> Client {
    let stream = TcpStream::connect(gate.address()).await.unwrap();
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut client = Client { sender };
    // It is refused before any endpoint is asked.
    let request = Request::get("http://a/%00").body(Full::default()).unwrap();
    assert_eq!(within("a response", client.sender.send_request(request)).await.unwrap().status(), 400);
    client
}

/// Reads a head up to its empty line.
async fn head(socket: &mut Socket) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(socket.read(1).await);
    }
    String::from_utf8(head).unwrap()
}

#[tokio::test]
async fn offers_that_are_not_taken_are_answered() {
    // It knows nothing of other protocols, and answers as usual.
    let one = Backend::echo("one").await;
    let gate = proxy("", one.address()).start().await;
    let mut client = Client::connect(&gate).await;
    assert_eq!(client.ask("websocket", "/ignored").await.status(), 502, "no success without the protocol");
    let entry = gate.access("/ignored").await;
    assert_eq!(
        (&entry["response_flags"], &entry["response_code_details"]),
        (&"UPE".into(), &"upgrade_not_taken".into())
    );
    assert_eq!(client.ask("h2c", "/unknown").await.status(), 501);
    assert_eq!(one.seen().last().unwrap().path, "/ignored");
    assert_eq!(client.get("/on").await, 200, "the connection goes on");

    let gate =
        proxy("", one.address()).listener("upgrade_idle_timeout: 1h").without_default_cluster().start().await;
    let mut client = connected(&gate).await;
    assert_eq!(client.ask("websocket", "/").await.status(), 404);
}

#[tokio::test]
async fn an_answer_to_another_question_is_refused() {
    let backend = SocketBackend::start().await;
    let gate = proxy("", backend.address()).start().await;
    let mut client = connected(&gate).await;
    let accepting = async {
        let mut server = backend.accept().await;
        assert!(head(&mut server).await.to_ascii_lowercase().contains("sec-websocket-key: "));
        let taken = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n";
        server.write(format!("{taken}sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")).await;
        server
    };
    let (_server, response) = tokio::join!(accepting, client.ask("websocket", "/"));
    assert_eq!(response.status(), 502);
}

#[tokio::test]
async fn clients_are_told_whether_they_may() {
    let one = Backend::echo("one").await;
    for (upgrades, told) in [("upgrades: [websocket]", true), ("upgrades: []", false)] {
        let gate = Meshgate::chain("").listener(upgrades).cluster("one", &[&one]).start().await;
        let mut frames = Frames::connect(gate.address()).await;
        let settings = frames.next_of(&[kind::SETTINGS]).await;
        let enable_connect_protocol = [0, 8, 0, 0, 0, 1];
        assert_eq!(
            settings.payload.chunks(6).any(|one| one == enable_connect_protocol),
            told,
            "{settings:?}"
        );
    }
}
