//! The standard filter `telemetry`: counts requests and TCP connections and measures them, carries the context of traces on and
//! records spans, and writes the access log. See its README.md.
//!
//! `seen.rs` is an exchange at its end, or a connection, `format/` Envoy's format operators; `metrics/` counts, `messages.rs`
//! counts gRPC's messages, `trace/` traces, `otlp/` exports, `access_log.rs` and `shape.rs` write lines and records.

mod access_log;
mod config;
mod escape;
mod failures;
mod format;
mod messages;
mod metrics;
mod otlp;
mod seen;
mod shape;
mod trace;

use std::cell::{Cell, OnceCell, RefCell};
use std::time::{Duration, SystemTime};

use meshgate_sdk::{Body, ConfigError, Connection, Exchange, Filter, Outcome, TcpFilter, filter};

use crate::access_log::AccessLog;
use crate::config::Config;
use crate::failures::Failures;
use crate::metrics::{Connections, Recorder, Told};
use crate::otlp::Exporter;
use crate::seen::Seen;
use crate::trace::{Trace, Tracer};

/// The shortest time after which connections are counted again.
const SHORTEST: Duration = Duration::from_millis(100);

struct Telemetry {
    recorder: Option<Recorder>,
    connections: Option<Connections>,
    tracer: Option<Tracer>,
    access_log: Option<AccessLog>,
    failures: Failures,
    /// How often the filter is to be woken where there are connections, unless it is already.
    wake: Cell<Option<Duration>>,
}

/// What is kept of an exchange until its end.
#[derive(Default)]
struct Kept {
    trace: OnceCell<Trace>,
    /// When the response's head was there.
    response_at: Cell<Option<SystemTime>>,
    request_messages: Cell<u64>,
    response_messages: Cell<u64>,
}

#[filter(tcp)]
impl Filter for Telemetry {
    type State = Kept;

    fn configure(config: Config) -> Result<Self, ConfigError> {
        let recorder = Recorder::new(&config)?;
        let connections = Connections::new(&config)?;
        let traces = config.traces.as_ref();
        let tracer = traces.map(|traces| Tracer::new(&config, traces)).transpose()?;
        let access_log = config.access_log.as_ref().map(|log| AccessLog::new(&config, log)).transpose()?;
        let needs_response = recorder.as_ref().is_some_and(Recorder::needs_response)
            || tracer.as_ref().is_some_and(Tracer::needs_response)
            || access_log.as_ref().is_some_and(AccessLog::needs_response);
        let needs_connections = connections.is_some() || access_log.is_some();
        let needs_messages = recorder.as_ref().is_some_and(Recorder::needs_messages);
        leave_out(&[
            (&["request_headers"], tracer.is_some()),
            (&["response_headers"], needs_response),
            (BODIES, needs_messages),
            (&["new_connection"], needs_connections),
        ])?;
        let interval = config.metrics.tcp_interval.as_std();
        if interval < SHORTEST {
            return Err(ConfigError::new("shorter than 100ms").at("metrics/tcp_interval"));
        }
        let of_traces = traces.and_then(|traces| traces.receiver.as_ref());
        let of_logs = config.access_log.as_ref().and_then(|log| log.otlp.as_ref()).map(|otlp| &otlp.receiver);
        // There is one timer: of several intervals the shortest holds for all.
        let export = of_traces.into_iter().chain(of_logs).map(|receiver| receiver.interval.as_std()).min();
        if let Some(interval) = export {
            meshgate_sdk::tick_every(interval)?;
        }
        let wake = connections.as_ref().map(|_| export.map_or(interval, |export| export.min(interval)));
        let failures = config.failures;
        Ok(Self { recorder, connections, tracer, access_log, failures, wake: Cell::new(wake) })
    }

    fn on_request(&self, exchange: &Exchange<Self>) -> Outcome {
        if let Some(tracer) = &self.tracer
            && let Some(trace) = tracer.begin(exchange)?
        {
            let _ = exchange.state.trace.set(trace);
        }
        Ok(())
    }

    async fn on_request_body(&self, exchange: &Exchange<Self>, body: &mut Body) -> Outcome {
        // Other hosts call it for all requests.
        if seen::is_grpc(exchange) {
            messages::count(body, || add_one(&exchange.state.request_messages)).await?;
        }
        Ok(())
    }

    fn on_response(&self, exchange: &Exchange<Self>) -> Outcome {
        exchange.state.response_at.set(Some(meshgate_sdk::now()));
        Ok(())
    }

    async fn on_response_body(&self, exchange: &Exchange<Self>, body: &mut Body) -> Outcome {
        if seen::is_grpc(exchange) {
            messages::count(body, || add_one(&exchange.state.response_messages)).await?;
        }
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
        // Side by side: a receiver of the one that does not answer does not hold up the other.
        meshgate_sdk::join_all(self.exporters().map(Exporter::flush)).await;
        Ok(())
    }

    async fn on_end(&self) -> Outcome {
        meshgate_sdk::join_all(self.exporters().map(Exporter::finish)).await;
        Ok(())
    }
}

/// What a connection keeps.
#[derive(Default)]
struct KeptOfConnection {
    told: RefCell<Option<Told>>,
}

#[filter(http)]
impl TcpFilter for Telemetry {
    type State = KeptOfConnection;

    fn on_connection(&self, _: &Connection<Self>) -> Outcome {
        if let Some(interval) = self.wake.take() {
            meshgate_sdk::tick_every(interval)?;
        }
        Ok(())
    }

    fn on_connection_tick(&self, connection: &Connection<Self>) {
        if let Some(connections) = &self.connections {
            let seen = Seen::connection(connection, &self.failures);
            connections.tell(&seen, &mut connection.state.told.borrow_mut());
        }
    }

    fn on_log(&self, connection: &Connection<Self>) {
        let seen = Seen::connection(connection, &self.failures);
        if let Some(connections) = &self.connections {
            connections.end(&seen, &mut connection.state.told.borrow_mut());
        }
        if let Some(access_log) = &self.access_log {
            access_log.write(&seen);
        }
    }
}

impl Telemetry {
    fn exporters(&self) -> impl Iterator<Item = &Exporter> {
        let spans = self.tracer.as_ref().and_then(Tracer::exporter);
        let records = self.access_log.as_ref().and_then(AccessLog::exporter);
        spans.into_iter().chain(records)
    }
}

/// What gRPC's messages are counted by.
const BODIES: &[&str] = &["request_body", "request_trailers", "response_body", "response_trailers"];

/// Has callbacks left out that are of no use; those for bodies are of use for gRPC alone.
///
/// # Errors
/// The host does not know one of them.
fn leave_out(needed: &[(&[&str], bool)]) -> Result<(), ConfigError> {
    let unused = needed.iter().filter(|(_, is_needed)| !is_needed).flat_map(|(names, _)| *names);
    let unused: Vec<&str> = unused.copied().collect();
    meshgate_sdk::leave_out(&unused)?;
    meshgate_sdk::leave_out_but_for_grpc(BODIES)?;
    Ok(())
}

fn add_one(count: &Cell<u64>) {
    count.set(count.get().saturating_add(1));
}
