//! HTTP calls.

use std::collections::BTreeSet;

use meshgate_tests::{RawBackend, until};

use super::matrix::{
    ALL, ANSWERED, CONTEXT_CREATE, PHASES, Phases, REQUEST, ROOT, Row, check, check_statuses, row, script,
};
use super::script::Arg::{Bytes, Hex, N, Pairs, T, Word};
use super::script::{BAD_ARGUMENT, INTERNAL_FAILURE, NOT_FOUND, OK, Report, Script, call, entered, reports};
use super::world::{World, last, worker};

const HEAD: &[(&str, &str)] =
    &[(":method", "GET"), (":path", "/check"), (":authority", "called.example"), ("te", "trailers")];
const TRAILERS: &[(&str, &str)] = &[("x-trailer", "1")];

pub(super) const ROWS: &[Row] = &[
    row(
        "proxy_http_call",
        &[T("none"), Pairs(HEAD), T(""), Pairs(&[]), N(1000), Word],
        &[(ALL, BAD_ARGUMENT)],
    ),
    row("proxy_http_call", &[T(""), Pairs(HEAD), T(""), Pairs(&[]), N(1000), Word], &[(ALL, BAD_ARGUMENT)]),
    row(
        "proxy_http_call",
        &[Hex("ff"), Pairs(HEAD), T(""), Pairs(&[]), N(1000), Word],
        &[(ALL, BAD_ARGUMENT)],
    ),
    row(
        "proxy_http_call",
        &[T("called"), Pairs(HEAD), T(""), Pairs(&[]), N(-1), Word],
        &[(ALL, BAD_ARGUMENT)],
    ),
    row(
        "proxy_http_call",
        &[T("called"), Hex("01"), T(""), Pairs(&[]), N(1000), Word],
        &[(ALL, BAD_ARGUMENT)],
    ),
    row(
        "proxy_http_call",
        &[T("called"), Pairs(&[]), T(""), Pairs(&[]), N(1000), Word],
        &[(ALL, BAD_ARGUMENT)],
    ),
    row(
        "proxy_http_call",
        &[T("called"), Pairs(&[(":path", "/"), (":authority", "a")]), T(""), Pairs(&[]), N(1000), Word],
        &[(ALL, BAD_ARGUMENT)],
    ),
    row(
        "proxy_http_call",
        &[T("called"), Pairs(&[(":method", "GET"), (":authority", "a")]), T(""), Pairs(&[]), N(1000), Word],
        &[(ALL, BAD_ARGUMENT)],
    ),
    row(
        "proxy_http_call",
        &[T("called"), Pairs(&[(":method", "GET"), (":path", "/")]), T(""), Pairs(&[]), N(1000), Word],
        &[(ALL, BAD_ARGUMENT)],
    ),
    row(
        "proxy_http_call",
        &[
            T("called"),
            Pairs(&[(":method", "GET"), (":path", "/"), (":authority", "a"), ("x", "1\r\ny: 1")]),
            T(""),
            Pairs(&[]),
            N(1000),
            Word,
        ],
        &[(ALL, BAD_ARGUMENT)],
    ),
    row("proxy_get_status", &[Word, Bytes], &[(ALL, OK)]),
];

/// A call that works, from everywhere. In two halves, because a stream may have only so many under way.
pub(super) const CALLS: &[Row] =
    &[row("proxy_http_call", SENT, &[(ROOT.or(CONTEXT_CREATE).or(REQUEST), OK)])];
pub(super) const LATER_CALLS: &[Row] = &[row("proxy_http_call", SENT, &[(ANSWERED, OK)])];
const SENT: &[super::script::Arg] = &[T("called"), Pairs(HEAD), T("body"), Pairs(TRAILERS), N(1000), Word];

#[tokio::test]
async fn in_every_callback() {
    check(ROWS).await;
}

