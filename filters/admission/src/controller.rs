//! How many requests at a time are best for what is behind: found by how long they take, with a gradient.
//!
//! As long as nobody waits, more requests at a time do not make each take longer. What one takes then is the base. When they
//! take longer than what is tolerated of it, there are too many, and the limit falls in proportion; when not, and the limit
//! is in use, it grows by its square root. Where the two meet, the queue is as long as the tolerance allows and no longer.
//!
//! The base is the least that was measured. It may have become wrong: what is behind has changed, or has been under load ever
//! since. So from time to time the limit is lowered for one measurement, far enough that nobody waits.

use serde::{Deserialize, Serialize};

/// How much of the limit is left when what is behind says that it is overloaded.
const BACK_OFF: f64 = 0.9;
/// A base that is so much of the one before, or less, was worth measuring; so may be another one.
const BETTER: f64 = 0.9;
/// The limit falls by no more than this at a time.
const STEEPEST: f64 = 0.5;

/// What stays the same.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) min: f64,
    pub(crate) max: f64,
    pub(crate) initial: f64,
    pub(crate) tolerance: f64,
    /// In microseconds.
    pub(crate) probe_every: u64,
}

/// What was measured by one worker for a while. Times are in microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    /// When that began: all requests that it is about were admitted later.
    pub(crate) began: u64,
    /// What the one in the middle took; none if all failed.
    pub(crate) latency: Option<f64>,
    /// Whether many of them failed as they do where there are too many.
    pub(crate) overloaded: bool,
    /// The most requests that there were at a time, of all workers.
    pub(crate) peak: f64,
}

/// What is known, by all workers together.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct State {
    limit: f64,
    /// What a request takes when it does not wait.
    base: Option<f64>,
    /// When the base was seen last.
    seen: u64,
    /// When the limit was looked at last. What began before tells of another one.
    changed: u64,
    /// While the base is measured: the limit before.
    probing: Option<f64>,
}

impl State {
    /// Nothing is known yet.
    pub(crate) fn new(settings: &Settings) -> Self {
        Self { limit: settings.initial, base: None, seen: 0, changed: 0, probing: None }
    }

    /// How many requests there may be at a time.
    pub(crate) fn limit(&self) -> f64 {
        self.limit
    }

    /// What a request takes when it does not wait, as far as that is known.
    pub(crate) fn base(&self) -> Option<f64> {
        self.base
    }

    /// What becomes of it by what a worker has measured up to now.
    #[must_use]
    pub(crate) fn after(mut self, measured: &Measured, settings: &Settings, now: u64) -> Self {
        // The clock may have gone back.
        self.changed = self.changed.min(now);
        self.seen = self.seen.min(now);
        if measured.began < self.changed {
            return self;
        }
        self.changed = now;
        if let Some(before) = self.probing {
            self.probe(before, measured, settings, now);
        } else if measured.overloaded {
            self.limit *= BACK_OFF;
        } else if let Some(latency) = measured.latency {
            self.follow(latency, measured.peak >= self.limit / 2.0, settings, now);
        }
        self.limit = self.limit.clamp(settings.min, settings.max);
        self
    }

    /// The base was measured. If it is much less than what was known, nobody knows that it is the least.
    fn probe(&mut self, before: f64, measured: &Measured, settings: &Settings, now: u64) {
        let latency = measured.latency.filter(|_| !measured.overloaded);
        let known = self.base.zip(latency);
        self.base = latency.or(self.base);
        self.seen = now;
        if known.is_some_and(|(known, latency)| latency < known * BETTER) && self.limit > settings.min {
            self.limit /= 2.0 * settings.tolerance;
            return;
        }
        self.probing = None;
        self.limit = if measured.overloaded { before * BACK_OFF } else { before };
    }

