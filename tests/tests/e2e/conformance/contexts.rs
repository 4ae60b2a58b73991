//! Contexts: the effective one, and the end of one.

use super::matrix::{ALL, Row, check, row};
use super::script::Arg::{Bytes, Context, N, Root, Stream, T};
use super::script::{BAD_ARGUMENT, NOT_FOUND, OK, Script, call, entered, reports};
use super::world::{World, exchange, last};

pub(super) const ROWS: &[Row] = &[
    row("proxy_set_effective_context", &[Context], &[(ALL, OK)]),
    row("proxy_set_effective_context", &[Root], &[(ALL, OK)]),
    row("proxy_set_effective_context", &[N(0)], &[(ALL, BAD_ARGUMENT)]),
    row("proxy_set_effective_context", &[N(9_999)], &[(ALL, BAD_ARGUMENT)]),
    row("proxy_set_effective_context", &[N(-1)], &[(ALL, BAD_ARGUMENT)]),
    // Nothing waits for an end.
    row("proxy_done", &[], &[(ALL, NOT_FOUND)]),
];

#[tokio::test]
async fn in_every_callback() {
    check(ROWS).await;
}

#[tokio::test]
async fn hostcalls_act_on_the_effective_context_until_the_callback_returns() {
    let path = || call("proxy_get_property", &[T("request\0path"), Bytes]);
    let script = Script::default()
        .on("configure", [call("proxy_set_tick_period_milliseconds", &[N(50)])])
        // Each tick: without a stream, with the last one, and the next tick begins without one again.
        .on("tick", [path(), call("proxy_set_effective_context", &[Stream]), path()])
        .on("request_headers", [path(), call("proxy_set_effective_context", &[Root]), path()])
        .on("request_headers", [call("proxy_set_effective_context", &[Context]), path()])
        // The root's turn is over with the callback.
        .on("request_body", [path()])
        // Held until a tick was there.
        .answer("request_headers", 1)
        .on("tick", [call("proxy_continue_stream", &[N(0)])]);
    let running = World::start().await.run(&script).await;
    let reply = running.exchange().await;
    assert_eq!(reply.text(), "said hello");
    let ticks = reports(&running.log().all()).iter().filter(|report| report.phase == "tick").count();
    entered(running.log(), "tick", ticks + 1).await;
    let reports = running.stop().await;
    assert_eq!(last(&reports, "request_headers").statuses(), [OK, OK, NOT_FOUND, OK, OK]);
    assert_eq!(last(&reports, "request_body").statuses(), [OK]);
    let ticks: Vec<_> =
        reports.iter().filter(|report| report.phase == "tick").map(|tick| tick.statuses()).collect();
    assert!(ticks.contains(&vec![NOT_FOUND, OK, OK, OK]), "while the stream lived: {ticks:?}");
    assert_eq!(ticks.last().unwrap(), &[NOT_FOUND, BAD_ARGUMENT, NOT_FOUND, OK], "the stream is gone");
}

#[tokio::test]
async fn another_plugins_contexts_are_out_of_reach() {
    // Two plugins in one VM: the second takes the first one's stream context for its own.
    let world = World::start().await;
    let first = Script::default();
    let second = Script::default().on("request_headers", [call("proxy_set_effective_context", &[N(1)])]);
    let quoted = |script: &Script| serde_json::to_string(&script.json()).unwrap();
    let chain = format!("- conformance: {}\n- conformance: {}", quoted(&first), quoted(&second));
    let setup =
        meshgate_tests::Meshgate::chain(&chain).guest("conformance", "").cluster("one", &[&world.one]);
    let gate = setup.start().await;
    gate.get("/").await;
    let reports = entered(gate.log(), "delete", 2).await;
    assert_ne!(reports[0].context, reports[1].context);
    let stopped = super::script::reports(&gate.stop().await.log);
    assert_eq!(last(&stopped, "request_headers").statuses(), [BAD_ARGUMENT]);
}

#[tokio::test]
async fn a_stream_that_is_not_done_waits_for_its_end() {
    let script = Script::default()
        .on("configure", [call("proxy_set_tick_period_milliseconds", &[N(50)])])
        .answer("done", 0)
        .on("tick", [call("proxy_set_effective_context", &[Stream]), call("proxy_done", &[])]);
    let (_, reports) = exchange(&script).await;
    let place = |callback: &str| reports.iter().position(|report| report.phase == callback).unwrap();
    let ended = |report: &&super::script::Report| report.phase == "tick" && report.statuses() == [OK, OK];
    let ending = reports.iter().position(|report| ended(&report)).expect("a tick that ended the stream");
    assert!(place("done") < ending && ending < place("log") && place("log") < place("delete"), "{reports:?}");
}
