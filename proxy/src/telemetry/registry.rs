//! The process's metrics, as `/metrics` shows them.
//!
//! Each area defines the struct of its own metrics, registers them once through [`Registry::area`] when the process starts, and keeps the handles: they
//! are atomics, so counting is one relaxed addition wherever it happens. What is only known when somebody asks (a filter's own metrics, the counters
//! of VMs) is appended by [`Registry::append`].

use std::fmt;
use std::sync::{Mutex, PoisonError};

use prometheus_client::encoding::text::encode_registry;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use super::process::Process;

/// The content type of [`Registry::render`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

type Appendix = Box<dyn Fn(&mut String) + Send + Sync>;

/// All metrics of this process. One per process, shared as `Arc<Registry>`.
pub struct Registry {
    core: Mutex<prometheus_client::registry::Registry>,
    appendices: Mutex<Vec<Appendix>>,
}

impl Registry {
    /// A registry that holds the metrics of the process itself: build, uptime, memory, open files.
    #[must_use]
    pub fn new() -> Self {
        let mut core = prometheus_client::registry::Registry::default();
        core.register_collector(Box::new(Process::default()));
        let build = Family::<Vec<(&str, &str)>, Gauge>::default();
        build.get_or_create(&vec![("version", env!("CARGO_PKG_VERSION"))]).set(1);
        core.sub_registry_with_prefix("meshgate").register("build_info", "The running version", build);
        let registry = Self { core: Mutex::new(core), appendices: Mutex::default() };
        registry.append(super::panics::metrics);
        registry.append(super::log::metrics);
        registry
    }

    /// Registers an area's metrics. Names get the prefix `meshgate_`, and counters the suffix `_total`.
    pub fn area<T>(&self, register: impl FnOnce(&mut prometheus_client::registry::Registry) -> T) -> T {
        let mut core = self.core.lock().unwrap_or_else(PoisonError::into_inner);
        register(core.sub_registry_with_prefix("meshgate"))
    }

    /// Has `render` append more metrics, complete with their prefix, in the text format, each time somebody asks. It runs on the main thread and must
    /// not wait for anything.
    pub fn append(&self, render: impl Fn(&mut String) + Send + Sync + 'static) {
        self.appendices.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(render));
    }

    /// Everything in the Prometheus text format, [`CONTENT_TYPE`].
    #[must_use]
    pub fn render(&self) -> String {
        let mut open_metrics = String::new();
        let core = self.core.lock().unwrap_or_else(PoisonError::into_inner);
        if encode_registry(&mut open_metrics, &core).is_err() {
            // Only a metric of ours that cannot encode itself gets here; the rest is still worth showing.
            tracing::error!("a metric could not be encoded; /metrics is not complete");
        }
        drop(core);
        let mut text = String::with_capacity(open_metrics.len() + 1024);
        to_prometheus(&open_metrics, &mut text);
        for render in self.appendices.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            if !text.ends_with('\n') {
                text.push('\n');
            }
            render(&mut text);
        }
        text
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

/// OpenMetrics text as Prometheus text. They differ in the comments only: a counter is announced without its `_total`, and there are types and
/// comments that the older format does not know. The older one is what every scraper reads.
fn to_prometheus(open_metrics: &str, out: &mut String) {
    let mut help = None;
    for line in open_metrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "gauge" | "histogram" | "summary" => ("", kind),
                _ => ("", "untyped"),
            };
            if let Some((_, text)) = help.take().filter(|(of, _)| *of == name) {
                out.extend(["# HELP ", name, suffix, " ", text, "\n"]);
            }
            out.extend(["# TYPE ", name, suffix, " ", kind, "\n"]);
        } else if !line.starts_with('#') {
            out.extend([line, "\n"]);
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::histogram::Histogram;

    use super::*;

    #[test]
    fn counters_carry_their_suffix_everywhere_and_help_stands_before_type() {
        let registry = Registry::new();
        let counter = Counter::<u64>::default();
        registry.area(|area| area.register("apples", "Apples eaten", counter.clone()));
        counter.inc_by(3);
        let text = registry.render();
        let expected = "# HELP meshgate_apples_total Apples eaten.\n# TYPE meshgate_apples_total counter\nmeshgate_apples_total 3\n";
        assert!(text.contains(expected), "{text}");
        assert!(!text.contains("# EOF"), "{text}");
    }

    #[test]
    fn labels_and_histograms_come_through() {
        let registry = Registry::new();
        let family = Family::<Vec<(&str, String)>, Counter>::default();
        let seconds = Histogram::new([0.1, 1.0]);
        registry.area(|area| {
            area.register("visits", "Visits", family.clone());
            area.register("duration_seconds", "Time", seconds.clone());
        });
        family.get_or_create(&vec![("path", "a\"b\\c\nd".to_owned())]).inc();
        seconds.observe(0.5);
        let text = registry.render();
        assert!(text.contains("meshgate_visits_total{path=\"a\\\"b\\\\c\\nd\"} 1\n"), "{text}");
        assert!(text.contains("# TYPE meshgate_duration_seconds histogram\n"), "{text}");
        assert!(text.contains("meshgate_duration_seconds_bucket{le=\"1.0\"} 1\n"), "{text}");
    }

    #[test]
    fn process_metrics_are_there_and_plausible() {
        let text = Registry::new().render();
        let value = |name: &str| -> f64 {
            let line =
                text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
            line.unwrap_or_else(|| panic!("no {name} in\n{text}"))
                .rsplit(' ')
                .next()
                .unwrap()
                .parse()
                .unwrap()
        };
        assert!(value("process_resident_memory_bytes") > 100_000.0);
        assert!(value("process_open_fds") >= 3.0);
        assert!(value("process_start_time_seconds") > 1_600_000_000.0);
        assert!(value("meshgate_uptime_seconds") >= 0.0);
        assert!(
            text.contains(&format!("meshgate_build_info{{version=\"{}\"}} 1\n", env!("CARGO_PKG_VERSION")))
        );
    }

    #[test]
    fn appendices_start_on_a_line_of_their_own() {
        let registry = Registry::new();
        registry.append(|out| out.push_str("first 1"));
        registry.append(|out| out.push_str("second 2\n"));
        assert!(registry.render().ends_with("\nfirst 1\nsecond 2\n"));
    }
}
