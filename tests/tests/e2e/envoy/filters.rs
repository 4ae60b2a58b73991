//! Filters built with the SDK, the standard ones among them: they use the ABI alone where a host has nothing more.

use std::sync::LazyLock;

use http::Method;
use meshgate_tests::{
    Ask, Client, Envoy, SigningKey, empty, example, filter, foreign_example, key_set, seconds_from_now,
};
use serde_json::{Value, json};

use super::compare::{Scenario, compare};
use super::world::{Request, World, marked};

#[tokio::test]
async fn filter_built_with_the_sdk() {
    let mut scenarios = Vec::new();
    scenarios.push(Scenario::new("tour", vec![("tour", json!({}))]));
    scenarios.push(Scenario::new("tour with a call", vec![("tour", json!({"check": "called"}))]));
    scenarios.push(Scenario::new("tour with a call that fails", vec![("tour", json!({"check": "gone"}))]));
    let refused: &[Request] = &[
        Request { label: "denied", ask: || marked(Ask::post("/post", "hello")).header("x-deny", "1") },
        Request { label: "failing", ask: || marked(Ask::post("/post", "hello")).header("x-fail", "1") },
        Request { label: "query", ask: || marked(Ask::get("/a/b?p=1&q=two")) },
    ];
    scenarios.push(Scenario::new("tour refuses", vec![("tour", json!({}))]).requests(refused));
    compare(scenarios).await;
}

/// The first filter of the examples, with the SDK and, by hand, in two other languages.
#[tokio::test]
async fn hello_in_three_languages() {
    const ASKED: &[Request] = &[
        Request { label: "hello", ask: || marked(Ask::get("/hello")) },
        Request { label: "by name", ask: || marked(Ask::get("/hello?name=Zo%C3%AB")) },
        Request { label: "by another name", ask: || marked(Ask::get("/hello?a=b&name=x+%79&c")) },
        Request { label: "with a body", ask: || marked(Ask::post("/hello", "hello")) },
        Request { label: "almost hello", ask: || marked(Ask::get("/hellos?name=x")) },
        Request { label: "get", ask: || marked(Ask::get("/get?a=b")) },
        Request { label: "post", ask: || marked(Ask::post("/post", "hello")) },
    ];
    let by_hand = ["c", "assemblyscript"].map(|name| (name, json!("Hello"), foreign_example(name)));
    let with_sdk = ("hello-filter", json!({"greeting": "Hello"}), Some(example("hello-filter")));
    let mut scenarios = Vec::new();
    for (name, configuration, module) in by_hand.into_iter().chain([with_sdk]) {
        let Some(module) = module else { continue };
        let scenario = Scenario::new(name, vec![(name, configuration)]).module(name, module);
        scenarios.push(scenario.requests(ASKED));
    }
    compare(scenarios).await;
}

#[tokio::test]
async fn cors() {
    fn preflight(origin: &str) -> Ask {
        let ask = marked(Ask::new(Method::OPTIONS, "/get", empty())).header("origin", origin);
        ask.header("access-control-request-method", "PUT").header("access-control-request-headers", "x-a")
    }
    const PAGES: &[Request] = &[
        Request { label: "not a page", ask: || marked(Ask::get("/get")) },
        Request { label: "preflight", ask: || preflight("https://www.example.org") },
        Request { label: "preflight of another", ask: || preflight("https://evil.example") },
        Request {
            label: "allowed",
            ask: || marked(Ask::post("/post", "hello")).header("origin", "https://a.example.net"),
        },
        Request {
            label: "another",
            ask: || marked(Ask::get("/get")).header("origin", "https://evil.example"),
        },
    ];
    let configuration = |reject: bool| {
        json!({
            "origins": ["https://www.example.org", "https://*.example.net"], "methods": ["PUT"], "headers": ["x-a"],
            "expose": ["etag"], "max_age": "1m", "credentials": true, "reject": reject,
        })
    };
    compare([
        Scenario::new("cors", vec![("cors", configuration(false))]).requests(PAGES),
        Scenario::new("cors that rejects", vec![("cors", configuration(true))]).requests(PAGES),
    ])
    .await;
}

