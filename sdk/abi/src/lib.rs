//! The messages of the `meshgate.*` foreign functions, as filters send them and the host reads them.
//!
//! A filter calls `proxy_call_foreign_function` with a function's name and one Protocol Buffers message as the
//! argument. The messages are written here by hand with prost's derive, so that neither side needs `protoc`;
//! the field numbers are the wire format and never change their meaning. Filters in other languages encode the
//! same fields: the comment over each message is its `.proto` text.
//!
//! Used by `meshgate-sdk` (the guest's side) and by `meshgate` (the host's side).

use prost::Message;

mod callbacks;
mod cancel;
mod encode;
mod kv;
mod log;
mod span;
mod throttle;
mod verify;

pub use callbacks::Callbacks;
pub use cancel::Cancel;
pub use encode::Encode;
pub use kv::{KvAdd, KvAnswer, KvGet, KvOperation, KvRemove, KvRequest, KvSet};
pub use log::{CLAIMABLE_FLAGS, LogEntry, LogField, is_log_field_name};
pub use span::{AnyValue, KeyValue, Span, SpanEvent, SpanStatus, Spans, TraceContext, Value};
pub use throttle::Throttle;
pub use verify::Verification;

/// Names of the foreign functions. A host that does not know a name answers `NOT_FOUND` (1).
pub mod function {
    /// Says which callbacks are of no use with the plugin's configuration. Argument: [`Callbacks`](crate::Callbacks); the
    /// answer is empty.
    ///
    /// `BAD_ARGUMENT` (2): the message does not decode, or names no callback of a stream.
    pub const CALLBACKS: &str = "meshgate.callbacks";

    /// Says something of the current exchange in the access log. Argument: [`LogEntry`](crate::LogEntry); the answer is
    /// empty.
    ///
    /// `BAD_ARGUMENT` (2): not called for a stream; the message does not decode; a flag that is none or not a filter's to
    /// set; a field's name that is none. `INTERNAL_FAILURE` (10): the filter has said too much of this exchange.
    pub const LOG: &str = "meshgate.log";

    /// Has the body of the current exchange's response compressed on its way to the client. Argument:
    /// [`Encode`](crate::Encode); the answer is empty.
    ///
    /// `BAD_ARGUMENT` (2): not called for an exchange of HTTP; the message does not decode; no such coding or level; the
    /// response is on its way. `INTERNAL_FAILURE` (10): as many are under way as there may be.
    pub const ENCODE: &str = "meshgate.encode";

    /// Bounds the speed at which the body of the current exchange's response goes to the client. Argument:
    /// [`Throttle`](crate::Throttle); the answer is empty.
    ///
    /// `BAD_ARGUMENT` (2): not called for an exchange of HTTP; the message does not decode; the response is on its way.
    pub const THROTTLE: &str = "meshgate.throttle";

    /// Reads and changes shared data, with expiry and in one step. Argument: [`KvRequest`](crate::KvRequest); the answer is
    /// a [`KvAnswer`](crate::KvAnswer).
    ///
    /// `BAD_ARGUMENT` (2): the message does not decode, the value is no number, or what is to be held cannot be.
    /// `INTERNAL_FAILURE` (10): there is no room.
    pub const KV: &str = "meshgate.kv";

    /// Decides where the current exchange goes. Argument: [`RouteDecision`](crate::RouteDecision); the answer is empty.
    ///
    /// `BAD_ARGUMENT` (2): the message does not decode, or names a cluster or a chain that does not exist for this
    /// filter. `NOT_FOUND` (1): the host has no such function. The last decision before the request is sent wins.
    pub const ROUTE: &str = "meshgate.route";

    /// Defines (or finds again) one labelled series of a metric. Argument: [`Series`](crate::Series).
    ///
    /// The answer is the metric's id as four little-endian bytes; see [`metric_id`](crate::metric_id). The id serves
    /// `proxy_record_metric`, `proxy_increment_metric` and `proxy_get_metric`. `BAD_ARGUMENT` (2): the message does
    /// not decode, or the name was defined before with another type. `INTERNAL_FAILURE` (10): too many series.
    pub const METRIC: &str = "meshgate.metric";

