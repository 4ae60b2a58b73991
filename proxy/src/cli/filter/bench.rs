//! `meshgate filter bench`: what a module costs, callback by callback, in the host that the proxy has.
//!
//! The exchange that is measured is a case's, without sockets: calls are answered at once, and the clock that the filter
//! reads jumps to its next tick when nothing else is left to wait for.

mod exchange;
mod grpc;
mod host;
mod report;

use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use meshgate_wasm::{Callbacks, Engine, EngineOptions, Module, Plugin, PluginSpec, Shared, Vms};
use serde_json::Value;

use self::exchange::{Exchanges, Sample};
use self::host::Bench;
use self::report::Report;
use super::cases::{self, Case, Subject};
use crate::cli::{print, refuse};

/// How many VMs are started to see what that takes.
const STARTS: usize = 20;
/// No callback is to be stopped because the machine was busy with something else.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is measured, and for how long.
#[derive(Debug, Args)]
pub(crate) struct Measured {
    /// The module, instead of what the crate in this folder is compiled to
    #[arg(value_name = "FILE")]
    pub(super) module: Option<std::path::PathBuf>,
    /// A file of cases, or a folder of them: the first exchange of a case is what is measured. Default: `cases`, if it is
    /// there; otherwise a plain GET, without a configuration
    #[arg(long, value_name = "PATH")]
    cases: Option<std::path::PathBuf>,
    /// The case's name, instead of the first one
    #[arg(long, value_name = "NAME")]
    case: Option<String>,
    /// How long to measure
    #[arg(long, value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=3600))]
    seconds: u16,
    /// Print one JSON object instead: times in nanoseconds, sizes in bytes
    #[arg(long)]
    json: bool,
}

/// Measures, and prints what came of it.
pub(super) fn run(subject: &Subject, measured: &Measured) -> Result<ExitCode> {
    let chosen = match chosen(measured)? {
        Ok(chosen) => chosen,
        Err(refused) => return Ok(refused),
    };
    let bytes = std::fs::read(&subject.module)
        .with_context(|| format!("cannot read {}", subject.module.display()))?;
    let engine =
        Engine::new(EngineOptions::default()).context("WebAssembly cannot be run on this machine")?;
    let begun = Instant::now();
    let module = match engine.compile(&subject.name, &bytes) {
        Ok(module) => module,
        Err(error) => return Ok(refuse(&format!("{}: {error}", subject.module.display()))),
    };
    let has = |callback| module.callbacks().contains(callback);
    let callbacks = [
        Callbacks::REQUEST_HEADERS,
        Callbacks::REQUEST_BODY,
        Callbacks::RESPONSE_HEADERS,
        Callbacks::RESPONSE_BODY,
    ];
    ensure!(
        callbacks.into_iter().any(has),
        "{} has no callback of HTTP exchanges: there is nothing to measure",
        subject.name
    );
    let mut report = Report::new(&subject.name, &chosen.what, bytes.len(), begun.elapsed());
    let starting = Starting { engine: &engine, spec: Arc::new(spec(subject, module, &chosen.config)) };
    for _ in 0..STARTS {
        let begun = Instant::now();
        let started = starting.start()?;
        report.started(begun.elapsed());
        drop(started);
    }
    let (host, plugin, _vms) = starting.start()?;
    let sample = Sample::of(&chosen.case)?;
    let mut exchanges = Exchanges::new(&sample, &host, &plugin);
    exchanges.warm_up()?;
    report.memory_before = plugin.stats().memory();
    report.measured = exchanges.run_for(Duration::from_secs(measured.seconds.into()))?;
    report.memory_after = plugin.stats().memory();
    Ok(print(&if measured.json { format!("{}\n", report.json()) } else { report.to_string() }))
}

/// What makes VMs: each with everything of its own.
struct Starting<'a> {
    engine: &'a Engine,
    spec: Arc<PluginSpec>,
}

impl Starting<'_> {
    fn start(&self) -> Result<(Rc<Bench>, Rc<Plugin>, Vms)> {
        let host = Rc::new(Bench::new());
        let vms =
            Vms::new(self.engine.clone(), Rc::clone(&host) as Rc<dyn meshgate_wasm::Host>, Shared::new());
        let plugin = vms.plugin(Arc::clone(&self.spec)).map_err(|error| {
            let error = host.explained(&error);
            if self.spec.configuration.is_empty() {
                // Most likely that is why.
                error.context(
                    "without a configuration it does not start; the cases of --cases PATH give it one",
                )
            } else {
                error
            }
        })?;
        Ok((host, plugin, vms))
    }
}

fn spec(subject: &Subject, module: Module, config: &Value) -> PluginSpec {
    let configuration = match config {
        Value::Null => Vec::new(),
        Value::String(text) => text.clone().into_bytes(),
        other => other.to_string().into_bytes(),
    };
    let mut spec = PluginSpec::new(&subject.name, module, configuration);
    spec.limits.time = PATIENCE;
    spec.limits.body_time = PATIENCE;
    spec.limits.start_time = PATIENCE;
    spec.limits.cpu_percent = 100;
    spec
}

/// The case whose exchange is measured.
struct Chosen {
    what: String,
    case: Case,
    config: Value,
}

/// `Ok(Err(…))`: a file of cases is wrong, which has been said.
fn chosen(measured: &Measured) -> Result<Result<Chosen, ExitCode>> {
    let folder = Path::new("cases");
    let path = match &measured.cases {
        Some(path) => path,
        None if measured.module.is_none() && folder.is_dir() => folder,
        None => {
            ensure!(measured.case.is_none(), "--case NAME is one of which cases? --cases PATH says it");
            let (what, case) = ("GET /, answered with 200".to_owned(), Case::default());
            return Ok(Ok(Chosen { what, case, config: Value::Null }));
        }
    };
    for path in cases::files(path)? {
        let file = match cases::load(&path) {
            Ok(file) => file,
            Err(refused) => return Ok(Err(refused)),
        };
        let wanted = |case: &Case| match &measured.case {
            Some(name) => case.name == *name,
            None => case.expect.refused.is_none(),
        };
        if let Some(case) = file.cases.into_iter().find(wanted) {
            let config = case.config.clone().unwrap_or(file.config);
            let what = format!("{} ({})", case.name, path.display());
            return Ok(Ok(Chosen { what, case, config }));
        }
    }
    match &measured.case {
        Some(name) => anyhow::bail!("there is no case {name:?} in {}", path.display()),
        None => anyhow::bail!("there is no case in {} whose configuration is taken", path.display()),
    }
}
