//! Finds what a filter's configuration holds that means something outside of it: names of clusters, lists of filters,
//! files. A module's author marks them in the schema, with `"x-meshgate": "cluster"`, `"chain"`, `"file"` or `"file_text"`.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use jsonschema::Validator;
use serde_json::{Value, json};

use super::walk::{Applies, parts, target};
use crate::Position;
use crate::tree::{Entry, Kind, Node, escape};

/// A mark in a schema.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Mark {
    /// A string, or a key, that names a cluster.
    Cluster,
    /// A list in the form of a chain.
    Chain,
    /// A string that is the path of a file, relative to the configuration's folder.
    File,
    /// The same, and the filter gets what is in the file.
    FileText,
}

impl Mark {
    /// The keyword in the schema.
    pub(crate) const KEYWORD: &'static str = "x-meshgate";

    pub(crate) fn of(schema: &Value) -> Option<Self> {
        match schema.get(Self::KEYWORD)?.as_str()? {
            "cluster" => Some(Self::Cluster),
            "chain" => Some(Self::Chain),
            "file" => Some(Self::File),
            "file_text" => Some(Self::FileText),
            _ => None,
        }
    }
}

/// What a mark was found on.
#[derive(Debug)]
pub(crate) enum Found<'n> {
    /// The name of a cluster, as a value or as a key.
    Cluster { name: &'n str, at: Position },
    /// A chain; the path is a JSON pointer.
    Chain { node: &'n Node, path: String },
    /// A file; the path is a JSON pointer. With `text` the filter gets what is in it.
    File { name: &'n str, at: Position, path: String, text: bool },
}

/// Everything in a configuration that its schema marks, in the file's order, each once. In alternatives (`anyOf`,
/// `oneOf`) those branches count whose shape the value has, also if details in it are wrong: so that one mistake does
/// not hide others.
pub(crate) fn find<'n>(schema: &Value, node: &'n Node) -> Vec<Found<'n>> {
    let mut search = Search {
        root: schema,
        seen: HashSet::new(),
        patterns: Patterns::default(),
        known: HashSet::new(),
        found: Vec::new(),
    };
    search.visit(schema, node, &mut Vec::new());
    let mut found = search.found;
    found.sort_by_key(|found| match found {
        Found::Cluster { at, .. } | Found::File { at, .. } => *at,
        Found::Chain { node, .. } => node.at,
    });
    found
}

struct Search<'s, 'n> {
    root: &'s Value,
    /// Which schema has already been applied to what, by address.
    seen: HashSet<(*const Value, *const Node, Option<&'n str>)>,
    patterns: Patterns,
    known: HashSet<(Mark, Position, String)>,
    found: Vec<Found<'n>>,
}

impl<'s, 'n> Search<'s, 'n> {
    fn visit(&mut self, schema: &'s Value, node: &'n Node, path: &mut Vec<String>) {
        if !self.seen.insert((std::ptr::from_ref(schema), std::ptr::from_ref(node), None)) {
            return;
        }
        self.mark(schema, node, path);
        if let Some(target) = target(self.root, schema) {
            self.visit(target, node, path);
        }
        for (applies, part) in parts(schema) {
            match applies {
                Applies::Same => self.visit(part, node, path),
                Applies::Branch if self.has_shape(part, node) => self.visit(part, node, path),
                Applies::Names => {
                    for entry in node.entries() {
                        self.visit_name(part, node, entry);
                    }
                }
                _ => self.visit_below(schema, applies, part, node, path),
            }
        }
    }

    /// Applies a part of `schema` to the entries of a map or the items of a list.
    fn visit_below(
        &mut self,
        schema: &'s Value,
        applies: Applies<'s>,
        part: &'s Value,
        node: &'n Node,
        path: &mut Vec<String>,
    ) {
        let items = node.items();
        match applies {
            Applies::Property(name) => {
                let entry = node.as_map().and_then(|map| map.entry(name));
                self.visit_entries(part, entry, path);
            }
            Applies::Pattern(pattern) => {
                let entries =
                    node.entries().iter().filter(|entry| self.patterns.matches(pattern, &entry.key));
                let entries: Vec<&Entry> = entries.collect();
                self.visit_entries(part, entries, path);
            }
            Applies::OtherProperties => {
                let entries = node.entries().iter().filter(|entry| !self.names_property(schema, &entry.key));
                let entries: Vec<&Entry> = entries.collect();
                self.visit_entries(part, entries, path);
            }
            Applies::Item(index) => self.visit_items(part, index, items.get(index..index + 1), path),
            Applies::OtherItems => {
                let first = schema.get("prefixItems").and_then(Value::as_array).map_or(0, Vec::len);
                self.visit_items(part, first, items.get(first..), path);
            }
            _ => {}
        }
    }

