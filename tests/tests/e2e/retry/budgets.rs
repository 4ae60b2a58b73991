//! How many retries there may be: the cluster's limit and the filter's two kinds of budget.

use std::sync::Arc;

use meshgate_tests::{Answer, Ask, Backend, Client, Meshgate, Reply, Seen, until, within};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{answering, number, retried, status};

/// Parks `/parked` and every try after a request's first, until it is opened; answers first tries by 500.
struct Parking {
    backend: Backend,
    open: watch::Sender<bool>,
}

impl Parking {
    async fn new() -> Parking {
        let (open, gate) = watch::channel(false);
        let gate = Arc::new(gate);
        let answer = move |seen: Seen, _| {
            let gate = Arc::clone(&gate);
            async move {
                if seen.path == "/parked" || number(&seen) > 1 {
                    let _ = gate.as_ref().clone().wait_for(|open| *open).await;
                    return status(200) as Answer;
                }
                status(500)
            }
        };
        Parking { backend: Backend::answering("parking", answer).await, open }
    }

    async fn gate(&self, filter: &str, retries: usize) -> Meshgate {
        let keys = format!("limits: {{retries: {retries}, connections: 1000, active_requests: 1000}}");
        let setup = Meshgate::chain(&format!("- retry: {filter}")).workers(2);
        setup.cluster_of("one", &[self.backend.address()], &keys).start().await
    }
}

/// Sends a request on a connection of its own.
fn ask(gate: &Meshgate, path: &str) -> JoinHandle<Reply> {
    let (address, path) = (gate.address(), path.to_owned());
    tokio::spawn(async move { Client::http1(address).await.get(&path).await })
}

async fn in_use(gate: &Meshgate, limit: &str, count: f64) {
    let labels = [("cluster", "one"), ("limit", limit)];
    let so_many =
        || async { (gate.metrics().await.sum("meshgate_cluster_in_use", &labels) == count).then_some(()) };
    until(format!("{count} {limit}"), so_many).await;
}

async fn refused(gate: &Meshgate) -> (f64, f64) {
    let metrics = gate.metrics().await;
    let overflows = [("cluster", "one"), ("limit", "retries")];
    (
        metrics.sum("meshgate_cluster_overflows_total", &overflows),
        metrics.sum("meshgate_retries_refused_total", &[("because", "budget")]),
    )
}

async fn all(asked: Vec<JoinHandle<Reply>>) -> Vec<u16> {
    let mut statuses = Vec::new();
    for reply in asked {
        statuses.push(within("a reply", reply).await.unwrap().status.as_u16());
    }
    statuses
}

#[tokio::test]
async fn the_clusters_limit_is_exact_and_what_is_too_much_is_delivered_and_counted() {
    let parking = Parking::new().await;
    let gate = parking.gate("{if: [5xx]}", 2).await;
    let under_way: Vec<_> = (0..2).map(|_| ask(&gate, "/")).collect();
    in_use(&gate, "retries", 2.0).await;
    parking.backend.wait_for_requests(4).await;
    for _ in 0..5 {
        assert_eq!(gate.get("/").await.status, 500);
    }
    assert_eq!((refused(&gate).await, retried(&gate).await), ((5.0, 0.0), 2.0));
    parking.open.send_replace(true);
    assert_eq!(all(under_way).await, [200; 2]);
    in_use(&gate, "retries", 0.0).await;
    assert_eq!(gate.get("/").await.status, 200);
}

#[tokio::test]
async fn row_7_a_concurrency_budget_is_a_share_of_what_is_under_way() {
    let parking = Parking::new().await;
    let gate = parking.gate("{if: [5xx], budget: {percent: 20, min_concurrency: 1}}", 1_000).await;
    let mut under_way: Vec<_> = (0..18).map(|_| ask(&gate, "/parked")).collect();
    in_use(&gate, "active_requests", 18.0).await;
    // A fifth of the 19 to 22 that are under way is three, and then four.
    for retries in 1..=4 {
        under_way.push(ask(&gate, "/"));
        in_use(&gate, "retries", f64::from(retries)).await;
        in_use(&gate, "active_requests", f64::from(18 + retries)).await;
    }
    // With this one 23 are, which is no more than four.
    for _ in 0..5 {
        assert_eq!(gate.get("/").await.status, 500);
    }
    assert_eq!((refused(&gate).await, retried(&gate).await), ((0.0, 5.0), 4.0));
    parking.open.send_replace(true);
    assert_eq!(all(under_way).await, [200; 22]);
    // With nothing else under way there is the floor.
    in_use(&gate, "active_requests", 0.0).await;
    assert_eq!(gate.get("/").await.status, 200);
}

#[tokio::test]
async fn row_7_a_rate_budget_holds_where_everything_fails() {
    let bad = answering(false, &[500]).await;
    let chain = "- retry: {if: [5xx], attempts: 3, back_off: {base: 0ms}, budget: {ratio: 0.2, min_per_second: 1, ttl: 60s}}";
    let setup = Meshgate::chain(chain).cluster_of("one", &[bad.address()], "limits: {retries: 1000}");
    for workers in [1, 2] {
        let before = bad.requests();
        let gate = setup.clone().workers(workers).start().await;
        let mut clients: Vec<_> = Vec::new();
        for _ in 0..8 {
            clients.push(gate.client().await);
        }
        for number in 0..400 {
            assert_eq!(clients[number % 8].call(Ask::get("/")).await.status, 500);
        }
        // A fifth of 400, and one for each of 60 seconds, whatever the number of workers; what a worker has left over of less
        // than five requests is lost.
        let most = 400 + 80 + 60;
        let hits = bad.requests() - before;
        assert!((most - (workers - 1)..=most).contains(&hits), "{hits} with {workers} workers");
        assert_eq!(retried(&gate).await, (hits - 400) as f64);
    }
}
