//! Header maps, as a filter sees them. Used through `Request` and `Response`.

use std::fmt;

use crate::error::Refused;
use crate::host::{self, MapType, Status};

/// Bytes as text; what is not UTF-8 becomes `U+FFFD`. Text is not copied.
pub(crate) fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// One header map of the exchange: its fields are read and written in the host, nothing is kept here.
///
/// ```
/// # use meshgate_sdk::prelude::*;
/// # struct Tidy;
/// # #[filter]
/// # impl Filter for Tidy {
/// # fn configure(_: Empty) -> Result<Self, ConfigError> { Ok(Self) }
/// fn on_request(&self, exchange: &Exchange<Self>) -> Outcome {
///     let headers = exchange.request().headers();
///     if headers.get("x-debug").as_deref() == Some("true") {
///         headers.set("x-log-level", "debug")?;
///     }
///     for value in headers.pairs().all("accept") {
///         meshgate_sdk::debug!("accepts {}", String::from_utf8_lossy(value));
///     }
///     headers.remove("x-debug")?;
///     if headers.get_bytes("x-name").is_some_and(|name| !name.is_ascii()) {
///         headers.remove("x-name")?;
///     }
///     if !headers.contains("via") {
///         headers.add("via", "1.1 mesh")?;
///     }
///     Ok(())
/// }
/// # }
/// # fn main() {}
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Headers {
    map: MapType,
}

impl Headers {
    pub(crate) const fn new(map: MapType) -> Self {
        Self { map }
    }

    /// The first value of a field, as text; bytes that are not UTF-8 become `U+FFFD`. Names are matched without regard to
    /// case.
    ///
    /// `None` also where the map does not exist (yet, or any more): response headers in a request callback, for example.
    pub fn get(&self, name: &str) -> Option<String> {
        self.get_bytes(name).map(text)
    }

    /// The first value of a field, as it stands.
    pub fn get_bytes(&self, name: &str) -> Option<Vec<u8>> {
        host::header(self.map, name).ok()
    }

    /// Whether there is such a field.
    pub fn contains(&self, name: &str) -> bool {
        host::header(self.map, name).is_ok()
    }

    /// All fields in order, pseudo-headers first. Fields with several values appear once for each.
    pub fn pairs(&self) -> Pairs {
        Pairs { bytes: host::pairs(self.map).unwrap_or_default() }
    }

    /// Puts one field in the place of all that have this name.
    ///
    /// # Errors
    /// The host refuses names and values that HTTP does not allow, and maps that cannot be written in this callback.
    pub fn set(&self, name: &str, value: impl AsRef<[u8]>) -> Result<(), Refused> {
        host::set_header(self.map, name, value.as_ref()).map_err(|status| refused("set", name, status))
    }

    /// Adds a field and leaves others of the same name.
    ///
    /// # Errors
    /// As for [`set`](Self::set).
    pub fn add(&self, name: &str, value: impl AsRef<[u8]>) -> Result<(), Refused> {
        host::add_header(self.map, name, value.as_ref()).map_err(|status| refused("add", name, status))
    }

    /// Removes all fields of this name; it is no error if there are none.
    ///
    /// # Errors
    /// The map cannot be written in this callback.
    pub fn remove(&self, name: &str) -> Result<(), Refused> {
        host::remove_header(self.map, name).map_err(|status| refused("remove", name, status))
    }
}

#[cold]
fn refused(what: &str, name: &str, status: Status) -> Refused {
    Refused::new(format!("cannot {what} the field {name}"), status)
}

/// A copy of a header map's fields: of the exchange ([`Headers::pairs`]) or of a call's response.
///
/// ```
/// fn cookies(headers: &meshgate_sdk::Headers) -> usize {
///     let pairs = headers.pairs();
///     for (name, value) in pairs.iter() {
///         println!("{name}: {}", String::from_utf8_lossy(value));
///     }
///     println!("of {}", pairs.get("server").unwrap_or_default());
///     pairs.all("set-cookie").count()
/// }
/// ```
#[derive(Clone, Default)]
pub struct Pairs {
    bytes: Vec<u8>,
}

impl Pairs {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self { bytes }
    }

    /// The first value of one field, as text. `name` is in lower case.
    pub fn get(&self, name: &str) -> Option<String> {
        self.all(name).next().map(|value| String::from_utf8_lossy(value).into_owned())
    }

    /// The fields in order. A field whose name is not UTF-8 is left out: HTTP does not allow such names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let count = number(&self.bytes, 0).unwrap_or(0);
        // Each pair has eight bytes of sizes; a count that promises more is cut off by `get` below.
        let mut position = count.saturating_mul(8).saturating_add(4);
        (0..count)
            .map_while(move |index| {
                let name_size = number(&self.bytes, index * 8 + 4)?;
                let value_size = number(&self.bytes, index * 8 + 8)?;
                let name = self.bytes.get(position..)?.get(..name_size)?;
                let value = self.bytes.get(position + name_size + 1..)?.get(..value_size)?;
                position += name_size + value_size + 2;
                Some((name, value))
            })
            .filter_map(|(name, value)| Some((std::str::from_utf8(name).ok()?, value)))
    }

    /// All values of one field, in order. `name` is in lower case.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.iter().filter(move |(other, _)| *other == name).map(|(_, value)| value)
    }
}

impl fmt::Debug for Pairs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.iter().map(|(name, value)| (name, String::from_utf8_lossy(value))))
            .finish()
    }
}

fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let four = bytes.get(at..)?.first_chunk::<4>()?;
    usize::try_from(u32::from_le_bytes(*four)).ok()
}

/// Serializes pairs in the ABI's form: a count, all sizes, then names and values with a zero byte after each.
pub(crate) fn serialize<N: AsRef<str>, V: AsRef<[u8]>>(pairs: &[(N, V)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut push =
        |number: usize| bytes.extend_from_slice(&u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
    push(pairs.len());
    for (name, value) in pairs {
        push(name.as_ref().len());
        push(value.as_ref().len());
    }
    for (name, value) in pairs {
        bytes.extend_from_slice(name.as_ref().as_bytes());
        bytes.push(0);
        bytes.extend_from_slice(value.as_ref());
        bytes.push(0);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(name: &str, value: &[u8]) -> (String, Vec<u8>) {
        (name.to_owned(), value.to_vec())
    }

    #[test]
    fn serialized_pairs_have_the_form_of_the_abi() {
        let bytes = serialize(&[pair("a", b"bc"), pair("d", b"")]);
        assert_eq!(bytes, b"\x02\0\0\0\x01\0\0\0\x02\0\0\0\x01\0\0\0\0\0\0\0a\0bc\0d\0\0");
    }

    #[test]
    fn pairs_are_read_back_in_order() {
        let pairs = Pairs { bytes: serialize(&[pair("a", b"1"), pair("b", b"\xff"), pair("a", b"2")]) };
        let read: Vec<_> = pairs.iter().collect();
        assert_eq!(read, [("a", &b"1"[..]), ("b", b"\xff"), ("a", b"2")]);
        assert_eq!(pairs.all("a").collect::<Vec<_>>(), [b"1", b"2"]);
    }

    #[test]
    fn damaged_pairs_end_early() {
        let whole = serialize(&[pair("name", b"value"), pair("b", b"2")]);
        for end in 0..whole.len() {
            let pairs = Pairs { bytes: whole[..end].to_vec() };
            assert!(pairs.iter().count() <= 2);
        }
        let pairs = Pairs { bytes: vec![0xff; 64] };
        assert_eq!(pairs.iter().count(), 0);
    }
}
