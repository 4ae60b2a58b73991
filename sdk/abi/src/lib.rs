//! The messages of the `meshgate.*` foreign functions, as filters send them and the host reads them.
//!
//! A filter calls `proxy_call_foreign_function` with a function's name and one Protocol Buffers message as the
//! argument. The messages are written here by hand with prost's derive, so that neither side needs `protoc`;
//! the field numbers are the wire format and never change their meaning. Filters in other languages encode the
//! same fields: the comment over each message is its `.proto` text.
//!
//! Used by `meshgate-sdk` (the guest's side) and by `meshgate` (the host's side).

use prost::Message;

/// Names of the foreign functions. A host that does not know a name answers `NOT_FOUND` (1).
pub mod function {
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
    fn a_metric_id_takes_four_bytes() {
        assert_eq!(metric_id(&metric_answer(0x0102_0304)), Some(0x0102_0304));
        assert_eq!(metric_id(&[1, 2, 3]), None);
        assert_eq!(metric_id(&[]), None);
    }
}
