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
    let gate = setup.listener("write_timeout: 300ms").cluster("one", &[&backend]).start().await;
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

#[tokio::test]
async fn renewed_certificates_are_shown_from_then_on_and_no_request_fails() {
    let authority = Authority::new();
    let backend = Backend::echo("one").await;
    let (setup, first) = one(&authority);
    let gate = setup.workers(2).cluster("one", &[&backend]).start().await;
    let address = gate.address();
    // Connections that stay, and clients that come anew all the time.
    let client = TlsClient::new("a.example.com", &authority);
    let mut lasting = client.http2(address).await;
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let comers: Vec<_> = (0..4)
        .map(|index| {
            let (client, stop) = (client.clone(), stop.clone());
            // Some keep their sessions, some do not.
            let client = if index % 2 == 0 { client.forgetful() } else { client };
            tokio::spawn(async move {
                let mut served = 0;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    assert_eq!(client.http1(address).await.get("/").await.status, 200);
                    served += 1;
                }
                served
            })
        })
        .collect();
    let fresh = client.clone().forgetful();
    let mut running = gate.reload().await;
    let mut shown = first;
    for round in 0..10 {
        assert!(fresh.connect(address).await.shows(&shown), "{round}");
        shown = authority.issue(&Says::name("a.example.com"));
        gate.replace("web.key", &shown.key);
        gate.replace("web.pem", &shown.certificate);
        running = gate.reloaded(&running).await;
        assert_eq!(lasting.get("/").await.status, 200, "{round}");
    }
    assert!(fresh.connect(address).await.shows(&shown));
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for comer in comers {
        assert!(comer.await.unwrap() > 0);
    }
    let metrics = gate.metrics().await;
    assert_eq!(metrics.sum("meshgate_downstream_tls_handshakes_failed_total", &[]), 0.0);
    assert_eq!(metrics.sum("meshgate_downstream_tls_handshakes_timed_out_total", &[]), 0.0);
}

/// Has `..data` lead to another folder, as Kubernetes does when a mounted Secret changes.
fn swap(gate: &Meshgate, folder: &str) {
    std::os::unix::fs::symlink(folder, gate.path("..data_tmp")).unwrap();
    std::fs::rename(gate.path("..data_tmp"), gate.path("..data")).unwrap();
}

#[tokio::test]
async fn certificates_behind_a_swapped_link_are_taken_at_once_and_by_themselves() {
    let authority = Authority::new();
    let [first, second, third] = [(); 3].map(|()| authority.issue(&Says::name("a.example.com")));
    let mixed = Issued { certificate: third.certificate.clone(), key: second.key.clone() };
    let backend = Backend::echo("one").await;
    let gate = Meshgate::chain("")
        .listener(ONE)
        .pair("..1/web", &first)
        .pair("..2/web", &second)
        .pair("..mixed/web", &mixed)
        .pair("..3/web", &third)
        .link("..data", "..1")
        .link("web.pem", "..data/web.pem")
        .link("web.key", "..data/web.key")
        .cluster("one", &[&backend])
        .start()
        .await;
    let client = TlsClient::new("a.example.com", &authority);
    let mut lasting = client.http2(gate.address()).await;
    let fresh = client.forgetful();
    let until_shown = async |issued: &Issued| {
        until("new connections get it", || async {
            fresh.connect(gate.address()).await.shows(issued).then_some(())
        })
        .await;
    };
    // Each time as a renewal, not with the whole configuration.
    let until_renewed = async |times: usize| {
        until(format!("renewed {times} times"), || async {
            let lines = gate.log().all();
            (lines.iter().filter(|line| line.contains("certificates renewed")).count() >= times).then_some(())
        })
        .await;
    };
    assert!(fresh.connect(gate.address()).await.shows(&first));
    swap(&gate, "..2");
    until_shown(&second).await;
    until_renewed(1).await;
    assert_eq!(lasting.get("/").await.status, 200);

    swap(&gate, "..mixed");
    let said = gate.refused().await;
    assert!(said.contains("does not belong to the certificate"), "{said}");
    assert!(fresh.connect(gate.address()).await.shows(&second), "what is no pair is not taken");

    swap(&gate, "..3");
    until_shown(&third).await;
    until_renewed(2).await;
    gate.reload_until("nothing is wrong any more", |reload| reload.errors.is_none()).await;
    assert_eq!(lasting.get("/").await.status, 200, "a connection that was there lives on");
}

