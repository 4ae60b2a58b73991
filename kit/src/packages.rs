//! Installing packages of the system, where that is allowed and within bounds. Used for the compilers that are missing.

use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::{commands, say};

const APT_LIMIT: Duration = Duration::from_secs(600);

/// Tries to install these packages by `apt-get`. What cannot be done is said; whether it helped is for the caller to see.
///
/// # Errors
/// A command cannot be started.
pub fn install(packages: &[&str]) -> Result<()> {
    if !commands::exists("apt-get") {
        return Ok(());
    }
    let Some(prefix) = root_prefix()? else {
        say("installing packages needs root or sudo without a password: neither is at hand");
        return Ok(());
    };
    let install = [&["install", "--yes", "--no-install-recommends"], packages].concat();
    for arguments in [&["update"][..], &install] {
        let words: Vec<&str> =
            prefix.iter().copied().chain(["apt-get"]).chain(arguments.iter().copied()).collect();
        say(&format!("running `{}` (at most {} s)", words.join(" "), APT_LIMIT.as_secs()));
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).env("DEBIAN_FRONTEND", "noninteractive");
        if !commands::succeeds_within(APT_LIMIT, &mut command)? {
            say("apt-get failed");
            return Ok(());
        }
    }
    Ok(())
}

/// What must stand before a command to run it as root: nothing, or `sudo -n`. `None`: we cannot.
fn root_prefix() -> Result<Option<&'static [&'static str]>> {
    if commands::output(Command::new("id").arg("-u"))? == "0" {
        return Ok(Some(&[]));
    }
    let limit = Duration::from_secs(10);
    let sudo = commands::exists("sudo")
        && commands::succeeds_within(limit, Command::new("sudo").args(["-n", "true"]))?;
    Ok(sudo.then_some(&["sudo", "-n"]))
}
