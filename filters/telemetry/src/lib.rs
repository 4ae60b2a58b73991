//! The standard filter `telemetry`: counts requests and measures them, carries the context of traces on and records spans, and
//! writes the access log. See its README.md.
//!
//! `seen.rs` is an exchange at its end, `format/` Envoy's format operators; `metrics/` counts, `trace/` traces, `otlp/`
//! exports, `access_log.rs` makes records.

mod access_log;
mod config;
mod escape;
mod failures;
mod format;
mod metrics;
mod otlp;
mod seen;
mod trace;

use std::cell::{Cell, OnceCell};
use std::time::SystemTime;

use meshgate_sdk::{ConfigError, Exchange, Filter, Outcome, filter};

use crate::access_log::AccessLog;
use crate::config::Config;
use crate::failures::Failures;
use crate::metrics::Recorder;
use crate::otlp::Exporter;
use crate::seen::Seen;
use crate::trace::{Trace, Tracer};

struct Telemetry {
    recorder: Option<Recorder>,
    tracer: Option<Tracer>,
    access_log: Option<AccessLog>,
    failures: Failures,
}

/// What is kept of an exchange until its end.
#[derive(Default)]
struct Kept {
    trace: OnceCell<Trace>,
    /// When the response's head was there.
    response_at: Cell<Option<SystemTime>>,
}

#[filter]
impl Filter for Telemetry {
    type State = Kept;

    fn configure(config: Config) -> Result<Self, ConfigError> {
        let recorder = Recorder::new(&config)?;
        let traces = config.traces.as_ref();
        let tracer = traces.map(|traces| Tracer::new(&config, traces)).transpose()?;
        let access_log = config.access_log.as_ref().map(|log| AccessLog::new(&config, log)).transpose()?;
        let needs_response = recorder.as_ref().is_some_and(Recorder::needs_response)
            || tracer.as_ref().is_some_and(Tracer::needs_response)
            || access_log.as_ref().is_some_and(AccessLog::needs_response);
        let mut unused = Vec::new();
        if tracer.is_none() {
            unused.push("request_headers");
        }
        if !needs_response {
            unused.push("response_headers");
        }
        meshgate_sdk::leave_out(&unused)?;
        let of_traces = traces.and_then(|traces| traces.receiver.as_ref());
        let of_logs = config.access_log.as_ref().map(|log| &log.otlp.receiver);
        // There is one timer: with two receivers the shorter interval holds for both.
        if let Some(interval) = of_traces.into_iter().chain(of_logs).map(|receiver| receiver.interval).min() {
            meshgate_sdk::tick_every(interval)?;
        }
        Ok(Self { recorder, tracer, access_log, failures: config.failures })
    }

    fn on_request(&self, exchange: &Exchange<Self>) -> Outcome {
        if let Some(tracer) = &self.tracer
            && let Some(trace) = tracer.begin(exchange)?
        {
            let _ = exchange.state.trace.set(trace);
        }
        Ok(())
    }

    fn on_response(&self, exchange: &Exchange<Self>) -> Outcome {
        exchange.state.response_at.set(Some(meshgate_sdk::now()));
        Ok(())
    }

    fn on_log(&self, exchange: &Exchange<Self>) {
        let seen = Seen::new(exchange, &self.failures);
        if let Some(recorder) = &self.recorder {
            recorder.record(&seen);
        }
        if let Some(tracer) = &self.tracer {
            tracer.end(&seen);
        }
        if let Some(access_log) = &self.access_log {
            access_log.write(&seen);
        }
    }

    async fn on_tick(&self) -> Outcome {
        let spans = self.tracer.as_ref().and_then(Tracer::exporter);
        let records = self.access_log.as_ref().map(AccessLog::exporter);
        // Side by side: a receiver of the one that does not answer does not hold up the other.
        meshgate_sdk::join_all(spans.into_iter().chain(records).map(Exporter::flush)).await;
        Ok(())
    }
}
