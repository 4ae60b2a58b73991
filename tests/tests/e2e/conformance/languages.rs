//! The same scenario by guests that other compilers made, each with its own idea of the ABI: Rust on `proxy-wasm` 0.2 (ABI
//! 0.2.1) and 0.1 (ABI 0.1.0), C++ by clang, AssemblyScript. What the scenario is stands in the guest `scenario-rust-0-2`.

use http::Method;
use meshgate_tests::{Ask, Backend, Client, Meshgate, Reply, foreign_guest, guest, streamed, until};
use serde_json::Value;

/// The guests, and whether this machine may lack their compiler.
pub(crate) const LANGUAGES: [(&str, bool); 5] = [
    ("scenario-rust-0-2", false),
    ("scenario-rust-0-1", false),
    ("scenario-cpp", true),
    ("scenario-assemblyscript", true),
    ("scenario-assemblyscript-imports", true),
];

/// The module, if this machine could build it.
pub(crate) fn module(name: &str) -> Option<Vec<u8>> {
    let (_, foreign) = LANGUAGES.into_iter().find(|(known, _)| *known == name)?;
    if foreign { foreign_guest(name) } else { Some(guest(name)) }
}

/// A proxy with this guest, and the cluster that it calls.
async fn play(name: &str) -> Option<(Meshgate, Backend, Backend)> {
    let module = module(name)?;
    let one = Backend::echo("one").await;
    let called = Backend::answering("called", async |seen, _| {
        assert_eq!((seen.path.as_str(), seen.header("host")), ("/check", "called.example"));
        Ok(http::Response::new(meshgate_tests::full("welcome")))
    })
    .await;
    let setup = Meshgate::chain(&format!("- {name}: called")).filter(name, &module, "");
    let gate = setup.cluster("one", &[&one]).cluster("called", &[&called]).start().await;
    Some((gate, one, called))
}

fn marked(ask: Ask) -> Ask {
    ask.header("x-remove", "1").header("x-set", "old").header("x-add", "first")
}

/// What the backend received, and that the guest has seen the response: its body is no longer JSON.
fn received(reply: &Reply) -> Value {
    let text = reply.text();
    let described = text.strip_suffix(" [seen]").unwrap_or_else(|| panic!("the end is missing: {text}"));
    serde_json::from_str(described).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The scenario over both versions of HTTP.
async fn scenario(name: &str) {
    let Some((gate, one, _called)) = play(name).await else { return };
    ticked(&gate).await;
    for version in [1, 2] {
        let mut client = match version {
            1 => Client::http1(gate.address()).await,
            _ => Client::http2(gate.address()).await,
        };
        let what = format!("{name} over HTTP/{version}");
        let reply = client.call(marked(Ask::get("/get?a=b"))).await;
        let headers = &received(&reply)["headers"];
        assert!(headers["x-remove"].is_null(), "{what}: {headers}");
        assert_eq!(
            (&headers["x-set"], &headers["x-add"]),
            (&"new".into(), &"first, second".into()),
            "{what}"
        );
        assert_eq!((reply.header("x-scenario"), reply.header("x-path")), ("done", "/get?a=b"), "{what}");
        assert_eq!(reply.header("x-ticks"), "yes", "{what}");
        let before: u64 = reply.header("x-count").parse().unwrap();

        let reply = client.call(marked(Ask::post("/call", "hello"))).await;
        let seen = received(&reply);
        assert_eq!(
            (&seen["body"], &seen["headers"]["x-call"]),
            (&"HELLO".into(), &"200 welcome".into()),
            "{what}"
        );
        assert_eq!(reply.header("x-count"), (before + 1).to_string(), "{what}");

        let (mut sender, body) = streamed();
        let parts = tokio::spawn(async move {
            for part in ["hel", "lo ", "there"] {
                let _ = sender.send_data(part.into()).await;
            }
        });
        let reply = client.call(Ask::new(Method::POST, "/parts", body)).await;
        parts.await.unwrap();
        assert_eq!(received(&reply)["body"], "HELLO THERE", "{what}");

        let requests = one.requests();
        let reply = client.call(Ask::get("/deny")).await;
        assert_eq!(
            (reply.status.as_u16(), reply.header("x-denied"), one.requests()),
            (403, "yes", requests),
            "{what}"
        );
        // A local response runs up through the filter that made it.
        assert_eq!((reply.text().as_str(), reply.header("x-scenario")), ("denied [seen]", "done"), "{what}");
    }
    for (words, count) in [("scenario over 200 done", 6), ("scenario over 403 done", 2)] {
        until(format!("{words}, {count} times or more"), || async {
            let lines = gate.log().all();
            (lines.iter().filter(|line| line.contains(words)).count() >= count).then_some(())
        })
        .await;
    }
    let stopped = gate.stop().await;
    assert!(!stopped.log.iter().any(|line| line.contains("trap")), "{:?}", stopped.log);
}

/// Waits until a request has seen that the guest's timer ran.
async fn ticked(gate: &Meshgate) {
    until("a tick", || async { (gate.get("/tick").await.header("x-ticks") == "yes").then_some(()) }).await;
}

#[tokio::test]
async fn rust_with_abi_0_2_1() {
    scenario("scenario-rust-0-2").await;
}

#[tokio::test]
async fn rust_with_abi_0_1_0() {
    scenario("scenario-rust-0-1").await;
}

#[tokio::test]
async fn cpp() {
    scenario("scenario-cpp").await;
}

#[tokio::test]
async fn assemblyscript() {
    scenario("scenario-assemblyscript").await;
}

#[tokio::test]
async fn assemblyscript_with_its_usual_imports() {
    scenario("scenario-assemblyscript-imports").await;
}