    /// Asks to be asked whenever a try of the current exchange's request has ended. Argument:
    /// [`Attempts`](crate::Attempts); the answer is empty.
    ///
    /// The filter that calls it last before the request is sent is asked, by the event
    /// [`ATTEMPT`](crate::event::ATTEMPT). `BAD_ARGUMENT` (2): the message does not decode, or this is no HTTP exchange.
    /// `NOT_FOUND` (1): the host has no such function.
    pub const ATTEMPTS: &str = "meshgate.attempts";

    /// Answers the event [`ATTEMPT`](crate::event::ATTEMPT), in its callback: the request is to be sent again. Argument:
    /// [`Retry`](crate::Retry); the answer is empty. Who does not call it has what there is delivered.
    ///
    /// `BAD_ARGUMENT` (2): the message does not decode, or nobody asked.
    pub const RETRY: &str = "meshgate.retry";

    /// Checks a signature. Argument: [`Verification`](crate::Verification).
    ///
    /// The answer is one byte: 1 if the signature is the key's, else 0. `BAD_ARGUMENT` (2): the message does not decode, or
    /// the key is none for this algorithm. `NOT_FOUND` (1): the host does not know the algorithm, or has no such function.
    pub const VERIFY: &str = "meshgate.verify";

    /// Ends an HTTP call, or a gRPC call or stream as `proxy_grpc_cancel` does, but its end is told: `proxy_on_grpc_close` with the
    /// status 1 (CANCELLED) comes soon, and nothing before it; for an HTTP call, `proxy_on_http_call_response` as for one that was
    /// reset. Argument: [`Cancel`](crate::Cancel); the answer is empty.
    ///
    /// `BAD_ARGUMENT` (2): the message does not decode, or there is no such call or stream of this plugin.
    pub const CANCEL: &str = "meshgate.cancel";

    /// With a [`TraceContext`](crate::TraceContext): the current exchange's trace is recorded, and the caller takes what filters
    /// add to it; the answer is empty. Without an argument: the answer is that trace, with an id for a span of the caller's, or
    /// empty if none is recorded.
    ///
    /// `BAD_ARGUMENT` (2): not called for an exchange of HTTP; the message does not decode, or an id is none.
    pub const TRACE: &str = "meshgate.trace";

    /// Adds a finished span to the current exchange's trace. Argument: [`Span`](crate::Span); the answer is empty. Where none is
    /// recorded, nothing is kept.
    ///
    /// `BAD_ARGUMENT` (2): not called for an exchange of HTTP; the message does not decode, an id is none, the span has no name,
    /// or ends before it begins. `INTERNAL_FAILURE` (10): the filter has said too much of this exchange.
    pub const SPAN: &str = "meshgate.span";

    /// Takes the spans that were added to the current exchange's trace since they were taken last. Without an argument; the
    /// answer is [`Spans`](crate::Spans).
    ///
    /// `BAD_ARGUMENT` (2): it is not this filter that records the exchange's trace.
    pub const SPANS: &str = "meshgate.spans";
}

/// Ids of the events that a host tells by `proxy_on_foreign_function`. Their messages are the buffer 8.
pub mod event {
    /// A try has ended, or takes long. Message: [`Attempt`](crate::Attempt).
    pub const ATTEMPT: u32 = 0x6d67_0001;
}

