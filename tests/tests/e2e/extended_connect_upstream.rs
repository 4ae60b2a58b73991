//! Connections and streams that change their protocol over HTTP/2 to endpoints (RFC 8441), whatever the client speaks.

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{Method, Request, Response, request};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::ext::Protocol;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo};
use meshgate_tests::{
    Ask, END_HEADERS, Ended, Meshgate, Message, PREFACE, RawBackend, Setup, Socket, WebSocket, Wire, fields,
    frame, kind, until, within,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::extended_connect::{Client, Tunnelled, until_told};

type Taken = (request::Parts, TokioIo<Upgraded>);

/// An endpoint that speaks HTTP/2. It takes every offer but those for `/refused`.
struct Endpoint {
    address: std::net::SocketAddr,
    taken: mpsc::UnboundedReceiver<Taken>,
    connections: mpsc::UnboundedReceiver<()>,
    accepting: AbortHandle,
}

impl Endpoint {
    /// `announces`: whether its settings say that streams may change their protocol.
    async fn start(announces: bool) -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, taken) = mpsc::unbounded_channel();
        let (accepted, connections) = mpsc::unbounded_channel();
        let accepting = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let _ = accepted.send(());
                let sender = sender.clone();
                let mut builder = http2::Builder::new(TokioExecutor::new());
                if announces {
                    builder.enable_connect_protocol();
                }
                let service = service_fn(move |request| answer(request, sender.clone()));
                tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
            }
        });
        Endpoint { address, taken, connections, accepting: accepting.abort_handle() }
    }

    async fn next(&mut self) -> Taken {
        within("an offer at the endpoint", self.taken.recv()).await.unwrap()
    }

    async fn websocket(&mut self) -> (request::Parts, WebSocketStream<TokioIo<Upgraded>>) {
        let (head, stream) = self.next().await;
        (head, WebSocketStream::from_raw_socket(stream, Role::Server, None).await)
    }

    fn connections(&mut self) -> usize {
        std::iter::from_fn(|| self.connections.try_recv().ok()).count()
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn answer(
    mut request: Request<Incoming>,
    taken: mpsc::UnboundedSender<Taken>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let mut response = Response::new(Full::default());
    if request.method() != Method::CONNECT || request.uri().path() == "/refused" {
        let words = format!("{} {}", request.method(), request.uri().path());
        *response.body_mut() = words.into();
        if request.method() == Method::CONNECT {
            *response.status_mut() = http::StatusCode::FORBIDDEN;
        }
        return Ok(response);
    }
    let upgrade = hyper::upgrade::on(&mut request);
    let (head, _) = request.into_parts();
    tokio::spawn(async move {
        if let Ok(stream) = upgrade.await {
            let _ = taken.send((head, TokioIo::new(stream)));
        }
    });
    response.headers_mut().insert("x-from", "endpoint".parse().unwrap());
    Ok(response)
}

fn proxy(chain: &str, endpoint: &Endpoint) -> Setup {
    Meshgate::chain(chain).listener("upgrades: [websocket, x-tunnel]").cluster_of(
        "one",
        &[endpoint.address],
        "protocol: http2",
    )
}

async fn active(gate: &Meshgate) -> f64 {
    gate.metrics().await.sum("meshgate_downstream_upgrades_active", &[("listener", "web")])
}

/// What an endpoint must see of an offer.
fn check(head: &request::Parts, protocol: &str, path: &str) {
    assert_eq!((head.method.as_str(), head.uri.path()), ("CONNECT", path));
    assert_eq!(head.extensions.get::<Protocol>().unwrap().as_str(), protocol);
    for name in ["connection", "upgrade", "sec-websocket-key"] {
        assert!(!head.headers.contains_key(name), "{head:?}");
    }
}

const SEEN: &str = "- headers: {request: {set: {x-in: seen}}, response: {set: {x-out: seen}}}";

#[tokio::test]
async fn websocket_over_http1_reaches_an_endpoint_that_speaks_http2_and_lives_on_across_a_reload() {
    let mut endpoint = Endpoint::start(true).await;
    let setup = proxy(SEEN, &endpoint);
    let gate = setup.clone().start().await;
    let asking = WebSocket::asking(gate.address(), "/chat", &[("origin", "http://a.example")]);
    let (mut client, answer) = asking.await;
    assert_eq!(
        (&answer["x-out"], &answer["x-from"]),
        (&"seen".parse().unwrap(), &"endpoint".parse().unwrap())
    );
    let (head, mut server) = endpoint.websocket().await;
    check(&head, "websocket", "/chat");
    for (name, value) in [("x-in", "seen"), ("origin", "http://a.example"), ("sec-websocket-version", "13")] {
        assert_eq!(head.headers[name], value, "{name}");
    }
    client.send("question").await;
    assert_eq!(within("a message", server.next()).await.unwrap().unwrap(), Message::text("question"));
    assert_eq!(active(&gate).await, 1.0);

    let before = gate.reload().await;
    let other = setup.with_chain("- headers: {response: {set: {x-out: changed}}}");
    gate.replace("meshgate.yaml", other.yaml());
    gate.reloaded(&before).await;
    let large = Message::binary(vec![7; 1 << 20]);
    let (sent, ()) = tokio::join!(server.send(large.clone()), async {
        assert_eq!(client.next().await, Some(large.clone()));
    });
    sent.unwrap();
    // Requests share the connection with it.
    assert_eq!(gate.get("/plain").await.text(), "GET /plain");
    assert_eq!(endpoint.connections(), 1);

    tokio::join!(client.close(), async {
        while let Some(Ok(_)) = within("the goodbye", server.next()).await {}
        drop(server);
    });
    let entry = gate.access("/chat").await;
    assert_eq!(
        (&entry["response_code"], &entry["response_flags"]),
        (&101.into(), &serde_json::Value::Null),
        "{entry}"
    );
    assert!(entry["bytes_sent"].as_u64() > Some(1 << 20));
    until("it is over", || async { (active(&gate).await == 0.0).then_some(()) }).await;
}

#[tokio::test]
async fn websocket_over_http2_reaches_an_endpoint_that_speaks_http2() {
    let mut endpoint = Endpoint::start(true).await;
    let gate = proxy(SEEN, &endpoint).start().await;
    let mut client = Client::connect(&gate).await;
    let (stream, head) = client.tunnel("websocket", "/chat").await;
    assert_eq!(head.headers()["x-out"], "seen");
    for name in ["connection", "upgrade", "sec-websocket-accept"] {
        assert!(!head.headers().contains_key(name), "{head:?}");
    }
    let (head, mut server) = endpoint.websocket().await;
    check(&head, "websocket", "/chat");
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
    for message in [Message::text("hello"), Message::binary(vec![7; 1 << 20])] {
        let (sent, received) = tokio::join!(socket.send(message.clone()), within("a message", server.next()));
        sent.unwrap();
        assert_eq!(received.unwrap().unwrap(), message);
    }
    drop(socket);
    let entry = gate.access("/chat").await;
    assert_eq!((&entry["response_code"], &entry["method"]), (&200.into(), &"CONNECT".into()), "{entry}");
}

/// A message each way.
async fn both_ways(client: &mut Tunnelled, server: &mut Tunnelled, text: &str) {
    pass(client, server, text).await;
    pass(server, client, text).await;
}

async fn pass(from: &mut Tunnelled, to: &mut Tunnelled, text: &str) {
    from.send(Message::text(text)).await.unwrap();
    assert_eq!(within("a message", to.next()).await.unwrap().unwrap(), Message::text(text));
}

#[tokio::test]
async fn websocket_over_http2_on_both_sides_lives_on_across_a_reload_and_a_drain() {
    let mut endpoint = Endpoint::start(true).await;
    let gate = proxy(SEEN, &endpoint).top("drain: {spread: 0s}").start().await;
    let mut client = Client::connect(&gate).await;
    let (stream, _) = client.tunnel("websocket", "/chat").await;
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
    let (_, mut server) = endpoint.websocket().await;
    both_ways(&mut socket, &mut server, "at first").await;

    // Another chain, and another cluster: it makes a connection of its own for what comes.
    let before = gate.reload().await;
    let changed = gate.setup().clone().with_chain("- headers: {response: {set: {x-out: changed}}}").yaml();
    gate.replace("meshgate.yaml", changed.replace("protocol: http2", "protocol: http2, connect_timeout: 7s"));
    gate.reloaded(&before).await;
    assert_eq!(client.get("/plain").await, 200);
    assert_eq!(endpoint.connections(), 2);
    both_ways(&mut socket, &mut server, "after the reload").await;

    gate.terminate();
    until_told(&gate).await;
    both_ways(&mut socket, &mut server, "in the drain").await;
    let client_ends = async {
        socket.close(None).await.unwrap();
        while let Some(Ok(_)) = within("the end", socket.next()).await {}
        drop(socket);
    };
    tokio::join!(client_ends, async {
        while let Some(Ok(_)) = within("the goodbye", server.next()).await {}
        drop(server);
    });
    let stopped = gate.wait().await;
    assert!(stopped.status.success(), "{}\n{}", stopped.status, stopped.log.join("\n"));
    let entry = stopped.access_log.iter().find(|entry| entry["path"] == "/chat").unwrap();
    assert_eq!(entry["response_code"], 200, "{entry}");
}

/// A client over HTTP/1.1 behind the change, and the endpoint's stream.
async fn tunnel(gate: &Meshgate, endpoint: &mut Endpoint) -> (Socket, TokioIo<Upgraded>) {
    let mut client = Socket::connect(gate.address()).await;
    client
        .write("GET /up HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: x-tunnel\r\n\r\nearly")
        .await;
    let (head, mut stream) = endpoint.next().await;
    check(&head, "x-tunnel", "/up");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.extend(client.read(1).await);
    }
    assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&answer));
    let mut early = [0; 5];
    within("what came with the head", stream.read_exact(&mut early)).await.unwrap();
    (client, stream)
}

