//! Durations and sizes: a whole number and a unit, such as `10ms` or `64KiB`. The unit is never left out.

use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de::Error as _};

/// Units of time, in milliseconds.
const TIME: [(&str, u64); 4] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];

/// Units of size, in bytes.
const SIZE: [(&str, u64); 4] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// Ten years. Far longer than any sense, and far from overflowing the clocks that durations are added to.
const LONGEST: u64 = 10 * 365 * 24 * 3_600_000;

/// Why a text is no duration or size.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{what}{}", .hint.as_ref().map(|hint| format!(" (hint: {hint})")).unwrap_or_default())]
pub struct UnitError {
    /// What is wrong, as the end of a sentence about the value.
    pub what: String,
    /// How it may be mended.
    pub hint: Option<String>,
}

impl UnitError {
    fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), hint: None }
    }

    fn hinted(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { what: what.into(), hint: Some(hint.into()) }
    }
}

/// Reads a duration: a whole number and `ms`, `s`, `m` or `h`.
///
/// # Errors
/// The text has no number, no unit or another one, or is more than ten years.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let millis = parse(text, &TIME, "a duration", "`10s` or `250ms`")?;
    if millis > LONGEST {
        return Err(UnitError::new("is longer than ten years"));
    }
    Ok(Duration::from_millis(millis))
}

/// Reads a size in bytes: a whole number and `B`, `KiB`, `MiB` or `GiB`.
///
/// # Errors
/// The text has no number, no unit or another one, or is more than 64 bits hold.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    parse(text, &SIZE, "a size", "`64KiB` or `16MiB`")
}

/// A size in the largest unit that divides it.
pub(crate) fn show_size(bytes: u64) -> String {
    let unit = SIZE.iter().rev().find(|(_, factor)| bytes.is_multiple_of(*factor) && bytes >= *factor);
    unit.map_or_else(|| format!("{bytes}B"), |(name, factor)| format!("{}{name}", bytes / factor))
}

fn parse(text: &str, units: &[(&str, u64)], what: &str, examples: &str) -> Result<u64, UnitError> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let form = || format!("write a whole number and a unit, such as {examples}");
    if number.is_empty() {
        return Err(UnitError::hinted(format!("is not {what}"), form()));
    }
    if unit.is_empty() {
        let names: Vec<String> = units.iter().map(|(name, _)| format!("`{name}`")).collect();
        return Err(UnitError::hinted("has no unit", format!("add {}", crate::words::list(&names, "or"))));
    }
    let Some(&(_, factor)) = units.iter().find(|(name, _)| *name == unit) else {
        let meant = spelled_otherwise(unit).filter(|meant| units.iter().any(|(name, _)| name == meant));
        return Err(match meant {
            Some(meant) => UnitError::hinted("has an unknown unit", format!("write `{number}{meant}`")),
            None if unit.starts_with('.') => {
                UnitError::hinted(format!("is not {what}"), "use a whole number of a smaller unit")
            }
            None => UnitError::hinted(format!("is not {what}"), form()),
        });
    };
    let value = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    value.ok_or_else(|| UnitError::new("is too large"))
}

/// The unit that is spelled like this elsewhere.
fn spelled_otherwise(unit: &str) -> Option<&'static str> {
    Some(match unit.trim_start() {
        "ms" | "msec" | "millis" => "ms",
        "s" | "S" | "sec" | "secs" | "second" | "seconds" => "s",
        "m" | "min" | "mins" | "minute" | "minutes" => "m",
        "h" | "H" | "hour" | "hours" => "h",
        "K" | "k" | "KB" | "kB" | "kb" | "Ki" | "kib" => "KiB",
        "M" | "MB" | "Mb" | "mb" | "Mi" | "mib" => "MiB",
        "G" | "GB" | "Gb" | "gb" | "Gi" | "gib" => "GiB",
        _ => return None,
    })
}

/// A duration in the file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct DurationText(pub(crate) Duration);

impl<'de> Deserialize<'de> for DurationText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_duration(&text).map(Self).map_err(D::Error::custom)
    }
}

impl JsonSchema for DurationText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "duration"})
    }
}

/// A size in the file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct SizeText(pub(crate) u64);

impl<'de> Deserialize<'de> for SizeText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_size(&text).map(Self).map_err(D::Error::custom)
    }
}

impl JsonSchema for SizeText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "size"})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint<T: std::fmt::Debug>(parsed: Result<T, UnitError>) -> String {
        parsed.expect_err("is wrong").to_string()
    }

    #[test]
    fn durations() {
        let right =
            [("10ms", 10), ("2s", 2000), ("1m", 60_000), ("1h", 3_600_000), ("0s", 0), ("007s", 7000)];
        for (text, millis) in right {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        let wrong = [
            ("10", "has no unit (hint: add `ms`, `s`, `m` or `h`)"),
            ("10 s", "has an unknown unit (hint: write `10s`)"),
            ("10sec", "has an unknown unit (hint: write `10s`)"),
            ("1.5s", "is not a duration (hint: use a whole number of a smaller unit)"),
            ("99999999999999999999s", "is too large"),
            ("18446744073709551615h", "is too large"),
            ("87601h", "is longer than ten years"),
        ];
        for (text, expected) in wrong {
            assert_eq!(complaint(parse_duration(text)), expected, "{text}");
        }
        for text in ["", "s", "-1s", "1m30s", "10KiB", "10MB", "١s", "1s ", "PT1S"] {
            assert!(complaint(parse_duration(text)).starts_with("is not a duration"), "{text}");
        }
        assert_eq!(parse_duration("87600h"), Ok(Duration::from_millis(LONGEST)));
    }

    #[test]
    fn sizes_are_shown_as_they_are_written() {
        for text in ["0B", "512B", "64KiB", "16MiB", "1025KiB"] {
            assert_eq!(parse_size(text).map(show_size).as_deref(), Ok(text));
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("512B", 512), ("64KiB", 65_536), ("16MiB", 16 << 20), ("1GiB", 1 << 30), ("0B", 0)]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        let wrong = [
            ("64", "has no unit (hint: add `B`, `KiB`, `MiB` or `GiB`)"),
            ("64KB", "has an unknown unit (hint: write `64KiB`)"),
            ("64M", "has an unknown unit (hint: write `64MiB`)"),
            ("64s", "is not a size (hint: write a whole number and a unit, such as `64KiB` or `16MiB`)"),
            ("18014398509481984KiB", "is too large"),
        ];
        for (text, expected) in wrong {
            assert_eq!(complaint(parse_size(text)), expected, "{text}");
        }
    }
}
