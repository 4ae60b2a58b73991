//! The same tables in Envoy, side by side, where it is installed: what it answers otherwise is listed in `DIFFERENCES`, and
//! explained in `docs/proxy-wasm-differences.md`; any other difference fails.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use meshgate_tests::{Client, Envoy, EnvoySetup, Facts, SocketBackend, guest, without_imports};
use serde_json::json;

use super::arguments::TABLES;
use super::matrix::{FOREIGN_FUNCTION, PHASES, Phases, ROOT, ROOT_DELETE, ROOT_DONE, Row, script};
use super::paths::ROUTING;
use super::script::{
    BAD_ARGUMENT, INTERNAL_FAILURE, NOT_FOUND, OK, PARSE_FAILURE, Report, SERIALIZATION_FAILURE, Script,
    UNIMPLEMENTED, entered, fullest, name_of, reports,
};
use super::tcp;
use super::world::{LIMITS, World, whole};

/// A status that Envoy answers otherwise, and why: in the table of the documentation, under the same id.
pub(crate) struct Difference {
    pub(crate) id: &'static str,
    /// The calls begin with this, as messages show them.
    call: &'static str,
    ours: u32,
    envoy: u32,
}

const fn difference(id: &'static str, call: &'static str, ours: u32, envoy: u32) -> Difference {
    Difference { id, call, ours, envoy }
}

/// Of WASI.
const BAD_FILE: u32 = 8;
const NOT_OFFERED: u32 = 52;

