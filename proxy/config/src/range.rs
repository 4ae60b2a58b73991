//! Ranges of IP addresses, such as `10.0.0.0/8`.

use std::fmt;
use std::net::IpAddr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de::Error as _};

/// A range of IP addresses of one family.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AddressRange {
    first: IpAddr,
    bits: u32,
}

impl AddressRange {
    /// Whether an address is in the range. IPv4 in the form of IPv6 is IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.first, address.to_canonical()) {
            (IpAddr::V4(first), IpAddr::V4(address)) => {
                high(first.to_bits().into(), 32, self.bits) == high(address.to_bits().into(), 32, self.bits)
            }
            (IpAddr::V6(first), IpAddr::V6(address)) => {
                high(first.to_bits(), 128, self.bits) == high(address.to_bits(), 128, self.bits)
            }
            _ => false,
        }
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.bits)
    }
}

/// The first `bits` of a number of so many.
fn high(number: u128, of: u32, bits: u32) -> u128 {
    number.checked_shr(of - bits).unwrap_or(0)
}

/// Reads `ADDRESS/BITS`, or one address alone.
///
/// # Errors
/// What is wrong with it, as the end of a sentence, and how it may be mended.
pub(crate) fn parse_range(text: &str) -> Result<AddressRange, (&'static str, Option<String>)> {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits)),
        None => (text, None),
    };
    let bad = ("is not a range of addresses", Some("write it as `10.0.0.0/8` or `::1`".to_owned()));
    let Ok(first) = address.parse::<IpAddr>() else { return Err(bad) };
    let most = if first.is_ipv4() { 32 } else { 128 };
    let bits = match bits.map(str::parse::<u32>) {
        None => most,
        Some(Ok(bits)) if bits <= most => bits,
        Some(_) => return Err(bad),
    };
    let (number, rest) = match first {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32 - bits),
        IpAddr::V6(address) => (address.to_bits(), 128 - bits),
    };
    let cut = number.checked_shr(rest).unwrap_or(0).checked_shl(rest).unwrap_or(0);
    if cut != number {
        let start = match first {
            // The number came from 32 bits.
            IpAddr::V4(_) => IpAddr::V4((cut as u32).into()),
            IpAddr::V6(_) => IpAddr::V6(cut.into()),
        };
        return Err(("does not begin with its own first address", Some(format!("write `{start}/{bits}`"))));
    }
    Ok(AddressRange { first, bits })
}

impl<'de> Deserialize<'de> for AddressRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_range(&text).map_err(|(what, _)| D::Error::custom(what))
    }
}

impl JsonSchema for AddressRange {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "AddressRange".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "address-range"})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_contain_their_addresses() {
        for (range, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("::/0", "2001:db8::1", "10.0.0.1"),
            ("2001:db8::/33", "2001:db8:7fff::1", "2001:db8:8000::"),
            ("10.0.0.0/8", "::ffff:10.1.2.3", "::ffff:11.1.2.3"),
        ] {
            let parsed = parse_range(range).unwrap();
            assert!(parsed.contains(inside.parse().unwrap()), "{inside} in {range}");
            assert!(!parsed.contains(outside.parse().unwrap()), "{outside} in {range}");
        }
    }

    #[test]
    fn ranges_have_one_form() {
        for (text, hint) in [("10.0.0.1/8", "`10.0.0.0/8`"), ("2001:db8::1/64", "`2001:db8::/64`")] {
            assert!(parse_range(text).unwrap_err().1.unwrap().contains(hint), "{text}");
        }
        for text in ["", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/", "::/129", "a/8", "10.0.0.0:80"] {
            assert!(parse_range(text).is_err(), "{text}");
        }
    }
}
