//! `x-request-id`: keeping a client's, making ours.

use std::cell::Cell;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

use http::HeaderValue;

/// Longest id taken over from a client, in bytes.
const MAX_LENGTH: usize = 128;

/// Whether a client's id may be taken over: short, and harmless in a log, a URL and a shell.
pub fn is_valid(id: &[u8]) -> bool {
    !id.is_empty()
        && id.len() <= MAX_LENGTH
        && id.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:+/=@".contains(byte))
}

/// A new random id in the form of a version 4 UUID. Unique, but not secret: the generator is fast, not cryptographic.
pub fn new() -> HeaderValue {
    let bits = (u128::from(random()) << 64 | u128::from(random())) & !VERSION_AND_VARIANT | VERSION_4;
    let mut text = [b'-'; 36];
    let mut at = 0;
    for digit in (0..32).rev() {
        if matches!(at, 8 | 13 | 18 | 23) {
            at += 1;
        }
        text[at] = HEX[(bits >> (digit * 4) & 0xf) as usize];
        at += 1;
    }
    HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static("0"))
}

const HEX: &[u8; 16] = b"0123456789abcdef";
const VERSION_AND_VARIANT: u128 = 0xf << 76 | 0b11 << 62;
const VERSION_4: u128 = 4 << 76 | 0b10 << 62;

thread_local! {
    // The standard library's hash keys come from the operating system's random source.
    static STATE: Cell<u64> = Cell::new(RandomState::new().build_hasher().finish());
}

/// Splitmix64: full period, passes the usual statistical tests, a few instructions.
fn random() -> u64 {
    let state = STATE.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    STATE.set(state);
    let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ids_are_uuids_and_differ() {
        let ids: HashSet<String> = (0..1000).map(|_| new().to_str().unwrap().to_owned()).collect();
        assert_eq!(ids.len(), 1000);
        for id in ids {
            let groups: Vec<usize> = id.split('-').map(str::len).collect();
            assert_eq!(groups, [8, 4, 4, 4, 12], "{id}");
            assert_eq!(id.as_bytes()[14], b'4', "{id}");
            assert!(b"89ab".contains(&id.as_bytes()[19]), "{id}");
            assert!(is_valid(id.as_bytes()), "{id}");
        }
    }

    #[test]
    fn threads_do_not_repeat_each_other() {
        let other = std::thread::spawn(|| (0..100).map(|_| new()).collect::<Vec<_>>()).join().unwrap();
        let mine: HashSet<_> = (0..100).map(|_| new()).collect();
        assert!(other.iter().all(|id| !mine.contains(id)));
    }

    #[test]
    fn a_clients_id_must_be_harmless() {
        for good in ["a", "7b6e0f0c-0000", "A_b.c:d+e/f=@"] {
            assert!(is_valid(good.as_bytes()), "{good}");
        }
        for bad in ["", "a b", "a\"b", "a\tb", "a;b", "a\u{e9}", "${x}"] {
            assert!(!is_valid(bad.as_bytes()), "{bad}");
        }
        assert!(is_valid(&[b'a'; 128]) && !is_valid(&[b'a'; 129]));
    }
}
