//! What one plugin may use. Every limit has a default and a counter; the configuration may set all of them.

use std::time::Duration;

/// What one plugin may use.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// The longest one callback may run, the body callbacks apart. Default 10 ms; the resolution is 1 ms.
    pub time: Duration,
    /// The longest a body callback may run. Default 20 ms.
    pub body_time: Duration,
    /// The longest the callbacks at start may run: `_initialize`, `_start`, `on_vm_start`, `on_configure`,
    /// each by itself. Default 1 s. When a VM is replaced, they get four times as long as they took at first, and no
    /// more than this.
    pub start_time: Duration,
    /// Percent of a core that the plugin may use on one worker, over a second, while the worker has no time to spare.
    /// Default 50; 100 for no limit.
    pub cpu_percent: u32,
    /// The most linear memory of the plugin's VM, in bytes. Default 16 MiB. Plugins that differ in it do not
    /// share a VM.
    pub memory: u64,
    /// The most linear memory, tables included, of all VMs started for plugins of this name, on all workers. Default
    /// 256 MiB.
    pub total_memory: u64,
    /// The most body bytes a filter's buffer holds per direction. Default 1 MiB.
    pub body: u64,
    /// How long the plugin may hold an exchange before it is given up. Default 15 s. The embedder's to enforce.
    pub pause: Duration,
    /// How long a context may live on after `proxy_on_done` returned false. Default 5 s.
    pub done: Duration,
    /// Live contexts of the plugin's VM. Default 10,000.
    pub contexts: u32,
    /// Callbacks that fail in one minute on one worker, before the plugin is put in quarantine. One that was stopped by its
    /// deadline counts once more for each 10 ms. Default 20.
    pub crashes: u32,
    /// Hostcalls in one callback. Default 10,000.
    pub hostcalls: u32,
    /// Bytes copied between guest and host in one callback. Default 8 MiB.
    pub copied: u64,
    /// Log lines in one second; more are dropped and counted. Default 100.
    pub log_lines: u32,
    /// Bytes of fields that a filter adds to one exchange's entry in the access log. Default 4 KiB. The embedder's to
    /// enforce.
    pub log_bytes: u64,
    /// Spans that a filter adds to one exchange's trace. Default 32. The embedder's to enforce.
    pub spans: u32,
    /// Bytes of them. Default 16 KiB. The embedder's to enforce.
    pub span_bytes: u64,
    /// HTTP calls under way, of the plugin on one worker. Default 256.
    pub http_calls: u32,
    /// HTTP calls under way, of one stream. Default 8.
    pub stream_http_calls: u32,
    /// The longest an HTTP call or a gRPC call may take. Default 30 s.
    pub call_time: Duration,
    /// The most bytes of a call's response body, and of a gRPC message that comes. Default 1 MiB. The embedder's to enforce.
    pub call_body: u64,
    /// Bytes that the plugin's calls under way hold, on one worker: what it sends with them, and messages that wait on its
    /// gRPC streams. Default 8 MiB.
    pub call_bytes: u64,
    /// How many calls may stand in a row, each made while the one before is served. Default 3.
    pub call_depth: u32,
    /// gRPC calls and streams under way, of the plugin. Default 256.
    pub grpc_calls: u32,
    /// gRPC calls and streams under way, of one stream context. Default 8.
    pub stream_grpc_calls: u32,
    /// Bytes that wait to be sent on one gRPC stream, each message counted with
    /// [`MESSAGE_COST`](crate::GrpcRequest::MESSAGE_COST) more. Default 1 MiB. The embedder's to enforce.
    pub grpc_queue: u64,
    /// Bodies that are encoded for the plugin at a time, on one worker. Default 256.
    pub encodings: u32,
    /// Metrics that plugins of this name may define by `proxy_define_metric`. Default 1,000.
    pub metrics: u32,
    /// Labelled series that plugins of this name may define. Default 5,000.
    pub series: u32,
    /// Keys that plugins of this name keep in shared data. Default 10,000.
    pub shared_keys: u32,
    /// Bytes of keys and values that they keep there. Default 8 MiB.
    pub shared_bytes: u64,
    /// Shared queues that plugins of this name may make. Default 100.
    pub queues: u32,
    /// Items in a queue that they made. Default 1,000.
    pub queue_items: u32,
    /// Bytes in all queues that they made. Default 8 MiB.
    pub queue_bytes: u64,
    /// The shortest period of the plugin's timer. Default 10 ms.
    pub tick: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
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
            call_time: Duration::from_secs(30),
            call_body: 1 << 20,
            call_bytes: 32 << 20,
            call_depth: 3,
            grpc_calls: 256,
            stream_grpc_calls: 8,
            grpc_queue: 1 << 20,
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

