//! Foreign functions: Envoy's, ours, and those of other hosts, which are not there.

use super::matrix::{
    ALL, CONTEXT_CREATE, FOREIGN_FUNCTION, Phases, REQUEST, RESPONSE_HEADERS, ROOT_CONTEXT_CREATE, Row,
    STREAM, check, row,
};
use super::script::Arg::{Bytes, Hex, Message, N, Pairs, T, Word};
use super::script::Field::{self, Number, Text};
use super::script::{
    BAD_ARGUMENT, INTERNAL_FAILURE, NOT_FOUND, OK, SERIALIZATION_FAILURE, Script, call, entered,
};
use super::world::{World, exchange, last};

/// The public key of P-256 and its signature of `the text`, of SHA-256; a private key.
const PUBLIC_KEY: Field = Field::Hex(
    "3059301306072a8648ce3d020106082a8648ce3d03010703420004515643dd5f4b0391637f952df03a32e443bfb1d14cc654b1764b771f1e\
     f2fb92927bd771386c352879b2fc1f6c138bc79e06a8eebfb1be7e12debaa527977cf9",
);
const SIGNATURE: Field = Field::Hex(
    "30450220431cec0201113cbfbbfbf2fe74670a6798df7ea2620a0c3d12c206c4d122d70c022100be0aceaa644f5e681b5e68bf5236a270f2\
     7d48e373d7480b56abc232627f1ad3",
);
/// The same signature as JSON Web Signatures have it: the two numbers, one behind the other.
const PLAIN_SIGNATURE: Field = Field::Hex(
    "431cec0201113cbfbbfbf2fe74670a6798df7ea2620a0c3d12c206c4d122d70c\
     be0aceaa644f5e681b5e68bf5236a270f27d48e373d7480b56abc232627f1ad3",
);
const PRIVATE_KEY: Field = Field::Hex(
    "308187020100301306072a8648ce3d020106082a8648ce3d030107046d306b02010104201e7da321c4742e6db5e0a1af6797e5a309c68eda\
     a3bf5abb825c6681c835842ba1440342000490061abc2823c5867fedf0dc861bfa0a8d0703fe93bd4bb877dcaaf1acb6b56f4614b0bc6b59\
     f26642ff092c37d0333988d75f27a430a45942b5fb93afbe20b8",
);

/// A message that is cut off.
const CUT: &str = "0aff";

/// What needs an exchange: without one it is a bad argument, or there is nothing to find.
const ON_A_STREAM: &[(Phases, u32)] = &[(STREAM, OK), (ALL, BAD_ARGUMENT)];
const OF_A_STREAM: &[(Phases, u32)] = &[(STREAM, OK), (ALL, NOT_FOUND)];

/// What is decided about a response comes too late once it is on its way; what needs the response, too early before there is
/// one.
const OF_THE_RESPONSE: &[(Phases, u32)] = &[(FOREIGN_FUNCTION.or(RESPONSE_HEADERS), OK), (ALL, BAD_ARGUMENT)];
const BEFORE_THE_BODY: &[(Phases, u32)] =
    &[(CONTEXT_CREATE.or(REQUEST).or(FOREIGN_FUNCTION).or(RESPONSE_HEADERS), OK), (ALL, BAD_ARGUMENT)];

/// An exchange's trace, and a span in it.
const TRACE_ID: Field = Field::Hex("000102030405060708090a0b0c0d0e0f");
const SPAN_ID: Field = Field::Hex("0001020304050607");
/// `KvAdd`: one, to be held until the exchange is over.
const HOLD_ONE: Field = Field::Hex("08023001");
/// `LogField`: `suite` is `1`.
const LOG_FIELD: Field = Field::Hex("0a057375697465120131");

macro_rules! rows {
    ($($name:literal, $argument:expr, $expected:expr;)*) => {
        pub(super) const ROWS: &[Row] = &[
            $(row("proxy_call_foreign_function", &[T($name), $argument, Bytes], $expected),)*
            // Nowhere to put an answer.
            row("proxy_call_foreign_function", &[T("compress"), T("hello"), N(0), N(0)], &[(ALL, OK)]),
            row("proxy_call_foreign_function", &[T("no_such_function"), T(""), N(0), N(0)], &[(ALL, NOT_FOUND)]),
            row("proxy_call_foreign_function", &[Hex("ff"), T(""), Bytes], &[(ALL, NOT_FOUND)]),
        ];
    };
}

