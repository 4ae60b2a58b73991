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

/// Reads a duration: a whole number and `ms`, `s`, `m` or `h`.
///
/// # Errors
/// What is wrong, as the end of a sentence about the value.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let millis = parse(text, &TIME, "a duration such as `10s` or `250ms`")?;
    if millis > LONGEST {
        return Err("is longer than ten years".to_owned());
    }
    Ok(Duration::from_millis(millis))
}

/// Reads a size in bytes: a whole number and `B`, `KiB`, `MiB` or `GiB`.
///
/// # Errors
/// What is wrong, as the end of a sentence about the value.
pub fn parse_size(text: &str) -> Result<u64, String> {
    parse(text, &SIZE, "a size such as `64KiB` or `16MiB`")
}

/// A size in the largest unit that divides it.
pub(crate) fn show_size(bytes: u64) -> String {
    let unit = SIZE.iter().rev().find(|(_, factor)| bytes.is_multiple_of(*factor) && bytes >= *factor);
    unit.map_or_else(|| format!("{bytes}B"), |(name, factor)| format!("{}{name}", bytes / factor))
}

fn parse(text: &str, units: &[(&str, u64)], what: &str) -> Result<u64, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(format!("is not {what}"));
    }
    if unit.is_empty() {
        let names: Vec<String> = units.iter().map(|(name, _)| format!("`{name}`")).collect();
        return Err(format!("has no unit: add {}", crate::words::list(&names, "or")));
    }
    let Some(&(_, factor)) = units.iter().find(|(name, _)| *name == unit) else {
        return Err(unknown_unit(unit, units, what));
    };
    let value = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    value.ok_or_else(|| "is too large".to_owned())
}

fn unknown_unit(unit: &str, units: &[(&str, u64)], what: &str) -> String {
    let meant = match unit {
        "sec" | "secs" | "second" | "seconds" => Some("s"),
        "min" | "mins" | "minute" | "minutes" => Some("m"),
        "hour" | "hours" => Some("h"),
        "K" | "k" | "KB" | "kB" | "Ki" => Some("KiB"),
        "M" | "MB" | "Mi" => Some("MiB"),
        "G" | "GB" | "Gi" => Some("GiB"),
        _ => None,
    };
    if let Some(meant) = meant.filter(|meant| units.iter().any(|(name, _)| name == meant)) {
        return format!("has an unknown unit: write `{meant}`");
    }
    if unit.starts_with('.') {
        return format!("is not a whole number: choose a smaller unit, as in {what}");
    }
    format!("is not {what}")
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

    #[test]
    fn durations() {
        for (text, millis) in
            [("10ms", 10), ("2s", 2000), ("1m", 60_000), ("1h", 3_600_000), ("0s", 0), ("007s", 7000)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        let wrong = [
            ("10", "has no unit"),
            ("", "is not a duration"),
            ("s", "is not a duration"),
            ("10 s", "is not a duration"),
            ("-1s", "is not a duration"),
            ("1.5s", "is not a whole number"),
            ("1m30s", "is not a duration"),
            ("10sec", "write `s`"),
            ("10S", "is not a duration"),
            ("10KiB", "is not a duration"),
            ("99999999999999999999s", "is too large"),
            ("18446744073709551615h", "is too large"),
            ("87601h", "longer than ten years"),
            ("١s", "is not a duration"),
        ];
        for (text, complaint) in wrong {
            let error = parse_duration(text).expect_err(text);
            assert!(error.contains(complaint), "{text}: {error}");
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
            ("64", "has no unit"),
            ("64KB", "write `KiB`"),
            ("64M", "write `MiB`"),
            ("64s", "is not a size"),
            ("1.5GiB", "is not a whole number"),
            ("64kib", "is not a size"),
            ("18014398509481984KiB", "is too large"),
        ];
        for (text, complaint) in wrong {
            let error = parse_size(text).expect_err(text);
            assert!(error.contains(complaint), "{text}: {error}");
        }
    }
}
