//! Ring hash: endpoints have many points on a circle, and a key goes to the next point after its own. An endpoint that
//! comes or goes moves only the keys beside its own points.

use super::hash::{hash, hash_again};

/// The points of all endpoints, in order.
#[derive(Debug)]
pub(in crate::upstream) struct Ring {
    points: Vec<(u64, u32)>,
}

/// Points of an endpoint of weight 1. The shares of equal endpoints then differ by some 6 % (one standard deviation).
const POINTS: f64 = 256.0;
/// Most points of a ring, in bytes 4 MiB.
const MAX_POINTS: f64 = 262_144.0;

impl Ring {
    /// The ring of these endpoints. `endpoints` are names, which must not change from run to run, and weights.
    pub(in crate::upstream) fn new(endpoints: &[(String, f64)]) -> Ring {
        let total: f64 = endpoints.iter().map(|(_, weight)| weight * POINTS).sum();
        // Halved until it fits, so that the scale, which moves many keys, rarely changes with the endpoints.
        let mut scale = POINTS;
        while total * scale / POINTS > MAX_POINTS {
            scale /= 2.0;
        }
        let mut points = Vec::new();
        for (index, (name, weight)) in endpoints.iter().enumerate() {
            let own = hash(name.as_bytes());
            // At least one: an endpoint without a point would never be chosen.
            let count = (weight * scale).max(1.0) as u64;
            points.extend((0..count).map(|n| (hash_again(own, n), u32::try_from(index).unwrap_or(u32::MAX))));
        }
        points.sort_unstable();
        Ring { points }
    }

    /// The endpoint for a key: the first after it that `may` be used.
    pub(in crate::upstream) fn pick(&self, key: u64, may: impl Fn(usize) -> bool) -> Option<usize> {
        let start = self.points.partition_point(|(point, _)| *point < key);
        let (before, after) = self.points.split_at(start);
        let mut last = None;
        for (_, index) in after.iter().chain(before) {
            // Neighbouring points often belong to one endpoint.
            if last != Some(*index) && may(*index as usize) {
                return Some(*index as usize);
            }
            last = Some(*index);
        }
        None
    }
}
