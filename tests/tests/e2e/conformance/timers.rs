//! Timers: one for each root context.

use super::matrix::{ALL, Row, check, row};
use super::script::Arg::N;
use super::script::{OK, Script, call, entered};
use super::world::World;

pub(super) const ROWS: &[Row] = &[row("proxy_set_tick_period_milliseconds", &[N(0)], &[(ALL, OK)])];

#[tokio::test]
async fn in_every_callback() {
    check(ROWS).await;
}

fn period(milliseconds: i64) -> super::script::Call {
    call("proxy_set_tick_period_milliseconds", &[N(milliseconds)])
}

#[tokio::test]
async fn it_ticks_until_it_is_stopped() {
    let script = Script::default()
        .on("configure", [period(10)])
        .on("tick#3", [period(0)])
        .on("context_create", [period(10)]);
    let running = World::start().await.run(&script).await;
    let ticks = entered(running.log(), "tick", 3).await;
    assert!(ticks.iter().all(|tick| tick.context == ticks[0].context && tick.arguments.is_empty()));
    // A stream's context sets its root's timer.
    running.exchange().await;
    entered(running.log(), "tick", 5).await;
    let reports = running.stop().await;
    let exchange = reports.iter().position(|report| report.phase == "context_create").unwrap();
    let before = reports[..exchange].iter().filter(|report| report.phase == "tick").count();
    assert_eq!(before, 3, "stopped by the third tick, until a stream set the timer again");
}

#[tokio::test]
async fn each_plugin_has_its_own() {
    // Two plugins of one module share a VM. Only the second one ticks.
    let world = World::start().await;
    let (quiet, ticking) = (Script::default(), Script::default().on("configure", [period(10)]));
    let quoted = |script: &Script| serde_json::to_string(&script.json()).unwrap();
    let chain = format!("- conformance: {}\n- conformance: {}", quoted(&quiet), quoted(&ticking));
    let gate = meshgate_tests::Meshgate::chain(&chain)
        .guest("conformance", "")
        .cluster("one", &[&world.one])
        .start()
        .await;
    let ticks = entered(gate.log(), "tick", 3).await;
    let configured = entered(gate.log(), "configure", 2).await;
    let second = configured.iter().rev().find(|report| !report.results.is_empty()).unwrap().context;
    assert!(ticks.iter().all(|tick| tick.context == second), "{ticks:?} {configured:?}");
}
