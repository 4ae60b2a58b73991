//! Maps from the numbers by which the host knows contexts and calls.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map whose keys are the host's numbers. They count upwards, so that hashing them well costs one multiplication.
pub(crate) type IdMap<V> = HashMap<u32, V, BuildHasherDefault<IdHasher>>;

/// An empty map.
pub(crate) const fn map<V>() -> IdMap<V> {
    HashMap::with_hasher(BuildHasherDefault::new())
}

/// Spreads numbers that follow each other over all bits.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32((*byte).into()));
    }

    fn write_u32(&mut self, number: u32) {
        // Fibonacci hashing: 2^64 divided by the golden ratio. The map looks at the highest bits and at the lowest.
        let product = (self.0 ^ u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = product ^ (product >> 32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_follow_each_other_stay_apart() {
        let mut map = IdMap::default();
        for id in 0..10_000 {
            assert_eq!(map.insert(id, id), None);
        }
        assert!((0..10_000).all(|id| map.remove(&id) == Some(id)));
        assert!(map.is_empty());
    }
}
