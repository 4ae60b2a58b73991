//! Metrics with labels.
//!
//! ```
//! # use meshgate_sdk::prelude::*;
//! use meshgate_sdk::metric::{Counter, Family, Histogram};
//!
//! struct Measured {
//!     /// One counter for each tenant.
//!     requests: Family<Counter, 1>,
//!     sizes: Histogram,
//! }
//!
//! # #[filter]
//! # impl Filter for Measured {
//! fn configure(_: Empty) -> Result<Self, ConfigError> {
//!     Ok(Self {
//!         requests: Counter::build("tenant_requests_total").help("Requests.").family(["tenant"]),
//!         sizes: Histogram::build("response_size_bytes").define()?,
//!     })
//! }
//!
//! fn on_log(&self, exchange: &Exchange<Self>) {
//!     let tenant = exchange.request().header("x-tenant").unwrap_or_default();
//!     self.requests.with([&tenant]).add(1);
//!     self.sizes.record(exchange.response_size().unwrap_or(0));
//! }
//! # }
//! # fn main() {}
//! ```
//!
//! Meshgate has a function for them (`meshgate.metric`). On other hosts the labels become a part of the name, in the
//! form that Istio's hosts turn into labels again: `route=.=a;.;code=.=200;.;_requests_total`.

use std::cell::RefCell;
use std::fmt;

use meshgate_abi::{Label, MetricType, Series, function};
use prost::Message;

use crate::error::Refused;
use crate::host::{self, Status};

