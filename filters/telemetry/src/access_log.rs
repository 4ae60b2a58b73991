//! The access log: the exchange's line, in the place of the proxy's own, and records for a receiver of OTLP.

use meshgate_sdk::ConfigError;

use crate::config::{AccessLogConfig, Config};
use crate::format::Format;
use crate::otlp::{Exporter, Signal};
use crate::seen::Seen;
use crate::shape::Shape;

/// `SEVERITY_NUMBER_INFO` and `SEVERITY_NUMBER_ERROR`
const INFO: (u64, &str) = (9, "INFO");
const ERROR: (u64, &str) = (17, "ERROR");

/// What is written about each exchange.
pub(crate) struct AccessLog {
    line: Option<Line>,
    records: Option<Records>,
}

enum Line {
    Text(Format),
    Json(Shape),
}

/// Records for a receiver.
struct Records {
    body: Format,
    attributes: Vec<(String, Format)>,
    exporter: Exporter,
}

impl AccessLog {
    /// What the configuration says.
    ///
    /// # Errors
    /// It makes no sense, or the host refuses to define metrics.
    pub(crate) fn new(config: &Config, log: &AccessLogConfig) -> Result<Self, ConfigError> {
        let line = match (&log.text, &log.json) {
            (Some(_), Some(_)) => {
                return Err(ConfigError::new("a line is either text or JSON").at("access_log/json"));
            }
            (Some(text), None) => Some(Line::Text(text.0.clone())),
            (None, Some(shape)) => Some(Line::Json(shape.clone())),
            (None, None) => None,
        };
        let records = log.otlp.as_ref().map(|otlp| {
            let exporter = Exporter::new(&otlp.receiver, Signal::Logs, &config.workload);
            Ok::<_, ConfigError>(Records {
                body: otlp.body.0.clone(),
                attributes: otlp.attributes.clone().into_iter().collect(),
                exporter: exporter.map_err(|error| error.within("access_log/otlp/receiver"))?,
            })
        });
        if line.is_none() && records.is_none() {
            return Err(ConfigError::new("neither `text` nor `json` nor `otlp`: nothing would be written")
                .at("access_log"));
        }
        Ok(Self { line, records: records.transpose()? })
    }

    /// What sends the records.
    pub(crate) fn exporter(&self) -> Option<&Exporter> {
        self.records.as_ref().map(|records| &records.exporter)
    }

    /// Whether it needs to know when the response began.
    pub(crate) fn needs_response(&self) -> bool {
        let line = match &self.line {
            Some(Line::Text(format)) => format.needs_response(),
            Some(Line::Json(shape)) => shape.needs_response(),
            None => false,
        };
        let of_records = |records: &Records| {
            records.body.needs_response()
                || records.attributes.iter().any(|(_, format)| format.needs_response())
        };
        line || self.records.as_ref().is_some_and(of_records)
    }

    /// The exchange is over.
    pub(crate) fn write(&self, seen: &Seen<'_>) {
        if let Some(line) = &self.line {
            let mut out = Vec::with_capacity(512);
            match line {
                Line::Text(format) => format.line(seen, &mut out),
                Line::Json(shape) => shape.line(seen, &mut out),
            }
            // If the host does not take it, it writes its own.
            if let Err(refused) = seen.log_line(&out) {
                meshgate_sdk::debug!("{refused}");
            }
        }
        if let Some(records) = &self.records {
            records.add(seen);
        }
    }
}

impl Records {
    fn add(&self, seen: &Seen<'_>) {
        let mut body = Vec::new();
        self.body.line(seen, &mut body);
        let (number, name) = if seen.failed() { ERROR } else { INFO };
        self.exporter.add(|record| {
            let started = seen.started().map_or(0, crate::otlp::nanoseconds);
            record.fixed64(1, started);
            record.number(2, number);
            record.text(3, name);
            record.message(5, |any| any.bytes(1, &body));
            for (name, format) in &self.attributes {
                if let Some(value) = format.text(seen) {
                    record.attribute(6, name, &value);
                }
            }
            if let Some(trace) = seen.trace() {
                record.fixed32(8, trace.is_sampled().into());
                record.bytes(9, &trace.id_bytes());
                record.bytes(10, &trace.span_bytes());
            }
            record.fixed64(11, crate::otlp::nanoseconds(meshgate_sdk::now()));
        });
    }
}
