//! Envoy's format operators: their names, and what they show of an exchange.

use meshgate_sdk::property;

use super::time::TimeFormat;
use crate::seen::Seen;

/// What stands between two percent signs.
#[derive(Clone, Debug)]
pub(crate) enum Operator {
    /// A property that is text.
    Text(&'static str),
    /// A property that is a number.
    Number(&'static str),
    /// A property that is a length of time, in milliseconds.
    Milliseconds(&'static str),
    /// A property that is an address, or a part of it.
    Address(&'static str, Part),
    /// A property by a path from the configuration.
    Named(String),
    Start(TimeFormat),
    Emitted(TimeFormat),
    Code,
    Flags(Words),
    Grpc(Option<Words>),
    /// The first of these fields that there is.
    Request(Vec<String>),
    Response(Vec<String>),
    Trailer(Vec<String>),
    Parameter(String),
    Received,
    /// From the request to the response's first byte.
    ToResponse,
    /// From there to the response's last byte.
    OfResponse,
    Trace,
    Span,
}

/// Which part of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Whole,
    Host,
    Port,
}

/// How a name is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Words {
    /// `UH`; `NOT_FOUND`
    Short,
    /// `NoHealthyUpstream`; `NotFound`
    Long,
}

/// What an operator shows.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Absent,
    Number(i64),
    Bytes(Vec<u8>),
}

/// Operators that are properties, without an argument.
const TEXTS: &[(&str, &str)] = &[
    ("PROTOCOL", "request/protocol"),
    ("RESPONSE_CODE_DETAILS", "response/code_details"),
    ("ROUTE_NAME", "xds/route_name"),
    ("UPSTREAM_CLUSTER", "xds/cluster_name"),
    ("UPSTREAM_CLUSTER_RAW", "xds/cluster_name"),
    ("UPSTREAM_TRANSPORT_FAILURE_REASON", "upstream/transport_failure_reason"),
    ("UPSTREAM_TLS_VERSION", "upstream/tls_version"),
    ("UPSTREAM_PEER_URI_SAN", "upstream/uri_san_peer_certificate"),
    ("UPSTREAM_PEER_DNS_SAN", "upstream/dns_san_peer_certificate"),
    ("UPSTREAM_PEER_SUBJECT", "upstream/subject_peer_certificate"),
    ("UPSTREAM_PEER_CERT", "upstream/peer_certificate"),
    ("UPSTREAM_LOCAL_URI_SAN", "upstream/uri_san_local_certificate"),
    ("UPSTREAM_LOCAL_DNS_SAN", "upstream/dns_san_local_certificate"),
    ("UPSTREAM_LOCAL_SUBJECT", "upstream/subject_local_certificate"),
    ("DOWNSTREAM_TLS_VERSION", "connection/tls_version"),
    ("DOWNSTREAM_PEER_URI_SAN", "connection/uri_san_peer_certificate"),
    ("DOWNSTREAM_PEER_DNS_SAN", "connection/dns_san_peer_certificate"),
    ("DOWNSTREAM_PEER_SUBJECT", "connection/subject_peer_certificate"),
    ("DOWNSTREAM_PEER_CERT", "connection/peer_certificate"),
    ("DOWNSTREAM_PEER_FINGERPRINT_256", "connection/sha256_peer_certificate_digest"),
    ("DOWNSTREAM_LOCAL_URI_SAN", "connection/uri_san_local_certificate"),
    ("DOWNSTREAM_LOCAL_DNS_SAN", "connection/dns_san_local_certificate"),
    ("DOWNSTREAM_LOCAL_SUBJECT", "connection/subject_local_certificate"),
    ("REQUESTED_SERVER_NAME", "connection/requested_server_name"),
    ("STREAM_ID", "request/id"),
    ("UNIQUE_ID", "request/id"),
];

const NUMBERS: &[(&str, &str)] = &[
    ("BYTES_SENT", "response/size"),
    ("CONNECTION_ID", "connection/id"),
    ("REQUEST_HEADERS_BYTES", "request/headers_bytes"),
    ("RESPONSE_HEADERS_BYTES", "response/headers_bytes"),
    ("UPSTREAM_REQUEST_ATTEMPT_COUNT", "upstream/request_attempt_count"),
];

/// Operators that are addresses. With `_WITHOUT_PORT` at the end they are the host, with `_PORT` in the place of `_ADDRESS` the port.
const ADDRESSES: &[(&str, &str)] = &[
    ("UPSTREAM_HOST", "upstream/address"),
    ("UPSTREAM_REMOTE_ADDRESS", "upstream/address"),
    ("UPSTREAM_LOCAL_ADDRESS", "upstream/local_address"),
    ("DOWNSTREAM_REMOTE_ADDRESS", "source/address"),
    ("DOWNSTREAM_DIRECT_REMOTE_ADDRESS", "source/address"),
    ("DOWNSTREAM_LOCAL_ADDRESS", "destination/address"),
];

/// Operators that Envoy has too, and that there is nothing behind here.
const NOT_OFFERED: &[&str] = &[
    "ACCESS_LOG_TYPE",
    "CEL",
    "COMMON_DURATION",
    "CONNECTION_TERMINATION_DETAILS",
    "CUSTOM_FLAGS",
    "DOWNSTREAM_HANDSHAKE_DURATION",
    "DOWNSTREAM_TLS_CIPHER",
    "DOWNSTREAM_TLS_SESSION_ID",
    "DOWNSTREAM_TRANSPORT_FAILURE_REASON",
    "EMIT_TIME_LOCAL",
    "ENVIRONMENT",
    "FILTER_CHAIN_NAME",
    "HOSTNAME",
    "LOCAL_REPLY_BODY",
    "REQUEST_DURATION",
    "REQUEST_TX_DURATION",
    "ROUNDTRIP_DURATION",
    "START_TIME_LOCAL",
    "TLS_JA3_FINGERPRINT",
    "TLS_JA4_FINGERPRINT",
    "UPSTREAM_CONNECTION_ID",
    "UPSTREAM_FILTER_STATE",
    "UPSTREAM_HOST_NAME",
    "UPSTREAM_METADATA",
    "UPSTREAM_PROTOCOL",
    "UPSTREAM_TLS_CIPHER",
    "UPSTREAM_WIRE_BYTES_RECEIVED",
    "UPSTREAM_WIRE_BYTES_SENT",
    "VIRTUAL_CLUSTER_NAME",
    "DOWNSTREAM_WIRE_BYTES_SENT",
];

impl Operator {
    /// The operator with this name and argument.
    ///
    /// # Errors
    /// There is none, or not with this argument.
    pub(crate) fn parse(name: &str, argument: Option<&str>) -> Result<Self, String> {
        if let Some(operator) = with_argument(name, argument)? {
            return Ok(operator);
        }
        let Some(operator) = bare(name) else {
            return Err(match NOT_OFFERED.contains(&name) {
                true => format!("the operator %{name}% is Envoy's, and is not offered here"),
                false => format!("there is no operator %{name}%"),
            });
        };
        match argument {
            Some(argument) => Err(format!("the operator %{name}% takes no argument, and has ({argument})")),
            None => Ok(operator),
        }
    }

