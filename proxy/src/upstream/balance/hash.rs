//! The hash of ring and Maglev. It must stay what it is: every proxy of a fleet, of any version, sends a key to the same
//! endpoint. Not meant to withstand clients that choose their keys: whoever controls the key chooses the endpoint anyway.

/// FNV-1a, and a finalizer that spreads short keys over all 64 bits.
pub(in crate::upstream) fn hash(bytes: &[u8]) -> u64 {
    let folded = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    mix(folded)
}

/// The same for a key's n-th point.
pub(super) fn hash_again(hash: u64, n: u64) -> u64 {
    mix(hash ^ mix(n.wrapping_add(0x9e37_79b9_7f4a_7c15)))
}

/// The finalizer of splitmix64.
fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_what_it_always_was() {
        assert_eq!(hash(b""), 0xf52a_15e9_a9b5_e89b);
        assert_eq!(hash(b"127.0.0.1:9001"), hash(b"127.0.0.1:9001"));
        assert_ne!(hash(b"a"), hash(b"b"));
    }
}