#[tokio::test]
async fn what_is_no_good_pair_is_refused_with_its_place_and_kept_out() {
    let authority = Authority::new();
    let backend = Backend::echo("one").await;
    let (setup, issued) = one(&authority);
    let gate = setup.cluster("one", &[&backend]).start().await;
    let place = gate.setup().place("certificates");
    let other = authority.issue(&Says::name("a.example.com"));
    let half = &issued.certificate[..issued.certificate.len() / 2];
    let sealed = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    for (file, content, reason) in [
        ("web.key", other.key.as_str(), "does not belong to the certificate"),
        ("web.key", "", "holds no private key"),
        ("web.key", sealed, "encrypted"),
        ("web.key", issued.certificate.as_str(), "holds no private key"),
        ("web.pem", half, "is not whole PEM"),
        ("web.pem", issued.key.as_str(), "holds no certificate"),
        ("web.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "is broken"),
    ] {
        gate.replace(file, content);
        let refused = |reload: &meshgate_tests::Reload| {
            reload.errors.as_ref().is_some_and(|said| said.contains(reason))
        };
        let reload = gate.reload_until(reason, refused).await;
        let said = reload.errors.unwrap();
        assert!(said.contains(&place), "{said}");
        assert!(!said.contains(&other.key[40..80]) && !said.contains(&issued.key[40..80]), "{said}");
        let secured = TlsClient::new("a.example.com", &authority).connect(gate.address()).await;
        assert!(secured.shows(&issued), "{reason}");
        let good = if file == "web.key" { &issued.key } else { &issued.certificate };
        gate.replace(file, good);
        gate.reload_until("it is good again", |reload| reload.errors.is_none()).await;
    }
    std::fs::remove_file(gate.path("web.key")).unwrap();
    let said = gate.refused().await;
    assert!(said.contains("cannot read web.key: No such file"), "{said}");
}

#[tokio::test]
async fn certificates_and_their_ends_are_shown_and_keys_are_not() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let day = Duration::from_secs(24 * 3600);
    let issued =
        authority.issue(&Says::name("a.example.com").and_uri("spiffe://example.org/web").valid_for(5 * day));
    let tls =
        "tls: {certificates: [{certificate: web.pem, key: web.key}], client_certificates: {ca: ca.pem}}";
    let backend = Backend::echo("one").await;
    let setup = Meshgate::chain("").listener(tls).pair("web", &issued).file("ca.pem", clients.certificate());
    let more = "tls: {ca: ca.pem, server_name: x}";
    let gate = setup.cluster_of("one", &[backend.address()], more).start().await;
    let page = gate.admin("/certificates").await.json();
    let certificates = page["certificates"].as_array().unwrap();
    assert_eq!(certificates.len(), 2, "{page:#}");
    let own = certificates.iter().find(|one| one["role"] == "certificate").unwrap();
    assert_eq!(own["sha256"], issued.sha256());
    assert_eq!(own["file"], "web.pem");
    assert_eq!(
        (&own["dns_names"][0], &own["uris"][0]),
        (&"a.example.com".into(), &"spiffe://example.org/web".into())
    );
    assert_eq!((&own["standing"], &own["used_by"][0]), (&"expires soon".into(), &"listener web".into()));
    assert!(!own["serial"].as_str().unwrap().is_empty());
    let ca = certificates.iter().find(|one| one["role"] == "ca").unwrap();
    assert_eq!(ca["used_by"], serde_json::json!(["listener web", "cluster one"]));

    let name = "meshgate_certificate_expiry_timestamp_seconds";
    let end = gate.metrics().await.sum(name, &[("file", "web.pem"), ("used_by", "listener web")]);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((end - now - (5 * day).as_secs_f64()).abs() < 600.0, "{end}");
    gate.log().wait("a warning", |line| line.contains("certificate expires soon").then_some(())).await;

    let secret = &issued.key.lines().nth(1).unwrap()[..40];
    for path in ["/certificates", "/config", "/metrics", "/reload"] {
        let text = gate.admin(path).await.text();
        assert!(!text.contains(secret) && !text.contains("PRIVATE KEY"), "{path}");
    }
    assert!(gate.admin("/config").await.text().contains("web.key"));
    let stopped = gate.stop().await;
    assert!(!stopped.log.join("\n").contains(secret));
}

