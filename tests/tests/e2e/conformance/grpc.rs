//! gRPC calls and streams.

use super::matrix::{ALL, Row, check, row};
use super::script::Arg::{Bytes, Hex, N, Pairs, Save, Saved, T, Word};
use super::script::{
    BAD_ARGUMENT, INTERNAL_FAILURE, NOT_FOUND, OK, PARSE_FAILURE, Report, Script, call, entered,
};
use super::world::{World, last};

const METADATA: super::script::Arg = Pairs(&[("x-own", "1")]);

pub(super) const ROWS: &[Row] = &[
    // Whatever is wrong with what opens a call is a failure to parse: SDKs expect no other status.
    row(
        "proxy_grpc_call",
        &[T("none"), T("test.Echo"), T("Unary"), Pairs(&[]), T("hi"), N(1000), Word],
        &[(ALL, PARSE_FAILURE)],
    ),
    row(
        "proxy_grpc_call",
        &[T(""), T("test.Echo"), T("Unary"), Pairs(&[]), T("hi"), N(1000), Word],
        &[(ALL, PARSE_FAILURE)],
    ),
    row(
        "proxy_grpc_call",
        &[T("rpc"), T("test.Echo"), T("Un ary"), Pairs(&[]), T("hi"), N(1000), Word],
        &[(ALL, PARSE_FAILURE)],
    ),
    row(
        "proxy_grpc_call",
        &[T("rpc"), T("test.Echo"), T("Unary"), Hex("01"), T("hi"), N(1000), Word],
        &[(ALL, PARSE_FAILURE)],
    ),
    row(
        "proxy_grpc_call",
        &[T("rpc"), T("test.Echo"), T("Unary"), Pairs(&[("x a", "1")]), T("hi"), N(1000), Word],
        &[(ALL, PARSE_FAILURE)],
    ),
    row(
        "proxy_grpc_stream",
        &[T("none"), T("test.Echo"), T("Stream"), Pairs(&[]), Word],
        &[(ALL, PARSE_FAILURE)],
    ),
    row("proxy_grpc_stream", &[T("rpc"), T("test.Echo"), T("S?"), Pairs(&[]), Word], &[(ALL, PARSE_FAILURE)]),
    row("proxy_grpc_send", &[N(9_999), T("hi"), N(0)], &[(ALL, NOT_FOUND)]),
    row("proxy_grpc_send", &[N(0), T("hi"), N(1)], &[(ALL, NOT_FOUND)]),
    row("proxy_grpc_close", &[N(9_999)], &[(ALL, NOT_FOUND)]),
    row("proxy_grpc_cancel", &[N(9_999)], &[(ALL, NOT_FOUND)]),
    row("proxy_grpc_cancel", &[N(-1)], &[(ALL, NOT_FOUND)]),
    // Opened, used and given up again; a call has sent its only message.
    row(
        "proxy_grpc_stream",
        &[T("rpc"), T("test.Echo"), T("Silent"), METADATA, Save("stream")],
        &[(ALL, OK)],
    ),
    row("proxy_grpc_send", &[Saved("stream"), T("hi"), N(0)], &[(ALL, OK)]),
    row("proxy_grpc_close", &[Saved("stream")], &[(ALL, OK)]),
    row("proxy_grpc_close", &[Saved("stream")], &[(ALL, OK)]),
    row("proxy_grpc_send", &[Saved("stream"), T("late"), N(0)], &[(ALL, BAD_ARGUMENT)]),
    row("proxy_grpc_cancel", &[Saved("stream")], &[(ALL, OK)]),
    row("proxy_grpc_cancel", &[Saved("stream")], &[(ALL, NOT_FOUND)]),
    row(
        "proxy_grpc_call",
        &[T("rpc"), T("test.Echo"), T("Silent"), METADATA, T("hi"), N(1000), Save("call")],
        &[(ALL, OK)],
    ),
    row("proxy_grpc_send", &[Saved("call"), T("more"), N(0)], &[(ALL, BAD_ARGUMENT)]),
    row("proxy_grpc_close", &[Saved("call")], &[(ALL, OK)]),
    row("proxy_grpc_cancel", &[Saved("call")], &[(ALL, NOT_FOUND)]),
];

#[tokio::test]
async fn in_every_callback() {
    check(ROWS).await;
}

/// The callbacks about this call or stream, in order.
fn about(reports: &[Report], id: u64) -> Vec<&Report> {
    let grpc = reports.iter().filter(|report| report.phase.starts_with("grpc_"));
    grpc.filter(|report| u64::from(report.arguments[0]) == id).collect()
}

