//! What a user writes under `cors:`.

use meshgate_sdk::ConfigError;
use meshgate_sdk::config::{Duration, is_token};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::origin::OriginPattern;

/// The configuration of the filter `cors`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Whose pages may use the service: `https://www.example.org`, `https://*.example.org`, or `*` for all.
    #[schemars(length(min = 1))]
    pub(crate) origins: Vec<String>,
    /// The methods that they may use. Default: GET, HEAD and POST.
    #[serde(default = "Config::usual_methods")]
    pub(crate) methods: Vec<String>,
    /// The fields that their requests may have beside the usual ones; `*`: any.
    #[serde(default)]
    pub(crate) headers: Vec<String>,
    /// The fields of responses that they may read beside the usual ones.
    #[serde(default)]
    pub(crate) expose: Vec<String>,
    /// How long browsers may go by a preflight's answer. Default: as long as they do when nothing is said, five seconds.
    #[serde(default)]
    #[schemars(with = "Duration")]
    pub(crate) max_age: Option<Duration>,
    /// Whether their requests may come with cookies and the like. Not with the origin `*`. Default: false.
    #[serde(default)]
    pub(crate) credentials: bool,
    /// Whether pages of public networks may reach the service in a private one. Default: false.
    #[serde(default)]
    pub(crate) private_network: bool,
    /// Whether requests of other origins are answered with 403, in the place of going on without leave. Default: false.
    #[serde(default)]
    pub(crate) reject: bool,
}

impl Config {
    fn usual_methods() -> Vec<String> {
        ["GET", "HEAD", "POST"].map(str::to_owned).to_vec()
    }

    /// The origins, prepared.
    pub(crate) fn patterns(&self) -> Result<Vec<OriginPattern>, ConfigError> {
        if self.origins.is_empty() {
            return Err(ConfigError::new("an empty list lets nobody use the service").at("origins"));
        }
        let patterns = self.origins.iter().enumerate().map(|(index, text)| {
            let pattern = OriginPattern::new(text).map_err(|error| error.at(format!("origins/{index}")))?;
            if pattern == OriginPattern::Every && self.credentials {
                let message = "every page of the world could act for those who are signed in: name the origins, or leave `credentials` out";
                return Err(ConfigError::new(message).at(format!("origins/{index}")));
            }
            Ok(pattern)
        });
        patterns.collect()
    }

    /// Refuses what is no method or field name.
    pub(crate) fn check_names(&self) -> Result<(), ConfigError> {
        for (key, names) in [("methods", &self.methods), ("headers", &self.headers), ("expose", &self.expose)]
        {
            for (index, name) in names.iter().enumerate() {
                if !is_token(name) {
                    let message = format_args!("{name:?} is not a name that HTTP has").to_string();
                    return Err(ConfigError::new(message).at(format!("{key}/{index}")));
                }
                if name == "*" && key != "headers" {
                    let message =
                        "browsers take * for everything only without credentials: say what is meant";
                    return Err(ConfigError::new(message).at(format!("{key}/{index}")));
                }
            }
        }
        Ok(())
    }
}
