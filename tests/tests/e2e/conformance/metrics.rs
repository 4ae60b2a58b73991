//! Metrics.

use std::collections::BTreeSet;

use super::matrix::{ALL, Row, check, row};
use super::script::Arg::{Bytes, Long, Message, N, Save, Saved, T, Word};
use super::script::Field::Text;
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

/// Of a page in the Prometheus text format, the families: each is there once, and so is each sample.
fn families(page: &str) -> BTreeSet<String> {
    let (mut families, mut samples) = (BTreeSet::new(), BTreeSet::new());
    for line in page.lines() {
        if let Some((name, _)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            assert!(families.insert(name.to_owned()), "{name} is there twice:\n{page}");
        } else if let Some((sample, _)) = line.rsplit_once(' ').filter(|_| !line.starts_with('#')) {
            assert!(samples.insert(sample), "{sample} is there twice:\n{page}");
        }
    }
    families
}

#[tokio::test]
async fn types_of_one_name_are_kept_apart() {
    let define = |kind, name, saved| call("proxy_define_metric", &[N(kind), T(name), Save(saved)]);
    let record = |saved, n| call("proxy_record_metric", &[Saved(saved), N(n)]);
    // What is no letter and no digit is the same in all of them.
    let calls = [
        define(0, "suite.kept", "counter"),
        define(1, "suite-kept", "gauge"),
        define(2, "suite_kept", "histogram"),
        define(0, "suite/kept", "again"),
        record("counter", 2),
        record("gauge", 3),
        record("histogram", 4),
        record("again", 5),
    ];
    let running = World::start().await.run(&Script::default().on("request_headers", calls)).await;
    running.exchange().await;
    let page = running.gate.metrics().await.text().to_owned();
    let reports = running.stop().await;
    assert_eq!(last(&reports, "request_headers").statuses(), [OK; 8]);
    families(&page);
    for line in
        ["wasmcustom_suite_kept 7", "wasmcustom_suite_kept_gauge 3", "wasmcustom_suite_kept_histogram_sum 4"]
    {
        assert!(page.lines().any(|shown| shown == line), "no {line} in\n{page}");
    }
}

/// Whatever the page shows when the only filter has defined nothing is the proxy's own.
#[tokio::test]
async fn names_of_the_proxy_are_not_a_filters() {
    let running = World::start().await.run(&Script::default()).await;
    running.exchange().await;
    let ours = families(running.gate.metrics().await.text());
    running.stop().await;
    for name in ["meshgate_plugin_failures_total", "meshgate_downstream_requests_total", "process_open_fds"] {
        assert!(ours.contains(name), "{ours:?}");
    }
    let series = |name: &str| {
        let fields = vec![(1, Text(name.to_owned().leak()))].leak();
        call("proxy_call_foreign_function", &[T("meshgate.metric"), Message(fields), Bytes])
    };
    let script = Script::default().on("request_headers", ours.iter().map(|name| series(name)));
    let running = World::start().await.run(&script).await;
    running.exchange().await;
    families(running.gate.metrics().await.text());
    let refused = running.gate.metrics().await.sum("meshgate_filter_series_refused_total", &[]);
    let reports = running.stop().await;
    let statuses = last(&reports, "request_headers").statuses();
    assert_eq!(statuses.len(), ours.len());
    let taken: Vec<_> = ours
        .iter()
        .zip(statuses)
        .filter(|(_, status)| *status != BAD_ARGUMENT)
        .map(|(name, _)| name)
        .collect();
    assert!(taken.is_empty(), "filters may define these, which the proxy shows: {taken:?}");
    assert_eq!(refused, ours.len() as f64, "each is counted");
}
