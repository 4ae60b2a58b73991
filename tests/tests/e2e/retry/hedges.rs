//! Another try beside one that takes long.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Response;
use meshgate_tests::{Ask, Backend, Meshgate, Seen, full, until};

use super::{before, number, requests_that_ended, retried};

/// Counts what was broken off before it was answered.
#[derive(Clone, Default)]
struct BrokenOff(Arc<AtomicUsize>);

struct Answering(Option<BrokenOff>);

impl Answering {
    fn answered(mut self) {
        self.0 = None;
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        if let Some(broken_off) = &self.0 {
            broken_off.0.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Never answers a first try; `path` says how many more it does not.
async fn silent(http2: bool, broken_off: &BrokenOff) -> Backend {
    let broken_off = broken_off.clone();
    let answer = move |seen: Seen, _| {
        let answering = Answering(Some(broken_off.clone()));
        async move {
            if number(&seen) < 2 {
                std::future::pending::<()>().await;
            }
            answering.answered();
            Ok(Response::new(full(number(&seen).to_string())))
        }
    };
    if http2 { Backend::http2("silent", answer).await } else { Backend::answering("silent", answer).await }
}

#[tokio::test]
async fn the_first_response_counts_and_the_other_try_is_broken_off() {
    for http2 in [false, true] {
        let broken_off = BrokenOff::default();
        let backend = silent(http2, &broken_off).await;
        let gate = before(&backend, http2, "{hedge: {after: 50ms}}").start().await;
        let reply = gate.get("/").await;
        assert_eq!((reply.status.as_u16(), reply.text().as_str(), backend.requests()), (200, "2", 2));
        until("the loser is broken off", || async {
            (broken_off.0.load(Ordering::SeqCst) == 1).then_some(())
        })
        .await;
        let metrics = gate.metrics().await;
        assert_eq!(metrics.sum("meshgate_retries_total", &[("because", "hedge")]), 1.0);
        assert_eq!(retried(&gate).await, 1.0);
        requests_that_ended(&gate, "2xx", 1.0).await;
        let nothing = || async {
            let labels = [("cluster", "one")];
            (gate.metrics().await.sum("meshgate_cluster_in_use", &labels[..1]) <= 1.0).then_some(())
        };
        until("nothing is held but an idle connection", nothing).await;
    }
}

#[tokio::test]
async fn what_must_not_be_done_twice_waits() {
    let broken_off = BrokenOff::default();
    let backend = silent(false, &broken_off).await;
    let setup = before(&backend, false, "{hedge: {after: 20ms}}").listener("request_timeout: 300ms");
    let gate = setup.start().await;
    assert_eq!((gate.call(Ask::post("/", "x")).await.status.as_u16(), backend.requests()), (504, 1));
    let named = "{hedge: {after: 20ms}, methods: [POST]}";
    let gate = before(&backend, false, named).start().await;
    assert_eq!((gate.call(Ask::post("/", "x")).await.text().as_str(), backend.requests()), ("2", 3));
}

#[tokio::test]
async fn a_hedge_is_a_retry_to_the_budgets() {
    let broken_off = BrokenOff::default();
    let backend = silent(false, &broken_off).await;
    let limited = Meshgate::chain("- retry: {hedge: {after: 20ms}}").listener("request_timeout: 300ms");
    let gate = limited.cluster_of("one", &[backend.address()], "limits: {retries: 0}").start().await;
    assert_eq!((gate.get("/").await.status.as_u16(), backend.requests()), (504, 1));
    let overflows = [("cluster", "one"), ("limit", "retries")];
    assert_eq!(gate.metrics().await.sum("meshgate_cluster_overflows_total", &overflows), 1.0);
}

#[tokio::test]
async fn a_failure_beside_another_try_waits_for_that() {
    // The first try fails when the second has come; the second is answered well, when the first has failed.
    let second = Arc::new(tokio::sync::Notify::new());
    let answer = move |seen: Seen, _| {
        let second = Arc::clone(&second);
        async move {
            if number(&seen) == 1 {
                second.notified().await;
                return super::status(500);
            }
            second.notify_one();
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            super::status(200)
        }
    };
    let backend = Backend::answering("both", answer).await;
    let gate = before(&backend, false, "{if: [5xx], hedge: {after: 30ms}, attempts: 1}").start().await;
    assert_eq!((gate.get("/").await.status.as_u16(), backend.requests()), (200, 2));
}

/// When a try takes longer than most is known when enough have been seen.
#[tokio::test]
async fn row_6_retries_hedge_what_takes_longer_than_most() {
    let answer = |seen: Seen, _| async move {
        if seen.path.starts_with("/slow") && number(&seen) < 2 {
            std::future::pending::<()>().await;
        }
        Ok(Response::new(full(number(&seen).to_string())))
    };
    let backend = Backend::answering("slow once", answer).await;
    let filter = "{hedge: {percentile: 95, at_least: 100ms}}";
    let gate = before(&backend, false, filter).listener("request_timeout: 1s").start().await;
    let mut client = gate.client().await;
    for _ in 0..90 {
        client.get("/quick").await;
    }
    let hits = |path: &str| backend.seen().iter().filter(|seen| seen.path == path).count();
    assert_eq!(
        (gate.get("/slow/early").await.status.as_u16(), hits("/slow/early")),
        (504, 1),
        "nothing is known yet"
    );
    for _ in 0..10 {
        client.get("/quick").await;
    }
    let reply = gate.get("/slow/late").await;
    assert_eq!((reply.status.as_u16(), reply.text().as_str(), hits("/slow/late")), (200, "2", 2));
    assert!(gate.metrics().await.sum("meshgate_retries_total", &[("because", "hedge")]) >= 1.0);
}
