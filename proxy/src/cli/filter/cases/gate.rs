//! The Meshgate of a case: this program again, as a process of its own with a configuration around the filter.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};

/// A Meshgate that does not listen by then will not.
const START: Duration = Duration::from_secs(30);
/// So long its log is waited for after it was told to end.
const END: Duration = Duration::from_secs(10);

/// A running Meshgate; killed when dropped.
pub(super) struct Gate {
    child: Child,
    address: SocketAddr,
    log: Lines<BufReader<ChildStderr>>,
    seen: Vec<String>,
}

/// What came of starting it.
pub(super) enum Started {
    /// It listens.
    Running(Box<Gate>),
    /// It refused the configuration, and said so.
    Refused(String),
}

/// What is around the filter.
pub(super) struct Around<'a> {
    /// The filter's name and its module.
    pub(super) filter: (&'a str, &'a Path),
    /// Its configuration.
    pub(super) config: &'a Value,
    /// The clusters and where their servers are; the first is the upstream.
    pub(super) clusters: &'a [(String, SocketAddr)],
}

impl Around<'_> {
    /// As a configuration: JSON is YAML, too.
    fn configuration(&self) -> Value {
        let (name, module) = self.filter;
        let clusters = self.clusters.iter();
        let clusters: Vec<_> = clusters
            .map(|(name, address)| json!({"name": name, "endpoints": [address.to_string()]}))
            .collect();
        let config = if self.config.is_null() { json!({}) } else { self.config.clone() };
        json!({
            "workers": 1,
            "listeners": [{"name": "case", "address": "127.0.0.1:0", "chain": "case", "cluster": self.clusters[0].0}],
            "chains": {"case": [{name: config}]},
            "filters": {name: {"module": module}},
            "clusters": clusters,
        })
    }
}

impl Gate {
    /// Starts it in this folder, which is for it alone.
    pub(super) async fn start(around: &Around<'_>, folder: &Path) -> Result<Started> {
        let file = folder.join("meshgate.yaml");
        let text = format!("{:#}\n", around.configuration());
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        let program = std::env::current_exe().context("where this program lies is not known")?;
        let mut command = Command::new(program);
        command.args(["--log-format", "json", "run"]).arg(&file).env("MESHGATE_LOG", "info");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().context("cannot start another Meshgate")?;
        let stderr = child.stderr.take().context("its log is not to be had")?;
        let mut log = BufReader::new(stderr).lines();
        let mut seen = Vec::new();
        let listening = tokio::time::timeout(START, listening(&mut log, &mut seen)).await;
        match listening.context("it did not begin to listen in time")?? {
            Some(address) => Ok(Started::Running(Box::new(Gate { child, address, log, seen }))),
            None => {
                let status = child.wait().await?;
                let said = seen.join("\n");
                if status.code() != Some(2) {
                    bail!("Meshgate ended with {status}:\n{said}");
                }
                Ok(Started::Refused(said))
            }
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it. Its log: what the filter wrote, and what went wrong.
    pub(super) async fn stop(mut self) -> Result<Vec<String>> {
        if let Some(id) =
            self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw)
        {
            rustix::process::kill_process(id, rustix::process::Signal::TERM)?;
        }
        let rest = async {
            while let Some(line) = self.log.next_line().await? {
                self.seen.push(line);
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(END, rest).await.context("it did not end in time")??;
        Ok(self.seen.iter().filter_map(|line| spoken(line)).collect())
    }
}

/// Reads the log until it says where it listens; none if it ends before.
async fn listening<R: AsyncRead + Unpin>(
    log: &mut Lines<BufReader<R>>,
    seen: &mut Vec<String>,
) -> Result<Option<SocketAddr>> {
    while let Some(line) = log.next_line().await? {
        let event: Value = serde_json::from_str(&line).unwrap_or_default();
        let address = event["address"].as_str().filter(|_| event["message"] == "listening");
        let address = address.and_then(|address| address.parse().ok());
        seen.push(line);
        if address.is_some() {
            return Ok(address);
        }
    }
    Ok(None)
}

/// A line of the log as people read it; none if it is Meshgate's own about its life.
fn spoken(line: &str) -> Option<String> {
    let Ok(Value::Object(event)) = serde_json::from_str(line) else { return Some(line.to_owned()) };
    if event.get("level").is_some_and(|level| level == "INFO") && !event.contains_key("filter") {
        return None;
    }
    let word = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut text = event.get("level").map(word).unwrap_or_default();
    if let Some(message) = event.get("message") {
        text = format!("{text} {}", word(message));
    }
    for (key, value) in &event {
        if !matches!(key.as_str(), "timestamp" | "level" | "message" | "target") {
            text = format!("{text} {key}={}", word(value));
        }
    }
    Some(text)
}
