//! The standard filter `fault`.

use std::time::{Duration, Instant};

use http::Response;
use meshgate_tests::{Ask, Backend, Client, Meshgate, full, until, within_binomial_bounds};

#[tokio::test]
async fn a_share_of_requests_is_aborted_and_never_arrives() {
    const DRAWS: usize = 4_000;
    let one = Backend::echo("one").await;
    let gate =
        Meshgate::chain("- fault: {abort: {percent: 5, status: 555}}").cluster("one", &[&one]).start().await;
    let mut client = gate.client().await;
    let mut aborted = 0;
    for _ in 0..DRAWS {
        match client.get("/").await.status.as_u16() {
            200 => {}
            555 => aborted += 1,
            other => panic!("{other}"),
        }
    }
    assert_eq!(one.requests(), DRAWS - aborted);
    assert!(within_binomial_bounds(aborted, DRAWS, 0.05), "{aborted} of {DRAWS} for 5 %");
    assert!(aborted > 0);
    let metrics = gate.metrics().await;
    assert_eq!(metrics.sum("meshgate_faults_total", &[("fault", "abort")]) as usize, aborted);
    assert_eq!(metrics.sum("meshgate_downstream_response_flags_total", &[("flag", "FI")]) as usize, aborted);
}

#[tokio::test]
async fn a_share_of_requests_is_delayed_and_answered_as_ever() {
    const DRAWS: usize = 400;
    const DELAY: Duration = Duration::from_millis(60);
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain("- fault: {delay: {percent: 25, duration: 60ms}}")
        .cluster("one", &[&one])
        .start()
        .await;
    let mut client = gate.client().await;
    for _ in 0..DRAWS {
        let reply = client.get("/").await;
        assert_eq!((reply.status.as_u16(), reply.header("x-backend")), (200, "one"));
    }
    assert_eq!(one.requests(), DRAWS);
    let entries = gate.stop().await.access_log;
    let delayed: Vec<_> = entries.iter().filter(|entry| entry["response_flags"] == "DI").collect();
    assert!(within_binomial_bounds(delayed.len(), DRAWS, 0.25), "{} of {DRAWS} for 25 %", delayed.len());
    for entry in delayed {
        assert!(entry["duration_ms"].as_u64().unwrap() >= DELAY.as_millis() as u64, "{entry}");
        assert_eq!(entry["fields"]["fault.delay"], "60ms");
    }
}

#[tokio::test]
async fn never_and_always_are_exact() {
    let one = Backend::echo("one").await;
    let never = "- fault: {delay: {percent: 0, duration: 10s}, abort: {percent: 0, status: 503}}";
    let gate = Meshgate::chain(never).cluster("one", &[&one]).start().await;
    let mut client = gate.client().await;
    for _ in 0..2_000 {
        assert_eq!(client.get("/").await.status, 200);
    }
    let gate = Meshgate::chain("- fault: {abort: {percent: 100, status: 418}}")
        .cluster("one", &[&one])
        .start()
        .await;
    let mut client = gate.client().await;
    for _ in 0..2_000 {
        let reply = client.get("/").await;
        assert_eq!((reply.status.as_u16(), reply.text()), (418, "fault filter abort".to_owned()));
    }
    assert_eq!(one.requests(), 2_000);
    let entry = gate.access("/").await;
    assert_eq!(
        (&entry["response_flags"], &entry["response_code_details"]),
        (&"FI".into(), &"fault_filter_abort".into())
    );
}

#[tokio::test]
async fn faults_and_weights_are_drawn_apart() {
    const DRAWS: usize = 6_000;
    let (one, two) = (Backend::echo("one").await, Backend::echo("two").await);
    let gate = Meshgate::chain(
        "
        - routing:
            routes:
              - name: split
                to: {one: 50, two: 50}
                filters: [{fault: {abort: {percent: 50, status: 503}}}]
        ",
    )
    .without_default_cluster()
    .cluster("one", &[&one])
    .cluster("two", &[&two])
    .start()
    .await;
    let mut client = gate.client().await;
    for _ in 0..DRAWS {
        client.get("/").await;
    }
    // If the two were one draw, one of the clusters would get all that is not aborted, or each its half in turn.
    for backend in [&one, &two] {
        let arrived = backend.requests();
        assert!(within_binomial_bounds(arrived, DRAWS, 0.25), "{}: {arrived} of {DRAWS}", backend.name());
    }
}

