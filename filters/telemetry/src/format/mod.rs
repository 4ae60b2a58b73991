//! Texts with Envoy's format operators, such as `%REQ(:METHOD)% %RESPONSE_CODE%`: read when the filter is configured, filled
//! in for each exchange. Lines of the access log, labels of metrics and attributes of spans are made by them.
//!
//! `operators.rs` knows the operators, `parse.rs` reads a text, `time.rs` writes moments.

mod operators;
mod parse;
mod time;

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

pub(crate) use self::operators::{GRPC_STATUSES, Words, flags};
use self::operators::{Operator, Value};
use crate::escape;
use crate::seen::Seen;

/// A text with operators.
#[derive(Clone, Debug, Default)]
pub(crate) struct Format {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug)]
enum Piece {
    Text(String),
    /// An operator, and how many bytes of its value are shown at most.
    Operator(Operator, Option<usize>),
}

impl Format {
    /// Reads a text.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        parse::pieces(text).map(|pieces| Self { pieces })
    }

    /// Whether it needs to know when the response began.
    pub(crate) fn needs_response(&self) -> bool {
        self.pieces
            .iter()
            .any(|piece| matches!(piece, Piece::Operator(operator, _) if operator.needs_response()))
    }

    /// Appends it as a part of a line: `-` for what there is not, and nothing that would end the line or a quoted part of it.
    pub(crate) fn line(&self, seen: &Seen<'_>, out: &mut Vec<u8>) {
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Operator(operator, most) => match operator.value(seen) {
                    Value::Absent => out.push(b'-'),
                    Value::Number(number) => escape::number(number, out),
                    Value::Bytes(bytes) => escape::text(shortened(&bytes, *most), out),
                },
            }
        }
    }

    /// Appends it as a value of JSON: of a single operator a number, a text or `null`; else a text.
    pub(crate) fn json(&self, seen: &Seen<'_>, out: &mut Vec<u8>) {
        if let [Piece::Operator(operator, most)] = &*self.pieces {
            return match operator.value(seen) {
                Value::Absent => out.extend_from_slice(b"null"),
                Value::Number(number) => escape::number(number, out),
                Value::Bytes(bytes) => escape::json(shortened(&bytes, *most), out),
            };
        }
        let mut text = Vec::new();
        self.mixed(seen, b"-", &mut text);
        escape::json(&text, out);
    }

    /// Appends it as it is: nothing for what there is not.
    pub(crate) fn plain(&self, seen: &Seen<'_>, out: &mut Vec<u8>) {
        self.mixed(seen, b"", out);
    }

    /// As text; `None` if it is a single operator that has no value.
    pub(crate) fn text(&self, seen: &Seen<'_>) -> Option<String> {
        let mut bytes = Vec::new();
        self.plain(seen, &mut bytes);
        let is_single = matches!(&*self.pieces, [Piece::Operator(..)]);
        (!bytes.is_empty() || !is_single).then(|| String::from_utf8_lossy(&bytes).into_owned())
    }

    fn mixed(&self, seen: &Seen<'_>, absent: &[u8], out: &mut Vec<u8>) {
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Operator(operator, most) => match operator.value(seen) {
                    Value::Absent => out.extend_from_slice(absent),
                    Value::Number(number) => escape::number(number, out),
                    Value::Bytes(bytes) => out.extend_from_slice(shortened(&bytes, *most)),
                },
            }
        }
    }
}

/// The first bytes of a value, without the half of a letter at the end.
fn shortened(bytes: &[u8], most: Option<usize>) -> &[u8] {
    let Some(mut end) = most.filter(|most| *most < bytes.len()) else { return bytes };
    while end > 0 && bytes.get(end).is_some_and(|byte| byte & 0xc0 == 0x80) {
        end -= 1;
    }
    bytes.get(..end).unwrap_or(bytes)
}

impl<'de> Deserialize<'de> for Format {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

impl JsonSchema for Format {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Format".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string"})
    }
}

#[cfg(test)]
mod tests;
