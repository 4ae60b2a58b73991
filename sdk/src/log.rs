//! Log lines. The host adds the filter's name and the time.
//!
//! ```
//! meshgate_sdk::info!("configured with {} routes", 3);
//! ```

use crate::host;

/// How much a line matters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u32)]
pub enum Level {
    /// Every step.
    Trace = 0,
    /// What helps to find a mistake.
    Debug = 1,
    /// What is worth knowing.
    Info = 2,
    /// Something is wrong, and the filter goes on.
    Warn = 3,
    /// Something failed.
    Error = 4,
    /// Nothing goes on.
    Critical = 5,
}

/// Writes one line.
pub fn line(level: Level, message: &str) {
    host::log(level as u32, message);
}

/// Logs at level `debug`, with the arguments of `format!`.
#[macro_export]
macro_rules! debug {
    ($($argument:tt)*) => { $crate::log::line($crate::log::Level::Debug, &::std::format!($($argument)*)) };
}

/// Logs at level `info`, with the arguments of `format!`.
#[macro_export]
macro_rules! info {
    ($($argument:tt)*) => { $crate::log::line($crate::log::Level::Info, &::std::format!($($argument)*)) };
}

/// Logs at level `warn`, with the arguments of `format!`.
#[macro_export]
macro_rules! warn {
    ($($argument:tt)*) => { $crate::log::line($crate::log::Level::Warn, &::std::format!($($argument)*)) };
}

/// Logs at level `error`, with the arguments of `format!`.
#[macro_export]
macro_rules! error {
    ($($argument:tt)*) => { $crate::log::line($crate::log::Level::Error, &::std::format!($($argument)*)) };
}