/// Where an exchange goes, or what answers it. Argument of [`function::ROUTE`].
///
/// ```proto
/// message RouteDecision {
///   string route = 1;
///   string cluster = 2;
///   uint64 timeout_ms = 3;
///   string chain = 4;
///   DirectResponse direct = 5;
///   bool no_timeout = 6;
///   bytes hash_key = 7;
///   repeated Header response_headers = 8;
///   repeated Mirror mirrors = 9;
///   bool endpoint_authority = 10;
/// }
/// ```
///
/// As with every message of this form, two encoded decisions one after the other are one: lists are joined, and of everything
/// else the last one counts. So what depends on the request can be put behind a decision that was encoded before.
#[derive(Clone, PartialEq, Message)]
pub struct RouteDecision {
    /// The route's name, for logs, metrics and the property `xds.route_name`. May be empty.
    #[prost(string, tag = "1")]
    pub route: String,
    /// The cluster that the request is sent to. Empty only when [`direct`](Self::direct) is set.
    #[prost(string, tag = "2")]
    pub cluster: String,
    /// Milliseconds from the end of the request to the end of the response, every attempt included; 0 leaves the
    /// host's default.
    #[prost(uint64, tag = "3")]
    pub timeout_ms: u64,
    /// The key of a sub-chain in this filter's configuration, whose filters run next; empty for none.
    #[prost(string, tag = "4")]
    pub chain: String,
    /// Answer with this instead of sending the request anywhere.
    #[prost(message, optional, tag = "5")]
    pub direct: Option<DirectResponse>,
    /// There is no timeout, not even the host's default. Not together with [`timeout_ms`](Self::timeout_ms).
    #[prost(bool, tag = "6")]
    pub no_timeout: bool,
    /// What the cluster's load balancer chooses the endpoint by, if it is one that chooses by a key; empty: the cluster's own
    /// key.
    #[prost(bytes = "vec", tag = "7")]
    pub hash_key: Vec<u8>,
    /// Fields that are added to the response, as if its sender had sent them: filters see them.
    #[prost(message, repeated, tag = "8")]
    pub response_headers: Vec<Header>,
    /// Who gets a copy of the request.
    #[prost(message, repeated, tag = "9")]
    pub mirrors: Vec<Mirror>,
    /// The endpoint's host name takes the place of the request's authority, if the endpoint is known by one.
    #[prost(bool, tag = "10")]
    pub endpoint_authority: bool,
}

/// A cluster that gets a copy of a request. Its response is dropped.
///
/// ```proto
/// message Mirror {
///   string cluster = 1;
///   string authority_suffix = 2;
///   bool compare = 3;
///   uint64 buffer = 4;
/// }
/// ```
#[derive(Clone, PartialEq, Message)]
pub struct Mirror {
    /// The cluster.
    #[prost(string, tag = "1")]
    pub cluster: String,
    /// What is put at the end of the host in the copy's authority; may be empty.
    #[prost(string, tag = "2")]
    pub authority_suffix: String,
    /// Count whether the status of its answer is that of the request's.
    #[prost(bool, tag = "3")]
    pub compare: bool,
    /// Bytes of the body that may wait for it; a copy that would need more is given up. 0: the host's default. At most
    /// [`MOST_BUFFER`](Self::MOST_BUFFER).
    #[prost(uint64, tag = "4")]
    pub buffer: u64,
}

impl Mirror {
    /// The largest buffer.
    pub const MOST_BUFFER: u64 = 16 << 20;
}

/// A response that the host makes itself.
///
/// ```proto
/// message DirectResponse {
///   uint32 status = 1;
///   bytes body = 2;
///   repeated Header headers = 3;
/// }
/// ```
#[derive(Clone, PartialEq, Message)]
pub struct DirectResponse {
    /// The HTTP status, 200 to 599.
    #[prost(uint32, tag = "1")]
    pub status: u32,
    /// The body; may be empty.
    #[prost(bytes = "vec", tag = "2")]
    pub body: Vec<u8>,
    /// Fields of the response head, in order. `content-length` is set by the host.
    #[prost(message, repeated, tag = "3")]
    pub headers: Vec<Header>,
}

