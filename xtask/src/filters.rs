//! Builds every filter, guest and example to WebAssembly and puts its manifest inside. Used by `setup`, `filters`,
//! `demo` and `test`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::toolchain::{TARGET, Toolchain};
use crate::workspace::{self, ModulePackage};
use crate::{commands, say, wasm};

/// Builds what changed, and prints each module's name and size.
pub(crate) fn build() -> Result<()> {
    let toolchain = Toolchain::choose()?;
    let packages = workspace::module_packages()?;
    compile(&toolchain, &packages)?;
    let manifests = manifests(&packages)?;
    for package in &packages {
        install(package, &manifests)?;
    }
    Ok(())
}

/// Compiles all packages for wasm32 in one run of cargo, in a target folder of their own: cargo locks such a folder, and
/// other compilers' results would push each other out.
fn compile(toolchain: &Toolchain, packages: &[ModulePackage]) -> Result<()> {
    let mut command = Command::new(workspace::cargo());
    command.current_dir(workspace::root());
    command.args(["build", "--quiet", "--locked", "--profile", "filter"]);
    for package in packages {
        command.args(["--package", &package.package]);
    }
    command.env("CARGO_TARGET_DIR", wasm_target());
    toolchain.apply(&mut command)?;
    commands::run(&mut command).context("the filters did not compile")
}

/// Lets every package that is built on the SDK write its manifest. That is a test of the package, run natively, because
/// the schema is made from the filter's Rust type.
fn manifests(packages: &[ModulePackage]) -> Result<PathBuf> {
    let folder = workspace::target().join("manifests");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let mut command = Command::new(workspace::cargo());
    command.current_dir(workspace::root()).args(["test", "--quiet", "--locked", "--lib"]);
    for package in packages.iter().filter(|package| package.has_manifest) {
        command.args(["--package", &package.package]);
    }
    command.args(["--", "meshgate_manifest"]).env("MESHGATE_MANIFEST", &folder);
    command.stdout(std::process::Stdio::null());
    commands::run(&mut command).context("the filters' manifests could not be made")?;
    Ok(folder)
}

/// Puts the finished module in its place, unless the very same bytes are there already.
fn install(package: &ModulePackage, manifests: &Path) -> Result<()> {
    let file = format!("{}.wasm", package.package.replace('-', "_"));
    let built = wasm_target().join(TARGET).join("filter").join(file);
    let mut module = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    if package.has_manifest {
        let path = manifests.join(format!("{}.json", package.package));
        let manifest = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        module = wasm::with_custom_section(&module, wasm::MANIFEST_SECTION, &manifest)?;
    }
    let folder = workspace::artifacts(package.group);
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let path = folder.join(format!("{}.wasm", package.name));
    if fs::read(&path).ok().as_ref() != Some(&module) {
        replace(&path, &module)?;
    }
    let shown = path.strip_prefix(workspace::root()).unwrap_or(&path);
    say(&format!("{:<40} {:>5} KiB", shown.display(), module.len().div_ceil(1024)));
    Ok(())
}

/// Writes beside and renames, so that a running proxy that watches the file never reads half of it.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let beside = path.with_extension("wasm.new");
    fs::write(&beside, bytes).with_context(|| format!("cannot write {}", beside.display()))?;
    fs::rename(&beside, path).with_context(|| format!("cannot replace {}", path.display()))
}

fn wasm_target() -> PathBuf {
    workspace::target().join("wasm")
}
