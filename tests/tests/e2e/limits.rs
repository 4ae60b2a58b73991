//! The limits of clusters: never one too many, nothing lost on any way out, and what clients are told.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Response;
use meshgate_tests::{
    Ask, Backend, Client, Meshgate, Reply, Seen, Socket, SocketBackend, full, until, within,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::tcp;

/// Which connections have requests on them.
#[derive(Clone, Default)]
struct Busy(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Requests by backend and connection.
    requests: HashMap<(u8, usize), usize>,
    most_connections: usize,
    most_requests: usize,
}

impl Busy {
    /// Counts a request until the answer is dropped.
    fn request(&self, backend: u8, seen: &Seen) -> Answering {
        let on = (backend, seen.connection);
        let mut state = self.0.lock().unwrap();
        *state.requests.entry(on).or_default() += 1;
        state.most_connections = state.most_connections.max(state.requests.len());
        state.most_requests = state.most_requests.max(state.requests.values().sum());
        Answering { busy: self.clone(), on }
    }

    fn requests(&self) -> usize {
        self.0.lock().unwrap().requests.values().sum()
    }

    /// Most connections with requests on them at a time, and most requests.
    fn most(&self) -> (usize, usize) {
        let state = self.0.lock().unwrap();
        (state.most_connections, state.most_requests)
    }
}

struct Answering {
    busy: Busy,
    on: (u8, usize),
}

impl Drop for Answering {
    fn drop(&mut self) {
        let requests = &mut self.busy.0.lock().unwrap().requests;
        let left = requests.get_mut(&self.on).unwrap();
        *left -= 1;
        if *left == 0 {
            requests.remove(&self.on);
        }
    }
}

/// Answers after a moment.
async fn slow(number: u8, http2: bool, busy: &Busy) -> Backend {
    let busy = busy.clone();
    let answer = move |seen: Seen, _| {
        let answering = busy.request(number, &seen);
        async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            drop(answering);
            Ok(Response::new(full("done")))
        }
    };
    if http2 { Backend::http2("slow", answer).await } else { Backend::answering("slow", answer).await }
}

/// Answers when it is told to.
struct Gated {
    backend: Backend,
    open: watch::Sender<bool>,
    busy: Busy,
}

impl Gated {
    async fn new(http2: bool) -> Gated {
        let (open, gate) = watch::channel(false);
        let busy = Busy::default();
        let counted = busy.clone();
        let answer = move |seen: Seen, _| {
            let (mut gate, answering) = (gate.clone(), counted.request(0, &seen));
            async move {
                let _ = gate.wait_for(|open| *open).await;
                drop(answering);
                Ok(Response::new(full("late")))
            }
        };
        let backend = match http2 {
            true => Backend::http2("gated", answer).await,
            false => Backend::answering("gated", answer).await,
        };
        Gated { backend, open, busy }
    }

    /// Waits until so many requests wait for their answers.
    async fn has(&self, count: usize) {
        let all_there = || async { (self.busy.requests() == count).then_some(()) };
        until(format!("{count} requests at the backend"), all_there).await;
    }

    fn answer(&self) {
        self.open.send_replace(true);
    }
}

async fn gate(backend: &Backend, workers: usize, keys: &str) -> Meshgate {
    Meshgate::chain("").workers(workers).cluster_of("one", &[backend.address()], keys).start().await
}

/// Sends a request on a connection of its own.
fn ask(gate: &Meshgate, path: &str) -> JoinHandle<Reply> {
    let (address, path) = (gate.address(), path.to_owned());
    tokio::spawn(async move { Client::http1(address).await.get(&path).await })
}

async fn all(asked: Vec<JoinHandle<Reply>>) -> Vec<u16> {
    let mut statuses = Vec::new();
    for reply in asked {
        statuses.push(within("a reply", reply).await.unwrap().status.as_u16());
    }
    statuses
}

