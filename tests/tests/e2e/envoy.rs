//! The same filters in Envoy, side by side: each scenario sends the same requests through Meshgate and through Envoy, with
//! the same module in both, to the same backends, and compares everything that a client, a backend or an operator can see.
//!
//! What differs and may is listed in `KNOWN`, and explained in `docs/proxy-wasm-differences.md`; any other difference fails.
//! Where Envoy is not installed, the tests say so and pass.

mod compare;
mod filters;
mod known;
mod probe;
mod sdk_tcp;
mod suite;
mod talk;
mod tcp;
mod world;

use std::collections::{BTreeMap, BTreeSet};

use meshgate_tests::{Ask, Client, Envoy, repository, until};
use serde_json::{Value, json};

use crate::conformance::{self, LANGUAGES, language};

use self::compare::{Scenario, compare, differences};
use self::known::KNOWN;
use self::probe::Argument::{Bytes, Long, Number, Slot, Value as Returned};
use self::probe::{Call, Phase, probe, property};
use self::world::{
    COMPARED_BY_FORM, GET, Observed, REQUESTS, Request, WITH_TRAILERS, WITHOUT_TRAILERS, World, marked,
};

#[tokio::test]
async fn nothing_is_changed() {
    compare(vec![
        Scenario::new("nothing", vec![("noop", json!({}))]),
        Scenario::new("nothing without the SDK", vec![("noop-proxy-wasm", json!({}))]),
    ])
    .await;
}

#[tokio::test]
async fn header_maps() {
    let mut scenarios = Vec::new();
    let configuration = json!({
        "request": {"remove": ["x-remove", "x-none"], "set": {"x-set": "new", "x-new": "1"}, "add": {"x-add": "second"}},
        "response": {"remove": ["content-type"], "set": {"x-backend": "hidden", "x-twice": "3"}, "add": {"x-added": "1"}},
    });
    scenarios.push(Scenario::plain("header maps", configuration.clone()));
    scenarios.push(Scenario::new("header maps by the standard filter", vec![("headers", configuration)]));
    compare(scenarios).await;
}

#[tokio::test]
async fn odd_header_values() {
    let mut scenarios = Vec::new();
    let configuration = json!({
        "request": {"set": {"X-Upper": "Value", "x-empty": "", "x-long": "v".repeat(3000), "x-tab": "a\tb", "cookie": "a=b"},
            "add": {"cookie": "c=d", "x-add": ""}},
        "response": {"set": {"X-Upper": "Value", "x-empty": "", "x-utf": "\u{e4}"}, "add": {"set-cookie": "a=b"}},
    });
    scenarios.push(Scenario::plain("odd header values", configuration));
    compare(scenarios).await;
}

#[tokio::test]
async fn framing_fields() {
    let mut scenarios = Vec::new();
    for (name, request, response) in [
        (
            "content-length is removed",
            json!({"remove": ["content-length"]}),
            json!({"remove": ["content-length"]}),
        ),
        ("te and trailer are removed", json!({"remove": ["te", "trailer"]}), json!({"remove": ["trailer"]})),
        ("host is removed", json!({"remove": ["host"]}), json!({})),
    ] {
        scenarios.push(Scenario::plain(name, json!({"request": request, "response": response})));
    }
    compare(scenarios).await;
}

#[tokio::test]
async fn pseudo_headers() {
    let mut scenarios = Vec::new();
    for (name, configuration) in [
        ("path", json!({"request": {"set": {":path": "/rewritten?x=y"}}})),
        ("method", json!({"request": {"set": {":method": "PUT"}}})),
        ("authority", json!({"request": {"set": {":authority": "inside.example"}}})),
        ("scheme", json!({"request": {"set": {":scheme": "https"}}})),
        ("host", json!({"request": {"set": {"host": "inside.example"}}})),
        ("status", json!({"response": {"set": {":status": "418"}}})),
    ] {
        scenarios.push(Scenario::plain(name, configuration));
    }
    compare(scenarios).await;
}

#[tokio::test]
async fn request_body() {
    let mut scenarios = Vec::new();
    for (name, edit) in edits("request body") {
        scenarios.push(Scenario::plain(name, json!({"request_body": edit})));
    }
    compare(scenarios).await;
}

#[tokio::test]
async fn response_body() {
    let mut scenarios = Vec::new();
    for (name, edit) in edits("response body") {
        scenarios.push(Scenario::plain(name, json!({"response_body": edit})));
    }
    compare(scenarios).await;
}

