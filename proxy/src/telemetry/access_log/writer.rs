//! The one thread that writes the access log.
//!
//! A blocking write must never reach a worker or the main thread: standard output may be a pipe that nobody reads. So batches come through a bounded
//! queue, and orders (another output, reopen, stop) through a mailbox that the thread looks into before each batch.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use meshgate_config::{AccessLogFormat, AccessLogOutput};

use super::metrics::AccessLogMetrics;
use crate::telemetry::Registry;

/// Batches that may wait for the writer; with 32 KiB each, 4 MiB in all.
const QUEUE: usize = 128;

/// Formatted lines on their way to the writer.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) text: Vec<u8>,
    pub(super) lines: u64,
}

/// How a line is written; `Off` means not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Format {
    Off,
    Text,
    Json,
}

enum Message {
    Batch(Batch),
    /// There is an order in the mailbox.
    Order,
}

enum Order {
    Switch(Output),
    Reopen,
    Stop(SyncSender<()>),
}

/// What the workers, the writer and the main thread share.
#[derive(Debug)]
struct Shared {
    /// A [`Format`]. Read by every worker for every line, changed by a reload.
    format: AtomicU8,
    orders: Mutex<Vec<Order>>,
}

impl Shared {
    fn orders(&self) -> MutexGuard<'_, Vec<Order>> {
        // Nothing that can panic runs while the lock is held; if it did, a list of orders would still be a list of orders.
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Order {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Switch(_) => "Switch",
            Self::Reopen => "Reopen",
            Self::Stop(_) => "Stop",
        })
    }
}

/// The writing end of the queue. The server gives a clone to each worker, which makes its [`AccessLog`](super::AccessLog) of it.
#[derive(Debug, Clone)]
pub struct AccessLogSink {
    queue: SyncSender<Message>,
    shared: Arc<Shared>,
    metrics: AccessLogMetrics,
}

impl AccessLogSink {
    pub(super) fn format(&self) -> Format {
        match self.shared.format.load(Ordering::Relaxed) {
            format if format == Format::Text as u8 => Format::Text,
            format if format == Format::Json as u8 => Format::Json,
            _ => Format::Off,
        }
    }

    /// Hands a batch over, or drops and counts it when the queue is full.
    pub(super) fn send(&self, batch: Batch) {
        let lines = batch.lines;
        if self.queue.try_send(Message::Batch(batch)).is_err() {
            self.metrics.dropped.inc_by(lines);
        }
    }

    fn order(&self, order: Order) {
        self.shared.orders().push(order);
        // A full queue wakes the writer by itself.
        let _ = self.queue.try_send(Message::Order);
    }
}

/// Where the access log goes and how it is written, with the file already open: opening is what can fail, and a reload must know before it swaps.
#[derive(Debug)]
pub struct AccessLogTarget {
    format: Format,
    output: Output,
}

impl AccessLogTarget {
    /// Opens what the configuration names.
    ///
    /// # Errors
    /// When the file cannot be opened for appending.
    pub fn open(configuration: &meshgate_config::AccessLog) -> io::Result<Self> {
        let format = match configuration.format {
            AccessLogFormat::Text => Format::Text,
            AccessLogFormat::Json => Format::Json,
        };
        Ok(match &configuration.output {
            AccessLogOutput::Stdout => Self { format, output: Output::Stdout },
            AccessLogOutput::File(path) => Self { format, output: Output::open(path)? },
            AccessLogOutput::Off => Self { format: Format::Off, output: Output::Nothing },
        })
    }
}

/// The process's access log: owns the writing thread. Held by the server.
#[derive(Debug)]
pub struct AccessLogWriter {
    sink: AccessLogSink,
}

