//! Metrics of TCP connections and of gRPC's messages, under the names of Istio, Linkerd and Meshgate.

use bytes::Bytes;
use http::Method;
use meshgate_tests::{
    Ask, Authority, Backend, Client, Meshgate, Metrics, Reply, Says, Setup, Socket, SocketBackend, TlsClient,
    framed, grpc_backend, streamed, until, within,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A listener for TCP with this configuration of the filter.
fn tcp(configuration: &str, backend: &SocketBackend) -> Setup {
    Meshgate::chain(&format!("- telemetry: {{{configuration}}}")).listener("protocol: tcp").cluster_of(
        "one",
        &[backend.address()],
        "",
    )
}

/// A metric's name, labels of it, and the value.
type Expected<'a> = (&'a str, &'a [(&'a str, &'a str)], f64);

/// Waits until all of these have their value.
async fn shown(gate: &Meshgate, expected: &[Expected<'_>]) -> Metrics {
    let as_expected = |metrics: &Metrics| {
        expected.iter().all(|(name, labels, value)| (metrics.sum(name, labels) - value).abs() < 0.5)
    };
    let what = format!("metrics are {expected:?}");
    until(what, || async { Some(gate.metrics().await).filter(as_expected) }).await
}

/// Bytes show while a connection lives, and count once each; what was opened was closed.
#[tokio::test]
async fn row_28_golden_metrics_of_tcp_count_bytes_while_connections_live() {
    for (preset, [opened, closed, received, sent]) in [
        (
            "istio",
            [
                "istio_tcp_connections_opened_total",
                "istio_tcp_connections_closed_total",
                "istio_tcp_received_bytes_total",
                "istio_tcp_sent_bytes_total",
            ],
        ),
        (
            "meshgate",
            [
                "meshgate_tcp_connections_opened_total",
                "meshgate_tcp_connections_closed_total",
                "meshgate_tcp_received_bytes_total",
                "meshgate_tcp_sent_bytes_total",
            ],
        ),
    ] {
        let backend = SocketBackend::start().await;
        let configuration = format!("metrics: {{preset: {preset}, tcp_interval: 100ms}}");
        let gate = tcp(&configuration, &backend).workers(2).start().await;
        let mut clients = Vec::new();
        for _ in 0..10 {
            let mut client = Socket::connect(gate.address()).await;
            client.write("hello").await;
            let mut server = backend.accept().await;
            server.expect("hello").await;
            server.write("welcome back").await;
            client.expect("welcome back").await;
            clients.push((client, server));
        }
        let none: &[_] = &[];
        shown(
            &gate,
            &[(opened, none, 10.0), (received, none, 50.0), (sent, none, 120.0), (closed, none, 0.0)],
        )
        .await;
        // What came later counts, and nothing twice.
        clients[0].0.write("more").await;
        clients[0].1.expect("more").await;
        shown(&gate, &[(opened, none, 10.0), (received, none, 54.0), (sent, none, 120.0)]).await;
        for (mut client, mut server) in clients {
            client.write("!").await;
            client.finish().await;
            server.end().await;
            server.finish().await;
            client.end().await;
        }
        let expected =
            [(opened, none, 10.0), (closed, none, 10.0), (received, none, 64.0), (sent, none, 120.0)];
        shown(&gate, &expected).await;
        // A connection that is over before anybody looks counts as well.
        let mut client = Socket::connect(gate.address()).await;
        let mut server = backend.accept().await;
        client.write("brief").await;
        client.finish().await;
        server.end().await;
        server.finish().await;
        client.end().await;
        shown(&gate, &[(opened, none, 11.0), (closed, none, 11.0), (received, none, 69.0)]).await;
    }
}

#[tokio::test]
async fn row_28_golden_metrics_of_tcp_have_istios_labels() {
    let backend = SocketBackend::start().await;
    let gate =
        Meshgate::chain("- telemetry: {metrics: {preset: istio}, workload: {name: db-v1, namespace: shop}}")
            .listener("protocol: tcp")
            .listener("direction: inbound")
            .cluster_of("db.shop.svc.cluster.local", &[backend.address()], "")
            .start()
            .await;
    let mut client = Socket::connect(gate.address()).await;
    backend.accept().await.finish().await;
    client.finish().await;
    client.end().await;
    // And one that goes nowhere.
    drop(backend);
    Socket::connect(gate.address()).await.end().await;
    let closed = "istio_tcp_connections_closed_total";
    let metrics = shown(&gate, &[(closed, &[], 2.0)]).await;
    let labels = [
        ("reporter", "destination"),
        ("source_workload", "unknown"),
        ("destination_workload", "db-v1"),
        ("destination_workload_namespace", "shop"),
        ("destination_service", "db.shop.svc.cluster.local"),
        ("destination_service_name", "db"),
        ("request_protocol", "tcp"),
        ("response_flags", "-"),
        ("connection_security_policy", "none"),
    ];
    for name in [closed, "istio_tcp_connections_opened_total"] {
        assert_eq!(metrics.sum(name, &labels), 1.0, "{}", metrics.text());
        assert_eq!(metrics.sum(name, &[("response_flags", "UF")]), 1.0, "{}", metrics.text());
    }
    let line = metrics.text().lines().find(|line| line.starts_with(closed)).unwrap();
    assert!(!line.contains("response_code") && !line.contains("grpc"), "{line}");
}

/// Both ends of a connection, with the bytes as each of them has them, and who they are.
#[tokio::test]
async fn row_28_golden_metrics_of_tcp_have_linkerds_peers() {
    const CLIENT: &str = "spiffe://example.org/ns/shop/sa/web";
    let authority = Authority::new();
    let backend = SocketBackend::start().await;
    let gate = tcp("metrics: {preset: linkerd, tcp_interval: 100ms}", &backend)
        .listener(
            "tls: {certificates: [{certificate: web.pem, key: web.key}], client_certificates: {ca: ca.pem}}",
        )
        .pair("web", &authority.issue(&Says::name("gate.example")))
        .file("ca.pem", authority.certificate())
        .start()
        .await;
    let client = authority.issue(&Says::uri(CLIENT));
    let mut client =
        TlsClient::with_certificate("gate.example", &authority, &client).connect(gate.address()).await;
    client.stream.write_all(b"hello").await.unwrap();
    let mut server = backend.accept().await;
    server.expect("hello").await;
    server.write("welcome back").await;
    client.stream.read_exact(&mut [0; 12]).await.unwrap();
    let target = backend.address().to_string();
    let src: &[_] = &[("direction", "outbound"), ("peer", "src"), ("tls", "true"), ("client_id", CLIENT)];
    let dst: &[_] = &[("direction", "outbound"), ("peer", "dst"), ("tls", "false"), ("target_addr", &target)];
    shown(
        &gate,
        &[
            ("tcp_open_total", src, 1.0),
            ("tcp_open_total", dst, 1.0),
            ("tcp_open_connections", src, 1.0),
            ("tcp_open_connections", dst, 1.0),
            ("tcp_read_bytes_total", src, 5.0),
            ("tcp_write_bytes_total", src, 12.0),
            ("tcp_read_bytes_total", dst, 12.0),
            ("tcp_write_bytes_total", dst, 5.0),
            ("tcp_close_total", &[], 0.0),
        ],
    )
    .await;
    drop((client, server));
    for peer in [src, dst] {
        shown(
            &gate,
            &[
                ("tcp_open_total", peer, 1.0),
                ("tcp_open_connections", peer, 0.0),
                ("tcp_close_total", peer, 1.0),
                ("tcp_connection_duration_ms_count", peer, 1.0),
            ],
        )
        .await;
    }
}

/// More connections than hear of a tick at once.
#[tokio::test]
async fn row_28_golden_metrics_of_tcp_tell_of_every_one_of_many_connections() {
    let backend = SocketBackend::start().await;
    let gate = tcp("metrics: {preset: linkerd, tcp_interval: 100ms}", &backend).start().await;
    let mut open = Vec::new();
    for _ in 0..450 {
        let mut client = Socket::connect(gate.address()).await;
        client.write("x").await;
        open.push((client, backend.accept().await));
    }
    let src: &[_] = &[("peer", "src")];
    shown(&gate, &[("tcp_open_connections", src, 450.0), ("tcp_read_bytes_total", src, 450.0)]).await;
}

/// The access log has lines of the filter's for connections, too.
#[tokio::test]
async fn row_32_access_log_has_lines_for_connections() {
    let backend = SocketBackend::start().await;
    let line = "LINE %RESPONSE_CODE% %PROTOCOL% %BYTES_RECEIVED% %BYTES_SENT% %UPSTREAM_CLUSTER% %RESPONSE_FLAGS% %REQ(:path)%";
    let gate = tcp(&format!("access_log: {{text: \"{line}\"}}"), &backend).start().await;
    let mut client = Socket::connect(gate.address()).await;
    client.write("hello").await;
    client.finish().await;
    let mut server = backend.accept().await;
    server.end().await;
    server.write("bye").await;
    server.finish().await;
    client.end().await;
    drop(backend);
    Socket::connect(gate.address()).await.end().await;
    let lines =
        until("both lines are there", || async { Some(gate.stdout().all()).filter(|all| all.len() == 2) })
            .await;
    assert_eq!(lines, ["LINE 0 - 5 3 one - -", "LINE 0 - 0 0 one UF -"]);
}

/// Messages of gRPC are counted in both directions, whole or in pieces; other requests have none.
#[tokio::test]
async fn row_28_golden_metrics_count_grpcs_messages() {
    let (echo, plain) = (grpc_backend("echo").await, Backend::echo("plain").await);
    let chain = "
        - telemetry: {metrics: {preset: istio}}
        - routing:
            routes:
              - {name: plain, match: {path: /plain}, to: plain}
              - {name: grpc, to: echo}
        ";
    let gate = Meshgate::chain(chain)
        .without_default_cluster()
        .cluster_of("echo", &[echo.address()], "protocol: http2")
        .cluster("plain", &[&plain])
        .start()
        .await;
    let mut client = Client::http2(gate.address()).await;
    let (mut sender, body) = streamed();
    let ask = Ask::new(Method::POST, "/test.Echo/Stream", body).header("content-type", "application/grpc");
    let asked = client.begin(ask).await.unwrap();
    let read = async { Reply::collect(within("a response", asked).await.unwrap()).await.unwrap() };
    let write = async move {
        for message in [&b"one"[..], b"", &[b'x'; 100_000]] {
            sender.send_data(framed(message)).await.unwrap();
        }
        // Two at once, and one in pieces.
        sender.send_data([framed(b"a"), framed(b"b")].concat().into()).await.unwrap();
        for byte in framed(b"slow").chunks(1) {
            sender.send_data(Bytes::copy_from_slice(byte)).await.unwrap();
        }
    };
    let (reply, ()) = tokio::join!(read, write);
    assert_eq!(reply.trailers["grpc-status"], "0");
    let unary = Ask::post("/test.Echo/Refuse", framed(b"x")).header("content-type", "application/grpc");
    client.call(unary).await;
    // What looks like a message, and is none.
    client.call(Ask::post("/plain", framed(b"x"))).await;
    let metrics = shown(&gate, &[("istio_requests_total", &[], 3.0)]).await;
    for (name, status, messages) in [
        ("istio_request_messages_total", "0", 6.0),
        ("istio_response_messages_total", "0", 6.0),
        ("istio_request_messages_total", "7", 1.0),
        ("istio_response_messages_total", "7", 0.0),
    ] {
        let labels = [("request_protocol", "grpc"), ("grpc_response_status", status)];
        assert_eq!(metrics.sum(name, &labels), messages, "{name} {status}\n{}", metrics.text());
    }
    let of_others =
        |line: &&str| line.contains("_messages_total{") && line.contains("request_protocol=\"http\"");
    assert_eq!(metrics.text().lines().find(of_others), None, "others have no such series");
    assert_eq!(metrics.sum("istio_requests_total", &[("request_protocol", "http")]), 1.0);
}

/// What is not gRPC does not run through the filter with its body: its length stands, and nothing is held.
#[tokio::test]
async fn what_is_not_grpc_is_not_looked_at() {
    let plain = Backend::echo("plain").await;
    let gate =
        Meshgate::chain("- telemetry: {metrics: {preset: istio}}").cluster("plain", &[&plain]).start().await;
    let callbacks = async || {
        let name = "meshgate_plugin_callbacks_total";
        gate.metrics().await.sum(name, &[])
    };
    let before = callbacks().await;
    for _ in 0..10 {
        let reply = gate.call(Ask::post("/", vec![b'x'; 100_000])).await;
        assert_eq!(reply.json()["length"], 100_000);
    }
    shown(&gate, &[("istio_requests_total", &[], 10.0)]).await;
    // Of each exchange the context's making, the log and its end.
    assert!(callbacks().await - before <= 30.0, "{}", gate.metrics().await.text());
}
