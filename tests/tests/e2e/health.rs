//! Health checks: when endpoints get requests and when not, what is asked of them, and how often.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use http::{Response, StatusCode, Version};
use meshgate_tests::{Backend, Meshgate, SocketBackend, framed, full, until};
use serde_json::Value;

/// A backend that is well or not, as the test says.
struct Patient {
    backend: Backend,
    state: Arc<Mutex<State>>,
}

struct State {
    /// The status of `/health` and, if `ill` is set, of all requests.
    health: u16,
    ill: bool,
    /// What comes before: the next checks' statuses.
    script: VecDeque<u16>,
}

impl Patient {
    async fn new(name: &str, health: u16) -> Patient {
        let state = Arc::new(Mutex::new(State { health, ill: false, script: VecDeque::new() }));
        let (told, named) = (Arc::clone(&state), name.to_owned());
        let backend = Backend::answering(name, move |seen, _| {
            let mut state = told.lock().unwrap();
            let status = match (&*seen.path, state.ill) {
                ("/health", _) => state.script.pop_front().unwrap_or(state.health),
                (_, true) => 500,
                (_, false) => 200,
            };
            drop(state);
            let answer = Response::builder().status(status).header("x-backend", named.clone());
            async move { answer.body(full("")).map_err(std::io::Error::other) }
        });
        Patient { backend: backend.await, state }
    }

    fn set(&self, health: u16) {
        self.state.lock().unwrap().health = health;
    }

    fn address(&self) -> SocketAddr {
        self.backend.address()
    }

    /// Requests that were no checks.
    fn requests(&self) -> usize {
        self.backend.requests() - self.checks()
    }

    fn checks(&self) -> usize {
        self.backend.seen().iter().filter(|seen| seen.path == "/health").count()
    }
}

/// What the admin API says of the endpoint with this number.
async fn shown(gate: &Meshgate, number: usize) -> Value {
    gate.admin("/clusters").await.json()["clusters"][0]["endpoints"][number].clone()
}

async fn until_health(gate: &Meshgate, number: usize, health: &str) {
    let is = || async { (shown(gate, number).await["health"] == health).then_some(()) };
    until(format!("endpoint {number} is {health}"), is).await;
}

async fn until_checked(gate: &Meshgate, number: usize, times: u64) {
    let enough = || async { (shown(gate, number).await["checks"].as_u64() >= Some(times)).then_some(()) };
    until(format!("endpoint {number} was checked {times} times"), enough).await;
}

/// How many of so many requests got this status.
async fn count(gate: &Meshgate, requests: usize, status: StatusCode) -> usize {
    let mut hits = 0;
    for _ in 0..requests {
        hits += usize::from(gate.get("/").await.status == status);
    }
    hits
}

const OFTEN: &str = "interval: 10ms, jitter: 0";
const ONCE: &str = "interval: 1h";

#[tokio::test]
async fn no_request_before_the_first_check_and_none_for_those_that_fail_it() {
    let (good, bad) = (Patient::new("good", 200).await, Patient::new("bad", 503).await);
    // It accepts and says nothing.
    let black_hole = SocketBackend::start().await;
    let check = format!("health_check: {{http: {{path: /health}}, timeout: 300ms, {ONCE}}}");
    let all = [good.address(), bad.address(), black_hole.address()];
    let gate = Meshgate::chain("").workers(2).cluster_of("one", &all, &check).start().await;
    assert_eq!(count(&gate, 60, StatusCode::OK).await, 60);
    assert_eq!((good.requests(), bad.requests()), (60, 0));
    // Once per process, and as one that can be told from requests.
    assert_eq!((good.checks(), bad.checks()), (1, 1));
    let asked = &good.backend.seen()[0];
    assert_eq!(
        (asked.header("user-agent"), asked.header("host")),
        ("meshgate-health-check", &*good.address().to_string())
    );
    assert_eq!(shown(&gate, 2).await["failed_checks"], 1);
    let metrics = gate.metrics().await;
    let of = |endpoint: &Patient| {
        metrics.sum("meshgate_endpoint_healthy", &[("endpoint", &endpoint.address().to_string())])
    };
    assert_eq!((of(&good), of(&bad)), (1.0, 0.0));
}

