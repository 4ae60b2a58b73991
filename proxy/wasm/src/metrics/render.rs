//! Series in the Prometheus text format.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::series::{MetricKind, Series};

/// Writing to a string cannot fail; this says so once.
macro_rules! put {
    ($out:expr, $($format:tt)*) => {
        if writeln!($out, $($format)*).is_err() {
            return;
        }
    };
}

/// All series of one name.
pub(super) fn family(
    out: &mut String,
    name: &str,
    kind: MetricKind,
    help: &str,
    series: &HashMap<String, Arc<Series>>,
) {
    if !help.is_empty() {
        put!(out, "# HELP {name} {}", help.replace('\\', "\\\\").replace('\n', "\\n"));
    }
    let kind = match kind {
        MetricKind::Counter => "counter",
        MetricKind::Gauge => "gauge",
        MetricKind::Histogram => "histogram",
    };
    put!(out, "# TYPE {name} {kind}");
    let mut sorted: Vec<_> = series.iter().collect();
    sorted.sort_unstable_by_key(|(labels, _)| *labels);
    for (labels, series) in sorted {
        match series.kind() {
            MetricKind::Histogram => histogram(out, name, labels, series),
            _ => put!(out, "{name}{} {}", braced(labels), series.shown()),
        }
    }
}

fn histogram(out: &mut String, name: &str, labels: &str, series: &Series) {
    let separator = if labels.is_empty() { "" } else { "," };
    let mut count = 0;
    for bucket in &series.buckets {
        count += bucket.count.load(Ordering::Relaxed);
        let bound = if bucket.bound.is_infinite() { "+Inf".to_owned() } else { bucket.bound.to_string() };
        put!(out, "{name}_bucket{{{labels}{separator}le=\"{bound}\"}} {count}");
    }
    put!(out, "{name}_sum{} {}", braced(labels), series.shown());
    put!(out, "{name}_count{} {count}", braced(labels));
}

/// The counter of refused definitions.
pub(super) fn refused(out: &mut String, refused: u64) {
    put!(out, "# HELP meshgate_filter_series_refused_total Series that filters could not have.");
    put!(out, "# TYPE meshgate_filter_series_refused_total counter");
    put!(out, "meshgate_filter_series_refused_total {refused}");
}

/// Labels as they are shown, without braces, sorted by name.
pub(super) fn labels(labels: &[(&str, &str)]) -> String {
    let mut sorted = labels.to_vec();
    sorted.sort_unstable();
    let shown: Vec<String> =
        sorted.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    shown.join(",")
}

fn escaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for letter in value.chars() {
        match letter {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
    out
}

fn braced(labels: &str) -> String {
    if labels.is_empty() { String::new() } else { format!("{{{labels}}}") }
}