fn edits(side: &str) -> Vec<(&'static str, Value)> {
    [
        (" replaced", json!({"replace": "something else"})),
        (" emptied", json!({"replace": ""})),
        (" appended to", json!({"append": " and more"})),
        (" prepended to", json!({"prepend": "more and "})),
        (" in upper case", json!({"uppercase": true})),
    ]
    .map(|(what, edit)| (&*format!("{side}{what}").leak(), edit))
    .to_vec()
}

#[tokio::test]
async fn bodies_in_a_chain() {
    let mut scenarios = Vec::new();
    let filters = vec![
        (
            "plain",
            json!({"order": "a", "request_body": {"replace": "one"}, "response_body": {"append": "a"}}),
        ),
        (
            "plain",
            json!({"order": "b", "request_body": {"append": " two"}, "response_body": {"uppercase": true}}),
        ),
        (
            "headers",
            json!({"request": {"add": {"x-order": "headers"}}, "response": {"add": {"x-order": "headers"}}}),
        ),
        (
            "plain",
            json!({"order": "c", "request_body": {"uppercase": true}, "response_body": {"prepend": "c "}}),
        ),
    ];
    scenarios.push(Scenario::new("bodies in a chain", filters));
    compare(scenarios).await;
}

#[tokio::test]
async fn trailers() {
    let mut scenarios = Vec::new();
    let configuration = json!({
        "request_trailers": {"remove": ["x-gone"], "set": {"x-last": "changed"}, "add": {"x-added": "1"}},
        "response_trailers": {"remove": ["x-gone"], "set": {"x-sum": "changed"}, "add": {"x-added": "1"}},
    });
    scenarios.push(Scenario::plain("trailers", configuration.clone()));
    let announced = json!({
        "request": {"set": {"trailer": "x-last, x-added"}},
        "request_trailers": configuration["request_trailers"],
        "response": {"set": {"trailer": "x-sum, x-added"}},
        "response_trailers": configuration["response_trailers"],
    });
    scenarios.push(Scenario::plain("trailers announced", announced));
    let with_bodies = json!({
        "request_body": {"append": "!"},
        "request_trailers": configuration["request_trailers"],
        "response_body": {"replace": "other"},
        "response_trailers": configuration["response_trailers"],
    });
    scenarios.push(Scenario::plain("trailers and bodies", with_bodies));
    compare(scenarios).await;
}

#[tokio::test]
async fn call_in_each_phase() {
    let mut scenarios = Vec::new();
    for phase in ["request_headers", "request_body", "request_trailers", "response_headers", "response_body"]
    {
        let name = format!("call at {phase}").leak();
        let call = json!({"at": phase, "cluster": "called", "path": "/check?a=b"});
        let requests = if phase.ends_with("body") { WITHOUT_TRAILERS } else { REQUESTS };
        scenarios.push(Scenario::plain(name, json!({"call": call})).requests(requests));
    }
    compare(scenarios).await;
}

#[tokio::test]
async fn grpc_calls() {
    let called = |method: &str, more: Value| {
        let mut configuration = json!({"method": method, "send": ["hello"]});
        configuration.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let name = format!("grpc call {method} {more}").leak();
        Scenario::new(name, vec![("grpc", configuration)]).requests(GET)
    };
    let mut scenarios = vec![
        called("Unary", json!({})),
        called("Fields", json!({"metadata": {"x-own": "a"}, "timeout_ms": 1500})),
        called("Fields", json!({"as_message": true})),
        called("Unary", json!({"cluster": "nowhere"})),
        called("Unary", json!({"cluster": "gone"})),
        called("Unary", json!({"cancel": "start", "again": true})),
        called("Silent", json!({"timeout_ms": 200})),
    ];
    let failing =
        ["Refuse", "NoSuch", "Status404", "Html", "NoStatus", "NoTrailers", "NoMessage", "TwoMessages"];
    let broken = ["Compressed", "Cut", "ResetEarly", "ResetLate"];
    scenarios.extend(failing.into_iter().chain(broken).map(|method| called(method, json!({}))));
    compare(scenarios).await;
}

