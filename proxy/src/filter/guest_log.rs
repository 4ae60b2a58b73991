//! What filters log, in the proxy's own log.

use meshgate_wasm::{LogLevel, PluginSpec};
use tracing::level_filters::LevelFilter;

/// Writes a filter's line with the filter's name.
pub fn write(plugin: &PluginSpec, level: LogLevel, message: &str) {
    let filter = plugin.name.as_str();
    match level {
        LogLevel::Trace => tracing::trace!(filter, "{message}"),
        LogLevel::Debug => tracing::debug!(filter, "{message}"),
        LogLevel::Info => tracing::info!(filter, "{message}"),
        LogLevel::Warn => tracing::warn!(filter, "{message}"),
        LogLevel::Error | LogLevel::Critical => tracing::error!(filter, "{message}"),
    }
}

/// The lowest level that anybody wants to see.
pub fn level() -> LogLevel {
    match LevelFilter::current() {
        LevelFilter::TRACE => LogLevel::Trace,
        LevelFilter::DEBUG => LogLevel::Debug,
        LevelFilter::INFO => LogLevel::Info,
        LevelFilter::WARN => LogLevel::Warn,
        LevelFilter::ERROR => LogLevel::Error,
        _ => LogLevel::Critical,
    }
}
