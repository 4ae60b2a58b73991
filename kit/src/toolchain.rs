//! Which compiler builds the filters. They need `std` for wasm32, which a fresh Rust toolchain does not contain.
//!
//! The first choice is remembered where the builds lie, so that later ones need not ask rustup or the package system again.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::{commands, packages, say};

/// The target that filters are compiled for.
pub const TARGET: &str = "wasm32-unknown-unknown";

/// Without a network, `rustup` waits for minutes before it gives up.
const RUSTUP_LIMIT: Duration = Duration::from_secs(60);

const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_PACKAGES: [&str; 2] = ["rustc-web", "rust-web-src"];

const BY_HAND: &str =
    "no Rust standard library for wasm32-unknown-unknown was found, and none could be installed.
Do one of these and try again:
  rustup target add wasm32-unknown-unknown      (needs rustup and a network)
  rustup component add rust-src                 (then it is compiled here)
  apt-get install rustc-web rust-web-src        (Debian, as root)";

/// A way to compile for wasm32.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Toolchain {
    /// The usual compiler has the target.
    Target,
    /// The usual compiler, and the target's `std` is compiled from the toolchain's own source.
    Source,
    /// Debian's compiler, and the target's `std` is compiled from Debian's source.
    Debian,
}

impl Toolchain {
    /// The choice remembered in `folder` if it still works, or else a new one, installing what is missing.
    ///
    /// # Errors
    /// There is none, and none could be installed: it says what to do by hand. Or the choice could not be written down.
    pub fn choose(folder: &Path) -> Result<Self> {
        let probe = Probe::new()?;
        let memory = folder.join("toolchain-choice");
        let remembered = fs::read_to_string(&memory).ok().and_then(|name| Self::named(name.trim()));
        if let Some(toolchain) = remembered.filter(|toolchain| probe.has(toolchain)) {
            return Ok(toolchain);
        }
        let toolchain = probe.find_or_install()?;
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        fs::write(&memory, toolchain.name()).with_context(|| format!("cannot write {}", memory.display()))?;
        Ok(toolchain)
    }

    /// Makes `command` (a cargo build) use this toolchain. `root` holds the sources.
    ///
    /// # Errors
    /// The usual compiler cannot be asked where it lies.
    pub fn apply(&self, command: &mut Command, root: &Path) -> Result<()> {
        command.args(["--target", TARGET]).env("CARGO_ENCODED_RUSTFLAGS", self.flags(root)?.join("\u{1f}"));
        if *self == Self::Target {
            return Ok(());
        }
        command.arg("-Zbuild-std=std,panic_abort").env("RUSTC_BOOTSTRAP", "1");
        if *self == Self::Debian {
            // Debian's compiler comes without a linker for WebAssembly; the usual toolchain has one.
            let linker = Probe::new()?.linker();
            command.env("RUSTC", DEBIAN_RUSTC).env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
        }
        Ok(())
    }

    /// Panic messages carry source paths. Without this machine's folders in them, the same source gives the same module
    /// everywhere.
    fn flags(&self, root: &Path) -> Result<Vec<String>> {
        let sysroot = match self {
            Self::Debian => PathBuf::from("/usr"),
            Self::Target | Self::Source => Probe::new()?.sysroot,
        };
        let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
        let home = home.or_else(|| Some(std::env::home_dir()?.join(".cargo"))).unwrap_or_default();
        let mut folders = vec![root.to_owned(), sysroot.join("lib/rustlib/src")];
        // Below these, packages lie in one folder for each registry or repository, named after it.
        for sources in ["registry/src", "git/checkouts"] {
            if let Ok(origins) = fs::read_dir(home.join(sources)) {
                folders.extend(origins.flatten().map(|origin| origin.path()));
            }
        }
        folders.sort();
        Ok(folders.iter().map(|folder| format!("--remap-path-prefix={}=", folder.display())).collect())
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Target => "target",
            Self::Source => "source",
            Self::Debian => "debian",
        }
    }

    fn named(name: &str) -> Option<Self> {
        [Self::Target, Self::Source, Self::Debian].into_iter().find(|toolchain| toolchain.name() == name)
    }
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Target => "the usual toolchain, which has the target wasm32-unknown-unknown",
            Self::Source => {
                "the usual toolchain, compiling std for wasm32-unknown-unknown from its rust-src component"
            }
            Self::Debian => "Debian's rustc-web, compiling std for wasm32-unknown-unknown from rust-web-src",
        })
    }
}

