//! The standard filter `jwt`: real keys and signatures, keys that change, and what later filters make of claims.

use std::sync::{Arc, LazyLock, Mutex};

use http::Response;
use meshgate_tests::{
    Ask, Backend, Client, Load, Meshgate, Setup, SigningKey, filter, full, key_set, seconds_from_now, until,
    with_custom_section,
};
use serde_json::{Value, json};

/// A key of RSA, which take long to make.
static RSA: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::new("rsa", "RS256"));

fn claims() -> Value {
    json!({"iss": "https://idp.example", "sub": "ann", "aud": ["shop"], "exp": seconds_from_now(600), "groups": ["staff"]})
}

fn with(token: &str) -> Ask {
    Ask::get("/").header("authorization", &format!("Bearer {token}"))
}

/// A gate with one provider, whose keys are these.
fn gate(keys: &Value, backend: &Backend) -> Setup {
    let chain = format!(
        "
        - jwt:
            providers:
              idp: {{issuer: https://idp.example, audiences: [shop], keys: {keys}}}
        "
    );
    Meshgate::chain(&chain).cluster("one", &[backend])
}

#[tokio::test]
async fn signatures_of_every_algorithm() {
    let backend = Backend::echo("one").await;
    let keys = ["ES256", "ES384", "ES512", "EdDSA"].map(|algorithm| SigningKey::new(algorithm, algorithm));
    let mut all: Vec<&SigningKey> = keys.iter().collect();
    all.push(&RSA);
    let inline = json!({"inline": key_set(&all)});
    let gate = gate(&inline, &backend).start().await;
    for algorithm in
        ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
    {
        let key = all.iter().find(|key| key.jwk()["kid"] == algorithm).copied().unwrap_or(&*RSA);
        let token = key.sign(algorithm, &claims());
        assert_eq!(gate.call(with(&token)).await.status, 200, "{algorithm}");
        let (text, signature) = token.rsplit_once('.').unwrap();
        let forged =
            key.sign(algorithm, &json!({"iss": "https://idp.example", "sub": "root", "aud": "shop"}));
        let (_, of_another) = forged.rsplit_once('.').unwrap();
        for wrong in [of_another.to_owned(), signature[4..].to_owned(), String::new()] {
            let reply = gate.call(with(&format!("{text}.{wrong}"))).await;
            assert_eq!(reply.status, 401, "{algorithm}");
            assert!(
                reply.header("www-authenticate").contains("the signature is wrong"),
                "{algorithm}: {}",
                reply.text()
            );
        }
    }
    // The same name for a key that is somebody else's.
    let stranger = SigningKey::new("ES256", "ES256").sign("ES256", &claims());
    assert_eq!(gate.call(with(&stranger)).await.text(), "the signature is wrong\n");
}

#[tokio::test]
async fn a_refusal_says_which_check_failed() {
    let backend = Backend::echo("one").await;
    let gate = gate(&json!({"inline": key_set(&[&RSA])}), &backend).start().await;
    let changed = |name: &str, value: Value| {
        let mut claims = claims();
        claims[name] = value;
        RSA.sign("RS256", &claims)
    };
    let unsigned = "eyJhbGciOiJub25lIn0.e30.".to_owned();
    for (token, word, description) in [
        (changed("exp", json!(seconds_from_now(-100))), "expired", "the token has expired"),
        (changed("nbf", json!(seconds_from_now(100))), "not_yet_valid", "the token is not valid yet"),
        (
            changed("iat", json!(seconds_from_now(100))),
            "issued_in_the_future",
            "the token was issued in the future",
        ),
        (changed("aud", json!("bank")), "audience", "the token is for another audience"),
        (changed("iss", json!("https://else.example")), "issuer", "the token is of an unknown issuer"),
        (
            SigningKey::new("new", "ES256").sign("ES256", &claims()),
            "key",
            "the token is signed with an unknown key",
        ),
        (
            unsigned.replace("e30.", "eyJpc3MiOiJodHRwczovL2lkcC5leGFtcGxlIn0."),
            "algorithm",
            "the algorithm none is not accepted",
        ),
        ("abc".to_owned(), "malformed", "the token is malformed: it has not three parts"),
    ] {
        let reply = gate
            .call(Ask::get(&format!("/{word}")).header("authorization", &format!("Bearer {token}")))
            .await;
        let expected = format!("Bearer error=\"invalid_token\", error_description=\"{description}\"");
        assert_eq!((reply.status.as_u16(), reply.header("www-authenticate")), (401, expected.as_str()));
        let entry = gate.access(&format!("/{word}")).await;
        assert_eq!(entry["response_code_details"], format!("jwt_{word}"));
        assert_eq!(entry["response_flags"], "UAEX", "{entry}");
    }
    let reply = gate.get("/").await;
    assert_eq!((reply.status.as_u16(), reply.header("www-authenticate")), (401, "Bearer"));
    assert_eq!(backend.requests(), 0);
    let metrics = gate.metrics().await;
    assert_eq!(metrics.sum("meshgate_jwt_tokens_total", &[("outcome", "expired")]), 1.0);
    assert_eq!(metrics.sum("meshgate_jwt_tokens_total", &[("outcome", "missing")]), 1.0);
}

#[tokio::test]
async fn grpc_clients_are_unauthenticated() {
    let backend = Backend::echo("one").await;
    let gate = gate(&json!({"inline": key_set(&[&RSA])}), &backend).start().await;
    let ask = Ask::post("/shop.Orders/List", "\0\0\0\0\0").header("content-type", "application/grpc");
    let reply = Client::http2(gate.address()).await.call(ask).await;
    assert_eq!((reply.status.as_u16(), reply.header("grpc-status")), (200, "16"));
}

#[tokio::test]
async fn keys_in_a_file_are_changed_while_tokens_are_used() {
    let backend = Backend::echo("one").await;
    let (old, new) = (SigningKey::new("old", "ES256"), SigningKey::new("new", "EdDSA"));
    let (by_old, by_new) = (old.sign("ES256", &claims()), new.sign("EdDSA", &claims()));
    let keys = |keys: &[&SigningKey]| key_set(keys).to_string();
    let gate = gate(&json!({"file": "keys.json"}), &backend).file("keys.json", keys(&[&old])).start().await;
    assert_eq!(gate.call(with(&by_old)).await.status, 200);
    assert_eq!(gate.call(with(&by_new)).await.status, 401);
    // As it is done: the new key is added, then tokens are signed with it, then the old one is taken away.
    let token = by_old.clone();
    let load = Load::start(
        gate.address(),
        2,
        move || with(&token),
        |reply| match reply.status.as_u16() {
            200 => Ok(()),
            other => Err(other.to_string()),
        },
    );
    load.wait_for_more(50).await;
    let before = gate.reload().await;
    gate.replace("keys.json", keys(&[&old, &new]));
    gate.reloaded(&before).await;
    load.wait_for_more(50).await;
    load.stop().await.all_good();
    assert_eq!(gate.call(with(&by_new)).await.status, 200);
    let before = gate.reload().await;
    gate.replace("keys.json", keys(&[&new]));
    gate.reloaded(&before).await;
    assert_eq!(gate.call(with(&by_old)).await.status, 401);
    // A file that is no key set changes nothing.
    gate.replace("keys.json", "{\"keys\": [");
    let said = gate.refused().await;
    assert!(said.contains("providers/idp/keys/file: not JSON"), "{said}");
    assert_eq!(gate.call(with(&by_new)).await.status, 200);
    let shown = gate.admin("/config").await.text();
    assert!(shown.contains("keys.json") && !shown.contains("Ed25519"), "{shown}");
}

/// An identity provider whose keys can be changed, or taken away.
async fn identity_provider() -> (Backend, Arc<Mutex<Option<Value>>>) {
    let keys = Arc::new(Mutex::new(None::<Value>));
    let shown = Arc::clone(&keys);
    let backend = Backend::answering("idp", move |_, _| {
        let body = shown.lock().unwrap().as_ref().map(Value::to_string);
        async move {
            let status = if body.is_some() { 200 } else { 500 };
            Response::builder()
                .status(status)
                .body(full(body.unwrap_or_default()))
                .map_err(std::io::Error::other)
        }
    })
    .await;
    (backend, keys)
}

#[tokio::test]
async fn keys_of_a_cluster_are_fetched_shared_and_kept() {
    let backend = Backend::echo("one").await;
    let (idp, keys) = identity_provider().await;
    let (old, new) = (SigningKey::new("old", "ES256"), SigningKey::new("new", "ES256"));
    let (by_old, by_new) = (old.sign("ES256", &claims()), new.sign("ES256", &claims()));
    let gate = gate(&json!({"cluster": "idp", "path": "/keys", "refresh": "1s"}), &backend)
        .cluster("idp", &[&idp])
        .workers(2)
        .start()
        .await;
    // Without keys nobody can be let in, and it is nobody's fault but ours.
    let reply = gate.call(with(&by_old)).await;
    assert_eq!(
        (reply.status.as_u16(), reply.text().as_str()),
        (503, "the keys to check tokens with are not available\n")
    );
    *keys.lock().unwrap() = Some(key_set(&[&old]));
    let status = async |token: &str| gate.call(with(token)).await.status.as_u16();
    until("the keys are fetched", || async { (status(&by_old).await == 200).then_some(()) }).await;
    assert_eq!(idp.seen().last().unwrap().path, "/keys");
    // The provider fails: what was known goes on.
    *keys.lock().unwrap() = None;
    let failures =
        async || gate.metrics().await.sum("meshgate_jwt_key_fetches_total", &[("outcome", "failure")]);
    let before = failures().await;
    until("keys are asked for in vain", || async { (failures().await >= before + 2.0).then_some(()) }).await;
    for _ in 0..10 {
        assert_eq!(status(&by_old).await, 200);
    }
    // The provider has another key: every worker learns it, and forgets the old one.
    *keys.lock().unwrap() = Some(key_set(&[&new]));
    until("all workers know the new key", || async {
        for _ in 0..10 {
            if status(&by_new).await != 200 || status(&by_old).await != 401 {
                return None;
            }
        }
        Some(())
    })
    .await;
}

#[tokio::test]
async fn claims_reach_endpoints_routes_and_rules() {
    let (one, two) = (Backend::echo("one").await, Backend::echo("two").await);
    let chain = format!(
        "
        - jwt:
            providers:
              idp:
                issuer: https://idp.example
                keys: {{inline: {}}}
                claims_to_headers: {{x-user: sub, x-tier: tier}}
                payload_in_metadata: payload
            allow_missing: true
        - authz:
            deny: {{strangers: {{from: {{not_principals: ['*']}}, to: {{paths: [/private/*]}}}}}}
            allow:
              staff: {{from: {{principals: ['https://idp.example/*']}}, when: {{claims: {{groups: [staff, admin]}}}}}}
              public: {{to: {{paths: [/public/*]}}}}
        - routing:
            routes:
              - {{name: gold, match: {{headers: {{x-tier: gold}}}}, to: two}}
              - {{name: silver, match: {{properties: {{metadata/filter_metadata/jwt.claims/plan: silver}}}}, to: two}}
              - name: bronze
                match: {{properties: {{metadata/filter_metadata/envoy.filters.http.jwt_authn/payload/plan: bronze}}}}
                to: two
              - {{name: rest, to: one}}
        ",
        key_set(&[&RSA])
    );
    let gate = Meshgate::chain(&chain).cluster("one", &[&one]).cluster("two", &[&two]).start().await;
    let ask = |path: &str, claims: Option<Value>| {
        let ask = Ask::get(path).header("x-user", "root").header("x-tier", "gold");
        match claims {
            Some(claims) => ask.header("authorization", &format!("Bearer {}", RSA.sign("RS256", &claims))),
            None => ask,
        }
    };
    let mut gold = claims();
    gold["tier"] = json!("gold");
    let mut silver = claims();
    silver["plan"] = json!("silver");
    let mut bronze = claims();
    bronze["plan"] = json!("bronze");
    let mut guest = claims();
    guest["groups"] = json!(["guests"]);
    for (path, claims, expected, backend) in [
        ("/private/a", Some(claims()), 200, "one"),
        ("/private/a", Some(gold), 200, "two"),
        ("/private/a", Some(silver), 200, "two"),
        ("/private/a", Some(bronze), 200, "two"),
        ("/private/a", Some(guest.clone()), 403, ""),
        ("/private/a", None, 403, ""),
        ("/public/a", Some(guest), 200, "one"),
        ("/public/a", None, 200, "one"),
        ("/other", None, 403, ""),
    ] {
        let user = claims.is_some().then_some("ann");
        let reply = gate.call(ask(path, claims)).await;
        assert_eq!(reply.status, expected, "{path} {user:?}");
        if expected == 200 {
            let seen = reply.json();
            assert_eq!(seen["backend"], backend, "{path}");
            assert_eq!(seen["headers"]["x-user"].as_str(), user, "what the client says of itself is gone");
            assert!(seen["headers"]["authorization"].is_null());
        }
    }
}

#[tokio::test]
async fn the_module_is_swapped_under_load_without_a_failed_request() {
    let backend = Backend::echo("one").await;
    let (idp, keys) = identity_provider().await;
    *keys.lock().unwrap() = Some(key_set(&[&RSA]));
    let module = filter("jwt");
    let chain = "- guard: {providers: {idp: {issuer: https://idp.example, keys: {cluster: idp}}}}";
    let gate = Meshgate::chain(chain)
        .filter("guard", &module, "")
        .workers(2)
        .cluster("one", &[&backend])
        .cluster("idp", &[&idp])
        .start()
        .await;
    let token = RSA.sign("RS256", &claims());
    let load = Load::start(
        gate.address(),
        4,
        move || with(&token),
        |reply| match reply.status.as_u16() {
            200 => Ok(()),
            other => Err(other.to_string()),
        },
    );
    for round in 0..3_u8 {
        load.wait_for_more(200).await;
        let before = gate.reload().await;
        gate.replace("guard.wasm", with_custom_section(&module, "round", &[round]));
        gate.reloaded(&before).await;
    }
    load.wait_for_more(200).await;
    load.stop().await.all_good();
    assert!(idp.requests() <= 8, "the keys are shared: {} calls", idp.requests());
}
