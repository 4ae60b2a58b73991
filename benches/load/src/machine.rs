//! What the report says about the machine: figures mean nothing without it.

use std::fmt;
use std::fs;
use std::process::Command;

use serde::Serialize;

/// The machine that a comparison ran on.
#[derive(Default, Serialize)]
pub(crate) struct Machine {
    processor: String,
    cores: usize,
    kernel: String,
    /// Load average over the last minute when the comparison began: above 0.5, others were at work.
    load_average: String,
}

impl Machine {
    /// This machine, now.
    pub(crate) fn here() -> Self {
        let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let named = processors.lines().find_map(|line| line.strip_prefix("model name"));
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            processor: named.map_or("unknown", |name| name.trim_start_matches([' ', '\t', ':'])).to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: kernel.trim().to_owned(),
            load_average: load.split_whitespace().next().unwrap_or_default().to_owned(),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ({} cores, Linux {}, load average {} at the start)",
            self.processor, self.cores, self.kernel, self.load_average
        )
    }
}

/// Today, in UTC, as `date` says it.
pub(crate) fn today() -> String {
    let output = Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"]).output();
    output.map_or_else(
        |_| "at an unknown time".into(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}