#[tokio::test]
async fn faults() {
    let always =
        json!({"abort": {"percent": 100, "status": 418}, "delay": {"percent": 100, "duration": "5ms"}});
    compare([
        Scenario::new(
            "faults that never come",
            vec![("fault", json!({"abort": {"percent": 0, "status": 418}}))],
        ),
        Scenario::new("faults that always come", vec![("fault", always)]),
    ])
    .await;
}

/// How long a client has to wait depends on when it asks, and is left out.
#[tokio::test]
async fn rate_limit_without_the_hosts_help() {
    let rules =
        json!([{"name": "each", "limit": "1000/h", "key": ["path", "client_address", {"header": "x-add"}]}]);
    let scenario = vec![("rate-limit", json!({"headers": "none", "rules": rules}))];
    compare([Scenario::new("rate limit", scenario)]).await;
    if Envoy::installed().is_none() {
        return;
    }
    let world = World::start().await;
    let rules = json!([{"name": "all", "limit": "1/d", "burst": 5}]);
    let scenario =
        Scenario::new("rate limit met", vec![("rate-limit", json!({"headers": "envoy", "rules": rules}))]);
    let (gate, envoy) = (scenario.meshgate(&world).await, scenario.envoy(&world).await);
    for proxy in [gate.address(), envoy.address()] {
        let mut client = Client::http1(proxy).await;
        for left in (0..5).rev() {
            let reply = client.get("/").await;
            assert_eq!(
                (reply.status.as_u16(), reply.header("x-ratelimit-remaining")),
                (200, &*left.to_string())
            );
        }
        let reply = client.get("/").await;
        assert_eq!((reply.status.as_u16(), reply.header("x-envoy-ratelimited")), (429, "true"));
    }
}

#[tokio::test]
async fn caching_authenticator() {
    const TOKENS: &[Request] = &[
        Request { label: "no token", ask: || marked(Ask::get("/")) },
        Request {
            label: "known",
            ask: || marked(Ask::get("/")).header("authorization", "Bearer of-ann").header("x-user", "root"),
        },
        Request { label: "again", ask: || marked(Ask::get("/")).header("authorization", "Bearer of-ann") },
        Request { label: "outside", ask: || marked(Ask::get("/")).header("authorization", "Bearer of-bob") },
        Request { label: "unknown", ask: || marked(Ask::get("/")).header("authorization", "Bearer of-eve") },
        Request {
            label: "with a body",
            ask: || marked(Ask::post("/post", "hello")).header("authorization", "bearer of-ann"),
        },
    ];
    let service =
        |service| json!({"service": service, "timeout": "300ms", "remember": "1m", "group": "staff"});
    let scenario = |name, cluster| {
        let scenario = Scenario::new(name, vec![("caching-auth", service(cluster))]);
        scenario.module("caching-auth", example("caching-auth")).requests(TOKENS)
    };
    compare([
        scenario("caching authenticator", "called"),
        scenario("caching authenticator whose service is gone", "gone"),
        scenario("caching authenticator whose service is silent", "silent"),
    ])
    .await;
}

#[tokio::test]
async fn authorization() {
    const ASKED: &[Request] = &[
        Request { label: "allowed", ask: || marked(Ask::get("/public/a?b=c")) },
        Request { label: "another method", ask: || marked(Ask::post("/public/a", "hello")) },
        Request { label: "denied", ask: || marked(Ask::get("/public/secret/x")) },
        Request { label: "denied in disguise", ask: || marked(Ask::get("/public//%73ecret/x")) },
        Request {
            label: "by a field",
            ask: || marked(Ask::get("/other")).header("x-team", "b").header("x-team", "a"),
        },
        Request { label: "by nothing", ask: || marked(Ask::get("/other")) },
    ];
    let rules = json!({
        "deny": {"secret": {"to": {"hosts": ["*.example"], "paths": ["/public/secret/*"]}}},
        "allow": {
            "public": {"from": {"addresses": ["127.0.0.0/8"]}, "to": {"methods": ["GET"], "paths": ["/public/{**}"]}},
            "team": {"when": {"headers": {"x-team": ["a"]}}},
        },
        "audit": {"all": {}},
    });
    let scenario = Scenario::new("authorization", vec![("authz", rules)]);
    compare([scenario.module("authz", filter("authz")).requests(ASKED)]).await;
}

