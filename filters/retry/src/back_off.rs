//! How long to wait before the next try.

use std::cell::Cell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Full jitter: each pause is drawn evenly, from nothing to a bound that doubles from try to try. So those that failed
/// together do not come back together.
#[derive(Debug)]
pub(crate) struct BackOff {
    base: Duration,
    max: Duration,
    /// SplitMix64's.
    state: Cell<u64>,
}

impl BackOff {
    pub(crate) fn new(base: Duration, max: Duration, seed: u64) -> Self {
        Self { base, max, state: Cell::new(seed) }
    }

    /// The pause before the nth further try.
    pub(crate) fn pause(&self, nth: u32) -> Duration {
        let factor = 2_u32.saturating_pow(nth.max(1)).saturating_sub(1);
        let bound = self.base.saturating_mul(factor).min(self.max);
        // 53 bits are as many as a number of this type is exact to.
        let share = (self.draw() >> 11) as f64 / (1_u64 << 53) as f64;
        bound.mul_f64(share)
    }

    fn draw(&self) -> u64 {
        let state = self.state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.state.set(state);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// What a response's `retry-after` asks for: seconds, or a date (RFC 9110 section 10.2.3). What is neither asks for nothing.
pub(crate) fn asked_pause(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    date(value)?.duration_since(now).ok()
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`, the one form that is still written.
fn date(text: &str) -> Option<SystemTime> {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let mut words = text.split_once(", ")?.1.split(' ');
    let day: u64 = words.next()?.parse().ok().filter(|day| (1..=31).contains(day))?;
    let name = words.next().filter(|name| name.len() == 3)?;
    let month = MONTHS.find(name).filter(|at| at % 3 == 0)? as u64 / 3 + 1;
    let year: u64 = words.next()?.parse().ok().filter(|year| (1970..=9999).contains(year))?;
    let mut time = words.next()?.split(':');
    let mut next = |most: u64| time.next()?.parse::<u64>().ok().filter(|number| *number <= most);
    let (hour, minute, second) = (next(23)?, next(59)?, next(60)?);
    (words.next() == Some("GMT")).then_some(())?;
    // Days since 1 March of year 0, with the leap day at the year's end; less those until 1970.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1 - 719_468;
    UNIX_EPOCH.checked_add(Duration::from_secs(days * 86_400 + hour * 3_600 + minute * 60 + second))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_drawn_from_a_bound_that_doubles() {
        let millis = Duration::from_millis;
        let back_off = BackOff::new(millis(25), millis(250), 42);
        for (nth, bound) in [(1, 25), (2, 75), (3, 175), (4, 250), (40, 250)] {
            let drawn: Vec<_> = (0..1_000).map(|_| back_off.pause(nth)).collect();
            let (least, most) = (drawn.iter().min().unwrap(), drawn.iter().max().unwrap());
            // A thousand draws that all miss a tenth of the range: less than one in 10^45.
            assert!(
                *least < millis(bound) / 10 && *most > millis(bound) * 9 / 10,
                "{nth}: {least:?} {most:?}"
            );
            assert!(*most < millis(bound), "{nth}: {most:?}");
        }
        assert_eq!(BackOff::new(Duration::ZERO, Duration::ZERO, 1).pause(3), Duration::ZERO);
    }

    #[test]
    fn endpoints_ask_for_pauses_in_seconds_or_by_date() {
        let now = UNIX_EPOCH + Duration::from_secs(784_111_777 - 5);
        let seconds = |value| asked_pause(value, now).map(|pause| pause.as_secs());
        assert_eq!(seconds("120"), Some(120));
        assert_eq!(seconds(" 0 "), Some(0));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:49:37 GMT"), Some(5));
        assert_eq!(seconds("Thu, 29 Feb 1996 00:00:00 GMT"), Some(825_552_000 - 784_111_772));
        for wrong in
            ["", "-1", "soon", "1.5", "Sun, 06 Nov 1994 08:49:30 GMT", "Sun, 06 Foo 1994 08:49:37 GMT"]
        {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
        for wrong in
            ["Sun, 99 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49 GMT", "Sun, 06 Nov 1994 08:49:37 CET"]
        {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
    }
}
