//! The quarantine of a plugin that fails again and again: it does not run for a while, then one exchange tries it.
//!
//! States: *working* (failures of the last minute are counted), *out* (until a moment), *probing* (one exchange at a
//! time, until one ended well or a second passed without a failure).

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

/// How long failures are counted together.
const MINUTE: Duration = Duration::from_secs(60);
/// The first pause, doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest.
const LAST_PAUSE: Duration = Duration::from_secs(60);
/// A plugin that is tried and does not fail for so long works.
const PROBATION: Duration = Duration::from_secs(1);

/// Where a plugin stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Working,
    Out { until: Instant },
    Probing { since: Instant, busy: bool },
}

/// One plugin's quarantine on one worker.
pub(crate) struct Quarantine {
    state: Cell<State>,
    /// Failures since the moment.
    failures: Cell<Option<(Instant, u32)>>,
    /// Pauses in a row, and when the last one ended.
    pauses: Cell<(u32, Option<Instant>)>,
}

/// Whether an exchange may run the plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// As usual.
    Free,
    /// It tries the plugin out: its end is to be told by [`Quarantine::tried`].
    Probe,
    /// Not now; maybe after this time.
    Refused(Duration),
}

impl Quarantine {
    pub(crate) fn new() -> Quarantine {
        Quarantine {
            state: Cell::new(State::Working),
            failures: Cell::new(None),
            pauses: Cell::new((0, None)),
        }
    }

    /// Whether it works, without a look at the clock.
    pub(crate) fn is_calm(&self) -> bool {
        self.state.get() == State::Working
    }

    /// Whether an exchange may run the plugin.
    pub(crate) fn admit(&self, now: Instant) -> Admission {
        if let Some(left) = self.wait(now) {
            return Admission::Refused(left);
        }
        match self.state.get() {
            State::Working | State::Out { .. } => Admission::Free,
            State::Probing { since, .. } if now.saturating_duration_since(since) >= PROBATION => {
                self.passed(now);
                Admission::Free
            }
            State::Probing { since, busy: true } => {
                Admission::Refused(PROBATION.saturating_sub(now.saturating_duration_since(since)))
            }
            State::Probing { since, busy: false } => {
                self.state.set(State::Probing { since, busy: true });
                Admission::Probe
            }
        }
    }

    /// How long until the plugin may be started again; none if now. A pause that is over becomes a trial.
    pub(crate) fn wait(&self, now: Instant) -> Option<Duration> {
        let State::Out { until } = self.state.get() else { return None };
        let left = until.saturating_duration_since(now);
        if left.is_zero() {
            self.state.set(State::Probing { since: now, busy: false });
            return None;
        }
        Some(left)
    }

    /// The exchange that tried the plugin is over; it may not have come to run it.
    pub(crate) fn tried(&self, now: Instant, ran: bool) {
        match self.state.get() {
            State::Probing { .. } if ran => self.passed(now),
            State::Probing { since, .. } => self.state.set(State::Probing { since, busy: false }),
            _ => {}
        }
    }

    /// The plugin is no longer on trial.
    pub(crate) fn passed(&self, now: Instant) {
        if let State::Probing { .. } = self.state.get() {
            self.state.set(State::Working);
            self.failures.set(None);
            self.pauses.set((self.pauses.get().0, Some(now)));
        }
    }

    /// A callback failed, which counts for so many failures. How long the plugin is out for, if that is more than may fail
    /// in a minute.
    pub(crate) fn failed(&self, now: Instant, weight: u32, allowed: u32) -> Option<Duration> {
        if let State::Probing { since, .. } = self.state.get()
            && now.saturating_duration_since(since) >= PROBATION
        {
            self.passed(since + PROBATION);
        }
        match self.state.get() {
            State::Out { .. } => None,
            State::Probing { .. } => Some(self.send_out(now)),
            State::Working => {
                let recent = |(since, _): &(Instant, u32)| now.saturating_duration_since(*since) < MINUTE;
                let (since, failures) = self.failures.get().filter(recent).unwrap_or((now, 0));
                let failures = failures.saturating_add(weight);
                self.failures.set(Some((since, failures)));
                (failures > allowed).then(|| self.send_out(now))
            }
        }
    }

