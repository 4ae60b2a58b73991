//! Listeners and endpoints on Unix sockets.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use meshgate_tests::{Ask, Backend, Client, Meshgate, Setup, UnixFront, until};
use tempfile::TempDir;

/// A proxy that listens on this socket too, in front of this endpoint.
fn on(path: &Path, endpoint: &str, more: &str) -> Setup {
    Meshgate::with(&yaml(path, endpoint, more))
}

fn yaml(path: &Path, endpoint: &str, more: &str) -> String {
    format!(
        "admin: {{address: \"127.0.0.1:0\"}}
workers: 2
access_log: {{format: json}}
listeners:
  - {{name: web, address: \"127.0.0.1:0\", chain: web, cluster: one}}
  - {{name: local, address: \"unix:{}\", chain: web, cluster: one{more}}}
chains:
  web:
    - plain: {{properties: {{x-from: source/address, x-port: source/port, x-to: destination/address}}}}
filters:
  plain: {{module: ./plain.wasm}}
clusters:
  - {{name: one, endpoints: [\"{endpoint}\"]}}
",
        path.display()
    )
}

fn socket() -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("web.sock");
    (folder, path)
}

async fn start(path: &Path, backend: &Backend, more: &str) -> Meshgate {
    on(path, &backend.address().to_string(), more)
        .file("plain.wasm", meshgate_tests::guest("plain"))
        .start()
        .await
}

#[tokio::test]
async fn clients_on_a_socket_are_served_and_have_no_address() {
    let (_folder, path) = socket();
    let backend = Backend::echo("one").await;
    let gate = start(&path, &backend, "").await;
    for http2 in [false, true] {
        let mut client = Client::unix(&path, http2).await;
        for _ in 0..3 {
            let reply = client.call(Ask::get("/").header("x-forwarded-for", "192.0.2.1")).await;
            assert_eq!(reply.status, 200);
            assert_eq!((reply.header("x-from"), reply.header("x-port")), ("unix:", "(none)"));
            assert_eq!(reply.header("x-to"), format!("unix:{}", path.display()));
        }
    }
    for seen in backend.seen() {
        assert_eq!(seen.header("x-forwarded-for"), "", "nobody's word, and no address of its own");
    }
    let entry = gate.access("/").await;
    assert_eq!((&entry["downstream_address"], &entry["listener"]), (&"unix:".into(), &"local".into()));
    // The other listener's clients have one.
    gate.get("/other").await;
    assert_eq!(backend.seen().last().unwrap().header("x-forwarded-for"), "127.0.0.1");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    gate.stop().await;
    assert!(!path.exists(), "the file goes with the process");
}

#[tokio::test]
async fn a_file_left_behind_is_replaced_and_one_in_use_is_not() {
    let (_folder, path) = socket();
    let backend = Backend::echo("one").await;
    // The socket of a process that is gone.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let gate = start(&path, &backend, ", socket_mode: \"0600\"").await;
    assert_eq!(Client::unix(&path, false).await.get("/").await.status, 200);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

    let second = on(&path, "127.0.0.1:1", "").file("plain.wasm", meshgate_tests::guest("plain"));
    let refused = second.start_refused().await;
    let said = format!("{refused:?}");
    assert!(said.contains("meshgate.yaml:6:28") && said.contains("somebody listens there"), "{said}");
    assert_eq!(Client::unix(&path, false).await.get("/").await.status, 200, "the first one goes on");
    gate.stop().await;

    std::fs::write(&path, "something").unwrap();
    let third = on(&path, "127.0.0.1:1", "").file("plain.wasm", meshgate_tests::guest("plain"));
    let said = format!("{:?}", third.start_refused().await);
    assert!(said.contains("no socket"), "{said}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "something");
}

#[tokio::test]
async fn a_socket_comes_and_goes_with_the_file() {
    let (_folder, path) = socket();
    let backend = Backend::echo("one").await;
    let gate = start(&path, &backend, "").await;
    let text = gate.setup().yaml();
    let mut open = Client::unix(&path, false).await;
    assert_eq!(open.get("/").await.status, 200);
    let without: String =
        text.lines().filter(|line| !line.contains("name: local")).flat_map(|line| [line, "\n"]).collect();

    let before = gate.reload().await;
    gate.replace("meshgate.yaml", without);
    let between = gate.reloaded(&before).await;
    assert!(!path.exists());
    gate.replace("meshgate.yaml", text);
    let after = gate.reloaded(&between).await;
    assert_eq!(Client::unix(&path, false).await.get("/").await.status, 200);
    gate.replace(
        "meshgate.yaml",
        gate.setup().yaml().replace("name: local,", "name: local, socket_mode: \"0666\","),
    );
    let after = gate.reloaded(&after).await;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);

    // What a refused reload has bound is taken back.
    let other = path.with_file_name("other.sock");
    let wrong = gate.setup().yaml().replace("listeners:", &format!(
        "listeners:\n  - {{name: other, address: \"unix:{}\", cluster: one}}\n  - {{name: taken, address: \"{}\", cluster: one}}",
        other.display(),
        backend.address()
    ));
    gate.replace("meshgate.yaml", wrong);
    gate.refused().await;
    assert_eq!(gate.reload().await.version, after.version);
    assert!(!other.exists());
}

#[tokio::test]
async fn endpoints_may_be_on_sockets() {
    let backend = Backend::echo("one").await;
    let front = UnixFront::to(backend.address()).await;
    let endpoint = format!("unix:{}", front.path().display());
    let (_folder, path) = socket();
    let gate = on(&path, &endpoint, "").file("plain.wasm", meshgate_tests::guest("plain")).start().await;
    let mut client = gate.client().await;
    for _ in 0..3 {
        let body = "x".repeat(100_000);
        let reply = client.call(Ask::post("/", body.clone())).await;
        assert!(reply.status == 200 && reply.text().contains(&body));
    }
    assert_eq!(backend.connections(), 1, "connections are used again");
    let entry = gate.access("/").await;
    assert_eq!(entry["upstream_address"], endpoint);
    let shown = gate.admin("/clusters").await.text();
    assert!(shown.contains(&endpoint), "{shown}");

    // An endpoint whose socket is gone cannot be connected to.
    drop(front);
    until("the endpoint is gone", || async { (gate.get("/gone").await.status == 503).then_some(()) }).await;
    let entry = gate.access("/gone").await;
    assert!(entry["response_flags"].is_string(), "{entry}");
}

#[tokio::test]
async fn health_checks_and_http2_go_over_sockets() {
    let backend = Backend::http2_echo("one").await;
    let front = UnixFront::to(backend.address()).await;
    let text = format!(
        "admin: {{address: \"127.0.0.1:0\"}}
access_log: {{format: json}}
listeners: [{{name: web, address: \"127.0.0.1:0\", cluster: one}}]
clusters:
  - name: one
    protocol: http2
    endpoints: [\"unix:{}\"]
    health_check: {{http: {{path: /healthz}}, interval: 50ms}}
",
        front.path().display()
    );
    let gate = Meshgate::with(&text).start().await;
    assert_eq!(gate.get("/").await.status, 200);
    until("a check", || async { backend.seen().iter().any(|seen| seen.path == "/healthz").then_some(()) })
        .await;
    assert_eq!(gate.metrics().await.sum("meshgate_endpoint_healthy", &[]), 1.0);
}
