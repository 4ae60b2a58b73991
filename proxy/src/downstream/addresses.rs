//! How many connections a listener has, and each client address of them, over all workers. It is looked at when a connection opens
//! and when it closes, and never by a request.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Parts with a lock of their own, so that workers seldom meet.
const PARTS: usize = 16;

/// The connections of a listener, all and by client address.
#[derive(Debug, Default)]
pub struct ByAddress {
    all: AtomicUsize,
    parts: [Mutex<HashMap<IpAddr, usize>>; PARTS],
    hasher: RandomState,
}

/// A connection among those of its address. Dropping it makes room for another one.
#[derive(Debug)]
pub(super) struct Place {
    of: Arc<ByAddress>,
    address: IpAddr,
}

/// A connection among all of its listener. Dropping it makes room for another one.
#[derive(Debug)]
pub(super) struct Admitted(Arc<ByAddress>);

impl Drop for Admitted {
    fn drop(&mut self) {
        self.0.all.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ByAddress {
    /// Room for a connection; none if the listener has `most` of them.
    pub(super) fn admit(self: &Arc<Self>, most: usize) -> Option<Admitted> {
        let more = |all: usize| (all < most).then_some(all + 1);
        self.all.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Admitted(Arc::clone(self)))
    }

    /// A place for a connection; none if the address has `most` of them.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr, most: usize) -> Option<Place> {
        let address = counted(address);
        let mut part = self.part(&address).lock().unwrap_or_else(PoisonError::into_inner);
        let count = part.entry(address).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Place { of: Arc::clone(self), address })
    }

    fn part(&self, address: &IpAddr) -> &Mutex<HashMap<IpAddr, usize>> {
        &self.parts[self.hasher.hash_one(address) as usize % PARTS]
    }
}

/// Whoever has an IPv6 address has all those with the same first half.
fn counted(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut part = self.of.part(&self.address).lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = part.entry(self.address) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_address_has_its_own_room() {
        let all = Arc::new(ByAddress::default());
        let first = all.enter(ip("192.0.2.1"), 2).unwrap();
        let _second = all.enter(ip("::ffff:192.0.2.1"), 2).unwrap();
        assert!(all.enter(ip("192.0.2.1"), 2).is_none());
        assert!(all.enter(ip("192.0.2.2"), 2).is_some());
        drop(first);
        assert!(all.enter(ip("192.0.2.1"), 2).is_some());
        let _one = all.enter(ip("2001:db8::1"), 1).unwrap();
        assert!(all.enter(ip("2001:db8::ffff:2"), 1).is_none(), "the same network");
        assert!(all.enter(ip("2001:db8:0:1::1"), 1).is_some());
    }

    #[test]
    fn nothing_is_kept_of_those_who_left() {
        let all = Arc::new(ByAddress::default());
        for last in 0..=255 {
            drop(all.enter(IpAddr::from([192, 0, 2, last]), 1));
        }
        assert!(all.parts.iter().all(|part| part.lock().unwrap().is_empty()));
    }

    #[test]
    fn threads_never_have_one_too_many() {
        let all = Arc::new(ByAddress::default());
        let counted = |_| {
            let all = Arc::clone(&all);
            std::thread::spawn(move || {
                let both = |_| (all.enter(ip("192.0.2.1"), 100), all.admit(150));
                (0..1000).map(both).unzip::<_, _, Vec<_>, Vec<_>>()
            })
        };
        let threads: Vec<_> = (0..4).map(counted).collect();
        let (places, rooms): (Vec<_>, Vec<_>) =
            threads.into_iter().map(|thread| thread.join().unwrap()).unzip();
        assert_eq!(places.iter().flatten().flatten().count(), 100);
        assert_eq!(rooms.iter().flatten().flatten().count(), 150);
        drop(rooms);
        assert!(all.admit(1).is_some(), "and all of them make room");
    }
}
