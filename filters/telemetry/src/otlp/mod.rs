//! What is exported by OTLP: records wait in a bounded queue, and a tick sends them in batches.
//!
//! `proto.rs` writes Protocol Buffers, `queue.rs` keeps what waits.

pub(crate) mod proto;
mod queue;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use meshgate_sdk::metric::{Counter, CounterBuilder};
use meshgate_sdk::{CallError, Cluster, ConfigError, GrpcError, property};

use self::proto::{Writer, record};
use self::queue::{Batch, Queue};
use crate::config::{Protocol, ReceiverConfig, WorkloadConfig};

/// How often a batch is sent before it is given up.
const MOST_TRIES: u32 = 5;
/// At the end: how long until a receiver that could not take a batch is tried again, and until it is looked whether another one
/// has.
const PAUSE: Duration = Duration::from_millis(500);
const LOOK: Duration = Duration::from_millis(20);

/// What kind of records. Requests for both have one form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    Traces,
    Logs,
}

/// Sends records to a receiver.
pub(crate) struct Exporter {
    cluster: Cluster,
    protocol: Protocol,
    signal: Signal,
    path: String,
    headers: Vec<(String, String)>,
    timeout: Duration,
    /// `Resource`, encoded.
    resource: Vec<u8>,
    queue: RefCell<Queue>,
    /// How many times what waited is being sent.
    sending: Cell<u32>,
    exported: Counter,
    dropped: Counter,
    failed: Counter,
}

/// Why a batch was not taken.
struct Refusal {
    /// It may be taken later.
    passing: bool,
    message: String,
}

impl Exporter {
    /// An exporter for one kind of records.
    ///
    /// # Errors
    /// The configuration makes no sense, or the host refuses to define metrics.
    pub(crate) fn new(
        config: &ReceiverConfig,
        signal: Signal,
        workload: &WorkloadConfig,
    ) -> Result<Self, ConfigError> {
        let name = signal.as_str();
        let counter = |name: &str, help| -> CounterBuilder {
            Counter::build(name).help(help).label("signal", signal.as_str())
        };
        if let Some(path) = config.path.as_deref().filter(|path| !path.starts_with('/')) {
            return Err(
                ConfigError::new(format_args!("`{path}` is not a path: it begins with no /")).at("path")
            );
        }
        if config.interval.as_std().is_zero() {
            return Err(ConfigError::new("at least 10ms").at("interval"));
        }
        Ok(Self {
            cluster: config.cluster.clone(),
            protocol: config.protocol,
            signal,
            path: config.path.clone().unwrap_or_else(|| format!("/v1/{name}")),
            headers: config
                .headers
                .iter()
                .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
                .collect(),
            timeout: config.timeout.as_std(),
            resource: resource(&config.resource, workload),
            queue: RefCell::new(Queue::new(usize::try_from(config.queue.bytes()).unwrap_or(usize::MAX))),
            sending: Cell::new(0),
            exported: counter(
                "meshgate_telemetry_exported_total",
                "Records that a receiver of OTLP has taken, by kind.",
            )
            .define()?,
            dropped: counter(
                "meshgate_telemetry_dropped_total",
                "Records that were not sent, since too much waited already, by kind.",
            )
            .define()?,
            failed: counter(
                "meshgate_telemetry_export_failed_total",
                "Records that were sent, and not taken by the receiver, by kind.",
            )
            .define()?,
        })
    }

