//! `meshgate.encode`: the coding in which a response's body goes to the client.

use prost::Message;

/// The coding for the current exchange's response. Argument of [`function::ENCODE`](crate::function::ENCODE).
///
/// ```proto
/// message Encode {
///   string coding = 1;
///   uint32 level = 2;
/// }
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct Encode {
    /// The coding's name in `content-encoding`: `gzip`.
    #[prost(string, tag = "1")]
    pub coding: String,
    /// How hard to try, 1 to 9; 0 leaves it to the host.
    #[prost(uint32, tag = "2")]
    pub level: u32,
}
