//! TCP: the same tables in the callbacks of a connection, where there is no HTTP; life cycle and return values. What is
//! sent and how connections end is tested in `tcp` and `tcp_filters`.

use std::net::SocketAddr;

use meshgate_tests::{Ended, Meshgate, Setup, Socket, SocketBackend};

use super::arguments::TABLES;
use super::matrix::{Row, TICK};
use super::script::Arg::{Bytes, Message, N, Stream, T};
use super::script::Field::Text;
use super::script::{BAD_ARGUMENT, Call, NOT_FOUND, OK, Report, Script, call, entered, name_of, reports};
use super::world::{CLUSTER, LIMITS, LISTENER, NODE, last, worker};

/// The callbacks of a connection.
pub(super) const CALLBACKS: [&str; 9] = [
    "context_create",
    "new_connection",
    "downstream_data",
    "upstream_data",
    "downstream_connection_close",
    "upstream_connection_close",
    "done",
    "log",
    "delete",
];

/// What answers otherwise than in a callback that has no stream at all: calls that begin with this, in callbacks that begin
/// with that.
const OTHERWISE: &[(&str, &str, u32)] = &[
    ("proxy_get_buffer_bytes(2", "downstream_data", OK),
    ("proxy_set_buffer_bytes(2", "downstream_data", OK),
    ("proxy_get_buffer_status(2", "downstream_data", OK),
    ("proxy_get_buffer_status(3", "upstream_data", OK),
    ("proxy_get_buffer_bytes(3", "upstream_data", OK),
    ("proxy_set_buffer_bytes(3", "upstream_data", OK),
    ("proxy_get_property(\"source", "", OK),
    ("proxy_get_property(\"destination", "", OK),
    ("proxy_get_property(\"connection\\u0000mtls", "", OK),
    ("proxy_get_property(\"connection\\u0000id", "", OK),
    ("proxy_get_property(\"connection_id", "", OK),
    ("proxy_get_property(\"request\\u0000size", "", OK),
    ("proxy_get_property(\"request\\u0000time", "", OK),
    ("proxy_get_property(\"request\\u0000duration", "downstream_connection_close", OK),
    ("proxy_get_property(\"request\\u0000duration", "done", OK),
    ("proxy_get_property(\"request\\u0000duration", "delete", OK),
    ("proxy_get_property(\"request\\u0000duration", "log", OK),
    ("proxy_get_property(\"response\\u0000size", "", OK),
    ("proxy_get_property(\"response\\u0000flags", "", OK),
    ("proxy_get_property(\"xds\\u0000listener_metadata", "", OK),
    ("proxy_get_property(\"listener_metadata", "", OK),
    ("proxy_get_property(\"own", "", OK),
    ("proxy_set_property(\"own", "", OK),
    ("proxy_get_property(\"upstream\\u0000request_attempt_count", "", OK),
    // How it ended is known when it has: the endpoint's end may come before.
    ("proxy_get_property(\"response\\u0000code_details", "downstream_connection_close", OK),
    ("proxy_get_property(\"response\\u0000code_details", "done", OK),
    ("proxy_get_property(\"response\\u0000code_details", "log", OK),
    ("proxy_get_property(\"response\\u0000code_details", "delete", OK),
    // The cluster is chosen until the endpoint's connection is there.
    ("proxy_call_foreign_function(\"meshgate.route\", {\"hex\":\"12036f6e65", "context_create", OK),
    ("proxy_call_foreign_function(\"meshgate.route\", {\"hex\":\"12036f6e65", "new_connection", OK),
    (CHOOSES_ONE, "context_create", OK),
    (CHOOSES_ONE, "new_connection", OK),
    (CHOOSES, "", BAD_ARGUMENT),
    // The first time counts.
    (
        "proxy_call_foreign_function(\"declare_property\", {\"hex\":\"0a086465636c61726564",
        "context_create",
        OK,
    ),
    // What is held, and what is said in the log, is the connection's.
    ("proxy_call_foreign_function(\"meshgate.kv\", {\"hex\":\"0a0468656c64", "", OK),
    ("proxy_call_foreign_function(\"meshgate.log\", {\"hex\":\"0a024449", "", OK),
];

/// Of the filter state's value that names a cluster, with `one` and with anything.
const CHOOSES_ONE: &str = "proxy_call_foreign_function(\"set_envoy_filter_state\", \
                           {\"hex\":\"0a17656e766f792e7463705f70726f78792e636c757374657212036f6e65";
