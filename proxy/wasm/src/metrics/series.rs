//! One series: its kind, its value, and what hostcalls may do to it.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::status::Status;

/// What a metric counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MetricKind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution.
    Histogram,
}

impl MetricKind {
    /// The kind with the ABI's number, none above 2.
    pub fn from_abi(number: u32) -> Option<MetricKind> {
        Some(match number {
            0 => MetricKind::Counter,
            1 => MetricKind::Gauge,
            2 => MetricKind::Histogram,
            _ => return None,
        })
    }
}

/// A labelled series, as `meshgate.metric` defines it.
#[derive(Clone, Debug)]
pub struct SeriesSpec<'a> {
    /// The metric's name in Prometheus form.
    pub name: &'a str,
    /// What it counts.
    pub kind: MetricKind,
    /// Label names and values; their order does not matter.
    pub labels: &'a [(&'a str, &'a str)],
    /// One line of help; the first definition's is kept.
    pub help: &'a str,
    /// Recorded integers are multiplied by it when shown; 0 means 1.
    pub scale: f64,
    /// Upper bounds of a histogram's buckets, in the shown unit, rising; empty for the default, which suits
    /// milliseconds times the scale.
    pub buckets: &'a [f64],
}

/// The default buckets, for recorded milliseconds.
const DEFAULT_BUCKETS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1_000.0,
    2_500.0,
    5_000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// One series: a value that any thread may change.
#[derive(Debug)]
pub struct Series {
    kind: MetricKind,
    pub(super) scale: f64,
    /// A counter's or gauge's value, a histogram's sum, in recorded units. A gauge may be negative.
    value: AtomicU64,
    pub(super) buckets: Box<[Bucket]>,
}

/// A histogram's bucket.
#[derive(Debug)]
pub(super) struct Bucket {
    /// In the shown unit; the last is infinite.
    pub(super) bound: f64,
    /// The largest recorded value in it.
    highest: u64,
    /// Not cumulative.
    pub(super) count: AtomicU64,
}

impl Series {
    pub(super) fn new(spec: &SeriesSpec<'_>) -> Series {
        let scale = if spec.scale == 0.0 { 1.0 } else { spec.scale };
        let default: Vec<f64>;
        let bounds = match (spec.kind, spec.buckets) {
            (MetricKind::Histogram, []) => {
                default = DEFAULT_BUCKETS.iter().map(|bound| bound * scale).collect();
                &default
            }
            (_, bounds) => bounds,
        };
        let finite = bounds.iter().map(|bound| Bucket {
            bound: *bound,
            // Negative bounds take nothing but zero; the division may be off by one part in 2^52.
            highest: (bound / scale * (1.0 + f64::EPSILON)).floor().max(0.0) as u64,
            count: AtomicU64::new(0),
        });
        let infinite = Bucket { bound: f64::INFINITY, highest: u64::MAX, count: AtomicU64::new(0) };
        let buckets = match spec.kind {
            MetricKind::Histogram => finite.chain([infinite]).collect(),
            _ => Box::default(),
        };
        Series { kind: spec.kind, scale, value: AtomicU64::new(0), buckets }
    }

    /// What it counts.
    pub fn kind(&self) -> MetricKind {
        self.kind
    }

    /// `proxy_record_metric`: adds to a counter, sets a gauge, observes a value of a histogram.
    pub fn record(&self, value: u64) {
        match self.kind {
            MetricKind::Counter => {
                self.value.fetch_add(value, Ordering::Relaxed);
            }
            MetricKind::Gauge => self.value.store(value, Ordering::Relaxed),
            MetricKind::Histogram => {
                let bucket = self.buckets.partition_point(|bucket| bucket.highest < value);
                self.buckets[bucket].count.fetch_add(1, Ordering::Relaxed);
                self.value.fetch_add(value, Ordering::Relaxed);
            }
        }
    }

    /// `proxy_increment_metric`.
    ///
    /// # Errors
    /// BadArgument for a counter that would not grow, and for a histogram.
    pub fn increment(&self, offset: i64) -> Result<(), Status> {
        match self.kind {
            MetricKind::Counter if offset <= 0 => Err(Status::BadArgument),
            MetricKind::Histogram => Err(Status::BadArgument),
            MetricKind::Counter | MetricKind::Gauge => {
                // Two's complement: adding a negative offset wraps to what it should be.
                self.value.fetch_add(offset.cast_unsigned(), Ordering::Relaxed);
                Ok(())
            }
        }
    }

    /// `proxy_get_metric`, in recorded units.
    ///
    /// # Errors
    /// BadArgument for a histogram.
    pub fn value(&self) -> Result<u64, Status> {
        match self.kind {
            MetricKind::Histogram => Err(Status::BadArgument),
            _ => Ok(self.value.load(Ordering::Relaxed)),
        }
    }

    /// A counter's or gauge's value or a histogram's sum, in the shown unit.
    pub(super) fn shown(&self) -> f64 {
        let value = self.value.load(Ordering::Relaxed);
        let number = match self.kind {
            MetricKind::Gauge => value.cast_signed() as f64,
            _ => value as f64,
        };
        number * self.scale
    }
}
