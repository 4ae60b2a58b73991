//! Clients' certificates: who is let in, what filters and endpoints learn of them, and what their requests may ask for.

use std::time::Duration;

use meshgate_tests::{
    Ask, Authority, Backend, Client, Ended, Issued, Meshgate, Says, Setup, Socket, SocketBackend, TlsClient,
    until,
};

const NAME: &str = "a.example.com";
const SPIFFE: &str = "spiffe://example.org/ns/shop/sa/web";

/// Two authorities, one for servers and one for clients, and a listener that asks for certificates.
struct World {
    servers: Authority,
    clients: Authority,
    client: Issued,
}

impl World {
    fn new() -> World {
        let clients = Authority::new();
        let client = clients.issue(&Says::uri(SPIFFE).and_name("web.shop"));
        World { servers: Authority::new(), clients, client }
    }

    /// A listener with these keys below `client_certificates`.
    fn asking(&self, keys: &str) -> Setup {
        let tls = format!(
            "tls: {{certificates: [{{certificate: web.pem, key: web.key}}], client_certificates: {{ca: ca.pem{keys}}}}}"
        );
        let server = Says::name(NAME).and_name("b.example.com").and_uri("spiffe://example.org/gateway");
        Meshgate::chain("")
            .listener(&tls)
            .pair("web", &self.servers.issue(&server))
            .file("ca.pem", self.clients.certificate())
    }

    fn with(&self, issued: &Issued) -> TlsClient {
        TlsClient::with_certificate(NAME, &self.servers, issued)
    }

    fn without(&self) -> TlsClient {
        TlsClient::new(NAME, &self.servers)
    }
}