pub(crate) const DIFFERENCES: &[Difference] = &[
    difference("absent-buffers", "proxy_get_buffer_", NOT_FOUND, OK),
    difference("absent-buffers", "proxy_set_buffer_bytes(", NOT_FOUND, BAD_ARGUMENT),
    difference("absent-buffers", "proxy_set_buffer_bytes(4", BAD_ARGUMENT, NOT_FOUND),
    difference("absent-buffers", "proxy_set_buffer_bytes(5", BAD_ARGUMENT, OK),
    difference("plugin-configuration", "proxy_get_buffer_bytes(7", OK, NOT_FOUND),
    difference("plugin-configuration", "proxy_get_buffer_status(7", OK, NOT_FOUND),
    difference("plugin-configuration", "proxy_set_buffer_bytes(7", BAD_ARGUMENT, NOT_FOUND),
    difference("absent-maps", "proxy_get_header_map_value(", NOT_FOUND, BAD_ARGUMENT),
    difference("maps-outside-of-their-callbacks", "proxy_get_header_map_value(", OK, BAD_ARGUMENT),
    difference("maps-outside-of-their-callbacks", "proxy_get_header_map_value(1", OK, NOT_FOUND),
    difference("maps-outside-of-their-callbacks", "proxy_get_header_map_size(", OK, BAD_ARGUMENT),
    difference("maps-outside-of-their-callbacks", "proxy_add_header_map_value(", OK, BAD_ARGUMENT),
    difference("maps-outside-of-their-callbacks", "proxy_replace_header_map_value(", OK, BAD_ARGUMENT),
    difference("maps-outside-of-their-callbacks", "proxy_remove_header_map_value(", OK, BAD_ARGUMENT),
    difference("maps-outside-of-their-callbacks", "proxy_get_property(\"request", OK, NOT_FOUND),
    difference("maps-outside-of-their-callbacks", "proxy_get_property(\"response", OK, NOT_FOUND),
    difference("own-property-paths", "proxy_get_property(\"own", OK, NOT_FOUND),
    difference("odd-property-paths", "proxy_get_property(\"\"", NOT_FOUND, SERIALIZATION_FAILURE),
    difference("odd-property-paths", "proxy_set_property(\"\"", BAD_ARGUMENT, NOT_FOUND),
    difference("odd-property-paths", "proxy_set_property(\"\"", BAD_ARGUMENT, OK),
    difference("older-names", "proxy_get_property(\"node", OK, NOT_FOUND),
    difference("older-names", "proxy_get_property(\"cluster_", OK, NOT_FOUND),
    difference("older-names", "proxy_get_property(\"route_name", OK, NOT_FOUND),
    difference("older-names", "proxy_get_property(\"listener_", OK, NOT_FOUND),
    difference(
        "direction-of-no-listener",
        "proxy_get_property(\"xds\\u0000listener_direction",
        OK,
        NOT_FOUND,
    ),
    difference("empty-properties", "proxy_get_property(\"response", NOT_FOUND, OK),
    difference("empty-properties", "proxy_get_property(\"request\\u0000headers", NOT_FOUND, OK),
    difference("empty-properties", "proxy_get_property(\"request\\u0000total_size", NOT_FOUND, OK),
    difference(
        "empty-properties",
        "proxy_get_property(\"connection\\u0000requested_server_name",
        NOT_FOUND,
        OK,
    ),
    difference(
        "empty-properties",
        "proxy_get_property(\"upstream\\u0000transport_failure_reason",
        NOT_FOUND,
        OK,
    ),
    difference("empty-properties", "proxy_get_property(\"xds\\u0000filter_chain_name", NOT_FOUND, OK),
    difference(
        "empty-properties",
        "proxy_get_property(\"xds\\u0000upstream_host",
        NOT_FOUND,
        SERIALIZATION_FAILURE,
    ),
    difference("envoys-own-properties", "proxy_get_property(\"xds\\u0000route_metadata", NOT_FOUND, OK),
    difference("envoys-own-properties", "proxy_get_property(\"xds\\u0000virtual_host", NOT_FOUND, OK),
    difference("envoys-own-properties", "proxy_get_property(\"upstream\\u0000locality", NOT_FOUND, OK),
    difference("local-port", "proxy_get_property(\"upstream\\u0000local_port", OK, NOT_FOUND),
    difference("cluster-before-routing", "proxy_get_property(\"upstream\\u0000num_endpoints", NOT_FOUND, OK),
    difference("malformed-input", "proxy_grpc_call(\"rpc\"", PARSE_FAILURE, OK),
    difference("malformed-input", "proxy_grpc_call(\"rpc\"", PARSE_FAILURE, INTERNAL_FAILURE),
    difference("malformed-input", "proxy_grpc_stream(\"rpc\"", PARSE_FAILURE, OK),
    difference("grpc-ids", "proxy_grpc_send(", NOT_FOUND, BAD_ARGUMENT),
    difference("grpc-ids", "proxy_grpc_close(", NOT_FOUND, BAD_ARGUMENT),
    difference("grpc-ids", "proxy_grpc_cancel(", NOT_FOUND, BAD_ARGUMENT),
    difference("grpc-closed", "proxy_grpc_send({\"saved\":\"stream\"}", BAD_ARGUMENT, OK),
    difference("declarations", "proxy_call_foreign_function(\"declare_property\"", BAD_ARGUMENT, OK),
    difference("cel", "proxy_call_foreign_function(\"expr_", NOT_FOUND, OK),
    difference("cel", "proxy_call_foreign_function(\"expr_", NOT_FOUND, INTERNAL_FAILURE),
    difference(
        "clusters-that-exist",
        "proxy_call_foreign_function(\"set_envoy_filter_state\"",
        BAD_ARGUMENT,
        OK,
    ),
    difference("our-functions", "proxy_call_foreign_function(\"meshgate.", OK, NOT_FOUND),
    difference("our-functions", "proxy_call_foreign_function(\"meshgate.", BAD_ARGUMENT, NOT_FOUND),
    difference("upstream-stream", "proxy_continue_stream(3)", OK, UNIMPLEMENTED),
    difference("malformed-input", "proxy_http_call(\"called\"", BAD_ARGUMENT, OK),
    difference("malformed-input", "proxy_http_call(\"called\"", BAD_ARGUMENT, INTERNAL_FAILURE),
    difference("shared-data-removal", "proxy_get_shared_data(\"key\"", NOT_FOUND, OK),
    difference("vm-context", "proxy_set_effective_context(0)", BAD_ARGUMENT, OK),
    difference("wasi-answers", "fd_close(3)", BAD_FILE, OK),
    difference("wasi-answers", "unstable.fd_close(3)", BAD_FILE, OK),
    difference("wasi-answers", "fd_seek(3", BAD_FILE, OK),
    difference("wasi-answers", "unstable.fd_seek(3", BAD_FILE, OK),
    difference("wasi-answers", "fd_pwrite(", NOT_OFFERED, OK),
    difference("wasi-answers", "unstable.fd_pwrite(", NOT_OFFERED, OK),
];

