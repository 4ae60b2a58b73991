//! What filters may use: each filter by itself, and all of them together.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::diagnostic::Report;
use crate::references::{lasting, size, whole};
use crate::tree::Node;
use crate::units::{DurationText, SizeText};

/// What a filter may use.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct FilterLimits {
    /// Longest time in one callback, the body callbacks apart.
    pub time: Duration,
    /// Longest time in one body callback.
    pub body_time: Duration,
    /// Longest time in one callback at start.
    pub start_time: Duration,
    /// Percent of a core on a worker that has no time to spare.
    pub cpu_percent: u32,
    /// Most linear memory of one VM, in bytes.
    pub memory: u64,
    /// Most linear memory of all its VMs, tables included, in bytes.
    pub total_memory: u64,
    /// Most body bytes buffered for it per exchange and direction.
    pub body: u64,
    /// How long it may hold an exchange.
    pub pause: Duration,
    /// How long a context may live on after its end.
    pub done: Duration,
    /// Live contexts of its VM.
    pub contexts: u32,
    /// Failures in a minute, on one worker, before it goes into quarantine.
    pub crashes: u32,
    /// Hostcalls in one callback.
    pub hostcalls: u32,
    /// Bytes copied between guest and host in one callback.
    pub copied: u64,
    /// Log lines in one second.
    pub log_lines: u32,
    /// Bytes of fields in one exchange's entry in the access log.
    pub log_bytes: u64,
    /// Spans added to one exchange's trace.
    pub spans: u32,
    /// Bytes of them.
    pub span_bytes: u64,
    /// HTTP calls under way, of the filter on one worker.
    pub http_calls: u32,
    /// HTTP calls under way, of one exchange.
    pub stream_http_calls: u32,
    /// gRPC calls and streams under way, of the filter on one worker.
    pub grpc_calls: u32,
    /// gRPC calls and streams under way, of one exchange.
    pub stream_grpc_calls: u32,
    /// Bytes that wait to be sent on one gRPC stream, each message counted with 64 more.
    pub grpc_queue: u64,
    /// Longest time of a call.
    pub call_time: Duration,
    /// Most bytes of a call's response body, and of a gRPC message that comes.
    pub call_body: u64,
    /// Bytes that its calls under way hold, on one worker.
    pub call_bytes: u64,
    /// Calls in a row, each made while the one before is served.
    pub call_depth: u32,
    /// Bodies encoded at a time, on one worker.
    pub encodings: u32,
    /// Metrics without labels.
    pub metrics: u32,
    /// Series with labels.
    pub series: u32,
    /// Keys in shared data.
    pub shared_keys: u32,
    /// Bytes in shared data.
    pub shared_bytes: u64,
    /// Shared queues.
    pub queues: u32,
    /// Items in one of its queues.
    pub queue_items: u32,
    /// Bytes in all its queues.
    pub queue_bytes: u64,
    /// Shortest period of its timer.
    pub tick: Duration,
}

impl Default for FilterLimits {
    /// What a filter may use if its entry does not say.
    fn default() -> Self {
        Self {
            time: Duration::from_millis(10),
            body_time: Duration::from_millis(20),
            start_time: Duration::from_secs(1),
            cpu_percent: 50,
            memory: 16 << 20,
            total_memory: 256 << 20,
            body: 1 << 20,
            pause: Duration::from_secs(15),
            done: Duration::from_secs(5),
            contexts: 10_000,
            crashes: 20,
            hostcalls: 10_000,
            copied: 8 << 20,
            log_lines: 100,
            log_bytes: 4 << 10,
            spans: 32,
            span_bytes: 16 << 10,
            http_calls: 256,
            stream_http_calls: 8,
            grpc_calls: 256,
            stream_grpc_calls: 8,
            grpc_queue: 1 << 20,
            call_time: Duration::from_secs(30),
            call_body: 1 << 20,
            call_bytes: 32 << 20,
            call_depth: 3,
            encodings: 256,
            metrics: 1_000,
            series: 5_000,
            shared_keys: 10_000,
            shared_bytes: 8 << 20,
            queues: 100,
            queue_items: 1_000,
            queue_bytes: 8 << 20,
            tick: Duration::from_millis(10),
        }
    }
}

