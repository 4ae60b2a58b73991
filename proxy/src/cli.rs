//! The command line: what can be asked of the binary, and the commands that do not serve traffic.

mod filter;

use std::fmt::Display;
use std::io::{self, Write};
use std::num::{NonZeroU16, NonZeroUsize};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use clap::{Args, Parser, Subcommand, ValueEnum};
use meshgate::server::{self, Builder, Options, ServerError};
use meshgate::snapshot::Snapshot;
use meshgate::telemetry::log;
use meshgate::telemetry::timestamp::rfc3339;
use meshgate_config::Config;

/// A proxy whose behaviour is WebAssembly filters, swapped while traffic flows.
#[derive(Debug, Parser)]
#[command(name = "meshgate", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// How the log on standard error is written
    ///
    /// The environment variable MESHGATE_LOG says what is logged, for example `info,meshgate::reload=debug`.
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    pub(crate) log_format: LogFormat,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the proxy until it is told to stop (SIGTERM drains, a second one ends it at once)
    Run(Run),
    /// Check a configuration as `run` would, without serving: 0 if it is good, 2 if not
    Check(Source),
    /// Print the JSON Schema of the configuration, for editors
    Schema,
    /// Make, build and try out filters
    #[command(subcommand)]
    Filter(filter::Command),
}

/// Where the configuration is: `FILE` and `--config FILE` say the same, for every command.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Source {
    /// The configuration; while the proxy runs, changes to it and to what it refers to take effect
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// The same as FILE
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Source {
    /// The one that was given: the parser has seen to it that there is one.
    fn into_path(self) -> PathBuf {
        self.file.or(self.config).unwrap_or_default()
    }
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    source: Source,
    /// Worker threads, instead of what the configuration says or one per core
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(NonZeroU16))]
    workers: Option<NonZeroU16>,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum LogFormat {
    /// One line for people
    Text,
    /// One JSON object per line
    Json,
}

impl From<LogFormat> for log::Format {
    fn from(format: LogFormat) -> Self {
        match format {
            LogFormat::Text => Self::Text,
            LogFormat::Json => Self::Json,
        }
    }
}

/// The exit code for a command that could not do its work.
const FAILED: u8 = 1;
/// The exit code for a configuration, or a command line, that is wrong.
const WRONG: u8 = 2;

/// Serves until told to stop.
pub(crate) fn run(run: Run) -> ExitCode {
    let options =
        Options { configuration: run.source.into_path(), workers: run.workers.map(NonZeroUsize::from) };
    match server::run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ ServerError::Configuration(_)) => refuse(&error),
        Err(error) => {
            complain(&error);
            FAILED.into()
        }
    }
}

/// Checks a configuration, and says on standard error what is wrong with it, or on standard output what is in it.
pub(crate) fn check(source: Source) -> ExitCode {
    let file = source.into_path();
    let builder = match Builder::new(file.clone()) {
        Ok(builder) => builder,
        Err(error) => {
            complain(&error);
            return FAILED.into();
        }
    };
    match builder.build_here().outcome {
        Ok(snapshot) => {
            warn_of_expired(&snapshot);
            print(&format!("{}: ok ({})\n", file.display(), contents(&snapshot.config)))
        }
        Err(diagnostics) => refuse(&diagnostics),
    }
}

/// A certificate that has expired is no mistake in the file, and nobody will want it.
fn warn_of_expired(snapshot: &Snapshot) {
    let now = SystemTime::now();
    for (user, held) in snapshot.certificates().filter(|(_, held)| held.facts.has_expired(now)) {
        let (file, since) = (held.file.display(), rfc3339(held.facts.not_after));
        complain(&format!(
            "warning: the certificate in {file}, of {user}, has expired: it was good until {since}"
        ));
    }
}

/// What a configuration consists of, in numbers.
fn contents(config: &Config) -> String {
    let filters = config.chains.iter().map(|chain| chain.filters.len()).sum();
    let numbers = [
        (config.listeners.len(), "listener"),
        (config.chains.len(), "chain"),
        (filters, "filter"),
        (config.clusters.len(), "cluster"),
    ];
    let count = |(number, noun)| format!("{number} {noun}{}", if number == 1 { "" } else { "s" });
    numbers.map(count).join(", ")
}

/// Helps an author of filters.
pub(crate) fn filter(command: filter::Command) -> ExitCode {
    filter::run(command).unwrap_or_else(|error| {
        complain(&format!("error: {error:#}"));
        FAILED.into()
    })
}

/// Prints the schema.
pub(crate) fn schema() -> ExitCode {
    print(&format!("{:#}\n", meshgate_config::schema()))
}

/// Says what is wrong with what the user gave us.
pub(crate) fn refuse(reason: &dyn Display) -> ExitCode {
    complain(reason);
    WRONG.into()
}

fn complain(reason: &dyn Display) {
    // Nobody is left to tell if standard error is closed.
    let _ = writeln!(io::stderr(), "{reason}");
}

/// Prints to standard output. A reader that has seen enough (`meshgate schema | head`) is no failure.
fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            complain(&error);
            FAILED.into()
        }
        _ => ExitCode::SUCCESS,
    }
}
