//! Rates: how they are written, and what a bucket that fills at one says.
//!
//! A bucket is kept as one number: the time at which all that was spent is earned again (the generic cell rate algorithm). A
//! request costs `cost` nanoseconds of it, and may be paid for as long as that time is no farther away than `depth`. So
//! one comparison and one addition decide, and the host makes both in one step for all workers.

use std::borrow::Cow;
use std::time::Duration;

use meshgate_sdk::{Change, Changed, ConfigError};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

/// The longest time that an empty bucket may take to be full again: what is kept is forgotten after that.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3_600);

/// So many in such a time: `100/s`, `5/m`, `1000/h`, `20/30s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Rate {
    requests: u32,
    period: Duration,
}

impl Rate {
    fn parse(text: &str) -> Option<Self> {
        let (requests, period) = text.split_once('/')?;
        if !requests.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let requests = requests.parse().ok().filter(|requests| *requests > 0)?;
        let period = match period {
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3_600),
            "d" => Duration::from_secs(24 * 3_600),
            other => meshgate_sdk::config::Duration::parse(other)?.as_std(),
        };
        (!period.is_zero()).then_some(Self { requests, period })
    }

    /// The bucket that fills at this rate and holds so many; as many as the rate says, if it is not said.
    pub(crate) fn bucket(self, burst: Option<u32>) -> Result<Bucket, ConfigError> {
        let burst = burst.unwrap_or(self.requests);
        if burst == 0 {
            return Err(ConfigError::new("a bucket that holds nothing lets nothing through").at("burst"));
        }
        // Rounded up: never more than the rate says.
        let cost = self.period.as_nanos().div_ceil(self.requests.into());
        let depth = cost * u128::from(burst);
        if depth > LONGEST.as_nanos() {
            return Err(ConfigError::new("an empty bucket would take more than a year to be full again"));
        }
        // A year of nanoseconds fits.
        Ok(Bucket { cost: cost as i64, depth: depth as i64, burst })
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            de::Error::invalid_value(
                de::Unexpected::Str(&text),
                &"a rate such as 100/s, 5/m, 1000/h or 20/30s",
            )
        })
    }
}

impl JsonSchema for Rate {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Rate".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^[0-9]+/([smhd]|[0-9]+(ms|s|m|h))$"})
    }
}

/// A bucket that fills at a rate. Times are in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Bucket {
    /// What one request costs.
    cost: i64,
    /// What a full bucket is worth.
    depth: i64,
    burst: u32,
}

/// What clients are told of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    /// How many it holds.
    pub(crate) limit: u32,
    /// How many are left.
    pub(crate) remaining: u32,
    /// Seconds until it is full.
    pub(crate) reset: u64,
    /// Seconds in which an empty one is full.
    pub(crate) window: u64,
    /// Seconds until there is one again; 0 if there is one.
    pub(crate) next: u64,
}

impl Bucket {
    /// Takes one, if there is one.
    pub(crate) fn take(&self, now: i64) -> Change {
        let lasting = Duration::from_nanos(self.depth.unsigned_abs());
        Change::add(self.cost)
            .at_least(now)
            .at_most(now.saturating_add(self.depth))
            .lasting(lasting)
            .evicting()
    }

    /// Gives one back.
    pub(crate) fn give_back(&self) -> Change {
        Change::add(-self.cost)
    }

    /// What is in it after one was taken, or was not.
    pub(crate) fn after(&self, changed: Changed, now: i64) -> State {
        let spent = changed.number.saturating_sub(now).clamp(0, self.depth);
        let left = self.depth - spent;
        State {
            limit: self.burst,
            // No more than `burst`, which has so many bits.
            remaining: (left / self.cost) as u32,
            reset: seconds(spent),
            window: seconds(self.depth),
            next: seconds(self.cost - left),
        }
    }
}

/// Rounded up.
fn seconds(nanoseconds: i64) -> u64 {
    nanoseconds.max(0).unsigned_abs().div_ceil(1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read() {
        let rate = |text| Rate::parse(text).map(|rate| (rate.requests, rate.period.as_millis()));
        assert_eq!(rate("100/s"), Some((100, 1_000)));
        assert_eq!(rate("5/m"), Some((5, 60_000)));
        assert_eq!(rate("1/d"), Some((1, 86_400_000)));
        assert_eq!(rate("20/30s"), Some((20, 30_000)));
        assert_eq!(rate("1/250ms"), Some((1, 250)));
        for wrong in
            ["", "5", "/s", "0/s", "-1/s", "+1/s", "1.5/s", "5/", "5/0s", "5/w", "5 / s", "99999999999/s"]
        {
            assert_eq!(rate(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn clients_are_told_what_is_left() {
        let bucket = Rate::parse("2/s").unwrap().bucket(Some(4)).unwrap();
        let changed = |number, done| Changed { number, done, evicted: false };
        let full = State { limit: 4, remaining: 3, reset: 1, window: 2, next: 0 };
        assert_eq!(bucket.after(changed(500_000_000, true), 0), full);
        let last = State { limit: 4, remaining: 0, reset: 2, window: 2, next: 1 };
        assert_eq!(bucket.after(changed(2_000_000_000, true), 0), last);
        assert_eq!(bucket.after(changed(2_000_000_000, false), 1), last);
        // The clock went back: as if it were empty, which it is no longer than it takes to be forgotten.
        assert_eq!(bucket.after(changed(i64::MAX, false), 0), last);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let refused = |rate, burst| Rate::parse(rate).unwrap().bucket(burst).unwrap_err().to_string();
        assert!(refused("1/d", Some(367)).contains("more than a year"));
        assert!(refused("1/s", Some(0)).starts_with("burst: "));
        assert!(Rate::parse("4294967295/s").unwrap().bucket(None).is_ok());
    }
}