/// Declares [`Limit`] with the names of its counters.
macro_rules! limits {
    ($($(#[$doc:meta])* $limit:ident => $name:literal,)*) => {
        /// A limit that a plugin met. Named in counters as in the configuration.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Limit {
            $($(#[$doc])* $limit,)*
        }

        impl Limit {
            /// All of them.
            pub const ALL: &[Limit] = &[$(Limit::$limit,)*];

            /// As it is called in counters and, where it can be set, in the configuration.
            pub fn name(self) -> &'static str {
                match self {
                    $(Limit::$limit => $name,)*
                }
            }
        }
    };
}

limits! {
    /// A callback ran too long.
    Time => "time",
    /// A body callback ran too long.
    BodyTime => "body_time",
    /// A callback at start ran too long.
    StartTime => "start_time",
    /// The plugin used more than its share of a worker that had no time to spare.
    Cpu => "cpu_percent",
    /// A VM asked for more memory than it may have.
    Memory => "memory",
    /// The plugin's VMs together asked for too much memory.
    TotalMemory => "total_memory",
    /// All VMs of the process together asked for too much memory. Not the plugin's fault.
    AllMemory => "wasm.memory",
    /// There were as many instances for single exchanges as there may be. Not the plugin's fault.
    Instances => "wasm.exchange_instances",
    /// A guest's call stack was used up. Fixed.
    Stack => "stack",
    /// A guest's table was to grow too large. Fixed.
    Table => "table",
    /// A hostcall came from inside of the guest's allocator, which may only log. Fixed.
    Allocator => "allocator",
    /// A message's body did not fit into the filter's buffer.
    Body => "body",
    /// The filter held an exchange too long.
    Pause => "pause",
    /// A context did not end in time.
    Done => "done",
    /// Too many live contexts.
    Contexts => "contexts",
    /// Too many callbacks failed in a minute: the plugin went into quarantine.
    Crashes => "crashes",
    /// Too many hostcalls in one callback.
    Hostcalls => "hostcalls",
    /// Too many bytes copied in one callback.
    Copied => "copied",
    /// Too many log lines in a second.
    LogLines => "log_lines",
    /// Too many bytes for an exchange's entry in the access log.
    LogBytes => "log_bytes",
    /// Too many spans for an exchange's trace.
    Spans => "spans",
    /// Too many bytes of spans for an exchange's trace.
    SpanBytes => "span_bytes",
    /// Too many calls of the plugin under way.
    HttpCalls => "http_calls",
    /// Too many calls of one stream under way.
    StreamHttpCalls => "stream_http_calls",
    /// Too many gRPC calls and streams of the plugin under way.
    GrpcCalls => "grpc_calls",
    /// Too many gRPC calls and streams of one stream context under way.
    StreamGrpcCalls => "stream_grpc_calls",
    /// Too many bytes waited to be sent on a gRPC stream.
    GrpcQueue => "grpc_queue",
    /// A call asked for a longer timeout than there may be, and got the longest.
    CallTime => "call_time",
    /// A call's response, or a gRPC message that came, was too large.
    CallBody => "call_body",
    /// The plugin's calls under way held too many bytes.
    CallBytes => "call_bytes",
    /// A call made while a call was served, and so on.
    CallDepth => "call_depth",
    /// Too many bodies encoded at a time.
    Encodings => "encodings",
    /// Too many metrics.
    Metrics => "metrics",
    /// Too many labelled series.
    Series => "series",
    /// Too many keys in shared data.
    SharedKeys => "shared_keys",
    /// Too many bytes in shared data.
    SharedBytes => "shared_bytes",
    /// Too many shared queues.
    Queues => "queues",
    /// Too many items in a queue.
    QueueItems => "queue_items",
    /// Too many bytes in queues.
    QueueBytes => "queue_bytes",
    /// Too many properties set in one exchange or connection, or too large ones. Fixed.
    Properties => "properties",
    /// A timer was to fire more often than it may, and fires as often as it may.
    Tick => "tick",
    /// A call to a cluster that the plugin may not call.
    MayCall => "may.call",
    /// A property that the plugin may not read.
    MayRead => "may.read",
}
