//! The standard filter `compress`: lets the host compress responses for clients that take them so. See its README.md.
//!
//! `accept.rs` reads what clients take, `types.rs` what is worth it, and this file decides. The bytes are the host's.

mod accept;
mod types;

use meshgate_sdk::metric::{Counter, Family};
use meshgate_sdk::{ConfigError, Exchange, Filter, Headers, Outcome, Refused, Response, filter};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::types::TypePattern;

/// The configuration of the filter `compress`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The types that are worth it, without parameters: `text/*`, `application/*+json`. Default: text in its many forms.
    #[serde(default = "types::usual")]
    types: Vec<String>,
    /// Bodies that are known to be shorter stay as they are. In bytes; default: 1024.
    #[serde(default = "Config::usual_size")]
    min_size: u64,
    /// How hard to try: 1 is quick, 9 is thorough. Default: 6.
    #[serde(default = "Config::usual_level")]
    #[schemars(range(min = 1, max = 9))]
    level: u8,
}

impl Config {
    fn usual_size() -> u64 {
        1024
    }

    fn usual_level() -> u8 {
        6
    }
}

struct Compress {
    types: Vec<TypePattern>,
    min_size: u64,
    level: u8,
    responses: Family<Counter, 1>,
}

impl Compress {
    /// Whether a response may be compressed, whoever it is for.
    fn is_worth_it(&self, response: &Response) -> bool {
        let status = response.status().unwrap_or_default();
        if matches!(status, 204 | 205 | 206 | 304) {
            return false;
        }
        let headers = response.headers();
        let Some(kind) = headers.get("content-type") else { return false };
        if !types::matches(&self.types, &kind)
            || headers.contains("content-encoding")
            || headers.contains("content-range")
            || no_transform(headers)
        {
            return false;
        }
        let length = headers.get("content-length").and_then(|length| length.parse::<u64>().ok());
        length.is_none_or(|length| length >= self.min_size)
    }
}

/// Whether somebody forbids to change the body (RFC 9111, section 5.2.2.6).
fn no_transform(headers: Headers) -> bool {
    listed(headers, "cache-control", |directive| directive.eq_ignore_ascii_case(b"no-transform"))
}

/// Whether one of the members of a list is meant.
fn listed(headers: Headers, name: &str, is_meant: impl Fn(&[u8]) -> bool) -> bool {
    let pairs = headers.pairs();
    pairs.all(name).any(|line| line.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).any(&is_meant))
}

/// Tells caches that there is another form of it.
fn vary_by_encoding(headers: Headers) -> Result<(), Refused> {
    let told = |name: &[u8]| name == b"*" || name.eq_ignore_ascii_case(b"accept-encoding");
    if listed(headers, "vary", told) { Ok(()) } else { headers.add("vary", "accept-encoding") }
}

#[filter]
impl Filter for Compress {
    fn configure(config: Config) -> Result<Self, ConfigError> {
        if !(1..=9).contains(&config.level) {
            return Err(ConfigError::new("a level is from 1 to 9").at("level"));
        }
        Ok(Self {
            types: types::patterns(&config.types)?,
            min_size: config.min_size,
            level: config.level,
            responses: Counter::build("meshgate_compress_responses_total")
                .help("Responses that are worth it: compressed, not_accepted by the client, refused by the host.")
                .family(["result"]),
        })
    }

    fn on_response(&self, exchange: &Exchange<Self>) -> Outcome {
        let response = exchange.response();
        if !self.is_worth_it(&response) {
            return Ok(());
        }
        vary_by_encoding(response.headers())?;
        let result = if !accept::takes_gzip(&exchange.request().headers().pairs()) {
            "not_accepted"
        } else if exchange.encode_response("gzip", self.level).is_ok() {
            "compressed"
        } else {
            // There are as many as there may be, or it is another host: it goes as it is.
            "refused"
        };
        self.responses.with([result]).add(1);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
