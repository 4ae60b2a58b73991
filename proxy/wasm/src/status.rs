//! The numbers of the ABI that both sides name: the status of a hostcall and the level of a log line.

/// What a hostcall answers. Guests built on the Rust SDK trap on any status they do not expect, so which one is
/// answered where is part of the ABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Status {
    /// Done.
    Ok = 0,
    /// The thing asked for does not exist, now or at all.
    NotFound = 1,
    /// An argument is outside of what the call accepts, or the thing cannot be written.
    BadArgument = 2,
    /// A value cannot be put in its serialized form.
    SerializationFailure = 3,
    /// Bytes from the guest cannot be parsed.
    ParseFailure = 4,
    /// A pointer or length lies outside of the guest's memory.
    InvalidMemoryAccess = 6,
    /// The queue has no item.
    Empty = 7,
    /// The compare-and-set value is not the current one.
    CasMismatch = 8,
    /// The host cannot do it now: a quota is used up or something failed.
    InternalFailure = 10,
    /// This host does not implement the call.
    Unimplemented = 12,
}

/// The level of a guest's log line, lowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum LogLevel {
    /// Every step.
    Trace = 0,
    /// For the filter's author.
    Debug = 1,
    /// Normal events.
    Info = 2,
    /// Something to look at.
    Warn = 3,
    /// Something failed.
    Error = 4,
    /// The guest is about to give up; the Rust SDK logs panics at this level.
    Critical = 5,
}

impl LogLevel {
    /// The level with the ABI's number, none above 5.
    pub fn from_abi(number: u32) -> Option<LogLevel> {
        Some(match number {
            0 => LogLevel::Trace,
            1 => LogLevel::Debug,
            2 => LogLevel::Info,
            3 => LogLevel::Warn,
            4 => LogLevel::Error,
            5 => LogLevel::Critical,
            _ => return None,
        })
    }
}
