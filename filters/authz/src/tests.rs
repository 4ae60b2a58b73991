use meshgate_sdk::testing::{Client, Proxy, Request};

use super::Authz;

const ID: &str = "spiffe://cluster.local/ns/shop/sa/web";

/// A filter with this configuration, in YAML's way of writing JSON.
fn proxy(configuration: &str) -> Proxy {
    Proxy::new::<Authz>(configuration)
}

/// Whether a rule under `allow` with these conditions lets a request in.
fn matches(conditions: &str, request: Request) -> bool {
    let done = proxy(&format!(r#"{{"allow": {{"rule": {conditions}}}}}"#)).send(request);
    assert!(matches!(done.status(), 200 | 403), "{}", done.status());
    done.status() == 200
}

/// Whether a rule under `deny` with these conditions refuses a request.
fn denies(conditions: &str, request: Request) -> bool {
    let done = proxy(&format!(r#"{{"deny": {{"rule": {conditions}}}}}"#)).send(request);
    done.status() == 403
}

#[test]
fn row_19_refusing_comes_first_then_letting_in() {
    let mut proxy = proxy(
        r#"{"deny": {"no-admin": {"to": {"paths": ["/admin/*"]}}},
            "allow": {"reading": {"to": {"methods": ["GET"]}}, "all-of-shop": {"from": {"namespaces": ["shop"]}}},
            "audit": {"writes": {"to": {"not_methods": ["GET"]}}}}"#,
    );
    assert_eq!(proxy.send(Request::get("/")).status(), 200);
    let refused = proxy.send(Request::get("/admin/x").peer_identity(ID));
    assert_eq!((refused.status(), refused.text().as_str()), (403, "access denied\n"));
    assert_eq!(proxy.send(Request::post("/", "x")).status(), 403);
    assert_eq!(proxy.send(Request::post("/", "x").peer_identity(ID)).status(), 200);
    let count = |decision, rule| {
        proxy.metric("meshgate_authz_decisions_total", &[("decision", decision), ("rule", rule)])
    };
    assert_eq!(count("allowed", "reading"), 1);
    assert_eq!(count("allowed", "all-of-shop"), 1);
    assert_eq!(count("denied", "no-admin"), 1);
    assert_eq!(count("denied", ""), 1);
    assert_eq!(count("audited", "writes"), 2);
    let logs = proxy.logs();
    assert!(
        logs.iter().any(|line| line.contains(r#"audited by rule "writes": POST example.com/ from"#)),
        "{logs:?}"
    );
}

#[test]
fn without_rules_under_allow_the_default_decides() {
    assert_eq!(proxy("{}").send(Request::get("/")).status(), 200);
    assert_eq!(proxy(r#"{"default": "deny"}"#).send(Request::get("/")).status(), 403);
    assert_eq!(
        proxy(r#"{"deny": {"rule": {"to": {"paths": ["/x"]}}}}"#).send(Request::get("/")).status(),
        200
    );
}

#[test]
fn a_rule_without_conditions_matches_everything() {
    assert!(matches("{}", Request::get("/")) && denies("{}", Request::get("/")));
    assert!(matches(r#"{"from": {}}"#, Request::get("/")));
}

#[test]
fn fields_are_all_needed_and_lists_hold_alternatives() {
    let both = r#"{"from": {"identities": ["cluster.local/ns/shop/*"]}, "to": {"methods": ["GET", "POST"]}}"#;
    assert!(matches(both, Request::get("/").peer_identity(ID)));
    assert!(!matches(both, Request::get("/")), "the trap of two dashes: one condition alone lets nobody in");
    assert!(!matches(both, Request::new("PUT", "/").peer_identity(ID)));
    let either = r#"{"to": [{"methods": ["GET"], "paths": ["/a"]}, {"paths": ["/b"]}]}"#;
    assert!(matches(either, Request::get("/a")) && matches(either, Request::new("PUT", "/b")));
    assert!(!matches(either, Request::new("PUT", "/a")));
}

#[test]
fn identities_and_namespaces_come_from_certificates() {
    let by = |patterns: &str, id: &str| {
        matches(&format!(r#"{{"from": {patterns}}}"#), Request::get("/").peer_identity(id))
    };
    assert!(by(r#"{"identities": ["spiffe://cluster.local/ns/shop/sa/web"]}"#, ID));
    assert!(by(r#"{"identities": ["*/sa/web"]}"#, ID) && by(r#"{"identities": ["*"]}"#, ID));
    assert!(!by(r#"{"identities": ["cluster.local/ns/shop"]}"#, ID));
    assert!(by(r#"{"namespaces": ["sh*"]}"#, ID) && !by(r#"{"namespaces": ["web"]}"#, ID));
    assert!(!by(r#"{"namespaces": ["*"]}"#, "spiffe://cluster.local/web/ns/shop"));
    assert!(by(r#"{"not_identities": ["*/sa/other"]}"#, ID) && !by(r#"{"not_namespaces": ["shop"]}"#, ID));
    assert!(!matches(r#"{"from": {"identities": ["*"]}}"#, Request::get("/")));
    assert!(denies(r#"{"from": {"not_identities": ["*"]}}"#, Request::get("/")), "nobody in particular");
}

#[test]
fn tokens_are_known_by_what_the_filter_jwt_left() {
    let request = || {
        Request::get("/").property("jwt.principal", "https://idp/ann").property(
            "jwt.claims",
            r#"{"groups": ["staff", "admin"], "scope": "read write", "level": 3, "https://x.y/z": "a", "realm": {"role": "b"}}"#,
        )
    };
    assert!(matches(r#"{"from": {"principals": ["https://idp/*"]}}"#, request()));
    assert!(!matches(r#"{"from": {"principals": ["*"]}}"#, Request::get("/")));
    let claim = |name: &str, value: &str| {
        matches(&format!(r#"{{"when": {{"claims": {{"{name}": ["{value}"]}}}}}}"#), request())
    };
    assert!(claim("groups", "admin") && claim("scope", "write") && claim("level", "3"));
    assert!(claim("https://x.y/z", "a") && claim("realm.role", "b"));
    assert!(
        !claim("groups", "adm")
            && !claim("scope", "read write")
            && !claim("none", "*")
            && !claim("realm", "*")
    );
    assert!(matches(r#"{"when": {"not_claims": {"groups": ["guest"]}}}"#, request()));
    assert!(!matches(r#"{"when": {"not_claims": {"groups": ["staff"]}}}"#, request()));
}

#[test]
fn addresses_are_the_connections_or_those_that_proxies_say() {
    let from = |address: &str| Request::get("/").property("source/address", address);
    assert!(matches(r#"{"from": {"addresses": ["10.0.0.0/8"]}}"#, from("10.1.2.3:4567")));
    assert!(!matches(r#"{"from": {"addresses": ["10.0.0.0/8"]}}"#, from("unix:/run/socket")));
    assert!(matches(r#"{"from": {"addresses": ["::1"]}}"#, from("[::1]:80")));
    assert!(matches(r#"{"from": {"not_addresses": ["10.0.0.0/8"]}}"#, from("192.0.2.1:1")));
    let client = |hops: u8, chain: &str| {
        let configuration = format!(
            r#"{{"trusted_hops": {hops}, "allow": {{"rule": {{"from": {{"client_addresses": ["192.0.2.7"]}}}}}}}}"#
        );
        let request = from("10.0.0.1:1").header("x-forwarded-for", chain);
        proxy(&configuration).send(request).status() == 200
    };
    assert!(!client(0, "192.0.2.7"), "nobody is trusted");
    assert!(client(1, "192.0.2.7, 10.0.0.1") && client(1, "8.8.8.8, 192.0.2.7:99,10.0.0.1"));
    assert!(!client(1, "192.0.2.7, 8.8.8.8, 10.0.0.1"), "what the client claims itself");
    assert!(client(2, "192.0.2.7, 10.0.0.2, 10.0.0.1") && client(3, "192.0.2.7"));
    assert!(!client(1, "") && !client(1, "unknown, 10.0.0.1"));
}

#[test]
fn a_path_is_compared_in_its_canonical_form() {
    let admin = r#"{"to": {"paths": ["/admin", "/admin/*"]}}"#;
    for evasive in
        ["/admin/x", "//admin/x", "/%61dmin/x", "/./admin", "/a/..//admin/x", "/admin?x", "/admin/%2e/x"]
    {
        assert!(denies(admin, Request::get(evasive)), "{evasive}");
    }
    assert!(!denies(admin, Request::get("/administration")));
    // Where an endpoint may see another path than we do, a rule that refuses does, and one that lets in does not.
    let public = r#"{"to": {"not_paths": ["/admin/*"]}}"#;
    for unclear in ["/x%2fadmin", "/admin%5cx", "/%zz"] {
        assert!(denies(admin, Request::get(unclear)) && !matches(public, Request::get(unclear)), "{unclear}");
    }
}

#[test]
fn hosts_methods_ports_and_names_are_compared() {
    let host = |pattern: &str, authority: &str| {
        matches(
            &format!(r#"{{"to": {{"hosts": ["{pattern}"]}}}}"#),
            Request::get("/").header(":authority", authority),
        )
    };
    assert!(host("Shop.example", "SHOP.EXAMPLE:8080") && host("shop.example", "shop.example."));
    assert!(
        host("*.example", "a.example")
            && !host("*.example", "example")
            && !host("shop.example", "shop.example.org")
    );
    assert!(matches(r#"{"to": {"not_methods": ["DELETE"]}}"#, Request::get("/")));
    assert!(!matches(r#"{"to": {"ports": [443]}}"#, Request::get("/")));
    let named = || Request::get("/").property("connection/requested_server_name", "Shop.Example");
    assert!(matches(r#"{"when": {"server_names": ["shop.example"]}}"#, named()));
    assert!(!matches(r#"{"when": {"not_server_names": ["*.example"]}}"#, named()));
    let field = || Request::get("/").header("x-role", "guest").header("x-role", "admin");
    assert!(matches(r#"{"when": {"headers": {"X-Role": ["adm*"]}}}"#, field()));
    assert!(!matches(r#"{"when": {"headers": {"x-role": ["admin"], "x-other": ["*"]}}}"#, field()));
    assert!(!matches(r#"{"when": {"not_headers": {"x-role": ["guest"]}}}"#, field()));
}

#[test]
fn row_19_rules_decide_about_connections_too() {
    let web = || Client::new().peer_identity(ID).property("source/address", "10.1.2.3:4");
    let admits = |configuration: &str, client: &Client| {
        !Proxy::tcp::<Authz>(configuration).connect(client).is_closed()
    };
    let shop = r#"{"allow": {"shop": {"from": {"identities": ["cluster.local/ns/shop/*"]}}}}"#;
    assert!(admits(shop, &web()) && !admits(shop, &Client::new()));
    let near = r#"{"deny": {"far": {"from": {"not_addresses": ["10.0.0.0/8"]}}}}"#;
    assert!(admits(near, &web()) && !admits(near, &Client::new().property("source/address", "11.0.0.1:4")));
    let hops = r#"{"trusted_hops": 1, "allow": {"near": {"from": {"client_addresses": ["10.0.0.0/8"]}}}}"#;
    assert!(admits(hops, &web()), "nobody is in between");
    let named = r#"{"allow": {"named": {"when": {"server_names": ["db.example"]}}}}"#;
    assert!(admits(named, &Client::new().property("connection/requested_server_name", "DB.example")));
    assert!(!admits(named, &web()) && !admits(r#"{"default": "deny"}"#, &web()) && admits("{}", &web()));
}

#[test]
fn row_19_on_connections_conditions_of_http_widen_what_is_refused_and_narrow_what_is_let_in() {
    let client = Client::new().peer_identity(ID);
    for condition in [
        r#""to": {"hosts": ["a"]}"#,
        r#""to": {"not_hosts": ["a"]}"#,
        r#""to": {"methods": ["GET"]}"#,
        r#""to": {"not_paths": ["/x"]}"#,
        r#""from": {"principals": ["*"]}"#,
        r#""from": {"not_principals": ["*"]}"#,
        r#""when": {"headers": {"x-a": ["b"]}}"#,
        r#""when": {"not_claims": {"a": ["b"]}}"#,
    ] {
        for action in ["allow", "deny"] {
            let configuration = format!(r#"{{"{action}": {{"rule": {{{condition}}}}}}}"#);
            let mut proxy = Proxy::tcp::<Authz>(&configuration);
            assert!(proxy.connect(&client).is_closed(), "{configuration}");
        }
    }
    let other = r#"{"deny": {"rule": {"from": {"namespaces": ["other"]}, "to": {"paths": ["/x"]}}}}"#;
    assert!(!Proxy::tcp::<Authz>(other).connect(&client).is_closed(), "what can be said still counts");
}

#[test]
fn what_is_on_trial_changes_nothing_and_is_told() {
    let count = |proxy: &Proxy, decision, rule| {
        proxy.metric("meshgate_authz_decisions_total", &[("decision", decision), ("rule", rule)])
    };
    let mut whole = proxy(r#"{"dry_run": true, "deny": {"admin": {"to": {"paths": ["/admin"]}}}}"#);
    assert_eq!(whole.send(Request::get("/admin")).status(), 200);
    assert_eq!(whole.send(Request::get("/")).status(), 200);
    assert_eq!((count(&whole, "would_deny", "admin"), count(&whole, "allowed", "")), (1, 2));
    assert!(
        whole.logs().iter().any(|line| line.contains(r#"would_deny by rule "admin": GET example.com/admin"#))
    );

    let mut one = proxy(
        r#"{"deny": {"new": {"dry_run": true, "to": {"paths": ["/new"]}}, "old": {"to": {"paths": ["/old"]}}}}"#,
    );
    assert_eq!(one.send(Request::get("/new")).status(), 200);
    assert_eq!(one.send(Request::get("/old")).status(), 403);
    assert_eq!((count(&one, "would_deny", "new"), count(&one, "denied", "old")), (1, 1));

    let mut more = proxy(
        r#"{"allow": {"old": {"to": {"paths": ["/old"]}}, "new": {"dry_run": true, "to": {"paths": ["/new"]}}}}"#,
    );
    assert_eq!(more.send(Request::get("/new")).status(), 403);
    assert_eq!((count(&more, "would_allow", "new"), count(&more, "denied", "")), (1, 1));

    // The first rule under `allow` would close everything else: that is seen before it does.
    let mut first = proxy(r#"{"allow": {"new": {"dry_run": true, "to": {"paths": ["/new"]}}}}"#);
    assert_eq!(first.send(Request::get("/other")).status(), 200);
    assert_eq!(first.send(Request::get("/new")).status(), 200);
    assert_eq!(count(&first, "would_deny", ""), 1);
}

#[test]
fn mistakes_are_refused_with_their_place() {
    for (configuration, words) in [
        (r#"{"allow": {}}"#, "allow: no rules"),
        (
            r#"{"allow": [{"from": {}}, {"to": {}}]}"#,
            "allow: invalid type: sequence, expected a map from names to rules",
        ),
        (r#"{"allow": {"a": {"form": {}}}}"#, "allow/a/form: unknown field `form`"),
        (r#"{"allow": {"a": {}}, "default": "allow"}"#, "default: with rules under `allow`"),
        (r#"{"audit": {"a": {"dry_run": true}}}"#, "audit/a/dry_run: a rule under `audit`"),
        (
            r#"{"deny": {"a": {"to": {"paths": ["/a", "b"]}}}}"#,
            r#"deny/a/to/paths/1: "b": a path begins with /"#,
        ),
        (r#"{"deny": {"a": {"to": [{}, {"not_paths": ["/a?b"]}]}}}"#, "deny/a/to/1/not_paths/0: "),
        (r#"{"deny": {"a": {"from": {"addresses": ["10.0.0.1/8"]}}}}"#, "deny/a/from/addresses/0: "),
        (r#"{"deny": {"a": {"from": {"identities": []}}}}"#, "deny/a/from/identities: an empty list"),
        (r#"{"deny": {"a": {"to": []}}}"#, "deny/a/to: an empty list"),
        (r#"{"deny": {"a": {"to": {"ports": []}}}}"#, "deny/a/to/ports: an empty list"),
        (r#"{"deny": {"a": {"when": {"headers": {"a b": ["x"]}}}}}"#, "deny/a/when/headers/a b: "),
        (r#"{"deny": {"a": {"when": {"claims": {"b": []}}}}}"#, "deny/a/when/claims/b: an empty list"),
        (r#"{"deny": {"a": {"to": {"methods": ["get"]}}}}"#, "did you mean GET?"),
        (r#"{"deny": {"a": {"to": {"hosts": ["a:80"]}}}}"#, "deny/a/to/hosts/0: "),
    ] {
        let said = Proxy::refusal::<Authz>(configuration);
        assert!(said.contains(words), "{configuration}: {said}");
    }
}
