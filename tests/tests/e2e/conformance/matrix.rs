//! Tables of hostcalls, each made in every callback, with the status it must get there.

use serde_json::Value;

use super::script::{Arg, Call, OK, Report, Script, call, entered, name_of};
use super::world::{Running, World, last, whole};

/// A set of callbacks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Phases(u32);

impl Phases {
    const fn and(self, other: Phases) -> Phases {
        Phases(self.0 | other.0)
    }

    /// Those that are not among `other`.
    pub(super) const fn but(self, other: Phases) -> Phases {
        Phases(self.0 & !other.0)
    }

    pub(super) fn contains(self, other: Phases) -> bool {
        self.0 & other.0 == other.0
    }

    /// In either set.
    pub(super) const fn or(self, other: Phases) -> Phases {
        self.and(other)
    }
}

/// Every callback that the run of a table meets, with the guest's name for it.
pub(super) const PHASES: [(Phases, &str); 23] = [
    (ROOT_CONTEXT_CREATE, "root_context_create"),
    (VM_START, "vm_start"),
    (CONFIGURE, "configure"),
    (TICK, "tick"),
    (QUEUE_READY, "queue_ready"),
    (HTTP_CALL_RESPONSE, "http_call_response"),
    (GRPC_INITIAL_METADATA, "grpc_receive_initial_metadata"),
    (GRPC_RECEIVE, "grpc_receive"),
    (GRPC_TRAILING_METADATA, "grpc_receive_trailing_metadata"),
    (GRPC_CLOSE, "grpc_close"),
    (CONTEXT_CREATE, "context_create"),
    (REQUEST_HEADERS, "request_headers"),
    (REQUEST_BODY, "request_body"),
    (REQUEST_TRAILERS, "request_trailers"),
    (FOREIGN_FUNCTION, "foreign_function"),
    (RESPONSE_HEADERS, "response_headers"),
    (RESPONSE_BODY, "response_body"),
    (RESPONSE_TRAILERS, "response_trailers"),
    (DONE, "done"),
    (LOG, "log"),
    (DELETE, "delete"),
    (ROOT_DONE, "root_done"),
    (ROOT_DELETE, "root_delete"),
];

pub(super) const ROOT_CONTEXT_CREATE: Phases = Phases(1);
pub(super) const VM_START: Phases = Phases(1 << 1);
pub(super) const CONFIGURE: Phases = Phases(1 << 2);
pub(super) const TICK: Phases = Phases(1 << 3);
pub(super) const QUEUE_READY: Phases = Phases(1 << 4);
pub(super) const HTTP_CALL_RESPONSE: Phases = Phases(1 << 5);
pub(super) const CONTEXT_CREATE: Phases = Phases(1 << 6);
pub(super) const REQUEST_HEADERS: Phases = Phases(1 << 7);
pub(super) const REQUEST_BODY: Phases = Phases(1 << 8);
pub(super) const REQUEST_TRAILERS: Phases = Phases(1 << 9);
pub(super) const RESPONSE_HEADERS: Phases = Phases(1 << 10);
pub(super) const RESPONSE_BODY: Phases = Phases(1 << 11);
pub(super) const RESPONSE_TRAILERS: Phases = Phases(1 << 12);
pub(super) const DONE: Phases = Phases(1 << 13);
pub(super) const LOG: Phases = Phases(1 << 14);
pub(super) const DELETE: Phases = Phases(1 << 15);
pub(super) const ROOT_DONE: Phases = Phases(1 << 16);
pub(super) const ROOT_DELETE: Phases = Phases(1 << 17);
pub(super) const GRPC_INITIAL_METADATA: Phases = Phases(1 << 18);
pub(super) const GRPC_RECEIVE: Phases = Phases(1 << 19);
pub(super) const GRPC_TRAILING_METADATA: Phases = Phases(1 << 20);
pub(super) const GRPC_CLOSE: Phases = Phases(1 << 21);
/// The host asks about a try: the request has been sent, and the head of its response is there to be read.
pub(super) const FOREIGN_FUNCTION: Phases = Phases(1 << 22);

pub(super) const ALL: Phases = Phases((1 << 23) - 1);
pub(super) const NOWHERE: Phases = Phases(0);
/// Callbacks of a stream context.
pub(super) const STREAM: Phases = REQUEST.and(ANSWERED).and(CONTEXT_CREATE);
pub(super) const REQUEST: Phases = REQUEST_HEADERS.and(REQUEST_BODY).and(REQUEST_TRAILERS);
pub(super) const RESPONSE: Phases = RESPONSE_HEADERS.and(RESPONSE_BODY).and(RESPONSE_TRAILERS);
pub(super) const ENDING: Phases = DONE.and(LOG).and(DELETE);
/// From the response's head on.
pub(super) const ANSWERED: Phases = FOREIGN_FUNCTION.and(RESPONSE).and(ENDING);
/// A body is taken from the client when there is a connection to send it on.
pub(super) const CONNECTED: Phases = REQUEST_BODY.and(REQUEST_TRAILERS).and(ANSWERED);
/// Callbacks of a root context.
pub(super) const ROOT: Phases = ALL.but(STREAM);

