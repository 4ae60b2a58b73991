use std::time::{Duration, UNIX_EPOCH};

use meshgate_sdk::Refused;
use meshgate_sdk::signature::{Algorithm, PublicKey};
use meshgate_sdk::testing::{Done, Proxy, Request, Response};
use serde_json::{Value, json};

use super::Jwt;

/// What stands in for the host's cryptography: one signature is good. Real ones are checked in the end-to-end tests.
pub(crate) fn verify(_: &PublicKey, _: Algorithm, _: &[u8], signature: &[u8]) -> Result<bool, Refused> {
    Ok(signature == [0x82, 0x8a, 0x1d])
}

/// Its base64.
const GOOD: &str = "good";
/// The tests' clock begins at 2026-01-01.
const NOW: u64 = 1_767_225_600;

fn encoded(bytes: &[u8]) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits =
            group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..=group.len() {
            text.push(char::from(LETTERS[(bits >> (18 - 6 * place) & 63) as usize]));
        }
    }
    text
}

fn keys(id: &str) -> Value {
    json!({"keys": [{"kty": "RSA", "kid": id, "n": "AQAB", "e": "AQAB"}]})
}

fn signed_with(id: &str, claims: Value) -> String {
    let header = json!({"alg": "RS256", "kid": id}).to_string();
    format!("{}.{}.{GOOD}", encoded(header.as_bytes()), encoded(claims.to_string().as_bytes()))
}

fn claims() -> Value {
    json!({"iss": "https://idp", "sub": "ann", "exp": NOW + 600, "groups": ["staff", "admin"], "level": 3})
}

fn token() -> String {
    signed_with("a", claims())
}

fn bearer(token: &str) -> Request {
    Request::get("/").header("authorization", format!("Bearer {token}"))
}

/// One provider with a key inline, and these keys beside.
fn proxy(more: Value) -> Proxy {
    let mut provider = json!({"issuer": "https://idp", "keys": {"inline": keys("a")}});
    provider.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Proxy::new::<Jwt>(&json!({"providers": {"idp": provider}}).to_string())
}

fn refused(done: &Done, status: u16, words: &str) {
    assert_eq!(done.status(), status, "{words}: {}", done.text());
    assert!(done.upstream().is_none());
    assert!(done.text().contains(words), "{words}: {}", done.text());
    let challenge = done.header("www-authenticate").unwrap_or_default();
    assert!(status != 401 || words == "no token" || challenge.contains(words), "{words}: {challenge}");
}

#[test]
fn a_good_token_lets_in_and_is_taken_out() {
    let mut proxy = proxy(
        json!({"claims_to_headers": {"X-User": "sub", "x-groups": "groups", "x-level": "level", "x-none": "none"}}),
    );
    let request = bearer(&token()).header("x-user", "root").header("x-none", "root").header("x-other", "1");
    let done = proxy.send(request);
    let upstream = done.upstream().unwrap();
    let field = |name| upstream.field(name);
    assert_eq!(field("x-user").as_deref(), Some("ann"));
    assert_eq!(field("x-groups").as_deref(), Some("staff,admin"));
    assert_eq!(field("x-level").as_deref(), Some("3"));
    assert_eq!((field("x-none"), field("authorization")), (None, None));
    assert_eq!(field("x-other").as_deref(), Some("1"));
    let count =
        |outcome| proxy.metric("meshgate_jwt_tokens_total", &[("provider", "idp"), ("outcome", outcome)]);
    assert_eq!(count("verified"), 1);
}

