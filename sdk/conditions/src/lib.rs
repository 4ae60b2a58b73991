//! Conditions that a request meets or not: `match` in the configuration of the standard filters `routing`, `fault` and
//! `rate-limit`, and of any filter that wants the same.
//!
//! ```
//! use meshgate_conditions::{Matcher, Matches};
//! use meshgate_sdk::prelude::*;
//!
//! #[derive(Deserialize, JsonSchema)]
//! #[serde(deny_unknown_fields)]
//! struct Config {
//!     /// Which requests are meant. Left out: all.
//!     #[serde(default)]
//!     r#match: Matches,
//! }
//!
//! struct Guard {
//!     matcher: Matcher,
//! }
//!
//! #[filter]
//! impl Filter for Guard {
//!     fn configure(config: Config) -> Result<Self, ConfigError> {
//!         Ok(Self { matcher: Matcher::new(&config.r#match)? })
//!     }
//!
//!     fn on_request(&self, exchange: &Exchange<Self>) -> Outcome {
//!         if self.matcher.matches(&exchange.request()) {
//!             return Reply::new(403).into();
//!         }
//!         Ok(())
//!     }
//! }
//! # fn main() {}
//! ```
//!
//! Regular expressions are for filters that ask for them by a type: `Matcher<WholeText>`, with the feature `regex`.
#![deny(missing_docs)]

mod alternative;
mod config;
mod expression;
mod host;
mod matcher;
mod path;
#[cfg(feature = "regex")]
mod regex;
mod text;

pub use self::alternative::{Alternative, Incoming, Precision, Source};
pub use self::config::{Conditions, Matches, MethodConfig, PathConfig, PathRule};
pub use self::expression::{Expression, NoExpressions};
pub use self::host::{HostPattern, check_host, without_port};
pub use self::matcher::Matcher;
pub use self::path::PathPattern;
#[cfg(feature = "regex")]
pub use self::regex::{WholeText, compile};
pub use self::text::{Text, TextConfig, TextRule};