#[tokio::test]
async fn either_side_may_end_first_and_still_hear_the_other() {
    let mut endpoint = Endpoint::start(true).await;
    let gate = proxy("", &endpoint).start().await;
    let (mut client, mut server) = tunnel(&gate, &mut endpoint).await;
    client.write("question").await;
    client.finish().await;
    let mut question = String::new();
    within("the end", server.read_to_string(&mut question)).await.unwrap();
    assert_eq!(question, "question");
    server.write_all(b"answer").await.unwrap();
    server.shutdown().await.unwrap();
    assert_eq!(client.end().await, Ended::in_order("answer"));

    let (mut client, mut server) = tunnel(&gate, &mut endpoint).await;
    server.write_all(b"greeting").await.unwrap();
    server.shutdown().await.unwrap();
    assert_eq!(client.end().await, Ended::in_order("greeting"));
    client.write("thanks").await;
    client.finish().await;
    let mut thanks = String::new();
    within("the end", server.read_to_string(&mut thanks)).await.unwrap();
    assert_eq!(thanks, "thanks");
    until("both are logged", || async { (gate.access_log().len() == 2).then_some(()) }).await;
    assert!(gate.access_log().iter().all(|entry| entry["response_flags"].is_null()));
    assert_eq!(endpoint.connections(), 1);
}