#[tokio::test]
async fn keys_and_passwords() {
    const ASKED: &[Request] = &[
        Request { label: "neither", ask: || marked(Ask::get("/")) },
        Request { label: "wrong key", ask: || marked(Ask::get("/")).header("x-api-key", "other") },
        Request { label: "only a key", ask: || marked(Ask::get("/?a=b")).header("x-api-key", "sesame") },
        Request {
            label: "both",
            ask: || {
                let ask = marked(Ask::get("/?a=b")).header("x-api-key", "sesame").header("x-client", "root");
                ask.header("authorization", "Basic YW5uOnNlY3JldA==")
            },
        },
    ];
    let keys = json!({
        "keys": {"bob": ["d0c04f4b1951e4aeaaec8223ed2039e542f3aae805a6fa7f6d794e5afff5d272"]},
        "client_header": "x-client",
    });
    let passwords = json!({
        "users": {"ann": "{SHA256}K7gNU3sdo+OL0wNhqoVWhr3g6s1xYv72ol/pe/Unols="},
        "user_header": "x-user",
    });
    let scenario = Scenario::new("keys and passwords", vec![("api-key", keys), ("basic", passwords)]);
    let scenario = scenario.module("api-key", filter("api-key")).module("basic", filter("basic"));
    compare([scenario.requests(ASKED)]).await;
}

#[tokio::test]
async fn tokens() {
    static KEYS: LazyLock<[SigningKey; 3]> =
        LazyLock::new(|| ["RS256", "ES256", "ES384"].map(|algorithm| SigningKey::new(algorithm, algorithm)));
    fn with(key: usize, algorithm: &str, audience: &str, age: i64) -> Ask {
        let claims = json!({"iss": "https://idp.example", "sub": "ann", "aud": audience, "exp": seconds_from_now(600 - age)});
        let token = KEYS[key].sign(algorithm, &claims);
        marked(Ask::get("/")).header("authorization", &format!("Bearer {token}")).header("x-user", "root")
    }
    const ASKED: &[Request] = &[
        Request { label: "no token", ask: || marked(Ask::get("/")) },
        Request { label: "RS256", ask: || with(0, "RS256", "shop", 0) },
        Request { label: "RS512", ask: || with(0, "RS512", "shop", 0) },
        Request { label: "ES256", ask: || with(1, "ES256", "shop", 0) },
        Request { label: "ES384", ask: || with(2, "ES384", "shop", 0) },
        Request { label: "another audience", ask: || with(0, "RS256", "bank", 0) },
        Request { label: "expired", ask: || with(0, "RS256", "shop", 700) },
        Request {
            label: "no token at all",
            ask: || marked(Ask::get("/")).header("authorization", "Bearer abc"),
        },
        Request {
            label: "a wrong signature",
            ask: || {
                let claims =
                    json!({"iss": "https://idp.example", "aud": "shop", "exp": seconds_from_now(600)});
                let token = SigningKey::new("ES256", "ES256").sign("ES256", &claims);
                marked(Ask::get("/")).header("authorization", &format!("Bearer {token}"))
            },
        },
    ];
    let keys = key_set(&KEYS.iter().collect::<Vec<_>>());
    let provider = |keys: Value| {
        json!({
            "issuer": "https://idp.example", "audiences": ["shop"], "keys": keys, "claims_to_headers": {"x-user": "sub"},
        })
    };
    let scenario = |name, keys| {
        let configuration = json!({"providers": {"idp": provider(keys)}});
        let rules = json!({"allow": {"ann": {"from": {"principals": ["https://idp.example/ann"]}}}});
        let scenario = Scenario::new(name, vec![("jwt", configuration), ("authz", rules)]);
        scenario.module("jwt", filter("jwt")).module("authz", filter("authz")).requests(ASKED)
    };
    compare([
        scenario("tokens", json!({"inline": keys})),
        scenario("tokens whose keys are not there", json!({"cluster": "gone", "timeout": "200ms"})),
    ])
    .await;
}
