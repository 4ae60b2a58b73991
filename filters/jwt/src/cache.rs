//! What is remembered of tokens whose signature was found to be good.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use sha2::{Digest, Sha256};

/// What a verified token comes to.
#[derive(Debug)]
pub(crate) struct Verified {
    /// `ISSUER/SUBJECT`
    pub(crate) principal: String,
    /// The payload.
    pub(crate) claims: Vec<u8>,
    /// The fields to set.
    pub(crate) fields: Vec<(String, String)>,
    /// When it is no longer good, in seconds since 1970.
    pub(crate) until: f64,
}

/// The hash of a token: a token that is at rest in memory could be stolen.
pub(crate) type Hash = [u8; 32];

pub(crate) fn hash(token: &str) -> Hash {
    Sha256::digest(token.as_bytes()).into()
}

/// Verified tokens by their hashes. When half of the room is used up, what was not asked for since the last time is forgotten.
#[derive(Debug)]
pub(crate) struct Cache {
    half: usize,
    young: RefCell<BTreeMap<Hash, Rc<Verified>>>,
    old: RefCell<BTreeMap<Hash, Rc<Verified>>>,
}

impl Cache {
    pub(crate) fn new(size: u32) -> Self {
        let half = usize::try_from(size.div_ceil(2)).unwrap_or(0);
        Self { half, young: RefCell::default(), old: RefCell::default() }
    }

    /// A token that is still good.
    pub(crate) fn get(&self, hash: &Hash, now: f64) -> Option<Rc<Verified>> {
        let known = self.young.borrow().get(hash).cloned();
        let known = match known {
            Some(known) => known,
            None => {
                let known = self.old.borrow_mut().remove(hash)?;
                self.put(*hash, &known);
                known
            }
        };
        (now < known.until).then_some(known)
    }

    pub(crate) fn put(&self, hash: Hash, verified: &Rc<Verified>) {
        if self.half == 0 {
            return;
        }
        let mut young = self.young.borrow_mut();
        if young.len() >= self.half {
            self.old.replace(std::mem::take(&mut young));
        }
        young.insert(hash, Rc::clone(verified));
    }

    /// Forgets all: the keys have changed.
    pub(crate) fn clear(&self) {
        self.young.borrow_mut().clear();
        self.old.borrow_mut().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verified(until: f64) -> Rc<Verified> {
        Rc::new(Verified { principal: String::new(), claims: Vec::new(), fields: Vec::new(), until })
    }

    #[test]
    fn it_is_bounded_and_keeps_what_is_used() {
        let cache = Cache::new(20);
        let key = |number: u32| hash(&number.to_string());
        cache.put(key(0), &verified(10.0));
        for number in 1..1000 {
            cache.put(key(number), &verified(10.0));
            assert!(cache.get(&key(0), 0.0).is_some(), "after {number}");
            assert!(cache.young.borrow().len() + cache.old.borrow().len() <= 20);
        }
        assert!(cache.get(&key(1), 0.0).is_none());
        cache.clear();
        assert!(cache.get(&key(0), 0.0).is_none());
    }

    #[test]
    fn tokens_expire_and_may_not_be_kept_at_all() {
        let cache = Cache::new(1);
        cache.put(hash("a"), &verified(10.0));
        assert!(cache.get(&hash("a"), 9.9).is_some() && cache.get(&hash("a"), 10.0).is_none());
        let none = Cache::new(0);
        none.put(hash("a"), &verified(10.0));
        assert!(none.get(&hash("a"), 0.0).is_none());
    }
}
