//! TCP listeners without filters, or with filters that change nothing: bytes, ends, resets, limits, reload and drain.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use meshgate_tests::{Ended, Meshgate, Setup, Socket, SocketBackend, until, within};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// A TCP listener with this chain in front of the backend.
pub(crate) fn tcp(chain: &str, backend: &SocketBackend) -> Setup {
    Meshgate::chain(chain).listener("protocol: tcp").guest("tcp", "").cluster_of(
        "one",
        &[backend.address()],
        "",
    )
}

/// The chains that change nothing: one without filters, and one with a filter that looks at everything.
const CHAINS: [&str; 2] = ["", "- tcp: {}"];

/// A client, and the connection to the backend that was made for it.
pub(crate) async fn connected(gate: &Meshgate, backend: &SocketBackend) -> (Socket, Socket) {
    let client = Socket::connect(gate.address()).await;
    (client, backend.accept().await)
}

/// The access log's entry number `index`, from 0.
pub(crate) async fn entry(gate: &Meshgate, index: usize) -> Value {
    let mut seen = 0;
    let line = |line: &str| {
        seen += 1;
        (seen > index).then(|| serde_json::from_str(line).unwrap())
    };
    gate.stdout().wait("a line of the access log", line).await
}

/// Bytes that look like nothing in particular, and differ with `seed`.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()
    };
    (0..length.div_ceil(4)).flat_map(|_| next().into_iter().take(4)).take(length).collect()
}

async fn send(mut to: OwnedWriteHalf, bytes: Arc<Vec<u8>>) {
    to.write_all(&bytes).await.unwrap();
    to.shutdown().await.unwrap();
}

async fn receive(mut from: OwnedReadHalf) -> Vec<u8> {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).await.unwrap();
    bytes
}

#[tokio::test]
async fn sixteen_mebibytes_both_ways_at_once() {
    const LENGTH: usize = 16 << 20;
    let (question, answer) = (Arc::new(noise(LENGTH, 1)), Arc::new(noise(LENGTH, 2)));
    for chain in CHAINS {
        let backend = SocketBackend::start().await;
        let gate = tcp(chain, &backend).start().await;
        let (client, server) = connected(&gate, &backend).await;
        let ((client_in, client_out), (server_in, server_out)) = (client.split(), server.split());
        let (_, _, heard, answered) = within("both ways", async {
            tokio::join!(
                send(client_out, question.clone()),
                send(server_out, answer.clone()),
                receive(server_in),
                receive(client_in)
            )
        })
        .await;
        assert!(heard == *question, "{chain}: {} bytes, or others", heard.len());
        assert!(answered == *answer, "{chain}: {} bytes, or others", answered.len());
        let entry = entry(&gate, 0).await;
        assert_eq!((&entry["bytes_received"], &entry["bytes_sent"]), (&LENGTH.into(), &LENGTH.into()));
        let metrics = gate.metrics().await;
        let listener = [("listener", "web")];
        for metric in ["received", "sent"] {
            let name = format!("meshgate_downstream_tcp_{metric}_bytes_total");
            assert_eq!(metrics.sum(&name, &listener), LENGTH as f64, "{name}");
        }
        assert_eq!(metrics.sum("meshgate_downstream_connections_total", &listener), 1.0);
    }
}

#[tokio::test]
async fn each_side_may_end_first_and_go_on_listening() {
    for chain in CHAINS {
        let backend = SocketBackend::start().await;
        let gate = tcp(chain, &backend).start().await;
        let (mut client, mut server) = connected(&gate, &backend).await;
        client.write("question").await;
        client.finish().await;
        assert_eq!(server.end().await, Ended::in_order("question"));
        server.write("answer").await;
        client.expect("answer").await;
        server.finish().await;
        assert_eq!(client.end().await, Ended::in_order(""));

        let (mut client, mut server) = connected(&gate, &backend).await;
        server.write("greeting").await;
        server.finish().await;
        assert_eq!(client.end().await, Ended::in_order("greeting"));
        client.write("goodbye").await;
        server.expect("goodbye").await;
        client.finish().await;
        assert_eq!(server.end().await, Ended::in_order(""));
        for index in 0..2 {
            let entry = entry(&gate, index).await;
            assert_eq!((&entry["response_flags"], &entry["protocol"]), (&Value::Null, &"TCP".into()));
            assert_eq!((&entry["method"], &entry["path"]), (&Value::Null, &Value::Null));
            assert_eq!((&entry["cluster"], &entry["listener"]), (&"one".into(), &"web".into()));
            assert_eq!(entry["upstream_address"], backend.address().to_string());
        }
    }
}

