//! IPv6 on both sides: listeners and clients, and endpoints that are written. Those from DNS are in `discovery`.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use meshgate_tests::{Ask, Backend, Client, Meshgate, Setup, Wire};

/// Where a backend listens.
const HERE: &str = "[::1]:0";

/// Whether the machine has IPv6; where it has not, a test says so and passes.
pub(crate) fn is_there() -> bool {
    let there = std::net::TcpListener::bind(HERE).is_ok();
    if !there {
        println!("skipped: this machine has no loopback address of IPv6");
    }
    there
}

/// A proxy that listens there, in front of these endpoints.
fn listening(address: &str, keys: &str, endpoints: &[&Backend]) -> Setup {
    let endpoints: Vec<_> = endpoints.iter().map(|one| format!("\"{}\"", one.address())).collect();
    Meshgate::with(&format!(
        "admin: {{address: \"[::1]:0\"}}\naccess_log: {{format: json}}\nworkers: 2\n\
         listeners: [{{name: web, address: \"{address}\", cluster: one{keys}}}]\n\
         clusters: [{{name: one, endpoints: [{}]}}]\n",
        endpoints.join(", ")
    ))
}

async fn echo(name: &str) -> Backend {
    Backend::echo_at(name, HERE.parse().unwrap()).await
}

#[tokio::test]
async fn listeners_and_endpoints_are_of_ipv6_and_clients_are_known_by_their_addresses() {
    if !is_there() {
        return;
    }
    let (six, four) = (echo("six").await, Backend::echo("four").await);
    assert!(six.address().is_ipv6() && four.address().is_ipv4());
    let gate = listening("[::1]:0", "", &[&six, &four]).start().await;
    assert!(gate.address().is_ipv6() && gate.admin_address().is_ipv6());
    for (version, mut client) in [
        ("1", Client::http1(gate.address()).await),
        ("2", Client::http2(gate.address()).await.authority("[::1]:8080")),
    ] {
        let mut names = Vec::new();
        for number in 0..4 {
            let path = format!("/{version}/{number}");
            let ask = Ask::post(&path, "hello").header("x-forwarded-for", "2001:db8::7");
            let reply = client.call(ask).await;
            let seen = reply.json();
            assert_eq!((reply.status.as_u16(), &seen["body"]), (200, &"hello".into()));
            assert_eq!(seen["headers"]["x-forwarded-for"], "::1", "the claim of a stranger is replaced");
            let host = if version == "1" { gate.address().to_string() } else { "[::1]:8080".to_owned() };
            assert_eq!(seen["headers"]["host"], host);
            let entry = gate.access(&path).await;
            let client = entry["downstream_address"].as_str().unwrap();
            let client = client.parse::<SocketAddr>().unwrap_or_else(|error| panic!("{client}: {error}"));
            assert!(client.ip() == gate.address().ip() && client.port() != 0, "{entry}");
            let backend = if reply.header("x-backend") == "six" { &six } else { &four };
            assert_eq!(entry["upstream_address"], backend.address().to_string());
            assert_eq!(entry["x_forwarded_for"], "::1");
            names.push(reply.header("x-backend").to_owned());
        }
        names.sort();
        names.dedup();
        assert_eq!(names, ["four", "six"], "both are used");
    }
}

#[tokio::test]
async fn proxies_in_front_are_believed_by_their_address_of_ipv6() {
    if !is_there() {
        return;
    }
    let one = echo("one").await;
    for (from, client, passed_on) in [
        ("[\"::1\", \"2001:db8:1::/48\"]", "[2001:db8:2::7]:0", "2001:db8:2::7, 2001:db8:1::1, ::1"),
        ("[\"2001:db8:1::/48\"]", "[::1]:", "::1"),
    ] {
        let keys = format!(", forwarded: {{from: {from}}}");
        let gate = listening("[::1]:0", &keys, &[&one]).start().await;
        let way = "6.6.6.6, 2001:db8:2::7, [2001:db8:1::1]:4711";
        let ask = Ask::get("/x").header("x-forwarded-for", way);
        assert_eq!(Client::http1(gate.address()).await.call(ask).await.status, 200);
        assert_eq!(one.seen().pop().unwrap().header("x-forwarded-for"), passed_on, "{from}");
        let entry = gate.access("/x").await;
        assert!(entry["downstream_address"].as_str().unwrap().starts_with(client), "{entry}");
    }
}

#[tokio::test]
async fn clients_of_ipv4_on_a_listener_for_both_families_are_known_by_addresses_of_ipv4() {
    let only = std::fs::read_to_string("/proc/sys/net/ipv6/bindv6only").unwrap_or_default();
    if !is_there() || only.trim() == "1" {
        println!("skipped: here, no listener is for both");
        return;
    }
    let one = echo("one").await;
    let gate = listening("[::]:0", ", forwarded: {from: [127.0.0.0/8]}", &[&one]).start().await;
    let port = gate.address().port();
    let said = || Ask::get("/").header("x-forwarded-for", "192.0.2.7");
    let (four, six) =
        (SocketAddr::from((Ipv4Addr::LOCALHOST, port)), SocketAddr::from((Ipv6Addr::LOCALHOST, port)));
    for (address, passed_on) in [(four, "192.0.2.7, 127.0.0.1"), (six, "::1")] {
        assert_eq!(Client::http1(address).await.call(said()).await.status, 200);
        assert_eq!(one.seen().pop().unwrap().header("x-forwarded-for"), passed_on);
    }
}

#[tokio::test]
async fn addresses_of_ipv6_stand_in_requests_as_hosts() {
    if !is_there() {
        return;
    }
    let one = echo("one").await;
    let gate = listening("[::1]:0", "", &[&one]).start().await;
    for (target, host, expected) in [
        ("/", "[::1]", "[::1]"),
        ("/", "[2001:db8::1]:8080", "[2001:db8::1]:8080"),
        ("http://[2001:db8::2]:81/", "else.example", "[2001:db8::2]:81"),
    ] {
        let mut wire = Wire::connect(gate.address()).await;
        wire.write(format!("GET {target} HTTP/1.1\r\nhost: {host}\r\n\r\n")).await;
        assert_eq!(wire.read_reply().await.status(), 200, "{target} {host}");
        assert_eq!(one.seen().pop().unwrap().header("host"), expected);
    }
    for host in ["::1", "[::1", "[::g]", "[::1]x"] {
        let mut wire = Wire::connect(gate.address()).await;
        wire.write(format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n")).await;
        assert_eq!(wire.read_reply().await.status(), 400, "{host}");
    }
}