#[test]
fn every_check_that_fails_is_told() {
    let with = |changes: Value| {
        let mut changed = claims();
        changed.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        signed_with("a", changed)
    };
    let without_expiry = json!({"iss": "https://idp", "sub": "ann"});
    let header = |header: Value| {
        let header = encoded(header.to_string().as_bytes());
        format!("{header}.{}.{GOOD}", encoded(claims().to_string().as_bytes()))
    };
    let mut proxy = proxy(
        json!({"audiences": ["shop"], "required_claims": {"level": ["3"]}, "algorithms": ["RS256", "ES256"]}),
    );
    for (token, words) in [
        ("x".to_owned(), "malformed"),
        (with(json!({"iss": "https://other"})), "unknown issuer"),
        (header(json!({"alg": "none"})), "the algorithm none is not accepted"),
        (header(json!({"alg": "HS256"})), "the algorithm HS256 is not accepted"),
        (header(json!({"alg": "RS512"})), "the algorithm RS512 is not accepted"),
        (header(json!({"alg": "RS256", "crit": ["b64"]})), "crit"),
        (with(json!({"exp": NOW - 61})), "expired"),
        (with(json!({"nbf": NOW + 61})), "not valid yet"),
        (with(json!({"iat": NOW + 61})), "issued in the future"),
        (signed_with("a", without_expiry), "the claim exp is missing"),
        (with(json!({"aud": "bank"})), "another audience"),
        (with(json!({"aud": "shop", "level": 4})), "the claim level is missing, or not as required"),
        (
            signed_with("b", json!({"iss": "https://idp", "exp": NOW + 9, "aud": "shop", "level": 3})),
            "unknown key",
        ),
        (with(json!({"aud": "shop"})).replace(GOOD, "evil"), "the signature is wrong"),
    ] {
        refused(&proxy.send(bearer(&token)), 401, words);
    }
    assert_eq!(proxy.send(bearer(&with(json!({"aud": ["bank", "shop"]})))).status(), 200);
    let missing = proxy.send(Request::get("/"));
    refused(&missing, 401, "no token");
    assert_eq!(missing.header("www-authenticate").as_deref(), Some("Bearer"));
    refused(&proxy.send(Request::get("/").header("authorization", "Basic YTpi")), 401, "no token");
    refused(&proxy.send(bearer(&token()).header("authorization", "Bearer other")), 401, "more than one");
}

/// What an attacker may say of how a token was signed does not make a key one for something else.
#[test]
fn a_token_does_not_choose_what_its_key_is_for() {
    let header = |header: Value| {
        let header = encoded(header.to_string().as_bytes());
        format!("{header}.{}.{GOOD}", encoded(claims().to_string().as_bytes()))
    };
    let mut proxy = proxy(json!({}));
    for (alg, words) in [
        // Of another kind than the key that is named; with the public key for a secret; by other spellings.
        ("ES256", "unknown key"),
        ("EdDSA", "unknown key"),
        ("HS256", "the algorithm HS256 is not accepted"),
        ("rs256", "the algorithm rs256 is not accepted"),
        ("RS256 ", "the algorithm RS256  is not accepted"),
        ("", "the algorithm  is not accepted"),
    ] {
        refused(&proxy.send(bearer(&header(json!({"alg": alg, "kid": "a"})))), 401, words);
    }
    for kid in [json!(7), json!(null), json!(["a"])] {
        refused(
            &proxy.send(bearer(&header(json!({"alg": "RS256", "kid": kid})))),
            401,
            "its key id is no text",
        );
    }
    // A key that the token brings along is nobody's.
    let own = json!({"alg": "RS256", "kid": "b", "jwk": keys("b")["keys"][0], "jku": "https://evil", "x5u": "https://evil"});
    refused(&proxy.send(bearer(&header(own))), 401, "unknown key");
}

#[test]
fn without_a_key_id_every_key_that_fits_is_tried() {
    let mut set = keys("a");
    set["keys"].as_array_mut().unwrap().extend(keys("b")["keys"].as_array().unwrap().clone());
    let mut proxy = proxy(json!({"keys": {"inline": set}}));
    let header = encoded(json!({"alg": "RS256"}).to_string().as_bytes());
    let token = format!("{header}.{}.{GOOD}", encoded(claims().to_string().as_bytes()));
    assert_eq!(proxy.send(bearer(&token)).status(), 200);
    refused(&proxy.send(bearer(&token.replace(GOOD, "evil"))), 401, "the signature is wrong");
}

