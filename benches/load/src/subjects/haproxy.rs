//! HAProxy with one thread and upstream connections that all requests may share.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{Start, output_of};
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
    bind {listen}
    default_backend backend
backend backend
    server one {backend}
"
    );
    fs::write(&file, configuration)?;
    let mut command = Command::new(start.program);
    command.arg("-db").arg("-f").arg(&file);
    Ok(command)
}
