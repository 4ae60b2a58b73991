//! The standard filter `rate-limit`.

use std::sync::Arc;

use meshgate_tests::{Ask, Backend, Client, Meshgate, within};
use tokio::sync::Barrier;

/// How many of the requests of so many connections at once pass.
async fn passed(gate: &Meshgate, connections: usize, each: usize) -> usize {
    let begin = Arc::new(Barrier::new(connections));
    let mut tasks = Vec::new();
    for _ in 0..connections {
        let (mut client, begin) = (gate.client().await, Arc::clone(&begin));
        tasks.push(tokio::spawn(async move {
            begin.wait().await;
            let mut passed = 0;
            for _ in 0..each {
                match client.get("/").await.status.as_u16() {
                    200 => passed += 1,
                    429 => {}
                    other => panic!("{other}"),
                }
            }
            passed
        }));
    }
    let mut all = 0;
    for task in tasks {
        all += within("the requests are answered", task).await.unwrap();
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_as_many_pass_as_may_whatever_worker_they_come_to() {
    let one = Backend::echo("one").await;
    // What is earned while the test runs is less than one.
    let gate = Meshgate::chain("- rate-limit: {rules: [{name: all, limit: 1/d, burst: 300}]}")
        .workers(4)
        .cluster("one", &[&one])
        .start()
        .await;
    assert_eq!(passed(&gate, 16, 50).await, 300);
    assert_eq!(one.requests(), 300);
    let metrics = gate.metrics().await;
    let count = |result| {
        metrics.sum("meshgate_rate_limit_requests_total", &[("rule", "all"), ("result", result)]) as usize
    };
    assert_eq!((count("passed"), count("limited")), (300, 500));
    assert_eq!(metrics.sum("meshgate_downstream_response_flags_total", &[("flag", "RL")]) as usize, 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_rule_refuses_is_not_counted_under_concurrency_either() {
    let one = Backend::echo("one").await;
    let chain = "
        - rate-limit:
            rules:
              - {name: wide, limit: 1/d, burst: 101}
              - {name: tight, limit: 1/d, burst: 100}
        ";
    let gate = Meshgate::chain(chain).workers(2).cluster("one", &[&one]).start().await;
    assert_eq!(passed(&gate, 8, 50).await, 100);
    // The last of the wide rule is still there, and the tight one has none: nothing leaked out of the one into the other.
    let reply = gate.get("/last").await;
    assert_eq!(reply.status, 429);
    assert_eq!(gate.access("/last").await["fields"]["rate_limit.rule"], "tight");
}

#[tokio::test]
async fn clients_and_operators_are_told() {
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain(
        "- rate-limit: {rules: [{name: each, limit: 2/h, key: [client_address, {header: x-key}]}]}",
    )
    .cluster("one", &[&one])
    .start()
    .await;
    let reply = gate.call(Ask::get("/first").header("x-key", "a")).await;
    let told = [reply.header("ratelimit"), reply.header("ratelimit-policy")];
    assert_eq!((reply.status.as_u16(), told), (200, [r#""each";r=1;t=1800"#, r#""each";q=2;w=3600"#]));
    gate.call(Ask::get("/second").header("x-key", "a")).await;
    let reply = gate.call(Ask::get("/third").header("x-key", "a")).await;
    let after: u64 = reply.header("retry-after").parse().unwrap();
    assert!((1_700..=1_800).contains(&after), "{after}");
    let told = [reply.header("ratelimit"), reply.header("ratelimit-policy")];
    let expected = [&*format!(r#""each";r=0;t={after}"#), r#""each";q=2;w=3600"#];
    assert_eq!((reply.status.as_u16(), told), (429, expected));
    let entry = gate.access("/third").await;
    assert_eq!(
        (&entry["response_flags"], &entry["response_code_details"], &entry["fields"]["rate_limit.rule"]),
        (&"RL".into(), &"local_rate_limited".into(), &"each".into())
    );
    assert_eq!(gate.call(Ask::get("/other").header("x-key", "b")).await.status, 200);
    let grpc = Ask::post("/a.B/C", "").header("x-key", "a").header("content-type", "application/grpc");
    let reply = Client::http2(gate.address()).await.call(grpc).await;
    assert_eq!((reply.status.as_u16(), reply.header("grpc-status")), (200, "8"));
}

#[tokio::test]
async fn rules_count_the_requests_that_they_are_for() {
    let one = Backend::echo("one").await;
    let gate =
        Meshgate::chain("- rate-limit: {rules: [{name: writes, match: {method: [POST, PUT]}, limit: 1/h}]}")
            .cluster("one", &[&one])
            .start()
            .await;
    for (ask, status) in
        [(Ask::post("/", ""), 200), (Ask::get("/"), 200), (Ask::post("/", ""), 429), (Ask::get("/"), 200)]
    {
        assert_eq!(gate.call(ask).await.status, status);
    }
}

#[tokio::test]
async fn keys_are_bounded_and_the_bound_shows() {
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain("- rate-limit: {rules: [{name: each, limit: 1/h, key: [{header: x-key}]}]}")
        .top("filters: {rate-limit: {limits: {shared_keys: 50}}}")
        .cluster("one", &[&one])
        .start()
        .await;
    let mut client = gate.client().await;
    for number in 0..200 {
        assert_eq!(client.call(Ask::get("/").header("x-key", &number.to_string())).await.status, 200);
    }
    assert_eq!(client.call(Ask::get("/").header("x-key", "199")).await.status, 429, "the newest is known");
    let metrics = gate.metrics().await;
    assert_eq!(metrics.sum("meshgate_rate_limit_evicted_keys_total", &[("rule", "each")]), 150.0);
    let met = [("plugin", "rate-limit"), ("limit", "shared_keys")];
    assert_eq!(metrics.sum("meshgate_plugin_limit_exceeded_total", &met), 150.0);
}

#[tokio::test]
async fn what_cannot_be_counted_passes_or_does_not() {
    let one = Backend::echo("one").await;
    for (setting, status) in [("allow", 200), ("deny", 503)] {
        let chain = format!("- rate-limit: {{if_uncounted: {setting}, rules: [{{name: all, limit: 1/h}}]}}");
        let gate = Meshgate::chain(&chain)
            .top("filters: {rate-limit: {limits: {shared_keys: 0}}}")
            .cluster("one", &[&one])
            .start()
            .await;
        assert_eq!(gate.get("/").await.status, status);
        assert_eq!(gate.access("/").await["response_flags"], "RLSE");
    }
}

#[tokio::test]
async fn a_reload_of_something_else_leaves_the_counts() {
    let one = Backend::echo("one").await;
    let chain = "- rate-limit: {rules: [{name: all, limit: 1/h}]}";
    let gate = Meshgate::chain(chain).workers(2).cluster("one", &[&one]).start().await;
    assert_eq!(gate.get("/").await.status, 200);
    let before = gate.reload().await;
    gate.edit("meshgate.yaml", gate.setup().yaml().replace(chain, &format!("{chain}\n    - headers: {{}}")));
    gate.reloaded(&before).await;
    assert_eq!(gate.get("/").await.status, 429);
}
