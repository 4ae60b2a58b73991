//! Header maps, trailers included: every function on every map in every callback.

use meshgate_tests::Ask;

use super::matrix::{
    ALL, ANSWERED, DELETE, DONE, ENDING, GRPC_INITIAL_METADATA, GRPC_TRAILING_METADATA, HTTP_CALL_RESPONSE,
    LOG, NOWHERE, Phases, REQUEST_TRAILERS, RESPONSE_TRAILERS, Row, STREAM, check, row,
};
use super::script::Arg::{Bytes, Hex, N, Pairs, T, Word};
use super::script::{BAD_ARGUMENT, NOT_FOUND, OK, Script, call};
use super::world::{World, last};

/// The callbacks in which each map is there.
const REQUEST_MAP: Phases = STREAM;
const REQUEST_TRAILERS_MAP: Phases = REQUEST_TRAILERS.or(ANSWERED);
const RESPONSE_MAP: Phases = ANSWERED;
const RESPONSE_TRAILERS_MAP: Phases = RESPONSE_TRAILERS.or(ENDING);
const CALL_MAPS: Phases = HTTP_CALL_RESPONSE;

/// They are over.
const READ_ONLY: Phases = LOG.or(DELETE);

pub(super) const VALUES: &[Row] = &[
    // A field of each map.
    row("proxy_get_header_map_value", &[N(0), T("x-a"), Bytes], &[(REQUEST_MAP, OK), (ALL, NOT_FOUND)]),
    row(
        "proxy_get_header_map_value",
        &[N(1), T("x-last"), Bytes],
        &[(REQUEST_TRAILERS_MAP, OK), (ALL, NOT_FOUND)],
    ),
    row("proxy_get_header_map_value", &[N(2), T("x-b"), Bytes], &[(RESPONSE_MAP, OK), (ALL, NOT_FOUND)]),
    row(
        "proxy_get_header_map_value",
        &[N(3), T("x-sum"), Bytes],
        &[(RESPONSE_TRAILERS_MAP, OK), (ALL, NOT_FOUND)],
    ),
    row(
        "proxy_get_header_map_value",
        &[N(4), T("x-initial"), Bytes],
        &[(GRPC_INITIAL_METADATA, OK), (ALL, NOT_FOUND)],
    ),
    row(
        "proxy_get_header_map_value",
        &[N(5), T("x-trailing"), Bytes],
        &[(GRPC_TRAILING_METADATA, OK), (ALL, NOT_FOUND)],
    ),
    row("proxy_get_header_map_value", &[N(6), T("x-b"), Bytes], &[(CALL_MAPS, OK), (ALL, NOT_FOUND)]),
    row("proxy_get_header_map_value", &[N(7), T("x-sum"), Bytes], &[(CALL_MAPS, OK), (ALL, NOT_FOUND)]),
    row("proxy_get_header_map_value", &[N(8), T("x"), Bytes], &[(ALL, BAD_ARGUMENT)]),
    // Whatever the case; the pseudo headers, and `host`, which is one.
    row("proxy_get_header_map_value", &[N(0), T("X-A"), Bytes], &[(REQUEST_MAP, OK), (ALL, NOT_FOUND)]),
    row("proxy_get_header_map_value", &[N(0), T(":path"), Bytes], &[(REQUEST_MAP, OK), (ALL, NOT_FOUND)]),
    row("proxy_get_header_map_value", &[N(0), T(":method"), Bytes], &[(REQUEST_MAP, OK), (ALL, NOT_FOUND)]),
    row("proxy_get_header_map_value", &[N(0), T(":scheme"), Bytes], &[(REQUEST_MAP, OK), (ALL, NOT_FOUND)]),
    row("proxy_get_header_map_value", &[N(0), T("host"), Bytes], &[(REQUEST_MAP, OK), (ALL, NOT_FOUND)]),
    row("proxy_get_header_map_value", &[N(2), T(":status"), Bytes], &[(RESPONSE_MAP, OK), (ALL, NOT_FOUND)]),
    row("proxy_get_header_map_value", &[N(6), T(":status"), Bytes], &[(CALL_MAPS, OK), (ALL, NOT_FOUND)]),
    // What is not there.
    row("proxy_get_header_map_value", &[N(0), T("x-none"), Bytes], &[(ALL, NOT_FOUND)]),
    row("proxy_get_header_map_value", &[N(0), T(""), Bytes], &[(ALL, NOT_FOUND)]),
    row("proxy_get_header_map_value", &[N(0), T("not a name"), Bytes], &[(ALL, NOT_FOUND)]),
    row("proxy_get_header_map_value", &[N(0), Hex("00ff"), Bytes], &[(ALL, NOT_FOUND)]),
    row("proxy_get_header_map_value", &[N(2), T(":path"), Bytes], &[(ALL, NOT_FOUND)]),
];

