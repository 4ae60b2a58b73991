//! The file as a tree that knows where everything stands. Made by `yaml.rs`; everything that checks reads it.

use std::collections::HashMap;

use serde_json::{Number, Value};

use crate::Position;

/// A value and where it starts.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) at: Position,
    pub(crate) kind: Kind,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Null,
    Bool(bool),
    /// The number and how it was written.
    Number(Number, String),
    Text(String),
    List(Vec<Node>),
    Map(Map),
}

/// A map in the file's order, each key once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Map {
    entries: Vec<Entry>,
    places: HashMap<String, usize>,
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) at: Position,
    pub(crate) value: Node,
}

impl Map {
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        self.places.get(key).map(|&place| &self.entries[place])
    }

    /// Adds an entry; the one that is there already wins and is returned.
    pub(crate) fn insert(&mut self, entry: Entry) -> Option<&Entry> {
        match self.places.get(&entry.key) {
            Some(&place) => Some(&self.entries[place]),
            None => {
                self.places.insert(entry.key.clone(), self.entries.len());
                self.entries.push(entry);
                None
            }
        }
    }
}

impl Node {
    /// A map without entries, standing for one that was not written.
    pub(crate) fn empty_map(at: Position) -> Self {
        Self { at, kind: Kind::Map(Map::default()) }
    }

    /// The value of a key, if this is a map and has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        self.as_map()?.entry(key).map(|entry| &entry.value)
    }

    /// The entry of a map or list by one step of a JSON pointer.
    pub(crate) fn step(&self, step: &str) -> Option<&Self> {
        match &self.kind {
            Kind::Map(map) => map.entry(step).map(|entry| &entry.value),
            Kind::List(items) => items.get(step.parse::<usize>().ok()?),
            _ => None,
        }
    }

    pub(crate) fn as_text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn as_map(&self) -> Option<&Map> {
        match &self.kind {
            Kind::Map(map) => Some(map),
            _ => None,
        }
    }

    /// The entries if this is a map, else none.
    pub(crate) fn entries(&self) -> &[Entry] {
        self.as_map().map(Map::entries).unwrap_or_default()
    }

    /// The items if this is a list, else none.
    pub(crate) fn items(&self) -> &[Self] {
        match &self.kind {
            Kind::List(items) => items,
            _ => &[],
        }
    }

    /// The same without positions.
    pub(crate) fn to_value(&self) -> Value {
        match &self.kind {
            Kind::Null => Value::Null,
            Kind::Bool(value) => Value::Bool(*value),
            Kind::Number(number, _) => Value::Number(number.clone()),
            Kind::Text(text) => Value::String(text.clone()),
            Kind::List(items) => Value::Array(items.iter().map(Self::to_value).collect()),
            Kind::Map(map) => Value::Object(
                map.entries.iter().map(|entry| (entry.key.clone(), entry.value.to_value())).collect(),
            ),
        }
    }
}

/// The steps of a JSON pointer, unescaped.
pub(crate) fn steps(pointer: &str) -> Vec<String> {
    pointer.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~")).collect()
}

/// One step of a JSON pointer, escaped.
pub(crate) fn escape(step: &str) -> String {
    step.replace('~', "~0").replace('/', "~1")
}
