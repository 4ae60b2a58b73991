//! The admin API as its clients see it, over real sockets.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use meshgate_config::ModuleSource;
use meshgate_wasm::{Engine, EngineOptions, ModuleBounds, PluginSpec, Shared};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;

use super::*;
use crate::modules::{CompiledModules, ModuleFiles};
use crate::reload::{FirstLoad, Rebuild, ReloadOutcome, Reloader};
use crate::telemetry::Registry;

const ABSURDLY_LONG: Duration = Duration::from_secs(60);

/// An answer, split into what the tests look at.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        assert!(self.head.contains("content-type: application/json\r\n"), "{}", self.head);
        serde_json::from_str(&self.body).unwrap()
    }
}

/// Sends one request on a connection of its own and reads until the end.
async fn ask(address: SocketAddr, request: &str) -> Answer {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("{request} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let answer = tokio::time::timeout(ABSURDLY_LONG, exchange).await.expect("no answer");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: format!("{}\r\n", head.to_ascii_lowercase()), body: body.to_owned() }
}

/// Runs a test against a server of its own.
fn with_server(test: impl AsyncFnOnce(SocketAddr, Arc<State>)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(LocalSet::new().run_until(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = State::new(Arc::new(Registry::new()), Shared::new());
        let serving = tokio::task::spawn_local(serve(listener, Arc::clone(&state)));
        test(address, state).await;
        serving.abort();
    }));
}

fn snapshot() -> SnapshotSummary {
    SnapshotSummary {
        version: "v1".to_owned(),
        loaded: UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        file: PathBuf::from("/etc/meshgate.yaml"),
        configuration: json!({ "listeners": [] }),
        clusters: Vec::new(),
        filters: Vec::new(),
        certificates: Vec::new(),
        expiry_warnings: Vec::new(),
    }
}

/// Answers with what it was given, once.
struct Prepared(Vec<Result<String, String>>);

impl Rebuild for Prepared {
    async fn rebuild(&mut self) -> ReloadOutcome {
        ReloadOutcome { result: self.0.pop().unwrap(), files: Vec::new() }
    }
}

fn start_reloader(state: &State, mut outcomes: Vec<Result<String, String>>) {
    outcomes.reverse();
    let first = FirstLoad { version: "v1".to_owned(), files: Vec::new(), began: SystemTime::now() };
    let (reloader, handle) = Reloader::new(Prepared(outcomes), first, state.registry());
    state.set_reload(handle);
    tokio::task::spawn_local(reloader.run());
}

#[test]
fn readiness_follows_the_process() {
    with_server(async |address, state| {
        let answer = ask(address, "GET /ready").await;
        assert_eq!((answer.status, answer.body.as_str()), (503, "starting\n"));
        state.set_readiness(Readiness::Ready);
        let answer = ask(address, "GET /ready").await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "ready\n"));
        state.set_readiness(Readiness::Draining);
        let answer = ask(address, "GET /ready").await;
        assert_eq!((answer.status, answer.body.as_str()), (503, "draining\n"));
    });
}

#[test]
fn metrics_are_prometheus_text() {
    with_server(async |address, _state| {
        let answer = ask(address, "GET /metrics").await;
        assert_eq!(answer.status, 200);
        assert!(
            answer.head.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"),
            "{}",
            answer.head
        );
        assert!(answer.body.contains("\nmeshgate_build_info{"), "{}", answer.body);
        assert!(
            answer.body.contains("\n# TYPE meshgate_plugin_callbacks_total counter\n"),
            "{}",
            answer.body
        );
    });
}

#[test]
fn the_running_configuration_is_shown() {
    with_server(async |address, state| {
        assert_eq!(ask(address, "GET /config").await.status, 503);
        state.publish(snapshot());
        let expected = json!({
            "version": "v1", "loaded": "2023-11-14T22:13:20.000Z", "file": "/etc/meshgate.yaml", "configuration": { "listeners": [] },
        });
        assert_eq!(ask(address, "GET /config").await.json(), expected);
    });
}