/// `limits: {time: 10ms, memory: 16MiB, body: 1MiB}`
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LimitsEntry {
    /// Longest time in one callback, the body callbacks apart. Default: 10ms.
    #[schemars(with = "DurationText")]
    time: Option<DurationText>,
    /// Longest time in one body callback. Default: 20ms, or `time` if that is longer.
    #[schemars(with = "DurationText")]
    body_time: Option<DurationText>,
    /// Longest time in one callback at start. Default: 1s.
    #[schemars(with = "DurationText")]
    start_time: Option<DurationText>,
    /// Percent of a core that the filter may use on one worker while that has no time to spare; 100 for no limit.
    /// Default: 50.
    #[schemars(with = "u32", range(min = 1, max = 100))]
    cpu_percent: Option<u32>,
    /// Most linear memory of one VM. Default: 16MiB.
    #[schemars(with = "SizeText")]
    memory: Option<SizeText>,
    /// Most linear memory of all its VMs on all workers, tables included. Default: 256MiB.
    #[schemars(with = "SizeText")]
    total_memory: Option<SizeText>,
    /// Most body bytes buffered for it per exchange and direction. Default: 1MiB.
    #[schemars(with = "SizeText")]
    body: Option<SizeText>,
    /// How long it may hold an exchange. Default: 15s.
    #[schemars(with = "DurationText")]
    pause: Option<DurationText>,
    /// How long a context may live on after its end. Default: 5s.
    #[schemars(with = "DurationText")]
    done: Option<DurationText>,
    /// Live contexts of its VM. Default: 10000.
    #[schemars(with = "u32", range(min = 1, max = 1_000_000))]
    contexts: Option<u32>,
    /// Failures in a minute, on one worker, before the filter goes into quarantine. Default: 20.
    #[schemars(with = "u32", range(max = 1_000_000))]
    crashes: Option<u32>,
    /// Hostcalls in one callback. Default: 10000.
    #[schemars(with = "u32", range(min = 1))]
    hostcalls: Option<u32>,
    /// Bytes copied between guest and host in one callback. Default: 8MiB.
    #[schemars(with = "SizeText")]
    copied: Option<SizeText>,
    /// Log lines in one second, on one worker. Default: 100.
    #[schemars(with = "u32", range(max = 1_000_000))]
    log_lines: Option<u32>,
    /// Bytes of fields that the filter adds to one exchange's entry in the access log. Default: 4KiB.
    #[schemars(with = "SizeText")]
    log_bytes: Option<SizeText>,
    /// Spans that the filter adds to one exchange's trace. Default: 32.
    #[schemars(with = "u32", range(max = 10_000))]
    spans: Option<u32>,
    /// Bytes of these spans. Default: 16KiB.
    #[schemars(with = "SizeText")]
    span_bytes: Option<SizeText>,
    /// HTTP calls under way, of the filter on one worker. Default: 256.
    #[schemars(with = "u32", range(max = 100_000))]
    http_calls: Option<u32>,
    /// HTTP calls under way, of one exchange. Default: 8.
    #[schemars(with = "u32", range(max = 100_000))]
    stream_http_calls: Option<u32>,
    /// gRPC calls and streams under way, of the filter on one worker. Default: 256.
    #[schemars(with = "u32", range(max = 100_000))]
    grpc_calls: Option<u32>,
    /// gRPC calls and streams under way, of one exchange. Default: 8.
    #[schemars(with = "u32", range(max = 100_000))]
    stream_grpc_calls: Option<u32>,
    /// Bytes that wait to be sent on one gRPC stream, each message counted with 64 more. Default: 1MiB.
    #[schemars(with = "SizeText")]
    grpc_queue: Option<SizeText>,
    /// Longest time of a call. Default: 30s.
    #[schemars(with = "DurationText")]
    call_time: Option<DurationText>,
    /// Most bytes of a call's response body, and of a gRPC message that comes. Default: 1MiB.
    #[schemars(with = "SizeText")]
    call_body: Option<SizeText>,
    /// Bytes that its calls under way hold, on one worker: heads, bodies and messages that it sends. Default: 8MiB.
    #[schemars(with = "SizeText")]
    call_bytes: Option<SizeText>,
    /// Calls in a row, each made while the one before is served. Default: 3.
    #[schemars(with = "u32", range(max = 100))]
    call_depth: Option<u32>,
    /// Bodies that are compressed for the filter at a time, on one worker. Default: 256.
    #[schemars(with = "u32", range(max = 100_000))]
    encodings: Option<u32>,
    /// Metrics without labels. Default: 1000.
    #[schemars(with = "u32", range(max = 100_000))]
    metrics: Option<u32>,
    /// Series with labels. Default: 5000.
    #[schemars(with = "u32", range(max = 100_000))]
    series: Option<u32>,
    /// Keys in shared data. Default: 10000.
    #[schemars(with = "u32", range(max = 10_000_000))]
    shared_keys: Option<u32>,
    /// Bytes in shared data, keys and values. Default: 8MiB.
    #[schemars(with = "SizeText")]
    shared_bytes: Option<SizeText>,
    /// Shared queues. Default: 100.
    #[schemars(with = "u32", range(max = 1_000))]
    queues: Option<u32>,
    /// Items in one of its queues. Default: 1000.
    #[schemars(with = "u32", range(max = 10_000_000))]
    queue_items: Option<u32>,
    /// Bytes in all its queues. Default: 8MiB.
    #[schemars(with = "SizeText")]
    queue_bytes: Option<SizeText>,
    /// Shortest period of its timer. Default: 10ms.
    #[schemars(with = "DurationText")]
    tick: Option<DurationText>,
}

