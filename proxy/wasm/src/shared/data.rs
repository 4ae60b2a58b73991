//! Shared data: keys and values that VMs of one id see on all workers.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use meshgate_abi::KvAdd;

use super::lock;
use crate::ledger::Ledger;
use crate::limits::{Limit, Limits};
use crate::status::Status;

/// Locks per namespace, so that workers seldom wait for each other.
const SHARDS: usize = 16;
/// Bytes of a key: keys are hashed under a lock, and all of a shard again when it grows.
const MAX_KEY: usize = 64 << 10;
/// How long nobody looks for expired keys in a shard after somebody did.
const SWEEP_PAUSE: Duration = Duration::from_millis(100);
/// Keys that are looked at when one has to go.
const CANDIDATES: usize = 32;

/// All namespaces.
#[derive(Debug, Default)]
pub(crate) struct SharedData(Mutex<HashMap<String, Weak<Namespace>>>);

impl SharedData {
    /// The namespace of a VM id. It lives as long as VMs use it, and its data with it.
    pub(crate) fn namespace(&self, vm_id: &str) -> Arc<Namespace> {
        let mut namespaces = lock(&self.0);
        if let Some(namespace) = namespaces.get(vm_id).and_then(Weak::upgrade) {
            return namespace;
        }
        namespaces.retain(|_, namespace| namespace.strong_count() > 0);
        let namespace = Arc::<Namespace>::default();
        namespaces.insert(vm_id.to_owned(), Arc::downgrade(&namespace));
        namespace
    }
}

/// Values and their versions.
#[derive(Debug, Default)]
struct Shard {
    values: HashMap<Box<[u8]>, Value>,
    /// No value expires before; none if none does at all.
    first_expiry: Option<Instant>,
    swept: Option<Instant>,
}

/// A value, its version, and the filter that it counts for: the one that set it last.
#[derive(Debug)]
struct Value {
    bytes: Bytes,
    version: u32,
    /// When it is gone. Whoever comes first after that removes it.
    expiry: Option<Instant>,
    cost: Cost,
}

impl Value {
    fn is_gone(&self, now: Option<Instant>) -> bool {
        self.expiry.is_some_and(|expiry| now.is_some_and(|now| expiry <= now))
    }
}

impl Shard {
    /// The time, if there is anything here that may expire.
    fn now(&self) -> Option<Instant> {
        self.first_expiry.map(|_| Instant::now())
    }

    /// The value that there is now.
    fn live(&mut self, key: &[u8], now: Option<Instant>) -> Option<&mut Value> {
        self.values.get_mut(key).filter(|value| !value.is_gone(now))
    }

    /// Removes what has expired, unless somebody has just looked.
    fn sweep(&mut self, now: Option<Instant>) {
        let due = |now: &Instant| self.first_expiry.is_some_and(|first| first <= *now);
        let Some(now) = now.filter(due) else { return };
        if self.swept.is_some_and(|swept| now.duration_since(swept) < SWEEP_PAUSE) {
            return;
        }
        self.swept = Some(now);
        self.values.retain(|_, value| !value.is_gone(Some(now)));
        self.first_expiry = self.values.values().filter_map(|value| value.expiry).min();
    }

    /// Puts a new key in, or a new value in the place of one that has expired.
    fn insert(&mut self, key: &[u8], value: Value) {
        self.expires(value.expiry);
        self.values.insert(key.into(), value);
    }

    fn expires(&mut self, expiry: Option<Instant>) {
        self.first_expiry = self.first_expiry.into_iter().chain(expiry).min();
    }

    /// Removes one key of this owner that expires, of some the one that does so first. False if there is none.
    fn evict(&mut self, owner: &Arc<Ledger>) -> bool {
        let spare = |value: &Value| value.expiry.is_some() && Arc::ptr_eq(&value.cost.owner, owner);
        let candidates = self.values.iter().filter(|(_, value)| spare(value));
        let first = candidates.take(CANDIDATES).min_by_key(|(_, value)| value.expiry);
        let Some(key) = first.map(|(key, _)| key.clone()) else { return false };
        self.values.remove(&key).is_some()
    }
}