#[tokio::test]
async fn from_every_callback() {
    for rows in [CALLS, LATER_CALLS] {
        let running = World::start().await.run(&script(rows.iter())).await;
        entered(running.log(), "grpc_close", 1).await;
        running.exchange().await;
        // Every one that was made while the plugin lived is answered.
        let tokens = until("a response to each call", || async {
            let reports = reports(&running.log().all());
            let reports = worker(&reports);
            let tokens = tokens(reports, &rows[0]);
            let responses = reports.iter().filter(|report| report.phase == "http_call_response");
            let answered: BTreeSet<_> = responses.map(|report| u64::from(report.arguments[0])).collect();
            tokens.iter().all(|token| answered.contains(token)).then_some(tokens)
        })
        .await;
        assert!(tokens.len() > 5, "{tokens:?}");
        assert_eq!(BTreeSet::from_iter(&tokens).len(), tokens.len(), "every token is given once: {tokens:?}");
        check_statuses(rows, &running.stop().await);
    }
}

/// The tokens of the calls that were made: first of all in each of these callbacks.
fn tokens(reports: &[Report], row: &Row) -> Vec<u64> {
    let callbacks = PHASES.iter().filter(|(phase, _)| row.expected(*phase).is_some());
    let first = |(_, callback): &(Phases, &str)| {
        reports.iter().find(|report| report.phase == *callback && !report.results.is_empty())
    };
    callbacks.filter_map(first).filter_map(|report| report.value(0).as_u64()).collect()
}

#[tokio::test]
async fn what_arrives_and_what_comes_back() {
    let script = Script::default()
        .on("request_headers", [call("proxy_http_call", SENT)])
        .answer("request_headers", 1)
        .on(
            "http_call_response",
            [
                call("proxy_get_header_map_value", &[N(6), T(":status"), Bytes]),
                call("proxy_get_header_map_value", &[N(7), T("x-sum"), Bytes]),
                call("proxy_get_buffer_bytes", &[N(4), N(0), N(1000), Bytes]),
                call("proxy_get_status", &[Word, Bytes]),
                call("proxy_set_effective_context", &[super::script::Arg::Stream]),
                call("proxy_continue_stream", &[N(0)]),
            ],
        );
    let running = World::start().await.run(&script).await;
    let reply = running.exchange().await;
    assert_eq!(reply.text(), "said hello");
    let seen = running.world.called.seen().pop().unwrap();
    assert_eq!(
        (seen.method.as_str(), seen.path.as_str(), seen.header("host")),
        ("GET", "/check", "called.example")
    );
    let reports = running.stop().await;
    let response = last(&reports, "http_call_response");
    let token = last(&reports, "request_headers").value(0).as_u64().unwrap();
    // Token, fields with `:status`, bytes of the body, trailers.
    assert_eq!(response.arguments[0] as u64, token);
    assert!(response.arguments[1] > 3, "{response:?}");
    assert_eq!(response.arguments[2..], [18, 1]);
    assert_eq!(response.statuses(), [OK; 6]);
    let values: Vec<_> = (0..4).map(|place| response.value(place).clone()).collect();
    assert_eq!(values, [serde_json::json!("200"), "42".into(), "said from the call".into(), 0.into()]);
}

#[tokio::test]
pub(super) async fn failures_come_as_responses_or_as_nothing() {
    let sent = |cluster, timeout| {
        call("proxy_http_call", &[T(cluster), Pairs(HEAD), T(""), Pairs(&[]), N(timeout), Word])
    };
    let read = |name| call("proxy_get_header_map_value", &[N(6), T(name), Bytes]);
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let silent =
        meshgate_tests::Backend::answering("silent", async |_, _| std::future::pending().await).await;
    let world = World::start().await;
    let script = Script::default()
        .on("request_headers", [sent("gone", 5000), sent("silent", 50)])
        .on("http_call_response", [read(":status"), read(":dispatch_status")]);
    let quoted = serde_json::to_string(&script.json()).unwrap();
    for (keys, place, expected) in
        [("", 0, ["503", "504"]), ("compatibility: {failed_calls: empty}", 1, ["connect failed", "timeout"])]
    {
        let gate = meshgate_tests::Meshgate::chain(&format!("- conformance: {quoted}"))
            .guest("conformance", keys)
            .cluster("one", &[&world.one])
            .cluster_of("gone", &[gone], "")
            .cluster("silent", &[&silent])
            .start()
            .await;
        gate.get("/").await;
        let responses = entered(gate.log(), "http_call_response", 2).await;
        let said: Vec<_> = responses.iter().map(|report| report.value(place).clone()).collect();
        assert_eq!(said, expected, "{keys}");
        // Fields, bytes of the body, trailers: none of what never came.
        let nothing = responses.iter().all(|report| report.arguments[1..] == [0, 0, 0]);
        assert_eq!(nothing, place == 1, "{responses:?}");
    }
}

