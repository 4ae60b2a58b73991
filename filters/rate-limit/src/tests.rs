//! The filter in the simulated host.

use std::time::Duration;

use meshgate_sdk::testing::{Done, Proxy, Request, Response};

use super::RateLimit;

fn passed(proxy: &mut Proxy, request: &Request) -> bool {
    match proxy.send(request.clone()).status() {
        200 => true,
        429 => false,
        other => panic!("{other}"),
    }
}

/// How many of so many in a row pass.
fn of(proxy: &mut Proxy, tries: u32, request: &Request) -> u32 {
    (0..tries).map(|_| u32::from(passed(proxy, request))).sum()
}

fn fields(done: &Done) -> [String; 2] {
    ["ratelimit", "ratelimit-policy"].map(|name| done.header(name).unwrap_or_default())
}

#[test]
fn as_many_pass_as_there_are_and_as_many_more_as_are_earned() {
    let mut proxy = Proxy::new::<RateLimit>(r#"{"rules": [{"name": "all", "limit": "10/s"}]}"#);
    let get = Request::get("/");
    assert_eq!(of(&mut proxy, 50, &get), 10);
    proxy.advance(Duration::from_millis(99));
    assert_eq!(of(&mut proxy, 5, &get), 0);
    proxy.advance(Duration::from_millis(1));
    assert_eq!(of(&mut proxy, 5, &get), 1);
    proxy.advance(Duration::from_millis(350));
    assert_eq!(of(&mut proxy, 5, &get), 3);
    proxy.advance(Duration::from_secs(3_600));
    assert_eq!(of(&mut proxy, 50, &get), 10, "a bucket does not overflow");
    let count =
        |result| proxy.metric("meshgate_rate_limit_requests_total", &[("rule", "all"), ("result", result)]);
    assert_eq!((count("passed"), count("limited")), (24, 91));
}

#[test]
fn whenever_they_come_no_more_pass_than_the_bucket_and_the_rate_allow() {
    const COST: u64 = 50;
    let mut proxy = Proxy::new::<RateLimit>(r#"{"rules": [{"name": "all", "limit": "20/s", "burst": 7}]}"#);
    let mut state = 7_u64;
    let (mut now, mut times) = (0, Vec::new());
    for _ in 0..3_000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let pause = (state >> 33) % 60;
        now += pause;
        proxy.advance(Duration::from_millis(pause));
        if passed(&mut proxy, &Request::get("/")) {
            times.push(now);
        }
    }
    for (first, from) in times.iter().enumerate() {
        for (last, until) in times.iter().enumerate().skip(first) {
            assert!((last - first + 1) as u64 <= 7 + (until - from) / COST, "{from} to {until}");
        }
    }
    // And it is not stingy: what is earned is spent, as there is always somebody to spend it.
    assert!(times.len() as u64 >= now / COST - 60, "{} in {now} ms", times.len());
}

#[test]
fn clients_are_told_what_is_left() {
    let mut proxy = Proxy::new::<RateLimit>(
        r#"{"rules": [{"name": "wide", "limit": "100/s"}, {"name": "tight", "limit": "2/m", "burst": 3}]}"#,
    );
    let get = || Request::get("/");
    let told = |rest: &str| [format!(r#""tight";{rest}"#), r#""tight";q=3;w=90"#.to_owned()];
    assert_eq!(fields(&proxy.send(get())), told("r=2;t=30"));
    assert_eq!(fields(&proxy.send(get())), told("r=1;t=60"));
    assert_eq!(fields(&proxy.send(get())), told("r=0;t=30"));
    let done = proxy.send(get());
    assert_eq!((done.status(), fields(&done)), (429, told("r=0;t=30")));
    assert_eq!(
        (done.header("retry-after").as_deref(), done.text().as_str()),
        (Some("30"), "local_rate_limited")
    );
    assert_eq!((done.flags(), done.log_field("rate_limit.rule").as_deref()), (vec!["RL"], Some("tight")));
    proxy.advance(Duration::from_secs(29));
    assert_eq!(proxy.send(get()).header("retry-after").as_deref(), Some("1"));
    proxy.advance(Duration::from_secs(1));
    assert_eq!(proxy.send(get()).status(), 200);
}

#[test]
fn clients_are_told_in_the_form_that_is_asked_for() {
    let get = || Request::get("/");
    let proxy = |form: &str| {
        let rules = r#"[{"name": "a\"b\\c", "limit": "1/m"}]"#;
        Proxy::new::<RateLimit>(&format!(r#"{{"headers": "{form}", "rules": {rules}}}"#))
    };
    let quoted = r#""a\"b\\c""#;
    assert_eq!(
        fields(&proxy("standard").send(get())),
        [format!("{quoted};r=0;t=60"), format!("{quoted};q=1;w=60")]
    );

    let mut none = proxy("none");
    assert_eq!(fields(&none.send(get())), [""; 2]);
    let done = none.send(get());
    assert_eq!((done.status(), done.header("retry-after").as_deref()), (429, Some("60")));

    let mut envoy = proxy("envoy");
    let names = ["limit", "remaining", "reset"].map(|name| format!("x-ratelimit-{name}"));
    let done = envoy.send(get());
    assert_eq!(names.clone().map(|name| done.header(&name).unwrap()), ["1", "0", "60"]);
    assert_eq!((fields(&done), done.header("x-envoy-ratelimited")), (["", ""].map(str::to_owned), None));
    let done = envoy.send(get());
    assert_eq!(names.map(|name| done.header(&name).unwrap()), ["1", "0", "60"]);
    assert_eq!(done.header("x-envoy-ratelimited").as_deref(), Some("true"));
}

#[test]
fn what_the_service_says_of_its_own_limits_stays() {
    let mut proxy = Proxy::new::<RateLimit>(r#"{"rules": [{"name": "all", "limit": "1/m"}]}"#);
    proxy.endpoint(|_| Response::new(200).header("ratelimit", r#""own";r=9;t=1"#));
    let done = proxy.send(Request::get("/"));
    let all = done.response().head().iter().filter(|(name, _)| name == "ratelimit");
    let all: Vec<_> = all.map(|(_, value)| String::from_utf8_lossy(value)).collect();
    assert_eq!(all, [r#""own";r=9;t=1"#, r#""all";r=0;t=60"#]);
}

#[test]
fn what_a_client_writes_does_not_look_like_the_next_part_of_a_key() {
    let mut proxy = Proxy::new::<RateLimit>(
        r#"{"rules": [{"name": "two", "limit": "1/m", "key": [{"header": "x-a"}, {"header": "x-b"}],
                       "overrides": {"a\\|b|c": "3/m"}}]}"#,
    );
    let from = |a: &str, b: &str| Request::get("/").header("x-a", a).header("x-b", b);
    for (a, b) in [("a", "b|c"), ("a|", "b"), ("a", "|b"), ("a\\", "b"), ("a", "\\|b")] {
        assert_eq!(of(&mut proxy, 3, &from(a, b)), 1, "{a} and {b}");
    }
    assert_eq!(of(&mut proxy, 5, &from("a|b", "c")), 3);
}

#[test]
fn each_key_has_its_own_count() {
    let mut proxy = Proxy::new::<RateLimit>(
        r#"{"rules": [{
            "name": "each", "limit": "2/m", "key": ["client_address", {"header": "x-key"}, "path"],
            "overrides": {"192.0.2.9||/": "5/m", "192.0.2.7|gold|/": "unlimited"}
        }]}"#,
    );
    let from = |address: &str| Request::get("/").property("source/address", address);
    assert_eq!(of(&mut proxy, 5, &from("192.0.2.7:1")), 2);
    assert_eq!(of(&mut proxy, 5, &from("192.0.2.7:2")), 0, "the port is not a part of it");
    assert_eq!(of(&mut proxy, 5, &from("192.0.2.8:1")), 2);
    assert_eq!(of(&mut proxy, 5, &from("192.0.2.8:1").header("x-key", "a")), 2);
    assert_eq!(of(&mut proxy, 5, &from("192.0.2.8:1").header(":path", "/other?a")), 2);
    assert_eq!(of(&mut proxy, 5, &from("192.0.2.8:1").header(":path", "/other?b")), 0);
    assert_eq!(of(&mut proxy, 9, &from("192.0.2.9:1")), 5);
    assert_eq!(of(&mut proxy, 9, &from("192.0.2.7:1").header("x-key", "gold")), 9);
}

#[test]
fn identities_hosts_and_properties_are_keys_too() {
    let mut proxy = Proxy::new::<RateLimit>(
        r#"{"rules": [
            {"name": "peer", "limit": "1/m", "key": ["peer_identity", "method", "host", {"property": "tenant/name"}]}
        ]}"#,
    );
    let get = Request::get("/").peer_identity("spiffe://mesh/ann");
    assert_eq!(of(&mut proxy, 3, &get), 1);
    assert_eq!(of(&mut proxy, 3, &Request::get("/").peer_identity("spiffe://mesh/bob")), 1);
    assert_eq!(of(&mut proxy, 3, &get.clone().header(":method", "PUT")), 1);
    assert_eq!(of(&mut proxy, 3, &get.clone().header(":authority", "Example.com:80")), 0);
    assert_eq!(of(&mut proxy, 3, &get.clone().header(":authority", "example.org")), 1);
    assert_eq!(of(&mut proxy, 3, &get.property("tenant/name", "blue")), 1);
}

#[test]
fn what_one_rule_refuses_the_others_do_not_count() {
    let mut proxy = Proxy::new::<RateLimit>(
        r#"{"rules": [
            {"name": "wide", "limit": "10/m"},
            {"name": "dry", "limit": "12/m", "dry_run": true},
            {"name": "tight", "limit": "2/m", "key": [{"header": "x-key"}]}
        ]}"#,
    );
    let key = |key: &str| Request::get("/").header("x-key", key);
    for name in ["a", "b", "c", "d", "e"] {
        assert_eq!(of(&mut proxy, 100, &key(name)), 2, "{name}");
    }
    let done = proxy.send(key("f"));
    assert_eq!((done.status(), done.log_field("rate_limit.rule").as_deref()), (429, Some("wide")));
}