impl LimitsEntry {
    /// The limits, with the defaults for what is not written.
    pub(crate) fn resolve(self) -> FilterLimits {
        let default = FilterLimits::default();
        let time = lasts(self.time, default.time);
        FilterLimits {
            time,
            body_time: lasts(self.body_time, default.body_time.max(time)),
            start_time: lasts(self.start_time, default.start_time),
            cpu_percent: self.cpu_percent.unwrap_or(default.cpu_percent),
            memory: bytes(self.memory, default.memory),
            total_memory: bytes(self.total_memory, default.total_memory),
            body: bytes(self.body, default.body),
            pause: lasts(self.pause, default.pause),
            done: lasts(self.done, default.done),
            contexts: self.contexts.unwrap_or(default.contexts),
            crashes: self.crashes.unwrap_or(default.crashes),
            hostcalls: self.hostcalls.unwrap_or(default.hostcalls),
            copied: bytes(self.copied, default.copied),
            log_lines: self.log_lines.unwrap_or(default.log_lines),
            log_bytes: bytes(self.log_bytes, default.log_bytes),
            spans: self.spans.unwrap_or(default.spans),
            span_bytes: bytes(self.span_bytes, default.span_bytes),
            http_calls: self.http_calls.unwrap_or(default.http_calls),
            stream_http_calls: self.stream_http_calls.unwrap_or(default.stream_http_calls),
            grpc_calls: self.grpc_calls.unwrap_or(default.grpc_calls),
            stream_grpc_calls: self.stream_grpc_calls.unwrap_or(default.stream_grpc_calls),
            grpc_queue: bytes(self.grpc_queue, default.grpc_queue),
            call_time: lasts(self.call_time, default.call_time),
            call_body: bytes(self.call_body, default.call_body),
            call_bytes: bytes(self.call_bytes, default.call_bytes),
            call_depth: self.call_depth.unwrap_or(default.call_depth),
            encodings: self.encodings.unwrap_or(default.encodings),
            metrics: self.metrics.unwrap_or(default.metrics),
            series: self.series.unwrap_or(default.series),
            shared_keys: self.shared_keys.unwrap_or(default.shared_keys),
            shared_bytes: bytes(self.shared_bytes, default.shared_bytes),
            queues: self.queues.unwrap_or(default.queues),
            queue_items: self.queue_items.unwrap_or(default.queue_items),
            queue_bytes: bytes(self.queue_bytes, default.queue_bytes),
            tick: lasts(self.tick, default.tick),
        }
    }
}

/// What all filters of the process may use together.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct WasmBounds {
    /// Most linear memory of all VMs, tables included, in bytes.
    pub memory: u64,
    /// Most instances that serve one exchange each, at a time.
    pub exchange_instances: u32,
    /// Most bytes of a module.
    pub module_size: u64,
    /// Most functions of a module.
    pub module_functions: u32,
    /// Most bytes of one function.
    pub function_size: u64,
    /// Longest time to compile a module.
    pub compile_time: Duration,
}