rows! {
    "compress", T("hello"), &[(ALL, OK)];
    "compress", T(""), &[(ALL, OK)];
    "uncompress", Hex("789ccb48cdc9c90700062c0215"), &[(ALL, OK)];
    "uncompress", T("hello"), &[(ALL, SERIALIZATION_FAILURE)];
    "verify_signature",
        Message(&[(1, Text("sha256")), (2, PUBLIC_KEY), (3, SIGNATURE), (4, Text("the text"))]), &[(ALL, OK)];
    "verify_signature",
        Message(&[(1, Text("sha256")), (2, PUBLIC_KEY), (3, SIGNATURE), (4, Text("other text"))]), &[(ALL, OK)];
    "verify_signature", Message(&[(1, Text("sha256")), (2, Text("no key"))]), &[(ALL, OK)];
    "verify_signature", Hex(CUT), &[(ALL, BAD_ARGUMENT)];
    "sign", Message(&[(1, Text("sha256")), (2, PRIVATE_KEY), (3, Text("the text"))]), &[(ALL, OK)];
    "sign", Message(&[(1, Text("sha256")), (2, Text("no key"))]), &[(ALL, OK)];
    "sign", Hex(CUT), &[(ALL, BAD_ARGUMENT)];
    "set_envoy_filter_state", Message(&[(1, Text("envoy.tcp_proxy.cluster")), (2, Text("one"))]), OF_A_STREAM;
    "set_envoy_filter_state",
        Message(&[(1, Text("envoy.tcp_proxy.cluster")), (2, Text("none"))]), &[(STREAM, BAD_ARGUMENT), (ALL, NOT_FOUND)];
    "set_envoy_filter_state", Message(&[(1, Text("no.such.factory")), (2, Text("one"))]), &[(ALL, NOT_FOUND)];
    "set_envoy_filter_state", Hex(CUT), &[(ALL, BAD_ARGUMENT)];
    "clear_route_cache", T(""), &[(ALL, OK)];
    // The first time counts.
    "declare_property",
        Message(&[(1, Text("declared")), (2, Number(1)), (3, Number(1))]), &[(ROOT_CONTEXT_CREATE, OK), (ALL, BAD_ARGUMENT)];
    "declare_property", Message(&[(1, Text(""))]), &[(ALL, BAD_ARGUMENT)];
    "declare_property", Hex(CUT), &[(ALL, BAD_ARGUMENT)];
    "expr_create", T("request.path"), &[(ALL, NOT_FOUND)];
    "expr_evaluate", Hex("01000000"), &[(ALL, NOT_FOUND)];
    "expr_delete", Hex("01000000"), &[(ALL, NOT_FOUND)];
    "resolve_lua", T("called"), &[(ALL, NOT_FOUND)];
    "meshgate.route", Message(&[(2, Text("one"))]), ON_A_STREAM;
    "meshgate.route", Message(&[(2, Text("none"))]), &[(ALL, BAD_ARGUMENT)];
    "meshgate.route", Hex(CUT), &[(ALL, BAD_ARGUMENT)];
    "meshgate.metric", Message(&[(1, Text("suite_series_total"))]), &[(ALL, OK)];
    "meshgate.metric", Message(&[(1, Text("not a name"))]), &[(ALL, BAD_ARGUMENT)];
    "meshgate.metric", Hex(CUT), &[(ALL, BAD_ARGUMENT)];
    "meshgate.attempts", T(""), ON_A_STREAM;
    "meshgate.attempts", Hex(CUT), &[(ALL, BAD_ARGUMENT)];
    // No retry if there is one: what was answered is delivered.
    "meshgate.retry", Message(&[(3, Number(0))]), &[(FOREIGN_FUNCTION, OK), (ALL, BAD_ARGUMENT)];
    "meshgate.retry", Hex(CUT), &[(ALL, BAD_ARGUMENT)];
    // One that an exchange does not have.
    "meshgate.callbacks", Message(&[(1, Text("new_connection"))]), &[(ALL, OK)];
    "meshgate.callbacks", Message(&[(1, Text("tick"))]), &[(ALL, BAD_ARGUMENT)];
    "meshgate.callbacks", Hex(CUT), &[(ALL, BAD_ARGUMENT)];
    "meshgate.verify",
        Message(&[(1, Text("ES256")), (2, PUBLIC_KEY), (3, PLAIN_SIGNATURE), (4, Text("the text"))]), &[(ALL, OK)];
    "meshgate.verify", Message(&[(1, Text("ES256")), (2, Text("no key"))]), &[(ALL, BAD_ARGUMENT)];
    "meshgate.verify", Message(&[(1, Text("HS256"))]), &[(ALL, NOT_FOUND)];
    "meshgate.verify", Hex(CUT), &[(ALL, BAD_ARGUMENT)];
    "meshgate.encode", Message(&[(1, Text("gzip"))]), OF_THE_RESPONSE;
    "meshgate.encode", Message(&[(1, Text("br"))]), &[(ALL, BAD_ARGUMENT)];
    "meshgate.encode", Hex(CUT), &[(ALL, BAD_ARGUMENT)];
    // As fast as it can.
    "meshgate.throttle", Message(&[(1, Number(0))]), BEFORE_THE_BODY;
    "meshgate.throttle", Hex(CUT), &[(ALL, BAD_ARGUMENT)];
    "meshgate.kv", Message(&[(1, Text("absent")), (2, Text(""))]), &[(ALL, OK)];
    "meshgate.kv", Message(&[(1, Text("held")), (5, HOLD_ONE)]), ON_A_STREAM;
    "meshgate.kv", Message(&[(1, Text("no operation"))]), &[(ALL, BAD_ARGUMENT)];
    "meshgate.kv", Hex(CUT), &[(ALL, BAD_ARGUMENT)];
    // There is no such call: see `a_call_that_is_given_up_is_told`.
    "meshgate.cancel", Message(&[(1, Number(124))]), &[(ALL, BAD_ARGUMENT)];
    "meshgate.cancel", Hex(CUT), &[(ALL, BAD_ARGUMENT)];
    "meshgate.trace", T(""), ON_A_STREAM;
    "meshgate.trace", Message(&[(1, TRACE_ID), (2, SPAN_ID)]), ON_A_STREAM;
    "meshgate.trace", Message(&[(1, SPAN_ID), (2, SPAN_ID)]), &[(ALL, BAD_ARGUMENT)];
    "meshgate.trace", Hex(CUT), &[(ALL, BAD_ARGUMENT)];
    "meshgate.span", Message(&[(2, SPAN_ID), (5, Text("work"))]), ON_A_STREAM;
    "meshgate.span", Message(&[(2, SPAN_ID)]), &[(ALL, BAD_ARGUMENT)];
    "meshgate.span", Hex(CUT), &[(ALL, BAD_ARGUMENT)];
    "meshgate.spans", T(""), ON_A_STREAM;
    "meshgate.log", Message(&[(1, Text("DI")), (2, LOG_FIELD)]), ON_A_STREAM;
    // Not a filter's to say.
    "meshgate.log", Message(&[(1, Text("NR"))]), &[(ALL, BAD_ARGUMENT)];
    "meshgate.log", Hex(CUT), &[(ALL, BAD_ARGUMENT)];
    "no_such_function", T("argument"), &[(ALL, NOT_FOUND)];
    "", T(""), &[(ALL, NOT_FOUND)];
}

