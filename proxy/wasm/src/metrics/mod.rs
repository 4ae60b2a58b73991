//! The metrics that filters define, for the whole process.
//!
//! Defining takes a lock; a filter does it once per series and VM. Changing a value is a relaxed atomic operation.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::status::Status;

mod render;
mod series;

pub use series::{MetricKind, Series, SeriesSpec};

/// Series of the process, by default.
const MAX_SERIES: usize = 10_000;
/// Bytes of a metric's or label's name.
pub(crate) const MAX_NAME: usize = 256;
/// Bytes of a label's value.
const MAX_VALUE: usize = 1_024;
/// Labels of a series.
const MAX_LABELS: usize = 32;
/// Buckets of a histogram.
const MAX_BUCKETS: usize = 64;
/// What the names of metrics from `proxy_define_metric` begin with.
const DEFINED: &str = "wasmcustom_";

/// All series of the process.
#[derive(Debug)]
pub struct Metrics {
    families: Mutex<Families>,
    max_series: usize,
    refused: AtomicU64,
}

#[derive(Debug, Default)]
struct Families {
    by_name: BTreeMap<String, Family>,
    count: usize,
}

/// The series of one name.
#[derive(Debug)]
struct Family {
    kind: MetricKind,
    help: String,
    /// By labels as they are shown, without braces.
    series: HashMap<String, Arc<Series>>,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::bounded(MAX_SERIES)
    }
}

impl Metrics {
    /// No series yet, and never more than this.
    pub fn bounded(max_series: usize) -> Metrics {
        Metrics { families: Mutex::default(), max_series, refused: AtomicU64::new(0) }
    }

    /// The series of a metric defined by `proxy_define_metric`: no labels, shown as `wasmcustom_<name>`. `admit` is
    /// asked before a series is made that there was not.
    ///
    /// # Errors
    /// BadArgument for a bad name or another type under that name; InternalFailure when there are too many.
    pub fn define(
        &self,
        name: &str,
        kind: MetricKind,
        admit: impl FnOnce() -> bool,
    ) -> Result<Arc<Series>, Status> {
        if name.is_empty() || name.len() > MAX_NAME {
            return Err(Status::BadArgument);
        }
        let shown: String =
            name.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '_' }).collect();
        let name = format!("{DEFINED}{shown}");
        let spec = SeriesSpec { name: &name, kind, labels: &[], help: "", scale: 1.0, buckets: &[] };
        self.find_or_add(&spec, admit)
    }

    /// A labelled series, made or found. `admit` is asked before one is made.
    ///
    /// # Errors
    /// BadArgument for a bad name or label or another type under that name; InternalFailure when there are too
    /// many.
    pub fn series(&self, spec: &SeriesSpec<'_>, admit: impl FnOnce() -> bool) -> Result<Arc<Series>, Status> {
        let labels_fit = spec.labels.len() <= MAX_LABELS
            && spec.labels.iter().all(|(name, value)| is_label(name) && value.len() <= MAX_VALUE);
        if !is_name(spec.name) || spec.name.starts_with(DEFINED) || !labels_fit {
            return Err(Status::BadArgument);
        }
        let repeated =
            spec.labels.iter().enumerate().any(|(position, (name, _))| {
                spec.labels[..position].iter().any(|(before, _)| before == name)
            });
        let rising = spec.buckets.windows(2).all(|pair| pair[0] < pair[1]);
        let finite = spec.scale.is_finite() && spec.buckets.iter().all(|bound| bound.is_finite());
        if repeated || !rising || !finite || spec.scale < 0.0 || spec.buckets.len() > MAX_BUCKETS {
            return Err(Status::BadArgument);
        }
        self.find_or_add(spec, admit)
    }

    /// Definitions refused because there were too many series.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Appends all series in the Prometheus text format.
    pub fn render(&self, out: &mut String) {
        for (name, family) in &self.families().by_name {
            render::family(out, name, family.kind, &family.help, &family.series);
        }
        render::refused(out, self.refused());
    }

    fn find_or_add(
        &self,
        spec: &SeriesSpec<'_>,
        admit: impl FnOnce() -> bool,
    ) -> Result<Arc<Series>, Status> {
        let labels = render::labels(spec.labels);
        let mut families = self.families();
        if let Some(family) = families.by_name.get(spec.name) {
            if family.kind != spec.kind {
                return Err(Status::BadArgument);
            }
            if let Some(series) = family.series.get(&labels) {
                return Ok(series.clone());
            }
        }
        if families.count >= self.max_series || !admit() {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(Status::InternalFailure);
        }
        let series = Arc::new(Series::new(spec));
        families.count += 1;
        let family = families.by_name.entry(spec.name.to_owned()).or_insert_with(|| Family {
            kind: spec.kind,
            help: spec.help.chars().take(MAX_VALUE).collect(),
            series: HashMap::new(),
        });
        family.series.insert(labels, series.clone());
        Ok(series)
    }

    fn families(&self) -> MutexGuard<'_, Families> {
        // No step under the lock can panic half-way.
        self.families.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_name(name: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_' || byte == b':';
    starts_then(name, letter)
}

/// `le` and names with two underscores in front are Prometheus's own.
fn is_label(name: &str) -> bool {
    starts_then(name, |byte| byte.is_ascii_alphabetic() || byte == b'_')
        && !name.starts_with("__")
        && name != "le"
}

fn starts_then(name: &str, letter: impl Fn(u8) -> bool) -> bool {
    let mut bytes = name.bytes();
    name.len() <= MAX_NAME
        && bytes.next().is_some_and(&letter)
        && bytes.all(|byte| letter(byte) || byte.is_ascii_digit())
}

#[cfg(test)]
mod tests;
