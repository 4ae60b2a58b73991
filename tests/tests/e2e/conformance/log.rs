//! Logging.

use meshgate_tests::until;

use super::matrix::{ALL, Row, check, row};
use super::script::Arg::{Hex, N, T, Word};
use super::script::{BAD_ARGUMENT, INVALID_MEMORY, OK, Script, call};
use super::world::{World, last};

pub(super) const ROWS: &[Row] = &[
    // Not shown by default, but fine.
    row("proxy_log", &[N(0), T("trace")], &[(ALL, OK)]),
    row("proxy_log", &[N(1), T("debug")], &[(ALL, OK)]),
    row("proxy_log", &[N(0), T("")], &[(ALL, OK)]),
    row("proxy_log", &[N(6), T("none")], &[(ALL, BAD_ARGUMENT)]),
    row("proxy_log", &[N(-1), T("none")], &[(ALL, BAD_ARGUMENT)]),
    // Pointers are checked even when nobody reads the line.
    row("proxy_log", &[N(0), N(0xffff_fff0), N(32)], &[(ALL, INVALID_MEMORY)]),
    row("proxy_get_log_level", &[Word], &[(ALL, OK)]),
];

#[tokio::test]
async fn in_every_callback() {
    let reports = check(ROWS).await;
    // The proxy logs from info on.
    assert_eq!(last(&reports, "request_headers").value(6), 2);
}

#[tokio::test]
async fn levels_and_bytes() {
    let lines = [
        call("proxy_log", &[N(2), T("suite: info")]),
        call("proxy_log", &[N(3), T("suite: warn")]),
        call("proxy_log", &[N(4), T("suite: error")]),
        call("proxy_log", &[N(5), T("suite: critical")]),
        // "suite: ", a newline, 0xff
        call("proxy_log", &[N(2), Hex("73756974653a200aff")]),
    ];
    let running = World::start().await.run(&Script::default().on("request_headers", lines)).await;
    running.exchange().await;
    for (words, level) in [
        ("info", "INFO"),
        ("warn", "WARN"),
        ("error", "ERROR"),
        ("critical", "ERROR"),
        ("\\n\u{fffd}", "INFO"),
    ] {
        let line = until(format!("the line {words}"), || async {
            running.log().all().into_iter().find(|line| line.contains(&format!("suite: {words}")))
        })
        .await;
        assert!(line.contains(level) && line.contains("filter=\"conformance\""), "{line}");
    }
}
