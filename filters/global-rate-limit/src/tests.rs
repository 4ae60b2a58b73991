use std::time::Duration;

use meshgate_sdk::testing::{Proxy, Request, Response};
use prost::Message;

use super::GlobalRateLimit;
use crate::service::{
    Descriptor, DescriptorStatus, HeaderValue, Limit, RateLimitRequest, RateLimitResponse, Time,
};

/// A filter with these descriptors, and more keys.
fn counting(descriptors: &str, more: &str) -> Proxy {
    Proxy::new::<GlobalRateLimit>(&format!(
        r#"{{"cluster": "limits", "domain": "shop", "descriptors": {descriptors}{more}}}"#
    ))
}

/// A filter that counts by a text.
fn simple(more: &str) -> Proxy {
    counting(r#"[{"entries": [{"from": {"value": "all"}}]}]"#, more)
}

fn count(proxy: &Proxy, outcome: &str) -> i64 {
    let labels = [("domain", "shop"), ("outcome", outcome)];
    proxy.metric("meshgate_global_rate_limit_requests_total", &labels)
}

/// An answer of the service.
fn says(overall_code: i32) -> RateLimitResponse {
    RateLimitResponse { overall_code, ..RateLimitResponse::default() }
}

fn answers(proxy: &mut Proxy, answer: RateLimitResponse) {
    proxy.upstream("limits", move |_| Response::grpc(answer.encode_to_vec()));
}

fn field(key: &str, value: &str) -> HeaderValue {
    HeaderValue { key: key.to_owned(), value: value.to_owned(), raw_value: Vec::new() }
}

/// What the service was asked for this request; `None` if it was not.
fn asked(proxy: &mut Proxy, request: Request) -> Option<RateLimitRequest> {
    answers(proxy, says(1));
    let before = proxy.calls("limits").len();
    assert_eq!(proxy.send(request).status(), 200);
    let call = proxy.calls("limits").into_iter().nth(before)?;
    assert_eq!(call.target(), "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit");
    Some(RateLimitRequest::decode(&*call.bytes()).unwrap())
}

fn pairs(descriptor: &Descriptor) -> Vec<(&str, &str)> {
    descriptor.entries.iter().map(|entry| (entry.key.as_str(), entry.value.as_str())).collect()
}

#[test]
fn the_service_is_told_what_the_configuration_says() {
    let mut proxy = counting(
        r#"[{"entries": [{"from": "client_address"}]},
            {"entries": [{"from": {"client_network": {"v4": 24}}}]},
            {"entries": [{"from": {"value": "checkout"}}, {"from": {"header": "x-user"}, "key": "user"}, {"from": "path"}]},
            {"entries": [{"from": "method"}, {"from": "host"}, {"from": "peer_identity"}, {"from": "cluster"}, {"from": "route"}, {"from": {"property": "jwt.principal"}}],
             "limit": {"requests": 7, "per": "minute"}, "hits": 5}]"#,
        "",
    );
    let request = Request::get("/a/b?c")
        .header(":authority", "Shop.example:8080")
        .header("x-user", "ann")
        .peer_identity("spiffe://a/b")
        .property("source/address", "192.0.2.7:99")
        .property("xds/cluster_name", "one")
        .property("xds/route_name", "first")
        .property("jwt.principal", "idp/ann");
    let question = asked(&mut proxy, request).unwrap();
    assert_eq!((question.domain.as_str(), question.hits_addend), ("shop", 0));
    let told: Vec<_> = question.descriptors.iter().map(pairs).collect();
    assert_eq!(told[0], [("remote_address", "192.0.2.7")]);
    assert_eq!(told[1], [("masked_remote_address", "192.0.2.0/24")]);
    assert_eq!(told[2], [("generic_key", "checkout"), ("user", "ann"), ("path", "/a/b")]);
    assert_eq!(
        told[3],
        [
            ("method", "GET"),
            ("host", "shop.example"),
            ("peer_identity", "spiffe://a/b"),
            ("destination_cluster", "one"),
            ("route", "first"),
            ("jwt.principal", "idp/ann")
        ]
    );
    let last = &question.descriptors[3];
    let limit = last.limit.clone().unwrap();
    assert_eq!((limit.requests_per_unit, limit.unit, last.hits_addend.unwrap().value), (7, 2, 5));
    assert_eq!(count(&proxy, "ok"), 1);
}

