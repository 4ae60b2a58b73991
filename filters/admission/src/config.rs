//! What a user writes under `admission:`.

use meshgate_conditions::Matches;
use meshgate_sdk::ConfigError;
use meshgate_sdk::config::Duration;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::controller::Settings;

/// The configuration of the filter `admission`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// What is protected, such as the cluster's name, for metrics. Filters that say the same have one limit together.
    pub(crate) name: String,
    /// Which requests count: conditions as those of a route in `routing`, without regular expressions. Left out: all.
    #[serde(default)]
    pub(crate) r#match: Matches,
    /// The least limit. Default: 3.
    #[serde(default = "Config::usual_min")]
    #[schemars(range(min = 1))]
    pub(crate) min: u32,
    /// The greatest limit. Default: 1000.
    #[serde(default = "Config::usual_max")]
    #[schemars(range(min = 1))]
    pub(crate) max: u32,
    /// The limit to begin with. Default: 20, or what `min` and `max` allow.
    #[serde(default)]
    #[schemars(with = "u32", range(min = 1))]
    pub(crate) initial: Option<u32>,
    /// How many times what they take at best requests may take. Default: 1.5.
    #[serde(default = "Config::usual_tolerance")]
    #[schemars(range(min = 1, max = 100))]
    pub(crate) tolerance: f64,
    /// How long is measured before the limit changes, at least. Default: 100ms.
    #[serde(default = "Config::usual_interval")]
    pub(crate) interval: Duration,
    /// How many responses are measured before the limit changes, at least. Default: 20.
    #[serde(default = "Config::usual_samples")]
    #[schemars(range(min = 1, max = 1000))]
    pub(crate) samples: u32,
    /// How often it is measured under load what requests take at best, with a lower limit for a moment. Default: 60s.
    #[serde(default = "Config::usual_probe")]
    pub(crate) probe_every: Duration,
    /// Who is turned away first: the first that a request meets counts. One that meets none has all of the limit.
    #[serde(default)]
    pub(crate) priorities: Vec<PriorityConfig>,
    /// When clients are told to come again. Default: 1s.
    #[serde(default = "Config::usual_retry_after")]
    pub(crate) retry_after: Duration,
}

/// Some requests, and how much of the limit they may use.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PriorityConfig {
    /// The name, for metrics. No two have the same.
    pub(crate) name: String,
    /// Which requests: conditions as those of a route in `routing`, without regular expressions. Left out: all.
    #[serde(default)]
    pub(crate) r#match: Matches,
    /// They pass while less than this share of the limit is in use, by whomever. In percent.
    #[schemars(range(min = 1, max = 100))]
    pub(crate) share: u8,
}

impl Config {
    fn usual_min() -> u32 {
        3
    }

    fn usual_max() -> u32 {
        1_000
    }

    fn usual_tolerance() -> f64 {
        1.5
    }

    fn usual_interval() -> Duration {
        std::time::Duration::from_millis(100).into()
    }

    fn usual_samples() -> u32 {
        20
    }

    fn usual_probe() -> Duration {
        std::time::Duration::from_secs(60).into()
    }

    fn usual_retry_after() -> Duration {
        std::time::Duration::from_secs(1).into()
    }

    /// The controller's settings.
    pub(crate) fn settings(&self) -> Result<Settings, ConfigError> {
        if self.name.is_empty() {
            return Err(ConfigError::new("say what is protected").at("name"));
        }
        if self.min == 0 {
            return Err(ConfigError::new("a limit of 0 lets nothing through").at("min"));
        }
        if self.max < self.min {
            return Err(ConfigError::new("the greatest limit is less than the least").at("max"));
        }
        if self.initial.is_some_and(|initial| !(self.min..=self.max).contains(&initial)) {
            return Err(ConfigError::new("it is not between `min` and `max`").at("initial"));
        }
        if !(1.0..=100.0).contains(&self.tolerance) {
            return Err(ConfigError::new("a tolerance is from 1 to 100").at("tolerance"));
        }
        if !(1..=1_000).contains(&self.samples) {
            return Err(ConfigError::new("from 1 to 1000").at("samples"));
        }
        for (key, time) in [("interval", self.interval), ("probe_every", self.probe_every)] {
            if time.as_std().is_zero() {
                return Err(ConfigError::new("no time is too short to measure anything").at(key));
            }
        }
        Ok(Settings {
            min: self.min.into(),
            max: self.max.into(),
            initial: self.initial.unwrap_or(20).clamp(self.min, self.max).into(),
            tolerance: self.tolerance,
            probe_every: micros(self.probe_every),
        })
    }
}

/// In microseconds.
pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_std().as_micros()).unwrap_or(u64::MAX)
}
