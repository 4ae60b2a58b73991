//! Shared data: keys and values that VMs of one id see on all workers.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};

use bytes::Bytes;

use super::lock;
use crate::ledger::Ledger;
use crate::limits::{Limit, Limits};
use crate::status::Status;

/// Locks per namespace, so that workers seldom wait for each other.
const SHARDS: usize = 16;
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
type Shard = HashMap<Box<[u8]>, Value>;

/// A value, its version, and the filter that it counts for: the one that set it last.
#[derive(Debug)]
struct Value {
    bytes: Bytes,
    version: u32,
    cost: Cost,
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

impl Namespace {
    /// The value and its version, which a compare-and-set may name.
    pub(crate) fn find(&self, key: &[u8]) -> Option<(Bytes, u32)> {
        lock(self.shard(key)).get(key).map(|value| (value.bytes.clone(), value.version))
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
        let cost = key.len() + value.len();
        let mut shard = lock(self.shard(key));
        match shard.get_mut(key) {
            Some(current) if version != 0 && current.version != version => Err(Status::CasMismatch),
            Some(current) => {
                current.cost.change(cost, owner, limits)?;
                current.bytes = Bytes::copy_from_slice(value);
                current.version = self.next_version();
                Ok(())
            }
            None => {
                let cost = Cost::take(cost, owner, limits)?;
                let bytes = Bytes::copy_from_slice(value);
                shard.insert(key.into(), Value { bytes, version: self.next_version(), cost });
                Ok(())
            }
        }
    }

    /// Removes a key; fine if there is none.
    pub(crate) fn remove(&self, key: &[u8], version: u32) -> Result<(), Status> {
        let mut shard = lock(self.shard(key));
        let Entry::Occupied(entry) = shard.entry(key.into()) else { return Ok(()) };
        if version != 0 && entry.get().version != version {
            return Err(Status::CasMismatch);
        }
        entry.remove();
        Ok(())
    }

    fn shard(&self, key: &[u8]) -> &Mutex<Shard> {
        &self.shards[self.hasher.hash_one(key) as usize % SHARDS]
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
}