#[tokio::test]
async fn a_reset_is_passed_on() {
    for chain in CHAINS {
        let backend = SocketBackend::start().await;
        let gate = tcp(chain, &backend).start().await;
        let (mut client, mut server) = connected(&gate, &backend).await;
        client.write("half a que").await;
        server.expect("half a que").await;
        client.reset();
        assert_eq!(server.end().await, Ended { bytes: Vec::new(), reset: true });
        assert_eq!(entry(&gate, 0).await["response_flags"], "DC");

        let (mut client, mut server) = connected(&gate, &backend).await;
        server.write("half an ans").await;
        client.expect("half an ans").await;
        server.reset();
        assert_eq!(client.end().await, Ended { bytes: Vec::new(), reset: true });
        let entry = entry(&gate, 1).await;
        assert_eq!(
            (&entry["response_flags"], &entry["response_code_details"]),
            (&"UC".into(), &"upstream_remote_reset".into())
        );
    }
}

/// More than all sockets on the way can hold together.
const MORE_THAN_BUFFERS: usize = 64 << 20;
/// What a proxy may hold of it at most.
const HELD: u64 = 16 << 20;

/// Writes until nobody takes any more; says how much that was.
async fn fill(to: &mut OwnedWriteHalf) -> usize {
    let bytes = vec![7; 1 << 20];
    let mut written = 0;
    let patience = Duration::from_secs(1);
    while let Ok(some) = tokio::time::timeout(patience, to.write(&bytes)).await {
        written += some.unwrap();
        assert!(written < MORE_THAN_BUFFERS, "nobody reads, and yet all was taken");
    }
    written
}

#[tokio::test]
async fn a_slow_reader_holds_the_sender_up_and_no_memory() {
    for chain in CHAINS {
        let backend = SocketBackend::start().await;
        let gate = tcp(chain, &backend).start().await;
        let (client, server) = connected(&gate, &backend).await;
        let (before, _) = gate.memory();
        let ((mut client_in, mut client_out), (mut server_in, mut server_out)) =
            (client.split(), server.split());
        let (asked, answered) = tokio::join!(fill(&mut client_out), fill(&mut server_out));
        let (_, highest) = gate.memory();
        assert!(highest < before + HELD, "{chain}: {before} bytes at rest, {highest} with both held up");
        drop((client_out.shutdown().await, server_out.shutdown().await));
        let read = async |from: &mut OwnedReadHalf| {
            let mut bytes = Vec::new();
            within("the rest", from.read_to_end(&mut bytes)).await.unwrap();
            bytes.len()
        };
        assert_eq!(tokio::join!(read(&mut server_in), read(&mut client_in)), (asked, answered));
    }
}

#[tokio::test]
async fn what_cannot_be_connected_is_closed() {
    let backend = SocketBackend::start().await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let setup = || Meshgate::chain("").listener("protocol: tcp");
    let cases = [
        (setup().cluster_of("one", &[free], ""), "UF", "upstream_connect_failure"),
        (
            setup().cluster_of("one", &[backend.address()], "").without_default_cluster(),
            "NR",
            "route_not_found",
        ),
    ];
    for (setup, flag, details) in cases {
        let gate = setup.start().await;
        let mut client = Socket::connect(gate.address()).await;
        assert_eq!(client.end().await, Ended::in_order(""), "{flag}");
        let entry = entry(&gate, 0).await;
        assert_eq!(
            (&entry["response_flags"], &entry["response_code_details"]),
            (&flag.into(), &details.into())
        );
        let metrics = gate.metrics().await;
        assert_eq!(metrics.sum("meshgate_downstream_tcp_response_flags_total", &[("flag", flag)]), 1.0);
    }
}

