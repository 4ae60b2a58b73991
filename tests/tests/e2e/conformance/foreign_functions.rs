//! Foreign functions: Envoy's, ours, and those of other hosts, which are not there.

use super::matrix::{ALL, Phases, ROOT_CONTEXT_CREATE, Row, STREAM, check, row};
use super::script::Arg::{Bytes, Hex, Message, N, T};
use super::script::Field::{self, Number, Text};
use super::script::{BAD_ARGUMENT, NOT_FOUND, OK, SERIALIZATION_FAILURE, Script, call};
use super::world::{exchange, last};

/// The public key of P-256 and its signature of `the text`, of SHA-256; a private key.
const PUBLIC_KEY: Field = Field::Hex(
    "3059301306072a8648ce3d020106082a8648ce3d03010703420004515643dd5f4b0391637f952df03a32e443bfb1d14cc654b1764b771f1e\
     f2fb92927bd771386c352879b2fc1f6c138bc79e06a8eebfb1be7e12debaa527977cf9",
);
const SIGNATURE: Field = Field::Hex(
    "30450220431cec0201113cbfbbfbf2fe74670a6798df7ea2620a0c3d12c206c4d122d70c022100be0aceaa644f5e681b5e68bf5236a270f2\
     7d48e373d7480b56abc232627f1ad3",
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
    }
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
