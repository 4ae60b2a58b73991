//! TLS listeners: the certificate by the name a client asks for, protocols, versions, resumption, and handshakes that come
//! to nothing.

use std::time::Duration;

use meshgate_tests::{
    Ask, Authority, Backend, Issued, Meshgate, Says, Setup, Socket, SocketBackend, TlsClient, run, until,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

const ONE: &str = "tls: {certificates: [{certificate: web.pem, key: web.key}]}";

/// A proxy whose listener shows one certificate, for `a.example.com`.
fn one(authority: &Authority) -> (Setup, Issued) {
    let issued = authority.issue(&Says::name("a.example.com"));
    (Meshgate::chain("").listener(ONE).pair("web", &issued), issued)
}

#[tokio::test]
async fn the_name_decides_the_certificate() {
    let authority = Authority::new();
    let first = authority.issue(&Says::name("a.example.com").and_name("b.example.com"));
    let wild = authority.issue(&Says::name("*.example.com"));
    let given = authority.issue(&Says::name("x.test"));
    let tls = "tls: {certificates: [{certificate: first.pem, key: first.key}, {certificate: wild.pem, key: wild.key}, \
               {certificate: given.pem, key: given.key, names: [Given.example.com, \"*.deep.example.com\"]}]}";
    let backend = Backend::echo("one").await;
    let setup = Meshgate::chain("").listener(tls).pair("first", &first).pair("wild", &wild);
    let gate = setup.pair("given", &given).cluster("one", &[&backend]).start().await;
    for (name, expected) in [
        ("a.example.com", &first),
        ("b.example.com", &first),
        ("B.Example.COM", &first),
        ("c.example.com", &wild),
        ("given.example.com", &given),
        ("x.deep.example.com", &given),
        ("x.y.example.com", &first),
        ("example.com", &first),
        ("elsewhere.test", &first),
    ] {
        let client = TlsClient::new(name, &authority).any_name(&authority);
        assert!(client.connect(gate.address()).await.shows(expected), "{name}");
    }
    let nameless = TlsClient::new("a.example.com", &authority).nameless(&authority);
    assert!(nameless.connect(gate.address()).await.shows(&first));
}

#[tokio::test]
async fn unknown_names_may_be_refused() {
    let authority = Authority::new();
    let issued = authority.issue(&Says::name("a.example.com"));
    let backend = Backend::echo("one").await;
    let tls = "tls: {certificates: [{certificate: web.pem, key: web.key}], unknown_names: refuse}";
    let setup = Meshgate::chain("").listener(tls).pair("web", &issued);
    let gate = setup.cluster("one", &[&backend]).start().await;
    assert_eq!(
        TlsClient::new("a.example.com", &authority).http1(gate.address()).await.get("/").await.status,
        200
    );
    TlsClient::new("b.example.com", &authority).any_name(&authority).refused(gate.address()).await;
    TlsClient::new("a.example.com", &authority).nameless(&authority).refused(gate.address()).await;
    let metrics = gate.metrics().await;
    assert_eq!(metrics.sum("meshgate_downstream_tls_handshakes_failed_total", &[("listener", "web")]), 2.0);
    assert_eq!(metrics.sum("meshgate_downstream_tls_handshakes_total", &[("listener", "web")]), 1.0);
}

#[tokio::test]
async fn http_of_both_versions_by_alpn() {
    let authority = Authority::new();
    let backend = Backend::echo("one").await;
    let (setup, _) = one(&authority);
    let gate = setup.cluster("one", &[&backend]).start().await;
    let client = TlsClient::new("a.example.com", &authority);
    for (offered, settled) in [
        (&["h2", "http/1.1"][..], "h2"),
        (&["http/1.1", "h2"], "h2"),
        (&["http/1.1"], "http/1.1"),
        (&["x", "http/1.1"], "http/1.1"),
        (&[], ""),
    ] {
        let secured = client.clone().alpn(offered).connect(gate.address()).await;
        assert_eq!(secured.protocol(), settled, "{offered:?}");
        let reply = secured.http().await.call(Ask::post("/", "hello")).await;
        assert_eq!(reply.status, 200, "{offered:?}");
        let seen = reply.json();
        assert_eq!(seen["body"], "hello");
        assert_eq!(seen["headers"]["x-forwarded-proto"], "https");
        assert_eq!(seen["headers"]["host"], "a.example.com");
    }
    client.alpn(&["x"]).refused(gate.address()).await;
}

#[tokio::test]
async fn versions_that_are_not_offered_are_refused() {
    let authority = Authority::new();
    let issued = authority.issue(&Says::name("a.example.com"));
    let backend = Backend::echo("one").await;
    let new = TlsClient::new("a.example.com", &authority);
    let old = TlsClient::tls12("a.example.com", &authority, None);
    for (more, new_version, old_is_good) in [
        ("", "TLSv1_3", true),
        (", min_version: tls1.3", "TLSv1_3", false),
        (", max_version: tls1.2", "TLSv1_2", true),
    ] {
        let tls = format!("tls: {{certificates: [{{certificate: web.pem, key: web.key}}]{more}}}");
        let setup = Meshgate::chain("").listener(&tls).pair("web", &issued);
        let gate = setup.cluster("one", &[&backend]).start().await;
        assert_eq!(new.connect(gate.address()).await.version(), new_version, "{more}");
        if old_is_good {
            assert_eq!(old.connect(gate.address()).await.version(), "TLSv1_2", "{more}");
        } else {
            old.refused(gate.address()).await;
        }
    }
}

#[tokio::test]
async fn curl_gets_its_answer() {
    let authority = Authority::new();
    let backend = Backend::echo("one").await;
    let (setup, _) = one(&authority);
    let setup = setup.file("ca.pem", authority.certificate());
    let gate = setup.cluster("one", &[&backend]).start().await;
    for (option, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let port = gate.address().port();
        let mut curl = Command::new("curl");
        curl.args(["-sS", option, "-o", "/dev/null", "-w", "%{http_code} %{http_version}", "--cacert"]);
        curl.arg(gate.path("ca.pem")).arg("--resolve").arg(format!("a.example.com:{port}:127.0.0.1"));
        curl.arg(format!("https://a.example.com:{port}/"));
        let finished = run(curl).await;
        assert_eq!(finished.stdout, format!("200 {version}"), "{option}: {finished:?}");
    }
}

#[tokio::test]
async fn bodies_pass_whole_in_both_directions() {
    let authority = Authority::new();
    let backend = Backend::echo("one").await;
    let (setup, _) = one(&authority);
    let gate = setup.cluster("one", &[&backend]).start().await;
    let client = TlsClient::new("a.example.com", &authority);
    let body = vec![b'x'; 3_000_000];
    for mut client in [client.http1(gate.address()).await, client.http2(gate.address()).await] {
        for _ in 0..3 {
            let reply = client.call(Ask::post("/", body.clone())).await;
            assert_eq!(reply.json()["length"], 3_000_000);
            // The backend gives the body back.
            assert!(reply.body.len() > 3_000_000);
        }
    }
}

#[tokio::test]
async fn sessions_are_taken_up_again_after_a_reload_too() {
    let authority = Authority::new();
    let backend = Backend::echo("one").await;
    let (setup, _) = one(&authority);
    let gate = setup.cluster("one", &[&backend]).start().await;
    let client = TlsClient::new("a.example.com", &authority);
    let get = async |resumed: bool| {
        let secured = client.clone().alpn(&["http/1.1"]).connect(gate.address()).await;
        assert_eq!(secured.resumed(), resumed);
        // Tickets of TLS 1.3 come with the first response.
        assert_eq!(secured.http().await.get("/").await.status, 200);
    };
    get(false).await;
    get(true).await;
    let before = gate.reload().await;
    gate.edit("meshgate.yaml", gate.setup().yaml().replace("workers: 1", "workers: 1\nnode: {id: other}"));
    gate.reloaded(&before).await;
    get(true).await;
    let metrics = gate.metrics().await;
    assert_eq!(metrics.sum("meshgate_downstream_tls_handshakes_resumed_total", &[("listener", "web")]), 2.0);
    let old = TlsClient::tls12("a.example.com", &authority, None);
    let http1 = old.alpn(&["http/1.1"]);
    assert!(!http1.connect(gate.address()).await.resumed());
    assert!(http1.connect(gate.address()).await.resumed());
}

#[tokio::test]
async fn tcp_through_tls() {
    let authority = Authority::new();
    let issued = authority.issue(&Says::name("a.example.com"));
    let backend = SocketBackend::start().await;
    let setup = Meshgate::chain("").listener("protocol: tcp").listener(ONE).pair("web", &issued);
    let gate = setup.cluster_of("one", &[backend.address()], "").start().await;
    let client = TlsClient::new("a.example.com", &authority);
    let mut secured = client.connect(gate.address()).await;
    assert_eq!(secured.protocol(), "");
    let mut endpoint = backend.accept().await;
    secured.stream.write_all(b"question").await.unwrap();
    endpoint.expect("question").await;
    endpoint.write("answer").await;
    let mut answer = [0; 6];
    secured.stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"answer");
    // The end of one direction is passed on as such.
    secured.stream.shutdown().await.unwrap();
    assert_eq!(endpoint.end().await, meshgate_tests::Ended::in_order(""));
    endpoint.write("last words").await;
    drop(endpoint);
    let mut rest = Vec::new();
    secured.stream.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"last words");
}