/// What the calls that begin with this give differs between any two runs, or between both proxies by what each is asked and
/// adds itself: numbers that a host makes up, times, addresses, sizes of fields, the words of an error.
const OWN_VALUES: &[&str] = &[
    "clock_time_get",
    "proxy_call_foreign_function(\"sign\"",
    "proxy_call_foreign_function(\"verify_signature\", {\"hex\":\"0a0673686132353612066e6f206b6579\"}",
    "proxy_define_metric",
    "proxy_get_buffer_bytes(6",
    "proxy_get_buffer_status(6",
    "proxy_get_current_time",
    "proxy_get_header_map_pairs",
    "proxy_get_header_map_size",
    "proxy_get_header_map_value(0, \"host\"",
    "proxy_get_log_level",
    "proxy_get_metric",
    "proxy_get_property(\"connection\\u0000id\"",
    "proxy_get_property(\"connection_id\"",
    "proxy_get_property(\"destination",
    "proxy_get_property(\"request\\u0000duration",
    "proxy_get_property(\"request\\u0000headers\"",
    "proxy_get_property(\"request\\u0000headers_bytes",
    "proxy_get_property(\"request\\u0000host",
    "proxy_get_property(\"request\\u0000time",
    "proxy_get_property(\"request\\u0000total_size",
    "proxy_get_property(\"response\\u0000backend_latency",
    "proxy_get_property(\"response\\u0000headers\"",
    "proxy_get_property(\"response\\u0000headers_bytes",
    "proxy_get_property(\"response\\u0000total_size",
    // Empty in Envoy once the trailers' callback is over: see `maps-outside-of-their-callbacks`.
    "proxy_get_property(\"response\\u0000trailers\"",
    "proxy_get_property(\"source",
    "proxy_get_property(\"upstream",
    // A list of everything that Envoy is made of.
    "proxy_get_property(\"xds\\u0000node\"",
    "proxy_get_property(\"xds\\u0000route_name",
    "proxy_get_shared_data",
    "proxy_get_status",
    "proxy_grpc_",
    "proxy_http_call",
    "proxy_register_shared_queue",
    "proxy_resolve_shared_queue",
    "unstable.clock_time_get",
];

/// Calls that we refuse, or that do nothing, while in Envoy they end the exchange that the table needs: see
/// `malformed-input`, `pseudo-headers-kept` and, for streams resumed before their first callback, `upstream-stream`.
fn ends_the_exchange(call: &str) -> bool {
    let begins = ["proxy_set_header_map_pairs(", "proxy_send_local_response("];
    let resumes = ["proxy_continue_stream(0)", "proxy_continue_stream(1)", "proxy_continue_stream(2)"];
    let has = ["\"x new\"", ", \"\", \"1\")", "x-injected", "\"x-new\", {\"hex\""];
    begins.iter().chain(&resumes).any(|begin| call.starts_with(begin))
        || has.iter().any(|part| call.contains(part))
}

/// Envoy ends: see `grpc-without-target`.
fn ends_envoy(call: &str) -> bool {
    ["proxy_grpc_call(\"\"", "proxy_grpc_stream(\"\""].iter().any(|begin| call.starts_with(begin))
}

/// Differences that no table can show.
pub(crate) const UNTABLED: &[&str] =
    &["grpc-without-target", "long-queue-names", "queue-events", "queues-of-others"];

/// Functions that Envoy does not have, or not for modules of this ABI version: it would refuse the module.
const MISSING: &[&str] = &[
    // Of ABI 0.1.0.
    "env.proxy_get_configuration",
    "env.proxy_continue_request",
    "env.proxy_continue_response",
    "env.proxy_clear_route_cache",
    // Of WASI; the last one it has with another type.
    "wasi_snapshot_preview1.clock_res_get",
    "wasi_unstable.clock_res_get",
    "wasi_snapshot_preview1.fd_filestat_get",
    "wasi_unstable.fd_filestat_get",
    "wasi_snapshot_preview1.proc_raise",
    "wasi_unstable.proc_raise",
    "wasi_snapshot_preview1.path_symlink",
    "wasi_unstable.path_symlink",
];

