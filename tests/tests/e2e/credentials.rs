//! The standard filters `api-key` and `basic`: who is let in, and how keys and passwords change while they are used.

use meshgate_tests::{Ask, Backend, Load, Meshgate, filter, with_custom_section};
use sha2::{Digest, Sha256};

fn digits(key: &str) -> String {
    Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn key(key: &str) -> Ask {
    Ask::get("/").header("x-api-key", key)
}

#[tokio::test]
async fn api_keys_are_known_by_their_hashes_and_change_while_they_are_used() {
    let backend = Backend::echo("one").await;
    let line = |name: &str, key: &str| format!("{name}: {}\n", digits(key));
    let gate = Meshgate::chain("- api-key: {file: keys.txt, client_header: x-client}")
        .file("keys.txt", line("ann", "old"))
        .cluster("one", &[&backend])
        .start()
        .await;
    let reply = gate.call(key("old").header("x-client", "root")).await;
    assert_eq!(reply.json()["headers"]["x-client"], "ann");
    assert!(reply.json()["headers"]["x-api-key"].is_null());
    let hash = digits("old");
    for (path, key, details) in [
        ("/new", Some("new"), "api_key_unknown"),
        ("/none", None, "api_key_missing"),
        ("/hash", Some(hash.as_str()), "api_key_unknown"),
    ] {
        let ask = key.into_iter().fold(Ask::get(path), |ask, key| ask.header("x-api-key", key));
        let reply = gate.call(ask).await;
        assert_eq!((reply.status.as_u16(), reply.header("www-authenticate")), (401, "ApiKey"));
        let entry = gate.access(path).await;
        assert_eq!(
            (&entry["response_code_details"], &entry["response_flags"]),
            (&details.into(), &"UAEX".into())
        );
    }
    // A second key is added, clients change over, the first one is taken away.
    let load = Load::start(
        gate.address(),
        2,
        || key("old"),
        |reply| match reply.status.as_u16() {
            200 => Ok(()),
            other => Err(other.to_string()),
        },
    );
    load.wait_for_more(50).await;
    let before = gate.reload().await;
    gate.replace("keys.txt", line("ann", "old") + &line("ann", "new"));
    gate.reloaded(&before).await;
    load.wait_for_more(50).await;
    load.stop().await.all_good();
    assert_eq!(gate.call(key("new")).await.status, 200);
    let before = gate.reload().await;
    gate.replace("keys.txt", line("ann", "new"));
    gate.reloaded(&before).await;
    assert_eq!(
        (gate.call(key("old")).await.status.as_u16(), gate.call(key("new")).await.status.as_u16()),
        (401, 200)
    );
    gate.replace("keys.txt", "ann: new\n");
    let said = gate.refused().await;
    assert!(said.contains("file: line 1: not a SHA-256"), "{said}");
    assert_eq!(gate.call(key("new")).await.status, 200);
    let shown = gate.admin("/config").await.text();
    assert!(shown.contains("keys.txt") && !shown.contains(&digits("new")), "{shown}");
}

/// Base64 of SHA-256 of `secret`, and of `other`.
const SECRET: &str = "{SHA256}K7gNU3sdo+OL0wNhqoVWhr3g6s1xYv72ol/pe/Unols=";
const OTHER: &str = "{SHA256}2SmKENGwc1g33EvYXaxkGw887yekfl1TpU8vP1svz/o=";
/// `ann:secret`
const ANN: &str = "Basic YW5uOnNlY3JldA==";

#[tokio::test]
async fn passwords_are_known_by_their_hashes_and_change_while_they_are_used() {
    let backend = Backend::echo("one").await;
    let gate = Meshgate::chain("- basic: {file: users.txt, realm: shop, user_header: x-user}")
        .file("users.txt", format!("ann:{SECRET}\n"))
        .cluster("one", &[&backend])
        .start()
        .await;
    let ann = || Ask::get("/").header("authorization", ANN).header("x-user", "root");
    let reply = gate.call(ann()).await;
    assert_eq!(reply.json()["headers"]["x-user"], "ann");
    assert!(reply.json()["headers"]["authorization"].is_null());
    let reply = gate.get("/refused").await;
    let challenge = r#"Basic realm="shop", charset="UTF-8""#;
    assert_eq!((reply.status.as_u16(), reply.header("www-authenticate")), (401, challenge));
    let refused = gate.access("/refused").await;
    assert_eq!(
        (&refused["response_code_details"], &refused["response_flags"]),
        (&"basic_missing".into(), &"UAEX".into())
    );
    let before = gate.reload().await;
    gate.replace("users.txt", format!("ann:{OTHER}\n"));
    gate.reloaded(&before).await;
    assert_eq!(gate.call(ann()).await.status, 401);
    gate.replace("users.txt", "ann:$2y$05$abcdefghijklmnopqrstuu\n");
    let said = gate.refused().await;
    assert!(said.contains("file: line 1: hashes of bcrypt take longer than a filter has"), "{said}");
}

#[tokio::test]
async fn the_modules_are_swapped_under_load_without_a_failed_request() {
    let backend = Backend::echo("one").await;
    let (keys, passwords) = (filter("api-key"), filter("basic"));
    let chain = format!(
        "
        - keys: {{keys: {{ann: [{}]}}}}
        - passwords: {{users: {{ann: '{SECRET}'}}}}
        ",
        digits("sesame")
    );
    let gate = Meshgate::chain(&chain)
        .filter("keys", &keys, "")
        .filter("passwords", &passwords, "")
        .workers(2)
        .cluster("one", &[&backend])
        .start()
        .await;
    let ask = || key("sesame").header("authorization", ANN);
    let load = Load::start(gate.address(), 4, ask, |reply| match reply.status.as_u16() {
        200 => Ok(()),
        other => Err(other.to_string()),
    });
    for round in 0..3_u8 {
        for (name, module) in [("keys.wasm", &keys), ("passwords.wasm", &passwords)] {
            load.wait_for_more(100).await;
            let before = gate.reload().await;
            gate.replace(name, with_custom_section(module, "round", &[round]));
            gate.reloaded(&before).await;
        }
    }
    load.wait_for_more(100).await;
    load.stop().await.all_good();
}
