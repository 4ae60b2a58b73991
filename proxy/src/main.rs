//! The `meshgate` binary: arguments → log → command → exit code.

mod cli;

use std::process::ExitCode;

use clap::Parser;
use meshgate::telemetry::{log, panics};

/// Memory for requests comes and goes by the thousand per second on every worker; this allocator keeps that off any shared lock.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    if let Err(error) = log::start(cli.log_format.into()) {
        return cli::refuse(&error);
    }
    panics::watch();
    let code = match cli.command {
        cli::Command::Run(run) => cli::run(run),
        cli::Command::Check(source) => cli::check(source),
        cli::Command::Schema => cli::schema(),
        cli::Command::Filter(command) => cli::filter(command),
    };
    log::finish();
    code
}