    /// The plugin could not be started again: it is out at once.
    pub(crate) fn send_out(&self, now: Instant) -> Duration {
        let (pauses, worked_since) = self.pauses.get();
        // Who worked for a minute begins anew.
        let forgiven = worked_since.is_some_and(|since| now.saturating_duration_since(since) >= MINUTE);
        let pauses = if forgiven { 0 } else { pauses };
        let pause = jittered(FIRST_PAUSE.saturating_mul(1 << pauses.min(6)).min(LAST_PAUSE));
        self.pauses.set((pauses.saturating_add(1), None));
        self.failures.set(None);
        self.state.set(State::Out { until: now + pause });
        pause
    }
}

/// Between four fifths and the whole, so that workers and proxies do not try all at once.
fn jittered(pause: Duration) -> Duration {
    let random = RandomState::new().hash_one(()) % 1_024;
    pause - (pause / 5).mul_f64(random as f64 / 1_024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// One failure more than allowed.
    fn fail(quarantine: &Quarantine, now: Instant) -> Duration {
        assert_eq!(quarantine.failed(now, 1, 1), None);
        quarantine.failed(now, 1, 1).expect("one too many")
    }

    #[test]
    fn few_failures_in_a_minute_are_borne() {
        let quarantine = Quarantine::new();
        let start = Instant::now();
        for minute in 0..10 {
            let now = start + MINUTE * minute;
            assert_eq!(quarantine.failed(now, 1, 2), None);
            assert_eq!(quarantine.failed(now + seconds(59), 1, 2), None);
            assert!(quarantine.is_calm());
        }
    }

    #[test]
    fn a_failure_may_count_for_several() {
        let quarantine = Quarantine::new();
        let now = Instant::now();
        for _ in 0..6 {
            assert_eq!(quarantine.failed(now, 3, 20), None);
        }
        assert!(quarantine.failed(now, 3, 20).is_some());
    }

    #[test]
    fn pauses_double_up_to_a_minute_and_differ_a_little() {
        let quarantine = Quarantine::new();
        let mut now = Instant::now();
        let mut pause = fail(&quarantine, now);
        for longest in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert!(pause <= seconds(longest) && pause >= seconds(longest) * 4 / 5, "{pause:?}");
            assert_eq!(quarantine.admit(now), Admission::Refused(pause));
            assert_eq!(quarantine.failed(now, 1, 1), None, "what still ran does not count");
            now += pause;
            assert_eq!(quarantine.admit(now), Admission::Probe);
            pause = quarantine.failed(now, 1, 1_000).expect("the trial failed");
        }
    }

    #[test]
    fn one_exchange_tries_and_the_others_wait_for_it() {
        let quarantine = Quarantine::new();
        let mut now = Instant::now();
        now += fail(&quarantine, now);
        assert_eq!(quarantine.admit(now), Admission::Probe);
        assert_eq!(quarantine.admit(now), Admission::Refused(PROBATION));
        quarantine.tried(now, false);
        assert_eq!(quarantine.admit(now), Admission::Probe, "it did not come to run");
        quarantine.tried(now, true);
        assert_eq!(quarantine.admit(now), Admission::Free);
        // Soon after, the next pause is longer; after a good minute it is not.
        assert!(fail(&quarantine, now) > seconds(1));
        now += seconds(2);
        assert_eq!(quarantine.admit(now), Admission::Probe);
        quarantine.passed(now);
        assert!(fail(&quarantine, now + MINUTE) <= seconds(1));
    }

    #[test]
    fn a_long_exchange_does_not_keep_the_others_waiting() {
        let quarantine = Quarantine::new();
        let mut now = Instant::now();
        now += fail(&quarantine, now);
        assert_eq!(quarantine.admit(now), Admission::Probe);
        assert_eq!(quarantine.admit(now + PROBATION), Admission::Free);
        assert!(quarantine.is_calm());
    }
}