/// How many of this limit's kind there are now.
async fn in_use(gate: &Meshgate, limit: &str) -> f64 {
    gate.metrics().await.sum("meshgate_cluster_in_use", &[("cluster", "one"), ("limit", limit)])
}

async fn overflows(gate: &Meshgate, limit: &str) -> f64 {
    gate.metrics().await.sum("meshgate_cluster_overflows_total", &[("cluster", "one"), ("limit", limit)])
}

async fn until_in_use(gate: &Meshgate, limit: &str, count: f64) {
    until(format!("{count} {limit}"), || async { (in_use(gate, limit).await == count).then_some(()) }).await;
}

/// What a request that is one too many gets.
async fn assert_refused(gate: &Meshgate, path: &str) {
    let reply = gate.get(path).await;
    assert_eq!((reply.status.as_u16(), reply.header("x-envoy-overloaded")), (503, "true"));
    let entry = gate.access(path).await;
    assert_eq!(
        (&entry["response_flags"], &entry["response_code_details"]),
        (&"UO".into(), &"upstream_overflow".into())
    );
}

#[tokio::test]
async fn two_hundred_requests_share_ten_connections() {
    for (http2, protocol) in [(false, "http1"), (true, "http2")] {
        let busy = Busy::default();
        let backend = slow(0, http2, &busy).await;
        let keys = format!("protocol: {protocol}, limits: {{connections: 10}}");
        let gate = gate(&backend, 2, &keys).await;
        let statuses = all((0..200).map(|_| ask(&gate, "/")).collect()).await;
        assert_eq!(statuses, [200; 200]);
        let (connections, requests) = busy.most();
        assert!(
            (1..=10).contains(&connections) && (http2 || requests == connections),
            "{connections} {requests}"
        );
        until_in_use(&gate, "active_requests", 0.0).await;
        until_in_use(&gate, "pending_requests", 0.0).await;
    }
}

#[tokio::test]
async fn one_active_request_too_many_is_refused_at_once() {
    for (http2, protocol) in [(false, "http1"), (true, "http2")] {
        let gated = Gated::new(http2).await;
        let keys = format!("protocol: {protocol}, limits: {{active_requests: 3}}");
        let gate = gate(&gated.backend, 2, &keys).await;
        let parked: Vec<_> = (0..3).map(|_| ask(&gate, "/parked")).collect();
        gated.has(3).await;
        for number in 0..5 {
            assert_refused(&gate, &format!("/{number}")).await;
        }
        assert_eq!(overflows(&gate, "active_requests").await, 5.0);
        assert_eq!(in_use(&gate, "active_requests").await, 3.0);
        let page = gate.admin("/clusters").await.json();
        let shown = &page["clusters"][0]["limits"]["active_requests"];
        assert_eq!(*shown, serde_json::json!({"now": 3, "most": 3, "overflows": 5}), "{page}");
        gated.answer();
        assert_eq!(all(parked).await, [200; 3]);
        until_in_use(&gate, "active_requests", 0.0).await;
        assert_eq!(gate.get("/after").await.status, 200);
        assert_eq!(gated.busy.most().1, 3);
    }
}

#[tokio::test]
async fn one_pending_request_too_many_is_refused_and_the_others_have_their_turn() {
    let gated = Gated::new(false).await;
    let gate = gate(&gated.backend, 2, "limits: {connections: 2, pending_requests: 3}").await;
    let mut parked: Vec<_> = (0..2).map(|_| ask(&gate, "/parked")).collect();
    gated.has(2).await;
    parked.extend((0..3).map(|_| ask(&gate, "/waiting")));
    until_in_use(&gate, "pending_requests", 3.0).await;
    assert_refused(&gate, "/too-many").await;
    assert_eq!((gated.busy.requests(), in_use(&gate, "active_requests").await), (2, 2.0));
    gated.answer();
    assert_eq!(all(parked).await, [200; 5]);
    assert_eq!(overflows(&gate, "pending_requests").await, 1.0);
    until_in_use(&gate, "pending_requests", 0.0).await;
    assert_eq!(gated.busy.most(), (2, 2));
}

