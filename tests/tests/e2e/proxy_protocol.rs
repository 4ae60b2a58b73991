//! The PROXY protocol: connections that say for whom they were made, taken from proxies that are believed and passed on to
//! endpoints.

use meshgate_tests::{Backend, Ended, Meshgate, Setup, Socket, SocketBackend, Wire};

const TRUSTED: &str = "proxy_protocol: {from: [127.0.0.0/8], timeout: 300ms}";
const LINE: &[u8] = b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 443\r\n";
const REQUEST: &[u8] = b"GET /who HTTP/1.1\r\nhost: a\r\n\r\n";

/// A header of version 2.
fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &length, rest].concat()
}

/// That of `LINE`, with these values behind it.
fn binary(values: &[u8]) -> Vec<u8> {
    let addresses = [192, 0, 2, 1, 192, 0, 2, 2, 0x12, 0x67, 1, 0xbb];
    v2(0x21, 0x11, &[&addresses[..], values].concat())
}

fn believing(backend: &Backend) -> Setup {
    Meshgate::chain("").listener(TRUSTED).cluster("one", &[backend])
}

#[tokio::test]
async fn requests_come_from_whom_the_header_says() {
    let one = Backend::echo("one").await;
    let gate = believing(&one).start().await;
    let values = [1, 0, 2, b'h', b'2', 4, 0, 0];
    for (header, client) in [
        (LINE.to_vec(), "192.0.2.1"),
        (b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n".to_vec(), "2001:db8::1"),
        (binary(&[]), "192.0.2.1"),
        (binary(&values), "192.0.2.1"),
        // The proxy's own connections.
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (v2(0x20, 0, &[]), "127.0.0.1"),
    ] {
        let mut wire = Wire::connect(gate.address()).await;
        wire.write([&header[..], REQUEST].concat()).await;
        let reply = wire.read_reply().await;
        assert_eq!(reply.status(), 200, "{header:?}");
        assert_eq!(one.seen().last().unwrap().header("x-forwarded-for"), client);
        // The header is the connection's: the next request is the same client's.
        wire.write(REQUEST).await;
        wire.read_reply().await;
        assert_eq!(one.seen().last().unwrap().header("x-forwarded-for"), client);
    }
    assert_eq!(gate.access("/who").await["downstream_address"], "192.0.2.1:4711");

    let mut drop_by_drop = Wire::connect(gate.address()).await;
    for byte in [LINE, REQUEST].concat() {
        drop_by_drop.write([byte]).await;
    }
    assert_eq!(drop_by_drop.read_reply().await.status(), 200);
}

#[tokio::test]
async fn connections_without_a_header_that_counts_are_closed() {
    let one = Backend::echo("one").await;
    let gate = believing(&one).start().await;
    let too_long = v2(0x21, 0x11, &[0; 5000]);
    let cases =
        [REQUEST, b"PROXY TCP4 192.0.2.1 192.0.2.2 4711\r\n", &binary(&[1, 0]), &too_long, b"", &LINE[..20]];
    for (count, bytes) in cases.into_iter().enumerate() {
        let mut socket = Socket::connect(gate.address()).await;
        socket.write(bytes).await;
        assert_eq!(socket.end().await.bytes, b"", "{bytes:?}");
        let metrics = gate.metrics().await;
        let closed = metrics.sum("meshgate_downstream_connections_unproxied_total", &[("listener", "web")]);
        assert_eq!(closed, (count + 1) as f64);
    }
    let elsewhere = Meshgate::chain("")
        .listener("proxy_protocol: {from: [192.0.2.0/24, \"::1\"]}")
        .cluster("one", &[&one])
        .start()
        .await;
    let mut stranger = Socket::connect(elsewhere.address()).await;
    stranger.write([LINE, REQUEST].concat()).await;
    assert_eq!(stranger.end().await.bytes, b"");
    assert_eq!(one.requests(), 0);
}

#[tokio::test]
async fn tcp_sessions_take_and_tell_their_client() {
    for (version, expected) in [("v1", LINE.to_vec()), ("v2", binary(&[]))] {
        let backend = SocketBackend::start().await;
        let gate = Meshgate::chain("")
            .listener("protocol: tcp")
            .listener(TRUSTED)
            .cluster_of("one", &[backend.address()], &format!("proxy_protocol: {version}"))
            .start()
            .await;
        let mut client = Socket::connect(gate.address()).await;
        client.write([LINE, b"hello"].concat()).await;
        let mut server = backend.accept().await;
        assert_eq!(server.read(expected.len()).await, expected);
        server.expect("hello").await;
        server.write("welcome").await;
        client.expect("welcome").await;
        client.finish().await;
        assert_eq!(server.end().await, Ended::in_order(""));
        server.finish().await;
        client.end().await;
    }
}

#[tokio::test]
async fn each_request_is_told_to_be_its_clients() {
    let backend = SocketBackend::start().await;
    let gate =
        Meshgate::chain("").cluster_of("one", &[backend.address()], "proxy_protocol: v1").start().await;
    let mut client = Socket::connect(gate.address()).await;
    let expected = format!(
        "PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\nGET /who HTTP/1.1\r\n",
        client.address().port(),
        gate.address().port()
    );
    for _ in 0..2 {
        client.write(REQUEST).await;
        let mut server = backend.accept().await;
        server.expect(&expected).await;
        server.write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\nhi") {
            answer.extend(client.read(1).await);
        }
        let rest = server.end().await.bytes;
        assert!(rest.ends_with(b"\r\n\r\n"), "the connection is for nobody else");
    }
}