impl Default for WasmBounds {
    fn default() -> Self {
        Self {
            memory: 2 << 30,
            exchange_instances: 512,
            module_size: 10 << 20,
            module_functions: 20_000,
            function_size: 1 << 20,
            compile_time: Duration::from_secs(30),
        }
    }
}

/// `wasm: {memory: 2GiB, compile_time: 30s}`
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct WasmEntry {
    /// Most linear memory of all VMs of the process, tables included. Default: 2GiB.
    #[schemars(with = "SizeText")]
    memory: Option<SizeText>,
    /// Most instances that serve one exchange each (`isolation: exchange`), at a time. Default: 512.
    #[schemars(with = "u32", range(max = 900))]
    exchange_instances: Option<u32>,
    /// Most bytes of a module. Default: 10MiB.
    #[schemars(with = "SizeText")]
    module_size: Option<SizeText>,
    /// Most functions of a module. Default: 20000.
    #[schemars(with = "u32", range(min = 1, max = 1_000_000))]
    module_functions: Option<u32>,
    /// Most bytes of one function. Default: 1MiB.
    #[schemars(with = "SizeText")]
    function_size: Option<SizeText>,
    /// Longest time to compile a module. Default: 30s.
    #[schemars(with = "DurationText")]
    compile_time: Option<DurationText>,
}

impl WasmEntry {
    /// The bounds, with the defaults for what is not written.
    pub(crate) fn resolve(self) -> WasmBounds {
        let default = WasmBounds::default();
        WasmBounds {
            memory: bytes(self.memory, default.memory),
            exchange_instances: self.exchange_instances.unwrap_or(default.exchange_instances),
            module_size: bytes(self.module_size, default.module_size),
            module_functions: self.module_functions.unwrap_or(default.module_functions),
            function_size: bytes(self.function_size, default.function_size),
            compile_time: lasts(self.compile_time, default.compile_time),
        }
    }
}

/// Bounds of the values with units, which a JSON Schema cannot express.
pub(crate) fn bounds(root: &Node, report: &mut Report<'_>) {
    for filter in root.get("filters").map(Node::entries).unwrap_or_default() {
        let Some(limits) = filter.value.get("limits") else { continue };
        for key in ["time", "body_time", "start_time", "pause", "call_time", "tick"] {
            lasting(limits, key, report);
        }
        // One page of WebAssembly, and all that a VM's place in the pool has.
        size(limits, "memory", 64 << 10, 1 << 30, report);
        size(limits, "total_memory", 64 << 10, 1 << 40, report);
        size(limits, "body", 0, 1 << 30, report);
        size(limits, "copied", 64 << 10, 1 << 40, report);
        size(limits, "log_bytes", 0, 1 << 20, report);
        size(limits, "span_bytes", 0, 1 << 20, report);
        for key in ["call_body", "call_bytes", "grpc_queue", "shared_bytes", "queue_bytes"] {
            size(limits, key, 0, 1 << 40, report);
        }
        for key in WHOLE {
            whole(limits, key, report);
        }
    }
    if let Some(wasm) = root.get("wasm") {
        size(wasm, "memory", 1 << 20, 1 << 40, report);
        // What is read into memory before anything is known of it.
        size(wasm, "module_size", 1 << 10, 64 << 20, report);
        size(wasm, "function_size", 1 << 10, 64 << 20, report);
        lasting(wasm, "compile_time", report);
        whole(wasm, "exchange_instances", report);
        whole(wasm, "module_functions", report);
    }
}

/// Limits that are whole numbers.
const WHOLE: [&str; 17] = [
    "cpu_percent",
    "contexts",
    "crashes",
    "hostcalls",
    "log_lines",
    "spans",
    "http_calls",
    "stream_http_calls",
    "grpc_calls",
    "stream_grpc_calls",
    "call_depth",
    "encodings",
    "metrics",
    "series",
    "shared_keys",
    "queues",
    "queue_items",
];

fn lasts(written: Option<DurationText>, default: Duration) -> Duration {
    written.map_or(default, |written| written.0)
}

fn bytes(written: Option<SizeText>, default: u64) -> u64 {
    written.map_or(default, |written| written.0)
}