pub(super) const MAPS: &[Row] = &[
    row("proxy_get_header_map_size", &[N(0), Word], &[(REQUEST_MAP, OK), (ALL, BAD_ARGUMENT)]),
    row("proxy_get_header_map_size", &[N(1), Word], &[(REQUEST_TRAILERS_MAP, OK), (ALL, BAD_ARGUMENT)]),
    row("proxy_get_header_map_size", &[N(2), Word], &[(RESPONSE_MAP, OK), (ALL, BAD_ARGUMENT)]),
    row("proxy_get_header_map_size", &[N(3), Word], &[(RESPONSE_TRAILERS_MAP, OK), (ALL, BAD_ARGUMENT)]),
    row("proxy_get_header_map_size", &[N(4), Word], &[(GRPC_INITIAL_METADATA, OK), (ALL, BAD_ARGUMENT)]),
    row("proxy_get_header_map_size", &[N(5), Word], &[(GRPC_TRAILING_METADATA, OK), (ALL, BAD_ARGUMENT)]),
    row("proxy_get_header_map_size", &[N(6), Word], &[(CALL_MAPS, OK), (ALL, BAD_ARGUMENT)]),
    row("proxy_get_header_map_size", &[N(7), Word], &[(CALL_MAPS, OK), (ALL, BAD_ARGUMENT)]),
    row("proxy_get_header_map_size", &[N(8), Word], &[(ALL, BAD_ARGUMENT)]),
    // A map that is not there is an empty one.
    row("proxy_get_header_map_pairs", &[N(0), Bytes], &[(ALL, OK)]),
    row("proxy_get_header_map_pairs", &[N(1), Bytes], &[(ALL, OK)]),
    row("proxy_get_header_map_pairs", &[N(2), Bytes], &[(ALL, OK)]),
    row("proxy_get_header_map_pairs", &[N(3), Bytes], &[(ALL, OK)]),
    row("proxy_get_header_map_pairs", &[N(4), Bytes], &[(ALL, OK)]),
    row("proxy_get_header_map_pairs", &[N(5), Bytes], &[(ALL, OK)]),
    row("proxy_get_header_map_pairs", &[N(6), Bytes], &[(ALL, OK)]),
    row("proxy_get_header_map_pairs", &[N(7), Bytes], &[(ALL, OK)]),
    row("proxy_get_header_map_pairs", &[N(8), Bytes], &[(ALL, BAD_ARGUMENT)]),
];

/// The same five calls on one map: it can be written in these callbacks, and nowhere else.
macro_rules! written {
    ($map:literal, $writable:expr) => {
        &[
            row(
                "proxy_add_header_map_value",
                &[N($map), T("x-new"), T("1")],
                &[($writable, OK), (ALL, BAD_ARGUMENT)],
            ),
            row(
                "proxy_replace_header_map_value",
                &[N($map), T("x-new"), T("")],
                &[($writable, OK), (ALL, BAD_ARGUMENT)],
            ),
            row(
                "proxy_replace_header_map_value",
                &[N($map), T("X-Upper"), T("2")],
                &[($writable, OK), (ALL, BAD_ARGUMENT)],
            ),
            row(
                "proxy_remove_header_map_value",
                &[N($map), T("x-new")],
                &[($writable, OK), (ALL, BAD_ARGUMENT)],
            ),
            row(
                "proxy_remove_header_map_value",
                &[N($map), T("x-none")],
                &[($writable, OK), (ALL, BAD_ARGUMENT)],
            ),
            // What would not be accepted from the network.
            row("proxy_add_header_map_value", &[N($map), T("x new"), T("1")], &[(ALL, BAD_ARGUMENT)]),
            row("proxy_add_header_map_value", &[N($map), T(""), T("1")], &[(ALL, BAD_ARGUMENT)]),
            row(
                "proxy_replace_header_map_value",
                &[N($map), T("x-new"), T("1\r\nx-injected: 1")],
                &[(ALL, BAD_ARGUMENT)],
            ),
            row("proxy_replace_header_map_value", &[N($map), T("x-new"), Hex("00")], &[(ALL, BAD_ARGUMENT)]),
            // Pairs that are cut off, that claim more than there is, that lack a NUL.
            row("proxy_set_header_map_pairs", &[N($map), Hex("01")], &[(ALL, BAD_ARGUMENT)]),
            row(
                "proxy_set_header_map_pairs",
                &[N($map), Hex("ffffffff0100000001000000610062")],
                &[(ALL, BAD_ARGUMENT)],
            ),
            row(
                "proxy_set_header_map_pairs",
                &[N($map), Hex("01000000010000000100000061016201")],
                &[(ALL, BAD_ARGUMENT)],
            ),
        ]
    };
}