    pub(crate) fn needs_response(&self) -> bool {
        matches!(self, Self::ToResponse | Self::OfResponse)
    }

    /// What it shows.
    pub(crate) fn value(&self, seen: &Seen<'_>) -> Value {
        let request = |name: &str| seen.exchange()?.request().headers().get_bytes(name);
        let response = |name: &str| seen.exchange()?.response().headers().get_bytes(name);
        let trailer = |name: &str| seen.exchange()?.response().trailers().get_bytes(name);
        match self {
            Self::Text(path) => bytes(property::bytes(path)),
            Self::Number(path) => number(property::integer(path)),
            Self::Milliseconds(path) => number(property::integer(path).map(|time| time / 1_000_000)),
            Self::Address(path, part) => bytes(property::text(path).and_then(|address| part.of(&address))),
            Self::Named(path) => bytes(property::bytes(path)),
            Self::Start(form) => bytes(seen.started().map(|moment| form.write(moment).into_bytes())),
            Self::Emitted(form) => bytes(Some(form.write(meshgate_sdk::now()).into_bytes())),
            Self::Code => Value::Number(seen.code().into()),
            Self::Flags(words) => bytes(Some(flags(seen.flags(), *words).into_bytes())),
            Self::Grpc(words) => grpc(seen.grpc_status(), *words),
            Self::Request(names) => bytes(names.iter().find_map(|name| request(name))),
            Self::Response(names) => bytes(names.iter().find_map(|name| response(name))),
            Self::Trailer(names) => bytes(names.iter().find_map(|name| trailer(name))),
            Self::Parameter(name) => {
                let value = seen.exchange().and_then(|exchange| exchange.request().parameter(name));
                bytes(value.map(String::into_bytes))
            }
            Self::Received => number(seen.received().and_then(|bytes| bytes.try_into().ok())),
            Self::ToResponse => number(seen.to_response().map(milliseconds)),
            Self::OfResponse => {
                let rest = seen.duration().zip(seen.to_response());
                number(rest.map(|(whole, first)| milliseconds(whole.saturating_sub(first))))
            }
            Self::Trace => bytes(seen.trace().map(|trace| trace.id_text().into_bytes())),
            Self::Span => bytes(seen.trace().map(|trace| trace.span_text().into_bytes())),
        }
    }
}

impl Part {
    fn of(self, address: &str) -> Option<Vec<u8>> {
        let split = if address.starts_with('/') { None } else { address.rsplit_once(':') };
        let part = match (self, split) {
            (Self::Whole, _) | (Self::Host, None) => address,
            (Self::Host, Some((host, _))) => host.trim_matches(['[', ']']),
            (Self::Port, Some((_, port))) => port,
            (Self::Port, None) => return None,
        };
        Some(part.as_bytes().to_vec())
    }
}

/// The operators that take an argument; `None` for all others.
fn with_argument(name: &str, argument: Option<&str>) -> Result<Option<Operator>, String> {
    let needed = || {
        argument
            .filter(|text| !text.is_empty())
            .ok_or_else(|| format!("the operator %{name}% needs an argument"))
    };
    Ok(Some(match name {
        "START_TIME" => Operator::Start(TimeFormat::parse(argument.unwrap_or_default())?),
        "EMIT_TIME" => Operator::Emitted(TimeFormat::parse(argument.unwrap_or_default())?),
        "REQ" | "REQUEST_HEADER" => Operator::Request(names(needed()?)?),
        "RESP" | "RESPONSE_HEADER" => Operator::Response(names(needed()?)?),
        "TRAILER" | "RESPONSE_TRAILER" => Operator::Trailer(names(needed()?)?),
        "QUERY_PARAM" => Operator::Parameter(needed()?.to_owned()),
        "GRPC_STATUS" => Operator::Grpc(match argument.unwrap_or("CAMEL_STRING") {
            "CAMEL_STRING" => Some(Words::Long),
            "SNAKE_STRING" => Some(Words::Short),
            "NUMBER" => None,
            other => return Err(format!("{other} is none of CAMEL_STRING, SNAKE_STRING and NUMBER")),
        }),
        "DYNAMIC_METADATA" => Operator::Named(path("metadata/filter_metadata", needed()?)),
        "CLUSTER_METADATA" => Operator::Named(path("xds/cluster_metadata/filter_metadata", needed()?)),
        "METADATA" => match needed()?.split_once(':') {
            Some(("DYNAMIC", rest)) => Operator::Named(path("metadata/filter_metadata", rest)),
            Some(("CLUSTER", rest)) => Operator::Named(path("xds/cluster_metadata/filter_metadata", rest)),
            Some(("LISTENER", rest)) => Operator::Named(path("xds/listener_metadata/filter_metadata", rest)),
            _ => {
                return Err(
                    "%METADATA(KIND:NAMESPACE:KEY)% has DYNAMIC, CLUSTER or LISTENER for a kind".to_owned()
                );
            }
        },
        "FILTER_STATE" => {
            let key = needed()?;
            Operator::Named(format!("filter_state/{}", key.strip_suffix(":PLAIN").unwrap_or(key)))
        }
        _ => return Ok(None),
    }))
}

/// The operators that take none.
fn bare(name: &str) -> Option<Operator> {
    let listed = |list: &[(&str, &'static str)], name: &str| {
        list.iter().find(|(known, _)| *known == name).map(|(_, path)| *path)
    };
    if let Some(path) = listed(TEXTS, name) {
        return Some(Operator::Text(path));
    }
    if let Some(path) = listed(NUMBERS, name) {
        return Some(Operator::Number(path));
    }
    let (address, part) = match (name.strip_suffix("_WITHOUT_PORT"), name.strip_suffix("_PORT")) {
        (Some(address), _) => (address.to_owned(), Part::Host),
        (None, Some(side)) => (format!("{side}_ADDRESS"), Part::Port),
        (None, None) => (name.to_owned(), Part::Whole),
    };
    if let Some(path) = listed(ADDRESSES, &address) {
        return Some(Operator::Address(path, part));
    }
    Some(match name {
        "DURATION" => Operator::Milliseconds("request/duration"),
        "RESPONSE_CODE" => Operator::Code,
        "RESPONSE_FLAGS" => Operator::Flags(Words::Short),
        "RESPONSE_FLAGS_LONG" => Operator::Flags(Words::Long),
        "GRPC_STATUS_NUMBER" => Operator::Grpc(None),
        "BYTES_RECEIVED" => Operator::Received,
        "RESPONSE_DURATION" => Operator::ToResponse,
        "RESPONSE_TX_DURATION" => Operator::OfResponse,
        "TRACE_ID" => Operator::Trace,
        "SPAN_ID" => Operator::Span,
        _ => return None,
    })
}

/// `NAME` or `NAME?OTHER`.
fn names(argument: &str) -> Result<Vec<String>, String> {
    let names: Vec<_> = argument.splitn(2, '?').map(str::to_ascii_lowercase).collect();
    let sound = |name: &String| {
        let name = name.strip_prefix(':').unwrap_or(name);
        !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte))
    };
    if names.iter().all(sound) { Ok(names) } else { Err(format!("`{argument}` is not the name of a field")) }
}

