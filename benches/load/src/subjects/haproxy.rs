//! HAProxy with one thread and upstream connections that all requests may share.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{Start, output_of};
use crate::link::{Link, NAME};
use crate::process::find_program;

pub(super) fn find() -> Result<PathBuf> {
    find_program("haproxy").context("not installed (Debian: apt-get install haproxy)")
}

pub(super) fn version(program: &Path) -> Result<String> {
    let text = output_of(program, "-v")?;
    Ok(text.split_whitespace().nth(2).unwrap_or_default().to_owned())
}

pub(super) fn command(start: &Start<'_>) -> Result<Command> {
    let file = start.directory.join("haproxy.cfg");
    let (listen, backend) = (start.listen, start.backend);
    let (both, ca) = (start.certificates.file("both.pem"), start.certificates.file("ca.pem"));
    let (bind, server) = match start.link {
        Link::Http1 => (String::new(), String::new()),
        Link::Http2 => (" proto h2".to_owned(), String::new()),
        Link::Tls => (format!(" ssl crt {both} ssl-min-ver TLSv1.3 alpn http/1.1"), String::new()),
        Link::Mtls => (
            format!(" ssl crt {both} ssl-min-ver TLSv1.3 alpn http/1.1 ca-file {ca} verify required"),
            format!(
                " ssl crt {both} ssl-min-ver TLSv1.3 ca-file {ca} verify required verifyhost {NAME} sni str({NAME})"
            ),
        ),
    };
    let configuration = format!(
        "global
    nbthread 1
    maxconn 4096
defaults
    mode http
    http-reuse always
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend web
    bind {listen}{bind}
    default_backend backend
backend backend
    server one {backend}{server}
"
    );
    fs::write(&file, configuration)?;
    let mut command = Command::new(start.program);
    command.arg("-db").arg("-f").arg(&file);
    Ok(command)
}