#[tokio::test]
async fn calls_and_streams() {
    let open = |kind: &'static str, method: &'static str, name: &'static str| {
        let (message, timeout) = (T("hi"), N(5000));
        let begin = [T("rpc"), T("test.Echo"), T(method), METADATA];
        match kind {
            "proxy_grpc_call" => call(kind, &[&begin[..], &[message, timeout, Save(name)]].concat()),
            _ => call(kind, &[&begin[..], &[Save(name)]].concat()),
        }
    };
    let script = Script::default()
        .on(
            "request_headers",
            [
                open("proxy_grpc_call", "Fields", "fields"),
                open("proxy_grpc_call", "Refuse", "refused"),
                open("proxy_grpc_stream", "Stream", "stream"),
                call("proxy_grpc_send", &[Saved("stream"), T("one"), N(0)]),
                call("proxy_grpc_send", &[Saved("stream"), T("two"), N(1)]),
            ],
        )
        .on(
            "grpc_receive_initial_metadata",
            [call("proxy_get_header_map_value", &[N(4), T("x-initial"), Bytes])],
        )
        .on("grpc_receive", [call("proxy_get_buffer_bytes", &[N(5), N(0), N(1000), Bytes])])
        .on(
            "grpc_receive_trailing_metadata",
            [call("proxy_get_header_map_value", &[N(5), T("x-trailing"), Bytes])],
        )
        .on("grpc_close", [call("proxy_get_status", &[Word, Bytes])]);
    let running = World::start().await.run(&script).await;
    running.exchange().await;
    // The refused call and the stream are closed; the other call ends with its message.
    entered(running.log(), "grpc_close", 2).await;
    entered(running.log(), "grpc_receive", 3).await;
    let reports = running.stop().await;
    let request = last(&reports, "request_headers");
    assert_eq!(request.statuses(), [OK; 5]);
    let [fields, refused, stream] =
        [0, 1, 2].map(|place| about(&reports, request.value(place).as_u64().unwrap()));
    let phases = |reports: &[&Report]| reports.iter().map(|report| report.phase.clone()).collect::<Vec<_>>();

    assert_eq!(phases(&fields), ["grpc_receive"], "a call that succeeds ends with its message");
    let seen = fields[0].value(0).as_str().unwrap();
    assert!(seen.contains("x-own=1") && seen.contains("te=trailers"), "{seen}");
    assert_eq!(fields[0].arguments[1] as usize, seen.len());

    assert_eq!(phases(&refused), ["grpc_close"], "a call that fails is closed");
    assert_eq!((refused[0].arguments[1], refused[0].value(0)), (7, &7.into()));
    assert_eq!(refused[0].results[0][2], "not for you");

    let expected = [
        "grpc_receive_initial_metadata",
        "grpc_receive",
        "grpc_receive",
        "grpc_receive_trailing_metadata",
        "grpc_close",
    ];
    assert_eq!(phases(&stream), expected);
    let values: Vec<_> = stream[..4].iter().map(|report| report.value(0).clone()).collect();
    assert_eq!(values, ["i", "echo: one", "echo: two", "t"]);
    assert_eq!((stream[4].arguments[1], stream[4].value(0)), (0, &0.into()));
    // All on the root context.
    let root = last(&reports, "request_headers").context - 1;
    assert!(stream.iter().all(|report| report.context == root), "{stream:?}");
}

/// The statuses of these calls, which a filter makes that may have no more than `limits` says, and how often it met the limit.
async fn limited(calls: Vec<super::script::Call>, limit: &str, most: &str) -> (Vec<u32>, f64) {
    let script = Script::default().on("request_headers", calls);
    let keys = format!("limits: {{time: 1s, {limit}: {most}}}");
    let running = World::start().await.run_with(&script, &keys).await;
    running.exchange().await;
    let labels = [("plugin", "conformance"), ("limit", limit)];
    let met = running.gate.metrics().await.sum("meshgate_plugin_limit_exceeded_total", &labels);
    (last(&running.stop().await, "request_headers").statuses(), met)
}

const SILENT: &[super::script::Arg] = &[T("rpc"), T("test.Echo"), T("Silent"), METADATA, Save("silent")];

#[tokio::test]
async fn a_plugin_has_so_many_under_way() {
    let unary =
        call("proxy_grpc_call", &[T("rpc"), T("test.Echo"), T("Silent"), METADATA, T("hi"), N(20_000), Word]);
    let calls = vec![call("proxy_grpc_stream", SILENT), unary.clone(), unary];
    let refused = (vec![OK, OK, INTERNAL_FAILURE], 1.0);
    assert_eq!(limited(calls, "grpc_calls", "2").await, refused);
}

/// Nothing leaves while a callback runs.
#[tokio::test]
async fn so_many_bytes_wait_on_a_stream() {
    // With the 64 that it is counted with.
    let message: &'static str = "x".repeat(448).leak();
    let send = || call("proxy_grpc_send", &[Saved("silent"), T(message), N(0)]);
    let calls = vec![call("proxy_grpc_stream", SILENT), send(), send(), send()];
    let refused = (vec![OK, OK, OK, BAD_ARGUMENT], 1.0);
    assert_eq!(limited(calls, "grpc_queue", "1KiB").await, refused);
}

/// Of all calls and streams together.
#[tokio::test]
async fn so_many_bytes_are_held_by_calls() {
    // Each call takes 538 bytes with its names and metadata, the stream 38, and a message 64 more than it has.
    let message = T("x".repeat(500).leak());
    let unary =
        call("proxy_grpc_call", &[T("rpc"), T("test.Echo"), T("Silent"), METADATA, message, N(20_000), Word]);
    let send = |message| call("proxy_grpc_send", &[Saved("silent"), message, N(0)]);
    let stream = call("proxy_grpc_stream", SILENT);
    let calls = vec![unary.clone(), unary, stream, send(message), send(T("hi"))];
    let refused = (vec![OK, INTERNAL_FAILURE, OK, BAD_ARGUMENT, OK], 2.0);
    assert_eq!(limited(calls, "call_bytes", "1KiB").await, refused);
}