/// Callbacks that a test cannot wait for: Envoy is killed in the end, and has no function that asks about tries.
const UNSEEN: Phases = ROOT_DONE.or(ROOT_DELETE).or(FOREIGN_FUNCTION);

const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn tables() {
    if Envoy::installed().is_none() {
        println!("envoy is not installed: skipped");
        return;
    }
    let mut found = Vec::new();
    let mut shown = BTreeSet::new();
    let mut compared = 0;
    for rows in TABLES {
        let there = |row: &&Row| !MISSING.iter().any(|name| is(row, name));
        let comparable = |call: &str| !ends_the_exchange(call) && !ends_envoy(call);
        let rows = rows.iter().filter(there).filter(|row| comparable(&row.call().shown()));
        let rows: Vec<_> = rows.collect();
        if !rows.is_empty() {
            let theirs = run(&rows).await;
            compare(&rows, &theirs, &mut found, &mut shown);
            compared += compare_values(&rows, &run_here(&rows).await, &theirs, &mut found);
        }
        let rows: Vec<_> =
            rows.into_iter().filter(|row| tcp::is_called(row) && !tcp::is_our_own(row)).collect();
        if !rows.is_empty() {
            compare_tcp(&rows, &run_tcp(&rows).await, &mut found, &mut shown);
        }
    }
    assert!(compared > 1_000, "only {compared} values");
    for difference in DIFFERENCES {
        if !shown.contains(&(difference.id, difference.call)) {
            found.push(format!("{} ({}) did not show: Envoy agrees", difference.id, difference.call));
        }
    }
    assert!(found.is_empty(), "{} differences:\n{}", found.len(), found.join("\n"));
}

/// Envoy runs every plugin on its main thread, too: in callbacks of root contexts both use the shared data and queues of the
/// table at the same time.
fn races(call: &str, phase: Phases) -> bool {
    ROOT.contains(phase) && ["shared_data(", "_shared_queue("].iter().any(|part| call.contains(part))
}

fn is(row: &Row, full_name: &str) -> bool {
    let (module, name) = full_name.split_once('.').unwrap_or_default();
    match module {
        "wasi_unstable" => row.function.strip_prefix("unstable.") == Some(name),
        _ => row.function == name,
    }
}

/// Envoy with the guest, its script, and what the configuration says of the proxy and its parts.
pub(super) fn setup(script: &Script, one: SocketAddr, world: &World) -> EnvoySetup {
    let script = script.json();
    let metadata = |key: &str| json!({"filter_metadata": {"suite": {"key": key}}});
    let facts = Facts {
        node: json!({"id": "gate-7", "cluster": "gates", "locality": {"region": "north", "zone": "north-1", "sub_zone": "a"}, "metadata": {"REGION": "north", "LIST": ["a", "b"]}}),
        listener: json!({"traffic_direction": "INBOUND", "metadata": metadata("of the listener")}),
        cluster: json!({"metadata": metadata("of the cluster")}),
        ..Facts::default()
    };
    Envoy::setup()
        .filter("conformance", without_imports(&guest("conformance"), MISSING), &script)
        // The plugin's own cannot be read in every callback.
        .vm_configuration(&script)
        .facts(facts)
        .cluster("one", one)
        .cluster("called", world.called.address())
        .http2_cluster("rpc", world.rpc.address())
}

async fn run(rows: &[&Row]) -> Vec<Report> {
    let world = World::start().await;
    let envoy = setup(&script(rows.iter().copied()), world.one.address(), &world).start().await;
    let driven = async {
        for callback in ["queue_ready", "http_call_response", "grpc_close"] {
            entered(envoy.log(), callback, 1).await;
        }
        let _ = Client::http1(envoy.address()).await.try_call(whole()).await;
        entered(envoy.log(), "delete", 1).await;
    };
    // A callback that does not come is a difference like others.
    let _ = tokio::time::timeout(PATIENCE, driven).await;
    reports(&envoy.log().all())
}

