//! TLS that is passed through as it is, to a cluster by the server name that the client asks for.

use meshgate_tests::{
    Authority, Backend, Client, Meshgate, Says, Setup, Socket, SocketBackend, TlsClient, TlsFront, until,
    within,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::tcp::entry;

/// Two backends behind TLS of their own, and a third for all other names.
struct World {
    authority: Authority,
    fronts: Vec<(TlsFront, Backend)>,
}

impl World {
    async fn new() -> World {
        let authority = Authority::new();
        let mut fronts = Vec::new();
        for name in ["one", "two", "rest"] {
            let backend = Backend::echo(name).await;
            let says =
                Says::name("one.example.com").and_name("any.example.com").and_name("deep.any.example.com");
            let says = says.and_name("elsewhere.test");
            let front =
                TlsFront::to(backend.address(), &authority.issue(&says)).alpn(&["http/1.1"]).start().await;
            fronts.push((front, backend));
        }
        World { authority, fronts }
    }

    /// A proxy in front of them, without the third one's cluster for other names unless asked.
    fn setup(&self, chain: &str, rest: bool) -> Setup {
        let setup = Meshgate::chain(chain).guest("tcp", "").listener("protocol: tcp").listener(
            "tls_passthrough: {names: {One.example.com: one, \"*.example.com\": two}, timeout: 60s}",
        );
        let setup = if rest { setup.listener("cluster: rest") } else { setup };
        let clusters = ["one", "two", "rest"].iter().zip(&self.fronts);
        let setup =
            clusters.fold(setup, |setup, (name, (front, _))| setup.cluster_of(name, &[front.address()], ""));
        setup.without_default_cluster()
    }

    /// A client that asks for this name and speaks with whomever it reaches.
    async fn client(&self, gate: &Meshgate, name: &str) -> Client {
        TlsClient::new(name, &self.authority).http1(gate.address()).await
    }
}

#[tokio::test]
async fn the_name_decides_the_cluster_and_the_bytes_stay_as_they_are() {
    let world = World::new().await;
    let gate = world.setup("", true).start().await;
    for (index, (name, expected)) in [
        ("one.example.com", "one"),
        ("ONE.example.com", "one"),
        ("any.example.com", "two"),
        ("deep.any.example.com", "rest"),
        ("elsewhere.test", "rest"),
    ]
    .into_iter()
    .enumerate()
    {
        // In order to its end: a client that leaves before the endpoint's last words may have broken the session off.
        let mut client = TlsClient::new(name, &world.authority).connect(gate.address()).await.stream;
        let body = "x".repeat(100_000);
        let head = "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 100000\r\n\r\n";
        client.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        let mut reply = String::new();
        within("a reply and the end", client.read_to_string(&mut reply)).await.unwrap();
        assert!(reply.contains(&format!("\r\nx-backend: {expected}\r\n")), "{name}");
        assert!(reply.contains(&body), "{name}");
        drop(client);
        let entry = entry(&gate, index).await;
        assert_eq!(entry["requested_server_name"], name.to_ascii_lowercase(), "{entry}");
        assert_eq!(
            (&entry["cluster"], &entry["response_flags"]),
            (&expected.into(), &serde_json::Value::Null),
            "{entry}"
        );
    }
    let nameless = TlsClient::new("one.example.com", &world.authority).nameless(&world.authority);
    assert_eq!(nameless.http1(gate.address()).await.get("/").await.header("x-backend"), "rest");
    // The client shook hands with the endpoint: nobody in between changed a byte.
    assert_eq!(world.fronts[0].0.met()[0].name, "one.example.com");
}

#[tokio::test]
async fn a_name_for_which_nothing_is_gets_no_connection() {
    let world = World::new().await;
    let gate = world.setup("", false).start().await;
    assert_eq!(world.client(&gate, "one.example.com").await.get("/").await.header("x-backend"), "one");
    TlsClient::new("elsewhere.test", &world.authority).refused(gate.address()).await;
    let line = |line: &str| line.contains("elsewhere.test").then(|| serde_json::from_str(line).unwrap());
    let entry: serde_json::Value = gate.stdout().wait("a line of the access log", line).await;
    assert_eq!(
        (&entry["response_flags"], &entry["response_code_details"]),
        (&"NR".into(), &"route_not_found".into())
    );
}

/// A ClientHello of `openssl s_client -servername shop.example.com`.
const HELLO: &[u8] = include_bytes!("../../../proxy/fuzz/corpus/client_hello/openssl");

/// A proxy in front of a backend that the test holds.
async fn raw(listener: &str, chain: &str) -> (Meshgate, SocketBackend) {
    let backend = SocketBackend::start().await;
    let gate = Meshgate::chain(chain)
        .guest("tcp", "")
        .listener("protocol: tcp")
        .listener(listener)
        .without_default_cluster()
        .cluster_of("shop", &[backend.address()], "")
        .start()
        .await;
    (gate, backend)
}

#[tokio::test]
async fn a_hello_may_come_in_many_packets_and_records() {
    let (gate, backend) = raw("tls_passthrough: {names: {shop.example.com: shop}, timeout: 60s}", "").await;
    // Each record holds seven bytes of the message, and each write is a packet.
    let records: Vec<u8> = HELLO[5..]
        .chunks(7)
        .flat_map(|part| [&[22, 3, 1, 0, u8::try_from(part.len()).unwrap()][..], part].concat())
        .collect();
    let mut client = Socket::connect(gate.address()).await;
    let (last, begin) = records.split_last().unwrap();
    for piece in begin.chunks(3) {
        client.write(piece).await;
        tokio::task::yield_now().await;
    }
    assert!(!backend.is_waited_for().await, "nobody is connected to before the name is known");
    client.write([*last]).await;
    client.write("and more").await;
    let mut endpoint = backend.accept().await;
    assert_eq!(endpoint.read(records.len()).await, records);
    endpoint.expect("and more").await;
    endpoint.write("answer").await;
    client.expect("answer").await;
    client.finish().await;
    assert_eq!(endpoint.end().await.bytes, b"");
}

#[tokio::test]
async fn what_is_not_tls_is_closed_and_so_is_what_never_ends() {
    let listener = "tls_passthrough: {names: {shop.example.com: shop}, timeout: 300ms, max_hello: 1KiB}";
    let (gate, backend) = raw(listener, "").await;
    let long = [&[22, 3, 1, 0x3f, 0xff, 1, 0, 0x3f, 0xf0][..], &[0; 2000]].concat();
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[22, 3, 1, 0, 0], &long] {
        let mut client = Socket::connect(gate.address()).await;
        client.write(bytes).await;
        client.end().await;
    }
    let mut cut = Socket::connect(gate.address()).await;
    cut.write(&HELLO[..100]).await;
    cut.finish().await;
    cut.end().await;
    let counted = |name: &'static str| {
        let gate = &gate;
        async move { gate.metrics().await.sum(name, &[]) }
    };
    assert_eq!(counted("meshgate_downstream_tls_handshakes_failed_total").await, 4.0);

    let mut silent = Socket::connect(gate.address()).await;
    let mut slow = Socket::connect(gate.address()).await;
    slow.write(&HELLO[..100]).await;
    silent.end().await;
    slow.end().await;
    assert_eq!(counted("meshgate_downstream_tls_handshakes_timed_out_total").await, 2.0);
    assert!(!backend.is_waited_for().await);
}

