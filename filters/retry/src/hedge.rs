//! When a try takes longer than most.

use std::cell::RefCell;
use std::time::Duration;

/// How many tries are looked at. Half of them are forgotten whenever there are as many.
const MOST: u32 = 2_000;
/// With fewer, nothing can be said.
const LEAST: u32 = 100;
/// Each power of two is cut into so many parts: what is said is less than a tenth too much.
const PARTS: u32 = 8;
/// 2^26 microseconds are a minute.
const BUCKETS: usize = 27 * PARTS as usize;

/// How long tries take, on this worker, of late.
#[derive(Debug)]
pub(crate) struct Latencies {
    counts: RefCell<(Vec<u32>, u32)>,
    share: f64,
    at_least: Duration,
}

impl Latencies {
    pub(crate) fn new(percentile: f64, at_least: Duration) -> Self {
        Self { counts: RefCell::new((vec![0; BUCKETS], 0)), share: percentile / 100.0, at_least }
    }

    /// A try had its response after so long.
    pub(crate) fn record(&self, took: Duration) {
        let (counts, total) = &mut *self.counts.borrow_mut();
        if *total >= MOST {
            counts.iter_mut().for_each(|count| *count /= 2);
            *total = counts.iter().sum();
        }
        if let Some(count) = counts.get_mut(bucket(took)) {
            *count += 1;
            *total += 1;
        }
    }

    /// After how long a try takes longer than most; `None` as long as nobody knows.
    pub(crate) fn bound(&self) -> Option<Duration> {
        let (counts, total) = &*self.counts.borrow();
        if *total < LEAST {
            return None;
        }
        let below = (f64::from(*total) * self.share).ceil() as u32;
        let mut seen = 0;
        let bucket = counts.iter().position(|count| {
            seen += count;
            seen >= below
        });
        bucket.map(|bucket| upper(bucket).max(self.at_least))
    }
}

/// The bucket of a time: its power of two, and the part of it.
fn bucket(took: Duration) -> usize {
    let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX).max(PARTS);
    let power = micros.ilog2();
    let part = (micros >> (power - PARTS.ilog2())) - PARTS;
    ((power * PARTS + part) as usize).min(BUCKETS - 1)
}

/// The end of a bucket.
fn upper(bucket: usize) -> Duration {
    let bucket = bucket as u64;
    let (power, part) = (bucket / u64::from(PARTS), bucket % u64::from(PARTS));
    Duration::from_micros(((u64::from(PARTS) + part + 1) << power) >> PARTS.ilog2())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_tries_take_less_than_the_bound() {
        let latencies = Latencies::new(95.0, Duration::from_millis(1));
        assert_eq!(latencies.bound(), None);
        for millis in 1..=99 {
            latencies.record(Duration::from_millis(millis));
        }
        assert_eq!(latencies.bound(), None);
        latencies.record(Duration::from_millis(100));
        let bound = latencies.bound().unwrap().as_millis();
        assert!((95..=105).contains(&bound), "{bound}");
    }

    #[test]
    fn what_was_once_is_forgotten() {
        let latencies = Latencies::new(90.0, Duration::from_millis(5));
        (0..2_000).for_each(|_| latencies.record(Duration::from_secs(1)));
        (0..9_000).for_each(|_| latencies.record(Duration::from_millis(10)));
        let bound = latencies.bound().unwrap().as_millis();
        assert!((10..=11).contains(&bound), "{bound}");
        (0..9_000).for_each(|_| latencies.record(Duration::from_micros(3)));
        assert_eq!(latencies.bound(), Some(Duration::from_millis(5)), "not sooner than that");
        latencies.record(Duration::MAX);
    }
}