pub(super) const REQUEST_WRITES: &[Row] = written!(0, REQUEST_MAP.but(READ_ONLY));
pub(super) const REQUEST_TRAILERS_WRITES: &[Row] = written!(1, REQUEST_TRAILERS_MAP.but(READ_ONLY));
pub(super) const RESPONSE_WRITES: &[Row] = written!(2, RESPONSE_MAP.but(READ_ONLY));
pub(super) const RESPONSE_TRAILERS_WRITES: &[Row] = written!(3, RESPONSE_TRAILERS_MAP.but(READ_ONLY));
pub(super) const GRPC_WRITES: &[Row] = written!(4, NOWHERE);
pub(super) const GRPC_TRAILING_WRITES: &[Row] = written!(5, NOWHERE);
pub(super) const CALL_WRITES: &[Row] = written!(6, NOWHERE);
pub(super) const CALL_TRAILERS_WRITES: &[Row] = written!(7, NOWHERE);
pub(super) const UNKNOWN_WRITES: &[Row] = written!(8, NOWHERE);

pub(super) const SETS: &[Row] = &[
    row(
        "proxy_set_header_map_pairs",
        &[N(0), Pairs(&[("x-a", "1"), ("te", "trailers"), ("trailer", "x-last")])],
        &[(REQUEST_MAP.but(READ_ONLY), OK), (ALL, BAD_ARGUMENT)],
    ),
    row(
        "proxy_set_header_map_pairs",
        &[N(1), Pairs(&[("x-last", "z")])],
        &[(REQUEST_TRAILERS_MAP.but(READ_ONLY), OK), (ALL, BAD_ARGUMENT)],
    ),
    row(
        "proxy_set_header_map_pairs",
        &[N(2), Pairs(&[(":status", "200"), ("x-b", "back")])],
        &[(RESPONSE_MAP.but(READ_ONLY), OK), (ALL, BAD_ARGUMENT)],
    ),
    row(
        "proxy_set_header_map_pairs",
        &[N(3), Pairs(&[])],
        &[(RESPONSE_TRAILERS.or(DONE), OK), (ALL, BAD_ARGUMENT)],
    ),
    row("proxy_set_header_map_pairs", &[N(4), Pairs(&[])], &[(ALL, BAD_ARGUMENT)]),
    row("proxy_set_header_map_pairs", &[N(5), Pairs(&[])], &[(ALL, BAD_ARGUMENT)]),
    row("proxy_set_header_map_pairs", &[N(6), Pairs(&[])], &[(ALL, BAD_ARGUMENT)]),
    row("proxy_set_header_map_pairs", &[N(7), Pairs(&[])], &[(ALL, BAD_ARGUMENT)]),
    row("proxy_set_header_map_pairs", &[N(8), Pairs(&[])], &[(ALL, BAD_ARGUMENT)]),
];

#[tokio::test]
async fn values_in_every_callback() {
    let reports = check(VALUES).await;
    let value = |callback, place| last(&reports, callback).value(place).clone();
    assert_eq!(value("request_headers", 0), "1", "the first of two");
    assert_eq!(value("log", 0), "1");
    assert_eq!(value("request_trailers", 1), "z");
    assert_eq!(value("response_headers", 2), "back");
    assert_eq!(value("response_trailers", 3), "42");
    assert_eq!(value("foreign_function", 2), "back");
    assert_eq!(value("http_call_response", 6), "back");
    assert_eq!(value("http_call_response", 7), "42");
    assert_eq!(value("grpc_receive_initial_metadata", 4), "i");
    assert_eq!(value("grpc_receive_trailing_metadata", 5), "t");
    assert_eq!(value("context_create", 9), "1");
    assert_eq!(value("request_headers", 10), "/path?query=1");
    assert_eq!(value("request_headers", 11), "POST");
    assert_eq!(value("request_headers", 12), "http");
    assert_eq!(value("done", 14), "200");
    assert_eq!(value("http_call_response", 15), "200");
}

