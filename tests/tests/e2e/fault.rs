//! The standard filter `fault`.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use http::Response;
use meshgate_tests::{Ask, Backend, Client, Meshgate, Wire, full, until, within, within_binomial_bounds};

/// Of 2,000 requests 5 % are slower by the delay, and no status changes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_10_fault_delays_its_share() {
    const CONNECTIONS: usize = 20;
    const EACH: usize = 100;
    const DELAY: Duration = Duration::from_millis(100);
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain("- fault: {delay: {percent: 5, duration: 100ms}}")
        .workers(2)
        .cluster("one", &[&one])
        .start()
        .await;
    let mut tasks = Vec::new();
    for connection in 0..CONNECTIONS {
        let mut client = gate.client().await;
        tasks.push(tokio::spawn(async move {
            let mut took = Vec::new();
            for number in 0..EACH {
                let began = Instant::now();
                let reply = client.get(&format!("/{connection}/{number}")).await;
                assert_eq!((reply.status.as_u16(), reply.header("x-backend")), (200, "one"));
                took.push((format!("/{connection}/{number}"), began.elapsed()));
            }
            took
        }));
    }
    let mut took = HashMap::new();
    for task in tasks {
        took.extend(within("the requests are answered", task).await.unwrap());
    }
    assert_eq!(one.requests(), CONNECTIONS * EACH);
    // A busy machine makes others slow as well: which ones were delayed on purpose, the log says.
    let entries = gate.stop().await.access_log;
    let delayed: Vec<_> = entries.iter().filter(|entry| entry["response_flags"] == "DI").collect();
    let all = CONNECTIONS * EACH;
    assert!(within_binomial_bounds(delayed.len(), all, 0.05), "{} of {all} for 5 %", delayed.len());
    for entry in delayed {
        assert!(took[entry["path"].as_str().unwrap()] >= DELAY, "{entry}");
        assert_eq!(entry["fields"]["fault.delay"], "100ms");
    }
    let others = entries.iter().filter(|entry| entry["response_flags"].is_null());
    let quickest = others.map(|entry| took[entry["path"].as_str().unwrap()]).min().unwrap();
    assert!(quickest < DELAY, "{quickest:?}");
}

/// As many as the share says get the status, and as many fewer arrive.
#[tokio::test]
async fn row_11_fault_aborts_its_share() {
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
    let metrics = gate.metrics().await;
    assert_eq!(metrics.sum("meshgate_faults_total", &[("fault", "abort")]) as usize, aborted);
    assert_eq!(metrics.sum("meshgate_downstream_response_flags_total", &[("flag", "FI")]) as usize, aborted);
}

#[tokio::test]
async fn exchanges_are_broken_off() {
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain(
        "- fault: {match: {path: /broken}, delay: {percent: 100, duration: 20ms}, abort: {percent: 100, reset: true}}",
    )
    .cluster("one", &[&one])
    .start()
    .await;
    let mut wire = Wire::connect(gate.address()).await;
    wire.write("GET /broken HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(String::from_utf8_lossy(&wire.read_to_end().await), "", "no response");
    // Of a connection of HTTP/2 it is one stream, and others go on.
    let mut client = Client::http2(gate.address()).await;
    let other = client.begin(Ask::get("/whole")).await.unwrap();
    let broken = client.try_call(Ask::get("/broken")).await.unwrap_err();
    assert!(format!("{broken:?}").contains("Reset("), "{broken:?}");
    assert_eq!(within("the other", other).await.unwrap().status(), 200);
    assert_eq!(client.get("/whole").await.status, 200);
    assert_eq!(one.requests(), 2);
    let metrics = gate.metrics().await;
    assert_eq!(metrics.sum("meshgate_downstream_response_flags_total", &[("flag", "FI")]), 2.0);
    let entry = gate.access("/broken").await;
    let flags: Vec<_> = entry["response_flags"].as_str().unwrap().split(',').collect();
    assert!(flags.contains(&"FI") && flags.contains(&"DI"), "{entry}");
}

#[tokio::test]
async fn only_requests_that_are_meant_get_a_fault() {
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain(
        "
        - fault:
            match: [{path: /a/**, method: GET}, {headers: {x-fail: {present: true}}}]
            abort: {percent: 100, status: 503}
        ",
    )
    .cluster("one", &[&one])
    .start()
    .await;
    for (ask, status) in [
        (Ask::get("/a/b"), 503),
        (Ask::post("/a/b", "x"), 200),
        (Ask::get("/b"), 200),
        (Ask::post("/b", "x").header("x-fail", ""), 503),
    ] {
        assert_eq!(gate.call(ask).await.status, status);
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
