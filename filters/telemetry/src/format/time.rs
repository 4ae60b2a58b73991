//! Moments as text: Envoy's default form, or one of `strftime`'s. Always in UTC.

use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How a moment is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TimeFormat(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    /// A letter of `strftime`.
    Field(char),
    /// The first digits of a second's fraction.
    Fraction(usize),
}

const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

impl TimeFormat {
    /// Reads a form such as `%Y-%m-%d %H:%M:%S.%3f`; an empty one is `%Y-%m-%dT%H:%M:%S.%3fZ`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let text = if text.is_empty() { "%Y-%m-%dT%H:%M:%S.%3fZ" } else { text };
        let mut parts = Vec::new();
        let mut letters = text.chars();
        let mut plain = String::new();
        while let Some(letter) = letters.next() {
            if letter != '%' {
                plain.push(letter);
                continue;
            }
            let part = match letters.next() {
                Some('%') => {
                    plain.push('%');
                    continue;
                }
                Some('f') => Part::Fraction(9),
                Some(digits @ '1'..='9') if letters.next() == Some('f') => {
                    Part::Fraction(digits.to_digit(10).map_or(9, |digits| digits as usize))
                }
                Some(field) if "YmdHMSyjeabABsFTDRIpzZ".contains(field) => Part::Field(field),
                _ => return Err(format!("`{text}` is not a form of times: %Y-%m-%dT%H:%M:%S.%3f is one")),
            };
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(part);
        }
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Self(parts))
    }

    /// Writes a moment.
    pub(crate) fn write(&self, moment: SystemTime) -> String {
        let since = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
        let date = Date::of(since);
        let mut out = String::new();
        for part in &self.0 {
            // Writing to a string does not fail.
            let _ = match part {
                Part::Text(text) => out.write_str(text),
                Part::Field(letter) => date.field(*letter, &mut out),
                Part::Fraction(digits) => {
                    let all = format!("{:09}", since.subsec_nanos());
                    out.write_str(all.get(..*digits).unwrap_or(&all))
                }
            };
        }
        out
    }
}

struct Date {
    year: u64,
    month: u64,
    day: u64,
    /// In the year, from 1.
    of_year: u64,
    /// From Sunday.
    weekday: usize,
    hour: u64,
    minute: u64,
    second: u64,
    /// Since 1970.
    seconds: u64,
}

impl Date {
    /// The civil date, by counting from a March: then the day that comes and goes is the year's last.
    fn of(since: Duration) -> Self {
        let seconds = since.as_secs();
        let days = seconds / 86_400;
        let shifted = days + 719_468;
        let era = shifted / 146_097;
        let of_era = shifted % 146_097;
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let from_march = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * from_march + 2) / 153;
        let day = from_march - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = year_of_era + era * 400 + u64::from(month <= 2);
        let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        let of_year = if month > 2 { from_march + 60 + u64::from(is_leap) } else { from_march - 305 };
        Self {
            year,
            month,
            day,
            of_year,
            weekday: ((days + 4) % 7) as usize,
            hour: seconds / 3_600 % 24,
            minute: seconds / 60 % 60,
            second: seconds % 60,
            seconds,
        }
    }

    fn field(&self, letter: char, out: &mut String) -> std::fmt::Result {
        let Self { year, month, day, of_year, hour, minute, second, seconds, .. } = self;
        let weekday = DAYS.get(self.weekday).copied().unwrap_or_default();
        let name = MONTHS.get(*month as usize - 1).copied().unwrap_or_default();
        let twelve = (hour + 11) % 12 + 1;
        match letter {
            'Y' => write!(out, "{year}"),
            'y' => write!(out, "{:02}", year % 100),
            'm' => write!(out, "{month:02}"),
            'd' => write!(out, "{day:02}"),
            'e' => write!(out, "{day:2}"),
            'j' => write!(out, "{of_year:03}"),
            'H' => write!(out, "{hour:02}"),
            'I' => write!(out, "{twelve:02}"),
            'M' => write!(out, "{minute:02}"),
            'S' => write!(out, "{second:02}"),
            'p' => out.write_str(if *hour < 12 { "AM" } else { "PM" }),
            'A' => out.write_str(weekday),
            'a' => out.write_str(weekday.get(..3).unwrap_or_default()),
            'B' => out.write_str(name),
            'b' => out.write_str(name.get(..3).unwrap_or_default()),
            's' => write!(out, "{seconds}"),
            'F' => write!(out, "{year}-{month:02}-{day:02}"),
            'D' => write!(out, "{month:02}/{day:02}/{:02}", year % 100),
            'T' => write!(out, "{hour:02}:{minute:02}:{second:02}"),
            'R' => write!(out, "{hour:02}:{minute:02}"),
            'z' => out.write_str("+0000"),
            _ => out.write_str("UTC"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(form: &str, seconds: u64, nanoseconds: u32) -> String {
        TimeFormat::parse(form).unwrap().write(UNIX_EPOCH + Duration::new(seconds, nanoseconds))
    }

    #[test]
    fn moments_are_written_as_date_does() {
        assert_eq!(written("", 1_767_225_600, 7_000_000), "2026-01-01T00:00:00.007Z");
        // The output of `date -u -d @SECONDS +FORM`.
        assert_eq!(written("%F %T %j %a %b", 951_782_400, 0), "2000-02-29 00:00:00 060 Tue Feb");
        assert_eq!(written("%F %T %j %A %B", 1_735_689_599, 0), "2024-12-31 23:59:59 366 Tuesday December");
        assert_eq!(written("%d/%b/%Y:%H:%M:%S %z", 0, 0), "01/Jan/1970:00:00:00 +0000");
        assert_eq!(
            written("%I %p %e %y %D %R %s%%", 1_709_251_200 + 13 * 3_600, 0),
            "01 PM  1 24 03/01/24 13:00 1709298000%"
        );
        assert_eq!(written("%f %3f %6f", 1, 123_456_789), "123456789 123 123456");
    }

    #[test]
    fn days_follow_days() {
        let date = |day: u64| written("%Y %m %d", day * 86_400, 0);
        for day in 0..60_000 {
            let (today, tomorrow) = (date(day), date(day + 1));
            assert!(today < tomorrow, "{today} {tomorrow}");
        }
    }

    #[test]
    fn what_is_no_form_is_refused() {
        for wrong in ["%", "%Q", "%3", "%3g", "%0f", "%-d"] {
            assert!(TimeFormat::parse(wrong).is_err(), "{wrong}");
        }
    }
}
