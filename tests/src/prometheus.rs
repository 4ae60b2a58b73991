//! A running Prometheus that scrapes a proxy, where one is installed.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::client::Client;
use crate::command::repository;
use crate::deadline::until;

/// A Prometheus that is killed when dropped.
pub struct Prometheus {
    _folder: TempDir,
    _child: Child,
    address: SocketAddr,
}

impl Prometheus {
    /// Its binary: `PROMETHEUS_BIN`, the one that `cargo xtask setup` unpacks from Debian's package, or the one in `PATH`.
    pub fn installed() -> Option<&'static Path> {
        static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
        let find = || {
            let named = std::env::var_os("PROMETHEUS_BIN").map(PathBuf::from);
            let unpacked = repository().join("target/tools/usr/bin/prometheus");
            let in_path = std::env::var_os("PATH").unwrap_or_default();
            let in_path = std::env::split_paths(&in_path).map(|folder| folder.join("prometheus"));
            named.into_iter().chain([unpacked]).chain(in_path).find(|path| path.is_file())
        };
        FOUND.get_or_init(find).as_deref()
    }

    /// Starts one with this configuration, in which `SCRAPED` stands for the address of the proxy's admin API.
    pub async fn start(configuration: &str, scraped: SocketAddr) -> Prometheus {
        let binary = Prometheus::installed().expect("asked for before");
        let folder = TempDir::new().expect("a temporary folder");
        let file = folder.path().join("prometheus.yml");
        std::fs::write(&file, configuration.replace("SCRAPED", &scraped.to_string()))
            .expect("a file of the test's own");
        // It does not say which port it took, so it is given one that was free a moment ago.
        let free =
            TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
        let mut command = Command::new(binary);
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()));
        command.arg(format!("--web.listen-address={free}"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let child = command.spawn().expect("it starts");
        let prometheus = Prometheus { _folder: folder, _child: child, address: free };
        until("Prometheus is ready", || async {
            let mut client = Client::try_http1(free).await.ok()?;
            (client.get("/-/ready").await.status == 200).then_some(())
        })
        .await;
        prometheus
    }

    /// The one value that a query has; `None` if it has none.
    pub async fn value(&self, query: &str) -> Option<f64> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let reply = Client::http1(self.address).await.get(&format!("/api/v1/query?query={encoded}")).await;
        let answer = reply.json();
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        let results = answer["data"]["result"].as_array().expect("a vector");
        assert!(results.len() <= 1, "{query} has several values: {answer}");
        results.first().map(|result| {
            let value = result["value"].get(1).and_then(Value::as_str).expect("a sample");
            value.parse().expect("a number")
        })
    }

    /// Waits until a query has this value.
    pub async fn wait_for(&self, query: &str, expected: f64) {
        let seen = std::cell::Cell::new(None);
        let reached = || async {
            seen.set(self.value(query).await);
            (seen.get() == Some(expected)).then_some(())
        };
        until(format!("{query} is {expected}"), reached).await;
    }
}
