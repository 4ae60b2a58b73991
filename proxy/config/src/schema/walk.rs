//! The parts of a JSON Schema and what each applies to, for the walks in `sound.rs` and `marks.rs`.

use serde_json::{Map, Value};

/// What a subschema applies to.
#[derive(Clone, Copy)]
pub(crate) enum Applies<'s> {
    /// The same value: `allOf`, `$ref`, …
    Same,
    /// The same value, if this branch of an `anyOf` or `oneOf` is the one that fits.
    Branch,
    /// The same value, turned around: `not`. Says nothing about what a value is.
    Not,
    /// The value of this key.
    Property(&'s str),
    /// Values of keys that match this pattern.
    Pattern(&'s str),
    /// Values of keys that are not named beside it.
    OtherProperties,
    /// Every key of a map.
    Names,
    /// The item at this index.
    Item(usize),
    /// The items after the ones with a schema of their own.
    OtherItems,
    /// Some item: `contains`.
    SomeItem,
    /// Nothing by itself: `$defs`.
    Nothing,
}

impl Applies<'_> {
    /// Whether the subschema applies to the same value as the schema it stands in.
    pub(crate) fn to_same_value(self) -> bool {
        matches!(self, Self::Same | Self::Branch | Self::Not)
    }
}

/// The subschemas that stand directly in a schema; the target of a `$ref` is not among them.
pub(crate) fn parts(schema: &Value) -> Vec<(Applies<'_>, &Value)> {
    let mut found = Vec::new();
    let Value::Object(keywords) = schema else { return found };
    for (keyword, value) in keywords {
        match keyword.as_str() {
            "allOf" => lists(value, &mut found, |_| Applies::Same),
            "anyOf" | "oneOf" => lists(value, &mut found, |_| Applies::Branch),
            "prefixItems" => lists(value, &mut found, Applies::Item),
            "if" | "not" => found.push((Applies::Not, value)),
            "then" | "else" => found.push((Applies::Branch, value)),
            "additionalProperties" | "unevaluatedProperties" => found.push((Applies::OtherProperties, value)),
            "propertyNames" => found.push((Applies::Names, value)),
            "items" | "unevaluatedItems" => found.push((Applies::OtherItems, value)),
            "contains" => found.push((Applies::SomeItem, value)),
            "contentSchema" => found.push((Applies::Nothing, value)),
            "properties" => maps(value, &mut found, Applies::Property),
            "patternProperties" => maps(value, &mut found, Applies::Pattern),
            "dependentSchemas" => maps(value, &mut found, |_| Applies::Branch),
            "$defs" | "definitions" => maps(value, &mut found, |_| Applies::Nothing),
            _ => {}
        }
    }
    found
}

fn lists<'s>(
    value: &'s Value,
    found: &mut Vec<(Applies<'s>, &'s Value)>,
    applies: impl Fn(usize) -> Applies<'s>,
) {
    let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
    found.extend(items.iter().enumerate().map(|(index, part)| (applies(index), part)));
}

fn maps<'s>(
    value: &'s Value,
    found: &mut Vec<(Applies<'s>, &'s Value)>,
    applies: impl Fn(&'s str) -> Applies<'s>,
) {
    found.extend(value.as_object().into_iter().flat_map(Map::iter).map(|(key, part)| (applies(key), part)));
}

/// The schema that a `$ref` names. Only references within the schema are followed; `sound.rs` refuses others.
pub(crate) fn target<'s>(root: &'s Value, schema: &Value) -> Option<&'s Value> {
    let reference = schema.get("$ref")?.as_str()?;
    resolve(root, reference)
}

pub(crate) fn resolve<'s>(root: &'s Value, reference: &str) -> Option<&'s Value> {
    root.pointer(&percent_decoded(reference.strip_prefix('#')?)?)
}

/// A fragment is part of a URI, so names in it may be percent-encoded.
fn percent_decoded(fragment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(fragment.len());
    let mut rest = fragment.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let (high, low) =
                (char::from(rest.next()?).to_digit(16)?, char::from(rest.next()?).to_digit(16)?);
            bytes.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}
