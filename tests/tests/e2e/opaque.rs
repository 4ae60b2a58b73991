//! One port for everything: HTTP/1.1, HTTP/2, gRPC, WebSocket, and connections that are passed on as they are.

use bytes::BytesMut;
use meshgate_tests::{
    Ask, Authority, Backend, Client, Ended, Meshgate, Says, Setup, Socket, SocketBackend, TlsClient,
    WebSocket, WebSocketBackend, framed, grpc_backend, messages,
};

use crate::tcp::entry;

/// A listener whose requests go to `web`, and everything else to `raw`.
fn everything(web: &Backend, raw: &SocketBackend, opaque: &str) -> Setup {
    Meshgate::chain("")
        .guest("tcp", "")
        .listener("cluster: web")
        .listener(&format!("opaque: {{cluster: raw{opaque}}}"))
        .without_default_cluster()
        .cluster("web", &[web])
        .cluster_of("raw", &[raw.address()], "")
}

/// What clients say that do not speak HTTP.
const WORDS: [&[u8]; 4] =
    [b"\x16\x03\x01\x00", b"*1\r\n$4\r\nPING\r\n", b"get key\r\n", b"\0\0\0\x08\x04\xd2\x16\x2f"];

#[tokio::test]
async fn row_27_one_port_takes_http1_http2_and_raw_tcp() {
    let (web, raw) = (Backend::echo("web").await, SocketBackend::start().await);
    let gate = everything(&web, &raw, ", timeout: 1h").start().await;
    let mut clients = [Client::http1(gate.address()).await, Client::http2(gate.address()).await];
    for round in 0..2 {
        for client in &mut clients {
            assert_eq!(client.get("/").await.header("x-backend"), "web");
        }
        for words in WORDS {
            let mut client = Socket::connect(gate.address()).await;
            client.write(words).await;
            let mut server = raw.accept().await;
            assert_eq!(server.read(words.len()).await, words, "{round}");
            server.write("answer").await;
            client.expect("answer").await;
            client.finish().await;
            assert_eq!(server.end().await, Ended::in_order(""));
        }
    }
    assert_eq!(web.requests(), 4);
    let entry = entry(&gate, 2).await;
    assert_eq!((&entry["protocol"], &entry["cluster"]), (&"TCP".into(), &"raw".into()), "{entry}");
    let metrics = gate.metrics().await;
    assert_eq!(metrics.sum("meshgate_downstream_requests_total", &[]), 4.0);
}

#[tokio::test]
async fn row_27_one_port_takes_grpc_and_websocket_too() {
    let (grpc, raw) = (grpc_backend("grpc").await, SocketBackend::start().await);
    let sockets = WebSocketBackend::start().await;
    let gate = Meshgate::chain(
        "- routing: {routes: [{name: grpc, match: {path: /test.Echo/*}, to: grpc}, {name: rest, to: sockets}]}",
    )
    .listener("opaque: {cluster: raw, timeout: 1h}")
    .without_default_cluster()
    .cluster_of("grpc", &[grpc.address()], "protocol: http2")
    .cluster_of("sockets", &[sockets.address()], "")
    .cluster_of("raw", &[raw.address()], "")
    .start()
    .await;
    let ask = Ask::post("/test.Echo/Stream", [framed(b"one"), framed(b"two")].concat());
    let ask = ask.header("content-type", "application/grpc").header("te", "trailers");
    let reply = Client::http2(gate.address()).await.call(ask).await;
    assert_eq!(messages(&mut BytesMut::from(&reply.body[..])), ["echo: one", "echo: two"]);
    WebSocket::connect(gate.address(), "/chat").await.echo("hello").await;
    let mut client = Socket::connect(gate.address()).await;
    client.write("?").await;
    client.write("\n").await;
    raw.accept().await.expect("?\n").await;
}

/// A client that waits for the server to speak is told apart by its silence, and by nothing but that.
#[tokio::test]
async fn row_27_servers_that_speak_first_are_heard() {
    let (web, raw) = (Backend::echo("web").await, SocketBackend::start().await);
    let gate = everything(&web, &raw, ", timeout: 50ms").start().await;
    let mut client = Socket::connect(gate.address()).await;
    let mut server = raw.accept().await;
    server.write("220 mail.example ready\r\n").await;
    client.expect("220 mail.example ready\r\n").await;
    client.write("EHLO me\r\n").await;
    server.expect("EHLO me\r\n").await;
    // Half a word that could become a request goes on as it is.
    let mut half = Socket::connect(gate.address()).await;
    half.write("GE").await;
    raw.accept().await.expect("GE").await;
    // What speaks HTTP at once is not delayed, and may be idle later.
    let mut http = gate.client().await;
    assert_eq!(http.get("/").await.status, 200);
    assert_eq!(http.get("/").await.status, 200);
    assert_eq!(web.requests(), 2);
}

#[tokio::test]
async fn filters_of_tcp_run_on_opaque_connections_and_a_reload_changes_where_they_go() {
    let (web, raw, other) =
        (Backend::echo("web").await, SocketBackend::start().await, SocketBackend::start().await);
    let setup = everything(&web, &raw, ", chain: raw").more_chains("raw:\n  - tcp: {}").cluster_of(
        "other",
        &[other.address()],
        "",
    );
    let gate = setup.start().await;
    let mut old = Socket::connect(gate.address()).await;
    old.write("\0one").await;
    let mut server = raw.accept().await;
    server.expect("\0one").await;
    let mut http = gate.client().await;
    assert_eq!(http.get("/").await.status, 200);
    let before = gate.reload().await;
    gate.edit("meshgate.yaml", gate.setup().yaml().replace("cluster: raw, chain", "cluster: other, chain"));
    gate.reloaded(&before).await;
    let mut new = Socket::connect(gate.address()).await;
    new.write("\0two").await;
    other.accept().await.expect("\0two").await;
    // What is under way stays, and so do connections of HTTP.
    old.write("more").await;
    server.expect("more").await;
    assert_eq!(http.get("/").await.status, 200);
}

/// With `mtls: permissive`, TLS and HTTP in cleartext and anything else come to one port.
#[tokio::test]
async fn beside_permissive_tls() {
    let (servers, clients) = (Authority::new(), Authority::new());
    let (web, raw) = (Backend::echo("web").await, SocketBackend::start().await);
    let gate = everything(&web, &raw, ", timeout: 1h")
        .listener(
            "tls: {certificates: [{certificate: web.pem, key: web.key}], client_certificates: {ca: ca.pem}}",
        )
        .listener("mtls: permissive")
        .pair("web", &servers.issue(&Says::name("a.example")))
        .file("ca.pem", clients.certificate())
        .start()
        .await;
    let known = clients.issue(&Says::uri("spiffe://example.org/ns/a/sa/b"));
    let mut secure = TlsClient::with_certificate("a.example", &servers, &known).http1(gate.address()).await;
    assert_eq!(secure.get("/").await.header("x-backend"), "web");
    assert_eq!(gate.get("/").await.header("x-backend"), "web");
    let mut client = Socket::connect(gate.address()).await;
    client.write("\0raw").await;
    raw.accept().await.expect("\0raw").await;
}
