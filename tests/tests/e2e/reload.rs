//! Changing files under a running proxy, one at a time. `reload_under_load` does it many times.

use std::sync::Arc;

use http::Response;
use meshgate_tests::{Ask, Backend, Meshgate, Setup, full, stamp, until, within};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

/// A chain whose answers carry this version.
fn stamped(version: &str) -> String {
    format!("- headers: {{response: {{set: {{x-version: \"{version}\"}}}}}}")
}

/// A proxy at version 1, and its upstream.
async fn versioned() -> (Meshgate, Backend) {
    let one = Backend::echo("one").await;
    (Meshgate::chain(&stamped("1")).cluster("one", &[&one]).start().await, one)
}

/// The text of another version of the same configuration.
fn at_version(setup: &Setup, version: &str) -> String {
    setup.clone().with_chain(&stamped(version)).yaml()
}

#[tokio::test]
async fn edited_file_takes_effect_on_open_connections() {
    let (gate, _one) = versioned().await;
    let mut client = gate.client().await;
    assert_eq!(client.get("/").await.header("x-version"), "1");

    let before = gate.reload().await;
    gate.edit("meshgate.yaml", at_version(gate.setup(), "2"));
    gate.reloaded(&before).await;
    assert_eq!(client.get("/").await.header("x-version"), "2");

    let before = gate.reload().await;
    gate.replace("meshgate.yaml", at_version(gate.setup(), "3"));
    gate.reloaded(&before).await;
    assert_eq!(client.get("/").await.header("x-version"), "3");
}

#[tokio::test]
async fn refused_file_changes_nothing_and_is_told_everywhere() {
    let (gate, _one) = versioned().await;
    let before = gate.reload().await;

    let wrong = gate.setup().yaml().replace("cluster: one", "cluster: nowhere");
    let line = 1 + wrong.lines().position(|line| line.contains("nowhere")).unwrap();
    gate.replace("meshgate.yaml", wrong);
    let errors = gate.refused().await;
    let place = format!("meshgate.yaml:{line}:14");
    assert!(errors.contains(&place) && errors.contains("nowhere"), "{errors}");
    assert_eq!(gate.reload().await.version, before.version);
    gate.log().wait("the place in the log", |line| line.contains(&place).then_some(())).await;
    let metrics = gate.metrics().await;
    assert_eq!(metrics.sum("meshgate_config_last_reload_successful", &[]), 0.0);
    assert_eq!(metrics.sum("meshgate_reloads_total", &[("result", "failure")]), 1.0);
    assert_eq!(gate.get("/").await.header("x-version"), "1");

    gate.replace("meshgate.yaml", at_version(gate.setup(), "2"));
    gate.reloaded(&before).await;
    assert_eq!(gate.get("/").await.header("x-version"), "2");
    assert_eq!(gate.metrics().await.sum("meshgate_config_last_reload_successful", &[]), 1.0);
}

#[tokio::test]
async fn half_written_file_does_no_harm() {
    let (gate, _one) = versioned().await;
    let before = gate.reload().await;
    let text = at_version(gate.setup(), "2");
    // The middle of the first cluster's line: not even YAML.
    let half = text.rfind("endpoints").unwrap();
    gate.edit("meshgate.yaml", &text[..half]);
    gate.refused().await;
    assert_eq!(gate.get("/").await.header("x-version"), "1");
    gate.edit("meshgate.yaml", &text);
    gate.reloaded(&before).await;
    assert_eq!(gate.get("/").await.header("x-version"), "2");
}

#[tokio::test]
async fn swapped_symlinks_are_followed() {
    // As Kubernetes updates a mounted ConfigMap: the name leads through `..data`, which is swapped by a rename.
    let one = Backend::echo("one").await;
    let setup = Meshgate::chain(&stamped("1")).cluster("one", &[&one]);
    let second = at_version(&setup, "2");
    let gate = setup
        .written_to("..v1/meshgate.yaml")
        .file("..v2/meshgate.yaml", second)
        .link("..data", "..v1")
        .link("meshgate.yaml", "..data/meshgate.yaml")
        .start()
        .await;
    assert_eq!(gate.get("/").await.header("x-version"), "1");
    let before = gate.reload().await;
    std::os::unix::fs::symlink("..v2", gate.path("..data_new")).unwrap();
    std::fs::rename(gate.path("..data_new"), gate.path("..data")).unwrap();
    gate.reloaded(&before).await;
    assert_eq!(gate.get("/").await.header("x-version"), "2");
}

#[tokio::test]
async fn removed_file_keeps_the_old_configuration() {
    let (gate, _one) = versioned().await;
    let before = gate.reload().await;
    std::fs::remove_file(gate.path("meshgate.yaml")).unwrap();
    let errors = gate.refused().await;
    assert!(errors.contains("meshgate.yaml"), "{errors}");
    assert_eq!(gate.get("/").await.header("x-version"), "1");
    gate.edit("meshgate.yaml", at_version(gate.setup(), "2"));
    gate.reloaded(&before).await;
    assert_eq!(gate.get("/").await.header("x-version"), "2");
}