/// A hostcall, and its status: that of the first set that a callback is in.
pub(super) struct Row {
    pub(super) function: &'static str,
    pub(super) arguments: &'static [Arg],
    pub(super) expected: &'static [(Phases, u32)],
}

/// A row of a table.
pub(super) const fn row(
    function: &'static str,
    arguments: &'static [Arg],
    expected: &'static [(Phases, u32)],
) -> Row {
    Row { function, arguments, expected }
}

impl Row {
    /// The status in that callback; `None`: the call is not made there.
    pub(super) fn expected(&self, phase: Phases) -> Option<u32> {
        self.expected.iter().find(|(phases, _)| phases.contains(phase)).map(|(_, status)| *status)
    }

    pub(super) fn call(&self) -> Call {
        call(self.function, self.arguments)
    }
}

/// Makes every call of the table in every callback, over both versions of HTTP, and compares the statuses. Gives the reports
/// of HTTP/1.1 for more.
pub(super) async fn check(rows: &[Row]) -> Vec<Report> {
    let reports = check_on(World::start().await.run(&script(rows.iter())).await, 1, rows).await;
    check_on(World::start().await.run(&script(rows.iter())).await, 2, rows).await;
    reports
}

/// The same with a proxy whose guest has the table's script.
pub(super) async fn check_on(running: Running, version: u8, rows: &[Row]) -> Vec<Report> {
    let reports = run(running, version).await;
    check_statuses(rows, &reports);
    reports
}

/// Compares the status of every call in every callback.
pub(super) fn check_statuses(rows: &[Row], reports: &[Report]) {
    let mut wrong = Vec::new();
    for (phase, name) in PHASES {
        let made: Vec<_> = rows.iter().filter(|row| row.expected(phase).is_some()).collect();
        if made.is_empty() {
            continue;
        }
        let report = last(reports, name);
        assert!(report.results.len() >= made.len(), "{name}: {report:?}");
        for (place, row) in made.into_iter().enumerate() {
            let (expected, status) = (row.expected(phase).unwrap_or(OK), report.status(place));
            let shown = || format!("{} in {name}", row.call().shown());
            if status != expected {
                wrong.push(format!("{}: {}, not {}", shown(), name_of(status), name_of(expected)));
            }
            let written = report.results[place][1..].iter().any(|value| *value != Value::Null);
            if status != OK && written && !row.function.starts_with("fd_") {
                wrong.push(format!("{}: failed, but wrote {:?}", shown(), report.results[place]));
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// One life of a plugin with one exchange.
async fn run(running: Running, version: u8) -> Vec<Report> {
    for callback in ["queue_ready", "http_call_response", "grpc_close"] {
        entered(running.log(), callback, 1).await;
    }
    assert!(running.ask(version, whole()).await.is_some(), "a response over HTTP/{version}");
    entered(running.log(), "delete", 1).await;
    running.stop().await
}

/// The table's calls in every callback, and what brings about the callbacks of the root context and the question about the try.
pub(super) fn script<'a>(rows: impl Iterator<Item = &'a Row> + Clone) -> Script {
    const FIELDS: &[(&str, &str)] =
        &[(":method", "GET"), (":path", "/"), (":authority", "called.example"), ("te", "trailers")];
    let mut script = Script::default();
    for (phase, name) in PHASES {
        let calls = rows.clone().filter(|row| row.expected(phase).is_some()).map(Row::call);
        script = script.on(&format!("{name}#1"), calls);
    }
    script
        .on(
            "configure",
            [
                call("proxy_register_shared_queue", &[Arg::T("of the table"), Arg::Save("of the table")]),
                call("proxy_set_tick_period_milliseconds", &[Arg::N(10)]),
            ],
        )
        .on(
            "tick",
            [
                call("proxy_set_tick_period_milliseconds", &[Arg::N(0)]),
                call("proxy_enqueue_shared_queue", &[Arg::Saved("of the table"), Arg::T("item")]),
                call(
                    "proxy_http_call",
                    &[
                        Arg::T("called"),
                        Arg::Pairs(FIELDS),
                        Arg::T(""),
                        Arg::Pairs(&[]),
                        Arg::N(5000),
                        Arg::Word,
                    ],
                ),
                call(
                    "proxy_grpc_stream",
                    &[
                        Arg::T("rpc"),
                        Arg::T("test.Echo"),
                        Arg::T("Stream"),
                        Arg::Pairs(&[]),
                        Arg::Save("stream of the table"),
                    ],
                ),
                call("proxy_grpc_send", &[Arg::Saved("stream of the table"), Arg::T("hi"), Arg::N(1)]),
            ],
        )
        .on(
            "request_headers",
            [
                // The table may have left another context.
                call("proxy_set_effective_context", &[Arg::Context]),
                call("proxy_call_foreign_function", &[Arg::T("meshgate.attempts"), Arg::T(""), Arg::Bytes]),
            ],
        )
}
