//! New ids of traces and spans: evenly spread, and not secret.

use std::cell::Cell;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::UNIX_EPOCH;

use meshgate_sdk::property;

use super::context::{SpanId, TraceId};

/// A source of ids: two generators of SplitMix64 with different steps, so that the state has 128 bits.
#[derive(Debug, Default)]
pub(super) struct Ids {
    state: Cell<Option<(u64, u64)>>,
}

impl Ids {
    /// The id of a trace that begins.
    pub(super) fn trace(&self) -> TraceId {
        loop {
            if let Some(id) = TraceId::new(u128::from(self.bits()) << 64 | u128::from(self.bits())) {
                return id;
            }
        }
    }

    /// The id of a new span.
    pub(super) fn span(&self) -> SpanId {
        loop {
            if let Some(id) = SpanId::new(self.bits()) {
                return id;
            }
        }
    }

    fn bits(&self) -> u64 {
        let (one, other) = self.state.get().unwrap_or_else(|| (seed(1), seed(2)));
        // Odd steps: each state is met before one comes again.
        let (one, other) =
            (one.wrapping_add(0x9e37_79b9_7f4a_7c15), other.wrapping_add(0xd1b5_4a32_d192_ed03));
        self.state.set(Some((one, other)));
        mixed(one) ^ mixed(other).rotate_left(32)
    }
}

fn mixed(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// Of the clock, of the worker's connection, and of the first request's id, which the proxy draws at random if the client gave none: two
/// workers, or two proxies, do not begin alike.
fn seed(which: u64) -> u64 {
    let mut seed = DefaultHasher::new();
    which.hash(&mut seed);
    meshgate_sdk::now().duration_since(UNIX_EPOCH).unwrap_or_default().hash(&mut seed);
    for path in ["request/id", "connection/id", "source/address", "xds/node/id"] {
        property::bytes(path).hash(&mut seed);
    }
    seed.finish()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_differ_and_their_bits_are_even() {
        let ids = Ids { state: Cell::new(Some((1, 2))) };
        let all: Vec<_> = (0..100_000).map(|_| ids.span()).collect();
        let distinct: HashSet<_> = all.iter().map(|id| id.bytes()).collect();
        assert_eq!(distinct.len(), all.len());
        for bit in 0..64 {
            let ones = all.iter().filter(|id| u64::from_be_bytes(id.bytes()) >> bit & 1 == 1).count();
            // Six standard deviations of 158; and the numbers are always the same.
            assert!(ones.abs_diff(50_000) < 950, "bit {bit}: {ones}");
        }
    }
}