#[tokio::test]
async fn so_many_checks_in_a_row_change_an_endpoints_state() {
    let (good, other) = (Patient::new("good", 200).await, Patient::new("other", 200).await);
    // Twice two failures are not three in a row, and then there are three; and two good ones after one.
    other.state.lock().unwrap().script =
        [200, 500, 500, 200, 500, 500, 200, 500, 500, 500, 200, 500, 200, 200].into();
    let check = format!(
        "health_check: {{http: {{path: /health}}, healthy_threshold: 2, unhealthy_threshold: 3, {OFTEN}}}"
    );
    let gate =
        Meshgate::chain("").cluster_of("one", &[good.address(), other.address()], &check).start().await;
    let ill = "endpoint is unhealthy cluster=one";
    gate.log().wait(ill, |line| line.contains(ill).then_some(())).await;
    until_health(&gate, 1, "healthy").await;
    until_checked(&gate, 1, 20).await;
    let count = |words: &str| gate.log().all().iter().filter(|line| line.contains(words)).count();
    let place = format!("endpoint={}", other.address());
    assert_eq!((count(ill), count(&format!("endpoint is healthy cluster=one {place}"))), (1, 2));
    assert_eq!(shown(&gate, 1).await["failed_checks"], 8);
}

#[tokio::test]
async fn endpoint_that_falls_ill_gets_nothing_until_it_is_well_again() {
    let endpoints = [Patient::new("a", 200).await, Patient::new("b", 200).await];
    let all = endpoints.each_ref().map(Patient::address);
    let check = format!("health_check: {{http: {{path: /health}}, {OFTEN}}}");
    let gate = Meshgate::chain("").workers(2).cluster_of("one", &all, &check).start().await;
    for _ in 0..2 {
        endpoints[1].set(500);
        until_health(&gate, 1, "unhealthy").await;
        let before = endpoints[1].requests();
        assert_eq!(count(&gate, 30, StatusCode::OK).await, 30);
        assert_eq!(endpoints[1].requests(), before);
        endpoints[1].set(200);
        until_health(&gate, 1, "healthy").await;
        count(&gate, 30, StatusCode::OK).await;
        assert!(endpoints[1].requests() > before);
    }
}

#[tokio::test]
async fn when_all_are_ill_panic_decides() {
    for (panic, status) in [(0, 503), (50, 200)] {
        let endpoints = [Patient::new("a", 500).await, Patient::new("b", 500).await];
        let all = endpoints.each_ref().map(Patient::address);
        let keys = format!("panic_threshold: {panic}, health_check: {{http: {{path: /health}}, {ONCE}}}");
        let gate = Meshgate::chain("").cluster_of("one", &all, &keys).start().await;
        let reply = gate.get("/").await;
        assert_eq!(reply.status, status);
        if status == 503 {
            assert_eq!(gate.access("/").await["response_flags"], "UH");
        }
    }
}

#[tokio::test]
async fn reload_keeps_what_is_known_and_checks_what_is_new() {
    let (good, bad) = (Patient::new("good", 200).await, Patient::new("bad", 500).await);
    let (new, worse) = (Patient::new("new", 200).await, Patient::new("worse", 500).await);
    let setup = |all: &[&Patient]| {
        let all: Vec<_> = all.iter().map(|patient| patient.address()).collect();
        let check = format!("health_check: {{http: {{path: /health}}, {ONCE}}}");
        Meshgate::chain("").cluster_of("one", &all, &check)
    };
    let gate = setup(&[&good, &bad]).start().await;
    let before = gate.reload().await;
    gate.edit("meshgate.yaml", setup(&[&bad, &good, &new, &worse]).yaml());
    gate.reloaded(&before).await;
    assert_eq!(shown(&gate, 0).await["health"], "unhealthy");
    until_health(&gate, 2, "healthy").await;
    until_health(&gate, 3, "unhealthy").await;
    assert_eq!(count(&gate, 30, StatusCode::OK).await, 30);
    assert_eq!((good.checks(), bad.checks()), (1, 1), "what is known is not asked again");
    assert_eq!((bad.requests(), worse.requests()), (0, 0));
    assert!(new.requests() > 0);

    let before = gate.reload().await;
    let plain = Meshgate::chain("").cluster_of("one", &[bad.address()], "");
    gate.edit("meshgate.yaml", plain.yaml());
    gate.reloaded(&before).await;
    assert_eq!(count(&gate, 3, StatusCode::OK).await, 3, "without checks nobody is ill");
}