#[test]
fn tokens_that_say_something_twice_are_refused() {
    let token = |header: &str, payload: &str| {
        format!("{}.{}.{GOOD}", encoded(header.as_bytes()), encoded(payload.as_bytes()))
    };
    let good = claims().to_string();
    let twice = good.replacen('{', r#"{"sub":"root","#, 1);
    let mut proxy = proxy(json!({}));
    assert_eq!(proxy.send(bearer(&token(r#"{"alg":"RS256","kid":"a"}"#, &good))).status(), 200);
    for token in [
        token(r#"{"alg":"RS256","kid":"a"}"#, &twice),
        token(r#"{"alg":"none","alg":"RS256","kid":"a"}"#, &good),
    ] {
        refused(&proxy.send(bearer(&token)), 401, "the token is malformed: it says something twice");
    }
}

#[test]
fn what_a_token_says_of_itself_does_no_harm_in_a_header() {
    let header = encoded(json!({"alg": "a\"\r\nx: y"}).to_string().as_bytes());
    let token = format!("{header}.{}.{GOOD}", encoded(claims().to_string().as_bytes()));
    let done = proxy(json!({})).send(bearer(&token));
    let challenge = done.header("www-authenticate").unwrap();
    assert!(challenge.contains("the algorithm ax: y is not accepted"), "{challenge}");
}

#[test]
fn tokens_are_found_where_they_are_said_to_be() {
    let places = json!([{"header": "X-Token"}, {"parameter": "access_token"}, {"cookie": "session"}]);
    let mut taken = proxy(json!({"from": places}));
    let mut left = proxy(json!({"from": places, "forward": true}));
    let token = token();
    let target = format!("/a?x=1&access_token={token}&y=%41");
    let cookie = format!("a=1; session={token}; b=2");
    let ways: [(Request, &str, Option<&str>); 3] = [
        (Request::get("/").header("x-token", &token), "x-token", None),
        (Request::get(&target), ":path", Some("/a?x=1&y=%41")),
        (Request::get("/").header("cookie", &cookie), "cookie", Some("a=1; b=2")),
    ];
    for (request, field, rest) in ways {
        let before = request.field(field);
        assert_eq!(taken.send(request.clone()).upstream().unwrap().field(field).as_deref(), rest);
        assert_eq!(left.send(request).upstream().unwrap().field(field), before);
    }
    refused(&taken.send(bearer(&token)), 401, "no token");
    refused(&taken.send(Request::get("/?access_token=a&access_token=b")), 401, "more than one");
    let only = taken.send(Request::get(&format!("/?access_token={token}")));
    assert_eq!(only.upstream().unwrap().target(), "/");
}

#[test]
fn tokens_of_several_providers_can_be_wanted() {
    let provider = |issuer: &str, header: &str| json!({"issuer": issuer, "keys": {"inline": keys("a")}, "from": [{"header": header}]});
    let proxy = |more: Value| {
        let mut config = json!({"providers": {"one": provider("1", "x-one"), "two": provider("2", "x-two")}});
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Proxy::new::<Jwt>(&config.to_string())
    };
    let token = |issuer: &str| signed_with("a", json!({"iss": issuer, "exp": NOW + 9}));
    let one = || Request::get("/").header("x-one", token("1"));
    let both = || one().header("x-two", token("2"));
    let none = || Request::get("/");
    let bad = || Request::get("/").header("x-two", token("3"));
    let statuses = |config: Value| {
        let mut proxy = proxy(config);
        [none(), one(), both(), bad(), bad().header("x-one", token("1"))]
            .map(|request| proxy.send(request).status())
    };
    assert_eq!(statuses(json!({})), [401, 200, 200, 401, 200]);
    assert_eq!(statuses(json!({"require": {"any_of": ["two"]}})), [401, 401, 200, 401, 401]);
    assert_eq!(statuses(json!({"require": {"all_of": ["one", "two"]}})), [401, 401, 200, 401, 401]);
    assert_eq!(statuses(json!({"allow_missing": true})), [200, 200, 200, 401, 200]);
    assert_eq!(
        statuses(json!({"allow_missing": true, "require": {"all_of": ["one", "two"]}})),
        [200, 200, 200, 401, 401]
    );
}

#[test]
fn a_remembered_token_expires_too() {
    let mut proxy = proxy(json!({"clock_skew": "0s"}));
    let token = signed_with("a", json!({"iss": "https://idp", "exp": NOW + 5}));
    assert_eq!(proxy.send(bearer(&token)).status(), 200);
    proxy.advance(Duration::from_secs(4));
    assert_eq!(proxy.send(bearer(&token)).status(), 200);
    proxy.advance(Duration::from_secs(1));
    refused(&proxy.send(bearer(&token)), 401, "expired");
}

/// One provider whose keys a cluster has.
fn remote(more: Value) -> Proxy {
    let mut keys = json!({"cluster": "idp", "path": "/keys", "refresh": "60s", "timeout": "2s"});
    keys.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Proxy::new::<Jwt>(&json!({"providers": {"idp": {"issuer": "https://idp", "keys": keys}}}).to_string())
}

fn lasting(id: &str) -> String {
    signed_with(id, json!({"iss": "https://idp", "exp": NOW + 100_000}))
}

#[test]
fn keys_are_fetched_once_and_again_when_they_are_due() {
    let mut proxy = remote(json!({"authority": "idp.example"}));
    proxy.upstream("idp", |_| Response::new(200).body(keys("a").to_string()));
    assert_eq!(proxy.send(bearer(&lasting("a"))).status(), 200);
    assert_eq!(proxy.send(bearer(&lasting("a"))).status(), 200);
    let calls = proxy.calls("idp");
    assert_eq!(calls.len(), 1);
    assert_eq!(
        (calls[0].target().as_str(), calls[0].field(":authority").as_deref()),
        ("/keys", Some("idp.example"))
    );
    proxy.restart();
    assert_eq!(proxy.send(bearer(&lasting("a"))).status(), 200);
    assert_eq!(proxy.calls("idp").len(), 1, "another worker has them from shared data");
    proxy.advance(Duration::from_secs(61));
    assert_eq!(proxy.calls("idp").len(), 2);
    proxy.advance(Duration::from_secs(600));
    assert_eq!(proxy.calls("idp").len(), 12);
}

#[test]
fn a_new_key_is_fetched_when_a_token_is_signed_with_it() {
    let mut proxy = remote(json!({"refresh": "1h"}));
    proxy.upstream("idp", |_| Response::new(200).body(keys("a").to_string()));
    assert_eq!(proxy.send(bearer(&lasting("a"))).status(), 200);
    proxy.upstream("idp", |_| Response::new(200).body(keys("b").to_string()));
    // Not at once: tokens with made-up keys must not make us ask without end.
    refused(&proxy.send(bearer(&lasting("b"))), 401, "unknown key");
    proxy.advance(Duration::from_secs(10));
    assert_eq!(proxy.send(bearer(&lasting("b"))).status(), 200);
    refused(&proxy.send(bearer(&lasting("a"))), 401, "unknown key");
    for _ in 0..20 {
        refused(&proxy.send(bearer(&lasting("made-up"))), 401, "unknown key");
    }
    assert_eq!(proxy.calls("idp").len(), 2);
}

#[test]
fn known_keys_go_on_while_the_cluster_fails() {
    let mut proxy = remote(json!({}));
    proxy.upstream("idp", |_| Response::new(200).body(keys("a").to_string()));
    assert_eq!(proxy.send(bearer(&lasting("a"))).status(), 200);
    proxy.upstream("idp", |_| Response::new(500));
    proxy.advance(Duration::from_secs(70));
    let asked = proxy.calls("idp").len();
    // After 60 s, and 1, 2 and 4 s later.
    assert!((4..=5).contains(&asked), "{asked}");
    assert_eq!(proxy.send(bearer(&lasting("a"))).status(), 200);
    for broken in ["{", "<html>", r#"{"keys": []}"#] {
        proxy.upstream("idp", move |_| Response::new(200).body(broken));
        proxy.advance(Duration::from_secs(120));
        assert_eq!(proxy.send(bearer(&lasting("a"))).status(), 200);
    }
    assert!(
        proxy.metric("meshgate_jwt_key_fetches_total", &[("provider", "idp"), ("outcome", "failure")]) > 5
    );
    assert!(
        proxy.logs().iter().any(|line| line.contains("the keys of the provider idp cannot be fetched: "))
    );
}

#[test]
fn without_keys_nobody_is_let_in_and_the_cluster_is_left_in_peace() {
    let mut proxy = remote(json!({}));
    proxy.upstream("idp", |_| Response::new(503));
    for _ in 0..5 {
        refused(&proxy.send(bearer(&lasting("a"))), 503, "not available");
    }
    assert_eq!(proxy.calls("idp").len(), 1);
    proxy.upstream("idp", |_| Response::new(200).body(keys("a").to_string()));
    proxy.advance(Duration::from_secs(2));
    assert_eq!(proxy.send(bearer(&lasting("a"))).status(), 200);
    // A request that cannot be let in for other reasons does not wait for keys.
    let mut silent = remote(json!({}));
    silent.upstream("idp", |_| Response::timeout());
    let done = silent.send(bearer(&signed_with("a", json!({"iss": "https://idp", "exp": NOW - 100}))));
    assert_eq!((done.status(), done.took()), (401, Duration::ZERO));
    let done = silent.send(bearer(&lasting("a")));
    assert_eq!((done.status(), done.took()), (503, Duration::from_secs(2)));
    assert_eq!(silent.now().duration_since(UNIX_EPOCH).unwrap().as_secs(), NOW + 2);
}

#[test]
fn mistakes_are_refused_with_their_place() {
    let with = |provider: Value| {
        let mut whole = json!({"issuer": "i", "keys": {"inline": keys("a")}});
        whole.as_object_mut().unwrap().extend(provider.as_object().unwrap().clone());
        json!({"providers": {"p": whole}})
    };
    for (configuration, words) in [
        (json!({}), "missing field `providers`"),
        (json!({"providers": {}}), "providers: nobody's tokens"),
        (json!({"providers": {"p": {"issuer": "i"}}}), "missing field `keys`"),
        (with(json!({"keys": {}})), "providers/p/keys: keys come from one place"),
        (with(json!({"keys": {"inline": {}, "file": "x"}})), "providers/p/keys: keys come from one place"),
        (with(json!({"keys": {"inline": {"keys": []}}})), "providers/p/keys/inline: none of its 0 keys"),
        (with(json!({"keys": {"file": "not JSON"}})), "providers/p/keys/file: not JSON"),
        (
            with(json!({"keys": {"inline": keys("a"), "refresh": "1m"}})),
            "providers/p/keys: only a cluster is asked",
        ),
        (with(json!({"keys": {"cluster": "c", "refresh": "1ms"}})), "providers/p/keys/refresh: "),
        (with(json!({"keys": {"cluster": "c", "path": "x"}})), "providers/p/keys/path: "),
        (with(json!({"algorithms": ["HS256"]})), "providers/p/algorithms/0: unknown variant `HS256`"),
        (with(json!({"from": [{"header": "a", "cookie": "b"}]})), "providers/p/from/0"),
        (with(json!({"from": [{"cookie": "b", "prefix": "x"}]})), "only a header has a prefix"),
        (with(json!({"from": [{"header": "a b"}]})), "is not a field name"),
        (with(json!({"from": []})), "providers/p/from: "),
        (with(json!({"audiences": []})), "providers/p/audiences: "),
        (with(json!({"claims_to_headers": {"a b": "sub"}})), "providers/p/claims_to_headers/a b: "),
    ] {
        let said = Proxy::refusal::<Jwt>(&configuration.to_string());
        assert!(said.contains(words), "{configuration}: {said}");
    }
    for require in [
        json!({}),
        json!({"any_of": []}),
        json!({"any_of": ["p"], "all_of": ["p"]}),
        json!({"all_of": ["q"]}),
    ] {
        let mut configuration = with(json!({}));
        configuration["require"] = require;
        let said = Proxy::refusal::<Jwt>(&configuration.to_string());
        assert!(said.contains("require: "), "{said}");
    }
}
