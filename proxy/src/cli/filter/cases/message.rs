//! Messages of Protocol Buffers as cases write them: fields by their numbers, or text.

use std::collections::BTreeMap;
use std::fmt::Write;

use schemars::JsonSchema;
use serde::Deserialize;

/// A message: its fields by their numbers, or its bytes as text.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum ProtoMessage {
    /// Fields by their numbers: `{1: "/orders", 2: 3, 3: true, 4: {1: inside}, 5: [several, of one]}`.
    Fields(BTreeMap<String, Field>),
    /// Its bytes, as they stand.
    Text(String),
}

/// A field's value: text, a whole number or true or false (as a varint), a message, or several.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Field {
    /// `bool`
    Flag(bool),
    /// `int32`, `int64`, `uint32`, `uint64`, an enumeration.
    Number(i64),
    /// `string`, `bytes`
    Text(String),
    /// A message.
    Message(BTreeMap<String, Field>),
    /// A field that is repeated.
    Several(Vec<Field>),
}

impl ProtoMessage {
    /// Its bytes, the fields in the order of their numbers. An error is what is no field's number.
    pub(crate) fn encoded(&self) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        match self {
            ProtoMessage::Text(text) => bytes.extend_from_slice(text.as_bytes()),
            ProtoMessage::Fields(fields) => encode_all(fields, &mut bytes)?,
        }
        Ok(bytes)
    }
}

/// The largest number that a field may have.
const MOST: u64 = (1 << 29) - 1;

fn encode_all(fields: &BTreeMap<String, Field>, out: &mut Vec<u8>) -> Result<(), String> {
    let number = |text: &String| text.parse().ok().filter(|number| (1..=MOST).contains(number));
    let mut numbered = Vec::new();
    for (text, field) in fields {
        numbered.push((number(text).ok_or_else(|| format!("{text:?} is no field's number"))?, field));
    }
    numbered.sort_by_key(|(number, _)| *number);
    numbered.into_iter().try_for_each(|(number, field)| encode(number, field, out))
}

fn encode(number: u64, field: &Field, out: &mut Vec<u8>) -> Result<(), String> {
    let mut delimited = |bytes: &[u8]| {
        varint(number << 3 | 2, out);
        varint(bytes.len() as u64, out);
        out.extend_from_slice(bytes);
    };
    match field {
        Field::Text(text) => delimited(text.as_bytes()),
        Field::Message(fields) => {
            let mut bytes = Vec::new();
            encode_all(fields, &mut bytes)?;
            delimited(&bytes);
        }
        Field::Flag(flag) => {
            varint(number << 3, out);
            out.push((*flag).into());
        }
        Field::Number(value) => {
            varint(number << 3, out);
            varint(value.cast_unsigned(), out);
        }
        Field::Several(fields) => fields.iter().try_for_each(|field| encode(number, field, out))?,
    }
    Ok(())
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A message as people read it: as fields if it can be one, else as text.
pub(crate) fn shown(bytes: &[u8]) -> String {
    fields(bytes).unwrap_or_else(|| format!("{:?}", String::from_utf8_lossy(bytes)))
}

fn fields(mut bytes: &[u8]) -> Option<String> {
    let mut text = String::new();
    while !bytes.is_empty() {
        let key = take_varint(&mut bytes)?;
        let (number, separator) = (key >> 3, if text.is_empty() { "" } else { ", " });
        let value = match key & 7 {
            0 => take_varint(&mut bytes)?.cast_signed().to_string(),
            1 => take(&mut bytes, 8).map(|bytes| format!("{bytes:02x?}"))?,
            5 => take(&mut bytes, 4).map(|bytes| format!("{bytes:02x?}"))?,
            2 => {
                let length = usize::try_from(take_varint(&mut bytes)?).ok()?;
                let inside = take(&mut bytes, length)?;
                match std::str::from_utf8(inside) {
                    Ok(text) if !text.contains(char::is_control) => format!("{text:?}"),
                    _ => shown(inside),
                }
            }
            _ => return None,
        };
        if number == 0 || number > MOST {
            return None;
        }
        // Writing to a String does not fail.
        let _ = write!(text, "{separator}{number}: {value}");
    }
    Some(format!("{{{text}}}"))
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = *take(bytes, 1)?.first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(message: serde_json::Value) -> Result<Vec<u8>, String> {
        serde_json::from_value::<ProtoMessage>(message).unwrap().encoded()
    }

    #[test]
    fn fields_are_encoded_in_their_order_and_shown_as_they_were_written() {
        let message =
            serde_json::json!({"10": true, "1": "a", "2": 300, "3": {"1": "b"}, "4": ["c", "d"], "5": -1});
        let bytes = encoded(message).unwrap();
        let expected: &[&[u8]] = &[
            b"\x0a\x01a\x10\xac\x02\x1a\x03\x0a\x01b\x22\x01c\x22\x01d",
            b"\x28\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x50\x01",
        ];
        assert_eq!(bytes, expected.concat());
        assert_eq!(shown(&bytes), r#"{1: "a", 2: 300, 3: {1: "b"}, 4: "c", 4: "d", 5: -1, 10: 1}"#);
        assert_eq!(encoded("as it stands".into()).unwrap(), b"as it stands");
        assert_eq!(shown(b"as it stands"), "\"as it stands\"");
        assert!(
            encoded(serde_json::json!({"one": 1})).is_err() && encoded(serde_json::json!({"0": 1})).is_err()
        );
    }

    proptest::proptest! {
        #[test]
        fn anything_can_be_shown(bytes: Vec<u8>) {
            shown(&bytes);
        }
    }
}
