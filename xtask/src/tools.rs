//! Programs that some tests run if they are there: a real Prometheus. Unpacked into the target folder, not installed: nothing
//! starts by itself, and nothing but the build's own folder changes.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use meshgate_kit::{commands, say};

use crate::workspace;

const LIMIT: Duration = Duration::from_secs(300);

/// Gets Prometheus out of Debian's package, unless it is there. What cannot be done is said: the test that wants it does without.
pub(crate) fn prometheus() -> Result<()> {
    let folder = workspace::root().join("target/tools");
    if commands::exists("prometheus") || folder.join("usr/bin/prometheus").is_file() {
        return Ok(());
    }
    if !commands::exists("apt-get") || !commands::exists("dpkg-deb") {
        say("no Prometheus, and no packages of Debian: the test that scrapes will not run");
        return Ok(());
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    say("fetching Debian's package `prometheus`");
    let mut download = Command::new("apt-get");
    download.args(["download", "--quiet", "prometheus"]).current_dir(&folder);
    let mut unpack = Command::new("sh");
    // The fonts and scripts of its pages are other packages, and not needed.
    unpack.args(["-c", "dpkg-deb --extract prometheus_*.deb . && rm -f prometheus_*.deb usr/bin/promtool"]);
    unpack.current_dir(&folder);
    if !commands::succeeds_within(LIMIT, &mut download)? || !commands::succeeds_within(LIMIT, &mut unpack)? {
        say("the package could not be had: the test that scrapes will not run");
    }
    Ok(())
}