/// The same on a TCP connection.
async fn run_tcp(rows: &[&Row]) -> Vec<Report> {
    let (world, backend) = (World::start().await, SocketBackend::start().await);
    let envoy = setup(&tcp::script(rows), backend.address(), &world).tcp().start().await;
    let driven = async {
        tcp::converse(envoy.address(), &backend).await;
        entered(envoy.log(), "delete", 1).await;
    };
    let _ = tokio::time::timeout(PATIENCE, driven).await;
    reports(&envoy.log().all())
}

/// The same here, behind the routing that Envoy has by itself.
async fn run_here(rows: &[&Row]) -> Vec<Report> {
    let keys = format!("{LIMITS}, compatibility: {{null_values: store}}");
    let running = World::start().await.run_behind(ROUTING, &script(rows.iter().copied()), &keys).await;
    for callback in ["queue_ready", "http_call_response", "grpc_close"] {
        entered(running.log(), callback, 1).await;
    }
    let _ = running.ask(1, whole()).await;
    entered(running.log(), "delete", 1).await;
    running.stop().await
}

/// Compares what both gave where both answered OK. How many values these were.
fn compare_values(rows: &[&Row], ours: &[Report], theirs: &[Report], found: &mut Vec<String>) -> usize {
    let mut compared = 0;
    for (phase, callback) in PHASES.into_iter().filter(|(phase, _)| !UNSEEN.contains(*phase)) {
        let (Some(ours), Some(theirs)) = (fullest(ours, callback), fullest(theirs, callback)) else {
            continue;
        };
        for (place, row) in rows.iter().filter(|row| row.expected(phase).is_some()).enumerate() {
            let call = row.call().shown();
            let (Some(ours), Some(theirs)) = (ours.results.get(place), theirs.results.get(place)) else {
                continue;
            };
            let own = OWN_VALUES.iter().any(|begin| call.starts_with(begin)) || races(&call, phase);
            if ours[0] != OK || theirs[0] != OK || own {
                continue;
            }
            compared += ours.len() - 1;
            if ours != theirs {
                found.push(format!("{call} in {callback}: gives {ours:?}, envoy {theirs:?}"));
            }
        }
    }
    compared
}

/// What was found: differences that are not known, and the known ones that showed.
type Shown = BTreeSet<(&'static str, &'static str)>;

fn compare(rows: &[&Row], reports: &[Report], found: &mut Vec<String>, shown: &mut Shown) {
    for (phase, name) in PHASES.into_iter().filter(|(phase, _)| !UNSEEN.contains(*phase)) {
        let made = rows.iter().filter_map(|row| Some((row.call().shown(), row.expected(phase)?)));
        let made =
            made.map(|(call, status)| if races(&call, phase) { (call, None) } else { (call, Some(status)) });
        compare_callback(name, &made.collect::<Vec<_>>(), reports, found, shown);
    }
}

fn compare_tcp(rows: &[&Row], reports: &[Report], found: &mut Vec<String>, shown: &mut Shown) {
    for callback in tcp::CALLBACKS {
        let made: Vec<_> =
            rows.iter().map(|row| (row.call().shown(), tcp::expected(row, callback))).collect();
        compare_callback(callback, &made, reports, found, shown);
    }
}

/// Compares the statuses of the calls that were made in a callback; those without one are not compared.
fn compare_callback(
    callback: &str,
    made: &[(String, Option<u32>)],
    reports: &[Report],
    found: &mut Vec<String>,
    shown: &mut Shown,
) {
    let Some((first, _)) = made.first() else { return };
    let Some(report) = fullest(reports, callback) else {
        found.push(format!("{callback} did not come, or made no calls, with {first}"));
        return;
    };
    for (place, (call, ours)) in made.iter().enumerate() {
        let (Some(ours), theirs) = (*ours, report.status(place)) else { continue };
        if ours == theirs {
            continue;
        }
        let known = DIFFERENCES
            .iter()
            .find(|known| call.starts_with(known.call) && (known.ours, known.envoy) == (ours, theirs));
        match known {
            Some(known) => drop(shown.insert((known.id, known.call))),
            None => {
                let (ours, theirs) = (name_of(ours), name_of(theirs));
                found.push(format!("{call} in {callback}: {ours}, envoy {theirs}"));
            }
        }
    }
}
