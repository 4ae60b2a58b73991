//! What one plugin may use. Every limit has a default; the configuration may set the first four.

use std::time::Duration;

/// What one plugin may use.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// The longest one callback may run. Default 10 ms; the resolution is 1 ms.
    pub time: Duration,
    /// The most linear memory of the plugin's VM, in bytes. Default 16 MiB. Plugins that differ in it do not
    /// share a VM.
    pub memory: u64,
    /// The most body bytes a filter's buffer holds per direction. Default 1 MiB.
    pub body: u64,
    /// The longest the callbacks at start may run: `_initialize`, `_start`, `on_vm_start`, `on_configure`,
    /// each by itself. Default 1 s.
    pub start_time: Duration,
    /// Hostcalls in one callback. Default 10,000.
    pub hostcalls: u32,
    /// Bytes copied between guest and host in one callback. Default 8 MiB.
    pub copied: u64,
    /// Log lines in one second; more are dropped and counted. Default 100.
    pub log_lines: u32,
    /// HTTP calls under way, of the plugin. Default 256.
    pub http_calls: u32,
    /// HTTP calls under way, of one stream. Default 8.
    pub stream_http_calls: u32,
    /// Metrics a plugin may define by `proxy_define_metric`. Default 1,000.
    pub metrics: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            time: Duration::from_millis(10),
            memory: 16 << 20,
            body: 1 << 20,
            start_time: Duration::from_secs(1),
            hostcalls: 10_000,
            copied: 8 << 20,
            log_lines: 100,
            http_calls: 256,
            stream_http_calls: 8,
            metrics: 1_000,
        }
    }
}
