//! Meshgate's own log: structured events on standard error. (The access log is not part of it.)

use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
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
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(Lines::to_stderr());
    let started = match format {
        Format::Text => subscriber.with_ansi(terminal).finish().try_init(),
        Format::Json => subscriber.json().flatten_event(true).finish().try_init(),
    };
    started.map_err(|error| LogError::Taken(error.to_string()))
}

/// Waits until what was logged is written, or a moment has passed. Called once, at the end of `main`.
pub fn finish() {
    let Some(queue) = QUEUE.get() else { return };
    let (written, done) = sync_channel(1);
    if queue.try_send(Message::Finish(written)).is_ok() {
        let _ = done.recv_timeout(LAST_WORDS);
    }
}

/// Appends the metric.
pub(super) fn metrics(out: &mut String) {
    // Writing to a string does not fail.
    let _ = write!(
        out,
        "# HELP meshgate_log_lines_dropped_total Lines of the log that nobody took in time\n\
         # TYPE meshgate_log_lines_dropped_total counter\nmeshgate_log_lines_dropped_total {}\n",
        DROPPED.load(Relaxed)
    );
}

/// Lines that may wait to be written. Standard error may be a pipe that nobody reads: no worker is to wait for that.
const WAITING: usize = 1024;
/// How long the last lines may take.
const LAST_WORDS: Duration = Duration::from_secs(1);

static QUEUE: OnceLock<SyncSender<Message>> = OnceLock::new();
static DROPPED: AtomicU64 = AtomicU64::new(0);

enum Message {
    Line(Vec<u8>),
    Finish(SyncSender<()>),
}

/// Hands lines to the thread that writes them.
#[derive(Clone, Copy)]
struct Lines;

impl Lines {
    fn to_stderr() -> Lines {
        let (queue, messages) = sync_channel(WAITING);
        if QUEUE.set(queue).is_ok() {
            let writer = thread::Builder::new().name("log".to_owned());
            // Without it lines are dropped and counted once the queue is full.
            let _ = writer.spawn(move || write_lines(&messages));
        }
        Lines
    }
}

fn write_lines(messages: &Receiver<Message>) {
    while let Ok(message) = messages.recv() {
        match message {
            // Nobody is left to tell if standard error is closed.
            Message::Line(line) => drop(io::stderr().write_all(&line)),
            Message::Finish(written) => drop(written.try_send(())),
        }
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Some(queue) = QUEUE.get()
            && queue.try_send(Message::Line(line.to_vec())).is_err()
        {
            DROPPED.fetch_add(1, Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Lines;

    fn make_writer(&'a self) -> Lines {
        Lines
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}