#[test]
fn a_reload_answers_what_came_of_it() {
    with_server(async |address, state| {
        assert_eq!(ask(address, "GET /reload").await.status, 503);
        assert_eq!(ask(address, "POST /reload").await.status, 503);
        let refused = "meshgate.yaml:1:1: no".to_owned();
        start_reloader(&state, vec![Ok("v2".to_owned()), Err(refused.clone())]);
        let shown = ask(address, "GET /reload").await.json();
        assert_eq!(
            (&shown["result"], &shown["version"], &shown["attempts"]),
            (&json!("ok"), &json!("v1"), &json!(1))
        );
        let answer = ask(address, "POST /reload").await;
        assert_eq!((answer.status, &answer.json()["version"]), (200, &json!("v2")));
        let answer = ask(address, "POST /reload").await;
        assert_eq!(answer.status, 422);
        let shown = ask(address, "GET /reload").await.json();
        assert_eq!(shown, answer.json());
        assert_eq!((&shown["result"], &shown["errors"]), (&json!("failed"), &json!(refused)));
        assert_eq!(shown["version"], "v2", "the version that still runs");
    });
}

#[test]
fn a_browser_cannot_command_a_reload() {
    with_server(async |address, state| {
        start_reloader(&state, Vec::new());
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = "POST /reload HTTP/1.1\r\nhost: admin\r\norigin: http://evil.example\r\nconnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    });
}

#[test]
fn an_unknown_path_lists_the_known_ones() {
    with_server(async |address, _state| {
        let index = ask(address, "GET /").await;
        assert_eq!(index.status, 200);
        let answer = ask(address, "GET /nothing").await;
        assert_eq!(answer.status, 404);
        assert!(answer.body.ends_with(&index.body), "{}", answer.body);
        for page in ["/ready", "/metrics", "/config", "/clusters", "/filters", "/reload"] {
            assert!(
                index.body.contains(&format!("\n{page} ")) || index.body.starts_with(&format!("{page} ")),
                "{page}"
            );
        }
    });
}

#[test]
fn other_methods_are_told_which_are_allowed() {
    with_server(async |address, _state| {
        let answer = ask(address, "POST /metrics").await;
        assert_eq!(answer.status, 405);
        assert!(answer.head.contains("allow: get, head\r\n"), "{}", answer.head);
        let answer = ask(address, "DELETE /reload").await;
        assert_eq!(answer.status, 405);
        assert!(answer.head.contains("allow: get, head, post\r\n"), "{}", answer.head);
    });
}

#[test]
fn head_is_answered_without_a_body() {
    with_server(async |address, state| {
        state.set_readiness(Readiness::Ready);
        let answer = ask(address, "HEAD /ready").await;
        assert_eq!((answer.status, answer.body.as_str()), (200, ""));
        assert!(answer.head.contains("content-length: 6\r\n"), "{}", answer.head);
    });
}

#[test]
fn filters_are_listed_without_a_snapshot_too() {
    with_server(async |address, state| {
        assert_eq!(ask(address, "GET /filters").await.json(), json!({ "version": null, "filters": [] }));
        state.publish(snapshot());
        assert_eq!(ask(address, "GET /filters").await.json(), json!({ "version": "v1", "filters": [] }));
    });
}

#[test]
fn a_filter_is_shown_with_the_module_it_runs() {
    let source = ModuleSource::Standard("routing".to_owned());
    let mut files = ModuleFiles::new();
    let file = files.module(&source).unwrap();
    let engine = Engine::new(EngineOptions::default()).unwrap();
    let module =
        CompiledModules::default().compile(&engine, "routing", file, &ModuleBounds::default()).unwrap();
    let filter = FilterSummary {
        name: "router".to_owned(),
        chain: Some("web".to_owned()),
        singleton: false,
        module: source.to_string(),
        plugin: Arc::new(PluginSpec::new("router", module, "{}")),
    };
    with_server(async |address, state| {
        state.publish(SnapshotSummary { filters: vec![filter], ..snapshot() });
        let shown = ask(address, "GET /filters").await.json();
        let shown = &shown["filters"][0];
        assert_eq!((&shown["chain"], &shown["name"]), (&json!("web"), &json!("router")));
        assert_eq!(shown["module"], "standard filter `routing`");
        assert_eq!(shown["sha256"], file.hash.to_string());
        assert_eq!(shown["manifest"]["name"], "routing");
        assert!(shown["manifest"]["version"].is_string(), "{shown}");
        assert!(shown["abi"].as_str().unwrap().starts_with("0.2."), "{shown}");
        assert_eq!((&shown["callbacks"], &shown["mean_callback_nanoseconds"]), (&json!(0), &Value::Null));
        assert_eq!((&shown["state"], &shown["service"]), (&json!("not running"), &Value::Null));
    });
}

#[test]
fn garbage_ends_its_own_connection_only() {
    with_server(async |address, state| {
        state.set_readiness(Readiness::Ready);
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"\x16\x03\x01\x00 garbage\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        tokio::time::timeout(ABSURDLY_LONG, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
        assert_eq!(ask(address, "GET /ready").await.status, 200);
    });
}
