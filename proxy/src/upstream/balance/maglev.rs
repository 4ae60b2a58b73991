//! Maglev: each endpoint fills a table's places in an order of its own, in turn, so that all get the same number of
//! places; a key's place is its hash modulo the table's size. More even than a ring, and a look-up is one index; when
//! endpoints change, a few more keys move. (Eisenbud and others, "Maglev: A Fast and Reliable Software Network Load
//! Balancer", NSDI 2016, section 3.4.)

use super::hash::{hash, hash_again};

/// Which endpoint each place belongs to.
#[derive(Debug)]
pub(in crate::upstream) struct Maglev {
    places: Vec<u32>,
}

/// An unfilled place.
const FREE: u32 = u32::MAX;

impl Maglev {
    /// A table of `size` places, a prime; by weight, as [`super::Ring::new`].
    pub(in crate::upstream) fn new(endpoints: &[(String, f64)], size: usize) -> Maglev {
        let mut places = vec![FREE; if endpoints.is_empty() { 0 } else { size }];
        let heaviest = endpoints.iter().map(|(_, weight)| *weight).fold(f64::MIN_POSITIVE, f64::max);
        let mut walks: Vec<Walk> =
            endpoints.iter().map(|(name, weight)| Walk::new(name, weight / heaviest, size)).collect();
        let mut filled = 0;
        let mut round = 0.0;
        while filled < places.len() {
            round += 1.0;
            for (index, walk) in walks.iter_mut().enumerate() {
                // A lighter endpoint lets rounds pass.
                if filled == places.len() || round * walk.weight < walk.taken + 1.0 {
                    continue;
                }
                walk.taken += 1.0;
                let free = walk.next_free(&places);
                places[free] = u32::try_from(index).unwrap_or(FREE - 1);
                filled += 1;
            }
        }
        Maglev { places }
    }

    /// The endpoint for a key: that of its place, or of the places after it, the first that `may` be used.
    pub(in crate::upstream) fn pick(&self, key: u64, may: impl Fn(usize) -> bool) -> Option<usize> {
        let size = self.places.len();
        if size == 0 {
            return None;
        }
        let start = usize::try_from(key % size as u64).unwrap_or(0);
        let first = self.places[start] as usize;
        if may(first) {
            return Some(first);
        }
        // Hashed again for each try: the keys of an endpoint that is out spread over all others.
        let again = (1..64).map(|n| usize::try_from(hash_again(key, n) % size as u64).unwrap_or(0));
        let rest = (1..size).map(|step| (start + step) % size);
        again.chain(rest).map(|place| self.places[place] as usize).find(|index| may(*index))
    }
}

/// An endpoint's order of all places.
struct Walk {
    place: usize,
    step: usize,
    size: usize,
    weight: f64,
    taken: f64,
}

impl Walk {
    fn new(name: &str, weight: f64, size: usize) -> Walk {
        let own = hash(name.as_bytes());
        let within = |value: u64, size: usize| usize::try_from(value % size.max(1) as u64).unwrap_or(0);
        Walk {
            place: within(hash_again(own, 1), size),
            step: within(hash_again(own, 2), size - 1) + 1,
            size,
            weight,
            taken: 0.0,
        }
    }

    /// The next place in this order that is free. There is one: the size is a prime, so the walk visits all places.
    fn next_free(&mut self, places: &[u32]) -> usize {
        loop {
            let place = self.place;
            self.place = (place + self.step) % self.size;
            if places[place] == FREE {
                return place;
            }
        }
    }
}
