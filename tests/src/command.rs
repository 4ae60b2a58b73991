//! Finding and running the `meshgate` binary, and other commands, to their end.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use crate::deadline::within;

/// The repository's root: of the checkout that cargo runs this in, since one that shares its target folder may have built it.
pub fn repository() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR");
    let tests = package.map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    tests.parent().expect("the package is a folder of the repository").to_owned()
}

/// The `meshgate` binary: `MESHGATE_BIN`, or the one built with the same profile as this test.
pub fn binary() -> PathBuf {
    let path = std::env::var_os("MESHGATE_BIN").map_or_else(
        || {
            let test = std::env::current_exe().expect("a running test knows its file");
            let profile = test.parent().and_then(Path::parent).expect("target/<profile>/deps/<test>");
            profile.join("meshgate")
        },
        PathBuf::from,
    );
    assert!(path.is_file(), "{} is missing: run `cargo xtask test`, which builds it first", path.display());
    path
}

/// How a command ended.
#[derive(Debug)]
pub struct Finished {
    /// The exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// What it printed on standard output.
    pub stdout: String,
    /// What it printed on standard error.
    pub stderr: String,
}

/// Runs a command to its end.
pub async fn run(mut command: Command) -> Finished {
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = within(format!("{command:?} ends"), command.output()).await.expect("the command starts");
    Finished {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
