//! Metrics of the process itself, read from `/proc` when somebody asks.

use std::fs;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;

/// When the process started, and with it everything that can be read about it. The names that are not ours are the ones every Prometheus client uses.
#[derive(Debug)]
pub(super) struct Process {
    started: Instant,
    start_time: f64,
}

impl Default for Process {
    fn default() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started: Instant::now(), start_time: since.as_secs_f64() }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut gauge = |name, help, value: Option<f64>| match value {
            Some(value) => {
                let gauge = ConstGauge::new(value);
                gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
            }
            None => Ok(()),
        };
        let uptime = self.started.elapsed().as_secs_f64();
        gauge("meshgate_uptime_seconds", "Time since the process started.", Some(uptime))?;
        gauge("process_start_time_seconds", "Start time since the Unix epoch.", Some(self.start_time))?;
        gauge(
            "process_resident_memory_bytes",
            "Resident memory.",
            resident_memory().map(|bytes| bytes as f64),
        )?;
        gauge("process_open_fds", "Open file descriptors.", open_files())
    }
}

/// Bytes; `None` where there is no `/proc`.
pub fn resident_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// One of them is the directory being read, which is closed again when this returns.
fn open_files() -> Option<f64> {
    let count = fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1);
    u32::try_from(count).ok().map(f64::from)
}
