//! The filter as a whole, in the SDK's simulation of a host.

use meshgate_sdk::testing::{Done, Proxy, Request, Response};

use super::Routing;

/// A proxy whose clusters `one`, `two` and `three` answer with their name.
fn routed(configuration: &str) -> Proxy {
    let mut proxy = Proxy::new::<Routing>(configuration);
    for cluster in ["one", "two", "three"] {
        proxy.upstream(cluster, move |_| Response::new(200).body(cluster));
    }
    proxy
}

fn sent(done: &Done) -> (String, String) {
    let upstream = done.upstream().unwrap();
    (upstream.target(), upstream.field(":authority").unwrap())
}

#[test]
fn a_request_goes_where_the_first_matching_route_says() {
    let mut proxy = routed(
        r#"{"routes": [
            {"name": "beta", "match": {"path": "/app/**", "headers": {"x-beta": "1"}}, "to": "one"},
            {"name": "app", "match": {"path": "/app/**"}, "to": {"two": 1, "three": 0}}
        ]}"#,
    );
    let mut went = |request| proxy.send(request).text();
    assert_eq!(went(Request::get("/app/x").header("x-beta", "1")), "one");
    assert_eq!(went(Request::get("/app/x")), "two");
    assert_eq!(went(Request::get("/other")), "");
}

#[test]
fn a_virtual_host_has_its_own_routes() {
    let mut proxy = routed(
        r#"{
            "virtual_hosts": [
                {"hosts": ["shop.example"], "routes": [{"name": "a", "match": {"path": "/a"}, "to": "one"}]},
                {"hosts": ["*.example"], "routes": [{"name": "b", "to": "two"}]}
            ],
            "routes": [{"name": "c", "to": "three"}]
        }"#,
    );
    let mut went = |host, path| proxy.send(Request::get(path).header(":authority", host)).text();
    assert_eq!(went("shop.example:8080", "/a"), "one");
    assert_eq!(went("shop.example", "/b"), "", "another host's routes are not tried");
    assert_eq!(went("blog.example", "/a"), "two");
    assert_eq!(went("example", "/a"), "three");
}

#[test]
fn the_most_specific_route_can_go_first() {
    let routes = r#"
        {"name": "rest", "to": "one"},
        {"name": "below", "match": {"path": "/a/**"}, "to": "two"},
        {"name": "exact", "match": [{"path": "/a/b"}, {"path": "/c"}], "to": "three"}
    "#;
    let mut listed = routed(&format!(r#"{{"routes": [{routes}]}}"#));
    let mut specific = routed(&format!(r#"{{"order": "specific", "routes": [{routes}]}}"#));
    for (path, expected) in [("/a/b", "three"), ("/c", "three"), ("/a/c", "two"), ("/d", "one")] {
        assert_eq!(listed.send(Request::get(path)).text(), "one");
        assert_eq!(specific.send(Request::get(path)).text(), expected, "{path}");
    }
}

#[test]
fn a_client_stays_with_the_cluster_of_its_cookie() {
    let mut proxy = routed(
        r#"{"routes": [{
            "name": "split", "to": {"one": 50, "two": 50},
            "sticky": [{"header": "x-user"}, {"cookie": {"name": "side", "ttl": "1h"}}],
            "hash": {"cookie": {"name": "side", "ttl": "1h"}}
        }]}"#,
    );
    let mut seen = std::collections::HashSet::new();
    for _ in 0..40 {
        let first = proxy.send(Request::get("/"));
        let cookie = first.header("set-cookie").unwrap();
        let (pair, attributes) = cookie.split_once("; ").unwrap();
        assert_eq!(attributes, "Path=/; Max-Age=3600; HttpOnly; SameSite=Lax");
        assert_eq!(first.response().head().iter().filter(|(name, _)| name == "set-cookie").count(), 1);
        for _ in 0..5 {
            let again = proxy.send(Request::get("/").header("cookie", format!("a=b; {pair}")));
            assert_eq!((again.text(), again.header("set-cookie")), (first.text(), None));
        }
        seen.insert(first.text());
    }
    assert_eq!(seen.len(), 2);
    let of_ann: Vec<_> =
        (0..20).map(|_| proxy.send(Request::get("/").header("x-user", "ann")).text()).collect();
    assert!(of_ann.iter().all(|cluster| *cluster == of_ann[0]));
    let secure = proxy.send(Request::get("/").header(":scheme", "https")).header("set-cookie").unwrap();
    assert!(secure.ends_with("; Secure"), "{secure}");
}

#[test]
fn paths_and_authorities_are_rewritten() {
    let mut proxy = routed(
        r#"{"routes": [
            {"name": "api", "match": {"path": "/api/*/**"}, "to": "one", "rewrite": {"prefix": "/v2", "authority": "api.internal:80"}},
            {"name": "host", "match": {"path": "/host"}, "to": "one", "rewrite": {"authority": {"header": "X-Host"}}}
        ]}"#,
    );
    let done = proxy.send(Request::get("/api/eu/users?x=/api").header(":authority", "shop.example"));
    assert_eq!(sent(&done), ("/v2/users?x=/api".to_owned(), "api.internal:80".to_owned()));
    let mut to_host = |value: &str| proxy.send(Request::get("/host").header("x-host", value));
    assert_eq!(sent(&to_host("blog.example")).1, "blog.example");
    assert_eq!(to_host("a b").status(), 400);
}

