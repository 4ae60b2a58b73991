//! The metrics that filters define, for the whole process.

use std::sync::Arc;

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

/// A labelled series, as `meshgate.metric` defines it.
#[derive(Clone, Debug)]
pub struct SeriesSpec<'a> {
    /// The metric's name in Prometheus form.
    pub name: &'a str,
    /// What it counts.
    pub kind: MetricKind,
    /// Label names and values.
    pub labels: &'a [(&'a str, &'a str)],
    /// One line of help; the first definition's is kept.
    pub help: &'a str,
    /// Recorded integers are multiplied by it when shown; 0 means 1.
    pub scale: f64,
    /// Upper bounds of a histogram's buckets, in the shown unit; empty for the default.
    pub buckets: &'a [f64],
}

/// One series: a value that any thread may change.
#[derive(Debug)]
pub struct Series {
    kind: MetricKind,
}

impl Series {
    /// What it counts.
    pub fn kind(&self) -> MetricKind {
        self.kind
    }
}

/// All series of the process.
#[derive(Debug, Default)]
pub struct Metrics {}

impl Metrics {
    /// The series of a metric defined by `proxy_define_metric`: no labels, shown as `wasmcustom_<name>`.
    ///
    /// # Errors
    /// BadArgument for a bad name or another type under that name; InternalFailure when there are too many.
    pub fn define(&self, name: &str, kind: MetricKind) -> Result<Arc<Series>, Status> {
        let _ = name;
        Ok(Arc::new(Series { kind }))
    }

    /// A labelled series, made or found.
    ///
    /// # Errors
    /// BadArgument for a bad name or label or another type under that name; InternalFailure when there are too
    /// many.
    pub fn series(&self, spec: &SeriesSpec<'_>) -> Result<Arc<Series>, Status> {
        Ok(Arc::new(Series { kind: spec.kind }))
    }

    /// Appends all series in the Prometheus text format.
    pub fn render(&self, out: &mut String) {
        let _ = out;
    }
}
