use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use meshgate_sdk::testing::{Done, Proxy, Request, Response};
use prost::Message;

use super::ExtAuthz;
use crate::grpc::{
    BoolValue, CheckRequest, CheckResponse, DeniedHttpResponse, HeaderValue, HeaderValueOption, HttpStatus,
    OkHttpResponse, Status,
};

/// A filter that asks over HTTP.
fn over_http(more: &str) -> Proxy {
    Proxy::new::<ExtAuthz>(&format!(r#"{{"http": {{"cluster": "policy"}}{more}}}"#))
}

fn count(proxy: &Proxy, outcome: &str, from: &str) -> i64 {
    proxy.metric("meshgate_ext_authz_requests_total", &[("outcome", outcome), ("from", from)])
}

fn sent(done: &Done, name: &str) -> Option<String> {
    done.upstream().unwrap().field(name)
}

#[test]
fn over_http_the_service_sees_the_request_and_its_status_decides() {
    let mut proxy = over_http(r#", "upstream_headers": ["x-user"]"#);
    proxy.upstream("policy", |call| match call.field("authorization").as_deref() {
        Some("Bearer good") => Response::new(200).header("x-user", "ann").header("x-other", "1"),
        Some(_) => Response::new(302).header("location", "/login").header("x-secret", "1").body("log in"),
        None => Response::new(401).header("www-authenticate", "Bearer"),
    });
    let ask = || Request::post("/orders?a=1", "body").header("x-user", "root").header("x-private", "1");
    let done = proxy.send(ask().header("authorization", "Bearer good"));
    assert_eq!((sent(&done, "x-user").as_deref(), sent(&done, "x-other")), (Some("ann"), None));
    let call = proxy.calls("policy").pop().unwrap();
    assert_eq!((call.method().as_str(), call.target().as_str()), ("POST", "/orders?a=1"));
    assert_eq!(call.field(":authority").as_deref(), Some("example.com"));
    assert_eq!((call.field("x-private"), call.text().as_str()), (None, ""));
    assert_eq!(call.field("x-forwarded-uri").as_deref(), Some("/orders?a=1"));

    let done = proxy.send(ask().header("authorization", "Bearer bad"));
    assert_eq!((done.status(), done.text().as_str()), (302, "log in"));
    assert_eq!((done.header("location").as_deref(), done.header("x-secret")), (Some("/login"), None));
    let done = proxy.send(ask());
    assert_eq!((done.status(), done.header("www-authenticate").as_deref()), (401, Some("Bearer")));
    assert_eq!((count(&proxy, "allowed", "service"), count(&proxy, "denied", "service")), (1, 2));
}

#[test]
fn a_service_may_have_a_path_of_its_own() {
    let mut proxy = Proxy::new::<ExtAuthz>(
        r#"{"http": {"cluster": "policy", "path": "/check", "authority": "policy.example"}}"#,
    );
    proxy.upstream("policy", |_| Response::new(204));
    assert_eq!(proxy.send(Request::new("DELETE", "/a")).status(), 200);
    let call = proxy.calls("policy").pop().unwrap();
    assert_eq!((call.method().as_str(), call.target().as_str()), ("GET", "/check"));
    assert_eq!(call.field(":authority").as_deref(), Some("policy.example"));
    assert_eq!(call.field("x-forwarded-method").as_deref(), Some("DELETE"));
    let mut proxy = Proxy::new::<ExtAuthz>(r#"{"http": {"cluster": "policy", "path_prefix": "/v1"}}"#);
    proxy.upstream("policy", |_| Response::new(200));
    assert_eq!(proxy.send(Request::get("/a")).status(), 200);
    assert_eq!(proxy.calls("policy").pop().unwrap().target(), "/v1/a");
}

fn option(name: &str, value: &str, append: bool) -> HeaderValueOption {
    let header = HeaderValue { key: name.to_owned(), value: value.to_owned(), raw_value: Vec::new() };
    HeaderValueOption { header: Some(header), append: append.then_some(BoolValue { value: true }) }
}

/// The question in a call's body, and an answer as its.
fn asked(call: &Request) -> CheckRequest {
    CheckRequest::decode(&*call.bytes()).unwrap()
}

#[test]
fn over_grpc_the_service_speaks_envoys_protocol() {
    let mut proxy = Proxy::new::<ExtAuthz>(r#"{"grpc": {"cluster": "policy", "context": {"env": "test"}}}"#);
    proxy.upstream("policy", |call| {
        assert_eq!(call.target(), "/envoy.service.auth.v3.Authorization/Check");
        let attributes = asked(call).attributes.unwrap();
        let http = attributes.request.unwrap().http.unwrap();
        assert_eq!(
            (http.method.as_str(), http.path.as_str(), http.host.as_str()),
            ("POST", "/a?b=c", "example.com")
        );
        assert_eq!((http.size, http.body.as_str()), (4, ""));
        assert_eq!(http.headers["x-twice"], "1,2");
        assert_eq!(attributes.context_extensions["env"], "test");
        let source = attributes.source.unwrap();
        let address = source.address.unwrap().socket_address.unwrap();
        assert_eq!((address.address.as_str(), address.port_value), ("192.0.2.1", 99));
        assert_eq!(source.principal, "spiffe://a/b");
        let answer = match http.headers.get("x-key").map(String::as_str) {
            Some("good") => CheckResponse {
                status: Some(Status { code: 0 }),
                ok_response: Some(OkHttpResponse {
                    headers: vec![
                        option("X-User", "ann", false),
                        option("x-twice", "3", true),
                        option("host", "evil", false),
                        option(":path", "/admin", false),
                        option("x bad", "1", false),
                        option("", "1", false),
                        option("x-split", "1\r\nx-admin: 1", false),
                    ],
                    headers_to_remove: ["X-Key", "Host", ":path", "x bad"].map(str::to_owned).into(),
                }),
                denied_response: None,
            },
            _ => CheckResponse {
                status: Some(Status { code: 7 }),
                denied_response: Some(DeniedHttpResponse {
                    status: Some(HttpStatus { code: 451 }),
                    headers: vec![option("x-why", "law", false)],
                    body: "no".to_owned(),
                }),
                ok_response: None,
            },
        };
        Response::grpc(answer.encode_to_vec())
    });
    let ask = || {
        let request = Request::post("/a?b=c", "body").header("content-length", "4").header("x-twice", "1");
        let request = request.header("x-twice", "2").header("x-user", "root").peer_identity("spiffe://a/b");
        request.property("source/address", "192.0.2.1:99")
    };
    let done = proxy.send(ask().header("x-key", "good"));
    assert_eq!(done.status(), 200, "{} {:?}", done.text(), proxy.logs());
    assert_eq!((sent(&done, "x-user").as_deref(), sent(&done, "x-key")), (Some("ann"), None));
    assert_eq!(sent(&done, ":authority").as_deref(), Some("example.com"));
    assert_eq!(sent(&done, ":path").as_deref(), Some("/a?b=c"));
    assert_eq!(
        (sent(&done, "x-split"), sent(&done, "x-admin")),
        (None, None),
        "what is no field is left out"
    );
    assert_eq!(done.upstream().unwrap().text(), "body");
    let done = proxy.send(ask());
    assert_eq!(
        (done.status(), done.text().as_str(), done.header("x-why").as_deref()),
        (451, "no", Some("law"))
    );
}

#[test]
fn over_grpc_the_body_is_sent_as_text_or_as_it_is() {
    let mut proxy = Proxy::new::<ExtAuthz>(r#"{"grpc": {"cluster": "policy"}, "body": {"max_bytes": 100}}"#);
    proxy.upstream("policy", |call| {
        let http = asked(call).attributes.unwrap().request.unwrap().http.unwrap();
        let known = http.body == "text" || http.raw_body == b"\xff\x00";
        let code = if known { 0 } else { 7 };
        Response::grpc(
            CheckResponse { status: Some(Status { code }), ..CheckResponse::default() }.encode_to_vec(),
        )
    });
    let mut status = |body: &[u8]| {
        let post = Request::post("/", body).header("content-length", body.len().to_string());
        proxy.send(post).status()
    };
    assert_eq!((status(b"text"), status(b"\xff\x00"), status(b"other")), (200, 200, 403));
}

#[test]
fn a_body_is_sent_up_to_its_limit() {
    let mut proxy = over_http(r#", "body": {"max_bytes": 4}"#);
    proxy.upstream("policy", |call| Response::new(if call.text() == "good" { 200 } else { 403 }));
    let post = |body: &str| Request::post("/", body).header("content-length", body.len().to_string());
    assert_eq!(proxy.send(post("good")).status(), 200);
    assert_eq!(proxy.send(post("evil")).status(), 403);
    assert_eq!(proxy.send(post("goods")).status(), 413);
    assert_eq!(proxy.send(Request::post("/", "good")).status(), 411, "of unknown length");
    assert_eq!(proxy.send(Request::get("/")).status(), 403, "without a body");
}

#[test]
fn when_the_service_fails_the_configuration_decides() {
    let failures: [fn() -> Response; 4] =
        [Response::timeout, Response::refused, || Response::new(500), || Response::new(503)];
    for failure in failures {
        let mut deny = over_http(r#", "timeout": "100ms", "status_on_error": 503"#);
        let mut allow =
            over_http(r#", "timeout": "100ms", "on_failure": "allow", "upstream_headers": ["x-*"]"#);
        for proxy in [&mut deny, &mut allow] {
            proxy.upstream("policy", move |_| failure());
        }
        let done = deny.send(Request::get("/"));
        assert_eq!(done.status(), 503);
        assert!(done.took() <= Duration::from_millis(100));
        assert_eq!(count(&deny, "error", "service"), 1);
        let done = allow.send(Request::get("/").header("x-user", "root").header("y-user", "root"));
        assert_eq!((sent(&done, "x-user"), sent(&done, "y-user").is_some()), (None, true));
        assert_eq!(count(&allow, "error_allowed", "service"), 1);
    }
}

#[test]
fn decisions_are_remembered_by_their_key() {
    let mut proxy = over_http(
        r#", "upstream_headers": ["x-user"], "cache": {"key": ["path", "header:authorization"], "ttl": "10s"}"#,
    );
    proxy.upstream("policy", |call| match call.field("authorization").as_deref() {
        Some("a") => Response::new(200).header("x-user", "ann"),
        _ => Response::new(403).body("no"),
    });
    let ask = |path: &str, token: &str| Request::get(path).header("authorization", token);
    for _ in 0..3 {
        let done = proxy.send(ask("/a?1", "a"));
        assert_eq!(sent(&done, "x-user").as_deref(), Some("ann"));
        let done = proxy.send(ask("/a", "b"));
        assert_eq!((done.status(), done.text().as_str()), (403, "no"));
    }
    assert_eq!(proxy.calls("policy").len(), 2);
    assert_eq!((count(&proxy, "allowed", "cache"), count(&proxy, "denied", "cache")), (2, 2));
    proxy.send(ask("/b", "a"));
    assert_eq!(proxy.calls("policy").len(), 3);
    proxy.restart();
    proxy.send(ask("/b", "a"));
    assert_eq!(proxy.calls("policy").len(), 3, "every worker knows it");
    proxy.advance(Duration::from_secs(10));
    proxy.send(ask("/b", "a"));
    assert_eq!(proxy.calls("policy").len(), 4);
    // What is no decision is not remembered.
    let failing = Rc::new(Cell::new(true));
    let fails = Rc::clone(&failing);
    proxy.upstream("policy", move |_| Response::new(if fails.get() { 500 } else { 200 }));
    assert_eq!(proxy.send(ask("/c", "a")).status(), 403);
    failing.set(false);
    assert_eq!(proxy.send(ask("/c", "a")).status(), 200);
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut proxy = over_http(r#", "cache": {"key": ["path"], "ttl": "1h", "size": 2}"#);
    proxy.upstream("policy", |call| Response::new(if call.target().ends_with('0') { 403 } else { 200 }));
    for _ in 0..2 {
        for number in 0..100 {
            let expected = if number % 10 == 0 { 403 } else { 200 };
            assert_eq!(proxy.send(Request::get(&format!("/{number}"))).status(), expected, "{number}");
        }
    }
    assert!(proxy.calls("policy").len() >= 190);
}

#[test]
fn in_the_shadow_nothing_is_done() {
    let mut proxy = over_http(r#", "shadow": true, "upstream_headers": ["x-user"]"#);
    let answers = Rc::new(Cell::new(200));
    let answer = Rc::clone(&answers);
    proxy.upstream("policy", move |_| Response::new(answer.get()).header("x-user", "ann"));
    for (status, outcome) in [(200, "would_allow"), (403, "would_deny"), (500, "error_allowed")] {
        answers.set(status);
        let done = proxy.send(Request::get("/").header("x-user", "bob"));
        assert_eq!(sent(&done, "x-user").as_deref(), Some("bob"));
        assert_eq!(count(&proxy, outcome, "service"), 1, "{outcome}");
    }
}

#[test]
fn in_the_shadow_bodies_pass_that_the_service_is_not_told_of() {
    let mut proxy = over_http(r#", "shadow": true, "body": {"max_bytes": 4}"#);
    proxy.upstream("policy", |_| Response::new(403));
    for (request, outcome, from) in [
        (Request::post("/", "1234").header("content-length", "4"), "would_deny", "service"),
        (Request::post("/", "12345").header("content-length", "5"), "too_large", ""),
        (Request::post("/", "1").header("transfer-encoding", "chunked"), "length_required", ""),
    ] {
        assert_eq!(proxy.send(request).status(), 200, "{outcome}");
        assert_eq!(count(&proxy, outcome, from), 1, "{outcome}");
    }
    assert_eq!(proxy.calls("policy").len(), 1);
}

#[test]
fn mistakes_are_refused_with_their_place() {
    for (configuration, words) in [
        ("{}", "somebody has to be asked"),
        (r#"{"http": {"cluster": "a"}, "grpc": {"cluster": "a"}}"#, "somebody has to be asked"),
        (r#"{"http": {"cluster": "a", "path": "/a", "path_prefix": "/b"}}"#, "http/path_prefix: "),
        (r#"{"http": {"cluster": "a", "path": "a"}}"#, "http/path: "),
        (r#"{"http": {"cluster": "a"}, "request_headers": ["a", "b c"]}"#, "request_headers/1: "),
        (r#"{"http": {"cluster": "a"}, "client_headers": ["a*b"]}"#, "client_headers/0: "),
        (r#"{"http": {"cluster": "a"}, "status_on_error": 200}"#, "status_on_error: "),
        (r#"{"http": {"cluster": "a"}, "cache": {"key": [], "ttl": "1s"}}"#, "cache/key: "),
        (r#"{"http": {"cluster": "a"}, "cache": {"key": ["cookie"], "ttl": "1s"}}"#, "cache/key/0: "),
        (
            r#"{"http": {"cluster": "a"}, "body": {"max_bytes": 9}, "cache": {"key": ["path"], "ttl": "1s"}}"#,
            "cache: ",
        ),
        (
            r#"{"http": {"cluster": "a"}, "body": {"max_bytes": 9}, "upstream_headers": ["a"]}"#,
            "upstream_headers: ",
        ),
        (r#"{"http": {"cluster": "a"}, "on_failure": "open"}"#, "on_failure: unknown variant"),
    ] {
        let said = Proxy::refusal::<ExtAuthz>(configuration);
        assert!(said.contains(words), "{configuration}: {said}");
    }
}
