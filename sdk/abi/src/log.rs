//! `meshgate.log`: what a filter says of an exchange to whoever reads its entry in the access log.

use prost::Message;

/// What a filter says of the current exchange. Argument of [`function::LOG`](crate::function::LOG).
///
/// ```proto
/// message LogEntry {
///   repeated string flags = 1;
///   repeated LogField fields = 2;
///   optional bytes line = 3;
/// }
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct LogEntry {
    /// Response flags, by their letters: one of [`CLAIMABLE_FLAGS`].
    #[prost(string, repeated, tag = "1")]
    pub flags: Vec<String>,
    /// Fields for the entry. One of a name that is there already takes its place.
    #[prost(message, repeated, tag = "2")]
    pub fields: Vec<LogField>,
    /// The entry's whole line, without its end, in the place of the one that the log would have. What is no printable text in it
    /// becomes a blank.
    #[prost(bytes = "vec", optional, tag = "3")]
    pub line: Option<Vec<u8>>,
}

/// A field of an entry in the access log.
///
/// ```proto
/// message LogField {
///   string name = 1;
///   bytes value = 2;
/// }
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct LogField {
    /// The name: see [`is_log_field_name`].
    #[prost(string, tag = "1")]
    pub name: String,
    /// The value; any bytes, which the log escapes.
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

/// The response flags that filters may set: those that say what a filter did. All others are the proxy's own to find.
pub const CLAIMABLE_FLAGS: [&str; 7] = ["DI", "FI", "RL", "UAEX", "RLSE", "RFCF", "DO"];

/// Whether a field of the access log may have this name: 1 to 64 of `a`-`z`, `0`-`9`, `_`, `-` and `.`.
pub fn is_log_field_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.".contains(&byte))
}
