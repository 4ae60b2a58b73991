//! `meshgate.throttle`: the speed at which a response's body goes to the client.

use prost::Message;

/// The speed for the current exchange's response. Argument of [`function::THROTTLE`](crate::function::THROTTLE).
///
/// ```proto
/// message Throttle { uint64 bytes_per_second = 1; }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Message)]
pub struct Throttle {
    /// How many bytes of the body go in a second, at most; 0: as fast as they can.
    #[prost(uint64, tag = "1")]
    pub bytes_per_second: u64,
}
