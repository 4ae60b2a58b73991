//! The standard filter `admission`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::Response;
use meshgate_tests::{Ask, Backend, Client, Meshgate, full, until, within};
use tokio::sync::Semaphore;

/// A service that works on four requests at a time, for 20 ms each. Others wait.
async fn service(most: &Arc<AtomicUsize>) -> Backend {
    let (seats, most, inside) =
        (Arc::new(Semaphore::new(4)), Arc::clone(most), Arc::new(AtomicUsize::new(0)));
    Backend::answering("one", move |_, _| {
        let (seats, most, inside) = (Arc::clone(&seats), Arc::clone(&most), Arc::clone(&inside));
        async move {
            most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let seat = seats.acquire().await;
            tokio::time::sleep(Duration::from_millis(20)).await;
            drop(seat);
            inside.fetch_sub(1, Ordering::SeqCst);
            Ok(Response::new(full("served")))
        }
    })
    .await
}

const CHAIN: &str = "
    - admission:
        name: shop
        min: 4
        max: 40
        initial: 40
        samples: 10
        priorities:
          - {name: critical, match: {headers: {x-priority: critical}}, share: 100}
          - {name: rest, share: 50}
    ";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_service_is_protected_and_what_matters_passes() {
    let most = Arc::new(AtomicUsize::new(0));
    let one = service(&most).await;
    let gate = Meshgate::chain(CHAIN).workers(2).cluster("one", &[&one]).start().await;
    // In peace, what a request takes is seen.
    let mut client = gate.client().await;
    for _ in 0..30 {
        assert_eq!(client.get("/").await.status, 200);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let mut crowd = Vec::new();
    for _ in 0..40 {
        let (mut client, stop) = (gate.client().await, Arc::clone(&stop));
        crowd.push(tokio::spawn(async move {
            let mut rejected = 0_usize;
            while !stop.load(Ordering::SeqCst) {
                let reply = client.get("/crowd").await;
                match reply.status.as_u16() {
                    200 => {}
                    503 => {
                        assert_eq!(
                            (reply.header("retry-after"), reply.header("x-envoy-overloaded")),
                            ("1", "true")
                        );
                        rejected += 1;
                        // As a client would that is told so, if not for so long.
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    other => panic!("{other}"),
                }
            }
            rejected
        }));
    }
    let mut critical = Vec::new();
    for _ in 0..2 {
        let mut client = gate.client().await;
        critical.push(tokio::spawn(async move {
            for _ in 0..50 {
                let reply = client.call(Ask::get("/").header("x-priority", "critical")).await;
                assert_eq!(reply.status, 200);
            }
        }));
    }
    for task in critical {
        within("what matters is served", task).await.unwrap();
    }
    let limit = || async { gate.metrics().await.sum("meshgate_admission_limit", &[("admission", "shop")]) };
    until("the limit falls", || async { (limit().await < 40.0).then_some(()) }).await;
    stop.store(true, Ordering::SeqCst);
    let mut rejected = 0;
    for task in crowd {
        rejected += within("the crowd leaves", task).await.unwrap();
    }
    assert!(rejected > 0);
    let most = most.load(Ordering::SeqCst);
    assert!(most <= 22, "half of the limit, and the two: {most}");
    let metrics = gate.metrics().await;
    let count = |priority, result| {
        let labels = [("admission", "shop"), ("priority", priority), ("result", result)];
        metrics.sum("meshgate_admission_requests_total", &labels) as usize
    };
    assert_eq!((count("critical", "admitted"), count("critical", "rejected")), (100, 0));
    assert_eq!(count("rest", "rejected"), rejected);
    assert_eq!(one.requests(), count("rest", "admitted") + 100);
    let flagged = [("flag", "DO")];
    assert_eq!(metrics.sum("meshgate_downstream_response_flags_total", &flagged) as usize, rejected);
}

#[tokio::test]
async fn places_are_free_again_when_clients_leave() {
    let one = Backend::answering("one", async |_, request| {
        if request.uri().path() == "/held" {
            std::future::pending::<()>().await;
        }
        Ok(Response::new(full("served")))
    })
    .await;
    let gate = Meshgate::chain("- admission: {name: shop, min: 2, max: 2, initial: 2}")
        .workers(2)
        .cluster("one", &[&one])
        .start()
        .await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut client = gate.client().await;
        held.push(tokio::spawn(async move { client.get("/held").await.status }));
    }
    until("two are held", || async { (one.requests() == 2).then_some(()) }).await;
    let reply = gate.get("/turned-away").await;
    assert_eq!((reply.status.as_u16(), reply.text()), (503, "too many requests at a time".to_owned()));
    let entry = gate.access("/turned-away").await;
    assert_eq!(
        (&entry["response_flags"], &entry["response_code_details"]),
        (&"DO".into(), &"admission_limited".into())
    );
    let grpc = Ask::post("/a.B/C", "").header("content-type", "application/grpc");
    let reply = Client::http2(gate.address()).await.call(grpc).await;
    assert_eq!((reply.status.as_u16(), reply.header("grpc-status")), (200, "14"));
    held.iter().for_each(tokio::task::JoinHandle::abort);
    until("there is a place", || async { (gate.get("/").await.status == 200).then_some(()) }).await;
}