/// What a key and its value take of their owner's quota, for as long as they are there.
#[derive(Debug)]
struct Cost {
    owner: Arc<Ledger>,
    bytes: usize,
}

impl Cost {
    fn take(bytes: usize, owner: &Arc<Ledger>, limits: &Limits) -> Result<Cost, Status> {
        if !owner.shared_keys.take(1, limits.shared_keys as usize) {
            owner.count(Limit::SharedKeys);
            return Err(Status::InternalFailure);
        }
        if !owner.shared_bytes.take(bytes, usize::try_from(limits.shared_bytes).unwrap_or(usize::MAX)) {
            owner.shared_keys.give_back(1);
            owner.count(Limit::SharedBytes);
            return Err(Status::InternalFailure);
        }
        Ok(Cost { owner: owner.clone(), bytes })
    }

    /// The same key with a value of another size, or set by another filter.
    fn change(&mut self, bytes: usize, owner: &Arc<Ledger>, limits: &Limits) -> Result<(), Status> {
        if !Arc::ptr_eq(&self.owner, owner) {
            *self = Cost::take(bytes, owner, limits)?;
            return Ok(());
        }
        let most = usize::try_from(limits.shared_bytes).unwrap_or(usize::MAX);
        let more = bytes.saturating_sub(self.bytes);
        if !owner.shared_bytes.take(more, most) {
            owner.count(Limit::SharedBytes);
            return Err(Status::InternalFailure);
        }
        owner.shared_bytes.give_back(self.bytes.saturating_sub(bytes));
        self.bytes = bytes;
        Ok(())
    }
}

impl Drop for Cost {
    fn drop(&mut self) {
        self.owner.shared_keys.give_back(1);
        self.owner.shared_bytes.give_back(self.bytes);
    }
}

/// The data of one VM id.
#[derive(Debug, Default)]
pub(crate) struct Namespace {
    hasher: RandomState,
    shards: [Mutex<Shard>; SHARDS],
    version: AtomicU32,
}

/// What adding to a number came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Added {
    pub(crate) number: i64,
    pub(crate) done: bool,
    /// Another key had to go for it.
    pub(crate) evicted: bool,
}

impl Namespace {
    /// The value and its version, which a compare-and-set may name.
    pub(crate) fn find(&self, key: &[u8]) -> Option<(Bytes, u32)> {
        let mut shard = self.shard(key)?;
        let now = shard.now();
        shard.live(key, now).map(|value| (value.bytes.clone(), value.version))
    }

    /// As [`find`](Self::find), with the time that is left; none for what stays.
    pub(crate) fn find_lasting(&self, key: &[u8]) -> Option<(Bytes, u32, Option<Duration>)> {
        let mut shard = self.shard(key)?;
        let now = shard.now();
        let value = shard.live(key, now)?;
        let left = value.expiry.zip(now).map(|(expiry, now)| expiry.saturating_duration_since(now));
        Some((value.bytes.clone(), value.version, left))
    }

    /// Sets a value on behalf of a filter. A version other than 0 must be the current one, if the key exists.
    pub(crate) fn set(
        &self,
        key: &[u8],
        value: &[u8],
        version: u32,
        owner: &Arc<Ledger>,
        limits: &Limits,
    ) -> Result<(), Status> {
        self.put(key, value, version, None, owner, limits)
    }