#[tokio::test]
async fn good_check_ends_an_ejection_unless_told_otherwise() {
    for ends in [true, false] {
        let (good, bad) = (Patient::new("good", 200).await, Patient::new("bad", 200).await);
        bad.state.lock().unwrap().ill = true;
        let keys = format!(
            "health_check: {{http: {{path: /health}}, ends_ejection: {ends}, {OFTEN}}}, \
             outlier_detection: {{consecutive_errors: 5, ejection_time: 1h, max_ejection_percent: 50}}"
        );
        let gate =
            Meshgate::chain("").cluster_of("one", &[good.address(), bad.address()], &keys).start().await;
        until("the endpoint is ejected", || async {
            gate.get("/").await;
            (shown(&gate, 1).await["ejections"].as_u64() >= Some(1)).then_some(())
        })
        .await;
        if ends {
            until("the endpoint gets requests again", || async {
                gate.get("/").await;
                (bad.requests() > 5).then_some(())
            })
            .await;
        } else {
            let checks = shown(&gate, 1).await["checks"].as_u64().unwrap();
            until_checked(&gate, 1, checks + 10).await;
            assert_eq!(count(&gate, 30, StatusCode::OK).await, 30);
            assert_eq!(bad.requests(), 5);
        }
    }
}

#[tokio::test]
async fn cluster_without_requests_is_checked_more_seldom() {
    let patient = Patient::new("idle", 200).await;
    let check = "health_check: {http: {path: /health}, interval: 10ms, jitter: 0, no_traffic_interval: 1h}";
    let gate = Meshgate::chain("").cluster_of("one", &[patient.address()], check).start().await;
    assert_eq!(patient.checks(), 1);
    assert_eq!(gate.get("/").await.status, 200);
    until_checked(&gate, 0, 5).await;
}

#[tokio::test]
async fn unhealthy_endpoints_have_an_interval_of_their_own() {
    let patient = Patient::new("ill", 500).await;
    let check = "health_check: {http: {path: /health}, interval: 1h, unhealthy_interval: 10ms, jitter: 0, healthy_threshold: 3}";
    let gate = Meshgate::chain("").cluster_of("one", &[patient.address()], check).start().await;
    until_checked(&gate, 0, 5).await;
    patient.set(200);
    until_health(&gate, 0, "healthy").await;
    let checks = patient.checks();
    assert_eq!(count(&gate, 20, StatusCode::OK).await, 20);
    assert_eq!(patient.checks(), checks);
}

