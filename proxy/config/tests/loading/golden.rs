//! Every file in `tests/golden` and, beside it, what loading it prints: the configuration for `valid`, the errors for
//! `invalid`. With `MESHGATE_BLESS=1` the expected output is written instead of compared; read the difference.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use meshgate_config::{Config, Overload, WasmBounds, load_text};

use crate::fake::Table;

#[test]
fn valid_files_load_as_expected() {
    compare("valid", 8, |file, text| {
        let load = load_text(&name(file), text, Path::new("tests/golden"), &mut Table::default());
        let mut shown = match load.outcome {
            Ok(config) => show(&config),
            Err(errors) => panic!("{} is valid, but: {errors}", file.display()),
        };
        for looked_at in load.files {
            let _ = writeln!(shown, "looked at {}", looked_at.display());
        }
        shown
    });
}

#[test]
fn invalid_files_say_all_that_is_wrong() {
    compare("invalid", 30, |file, text| {
        let load = load_text(&name(file), text, Path::new("tests/golden"), &mut Table::default());
        match load.outcome {
            Ok(_) => panic!("{} is invalid, but loads", file.display()),
            Err(errors) => format!("{errors}\n"),
        }
    });
}

/// Runs every file of a folder, of which there must be enough to mean something, and reports all that differ.
fn compare(folder: &str, least: usize, run: impl Fn(&Path, &str) -> String) {
    let folder = Path::new("tests/golden").join(folder);
    let mut files: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    assert!(files.len() >= least, "only {} files in {}", files.len(), folder.display());
    let mut wrong = String::new();
    for file in files {
        let shown = run(&file, &fs::read_to_string(&file).unwrap());
        let expected = file.with_extension("txt");
        if std::env::var_os("MESHGATE_BLESS").is_some() {
            fs::write(&expected, &shown).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != shown {
            let _ = writeln!(wrong, "--- {} now gives\n{shown}", file.display());
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

fn name(file: &Path) -> String {
    file.file_name().unwrap().to_string_lossy().into_owned()
}

/// The configuration without its source, one part per line.
fn show(config: &Config) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{:?}\n{:?}\nworkers {:?}\n{:?}",
        config.admin, config.access_log, config.workers, config.drain
    );
    for listener in &config.listeners {
        let _ = writeln!(text, "{listener:?}");
    }
    for (id, chain) in config.chains.iter().enumerate() {
        let _ = writeln!(text, "chain {id} {:?}", chain.name);
        for filter in &chain.filters {
            let _ = writeln!(text, "  {filter:?}");
        }
    }
    for service in &config.services {
        let _ = writeln!(text, "service {service:?}");
    }
    if config.wasm != WasmBounds::default() {
        let _ = writeln!(text, "{:?}", config.wasm);
    }
    if config.overload != Overload::default() {
        let _ = writeln!(text, "{:?}", config.overload);
    }
    for cluster in &config.clusters {
        let _ = writeln!(text, "{cluster:?}");
    }
    text
}