#[tokio::test]
async fn in_every_callback() {
    let reports = check(ROWS).await;
    for callback in ["vm_start", "request_headers", "log"] {
        let answers: Vec<_> = (0..6).map(|place| last(&reports, callback).value(place).clone()).collect();
        assert_eq!((&answers[2], &answers[3]), (&"hello".into(), &serde_json::Value::Null), "{callback}");
        // The field `result`: true; and not a word of a signature of another text but the reason.
        assert_eq!(answers[4]["hex"], "0801", "{callback}");
        assert!(!answers[5].to_string().starts_with("\"0801"), "{callback}: {}", answers[5]);
        assert!(answers[0]["hex"].as_str().is_some_and(|digits| digits.starts_with("78")), "{callback}");
        // The key's.
        let verified = last(&reports, callback).value(place_of("meshgate.verify"));
        assert_eq!(verified["hex"], "01", "{callback}");
    }
    // The field `spans`, and in it what was added.
    let spans = last(&reports, "log").value(place_of("meshgate.spans"));
    assert!(spans["hex"].as_str().is_some_and(|digits| digits.starts_with("12")), "{spans}");
    assert!(spans["hex"].as_str().is_some_and(|digits| digits.contains("12080001020304050607")), "{spans}");
}

/// Where the first row of this function is among all rows, which are made in every callback.
fn place_of(name: &str) -> usize {
    let is = |row: &Row| matches!(row.arguments[0], T(text) if text == name);
    ROWS.iter().position(is).unwrap()
}

