//! The service: Envoy's protocol (`envoy.service.ratelimit.v3.RateLimitService`), as much of it as is used here.

use std::time::Duration;

use meshgate_sdk::Cluster;
use meshgate_sdk::config::is_token;
use meshgate_sdk::credential::is_field_value;
use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct RateLimitRequest {
    #[prost(string, tag = "1")]
    pub(crate) domain: String,
    #[prost(message, repeated, tag = "2")]
    pub(crate) descriptors: Vec<Descriptor>,
    #[prost(uint32, tag = "3")]
    pub(crate) hits_addend: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Descriptor {
    #[prost(message, repeated, tag = "1")]
    pub(crate) entries: Vec<Entry>,
    #[prost(message, optional, tag = "2")]
    pub(crate) limit: Option<Limit>,
    #[prost(message, optional, tag = "3")]
    pub(crate) hits_addend: Option<Hits>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Entry {
    #[prost(string, tag = "1")]
    pub(crate) key: String,
    #[prost(string, tag = "2")]
    pub(crate) value: String,
}

/// A limit: of a descriptor, whose has no name, and of its status.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Limit {
    #[prost(uint32, tag = "1")]
    pub(crate) requests_per_unit: u32,
    #[prost(int32, tag = "2")]
    pub(crate) unit: i32,
    #[prost(string, tag = "3")]
    pub(crate) name: String,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Hits {
    #[prost(uint64, tag = "1")]
    pub(crate) value: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct RateLimitResponse {
    #[prost(int32, tag = "1")]
    pub(crate) overall_code: i32,
    #[prost(message, repeated, tag = "2")]
    pub(crate) statuses: Vec<DescriptorStatus>,
    #[prost(message, repeated, tag = "3")]
    pub(crate) response_headers_to_add: Vec<HeaderValue>,
    #[prost(message, repeated, tag = "4")]
    pub(crate) request_headers_to_add: Vec<HeaderValue>,
    #[prost(bytes = "vec", tag = "5")]
    pub(crate) raw_body: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct DescriptorStatus {
    #[prost(int32, tag = "1")]
    pub(crate) code: i32,
    #[prost(message, optional, tag = "2")]
    pub(crate) current_limit: Option<Limit>,
    #[prost(uint32, tag = "3")]
    pub(crate) limit_remaining: u32,
    #[prost(message, optional, tag = "4")]
    pub(crate) duration_until_reset: Option<Time>,
}

impl DescriptorStatus {
    /// Whether it is this limit that the request is over.
    pub(crate) fn is_over(&self) -> bool {
        self.code == OVER_LIMIT
    }
}

/// A length of time.
#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Time {
    #[prost(int64, tag = "1")]
    pub(crate) seconds: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct HeaderValue {
    #[prost(string, tag = "1")]
    pub(crate) key: String,
    #[prost(string, tag = "2")]
    pub(crate) value: String,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) raw_value: Vec<u8>,
}

/// `overall_code`, and the `code` of a descriptor's status: within the limits, and over one.
const OK: i32 = 1;
const OVER_LIMIT: i32 = 2;

/// Asks the service; whether the request is within its limits, and what else it says.
///
/// # Errors
/// Why there is no decision, in words for the log.
pub(crate) async fn ask(
    cluster: &Cluster,
    timeout: Duration,
    question: &RateLimitRequest,
) -> Result<(bool, RateLimitResponse), String> {
    let call = cluster.grpc("envoy.service.ratelimit.v3.RateLimitService", "ShouldRateLimit");
    let answer: RateLimitResponse =
        call.timeout(timeout).send(question).await.map_err(|error| error.to_string())?;
    match answer.overall_code {
        OK => Ok((true, answer)),
        OVER_LIMIT => Ok((false, answer)),
        other => Err(format!("the service answers with the unknown code {other}")),
    }
}

/// Fields that may be added: the message's own lines are not the service's to write.
pub(crate) fn fields(added: Vec<HeaderValue>) -> impl Iterator<Item = (String, Vec<u8>)> {
    added.into_iter().filter_map(|HeaderValue { key, value, raw_value }| {
        let name = key.to_ascii_lowercase();
        let own = matches!(name.as_str(), "host" | "content-length" | "transfer-encoding" | "connection");
        let value = if raw_value.is_empty() { value.into_bytes() } else { raw_value };
        (!own && is_token(&name) && is_field_value(&value)).then_some((name, value))
    })
}

/// How Envoy tells clients what is left: of the limit that has the least left, with all limits as the policy.
pub(crate) fn limits(statuses: &[DescriptorStatus]) -> Vec<(String, Vec<u8>)> {
    let limited = || statuses.iter().filter_map(|status| Some((status, status.current_limit.as_ref()?)));
    // Of several with as much the first counts.
    let Some((status, limit)) = limited().min_by_key(|(status, _)| status.limit_remaining) else {
        return Vec::new();
    };
    let mut policy = limit.requests_per_unit.to_string();
    for (_, Limit { requests_per_unit, unit, name }) in limited() {
        let Some(window) = seconds(*unit) else { continue };
        policy.push_str(&format!(", {requests_per_unit};w={window}"));
        let harmless = |c: &char| matches!(c, ' '..='~') && !matches!(c, '"' | '\\');
        let name: String = name.chars().filter(harmless).collect();
        if !name.is_empty() {
            policy.push_str(&format!(";name=\"{name}\""));
        }
    }
    let reset = status.duration_until_reset.map_or(0, |time| time.seconds.max(0));
    [
        ("x-ratelimit-limit", policy),
        ("x-ratelimit-remaining", status.limit_remaining.to_string()),
        ("x-ratelimit-reset", reset.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value.into_bytes()))
    .into()
}

/// How long a unit is.
const fn seconds(unit: i32) -> Option<u32> {
    const DAY: u32 = 24 * 60 * 60;
    Some(match unit {
        1 => 1,
        2 => 60,
        3 => 60 * 60,
        4 => DAY,
        5 => 30 * DAY,
        6 => 365 * DAY,
        7 => 7 * DAY,
        _ => return None,
    })
}