    /// Moves the limit by how long requests take; `used`: much of it was in use.
    fn follow(&mut self, latency: f64, used: bool, settings: &Settings, now: u64) {
        let base = self.base.filter(|base| *base < latency).unwrap_or_else(|| {
            self.seen = now;
            latency
        });
        self.base = Some(base);
        if now - self.seen >= settings.probe_every {
            if used {
                self.probing = Some(self.limit);
                self.limit /= 2.0 * settings.tolerance;
                return;
            }
            // Few at a time: nobody waits, so that is what they take now.
            self.base = Some(latency);
            self.seen = now;
            return;
        }
        let gradient = (settings.tolerance * base / latency.max(1.0)).clamp(STEEPEST, 1.0);
        let next = self.limit * gradient + self.limit.sqrt();
        // One that is not in use says nothing of whether more would be fine.
        if used || next < self.limit {
            self.limit = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;
    const SETTINGS: Settings =
        Settings { min: 3.0, max: 1_000.0, initial: 20.0, tolerance: 1.5, probe_every: 60 * SECOND };

    /// A service that works on so many requests at a time, and takes so long for each. Others wait.
    #[derive(Clone, Copy)]
    struct Service {
        at_a_time: f64,
        takes: f64,
    }

    impl Service {
        fn latency(self, requests: f64) -> f64 {
            self.takes * (requests / self.at_a_time).max(1.0)
        }
    }

    /// A service under as many requests as come, for a while of tenths of seconds. Returns the limits.
    fn run(state: &mut State, now: &mut u64, service: Service, offered: f64, steps: u32) -> Vec<f64> {
        let mut limits = Vec::new();
        for _ in 0..steps {
            let requests = state.limit().floor().min(offered);
            let began = *now;
            *now += SECOND / 10;
            let latency = Some(service.latency(requests));
            let measured = Measured { began, latency, overloaded: false, peak: requests };
            *state = state.after(&measured, &SETTINGS, *now);
            limits.push(state.limit());
        }
        limits
    }

    fn fits(limit: f64, service: Service) -> bool {
        // As much as it works on, and a queue that makes each take 1.5 to 2.5 times as long.
        limit >= service.at_a_time && limit <= 1.5 * service.at_a_time + 2.0 * limit.sqrt()
    }

    #[test]
    fn the_limit_becomes_what_the_service_can_take() {
        for (at_a_time, takes) in [(4.0, 20_000.0), (50.0, 5_000.0), (200.0, 300_000.0)] {
            let service = Service { at_a_time, takes };
            let (mut state, mut now) = (State::new(&SETTINGS), SECOND);
            // It begins in peace, so that the base is seen.
            run(&mut state, &mut now, service, 2.0, 5);
            let limits = run(&mut state, &mut now, service, 10_000.0, 100);
            assert!(limits[50..].iter().all(|limit| fits(*limit, service)), "{at_a_time}: {limits:?}");
        }
    }

    #[test]
    fn a_service_that_was_overloaded_from_the_beginning_is_found_out_about() {
        let service = Service { at_a_time: 4.0, takes: 20_000.0 };
        let (mut state, mut now) = (State::new(&SETTINGS), SECOND);
        // What was seen first, five times too long, passes for the base until it is measured.
        run(&mut state, &mut now, service, 10_000.0, 700);
        let limits = run(&mut state, &mut now, service, 10_000.0, 700);
        let fitting = limits.iter().filter(|limit| fits(**limit, service)).count();
        assert!(fitting > 600, "{fitting} of 700: {limits:?}");
    }

    #[test]
    fn it_falls_with_what_the_service_can_take_and_recovers_with_it() {
        let service = Service { at_a_time: 40.0, takes: 10_000.0 };
        let (mut state, mut now) = (State::new(&SETTINGS), SECOND);
        run(&mut state, &mut now, service, 2.0, 5);
        run(&mut state, &mut now, service, 10_000.0, 50);
        let worse = Service { at_a_time: 5.0, ..service };
        let limits = run(&mut state, &mut now, worse, 10_000.0, 50);
        assert!(limits[20..].iter().all(|limit| fits(*limit, worse)), "{limits:?}");
        let limits = run(&mut state, &mut now, service, 10_000.0, 50);
        assert!(limits[30..].iter().all(|limit| fits(*limit, service)), "{limits:?}");
    }

    #[test]
    fn a_service_that_became_slower_but_not_smaller_has_its_limit_again() {
        let service = Service { at_a_time: 40.0, takes: 10_000.0 };
        let (mut state, mut now) = (State::new(&SETTINGS), SECOND);
        run(&mut state, &mut now, service, 2.0, 5);
        run(&mut state, &mut now, service, 10_000.0, 50);
        let slower = Service { takes: 50_000.0, ..service };
        run(&mut state, &mut now, slower, 10_000.0, 700);
        assert!(fits(state.limit(), slower), "{}", state.limit());
    }

    #[test]
    fn what_is_not_used_does_not_grow() {
        let service = Service { at_a_time: 40.0, takes: 10_000.0 };
        let (mut state, mut now) = (State::new(&SETTINGS), SECOND);
        let limits = run(&mut state, &mut now, service, 5.0, 1_000);
        assert!(limits.iter().all(|limit| *limit <= 20.0), "{limits:?}");
    }

    #[test]
    fn failures_lower_it_to_its_least_and_no_further() {
        let (mut state, mut now) = (State::new(&SETTINGS), SECOND);
        for _ in 0..100 {
            let measured = Measured { began: now, latency: None, overloaded: true, peak: 20.0 };
            now += SECOND;
            state = state.after(&measured, &SETTINGS, now);
        }
        assert!((state.limit() - SETTINGS.min).abs() < f64::EPSILON, "{}", state.limit());
    }

    #[test]
    fn what_was_measured_under_another_limit_does_not_count() {
        let mut state = State::new(&SETTINGS);
        let measured = |began| Measured { began, latency: Some(1_000.0), overloaded: false, peak: 20.0 };
        state = state.after(&measured(SECOND), &SETTINGS, 2 * SECOND);
        let limit = state.limit();
        assert_eq!(state.after(&measured(SECOND), &SETTINGS, 3 * SECOND), state);
        assert!(state.after(&measured(2 * SECOND), &SETTINGS, 3 * SECOND).limit() > limit);
        // A clock that went back an hour does not stop it for an hour.
        let later = 2 * SECOND + 3_600 * SECOND;
        state = state.after(&measured(later), &SETTINGS, later + SECOND);
        assert!(state.after(&measured(2 * SECOND), &SETTINGS, 3 * SECOND).changed <= 3 * SECOND);
    }
}