    /// Keeps a record until it is sent. `write` writes its fields.
    pub(crate) fn add(&self, write: impl FnOnce(&mut Writer<'_>)) {
        if !self.queue.borrow_mut().push(write) {
            self.dropped.add(1);
        }
    }

    /// Keeps records that are written already, each with its field's number.
    pub(crate) fn add_written(&self, records: &[u8]) {
        if records.is_empty() {
            return;
        }
        let count = proto::count(records);
        if !self.queue.borrow_mut().push_written(records, count) {
            self.dropped.add(count);
        }
    }

    /// Sends what waits now. What comes meanwhile waits for the next time.
    pub(crate) async fn flush(&self) {
        let batches = self.queue.borrow_mut().take();
        if batches.is_empty() {
            return;
        }
        self.sending.set(self.sending.get() + 1);
        self.send_all(batches).await;
        self.sending.set(self.sending.get() - 1);
    }

    /// Sends all that waits or is on its way, as often as it may be tried: nothing more comes.
    pub(crate) async fn finish(&self) {
        loop {
            self.flush().await;
            if self.sending.get() == 0 && self.queue.borrow().is_empty() {
                return;
            }
            // Where there is no clock, there is no end to wait for.
            if meshgate_sdk::sleep(if self.sending.get() > 0 { LOOK } else { PAUSE }).await.is_err() {
                return;
            }
        }
    }

    async fn send_all(&self, batches: VecDeque<Batch>) {
        let mut batches = batches.into_iter();
        while let Some(mut batch) = batches.next() {
            let Err(refusal) = self.send(&batch).await else {
                self.exported.add(batch.records);
                continue;
            };
            batch.tries += 1;
            if refusal.passing && batch.tries < MOST_TRIES {
                // The receiver is not there, or has too much to do: all of it waits until the next time.
                let lost = self.queue.borrow_mut().put_back(std::iter::once(batch).chain(batches));
                if lost > 0 {
                    self.dropped.add(lost);
                }
                return;
            }
            meshgate_sdk::warn!("{} were not taken: {}", self.signal.as_str(), refusal.message);
            self.failed.add(batch.records);
        }
    }

    async fn send(&self, batch: &Batch) -> Result<(), Refusal> {
        let body = self.request(batch);
        match self.protocol {
            Protocol::Grpc => {
                let mut call = self.cluster.grpc(self.signal.service(), "Export").timeout(self.timeout);
                for (name, value) in &self.headers {
                    call = call.metadata(name.as_str(), value.as_str());
                }
                call.send_bytes(body).await.map(drop).map_err(|error| Refusal {
                    // What OTLP's specification says may be sent again.
                    passing: matches!(
                        error.status(),
                        1 | GrpcError::DEADLINE_EXCEEDED | 8 | 10 | 11 | GrpcError::UNAVAILABLE | 15
                    ),
                    message: error.to_string(),
                })
            }
            Protocol::Http => {
                let mut call = self.cluster.post(self.path.as_str(), body).timeout(self.timeout);
                call = call.header("content-type", "application/x-protobuf");
                for (name, value) in &self.headers {
                    call = call.header(name.as_str(), value.as_str());
                }
                match call.send().await.and_then(meshgate_sdk::CallResponse::success) {
                    Ok(_) => Ok(()),
                    Err(error) => Err(Refusal {
                        passing: match &error {
                            CallError::Status(status) => matches!(status, 429 | 502 | 503 | 504),
                            CallError::Timeout | CallError::Connect | CallError::Reset => true,
                            _ => false,
                        },
                        message: error.to_string(),
                    }),
                }
            }
        }
    }

    /// `ExportTraceServiceRequest`, whose numbers are those of `ExportLogsServiceRequest` too.
    fn request(&self, batch: &Batch) -> Vec<u8> {
        let mut body = Vec::with_capacity(batch.bytes.len() + self.resource.len() + 128);
        record(&mut body, 1, |of_resource| {
            of_resource.bytes(1, &self.resource);
            of_resource.message(2, |of_scope| {
                of_scope.message(1, |scope| {
                    scope.text(1, "meshgate.telemetry");
                    scope.text(2, env!("CARGO_PKG_VERSION"));
                });
                of_scope.written(&batch.bytes);
            });
        });
        body
    }
}

impl Signal {
    fn as_str(self) -> &'static str {
        match self {
            Self::Traces => "traces",
            Self::Logs => "logs",
        }
    }

    fn service(self) -> &'static str {
        match self {
            Self::Traces => "opentelemetry.proto.collector.trace.v1.TraceService",
            Self::Logs => "opentelemetry.proto.collector.logs.v1.LogsService",
        }
    }
}

/// As OTLP has moments.
pub(crate) fn nanoseconds(moment: SystemTime) -> u64 {
    let since = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// `Resource`: who sends.
fn resource(configured: &BTreeMap<String, String>, workload: &WorkloadConfig) -> Vec<u8> {
    let node = |path: &str| property::text(path).filter(|text| !text.is_empty());
    let service = workload.service.clone().or_else(|| workload.name.clone());
    let mut attributes = BTreeMap::from([("telemetry.sdk.name", Some("meshgate".to_owned()))]);
    attributes.insert(
        "service.name",
        service
            .or_else(|| node("xds/node/metadata/WORKLOAD_NAME"))
            .or_else(|| node("xds/node/cluster"))
            .or_else(|| Some("meshgate".to_owned())),
    );
    attributes.insert(
        "service.namespace",
        workload.namespace.clone().or_else(|| node("xds/node/metadata/NAMESPACE")),
    );
    attributes.insert("service.version", workload.version.clone());
    attributes.insert("service.instance.id", node("xds/node/id"));
    for (name, value) in configured {
        attributes.insert(name, Some(value.clone()));
    }
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes);
    for (name, value) in attributes {
        if let Some(value) = value {
            writer.attribute(1, name, &value);
        }
    }
    bytes
}
