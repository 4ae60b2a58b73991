//! Shared data: keys and values that VMs of one id see on all workers.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

use bytes::Bytes;

use super::lock;
use crate::status::Status;

/// Locks per namespace, so that workers seldom wait for each other.
const SHARDS: usize = 16;
/// Keys of a namespace.
const MAX_KEYS: usize = 10_000;
/// Bytes of a namespace, keys and values.
const MAX_BYTES: usize = 8 << 20;

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
type Shard = HashMap<Box<[u8]>, (Bytes, u32)>;

/// The data of one VM id.
#[derive(Debug, Default)]
pub(crate) struct Namespace {
    hasher: RandomState,
    shards: [Mutex<Shard>; SHARDS],
    keys: AtomicUsize,
    bytes: AtomicUsize,
    version: AtomicU32,
}

impl Namespace {
    /// The value and its version, which a compare-and-set may name.
    pub(crate) fn find(&self, key: &[u8]) -> Option<(Bytes, u32)> {
        lock(self.shard(key)).get(key).cloned()
    }

    /// Sets a value. A version other than 0 must be the current one, if the key exists.
    pub(crate) fn set(&self, key: &[u8], value: &[u8], version: u32) -> Result<(), Status> {
        let mut shard = lock(self.shard(key));
        match shard.get_mut(key) {
            Some((_, current)) if version != 0 && *current != version => Err(Status::CasMismatch),
            Some((old, current)) => {
                self.reserve(0, value.len(), old.len())?;
                *old = Bytes::copy_from_slice(value);
                *current = self.next_version();
                Ok(())
            }
            None => {
                self.reserve(1, key.len() + value.len(), 0)?;
                shard.insert(key.into(), (Bytes::copy_from_slice(value), self.next_version()));
                Ok(())
            }
        }
    }

    /// Removes a key; fine if there is none.
    pub(crate) fn remove(&self, key: &[u8], version: u32) -> Result<(), Status> {
        let mut shard = lock(self.shard(key));
        let Entry::Occupied(entry) = shard.entry(key.into()) else { return Ok(()) };
        let (value, current) = entry.get();
        if version != 0 && *current != version {
            return Err(Status::CasMismatch);
        }
        self.keys.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(key.len() + value.len(), Ordering::Relaxed);
        entry.remove();
        Ok(())
    }

    fn shard(&self, key: &[u8]) -> &Mutex<Shard> {
        &self.shards[self.hasher.hash_one(key) as usize % SHARDS]
    }

    /// Counts towards the quotas, or refuses.
    fn reserve(&self, keys: usize, bytes: usize, freed: usize) -> Result<(), Status> {
        let total = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if total.saturating_sub(freed) > MAX_BYTES || self.keys.load(Ordering::Relaxed) + keys > MAX_KEYS {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err(Status::InternalFailure);
        }
        self.bytes.fetch_sub(freed, Ordering::Relaxed);
        self.keys.fetch_add(keys, Ordering::Relaxed);
        Ok(())
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

    #[test]
    fn a_version_must_match_unless_the_key_is_new() {
        let data = SharedData::default();
        let namespace = data.namespace("vm");
        assert_eq!(namespace.set(b"k", b"1", 77), Ok(()));
        let (value, version) = namespace.find(b"k").unwrap();
        assert_eq!((&value[..], version != 0), (&b"1"[..], true));
        assert_eq!(namespace.set(b"k", b"2", version + 1), Err(Status::CasMismatch));
        assert_eq!(namespace.set(b"k", b"2", version), Ok(()));
        assert_eq!(namespace.set(b"k", b"3", version), Err(Status::CasMismatch));
        assert_eq!(namespace.set(b"k", b"3", 0), Ok(()));
        assert_eq!(data.namespace("vm").find(b"k").unwrap().0, "3");
        assert_eq!(data.namespace("other").find(b"k"), None);
        assert_eq!(namespace.remove(b"k", version), Err(Status::CasMismatch));
        assert_eq!(namespace.remove(b"k", 0), Ok(()));
        assert_eq!(namespace.find(b"k"), None);
    }

    #[test]
    fn quotas_hold_and_are_given_back() {
        let namespace = Namespace::default();
        for number in 0..MAX_KEYS {
            assert_eq!(namespace.set(number.to_string().as_bytes(), b"", 0), Ok(()));
        }
        assert_eq!(namespace.set(b"one more", b"", 0), Err(Status::InternalFailure));
        assert_eq!(namespace.remove(b"7", 0), Ok(()));
        assert_eq!(namespace.set(b"one more", b"", 0), Ok(()));
        let large = vec![0; MAX_BYTES / 2];
        assert_eq!(namespace.set(b"1", &large, 0), Ok(()));
        assert_eq!(namespace.set(b"2", &large, 0), Err(Status::InternalFailure));
        assert_eq!(namespace.set(b"1", &large, 0), Ok(()), "it replaces itself");
        assert_eq!(namespace.set(b"1", b"", 0), Ok(()));
        assert_eq!(namespace.set(b"2", &large, 0), Ok(()));
    }

    #[test]
    fn data_goes_with_the_last_vm_of_its_id() {
        let data = SharedData::default();
        let namespace = data.namespace("vm");
        namespace.set(b"k", b"v", 0).unwrap();
        drop(namespace);
        assert_eq!(data.namespace("vm").find(b"k"), None);
    }
}