    /// As [`set`](Self::set), with a value that is gone after a time.
    pub(crate) fn put(
        &self,
        key: &[u8],
        value: &[u8],
        version: u32,
        lasts: Option<Duration>,
        owner: &Arc<Ledger>,
        limits: &Limits,
    ) -> Result<(), Status> {
        let cost = key.len() + value.len();
        let mut shard = self.shard(key).ok_or_else(|| too_long(owner))?;
        let now = shard.now().or_else(|| lasts.map(|_| Instant::now()));
        let expiry = expiry(now, lasts);
        match shard.live(key, now) {
            Some(current) if version != 0 && current.version != version => Err(Status::CasMismatch),
            Some(current) => {
                current.cost.change(cost, owner, limits)?;
                current.bytes = Bytes::copy_from_slice(value);
                current.version = self.next_version();
                current.expiry = expiry;
                shard.expires(expiry);
                Ok(())
            }
            None => {
                shard.values.remove(key);
                shard.sweep(now);
                let cost = Cost::take(cost, owner, limits)?;
                let bytes = Bytes::copy_from_slice(value);
                shard.insert(key, Value { bytes, version: self.next_version(), expiry, cost });
                Ok(())
            }
        }
    }

    /// Changes a number on behalf of a filter, under one lock. BadArgument if the value is none.
    pub(crate) fn add(
        &self,
        key: &[u8],
        add: &KvAdd,
        lasts: Option<Duration>,
        owner: &Arc<Ledger>,
        limits: &Limits,
    ) -> Result<Added, Status> {
        let mut shard = self.shard(key).ok_or_else(|| too_long(owner))?;
        let now = shard.now().or_else(|| lasts.map(|_| Instant::now()));
        let expiry = expiry(now, lasts);
        if let Some(current) = shard.live(key, now) {
            let number = number(&current.bytes)?;
            let Some(sum) = add.of(number) else {
                return Ok(Added { number: add.raised(number), done: false, evicted: false });
            };
            current.cost.change(key.len() + size_of::<i64>(), owner, limits)?;
            current.bytes = Bytes::copy_from_slice(&sum.to_le_bytes());
            current.version = self.next_version();
            if expiry.is_some() {
                current.expiry = expiry;
                shard.expires(expiry);
            }
            return Ok(Added { number: sum, done: true, evicted: false });
        }
        let Some(sum) = add.of(0) else {
            return Ok(Added { number: add.raised(0), done: false, evicted: false });
        };
        shard.values.remove(key);
        shard.sweep(now);
        let size = key.len() + size_of::<i64>();
        let (cost, evicted) = match Cost::take(size, owner, limits) {
            Ok(cost) => (cost, false),
            Err(_) if add.evict && (shard.evict(owner) || self.evict_elsewhere(owner)) => {
                (Cost::take(size, owner, limits)?, true)
            }
            Err(status) => return Err(status),
        };
        let bytes = Bytes::copy_from_slice(&sum.to_le_bytes());
        shard.insert(key, Value { bytes, version: self.next_version(), expiry, cost });
        Ok(Added { number: sum, done: true, evicted })
    }

    /// Takes back what was held of a number, and removes it if nothing is left. What is no number (any more) stays.
    pub(crate) fn release(&self, key: &[u8], amount: i64) {
        let Some(mut shard) = self.shard(key) else { return };
        let now = shard.now();
        let Some(current) = shard.live(key, now) else { return };
        let Ok(number) = number(&current.bytes) else { return };
        match number.saturating_sub(amount) {
            ..=0 => drop(shard.values.remove(key)),
            left => {
                current.bytes = Bytes::copy_from_slice(&left.to_le_bytes());
                current.version = self.next_version();
            }
        }
    }

    /// Removes a key; fine if there is none.
    pub(crate) fn remove(&self, key: &[u8], version: u32) -> Result<(), Status> {
        let Some(mut shard) = self.shard(key) else { return Ok(()) };
        let now = shard.now();
        if version != 0 && shard.live(key, now).is_some_and(|value| value.version != version) {
            return Err(Status::CasMismatch);
        }
        shard.values.remove(key);
        Ok(())
    }

