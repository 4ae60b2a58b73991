//! TLS to endpoints: whom the proxy believes, what it shows them, and what becomes of requests when the two do not agree.

use std::net::SocketAddr;

use meshgate_tests::{
    Ask, Authority, Backend, Client, Ended, Issued, Meshgate, Says, Setup, Socket, SocketBackend, TlsFront,
    until,
};

const NAME: &str = "api.example.com";
const SPIFFE: &str = "spiffe://example.org/ns/api/sa/server";

/// A proxy with one cluster, of these keys beside those below `tls`, that believes this authority.
fn to(address: SocketAddr, authority: &Authority, tls: &str, more: &str) -> Setup {
    let keys = format!("tls: {{ca: ca.pem{tls}}}{more}");
    Meshgate::chain("").cluster_of("one", &[address], &keys).file("ca.pem", authority.certificate())
}

const BY_NAME: &str = ", server_name: api.example.com";

/// The status of a request that no endpoint answers, its details and its failure in the access log.
async fn failure(setup: Setup) -> (u16, String, String, meshgate_tests::Metrics) {
    let gate = setup.start().await;
    let status = gate.get("/x").await.status.as_u16();
    let entry = gate.access("/x").await;
    assert_eq!(entry["response_flags"], "UF");
    let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    (status, text("response_code_details"), text("upstream_failure"), gate.metrics().await)
}

#[tokio::test]
async fn requests_go_through_tls_over_both_versions() {
    let authority = Authority::new();
    let issued = authority.issue(&Says::name(NAME).and_uri(SPIFFE));
    let (http1, http2) = (Backend::echo("one").await, Backend::http2_echo("two").await);
    for (backend, protocol, alpn) in [(&http1, "http1", "http/1.1"), (&http2, "http2", "h2")] {
        let front = TlsFront::to(backend.address(), &issued).alpn(&["h2", "http/1.1"]).start().await;
        let more = format!(", protocol: {protocol}");
        let chain = "- plain: {properties: {x-version: upstream/tls_version, x-uri: upstream/uri_san_peer_certificate, \
                     x-dns: upstream/dns_san_peer_certificate, x-subject: upstream/subject_peer_certificate, \
                     x-hash: upstream/sha256_peer_certificate_digest}}";
        let setup = to(front.address(), &authority, BY_NAME, &more).with_chain(chain).guest("plain", "");
        let gate = setup.start().await;
        let mut client = gate.client().await;
        for _ in 0..3 {
            let reply = client.call(Ask::post("/", vec![b'x'; 1_000_000])).await;
            assert_eq!(
                (reply.status.as_u16(), &reply.json()["length"]),
                (200, &1_000_000.into()),
                "{protocol}"
            );
            assert_eq!(reply.header("x-version"), "TLSv1.3");
            assert_eq!(reply.header("x-uri"), SPIFFE);
            assert_eq!(reply.header("x-dns"), NAME);
            assert_eq!(reply.header("x-subject"), format!("CN={NAME},O=Test\\, Inc."));
            assert_eq!(reply.header("x-hash"), issued.sha256());
        }
        let met = front.met();
        assert_eq!(met.len(), 1, "one connection for all: {met:?}");
        assert_eq!((met[0].name.as_str(), met[0].protocol.as_str()), (NAME, alpn));
    }
}

#[tokio::test]
async fn an_endpoint_that_is_not_to_be_believed_is_not_spoken_with() {
    let authority = Authority::new();
    let good = authority.issue(&Says::name(NAME).and_uri(SPIFFE));
    let other_name = authority.issue(&Says::name("other.example.com"));
    let expired = authority.issue(&Says::name(NAME).expired());
    let stranger = Authority::new().issue(&Says::name(NAME));
    let backend = Backend::echo("one").await;
    let other_id = ", identities: [\"spiffe://example.org/ns/web/*\"]";
    for (issued, keys, reason, word) in [
        (&other_name, BY_NAME, "name", "not valid for name"),
        (&expired, BY_NAME, "expired", "expired"),
        (&stranger, BY_NAME, "unknown_authority", "UnknownIssuer"),
        (&good, other_id, "identity", "spiffe://example.org/ns/api/sa/server"),
        (&other_name, other_id, "identity", "SPIFFE ID"),
        (&good, ", server_name: api.example.com, names: [x.example.com]", "name", "not valid for name"),
        // Known by its address, which is not in the certificate.
        (&good, "", "name", "not valid for name"),
    ] {
        let front = TlsFront::to(backend.address(), issued).start().await;
        let (status, details, failure, metrics) = failure(to(front.address(), &authority, keys, "")).await;
        assert_eq!((status, details.as_str()), (503, "upstream_tls_failure"), "{reason}");
        assert!(failure.starts_with("TLS: ") && failure.contains(word), "{reason}: {failure}");
        let labels = [("cluster", "one"), ("reason", reason)];
        assert_eq!(metrics.sum("meshgate_upstream_tls_failures_total", &labels), 1.0, "{}", metrics.text());
    }
    assert_eq!(backend.requests(), 0, "no request left");
}