#[test]
fn rules_count_the_requests_that_they_are_for() {
    let mut proxy = Proxy::new::<RateLimit>(
        r#"{"rules": [
            {"name": "writes", "match": {"method": ["POST", "PUT"], "path": "/orders/**"}, "limit": "1/m"},
            {"name": "either", "match": [{"path": "/a"}, {"headers": {"x-a": {"prefix": "1"}}}], "limit": "2/m"}
        ]}"#,
    );
    let write = || Request::get("/orders/7").header(":method", "PUT");
    assert_eq!((of(&mut proxy, 9, &Request::get("/orders/7")), of(&mut proxy, 9, &write())), (9, 1));
    assert_eq!(of(&mut proxy, 9, &Request::get("/a")), 2);
    assert_eq!(of(&mut proxy, 9, &Request::get("/").header("x-a", "12")), 0, "one bucket for both");
    let done = proxy.send(Request::get("/"));
    assert_eq!((done.status(), fields(&done)), (200, Default::default()), "no rule, nothing to tell");
}

#[test]
fn a_dry_run_tells_and_lets_pass() {
    let mut proxy =
        Proxy::new::<RateLimit>(r#"{"rules": [{"name": "dry", "limit": "1/m", "dry_run": true}]}"#);
    let done = proxy.send(Request::get("/"));
    assert_eq!(
        (done.status(), done.log_field("rate_limit.would"), fields(&done)),
        (200, None, Default::default())
    );
    let done = proxy.send(Request::get("/"));
    assert_eq!((done.status(), done.log_field("rate_limit.would").as_deref()), (200, Some("dry")));
    assert!(done.flags().is_empty());
    let would = [("rule", "dry"), ("result", "would_limit")];
    assert_eq!(proxy.metric("meshgate_rate_limit_requests_total", &would), 1);
}

#[test]
fn mistakes_are_refused_with_their_place() {
    for (config, said) in [
        (r#"{}"#, "missing field `rules`"),
        (r#"{"rules": [{"name": "", "limit": "1/s"}]}"#, "rules/0/name: a rule needs a name"),
        (
            r#"{"rules": [{"name": "a", "limit": "1/s"}, {"name": "a", "limit": "1/s"}]}"#,
            "rules/1/name: another rule has this name already",
        ),
        (r#"{"rules": [{"name": "a", "limit": "1 per second"}]}"#, "rules/0/limit: invalid value"),
        (
            r#"{"rules": [{"name": "a", "limit": "1/s", "burst": 0}]}"#,
            "rules/0/burst: a bucket that holds nothing",
        ),
        (r#"{"rules": [{"name": "a", "limit": "1/s", "match": {"path": "x"}}]}"#, "rules/0/match/path: "),
        (
            r#"{"rules": [{"name": "a", "limit": "1/s", "match": [{"path": {"regex": ".*"}}]}]}"#,
            "rules/0/match/0/path/regex: this filter knows no regular expressions",
        ),
        (
            r#"{"rules": [{"name": "a", "limit": "1/s", "key": ["adress"]}]}"#,
            "rules/0/key/0: unknown variant `adress`",
        ),
        (
            r#"{"rules": [{"name": "a", "limit": "1/s", "key": [{"header": ""}]}]}"#,
            "rules/0/key/0: a name is missing",
        ),
        (
            r#"{"rules": [{"name": "a", "limit": "1/s", "overrides": {"x": "2/s"}}]}"#,
            "rules/0/overrides/x: without a `key`",
        ),
        (
            r#"{"rules": [{"name": "a", "limit": "1/s", "key": ["path"], "overrides": {"x": "many"}}]}"#,
            "expected a rate such as 100/s, or `unlimited`",
        ),
        (r#"{"rules": [{"name": "käse", "limit": "1/s"}]}"#, "rules/0/name: clients are told a rule's name"),
        (r#"{"rules": [], "headers": true}"#, "headers: "),
        (r#"{"rules": [], "if_uncounted": "maybe"}"#, "if_uncounted: unknown variant `maybe`"),
    ] {
        let refusal = Proxy::refusal::<RateLimit>(config);
        assert!(refusal.contains(said), "{refusal}");
    }
}
