//! The filter among others: where it stands in chains, when it is replaced, and when one that judges fails.

use std::time::{Duration, Instant};

use meshgate_tests::{
    Ask, Backend, Load, Meshgate, Misdeed, Reply, Seen, filter, hostile, with_custom_section,
};

use super::{answering, number, status};

#[tokio::test]
async fn the_routes_filter_decides_instead_of_the_listeners() {
    let backend = answering(false, &[500]).await;
    let chain = "- retry: {if: [5xx], attempts: 1}\n\
                 - routing:\n\
                 \x20   routes:\n\
                 \x20     - {name: often, match: {path: /often}, to: one, filters: [retry: {if: [5xx], attempts: 3}]}\n\
                 \x20     - {name: never, match: {path: /never}, to: one, filters: [retry: {attempts: 0}]}\n\
                 \x20     - {name: other, match: {path: /**}, to: one}\n";
    let gate = Meshgate::chain(chain).without_default_cluster().cluster("one", &[&backend]).start().await;
    let mut before = 0;
    for (path, hits) in [("/often", 4), ("/never", 1), ("/other", 2)] {
        assert_eq!(gate.get(path).await.status, 500);
        assert_eq!(backend.requests() - before, hits, "{path}");
        before = backend.requests();
    }
}

#[tokio::test]
async fn a_filter_that_fails_when_it_judges_is_one_that_fails() {
    let backend = Backend::echo("one").await;
    for misdeed in [Misdeed::Trap, Misdeed::Loop] {
        let module = hostile("foreign_function", misdeed);
        for (on_error, expected) in [("deny", 503), ("skip", 200)] {
            let more = format!("on_error: {on_error}, limits: {{time: 20ms}}");
            let gate = Meshgate::chain("- judge: {}").filter("judge", &module, &more);
            let gate = gate.cluster("one", &[&backend]).start().await;
            assert_eq!(gate.get("/good").await.status, 200);
            let began = Instant::now();
            let reply = gate.call(Ask::get("/bad").header("x-misbehave", "1")).await;
            assert_eq!(reply.status.as_u16(), expected, "{misdeed:?} {on_error}");
            assert!(began.elapsed() < Duration::from_secs(5));
            assert_eq!(gate.get("/good").await.status, 200, "a trap costs one request");
        }
    }
}

#[tokio::test]
async fn a_filter_holds_an_exchange_no_longer_than_it_may_before_a_retry() {
    let backend = answering(false, &[503]).await;
    // The pause is drawn: once in millions of times, it is short enough.
    for (base, hits, refused) in [("10000h", 1, 1.0), ("10ms", 2, 0.0)] {
        let before = backend.requests();
        let chain = format!("- again: {{if: [503], attempts: 1, back_off: {{base: {base}, max: {base}}}}}");
        let gate = Meshgate::chain(&chain).filter("again", &filter("retry"), "limits: {pause: 5s}");
        let gate = gate.cluster("one", &[&backend]).start().await;
        assert_eq!(gate.get("/").await.status, 503);
        assert_eq!(backend.requests() - before, hits, "{base}");
        let met = [("plugin", "again"), ("limit", "pause")];
        let met = gate.metrics().await.sum("meshgate_plugin_limit_exceeded_total", &met);
        assert_eq!(met, refused, "{base}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replacing_the_filter_costs_no_request() {
    // Every request needs the filter: its first try fails.
    let answer = |seen: Seen, _| async move { status(if number(&seen) == 1 { 503 } else { 200 }) };
    let backend = Backend::answering("flaky", answer).await;
    let chain = |round: usize| {
        format!("- again: {{if: [503], attempts: {}, back_off: {{base: 1ms}}}}", 1 + round % 3)
    };
    let module = |round: usize| with_custom_section(&filter("retry"), "round", round.to_string().as_bytes());
    let setup = Meshgate::chain(&chain(0)).filter("again", &module(0), "").workers(2);
    let setup = setup.cluster_of("one", &[backend.address()], "limits: {retries: 1000}");
    let gate = setup.start().await;
    let judge = |reply: &Reply| match reply.status.as_u16() {
        200 => Ok(()),
        other => Err(other.to_string()),
    };
    let load = Load::start(gate.address(), 16, || Ask::get("/"), judge);
    for round in 1..=20 {
        load.wait_for_more(50).await;
        let before = gate.reload().await;
        if round % 2 == 0 {
            gate.replace("again.wasm", module(round));
        } else {
            gate.replace("meshgate.yaml", gate.setup().clone().with_chain(&chain(round)).yaml());
        }
        gate.reloaded(&before).await;
    }
    load.wait_for_more(50).await;
    assert!(load.stop().await.all_good() >= 1_000);
}