#[tokio::test]
async fn what_ends_without_a_word_of_tls_is_not_taken_for_whole() {
    let authority = Authority::new();
    let issued = authority.issue(&Says::name("a.example.com"));
    let backend = SocketBackend::start().await;
    let setup = Meshgate::chain("").listener("protocol: tcp").listener(ONE).pair("web", &issued);
    let gate = setup.cluster_of("one", &[backend.address()], "").start().await;
    let mut secured = TlsClient::new("a.example.com", &authority).connect(gate.address()).await;
    let mut endpoint = backend.accept().await;
    secured.stream.write_all(b"half of it").await.unwrap();
    endpoint.expect("half of it").await;
    // As somebody on the way can do it: the socket ends, TLS does not.
    secured.stream.get_mut().0.shutdown().await.unwrap();
    assert!(endpoint.end().await.reset);
}

#[tokio::test]
async fn slow_and_senseless_handshakes_end_in_time_and_harm_nobody() {
    let authority = Authority::new();
    let backend = Backend::echo("one").await;
    let issued = authority.issue(&Says::name("a.example.com"));
    let tls = "tls: {certificates: [{certificate: web.pem, key: web.key}], handshake_timeout: 300ms}";
    let setup = Meshgate::chain("").listener(tls).pair("web", &issued);
    let gate = setup.cluster("one", &[&backend]).start().await;
    let count = async |name: &str| {
        gate.metrics().await.sum(&format!("meshgate_downstream_tls_handshakes_{name}_total"), &[])
    };

    // The beginning of a record, and then nothing; and nothing at all.
    let mut slow = Socket::connect(gate.address()).await;
    slow.write([0x16, 3, 1]).await;
    let mut silent = Socket::connect(gate.address()).await;
    let good = TlsClient::new("a.example.com", &authority);
    assert_eq!(good.http1(gate.address()).await.get("/").await.status, 200);
    slow.end().await;
    silent.end().await;
    assert_eq!(count("timed_out").await, 2.0);

    for garbage in [
        &b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"[..],
        &[0x16, 3, 1, 0xff, 0xff],
        &[0x16, 3, 1, 0, 4, 1, 0, 0, 0],
        &[0xff; 600],
    ] {
        let before = count("failed").await;
        let mut socket = Socket::connect(gate.address()).await;
        socket.write(garbage).await;
        socket.finish().await;
        socket.end().await;
        assert_eq!(count("failed").await, before + 1.0, "{garbage:?}");
    }
    assert_eq!(good.http2(gate.address()).await.get("/").await.status, 200);
}