#[tokio::test]
async fn endpoints_may_be_known_by_address_by_other_names_or_by_id() {
    let authority = Authority::new();
    let issued = authority.issue(&Says::name("127.0.0.1").and_name(NAME).and_uri(SPIFFE));
    let backend = Backend::echo("one").await;
    let front = TlsFront::to(backend.address(), &issued).start().await;
    for (keys, name) in [
        ("", ""),
        (BY_NAME, NAME),
        (", server_name: front.example.com, names: [x.example.com, api.example.com]", "front.example.com"),
        (", identities: [\"spiffe://example.org/ns/api/*\"]", ""),
        (", server_name: any.example.com, identities: [\"spiffe://example.org\"]", "any.example.com"),
    ] {
        let gate = to(front.address(), &authority, keys, "").start().await;
        assert_eq!(gate.get("/").await.status, 200, "{keys}");
        assert_eq!(front.met().last().map(|met| met.name.clone()).as_deref(), Some(name), "{keys}");
    }
}

#[tokio::test]
async fn the_own_certificate_is_shown_to_those_who_ask() {
    let (servers, clients) = (Authority::new(), Authority::new());
    let issued = servers.issue(&Says::name(NAME));
    let own = clients.issue(&Says::uri("spiffe://example.org/gateway"));
    let backend = Backend::echo("one").await;
    let front = TlsFront::to(backend.address(), &issued).asking(&clients).tls12().start().await;
    let keys = format!("{BY_NAME}, certificate: own.pem, key: own.key");
    let gate = to(front.address(), &servers, &keys, "").pair("own", &own).start().await;
    assert_eq!(gate.get("/").await.status, 200);
    assert_eq!(front.met()[0].certificate, own.sha256());

    let (_, details, failure, metrics) = failure(to(front.address(), &servers, BY_NAME, "")).await;
    assert_eq!(details, "upstream_tls_failure", "{failure}");
    assert_eq!(metrics.sum("meshgate_upstream_tls_failures_total", &[("reason", "refused")]), 1.0);
}

#[tokio::test]
async fn http2_has_to_be_agreed_to() {
    let authority = Authority::new();
    let issued = authority.issue(&Says::name(NAME));
    let backend = Backend::http2_echo("one").await;
    let front = TlsFront::to(backend.address(), &issued).start().await;
    let setup = to(front.address(), &authority, BY_NAME, ", protocol: http2");
    let (status, details, failure, _) = failure(setup).await;
    assert_eq!((status, details.as_str()), (503, "upstream_tls_failure"));
    assert!(failure.contains("HTTP/2"), "{failure}");
    assert_eq!(backend.requests(), 0);
}

#[tokio::test]
async fn slow_handshakes_and_what_is_no_tls() {
    let authority = Authority::new();
    let silent = SocketBackend::start().await;
    let setup = to(silent.address(), &authority, ", server_name: a, handshake_timeout: 200ms", "");
    let (status, _, said, metrics) = failure(setup).await;
    assert_eq!(status, 503);
    assert!(said.contains("200ms"), "{said}");
    assert_eq!(metrics.sum("meshgate_upstream_tls_failures_total", &[("reason", "timeout")]), 1.0);

    // The time to connect counts for the handshake, too.
    let setup = to(silent.address(), &authority, ", server_name: a", ", connect_timeout: 200ms");
    let (_, details, _, _) = failure(setup).await;
    assert_eq!(details, "upstream_connect_timeout");

    let plain = Backend::echo("one").await;
    let (status, details, said, _) = failure(to(plain.address(), &authority, ", server_name: a", "")).await;
    assert_eq!((status, details.as_str()), (503, "upstream_tls_failure"), "{said}");
}

#[tokio::test]
async fn tcp_sessions_through_tls_to_the_endpoint() {
    let authority = Authority::new();
    let issued = authority.issue(&Says::name(NAME));
    let backend = SocketBackend::start().await;
    let front = TlsFront::to(backend.address(), &issued).start().await;
    let gate = to(front.address(), &authority, BY_NAME, "").listener("protocol: tcp").start().await;
    let mut client = Socket::connect(gate.address()).await;
    client.write("question").await;
    let mut endpoint = backend.accept().await;
    endpoint.expect("question").await;
    client.finish().await;
    assert_eq!(endpoint.end().await, Ended::in_order(""));
    endpoint.write("answer").await;
    drop(endpoint);
    assert_eq!(client.end().await, Ended::in_order("answer"));
    assert_eq!(front.met()[0].protocol, "");

    let other = Authority::new();
    let gate = to(front.address(), &other, BY_NAME, "").listener("protocol: tcp").start().await;
    assert_eq!(Socket::connect(gate.address()).await.end().await, Ended::in_order(""));
    let entry = until("an entry", || async { gate.access_log().into_iter().next() }).await;
    assert_eq!(entry["response_flags"], "UF");
    assert_eq!(entry["response_code_details"], "upstream_tls_failure");
}

