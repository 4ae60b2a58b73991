//! What is compared. Each server's file says how it is found, asked for its version, configured and started.

mod envoy;
mod haproxy;
mod meshgate;
mod nginx;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

pub(crate) use self::meshgate::Chain;
use crate::link::{Certificates, Link};

/// One line of the tables.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    /// Its name on the command line (`--only`) and in the JSON file.
    pub(crate) key: &'static str,
    /// Its name in the tables.
    pub(crate) title: &'static str,
    /// How it is started.
    pub(crate) server: Server,
}

/// The servers, with what varies between the lines.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Server {
    /// The generator talks to the backend.
    Direct,
    /// nginx, one worker process.
    Nginx,
    /// HAProxy, one thread.
    HaProxy,
    /// Envoy, one worker thread, with so many Wasm filters.
    Envoy(usize),
    /// Meshgate, one worker.
    Meshgate(Chain),
}

/// Where a subject's parts are.
pub(crate) struct Places {
    /// The Meshgate binary.
    pub(crate) meshgate: PathBuf,
    /// The module that both Envoy and Meshgate run.
    pub(crate) module: PathBuf,
    /// Envoy's binary, if any was named.
    pub(crate) envoy: Option<PathBuf>,
    /// An empty directory that lives as long as the comparison.
    pub(crate) scratch: PathBuf,
}

/// What one start needs.
pub(crate) struct Start<'a> {
    /// Where everything is.
    pub(crate) places: &'a Places,
    /// The program, as [`Server::find`] answered.
    pub(crate) program: &'a Path,
    /// A directory of its own.
    pub(crate) directory: &'a Path,
    /// Where the subject must listen.
    pub(crate) listen: SocketAddr,
    /// Where it must forward to.
    pub(crate) backend: SocketAddr,
    /// What it must speak.
    pub(crate) link: Link,
    /// What it shows, and checks others against.
    pub(crate) certificates: &'a Certificates,
}

/// Every line, in the order of the tables.
pub(crate) fn all() -> Vec<Subject> {
    let subject = |key, title, server| Subject { key, title, server };
    vec![
        subject("direct", "direct connection", Server::Direct),
        subject("nginx", "nginx", Server::Nginx),
        subject("haproxy", "HAProxy", Server::HaProxy),
        subject("envoy-0", "Envoy, no filters", Server::Envoy(0)),
        subject("envoy-1", "Envoy, 1 Wasm filter", Server::Envoy(1)),
        subject("envoy-5", "Envoy, 5 Wasm filters", Server::Envoy(5)),
        subject("meshgate-0", "Meshgate, no filters", Server::Meshgate(Chain::Same(0))),
        subject("meshgate-1", "Meshgate, 1 Wasm filter", Server::Meshgate(Chain::Same(1))),
        subject("meshgate-5", "Meshgate, 5 Wasm filters", Server::Meshgate(Chain::Same(5))),
        subject(
            "meshgate-standard",
            "Meshgate, telemetry + authz + fault + retry + routing",
            Server::Meshgate(Chain::Standard),
        ),
        subject(
            "meshgate-pair",
            "two of these in a row, mutual TLS between them",
            Server::Meshgate(Chain::Pair),
        ),
    ]
}

impl Server {
    /// The program to start; None for the direct connection. Err: why there is none.
    pub(crate) fn find(self, places: &Places) -> Result<Option<PathBuf>> {
        match self {
            Self::Direct => Ok(None),
            Self::Nginx => nginx::find().map(Some),
            Self::HaProxy => haproxy::find().map(Some),
            Self::Envoy(filters) => envoy::find(places, filters).map(Some),
            Self::Meshgate(chain) => meshgate::find(places, chain).map(Some),
        }
    }

    /// The version that `program` says it has.
    pub(crate) fn version(self, program: &Path) -> Result<String> {
        match self {
            Self::Direct => Ok(String::new()),
            Self::Nginx => nginx::version(program),
            Self::HaProxy => haproxy::version(program),
            Self::Envoy(_) => envoy::version(program),
            Self::Meshgate(_) => meshgate::version(program),
        }
    }

    /// Writes the configuration and answers the command that runs the server in the foreground.
    pub(crate) fn command(self, start: &Start<'_>) -> Result<Command> {
        match self {
            Self::Direct => anyhow::bail!("a direct connection has no process"),
            Self::Nginx => nginx::command(start),
            Self::HaProxy => haproxy::command(start),
            Self::Envoy(filters) => envoy::command(start, filters),
            Self::Meshgate(chain) => meshgate::command(start, chain),
        }
    }

    /// Whether it is measured over this link: the backend itself speaks no HTTP/2, and two proxies in a row have a link of their
    /// own between them.
    pub(crate) fn speaks(self, link: Link) -> bool {
        match self {
            Self::Direct => link != Link::Http2,
            Self::Meshgate(Chain::Pair) => link == Link::Http1,
            _ => true,
        }
    }

    /// Response fields by which every response shows that the filters ran.
    pub(crate) fn fields(self) -> Vec<String> {
        match self {
            Self::Direct | Self::Nginx | Self::HaProxy => Vec::new(),
            Self::Envoy(filters) => (1..=filters).map(field).collect(),
            Self::Meshgate(Chain::Same(filters)) => (1..=filters).map(field).collect(),
            Self::Meshgate(Chain::Standard | Chain::Pair) => Vec::new(),
        }
    }
}

/// The response field that the filter at `place` (from 1) sets.
fn field(place: usize) -> String {
    format!("x-bench-{place}")
}

/// The configuration of that filter, the standard filter `headers`, as JSON.
fn headers_configuration(place: usize) -> String {
    format!(r#"{{"response":{{"set":{{"{}":"on"}}}}}}"#, field(place))
}

/// What `program` prints when called with `argument`, both streams.
fn output_of(program: &Path, argument: &str) -> Result<String> {
    let output = Command::new(program)
        .arg(argument)
        .output()
        .with_context(|| format!("cannot run {}", program.display()))?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    Ok(text)
}
