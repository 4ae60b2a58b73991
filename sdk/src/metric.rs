//! Metrics with labels.
//!
//! Meshgate has a function for them (`meshgate.metric`). On other hosts the labels become a part of the name, in the
//! form that Istio's hosts turn into labels again: `route=.=a;.;code=.=200;.;_requests_total`.

use meshgate_abi::{Label, MetricType, Series, function};
use prost::Message;

use crate::error::Refused;
use crate::host::{self, Status};

/// The description of one series, from which it is defined. Defining the same series again gives the same one.
#[derive(Clone, Debug)]
pub struct Builder {
    series: Series,
}

impl Builder {
    fn new(name: &str, kind: MetricType) -> Self {
        Self { series: Series { name: name.to_owned(), r#type: kind.into(), ..Series::default() } }
    }

    /// Adds a label.
    #[must_use]
    pub fn label(mut self, name: &str, value: impl Into<String>) -> Self {
        self.series.labels.push(Label { name: name.to_owned(), value: value.into() });
        self
    }

    /// Says what is measured, in one sentence.
    #[must_use]
    pub fn help(mut self, text: &str) -> Self {
        self.series.help = text.to_owned();
        self
    }

    fn define(&self) -> Result<u32, Refused> {
        let refused = |status| Refused::new(format!("cannot define the metric {}", self.series.name), status);
        match host::call_foreign_function(function::METRIC, &self.series.encode_to_vec()) {
            Ok(answer) => meshgate_abi::metric_id(&answer).ok_or_else(|| refused(Status::INTERNAL_FAILURE)),
            // Hosts other than Meshgate: Envoy does not know the name, some have no such functions at all.
            Err(Status::NOT_FOUND | Status::UNIMPLEMENTED) => {
                host::define_metric(self.series.r#type.unsigned_abs(), &self.flat_name()).map_err(refused)
            }
            Err(status) => Err(refused(status)),
        }
    }

    fn flat_name(&self) -> String {
        if self.series.labels.is_empty() {
            return self.series.name.clone();
        }
        let mut name = String::new();
        for label in &self.series.labels {
            name.extend([label.name.as_str(), "=.=", &label.value, ";.;"]);
        }
        name.extend(["_", &self.series.name]);
        name
    }
}

/// A number that only grows.
#[derive(Clone, Copy, Debug)]
pub struct Counter(u32);

impl Counter {
    /// Begins to describe a counter. Prometheus wants names that end in `_total`.
    pub fn build(name: &str) -> CounterBuilder {
        CounterBuilder(Builder::new(name, MetricType::Counter))
    }

    /// Adds to it. A host that lost the series meanwhile ignores that.
    pub fn add(&self, amount: u32) {
        let _ = host::increment_metric(self.0, amount.into());
    }
}

/// A number that goes up and down.
#[derive(Clone, Copy, Debug)]
pub struct Gauge(u32);

impl Gauge {
    /// Begins to describe a gauge.
    pub fn build(name: &str) -> GaugeBuilder {
        GaugeBuilder(Builder::new(name, MetricType::Gauge))
    }

    /// Sets it.
    pub fn set(&self, value: u64) {
        let _ = host::record_metric(self.0, value);
    }

    /// Adds to it; negative amounts take away.
    pub fn add(&self, amount: i64) {
        let _ = host::increment_metric(self.0, amount);
    }
}

/// A distribution of values.
#[derive(Clone, Copy, Debug)]
pub struct Histogram(u32);

impl Histogram {
    /// Begins to describe a histogram.
    pub fn build(name: &str) -> HistogramBuilder {
        HistogramBuilder(Builder::new(name, MetricType::Histogram))
    }

    /// Takes up one value.
    pub fn record(&self, value: u64) {
        let _ = host::record_metric(self.0, value);
    }
}

macro_rules! builder {
    ($(#[$doc:meta])* $name:ident makes $metric:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $name(Builder);

        impl $name {
            /// Adds a label.
            #[must_use]
            pub fn label(self, name: &str, value: impl Into<String>) -> Self {
                Self(self.0.label(name, value))
            }

            /// Says what is measured, in one sentence.
            #[must_use]
            pub fn help(self, text: &str) -> Self {
                Self(self.0.help(text))
            }

            /// Defines the series, or finds it again.
            ///
            /// # Errors
            /// The host refuses names and labels that are not allowed, a second type for one name, and more series than
            /// its limit.
            pub fn define(&self) -> Result<$metric, Refused> {
                self.0.define().map($metric)
            }
        }
    };
}

builder! {
    /// Describes a [`Counter`].
    CounterBuilder makes Counter
}
builder! {
    /// Describes a [`Gauge`].
    GaugeBuilder makes Gauge
}
builder! {
    /// Describes a [`Histogram`].
    HistogramBuilder makes Histogram
}

impl HistogramBuilder {
    /// Multiplies recorded values by this when they are read: 1e-6 for microseconds that are shown as seconds.
    #[must_use]
    pub fn scale(mut self, factor: f64) -> Self {
        self.0.series.scale = factor;
        self
    }

    /// Sets the upper bounds of the buckets, ascending and already scaled.
    #[must_use]
    pub fn buckets(mut self, bounds: &[f64]) -> Self {
        self.0.series.buckets = bounds.to_vec();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_become_part_of_the_name_elsewhere() {
        let plain = Counter::build("requests_total");
        assert_eq!(plain.0.flat_name(), "requests_total");
        let labelled = plain.label("route", "a b").label("code", "200");
        assert_eq!(labelled.0.flat_name(), "route=.=a b;.;code=.=200;.;_requests_total");
    }

    #[test]
    fn without_the_function_a_plain_metric_is_defined() {
        // The stand-in host knows no foreign function and gives every metric the id 0.
        assert!(Histogram::build("seconds").scale(0.001).define().is_ok());
    }
}
