//! A plugin's share of its worker's CPU time.
//!
//! The usual callback costs one flag to look at: its time is estimated from the samples that are taken anyway. Only a
//! plugin whose estimate is over its share is measured, callback by callback, in CPU time: a thread that the machine did
//! not let run must not be taken for a plugin that ran. And a plugin over its share pays for it only while the worker
//! has no time to spare.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::state::thread_time;

/// What the share is a share of.
const WINDOW: Duration = Duration::from_secs(1);
/// Percent of the time for which a worker must have wanted to run to count as one without time to spare.
const BUSY: u32 = 80;

/// For how long this thread ran or wanted to: on a machine that is short of cores, a worker without time to spare gets
/// less than it wants.
pub(crate) fn wanted_time() -> Duration {
    // Nanoseconds on a core, nanoseconds in the queue for one, and a count.
    let read = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let sum = read.and_then(|text| {
        let mut fields = text.split_ascii_whitespace().map(str::parse::<u64>);
        fields.next()?.ok()?.checked_add(fields.next()?.ok()?)
    });
    sum.map_or_else(thread_time, Duration::from_nanos)
}

/// One plugin's share on one worker.
pub(crate) struct Share {
    /// CPU time in a window; none for all of it.
    allowed: Option<Duration>,
    /// When the window began, and how long the thread had wanted to run then.
    window: Cell<Option<(Instant, Duration)>>,
    estimated: Cell<Duration>,
    measured: Cell<Duration>,
    watched: Cell<bool>,
    shed_until: Cell<Option<Instant>>,
}

impl Share {
    pub(crate) fn new(percent: u32) -> Share {
        Share {
            allowed: (percent < 100).then(|| WINDOW * percent / 100),
            window: Cell::new(None),
            estimated: Cell::new(Duration::ZERO),
            measured: Cell::new(Duration::ZERO),
            watched: Cell::new(false),
            shed_until: Cell::new(None),
        }
    }

    /// Whether each callback is to be measured, by [`Share::measure`].
    pub(crate) fn is_watched(&self) -> bool {
        self.watched.get()
    }

    /// Whether the plugin may run as far as it is known without a look at the clock.
    pub(crate) fn is_calm(&self) -> bool {
        self.shed_until.get().is_none()
    }

    /// How long the plugin is not to run.
    pub(crate) fn wait(&self, now: Instant) -> Option<Duration> {
        let left = self.shed_until.get()?.saturating_duration_since(now);
        if left.is_zero() {
            self.shed_until.set(None);
            return None;
        }
        Some(left)
    }

    /// Takes an estimate of wall time in. `wanted` is [`wanted_time`], asked for when needed.
    pub(crate) fn estimate(&self, wall: Duration, now: Instant, wanted: impl Fn() -> Duration) {
        let Some(allowed) = self.allowed else { return };
        if self.watched.get() {
            return;
        }
        match self.window.get() {
            Some((began, _)) if now.saturating_duration_since(began) < WINDOW => {}
            _ => {
                self.window.set(Some((now, Duration::ZERO)));
                self.estimated.set(Duration::ZERO);
            }
        }
        self.estimated.set(self.estimated.get() + wall);
        if self.estimated.get() > allowed {
            self.watched.set(true);
            self.measured.set(Duration::ZERO);
            self.window.set(Some((now, wanted())));
        }
    }

    /// Takes the CPU time of a callback in; true if the plugin is to be shed from now on.
    pub(crate) fn measure(&self, cpu: Duration, now: Instant, wanted: impl Fn() -> Duration) -> bool {
        let (Some(allowed), Some((began, wanted_then))) = (self.allowed, self.window.get()) else {
            return false;
        };
        let elapsed = now.saturating_duration_since(began);
        if elapsed >= WINDOW {
            // Watched for as long as it comes near its share.
            self.watched.set(self.measured.get() > allowed / 2);
            self.window.set(Some((now, wanted())));
            self.measured.set(cpu);
            self.estimated.set(Duration::ZERO);
            return false;
        }
        self.measured.set(self.measured.get() + cpu);
        if self.measured.get() <= allowed || self.shed_until.get().is_some() {
            return false;
        }
        let busy = wanted().saturating_sub(wanted_then) * 100 >= elapsed * BUSY;
        if busy {
            self.shed_until.set(Some(began + WINDOW));
        }
        busy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A share of half a core whose plugin is watched since `now`, when the thread had wanted no time yet.
    fn watched(now: Instant) -> Share {
        let share = Share::new(50);
        assert!(!share.is_watched());
        share.estimate(400 * MS, now, || Duration::ZERO);
        assert!(!share.is_watched());
        share.estimate(200 * MS, now, || Duration::ZERO);
        assert!(share.is_watched() && share.is_calm());
        share
    }

    #[test]
    fn a_plugin_over_its_share_of_a_busy_worker_is_shed_for_the_rest_of_the_second() {
        let now = Instant::now();
        let share = watched(now);
        assert!(!share.measure(400 * MS, now + 400 * MS, || 400 * MS));
        assert!(share.measure(150 * MS, now + 550 * MS, || 550 * MS));
        assert!(!share.is_calm());
        assert_eq!(share.wait(now + 600 * MS), Some(400 * MS));
        assert_eq!(share.wait(now + 1_000 * MS), None);
        assert!(share.is_calm());
    }

    #[test]
    fn a_worker_with_time_to_spare_lets_it_run() {
        let now = Instant::now();
        let share = watched(now);
        assert!(!share.measure(600 * MS, now + 900 * MS, || 600 * MS));
        assert!(share.is_calm());
    }

    #[test]
    fn a_thread_that_was_not_let_run_has_not_used_anything() {
        let now = Instant::now();
        let share = watched(now);
        // The estimate was 600 ms of wall time; the CPU time says otherwise.
        for step in 1..=10 {
            assert!(!share.measure(MS, now + 90 * MS * step, || 90 * MS * step));
        }
        assert!(!share.measure(MS, now + 1_001 * MS, || 1_001 * MS));
        assert!(!share.is_watched(), "and it is no longer measured");
    }

    #[test]
    fn the_time_wanted_is_at_least_the_time_used() {
        let (wanted, used) = (wanted_time(), thread_time());
        while thread_time() - used < 20 * MS {}
        // The scheduler's own figures may lag behind by a tick.
        assert!(wanted_time() - wanted >= 10 * MS);
    }

    #[test]
    fn all_of_a_core_is_no_limit() {
        let now = Instant::now();
        let share = Share::new(100);
        share.estimate(10_000 * MS, now, || Duration::ZERO);
        assert!(!share.is_watched());
    }
}