/// One field of a head.
///
/// ```proto
/// message Header {
///   string name = 1;
///   bytes value = 2;
/// }
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct Header {
    /// The name in lower case.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The value; HTTP allows bytes that are not UTF-8.
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

/// One labelled series of a metric. Argument of [`function::METRIC`].
///
/// ```proto
/// message Series {
///   string name = 1;
///   MetricType type = 2;
///   repeated Label labels = 3;
///   string help = 4;
///   double scale = 5;
///   repeated double buckets = 6;
/// }
/// ```
#[derive(Clone, PartialEq, Message)]
pub struct Series {
    /// The metric's name in Prometheus form, e.g. `meshgate_http_requests_total`.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The metric's type. All series of one name share it.
    #[prost(enumeration = "MetricType", tag = "2")]
    pub r#type: i32,
    /// The labels. Their order does not matter: equal sets are the same series.
    #[prost(message, repeated, tag = "3")]
    pub labels: Vec<Label>,
    /// One sentence on what is measured. The first one that is not empty is kept.
    #[prost(string, tag = "4")]
    pub help: String,
    /// Recorded integers are multiplied by this when the metric is read (0.001 turns recorded milliseconds into
    /// seconds); 0 means 1.
    #[prost(double, tag = "5")]
    pub scale: f64,
    /// The upper bounds of a histogram's buckets, ascending and already scaled; empty leaves the host's default.
    #[prost(double, repeated, tag = "6")]
    pub buckets: Vec<f64>,
}

/// A name and a value that tell series of one metric apart.
///
/// ```proto
/// message Label {
///   string name = 1;
///   string value = 2;
/// }
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct Label {
    /// The name: letters, digits and `_`, no digit first.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The value: any text.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// What a metric measures. The numbers are those of `proxy_define_metric`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum MetricType {
    /// Only grows.
    Counter = 0,
    /// Goes up and down.
    Gauge = 1,
    /// A distribution of recorded values.
    Histogram = 2,
}

/// What a filter wants to decide about the tries of a request. Argument of [`function::ATTEMPTS`].
///
/// ```proto
/// message Attempts {
///   uint64 per_try_timeout_ms = 1;
///   optional uint64 replay_bytes = 2;
///   uint32 from_status = 3;
///   uint64 hedge_after_ms = 4;
///   bool numbered = 5;
/// }
/// ```
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Attempts {
    /// Milliseconds from a try's beginning, or from the end of the request if that comes later, to the head of the
    /// response; 0: as long as the exchange has.
    #[prost(uint64, tag = "1")]
    pub per_try_timeout_ms: u64,
    /// The most bytes of the request's body that are kept to be sent again; 64 KiB if absent. A body that is longer
    /// passes all the same, and is not sent again.
    #[prost(uint64, optional, tag = "2")]
    pub replay_bytes: Option<u64>,
    /// Responses with a lower status are delivered without asking, unless gRPC's status in their head is not 0. 0: ask
    /// about every response.
    #[prost(uint32, tag = "3")]
    pub from_status: u32,
    /// Milliseconds after which the filter is asked about a try that has no response yet ([`Ending::Slow`]); 0: never.
    #[prost(uint64, tag = "4")]
    pub hedge_after_ms: u64,
    /// Whether endpoints are told which try it is, in the field `x-envoy-attempt-count`.
    #[prost(bool, tag = "5")]
    pub numbered: bool,
}

/// How a try ended. Message of the event [`event::ATTEMPT`].
///
/// ```proto
/// message Attempt {
///   uint32 number = 1;
///   Ending ending = 2;
///   uint32 status = 3;
///   optional uint32 grpc_status = 4;
///   string endpoint = 5;
///   uint64 elapsed_us = 6;
///   optional uint64 left_ms = 7;
///   bool can_retry = 8;
///   uint32 others = 9;
///   uint64 active = 10;
///   uint64 retries = 11;
/// }
/// ```
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Attempt {
    /// Which try of the request it is, counted from 1.
    #[prost(uint32, tag = "1")]
    pub number: u32,
    /// How it ended.
    #[prost(enumeration = "Ending", tag = "2")]
    pub ending: i32,
    /// The response's status; 0 if there is none. Its fields can be read as in the callback for the response's head.
    #[prost(uint32, tag = "3")]
    pub status: u32,
    /// gRPC's status, if the response's head has it: an answer of nothing but trailers.
    #[prost(uint32, optional, tag = "4")]
    pub grpc_status: Option<u32>,
    /// The endpoint's address; empty if there was none to be used.
    #[prost(string, tag = "5")]
    pub endpoint: String,
    /// Microseconds that the try took.
    #[prost(uint64, tag = "6")]
    pub elapsed_us: u64,
    /// Milliseconds that the exchange has left; absent if nobody set a limit.
    #[prost(uint64, optional, tag = "7")]
    pub left_ms: Option<u64>,
    /// Whether the request can be sent again: what came of its body was kept, and a response came after its end.
    #[prost(bool, tag = "8")]
    pub can_retry: bool,
    /// Other tries of the same request that are under way. With some, [`function::RETRY`] means to wait for them.
    #[prost(uint32, tag = "9")]
    pub others: u32,
    /// Requests of the whole process that are on their way to the cluster or wait for a connection.
    #[prost(uint64, tag = "10")]
    pub active: u64,
    /// Tries of the whole process that are not a request's first, on this cluster.
    #[prost(uint64, tag = "11")]
    pub retries: u64,
}

/// How a try ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Ending {
    /// With a response's head.
    Response = 0,
    /// There was no connection, or TLS with the endpoint came to nothing.
    ConnectFailure = 1,
    /// The endpoint says that it has not begun with the request.
    Refused = 2,
    /// The connection ended before anything of the request was written to it.
    ResetBeforeRequest = 3,
    /// The connection or the stream ended before a response, and the endpoint may have begun with the request.
    Reset = 4,
    /// What came is not valid HTTP.
    Protocol = 5,
    /// It took longer than a try may.
    Timeout = 6,
    /// One of the cluster's limits was met: nothing was sent.
    Overflow = 7,
    /// The cluster has no endpoint that may be used.
    NoEndpoint = 8,
    /// It has not ended: there is no response after [`Attempts::hedge_after_ms`]. [`function::RETRY`] begins another
    /// try beside it, and the first response that is delivered ends the others.
    Slow = 9,
}