#[tokio::test]
async fn a_side_that_breaks_off_is_told_to_the_other() {
    let mut endpoint = Endpoint::start(true).await;
    let gate = proxy("", &endpoint).start().await;
    let (client, mut server) = tunnel(&gate, &mut endpoint).await;
    client.reset();
    let mut rest = Vec::new();
    within("the end", server.read_to_end(&mut rest)).await.ok();
    assert_eq!(rest, b"");
    until("it is logged", || async { (gate.access_log().len() == 1).then_some(()) }).await;
    assert_eq!(gate.access_log()[0]["response_flags"], "DC");
    assert_eq!(gate.get("/after").await.text(), "GET /after");
    assert_eq!(endpoint.connections(), 1, "the connection goes on");
}

#[tokio::test]
async fn an_endpoint_that_resets_its_stream_resets_the_client() {
    let backend = RawBackend::start(|_, mut wire| async move {
        // It lets streams change their protocol.
        wire.write(frame(kind::SETTINGS, 0, 0, &[0, 8, 0, 0, 0, 1])).await;
        wire.read(PREFACE.len()).await;
        loop {
            let head = wire.read(9).await;
            let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            wire.read(length).await;
            if head[3] != kind::HEADERS {
                continue;
            }
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            wire.write(frame(kind::HEADERS, END_HEADERS, stream, &fields(&[(":status", "200")]))).await;
            wire.write(frame(kind::DATA, 0, stream, b"some")).await;
            wire.write(frame(kind::RST_STREAM, 0, stream, &8_u32.to_be_bytes())).await;
        }
    })
    .await;
    let setup = Meshgate::chain("").listener("upgrades: [x-tunnel]");
    let gate = setup.cluster_of("one", &[backend.address()], "protocol: http2").start().await;
    let mut client = Socket::connect(gate.address()).await;
    client.write("GET /up HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: x-tunnel\r\n\r\n").await;
    assert!(client.end().await.reset);
    let entry = gate.access("/up").await;
    assert_eq!((&entry["response_code"], &entry["response_flags"]), (&101.into(), &"UC".into()), "{entry}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_directions_run_at_once_and_unchanged() {
    let mut endpoint = Endpoint::start(true).await;
    let gate = proxy("", &endpoint).start().await;
    let (client, server) = tunnel(&gate, &mut endpoint).await;
    let up: Vec<u8> = (0..4_000_000_u32).map(|at| (at % 251) as u8).collect();
    let down: Vec<u8> = (0..4_000_000_u32).map(|at| (at % 241) as u8).collect();
    let (mut client_from, mut client_to) = client.split();
    let (mut server_from, mut server_to) = tokio::io::split(server);
    let read_all = async |from: &mut (dyn tokio::io::AsyncRead + Unpin + Send)| {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).await.unwrap();
        bytes
    };
    let everything = async {
        tokio::join!(
            async { (client_to.write_all(&up).await.unwrap(), client_to.shutdown().await.unwrap()) },
            async { (server_to.write_all(&down).await.unwrap(), server_to.shutdown().await.unwrap()) },
            read_all(&mut client_from),
            read_all(&mut server_from),
        )
    };
    let (_, _, at_client, at_server) = within("both ends", everything).await;
    assert!(at_client == down && at_server == up);
}

