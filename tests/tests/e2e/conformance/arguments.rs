//! Pointers outside of the guest's memory, for every function and every pointer that it takes.

use std::collections::BTreeSet;

use super::matrix::{Phases, REQUEST_BODY, REQUEST_HEADERS, RESPONSE_BODY, Row};
use super::paths::ROUTING;
use super::script::Arg::{self, N};
use super::script::{Call, INVALID_MEMORY, OK, Script, name_of};
use super::world::{LIMITS, World, last};
use super::{
    buffers, clock, contexts, foreign_functions, grpc, headers, http_calls, log, metrics, paths, properties,
    shared_data, shared_queues, streams, timers, wasi,
};

/// Every table of the suite.
pub(super) const TABLES: &[&[Row]] = &[
    log::ROWS,
    clock::ROWS,
    timers::ROWS,
    buffers::ROWS,
    // Before the fields are overwritten.
    paths::ROWS,
    properties::ROWS,
    headers::VALUES,
    headers::MAPS,
    headers::REQUEST_WRITES,
    headers::REQUEST_TRAILERS_WRITES,
    headers::RESPONSE_WRITES,
    headers::RESPONSE_TRAILERS_WRITES,
    headers::GRPC_WRITES,
    headers::GRPC_TRAILING_WRITES,
    headers::CALL_WRITES,
    headers::CALL_TRAILERS_WRITES,
    headers::UNKNOWN_WRITES,
    headers::SETS,
    streams::ROWS,
    http_calls::ROWS,
    http_calls::CALLS,
    grpc::ROWS,
    shared_data::ROWS,
    shared_queues::ROWS,
    metrics::ROWS,
    foreign_functions::ROWS,
    wasi::ROWS,
    wasi::UNSTABLE,
    // Calls behind these are made for the root context.
    contexts::ROWS,
];

/// WASI has a number of its own for it.
const FAULT: u32 = 21;

/// These answer before they look at a pointer: what they are asked for does not exist here, or there is something else about
/// them.
fn is_fixed(row: &Row) -> bool {
    // Of two declarations the first counts, which is not this one in the table.
    if row.call().shown().contains("declare_property") {
        return true;
    }
    let wasi = !row.function.starts_with("proxy_");
    let looks = [
        "args_sizes_get",
        "environ_sizes_get",
        "clock_time_get",
        "clock_res_get",
        "random_get",
        "poll_oneoff",
        "fd_write",
        "fd_fdstat_get",
    ];
    wasi && !looks.contains(&row.function.trim_start_matches("unstable."))
}

/// The call as it is; then, if it works, once for each of its pointers, with that one beyond the memory's end.
fn with_bad_pointers(row: &Row, phase: Phases) -> Vec<(Call, u32)> {
    let Some(expected) = row.expected(phase) else { return Vec::new() };
    let mut calls = vec![(row.call(), expected)];
    if expected != OK {
        return calls;
    }
    let refused = if row.function.starts_with("proxy_") { INVALID_MEMORY } else { FAULT };
    for (place, argument) in row.arguments.iter().enumerate() {
        let bad: &[&[Arg]] = match argument {
            Arg::T(_) | Arg::Hex(_) | Arg::Message(_) | Arg::Pairs(_) | Arg::Parts(_) => {
                &[&[N(0xffff_fff0), N(32)], &[N(0x7fff_0000), N(1)], &[N(16), N(0xffff_ffff)]]
            }
            Arg::Word | Arg::Save(_) => &[&[N(0xffff_fffd)], &[N(0x7fff_0000)]],
            Arg::Long => &[&[N(0xffff_fff9)], &[N(0x7fff_0000)]],
            Arg::Bytes => &[&[N(0xffff_fffd), N(64)], &[N(64), N(0xffff_fffd)]],
            N(_) | Arg::Saved(_) | Arg::Context | Arg::Root | Arg::Stream => &[],
        };
        for bad in bad {
            let (before, after) = (&row.arguments[..place], &row.arguments[place + 1..]);
            let arguments = [before, bad, after].concat();
            calls.push((Call { function: row.function, arguments }, refused));
        }
    }
    calls
}

#[tokio::test]
async fn pointers_beyond_the_memory() {
    let mut wrong = Vec::new();
    let mut functions = BTreeSet::new();
    for (phase, callback) in [
        (REQUEST_HEADERS, "request_headers"),
        (REQUEST_BODY, "request_body"),
        (RESPONSE_BODY, "response_body"),
    ] {
        let rows = TABLES.iter().flat_map(|table| table.iter()).filter(|row| !is_fixed(row));
        let calls: Vec<_> = rows.flat_map(|row| with_bad_pointers(row, phase)).collect();
        let made = calls.iter().map(|(call, _)| call.clone());
        let script = Script::default().on(callback, made);
        let running = World::start().await.run_behind(ROUTING, &script, LIMITS).await;
        assert_eq!(running.exchange().await.text(), "said hello");
        let reports = running.stop().await;
        let report = last(&reports, callback);
        for (place, (call, expected)) in calls.iter().enumerate() {
            let status = report.status(place);
            if status != *expected {
                wrong.push(format!("{} in {callback}: {}", call.shown(), name_of(status)));
            }
            if *expected == INVALID_MEMORY {
                functions.insert(call.function);
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(functions.len() > 25, "{functions:?}");
}
