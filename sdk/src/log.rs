//! Log lines. The host adds the filter's name and the time.
//!
//! ```
//! meshgate_sdk::info!("configured with {} routes", 3);
//! meshgate_sdk::warn!("denied"; user = "ann", reason = "token expired");
//! ```

use std::fmt::{self, Write};

use crate::host::{self, LogLevel};

/// How much a line matters.
///
/// ```
/// use meshgate_sdk::log::{Level, line};
///
/// /// Failures of the endpoint are worth a line, others only to those who look for a mistake.
/// fn tell(status: u16) {
///     let level = if status >= 500 { Level::Warn } else { Level::Debug };
///     line(level, &format!("answered with {status}"));
/// }
/// # tell(503);
/// # assert!(Level::Debug < Level::Warn);
/// ```
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
///
/// ```
/// use meshgate_sdk::log::{self, Level};
///
/// log::line(Level::Info, "ready");
/// meshgate_sdk::info!("ready"); // the same
/// ```
pub fn line(level: Level, message: &str) {
    let level = match level {
        Level::Trace => LogLevel::Trace,
        Level::Debug => LogLevel::Debug,
        Level::Info => LogLevel::Info,
        Level::Warn => LogLevel::Warn,
        Level::Error => LogLevel::Error,
        Level::Critical => LogLevel::Critical,
    };
    host::log(level, message);
}

/// A line with fields: what the macros make of `; key = value`.
#[doc(hidden)]
pub fn fields(level: Level, message: &str, fields: &[(&str, &dyn fmt::Display)]) {
    let mut text = message.to_owned();
    for (key, value) in fields {
        // Writing to a string does not fail.
        let _ = write!(text, " {key}=");
        push_value(&mut text, &value.to_string());
    }
    line(level, &text);
}

/// As it stands if it is one word, else in quotes.
fn push_value(text: &mut String, value: &str) {
    let is_word = |letter: char| !(letter.is_whitespace() || letter.is_control() || "\"=\\".contains(letter));
    if !value.is_empty() && value.chars().all(is_word) {
        text.push_str(value);
        return;
    }
    text.push('"');
    for letter in value.chars() {
        match letter {
            '"' | '\\' => text.extend(['\\', letter]),
            letter if letter.is_control() => text.extend(letter.escape_default()),
            letter => text.push(letter),
        }
    }
    text.push('"');
}

/// Logs at a level: [`info!`](crate::info) and its like.
#[doc(hidden)]
#[macro_export]
macro_rules! log_line {
    ($level:ident, $format:literal $(, $argument:expr)* ; $($key:ident = $value:expr),+ $(,)?) => {
        $crate::log::fields(
            $crate::log::Level::$level,
            &::std::format!($format $(, $argument)*),
            &[$((::core::stringify!($key), &$value as &dyn ::core::fmt::Display)),+],
        )
    };
    ($level:ident, $($argument:tt)*) => {
        $crate::log::line($crate::log::Level::$level, &::std::format!($($argument)*))
    };
}

/// Logs at level `debug`, with the arguments of `format!`, and fields as [`info!`](crate::info) has them.
///
/// ```
/// let path = "/orders";
/// meshgate_sdk::debug!("nothing is known of {path}");
/// meshgate_sdk::debug!("looked up"; path = path, found = false);
/// // The lines: nothing is known of /orders
/// //            looked up path=/orders found=false
/// ```
#[macro_export]
macro_rules! debug {
    ($($argument:tt)*) => { $crate::log_line!(Debug, $($argument)*) };
}

/// Logs at level `info`, with the arguments of `format!`; after a semicolon, fields: a key and a value that can be displayed.
///
/// ```
/// let (user, path) = ("ann", "/a b");
/// meshgate_sdk::info!("denied {}", "again"; user = user, path = path, attempt = 3);
/// // The line: denied again user=ann path="/a b" attempt=3
/// ```
#[macro_export]
macro_rules! info {
    ($($argument:tt)*) => { $crate::log_line!(Info, $($argument)*) };
}

/// Logs at level `warn`, with the arguments of `format!`, and fields as [`info!`](crate::info) has them.
///
/// ```
/// let left = 3;
/// meshgate_sdk::warn!("only {left} places are left"; of = 100);
/// // The line: only 3 places are left of=100
/// ```
#[macro_export]
macro_rules! warn {
    ($($argument:tt)*) => { $crate::log_line!(Warn, $($argument)*) };
}

/// Logs at level `error`, with the arguments of `format!`, and fields as [`info!`](crate::info) has them.
///
/// ```
/// if let Err(error) = "many".parse::<u32>() {
///     meshgate_sdk::error!("cannot read the number"; reason = error);
///     // The line: cannot read the number reason="invalid digit found in string"
/// }
/// ```
#[macro_export]
macro_rules! error {
    ($($argument:tt)*) => { $crate::log_line!(Error, $($argument)*) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stand_as_they_are_or_in_quotes() {
        let value = |value| {
            let mut text = String::new();
            push_value(&mut text, value);
            text
        };
        assert_eq!(value("spiffe://mesh/ann"), "spiffe://mesh/ann");
        assert_eq!(value("été"), "été");
        assert_eq!(value(""), "\"\"");
        assert_eq!(value("a b"), "\"a b\"");
        assert_eq!(value("a=1"), "\"a=1\"");
        assert_eq!(value("say \"so\" \\"), "\"say \\\"so\\\" \\\\\"");
        assert_eq!(value("a\nuser=root"), "\"a\\nuser=root\"");
    }
}
