//! Logging.

use meshgate_tests::until;

use super::matrix::{ALL, Row, check, row};
use super::script::Arg::{Hex, N, Pairs, T, Word};
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

#[tokio::test]
async fn names_that_are_refused_stay_on_their_line() {
    const HEAD: &[(&str, &str)] = &[(":method", "GET"), (":path", "/"), (":authority", "called.example")];
    let cluster = T("none\n2026-01-01T00:00:00.000000Z ERROR forged\x1b[31m");
    let calls = [call("proxy_http_call", &[cluster, Pairs(HEAD), T(""), Pairs(&[]), N(5000), Word])];
    let script = Script::default().on("request_headers", calls);
    let keys = "limits: {time: 1s}, may: {call: [called]}";
    let running = World::start().await.run_with(&script, keys).await;
    running.exchange().await;
    let log = running.gate.stop().await.log;
    let forged: Vec<_> = log.iter().filter(|line| line.contains("forged")).collect();
    assert_eq!(forged.len(), 1, "{log:?}");
    let named = "name=none\\n2026-01-01T00:00:00.000000Z ERROR forged\\u{1b}[31m";
    assert!(forged[0].contains("`may.call`") && forged[0].contains(named), "{forged:?}");
    assert!(!log.iter().any(|line| line.contains('\x1b')), "{log:?}");
}