#[tokio::test]
async fn grpc_streams() {
    let streamed = |method: &str, more: Value| {
        let mut configuration = json!({"stream": true, "method": method, "send": ["one", "two"]});
        configuration.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let name = format!("grpc stream {method} {more}").leak();
        Scenario::new(name, vec![("grpc", configuration)]).requests(GET)
    };
    let mut scenarios = vec![
        streamed("Stream", json!({})),
        streamed("Stream", json!({"lockstep": true, "then": "close"})),
        streamed("Early", json!({"send": ["one"], "then": "nothing"})),
        streamed("Stream", json!({"then": "nothing", "cancel": "message"})),
        streamed("Unary", json!({"cluster": "nowhere"})),
        streamed("Unary", json!({"cluster": "gone"})),
    ];
    let failing =
        ["Refuse", "NoSuch", "Status404", "NoStatus", "NoTrailers", "Compressed", "ResetEarly", "ResetLate"];
    scenarios.extend(failing.map(|method| streamed(method, json!({}))));
    compare(scenarios).await;
}

#[tokio::test]
async fn trailers_release_a_body_that_is_held() {
    let call = |phase| json!({"call": {"at": phase, "cluster": "silent", "path": "/", "timeout_ms": 5000}});
    compare([
        Scenario::plain("trailers while a request is held", call("request_body")).requests(WITH_TRAILERS),
        Scenario::plain("trailers while a response is held", call("response_body")).requests(WITH_TRAILERS),
    ])
    .await;
}

#[tokio::test]
async fn call_while_bodies_are_rewritten() {
    let mut scenarios = Vec::new();
    let call = json!({"at": "request_body", "cluster": "called", "path": "/check"});
    let filters = vec![
        ("plain", json!({"request_body": {"uppercase": true}, "call": call})),
        ("plain", json!({"request_body": {"append": "!"}, "response_body": {"uppercase": true}})),
    ];
    scenarios.push(Scenario::new("call while bodies are rewritten", filters).requests(WITHOUT_TRAILERS));
    compare(scenarios).await;
}

#[tokio::test]
async fn call_that_fails() {
    let mut scenarios = Vec::new();
    for phase in ["request_headers", "response_headers"] {
        for cluster in ["unknown", "gone", "silent"] {
            let name = format!("call at {phase} to {cluster}").leak();
            let call = json!({"at": phase, "cluster": cluster, "path": "/", "timeout_ms": 200});
            scenarios.push(Scenario::plain(name, json!({"call": call})));
        }
    }
    compare(scenarios).await;
}

#[tokio::test]
async fn call_makes_the_answer() {
    let mut scenarios = Vec::new();
    for phase in ["request_headers", "request_body", "request_trailers", "response_headers"] {
        let name = format!("call at {phase} makes the answer").leak();
        let call = json!({"at": phase, "cluster": "called", "path": "/deny", "then": "reply"});
        let requests = if phase == "request_body" { WITHOUT_TRAILERS } else { REQUESTS };
        scenarios.push(Scenario::plain(name, json!({"call": call})).requests(requests));
    }
    compare(scenarios).await;
}

#[tokio::test]
async fn local_response_in_each_phase() {
    let mut scenarios = Vec::new();
    let phases = [
        "request_headers",
        "request_body",
        "request_trailers",
        "response_headers",
        "response_body",
        "response_trailers",
        "call",
    ];
    for phase in phases {
        let name = format!("local response at {phase}").leak();
        let reply = json!({"at": phase, "status": 429, "body": "slow down", "headers": {"x-own": "1"}});
        let mut configuration = json!({"reply": reply, "order": "inside"});
        if phase == "call" {
            configuration["call"] = json!({"at": "request_headers", "cluster": "called", "path": "/"});
        }
        let filters = vec![
            ("headers", json!({"response": {"set": {"x-outer": "seen"}}})),
            ("plain", configuration),
            (
                "headers",
                json!({"request": {"set": {"x-inner": "seen"}}, "response": {"set": {"x-inner": "seen"}}}),
            ),
        ];
        scenarios.push(Scenario::new(name, filters));
    }
    compare(scenarios).await;
}

#[tokio::test]
async fn local_response_to_a_local_response() {
    let reply = |phase, status| json!({"at": phase, "status": status, "body": "slow down"});
    let mut scenarios = Vec::new();
    for phase in ["response_headers", "response_body"] {
        let name = format!("local response at {phase} to another filter's").leak();
        let filters = vec![
            ("plain", json!({"reply": reply(phase, 429)})),
            ("plain", json!({"reply": reply("request_headers", 403)})),
        ];
        scenarios.push(Scenario::new(name, filters));
    }
    compare(scenarios).await;
}

