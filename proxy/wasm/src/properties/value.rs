//! A property's value and the two forms that filters may get it in.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use serde_json::Value as Json;

use crate::address::Address;
use crate::hostcalls::clock::nanoseconds;
use crate::node::Metadata;
use crate::pairs;

/// The form in which properties are handed to a filter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PropertyForm {
    /// Envoy's: numbers and times as 8 bytes little-endian, booleans as one byte.
    #[default]
    Binary,
    /// Kong's: everything as text. Numbers are decimal, times and durations seconds with three decimals,
    /// booleans `true` and `false`, and addresses come without their port.
    Text,
}

/// A property's value.
#[derive(Debug)]
pub(crate) enum Value<'a> {
    /// Text or bytes, as they stand.
    Bytes(&'a [u8]),
    /// The same, put together for this.
    Made(Vec<u8>),
    Number(u64),
    Bool(bool),
    Address(Address),
    Time(SystemTime),
    Duration(Duration),
    /// A part of metadata.
    Json(&'a Json),
    /// A whole map of metadata.
    Map(&'a Metadata),
    /// A part of metadata that was read for this.
    Found(Json),
}

impl<'a> Value<'a> {
    /// A part of metadata that outlives it.
    pub(super) fn into_owned<'b>(self) -> Option<Value<'b>> {
        match self {
            Value::Json(part) => Some(Value::Found(part.clone())),
            Value::Map(map) => Some(Value::Found(Json::Object(map.clone()))),
            _ => None,
        }
    }

    /// As the filter gets it.
    pub(crate) fn encode(self, form: PropertyForm) -> Cow<'a, [u8]> {
        match self {
            Value::Bytes(bytes) => Cow::Borrowed(bytes),
            Value::Made(bytes) => Cow::Owned(bytes),
            Value::Json(Json::String(text)) => Cow::Borrowed(text.as_bytes()),
            Value::Found(Json::String(text)) => Cow::Owned(text.into_bytes()),
            other => Cow::Owned(match form {
                PropertyForm::Binary => other.binary(),
                PropertyForm::Text => other.text().into_bytes(),
            }),
        }
    }

    fn binary(&self) -> Vec<u8> {
        match self {
            Value::Bytes(bytes) => bytes.to_vec(),
            Value::Made(bytes) => bytes.clone(),
            Value::Number(number) => number.to_le_bytes().to_vec(),
            Value::Bool(value) => vec![u8::from(*value)],
            Value::Address(address) => address.to_string().into_bytes(),
            Value::Time(time) => nanoseconds(*time).to_le_bytes().to_vec(),
            Value::Duration(duration) => {
                u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX).to_le_bytes().to_vec()
            }
            Value::Json(value) => json(value),
            Value::Found(value) => json(value),
            Value::Map(map) => map_of(map),
        }
    }

    fn text(&self) -> String {
        match self {
            Value::Number(number) => number.to_string(),
            Value::Bool(value) => value.to_string(),
            Value::Address(address) => {
                address.ip().map_or_else(|| address.to_string(), |address| address.to_string())
            }
            Value::Time(time) => seconds(Duration::from_nanos(nanoseconds(*time))),
            Value::Duration(duration) => seconds(*duration),
            Value::Json(value) => value.to_string(),
            Value::Found(value) => value.to_string(),
            Value::Map(map) => Json::Object((*map).clone()).to_string(),
            Value::Bytes(_) | Value::Made(_) => String::from_utf8_lossy(&self.binary()).into_owned(),
        }
    }
}

fn seconds(duration: Duration) -> String {
    format!("{}.{:03}", duration.as_secs(), duration.subsec_millis())
}

/// What lies at a path into metadata: maps by key, lists by index.
pub(super) fn walk<'a>(map: &'a Metadata, path: &[u8]) -> Option<Value<'a>> {
    if path.is_empty() {
        return Some(Value::Map(map));
    }
    let mut segments = path.split(|byte| *byte == 0).map(std::str::from_utf8);
    let mut at = map.get(segments.next()?.ok()?)?;
    for segment in segments {
        let segment = segment.ok()?;
        at = match at {
            Json::Object(map) => map.get(segment)?,
            Json::Array(list) => list.get(segment.parse::<usize>().ok()?)?,
            _ => return None,
        };
    }
    // Nothing is what it says.
    (!at.is_null()).then_some(Value::Json(at))
}

/// Numbers are doubles, as JSON's are. Lists are maps whose keys are the items.
fn json(value: &Json) -> Vec<u8> {
    match value {
        Json::Null => Vec::new(),
        Json::Bool(value) => vec![u8::from(*value)],
        Json::Number(number) => number.as_f64().unwrap_or_default().to_le_bytes().to_vec(),
        Json::String(text) => text.clone().into_bytes(),
        Json::Array(list) => {
            let items: Vec<_> = list.iter().map(json).collect();
            pairs::encode(|| items.iter().map(|item| (&item[..], &b""[..])))
        }
        Json::Object(map) => map_of(map),
    }
}

fn map_of(map: &Metadata) -> Vec<u8> {
    let entries: Vec<_> = map.iter().map(|(key, value)| (key.as_bytes(), json(value))).collect();
    pairs::encode(|| entries.iter().map(|(key, value)| (*key, &value[..])))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn metadata() -> Metadata {
        let Json::Object(map) = json!({"a": {"n": 1.5, "on": true, "list": ["x", {"k": "v"}], "none": null}})
        else {
            panic!()
        };
        map
    }

    #[test]
    fn metadata_is_walked_by_keys_and_indexes() {
        let metadata = metadata();
        let find = |path: &str| {
            let path = path.replace('.', "\0");
            walk(&metadata, path.as_bytes()).map(|value| value.encode(PropertyForm::Binary).into_owned())
        };
        assert_eq!(find("a.n"), Some(1.5_f64.to_le_bytes().to_vec()));
        assert_eq!(find("a.on"), Some(vec![1]));
        assert_eq!(find("a.list.0"), Some(b"x".to_vec()));
        assert_eq!(find("a.list.1.k"), Some(b"v".to_vec()));
        for missing in ["b", "a.none", "a.list.2", "a.list.x", "a.list.-1", "a.n.x", "a.", "a..n"] {
            assert_eq!(find(missing), None, "{missing}");
        }
        assert_eq!(pairs::decode(&find("").unwrap()).unwrap().len(), 1);
        let list = find("a.list").unwrap();
        let list = pairs::decode(&list).unwrap();
        assert_eq!(list[0], (&b"x"[..], &b""[..]));
        assert_eq!(pairs::decode(list[1].0), Ok(vec![(&b"k"[..], &b"v"[..])]));
    }

    #[test]
    fn text_is_for_people() {
        let metadata = metadata();
        let expected = [
            (Value::Number(7), "7"),
            (Value::Bool(false), "false"),
            (Value::Address(Address::Ip("192.0.2.1:80".parse().unwrap())), "192.0.2.1"),
            (Value::Time(SystemTime::UNIX_EPOCH + Duration::from_millis(1_002)), "1.002"),
            (Value::Duration(Duration::from_micros(61_999)), "0.061"),
            (Value::Bytes(b"as it is"), "as it is"),
            (walk(&metadata, b"a\0n").unwrap(), "1.5"),
            (walk(&metadata, b"a\0list\x001").unwrap(), r#"{"k":"v"}"#),
        ];
        for (value, text) in expected {
            assert_eq!(value.encode(PropertyForm::Text), text.as_bytes());
        }
    }
}
