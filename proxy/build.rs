//! Embeds the standard filters: writes a table of every `target/filters/*.wasm`, by name, for `src/modules.rs`.
//!
//! The filters are compiled for another target, by another toolchain on some machines, so `cargo xtask filters` makes them and this only picks them up.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// Under the workspace's root, whatever `CARGO_TARGET_DIR` says: build scripts are not told that reliably.
const FILTERS: &str = "../target/filters";

fn main() -> io::Result<()> {
    let variable = |name| env::var_os(name).map(PathBuf::from).ok_or_else(|| io::Error::other(name));
    let filters = variable("CARGO_MANIFEST_DIR")?.join(FILTERS);
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={}", filters.display());
    fs::write(variable("OUT_DIR")?.join("embedded_filters.rs"), table(&modules(&filters)?))
}

/// The modules in the folder, sorted by name; none if there is no folder.
fn modules(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut modules = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "wasm") {
            modules.push(path.canonicalize()?);
        }
    }
    modules.sort();
    Ok(modules)
}

fn table(modules: &[PathBuf]) -> String {
    let mut table = String::new();
    if modules.is_empty() {
        table.push_str(
            "compile_error!(\"the standard filters are not built: run `cargo xtask setup` once, which builds them too\");\n",
        );
    }
    table.push_str("pub(super) static FILTERS: &[(&str, &[u8])] = &[\n");
    for path in modules {
        println!("cargo::rerun-if-changed={}", path.display());
        let name = path.file_stem().unwrap_or_default();
        // Writing to a String cannot fail.
        let _ = writeln!(table, "    ({name:?}, include_bytes!({path:?})),");
    }
    table.push_str("];\n");
    table
}