/// Health of an endpoint after its first check with this probe.
async fn verdict(address: SocketAddr, keys: &str, probe: &str) -> String {
    let keys = format!("{keys}health_check: {{{probe}, timeout: 500ms, {ONCE}}}");
    let gate = Meshgate::chain("").cluster_of("one", &[address], &keys).start().await;
    shown(&gate, 0).await["health"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn http_checks_ask_as_they_are_told() {
    let backend = Backend::answering("picky", async |seen, _| {
        let good = seen.method == "HEAD"
            && seen.path == "/h?deep=1"
            && seen.header("host") == "reviews.internal"
            && seen.header("x-token") == "let me in";
        Ok(Response::builder().status(if good { 302 } else { 404 }).body(full("")).unwrap())
    })
    .await;
    let probe = |statuses: &str| {
        format!(
            "http: {{path: \"/h?deep=1\", method: HEAD, host: reviews.internal, headers: {{x-token: let me in}}, statuses: {statuses}}}"
        )
    };
    assert_eq!(verdict(backend.address(), "", &probe("[200, 300-399]")).await, "healthy");
    assert_eq!(verdict(backend.address(), "", &probe("[200, 404]")).await, "unhealthy");
    let http2 = Backend::http2("h2", async |seen, _| {
        assert_eq!(seen.path, "/ok");
        Ok(Response::new(full("")))
    })
    .await;
    assert_eq!(verdict(http2.address(), "protocol: http2, ", "http: {path: /ok}").await, "healthy");
    assert_eq!(verdict(http2.address(), "", "http: {path: /ok}").await, "unhealthy", "it speaks no HTTP/1.1");
    let gone = Backend::echo("gone").await.address();
    assert_eq!(verdict(gone, "", "http: {path: /ok}").await, "unhealthy");
    // Asked at another port than the requests go to.
    let port = format!("port: {}, http: {{path: /ok}}", Patient::new("p", 200).await.address().port());
    assert_eq!(verdict(gone, "", &port).await, "unhealthy");
    let other = Backend::echo("other").await;
    let port = format!("port: {}, http: {{path: /ok}}", other.address().port());
    assert_eq!(verdict(gone, "", &port).await, "healthy");
}

/// Says this to whoever connects, and expects that first.
async fn talker(expected: &'static str, answer: &'static str) -> SocketAddr {
    let backend = SocketBackend::start().await;
    let address = backend.address();
    tokio::spawn(async move {
        loop {
            let mut socket = backend.accept().await;
            socket.expect(expected).await;
            socket.write(answer).await;
            let _ = socket.end().await;
        }
    });
    address
}

#[tokio::test]
async fn tcp_checks_connect_and_may_talk() {
    let pong = talker("PING\r\n", "+PONG\r\n").await;
    assert_eq!(verdict(pong, "", "tcp: {send: \"PING\\r\\n\", expect: \"+PONG\"}").await, "healthy");
    assert_eq!(verdict(pong, "", "tcp: {send: \"PING\\r\\n\", expect: \"-ERR\"}").await, "unhealthy");
    let silent = SocketBackend::start().await;
    assert_eq!(verdict(silent.address(), "", "tcp: {}").await, "healthy");
    assert_eq!(verdict(silent.address(), "", "tcp: {expect: hello}").await, "unhealthy");
    let gone = Backend::echo("gone").await.address();
    assert_eq!(verdict(gone, "", "tcp: {}").await, "unhealthy");
}

#[tokio::test]
async fn grpc_checks_ask_for_a_service() {
    // SERVING for the server and one service, NOT_SERVING for another, NOT_FOUND for the rest.
    let backend = Backend::http2("grpc", async |seen, request| {
        use http_body_util::BodyExt;
        assert_eq!((&*seen.path, request.version()), ("/grpc.health.v1.Health/Check", Version::HTTP_2));
        let body = request.into_body().collect().await.map_err(std::io::Error::other)?.to_bytes();
        let service = body.get(7..).unwrap_or_default();
        let head = Response::builder().header("content-type", "application/grpc");
        let (status, message) = match service {
            b"" | b"good" => ("0", framed(&[8, 1])),
            b"bad" => ("0", framed(&[8, 2])),
            _ => ("5", bytes::Bytes::new()),
        };
        Ok(head.header("grpc-status", status).body(full(message)).unwrap())
    })
    .await;
    let asked = async |service: &str| {
        verdict(backend.address(), "protocol: http2, ", &format!("grpc: {{service: {service}}}")).await
    };
    assert_eq!(verdict(backend.address(), "", "grpc: {}").await, "healthy");
    assert_eq!(asked("good").await, "healthy");
    assert_eq!(asked("bad").await, "unhealthy");
    assert_eq!(asked("unknown").await, "unhealthy");
    let plain = Backend::echo("plain").await;
    assert_eq!(verdict(plain.address(), "", "grpc: {}").await, "unhealthy");
}

#[tokio::test]
async fn one_of_four_black_holed_costs_nothing_with_checks() {
    let mut good = Vec::new();
    for name in ["a", "b", "c"] {
        good.push(Patient::new(name, 200).await);
    }
    let black_hole = SocketBackend::start().await;
    let mut all: Vec<_> = good.iter().map(Patient::address).collect();
    all.push(black_hole.address());
    let check = format!("health_check: {{http: {{path: /health}}, timeout: 200ms, {ONCE}}}");
    let gate = Meshgate::chain("").cluster_of("one", &all, &check).start().await;
    assert_eq!(count(&gate, 90, StatusCode::OK).await, 90);
    let shares: Vec<usize> = good.iter().map(Patient::requests).collect();
    assert!(shares.iter().all(|share| (29..=31).contains(share)), "{shares:?}");
}
