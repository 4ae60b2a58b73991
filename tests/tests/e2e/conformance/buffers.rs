//! Buffers.

use super::matrix::{
    ALL, CONFIGURE, FOREIGN_FUNCTION, GRPC_RECEIVE, HTTP_CALL_RESPONSE, REQUEST_BODY, RESPONSE_BODY,
    ROOT_CONTEXT_CREATE, Row, check, row,
};
use super::script::Arg::{Bytes, N, T, Word};
use super::script::{BAD_ARGUMENT, NOT_FOUND, OK};
use super::world::last;

const REST: i64 = 0xffff_ffff;

/// The number of the event about a try.
const ASKED: u32 = 0x6d67_0001;

pub(super) const ROWS: &[Row] = &[
    row("proxy_get_buffer_bytes", &[N(0), N(0), N(100), Bytes], &[(REQUEST_BODY, OK), (ALL, NOT_FOUND)]),
    row("proxy_get_buffer_bytes", &[N(0), N(1), N(REST), Bytes], &[(REQUEST_BODY, OK), (ALL, NOT_FOUND)]),
    row("proxy_get_buffer_bytes", &[N(0), N(5), N(1), Bytes], &[(REQUEST_BODY, OK), (ALL, NOT_FOUND)]),
    row("proxy_get_buffer_bytes", &[N(0), N(REST), N(1), Bytes], &[(REQUEST_BODY, OK), (ALL, NOT_FOUND)]),
    row("proxy_get_buffer_bytes", &[N(1), N(0), N(100), Bytes], &[(RESPONSE_BODY, OK), (ALL, NOT_FOUND)]),
    // TCP.
    row("proxy_get_buffer_bytes", &[N(2), N(0), N(100), Bytes], &[(ALL, NOT_FOUND)]),
    row("proxy_get_buffer_bytes", &[N(3), N(0), N(100), Bytes], &[(ALL, NOT_FOUND)]),
    row("proxy_get_buffer_bytes", &[N(4), N(5), N(3), Bytes], &[(HTTP_CALL_RESPONSE, OK), (ALL, NOT_FOUND)]),
    row("proxy_get_buffer_bytes", &[N(5), N(0), N(100), Bytes], &[(GRPC_RECEIVE, OK), (ALL, NOT_FOUND)]),
    row("proxy_get_buffer_bytes", &[N(6), N(0), N(100), Bytes], &[(ALL, OK)]),
    row("proxy_get_buffer_bytes", &[N(7), N(0), N(2), Bytes], &[(ALL, OK)]),
    row("proxy_get_buffer_bytes", &[N(8), N(0), N(100), Bytes], &[(FOREIGN_FUNCTION, OK), (ALL, NOT_FOUND)]),
    row("proxy_get_buffer_bytes", &[N(100), N(0), N(100), Bytes], &[(ALL, BAD_ARGUMENT)]),
    row("proxy_get_buffer_status", &[N(0), Word, Word], &[(REQUEST_BODY, OK), (ALL, NOT_FOUND)]),
    row("proxy_get_buffer_status", &[N(1), Word, Word], &[(RESPONSE_BODY, OK), (ALL, NOT_FOUND)]),
    row("proxy_get_buffer_status", &[N(4), Word, Word], &[(HTTP_CALL_RESPONSE, OK), (ALL, NOT_FOUND)]),
    row("proxy_get_buffer_status", &[N(2), Word, Word], &[(ALL, NOT_FOUND)]),
    row("proxy_get_buffer_status", &[N(3), Word, Word], &[(ALL, NOT_FOUND)]),
    row("proxy_get_buffer_status", &[N(5), Word, Word], &[(GRPC_RECEIVE, OK), (ALL, NOT_FOUND)]),
    row("proxy_get_buffer_status", &[N(6), Word, Word], &[(ALL, OK)]),
    row("proxy_get_buffer_status", &[N(7), Word, Word], &[(ALL, OK)]),
    row("proxy_get_buffer_status", &[N(8), Word, Word], &[(FOREIGN_FUNCTION, OK), (ALL, NOT_FOUND)]),
    row("proxy_get_buffer_status", &[N(100), Word, Word], &[(ALL, BAD_ARGUMENT)]),
    // Nothing is put before the first byte, and behind the last.
    row("proxy_set_buffer_bytes", &[N(0), N(0), N(0), T("")], &[(REQUEST_BODY, OK), (ALL, NOT_FOUND)]),
    row("proxy_set_buffer_bytes", &[N(1), N(REST), N(0), T("")], &[(RESPONSE_BODY, OK), (ALL, NOT_FOUND)]),
    row("proxy_set_buffer_bytes", &[N(2), N(0), N(0), T("")], &[(ALL, NOT_FOUND)]),
    row("proxy_set_buffer_bytes", &[N(3), N(0), N(0), T("")], &[(ALL, NOT_FOUND)]),
    // Nobody writes these.
    row("proxy_set_buffer_bytes", &[N(4), N(0), N(0), T("")], &[(ALL, BAD_ARGUMENT)]),
    row("proxy_set_buffer_bytes", &[N(5), N(0), N(0), T("")], &[(ALL, BAD_ARGUMENT)]),
    row("proxy_set_buffer_bytes", &[N(6), N(0), N(0), T("")], &[(ALL, BAD_ARGUMENT)]),
    row("proxy_set_buffer_bytes", &[N(7), N(0), N(0), T("")], &[(ALL, BAD_ARGUMENT)]),
    row("proxy_set_buffer_bytes", &[N(8), N(0), N(0), T("")], &[(ALL, BAD_ARGUMENT)]),
    row("proxy_set_buffer_bytes", &[N(100), N(0), N(0), T("")], &[(ALL, BAD_ARGUMENT)]),
    // ABI 0.1.0.
    row("proxy_get_configuration", &[Bytes], &[(ALL, OK)]),
];

#[tokio::test]
async fn in_every_callback() {
    let reports = check(ROWS).await;
    let body = last(&reports, "request_body");
    let read: Vec<_> = (0..4).map(|place| body.value(place)).collect();
    assert_eq!(read, ["hello", "ello", "", ""]);
    assert_eq!((body.value(13), &body.results[13][2]), (&5.into(), &0.into()), "size and flags");
    assert_eq!(last(&reports, "response_body").value(4), "said hello");
    let response = last(&reports, "http_call_response");
    assert_eq!(
        (response.value(7), response.value(15)),
        (&"fro".into(), &18.into()),
        "of `said from the call`"
    );
    assert_eq!(last(&reports, "grpc_receive").value(8), "echo: hi");
    let asked = last(&reports, "foreign_function");
    // Try 1, status 200; then the endpoint, whose address is its own each time.
    let message = asked.value(11)["hex"].as_str().unwrap();
    assert!(message.starts_with("080118c8012a"), "{message}");
    assert_eq!(asked.arguments[0], ASKED);
    let size = asked.arguments[1];
    assert_eq!((asked.value(21), message.len()), (&size.into(), 2 * size as usize), "{message}");
    for callback in ["vm_start", "configure", "tick", "log", "root_delete"] {
        let report = last(&reports, callback);
        assert_eq!((report.value(9), report.value(10)), (&"".into(), &"{\"".into()), "in {callback}");
    }
    // The plugin's configuration while the plugin is set up, else the VM's, which is empty.
    for (phase, name) in super::matrix::PHASES {
        let whole = last(&reports, name).value(ROWS.len() - 1) != "";
        let expected = [ROOT_CONTEXT_CREATE, CONFIGURE].contains(&phase);
        assert_eq!(whole, expected, "proxy_get_configuration in {name}");
    }
}
