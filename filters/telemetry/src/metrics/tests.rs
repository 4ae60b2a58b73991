//! Which series exchanges count in.

use meshgate_sdk::testing::{Proxy, Request, Response};

use super::values;
use crate::Telemetry;

const REQUESTS: &str = "meshgate_http_requests_total";

#[test]
fn by_default_requests_count_by_route_cluster_and_code() {
    let mut proxy = Proxy::new::<Telemetry>("{}");
    proxy.send(Request::get("/"));
    proxy.endpoint(|_| Response::new(503));
    proxy.send(Request::get("/"));
    let count = |code| proxy.metric(REQUESTS, &[("route", ""), ("cluster", ""), ("code", code)]);
    assert_eq!((count("200"), count("503")), (1, 1));
}

#[test]
fn labels_and_tags_are_the_configured_ones() {
    let config = r#"{"metrics": {"labels": ["class", "method", "source"], "tags": {"tenant": "%REQ(x-tenant):3%", "class": "c-%RESPONSE_CODE%"}}}"#;
    let mut proxy = Proxy::new::<Telemetry>(config);
    proxy.send(Request::get("/").header("x-tenant", "blue-team").peer_identity("spiffe://a/ns/b/sa/c"));
    proxy.send(Request::new("BREW", "/"));
    let first =
        [("class", "c-200"), ("method", "GET"), ("source", "spiffe://a/ns/b/sa/c"), ("tenant", "blu")];
    assert_eq!(proxy.metric(REQUESTS, &first), 1);
    assert_eq!(
        proxy.metric(REQUESTS, &[("class", "c-200"), ("method", "other"), ("source", ""), ("tenant", "")]),
        1
    );
}

#[test]
fn what_is_one_set_too_many_counts_under_other() {
    let mut proxy = Proxy::new::<Telemetry>(
        r#"{"metrics": {"labels": ["code"], "tags": {"path": "%REQ(:path)%"}, "max_series": 2}}"#,
    );
    for path in ["/a", "/b", "/c", "/d", "/a"] {
        proxy.send(Request::get(path));
    }
    let count = |code, path| proxy.metric(REQUESTS, &[("code", code), ("path", path)]);
    assert_eq!((count("200", "/a"), count("200", "/b"), count("other", "other")), (2, 1, 2));
    assert_eq!(proxy.metric("meshgate_telemetry_overflow_total", &[]), 2);
}

#[test]
fn failures_are_what_the_configuration_says() {
    let mut proxy =
        Proxy::new::<Telemetry>(r#"{"metrics": {"labels": ["outcome"]}, "failures": ["5xx", 404]}"#);
    for status in [200, 404, 403, 500] {
        proxy.endpoint(move |_| Response::new(status));
        proxy.send(Request::get("/"));
    }
    let count = |outcome| proxy.metric(REQUESTS, &[("outcome", outcome)]);
    assert_eq!((count("success"), count("failure")), (2, 2));
}

#[test]
fn what_makes_no_sense_is_refused_with_its_place() {
    for (config, expected) in [
        (
            r#"{"metrics": {"preset": "istio", "labels": ["code"]}}"#,
            "metrics/labels: the preset has its own labels",
        ),
        (r#"{"metrics": {"tags": {"le": "x"}}}"#, "metrics/tags/le: `le` is not the name of a label"),
        (r#"{"metrics": {"tags": {"a": "%X%"}}}"#, "there is no operator %X%"),
        (r#"{"failures": ["6xx"]}"#, "`6xx` is not a status"),
    ] {
        let refusal = Proxy::refusal::<Telemetry>(config);
        assert!(refusal.contains(expected), "{config}: {refusal}");
    }
}

#[test]
fn a_key_has_its_values() {
    assert_eq!(values(b"\x01\0a\0\0\x02\0bc"), ["a", "", "bc"]);
    assert_eq!(values(b"\x09\0a"), ["a"], "damaged ones end early");
}