/// Another try. Argument of [`function::RETRY`].
///
/// ```proto
/// message Retry {
///   uint64 delay_ms = 1;
///   bool elsewhere = 2;
///   optional uint64 most_retries = 3;
/// }
/// ```
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Retry {
    /// Milliseconds until then. If the exchange has less time left, what there is is delivered at once.
    #[prost(uint64, tag = "1")]
    pub delay_ms: u64,
    /// Whether endpoints that this request was sent to are avoided; not with consistent hashing.
    #[prost(bool, tag = "2")]
    pub elsewhere: bool,
    /// The most of [`Attempt::retries`] with this one. The cluster's own limit holds besides. What is one too many is
    /// not tried, and what there is is delivered.
    #[prost(uint64, optional, tag = "3")]
    pub most_retries: Option<u64>,
}

/// The metric id in an answer of [`function::METRIC`], or `None` if the answer is not four bytes long.
pub fn metric_id(answer: &[u8]) -> Option<u32> {
    answer.try_into().ok().map(u32::from_le_bytes)
}

/// The answer of [`function::METRIC`] that carries `id`.
pub fn metric_answer(id: u32) -> [u8; 4] {
    id.to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes are the contract with filters in other languages: they were worked out by hand from the comments.
    #[test]
    fn a_route_decision_has_the_documented_bytes() {
        let decision = RouteDecision {
            route: "r".into(),
            cluster: "c".into(),
            timeout_ms: 300,
            chain: "k".into(),
            direct: Some(DirectResponse {
                status: 200,
                body: b"b".to_vec(),
                headers: vec![Header { name: "n".into(), value: b"v".to_vec() }],
            }),
            no_timeout: true,
            hash_key: b"h".to_vec(),
            response_headers: vec![Header { name: "m".into(), value: b"w".to_vec() }],
            mirrors: vec![Mirror {
                cluster: "d".into(),
                authority_suffix: "s".into(),
                compare: true,
                buffer: 300,
            }],
            endpoint_authority: true,
        };
        let bytes = [
            &b"\x0a\x01r\x12\x01c\x18\xac\x02\x22\x01k\x2a\x0e"[..],
            b"\x08\xc8\x01\x12\x01b\x1a\x06\x0a\x01n\x12\x01v",
            b"\x30\x01\x3a\x01h\x42\x06\x0a\x01m\x12\x01w",
            b"\x4a\x0b\x0a\x01d\x12\x01s\x18\x01\x20\xac\x02\x50\x01",
        ]
        .concat();
        assert_eq!(decision.encode_to_vec(), bytes);
        assert_eq!(RouteDecision::decode(&bytes[..]), Ok(decision));
    }

    #[test]
    fn two_decisions_are_one() {
        let mirror = |cluster: &str| Mirror { cluster: cluster.into(), ..Mirror::default() };
        let one =
            RouteDecision { cluster: "c".into(), mirrors: vec![mirror("a")], ..RouteDecision::default() };
        let more = RouteDecision { no_timeout: true, mirrors: vec![mirror("b")], ..RouteDecision::default() };
        let bytes = [one.encode_to_vec(), more.encode_to_vec()].concat();
        let both = RouteDecision { no_timeout: true, mirrors: vec![mirror("a"), mirror("b")], ..one };
        assert_eq!(RouteDecision::decode(&bytes[..]), Ok(both));
    }

    #[test]
    fn a_series_has_the_documented_bytes() {
        let series = Series {
            name: "m".into(),
            r#type: MetricType::Histogram.into(),
            labels: vec![Label { name: "l".into(), value: "v".into() }],
            help: "h".into(),
            scale: 0.5,
            buckets: vec![1.0],
        };
        let bytes = [
            &b"\x0a\x01m\x10\x02\x1a\x06\x0a\x01l\x12\x01v\x22\x01h"[..],
            b"\x29\x00\x00\x00\x00\x00\x00\xe0\x3f\x32\x08\x00\x00\x00\x00\x00\x00\xf0\x3f",
        ]
        .concat();
        assert_eq!(series.encode_to_vec(), bytes);
        assert_eq!(Series::decode(&bytes[..]), Ok(series));
    }

    #[test]
    fn tries_have_the_documented_bytes() {
        let attempts = Attempts {
            per_try_timeout_ms: 300,
            replay_bytes: Some(0),
            from_status: 500,
            hedge_after_ms: 1,
            numbered: true,
        };
        let bytes = b"\x08\xac\x02\x10\x00\x18\xf4\x03\x20\x01\x28\x01";
        assert_eq!(attempts.encode_to_vec(), bytes);
        assert_eq!(Attempts::decode(&bytes[..]), Ok(attempts));

        let attempt = Attempt {
            number: 1,
            ending: Ending::Timeout.into(),
            status: 200,
            grpc_status: Some(14),
            endpoint: "e".into(),
            elapsed_us: 2,
            left_ms: Some(3),
            can_retry: true,
            others: 4,
            active: 5,
            retries: 6,
        };
        let bytes =
            b"\x08\x01\x10\x06\x18\xc8\x01\x20\x0e\x2a\x01e\x30\x02\x38\x03\x40\x01\x48\x04\x50\x05\x58\x06";
        assert_eq!(attempt.encode_to_vec(), bytes);
        assert_eq!(Attempt::decode(&bytes[..]), Ok(attempt));

        let retry = Retry { delay_ms: 25, elsewhere: true, most_retries: Some(0) };
        assert_eq!(retry.encode_to_vec(), b"\x08\x19\x10\x01\x18\x00");
    }

    #[test]
    fn a_metric_id_takes_four_bytes() {
        assert_eq!(metric_id(&metric_answer(0x0102_0304)), Some(0x0102_0304));
        assert_eq!(metric_id(&[1, 2, 3]), None);
        assert_eq!(metric_id(&[]), None);
    }
}