#[tokio::test]
async fn maps_in_every_callback() {
    let reports = check(MAPS).await;
    let trailers = last(&reports, "response_trailers");
    assert_eq!(trailers.value(3), 7, "bytes of `x-sum` and `42`");
    assert_eq!(trailers.value(12)["hex"], "010000000500000002000000782d73756d00343200");
    for callback in ["tick", "request_headers"] {
        assert_eq!(last(&reports, callback).value(12), "", "{callback}");
    }
    // Pseudo headers are counted and come first.
    let request = last(&reports, "request_headers");
    let count = request.arguments[0];
    let pairs = request.value(9)["hex"].as_str().unwrap();
    assert!(pairs.starts_with(&count.to_le_bytes().map(|byte| format!("{byte:02x}")).concat()), "{pairs}");
    let at = 8 + 16 * count as usize;
    assert!(pairs[at..].starts_with("3a"), "a name that begins with `:`: {pairs}");
}

#[tokio::test]
async fn writes_in_every_callback() {
    for rows in [
        REQUEST_WRITES,
        REQUEST_TRAILERS_WRITES,
        RESPONSE_WRITES,
        RESPONSE_TRAILERS_WRITES,
        GRPC_WRITES,
        GRPC_TRAILING_WRITES,
        CALL_WRITES,
        CALL_TRAILERS_WRITES,
        UNKNOWN_WRITES,
    ] {
        check(rows).await;
    }
}

#[tokio::test]
async fn sets_in_every_callback() {
    check(SETS).await;
}

#[tokio::test]
async fn what_is_written_is_read_back_and_sent() {
    let script = Script::default()
        .on(
            "request_headers",
            [
                call("proxy_replace_header_map_value", &[N(0), T("X-A"), T("new")]),
                call("proxy_add_header_map_value", &[N(0), T("x-a"), T("more")]),
                call("proxy_get_header_map_value", &[N(0), T("x-a"), Bytes]),
                call("proxy_replace_header_map_value", &[N(0), T("x-empty"), T("")]),
                call("proxy_get_header_map_value", &[N(0), T("x-empty"), Bytes]),
                call("proxy_remove_header_map_value", &[N(0), T("X-GONE")]),
                call("proxy_get_header_map_value", &[N(0), T("x-gone"), Bytes]),
                call("proxy_replace_header_map_value", &[N(0), T(":path"), T("/other")]),
            ],
        )
        .on(
            "response_headers",
            [
                call(
                    "proxy_set_header_map_pairs",
                    &[N(2), Pairs(&[(":status", "418"), ("x-one", "1"), ("x-one", "2")])],
                ),
                call("proxy_get_header_map_value", &[N(2), T("x-b"), Bytes]),
            ],
        );
    let running = World::start().await.run(&script).await;
    for version in [1, 2] {
        let ask = Ask::get("/").header("x-a", "1").header("x-a", "2").header("x-gone", "here");
        let reply = running.ask(version, ask).await.unwrap();
        assert_eq!(reply.status, 418);
        assert_eq!(reply.headers.get_all("x-one").iter().collect::<Vec<_>>(), ["1", "2"]);
        assert!(!reply.headers.contains_key("x-b"));
        let seen = running.world.one.seen().pop().unwrap();
        assert_eq!(seen.headers.get_all("x-a").iter().collect::<Vec<_>>(), ["new", "more"]);
        assert_eq!((seen.header("x-empty"), seen.headers.contains_key("x-empty")), ("", true));
        assert!(!seen.headers.contains_key("x-gone"));
        assert_eq!(seen.path, "/other");
    }
    let reports = running.stop().await;
    let request = last(&reports, "request_headers");
    assert_eq!(request.statuses(), [OK, OK, OK, OK, OK, OK, NOT_FOUND, OK]);
    assert_eq!((request.value(2), request.value(4)), (&"new".into(), &"".into()));
    assert_eq!(last(&reports, "response_headers").statuses(), [OK, NOT_FOUND]);
}
