//! `meshgate.kv`: shared data with expiry, and numbers that are changed in one step.

use prost::{Message, Oneof};

/// What is to be done with one key of the shared data of the filter's `vm`. Argument of
/// [`function::KV`](crate::function::KV). The keys are those of `proxy_get_shared_data` and `proxy_set_shared_data`.
///
/// ```proto
/// message KvRequest {
///   bytes key = 1;
///   oneof operation { KvGet get = 2; KvSet set = 3; KvRemove remove = 4; KvAdd add = 5; }
/// }
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct KvRequest {
    /// The key.
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    /// What is to be done.
    #[prost(oneof = "KvOperation", tags = "2, 3, 4, 5")]
    pub operation: Option<KvOperation>,
}

/// The operations of a [`KvRequest`].
#[derive(Clone, PartialEq, Eq, Hash, Oneof)]
pub enum KvOperation {
    /// Reads the value.
    #[prost(message, tag = "2")]
    Get(KvGet),
    /// Sets it.
    #[prost(message, tag = "3")]
    Set(KvSet),
    /// Removes it.
    #[prost(message, tag = "4")]
    Remove(KvRemove),
    /// Changes a number.
    #[prost(message, tag = "5")]
    Add(KvAdd),
}

/// Reads a value: [`KvAnswer::done`] says whether there is one.
///
/// ```proto
/// message KvGet {}
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Message)]
pub struct KvGet {}

/// Sets a value.
///
/// ```proto
/// message KvSet {
///   bytes value = 1;
///   uint32 version = 2;
///   uint64 expire_ms = 3;
/// }
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct KvSet {
    /// The value.
    #[prost(bytes = "vec", tag = "1")]
    pub value: Vec<u8>,
    /// If not 0 and there is a value: only if it has this version.
    #[prost(uint32, tag = "2")]
    pub version: u32,
    /// After how many milliseconds it is gone; 0: never.
    #[prost(uint64, tag = "3")]
    pub expire_ms: u64,
}

/// Removes a value; it is done if there is none.
///
/// ```proto
/// message KvRemove { uint32 version = 1; }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Message)]
pub struct KvRemove {
    /// If not 0 and there is a value: only if it has this version.
    #[prost(uint32, tag = "1")]
    pub version: u32,
}

/// Changes a number: a value of eight bytes, little-endian, signed; one that is not there is 0. The number is first raised
/// to `least`; then `amount` is added, unless the sum would be more than `most`, and the sum is no less than `least`. All of
/// it is one step: two workers that do it at once do it one after the other.
///
/// ```proto
/// message KvAdd {
///   sint64 amount = 1;
///   optional sint64 least = 2;
///   optional sint64 most = 3;
///   uint64 expire_ms = 4;
///   bool evict = 5;
///   bool hold = 6;
/// }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Message)]
pub struct KvAdd {
    /// What is added; may be negative. Sums stop at the greatest and the least number.
    #[prost(sint64, tag = "1")]
    pub amount: i64,
    /// The least that the number is.
    #[prost(sint64, optional, tag = "2")]
    pub least: Option<i64>,
    /// The most that it may become by adding: with more, nothing changes. Amounts of 0 and less are not held against it.
    #[prost(sint64, optional, tag = "3")]
    pub most: Option<i64>,
    /// After how many milliseconds, from this change on, it is gone; 0: as it was, and a new one never.
    #[prost(uint64, tag = "4")]
    pub expire_ms: u64,
    /// If there is no room for a new key: makes some by removing one of this filter's that is soon gone anyway.
    #[prost(bool, tag = "5")]
    pub evict: bool,
    /// For as long as the exchange, or the connection, of the calling stream lasts: when it is over, in whatever way, the host
    /// takes the amount back, and removes the number if nothing is left of it. With a positive amount, and without an expiry.
    #[prost(bool, tag = "6")]
    pub hold: bool,
}

/// What a [`KvRequest`] came to.
///
/// ```proto
/// message KvAnswer {
///   bool done = 1;
///   bytes value = 2;
///   uint32 version = 3;
///   uint64 expires_ms = 4;
///   sint64 number = 5;
///   bool evicted = 6;
/// }
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct KvAnswer {
    /// Get: there is a value. Set, remove: the version was the right one. Add: the amount was added.
    #[prost(bool, tag = "1")]
    pub done: bool,
    /// Get: the value.
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
    /// Get: its version.
    #[prost(uint32, tag = "3")]
    pub version: u32,
    /// Get: in how many milliseconds it is gone; 0: never.
    #[prost(uint64, tag = "4")]
    pub expires_ms: u64,
    /// Add: the number now; where nothing was added, raised to `least`.
    #[prost(sint64, tag = "5")]
    pub number: i64,
    /// Add: another key was removed to make room.
    #[prost(bool, tag = "6")]
    pub evicted: bool,
}

impl KvAdd {
    /// What becomes of a number; `None`: nothing, as the sum would be more than [`most`](Self::most).
    pub fn of(&self, number: i64) -> Option<i64> {
        let raised = self.raised(number);
        let sum = raised.saturating_add(self.amount);
        if self.amount > 0 && self.most.is_some_and(|most| sum > most) {
            return None;
        }
        Some(self.raised(sum))
    }

    /// The number, raised to [`least`](Self::least).
    pub fn raised(&self, number: i64) -> i64 {
        self.least.map_or(number, |least| number.max(least))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_within_their_bounds() {
        let add = |amount, least, most| KvAdd { amount, least, most, ..KvAdd::default() };
        assert_eq!(add(2, None, None).of(40), Some(42));
        assert_eq!(add(1, None, None).of(i64::MAX), Some(i64::MAX));
        assert_eq!(add(2, None, Some(42)).of(40), Some(42));
        assert_eq!(add(3, None, Some(42)).of(40), None);
        assert_eq!(add(3, Some(10), Some(12)).of(0), None);
        assert_eq!(add(2, Some(10), Some(12)).of(0), Some(12));
        assert_eq!(add(-3, Some(0), None).of(2), Some(0));
        assert_eq!(add(-1, None, Some(5)).of(9), Some(8), "less is always possible");
        assert_eq!(add(0, Some(7), Some(5)).of(1), Some(7));
    }

    #[test]
    fn a_request_reads_as_it_is_written_down() {
        let add = KvAdd { amount: -1, least: Some(0), most: None, expire_ms: 300, evict: true, hold: true };
        let request = KvRequest { key: b"k".to_vec(), operation: Some(KvOperation::Add(add)) };
        let bytes = [
            0x0a, 1, b'k', // key
            0x2a, 11, // add
            0x08, 1, // amount: zigzag of -1
            0x10, 0, // least: there, and 0
            0x20, 0xac, 0x02, // expire_ms
            0x28, 1, // evict
            0x30, 1, // hold
        ];
        assert_eq!(request.encode_to_vec(), bytes);
        assert_eq!(KvRequest::decode(&bytes[..]), Ok(request));
    }
}