#[tokio::test]
async fn replaced_module_takes_effect() {
    let one = Backend::echo("one").await;
    let gate =
        Meshgate::chain("- stamp: {}").filter("stamp", &stamp(1), "").cluster("one", &[&one]).start().await;
    let mut client = gate.client().await;
    assert_eq!(client.get("/").await.header("x-module"), "00000001");
    let before = gate.reload().await;

    // A module that is cut off is refused, with its name and the place that names it.
    let module = stamp(2);
    gate.edit("stamp.wasm", &module[..module.len() / 2]);
    let errors = gate.refused().await;
    assert!(errors.contains("meshgate.yaml:") && errors.contains("stamp.wasm"), "{errors}");
    assert_eq!(client.get("/").await.header("x-module"), "00000001");

    gate.edit("stamp.wasm", module);
    let before = gate.reloaded(&before).await;
    assert_eq!(client.get("/").await.header("x-module"), "00000002");

    std::fs::remove_file(gate.path("stamp.wasm")).unwrap();
    let errors = gate.refused().await;
    assert!(errors.contains("meshgate.yaml:") && errors.contains("stamp.wasm"), "{errors}");
    gate.replace("stamp.wasm", stamp(3));
    gate.reloaded(&before).await;
    assert_eq!(client.get("/").await.header("x-module"), "00000003");
}

#[tokio::test]
async fn module_in_another_folder_is_watched_too() {
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain("- stamp: {}")
        .file("modules/deep/stamp.wasm", stamp(1))
        .named_module("stamp", "modules/deep/stamp.wasm")
        .cluster("one", &[&one])
        .start()
        .await;
    assert_eq!(gate.get("/").await.header("x-module"), "00000001");
    let before = gate.reload().await;
    gate.edit("modules/deep/stamp.wasm", stamp(2));
    gate.reloaded(&before).await;
    assert_eq!(gate.get("/").await.header("x-module"), "00000002");
}

#[tokio::test]
async fn pinned_module_is_not_replaced_by_another() {
    use sha2::{Digest, Sha256};
    let one = Backend::echo("one").await;
    let pin: String = Sha256::digest(stamp(1)).iter().map(|byte| format!("{byte:02x}")).collect();
    let gate = Meshgate::chain("- stamp: {}")
        .filter("stamp", &stamp(1), &format!("sha256: \"{pin}\""))
        .cluster("one", &[&one])
        .start()
        .await;
    gate.replace("stamp.wasm", stamp(2));
    let errors = gate.refused().await;
    assert!(errors.contains("sha256"), "{errors}");
    assert_eq!(gate.get("/").await.header("x-module"), "00000001");
}

#[tokio::test]
async fn exchange_ends_on_the_version_it_began_with() {
    let permits = Arc::new(Semaphore::new(0));
    let waiting = Arc::clone(&permits);
    let held = Backend::answering("held", move |_, _| {
        let waiting = Arc::clone(&waiting);
        async move {
            waiting.acquire().await.unwrap().forget();
            Ok(Response::new(full("x")))
        }
    })
    .await;
    let gate = Meshgate::chain(&stamped("1")).cluster("held", &[&held]).start().await;
    let mut client = gate.client().await;
    let begun = client.begin(Ask::get("/")).await.unwrap();
    held.wait_for_requests(1).await;
    let before = gate.reload().await;
    gate.replace("meshgate.yaml", at_version(gate.setup(), "2"));
    gate.reloaded(&before).await;
    permits.add_permits(2);
    let response = within("an answer", begun).await.unwrap();
    assert_eq!(response.headers()["x-version"], "1");
    assert_eq!(gate.get("/").await.header("x-version"), "2");
}

#[tokio::test]
async fn clusters_change_with_the_file() {
    let (one, two) = (Backend::echo("one").await, Backend::echo("two").await);
    let gate = Meshgate::chain("").cluster("all", &[&one]).start().await;
    let mut client = gate.client().await;
    assert_eq!(client.get("/").await.header("x-backend"), "one");
    let before = gate.reload().await;
    let text = gate.setup().yaml().replace(&one.address().to_string(), &two.address().to_string());
    gate.replace("meshgate.yaml", text);
    gate.reloaded(&before).await;
    assert_eq!(client.get("/").await.header("x-backend"), "two");
    // The pool of an endpoint that is gone goes too.
    one.wait_until_unused().await;
}

#[tokio::test]
async fn listeners_come_and_go_with_the_file() {
    let (gate, _one) = versioned().await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let more = format!("listeners:\n  - {{name: more, address: \"{free}\", chain: web, cluster: one}}");
    let (with, without) = (gate.setup().yaml().replace("listeners:", &more), gate.setup().yaml());

    let before = gate.reload().await;
    gate.replace("meshgate.yaml", with);
    let between = gate.reloaded(&before).await;
    let mut client = meshgate_tests::Client::http1(free).await;
    assert_eq!(client.get("/").await.header("x-version"), "1");

    gate.replace("meshgate.yaml", without);
    gate.reloaded(&between).await;
    until("the removed listener is closed", || async {
        TcpStream::connect(free).await.is_err().then_some(())
    })
    .await;
    assert_eq!(
        gate.get("/").await.header("x-version"),
        "1",
        "the other listener goes on, at the same address"
    );
}

#[tokio::test]
async fn listener_that_cannot_be_bound_refuses_the_file() {
    let (gate, _one) = versioned().await;
    let before = gate.reload().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let more = format!("listeners:\n  - {{name: more, address: \"{address}\", chain: web, cluster: one}}");
    gate.replace("meshgate.yaml", gate.setup().yaml().replace("listeners:", &more));
    let errors = gate.refused().await;
    assert!(errors.contains("meshgate.yaml:") && errors.contains(&address.to_string()), "{errors}");
    assert_eq!(gate.reload().await.version, before.version);
    assert_eq!(gate.get("/").await.header("x-version"), "1");
}