#[tokio::test]
async fn request_that_waited_too_long_is_refused() {
    let gated = Gated::new(false).await;
    let gate = gate(&gated.backend, 1, "limits: {connections: 1, pending_timeout: 50ms}").await;
    let parked = ask(&gate, "/parked");
    gated.has(1).await;
    assert_refused(&gate, "/late").await;
    gated.answer();
    assert_eq!(all(vec![parked]).await, [200]);
}

#[tokio::test]
async fn time_in_our_own_queue_is_not_the_endpoints_fault() {
    // Over HTTP/2, the backend takes two hundred requests at a time on the one connection.
    for (http2, protocol, room) in [(false, "http1", 1), (true, "http2", 200)] {
        let gated = Gated::new(http2).await;
        let keys = format!(
            "protocol: {protocol}, limits: {{connections: 1}}, outlier_detection: {{consecutive_local_errors: 1, max_ejection_percent: 100}}"
        );
        let routes = "[{name: impatient, match: {path: /impatient}, to: one, timeout: 100ms}, {name: rest, match: {path: /**}, to: one}]";
        let setup = Meshgate::chain(&format!("- routing: {{routes: {routes}}}"));
        let gate = setup.workers(1).cluster_of("one", &[gated.backend.address()], &keys).start().await;
        let ejections = || async {
            gate.admin("/clusters").await.json()["clusters"][0]["endpoints"][0]["ejections"].as_u64()
        };
        let parked: Vec<_> = (0..room).map(|_| ask(&gate, "/parked")).collect();
        gated.has(room).await;
        assert_eq!(gate.get("/impatient").await.status, 504);
        assert_eq!((gated.busy.requests(), ejections().await), (room, Some(0)), "{protocol}");
        // The same at the endpoint is its fault.
        parked[0].abort();
        if http2 {
            gated.has(room - 1).await;
        } else {
            until_in_use(&gate, "connections", 0.0).await;
        }
        assert_eq!(gate.get("/impatient").await.status, 504);
        assert_eq!(ejections().await, Some(1), "{protocol}");
    }
}

