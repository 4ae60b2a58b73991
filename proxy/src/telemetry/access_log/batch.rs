//! The worker's side: lines are formatted into a batch, and the batch is handed over when it is full or old enough.

use std::cell::RefCell;
use std::fmt;
use std::time::Duration;

use tokio::sync::Notify;

use super::format;
use super::record::AccessRecord;
use super::writer::{AccessLogSink, Batch, Format};
use crate::telemetry::timestamp::DateCache;

/// A batch this long is handed over at once: few enough system calls, and small enough to lose.
const FULL: usize = 32 * 1024;
/// Room for the line that makes a batch full.
const MARGIN: usize = 1024;
/// How long a line may wait for company.
const OLDEST: Duration = Duration::from_millis(100);

/// One worker's access log. Lives on the worker's thread, shared there as `Rc<AccessLog>`; the worker also spawns [`AccessLog::run`].
pub struct AccessLog {
    sink: AccessLogSink,
    pending: RefCell<Pending>,
    first_line: Notify,
}

#[derive(Default)]
struct Pending {
    batch: Batch,
    dates: DateCache,
}

impl AccessLog {
    /// An access log that hands its batches to `sink`.
    #[must_use]
    pub fn new(sink: AccessLogSink) -> Self {
        Self { sink, pending: RefCell::default(), first_line: Notify::new() }
    }

    /// Whether anything is logged at all; lets the caller skip gathering the record.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.sink.format() != Format::Off
    }

    /// Adds the line of one exchange. Never blocks and never fails: what cannot be kept is counted.
    pub fn write(&self, record: &AccessRecord<'_>) {
        let append = match self.sink.format() {
            Format::Off => return,
            Format::Text => format::text,
            Format::Json => format::json,
        };
        let mut pending = self.pending.borrow_mut();
        let Pending { batch, dates } = &mut *pending;
        if batch.lines == 0 {
            batch.text.reserve(FULL + MARGIN);
        }
        match record.fields.line() {
            Some(line) => format::of_filter(line, &mut batch.text),
            None => append(record, dates, &mut batch.text),
        }
        batch.lines += 1;
        if batch.text.len() >= FULL {
            self.sink.send(std::mem::take(batch));
        } else if batch.lines == 1 {
            self.first_line.notify_one();
        }
    }

    /// Hands over what there is now: when a worker ends, or is told to.
    pub fn flush(&self) {
        let batch = std::mem::take(&mut self.pending.borrow_mut().batch);
        if batch.lines > 0 {
            self.sink.send(batch);
        }
    }

    /// Hands over batches that do not fill up, [a tenth of a second](OLDEST) after their first line. Sleeps while nothing is logged. Never returns: the
    /// worker spawns it and drops it at its end.
    pub async fn run(&self) {
        loop {
            self.first_line.notified().await;
            tokio::time::sleep(OLDEST).await;
            self.flush();
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.flush();
    }
}

impl fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessLog").field("sink", &self.sink).finish_non_exhaustive()
    }
}
