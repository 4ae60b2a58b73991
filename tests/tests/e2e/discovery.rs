//! Endpoints that come and go while the proxy runs: from DNS and from files; subsets of them, and those that are near.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use http::{Response, StatusCode};
use meshgate_tests::{
    Ask, Backend, Client, DnsServer, Load, Meshgate, Reply, Setup, Trouble, full, until,
    within_binomial_bounds,
};
use serde_json::Value;

use super::ipv6;

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
    neighbours_at(TWO.into()).await
}

/// The same, the second one at this address.
async fn neighbours_at(address: IpAddr) -> (Backend, Backend, u16) {
    loop {
        let first = Backend::echo("b1").await;
        let port = first.address().port();
        let second = SocketAddr::new(address, port);
        if std::net::TcpListener::bind(second).is_ok() {
            return (first, Backend::echo_at("b2", second).await, port);
        }
    }
}

const ONE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
const TWO: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const SIX: Ipv6Addr = Ipv6Addr::LOCALHOST;

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

/// A proxy with a listener and a cluster for each of three hosts, which have an address of IPv4, one of IPv6, and one of each.
async fn three_hosts(server: &DnsServer, port: u16, family: &str) -> Meshgate {
    server.host("four.test", 60, &[ONE]);
    server.host("six.test", 60, &[SIX]);
    server.host("both.test", 60, &[IpAddr::from(ONE), SIX.into()]);
    let mut listeners = String::new();
    let mut clusters = String::new();
    for host in ["four", "six", "both"] {
        let dns = dns(server, &format!("host: \"{host}.test:{port}\"{family}"));
        listeners += &format!("  - {{name: {host}, address: 127.0.0.1:0, cluster: {host}}}\n");
        clusters += &format!("  - {{name: {host}, {dns}}}\n");
    }
    Meshgate::with(&format!(
        "admin: {{address: 127.0.0.1:0}}\naccess_log: {{format: json}}\nworkers: 1\n\
         listeners:\n{listeners}clusters:\n{clusters}"
    ))
    .start()
    .await
}

#[tokio::test]
async fn family_says_which_addresses_of_a_host_are_endpoints() {
    if !ipv6::is_there() {
        return;
    }
    // At 127.0.0.1 and at ::1.
    let (_first, _second, port) = neighbours_at(SIX.into()).await;
    let (four, six, all, none) = (&["b1"][..], &["b2"][..], &["b1", "b2"][..], &["503"][..]);
    for (family, expected) in [
        ("", [four, six, four]),
        (", family: v4_then_v6", [four, six, four]),
        (", family: v4", [four, none, four]),
        (", family: v6", [none, six, six]),
        (", family: both", [four, six, all]),
    ] {
        let server = DnsServer::start().await;
        // It waits for the first answers.
        let gate = three_hosts(&server, port, family).await;
        for (host, expected) in ["four", "six", "both"].into_iter().zip(expected) {
            let mut client = Client::http1(gate.listener(host)).await;
            let mut seen = BTreeSet::new();
            for _ in 0..8 {
                let reply = client.get("/").await;
                let name =
                    if reply.status == 200 { reply.header("x-backend") } else { reply.status.as_str() };
                seen.insert(name.to_owned());
            }
            assert!(seen.iter().eq(expected), "{host} of {family}: {seen:?}");
        }
        let asked = ["four", "six"].map(|host| server.queries_by_family(&format!("{host}.test")));
        let asked = asked.map(|(v4, v6)| (v4 > 0, v6 > 0));
        let expected = match family {
            ", family: v4" => [(true, false); 2],
            ", family: v6" => [(false, true); 2],
            ", family: both" => [(true, true); 2],
            _ => [(true, false), (true, true)],
        };
        assert_eq!(asked, expected, "no question that the family does not need: {family}");
    }
}

#[tokio::test]
async fn host_that_moves_from_one_family_to_the_other_is_followed() {
    if !ipv6::is_there() {
        return;
    }
    let (_first, _second, port) = neighbours_at(SIX.into()).await;
    let both = [IpAddr::from(ONE), SIX.into()];
    for (family, of_both) in [("v4_then_v6", &["b1"][..]), ("both", &["b1", "b2"])] {
        let server = DnsServer::start().await;
        server.host("moving.test", 60, &[ONE]);
        let name = format!("host: \"moving.test:{port}\", family: {family}");
        let gate = cluster(&dns(&server, &name)).start().await;
        assert_eq!(answers(&gate, "/", 4).await, counts(&[("b1", 4)]));
        let load = load(&gate);
        for _ in 0..3 {
            server.host("moving.test", 60, &[SIX]);
            until_answered_by(&gate, &["b2"]).await;
            server.host("moving.test", 60, &both);
            until_answered_by(&gate, of_both).await;
            server.host("moving.test", 60, &[ONE]);
            until_answered_by(&gate, &["b1"]).await;
        }
        assert!(load.stop().await.all_good() > 0);
    }
}

