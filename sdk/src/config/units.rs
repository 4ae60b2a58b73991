//! Quantities as people write them: lengths of time, sizes, shares.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A length of time, written with its unit: `250ms`, `2s`, `1m`, `1h`.
///
/// ```
/// use meshgate_sdk::config::Duration;
///
/// #[derive(serde::Deserialize, schemars::JsonSchema)]
/// struct Config {
///     /// How long to wait.
///     wait: Duration,
/// }
///
/// let config: Config = serde_json::from_str(r#"{"wait": "250ms"}"#).unwrap();
/// assert_eq!(config.wait.as_std(), std::time::Duration::from_millis(250));
/// assert_eq!((Duration::parse("250ms"), Duration::parse("250")), (Some(config.wait), None));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(std::time::Duration);

impl Duration {
    /// Reads a whole number and a unit: `ms`, `s`, `m` or `h`.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.find(|character: char| !character.is_ascii_digit())?;
        let (number, unit) = text.split_at(digits);
        let milliseconds = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        };
        let total = number.parse::<u64>().ok()?.checked_mul(milliseconds)?;
        Some(Self(std::time::Duration::from_millis(total)))
    }

    /// As the standard library's type.
    pub const fn as_std(self) -> std::time::Duration {
        self.0
    }
}

impl From<Duration> for std::time::Duration {
    fn from(duration: Duration) -> Self {
        duration.0
    }
}

impl From<std::time::Duration> for Duration {
    fn from(duration: std::time::Duration) -> Self {
        Self(duration)
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}ms", self.0.as_millis()))
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            de::Error::invalid_value(de::Unexpected::Str(&text), &"a duration such as 250ms, 2s, 1m or 1h")
        })
    }
}

impl JsonSchema for Duration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "duration"})
    }
}

/// A number of bytes, written with its unit: `512B`, `64KiB`, `1MiB`, `1GiB`.
///
/// ```
/// use meshgate_sdk::config::Size;
///
/// #[derive(serde::Deserialize, schemars::JsonSchema)]
/// struct Config {
///     /// How much to keep.
///     keep: Size,
/// }
///
/// let config: Config = serde_json::from_str(r#"{"keep": "64KiB"}"#).unwrap();
/// assert_eq!(config.keep.bytes(), 65_536);
/// assert_eq!((Size::parse("64KiB"), Size::parse("64k")), (Some(Size::of(65_536)), None));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(u64);

impl Size {
    /// So many bytes.
    pub const fn of(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Reads a whole number and a unit: `B`, `KiB`, `MiB` or `GiB`.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.find(|character: char| !character.is_ascii_digit())?;
        let (number, unit) = text.split_at(digits);
        let bytes = match unit {
            "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return None,
        };
        Some(Self(number.parse::<u64>().ok()?.checked_mul(bytes)?))
    }

    /// As a number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            de::Error::invalid_value(de::Unexpected::Str(&text), &"a size such as 512B, 64KiB or 1MiB")
        })
    }
}

impl JsonSchema for Size {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "size"})
    }
}

/// A share in percent, from 0 to 100, with at most four decimals: `5`, `0.0001`.
///
/// ```
/// use meshgate_sdk::Dice;
/// use meshgate_sdk::config::Percent;
///
/// #[derive(serde::Deserialize, schemars::JsonSchema)]
/// struct Config {
///     /// How many of the requests.
///     percent: Percent,
/// }
///
/// let config: Config = serde_json::from_str(r#"{"percent": 0.5}"#).unwrap();
/// let chosen = config.percent.hits(&Dice::new("sampling"));
/// # let _ = chosen;
/// assert_eq!(config.percent.to_string(), "0.5");
/// assert!(!config.percent.is_zero());
/// assert_eq!((Percent::new(100.0), Percent::new(101.0)), (Some(Percent::ALWAYS), None));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percent(u32);

impl Percent {
    /// Every time.
    pub const ALWAYS: Self = Self(Self::WHOLE);
    /// A share is kept in millionths.
    const WHOLE: u32 = 1_000_000;

    /// The share with so many percent, if it is one.
    pub fn new(percent: f64) -> Option<Self> {
        let millionths = percent * 10_000.0;
        let whole = millionths.round();
        let fits = (0.0..=f64::from(Self::WHOLE)).contains(&whole) && (millionths - whole).abs() < 1e-6;
        fits.then_some(Self(whole as u32))
    }

    /// Draws: true in this share of all cases. Never with 0, always with 100.
    pub fn hits(self, dice: &crate::Dice) -> bool {
        dice.below(Self::WHOLE.into()) < self.0.into()
    }

    /// Whether it is nothing at all.
    pub fn is_zero(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", f64::from(self.0) / 10_000.0)
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let percent = f64::deserialize(deserializer)?;
        Self::new(percent).ok_or_else(|| {
            let expected = "a share in percent, from 0 to 100, with at most four decimals";
            de::Error::invalid_value(de::Unexpected::Float(percent), &expected)
        })
    }
}

impl JsonSchema for Percent {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Percent".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "number", "minimum": 0, "maximum": 100})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_have_four_decimals() {
        for (text, shown) in
            [("0", "0"), ("0.0001", "0.0001"), ("33.3333", "33.3333"), ("100", "100"), ("5.0", "5")]
        {
            assert_eq!(serde_json::from_str::<Percent>(text).unwrap().to_string(), shown);
        }
        for wrong in ["-1", "-0.0001", "100.0001", "0.00001", "1e300", "\"5\"", "null"] {
            assert!(serde_json::from_str::<Percent>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations_need_a_unit() {
        let milliseconds = |text| Duration::parse(text).map(|duration| duration.as_std().as_millis());
        assert_eq!(milliseconds("250ms"), Some(250));
        assert_eq!(milliseconds("2s"), Some(2000));
        assert_eq!(milliseconds("1m"), Some(60_000));
        assert_eq!(milliseconds("1h"), Some(3_600_000));
        assert_eq!(milliseconds("0s"), Some(0));
        for wrong in ["", "5", "s", "1.5s", "-1s", "1 s", "1d", "1us", "99999999999999h", "1S"] {
            assert_eq!(Duration::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn sizes_need_a_unit() {
        let bytes = |text| Size::parse(text).map(Size::bytes);
        assert_eq!([bytes("0B"), bytes("64KiB"), bytes("1GiB")], [Some(0), Some(65_536), Some(1 << 30)]);
        for wrong in ["", "5", "KiB", "1.5KiB", "-1B", "1 B", "1KB", "1k", "18014398509481984KiB"] {
            assert_eq!(Size::parse(wrong), None, "{wrong}");
        }
    }
}
