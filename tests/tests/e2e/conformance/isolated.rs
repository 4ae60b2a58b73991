//! The same tables by an instance that serves one exchange only: no call in a stream's callbacks answers otherwise.

use super::arguments::TABLES;
use super::matrix::{PHASES, Phases, Row, STREAM, check_statuses, script};
use super::paths::ROUTING;
use super::script::entered;
use super::world::{LIMITS, World, whole, worker};

/// The table's row in the callbacks of a stream.
fn in_streams(row: &Row) -> Row {
    let of_streams = |phase: &Phases| STREAM.contains(*phase);
    let phases = PHASES.iter().map(|(phase, _)| *phase).filter(of_streams);
    let expected: Vec<_> = phases.filter_map(|phase| Some((phase, row.expected(phase)?))).collect();
    Row { function: row.function, arguments: row.arguments, expected: expected.leak() }
}

#[tokio::test]
async fn in_every_callback_of_a_stream() {
    for rows in TABLES {
        let rows: Vec<_> = rows.iter().map(in_streams).collect();
        if rows.iter().all(|row| row.expected.is_empty()) {
            continue;
        }
        // Declared in this context, and no other: the root context is not asked to.
        let rows: Vec<_> =
            rows.into_iter().filter(|row| !row.call().shown().contains("declare_property")).collect();
        let keys = format!("{LIMITS}, isolation: exchange, root_id: suite_root, vm: suite_vm");
        let running = World::start().await.run_behind(ROUTING, &script(rows.iter()), &keys).await;
        running.ask(1, whole()).await.expect("a response");
        entered(running.log(), "delete", 1).await;
        check_statuses(&rows, &running.stop().await);
    }
}

/// Nothing is left of an instance for the next exchange.
#[tokio::test]
async fn each_exchange_begins_anew() {
    use super::script::Arg::{Bytes, T};
    use super::script::{OK, Script, call};
    let script =
        Script::default().on("request_headers", [call("proxy_get_property", &[T("plugin_name"), Bytes])]);
    let keys = format!("{LIMITS}, isolation: exchange");
    let running = World::start().await.run_with(&script, &keys).await;
    for version in [1, 2] {
        running.ask(version, whole()).await.expect("a response");
    }
    let ends = entered(running.log(), "delete", 2).await;
    // Root 1, stream 2, and the same again.
    assert!(ends.iter().all(|end| end.context == 2), "{ends:?}");
    let reports = running.stop().await;
    let seen: Vec<_> = reports.iter().filter(|report| report.phase == "request_headers").collect();
    assert!(seen.iter().all(|report| report.statuses() == [OK]) && seen.len() == 2, "{seen:?}");
}

/// An exchange that waits for a call in the end has its instance until the call is over, and no longer.
#[tokio::test]
async fn an_exchange_that_is_done_late_takes_its_instance_with_it() {
    use super::script::Arg::{N, Pairs, Stream, T, Word};
    use super::script::{Script, call};
    const HEAD: &[(&str, &str)] = &[(":method", "GET"), (":path", "/"), (":authority", "called.example")];
    let sent = call("proxy_http_call", &[T("called"), Pairs(HEAD), T(""), Pairs(&[]), N(1_000), Word]);
    let script = Script::default()
        .on("done", [sent])
        .answer("done", 0)
        .on("http_call_response", [call("proxy_set_effective_context", &[Stream]), call("proxy_done", &[])]);
    // An hour is longer than the test has.
    let keys = "limits: {time: 1s, done: 1h}, isolation: exchange";
    let running = World::start().await.run_with(&script, keys).await;
    running.exchange().await;
    meshgate_tests::until("the instance is gone", || async {
        let metrics = running.gate.metrics().await;
        (metrics.sum("meshgate_wasm_exchange_instances", &[]) == 0.0).then_some(())
    })
    .await;
    let reports = running.stop().await;
    let phases: Vec<_> = worker(&reports).iter().map(|report| report.phase.as_str()).collect();
    let ends = ["done", "http_call_response", "log", "delete", "root_done", "root_delete"];
    assert!(phases.ends_with(&ends), "{phases:?}");
}