const CHOOSES: &str = "proxy_call_foreign_function(\"set_envoy_filter_state\", \
                       {\"hex\":\"0a17656e766f792e7463705f70726f78792e636c7573746572";

/// What is known once the endpoint's connection is there: from the first bytes of the server on, which the client waits for.
const OF_THE_ENDPOINT: &[&str] = &[
    "proxy_get_property(\"upstream\\u0000address",
    "proxy_get_property(\"upstream\\u0000port",
    "proxy_get_property(\"upstream\\u0000local_address",
    "proxy_get_property(\"upstream\\u0000local_port",
    "proxy_get_property(\"upstream\\u0000num_endpoints",
    "proxy_get_property(\"cluster_name",
    "proxy_get_property(\"cluster_metadata",
    "proxy_get_property(\"xds\\u0000cluster_name",
    "proxy_get_property(\"xds\\u0000cluster_metadata",
];

/// The callbacks before.
const UNCONNECTED: [&str; 2] = ["context_create", "new_connection"];

/// What is not compared with Envoy: it knows of clusters and endpoints at other times, and a declaration counts there in
/// other callbacks.
pub(super) fn is_our_own(row: &Row) -> bool {
    let own = [
        "upstream",
        "cluster",
        "route_name",
        "meshgate.route",
        "set_envoy_filter_state",
        "declare_property",
        "code_details",
        "backend_latency",
    ];
    own.iter().any(|part| row.call().shown().contains(part))
}

/// Whether the call is made in the callbacks of a connection.
pub(super) fn is_called(row: &Row) -> bool {
    row.expected(TICK).is_some()
}

/// The calls in every callback of a connection.
pub(super) fn script(rows: &[&Row]) -> Script {
    CALLBACKS.into_iter().fold(Script::default(), |script, callback| {
        script.on(&format!("{callback}#1"), rows.iter().map(|row| row.call()))
    })
}

/// The status in that callback.
pub(super) fn expected(row: &Row, callback: &str) -> Option<u32> {
    let shown = row.call().shown();
    if OF_THE_ENDPOINT.iter().any(|begin| shown.starts_with(begin)) {
        return Some(if UNCONNECTED.contains(&callback) { NOT_FOUND } else { OK });
    }
    let otherwise = OTHERWISE
        .iter()
        .find(|(begin, callbacks, _)| shown.starts_with(begin) && callback.starts_with(callbacks));
    otherwise.map_or_else(|| row.expected(TICK), |(.., status)| Some(*status))
}

/// Both sides say a word and end in order.
pub(super) async fn converse(proxy: SocketAddr, backend: &SocketBackend) {
    let mut client = Socket::connect(proxy).await;
    let mut server = backend.accept().await;
    // A connection that the server has accepted may not be the proxy's yet; one that something came by is.
    server.write("welcome").await;
    client.expect("welcome").await;
    client.write("hello").await;
    server.expect("hello").await;
    client.finish().await;
    server.end().await;
    server.finish().await;
    client.end().await;
}

/// A TCP listener with the guest in front of the backend, with these keys for the guest.
fn listening(script: &Script, keys: &str, backend: &SocketBackend) -> Setup {
    let quoted = serde_json::to_string(&script.json()).unwrap();
    Meshgate::chain(&format!("- conformance: {quoted}"))
        .guest("conformance", keys)
        .listener("protocol: tcp")
        .cluster_of("one", &[backend.address()], CLUSTER)
}

/// One connection over which both sides say a word and end in order.
pub(super) async fn connection(script: &Script) -> Vec<Report> {
    let backend = SocketBackend::start().await;
    let world = super::world::World::start().await;
    let gate = listening(script, LIMITS, &backend)
        .top(NODE)
        .listener(LISTENER[0])
        .listener(LISTENER[1])
        .cluster("called", &[&world.called])
        .cluster_of("rpc", &[world.rpc.address()], "protocol: http2")
        .start()
        .await;
    converse(gate.address(), &backend).await;
    entered(gate.log(), "delete", 1).await;
    reports(&gate.stop().await.log)
}

