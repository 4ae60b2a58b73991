//! JSON objects in tokens, where a name stands once. With two of a name, whoever reads the token next may take the other one:
//! what was checked here would not be what counts there.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::failure::Failure;

/// Reads an object.
///
/// # Errors
/// It is no JSON, or no object, or has a name twice, at whatever depth.
pub(crate) fn parse(bytes: &[u8]) -> Result<Map<String, Value>, Failure> {
    let mut twice = false;
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let read = Unique(&mut twice).deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    match read {
        Ok(Value::Object(object)) => Ok(object),
        _ if twice => Err(Failure::Malformed("it says something twice")),
        _ => Err(Failure::Malformed("it is not JSON")),
    }
}

/// Reads a value; notes whether that failed since a name stood twice.
struct Unique<'a>(&'a mut bool);

impl<'de> DeserializeSeed<'de> for Unique<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unique<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(Unique(self.0))? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            if object.contains_key(&name) {
                *self.0 = true;
                return Err(de::Error::custom("a name stands twice"));
            }
            let value = map.next_value_seed(Unique(self.0))?;
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_once_is_read_as_by_everybody() {
        for text in [
            "{}",
            r#"{"a": [1, -2, 3.5, true, null, "x", {"a": {}}], "b": {"a": 1}, "\u00e9": 18446744073709551615}"#,
            r#"{"exp": 1e300}"#,
        ] {
            let expected: Value = serde_json::from_str(text).unwrap();
            assert_eq!(parse(text.as_bytes()).map(Value::Object), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_stands_twice_is_refused_at_any_depth() {
        for text in [
            r#"{"sub": "ann", "sub": "root"}"#,
            r#"{"sub": "ann", "s\u0075b": "root"}"#,
            r#"{"a": {"b": 1, "c": [{"d": 1, "d": 1}]}}"#,
        ] {
            assert_eq!(parse(text.as_bytes()), Err(Failure::Malformed("it says something twice")), "{text}");
        }
        let deep = format!("{}{}", "{\"a\":".repeat(200), "}".repeat(200));
        for text in ["", "[]", "7", "{", "{} {}", "{\"a\": 1e999}", "{\"a\": \"\u{1}\"}", &deep] {
            assert_eq!(parse(text.as_bytes()), Err(Failure::Malformed("it is not JSON")), "{text}");
        }
    }
}
