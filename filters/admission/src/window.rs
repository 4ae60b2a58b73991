//! What one worker measures between two changes of the limit.

use crate::controller::Measured;

/// Latencies that are kept. Of more, the last ones.
const MOST: usize = 1_000;
/// One failure in so many is too many.
const FAILURES: u32 = 10;

/// What came of requests since the window began. Times are in microseconds.
#[derive(Debug, Default)]
pub(crate) struct Window {
    began: Option<u64>,
    latencies: Vec<u64>,
    /// Of all that are counted here.
    responses: u32,
    failures: u32,
    peak: f64,
}

impl Window {
    /// A request came when there were so many at a time.
    pub(crate) fn saw(&mut self, requests: f64, now: u64) {
        self.began.get_or_insert(now);
        self.peak = self.peak.max(requests);
    }

    /// A request that was admitted at `started` has its response. `good`: it tells how long one takes; `failed`: it says that there
    /// are too many.
    pub(crate) fn add(&mut self, started: u64, now: u64, good: bool, failed: bool) {
        // One of an earlier window was admitted under another limit.
        if self.began.is_none_or(|began| started < began) || now < started {
            return;
        }
        if good {
            match self.latencies.len() {
                MOST => {
                    if let Some(oldest) = self.latencies.get_mut(self.responses as usize % MOST) {
                        *oldest = now - started;
                    }
                }
                _ => self.latencies.push(now - started),
            }
        }
        self.responses = self.responses.saturating_add(1);
        self.failures += u32::from(failed);
    }

    /// What was measured, if it is enough; then the next window begins with the next request.
    pub(crate) fn close(&mut self, interval: u64, samples: u32, now: u64) -> Option<Measured> {
        let began = self.began?;
        if now < began {
            // The clock went back: what is here tells nothing.
            *self = Self::default();
            return None;
        }
        if now - began < interval || self.responses < samples {
            return None;
        }
        let middle = self.latencies.len() / 2;
        let latency =
            (!self.latencies.is_empty()).then(|| *self.latencies.select_nth_unstable(middle).1 as f64);
        let measured = Measured {
            began,
            latency,
            overloaded: self.failures >= 1 && self.failures >= self.responses / FAILURES,
            peak: self.peak,
        };
        self.latencies.clear();
        *self = Self { latencies: std::mem::take(&mut self.latencies), ..Self::default() };
        Some(measured)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_in_the_middle_tells() {
        let mut window = Window::default();
        window.saw(3.0, 100);
        window.saw(7.0, 101);
        window.saw(2.0, 102);
        for (index, took) in [90, 10, 5_000, 30, 20].into_iter().enumerate() {
            assert!(window.close(50, 5, 10_000).is_none(), "{index} are too few");
            window.add(100, 100 + took, true, false);
        }
        window.add(99, 200, true, false);
        assert!(window.close(50, 5, 149).is_none(), "it is too early");
        let measured = window.close(50, 5, 150).unwrap();
        assert_eq!((measured.began, measured.latency, measured.peak), (100, Some(30.0), 7.0));
        assert!(!measured.overloaded && window.close(0, 0, 1_000).is_none(), "and the next has not begun");
    }

    #[test]
    fn failures_tell_when_there_are_many() {
        let closed = |good: u32, failed: u32| {
            let mut window = Window::default();
            window.saw(1.0, 1);
            (0..good).for_each(|_| window.add(1, 2, true, false));
            (0..failed).for_each(|_| window.add(1, 2, false, true));
            let measured = window.close(0, 1, 3).unwrap();
            (measured.overloaded, measured.latency.is_some())
        };
        assert_eq!(
            (closed(20, 0), closed(29, 1), closed(27, 3)),
            ((false, true), (false, true), (true, true))
        );
        assert_eq!(closed(0, 1), (true, false));
    }

    #[test]
    fn no_more_is_kept_than_there_may_be_and_a_clock_may_go_back() {
        let mut window = Window::default();
        window.saw(1.0, 1);
        (0..MOST as u64).for_each(|_| window.add(1, 2, true, false));
        (0..MOST as u64).for_each(|_| window.add(1, 101, true, false));
        assert_eq!((window.latencies.len(), window.close(0, 1, 200).unwrap().latency), (MOST, Some(100.0)));
        window.saw(1.0, 1_000);
        window.add(1_000, 999, true, false);
        assert!(window.close(0, 0, 999).is_none() && window.began.is_none());
    }
}
