//! The access log: one line per exchange.
//!
//! A worker formats its lines into a batch of its own ([`AccessLog`]) and hands full batches to the one thread that writes ([`AccessLogWriter`]). The
//! queue between them is bounded: when the disk or the reader of standard output cannot keep up, batches are dropped and counted, and no request waits.

mod batch;
mod escape;
mod fields;
mod format;
mod metrics;
mod record;
mod writer;

#[cfg(test)]
mod tests;

pub use batch::AccessLog;
pub use fields::LogFields;
pub use record::AccessRecord;
pub use writer::{AccessLogSink, AccessLogTarget, AccessLogWriter};