#[tokio::test]
async fn with_too_many_that_do_not_say_whom_they_want_the_oldest_is_given_up() {
    let listener = "tls_passthrough: {names: {shop.example.com: shop}, timeout: 1h, max_waiting: 2}";
    let (gate, _backend) = raw(listener, "").await;
    let mut silent = Vec::new();
    for count in 1..=3 {
        silent.push(Socket::connect(gate.address()).await);
        until("it is there", || async {
            let name = "meshgate_downstream_connections_total";
            (gate.metrics().await.sum(name, &[("listener", "web")]) == f64::from(count)).then_some(())
        })
        .await;
    }
    assert_eq!(silent.remove(0).end().await.bytes, b"");
    until("the others go on", || async {
        let name = "meshgate_downstream_connections_active";
        (gate.metrics().await.sum(name, &[("listener", "web")]) == 2.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn filters_run_on_it_and_know_the_name() {
    let chain = "- tcp: {name: t, properties: [connection/requested_server_name, connection/mtls]}";
    let (gate, backend) = raw("tls_passthrough: {names: {shop.example.com: shop}}", chain).await;
    let mut client = Socket::connect(gate.address()).await;
    client.write(HELLO).await;
    let mut endpoint = backend.accept().await;
    assert_eq!(endpoint.read(HELLO.len()).await, HELLO);
    client.finish().await;
    endpoint.finish().await;
    let seen = |part: &'static str| {
        let gate = &gate;
        async move { gate.log().wait(part, |line| line.contains(part).then_some(())).await }
    };
    seen("t: new_connection").await;
    seen("t: downstream_data 322 false").await;
    seen("requested_server_name=shop.example.com").await;
}

#[tokio::test]
async fn names_change_with_the_file() {
    let world = World::new().await;
    let gate = world.setup("", true).start().await;
    let mut open = world.client(&gate, "one.example.com").await;
    assert_eq!(open.get("/").await.header("x-backend"), "one");
    let before = gate.reload().await;
    gate.replace(
        "meshgate.yaml",
        gate.setup().yaml().replace("One.example.com: one", "One.example.com: two"),
    );
    gate.reloaded(&before).await;
    assert_eq!(world.client(&gate, "one.example.com").await.get("/").await.header("x-backend"), "two");
    assert_eq!(
        open.get("/").await.header("x-backend"),
        "one",
        "a connection lives on with what it began with"
    );
}