#[tokio::test]
async fn silence_ends_a_connection() {
    let backend = SocketBackend::start().await;
    let gate = tcp("- tcp: {}", &backend).listener("idle_timeout: 3s").start().await;
    let (mut client, mut server) = connected(&gate, &backend).await;
    // Whatever passes in either direction is a sign of life.
    let begun = tokio::time::Instant::now();
    while begun.elapsed() < Duration::from_secs(4) {
        tokio::time::sleep(Duration::from_millis(250)).await;
        client.write("a").await;
        server.expect("a").await;
        server.write("b").await;
        client.expect("b").await;
    }
    assert_eq!((client.end().await, server.end().await), (Ended::in_order(""), Ended::in_order("")));
    assert_eq!(entry(&gate, 0).await["response_flags"], "SI");
}

#[tokio::test]
async fn connections_are_bounded() {
    let backend = SocketBackend::start().await;
    let gate = tcp("", &backend).listener("max_connections: 1").start().await;
    let (mut first, mut server) = connected(&gate, &backend).await;
    let mut second = Socket::connect(gate.address()).await;
    assert_eq!(second.end().await.bytes, b"");
    first.write("still here").await;
    server.expect("still here").await;
    drop((first, server));
    until("there is room again", || async {
        let active = gate.metrics().await.sum("meshgate_downstream_connections_active", &[]);
        (active == 0.0).then_some(())
    })
    .await;
    connected(&gate, &backend).await;
    assert_eq!(gate.metrics().await.sum("meshgate_downstream_connections_rejected_total", &[]), 1.0);
}

#[tokio::test]
async fn a_connection_lives_on_with_what_it_began_with() {
    let (backend, other) = (SocketBackend::start().await, SocketBackend::start().await);
    let gate = tcp("- tcp: {upstream: {uppercase: true}}", &backend).start().await;
    let (mut client, mut server) = connected(&gate, &backend).await;
    let before = gate.reload().await;
    let yaml = tcp("- tcp: {upstream: {double: true}}", &other).yaml();
    gate.edit("meshgate.yaml", yaml);
    gate.reloaded(&before).await;

    let (mut new_client, mut new_server) = connected(&gate, &other).await;
    for (client, server, answer) in
        [(&mut client, &mut server, "HELLO"), (&mut new_client, &mut new_server, "hellohello")]
    {
        client.write("hello").await;
        server.expect("hello").await;
        server.write("hello").await;
        client.expect(answer).await;
    }
    // Its listener goes, too, and it still does.
    let before = gate.reload().await;
    gate.edit("meshgate.yaml", tcp("", &other).yaml().replace("name: web", "name: elsewhere"));
    gate.reloaded(&before).await;
    server.write("hello").await;
    client.expect("HELLO").await;
    drop(client);
    assert_eq!(server.end().await, Ended::in_order(""));
}

/// Whether nobody listens there any more.
async fn refused(gate: &Meshgate) {
    until("the listener is closed", || async {
        let connected = tokio::net::TcpStream::connect(gate.address()).await;
        connected.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_drain_waits_for_connections() {
    let backend = SocketBackend::start().await;
    let gate = tcp("- tcp: {name: f}", &backend).start().await;
    let (mut client, mut server) = connected(&gate, &backend).await;
    gate.terminate();
    refused(&gate).await;
    client.write("question").await;
    server.expect("question").await;
    server.write("answer").await;
    server.finish().await;
    assert_eq!(client.end().await, Ended::in_order("answer"));
    drop(client);
    let stopped = gate.wait().await;
    assert!(stopped.status.success(), "{}", stopped.status);
    // The backend never ends a connection that was only made to see whether the listener is closed.
    let finished = stopped.access_log.iter().filter(|entry| entry["response_code_details"] != "shutdown");
    assert_eq!(finished.count(), 1);
    assert!(stopped.log.iter().any(|line| line.contains("f: done")), "{:#?}", stopped.log);
}

#[tokio::test]
async fn a_drain_does_not_wait_for_ever() {
    let backend = SocketBackend::start().await;
    let gate = tcp("", &backend).top("drain: {timeout: 200ms}").start().await;
    let (mut client, mut server) = connected(&gate, &backend).await;
    gate.terminate();
    let stopped = gate.wait().await;
    assert!(stopped.status.success(), "{}", stopped.status);
    assert_eq!((client.end().await.bytes, server.end().await.bytes), (Vec::new(), Vec::new()));
}
