//! Modules in other languages than Rust: guests, so that the tests meet other compilers' idea of the ABI (`tests/languages/*` to
//! `target/guests/scenario-*.wasm`), and examples. Used by `setup`, `filters` and `test`.
//!
//! A compiler that is neither there nor can be installed is no error here: the reason is left in a file beside the module's
//! place, and the test that misses the module says it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use meshgate_kit::{build, commands, packages, say};

use crate::workspace::{self, Group};

const NPM_LIMIT: Duration = Duration::from_secs(300);

const ASSEMBLYSCRIPT_COMPILER: &str = "node_modules/assemblyscript/bin/asc.js";

const CPP_BY_HAND: &str = "clang++ and wasm-ld: `apt-get install clang lld` (Debian, as root)";
const ASSEMBLYSCRIPT_BY_HAND: &str =
    "Node.js 18 or later, npm and a network: `apt-get install nodejs npm` (Debian, as root)";

/// What to do about a missing compiler.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    /// Try to install it.
    Install,
    /// The same, unless that was tried before in this checkout.
    InstallOnce,
}

/// Builds what changed, and prints each module's name and size.
pub(crate) fn build(missing: Missing) -> Result<()> {
    module(Group::Guests, "scenario-cpp", CPP_BY_HAND, missing, cpp)?;
    module(Group::Guests, "scenario-assemblyscript", ASSEMBLYSCRIPT_BY_HAND, missing, |install| {
        assemblyscript("scenario", &["--use", "abort=scenario/scenario/abortOfItsOwn"], install)
    })?;
    module(Group::Guests, "scenario-assemblyscript-imports", ASSEMBLYSCRIPT_BY_HAND, missing, |install| {
        assemblyscript("scenario-with-imports", &[], install)
    })?;
    module(Group::Examples, "c", CPP_BY_HAND, missing, |install| {
        if find_clang(install)? { example("c", None).map(Some) } else { Ok(None) }
    })?;
    module(Group::Examples, "assemblyscript", ASSEMBLYSCRIPT_BY_HAND, missing, |install| {
        let folder = workspace::target().join("assemblyscript");
        let compiler = format!("node {}", folder.join(ASSEMBLYSCRIPT_COMPILER).display());
        if find_assemblyscript(&folder, install)? {
            example("assemblyscript", Some(&compiler)).map(Some)
        } else {
            Ok(None)
        }
    })
}

/// What an example's own script makes of it, with this compiler for AssemblyScript.
fn example(name: &str, compiler: Option<&str>) -> Result<Vec<u8>> {
    let built = workspace::target().join(format!("example-{name}.wasm"));
    let mut command = Command::new("sh");
    command.arg(workspace::root().join("examples").join(name).join("build.sh")).arg(&built);
    if let Some(compiler) = compiler {
        command.env("ASC", compiler);
    }
    commands::run(&mut command).with_context(|| format!("the example {name} did not compile"))?;
    Ok(fs::read(&built)?)
}

/// Builds one module. The compiler answers `None` if it cannot be had.
fn module(
    group: Group,
    name: &str,
    needed: &str,
    missing: Missing,
    compile: impl FnOnce(bool) -> Result<Option<Vec<u8>>>,
) -> Result<()> {
    let folder = workspace::artifacts(group);
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let (path, reason) = (folder.join(format!("{name}.wasm")), folder.join(format!("{name}.missing")));
    let in_ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    let install = missing == Missing::Install || in_ci || !reason.is_file();
    match compile(install)? {
        Some(module) => {
            let _ = fs::remove_file(&reason);
            if fs::read(&path).ok().as_ref() != Some(&module) {
                build::replace(&path, &module)?;
            }
            let shown = path.strip_prefix(workspace::root()).unwrap_or(&path);
            say(&format!("{:<40} {:>5} KiB", shown.display(), module.len().div_ceil(1024)));
        }
        None => {
            // An older one would be taken for this one.
            let _ = fs::remove_file(&path);
            let text = format!("{name} was not built. It needs {needed}");
            fs::write(&reason, &text).with_context(|| format!("cannot write {}", reason.display()))?;
            say(&text);
        }
    }
    Ok(())
}

fn source(name: &str) -> PathBuf {
    workspace::root().join("tests/languages").join(name)
}

