//! Meshgate with one worker and no access log, as the others have none.

use std::fmt::Write as _;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use super::{Places, Start, headers_configuration, output_of};
use crate::link::{Link, NAME};

/// Which chain a line runs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Chain {
    /// So many filters of the module that Envoy runs too.
    Same(usize),
    /// Five standard filters that do what most installations want: telemetry, authorization, faults (none), routing and retries.
    Standard,
    /// The same in each of two proxies, as at a client and at a server, which speak mutual TLS to each other.
    Pair,
}

/// A proxy on a request's way.
struct Hop {
    listen: SocketAddr,
    backend: SocketAddr,
    downstream: Link,
    upstream: Link,
}

pub(super) fn find(places: &Places, chain: Chain) -> Result<PathBuf> {
    if matches!(chain, Chain::Same(1..)) && !places.module.is_file() {
        bail!("no module at {} (cargo xtask filters builds it)", places.module.display());
    }
    if !places.meshgate.is_file() {
        bail!("no binary at {} (cargo build --release)", places.meshgate.display());
    }
    Ok(places.meshgate.clone())
}

pub(super) fn version(program: &Path) -> Result<String> {
    let text = output_of(program, "--version")?;
    Ok(text.split_whitespace().nth(1).unwrap_or_default().to_owned())
}

pub(super) fn command(start: &Start<'_>, chain: Chain) -> Result<Command> {
    let (listen, backend, link) = (start.listen, start.backend, start.link);
    let mut command = if matches!(chain, Chain::Pair) {
        let between = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let server = Hop { listen: between, backend, downstream: Link::Mtls, upstream: Link::Http1 };
        let client = Hop { listen, backend: between, downstream: Link::Http1, upstream: Link::Mtls };
        let mut command = Command::new("sh");
        command.args(["-c", "\"$0\" run -c \"$1\" & exec \"$0\" run -c \"$2\""]).arg(start.program);
        command.arg(write(start, "server.yaml", &server, chain)?).arg(write(
            start,
            "client.yaml",
            &client,
            chain,
        )?);
        command
    } else {
        let hop = Hop { listen, backend, downstream: link, upstream: link };
        let mut command = Command::new(start.program);
        command.args(["run", "-c"]).arg(write(start, "meshgate.yaml", &hop, chain)?);
        command
    };
    // One cache for all starts: what is measured at rest is a start with compiled modules, as after a restart.
    command.env("XDG_CACHE_HOME", start.places.scratch.join("cache"));
    Ok(command)
}

fn write(start: &Start<'_>, name: &str, hop: &Hop, chain: Chain) -> Result<PathBuf> {
    let file = start.directory.join(name);
    fs::write(&file, configuration(start, hop, chain)?)?;
    Ok(file)
}

fn configuration(start: &Start<'_>, hop: &Hop, chain: Chain) -> Result<String> {
    let mut text = format!(
        "workers: 1
access_log: {{to: none}}
listeners:
  - name: web
    address: {}
    chain: web
{}{}clusters:
  - name: backend
    endpoints: [\"{}\"]
{}",
        hop.listen,
        // Without a default, a response shows that the last filter of the chain ran.
        if matches!(chain, Chain::Standard | Chain::Pair) { "" } else { "    cluster: backend\n" },
        downstream_tls(start, hop.downstream),
        hop.backend,
        upstream_tls(start, hop.upstream)
    );
    match chain {
        Chain::Same(0) => text.push_str("chains:\n  web: []\n"),
        Chain::Same(filters) => {
            text.push_str("filters:\n");
            for place in 1..=filters {
                writeln!(text, "  filter-{place}: {{module: \"{}\"}}", start.places.module.display())?;
            }
            text.push_str("chains:\n  web:\n");
            for place in 1..=filters {
                writeln!(text, "    - filter-{place}: {}", headers_configuration(place))?;
            }
        }
        Chain::Standard | Chain::Pair => text.push_str(
            "chains:
  web:
    - telemetry: {}
    - authz:
        deny: {admin: {from: {not_addresses: [127.0.0.0/8]}, to: {paths: [/admin, /admin/*]}}}
        allow: {readers: {to: {methods: [GET, HEAD]}}, writers: {when: {claims: {groups: [staff]}}}}
    - fault: {delay: {percent: 0, duration: 100ms}, abort: {percent: 0, status: 503}}
    - retry: {attempts: 3, per_try_timeout: 2s, if: [5xx, connect-failure]}
    - routing: {routes: [{name: all, match: {path: /**}, to: backend}]}
",
        ),
    }
    Ok(text)
}

fn downstream_tls(start: &Start<'_>, link: Link) -> String {
    let file = |name| start.certificates.file(name);
    let clients = match link {
        Link::Http1 | Link::Http2 => return String::new(),
        Link::Tls => String::new(),
        Link::Mtls => format!(", client_certificates: {{ca: {}, match_authority: false}}", file("ca.pem")),
    };
    format!(
        "    tls: {{min_version: tls1.3, certificates: [{{certificate: {}, key: {}}}]{clients}}}\n",
        file("own.pem"),
        file("own.key")
    )
}

fn upstream_tls(start: &Start<'_>, link: Link) -> String {
    if link != Link::Mtls {
        return String::new();
    }
    let file = |name| start.certificates.file(name);
    format!(
        "    tls: {{min_version: tls1.3, server_name: {NAME}, ca: {}, certificate: {}, key: {}}}\n",
        file("ca.pem"),
        file("own.pem"),
        file("own.key")
    )
}
