//! What a user writes under `fault:`.

use meshgate_conditions::Matches;
use meshgate_sdk::ConfigError;
use meshgate_sdk::config::{Duration, Percent};
use schemars::JsonSchema;
use serde::Deserialize;

/// The configuration of the filter `fault`. What is left out does not happen.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Which requests may get a fault: conditions as those of a route in `routing`, without regular expressions. Left out: all.
    #[serde(default)]
    pub(crate) r#match: Matches,
    /// Holds requests back before they go on.
    #[serde(default)]
    #[schemars(with = "DelayConfig")]
    pub(crate) delay: Option<DelayConfig>,
    /// Answers requests in the endpoint's place. Drawn apart from the delay, which comes first: one request may get both.
    #[serde(default)]
    #[schemars(with = "AbortConfig")]
    pub(crate) abort: Option<AbortConfig>,
    /// Slows responses down.
    #[serde(default)]
    #[schemars(with = "RateConfig")]
    pub(crate) rate: Option<RateConfig>,
    /// Lets requests ask for faults by `x-fault-…`. Left out: they cannot.
    #[serde(default)]
    #[schemars(with = "ByHeader")]
    pub(crate) by_header: Option<ByHeader>,
    /// The most requests that have a fault at a time, over all workers; further ones get none. Default: no bound.
    #[serde(default)]
    #[schemars(with = "u32")]
    pub(crate) max_active: Option<u32>,
}

/// How many requests are held back, and for how long.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DelayConfig {
    /// The share of requests, in percent.
    pub(crate) percent: Percent,
    /// How long each is held back.
    pub(crate) duration: Duration,
}

/// How many requests are answered, and with what: `status`, `grpc` or `reset`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AbortConfig {
    /// The share of requests, in percent.
    pub(crate) percent: Percent,
    /// The HTTP status, 200 to 599.
    #[serde(default)]
    #[schemars(with = "u16", range(min = 200, max = 599))]
    pub(crate) status: Option<u16>,
    /// The gRPC status by its name. Requests that are not gRPC get the HTTP status that stands for it.
    #[serde(default)]
    #[schemars(with = "GrpcStatus")]
    pub(crate) grpc: Option<GrpcStatus>,
    /// With nothing: the connection is closed (HTTP/1.1), or the stream reset (HTTP/2).
    #[serde(default)]
    pub(crate) reset: bool,
}

/// How many responses are slowed down, and how much.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RateConfig {
    /// The share of requests, in percent.
    pub(crate) percent: Percent,
    /// How many bytes of the response's body go in a second.
    #[schemars(range(min = 1))]
    pub(crate) bytes_per_second: u64,
}

/// What requests may ask for by their headers.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ByHeader {
    /// The longest delay. Default: 5s.
    #[serde(default = "ByHeader::max_delay")]
    pub(crate) max_delay: Duration,
}

impl ByHeader {
    fn max_delay() -> Duration {
        std::time::Duration::from_secs(5).into()
    }
}

/// How a gRPC call can fail.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[repr(u8)]
pub(crate) enum GrpcStatus {
    Cancelled = 1,
    Unknown,
    InvalidArgument,
    DeadlineExceeded,
    NotFound,
    AlreadyExists,
    PermissionDenied,
    ResourceExhausted,
    FailedPrecondition,
    Aborted,
    OutOfRange,
    Unimplemented,
    Internal,
    Unavailable,
    DataLoss,
    Unauthenticated,
}

impl GrpcStatus {
    /// The HTTP status for clients that do not speak gRPC.
    pub(crate) fn http(self) -> u16 {
        match self {
            Self::Cancelled => 499,
            Self::InvalidArgument | Self::FailedPrecondition | Self::OutOfRange => 400,
            Self::Unauthenticated => 401,
            Self::PermissionDenied => 403,
            Self::NotFound => 404,
            Self::AlreadyExists | Self::Aborted => 409,
            Self::ResourceExhausted => 429,
            Self::Unknown | Self::Internal | Self::DataLoss => 500,
            Self::Unimplemented => 501,
            Self::Unavailable => 503,
            Self::DeadlineExceeded => 504,
        }
    }
}

/// What a request is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Abort {
    Http(u16),
    Grpc(GrpcStatus),
    Reset,
}

impl AbortConfig {
    pub(crate) fn answer(&self) -> Result<Abort, ConfigError> {
        match (self.status, self.grpc, self.reset) {
            (Some(status), None, false) if (200..=599).contains(&status) => Ok(Abort::Http(status)),
            (Some(_), None, false) => Err(ConfigError::new("a status is from 200 to 599").at("status")),
            (None, Some(grpc), false) => Ok(Abort::Grpc(grpc)),
            (None, None, true) => Ok(Abort::Reset),
            (None, None, false) => {
                Err(ConfigError::new("say what to answer with: `status`, `grpc` or `reset`"))
            }
            _ => Err(ConfigError::new("an abort has one of `status`, `grpc` and `reset`")),
        }
    }
}

impl Abort {
    /// What a header says: a status, the name of gRPC's, or `reset`.
    pub(crate) fn named(text: &str) -> Option<Self> {
        if text == "reset" {
            return Some(Self::Reset);
        }
        match text.parse() {
            Ok(status) => (200..=599).contains(&status).then_some(Self::Http(status)),
            Err(_) => GrpcStatus::deserialize(
                serde::de::value::StrDeserializer::<serde::de::value::Error>::new(text),
            )
            .ok()
            .map(Self::Grpc),
        }
    }
}
