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
    let x = metrics.series(&spec("m", MetricKind::Gauge, &[("x", "1"), ("y", "2")]), || true).unwrap();
    let y = metrics.series(&spec("m", MetricKind::Gauge, &[("y", "2"), ("x", "1")]), || true).unwrap();
    assert!(Arc::ptr_eq(&x, &y));
}

#[test]
fn types_of_one_name_are_kept_apart() {
    let metrics = Metrics::default();
    let define = |name, kind| metrics.define(name, kind, || true);
    for (kind, amount) in [(MetricKind::Counter, 1), (MetricKind::Gauge, 2), (MetricKind::Histogram, 3)] {
        define("a.b", kind).unwrap().record(amount);
        // Found again, whoever asks.
        define("a_b", kind).unwrap().record(amount);
    }
    let mut out = String::new();
    metrics.render(&mut out);
    for line in [
        "# TYPE wasmcustom_a_b counter\nwasmcustom_a_b 2\n",
        "# TYPE wasmcustom_a_b_gauge gauge\nwasmcustom_a_b_gauge 2\n",
        "\nwasmcustom_a_b_histogram_sum 6\nwasmcustom_a_b_histogram_count 2\n",
    ] {
        assert!(out.contains(line), "{line:?} in\n{out}");
    }
    // Both names are taken.
    define("c_gauge", MetricKind::Counter).unwrap();
    define("c", MetricKind::Counter).unwrap();
    assert_eq!(define("c", MetricKind::Gauge).unwrap_err(), Status::BadArgument);
}

#[test]
fn a_histogram_shows_itself_under_names_of_its_own() {
    let metrics = Metrics::default();
    let series = |name, kind| metrics.series(&spec(name, kind, &[]), || true).map(drop);
    series("a", MetricKind::Histogram).unwrap();
    series("b_count", MetricKind::Counter).unwrap();
    for (name, kind) in [
        ("a_bucket", MetricKind::Counter),
        ("a_sum", MetricKind::Gauge),
        ("a_count", MetricKind::Counter),
        ("a_count", MetricKind::Histogram),
        ("b", MetricKind::Histogram),
        ("a", MetricKind::Gauge),
    ] {
        assert_eq!(series(name, kind), Err(Status::BadArgument), "{name}");
    }
    assert_eq!(metrics.refused(), 6, "each is counted");
    for name in ["b", "b_sum", "a_counts"] {
        assert_eq!(series(name, MetricKind::Counter), Ok(()), "{name}");
    }
    // By name alone there is no refusal: the types are told apart.
    for name in ["d", "d_count", "d_sum_bucket"] {
        metrics.define(name, MetricKind::Histogram, || true).unwrap();
    }
    metrics.define("d_sum", MetricKind::Counter, || true).unwrap();
    let mut out = String::new();
    metrics.render(&mut out);
    let shown = |name: &str| out.lines().filter(|line| line.split(['{', ' ']).next() == Some(name)).count();
    for name in ["wasmcustom_d_count", "wasmcustom_d_sum", "wasmcustom_d_count_histogram_count"] {
        assert_eq!(shown(name), 1, "{name} in\n{out}");
    }
    assert!(out.contains("# TYPE wasmcustom_d_sum_counter counter\n"), "{out}");
}

#[test]
fn names_of_the_proxy_are_no_filters() {
    let metrics = Metrics::default();
    for name in [
        "meshgate_plugin_failures_total",
        "meshgate_filter_series_refused_total",
        "meshgate_downstream_requests_total",
        "meshgate_mirrored_requests_total",
        "process_open_fds",
        // Its samples would be such names.
        "meshgate_plugin",
        "process",
    ] {
        for kind in [MetricKind::Counter, MetricKind::Gauge, MetricKind::Histogram] {
            let outcome = metrics.series(&spec(name, kind, &[("plugin", "puppet")]), || true);
            assert_eq!(outcome.unwrap_err(), Status::BadArgument, "{name}");
        }
    }
    assert_eq!(metrics.refused(), 7 * 3, "each is counted");
    for name in ["meshgate_jwt_tokens_total", "meshgate_http_requests_total", "meshgates", "processed_total"]
    {
        assert!(metrics.series(&spec(name, MetricKind::Counter, &[]), || true).is_ok(), "{name}");
    }
    metrics.define("meshgate_plugin_failures_total", MetricKind::Counter, || true).unwrap();
    let mut out = String::new();
    metrics.render(&mut out);
    assert!(out.contains("\nwasmcustom_meshgate_plugin_failures_total 0\n"), "{out}");
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
# HELP meshgate_filter_series_refused_total Series that filters could not have.
# TYPE meshgate_filter_series_refused_total counter
meshgate_filter_series_refused_total 0
"#;
    assert_eq!(out, expected);
}

#[test]
fn bad_definitions_are_refused() {
    let metrics = Metrics::default();
    let long = "x".repeat(names::MAX_NAME + 1);
    assert_eq!(metrics.define("", MetricKind::Counter, || true).unwrap_err(), Status::BadArgument);
    assert_eq!(metrics.define(&long, MetricKind::Counter, || true).unwrap_err(), Status::BadArgument);
    assert!(metrics.define(&long[1..], MetricKind::Counter, || true).is_ok());
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
