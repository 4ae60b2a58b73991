//! Panics, which are defects of ours. One ends the task that it happens in, such as a request's or a connection's, and no more; it is
//! logged and counted, so that somebody learns of it.

use std::fmt::Write;
use std::panic;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

static PANICS: AtomicU64 = AtomicU64::new(0);

/// Has panics be logged and counted from now on. Called once, by `main`.
pub fn watch() {
    panic::set_hook(Box::new(|panic| {
        PANICS.fetch_add(1, Relaxed);
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let payload = panic.payload();
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let words = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or_default();
        let thread = std::thread::current();
        tracing::error!(
            place,
            words,
            thread = thread.name(),
            "panic: this is a defect of Meshgate, please report it"
        );
    }));
}

/// Appends the metric.
pub(super) fn metrics(out: &mut String) {
    // Writing to a string does not fail.
    let _ = write!(
        out,
        "# HELP meshgate_panics_total Panics, which are defects of Meshgate\n# TYPE meshgate_panics_total counter\n\
         meshgate_panics_total {}\n",
        PANICS.load(Relaxed)
    );
}
