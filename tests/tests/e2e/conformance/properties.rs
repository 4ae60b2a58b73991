//! Properties: when they are there. `properties_of_*` in `wasm` and `envoy` look at their values.

use super::matrix::{ALL, ANSWERED, CONNECTED, Phases, Row, STREAM, check, row};
use super::script::Arg::{Bytes, N, T};
use super::script::{BAD_ARGUMENT, NOT_FOUND, OK, Script, call};
use super::world::{exchange, last};

const IN_STREAMS: &[(Phases, u32)] = &[(STREAM, OK), (ALL, NOT_FOUND)];
const AFTER_THE_RESPONSE: &[(Phases, u32)] = &[(ANSWERED, OK), (ALL, NOT_FOUND)];
const ONCE_CONNECTED: &[(Phases, u32)] = &[(CONNECTED, OK), (ALL, NOT_FOUND)];

pub(super) const ROWS: &[Row] = &[
    row("proxy_get_property", &[T("request\0path"), Bytes], IN_STREAMS),
    row("proxy_get_property", &[T("request\0headers\0x-a"), Bytes], IN_STREAMS),
    row("proxy_get_property", &[T("request\0headers"), Bytes], IN_STREAMS),
    row("proxy_get_property", &[T("request\0time"), Bytes], IN_STREAMS),
    row("proxy_get_property", &[T("source\0address"), Bytes], IN_STREAMS),
    row("proxy_get_property", &[T("destination\0port"), Bytes], IN_STREAMS),
    row("proxy_get_property", &[T("connection\0mtls"), Bytes], IN_STREAMS),
    // A NUL at the end is one too many, and forgiven.
    row("proxy_get_property", &[T("request\0path\0"), Bytes], IN_STREAMS),
    row("proxy_get_property", &[T("response\0code"), Bytes], AFTER_THE_RESPONSE),
    row("proxy_get_property", &[T("response\0headers\0x-b"), Bytes], AFTER_THE_RESPONSE),
    row("proxy_get_property", &[T("upstream\0address"), Bytes], ONCE_CONNECTED),
    row("proxy_get_property", &[T("plugin_name"), Bytes], &[(ALL, OK)]),
    row("proxy_get_property", &[T("plugin_root_id"), Bytes], &[(ALL, OK)]),
    row("proxy_get_property", &[T("plugin_vm_id"), Bytes], &[(ALL, OK)]),
    row("proxy_get_property", &[T("no\0such"), Bytes], &[(ALL, NOT_FOUND)]),
    row("proxy_get_property", &[T(""), Bytes], &[(ALL, NOT_FOUND)]),
    row("proxy_get_property", &[T("\0\0"), Bytes], &[(ALL, NOT_FOUND)]),
    row("proxy_get_property", &[T("request\0headers\0x-none"), Bytes], &[(ALL, NOT_FOUND)]),
    row("proxy_get_property", &[T("connection\0tls_version"), Bytes], &[(ALL, NOT_FOUND)]),
    row("proxy_set_property", &[T("own\0one"), T("value")], IN_STREAMS),
    row("proxy_get_property", &[T("own\0one"), Bytes], IN_STREAMS),
    row("proxy_set_property", &[T("own"), N(0), N(0)], IN_STREAMS),
    row("proxy_get_property", &[T("own"), Bytes], IN_STREAMS),
    row("proxy_set_property", &[T(""), T("value")], &[(ALL, BAD_ARGUMENT)]),
];

#[tokio::test]
async fn in_every_callback() {
    let reports = check(ROWS).await;
    for (phase, name) in super::matrix::PHASES {
        if STREAM.contains(phase) {
            let report = last(&reports, name);
            assert_eq!(
                (report.value(0), report.value(20)),
                (&"/path?query=1".into(), &"value".into()),
                "{name}"
            );
            assert_eq!(report.value(22), "", "{name}");
        }
    }
}

#[tokio::test]
async fn what_is_set_lasts_as_long_as_the_exchange() {
    let read = || call("proxy_get_property", &[T("mine"), Bytes]);
    let script = Script::default()
        .on("request_headers", [read(), call("proxy_set_property", &[T("mine"), T("1")])])
        .on("request_body", [read(), call("proxy_set_property", &[T("mine"), T("2")])])
        .on("response_headers", [read()])
        .on("log", [read()]);
    let (_, reports) = exchange(&script).await;
    assert_eq!(last(&reports, "request_headers").statuses(), [NOT_FOUND, OK]);
    let values =
        ["request_body", "response_headers", "log"].map(|callback| last(&reports, callback).value(0).clone());
    assert_eq!(values, ["1", "2", "2"]);
}
