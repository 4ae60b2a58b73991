//! A line of JSON: a map whose values are texts with operators, maps, lists, or constants.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::escape;
use crate::format::Format;
use crate::seen::Seen;

/// A map at the top.
#[derive(Clone, Debug)]
pub(crate) struct Shape(Node);

#[derive(Clone, Debug)]
enum Node {
    Format(Format),
    /// A number, `true`, `false` or `null`, as JSON has it.
    Constant(String),
    /// Keys as JSON has them.
    Map(Vec<(Vec<u8>, Node)>),
    List(Vec<Node>),
}

impl Shape {
    /// Appends the line, without its end.
    pub(crate) fn line(&self, seen: &Seen<'_>, out: &mut Vec<u8>) {
        self.0.write(seen, out);
    }

    /// Whether it needs to know when the response began.
    pub(crate) fn needs_response(&self) -> bool {
        self.0.needs_response()
    }
}

impl Node {
    fn write(&self, seen: &Seen<'_>, out: &mut Vec<u8>) {
        match self {
            Self::Format(format) => format.json(seen, out),
            Self::Constant(json) => out.extend_from_slice(json.as_bytes()),
            Self::Map(entries) => {
                out.push(b'{');
                for (place, (key, node)) in entries.iter().enumerate() {
                    if place > 0 {
                        out.push(b',');
                    }
                    out.extend_from_slice(key);
                    out.push(b':');
                    node.write(seen, out);
                }
                out.push(b'}');
            }
            Self::List(nodes) => {
                out.push(b'[');
                for (place, node) in nodes.iter().enumerate() {
                    if place > 0 {
                        out.push(b',');
                    }
                    node.write(seen, out);
                }
                out.push(b']');
            }
        }
    }

    fn needs_response(&self) -> bool {
        match self {
            Self::Format(format) => format.needs_response(),
            Self::Constant(_) => false,
            Self::Map(entries) => entries.iter().any(|(_, node)| node.needs_response()),
            Self::List(nodes) => nodes.iter().any(Self::needs_response),
        }
    }
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Node::deserialize(deserializer)? {
            node @ Node::Map(_) => Ok(Self(node)),
            _ => Err(de::Error::custom("a line of JSON is a map")),
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Node;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text with operators, a map, a list or a constant")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Node, E> {
                Format::parse(text).map(Node::Format).map_err(E::custom)
            }

            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Node, E> {
                Ok(Node::Constant(value.to_string()))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Node, E> {
                Ok(Node::Constant(value.to_string()))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Node, E> {
                Ok(Node::Constant(value.to_string()))
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Node, E> {
                Ok(Node::Constant(value.to_string()))
            }

            fn visit_unit<E: de::Error>(self) -> Result<Node, E> {
                Ok(Node::Constant("null".to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
                let mut entries = Vec::new();
                while let Some((key, node)) = map.next_entry::<Cow<'de, str>, Node>()? {
                    let mut json = Vec::new();
                    escape::json(key.as_bytes(), &mut json);
                    entries.push((json, node));
                }
                Ok(Node::Map(entries))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
                let mut nodes = Vec::new();
                while let Some(node) = list.next_element()? {
                    nodes.push(node);
                }
                Ok(Node::List(nodes))
            }
        }

        deserializer.deserialize_any(Any)
    }
}

impl JsonSchema for Shape {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Shape".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "object"})
    }
}