#[tokio::test]
async fn local_response_of_several_forms() {
    let mut scenarios = Vec::new();
    for (name, reply) in [
        ("local response without body", json!({"status": 204})),
        (
            "local response with a type",
            json!({"status": 200, "body": "{}", "headers": {"content-type": "a/b"}}),
        ),
        ("local response that redirects", json!({"status": 302, "headers": {"location": "/there"}})),
        ("local response 500", json!({"status": 500, "body": "sorry"})),
    ] {
        let mut reply = reply;
        reply["at"] = "request_headers".into();
        scenarios.push(Scenario::plain(name, json!({"reply": reply})));
    }
    compare(scenarios).await;
}

/// The scenario that guests of every language play.
#[tokio::test]
async fn guests_of_every_language() {
    const REQUESTS: &[Request] = &[
        Request { label: "get", ask: || marked(Ask::get("/get?a=b&c")) },
        Request { label: "post", ask: || marked(Ask::post("/post", "hello")) },
        Request { label: "letters", ask: || marked(Ask::get("/letters")) },
        Request { label: "call", ask: || marked(Ask::post("/call", "hello")) },
        Request { label: "deny", ask: || marked(Ask::get("/deny")) },
    ];
    let mut scenarios = Vec::new();
    // Envoy refuses a module that imports `env.abort` or `env.seed`.
    for (name, _) in LANGUAGES.into_iter().filter(|(name, _)| !name.ends_with("-imports")) {
        if let Some(module) = language(name) {
            let scenario = Scenario::new(name, vec![(name, json!("called"))]).module(name, module);
            scenarios.push(scenario.requests(REQUESTS).log("scenario over").metric("scenario_requests"));
        }
    }
    compare(scenarios).await;
}

#[tokio::test]
async fn log_phase() {
    let mut scenarios = Vec::new();
    scenarios.push(Scenario::plain("log", json!({"log": "words of a filter"})).log("words of a filter"));
    let reply = json!({"at": "request_headers", "status": 403});
    scenarios.push(
        Scenario::plain("log of a local response", json!({"log": "words of a filter", "reply": reply}))
            .log("words of a filter"),
    );
    compare(scenarios).await;
}

#[tokio::test]
async fn metrics() {
    compare(vec![Scenario::plain("metrics", json!({"count": "my_requests"})).metric("my_requests")]).await;
}

/// A scenario that puts these properties into response fields, and those by their form.
fn properties_of(name: &'static str, paths: &[&'static str], by_form: &[&'static str]) -> Scenario {
    let field = |prefix: &str, path: &str| format!("{prefix}{}", path.replace(['/', '_'], "-"));
    let plain = paths.iter().map(|path| (field("x-p-", path), *path));
    let formed = by_form.iter().map(|path| (field(COMPARED_BY_FORM, path), *path));
    let properties: BTreeMap<String, &str> = plain.chain(formed).collect();
    Scenario::plain(name, json!({"properties": properties}))
}

#[tokio::test]
async fn properties() {
    let request = [
        "request/path",
        "request/url_path",
        "request/query",
        "request/host",
        "request/scheme",
        "request/method",
        "request/referer",
        "request/useragent",
        "request/id",
        "request/protocol",
        "request/headers/x-set",
        "request/headers/x-none",
        "request/size",
    ];
    let response = [
        "response/code",
        "response/code_details",
        "response/flags",
        "response/grpc_status",
        "response/headers/x-backend",
        "response/headers/x-twice",
        "response/trailers/x-sum",
    ];
    let connection = [
        "connection/mtls",
        "connection/requested_server_name",
        "connection/tls_version",
        "upstream/address",
        "upstream/port",
    ];
    let configured = [
        "plugin_name",
        "plugin_root_id",
        "plugin_vm_id",
        "cluster_name",
        "route_name",
        "listener_direction",
        "xds/cluster_name",
        "xds/route_name",
        "xds/listener_direction",
        "no/such/property",
    ];
    let addresses = [
        "source/address",
        "source/port",
        "destination/address",
        "destination/port",
        "connection/id",
        "connection_id",
        "upstream/local_address",
    ];
    let figures = [
        "request/time",
        "request/duration",
        "request/total_size",
        "request/headers_bytes",
        "response/backend_latency",
    ];
    compare([
        properties_of("properties of the request", &request, &[]),
        properties_of("properties of the response", &response, &[]),
        properties_of("properties of the connections", &connection, &[]),
        properties_of("properties of the configuration", &configured, &[]),
        properties_of("addresses", &[], &addresses),
        properties_of("figures", &[], &figures),
    ])
    .await;
}