/// What this machine has.
struct Probe {
    sysroot: PathBuf,
}

impl Probe {
    fn new() -> Result<Self> {
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let sysroot = commands::output(Command::new(rustc).args(["--print", "sysroot"]))?;
        Ok(Self { sysroot: sysroot.into() })
    }

    fn has(&self, toolchain: &Toolchain) -> bool {
        match toolchain {
            Toolchain::Target => self.sysroot.join("lib/rustlib").join(TARGET).is_dir(),
            Toolchain::Source => has_source(&self.sysroot),
            Toolchain::Debian => {
                has_source(Path::new("/usr")) && debian_is_new_enough() && self.linker().is_file()
            }
        }
    }

    fn find_or_install(&self) -> Result<Toolchain> {
        let present = [Toolchain::Target, Toolchain::Source, Toolchain::Debian];
        if let Some(toolchain) = present.into_iter().find(|toolchain| self.has(toolchain)) {
            return Ok(toolchain);
        }
        self.try_rustup()?;
        if self.has(&Toolchain::Target) {
            return Ok(Toolchain::Target);
        }
        packages::install(&DEBIAN_PACKAGES)?;
        if self.has(&Toolchain::Debian) {
            return Ok(Toolchain::Debian);
        }
        bail!(BY_HAND);
    }

    fn try_rustup(&self) -> Result<()> {
        if !commands::exists("rustup") {
            say("rustup is not installed: trying the system's packages");
            return Ok(());
        }
        say(&format!("running `rustup target add {TARGET}` (at most {} s)", RUSTUP_LIMIT.as_secs()));
        let added =
            commands::succeeds_within(RUSTUP_LIMIT, Command::new("rustup").args(["target", "add", TARGET]))?;
        if !added {
            say("rustup could not fetch it: trying the system's packages");
        }
        Ok(())
    }

    /// The linker for WebAssembly inside the usual toolchain, under the name of the machine's own target.
    fn linker(&self) -> PathBuf {
        let lib = self.sysroot.join("lib/rustlib");
        let found = fs::read_dir(&lib).ok().and_then(|entries| {
            entries.flatten().map(|entry| entry.path().join("bin/rust-lld")).find(|path| path.is_file())
        });
        found.unwrap_or_else(|| lib.join("bin/rust-lld"))
    }
}

/// Whether a toolchain carries the source of `std`, with the lock file that building it needs.
fn has_source(sysroot: &Path) -> bool {
    sysroot.join("lib/rustlib/src/rust/library/Cargo.lock").is_file()
}

/// Debian's plain `rustc` is often older than what this workspace needs; the `-web` package follows the current one.
fn debian_is_new_enough() -> bool {
    let Ok(version) = commands::output(Command::new(DEBIAN_RUSTC).arg("--version")) else { return false };
    let number = version.split_whitespace().nth(1).unwrap_or_default();
    parse_version(number) >= parse_version(env!("CARGO_PKG_RUST_VERSION"))
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert!(parse_version("1.96.0") > parse_version("1.95"));
        assert!(parse_version("1.100.0-nightly") > parse_version("1.95"));
        assert!(parse_version("1.85.0") < parse_version("1.95"));
        assert_eq!(parse_version("unknown"), None);
        assert!(parse_version("unknown") < parse_version("1.95"));
    }

    #[test]
    fn choices_are_remembered_by_name() {
        for toolchain in [Toolchain::Target, Toolchain::Source, Toolchain::Debian] {
            assert_eq!(Toolchain::named(toolchain.name()), Some(toolchain));
        }
        assert_eq!(Toolchain::named("something else"), None);
    }
}
