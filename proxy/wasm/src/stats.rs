//! How much a plugin runs on one worker. Written by that worker alone, readable from any thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How much a plugin ran on one worker.
#[derive(Debug, Default)]
pub struct PluginStats {
    callbacks: AtomicU64,
    nanoseconds: AtomicU64,
    traps: AtomicU64,
    dropped_log_lines: AtomicU64,
    contexts: AtomicU64,
    quarantined_until: AtomicU64,
    place: Arc<PlaceStats>,
}

/// The VMs of one place: one that serves, those that wait for their last exchanges, and instances for single exchanges.
#[derive(Debug, Default)]
pub(crate) struct PlaceStats {
    pub(crate) vms: AtomicU64,
    pub(crate) memory: AtomicU64,
}

/// One callback in so many is timed: reading the clock costs a tenth of a callback. A prime, so that the few callbacks
/// of an exchange take turns; and never the first, which runs cold.
pub(crate) const SAMPLE: u32 = 17;

impl PluginStats {
    pub(crate) fn of(place: &Arc<PlaceStats>) -> PluginStats {
        PluginStats { place: place.clone(), ..PluginStats::default() }
    }

    /// Callbacks run.
    pub fn callbacks(&self) -> u64 {
        self.callbacks.load(Ordering::Relaxed)
    }

    /// Nanoseconds spent in them, estimated from one in seventeen.
    pub fn nanoseconds(&self) -> u64 {
        self.nanoseconds.load(Ordering::Relaxed)
    }

    /// Callbacks that failed.
    pub fn traps(&self) -> u64 {
        self.traps.load(Ordering::Relaxed)
    }

    /// Log lines over the plugin's rate.
    pub fn dropped_log_lines(&self) -> u64 {
        self.dropped_log_lines.load(Ordering::Relaxed)
    }

    /// Live stream contexts.
    pub fn contexts(&self) -> u64 {
        self.contexts.load(Ordering::Relaxed)
    }

    /// Until when the plugin is in quarantine, if it is.
    pub fn quarantined_until(&self) -> Option<SystemTime> {
        let millis = self.quarantined_until.load(Ordering::Relaxed);
        let until = UNIX_EPOCH + Duration::from_millis(millis);
        (millis > 0 && until > SystemTime::now()).then_some(until)
    }

    /// VMs that hold the plugin, others' contexts included where it shares its VM.
    pub fn vms(&self) -> u64 {
        self.place.vms.load(Ordering::Relaxed)
    }

    /// Their linear memory, in bytes.
    pub fn memory(&self) -> u64 {
        self.place.memory.load(Ordering::Relaxed)
    }

    /// Whether this callback is to be timed.
    pub(crate) fn count_callback(&self) -> bool {
        add(&self.callbacks, 1) % u64::from(SAMPLE) == u64::from(SAMPLE) - 1
    }

    pub(crate) fn record(&self, time: Duration) {
        add(&self.nanoseconds, u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(crate) fn count_trap(&self) {
        add(&self.traps, 1);
    }

    pub(crate) fn count_dropped_log_line(&self) {
        add(&self.dropped_log_lines, 1);
    }

    pub(crate) fn begin_context(&self) {
        add(&self.contexts, 1);
    }

    pub(crate) fn end_context(&self) {
        add(&self.contexts, u64::MAX);
    }

    pub(crate) fn begin_quarantine(&self, pause: Duration) {
        let until = SystemTime::now() + pause;
        let millis = until.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        self.quarantined_until.store(u64::try_from(millis).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// Adds without a locked instruction: there is one writer. Returns what was there.
fn add(counter: &AtomicU64, amount: u64) -> u64 {
    let before = counter.load(Ordering::Relaxed);
    counter.store(before.wrapping_add(amount), Ordering::Relaxed);
    before
}