#[tokio::test]
async fn of_too_many_handshakes_the_oldest_is_given_up() {
    let authority = Authority::new();
    let backend = Backend::echo("one").await;
    let issued = authority.issue(&Says::name("a.example.com"));
    let tls = "tls: {certificates: [{certificate: web.pem, key: web.key}], handshake_timeout: 60s, max_handshakes: 2}";
    let setup = Meshgate::chain("").listener(tls).pair("web", &issued);
    let gate = setup.cluster("one", &[&backend]).start().await;
    let good = TlsClient::new("a.example.com", &authority);
    // Connections that are through do not count.
    let mut through = good.http1(gate.address()).await;
    let mut oldest = Socket::connect(gate.address()).await;
    until("the first is accepted", || async {
        let metrics = gate.metrics().await;
        (metrics.sum("meshgate_downstream_connections_active", &[]) == 2.0).then_some(())
    })
    .await;
    let others = [Socket::connect(gate.address()).await, Socket::connect(gate.address()).await];
    oldest.end().await;
    assert_eq!(gate.metrics().await.sum("meshgate_downstream_tls_handshakes_timed_out_total", &[]), 1.0);
    assert_eq!(good.http1(gate.address()).await.get("/").await.status, 200);
    assert_eq!(through.get("/").await.status, 200);
    drop(others);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_left() {
    let authority = Authority::new();
    let backend = Backend::answering("one", |_, _| async {
        Ok(http::Response::new(meshgate_tests::full(vec![b'x'; 64 << 20])))
    })
    .await;
    let (setup, _) = one(&authority);
    let gate = setup.listener("idle_timeout: 300ms").cluster("one", &[&backend]).start().await;
    let mut secured = TlsClient::new("a.example.com", &authority).connect(gate.address()).await;
    secured.stream.write_all(b"GET / HTTP/1.1\r\nhost: a.example.com\r\n\r\n").await.unwrap();
    until("the connection is closed", || async {
        let metrics = gate.metrics().await;
        (metrics.sum("meshgate_downstream_connections_timed_out_total", &[]) == 1.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_drain_finishes_what_came_through_tls() {
    let authority = Authority::new();
    let backend = Backend::answering("one", |_, _| async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        Ok(http::Response::new(meshgate_tests::full("late")))
    })
    .await;
    let (setup, _) = one(&authority);
    let gate = setup.cluster("one", &[&backend]).start().await;
    let client = TlsClient::new("a.example.com", &authority);
    let (mut http1, mut http2) = (client.http1(gate.address()).await, client.http2(gate.address()).await);
    let replies = tokio::spawn(async move { tokio::join!(http1.get("/1"), http2.get("/2")) });
    backend.wait_for_requests(2).await;
    gate.stop().await;
    let (one, two) = replies.await.unwrap();
    assert_eq!((one.text(), two.text()), ("late".to_owned(), "late".to_owned()));
}
