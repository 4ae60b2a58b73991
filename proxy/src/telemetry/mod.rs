//! What Meshgate tells its operator: metrics, the access log and its own log.
//!
//! The lowest layer: every other area may use it and it uses none of them. Each area owns the struct of its own metrics and registers it in the
//! [`Registry`] when the process starts.

pub mod access_log;
mod exchanges;
pub mod log;
pub mod panics;
mod process;
pub mod registry;
pub mod timestamp;

pub use access_log::{AccessLog, AccessLogSink, AccessLogTarget, AccessLogWriter, AccessRecord, LogFields};
pub use exchanges::{ExchangeMetrics, ListenerMetrics, TcpMetrics};
pub use process::resident_memory;
pub use registry::Registry;
