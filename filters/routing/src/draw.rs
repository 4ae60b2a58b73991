//! Drawing one of several clusters in proportion to weights.

use std::cell::Cell;

/// A random number generator (SplitMix64), seeded from the host's clock: quick, evenly spread, and not for secrets.
pub(crate) struct Draw {
    state: Cell<u64>,
}

impl Draw {
    pub(crate) fn seeded() -> Self {
        let since_epoch = meshgate_sdk::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Self::from_seed(since_epoch.as_nanos() as u64)
    }

    pub(crate) fn from_seed(seed: u64) -> Self {
        Self { state: Cell::new(seed) }
    }

    /// 64 random bits.
    pub(crate) fn next(&self) -> u64 {
        let state = self.state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.state.set(state);
        mix(state)
    }

    /// An evenly drawn number below `bound`, which is not 0.
    pub(crate) fn below(&self, bound: u64) -> u64 {
        scale(self.next(), bound)
    }
}

/// The finalizer of SplitMix64.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// 64 even bits as an even number below `bound`.
fn scale(bits: u64, bound: u64) -> u64 {
    // The high half of the product: off from even by less than bound / 2^64, far below what can be measured.
    ((u128::from(bits) * u128::from(bound)) >> 64) as u64
}

/// Bits that are even over keys, and the same for the same key in every proxy of a fleet: FNV-1a, well mixed. Mixed once more
/// than load balancers do: who shares a cluster must not share an endpoint for it.
fn bits_of(key: &[u8]) -> u64 {
    let folded = key.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    mix(mix(folded) ^ 0x5bd1_e995_9e37_79b9)
}

/// Things with weights above 0, at least one.
#[derive(Debug)]
pub(crate) struct Weights<T> {
    first: T,
    /// The other things, each with the sum of the weights before it.
    others: Vec<(u64, T)>,
    total: u64,
}

impl<T> Weights<T> {
    /// Things with weight 0 are left out. `None`: nothing is left.
    pub(crate) fn new(weighted: impl IntoIterator<Item = (T, u32)>) -> Option<Self> {
        let mut rest = weighted.into_iter().filter(|(_, weight)| *weight > 0);
        let (first, weight) = rest.next()?;
        let mut total = u64::from(weight);
        let mut others = Vec::new();
        for (thing, weight) in rest {
            others.push((total, thing));
            total += u64::from(weight);
        }
        Some(Self { first, others, total })
    }

    /// One of the things, with a probability in proportion to its weight.
    pub(crate) fn pick(&self, draw: &Draw) -> &T {
        if self.others.is_empty() {
            return &self.first;
        }
        self.at(draw.below(self.total))
    }

    /// One of the things, always the same for the same key; over many keys in proportion to its weight. When weights change,
    /// no more keys move than have to, as long as the order stays.
    pub(crate) fn pick_by(&self, key: &[u8]) -> &T {
        self.at(scale(bits_of(key), self.total))
    }

    fn at(&self, number: u64) -> &T {
        match self.others.partition_point(|(before, _)| *before <= number).checked_sub(1) {
            Some(position) => self.others.get(position).map_or(&self.first, |(_, thing)| thing),
            None => &self.first,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_weights_are_left_out() {
        let weights = Weights::new([("a", 0), ("b", 7), ("c", 0)]).unwrap();
        let draw = Draw::from_seed(1);
        assert!((0..100).all(|_| *weights.pick(&draw) == "b"));
        assert!(Weights::new([("a", 0), ("b", 0)]).is_none());
        assert!(Weights::<()>::new([]).is_none());
    }

    #[test]
    fn shares_follow_the_weights() {
        let weights = Weights::new([("a", 90), ("b", 9), ("c", 1)]).unwrap();
        let draw = Draw::from_seed(42);
        let drawn = 100_000;
        let mut counts = std::collections::HashMap::new();
        for _ in 0..drawn {
            *counts.entry(*weights.pick(&draw)).or_insert(0) += 1;
        }
        for (name, share) in [("a", 0.90), ("b", 0.09), ("c", 0.01)] {
            let expected = f64::from(drawn) * share;
            let sigma = (expected * (1.0 - share)).sqrt();
            let off = (f64::from(counts[name]) - expected).abs();
            assert!(off < 4.0 * sigma, "{name}: {} instead of {expected}", counts[name]);
        }
    }

    #[test]
    fn keys_stay_where_they_are() {
        let before = Weights::new([("a", 90), ("b", 10)]).unwrap();
        let after = Weights::new([("a", 80), ("b", 20)]).unwrap();
        let (mut of_b, mut moved) = (0, 0);
        for key in (0..100_000_u32).map(u32::to_le_bytes) {
            let (was, is) = (*before.pick_by(&key), *after.pick_by(&key));
            of_b += u32::from(was == "b");
            moved += u32::from(was != is);
            // Who was sent to the growing one stays there.
            assert!(was == "a" || is == "b");
        }
        // The keys are given, so the counts are too; even ones would be 10,000.
        assert!((9_500..=10_500).contains(&of_b) && (9_500..=10_500).contains(&moved), "{of_b}, {moved}");
    }

    #[test]
    fn the_largest_weights_do_not_overflow() {
        let weights = Weights::new([("a", u32::MAX), ("b", u32::MAX), ("c", u32::MAX)]).unwrap();
        let draw = Draw::from_seed(7);
        let mut seen = std::collections::HashSet::new();
        for _ in 0..1000 {
            seen.insert(*weights.pick(&draw));
        }
        assert_eq!(seen.len(), 3);
    }

    #[test]
    fn different_seeds_draw_differently() {
        let numbers = |seed| {
            let draw = Draw::from_seed(seed);
            (0..8).map(|_| draw.below(1 << 32)).collect::<Vec<_>>()
        };
        assert_ne!(numbers(1), numbers(2));
    }
}
