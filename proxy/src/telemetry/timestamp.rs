//! Points in time as RFC 3339 text, in UTC.
//!
//! The access log writes one per request, so [`DateCache`] formats the calendar part once per second and only adds the milliseconds; the admin
//! pages, which do not hurry, use [`rfc3339`].

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `2026-01-31T23:59:59`
const DATE_LENGTH: usize = 19;
const SECONDS_PER_DAY: u64 = 86_400;
/// The last second of the year 9999: RFC 3339 has four digits for the year.
const LAST_SECOND: u64 = 253_402_300_799;

/// Remembers the text of the last second it was asked for. One per worker.
#[derive(Debug, Clone)]
pub struct DateCache {
    second: u64,
    text: [u8; DATE_LENGTH],
}

impl Default for DateCache {
    fn default() -> Self {
        Self { second: 0, text: date(0) }
    }
}

impl DateCache {
    /// Appends `2026-01-31T23:59:59.123Z`. Times before 1970 and after 9999 are written as the nearest one that RFC 3339 knows.
    pub fn write(&mut self, time: SystemTime, out: &mut Vec<u8>) {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let second = since.as_secs().min(LAST_SECOND);
        if second != self.second {
            self.second = second;
            self.text = date(second);
        }
        let millisecond = since.subsec_millis();
        out.extend_from_slice(&self.text);
        out.extend_from_slice(&[
            b'.',
            digit(u64::from(millisecond) / 100),
            digit(u64::from(millisecond) / 10),
            digit(u64::from(millisecond)),
            b'Z',
        ]);
    }
}

/// `2026-01-31T23:59:59.123Z`
#[must_use]
pub fn rfc3339(time: SystemTime) -> String {
    let mut out = Vec::with_capacity(DATE_LENGTH + 5);
    DateCache::default().write(time, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// The calendar date and the time of day of a second since 1970.
fn date(second: u64) -> [u8; DATE_LENGTH] {
    let (year, month, day) = civil(second / SECONDS_PER_DAY);
    let of_day = second % SECONDS_PER_DAY;
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let two = |value: u64| [digit(value / 10), digit(value)];
    let mut text = *b"0000-00-00T00:00:00";
    for (at, pair) in
        [(0, year / 100), (2, year), (5, month), (8, day), (11, hour), (14, minute), (17, second)]
    {
        text[at..at + 2].copy_from_slice(&two(pair));
    }
    text
}

/// The last decimal digit of `value`.
fn digit(value: u64) -> u8 {
    b"0123456789"[(value % 10) as usize]
}

/// Year, month and day of a day counted from 1970-01-01, in the proleptic Gregorian calendar. Counts in eras of 400 years that start on the first of
/// March, so that the leap day is the last day of its year.
fn civil(day: u64) -> (u64, u64, u64) {
    let day = day + 719_468;
    let era = day / 146_097;
    let of_era = day % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day_of_month = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day_of_month)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64, millisecond: u64) -> String {
        rfc3339(UNIX_EPOCH + Duration::from_secs(second) + Duration::from_millis(millisecond))
    }

    #[test]
    fn known_dates() {
        assert_eq!(at(0, 0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(951_827_696, 7), "2000-02-29T12:34:56.007Z");
        assert_eq!(at(4_107_542_399, 999), "2100-02-28T23:59:59.999Z");
        assert_eq!(at(4_107_542_400, 0), "2100-03-01T00:00:00.000Z");
        assert_eq!(at(LAST_SECOND, 0), "9999-12-31T23:59:59.000Z");
    }

    #[test]
    fn every_day_of_four_centuries_follows_the_one_before() {
        let (mut year, mut month, mut day) = civil(0);
        for count in 1..146_097 {
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = match month {
                2 if leap => 29,
                2 => 28,
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            day += 1;
            if day > length {
                (month, day) = (month + 1, 1);
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
            assert_eq!(civil(count), (year, month, day));
        }
    }

    #[test]
    fn the_cache_follows_time_in_both_directions() {
        let mut cache = DateCache::default();
        for second in [1_000_000_000, 1_000_000_001, 999_999_999, 0] {
            let mut out = Vec::new();
            cache.write(UNIX_EPOCH + Duration::from_secs(second), &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), at(second, 0));
        }
    }

    #[test]
    fn times_outside_the_calendar_are_clamped() {
        assert_eq!(rfc3339(UNIX_EPOCH - Duration::from_secs(5)), "1970-01-01T00:00:00.000Z");
        assert!(at(LAST_SECOND + 10, 0).starts_with("9999-12-31T23:59:59"));
    }
}
