//! Load balancers, outlier detection and slow start that a reload changes: requests under way end as they began, what is known of
//! the endpoints stays, and the new settings hold for the next request.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use http::Response;
use meshgate_tests::{
    Ask, Backend, Begun, Client, Load, Meshgate, Reply, Seen, Setup, full, until, within,
    within_binomial_bounds,
};
use tokio::sync::Semaphore;

/// Endpoints that answer at once, all but requests for `/held`: these wait for a permit each.
struct World {
    backends: Vec<Backend>,
    permits: Arc<Semaphore>,
    /// How many requests for `/held` wait, or have waited.
    held: Arc<AtomicUsize>,
}

impl World {
    /// Endpoints of these names. Those named `bad` answer 500.
    async fn of(names: &[&'static str]) -> World {
        let (permits, held) = (Arc::new(Semaphore::new(0)), Arc::<AtomicUsize>::default());
        let mut backends = Vec::new();
        for name in names.iter().copied() {
            let (permits, held) = (Arc::clone(&permits), Arc::clone(&held));
            let answer = move |seen: Seen, _| {
                let (permits, held) = (Arc::clone(&permits), Arc::clone(&held));
                async move {
                    if seen.path == "/held" {
                        held.fetch_add(1, SeqCst);
                        permits.acquire().await.unwrap().forget();
                    }
                    let status = if name == "bad" { 500 } else { 200 };
                    Ok(Response::builder()
                        .status(status)
                        .header("x-backend", name)
                        .body(full(seen.path))
                        .unwrap())
                }
            };
            backends.push(Backend::answering(name, answer).await);
        }
        World { backends, permits, held }
    }

    /// A proxy in front of the first so many of them, whose cluster has these keys.
    fn setup(&self, endpoints: usize, keys: &str) -> Setup {
        let addresses: Vec<SocketAddr> = self.backends[..endpoints].iter().map(Backend::address).collect();
        Meshgate::chain("").cluster_of("one", &addresses, keys)
    }

    /// Has the proxy load the configuration with these endpoints and keys.
    async fn change(&self, gate: &Meshgate, endpoints: usize, keys: &str) {
        let before = gate.reload().await;
        gate.replace("meshgate.yaml", self.setup(endpoints, keys).yaml());
        gate.reloaded(&before).await;
    }

    /// A request that an endpoint has got and not answered yet.
    async fn hold(&self, gate: &Meshgate) -> (Client, Begun) {
        let before = self.held.load(SeqCst);
        let mut client = gate.client().await;
        let begun = client.begin(Ask::get("/held")).await.unwrap();
        until("the endpoint has it", || async { (self.held.load(SeqCst) > before).then_some(()) }).await;
        (client, begun)
    }

    /// Has all that are held answered, which must be as good as if nothing had happened.
    async fn release(&self, held: Vec<(Client, Begun)>) {
        self.permits.add_permits(held.len());
        for (_client, begun) in held {
            let reply = Reply::collect(within("an answer", begun).await.unwrap()).await.unwrap();
            assert_eq!(reply.text(), "/held");
        }
    }
}

/// Sends so many requests one after the other, with this user; counts the endpoints' names.
async fn answers(gate: &Meshgate, user: &str, requests: usize) -> BTreeMap<String, usize> {
    let mut client = gate.client().await;
    let mut counts = BTreeMap::new();
    for _ in 0..requests {
        let reply = client.call(Ask::get("/").header("x-user", user)).await;
        *counts.entry(reply.header("x-backend").to_owned()).or_default() += 1;
    }
    counts
}

/// Load that must be answered by 200.
fn load(gate: &Meshgate) -> Load {
    let judge =
        |reply: &Reply| if reply.status == 200 { Ok(()) } else { Err(format!("status {}", reply.status)) };
    Load::start(gate.address(), 4, || Ask::get("/"), judge)
}

#[tokio::test]
async fn another_load_balancer_chooses_from_the_next_request_on() {
    const REQUESTS: usize = 900;
    let world = World::of(&["a", "b", "c"]).await;
    let gate = world.setup(3, "load_balancer: round_robin").start().await;
    let mut held = vec![world.hold(&gate).await];
    let load = load(&gate);

    world.change(&gate, 3, "load_balancer: {maglev: {by: {header: x-user}}}").await;
    held.push(world.hold(&gate).await);
    for user in ["anna", "berta", "carla"] {
        assert_eq!(answers(&gate, user, 30).await.len(), 1, "{user} has one endpoint");
    }
    world.change(&gate, 3, "load_balancer: random").await;
    held.push(world.hold(&gate).await);
    let drawn = answers(&gate, "anna", REQUESTS).await;
    for name in ["a", "b", "c"] {
        assert!(within_binomial_bounds(drawn[name], REQUESTS, 1.0 / 3.0), "{drawn:?}");
    }
    assert!(load.stop().await.all_good() > 0);

    // Nobody else is there now: each in its turn.
    world.change(&gate, 3, "load_balancer: round_robin").await;
    assert!(answers(&gate, "anna", 30).await.values().all(|count| *count == 10));
    world.change(&gate, 3, "load_balancer: least_request").await;
    // What is held is counted all the time, whoever chose the endpoints.
    until("only what is held is under way", || async {
        let page = gate.admin("/clusters").await.json();
        let endpoints = page["clusters"][0]["endpoints"].as_array().unwrap();
        let active = endpoints.iter().map(|endpoint| endpoint["active_requests"].as_u64().unwrap());
        (active.sum::<u64>() == 3).then_some(())
    })
    .await;
    world.release(held).await;
}

#[tokio::test]
async fn another_outlier_detection_goes_on_with_what_was_counted() {
    let world = World::of(&["bad", "good"]).await;
    let bad = &world.backends[0];
    let keys = |errors: usize| {
        format!(
            "outlier_detection: {{consecutive_errors: {errors}, ejection_time: 1h, max_ejection_percent: 50}}"
        )
    };
    let gate = world.setup(2, "").start().await;
    let held = vec![world.hold(&gate).await];
    let load = Load::start(gate.address(), 2, || Ask::get("/"), |_| Ok(()));
    load.wait_for_more(40).await;
    load.stop().await.all_good();
    assert!(bad.requests() >= 19, "without outlier detection none is left out");

    world.change(&gate, 2, &keys(1_000)).await;
    let before = bad.requests();
    assert_eq!(
        answers(&gate, "", 20).await,
        BTreeMap::from([("bad".to_owned(), 10), ("good".to_owned(), 10)])
    );
    // Ten errors in a row are more than enough now: the next one is the last.
    world.change(&gate, 2, &keys(5)).await;
    assert_eq!(bad.requests(), before + 10, "a reload by itself ejects nobody");
    let seen = answers(&gate, "", 20).await;
    assert_eq!(seen, BTreeMap::from([("bad".to_owned(), 1), ("good".to_owned(), 19)]));

    // It stays away under another setting, too.
    world.change(&gate, 2, &keys(50)).await;
    assert_eq!(answers(&gate, "", 20).await, BTreeMap::from([("good".to_owned(), 20)]));
    let page = gate.admin("/clusters").await.json();
    assert_eq!(page["clusters"][0]["endpoints"][0]["ejections"], 1, "{page}");
    // Without outlier detection, nobody is ejected any more.
    world.change(&gate, 2, "").await;
    assert_eq!(answers(&gate, "", 20).await.len(), 2);
    world.release(held).await;
}

#[tokio::test]
async fn slow_start_that_is_switched_on_or_off_holds_at_once_for_endpoints_that_are_new() {
    let world = World::of(&["a", "b", "c"]).await;
    let gate = world.setup(2, "").start().await;
    let held = vec![world.hold(&gate).await];
    let load = load(&gate);
    load.wait_for_more(20).await;
    world.change(&gate, 3, "").await;
    load.wait_for_more(20).await;
    world.change(&gate, 3, "slow_start: 1h").await;
    load.wait_for_more(20).await;
    load.stop().await.all_good();

    let count = async || {
        let seen = answers(&gate, "", 210).await;
        assert!(seen["a"].abs_diff(seen["b"]) <= 2, "{seen:?}");
        seen["c"]
    };
    // The third one came while the proxy ran: a tenth beside two whole ones, of 210.
    assert!((8..=12).contains(&count().await));
    world.change(&gate, 3, "").await;
    assert!((69..=71).contains(&count().await), "its whole share");
    world.change(&gate, 3, "slow_start: 2h").await;
    assert!((8..=12).contains(&count().await));
    world.release(held).await;
}
