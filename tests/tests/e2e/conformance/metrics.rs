//! Metrics.

use super::matrix::{ALL, Row, check, row};
use super::script::Arg::{Long, N, Save, Saved, T, Word};
use super::script::{BAD_ARGUMENT, NOT_FOUND, OK, Script, call};
use super::world::{World, last};

pub(super) const ROWS: &[Row] = &[
    row("proxy_define_metric", &[N(0), T("suite_counter"), Save("counter")], &[(ALL, OK)]),
    row("proxy_define_metric", &[N(1), T("suite_gauge"), Save("gauge")], &[(ALL, OK)]),
    row("proxy_define_metric", &[N(2), T("suite_histogram"), Save("histogram")], &[(ALL, OK)]),
    row("proxy_define_metric", &[N(3), T("suite_other"), Word], &[(ALL, BAD_ARGUMENT)]),
    row("proxy_define_metric", &[N(-1), T("suite_other"), Word], &[(ALL, BAD_ARGUMENT)]),
    row("proxy_increment_metric", &[Saved("counter"), N(2)], &[(ALL, OK)]),
    row("proxy_increment_metric", &[Saved("counter"), N(-1)], &[(ALL, BAD_ARGUMENT)]),
    row("proxy_record_metric", &[Saved("counter"), N(3)], &[(ALL, OK)]),
    row("proxy_get_metric", &[Saved("counter"), Long], &[(ALL, OK)]),
    row("proxy_record_metric", &[Saved("gauge"), N(10)], &[(ALL, OK)]),
    row("proxy_increment_metric", &[Saved("gauge"), N(-3)], &[(ALL, OK)]),
    row("proxy_get_metric", &[Saved("gauge"), Long], &[(ALL, OK)]),
    row("proxy_record_metric", &[Saved("histogram"), N(10)], &[(ALL, OK)]),
    row("proxy_increment_metric", &[Saved("histogram"), N(1)], &[(ALL, BAD_ARGUMENT)]),
    row("proxy_get_metric", &[Saved("histogram"), Long], &[(ALL, BAD_ARGUMENT)]),
    row("proxy_increment_metric", &[N(4_000), N(1)], &[(ALL, NOT_FOUND)]),
    row("proxy_record_metric", &[N(4_000), N(1)], &[(ALL, NOT_FOUND)]),
    row("proxy_get_metric", &[N(4_000), Long], &[(ALL, NOT_FOUND)]),
];

#[tokio::test]
async fn in_every_callback() {
    let reports = check(ROWS).await;
    // Each callback adds five to the counter.
    let counted = |callback| last(&reports, callback).value(8).as_u64().unwrap();
    assert_eq!(counted("request_headers") + 5, counted("request_body"));
    assert_eq!(last(&reports, "log").value(11), 7);
}

#[tokio::test]
async fn operators_see_them() {
    let script = Script::default().on(
        "configure",
        [
            call("proxy_define_metric", &[N(0), T("suite_total"), Save("a")]),
            call("proxy_define_metric", &[N(0), T("suite_total"), Save("b")]),
        ],
    );
    let add = |name, n| call("proxy_increment_metric", &[Saved(name), N(n)]);
    let script = script.on("request_headers", [add("a", 3), add("b", 4)]);
    let running = World::start().await.run(&script).await;
    running.exchange().await;
    let metrics = running.gate.metrics().await.text().to_owned();
    let line = metrics.lines().find(|line| line.contains("suite_total") && !line.starts_with('#'));
    assert!(line.is_some_and(|line| line.ends_with(" 7")), "one metric by one name: {line:?}");
}
