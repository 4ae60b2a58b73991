//! Meshgate's own log: structured events on standard error. (The access log is not part of it.)

use std::fmt;
use std::io;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

/// The environment variable that says what is logged, for example `debug` or `info,meshgate::reload=debug`.
pub const VARIABLE: &str = "MESHGATE_LOG";

/// How an event is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// One line for people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The environment variable holds no filter.
    #[error("{VARIABLE} is not a log filter: {0}")]
    Filter(String),
    /// Something has set up logging before.
    #[error("logging is already set up: {0}")]
    Taken(String),
}

/// Sends the process's events to standard error. Called once, by `main`.
///
/// # Errors
/// When the variable [`VARIABLE`] cannot be understood, or logging was set up before.
pub fn start(format: Format) -> Result<(), LogError> {
    let filter = match std::env::var(VARIABLE) {
        Ok(filter) if !filter.is_empty() => filter,
        _ => "info".to_owned(),
    };
    let filter = EnvFilter::try_new(filter).map_err(|error| LogError::Filter(error.to_string()))?;
    let terminal = io::IsTerminal::is_terminal(&io::stderr());
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let started = match format {
        Format::Text => subscriber.with_ansi(terminal).finish().try_init(),
        Format::Json => subscriber.json().flatten_event(true).finish().try_init(),
    };
    started.map_err(|error| LogError::Taken(error.to_string()))
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}