/// A connection that ends before there is a head stands for no response, as in Envoy; one that breaks in the middle of a
/// response for none at all.
#[tokio::test]
async fn broken_connections_come_as_responses_if_nothing_came_of_them() {
    const CLUSTERS: [&str; 3] = ["closes", "resets", "breaks"];
    let closes = RawBackend::start(|_, mut wire| async move { drop(wire.read_head().await) }).await;
    let resets = RawBackend::start(|_, mut wire| async move {
        wire.read_head().await;
        wire.reset();
    })
    .await;
    let breaks = RawBackend::start(|_, mut wire| async move {
        wire.read_head().await;
        wire.write("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
        wire.reset();
    })
    .await;
    let world = World::start().await;
    let sent =
        |cluster| call("proxy_http_call", &[T(cluster), Pairs(HEAD), T(""), Pairs(&[]), N(20_000), Word]);
    let read = |name| call("proxy_get_header_map_value", &[N(6), T(name), Bytes]);
    let script = Script::default().on("request_headers", CLUSTERS.map(sent)).on(
        "http_call_response",
        [
            read(":status"),
            read(":dispatch_status"),
            call("proxy_get_buffer_bytes", &[N(4), N(0), N(1000), Bytes]),
        ],
    );
    let quoted = serde_json::to_string(&script.json()).unwrap();
    for (keys, stand_ins) in [("", 2), ("compatibility: {failed_calls: empty}", 0)] {
        let gate = meshgate_tests::Meshgate::chain(&format!("- conformance: {quoted}"))
            .guest("conformance", keys)
            .cluster("one", &[&world.one])
            .raw_cluster("closes", &closes)
            .raw_cluster("resets", &resets)
            .raw_cluster("breaks", &breaks)
            .start()
            .await;
        gate.get("/").await;
        let responses = entered(gate.log(), "http_call_response", CLUSTERS.len()).await;
        let made = entered(gate.log(), "request_headers", 1).await.pop().unwrap();
        for (place, cluster) in CLUSTERS.iter().enumerate() {
            let token = made.value(place).as_u64();
            let response =
                responses.iter().find(|report| Some(u64::from(report.arguments[0])) == token).unwrap();
            if place < stand_ins {
                assert_eq!(response.statuses(), [OK, NOT_FOUND, OK], "{cluster}: {response:?}");
                assert_eq!(response.value(0), "503", "{cluster}");
                // The words by which filters know what became of their call.
                let text = response.value(2).as_str().unwrap();
                assert!(text.starts_with("upstream connect error"), "{cluster}: {text}");
                assert!(text.ends_with("reset reason: connection termination"), "{cluster}: {text}");
            } else {
                assert_eq!(response.statuses(), [NOT_FOUND, OK, NOT_FOUND], "{cluster}: {response:?}");
                assert_eq!(response.value(1), "broken connection", "{cluster}");
                assert_eq!(response.arguments[1..], [0, 0, 0], "{cluster}");
            }
        }
    }
}

#[tokio::test]
async fn a_stream_has_so_many_under_way() {
    let silent =
        meshgate_tests::Backend::answering("silent", async |_, _| std::future::pending().await).await;
    let world = World::start().await;
    let sent = call("proxy_http_call", &[T("silent"), Pairs(HEAD), T(""), Pairs(&[]), N(20_000), Word]);
    let script = Script::default().on("request_headers", vec![sent; 10]);
    let quoted = serde_json::to_string(&script.json()).unwrap();
    let setup = meshgate_tests::Meshgate::chain(&format!("- conformance: {quoted}")).guest("conformance", "");
    let gate = setup.cluster("one", &[&world.one]).cluster("silent", &[&silent]).start().await;
    gate.get("/").await;
    let report = entered(gate.log(), "request_headers", 1).await.pop().unwrap();
    let refused = report.statuses().into_iter().filter(|status| *status == INTERNAL_FAILURE).count();
    assert_eq!((report.statuses()[..8].to_vec(), refused), (vec![OK; 8], 2), "{report:?}");
}