#[tokio::test]
async fn tables() {
    let mut wrong = Vec::new();
    for rows in TABLES {
        let rows: Vec<_> = rows.iter().filter(|row| is_called(row)).collect();
        let reports = connection(&script(&rows)).await;
        for callback in CALLBACKS {
            let report = last(&reports, callback);
            for (place, row) in rows.iter().enumerate() {
                let (status, expected) = (report.status(place), expected(row, callback));
                if Some(status) != expected {
                    let expected = expected.map_or("none".to_owned(), name_of);
                    wrong.push(format!(
                        "{} in {callback}: {}, not {expected}",
                        row.call().shown(),
                        name_of(status)
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// A cluster is chosen until the connection to an endpoint is made.
#[tokio::test]
async fn choosing_a_cluster() {
    let foreign = |name, message| call("proxy_call_foreign_function", &[T(name), message, Bytes]);
    let choose = [
        foreign("meshgate.route", Message(&[(1, Text("mine")), (2, Text("one"))])),
        foreign("set_envoy_filter_state", Message(&[(1, Text("envoy.tcp_proxy.cluster")), (2, Text("one"))])),
    ];
    let read = |path| call("proxy_get_property", &[T(path), Bytes]);
    let facts = [
        "cluster_name",
        "route_name",
        "upstream\0address",
        "upstream\0num_endpoints",
        "filter_state\0envoy.tcp_proxy.cluster",
    ];
    let script = Script::default()
        .on("new_connection", choose.clone())
        .on("upstream_data", choose)
        .on("log", facts.map(read));
    let reports = connection(&script).await;
    assert_eq!(last(&reports, "new_connection").statuses(), [OK, OK]);
    assert_eq!(last(&reports, "upstream_data").statuses(), [BAD_ARGUMENT, BAD_ARGUMENT]);
    let log = last(&reports, "log");
    assert_eq!(log.statuses(), [OK; 5]);
    assert_eq!([0, 1, 4].map(|place| log.value(place).clone()), ["one", "mine", "one"]);
    assert_eq!(log.value(3)["hex"], "0100000000000000");
}

#[tokio::test]
async fn life_cycle() {
    let read = |buffer| call("proxy_get_buffer_bytes", &[N(buffer), N(0), N(100), Bytes]);
    let script = Script::default().on("downstream_data", [read(2)]).on("upstream_data", [read(3)]);
    let reports = connection(&script).await;
    let reports = worker(&reports);
    let entered: Vec<_> = reports.iter().filter(|report| report.context == 2).map(Report::shown).collect();
    let place = |entry: &str| {
        let found = entered.iter().position(|other| other == entry);
        found.unwrap_or_else(|| panic!("no {entry}: {entered:?}"))
    };
    assert_eq!(entered[..2], ["context_create(1)", "new_connection()"]);
    assert!(place("upstream_data(7, 0)") < place("downstream_data(5, 0)"), "{entered:?}");
    assert_eq!(entered[entered.len() - 3..], ["done()", "log()", "delete()"]);
    let data =
        |callback: &str| reports.iter().find(|report| report.phase == callback).unwrap().value(0).clone();
    assert_eq!((data("downstream_data"), data("upstream_data")), ("hello".into(), "welcome".into()));
}

/// Held by this callback's answer, and let go by the response to a call.
async fn held(callback: &str, answer: u32) -> Vec<Report> {
    let head = super::script::Arg::Pairs(&[(":method", "GET"), (":path", "/"), (":authority", "a")]);
    let called: Call = call(
        "proxy_http_call",
        &[T("called"), head, T(""), super::script::Arg::Pairs(&[]), N(5000), super::script::Arg::Word],
    );
    let resume = |stream| call("proxy_continue_stream", &[N(stream)]);
    let script = Script::default()
        .on(callback, [called])
        .answer(callback, answer)
        .on("http_call_response", [call("proxy_set_effective_context", &[Stream]), resume(2), resume(3)]);
    connection(&script).await
}

/// What a callback answers, and whether it stops.
pub(super) const ANSWERS: [(u32, bool); 3] = [(0, false), (1, true), (99, true)];

#[tokio::test]
async fn what_callbacks_answer() {
    for callback in ["new_connection", "downstream_data", "upstream_data"] {
        for (answer, stops) in ANSWERS {
            let reports = held(callback, answer).await;
            let from = reports.iter().position(|report| report.phase == callback).unwrap();
            let resumed = reports.iter().position(|report| report.phase == "http_call_response");
            let after = |next: &str| {
                reports[from..].iter().position(|report| report.phase == next).map(|at| from + at)
            };
            let next = match callback {
                "new_connection" => after("downstream_data"),
                // What this one holds, the other side has not seen: it answers later.
                "downstream_data" => after("upstream_data"),
                _ => after("downstream_connection_close").max(after("done")),
            };
            if stops {
                assert!(resumed.is_some() && resumed < next, "{callback} answers {answer}: {reports:?}");
            }
            assert_eq!(last(&reports, callback).status(0), OK, "{callback}");
        }
    }
}

/// What is held of one side goes on when a callback for the other resumes it: nobody says anything more.
#[tokio::test]
async fn each_side_resumes_the_other() {
    let resume = |stream| [call("proxy_continue_stream", &[N(stream)])];
    for (held, other, stream) in
        [("downstream_data", "upstream_data", 2), ("upstream_data", "downstream_data", 3)]
    {
        let backend = SocketBackend::start().await;
        let script = Script::default().answer(held, 1).on(other, resume(stream));
        let gate = listening(&script, LIMITS, &backend).start().await;
        let (mut client, mut server) = (Socket::connect(gate.address()).await, backend.accept().await);
        if held == "downstream_data" {
            client.write("hello").await;
            entered(gate.log(), held, 1).await;
            server.write("welcome").await;
        } else {
            server.write("welcome").await;
            entered(gate.log(), held, 1).await;
            client.write("hello").await;
        }
        client.expect("welcome").await;
        server.expect("hello").await;
    }
}

/// Where the listener waits for data, a filter holds the first bytes until it knows the cluster by them.
#[tokio::test]
async fn choosing_a_cluster_by_the_first_bytes() {
    let choice = Message(&[(1, Text("envoy.tcp_proxy.cluster")), (2, Text("two"))]);
    let choose = call("proxy_call_foreign_function", &[T("set_envoy_filter_state"), choice, Bytes]);
    let script = Script::default().answer("downstream_data#1", 1).on("downstream_data#2", [choose]);
    let (one, two) = (SocketBackend::start().await, SocketBackend::start().await);
    let gate = listening(&script, LIMITS, &one)
        .listener("wait_for_data: true")
        .cluster_of("two", &[two.address()], "")
        .start()
        .await;
    let mut client = Socket::connect(gate.address()).await;
    client.write("he").await;
    entered(gate.log(), "downstream_data", 1).await;
    client.write("llo").await;
    let mut server = two.accept().await;
    server.expect("hello").await;
    server.write("welcome").await;
    client.expect("welcome").await;
    client.finish().await;
    assert_eq!(server.end().await, Ended::in_order(""));
    server.finish().await;
    assert_eq!(client.end().await, Ended::in_order(""));
    assert!(!one.is_waited_for().await && !two.is_waited_for().await);
    entered(gate.log(), "delete", 1).await;
    let reports = reports(&gate.stop().await.log);
    let of_stream = worker(&reports).iter().filter(|report| report.context == 2);
    let met: Vec<_> = of_stream.map(Report::shown).collect();
    let begin = ["context_create(1)", "new_connection()", "downstream_data(2, 0)", "downstream_data(5, 0)"];
    assert_eq!(met[..4], begin);
    assert_eq!(last(&reports, "downstream_data").status(0), OK);
}

/// A new connection goes on when its filter says so, and nothing else lets it: what the client sends is not even read.
#[tokio::test]
async fn nothing_is_taken_while_a_new_connection_is_held() {
    let script = Script::default().answer("new_connection", 1);
    for wait in [false, true] {
        let backend = SocketBackend::start().await;
        let gate = listening(&script, "limits: {time: 1s, pause: 200ms}", &backend)
            .listener(&format!("wait_for_data: {wait}"))
            .start()
            .await;
        let mut client = Socket::connect(gate.address()).await;
        client.write("hello").await;
        assert_eq!(client.end().await, Ended { bytes: Vec::new(), reset: true }, "{wait}");
        assert!(!backend.is_waited_for().await, "{wait}");
        entered(gate.log(), "delete", 1).await;
        let reports = reports(&gate.stop().await.log);
        assert!(reports.iter().all(|report| report.phase != "downstream_data"), "{wait}: {reports:?}");
    }
}

#[tokio::test]
async fn maps_are_not_there() {
    let value = call("proxy_get_header_map_value", &[N(0), T(":path"), Bytes]);
    let add = call("proxy_add_header_map_value", &[N(0), T("x"), T("1")]);
    let reports = connection(&Script::default().on("downstream_data", [value, add])).await;
    assert_eq!(last(&reports, "downstream_data").statuses(), [NOT_FOUND, BAD_ARGUMENT]);
}
