//! Copies of requests for other clusters.

use meshgate_sdk::config::{Cluster, Size};
use meshgate_sdk::{ConfigError, route};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::draw::Draw;

/// A cluster that gets a copy of requests.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MirrorConfig {
    /// The cluster.
    to: Cluster,
    /// Of how many of a hundred requests, in steps of 0.0001. Default: 100.
    #[serde(default)]
    #[schemars(with = "f64", range(min = 0, max = 100))]
    percent: Option<f64>,
    /// What is put at the end of the host in the copy's authority, so that who gets it can tell. Default: -shadow.
    #[serde(default)]
    #[schemars(with = "String")]
    authority_suffix: Option<String>,
    /// Counts how often the status of the copy's answer is another one. Default: false.
    #[serde(default)]
    compare: bool,
    /// Bytes of a body that may wait for a cluster that is slower than the endpoint; a copy that would need more is given
    /// up. Default: 64KiB.
    #[serde(default)]
    #[schemars(with = "Size")]
    buffer: Option<Size>,
}

/// Millionths.
const ALL: u64 = 1_000_000;

/// A mirror, prepared.
#[derive(Debug)]
pub(crate) struct Mirror {
    millionths: u64,
    pub(crate) part: route::Builder,
}

impl Mirror {
    pub(crate) fn new(config: &MirrorConfig) -> Result<Self, ConfigError> {
        let percent = config.percent.unwrap_or(100.0);
        if !(0.0..=100.0).contains(&percent) {
            return Err(ConfigError::new(format_args!("{percent} is not among 0 to 100")).at("percent"));
        }
        let suffix = config.authority_suffix.as_deref().unwrap_or("-shadow");
        if !suffix.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)) {
            let message = format!("{suffix:?} cannot end the name of a host");
            return Err(ConfigError::new(message).at("authority_suffix"));
        }
        let mut mirror = route::Mirror::to(&config.to).authority_suffix(suffix);
        if config.compare {
            mirror = mirror.compare();
        }
        if let Some(buffer) = config.buffer {
            if buffer.bytes() == 0 || buffer.bytes() > route::Mirror::MOST_BUFFER {
                return Err(ConfigError::new("a buffer has 1B to 16MiB").at("buffer"));
            }
            mirror = mirror.buffer(buffer.bytes());
        }
        // Rounded: 0.0001 % is one millionth, whatever its binary form is.
        let millionths = (percent * (ALL / 100) as f64).round() as u64;
        Ok(Self { millionths, part: route::Decision::part().mirror(mirror) })
    }

    /// Whether a request is one of those that are copied.
    pub(crate) fn takes(&self, draw: &Draw) -> bool {
        self.millionths == ALL || (self.millionths > 0 && draw.below(ALL) < self.millionths)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirror(config: &str) -> Result<Mirror, String> {
        let config = serde_json::from_str(config).map_err(|error| error.to_string())?;
        Mirror::new(&config).map_err(|error| error.to_string())
    }

    #[test]
    fn percentages_are_kept() {
        let draw = Draw::from_seed(3);
        for (percent, millionths) in [("0", 0), ("0.0001", 1), ("33.3333", 333_333), ("100", ALL)] {
            let mirror = mirror(&format!(r#"{{"to": "a", "percent": {percent}}}"#)).unwrap();
            assert_eq!(mirror.millionths, millionths);
            let taken = (0..1_000).filter(|_| mirror.takes(&draw)).count();
            assert!(percent != "0" || taken == 0);
            assert!(percent != "100" || taken == 1_000);
        }
        let tenth = mirror(r#"{"to": "a", "percent": 10}"#).unwrap();
        let taken = (0..100_000).filter(|_| tenth.takes(&draw)).count();
        // Five standard deviations.
        assert!((9_525..=10_475).contains(&taken), "{taken}");
        assert_eq!(mirror(r#"{"to": "a"}"#).unwrap().millionths, ALL);
    }

    #[test]
    fn wrong_mirrors_are_refused_with_their_place() {
        for (config, place) in [
            (r#"{"to": "a", "percent": 101}"#, "percent: "),
            (r#"{"to": "a", "percent": -1}"#, "percent: "),
            (r#"{"to": "a", "authority_suffix": ":80"}"#, "authority_suffix: "),
            (r#"{"to": "a", "buffer": "0B"}"#, "buffer: "),
            (r#"{"to": "a", "buffer": "1GiB"}"#, "buffer: "),
        ] {
            let error = mirror(config).unwrap_err();
            assert!(error.starts_with(place), "{config}: {error}");
        }
    }
}