    /// Removes a key of this owner from a shard that nobody uses just now. The caller holds one already: to wait for another
    /// could be to wait for ever.
    fn evict_elsewhere(&self, owner: &Arc<Ledger>) -> bool {
        self.shards.iter().filter_map(|shard| shard.try_lock().ok()).any(|mut shard| shard.evict(owner))
    }

    /// The shard that a key is in, locked; none for a key that is too long to be in any.
    fn shard(&self, key: &[u8]) -> Option<MutexGuard<'_, Shard>> {
        (key.len() <= MAX_KEY).then(|| lock(&self.shards[self.hasher.hash_one(key) as usize % SHARDS]))
    }

    fn next_version(&self) -> u32 {
        loop {
            let version = self.version.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
            if version != 0 {
                return version;
            }
        }
    }
}

/// When something that lasts so long from now on is gone. A time that no clock reaches is for ever.
fn expiry(now: Option<Instant>, lasts: Option<Duration>) -> Option<Instant> {
    now?.checked_add(lasts?)
}

/// Refuses a key, as one that is too much for the filter's bytes.
fn too_long(owner: &Ledger) -> Status {
    owner.count(Limit::SharedBytes);
    Status::InternalFailure
}

fn number(bytes: &[u8]) -> Result<i64, Status> {
    bytes.try_into().map(i64::from_le_bytes).map_err(|_| Status::BadArgument)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Ledgers;

    fn ledger(name: &str) -> Arc<Ledger> {
        Ledgers::default().of(name)
    }

    #[test]
    fn a_version_must_match_unless_the_key_is_new() {
        let data = SharedData::default();
        let namespace = data.namespace("vm");
        let (owner, limits) = (ledger("one"), Limits::default());
        let set = |value: &[u8], version| namespace.set(b"k", value, version, &owner, &limits);
        assert_eq!(set(b"1", 77), Ok(()));
        let (value, version) = namespace.find(b"k").unwrap();
        assert_eq!((&value[..], version != 0), (&b"1"[..], true));
        assert_eq!(set(b"2", version + 1), Err(Status::CasMismatch));
        assert_eq!(set(b"2", version), Ok(()));
        assert_eq!(set(b"3", version), Err(Status::CasMismatch));
        assert_eq!(set(b"3", 0), Ok(()));
        assert_eq!(data.namespace("vm").find(b"k").unwrap().0, "3");
        assert_eq!(data.namespace("other").find(b"k"), None);
        assert_eq!(namespace.remove(b"k", version), Err(Status::CasMismatch));
        assert_eq!(namespace.remove(b"k", 0), Ok(()));
        assert_eq!(namespace.find(b"k"), None);
    }

    #[test]
    fn quotas_hold_and_are_given_back() {
        let namespace = Namespace::default();
        let owner = ledger("one");
        let limits = Limits { shared_keys: 100, shared_bytes: 10_000, ..Limits::default() };
        let set = |key: &str, value: &[u8]| namespace.set(key.as_bytes(), value, 0, &owner, &limits);
        for number in 0..100 {
            assert_eq!(set(&number.to_string(), b""), Ok(()));
        }
        assert_eq!(set("one more", b""), Err(Status::InternalFailure));
        assert_eq!(owner.exceeded(Limit::SharedKeys), 1);
        assert_eq!(namespace.remove(b"7", 0), Ok(()));
        assert_eq!(set("one more", b""), Ok(()));
        let large = vec![0; 5_000];
        assert_eq!(set("1", &large), Ok(()));
        assert_eq!(set("2", &large), Err(Status::InternalFailure));
        assert_eq!(owner.exceeded(Limit::SharedBytes), 1);
        assert_eq!(set("1", &large), Ok(()), "it replaces itself");
        assert_eq!(set("1", b""), Ok(()));
        assert_eq!(set("2", &large), Ok(()));
        drop(namespace);
        assert_eq!((owner.shared_keys.used(), owner.shared_bytes.used()), (0, 0));
    }

    #[test]
    fn a_filter_does_not_use_up_what_another_may_keep() {
        let namespace = Namespace::default();
        let (greedy, modest) = (ledger("greedy"), ledger("modest"));
        let limits = Limits { shared_keys: 1, ..Limits::default() };
        assert_eq!(namespace.set(b"1", b"", 0, &greedy, &limits), Ok(()));
        assert_eq!(namespace.set(b"2", b"", 0, &greedy, &limits), Err(Status::InternalFailure));
        assert_eq!(namespace.set(b"2", b"", 0, &modest, &limits), Ok(()));
        // A key counts for who set it last.
        assert_eq!(namespace.set(b"1", b"", 0, &modest, &limits), Err(Status::InternalFailure));
        assert_eq!(namespace.remove(b"2", 0), Ok(()));
        assert_eq!(namespace.set(b"1", b"", 0, &modest, &limits), Ok(()));
        assert_eq!((greedy.shared_keys.used(), modest.shared_keys.used()), (0, 1));
    }

    #[test]
    fn data_goes_with_the_last_vm_of_its_id() {
        let data = SharedData::default();
        let namespace = data.namespace("vm");
        namespace.set(b"k", b"v", 0, &ledger("one"), &Limits::default()).unwrap();
        drop(namespace);
        assert_eq!(data.namespace("vm").find(b"k"), None);
    }

    #[test]
    fn keys_have_an_end() {
        let namespace = Namespace::default();
        let (owner, limits) = (ledger("one"), Limits::default());
        let longest = vec![0; MAX_KEY];
        let set = |key: &[u8]| namespace.set(key, b"v", 0, &owner, &limits);
        assert_eq!(set(&longest), Ok(()));
        assert!(namespace.find(&longest).is_some());
        let longer = vec![0; MAX_KEY + 1];
        assert_eq!(set(&longer), Err(Status::InternalFailure));
        let added = namespace.add(&longer, &adding(1), None, &owner, &limits);
        assert_eq!(added, Err(Status::InternalFailure));
        assert_eq!((namespace.find(&longer), namespace.find_lasting(&longer)), (None, None));
        assert_eq!(namespace.remove(&longer, 7), Ok(()), "as any key that is not there");
        namespace.release(&longer, 1);
        assert_eq!((owner.exceeded(Limit::SharedBytes), owner.shared_keys.used()), (2, 1));
    }

    fn adding(amount: i64) -> KvAdd {
        KvAdd { amount, ..KvAdd::default() }
    }

    #[test]
    fn what_has_expired_is_not_there() {
        let namespace = Namespace::default();
        let (owner, limits) = (ledger("one"), Limits { shared_keys: 2, ..Limits::default() });
        let put = |key: &[u8], version, lasts| namespace.put(key, b"v", version, lasts, &owner, &limits);
        let (at_once, long) = (Some(Duration::from_nanos(1)), Some(Duration::from_secs(3_600)));
        assert_eq!((put(b"short", 0, at_once), put(b"long", 0, long)), (Ok(()), Ok(())));
        while namespace.find(b"short").is_some() {
            std::thread::yield_now();
        }
        assert_eq!(namespace.find_lasting(b"short"), None);
        let (_, version, left) = namespace.find_lasting(b"long").unwrap();
        assert!(left.unwrap() > Duration::from_secs(3_000));
        assert_eq!(put(b"long", version + 1, long), Err(Status::CasMismatch));
        // Which version it had does not matter any more, and its room is free.
        assert_eq!(put(b"short", 77, None), Ok(()));
        assert_eq!(namespace.find_lasting(b"short").unwrap().2, None);
        assert_eq!(put(b"long", version, None), Ok(()), "set anew, it stays");
        assert_eq!(namespace.find_lasting(b"long").unwrap().2, None);
        assert_eq!((owner.shared_keys.used(), put(b"third", 0, None)), (2, Err(Status::InternalFailure)));
    }

    #[test]
    fn expired_keys_make_room_for_new_ones() {
        let namespace = Namespace::default();
        let (owner, limits) = (ledger("one"), Limits { shared_keys: 100, ..Limits::default() });
        let put = |number: u32, lasts| namespace.put(&number.to_le_bytes(), b"", 0, lasts, &owner, &limits);
        for number in 0..100 {
            put(number, Some(Duration::from_millis(20))).unwrap();
        }
        // A new key clears the shard that it comes into, now or when somebody has not just done so.
        let (began, mut fresh) = (Instant::now(), 0);
        for number in 100.. {
            fresh += u32::from(put(number, None).is_ok());
            if fresh == 100 {
                break;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "{fresh} of 100");
        }
        assert_eq!(owner.shared_keys.used(), 100);
    }

    #[test]
    fn numbers_are_changed_within_bounds() {
        let namespace = Namespace::default();
        let (owner, limits) = (ledger("one"), Limits::default());
        let add = |add: &KvAdd| namespace.add(b"k", add, None, &owner, &limits);
        let done = |number| Ok(Added { number, done: true, evicted: false });
        let not = |number| Ok(Added { number, done: false, evicted: false });
        assert_eq!(add(&KvAdd { most: Some(0), ..adding(1) }), not(0));
        assert_eq!(namespace.find(b"k"), None, "what is not done leaves nothing");
        assert_eq!(add(&adding(5)), done(5));
        assert_eq!(namespace.find(b"k").unwrap().0, &5_i64.to_le_bytes()[..]);
        assert_eq!(add(&KvAdd { most: Some(6), ..adding(2) }), not(5));
        assert_eq!(add(&KvAdd { most: Some(7), ..adding(2) }), done(7));
        assert_eq!(add(&KvAdd { least: Some(100), most: Some(100), ..adding(1) }), not(100));
        assert_eq!(add(&KvAdd { least: Some(0), ..adding(-9) }), done(0));
        namespace.set(b"k", b"text", 0, &owner, &limits).unwrap();
        assert_eq!(add(&adding(1)), Err(Status::BadArgument));
    }

    #[test]
    fn workers_that_count_at_once_lose_nothing_and_exceed_nothing() {
        const MOST: i64 = 5_000;
        let namespace = Namespace::default();
        let (owner, limits) = (ledger("one"), Limits::default());
        let limited = KvAdd { most: Some(MOST), ..adding(1) };
        let taken = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        let added = namespace.add(b"k", &limited, None, &owner, &limits).unwrap();
                        taken.fetch_add(added.done.into(), Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(i64::from(taken.into_inner()), MOST);
        assert_eq!(namespace.find(b"k").unwrap().0, &MOST.to_le_bytes()[..]);
    }

    #[test]
    fn a_new_key_may_take_the_place_of_one_that_is_soon_gone() {
        let namespace = Namespace::default();
        let (owner, other) = (ledger("one"), ledger("other"));
        let limits = Limits { shared_keys: 40, ..Limits::default() };
        let hour = Some(Duration::from_secs(3_600));
        let add = |number: u32, evict, owner| {
            namespace.add(&number.to_le_bytes(), &KvAdd { evict, ..adding(1) }, hour, owner, &limits)
        };
        assert!(!add(0, true, &other).unwrap().evicted);
        for number in 1..=40 {
            assert!(!add(number, true, &owner).unwrap().evicted);
        }
        assert_eq!(add(41, false, &owner), Err(Status::InternalFailure));
        for number in 41..1_000 {
            assert!(add(number, true, &owner).unwrap().evicted);
        }
        assert_eq!((owner.shared_keys.used(), other.shared_keys.used()), (40, 1));
        assert!(namespace.find(&0_u32.to_le_bytes()).is_some(), "another filter's key stays");
        assert!(owner.exceeded(Limit::SharedKeys) > 0);
    }
}