#[tokio::test]
async fn the_log_warns_of_certificates_as_long_before_as_the_file_says() {
    let authority = Authority::new();
    let issue = |name: &str, hours: u64| {
        authority.issue(&Says::name(name).valid_for(Duration::from_secs(hours * 3600)))
    };
    let (soon, later) = (issue("a.example.com", 24), issue("b.example.com", 10 * 24));
    let tls = "tls: {certificates: [{certificate: soon.pem, key: soon.key}, {certificate: later.pem, key: later.key}]}";
    let backend = Backend::echo("one").await;
    for (key, warned) in [
        ("", &["soon.pem", "later.pem"][..]),
        ("expiry_warnings: [1h, 720h]", &["soon.pem", "later.pem"]),
        ("expiry_warnings: [72h, 48h]", &["soon.pem"]),
        ("expiry_warnings: [1h]", &[]),
        ("expiry_warnings: []", &[]),
    ] {
        let setup = Meshgate::chain("").listener(tls).top(key).pair("soon", &soon).pair("later", &later);
        let gate = setup.cluster("one", &[&backend]).start().await;
        let warns_of =
            |line: &str, file: &str| line.contains("certificate expires soon") && line.contains(file);
        for file in warned {
            gate.log().wait(file, |line| warns_of(line, file).then_some(())).await;
        }
        let page = gate.admin("/certificates").await.json();
        for one in page["certificates"].as_array().unwrap() {
            let file = one["file"].as_str().unwrap();
            let standing = if warned.contains(&file) { "expires soon" } else { "valid" };
            assert_eq!(one["standing"], standing, "{key}: {file}");
        }
        let log = gate.stop().await.log;
        for file in ["soon.pem", "later.pem"] {
            let times = log.iter().filter(|line| warns_of(line, file)).count();
            assert_eq!(times, usize::from(warned.contains(&file)), "{key}: {file}");
        }
    }
}

#[tokio::test]
async fn an_expired_certificate_is_a_warning_and_no_error() {
    let authority = Authority::new();
    let issued = authority.issue(&Says::name("a.example.com").expired());
    let backend = Backend::echo("one").await;
    let setup = || Meshgate::chain("").listener(ONE).pair("web", &issued).cluster("one", &[&backend]);
    let finished = setup().check().await;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(
        finished.stderr.contains("warning: the certificate in web.pem, of listener web, has expired"),
        "{finished:?}"
    );
    let gate = setup().start().await;
    gate.log().wait("an error", |line| line.contains("certificate has expired").then_some(())).await;
}

#[tokio::test]
async fn what_is_wrong_with_the_files_is_said_by_check() {
    let authority = Authority::new();
    let issue = |name: &str| authority.issue(&Says::name(name));
    let (a, b, nameless) =
        (issue("a.example.com"), issue("A.example.com"), authority.issue(&Says::uri("spiffe://a/b")));
    let tls = "tls: {certificates: [{certificate: a.pem, key: a.key}, {certificate: b.pem, key: b.key}, \
               {certificate: n.pem, key: n.key}, {certificate: x.pem, key: a.key}], client_certificates: {ca: a.key}}";
    let setup = Meshgate::chain("").listener(tls).pair("a", &a).pair("b", &b).pair("n", &nameless);
    let finished = setup.clone().check().await;
    assert_eq!(finished.code, Some(2), "{finished:?}");
    for said in ["cannot read x.pem: No such file", "a.key holds no certificate in PEM"] {
        assert!(finished.stderr.contains(said), "{said}: {finished:?}");
    }
    // What concerns them together is said when each is good by itself.
    let tls = tls.replace(", {certificate: x.pem, key: a.key}", "").replace("ca: a.key", "ca: a.pem");
    let setup = Meshgate::chain("").listener(&tls).pair("a", &a).pair("b", &b).pair("n", &nameless);
    let finished = setup.check().await;
    assert_eq!(finished.code, Some(2), "{finished:?}");
    for said in ["another certificate is for the name", "the certificate in n.pem has no DNS name"] {
        assert!(finished.stderr.contains(said), "{said}: {finished:?}");
    }
}