/// C++ without a library, by clang.
fn cpp(install: bool) -> Result<Option<Vec<u8>>> {
    if !find_clang(install)? {
        return Ok(None);
    }
    let built = workspace::target().join("scenario-cpp.wasm");
    let mut command = Command::new("clang++");
    command.args(["--target=wasm32-unknown-unknown", "-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror"]);
    command.args(["-nostdlib", "-ffreestanding", "-fno-builtin", "-fno-exceptions", "-fno-rtti"]);
    command.args(["-Wl,--no-entry", "-Wl,--strip-debug", "-o"]).arg(&built);
    command.arg(source("cpp/scenario.cpp"));
    commands::run(&mut command).context("the guest in C++ did not compile")?;
    Ok(Some(fs::read(&built)?))
}

/// Whether clang can compile to WebAssembly; installs it if need be.
fn find_clang(install: bool) -> Result<bool> {
    let is_there = || commands::exists("clang++") && commands::exists("wasm-ld");
    if !is_there() && install {
        packages::install(&["clang", "lld"])?;
    }
    Ok(is_there())
}

/// AssemblyScript, by its compiler from npm: the scenario without imports beside the ABI's, or with the usual ones.
fn assemblyscript(name: &str, options: &[&str], install: bool) -> Result<Option<Vec<u8>>> {
    let folder = workspace::target().join("assemblyscript");
    if !find_assemblyscript(&folder, install)? {
        return Ok(None);
    }
    // The compiler takes seconds: what it compiled last lies beside what came of it.
    let built = folder.join(name).with_extension("wasm");
    let mut changed = !built.is_file();
    for source_file in ["scenario.ts", "scenario-with-imports.ts"] {
        let path = source("assemblyscript").join(source_file);
        let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let copy = folder.join(name).join(source_file);
        if fs::read(&copy).ok().as_ref() != Some(&text) {
            let _ = fs::remove_file(&built);
            fs::create_dir_all(folder.join(name))?;
            fs::write(&copy, &text)?;
            changed = true;
        }
    }
    if changed {
        let mut command = Command::new("node");
        command.arg(ASSEMBLYSCRIPT_COMPILER).arg(format!("{name}/{name}.ts"));
        command.args(["-O3", "--runtime", "incremental", "--outFile"]).arg(&built).args(options);
        command.current_dir(&folder);
        commands::run(&mut command).context("the guest in AssemblyScript did not compile")?;
    }
    Ok(Some(fs::read(&built)?))
}

/// Whether the compiler lies in `folder`, of the version that the lock file names; installs it if need be.
fn find_assemblyscript(folder: &Path, install: bool) -> Result<bool> {
    let is_new_enough = || {
        let version = Command::new("node").arg("--version").output().ok();
        let version = version.and_then(|output| String::from_utf8(output.stdout).ok()).unwrap_or_default();
        major(&version).is_some_and(|major| major >= 18)
    };
    let lock =
        fs::read(source("assemblyscript/package-lock.json")).context("cannot read package-lock.json")?;
    let is_there = || {
        let installed = fs::read(folder.join("package-lock.json")).ok();
        installed.as_ref() == Some(&lock) && folder.join("node_modules/.installed").is_file()
    };
    if is_new_enough() && is_there() {
        return Ok(true);
    }
    if !(is_new_enough() && commands::exists("npm")) && install {
        packages::install(&["nodejs", "npm"])?;
    }
    if !(is_new_enough() && commands::exists("npm")) {
        return Ok(false);
    }
    fs::create_dir_all(folder)?;
    for name in ["package.json", "package-lock.json", ".npmrc"] {
        let from = source("assemblyscript").join(name);
        fs::copy(&from, folder.join(name)).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    say(&format!("running `npm ci` for the AssemblyScript compiler (at most {} s)", NPM_LIMIT.as_secs()));
    let mut command = Command::new("npm");
    command.args(["ci", "--no-audit", "--no-fund", "--loglevel", "error"]).current_dir(folder);
    if !commands::succeeds_within(NPM_LIMIT, &mut command)? {
        say("npm failed");
        return Ok(false);
    }
    fs::write(folder.join("node_modules/.installed"), "")?;
    if !is_there() {
        bail!("`npm ci` changed the lock file");
    }
    Ok(true)
}

/// The first number of `v18.20.4`.
fn major(version: &str) -> Option<u32> {
    version.trim().strip_prefix('v')?.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_node() {
        assert_eq!(major("v18.20.4\n"), Some(18));
        assert_eq!(major("v6.0"), Some(6));
        assert_eq!(major(""), None);
    }
}