impl AccessLogWriter {
    /// Starts the thread. Nothing is logged until [`switch`](Self::switch) says where to.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub fn start(registry: &Registry) -> io::Result<Self> {
        let (queue, messages) = sync_channel(QUEUE);
        let shared = Arc::new(Shared { format: AtomicU8::new(Format::Off as u8), orders: Mutex::default() });
        let metrics = AccessLogMetrics::register(registry);
        let writing = Writing {
            shared: Arc::clone(&shared),
            metrics: metrics.clone(),
            output: Output::Nothing,
            failing: false,
        };
        thread::Builder::new().name("access-log".into()).spawn(move || writing.run(&messages))?;
        Ok(Self { sink: AccessLogSink { queue, shared, metrics } })
    }

    /// A sink for one worker.
    #[must_use]
    pub fn sink(&self) -> AccessLogSink {
        self.sink.clone()
    }

    /// From now on, lines go to `target`. Lines already on their way go there too, in the format they have.
    pub fn switch(&self, target: AccessLogTarget) {
        self.sink.shared.format.store(target.format as u8, Ordering::Relaxed);
        self.sink.order(Order::Switch(target.output));
    }

    /// Opens the file again under its path, after something else has renamed it. Standard output is left alone.
    pub fn reopen(&self) {
        self.sink.order(Order::Reopen);
    }

    /// Writes what is in the queue and stops, for the end of the process. The workers must have flushed theirs. Waits at most `patience`; false if the
    /// output took longer than that.
    #[must_use]
    pub fn close(&self, patience: Duration) -> bool {
        let (stopped, wait) = sync_channel(1);
        self.sink.order(Order::Stop(stopped));
        wait.recv_timeout(patience).is_ok()
    }
}

/// An open output.
#[derive(Debug)]
enum Output {
    Nothing,
    Stdout,
    File { path: PathBuf, file: File },
}

impl Output {
    fn open(path: &Path) -> io::Result<Self> {
        // Opening a named pipe to write waits for a reader, but not when it is opened to read as well.
        let pipe = fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo());
        let file = OpenOptions::new().read(pipe).append(true).create(true).open(path)?;
        Ok(Self::File { path: path.to_owned(), file })
    }

    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        match self {
            Self::Nothing => Ok(()),
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(text)?;
                stdout.flush()
            }
            Self::File { file, .. } => file.write_all(text),
        }
    }
}

/// The thread's own state.
struct Writing {
    shared: Arc<Shared>,
    metrics: AccessLogMetrics,
    output: Output,
    /// The last write failed: said once in the log, not once per batch.
    failing: bool,
}

impl Writing {
    fn run(mut self, messages: &Receiver<Message>) {
        while let Ok(message) = messages.recv() {
            let stop = self.take_orders();
            if let Message::Batch(batch) = message {
                self.write(batch);
            }
            if let Some(stopped) = stop {
                while let Ok(message) = messages.try_recv() {
                    if let Message::Batch(batch) = message {
                        self.write(batch);
                    }
                }
                // Whoever asked may have stopped waiting.
                let _ = stopped.try_send(());
                return;
            }
        }
    }

    /// Carries out what is in the mailbox; returns whom to tell if it says stop.
    fn take_orders(&mut self) -> Option<SyncSender<()>> {
        let orders = std::mem::take(&mut *self.shared.orders());
        let mut stop = None;
        for order in orders {
            match order {
                Order::Switch(output) => self.output = output,
                Order::Reopen => self.reopen(),
                Order::Stop(stopped) => stop = Some(stopped),
            }
        }
        stop
    }

    fn reopen(&mut self) {
        let Output::File { path, .. } = &self.output else { return };
        match Output::open(path) {
            Ok(output) => {
                tracing::info!(path = %path.display(), "access log reopened");
                self.output = output;
            }
            Err(error) => tracing::error!(
                path = %path.display(), %error, "cannot reopen the access log; going on with the file that is open"
            ),
        }
    }

    fn write(&mut self, mut batch: Batch) {
        if self.failing {
            // What failed may have left half a line behind.
            batch.text.insert(0, b'\n');
        }
        match self.output.write(&batch.text) {
            Ok(()) => {
                self.metrics.written.inc_by(batch.lines);
                if std::mem::take(&mut self.failing) {
                    tracing::info!("the access log can be written again");
                }
            }
            Err(error) => {
                self.metrics.dropped.inc_by(batch.lines);
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!(%error, "cannot write the access log; its lines are lost until this is over");
                }
            }
        }
    }
}