#[test]
fn what_a_request_lacks_is_left_out_or_filled_in() {
    let mut proxy = counting(
        r#"[{"entries": [{"from": {"value": "a"}}, {"from": {"header": "x-a"}}]},
            {"entries": [{"from": {"value": "b"}}, {"from": {"header": "x-b"}, "optional": true}]},
            {"entries": [{"from": {"header": "x-c"}, "default": "none", "key": "c"}]},
            {"entries": [{"from": {"header": "x-d"}, "optional": true}]}]"#,
        "",
    );
    let question = asked(&mut proxy, Request::get("/")).unwrap();
    let told: Vec<_> = question.descriptors.iter().map(pairs).collect();
    assert_eq!(told, [vec![("generic_key", "b")], vec![("c", "none")]]);
    let mut only = counting(r#"[{"entries": [{"from": {"header": "x-a"}}]}]"#, "");
    assert_eq!(asked(&mut only, Request::get("/").header("x-a", "")), None);
    assert_eq!(count(&only, "unlimited"), 1);
}

#[test]
fn a_request_may_count_for_several() {
    let hits = |more: &str, request: Request| asked(&mut simple(more), request).unwrap().hits_addend;
    let cost = |cost: &str| Request::get("/").header("x-cost", cost);
    assert_eq!(hits(r#", "hits": 3"#, cost("9")), 3);
    for (said, expected) in [("9", 9), ("0", 3), ("-1", 3), ("many", 3), ("4294967296", 3)] {
        assert_eq!(hits(r#", "hits": 3, "hits_header": "x-cost""#, cost(said)), expected, "{said}");
    }
    assert_eq!(hits(r#", "hits_header": "x-cost""#, Request::get("/")), 0);
}

#[test]
fn addresses_are_those_that_trusted_proxies_say() {
    let mut proxy = counting(r#"[{"entries": [{"from": "client_address"}]}]"#, r#", "trusted_hops": 1"#);
    let request = Request::get("/")
        .property("source/address", "10.0.0.1:1")
        .header("x-forwarded-for", "8.8.8.8, 2001:db8::7, 10.0.0.1");
    let question = asked(&mut proxy, request).unwrap();
    assert_eq!(pairs(&question.descriptors[0]), [("remote_address", "2001:db8::7")]);
}

fn status(code: i32, requests: u32, unit: i32, name: &str, left: u32, reset: i64) -> DescriptorStatus {
    DescriptorStatus {
        code,
        current_limit: Some(Limit { requests_per_unit: requests, unit, name: name.to_owned() }),
        limit_remaining: left,
        duration_until_reset: Some(Time { seconds: reset }),
    }
}

#[test]
fn within_the_limits_the_service_may_add_fields() {
    let mut proxy = simple("");
    let mut answer = says(1);
    answer.request_headers_to_add = vec![field("X-Tier", "gold"), field("host", "evil"), field("a b", "x")];
    answer.response_headers_to_add = vec![field("x-left", "9"), field("x-odd", "a\r\nb")];
    answer.statuses = vec![
        status(1, 1000, 3, "", 800, 1800),
        DescriptorStatus { code: 1, ..DescriptorStatus::default() },
        status(1, 10, 2, "per\"-ip", 4, 30),
        status(1, 5, 0, "", 4, 1),
    ];
    answers(&mut proxy, answer);
    let done = proxy.send(Request::get("/").header("x-tier", "none"));
    let upstream = done.upstream().unwrap();
    let tiers: Vec<_> = upstream.head().iter().filter(|(name, _)| name == "x-tier").collect();
    assert_eq!(tiers.len(), 2, "it adds, and takes nothing away");
    assert_eq!(upstream.field(":authority").as_deref(), Some("example.com"));
    assert_eq!((done.header("x-left").as_deref(), done.header("x-odd")), (Some("9"), None));
    assert_eq!(done.header("x-ratelimit-limit").as_deref(), Some("10, 1000;w=3600, 10;w=60;name=\"per-ip\""));
    assert_eq!(done.header("x-ratelimit-remaining").as_deref(), Some("4"));
    assert_eq!(done.header("x-ratelimit-reset").as_deref(), Some("30"));
    assert_eq!(done.header("x-envoy-ratelimited"), None);
}

#[test]
fn over_a_limit_a_request_is_refused() {
    let mut proxy = simple("");
    let mut answer = says(2);
    answer.statuses = vec![status(1, 9, 1, "", 1, 90), status(2, 10, 2, "", 0, 7)];
    answer.response_headers_to_add = vec![field("content-type", "text/html")];
    answer.raw_body = b"<p>later</p>".to_vec();
    answers(&mut proxy, answer);
    let done = proxy.send(Request::get("/"));
    assert_eq!((done.status(), done.text().as_str()), (429, "<p>later</p>"));
    for (name, expected) in [
        ("x-envoy-ratelimited", "true"),
        ("x-ratelimit-remaining", "0"),
        ("retry-after", "7"),
        ("content-type", "text/html"),
    ] {
        assert_eq!(done.header(name).as_deref(), Some(expected), "{name}");
    }
    assert!(done.upstream().is_none());
    assert_eq!(count(&proxy, "over_limit"), 1);

    let mut quiet = simple(r#", "headers": "none", "status": 503"#);
    let mut answer = says(2);
    answer.statuses = vec![status(2, 10, 2, "", 0, 7)];
    answers(&mut quiet, answer);
    let done = quiet.send(Request::get("/"));
    assert_eq!((done.status(), done.header("x-envoy-ratelimited")), (503, None));
    assert_eq!((done.header("x-ratelimit-limit"), done.header("retry-after")), (None, None));
}

#[test]
fn without_a_decision_the_configuration_decides() {
    for (more, expected, outcome) in [
        ("", 200, "error_allowed"),
        (r#", "on_failure": "deny""#, 500, "error"),
        (r#", "on_failure": "deny", "status_on_error": 503"#, 503, "error"),
        (r#", "on_failure": "deny", "shadow": true"#, 200, "error_allowed"),
    ] {
        for failing in 0..4 {
            let mut proxy = simple(more);
            match failing {
                0 => proxy.upstream("limits", |_| Response::grpc_status(14, "gone")),
                1 => proxy.upstream("limits", |_| Response::grpc("\u{1}nonsense")),
                2 => answers(&mut proxy, says(0)),
                _ => proxy.upstream("limits", |_| {
                    Response::grpc(says(2).encode_to_vec()).after(Duration::from_millis(21))
                }),
            }
            assert_eq!(proxy.send(Request::get("/")).status(), expected, "{more} {failing}");
            assert_eq!(count(&proxy, outcome), 1, "{more} {failing}");
        }
    }
    let mut patient = simple(r#", "timeout": "30ms""#);
    patient.upstream("limits", |_| Response::grpc(says(2).encode_to_vec()).after(Duration::from_millis(21)));
    assert_eq!(patient.send(Request::get("/")).status(), 429);
}

#[test]
fn in_the_shadow_everything_passes_as_it_came() {
    let mut proxy = simple(r#", "shadow": true"#);
    for code in [1, 2] {
        let mut answer = says(code);
        answer.statuses = vec![status(code, 10, 2, "", 0, 7)];
        answer.request_headers_to_add = vec![field("x-tier", "gold")];
        answers(&mut proxy, answer);
        let done = proxy.send(Request::get("/"));
        assert_eq!((done.status(), done.header("x-ratelimit-limit")), (200, None));
        assert_eq!(done.upstream().unwrap().field("x-tier"), None);
    }
    assert_eq!((count(&proxy, "ok"), count(&proxy, "would_limit")), (1, 1));
}

#[test]
fn mistakes_are_refused_with_their_place() {
    let with = |rest: &str| format!(r#"{{"cluster": "limits", "domain": "shop", {rest}}}"#);
    let entry = |entry: &str| with(&format!(r#""descriptors": [{{"entries": [{entry}]}}]"#));
    let all = r#""descriptors": [{"entries": [{"from": "path"}]}]"#;
    for (configuration, words) in [
        ("{}".to_owned(), "missing field"),
        (with(r#""descriptors": []"#), "descriptors: "),
        (with(r#""descriptors": [{"entries": []}]"#), "descriptors/0/entries: "),
        (entry("{}"), "missing field `from`"),
        (entry(r#"{"from": "nowhere"}"#), "descriptors/0/entries/0/from: unknown variant `nowhere`"),
        (entry(r#"{"from": {"header": "a b"}}"#), "descriptors/0/entries/0/from/header: "),
        (entry(r#"{"from": {"value": ""}}"#), "descriptors/0/entries/0/from: "),
        (entry(r#"{"from": "path", "key": ""}"#), "descriptors/0/entries/0/key: "),
        (
            entry(r#"{"from": {"client_network": {"v4": 33}}}"#),
            "descriptors/0/entries/0/from/client_network: ",
        ),
        (with(&format!(r#"{all}, "hits": 0"#)), "hits: "),
        (with(&format!(r#"{all}, "hits_header": ":path""#)), "hits_header: "),
        (with(&format!(r#"{all}, "status": 200"#)), "status: "),
        (with(&format!(r#"{all}, "status_on_error": 600"#)), "status_on_error: "),
        (with(&format!(r#"{all}, "on_failure": "perhaps""#)), "on_failure: unknown variant"),
        (format!(r#"{{"cluster": "limits", "domain": "", {all}}}"#), "domain: "),
    ] {
        let said = Proxy::refusal::<GlobalRateLimit>(&configuration);
        assert!(said.contains(words), "{configuration}: {said}");
    }
}
