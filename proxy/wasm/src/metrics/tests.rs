//! What the store answers and shows.

use super::*;

fn spec<'a>(name: &'a str, kind: MetricKind, labels: &'a [(&'a str, &'a str)]) -> SeriesSpec<'a> {
    SeriesSpec { name, kind, labels, help: "", scale: 0.0, buckets: &[] }
}

#[test]
fn the_same_definition_is_the_same_series() {
    let metrics = Metrics::default();
    let a = metrics.define("a.b", MetricKind::Counter, || true).unwrap();
    let b = metrics.define("a_b", MetricKind::Counter, || true).unwrap();
    assert!(Arc::ptr_eq(&a, &b), "names that show alike are one");
    assert_eq!(metrics.define("a.b", MetricKind::Gauge, || true).unwrap_err(), Status::BadArgument);
    let x = metrics.series(&spec("m", MetricKind::Gauge, &[("x", "1"), ("y", "2")]), || true).unwrap();
    let y = metrics.series(&spec("m", MetricKind::Gauge, &[("y", "2"), ("x", "1")]), || true).unwrap();
    assert!(Arc::ptr_eq(&x, &y));
}

#[test]
fn each_kind_takes_what_it_takes() {
    let metrics = Metrics::default();
    let counter = metrics.define("c", MetricKind::Counter, || true).unwrap();
    assert_eq!(counter.increment(3), Ok(()));
    assert_eq!(counter.increment(0), Err(Status::BadArgument));
    assert_eq!(counter.increment(-1), Err(Status::BadArgument));
    counter.record(4);
    assert_eq!(counter.value(), Ok(7));
    let gauge = metrics.define("g", MetricKind::Gauge, || true).unwrap();
    gauge.record(5);
    assert_eq!(gauge.increment(-7), Ok(()));
    assert_eq!(gauge.value(), Ok((-2_i64).cast_unsigned()));
    let histogram = metrics.define("h", MetricKind::Histogram, || true).unwrap();
    histogram.record(1);
    assert_eq!(histogram.increment(1), Err(Status::BadArgument));
    assert_eq!(histogram.value(), Err(Status::BadArgument));
}

#[test]
fn shown_as_prometheus_reads_it() {
    let metrics = Metrics::default();
    metrics.define("hits", MetricKind::Gauge, || true).unwrap().increment(-2).unwrap();
    let labels = [("route", "a\"b\\c\nd"), ("code", "200")];
    let seconds = SeriesSpec {
        help: "How long.\nReally",
        scale: 0.001,
        buckets: &[0.005, 0.1],
        ..spec("took_seconds", MetricKind::Histogram, &labels)
    };
    let series = metrics.series(&seconds, || true).unwrap();
    for milliseconds in [1, 5, 6, 100, 101] {
        series.record(milliseconds);
    }
    let mut out = String::new();
    metrics.render(&mut out);
    let expected = r#"# HELP took_seconds How long.\nReally
# TYPE took_seconds histogram
took_seconds_bucket{code="200",route="a\"b\\c\nd",le="0.005"} 2
took_seconds_bucket{code="200",route="a\"b\\c\nd",le="0.1"} 4
took_seconds_bucket{code="200",route="a\"b\\c\nd",le="+Inf"} 5
took_seconds_sum{code="200",route="a\"b\\c\nd"} 0.213
took_seconds_count{code="200",route="a\"b\\c\nd"} 5
# TYPE wasmcustom_hits gauge
wasmcustom_hits -2
# HELP meshgate_filter_series_refused_total Series that filters defined over the limit.
# TYPE meshgate_filter_series_refused_total counter
meshgate_filter_series_refused_total 0
"#;
    assert_eq!(out, expected);
}

#[test]
fn bad_definitions_are_refused() {
    let metrics = Metrics::default();
    let long = "x".repeat(MAX_NAME + 1);
    assert_eq!(metrics.define("", MetricKind::Counter, || true).unwrap_err(), Status::BadArgument);
    assert_eq!(metrics.define(&long, MetricKind::Counter, || true).unwrap_err(), Status::BadArgument);
    for name in ["", "1x", "a b", "a-b", "wasmcustom_x", "é"] {
        let outcome = metrics.series(&spec(name, MetricKind::Counter, &[]), || true);
        assert_eq!(outcome.unwrap_err(), Status::BadArgument, "{name}");
    }
    for label in ["", "le", "__x", "a-b", "1"] {
        let outcome = metrics.series(&spec("m", MetricKind::Counter, &[(label, "v")]), || true);
        assert_eq!(outcome.unwrap_err(), Status::BadArgument, "{label}");
    }
    let twice = metrics.series(&spec("m", MetricKind::Counter, &[("a", "1"), ("a", "2")]), || true);
    assert_eq!(twice.unwrap_err(), Status::BadArgument);
    let falling = SeriesSpec { buckets: &[2.0, 1.0], ..spec("m", MetricKind::Histogram, &[]) };
    assert_eq!(metrics.series(&falling, || true).unwrap_err(), Status::BadArgument);
    let endless = SeriesSpec { scale: f64::NAN, ..spec("m", MetricKind::Histogram, &[]) };
    assert_eq!(metrics.series(&endless, || true).unwrap_err(), Status::BadArgument);
}

#[test]
fn the_number_of_series_is_bounded_and_overflow_counted() {
    let metrics = Metrics::bounded(2);
    metrics.define("a", MetricKind::Counter, || true).unwrap();
    metrics.define("b", MetricKind::Counter, || true).unwrap();
    assert_eq!(metrics.define("c", MetricKind::Counter, || true).unwrap_err(), Status::InternalFailure);
    assert!(metrics.define("a", MetricKind::Counter, || true).is_ok(), "what is there still is");
    assert_eq!(metrics.refused(), 1);
}

#[test]
fn a_new_series_may_be_refused_and_a_known_one_is_found() {
    let metrics = Metrics::default();
    metrics.define("a", MetricKind::Counter, || true).unwrap();
    assert!(metrics.define("a", MetricKind::Counter, || panic!("it is there")).is_ok());
    assert_eq!(metrics.define("b", MetricKind::Counter, || false).unwrap_err(), Status::InternalFailure);
}
