//! Header maps and their values, as a filter sees them. Used through `Request`, `Response` and `CallResponse`.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use crate::error::Refused;
use crate::host::{self, Map, Status};

/// The value of a field: bytes, most often text.
///
/// It compares with text and bytes directly: `headers.first("x-canary").is_some_and(|value| value == "true")`.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Value(Vec<u8>);

impl Value {
    /// The value, if it is UTF-8.
    pub fn as_text(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// The value as text; bytes that are not UTF-8 become `U+FFFD`.
    pub fn to_text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }

    /// The value's bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

impl Deref for Value {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Value {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl PartialEq<str> for Value {
    fn eq(&self, other: &str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl PartialEq<&str> for Value {
    fn eq(&self, other: &&str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl PartialEq<[u8]> for Value {
    fn eq(&self, other: &[u8]) -> bool {
        self.0 == other
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text())
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.to_text(), f)
    }
}

/// One header map of the exchange: its fields are read and written in the host, nothing is kept here.
#[derive(Clone, Copy, Debug)]
pub struct Headers {
    map: Map,
}

impl Headers {
    pub(crate) const fn new(map: Map) -> Self {
        Self { map }
    }

    /// The first value of a field. Names are matched without regard to case.
    ///
    /// `None` also where the map does not exist (yet, or any more): response headers in a request callback, for example.
    pub fn first(&self, name: &str) -> Option<Value> {
        host::header(self.map, name).ok().map(Value)
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

/// A copy of a header map's fields.
#[derive(Clone, Default)]
pub struct Pairs {
    bytes: Vec<u8>,
}

impl Pairs {
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
pub(crate) fn serialize(pairs: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut push =
        |number: usize| bytes.extend_from_slice(&u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
    push(pairs.len());
    for (name, value) in pairs {
        push(name.len());
        push(value.len());
    }
    for (name, value) in pairs {
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(0);
        bytes.extend_from_slice(value);
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

    #[test]
    fn values_compare_with_text_and_bytes() {
        let value = Value::from("true");
        assert!(value == "true" && value == *b"true".as_slice());
        assert_eq!(Value::from(vec![b'a', 0xff]).to_text(), "a\u{fffd}");
        assert_eq!(Value::from(vec![0xff]).as_text(), None);
    }
}