#[tokio::test]
async fn required_certificates_are_required_and_checked() {
    let world = World::new();
    let backend = Backend::echo("one").await;
    let gate = world.asking("").cluster("one", &[&backend]).start().await;
    let address = gate.address();
    assert_eq!(world.with(&world.client).http1(address).await.get("/").await.status, 200);
    assert_eq!(world.with(&world.client).http2(address).await.get("/").await.status, 200);

    let stranger = Authority::new().issue(&Says::uri(SPIFFE));
    let expired = world.clients.issue(&Says::uri(SPIFFE).expired());
    let said = world.without().refused(address).await;
    assert!(said.contains("CertificateRequired"), "{said}");
    let said = world.with(&stranger).refused(address).await;
    assert!(said.contains("UnknownCA"), "{said}");
    let said = world.with(&expired).refused(address).await;
    assert!(said.contains("CertificateExpired"), "{said}");
    for issued in [None, Some(&stranger), Some(&expired)] {
        TlsClient::tls12(NAME, &world.servers, issued).refused(address).await;
    }
    assert_eq!(backend.requests(), 2);
    // The client may hear of it before it is counted.
    until("six failures are counted", || async {
        let failed = gate.metrics().await.sum("meshgate_downstream_tls_handshakes_failed_total", &[]);
        (failed == 6.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn optional_certificates_must_be_good_if_there_are_any() {
    let world = World::new();
    let backend = Backend::echo("one").await;
    let gate = world.asking(", mode: optional").cluster("one", &[&backend]).start().await;
    assert_eq!(world.without().http1(gate.address()).await.get("/").await.status, 200);
    assert_eq!(world.with(&world.client).http1(gate.address()).await.get("/").await.status, 200);
    let stranger = Authority::new().issue(&Says::uri(SPIFFE));
    world.with(&stranger).refused(gate.address()).await;
}

#[tokio::test]
async fn with_mode_none_nobody_is_asked() {
    let world = World::new();
    let backend = Backend::echo("one").await;
    let gate = world.asking(", mode: none").cluster("one", &[&backend]).start().await;
    let stranger = Authority::new().issue(&Says::uri(SPIFFE));
    assert_eq!(world.with(&stranger).http1(gate.address()).await.get("/").await.status, 200);
}

#[tokio::test]
async fn only_accepted_identities_are_let_in() {
    let world = World::new();
    let backend = Backend::echo("one").await;
    let identities = ", identities: [\"spiffe://example.org/ns/shop/*\", \"spiffe://other.org\"]";
    let gate = world.asking(identities).cluster("one", &[&backend]).start().await;
    let issue = |uri: &str| world.clients.issue(&Says::uri(uri));
    for uri in [SPIFFE, "spiffe://example.org/ns/shop/x", "spiffe://other.org/y"] {
        assert_eq!(world.with(&issue(uri)).http1(gate.address()).await.get("/").await.status, 200, "{uri}");
    }
    for uri in [
        "spiffe://example.org/ns/shopping/x",
        "spiffe://example.org/ns/shop",
        "https://other.org/y",
        "spiffe://third.org/y",
    ] {
        world.with(&issue(uri)).refused(gate.address()).await;
    }
    // Two IDs are none, and a name is none, either.
    world
        .with(&world.clients.issue(&Says::uri(SPIFFE).and_uri("spiffe://other.org/y")))
        .refused(gate.address())
        .await;
    world.with(&world.clients.issue(&Says::name("web.shop"))).refused(gate.address()).await;
}

#[tokio::test]
async fn filters_learn_who_is_there() {
    let world = World::new();
    let backend = Backend::echo("one").await;
    let chain = "- plain: {properties: {x-mtls: connection/mtls, x-name: connection/requested_server_name, \
                 x-version: connection/tls_version, x-subject: connection/subject_peer_certificate, \
                 x-uri: connection/uri_san_peer_certificate, x-dns: connection/dns_san_peer_certificate, \
                 x-local: connection/uri_san_local_certificate, x-local-subject: connection/subject_local_certificate, \
                 x-hash: connection/sha256_peer_certificate_digest, x-pem: connection/peer_certificate}}";
    let gate =
        world.asking("").with_chain(chain).guest("plain", "").cluster("one", &[&backend]).start().await;
    let reply = world.with(&world.client).http1(gate.address()).await.get("/").await;
    assert_eq!(reply.header("x-mtls"), "01");
    assert_eq!(reply.header("x-name"), NAME);
    assert_eq!(reply.header("x-version"), "TLSv1.3");
    assert_eq!(reply.header("x-subject"), "CN=web.shop,O=Test\\, Inc.");
    assert_eq!(reply.header("x-uri"), SPIFFE);
    assert_eq!(reply.header("x-dns"), "web.shop");
    assert_eq!(reply.header("x-local"), "spiffe://example.org/gateway");
    assert_eq!(reply.header("x-local-subject"), format!("CN={NAME},O=Test\\, Inc."));
    assert_eq!(reply.header("x-hash"), world.client.sha256());
    assert_eq!(reply.header("x-pem"), world.client.url_encoded());
}

#[tokio::test]
async fn a_session_ends_when_the_trust_changes() {
    let world = World::new();
    let backend = Backend::echo("one").await;
    let gate = world.asking("").cluster("one", &[&backend]).start().await;
    for client in [world.with(&world.client), TlsClient::tls12(NAME, &world.servers, Some(&world.client))] {
        let client = client.alpn(&["http/1.1"]);
        let get = async |resumed: bool| {
            let secured = client.connect(gate.address()).await;
            assert_eq!(secured.resumed(), resumed);
            assert_eq!(secured.http().await.get("/").await.status, 200);
        };
        get(false).await;
        get(true).await;
        // Another certificate of our own changes nothing.
        let before = gate.reload().await;
        let renewed = world.servers.issue(&Says::name(NAME));
        gate.replace("web.pem", &renewed.certificate);
        gate.replace("web.key", &renewed.key);
        gate.reloaded(&before).await;
        get(true).await;
        // Somebody more is trusted: the session is over, and its client is let in anew.
        let before = gate.reload().await;
        let both = world.clients.certificate() + &Authority::new().certificate();
        gate.replace("ca.pem", both);
        gate.reloaded(&before).await;
        get(false).await;
        get(true).await;
        let before = gate.reload().await;
        gate.replace("ca.pem", world.clients.certificate());
        gate.reloaded(&before).await;
    }
    // The client's own authority is trusted no more: its session does not help it.
    let client = world.with(&world.client).alpn(&["http/1.1"]);
    assert_eq!(client.connect(gate.address()).await.http().await.get("/").await.status, 200);
    let before = gate.reload().await;
    gate.replace("ca.pem", Authority::new().certificate());
    gate.reloaded(&before).await;
    client.refused(gate.address()).await;
}

#[tokio::test]
async fn a_session_ends_with_its_clients_certificate() {
    let world = World::new();
    let backend = Backend::echo("one").await;
    let gate = world.asking("").cluster("one", &[&backend]).start().await;
    let brief = world.clients.issue(&Says::uri(SPIFFE).valid_for(Duration::from_secs(4)));
    let issued = std::time::Instant::now();
    let client = world.with(&brief).alpn(&["http/1.1"]);
    assert_eq!(client.connect(gate.address()).await.http().await.get("/").await.status, 200);
    // The certificate's own clock counts in seconds.
    tokio::time::sleep(Duration::from_secs(6).saturating_sub(issued.elapsed())).await;
    client.refused(gate.address()).await;
}

#[tokio::test]
async fn requests_must_be_for_the_name_of_the_handshake() {
    let world = World::new();
    let backend = Backend::echo("one").await;
    let gate = world.asking(", mode: optional").cluster("one", &[&backend]).start().await;
    let client = world.with(&world.client);
    for http2 in [false, true] {
        let connect = async |client: &TlsClient| match http2 {
            true => client.http2(gate.address()).await,
            false => client.http1(gate.address()).await,
        };
        let ask = async |client: &TlsClient, authority: &str| {
            connect(client).await.authority(authority).get("/").await.status.as_u16()
        };
        for (authority, status) in [
            (NAME, 200),
            ("A.Example.com:8443", 200),
            ("a.example.com.", 200),
            ("b.example.com", 421),
            ("localhost", 421),
        ] {
            assert_eq!(ask(&client, authority).await, status, "{authority}, {http2}");
        }
        // Who shows no certificate is not let in by one; and without a name there is nothing to go by.
        assert_eq!(ask(&world.without(), "b.example.com").await, 200);
        assert_eq!(ask(&client.clone().nameless(&world.servers), "b.example.com").await, 200);
    }
    let entry = until("an entry", || async {
        gate.access_log().into_iter().find(|entry| entry["response_code"] == 421)
    })
    .await;
    assert_eq!(entry["response_flags"], "DPE");

    let gate = world.asking(", match_authority: false").cluster("one", &[&backend]).start().await;
    let mut other = client.http1(gate.address()).await.authority("b.example.com");
    assert_eq!(other.get("/").await.status, 200);
}

#[tokio::test]
async fn what_endpoints_are_told_of_a_certificate() {
    let world = World::new();
    let backend = Backend::echo("one").await;
    let hash = world.client.sha256();
    let own = format!(
        "By=spiffe://example.org/gateway;Hash={hash};Subject=\"CN=web.shop,O=Test\\, Inc.\";URI={SPIFFE};DNS=web.shop"
    );
    let brief =
        format!("By=spiffe://example.org/gateway;Hash={hash};Cert=\"{}\"", world.client.url_encoded());
    for (keys, expected) in [
        ("", None),
        (", forward: sanitize", None),
        (", forward: forward", Some("Hash=0;URI=x,Hash=1".to_owned())),
        (", forward: append", Some(format!("Hash=0;URI=x,Hash=1,{own}"))),
        (", forward: set", Some(own.clone())),
        (", forward: set, forward_details: [cert]", Some(brief)),
    ] {
        let gate = world.asking(&format!(", mode: optional{keys}")).cluster("one", &[&backend]).start().await;
        let ask = || {
            let ask = Ask::get("/").header("x-forwarded-client-cert", "Hash=0;URI=x");
            ask.header("x-forwarded-client-cert", "Hash=1")
        };
        let reply = world.with(&world.client).http1(gate.address()).await.call(ask()).await;
        let told = reply.json()["headers"]["x-forwarded-client-cert"].as_str().map(str::to_owned);
        assert_eq!(told, expected, "{keys}");
        // Nobody is believed who shows nothing.
        let reply = world.without().http1(gate.address()).await.call(ask()).await;
        assert!(reply.json()["headers"]["x-forwarded-client-cert"].is_null(), "{keys}");
    }
}

#[tokio::test]
async fn strict_and_permissive() {
    let world = World::new();
    let backend = Backend::echo("one").await;
    let gate = world.asking("").listener("mtls: strict").cluster("one", &[&backend]).start().await;
    assert_eq!(world.with(&world.client).http1(gate.address()).await.get("/").await.status, 200);
    world.without().refused(gate.address()).await;
    let mut plain = Socket::connect(gate.address()).await;
    plain.write("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let ended = plain.end().await;
    assert!(!String::from_utf8_lossy(&ended.bytes).contains("HTTP"), "{ended:?}");

    let setup = world.asking(", forward: append").listener("mtls: permissive").cluster("one", &[&backend]);
    let gate = setup.start().await;
    let reply = world.with(&world.client).http2(gate.address()).await.get("/").await;
    assert_eq!(reply.json()["headers"]["x-forwarded-proto"], "https");
    world.without().refused(gate.address()).await;
    let forged = || Ask::get("/").header("x-forwarded-client-cert", "Hash=0");
    for mut client in [gate.client().await, Client::http2(gate.address()).await] {
        let seen = client.call(forged()).await.json();
        assert_eq!(seen["headers"]["x-forwarded-proto"], "http");
        assert!(seen["headers"]["x-forwarded-client-cert"].is_null());
    }
}

#[tokio::test]
async fn permissive_tcp_takes_no_byte_and_waits_for_none() {
    let world = World::new();
    let backend = SocketBackend::start().await;
    let tls = "tls: {certificates: [{certificate: web.pem, key: web.key}], client_certificates: {ca: ca.pem}, \
               handshake_timeout: 200ms}";
    let setup = Meshgate::chain("").listener("protocol: tcp").listener("mtls: permissive").listener(tls);
    let setup = setup.pair("web", &world.servers.issue(&Says::name(NAME)));
    let setup = setup.file("ca.pem", world.clients.certificate());
    let gate = setup.cluster_of("one", &[backend.address()], "").start().await;

    let mut client = Socket::connect(gate.address()).await;
    client.write("h").await;
    let mut endpoint = backend.accept().await;
    client.write("ello").await;
    endpoint.expect("hello").await;
    drop(client);
    assert_eq!(endpoint.end().await, Ended::in_order(""));

    // The server speaks first.
    let mut client = Socket::connect(gate.address()).await;
    let mut endpoint = backend.accept().await;
    endpoint.write("220 ready\r\n").await;
    client.expect("220 ready\r\n").await;
    drop((client, endpoint));

    use tokio::io::AsyncWriteExt;
    let mut secured = world.with(&world.client).connect(gate.address()).await;
    secured.stream.write_all(b"secret").await.unwrap();
    backend.accept().await.expect("secret").await;
}

#[tokio::test]
async fn connections_that_were_let_in_by_another_trust_leave() {
    let world = World::new();
    let backend = Backend::echo("one").await;
    let gate = world.asking("").top("drain: {spread: 0s}").cluster("one", &[&backend]).start().await;
    let mut client = world.with(&world.client).http1(gate.address()).await;
    assert_eq!(client.get("/").await.header("connection"), "");

    // Another certificate of the listener's own, or another chain, is no reason.
    let before = gate.reload().await;
    let server = world.servers.issue(&Says::name(NAME));
    gate.replace("web.key", &server.key);
    gate.replace("web.pem", &server.certificate);
    let renewed = gate.reloaded(&before).await;
    assert_eq!(client.get("/").await.header("connection"), "");

    let another = Authority::new();
    gate.replace("ca.pem", another.certificate());
    gate.reloaded(&renewed).await;
    // Its next request is served, and it hears that it has to come again; if it was slow to ask, it is closed.
    match client.try_call(Ask::get("/")).await {
        Ok(reply) => assert_eq!((reply.status.as_u16(), reply.header("connection")), (200, "close")),
        Err(error) => {
            assert!(error.is_closed() || error.is_canceled() || error.is_incomplete_message(), "{error:?}")
        }
    }
    let metrics = gate.metrics().await;
    assert_eq!(metrics.sum("meshgate_downstream_connections_drained_total", &[]), 1.0);
    world.with(&world.client).refused(gate.address()).await;
    let issued = another.issue(&Says::uri(SPIFFE));
    assert_eq!(world.with(&issued).http1(gate.address()).await.get("/").await.status, 200);
}