/// Where nobody records a trace there is nothing to take, and what is added is not kept.
#[tokio::test]
async fn spans_are_for_who_records_the_trace() {
    let foreign = |name, argument| call("proxy_call_foreign_function", &[T(name), argument, Bytes]);
    let (context, span) =
        (Message(&[(1, TRACE_ID), (2, SPAN_ID)]), Message(&[(2, SPAN_ID), (5, Text("work"))]));
    let calls = [
        foreign("meshgate.spans", T("")),
        foreign("meshgate.span", span),
        foreign("meshgate.trace", context),
        foreign("meshgate.spans", T("")),
    ];
    let (_, reports) = exchange(&Script::default().on("request_headers", calls)).await;
    let report = last(&reports, "request_headers");
    assert_eq!(report.statuses(), [BAD_ARGUMENT, OK, OK, OK]);
    assert_eq!(report.value(3), "");
}

#[tokio::test]
async fn spans_have_so_many_bytes() {
    let foreign = |name, argument| call("proxy_call_foreign_function", &[T(name), argument, Bytes]);
    let span = || foreign("meshgate.span", Message(&[(2, SPAN_ID), (5, Text("work"))]));
    // 16 bytes each, and 64 more.
    let calls = [foreign("meshgate.trace", Message(&[(1, TRACE_ID), (2, SPAN_ID)])), span(), span()];
    let script = Script::default().on("request_headers", calls);
    let running = World::start().await.run_with(&script, "limits: {time: 1s, span_bytes: 159B}").await;
    running.exchange().await;
    let labels = [("plugin", "conformance"), ("limit", "span_bytes")];
    let met = running.gate.metrics().await.sum("meshgate_plugin_limit_exceeded_total", &labels);
    let reports = running.stop().await;
    assert_eq!(last(&reports, "request_headers").statuses(), [OK, OK, INTERNAL_FAILURE]);
    assert_eq!(met, 1.0);
}

#[tokio::test]
pub(super) async fn a_call_that_is_given_up_is_told() {
    const HEAD: &[(&str, &str)] = &[(":method", "GET"), (":path", "/"), (":authority", "called.example")];
    let calls = [
        call("proxy_http_call", &[T("called"), Pairs(HEAD), T(""), Pairs(&[]), N(5000), Word]),
        call("proxy_call_foreign_function", &[T("meshgate.cancel"), Message(&[(1, Number(4))]), Bytes]),
    ];
    let script = Script::default()
        .on("request_headers", calls)
        .on("http_call_response", [call("proxy_get_status", &[Word, Bytes])]);
    let running = World::start().await.run(&script).await;
    running.exchange().await;
    let response = entered(running.log(), "http_call_response", 1).await.pop().unwrap();
    let reports = running.stop().await;
    let request = last(&reports, "request_headers");
    assert_eq!((request.value(0), request.statuses()), (&4.into(), vec![OK, OK]), "the first of a VM");
    // As one that was reset.
    assert_eq!((response.arguments[0], response.value(0)), (4, &11.into()));
}

#[tokio::test]
async fn what_is_declared_read_only_is_set_once() {
    let declare = call(
        "proxy_call_foreign_function",
        &[T("declare_property"), Message(&[(1, Text("once")), (2, Number(1))]), Bytes],
    );
    let set = |value: &'static str| call("proxy_set_property", &[T("once"), T(value)]);
    let read = call("proxy_get_property", &[T("once"), Bytes]);
    let script = Script::default()
        .on("configure", [declare])
        .on("request_headers", [set("first"), set("second"), read.clone()])
        .on("log", [read]);
    let (_, reports) = exchange(&script).await;
    let request = last(&reports, "request_headers");
    assert_eq!(request.statuses(), [OK, BAD_ARGUMENT, OK], "it is read-only");
    assert_eq!((request.value(2), last(&reports, "log").value(0)), (&"first".into(), &"first".into()));
}
