//! Filters that run without requests.

use meshgate_tests::{Ask, Backend, Meshgate, Misdeed, Setup, counting, hostile, until};

fn with_service(workers: usize, more: &str, one: &Backend) -> Setup {
    Meshgate::chain("")
        .workers(workers)
        .top("services: [warm]")
        .filter("warm", &counting("warm"), more)
        .cluster("one", &[one])
}

async fn starts(gate: &Meshgate) -> f64 {
    gate.metrics().await.sum("wasmcustom_warm_starts", &[])
}

async fn ticks(gate: &Meshgate) -> f64 {
    gate.metrics().await.sum("wasmcustom_warm_ticks", &[])
}

#[tokio::test]
async fn a_service_runs_on_every_worker_and_a_singleton_on_one() {
    let one = Backend::echo("one").await;
    for (more, count, word) in [("", 3.0, "worker"), ("singleton: true", 1.0, "singleton")] {
        let gate = with_service(3, more, &one).start().await;
        assert_eq!(starts(&gate).await, count, "{more}");
        let before = ticks(&gate).await;
        until("it ticks", || async { (ticks(&gate).await > before + 5.0).then_some(()) }).await;
        assert_eq!(gate.get("/").await.status, 200);
        let filters = gate.admin("/filters").await.json();
        let shown = &filters["filters"][0];
        assert_eq!((&shown["name"], &shown["service"]), (&"warm".into(), &word.into()), "{shown}");
        assert_eq!((&shown["chain"], &shown["state"]), (&serde_json::Value::Null, &"running".into()));
        assert_eq!(shown["workers"], count, "{shown}");
        gate.stop().await;
    }
}

#[tokio::test]
async fn a_service_that_did_not_change_survives_a_reload() {
    let one = Backend::echo("one").await;
    let gate = with_service(2, "", &one).start().await;
    assert_eq!(starts(&gate).await, 2.0);
    let before = gate.reload().await;
    gate.replace("meshgate.yaml", gate.setup().clone().with_chain("- headers: {}").yaml());
    let between = gate.reloaded(&before).await;
    assert_eq!(starts(&gate).await, 2.0, "still the same");
    let module = meshgate_tests::with_custom_section(&counting("warm"), "new", b"");
    gate.replace("warm.wasm", module);
    let last = gate.reloaded(&between).await;
    assert_eq!(starts(&gate).await, 4.0, "a new module is a new service");
    gate.replace("meshgate.yaml", gate.setup().yaml().replace("services: [warm]", "services: []"));
    gate.reloaded(&last).await;
    let stopped = ticks(&gate).await;
    for _ in 0..20 {
        gate.get("/").await;
    }
    assert_eq!(ticks(&gate).await, stopped, "and one that is gone does not tick");
}

#[tokio::test]
async fn a_service_that_refuses_its_configuration_refuses_the_file() {
    let one = Backend::echo("one").await;
    let setup = with_service(1, "", &one).with_chain("");
    let text = setup.yaml().replace("services: [warm]", "services:\n  - warm: refused");
    let finished = Meshgate::with(&text).file("warm.wasm", counting("warm")).check().await;
    assert_eq!(finished.code, Some(2), "{finished:?}");
    let said = finished.stdout + &finished.stderr;
    assert!(said.contains("- warm: refused") && said.contains("refused the configuration"), "{said}");
}

#[tokio::test]
async fn a_service_that_fails_is_started_again() {
    let one = Backend::echo("one").await;
    // The filter leaves a word in the shared data that the service's next tick finds.
    let module = hostile("tick", Misdeed::Trap);
    let gate = Meshgate::chain("- bad: {}")
        .top("services: [bad]")
        .filter("bad", &module, "")
        .cluster("one", &[&one])
        .start()
        .await;
    assert_eq!(gate.call(Ask::get("/").header("x-misbehave", "1")).await.status, 200);
    let count = async |name: &str| gate.metrics().await.sum(name, &[("plugin", "bad")]);
    until("it failed", || async { (count("meshgate_plugin_traps_total").await == 1.0).then_some(()) }).await;
    let before = count("meshgate_plugin_callbacks_total").await;
    until("it ticks again", || async {
        (count("meshgate_plugin_callbacks_total").await > before + 5.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_a_service_is_told() {
    let one = Backend::echo("one").await;
    let text = Meshgate::chain("- warm: {}")
        .top("services: [apart]")
        .filter("warm", &counting("warm"), "singleton: true")
        .filter("apart", &counting("apart"), "isolation: exchange")
        .cluster("one", &[&one]);
    let (chain, service) = (text.place("- warm"), text.place("services:"));
    let finished = text.check().await;
    let said = finished.stdout + &finished.stderr;
    assert!(said.contains(&chain) && said.contains("singleton"), "{said}");
    assert!(said.contains(&service) && said.contains("isolation: exchange"), "{said}");
}
