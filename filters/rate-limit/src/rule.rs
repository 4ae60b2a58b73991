//! One rule: whom a request counts for, and whether there is anything left.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use meshgate_conditions::{Incoming, Matcher};
use meshgate_sdk::metric::{Counter, Family};
use meshgate_sdk::{ConfigError, Exchange, Filter, Refused, Request, SharedCounters, property};

use crate::config::{KeyPart, Override, RuleConfig};
use crate::rate::{Bucket, State};

/// Bytes of a key that are kept as they are. Of longer ones, which clients can make, the rest is hashed.
const MOST_KEY: usize = 160;

/// One rule, prepared.
pub(crate) struct Rule {
    pub(crate) name: String,
    /// As a string in a structured field (RFC 9651).
    pub(crate) quoted: String,
    pub(crate) dry_run: bool,
    matcher: Matcher,
    bucket: Bucket,
    key: Vec<KeyPart>,
    overrides: HashMap<String, Option<Bucket>>,
    counts: SharedCounters,
    evicted: Counter,
    results: Family<Counter, 2>,
}

/// What was taken from a bucket, to be given back if another rule does not let the request pass.
pub(crate) struct Taken<'a> {
    rule: &'a Rule,
    bucket: Bucket,
    key: String,
}

/// What a rule says of a request.
pub(crate) enum Verdict<'a> {
    /// Its key has no limit.
    Unlimited,
    /// There was one left.
    Pass(Taken<'a>, State),
    /// There was none.
    TooMany(State),
}

impl Rule {
    pub(crate) fn new(config: &RuleConfig) -> Result<Self, ConfigError> {
        let bucket = config.limit.bucket(config.burst)?;
        if let (true, Some(value)) = (config.key.is_empty(), config.overrides.keys().next()) {
            let error = ConfigError::new("without a `key` there is nothing that could have this value");
            return Err(error.at(format!("overrides/{value}")));
        }
        for (index, part) in config.key.iter().enumerate() {
            if let KeyPart::Header(name) | KeyPart::Property(name) = part
                && name.is_empty()
            {
                return Err(ConfigError::new("a name is missing").at(format!("key/{index}")));
            }
        }
        let overrides = config.overrides.iter().map(|(value, limit)| {
            let bucket = match limit {
                Override::Unlimited(_) => None,
                Override::Limit(rate) => {
                    Some(rate.bucket(None).map_err(|error| error.at(format!("overrides/{value}")))?)
                }
            };
            Ok::<_, ConfigError>((value.clone(), bucket))
        });
        Ok(Self {
            name: config.name.clone(),
            quoted: format!("\"{}\"", config.name.replace('\\', "\\\\").replace('"', "\\\"")),
            dry_run: config.dry_run,
            matcher: Matcher::new(&config.r#match)?,
            bucket,
            key: config.key.clone(),
            overrides: overrides.collect::<Result<_, _>>()?,
            counts: SharedCounters::new(format!("rate-limit/{:016x}", identity(config, bucket))),
            evicted: Counter::build("meshgate_rate_limit_evicted_keys_total")
                .help("Keys that were forgotten to make room for others, by rule.")
                .label("rule", &config.name)
                .define()?,
            results: Counter::build("meshgate_rate_limit_requests_total")
                .help(
                    "Requests by rule and what it said: passed, limited, would_limit (a dry run), uncounted.",
                )
                .family(["rule", "result"]),
        })
    }

    /// Whether it is for a request.
    pub(crate) fn is_for(&self, incoming: &Incoming<&Request>) -> bool {
        self.matcher.matches_incoming(incoming)
    }

    /// Takes one of what the request's key has left.
    pub(crate) fn take<F: Filter>(&self, exchange: &Exchange<F>, now: i64) -> Result<Verdict<'_>, Refused> {
        let value = self.value(exchange);
        let bucket = match self.overrides.get(&value) {
            Some(None) => return Ok(Verdict::Unlimited),
            Some(Some(bucket)) => *bucket,
            None => self.bucket,
        };
        let key = bounded(value);
        let changed = self.counts.change(&key, &bucket.take(now))?;
        if changed.evicted {
            self.evicted.add(1);
        }
        let state = bucket.after(changed, now);
        Ok(if changed.done {
            Verdict::Pass(Taken { rule: self, bucket, key }, state)
        } else {
            Verdict::TooMany(state)
        })
    }

    pub(crate) fn count(&self, result: &str) {
        self.results.with([&self.name, result]).add(1);
    }

    /// The values of the key's parts. What a request does not have is empty: such requests count together.
    fn value<F: Filter>(&self, exchange: &Exchange<F>) -> String {
        let mut value = String::new();
        for (index, part) in self.key.iter().enumerate() {
            if index > 0 {
                value.push('|');
            }
            let request = exchange.request();
            let text = match part {
                KeyPart::ClientAddress => {
                    exchange.source_address().map(|address| without_port(&address).to_owned())
                }
                KeyPart::PeerIdentity => exchange.peer_identity(),
                KeyPart::Method => Some(request.method()),
                KeyPart::Host => Some(without_port(&request.authority()).to_ascii_lowercase()),
                KeyPart::Path => Some(request.path()),
                KeyPart::Header(name) => request.header(name),
                KeyPart::Property(path) => property::text(path),
            };
            let text = text.unwrap_or_default();
            // Clients have a say in values: what they write does not look like the next part.
            if self.key.len() > 1 && text.contains(['|', '\\']) {
                value.push_str(&text.replace('\\', "\\\\").replace('|', "\\|"));
            } else {
                value.push_str(&text);
            }
        }
        value
    }
}

impl Taken<'_> {
    /// Another rule did not let the request pass.
    pub(crate) fn give_back(self) -> Result<(), Refused> {
        self.rule.counts.change(&self.key, &self.bucket.give_back()).map(drop)
    }
}

/// Tells rules apart that stand in different places: those that count the same in the same way count together.
fn identity(config: &RuleConfig, bucket: Bucket) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&config.name, bucket, &config.key, config.dry_run).hash(&mut hasher);
    hasher.finish()
}

/// An address, or an authority, up to its port.
fn without_port(address: &str) -> &str {
    address.get(..meshgate_conditions::without_port(address.as_bytes()).len()).unwrap_or(address)
}

/// The key itself, or as much of it as is kept with the hash of all of it.
fn bounded(mut key: String) -> String {
    if key.len() <= MOST_KEY {
        return key;
    }
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    let kept = (0..=MOST_KEY).rev().find(|length| key.is_char_boundary(*length)).unwrap_or(0);
    key.truncate(kept);
    key.push_str(&format!("#{:016x}", hasher.finish()));
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_left_out() {
        for (address, host) in
            [("192.0.2.1:80", "192.0.2.1"), ("[::1]:80", "[::1]"), ("a.example", "a.example"), ("", "")]
        {
            assert_eq!(without_port(address), host);
        }
    }

    #[test]
    fn long_keys_stay_apart() {
        let (one, other) = ("é".repeat(1_000), "é".repeat(1_001));
        let (short, of_one) = (bounded("short".to_owned()), bounded(one.clone()));
        assert_eq!((short.as_str(), of_one == bounded(one)), ("short", true));
        assert!(of_one.len() <= MOST_KEY + 17 && of_one != bounded(other));
    }
}
