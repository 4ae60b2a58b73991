//! Hashes by which parts built from files are known again.

use sha2::{Digest, Sha256};

/// Of everything that something was made from.
pub(super) type Fingerprint = [u8; 32];

/// Takes bytes in with their length, so that two lists never look the same.
pub(super) fn absorb(hasher: &mut Sha256, bytes: &[u8]) {
    hasher.update((bytes.len() as u64).to_be_bytes());
    hasher.update(bytes);
}