#[tokio::test]
async fn last_good_answer_stands_when_a_host_has_no_address_of_the_family_any_more() {
    if !ipv6::is_there() {
        return;
    }
    let (_first, _second, port) = neighbours_at(SIX.into()).await;
    for (family, first, then, name) in
        [("v4", IpAddr::from(ONE), IpAddr::from(SIX), "b1"), ("v6", SIX.into(), ONE.into(), "b2")]
    {
        let server = DnsServer::start().await;
        server.host("moving.test", 60, &[first]);
        let host = format!("host: \"moving.test:{port}\", family: {family}");
        let gate = cluster(&dns(&server, &host)).start().await;
        server.host("moving.test", 60, &[then]);
        until("it is noticed", || async {
            (discovery(&gate).await["failures"].as_u64() >= Some(2)).then_some(())
        })
        .await;
        assert_eq!(answers(&gate, "/", 10).await, counts(&[(name, 10)]), "{family}");
    }
}

#[tokio::test]
async fn services_lead_to_hosts_of_the_family() {
    if !ipv6::is_there() {
        return;
    }
    let (_first, _second, port) = neighbours_at(SIX.into()).await;
    for (family, names) in [("v4", &["b1"][..]), ("v6", &["b2"]), ("both", &["b1", "b2"])] {
        let server = DnsServer::start().await;
        server.host("host.test", 60, &[IpAddr::from(ONE), SIX.into()]);
        server.service("_web._tcp.test", 60, &[(0, 1, port, "host.test")]);
        let gate = cluster(&dns(&server, &format!("srv: _web._tcp.test, family: {family}"))).start().await;
        until_answered_by(&gate, names).await;
    }
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

/// A backend that is there or not, as the test says: if not, every connection breaks.
async fn mortal(name: &'static str) -> (Backend, Arc<AtomicBool>) {
    let alive = Arc::new(AtomicBool::new(true));
    let told = Arc::clone(&alive);
    let backend = Backend::answering(name, move |_, _| {
        let alive = told.load(SeqCst);
        async move {
            if !alive {
                return Err(std::io::Error::other("dead"));
            }
            Ok(Response::builder().header("x-backend", name).body(full("")).unwrap())
        }
    });
    (backend.await, alive)
}

/// Waits until health checks have found these of the endpoints well, and the others not.
async fn until_well(gate: &Meshgate, well: &[bool]) {
    until(format!("{well:?} is known"), || async {
        let page = gate.admin("/clusters").await.json();
        let endpoints = page["clusters"][0]["endpoints"].as_array().unwrap();
        endpoints
            .iter()
            .map(|endpoint| endpoint["health"] == "healthy")
            .eq(well.iter().copied())
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn traffic_leaves_a_zone_that_dies_and_returns_when_it_is_back() {
    const REQUESTS: usize = 600;
    let ((one, first), (two, second)) = (mortal("near1").await, mortal("near2").await);
    let ((three, _), (four, _)) = (mortal("far1").await, mortal("far2").await);
    let places = [(&one, "eu/a"), (&two, "eu/a"), (&three, "eu/b"), (&four, "us/a")];
    let list = places.map(|(backend, locality)| entry(backend, &format!(", locality: {locality}"))).concat();
    let gate = Meshgate::with(
        "admin: {address: 127.0.0.1:0}\naccess_log: {format: json}\nworkers: 2\nnode: {locality: eu/a}\n\
         listeners: [{name: web, address: 127.0.0.1:0, cluster: one}]\n\
         clusters:\n  - name: one\n    endpoints_file: endpoints.yaml\n    locality_failover: true\n    \
         health_check: {http: {path: /health}, interval: 20ms, jitter: 0, healthy_threshold: 1, unhealthy_threshold: 1}\n",
    )
    .file("endpoints.yaml", list)
    .start()
    .await;
    for _ in 0..3 {
        until_well(&gate, &[true; 4]).await;
        assert!(answers(&gate, "/", 20).await.keys().eq(["near1", "near2"]));
        // Half a zone takes seven tenths of the requests; the next one takes the others.
        first.store(false, SeqCst);
        until_well(&gate, &[false, true, true, true]).await;
        let seen = answers(&gate, "/", REQUESTS).await;
        assert!(seen.keys().eq(["far1", "near2"]), "{seen:?}");
        assert!(within_binomial_bounds(seen["near2"], REQUESTS, 0.7), "{seen:?}");
        second.store(false, SeqCst);
        until_well(&gate, &[false, false, true, true]).await;
        assert_eq!(answers(&gate, "/", 20).await, counts(&[("far1", 20)]), "the same region is nearer");
        for alive in [&first, &second] {
            alive.store(true, SeqCst);
        }
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