    fn visit_entries(
        &mut self,
        part: &'s Value,
        entries: impl IntoIterator<Item = &'n Entry>,
        path: &mut Vec<String>,
    ) {
        for entry in entries {
            path.push(escape(&entry.key));
            self.visit(part, &entry.value, path);
            path.pop();
        }
    }

    fn visit_items(
        &mut self,
        part: &'s Value,
        first: usize,
        items: Option<&'n [Node]>,
        path: &mut Vec<String>,
    ) {
        for (index, item) in items.unwrap_or_default().iter().enumerate() {
            path.push((first + index).to_string());
            self.visit(part, item, path);
            path.pop();
        }
    }

    fn visit_name(&mut self, schema: &'s Value, node: &'n Node, entry: &'n Entry) {
        if !self.seen.insert((std::ptr::from_ref(schema), std::ptr::from_ref(node), Some(&entry.key))) {
            return;
        }
        if Mark::of(schema) == Some(Mark::Cluster) {
            self.push(Found::Cluster { name: &entry.key, at: entry.at });
        }
        if let Some(target) = target(self.root, schema) {
            self.visit_name(target, node, entry);
        }
        for (applies, part) in parts(schema) {
            if matches!(applies, Applies::Same | Applies::Branch) {
                self.visit_name(part, node, entry);
            }
        }
    }

    fn mark(&mut self, schema: &Value, node: &'n Node, path: &[String]) {
        let found = match (Mark::of(schema), &node.kind) {
            (Some(Mark::Cluster), Kind::Text(name)) => Found::Cluster { name, at: node.at },
            (Some(mark @ (Mark::File | Mark::FileText)), Kind::Text(name)) => {
                Found::File { name, at: node.at, path: pointer(path), text: mark == Mark::FileText }
            }
            // Anything but a list too: the chain's builder says what is wrong with it.
            (Some(Mark::Chain), kind) if !matches!(kind, Kind::Null) => {
                Found::Chain { node, path: pointer(path) }
            }
            _ => return,
        };
        self.push(found);
    }

    /// Two ways to the same mark are one find.
    fn push(&mut self, found: Found<'n>) {
        let what = match &found {
            Found::Cluster { at, .. } => (Mark::Cluster, *at, String::new()),
            Found::Chain { node, path } => (Mark::Chain, node.at, path.clone()),
            Found::File { at, path, .. } => (Mark::File, *at, path.clone()),
        };
        if self.known.insert(what) {
            self.found.push(found);
        }
    }

    /// Whether a schema says something of its own about a key, so that `additionalProperties` beside it does not apply.
    fn names_property(&self, schema: &Value, key: &str) -> bool {
        let named = schema.get("properties").is_some_and(|properties| properties.get(key).is_some());
        let patterns = schema.get("patternProperties").and_then(Value::as_object);
        named
            || patterns
                .is_some_and(|patterns| patterns.keys().any(|pattern| self.patterns.matches(pattern, key)))
    }

    /// Whether a value looks like what a branch describes: its type, its constants, the keys it must have.
    fn has_shape(&self, schema: &Value, node: &Node) -> bool {
        if schema == &Value::Bool(false) || !has_type(schema, node) {
            return false;
        }
        if let Some(constant) = schema.get("const")
            && *constant != node.to_value()
        {
            return false;
        }
        if let Some(options) = schema.get("enum").and_then(Value::as_array)
            && !options.contains(&node.to_value())
        {
            return false;
        }
        let required =
            schema.get("required").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        if let Some(map) = node.as_map()
            && required.iter().filter_map(Value::as_str).any(|key| map.entry(key).is_none())
        {
            return false;
        }
        target(self.root, schema).is_none_or(|target| self.has_shape(target, node))
    }
}

fn has_type(schema: &Value, node: &Node) -> bool {
    let fits = |name: &Value| match &node.kind {
        Kind::Null => name == "null",
        Kind::Bool(_) => name == "boolean",
        Kind::Number(number, _) => name == "number" || (name == "integer" && !number.is_f64()),
        Kind::Text(_) => name == "string",
        Kind::List(_) => name == "array",
        Kind::Map(_) => name == "object",
    };
    match schema.get("type") {
        None => true,
        Some(Value::Array(names)) => names.iter().any(fits),
        Some(name) => fits(name),
    }
}

/// Regular expressions met on the way, compiled. The validator does it, so that both understand patterns alike.
#[derive(Default)]
struct Patterns(RefCell<HashMap<String, Option<Validator>>>);

impl Patterns {
    fn matches(&self, pattern: &str, key: &str) -> bool {
        let mut compiled = self.0.borrow_mut();
        let validator = compiled
            .entry(pattern.to_owned())
            .or_insert_with(|| jsonschema::validator_for(&json!({"pattern": pattern})).ok());
        validator.as_ref().is_some_and(|validator| validator.is_valid(&Value::from(key)))
    }
}

fn pointer(path: &[String]) -> String {
    path.iter().flat_map(|step| ["/", step]).collect()
}