#[tokio::test]
async fn a_delay_is_not_a_part_of_the_routes_timeout() {
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain(
        "
        - routing:
            routes:
              - name: all
                to: one
                timeout: 300ms
                filters: [{fault: {delay: {percent: 100, duration: 600ms}}}]
        ",
    )
    .without_default_cluster()
    .cluster("one", &[&one])
    .start()
    .await;
    for mut client in [Client::http1(gate.address()).await, Client::http2(gate.address()).await] {
        for ask in [Ask::get("/"), Ask::post("/", "body")] {
            let began = Instant::now();
            assert_eq!(client.call(ask).await.status, 200);
            assert!(began.elapsed() >= Duration::from_millis(600));
        }
    }
}

#[tokio::test]
async fn grpc_clients_get_a_status_of_theirs() {
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain("- fault: {abort: {percent: 100, grpc: RESOURCE_EXHAUSTED}}")
        .cluster("one", &[&one])
        .start()
        .await;
    let ask = Ask::post("/a.B/C", "").header("content-type", "application/grpc");
    let reply = Client::http2(gate.address()).await.call(ask).await;
    assert_eq!((reply.status.as_u16(), reply.header("grpc-status")), (200, "8"));
    assert_eq!(gate.get("/").await.status, 429);
}

#[tokio::test]
async fn requests_ask_for_faults_where_they_may() {
    let one = Backend::echo("one").await;
    let asking = || Ask::get("/").header("x-fault-abort", "418");
    let gate = Meshgate::chain("- fault: {}").cluster("one", &[&one]).start().await;
    assert_eq!(gate.call(asking()).await.status, 200);
    let gate = Meshgate::chain("- fault: {by_header: {}}").cluster("one", &[&one]).start().await;
    assert_eq!(gate.call(asking()).await.status, 418);
    assert_eq!(gate.call(asking().header("x-fault-abort-percent", "0")).await.status, 200);
    assert_eq!(gate.get("/").await.status, 200);
    assert_eq!(one.requests(), 3);
}

#[tokio::test]
async fn no_more_faults_at_a_time_than_there_may_be() {
    let one = Backend::answering("one", async |_, _| Ok(Response::new(full("there")))).await;
    let gate = Meshgate::chain("- fault: {delay: {percent: 100, duration: 10s}, max_active: 3}")
        .workers(2)
        .cluster("one", &[&one])
        .start()
        .await;
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut client = gate.client().await;
        held.push(tokio::spawn(async move { client.get("/held").await.status }));
    }
    let delayed = [("fault", "delay")];
    until("three are held", || async {
        (gate.metrics().await.sum("meshgate_faults_total", &delayed) == 3.0).then_some(())
    })
    .await;
    for _ in 0..10 {
        assert_eq!(gate.get("/").await.text(), "there");
    }
    assert_eq!(gate.metrics().await.sum("meshgate_faults_total", &[("fault", "none_left")]), 10.0);
    // Clients that leave give their places back.
    held.iter().for_each(tokio::task::JoinHandle::abort);
    until("a place is free", || async {
        let mut client = gate.client().await;
        let _ = tokio::time::timeout(Duration::from_millis(100), client.get("/again")).await;
        (gate.metrics().await.sum("meshgate_faults_total", &delayed) > 3.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn responses_come_slowly_and_whole() {
    let one = Backend::answering("one", async |_, _| Ok(Response::new(full("x".repeat(60_000))))).await;
    let gate = Meshgate::chain("- fault: {rate: {percent: 100, bytes_per_second: 100000}}")
        .cluster("one", &[&one])
        .start()
        .await;
    for mut client in [Client::http1(gate.address()).await, Client::http2(gate.address()).await] {
        let began = Instant::now();
        let reply = client.get("/slow").await;
        assert_eq!((reply.status.as_u16(), reply.body.len()), (200, 60_000));
        // The first piece goes at once.
        assert!(began.elapsed() >= Duration::from_millis(500), "{:?}", began.elapsed());
    }
    let entry = gate.access("/slow").await;
    assert_eq!((&entry["response_flags"], &entry["fields"]["fault.rate"]), (&"DI".into(), &"100000".into()));
    assert_eq!(entry["bytes_sent"], 60_000);
}