#[tokio::test]
async fn an_endpoint_that_does_not_announce_it_is_not_asked() {
    let endpoint = Endpoint::start(false).await;
    let gate = proxy("", &endpoint).start().await;
    let offer = |path| Ask::get(path).header("connection", "upgrade").header("upgrade", "x-tunnel");
    assert_eq!(gate.call(offer("/over-http1")).await.status, 502);
    let mut client = Client::connect(&gate).await;
    assert_eq!(client.ask("x-tunnel", "/over-http2").await.status(), 502);
    for path in ["/over-http1", "/over-http2"] {
        let entry = gate.access(path).await;
        assert_eq!(
            (&entry["response_flags"], &entry["response_code_details"]),
            (&"UPE".into(), &"upstream_upgrade_unsupported".into())
        );
    }
    assert_eq!(gate.get("/plain").await.text(), "GET /plain");
}

#[tokio::test]
async fn refusals_are_ordinary_answers() {
    let mut endpoint = Endpoint::start(true).await;
    let gate = proxy("", &endpoint).start().await;
    let mut wire = Wire::connect(gate.address()).await;
    for _ in 0..3 {
        wire.write("GET /refused HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: x-tunnel\r\n\r\n")
            .await;
        let reply = wire.read_reply().await;
        assert_eq!((reply.status(), reply.header("upgrade"), reply.header("connection")), (403, "", ""));
    }
    let mut client = Client::connect(&gate).await;
    assert_eq!(client.ask("x-tunnel", "/refused").await.status(), 403);
    assert_eq!(endpoint.connections(), 1);

    // Nobody behind the proxy would notice that the question is missing.
    wire.write("GET /chat HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await;
    assert_eq!(wire.read_reply().await.status(), 400);
}

#[tokio::test]
async fn offers_that_filters_take_back_are_not_made() {
    let endpoint = Endpoint::start(true).await;
    let gate = proxy("- headers: {request: {remove: [upgrade]}}", &endpoint).start().await;
    let offer = Ask::get("/").header("connection", "upgrade").header("upgrade", "x-tunnel");
    assert_eq!(gate.call(offer).await.text(), "GET /");
}
