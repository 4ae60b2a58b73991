//! The admin API: its endpoints, and what it refuses.

use http::Method;
use meshgate_tests::{Ask, Backend, Client, Meshgate, empty};

#[tokio::test]
async fn pages_have_their_content_types() {
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain("- telemetry: {}").cluster("one", &[&one]).start().await;
    gate.get("/").await;
    for (page, content_type) in [
        ("/", "text/plain"),
        ("/ready", "text/plain"),
        ("/metrics", "text/plain; version=0.0.4"),
        ("/config", "application/json"),
        ("/clusters", "application/json"),
        ("/filters", "application/json"),
        ("/reload", "application/json"),
    ] {
        let reply = gate.admin(page).await;
        assert_eq!(reply.status, 200, "{page}");
        assert!(reply.header("content-type").starts_with(content_type), "{page}: {reply:?}");
        assert_eq!(reply.header("cache-control"), "no-store", "{page}");
        assert!(!reply.body.is_empty(), "{page}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_refused() {
    let gate = Meshgate::chain("").start().await;
    let mut admin = Client::http1(gate.admin_address()).await;
    assert_eq!(admin.get("/nothing").await.status, 404);
    for page in ["/", "/ready", "/metrics", "/config", "/clusters", "/filters"] {
        let reply = admin.call(Ask::post(page, "")).await;
        assert_eq!((reply.status.as_u16(), reply.header("allow")), (405, "GET, HEAD"), "{page}");
    }
    let reply = admin.call(Ask::new(Method::DELETE, "/reload", empty())).await;
    assert_eq!((reply.status.as_u16(), reply.header("allow")), (405, "GET, HEAD, POST"));
    let reply = admin.call(Ask::new(Method::HEAD, "/config", empty())).await;
    assert_eq!((reply.status.as_u16(), reply.body.len()), (200, 0));
}

#[tokio::test]
async fn running_configuration_is_shown_with_its_version() {
    let one = Backend::echo("one").await;
    let gate =
        Meshgate::chain("- headers: {response: {set: {x-a: b}}}").cluster("one", &[&one]).start().await;
    let config = gate.admin("/config").await.json();
    let reload = gate.reload().await;
    assert_eq!(config["version"], reload.version.as_str());
    assert_eq!((reload.attempts, &reload.errors), (1, &None));
    assert!(config["configuration"].to_string().contains("x-a"), "{config}");
    assert!(config["file"].as_str().unwrap().ends_with("meshgate.yaml"), "{config}");
    let info = format!("meshgate_config_info{{version=\"{}\"}} 1", reload.version);
    assert!(gate.metrics().await.text().contains(&info), "{info}");
}

#[tokio::test]
async fn filters_are_shown_with_what_they_run() {
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain("- headers: {response: {set: {x-a: b}}}\n- telemetry: {}")
        .cluster("one", &[&one])
        .start()
        .await;
    let mut client = gate.client().await;
    for _ in 0..10 {
        client.get("/").await;
    }
    let page = gate.admin("/filters").await.json();
    assert_eq!(page["version"], gate.reload().await.version.as_str());
    let filters = page["filters"].as_array().unwrap();
    let names: Vec<_> = filters.iter().map(|filter| filter["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["headers", "telemetry"]);
    for filter in filters {
        assert_eq!(filter["chain"], "web");
        assert_eq!(filter["sha256"].as_str().unwrap().len(), 64);
        assert_eq!(filter["manifest"]["name"], filter["name"]);
        assert!(filter["callbacks"].as_u64().unwrap() >= 10, "{filter}");
        assert_eq!(filter["traps"], 0);
    }
    let callbacks = gate.metrics().await.sum("meshgate_plugin_callbacks_total", &[("plugin", "headers")]);
    assert!(callbacks >= 10.0, "{callbacks}");
}

#[tokio::test]
async fn reload_can_be_asked_for() {
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain("").cluster("one", &[&one]).start().await;
    let before = gate.reload().await;
    let mut admin = Client::http1(gate.admin_address()).await;

    let reply = admin.call(Ask::post("/reload", "")).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let after = gate.reload().await;
    assert_eq!(after.version, before.version, "nothing has changed");
    assert!(after.attempts > before.attempts);

    let from_a_page = admin.call(Ask::post("/reload", "").header("origin", "http://evil.example")).await;
    assert_eq!(from_a_page.status, 403);

    gate.replace("meshgate.yaml", "listeners: 5\n");
    let reply = admin.call(Ask::post("/reload", "")).await;
    assert_eq!(reply.status, 422);
    assert!(reply.json()["errors"].as_str().unwrap().contains("meshgate.yaml:1:12"), "{}", reply.text());
}
