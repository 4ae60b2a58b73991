//! How much a plugin runs on one worker. Written by that worker alone, readable from any thread.

use std::hash::{BuildHasher, RandomState};
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
    /// Which callback is timed next, counted from zero.
    timed_next: AtomicU64,
    /// What that is drawn from; zero before the first time.
    dice: AtomicU64,
    place: Arc<PlaceStats>,
}

/// The VMs of one place: one that serves, those that wait for their last exchanges, and instances for single exchanges.
#[derive(Debug, Default)]
pub(crate) struct PlaceStats {
    pub(crate) vms: AtomicU64,
    pub(crate) memory: AtomicU64,
}

/// One callback in so many is timed, on average: to read the clock twice takes as long as a short callback. Which one is drawn: a
/// guest that knew would do its work in the others. Never the first, which runs cold. Those that take two milliseconds are
/// all counted, by the ticks of the epoch; between one and two, where both ways meet, it comes to a sixth too much at most.
pub(crate) const SAMPLE: u32 = 67;

impl PluginStats {
    pub(crate) fn of(place: &Arc<PlaceStats>) -> PluginStats {
        PluginStats { place: place.clone(), ..PluginStats::default() }
    }

    /// Callbacks run.
    pub fn callbacks(&self) -> u64 {
        self.callbacks.load(Ordering::Relaxed)
    }

    /// Nanoseconds spent in them, estimated: long ones in steps of a millisecond, of the others one in 67, on average.
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
    #[inline]
    pub(crate) fn count_callback(&self) -> bool {
        let callback = add(&self.callbacks, 1);
        callback >= self.timed_next.load(Ordering::Relaxed) && self.times(callback)
    }

    #[cold]
    fn times(&self, callback: u64) -> bool {
        self.timed_next.store(callback.saturating_add(self.draw()), Ordering::Relaxed);
        callback > 0
    }

    /// How many callbacks later the next one is timed: from 1 to twice [`SAMPLE`] less 1, each as likely.
    fn draw(&self) -> u64 {
        let mut dice = self.dice.load(Ordering::Relaxed);
        if dice == 0 {
            dice = RandomState::new().hash_one(SAMPLE) | 1;
        }
        // Xorshift, which never comes to zero.
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        self.dice.store(dice, Ordering::Relaxed);
        dice % u64::from(2 * SAMPLE - 1) + 1
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// After how many callbacks each time the next one is timed.
    fn gaps(stats: &PluginStats, callbacks: u64) -> Vec<u64> {
        let timed: Vec<u64> = (0..callbacks).filter(|_| stats.count_callback()).collect();
        timed.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }

    #[test]
    fn callbacks_are_timed_at_random() {
        let most = u64::from(SAMPLE) * 2 - 1;
        let (one, other) = (PluginStats::default(), PluginStats::default());
        assert!(!one.count_callback(), "the first runs cold");
        let drawn = gaps(&one, 134_000);
        // 2,000, with a standard deviation of 26.
        assert!((1_800..2_200).contains(&drawn.len()), "{}", drawn.len());
        assert_eq!(drawn.iter().copied().collect::<BTreeSet<_>>(), (1..=most).collect(), "any may be next");
        assert_ne!(drawn[..50], gaps(&other, 134_000)[..50], "each plugin has its own");
        assert_eq!((one.callbacks(), other.callbacks()), (134_001, 134_000));
    }
}
