//! `cargo xtask bench`: the criterion benches, whole processes compared, and what each standard filter costs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use meshgate_kit::{commands, package, say};
use serde_json::Value;

use crate::{filters, workspace};

/// `bench [arguments]` runs the criterion benches, `bench load [arguments]` the comparison of whole processes, `bench filters`
/// each standard filter on the exchange of its case in `benches/filters/`.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    filters::build()?;
    match arguments.split_first() {
        Some((first, rest)) if first == "load" => {
            build(&["--bin", "meshgate", "--bin", "meshgate-load"])?;
            commands::run(Command::new(binary("meshgate-load")).args(rest))
        }
        Some((first, rest)) if first == "filters" => {
            ensure!(rest.is_empty(), "bench filters has no arguments");
            build(&["--bin", "meshgate", "--bin", "meshgate-load"])?;
            filters_table()
        }
        first => {
            // As `cargo bench` has it, what follows `--` is criterion's; here everything is.
            let chosen = first.filter(|(first, _)| *first == "--").map_or(arguments, |(_, rest)| rest);
            ensure!(any_bench(chosen)?, "no bench goes by {chosen:?}; see benches/README.md");
            commands::run(wasm_bench().args(chosen))
        }
    }
}

/// Whether these arguments choose any bench at all: criterion measures nothing and says nothing if they do not.
fn any_bench(arguments: &[String]) -> Result<bool> {
    let mut bench = wasm_bench();
    bench.arg("--list").args(arguments.iter().filter(|argument| *argument != "--list"));
    let output = bench.stderr(Stdio::inherit()).output();
    let output = output.context("cannot run cargo bench")?;
    ensure!(output.status.success(), "cargo bench cannot list the benches of the Wasm host");
    Ok(!output.stdout.trim_ascii().is_empty())
}

fn wasm_bench() -> Command {
    let mut command = cargo();
    command.args(["bench", "--locked", "--workspace", "--bench", "wasm", "--"]);
    command
}

/// The whole workspace is selected in all cases, for the same features: wasmtime is compiled once.
fn build(binaries: &[&str]) -> Result<()> {
    say("building meshgate");
    commands::run(cargo().args(["build", "--locked", "--release", "--workspace"]).args(binaries))
}

fn cargo() -> Command {
    let mut command = Command::new(package::cargo());
    command.current_dir(workspace::root());
    command
}

fn binary(name: &str) -> PathBuf {
    workspace::target().join("release").join(name)
}

/// Prints a row for each case, in the form that `benches/README.md` has.
fn filters_table() -> Result<()> {
    let folder = workspace::root().join("benches/filters");
    let entries = std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut cases = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    cases.sort();
    let mut table = "| filter | what it does | an exchange, p50 | p99 | copied | memory of a VM | module |\n|---|---|--:|--:|--:|--:|--:|\n".to_owned();
    for case in cases {
        table.push_str(&row(&case)?);
    }
    // The report is the last thing: what came before is on standard error.
    use std::io::Write as _;
    write!(std::io::stdout(), "{table}").context("cannot print the table")
}

fn row(case: &Path) -> Result<String> {
    let name = case.file_stem().unwrap_or_default().to_string_lossy();
    let module = workspace::artifacts(workspace::Group::Filters).join(format!("{name}.wasm"));
    say(&format!("measuring {name}"));
    let mut bench = Command::new(binary("meshgate"));
    bench.args(["filter", "bench", "--json"]).arg(&module).arg("--cases").arg(case);
    let output = bench.stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("cannot run {}", bench.get_program().display()))?;
    if !output.status.success() {
        bail!("filter bench failed for {}", case.display());
    }
    let report: Value = serde_json::from_slice(&output.stdout).context("filter bench printed no JSON")?;
    let number = |pointer: &str| report.pointer(pointer).and_then(Value::as_u64).unwrap_or_default();
    let what = report.pointer("/case").and_then(Value::as_str).unwrap_or_default();
    let what = what.split_once(" (").map_or(what, |(what, _)| what);
    Ok(format!(
        "| `{name}` | {what} | {} | {} | {} B | {} KiB | {} KiB |\n",
        microseconds(number("/exchange/p50")),
        microseconds(number("/exchange/p99")),
        number("/exchange/copied"),
        number("/memory/warm") / 1024,
        number("/module/size") / 1024,
    ))
}

fn microseconds(nanoseconds: u64) -> String {
    format!("{:.2} µs", nanoseconds as f64 / 1000.0)
}
