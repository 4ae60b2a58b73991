//! Metrics with labels, one series for each set of their values, and no more sets than are allowed.
//!
//! `label.rs` says where values come from, `presets.rs` which metrics and labels there are.

mod label;
mod presets;

use std::cell::RefCell;
use std::rc::Rc;

use meshgate_sdk::metric::{Counter, Histogram};
use meshgate_sdk::{ConfigError, Refused};

use self::label::Label;
use crate::config::Config;
use crate::seen::Seen;

/// The value of every label of the series that takes up what is one set too many.
const OTHER: &str = "other";

/// What is counted of each exchange.
pub(crate) struct Recorder {
    labels: Vec<Label>,
    metrics: Vec<Metric>,
    table: RefCell<Table>,
    most: usize,
    overflowed: Counter,
}

/// Which metrics there are, and the labels that they have between them.
struct Plan {
    labels: Vec<Label>,
    metrics: Vec<Metric>,
}

/// A metric and which of the labels it has, a bit for each.
struct Metric {
    name: &'static str,
    help: &'static str,
    measure: Measure,
    labels: u64,
    buckets: &'static [f64],
    scale: f64,
}

/// What a metric takes of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Measure {
    Count,
    /// In microseconds.
    Duration,
    /// To the response's head, in microseconds.
    ToResponse,
    RequestBytes,
    ResponseBytes,
}

/// One set of values: the series of each metric.
type Handles = Rc<[Handle]>;

/// The sets that were seen, sorted by the values of their labels: looking one up allocates nothing.
#[derive(Default)]
struct Table {
    series: Vec<(Box<[u8]>, Handles)>,
    /// What all sets that are too many count in.
    overflow: Option<Handles>,
    key: Vec<u8>,
}

/// One metric's series, if the host let it be defined.
#[derive(Clone, Copy)]
enum Handle {
    Counter(Counter),
    Histogram(Histogram),
    Refused,
}

impl Recorder {
    /// What the configuration says.
    ///
    /// # Errors
    /// It makes no sense, or the host refuses to define metrics.
    pub(crate) fn new(config: &Config) -> Result<Option<Self>, ConfigError> {
        let Some(Plan { labels, metrics }) = presets::build(config)? else { return Ok(None) };
        let overflowed = Counter::build("meshgate_telemetry_overflow_total")
            .help("Exchanges that were counted under other, since there were too many sets of labels.")
            .define()?;
        let most = usize::try_from(config.metrics.max_series).unwrap_or(usize::MAX);
        Ok(Some(Self { labels, metrics, table: RefCell::default(), most, overflowed }))
    }

    /// Whether it needs to know when the response began.
    pub(crate) fn needs_response(&self) -> bool {
        let formats = self
            .labels
            .iter()
            .any(|label| matches!(&label.source, label::Source::Format(format) if format.needs_response()));
        formats || self.metrics.iter().any(|metric| metric.measure == Measure::ToResponse)
    }

    /// Counts an exchange.
    pub(crate) fn record(&self, seen: &Seen<'_>) {
        let handles = self.handles(seen);
        for (metric, handle) in self.metrics.iter().zip(&*handles) {
            let value = match metric.measure {
                Measure::Count => Some(1),
                Measure::Duration => seen.duration().map(microseconds),
                Measure::ToResponse => seen.to_response().map(microseconds),
                Measure::RequestBytes => seen.received(),
                Measure::ResponseBytes => seen.sent(),
            };
            match (handle, value) {
                (Handle::Counter(counter), Some(_)) => counter.add(1),
                (Handle::Histogram(histogram), Some(value)) => histogram.record(value),
                (Handle::Refused, _) | (_, None) => {}
            }
        }
    }

    fn handles(&self, seen: &Seen<'_>) -> Handles {
        let mut table = self.table.borrow_mut();
        let Table { series, overflow, key } = &mut *table;
        key.clear();
        for label in &self.labels {
            // Values with their lengths before them: no two sets look alike.
            let start = key.len();
            key.extend_from_slice(&[0; 2]);
            label.write(seen, key);
            let length = u16::try_from(key.len() - start - 2).unwrap_or(u16::MAX).to_le_bytes();
            if let Some(place) = key.get_mut(start..start + 2) {
                place.copy_from_slice(&length);
            }
        }
        let position = match series.binary_search_by(|(known, _)| (**known).cmp(key)) {
            Ok(position) => {
                return series.get(position).map_or_else(|| Rc::from([]), |(_, handles)| Rc::clone(handles));
            }
            Err(position) => position,
        };
        if overflow.is_none() && series.len() < self.most {
            let values = values(key);
            match self.define(|index| values.get(index).map_or("", String::as_str)) {
                Ok(handles) => {
                    series.insert(position, (key.as_slice().into(), Rc::clone(&handles)));
                    return handles;
                }
                // The host has a bound of its own. It is not asked again: else each such request would ask.
                Err(refused) => meshgate_sdk::warn!("{refused}"),
            }
        }
        self.overflowed.add(1);
        Rc::clone(overflow.get_or_insert_with(|| {
            meshgate_sdk::warn!("too many sets of labels: from now on new ones are counted under {OTHER}");
            self.define(|_| OTHER).unwrap_or_else(|refused| {
                meshgate_sdk::warn!("{refused}");
                self.metrics.iter().map(|_| Handle::Refused).collect()
            })
        }))
    }

    fn define<'a>(&self, value: impl Fn(usize) -> &'a str) -> Result<Handles, Refused> {
        self.metrics.iter().map(|metric| self.define_one(metric, &value)).collect()
    }

    fn define_one<'a>(&self, metric: &Metric, value: &impl Fn(usize) -> &'a str) -> Result<Handle, Refused> {
        let labels = self.labels.iter().enumerate().filter(|(index, _)| metric.labels & (1 << index) != 0);
        if metric.measure == Measure::Count {
            let builder = Counter::build(metric.name).help(metric.help);
            let builder =
                labels.fold(builder, |builder, (index, label)| builder.label(&label.name, value(index)));
            return builder.define().map(Handle::Counter);
        }
        let builder =
            Histogram::build(metric.name).help(metric.help).scale(metric.scale).buckets(metric.buckets);
        let builder =
            labels.fold(builder, |builder, (index, label)| builder.label(&label.name, value(index)));
        builder.define().map(Handle::Histogram)
    }
}

/// The values in a key.
fn values(mut key: &[u8]) -> Vec<String> {
    let mut values = Vec::new();
    while let Some((length, rest)) = key.split_first_chunk::<2>() {
        let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
        let (value, rest) = rest.split_at(length);
        values.push(String::from_utf8_lossy(value).into_owned());
        key = rest;
    }
    values
}

fn microseconds(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