#[tokio::test]
async fn clients_that_leave_leave_nothing_behind() {
    for (http2, protocol) in [(false, "http1"), (true, "http2")] {
        let gated = Gated::new(http2).await;
        let keys = format!("protocol: {protocol}, limits: {{connections: 2, active_requests: 4}}");
        let gate = gate(&gated.backend, 1, &keys).await;
        let expected = if http2 { 4 } else { 2 };
        let parked: Vec<_> = (0..expected).map(|_| ask(&gate, "/parked")).collect();
        gated.has(expected).await;
        let waiting: Vec<_> = (0..if http2 { 0 } else { 3 }).map(|_| ask(&gate, "/waiting")).collect();
        until_in_use(&gate, "pending_requests", waiting.len() as f64).await;
        for left in waiting {
            left.abort();
        }
        until_in_use(&gate, "pending_requests", 0.0).await;
        for left in parked {
            left.abort();
        }
        until_in_use(&gate, "active_requests", 0.0).await;
        gated.answer();
        assert_eq!(gate.get("/after").await.status, 200);
        let connections = if http2 { 2.0 } else { 1.0 };
        until("the broken connections are gone", || async {
            (in_use(&gate, "connections").await <= connections).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn the_only_connection_goes_where_it_is_needed() {
    // Two endpoints and two workers take turns with one connection: whoever has it idle makes room.
    let busy = Busy::default();
    let backends = [slow(1, false, &busy).await, slow(2, false, &busy).await];
    let addresses = backends.each_ref().map(Backend::address);
    let keys = "limits: {connections: 1}";
    let gate = Meshgate::chain("").workers(2).cluster_of("one", &addresses, keys).start().await;
    for _ in 0..10 {
        let statuses = all((0..6).map(|_| ask(&gate, "/")).collect()).await;
        assert_eq!(statuses, [200; 6]);
    }
    assert_eq!(busy.most(), (1, 1));
    let shares = backends.each_ref().map(Backend::requests);
    assert!(shares.iter().sum::<usize>() == 60 && shares.iter().all(|share| *share > 0), "{shares:?}");
    assert!(in_use(&gate, "connections").await <= 1.0);
}

#[tokio::test]
async fn connections_that_fail_and_time_out_are_given_back() {
    let gone = Backend::echo("gone").await.address();
    let gate = Meshgate::chain("").cluster_of("one", &[gone], "limits: {connections: 2}").start().await;
    for _ in 0..10 {
        assert_eq!(gate.get("/").await.status, 503);
    }
    assert_eq!(in_use(&gate, "connections").await + in_use(&gate, "active_requests").await, 0.0);

    let gated = Gated::new(false).await;
    let setup = Meshgate::chain("").listener("request_timeout: 20ms");
    let gate = setup.cluster_of("one", &[gated.backend.address()], "limits: {connections: 2}").start().await;
    for _ in 0..10 {
        assert_eq!(gate.get("/").await.status, 504);
    }
    until_in_use(&gate, "connections", 0.0).await;
    until_in_use(&gate, "active_requests", 0.0).await;
}

#[tokio::test]
async fn limits_change_by_a_reload_and_keep_their_counts() {
    let gated = Gated::new(false).await;
    let setup = |keys: &str| Meshgate::chain("").cluster_of("one", &[gated.backend.address()], keys);
    let gate = setup("limits: {active_requests: 2}").start().await;
    let mut parked: Vec<_> = (0..2).map(|_| ask(&gate, "/parked")).collect();
    gated.has(2).await;
    assert_refused(&gate, "/before").await;
    let before = gate.reload().await;
    gate.edit("meshgate.yaml", setup("connect_timeout: 4s, limits: {active_requests: 3}").yaml());
    gate.reloaded(&before).await;
    parked.push(ask(&gate, "/parked"));
    gated.has(3).await;
    assert_refused(&gate, "/after").await;
    assert_eq!(overflows(&gate, "active_requests").await, 2.0);
    gated.answer();
    assert_eq!(all(parked).await, [200; 3]);
    until_in_use(&gate, "active_requests", 0.0).await;
}

#[tokio::test]
async fn sessions_are_closed_when_there_are_too_many() {
    let backend = SocketBackend::start().await;
    let gate = Meshgate::chain("")
        .listener("protocol: tcp")
        .cluster_of("one", &[backend.address()], "limits: {connections: 1}")
        .start()
        .await;
    let (mut client, mut server) = tcp::connected(&gate, &backend).await;
    let mut refused = Socket::connect(gate.address()).await;
    assert_eq!(refused.end().await.bytes, b"");
    let entry = tcp::entry(&gate, 0).await;
    assert_eq!(
        (&entry["response_flags"], &entry["response_code_details"]),
        (&"UO".into(), &"upstream_overflow".into())
    );
    client.write("ping").await;
    server.expect("ping").await;
    drop((client, server));
    until_in_use(&gate, "connections", 0.0).await;
    let (mut client, mut server) = tcp::connected(&gate, &backend).await;
    client.write("pong").await;
    server.expect("pong").await;
}

#[tokio::test]
async fn requests_of_http2_clients_count_one_by_one() {
    let gated = Gated::new(false).await;
    let gate = gate(&gated.backend, 1, "limits: {active_requests: 2}").await;
    let mut client = Client::http2(gate.address()).await;
    let mut begun = Vec::new();
    for _ in 0..2 {
        begun.push(client.begin(Ask::get("/parked")).await.unwrap());
    }
    gated.has(2).await;
    let reply = client.get("/third").await;
    assert_eq!((reply.status.as_u16(), reply.header("x-envoy-overloaded")), (503, "true"));
    gated.answer();
    for head in begun {
        assert_eq!(within("a head", head).await.unwrap().status(), 200);
    }
}