#[tokio::test]
async fn properties_of_the_request_in_its_own_callback() {
    const CALLS: &[Call] = &[
        property("x-path", &[Bytes("request\0path"), Returned]),
        property("x-url-path", &[Bytes("request\0url_path"), Returned]),
        property("x-query", &[Bytes("request\0query"), Returned]),
        property("x-host", &[Bytes("request\0host"), Returned]),
        property("x-scheme", &[Bytes("request\0scheme"), Returned]),
        property("x-method", &[Bytes("request\0method"), Returned]),
        property("x-referer", &[Bytes("request\0referer"), Returned]),
        property("x-agent", &[Bytes("request\0useragent"), Returned]),
        property("x-id", &[Bytes("request\0id"), Returned]),
        property("x-protocol", &[Bytes("request\0protocol"), Returned]),
        property("x-field", &[Bytes("request\0headers\0x-set"), Returned]),
        property("x-field-upper", &[Bytes("request\0headers\0X-Set"), Returned]),
        property("x-field-none", &[Bytes("request\0headers\0x-none"), Returned]),
        property("x-fields", &[Bytes("request\0headers"), Slot, Slot]),
        property("x-request", &[Bytes("request"), Slot, Slot]),
        property("x-request-none", &[Bytes("request\0none"), Slot, Slot]),
        property("x-final-nul", &[Bytes("request\0path\0"), Returned]),
        property("x-deeper", &[Bytes("request\0path\0more"), Slot, Slot]),
        property("x-empty", &[Bytes(""), Slot, Slot]),
        property("x-nul", &[Bytes("\0"), Slot, Slot]),
        property("x-none", &[Bytes("no\0such"), Slot, Slot]),
        property("x-size", &[Bytes("request\0size"), Slot, Slot]),
        property("x-total-size", &[Bytes("request\0total_size"), Slot, Slot]),
        property("x-headers-bytes", &[Bytes("request\0headers_bytes"), Slot, Slot]),
        property("x-time", &[Bytes("request\0time"), Slot, Slot]),
        property("x-duration", &[Bytes("request\0duration"), Slot, Slot]),
        property("x-code", &[Bytes("response\0code"), Slot, Slot]),
        property("x-details", &[Bytes("response\0code_details"), Slot, Slot]),
        property("x-response-field", &[Bytes("response\0headers\0x-backend"), Slot, Slot]),
        property("x-source", &[Bytes("source\0address"), Slot, Slot]),
        property("x-destination-port", &[Bytes("destination\0port"), Slot, Slot]),
        property("x-upstream", &[Bytes("upstream\0address"), Slot, Slot]),
        property("x-plugin", &[Bytes("plugin_name"), Returned]),
        property("x-cluster", &[Bytes("xds\0cluster_name"), Returned]),
        property("x-route", &[Bytes("xds\0route_name"), Slot, Slot]),
        property("x-node", &[Bytes("xds\0node"), Slot, Slot]),
        property("x-metadata", &[Bytes("metadata"), Slot, Slot]),
        property("x-filter-state", &[Bytes("filter_state\0none"), Slot, Slot]),
        Call { name: "x-set-own", function: "set_property", arguments: &[Bytes("own\0key"), Bytes("value")] },
        property("x-own", &[Bytes("own\0key"), Returned]),
        Call { name: "x-set-one", function: "set_property", arguments: &[Bytes("one"), Bytes("value")] },
        property("x-one", &[Bytes("one"), Returned]),
        Call {
            name: "x-set-path",
            function: "set_property",
            arguments: &[Bytes("request\0path"), Bytes("/x")],
        },
        property("x-path-again", &[Bytes("request\0path"), Returned]),
    ];
    compare([probing("properties in the request's callback", Phase::RequestHeaders, CALLS)]).await;
}

/// A chain of one `probe`.
fn probing(name: &'static str, phase: Phase, calls: &[Call]) -> Scenario {
    Scenario::new(name, vec![("probe", json!({}))]).module("probe", probe(phase, calls))
}

