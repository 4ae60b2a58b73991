//! Metrics with labels, one series for each set of their values, and no more sets than are allowed.
//!
//! `label.rs` says where values come from, `presets.rs` which metrics and labels exchanges have, `tcp.rs` which connections have,
//! and `connections.rs` counts these.

mod connections;
mod label;
mod presets;
mod tcp;

use std::cell::RefCell;
use std::rc::Rc;

use meshgate_sdk::metric::{Counter, Gauge, Histogram};
use meshgate_sdk::{ConfigError, Refused};

pub(crate) use self::connections::{Connections, Told};
use self::label::Label;
use crate::config::Config;
use crate::seen::Seen;

/// The value of every label of the series that takes up what is one set too many.
const OTHER: &str = "other";

/// What is counted of each exchange, or of each connection.
pub(crate) struct Recorder {
    labels: Vec<Label>,
    metrics: Vec<Metric>,
    /// Some of the metrics are about gRPC's messages.
    has_messages: bool,
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
#[derive(Clone, Copy)]
struct Metric {
    name: &'static str,
    help: &'static str,
    measure: Measure,
    labels: u64,
    buckets: &'static [f64],
    scale: f64,
}

/// What a metric takes of an exchange, or of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Measure {
    Count,
    /// gRPC's messages, which other exchanges have none of.
    RequestMessages,
    ResponseMessages,
    Opened,
    Closed,
    /// How many connections are open.
    Open,
    /// Bytes from the client, and to it.
    Received,
    Sent,
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

/// One metric's series.
#[derive(Clone, Copy)]
enum Handle {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
    /// The host did not let it be defined, or it is not for such an exchange.
    Absent,
}

/// The form of a metric.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Counter,
    Gauge,
    Histogram,
}

impl Measure {
    fn form(self) -> Form {
        match self {
            Self::Count
            | Self::RequestMessages
            | Self::ResponseMessages
            | Self::Opened
            | Self::Closed
            | Self::Received
            | Self::Sent => Form::Counter,
            Self::Open => Form::Gauge,
            Self::Duration | Self::ToResponse | Self::RequestBytes | Self::ResponseBytes => Form::Histogram,
        }
    }

    fn is_of_messages(self) -> bool {
        matches!(self, Self::RequestMessages | Self::ResponseMessages)
    }
}

impl Handle {
    fn take(self, value: u64) {
        match self {
            Self::Counter(counter) => {
                let mut left = value;
                while left > 0 {
                    let part = u32::try_from(left).unwrap_or(u32::MAX);
                    counter.add(part);
                    left -= u64::from(part);
                }
            }
            Self::Histogram(histogram) => histogram.record(value),
            Self::Gauge(_) | Self::Absent => {}
        }
    }
}

impl Recorder {
    /// What the configuration says.
    ///
    /// # Errors
    /// It makes no sense, or the host refuses to define metrics.
    pub(crate) fn new(config: &Config) -> Result<Option<Self>, ConfigError> {
        presets::build(config)?.map(|plan| Self::of(plan, config)).transpose()
    }

    fn of(plan: Plan, config: &Config) -> Result<Self, ConfigError> {
        let Plan { labels, metrics } = plan;
        let overflowed = Counter::build("meshgate_telemetry_overflow_total")
            .help("Exchanges and connections that were counted under other, since there were too many sets of labels.")
            .define()?;
        let most = usize::try_from(config.metrics.max_series).unwrap_or(usize::MAX);
        let has_messages = metrics.iter().any(|metric| metric.measure.is_of_messages());
        Ok(Self { labels, metrics, has_messages, table: RefCell::default(), most, overflowed })
    }

    /// Whether it needs to know how many messages of gRPC there were.
    pub(crate) fn needs_messages(&self) -> bool {
        self.has_messages
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
        let messages = if self.has_messages { seen.messages() } else { None };
        self.each(&self.handles(seen), |measure| match measure {
            Measure::Count => Some(1),
            Measure::RequestMessages => messages.map(|(request, _)| request),
            Measure::ResponseMessages => messages.map(|(_, response)| response),
            Measure::Duration => seen.duration().map(microseconds),
            Measure::ToResponse => seen.to_response().map(microseconds),
            Measure::RequestBytes => seen.received(),
            Measure::ResponseBytes => seen.sent(),
            _ => None,
        });
    }

    /// Gives each metric its value, if it has one.
    fn each(&self, handles: &[Handle], value: impl Fn(Measure) -> Option<u64>) {
        for (metric, handle) in self.metrics.iter().zip(handles) {
            if let Some(value) = value(metric.measure) {
                handle.take(value);
            }
        }
    }

    /// Moves the gauges.
    fn move_gauges(&self, handles: &[Handle], amount: i64) {
        for handle in handles {
            if let Handle::Gauge(gauge) = handle {
                gauge.add(amount);
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
        let with_messages = self.has_messages && seen.is_grpc();
        if self.has_messages {
            // Behind the last value: where labels are no longer those of the preset, both kinds may have the same.
            key.push(with_messages.into());
        }
        let position = match series.binary_search_by(|(known, _)| (**known).cmp(key)) {
            Ok(position) => {
                return series.get(position).map_or_else(|| Rc::from([]), |(_, handles)| Rc::clone(handles));
            }
            Err(position) => position,
        };
        if overflow.is_none() && series.len() < self.most {
            let values = values(key);
            match self.define(with_messages, |index| values.get(index).map_or("", String::as_str)) {
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
            self.define(true, |_| OTHER).unwrap_or_else(|refused| {
                meshgate_sdk::warn!("{refused}");
                self.metrics.iter().map(|_| Handle::Absent).collect()
            })
        }))
    }

    fn define<'a>(&self, with_messages: bool, value: impl Fn(usize) -> &'a str) -> Result<Handles, Refused> {
        let one = |metric: &Metric| match metric.measure.is_of_messages() && !with_messages {
            true => Ok(Handle::Absent),
            false => self.define_one(metric, &value),
        };
        self.metrics.iter().map(one).collect()
    }

    fn define_one<'a>(&self, metric: &Metric, value: &impl Fn(usize) -> &'a str) -> Result<Handle, Refused> {
        let labels = self.labels.iter().enumerate().filter(|(index, _)| metric.labels & (1 << index) != 0);
        let labels = labels.map(|(index, label)| (label.name.as_str(), value(index)));
        Ok(match metric.measure.form() {
            Form::Counter => {
                let builder = Counter::build(metric.name).help(metric.help);
                Handle::Counter(labels.fold(builder, |all, (name, value)| all.label(name, value)).define()?)
            }
            Form::Gauge => {
                let builder = Gauge::build(metric.name).help(metric.help);
                Handle::Gauge(labels.fold(builder, |all, (name, value)| all.label(name, value)).define()?)
            }
            Form::Histogram => {
                let builder = Histogram::build(metric.name)
                    .help(metric.help)
                    .scale(metric.scale)
                    .buckets(metric.buckets);
                Handle::Histogram(labels.fold(builder, |all, (name, value)| all.label(name, value)).define()?)
            }
        })
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
