//! `meshgate filter …`: what an author of filters needs, from a new crate to figures.

mod bench;
mod cases;
mod dev;
mod inspect;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use meshgate_kit::build::{Build, Built};
use meshgate_kit::package::Package;
use meshgate_kit::say;
use meshgate_kit::template::{self, Sdk};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a new filter's crate: a filter that works, its test, cases, an example configuration and a README
    New {
        /// The filter's name: lowercase letters, digits and dashes
        name: String,
        /// Where to make it, instead of a folder of its name here
        #[arg(long, value_name = "FOLDER")]
        path: Option<PathBuf>,
        /// The folder of the SDK's crate, instead of the one that this program was built with
        #[arg(long, value_name = "FOLDER")]
        sdk: Option<PathBuf>,
    },
    /// Compile a filter's crate to WebAssembly, with its manifest inside
    Build {
        #[command(flatten)]
        package: Folder,
        /// Where to put the module, instead of target/filters/NAME.wasm
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Run cases against the compiled module in a real Meshgate: exit code 0 if all pass, 1 if not, 2 if a file of cases is wrong
    Test(Tested),
    /// Build, run and watch: a change to the filter's sources is live as soon as it compiles
    Dev {
        #[command(flatten)]
        package: Folder,
        /// The configuration to run, instead of the folder's meshgate.yaml
        #[arg(short, long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Measure a module, callback by callback: time, and what is copied, for the exchange of a case
    Bench(bench::Measured),
    /// Say what is in a module, and what Meshgate offers of what it asks for: exit code 0 if it could run, 2 if not
    Inspect {
        /// The module
        file: PathBuf,
        /// Print its manifest, with the schema of its configuration, as JSON and nothing else
        #[arg(long)]
        manifest: bool,
    },
}

/// What cases are run against.
#[derive(Debug, Args)]
pub(crate) struct Tested {
    /// A file of cases, or a folder of them
    #[arg(default_value = "cases")]
    cases: PathBuf,
    /// The module, instead of what the crate in this folder is compiled to
    #[arg(long, value_name = "FILE")]
    module: Option<PathBuf>,
}

/// The folder of a filter's crate.
#[derive(Debug, Args)]
pub(crate) struct Folder {
    /// The folder of the filter's crate
    #[arg(value_name = "FOLDER", default_value = ".")]
    folder: PathBuf,
}

/// Does what is asked. `Err`: it could not, and why.
pub(crate) fn run(command: Command) -> Result<std::process::ExitCode> {
    match command {
        Command::New { name, path, sdk } => {
            let folder = path.unwrap_or_else(|| PathBuf::from(&name));
            new(&name, &folder, sdk)?;
        }
        Command::Build { package, output } => {
            let package = Package::find(&package.folder)?;
            let built = build(&package, output)?;
            say(&format!("{}: {} KiB", built.path.display(), built.size.div_ceil(1024)));
        }
        Command::Test(tested) => return test(tested),
        Command::Bench(measured) => return bench::run(&subject(measured.module.as_deref())?, &measured),
        Command::Dev { package, config } => return dev::dev(&Package::find(&package.folder)?, config),
        Command::Inspect { file, manifest } => return inspect::inspect(&file, manifest),
    }
    Ok(std::process::ExitCode::SUCCESS)
}

fn new(name: &str, folder: &Path, sdk: Option<PathBuf>) -> Result<()> {
    let sdk = match sdk {
        // The crate may be moved about, and the SDK stays where it is.
        Some(folder) => {
            Sdk::Folder(folder.canonicalize().with_context(|| format!("cannot find {}", folder.display()))?)
        }
        None => Sdk::nearest(),
    };
    template::create(name, folder, &sdk)?;
    let folder = folder.display();
    say(&format!(
        "{folder} is a filter. Next:\n  cd {folder}\n  cargo test\n  meshgate filter test\n  meshgate filter dev"
    ));
    Ok(())
}

fn test(tested: Tested) -> Result<std::process::ExitCode> {
    cases::run(&subject(tested.module.as_deref())?, &tested.cases)
}

/// The module that was named, or what the crate in this folder is compiled to.
fn subject(module: Option<&Path>) -> Result<cases::Subject> {
    let Some(module) = module else {
        let package = Package::find(Path::new("."))?;
        return Ok(cases::Subject { name: package.filter().to_owned(), module: build(&package, None)?.path });
    };
    let module = module.canonicalize().with_context(|| format!("cannot find {}", module.display()))?;
    let name = module.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    Ok(cases::Subject { name: name.unwrap_or_default(), module })
}

fn build(package: &Package, output: Option<PathBuf>) -> Result<Built> {
    // Without a lock file cargo makes one.
    let locked = false;
    Build { packages: &[package], locked }.compile()?;
    Build::install(package, &output.unwrap_or_else(|| package.module()))
}
