//! Chance: for filters that do something to a share of the exchanges. Not for secrets.

use std::cell::Cell;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::UNIX_EPOCH;

/// A source of random numbers (SplitMix64): quick, evenly spread, and not for secrets.
///
/// Keep one in the filter. Its numbers have nothing to do with those of another, in the same filter or elsewhere: what one
/// filter draws does not tell what the next one will.
///
/// ```
/// use meshgate_sdk::Dice;
///
/// let dice = Dice::new("discounts");
/// let side = 1 + dice.below(6);
/// assert!((1..=6).contains(&side));
/// ```
pub struct Dice {
    state: Cell<u64>,
}

impl Dice {
    /// Seeded from the host's clock and this name.
    pub fn new(name: &str) -> Self {
        let mut seed = DefaultHasher::new();
        name.hash(&mut seed);
        crate::now().duration_since(UNIX_EPOCH).unwrap_or_default().hash(&mut seed);
        // The clock may stand still between two of one name.
        thread_local!(static MADE: Cell<u64> = const { Cell::new(0) });
        MADE.set(MADE.get().wrapping_add(1));
        MADE.get().hash(&mut seed);
        Self::seeded(seed.finish())
    }

    /// Always the same numbers, for tests.
    ///
    /// ```
    /// use meshgate_sdk::Dice;
    ///
    /// let (one, other) = (Dice::seeded(7), Dice::seeded(7));
    /// assert_eq!(one.bits(), other.bits());
    /// ```
    pub fn seeded(seed: u64) -> Self {
        Self { state: Cell::new(seed) }
    }

    /// A number of 64 random bits.
    pub fn bits(&self) -> u64 {
        let state = self.state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.state.set(state);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// An evenly drawn number below `bound`; 0 if that is 0.
    pub fn below(&self, bound: u64) -> u64 {
        // The high half of the product: off from even by less than bound / 2^64, far below what can be measured.
        ((u128::from(self.bits()) * u128::from(bound)) >> 64) as u64
    }
}

impl fmt::Debug for Dice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dice").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Percent;

    /// How many of so many draws hit.
    fn hits(share: &str, draws: u32, dice: &Dice) -> u32 {
        let share: Percent = serde_json::from_str(share).unwrap();
        (0..draws).map(|_| u32::from(share.hits(dice))).sum()
    }

    #[test]
    fn shares_are_kept_and_their_ends_are_exact() {
        let dice = Dice::new("test");
        assert_eq!(hits("0", 1_000_000, &dice), 0);
        assert_eq!(hits("100", 1_000_000, &dice), 1_000_000);
        // Seven standard deviations: a correct generator is farther off less than once in 10^11.
        for (percent, share) in [("50", 0.5), ("5", 0.05), ("0.1", 0.001), ("0.01", 0.0001)] {
            let draws = 1_000_000;
            let expected = f64::from(draws) * share;
            let off = (f64::from(hits(percent, draws, &dice)) - expected).abs();
            assert!(off < 7.0 * (expected * (1.0 - share)).sqrt(), "{percent} %: {off} off");
        }
        // One in a million, four million times: more than 40 is as improbable as one in 10^25, none as e^-4 is not.
        assert!(hits("0.0001", 4_000_000, &dice) < 40);
        assert!(hits("0.0001", 40_000_000, &dice) > 5, "e^-40 and a little");
    }

    #[test]
    fn two_of_one_name_draw_differently() {
        let numbers = |dice: &Dice| (0..8).map(|_| dice.below(1 << 32)).collect::<Vec<_>>();
        assert_ne!(numbers(&Dice::new("a")), numbers(&Dice::new("a")));
        assert_ne!(numbers(&Dice::new("a")), numbers(&Dice::new("b")));
        assert_eq!(Dice::seeded(1).below(0), 0);
    }
}