#[tokio::test]
async fn calls_of_filters_go_through_tls() {
    let authority = Authority::new();
    let issued = authority.issue(&Says::name(NAME));
    let backend = Backend::echo("one").await;
    let front = TlsFront::to(backend.address(), &issued).start().await;
    let chain =
        "- plain: {call: {at: request_headers, cluster: one, path: /called, timeout_ms: 5000, then: resume}}";
    let setup = to(front.address(), &authority, BY_NAME, "").with_chain(chain).guest("plain", "");
    let gate = setup.start().await;
    assert_eq!(gate.get("/").await.status, 200);
    assert!(backend.seen().iter().any(|seen| seen.path == "/called"), "{:?}", backend.seen());
}

#[tokio::test]
async fn connections_end_when_the_trust_changes() {
    let (old, new) = (Authority::new(), Authority::new());
    let backend = Backend::echo("one").await;
    let front = TlsFront::to(backend.address(), &old.issue(&Says::name(NAME))).start().await;
    let gate = to(front.address(), &old, BY_NAME, "").start().await;
    let mut client: Client = gate.client().await;
    assert_eq!(client.get("/").await.status, 200);
    assert_eq!(client.get("/").await.status, 200);
    assert_eq!(front.met().len(), 1);

    // Nothing that concerns it changes: the connection stays.
    let before = gate.reload().await;
    gate.edit("meshgate.yaml", gate.setup().yaml().replace("workers: 1", "workers: 1\nnode: {id: other}"));
    let before = gate.reloaded(&before).await;
    assert_eq!(client.get("/").await.status, 200);
    assert_eq!(front.met().len(), 1);

    gate.replace("ca.pem", old.certificate() + &new.certificate());
    let before = gate.reloaded(&before).await;
    assert_eq!(client.get("/").await.status, 200);
    assert_eq!(front.met().len(), 2, "a connection of the new trust");
    assert!(!front.met()[1].resumed);

    gate.replace("ca.pem", new.certificate());
    gate.reloaded(&before).await;
    assert_eq!(client.get("/").await.status, 503);
    backend.wait_until_unused().await;
}

#[tokio::test]
async fn a_renewed_certificate_of_our_own_is_shown_from_then_on() {
    let (servers, clients) = (Authority::new(), Authority::new());
    let issue = || clients.issue(&Says::uri("spiffe://example.org/gateway"));
    let (first, second): (Issued, Issued) = (issue(), issue());
    let backend = Backend::echo("one").await;
    let front =
        TlsFront::to(backend.address(), &servers.issue(&Says::name(NAME))).asking(&clients).start().await;
    let keys = format!("{BY_NAME}, certificate: own.pem, key: own.key");
    let gate = to(front.address(), &servers, &keys, "").pair("own", &first).start().await;
    assert_eq!(gate.get("/").await.status, 200);
    let before = gate.reload().await;
    // Half of it is no pair.
    gate.replace("own.pem", &second.certificate);
    let said = gate.refused().await;
    assert!(said.contains("does not belong to the certificate"), "{said}");
    assert_eq!(gate.get("/").await.status, 200);
    gate.replace("own.key", &second.key);
    gate.reloaded(&before).await;
    assert_eq!(gate.get("/").await.status, 200);
    let shown: Vec<String> = front.met().into_iter().map(|met| met.certificate).collect();
    assert_eq!(shown.last(), Some(&second.sha256()));
    assert!(shown[..shown.len() - 1].iter().all(|certificate| *certificate == first.sha256()));
}

#[tokio::test]
async fn health_checks_go_through_tls() {
    let authority = Authority::new();
    let good = authority.issue(&Says::name(NAME));
    let stranger = Authority::new().issue(&Says::name(NAME));
    let (http1, http2) = (Backend::echo("one").await, Backend::http2_echo("two").await);
    for (backend, protocol, alpn) in [(&http1, "http1", "http/1.1"), (&http2, "http2", "h2")] {
        for (issued, health) in [(&good, "healthy"), (&stranger, "unhealthy")] {
            let front = TlsFront::to(backend.address(), issued).alpn(&["h2", "http/1.1"]).start().await;
            let more =
                format!(", protocol: {protocol}, health_check: {{http: {{path: /health}}, interval: 20ms}}");
            let gate = to(front.address(), &authority, BY_NAME, &more).start().await;
            let shown = || async {
                let endpoint = gate.admin("/clusters").await.json()["clusters"][0]["endpoints"][0].clone();
                (endpoint["health"] == health && endpoint["checks"].as_u64() >= Some(3)).then_some(())
            };
            until(format!("{protocol}: the endpoint is {health}"), shown).await;
            let expected = if health == "healthy" { 200 } else { 503 };
            assert_eq!(gate.get("/").await.status.as_u16(), expected, "{protocol}");
            let met = front.met();
            assert!(met.iter().all(|met| met.name == NAME && met.protocol == alpn), "{met:?}");
        }
        assert!(backend.seen().iter().any(|seen| seen.path == "/health"), "{protocol}");
    }
}
