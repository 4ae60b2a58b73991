//! `meshgate.trace`, `meshgate.span` and `meshgate.spans`: what filters do for an exchange, as spans of its trace.
//!
//! The messages of spans are OpenTelemetry's own (`opentelemetry.proto.trace.v1`), as far as filters need them: what a filter hands
//! over can be exported as it stands.

use prost::{Message, Oneof};

/// The trace that an exchange belongs to, if it is recorded. Argument and answer of
/// [`function::TRACE`](crate::function::TRACE).
///
/// ```proto
/// message TraceContext {
///   bytes trace_id = 1;
///   bytes span_id = 2;
///   string state = 3;
///   bytes new_id = 4;
/// }
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct TraceContext {
    /// 16 bytes, not all 0.
    #[prost(bytes = "vec", tag = "1")]
    pub trace_id: Vec<u8>,
    /// The exchange's own span, the parent of what filters do: 8 bytes, not all 0.
    #[prost(bytes = "vec", tag = "2")]
    pub span_id: Vec<u8>,
    /// W3C's `tracestate`; may be empty.
    #[prost(string, tag = "3")]
    pub state: String,
    /// In answers: a new id, for a span of whoever asks.
    #[prost(bytes = "vec", tag = "4")]
    pub new_id: Vec<u8>,
}

/// OpenTelemetry's `Span`. Argument of [`function::SPAN`](crate::function::SPAN).
///
/// ```proto
/// message Span {
///   bytes trace_id = 1;
///   bytes span_id = 2;
///   string trace_state = 3;
///   bytes parent_span_id = 4;
///   string name = 5;
///   SpanKind kind = 6;
///   fixed64 start_time_unix_nano = 7;
///   fixed64 end_time_unix_nano = 8;
///   repeated KeyValue attributes = 9;
///   repeated Event events = 11;
///   Status status = 15;
///   fixed32 flags = 16;
/// }
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct Span {
    /// The host's to fill in. If a filter does, it must be the exchange's.
    #[prost(bytes = "vec", tag = "1")]
    pub trace_id: Vec<u8>,
    /// 8 bytes, not all 0.
    #[prost(bytes = "vec", tag = "2")]
    pub span_id: Vec<u8>,
    /// The host's to fill in.
    #[prost(string, tag = "3")]
    pub trace_state: String,
    /// Another span of the filter's; empty: the exchange's own, which the host fills in.
    #[prost(bytes = "vec", tag = "4")]
    pub parent_span_id: Vec<u8>,
    /// What was done.
    #[prost(string, tag = "5")]
    pub name: String,
    /// [`INTERNAL`](Self::INTERNAL) or [`CLIENT`](Self::CLIENT).
    #[prost(int32, tag = "6")]
    pub kind: i32,
    /// Nanoseconds since 1970.
    #[prost(fixed64, tag = "7")]
    pub start_time_unix_nano: u64,
    /// Nanoseconds since 1970; not before the start.
    #[prost(fixed64, tag = "8")]
    pub end_time_unix_nano: u64,
    /// More about it.
    #[prost(message, repeated, tag = "9")]
    pub attributes: Vec<KeyValue>,
    /// What happened meanwhile.
    #[prost(message, repeated, tag = "11")]
    pub events: Vec<SpanEvent>,
    /// What came of it, if it failed.
    #[prost(message, optional, tag = "15")]
    pub status: Option<SpanStatus>,
    /// The host's to fill in.
    #[prost(fixed32, tag = "16")]
    pub flags: u32,
}

impl Span {
    /// Work of the filter's own.
    pub const INTERNAL: i32 = 1;
    /// It waits for somebody else.
    pub const CLIENT: i32 = 3;
}

/// OpenTelemetry's `KeyValue`.
///
/// ```proto
/// message KeyValue {
///   string key = 1;
///   AnyValue value = 2;
/// }
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct KeyValue {
    /// The name.
    #[prost(string, tag = "1")]
    pub key: String,
    /// The value.
    #[prost(message, optional, tag = "2")]
    pub value: Option<AnyValue>,
}

/// OpenTelemetry's `AnyValue`, as far as it is used.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct AnyValue {
    /// The value.
    #[prost(oneof = "Value", tags = "1, 2, 3")]
    pub value: Option<Value>,
}

/// A value of an attribute.
#[derive(Clone, PartialEq, Eq, Hash, Oneof)]
pub enum Value {
    /// Text.
    #[prost(string, tag = "1")]
    Text(String),
    /// True or false.
    #[prost(bool, tag = "2")]
    Flag(bool),
    /// A whole number.
    #[prost(int64, tag = "3")]
    Number(i64),
}

/// OpenTelemetry's `Span.Event`.
///
/// ```proto
/// message Event {
///   fixed64 time_unix_nano = 1;
///   string name = 2;
///   repeated KeyValue attributes = 3;
/// }
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct SpanEvent {
    /// Nanoseconds since 1970.
    #[prost(fixed64, tag = "1")]
    pub time_unix_nano: u64,
    /// What happened.
    #[prost(string, tag = "2")]
    pub name: String,
    /// More about it.
    #[prost(message, repeated, tag = "3")]
    pub attributes: Vec<KeyValue>,
}

/// OpenTelemetry's `Status`.
///
/// ```proto
/// message Status {
///   string message = 2;
///   StatusCode code = 3;
/// }
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct SpanStatus {
    /// Why it failed.
    #[prost(string, tag = "2")]
    pub message: String,
    /// [`ERROR`](Self::ERROR).
    #[prost(int32, tag = "3")]
    pub code: i32,
}

impl SpanStatus {
    /// It failed.
    pub const ERROR: i32 = 2;
}

/// Finished spans. Answer of [`function::SPANS`](crate::function::SPANS). The number is that of the spans of OpenTelemetry's
/// `ScopeSpans`, so that the answer can be a part of one as it stands.
///
/// ```proto
/// message Spans {
///   repeated Span spans = 2;
/// }
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct Spans {
    /// In the order in which they ended.
    #[prost(message, repeated, tag = "2")]
    pub spans: Vec<Span>,
}
