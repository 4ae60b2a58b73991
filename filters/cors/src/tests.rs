//! The filter in the simulated host.

use meshgate_sdk::testing::{Done, Proxy, Request, Response};

use super::Cors;

const SHOP: &str = r#"{
    "origins": ["https://www.example.org", "https://*.example.net"], "methods": ["GET", "PUT"], "headers": ["x-a", "x-b"],
    "expose": ["etag"], "max_age": "10m", "credentials": true
}"#;

fn preflight(origin: &str) -> Request {
    Request::new("OPTIONS", "/").header("origin", origin).header("access-control-request-method", "PUT")
}

fn get(origin: &str) -> Request {
    Request::get("/").header("origin", origin)
}

/// The fields that are about origins.
fn said(done: &Done) -> Vec<String> {
    let fields = done.response().head().iter();
    let about = fields.filter(|(name, _)| name == "vary" || name.starts_with("access-control-"));
    about.map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value))).collect()
}

#[test]
fn preflights_are_answered() {
    let mut proxy = Proxy::new::<Cors>(SHOP);
    let done =
        proxy.send(preflight("https://www.example.org").header("access-control-request-headers", "x-a"));
    assert_eq!((done.status(), done.upstream().is_none()), (204, true));
    let expected = [
        "access-control-allow-origin: https://www.example.org",
        "access-control-allow-credentials: true",
        "access-control-allow-methods: GET, PUT",
        "access-control-allow-headers: x-a, x-b",
        "access-control-max-age: 600",
        "vary: origin",
    ];
    assert_eq!(said(&done), expected);
    // One without a method is a request like any other.
    let options = Request::new("OPTIONS", "/").header("origin", "https://www.example.org");
    assert!(proxy.send(options).upstream().is_some());
}

#[test]
fn responses_say_who_may_read_them() {
    let mut proxy = Proxy::new::<Cors>(SHOP);
    proxy.endpoint(|_| {
        let response =
            Response::new(200).header("vary", "accept-encoding").header("access-control-allow-origin", "*");
        response.header("access-control-expose-headers", "x-secret")
    });
    let done = proxy.send(get("https://a.example.net"));
    let expected = [
        "vary: accept-encoding",
        "vary: origin",
        "access-control-allow-origin: https://a.example.net",
        "access-control-allow-credentials: true",
        "access-control-expose-headers: etag",
    ];
    assert_eq!((done.status(), said(&done)), (200, expected.map(str::to_owned).to_vec()));
    let done = proxy.send(get("https://evil.example"));
    assert_eq!(
        (done.status(), said(&done)),
        (200, expected[..2].iter().map(|line| (*line).to_owned()).collect())
    );
    let vary = |proxy: &mut Proxy, value: &'static str| {
        proxy.endpoint(move |_| Response::new(200).header("vary", value));
        proxy.send(Request::get("/")).response().head().iter().filter(|(name, _)| name == "vary").count()
    };
    assert_eq!(
        (vary(&mut proxy, "x, Origin"), vary(&mut proxy, "*"), vary(&mut proxy, "x-origin")),
        (1, 1, 2)
    );
}

#[test]
fn other_origins_go_on_without_leave_or_are_rejected() {
    let mut proxy = Proxy::new::<Cors>(r#"{"origins": ["https://www.example.org"]}"#);
    let done = proxy.send(preflight("https://evil.example"));
    assert_eq!(
        (done.status(), done.upstream().is_some(), said(&done)),
        (200, true, vec!["vary: origin".to_owned()])
    );

    let mut proxy = Proxy::new::<Cors>(r#"{"origins": ["https://www.example.org"], "reject": true}"#);
    for request in [preflight("https://evil.example"), get("null"), get("")] {
        let done = proxy.send(request);
        assert_eq!((done.status(), done.upstream().is_none()), (403, true));
    }
    assert_eq!(proxy.send(Request::get("/")).status(), 200, "not from a page");
    assert_eq!(proxy.send(get("http://example.com")).status(), 200, "from a page of its own");
    let count = |result| proxy.metric("meshgate_cors_requests_total", &[("result", result)]);
    assert_eq!((count("not_allowed"), count("allowed"), count("preflight")), (3, 0, 0));
}

#[test]
fn everybody_gets_the_same_answer() {
    let mut proxy = Proxy::new::<Cors>(r#"{"origins": ["*"], "private_network": true, "headers": ["*"]}"#);
    assert_eq!(said(&proxy.send(get("https://any.example"))), ["access-control-allow-origin: *"]);
    assert_eq!(said(&proxy.send(Request::get("/"))), [""; 0]);
    let asking = preflight("null").header("access-control-request-headers", "x-q, x-r");
    let done = proxy.send(asking.header("access-control-request-private-network", "true"));
    let expected = [
        "access-control-allow-origin: *",
        "access-control-allow-methods: GET, HEAD, POST",
        "access-control-allow-headers: x-q, x-r",
        "access-control-allow-private-network: true",
        "vary: access-control-request-headers, access-control-request-private-network",
    ];
    assert_eq!(said(&done), expected);
}

#[test]
fn mistakes_are_refused_with_their_place() {
    for (config, said) in [
        (r#"{"origins": []}"#, "origins: an empty list"),
        (
            r#"{"origins": ["https://a.example", "a.example"]}"#,
            "origins/1: \"a.example\": an origin is a scheme",
        ),
        (r#"{"origins": ["*"], "credentials": true}"#, "origins/0: every page of the world"),
        (r#"{"origins": ["https://a.example"], "methods": ["G T"]}"#, "methods/0: \"G T\" is not a name"),
        (r#"{"origins": ["https://a.example"], "expose": ["*"]}"#, "expose/0: browsers take *"),
        (r#"{"origins": ["https://a.example"], "max_age": 600}"#, "max_age: invalid type"),
    ] {
        let refusal = Proxy::refusal::<Cors>(config);
        assert!(refusal.contains(said), "{refusal}");
    }
}