#[tokio::test]
async fn statuses_of_hostcalls() {
    const fn call(name: &'static str, function: &'static str, arguments: &'static [probe::Argument]) -> Call {
        Call { name, function, arguments }
    }
    const CALLS: &[Call] = &[
        call("x-value", "get_header_map_value", &[Number(0), Bytes("x-set"), Returned]),
        call("x-value-upper", "get_header_map_value", &[Number(0), Bytes("X-SET"), Returned]),
        call("x-value-none", "get_header_map_value", &[Number(0), Bytes("x-none"), Returned]),
        call("x-value-host", "get_header_map_value", &[Number(0), Bytes("host"), Returned]),
        call("x-value-trailer", "get_header_map_value", &[Number(1), Bytes("x-last"), Returned]),
        call("x-value-response", "get_header_map_value", &[Number(2), Bytes("x-backend"), Returned]),
        call("x-value-call", "get_header_map_value", &[Number(6), Bytes(":status"), Returned]),
        call("x-value-no-map", "get_header_map_value", &[Number(8), Bytes("x-set"), Returned]),
        call("x-pairs-trailer", "get_header_map_pairs", &[Number(1), Slot, Slot]),
        call("x-pairs-response", "get_header_map_pairs", &[Number(2), Slot, Slot]),
        call("x-pairs-no-map", "get_header_map_pairs", &[Number(8), Slot, Slot]),
        call("x-size", "get_header_map_size", &[Number(0), Slot]),
        call("x-size-response", "get_header_map_size", &[Number(2), Slot]),
        call("x-add-trailer", "add_header_map_value", &[Number(1), Bytes("x-a"), Bytes("b")]),
        call("x-add-response", "add_header_map_value", &[Number(2), Bytes("x-a"), Bytes("b")]),
        call("x-replace-response", "replace_header_map_value", &[Number(2), Bytes("x-a"), Bytes("b")]),
        call("x-remove-none", "remove_header_map_value", &[Number(0), Bytes("x-none")]),
        call("x-remove-response", "remove_header_map_value", &[Number(2), Bytes("x-a")]),
        call("x-buffer", "get_buffer_bytes", &[Number(0), Number(0), Number(9), Slot, Slot]),
        call("x-buffer-response", "get_buffer_bytes", &[Number(1), Number(0), Number(9), Slot, Slot]),
        call("x-buffer-call", "get_buffer_bytes", &[Number(4), Number(0), Number(9), Slot, Slot]),
        call("x-buffer-none", "get_buffer_bytes", &[Number(99), Number(0), Number(9), Slot, Slot]),
        call("x-set-buffer", "set_buffer_bytes", &[Number(0), Number(0), Number(9), Bytes("new")]),
        call("x-set-buffer-call", "set_buffer_bytes", &[Number(4), Number(0), Number(9), Bytes("new")]),
        call("x-buffer-status", "get_buffer_status", &[Number(0), Slot, Slot]),
        call("x-log", "log", &[Number(2), Bytes("words")]),
        call("x-log-none", "log", &[Number(9), Bytes("words")]),
        call("x-level", "get_log_level", &[Slot]),
        call("x-now", "get_current_time_nanoseconds", &[Slot]),
        call("x-tick-off", "set_tick_period_milliseconds", &[Number(0)]),
        call("x-continue-none", "continue_stream", &[Number(9)]),
        call("x-done", "done", &[]),
        call("x-effective", "set_effective_context", &[Number(99_999)]),
        call("x-status", "get_status", &[Slot, Slot, Slot]),
        call("x-shared-none", "get_shared_data", &[Bytes("none"), Slot, Slot, Slot]),
        call("x-shared-set", "set_shared_data", &[Bytes("key"), Bytes("value"), Number(0)]),
        call("x-shared-cas", "set_shared_data", &[Bytes("key"), Bytes("other"), Number(99_999)]),
        call("x-shared", "get_shared_data", &[Bytes("key"), Returned, Slot]),
        call("x-shared-cas-none", "set_shared_data", &[Bytes("another"), Bytes("value"), Number(5)]),
        call("x-queue", "register_shared_queue", &[Bytes("queue"), Slot]),
        call("x-queue-resolve", "resolve_shared_queue", &[Bytes(""), Bytes("queue"), Slot]),
        call("x-queue-none", "resolve_shared_queue", &[Bytes(""), Bytes("none"), Slot]),
        call("x-dequeue-none", "dequeue_shared_queue", &[Number(99_999), Slot, Slot]),
        call("x-enqueue-none", "enqueue_shared_queue", &[Number(99_999), Bytes("value")]),
        call("x-metric", "define_metric", &[Number(0), Bytes("probe_counter"), Slot]),
        call("x-metric-type", "define_metric", &[Number(9), Bytes("probe_none"), Slot]),
        call("x-metric-record", "record_metric", &[Number(0x7fff_fff0), Long(1)]),
        call("x-metric-increment", "increment_metric", &[Number(0x7fff_fff0), Long(1)]),
        call("x-metric-get", "get_metric", &[Number(0x7fff_fff0), Slot]),
        call("x-foreign-none", "call_foreign_function", &[Bytes("no_such"), Bytes(""), Slot, Slot]),
        call(
            "x-call-bad",
            "http_call",
            &[Bytes("called"), Bytes(""), Bytes(""), Bytes(""), Number(100), Slot],
        ),
        call(
            "x-call-none",
            "http_call",
            &[Bytes("none"), Bytes(""), Bytes(""), Bytes(""), Number(100), Slot],
        ),
        call(
            "x-grpc-none",
            "grpc_call",
            &[Bytes("none"), Bytes("service"), Bytes("method"), Bytes(""), Bytes(""), Number(100), Slot],
        ),
        call(
            "x-grpc-stream-none",
            "grpc_stream",
            &[Bytes("none"), Bytes("service"), Bytes("method"), Bytes(""), Slot],
        ),
        // The lowest bits of an id tell calls (1) from streams (2).
        call("x-grpc-send-none", "grpc_send", &[Number(99_998), Bytes("message"), Number(0)]),
        call("x-grpc-cancel-none", "grpc_cancel", &[Number(99_997)]),
        call("x-grpc-close-none", "grpc_close", &[Number(99_998)]),
    ];
    const REPLACED: &[Call] = &[call("x-set-pairs", "set_header_map_pairs", &[Number(2), Bytes("\0\0\0\0")])];
    compare([
        probing("statuses in the request's callback", Phase::RequestHeaders, CALLS),
        probing("statuses in the response's callback", Phase::ResponseHeaders, CALLS),
        probing("response map replaced too early", Phase::RequestHeaders, REPLACED),
        probing("response map emptied", Phase::ResponseHeaders, REPLACED),
    ])
    .await;
}

