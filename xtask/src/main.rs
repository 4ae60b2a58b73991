//! `cargo xtask …`: the repository's verbs, each one word. Used by people and by `.ci/run` alike.
//!
//! A verb says what it does, needs no answers, and ends with 0 or 1.

mod bench;
mod checks;
mod demo;
mod filters;
mod http;
mod languages;
mod layers;
mod tools;
mod workspace;

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Result, bail};
use meshgate_kit::say;
use meshgate_kit::toolchain::Toolchain;

const HELP: &str = "\
cargo xtask <verb>

  setup             find or install what is needed to build filters, and guests in other languages, and build them; and fetch
                    what some tests run
  filters           build every filter, guest and example to target/{filters,guests,examples}/*.wasm
  demo              set up, build, and run Meshgate with three filters and two upstreams; prints lines to try
  demo --check      the same on other ports: tries its own lines and a reload, and ends
  test              set up, build, and run every test
  lint              check format, layers and clippy's warnings
  bench [...]       run the criterion benches; arguments go to criterion
  bench load [...]  compare whole processes under load; arguments go to the comparison
  bench filters     measure what each standard filter costs an exchange
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let Some((verb, rest)) = arguments.split_first() else { bail!("which verb?\n\n{HELP}") };
    match (verb.as_str(), rest) {
        ("setup", []) => {
            say(&format!("filters are built with {}", Toolchain::choose(&workspace::target())?));
            filters::build()?;
            languages::build(languages::Missing::Install)?;
            tools::prometheus()
        }
        ("filters", []) => {
            filters::build()?;
            languages::build(languages::Missing::InstallOnce)
        }
        ("demo", []) => demo::run(),
        ("demo", [option]) if option == "--check" => demo::check(),
        ("demo-guide", []) => demo::guide(),
        ("test", []) => checks::test(),
        ("lint", []) => checks::lint(),
        ("bench", arguments) => bench::run(arguments),
        ("help" | "--help" | "-h", _) => {
            write!(std::io::stdout(), "{HELP}")?;
            Ok(())
        }
        _ => bail!("no such verb: {}\n\n{HELP}", arguments.join(" ")),
    }
}