fn path(base: &str, argument: &str) -> String {
    format!("{base}/{}", argument.replace(':', "/"))
}

fn bytes(value: Option<Vec<u8>>) -> Value {
    value.filter(|bytes| !bytes.is_empty()).map_or(Value::Absent, Value::Bytes)
}

fn number(value: Option<i64>) -> Value {
    value.map_or(Value::Absent, Value::Number)
}

fn milliseconds(time: std::time::Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// gRPC's statuses by their numbers.
pub(crate) const GRPC_STATUSES: [(&str, &str); 17] = [
    ("OK", "OK"),
    ("CANCELLED", "Canceled"),
    ("UNKNOWN", "Unknown"),
    ("INVALID_ARGUMENT", "InvalidArgument"),
    ("DEADLINE_EXCEEDED", "DeadlineExceeded"),
    ("NOT_FOUND", "NotFound"),
    ("ALREADY_EXISTS", "AlreadyExists"),
    ("PERMISSION_DENIED", "PermissionDenied"),
    ("RESOURCE_EXHAUSTED", "ResourceExhausted"),
    ("FAILED_PRECONDITION", "FailedPrecondition"),
    ("ABORTED", "Aborted"),
    ("OUT_OF_RANGE", "OutOfRange"),
    ("UNIMPLEMENTED", "Unimplemented"),
    ("INTERNAL", "Internal"),
    ("UNAVAILABLE", "Unavailable"),
    ("DATA_LOSS", "DataLoss"),
    ("UNAUTHENTICATED", "Unauthenticated"),
];

fn grpc(status: Option<u32>, words: Option<Words>) -> Value {
    let Some(status) = status else { return Value::Absent };
    let name = words.zip(GRPC_STATUSES.get(status as usize));
    match name {
        Some((Words::Short, (name, _))) | Some((Words::Long, (_, name))) => {
            Value::Bytes(name.as_bytes().to_vec())
        }
        None => Value::Number(status.into()),
    }
}

/// Response flags: their bits, letters and long names. The last two are Meshgate's own.
const FLAGS: [(u64, &str, &str); 32] = [
    (0x1, "LH", "FailedLocalHealthCheck"),
    (0x2, "UH", "NoHealthyUpstream"),
    (0x4, "UT", "UpstreamRequestTimeout"),
    (0x8, "LR", "LocalReset"),
    (0x10, "UR", "UpstreamRemoteReset"),
    (0x20, "UF", "UpstreamConnectionFailure"),
    (0x40, "UC", "UpstreamConnectionTermination"),
    (0x80, "UO", "UpstreamOverflow"),
    (0x100, "NR", "NoRouteFound"),
    (0x200, "DI", "DelayInjected"),
    (0x400, "FI", "FaultInjected"),
    (0x800, "RL", "RateLimited"),
    (0x1000, "UAEX", "UnauthorizedExternalService"),
    (0x2000, "RLSE", "RateLimitServiceError"),
    (0x4000, "DC", "DownstreamConnectionTermination"),
    (0x8000, "URX", "UpstreamRetryLimitExceeded"),
    (0x1_0000, "SI", "StreamIdleTimeout"),
    (0x2_0000, "IH", "InvalidEnvoyRequestHeaders"),
    (0x4_0000, "DPE", "DownstreamProtocolError"),
    (0x8_0000, "UMSDR", "UpstreamMaxStreamDurationReached"),
    (0x10_0000, "RFCF", "ResponseFromCacheFilter"),
    (0x20_0000, "NFCF", "NoFilterConfigFound"),
    (0x40_0000, "DT", "DurationTimeout"),
    (0x80_0000, "UPE", "UpstreamProtocolError"),
    (0x100_0000, "NC", "NoClusterFound"),
    (0x200_0000, "OM", "OverloadManager"),
    (0x400_0000, "DF", "DnsResolutionFailed"),
    (0x800_0000, "DO", "DropOverload"),
    (0x1000_0000, "DR", "DownstreamRemoteReset"),
    (0x2000_0000, "UDO", "UnconditionalDropOverload"),
    (1 << 40, "WT", "WasmTrap"),
    (1 << 41, "WL", "WasmLimit"),
];

/// The flags in a set of bits, separated by commas; empty without any.
pub(crate) fn flags(bits: u64, words: Words) -> String {
    let mut text = String::new();
    if bits == 0 {
        return text;
    }
    for (bit, short, long) in FLAGS {
        if bits & bit != 0 {
            if !text.is_empty() {
                text.push(',');
            }
            text.push_str(if words == Words::Short { short } else { long });
        }
    }
    text
}
