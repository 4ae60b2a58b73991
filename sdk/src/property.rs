//! Properties: what the host knows about an exchange, read by path and with their types. Used through `Exchange`, and
//! directly for paths that have no function of their own.
//!
//! ```
//! use meshgate_sdk::property;
//!
//! let port = property::integer("source/port");
//! let role = property::text("node/metadata/role");
//! # assert_eq!((port, role), (None, None));
//! ```
//!
//! A path is written with `/` between its segments: `"source/address"`. Every getter answers `None` for a property that
//! does not exist, is not known yet, or has another type.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::error::Refused;
use crate::host;

/// The property's bytes, as the host serialized them.
///
/// ```
/// use meshgate_sdk::property;
///
/// let key = property::bytes("keys/session").unwrap_or_default(); // as a filter before this one has set it
/// # assert!(key.is_empty());
/// ```
pub fn bytes(path: &str) -> Option<Vec<u8>> {
    with_segments(path, host::property).ok()
}

/// A property that is text.
///
/// ```
/// use meshgate_sdk::property;
///
/// let agent = property::text("request/useragent").unwrap_or_else(|| "unknown".to_owned());
/// # assert_eq!(agent, "unknown");
/// ```
pub fn text(path: &str) -> Option<String> {
    String::from_utf8(bytes(path)?).ok()
}

/// A property that is a whole number.
///
/// ```
/// use meshgate_sdk::property;
///
/// let is_privileged = property::integer("source/port").is_some_and(|port| port < 1024);
/// # assert!(!is_privileged);
/// ```
pub fn integer(path: &str) -> Option<i64> {
    Some(i64::from_le_bytes(bytes(path)?.try_into().ok()?))
}

/// A property that is a floating-point number.
///
/// ```
/// use meshgate_sdk::property;
///
/// let score = property::number("scores/spam").unwrap_or(0.0);
/// # assert_eq!(score, 0.0);
/// ```
pub fn number(path: &str) -> Option<f64> {
    Some(f64::from_le_bytes(bytes(path)?.try_into().ok()?))
}

/// A property that is true or false.
///
/// ```
/// use meshgate_sdk::property;
///
/// let has_certificate = property::boolean("connection/mtls") == Some(true);
/// # assert!(!has_certificate);
/// ```
pub fn boolean(path: &str) -> Option<bool> {
    match bytes(path)?[..] {
        [byte] => Some(byte != 0),
        _ => None,
    }
}

/// A property that is a length of time.
///
/// ```
/// use std::time::Duration;
///
/// use meshgate_sdk::property;
///
/// let is_slow = property::duration("request/duration").is_some_and(|time| time > Duration::from_secs(1));
/// # assert!(!is_slow);
/// ```
pub fn duration(path: &str) -> Option<Duration> {
    Some(Duration::from_nanos(integer(path)?.try_into().ok()?))
}

/// A property that is a point in time.
///
/// ```
/// use meshgate_sdk::property;
///
/// let age = property::time("request/time").and_then(|begun| meshgate_sdk::now().duration_since(begun).ok());
/// # assert_eq!(age, None);
/// ```
pub fn time(path: &str) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(duration(path)?)
}

/// Sets a property of the filter's own. Later filters and the access log of this exchange can read it.
///
/// ```
/// # use meshgate_sdk::prelude::*;
/// use meshgate_sdk::property;
///
/// # struct Score;
/// # #[filter]
/// # impl Filter for Score {
/// # fn configure(_: Empty) -> Result<Self, ConfigError> { Ok(Self) }
/// fn on_request(&self, exchange: &Exchange<Self>) -> Outcome {
///     property::set("scores/user", exchange.request().header("x-user").unwrap_or_default())?;
///     property::set("scores/spam", 0.25_f64.to_le_bytes())?;
///     property::set("scores/words", 7_i64.to_le_bytes())?;
///     Ok(())
/// }
/// # fn on_log(&self, _: &Exchange<Self>) {
/// #     assert_eq!(property::text("scores/user").as_deref(), Some("ann"));
/// #     assert_eq!(property::bytes("scores/user").as_deref(), Some(&b"ann"[..]));
/// #     assert_eq!(property::number("scores/spam"), Some(0.25));
/// #     assert_eq!(property::integer("scores/words"), Some(7));
/// #     assert_eq!(property::duration("scores/words"), Some(Duration::from_nanos(7)));
/// #     assert_eq!(property::boolean("scores/words"), None);
/// # }
/// # }
/// # fn main() {
/// # use meshgate_sdk::testing::{Proxy, Request};
/// # Proxy::new::<Score>("").send(Request::get("/").header("x-user", "ann"));
/// # }
/// ```
///
/// # Errors
/// The host refuses paths of its own and values that are too long.
pub fn set(path: &str, value: impl AsRef<[u8]>) -> Result<(), Refused> {
    with_segments(path, |segments| host::set_property(segments, value.as_ref()))
        .map_err(|status| Refused::new(format!("cannot set the property {path}"), status))
}

/// Hands over the path in the ABI's form, with zero bytes between the segments. Usual paths need no allocation.
fn with_segments<T>(path: &str, call: impl FnOnce(&[u8]) -> T) -> T {
    let separate =
        |bytes: &mut [u8]| bytes.iter_mut().filter(|byte| **byte == b'/').for_each(|byte| *byte = 0);
    let mut short = [0; 64];
    if let Some(buffer) = short.get_mut(..path.len()) {
        buffer.copy_from_slice(path.as_bytes());
        separate(buffer);
        return call(buffer);
    }
    let mut long = path.as_bytes().to_vec();
    separate(&mut long);
    call(&long)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_split_at_slashes() {
        with_segments("source/address", |path| assert_eq!(path, b"source\0address"));
        let long = "a/".repeat(50);
        with_segments(&long, |path| assert_eq!(path, b"a\0".repeat(50)));
    }
}
