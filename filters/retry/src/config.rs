//! What a user writes.

use std::time::Duration as Time;

use meshgate_sdk::ConfigError;
use meshgate_sdk::config::{Duration, Size, is_token};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::condition::Condition;

/// When and how requests are sent again.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// When: names of conditions, status codes and ranges of them such as `500-503`, and fields of the response
    /// (`{header: x-again}`, `{header: x-again, value: "yes"}`).
    /// Default: connect-failure, refused-stream, reset-before-request.
    #[serde(rename = "if", default = "Config::safe")]
    pub(crate) conditions: Vec<Condition>,
    /// How often at most, after the first try. Tries beside others count. 0: never. Default: 2.
    #[serde(default = "Config::attempts")]
    pub(crate) attempts: u32,
    /// How long a try may take, to the head of its response. Default: as long as the request has.
    pub(crate) per_try_timeout: Option<Duration>,
    /// How long to wait before the next try.
    #[serde(default)]
    pub(crate) back_off: BackOffConfig,
    /// The longest pause that an endpoint may ask for (`retry-after`); a response that asks for more is delivered. Default: 10s.
    #[serde(default = "Config::retry_after")]
    pub(crate) retry_after: Duration,
    /// The most bytes of a request's body that are kept to be sent again. Longer ones pass, and are not sent again.
    /// Default: 64KiB.
    #[serde(default = "Config::replay")]
    pub(crate) replay: Size,
    /// The methods whose requests may be sent again although the endpoint may have begun with them. Default: those that
    /// HTTP calls idempotent: GET, HEAD, OPTIONS, TRACE, PUT, DELETE.
    pub(crate) methods: Option<Vec<String>>,
    /// How much of the load retries may be. Default: no more than the cluster's `limits.retries`.
    pub(crate) budget: Option<BudgetConfig>,
    /// Another try beside one that takes long: the first response counts, the other try is broken off.
    pub(crate) hedge: Option<HedgeConfig>,
    /// Whether endpoints are told which try it is, in the field `x-envoy-attempt-count`. Default: true.
    #[serde(default = "Config::attempt_count")]
    pub(crate) attempt_count: bool,
}

/// The pause before the nth further try is drawn evenly from 0 to (2^n - 1) times `base`, and at most `max`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BackOffConfig {
    /// Default: 25ms.
    base: Option<Duration>,
    /// Default: ten times `base`.
    max: Option<Duration>,
}

/// How much of the load retries may be: so many at a time, or so many in a time.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum BudgetConfig {
    /// So many at a time.
    Concurrency(ConcurrencyConfig),
    /// So many in a time.
    Rate(RateConfig),
}

/// A share of the requests that are on their way to the cluster.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConcurrencyConfig {
    /// Percent of the requests that are on their way to the cluster or wait for a connection.
    #[schemars(range(min = 0, max = 100))]
    pub(crate) percent: f64,
    /// So many may be under way whatever there is else. Default: 3.
    #[serde(default = "ConcurrencyConfig::min_concurrency")]
    pub(crate) min_concurrency: u64,
}

/// A share of the requests of the last seconds.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RateConfig {
    /// Retries for each request: 0.2 is one for five.
    #[schemars(range(min = 0, max = 1000))]
    pub(crate) ratio: f64,
    /// So many in a second may be made besides, by all workers together. Default: 10.
    #[serde(default = "RateConfig::min_per_second")]
    pub(crate) min_per_second: u32,
    /// For how long a request counts. Default: 10s.
    #[serde(default = "RateConfig::ttl")]
    pub(crate) ttl: Duration,
}

/// When another try begins beside one.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum HedgeConfig {
    /// After a time.
    After(AfterConfig),
    /// After as long as most take.
    Percentile(PercentileConfig),
}

/// After a time.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AfterConfig {
    /// How long there is no response.
    pub(crate) after: Duration,
}

/// After as long as most tries take.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PercentileConfig {
    /// So many percent of the tries of late took less. Nothing happens before there were a hundred on this worker.
    #[schemars(range(min = 50, max = 99.9))]
    pub(crate) percentile: f64,
    /// But not sooner than this. Default: 1ms.
    #[serde(default = "PercentileConfig::at_least")]
    pub(crate) at_least: Duration,
}

impl Config {
    fn safe() -> Vec<Condition> {
        vec![Condition::ConnectFailure, Condition::RefusedStream, Condition::ResetBeforeRequest]
    }

    fn attempts() -> u32 {
        2
    }

    fn retry_after() -> Duration {
        Time::from_secs(10).into()
    }

    fn replay() -> Size {
        Size::of(64 << 10)
    }

    fn attempt_count() -> bool {
        true
    }

    /// What the schema cannot say.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if self.conditions.is_empty() {
            return Err(ConfigError::new("no condition: nothing would ever be sent again").at("if"));
        }
        let methods = self.methods.as_deref().unwrap_or_default();
        for (index, method) in methods.iter().enumerate() {
            if method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-') {
                let error = ConfigError::new(format_args!("{method:?} is not a method, such as POST"));
                return Err(error.at(format!("methods/{index}")));
            }
        }
        let grpc = self.conditions.iter().position(|condition| matches!(condition, Condition::Grpc(_)));
        if let Some(index) = grpc
            && !methods.iter().any(|method| method == "POST")
        {
            let error = ConfigError::new(
                "calls of gRPC are POST requests, and would not be sent again; if they may be, say `methods: [POST]`",
            );
            return Err(error.at(format!("if/{index}")));
        }
        for (index, condition) in self.conditions.iter().enumerate() {
            if let Condition::Field(field) = condition
                && !is_token(&field.header)
            {
                let error = ConfigError::new(format_args!("{:?} is not a field's name", field.header));
                return Err(error.at(format!("if/{index}/header")));
            }
        }
        if let Some(BudgetConfig::Rate(rate)) = self.budget
            && !(Time::from_secs(1)..=Time::from_secs(60)).contains(&rate.ttl.as_std())
        {
            return Err(ConfigError::new("from 1s to 60s").at("budget/ttl"));
        }
        if self.back_off.max() < self.back_off.base() {
            return Err(ConfigError::new("less than `base`").at("back_off/max"));
        }
        Ok(())
    }
}

impl BackOffConfig {
    pub(crate) fn base(&self) -> Time {
        self.base.map_or(Time::from_millis(25), Duration::as_std)
    }

    pub(crate) fn max(&self) -> Time {
        self.max.map_or_else(|| self.base().saturating_mul(10), Duration::as_std)
    }
}

impl ConcurrencyConfig {
    fn min_concurrency() -> u64 {
        3
    }
}

impl RateConfig {
    fn min_per_second() -> u32 {
        10
    }

    fn ttl() -> Duration {
        Time::from_secs(10).into()
    }
}

impl PercentileConfig {
    fn at_least() -> Duration {
        Time::from_millis(1).into()
    }
}
