//! The access log: records of exchanges for a receiver of OTLP.

use meshgate_sdk::ConfigError;

use crate::config::{AccessLogConfig, Config};
use crate::format::Format;
use crate::otlp::{Exporter, Signal};
use crate::seen::Seen;

/// `SEVERITY_NUMBER_INFO` and `SEVERITY_NUMBER_ERROR`
const INFO: (u64, &str) = (9, "INFO");
const ERROR: (u64, &str) = (17, "ERROR");

/// What is written about each exchange.
pub(crate) struct AccessLog {
    records: Records,
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
        let otlp = &log.otlp;
        let exporter = Exporter::new(&otlp.receiver, Signal::Logs, &config.workload);
        Ok(Self {
            records: Records {
                body: otlp.body.0.clone(),
                attributes: otlp.attributes.clone().into_iter().collect(),
                exporter: exporter.map_err(|error| error.within("access_log/otlp/receiver"))?,
            },
        })
    }

    /// What sends the records.
    pub(crate) fn exporter(&self) -> &Exporter {
        &self.records.exporter
    }

    /// Whether it needs to know when the response began.
    pub(crate) fn needs_response(&self) -> bool {
        let Records { body, attributes, .. } = &self.records;
        body.needs_response() || attributes.iter().any(|(_, format)| format.needs_response())
    }

    /// The exchange is over.
    pub(crate) fn write(&self, seen: &Seen<'_>) {
        self.records.add(seen);
    }
}

impl Records {
    fn add(&self, seen: &Seen<'_>) {
        let mut body = Vec::new();
        self.body.line(seen, &mut body);
        let (number, name) = if seen.failed() { ERROR } else { INFO };
        self.exporter.add(|record| {
            let started = seen.exchange.started().map_or(0, crate::otlp::nanoseconds);
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