#[tokio::test]
async fn tick() {
    if Envoy::installed().is_none() {
        println!("envoy is not installed: skipped");
        return;
    }
    let world = World::start().await;
    let scenario = Scenario::plain("tick", json!({"tick_ms": 10}));
    let (gate, envoy) = (scenario.meshgate(&world).await, scenario.envoy(&world).await);
    for proxy in [gate.address(), envoy.address()] {
        let mut last = 0;
        for _ in 0..3 {
            last = until("more ticks", || async {
                let reply = Client::http1(proxy).await.get("/").await;
                let (shared, counted) = reply.header("x-ticks").split_once(' ').expect("two numbers");
                let least = shared.parse::<u64>().unwrap().min(counted.parse::<u64>().unwrap());
                (least > last).then_some(least)
            })
            .await;
        }
    }
}

#[test]
fn known_differences_are_documented() {
    let page = std::fs::read_to_string(repository().join("docs/proxy-wasm-differences.md")).unwrap();
    let (page, _) = page.split_once("\n## Kong\n").expect("a section on each host");
    let cells = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let documented: BTreeSet<_> = cells.collect();
    let of_tables = conformance::DIFFERENCES.iter().map(|difference| difference.id);
    let of_sequences = conformance::SEQUENCES.iter().chain(conformance::UNTABLED).copied();
    let known: BTreeSet<_> =
        KNOWN.iter().map(|known| known.id).chain(of_tables).chain(of_sequences).collect();
    assert_eq!(known, documented);
}

#[test]
fn differences_are_found() {
    let of = |value: &str| {
        BTreeMap::from([("h1 get".to_owned(), Observed::from([("status".to_owned(), value.to_owned())]))])
    };
    assert_eq!(differences("any", &of("200"), &of("200")), [""; 0]);
    assert_eq!(differences("any", &of("200"), &of("503")).len(), 1);
    let missing = BTreeMap::from([("h1 get".to_owned(), Observed::new())]);
    assert_eq!(differences("any", &of("200"), &missing).len(), 1);
    assert_eq!(differences("method", &of("200"), &of("200")).len(), 1, "a known difference that is gone");
}