#[test]
fn redirects_and_answers_send_nothing() {
    let mut proxy = routed(
        r#"{"routes": [
            {"name": "old", "match": {"path": "/old/**"}, "redirect": {"prefix": "/new", "code": 302}},
            {"name": "home", "match": {"path": "/home"}, "redirect": {"scheme": "https", "path": "/"}},
            {"name": "gone", "answer": {"status": 410, "body": "gone\n", "headers": {"X-Why": "old"}}}
        ]}"#,
    );
    let mut get = |path: &str| proxy.send(Request::get(path).header(":authority", "a.example:81"));
    let old = get("/old/x?y=1");
    assert_eq!((old.status(), old.header("location").as_deref()), (302, Some("http://a.example/new/x?y=1")));
    assert_eq!(get("/home?z").header("location").as_deref(), Some("https://a.example/?z"));
    let gone = get("/other");
    assert_eq!(
        (gone.status(), gone.text().as_str(), gone.header("x-why").as_deref()),
        (410, "gone\n", Some("old"))
    );
    assert!(gone.upstream().is_none());
}

#[test]
fn properties_of_earlier_filters_and_identities_can_decide() {
    let mut proxy = routed(
        r#"{"routes": [
            {"name": "mesh", "match": {"identity": {"prefix": "spiffe://mesh/"}}, "to": "one"},
            {"name": "gold", "match": {"properties": {"tenant/tier": "gold"}}, "to": "two"},
            {"name": "rest", "to": "three"}
        ]}"#,
    );
    let mut went = |request| proxy.send(request).text();
    assert_eq!(went(Request::get("/").peer_identity("spiffe://mesh/ns/a/sa/b")), "one");
    assert_eq!(went(Request::get("/").peer_identity("spiffe://else/ns/a")), "three");
    assert_eq!(went(Request::get("/").property("tenant/tier", "gold")), "two");
    assert_eq!(went(Request::get("/")), "three");
}

#[test]
fn configurations_that_cannot_be_meant_are_refused_with_their_place() {
    for (configuration, reason) in [
        ("{}", "give it `routes` or `virtual_hosts`"),
        (r#"{"routes": [{"name": "", "to": "a"}]}"#, "routes/0/name: a route needs a name"),
        (
            r#"{"routes": [{"name": "a", "to": "a"}, {"name": "a", "to": "a"}]}"#,
            "routes/1/name: another route",
        ),
        (
            r#"{"routes": [{"name": "a", "to": "a"}],
                "virtual_hosts": [{"hosts": ["h"], "routes": [{"name": "a", "to": "a"}]}]}"#,
            "routes/0/name: another route",
        ),
        (
            r#"{"routes": [{"name": "a", "to": "a"}], "virtual_hosts": [{"hosts": ["*"], "routes": []}]}"#,
            "routes: a virtual host `*`",
        ),
        (
            r#"{"virtual_hosts": [{"hosts": ["h"], "routes": []}, {"hosts": ["g", "H"], "routes": []}]}"#,
            "virtual_hosts/1/hosts/1: ",
        ),
        (r#"{"routes": [{"name": "a"}]}"#, "leads nowhere"),
        (r#"{"routes": [{"name": "a", "to": {"a": 0}}]}"#, "routes/0/to: no cluster has a weight"),
        (r#"{"routes": [{"name": "a", "to": "a", "answer": {}}]}"#, "not both"),
        (r#"{"routes": [{"name": "a", "answer": {}, "timeout": "1s"}]}"#, "routes/0/timeout: an answer"),
        (r#"{"routes": [{"name": "a", "answer": {}, "mirrors": [{"to": "a"}]}]}"#, "routes/0/mirrors: "),
        (r#"{"routes": [{"name": "a", "answer": {"status": 600}}]}"#, "routes/0/answer/status: "),
        (
            r#"{"routes": [{"name": "a", "answer": {"headers": {"a b": "c"}}}]}"#,
            "routes/0/answer/headers/a b: ",
        ),
        (r#"{"routes": [{"name": "a", "to": "a", "rewrite": {}}]}"#, "routes/0/rewrite: it changes nothing"),
        (
            r#"{"routes": [{"name": "a", "match": {"path": "/a"}, "to": "a", "rewrite": {"prefix": "/"}}]}"#,
            "routes/0/rewrite/prefix: nothing says",
        ),
        (
            r#"{"routes": [{"name": "a", "match": {"path": {"regex": "/a/.*"}}, "redirect": {"prefix": "/"}}]}"#,
            "routes/0/redirect/prefix: nothing says",
        ),
        (r#"{"routes": [{"name": "a", "to": "a", "sticky": []}]}"#, "routes/0/sticky: an empty list"),
        (r#"{"routes": [{"name": "a", "to": "a", "hash": {"header": ""}}]}"#, "routes/0/hash/header: "),
        (
            r#"{"routes": [{"name": "a", "to": "a", "mirrors": [{"to": "a", "percent": 101}]}]}"#,
            "routes/0/mirrors/0/percent: ",
        ),
        (
            r#"{"routes": [{"name": "a", "match": [{}, {"path": "x"}], "to": "a"}]}"#,
            "routes/0/match/1/path: ",
        ),
    ] {
        let refusal = Proxy::refusal::<Routing>(configuration);
        assert!(refusal.contains(reason), "{configuration}: {refusal}");
    }
}
