//! The metrics that filters define, for the whole process.
//!
//! Defining takes a lock; a filter does it once per series and VM. Changing a value is a relaxed atomic operation.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::status::Status;

mod names;
mod render;
mod series;

pub use series::{MetricKind, Series, SeriesSpec};

/// Series of the process, by default.
const MAX_SERIES: usize = 10_000;
/// Bytes of a label's value.
const MAX_VALUE: usize = 1_024;
/// Labels of a series.
const MAX_LABELS: usize = 32;
/// Buckets of a histogram.
const MAX_BUCKETS: usize = 64;

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

    /// The series of a metric defined by `proxy_define_metric`: no labels, shown as `wasmcustom_<name>`, with its type
    /// behind it if another type has that name. `admit` is asked before a series is made that there was not.
    ///
    /// # Errors
    /// BadArgument for a bad name, or if others have both names; InternalFailure when there are too many.
    pub fn define(
        &self,
        name: &str,
        kind: MetricKind,
        admit: impl FnOnce() -> bool,
    ) -> Result<Arc<Series>, Status> {
        if name.is_empty() || name.len() > names::MAX_NAME {
            return Err(Status::BadArgument);
        }
        let plain = names::shown(name);
        let mut families = self.families();
        let name = if families.has_room(&plain, kind) { plain } else { plain + names::suffix(kind) };
        if !families.has_room(&name, kind) {
            return Err(Status::BadArgument);
        }
        let spec = SeriesSpec { name: &name, kind, labels: &[], help: "", scale: 1.0, buckets: &[] };
        self.find_or_add(&mut families, &spec, String::new(), admit)
    }

    /// A labelled series, made or found. `admit` is asked before one is made.
    ///
    /// # Errors
    /// BadArgument for a bad name or label, and for a name that is the proxy's or that another metric shows itself under;
    /// InternalFailure when there are too many.
    pub fn series(&self, spec: &SeriesSpec<'_>, admit: impl FnOnce() -> bool) -> Result<Arc<Series>, Status> {
        let labels_fit = spec.labels.len() <= MAX_LABELS
            && spec.labels.iter().all(|(name, value)| names::is_label(name) && value.len() <= MAX_VALUE);
        if !names::is_name(spec.name) || !labels_fit {
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
        let labels = render::labels(spec.labels);
        let mut families = self.families();
        if names::is_ours(spec.name) || !families.has_room(spec.name, spec.kind) {
            self.count_refused();
            return Err(Status::BadArgument);
        }
        self.find_or_add(&mut families, spec, labels, admit)
    }

    /// Definitions refused because there were too many series, or because somebody else has the name.
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

    /// The series with these labels, as they are shown, under a name that has room for it.
    fn find_or_add(
        &self,
        families: &mut Families,
        spec: &SeriesSpec<'_>,
        labels: String,
        admit: impl FnOnce() -> bool,
    ) -> Result<Arc<Series>, Status> {
        let known = families.by_name.get(spec.name).and_then(|family| family.series.get(&labels));
        if let Some(series) = known {
            return Ok(series.clone());
        }
        if families.count >= self.max_series || !admit() {
            self.count_refused();
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

    fn count_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    fn families(&self) -> MutexGuard<'_, Families> {
        // No step under the lock can panic half-way.
        self.families.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Families {
    /// Whether series of this type may go by this name: they do, or nothing that is shown has it, or would have it then.
    fn has_room(&self, name: &str, kind: MetricKind) -> bool {
        if let Some(family) = self.by_name.get(name) {
            return family.kind == kind;
        }
        let free = |suffix: &&str| !self.by_name.contains_key(&format!("{name}{suffix}"));
        !self.is_sample(name) && (kind != MetricKind::Histogram || names::SAMPLES.iter().all(free))
    }

    /// Whether a histogram shows samples under this name.
    fn is_sample(&self, name: &str) -> bool {
        let histogram = names::SAMPLES.iter().find_map(|suffix| name.strip_suffix(*suffix));
        let family = histogram.and_then(|histogram| self.by_name.get(histogram));
        family.is_some_and(|family| family.kind == MetricKind::Histogram)
    }
}

#[cfg(test)]
mod tests;
