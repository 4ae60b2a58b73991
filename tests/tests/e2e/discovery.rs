//! Endpoints that come and go while the proxy runs: from DNS and from files; subsets of them, and those that are near.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use http::{Response, StatusCode};
use meshgate_tests::{Ask, Backend, DnsServer, Load, Meshgate, Reply, Setup, Trouble, full, until};
use serde_json::Value;

/// Sends so many requests, each on a connection of its own; counts the backends' names, or the statuses.
async fn answers(gate: &Meshgate, path: &str, requests: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..requests {
        let reply = gate.get(path).await;
        let name = if reply.status == 200 { reply.header("x-backend") } else { reply.status.as_str() };
        *counts.entry(name.to_owned()).or_default() += 1;
    }
    counts
}

fn counts(expected: &[(&str, usize)]) -> BTreeMap<String, usize> {
    expected.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

/// A proxy whose only cluster has this in its entry.
fn cluster(keys: &str) -> Setup {
    Meshgate::with(&format!(
        "admin: {{address: 127.0.0.1:0}}\naccess_log: {{format: json}}\nworkers: 2\n\
         listeners: [{{name: web, address: 127.0.0.1:0, cluster: one}}]\n\
         clusters:\n  - {{name: one, {keys}}}\n"
    ))
}

/// DNS settings that ask this server, often.
fn dns(server: &DnsServer, name: &str) -> String {
    format!(
        "dns: {{{name}, resolvers: [\"{}\"], min_ttl: 20ms, max_ttl: 20ms, retry: 20ms}}",
        server.address()
    )
}

async fn discovery(gate: &Meshgate) -> Value {
    gate.admin("/clusters").await.json()["clusters"][0]["discovery"].clone()
}

/// Waits until exactly these answer.
async fn until_answered_by(gate: &Meshgate, names: &[&str]) {
    until(format!("answers of {names:?}"), || async {
        let seen = answers(gate, "/", 8).await;
        seen.keys().eq(names).then_some(())
    })
    .await;
}

/// Load that must be answered by 200.
fn load(gate: &Meshgate) -> Load {
    let judge = |reply: &Reply| match reply.status {
        StatusCode::OK => Ok(()),
        other => Err(format!("status {other}")),
    };
    Load::start(gate.address(), 4, || Ask::get("/"), judge)
}

/// Two backends at one port of different addresses.
async fn neighbours() -> (Backend, Backend, u16) {
    loop {
        let first = Backend::echo("b1").await;
        let port = first.address().port();
        let second = SocketAddr::from(([127, 0, 0, 2], port));
        if std::net::TcpListener::bind(second).is_ok() {
            return (first, Backend::echo_at("b2", second).await, port);
        }
    }
}

const ONE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
const TWO: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

#[tokio::test]
async fn all_addresses_of_a_host_are_endpoints_and_changes_cost_nothing() {
    let (_first, _second, port) = neighbours().await;
    let server = DnsServer::start().await;
    server.host("reviews.test", 60, &[ONE]);
    let gate = cluster(&dns(&server, &format!("host: \"reviews.test:{port}\""))).start().await;
    assert_eq!(answers(&gate, "/", 10).await, counts(&[("b1", 10)]));
    let load = load(&gate);
    for _ in 0..5 {
        server.host("reviews.test", 60, &[ONE, TWO]);
        until_answered_by(&gate, &["b1", "b2"]).await;
        server.host("reviews.test", 60, &[TWO]);
        until_answered_by(&gate, &["b2"]).await;
        server.host("reviews.test", 60, &[ONE]);
        until_answered_by(&gate, &["b1"]).await;
    }
    assert!(load.stop().await.all_good() > 0);
    assert_eq!(discovery(&gate).await["error"], Value::Null);
}

#[tokio::test]
async fn answer_is_believed_as_long_as_it_says_within_bounds() {
    let (_first, _second, port) = neighbours().await;
    let server = DnsServer::start().await;
    server.host("long.test", 3_600, &[ONE]);
    server.host("short.test", 0, &[ONE]);
    let keys = |name: &str, bounds: &str| {
        let resolver = server.address();
        cluster(&format!("dns: {{host: \"{name}:{port}\", resolvers: [\"{resolver}\"], {bounds}}}"))
    };
    let long = keys("long.test", "min_ttl: 10ms, max_ttl: 2h").start().await;
    let short = keys("short.test", "min_ttl: 10ms, max_ttl: 2h").start().await;
    until("the short one is asked for again and again", || async {
        (server.queries("short.test") >= 10).then_some(())
    })
    .await;
    assert_eq!(server.queries("long.test"), 1);
    for gate in [long, short] {
        assert_eq!(answers(&gate, "/", 4).await, counts(&[("b1", 4)]));
    }
}

#[tokio::test]
async fn last_good_answer_stands_whatever_becomes_of_the_name_server() {
    let (_first, _second, port) = neighbours().await;
    for trouble in [Trouble::ServerFailure, Trouble::NoSuchName, Trouble::NoRecord] {
        let server = DnsServer::start().await;
        server.host("reviews.test", 60, &[ONE]);
        let gate = cluster(&dns(&server, &format!("host: \"reviews.test:{port}\""))).start().await;
        server.trouble(Some(trouble));
        let failures = || async { discovery(&gate).await["failures"].as_u64() >= Some(2) };
        until(format!("{trouble:?} is noticed"), || async { failures().await.then_some(()) }).await;
        assert_eq!(answers(&gate, "/", 10).await, counts(&[("b1", 10)]), "{trouble:?}");
        assert!(discovery(&gate).await["error"].as_str().unwrap().contains("reviews.test"));
        let words = "DNS gives no answer; the last one stands cluster=one";
        gate.log().wait(words, |line| line.contains(words).then_some(())).await;
        assert!(
            gate.metrics().await.sum("meshgate_cluster_discovery_failures_total", &[("cluster", "one")])
                >= 2.0
        );
        server.trouble(None);
        server.host("reviews.test", 60, &[TWO]);
        until_answered_by(&gate, &["b2"]).await;
    }
}

#[tokio::test]
async fn name_without_an_answer_delays_neither_the_start_nor_others() {
    let (_first, _second, port) = neighbours().await;
    let server = DnsServer::start().await;
    let gate = cluster(&dns(&server, &format!("host: \"later.test:{port}\""))).start().await;
    assert_eq!(gate.get("/none").await.status, 503);
    assert_eq!(gate.access("/none").await["response_flags"], "UH");
    server.host("later.test", 60, &[ONE]);
    until_answered_by(&gate, &["b1"]).await;
}

#[tokio::test]
async fn services_say_ports_priorities_and_weights() {
    let backends = [Backend::echo("b1").await, Backend::echo("b2").await, Backend::echo("b3").await];
    let ports = backends.each_ref().map(|backend| backend.address().port());
    let server = DnsServer::start().await;
    server.host("host.test", 60, &[ONE]);
    let place = |priority, weight, port| (priority, weight, port, "host.test");
    server.service(
        "_web._tcp.test",
        60,
        &[place(10, 3, ports[0]), place(10, 1, ports[1]), place(20, 0, ports[2])],
    );
    let gate = cluster(&dns(&server, "srv: _web._tcp.test")).start().await;
    let seen = answers(&gate, "/", 40).await;
    // Each of two workers goes round by itself.
    assert!((28..=32).contains(&seen["b1"]) && seen["b1"] + seen["b2"] == 40, "{seen:?}");
    server.service("_web._tcp.test", 60, &[place(0, 0, ports[2])]);
    until_answered_by(&gate, &["b3"]).await;
}

#[tokio::test]
async fn ejected_endpoint_stays_away_when_others_come() {
    let bad =
        Backend::answering("bad", async |_, _| Ok(Response::builder().status(500).body(full("")).unwrap()))
            .await;
    let good = Backend::echo("good").await;
    let server = DnsServer::start().await;
    server.host("host.test", 60, &[ONE]);
    let place = |backend: &Backend| (0, 1, backend.address().port(), "host.test");
    server.service("_web._tcp.test", 60, &[place(&bad), place(&good)]);
    let keys = format!(
        "{}, outlier_detection: {{consecutive_errors: 5, ejection_time: 1h, max_ejection_percent: 50}}",
        dns(&server, "srv: _web._tcp.test")
    );
    let gate = cluster(&keys).start().await;
    until("the endpoint is ejected", || async {
        gate.get("/").await;
        (bad.requests() == 5).then_some(())
    })
    .await;
    let third = Backend::echo("third").await;
    server.service("_web._tcp.test", 60, &[place(&third), place(&bad), place(&good)]);
    until_answered_by(&gate, &["good", "third"]).await;
    answers(&gate, "/", 20).await;
    assert_eq!(bad.requests(), 5);
}

#[tokio::test]
async fn logical_name_stands_for_one_endpoint() {
    let (_first, _second, port) = neighbours().await;
    let server = DnsServer::start().await;
    server.host("many.test", 60, &[ONE, TWO]);
    let gate = cluster(&dns(&server, &format!("host: \"many.test:{port}\", logical: true"))).start().await;
    let first = answers(&gate, "/", 10).await;
    assert_eq!(first.len(), 1, "{first:?}");
    let (name, kept, other) = if first.contains_key("b1") { ("b1", ONE, TWO) } else { ("b2", TWO, ONE) };
    // Another order of the same is no change.
    for order in [[kept, other], [other, kept]] {
        server.host("many.test", 60, &order);
        let asked = server.queries("many.test");
        until("it was asked again", || async { (server.queries("many.test") > asked + 1).then_some(()) })
            .await;
        assert_eq!(answers(&gate, "/", 4).await, counts(&[(name, 4)]));
    }
    server.host("many.test", 60, &[other]);
    until_answered_by(&gate, &[if name == "b1" { "b2" } else { "b1" }]).await;
}

fn entry(backend: &Backend, more: &str) -> String {
    format!("- {{address: \"{}\"{more}}}\n", backend.address())
}

#[tokio::test]
async fn file_of_endpoints_is_followed_without_a_reload() {
    let backends = [Backend::echo("b1").await, Backend::echo("b2").await];
    let [one, two] = backends.each_ref().map(|backend| entry(backend, ""));
    let setup = cluster("endpoints_file: ./endpoints.yaml");
    let gate = setup.file("endpoints.yaml", &one).start().await;
    let before = gate.reload().await;
    assert_eq!(answers(&gate, "/", 4).await, counts(&[("b1", 4)]));
    let load = load(&gate);
    for _ in 0..3 {
        gate.edit("endpoints.yaml", format!("{one}{two}"));
        until_answered_by(&gate, &["b1", "b2"]).await;
        // JSON is YAML.
        gate.replace("endpoints.yaml", format!("[{{\"address\": \"{}\"}}]", backends[1].address()));
        until_answered_by(&gate, &["b2"]).await;
        gate.replace("endpoints.yaml", &one);
        until_answered_by(&gate, &["b1"]).await;
    }
    assert!(load.stop().await.all_good() > 0);
    // One attempt is made anyway if the configuration was written just before the start.
    assert!(gate.reload().await.attempts <= before.attempts + 1, "nine changes and no reload");

    gate.edit("endpoints.yaml", format!("{one}- {{address: 127.0.0.1, weigth: 3}}\n"));
    let place = "endpoints.yaml:2:13: `address` has no port";
    gate.log().wait(place, |line| line.contains(place).then_some(())).await;
    let typo = "endpoints.yaml:2:24: unknown key `weigth`";
    gate.log().wait(typo, |line| line.contains(typo).then_some(())).await;
    until("the refusal is shown", || async {
        discovery(&gate).await["error"].as_str().is_some_and(|error| error.contains(typo)).then_some(())
    })
    .await;
    assert_eq!(answers(&gate, "/", 4).await, counts(&[("b1", 4)]));
    std::fs::remove_file(gate.path("endpoints.yaml")).unwrap();
    until("that it is gone is noticed", || async {
        (discovery(&gate).await["failures"].as_u64() >= Some(2)).then_some(())
    })
    .await;
    assert_eq!(answers(&gate, "/", 4).await, counts(&[("b1", 4)]));
    gate.edit("endpoints.yaml", &two);
    until_answered_by(&gate, &["b2"]).await;
}

#[tokio::test]
async fn file_of_endpoints_with_mistakes_is_refused_at_the_start() {
    let setup = cluster("endpoints_file: ./endpoints.yaml");
    let refused = setup.clone().file("endpoints.yaml", "- 127.0.0.1:80\n- {address: x}\n").check().await;
    assert!(refused.stderr.contains("endpoints.yaml:2:13: `address` has no port"), "{}", refused.stderr);
    let missing = setup.check().await;
    assert!(missing.stderr.contains("cannot read the file of endpoints"), "{}", missing.stderr);
}

#[tokio::test]
async fn row_3_requests_go_to_the_endpoints_with_a_subsets_labels() {
    let backends = [Backend::echo("b1").await, Backend::echo("b2").await, Backend::echo("b3").await];
    let list = |versions: [&str; 3]| -> String {
        let entries = backends.iter().zip(versions);
        entries
            .map(|(backend, version)| entry(backend, &format!(", labels: {{version: {version}}}")))
            .collect()
    };
    let gate = Meshgate::with(
        "admin: {address: 127.0.0.1:0}\naccess_log: {format: json}\nworkers: 1\n\
         listeners: [{name: web, address: 127.0.0.1:0, chain: web}]\n\
         chains:\n  web:\n    - routing:\n        routes:\n          \
         - {name: one, match: {path: /v1}, to: reviews-v1}\n          \
         - {name: two, match: {path: /v2}, to: reviews-v2}\n          \
         - {name: all, match: {path: /**}, to: reviews}\n\
         clusters:\n  - name: reviews\n    endpoints_file: endpoints.yaml\n    subsets:\n      \
         - {name: reviews-v1, labels: {version: v1}}\n      - {name: reviews-v2, labels: {version: v2}}\n",
    )
    .file("endpoints.yaml", list(["v1", "v1", "v3"]))
    .start()
    .await;
    let seen = answers(&gate, "/v1", 20).await;
    assert!(seen.keys().eq(["b1", "b2"]) && seen.values().all(|count| (9..=11).contains(count)), "{seen:?}");
    assert_eq!(answers(&gate, "/v2", 2).await, counts(&[("503", 2)]), "a subset without endpoints");
    assert_eq!(gate.access("/v2").await["response_flags"], "UH");
    assert_eq!(answers(&gate, "/", 9).await.len(), 3);
    gate.edit("endpoints.yaml", list(["v1", "v2", "v3"]));
    until("the relabelled endpoint is in the other subset", || async {
        (answers(&gate, "/v2", 2).await == counts(&[("b2", 2)])).then_some(())
    })
    .await;
    assert_eq!(answers(&gate, "/v1", 4).await, counts(&[("b1", 4)]));
}

#[tokio::test]
async fn near_endpoints_are_preferred_while_enough_of_them_are_well() {
    let mut backends = Vec::new();
    for name in ["near", "zone", "region", "far"] {
        backends.push(Backend::echo(name).await);
    }
    let localities = ["eu/a/1", "eu/a/2", "eu/b/1", "us/a/1"];
    let list = |from: usize| -> String {
        let entries = backends.iter().zip(localities).enumerate();
        entries
            .map(|(index, (backend, locality))| {
                // Those before are gone: nobody answers at port 1.
                let health =
                    if index < from { "127.0.0.1:1".to_owned() } else { backend.address().to_string() };
                format!("- {{address: \"{health}\", locality: {locality}}}\n")
            })
            .skip(from.saturating_sub(1))
            .collect()
    };
    let gate = Meshgate::with(
        "admin: {address: 127.0.0.1:0}\naccess_log: {format: json}\nworkers: 1\nnode: {locality: eu/a/1}\n\
         listeners: [{name: web, address: 127.0.0.1:0, cluster: one}]\n\
         clusters:\n  - name: one\n    endpoints_file: endpoints.yaml\n    locality_failover: true\n    \
         health_check: {tcp: {}, interval: 1h}\n",
    )
    .file("endpoints.yaml", list(0))
    .start()
    .await;
    for (from, name) in ["near", "zone", "region", "far"].into_iter().enumerate() {
        gate.edit("endpoints.yaml", list(from));
        until_answered_by(&gate, &[name]).await;
        assert_eq!(answers(&gate, "/", 20).await, counts(&[(name, 20)]));
    }
}

#[tokio::test]
async fn silent_name_server_does_not_hold_up_requests() {
    let (_first, _second, port) = neighbours().await;
    let server = DnsServer::start().await;
    server.host("reviews.test", 60, &[ONE]);
    let gate = cluster(&dns(&server, &format!("host: \"reviews.test:{port}\""))).start().await;
    server.trouble(Some(Trouble::Silence));
    let asked = server.queries("reviews.test");
    until("a question hangs", || async { (server.queries("reviews.test") > asked).then_some(()) }).await;
    let took = tokio::time::timeout(Duration::from_secs(30), answers(&gate, "/", 50)).await;
    assert_eq!(took.expect("answers in time"), counts(&[("b1", 50)]));
}
