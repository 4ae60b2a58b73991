//! From a filter's crate to a module: compiled for wasm32, with its manifest inside.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::package::{Package, cargo};
use crate::toolchain::{TARGET, Toolchain};
use crate::{commands, names, section};

/// How modules are compiled, in cargo's words; a workspace may say it otherwise with a profile `filter` of its own.
///
/// The name section stays, so that a trap is reported with the guest's function names.
const PROFILE: [(&str, &str); 6] = [
    ("inherits", "\"release\""),
    ("codegen-units", "1"),
    ("lto", "true"),
    ("opt-level", "3"),
    ("panic", "\"abort\""),
    ("strip", "\"debuginfo\""),
];

/// What came of a build.
#[derive(Debug)]
pub struct Built {
    /// Where the module lies.
    pub path: PathBuf,
    /// Its length in bytes.
    pub size: usize,
    /// Whether it differs from what lay there before.
    pub changed: bool,
}

/// Builds several packages of one workspace, in one run of cargo for each step.
#[derive(Debug)]
pub struct Build<'a> {
    /// What is built.
    pub packages: &'a [&'a Package],
    /// Whether `Cargo.lock` must be there and fit.
    pub locked: bool,
}

impl Build<'_> {
    /// Compiles them, and makes the manifests of those that have one. [`Build::install`] puts them together.
    ///
    /// # Errors
    /// There is no compiler for wasm32, or a crate does not compile; the compiler has said why.
    pub fn compile(&self) -> Result<()> {
        let Some(first) = self.packages.first() else { return Ok(()) };
        let toolchain = Toolchain::choose(&first.target)?;
        let mut command = self.cargo("build", first);
        command.args(["--profile", "filter"]);
        if !has_profile(&first.root)? {
            for (key, value) in PROFILE {
                command.arg("--config").arg(format!("profile.filter.{key}={value}"));
            }
        }
        for package in self.packages {
            command.args(["--package", &package.name]);
        }
        // A folder of its own: cargo locks one, and other compilers' results would push each other out.
        command.env("CARGO_TARGET_DIR", modules(first));
        toolchain.apply(&mut command, &first.root)?;
        ensure!(commands::succeeds(&mut command)?, "the filter did not compile");
        self.manifests(first)
    }

    /// Lets every package that is built on the SDK write its manifest. That is a test of the package, run natively,
    /// because the schema is made from the filter's Rust type.
    fn manifests(&self, first: &Package) -> Result<()> {
        let mut described = self.packages.iter().filter(|package| package.has_manifest).peekable();
        if described.peek().is_none() {
            return Ok(());
        }
        let folder = manifests(first);
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let mut command = self.cargo("test", first);
        command.arg("--lib");
        for package in described {
            command.args(["--package", &package.name]);
        }
        command.args(["--", "meshgate_manifest"]).env("MESHGATE_MANIFEST", &folder).stdout(Stdio::null());
        ensure!(commands::succeeds(&mut command)?, "the filter's manifest could not be made");
        Ok(())
    }

    fn cargo(&self, verb: &str, first: &Package) -> Command {
        let mut command = Command::new(cargo());
        command.current_dir(&first.root).args([verb, "--quiet"]);
        if self.locked {
            command.arg("--locked");
        }
        command
    }

    /// Puts a compiled package's module in its place with its manifest inside, unless the very same bytes are there.
    ///
    /// # Errors
    /// What [`Build::compile`] makes is not there, or the place cannot be written to.
    pub fn install(package: &Package, path: &Path) -> Result<Built> {
        let built = modules(package).join(TARGET).join("filter").join(format!("{}.wasm", package.library));
        let module = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
        let mut module = names::shortened(&module).with_context(|| built.display().to_string())?;
        if package.has_manifest {
            let manifest = manifests(package).join(format!("{}.json", package.name));
            let manifest =
                fs::read(&manifest).with_context(|| format!("cannot read {}", manifest.display()))?;
            module = section::with_custom_section(&module, section::MANIFEST_SECTION, &manifest)?;
        }
        let changed = fs::read(path).ok().as_ref() != Some(&module);
        if changed {
            replace(path, &module)?;
        }
        Ok(Built { path: path.to_owned(), size: module.len(), changed })
    }
}

/// Writes beside and renames, so that a running proxy that watches the file never reads half of it.
///
/// # Errors
/// The folder cannot be made or written to.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let beside = path.with_extension("wasm.new");
    fs::write(&beside, bytes).with_context(|| format!("cannot write {}", beside.display()))?;
    fs::rename(&beside, path).with_context(|| format!("cannot replace {}", path.display()))
}

fn modules(package: &Package) -> PathBuf {
    package.target.join("wasm")
}

fn manifests(package: &Package) -> PathBuf {
    package.target.join("manifests")
}

fn has_profile(root: &Path) -> Result<bool> {
    let path = root.join("Cargo.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text.lines().any(|line| line.trim() == "[profile.filter]"))
}
