//! `cargo xtask test` and `lint`.

use std::process::Command;

use anyhow::Result;
use meshgate_kit::{commands, package, say};

use crate::{filters, languages, layers, tools, workspace};

/// Builds everything and runs every test.
pub(crate) fn test() -> Result<()> {
    filters::build()?;
    languages::build(languages::Missing::InstallOnce)?;
    tools::prometheus()?;
    // The end-to-end tests start the binary. Building it together with the tests gives every crate the same features, and
    // so compiles wasmtime once.
    step("building meshgate and the tests", &["build", "--locked", "--workspace", "--bins", "--tests"])?;
    step("running the tests", &["test", "--locked", "--workspace"])?;
    // It compiles, and the others are about times: not at once.
    let kit = ["test", "--locked", "--workspace", "--test", "e2e", "--", "--ignored", "kit::"];
    step("running the author's kit, from a new crate to a change that is live", &kit)
}

/// Formatting, the layer test, clippy and the SDK's documentation with warnings as errors. Each runs, whatever the others found.
pub(crate) fn lint() -> Result<()> {
    let format = step("checking the format", &["fmt", "--all", "--check"]);
    say("checking the layers");
    let layers = layers::check();
    // Compiling the proxy needs the filters that it embeds.
    let clippy = filters::build().and_then(|()| {
        let arguments = ["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"];
        step("running clippy", &arguments)
    });
    say("building the SDK's documentation");
    let documentation = ["doc", "--locked", "--no-deps", "-p", "meshgate-sdk", "-p", "meshgate-abi"];
    let documentation = commands::run(cargo().args(documentation).env("RUSTDOCFLAGS", "-D warnings"));
    format.and(layers).and(clippy).and(documentation)
}

fn step(what: &str, arguments: &[&str]) -> Result<()> {
    say(what);
    commands::run(cargo().args(arguments))
}

fn cargo() -> Command {
    let mut command = Command::new(package::cargo());
    command.current_dir(workspace::root());
    command
}