/// The description of one series, from which it is defined. Defining the same series again gives the same one.
///
/// [`CounterBuilder`], [`GaugeBuilder`] and [`HistogramBuilder`] hold one:
///
/// ```
/// use meshgate_sdk::metric::Counter;
///
/// let refused = Counter::build("refused_total").help("Requests that were refused.");
/// let expired = refused.clone().label("reason", "expired").define()?;
/// let unknown = refused.label("reason", "unknown").define()?;
/// # expired.add(1);
/// # unknown.add(1);
/// # Ok::<(), meshgate_sdk::Refused>(())
/// ```
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
                let kind = match self.series.r#type() {
                    MetricType::Counter => host::MetricType::Counter,
                    MetricType::Gauge => host::MetricType::Gauge,
                    MetricType::Histogram => host::MetricType::Histogram,
                };
                host::define_metric(kind, &self.flat_name()).map_err(refused)
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
///
/// ```
/// # use meshgate_sdk::prelude::*;
/// struct Door {
///     refused: Counter,
/// }
///
/// # #[filter]
/// # impl Filter for Door {
/// fn configure(_: Empty) -> Result<Self, ConfigError> {
///     let refused = Counter::build("door_refused_total").help("Requests without a token.");
///     Ok(Self { refused: refused.define()? })
/// }
///
/// fn on_request(&self, exchange: &Exchange<Self>) -> Outcome {
///     if exchange.request().bearer_token().is_none() {
///         self.refused.add(1);
///         return Reply::new(401).into();
///     }
///     Ok(())
/// }
/// # }
/// # fn main() {
/// # use meshgate_sdk::testing::{Proxy, Request};
/// # let mut proxy = Proxy::new::<Door>("");
/// # proxy.send(Request::get("/"));
/// # assert_eq!(proxy.metric("door_refused_total", &[]), 1);
/// # }
/// ```
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
///
/// ```
/// # use meshgate_sdk::prelude::*;
/// # struct Names { under_way: Gauge }
/// # #[derive(Deserialize, JsonSchema)]
/// # struct Config { names: Vec<String> }
/// # #[filter]
/// # impl Filter for Names {
/// fn configure(config: Config) -> Result<Self, ConfigError> {
///     Gauge::build("names").help("Names in the list.").define()?.set(config.names.len() as u64);
///     Ok(Self { under_way: Gauge::build("names_under_way").define()? })
/// }
///
/// fn on_request(&self, _: &Exchange<Self>) -> Outcome {
///     self.under_way.add(1);
///     Ok(())
/// }
///
/// fn on_log(&self, _: &Exchange<Self>) {
///     self.under_way.add(-1);
/// }
/// # }
/// # fn main() {
/// # use meshgate_sdk::testing::{Proxy, Request};
/// # let mut proxy = Proxy::new::<Names>(r#"{"names": ["ann", "bob"]}"#);
/// # let begun = proxy.begin(Request::get("/"));
/// # assert_eq!((proxy.metric("names", &[]), proxy.metric("names_under_way", &[])), (2, 1));
/// # proxy.finish(begun);
/// # assert_eq!(proxy.metric("names_under_way", &[]), 0);
/// # }
/// ```
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
///
/// ```
/// # use meshgate_sdk::prelude::*;
/// # struct Took { seconds: Histogram }
/// # #[filter]
/// # impl Filter for Took {
/// fn configure(_: Empty) -> Result<Self, ConfigError> {
///     // Recorded in microseconds, read in seconds.
///     let seconds = Histogram::build("took_seconds").scale(1e-6).buckets(&[0.001, 0.01, 0.1, 1.0]);
///     Ok(Self { seconds: seconds.define()? })
/// }
///
/// fn on_log(&self, exchange: &Exchange<Self>) {
///     let took = exchange.duration().unwrap_or_default();
///     self.seconds.record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
/// }
/// # }
/// # fn main() {
/// # use meshgate_sdk::testing::{Proxy, Request};
/// # let mut proxy = Proxy::new::<Took>("");
/// # proxy.send(Request::get("/"));
/// # assert_eq!(proxy.metric("took_seconds", &[]), 1);
/// # }
/// ```
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

            /// The same metric once for each set of values of these labels: see [`Family`].
            pub fn family<const N: usize>(self, labels: [&'static str; N]) -> Family<$metric, N> {
                Family { base: self.0, labels, series: RefCell::default(), make: $metric }
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
    ///
    /// ```
    /// use meshgate_sdk::metric::Counter;
    ///
    /// let builder = Counter::build("refused_total").label("reason", "expired").help("Requests that were refused.");
    /// builder.define()?.add(1);
    /// # Ok::<(), meshgate_sdk::Refused>(())
    /// ```
    CounterBuilder makes Counter
}
builder! {
    /// Describes a [`Gauge`].
    ///
    /// ```
    /// use meshgate_sdk::metric::Gauge;
    ///
    /// Gauge::build("rules").label("kind", "deny").help("Rules in force.").define()?.set(7);
    /// # Ok::<(), meshgate_sdk::Refused>(())
    /// ```
    GaugeBuilder makes Gauge
}
builder! {
    /// Describes a [`Histogram`].
    ///
    /// ```
    /// use meshgate_sdk::metric::Histogram;
    ///
    /// let sizes = Histogram::build("sizes_bytes").buckets(&[1024.0, 65_536.0]).family(["kind"]);
    /// sizes.with(["text"]).record(2_000);
    /// ```
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

/// The id of a series that the host refused: hosts number from 0 on, and ignore what is recorded for others.
const NONE: u32 = u32::MAX;

/// A metric with `N` labels, declared once; its series come with the values of the labels.
///
/// A series is defined when its values are met first, and found without an allocation from then on. Values must be few: each
/// set of them is a series that stays. What a host refuses (it bounds the number of series) is logged once, and counted
/// nowhere.
///
/// ```
/// # use meshgate_sdk::prelude::*;
/// struct Tenants {
///     requests: Family<Counter, 2>,
/// }
///
/// # #[filter]
/// # impl Filter for Tenants {
/// fn configure(_: Empty) -> Result<Self, ConfigError> {
///     Ok(Self { requests: Counter::build("tenants_requests_total").family(["tenant", "failed"]) })
/// }
///
/// fn on_log(&self, exchange: &Exchange<Self>) {
///     let tenant = exchange.request().header("x-tenant").unwrap_or_default();
///     let failed = exchange.response_code().is_none_or(|code| code >= 500);
///     self.requests.with([&tenant, if failed { "yes" } else { "no" }]).add(1);
/// }
/// # }
/// # fn main() {
/// # use meshgate_sdk::testing::{Proxy, Request};
/// # let mut proxy = Proxy::new::<Tenants>("");
/// # proxy.send(Request::get("/").header("x-tenant", "ann"));
/// # assert_eq!(proxy.metric("tenants_requests_total", &[("tenant", "ann"), ("failed", "no")]), 1);
/// # }
/// ```
pub struct Family<M, const N: usize> {
    base: Builder,
    labels: [&'static str; N],
    /// Sorted by the values.
    series: RefCell<Vec<([String; N], u32)>>,
    make: fn(u32) -> M,
}

impl<M, const N: usize> Family<M, N> {
    /// The series whose labels have these values.
    pub fn with(&self, values: [&str; N]) -> M {
        let mut series = self.series.borrow_mut();
        let found = series.binary_search_by(|(known, _)| known.iter().map(String::as_str).cmp(values));
        let id = match found {
            Ok(position) => series.get(position).map_or(NONE, |(_, id)| *id),
            Err(position) => {
                let labels = self.labels.iter().zip(values);
                let builder =
                    labels.fold(self.base.clone(), |builder, (name, value)| builder.label(name, value));
                let id = builder.define().unwrap_or_else(|refused| {
                    crate::warn!("{refused}");
                    NONE
                });
                series.insert(position, (values.map(str::to_owned), id));
                id
            }
        };
        (self.make)(id)
    }
}

impl<M, const N: usize> fmt::Debug for Family<M, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { base, labels, series, .. } = self;
        f.debug_struct("Family")
            .field("name", &base.series.name)
            .field("labels", labels)
            .field("series", &series.borrow().len())
            .finish()
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
