//! Turns a validator's errors into sentences about the file: the key or value they are about, what it must be, what it
//! is instead, and how to mend it.

use std::collections::HashSet;

use jsonschema::error::{TypeKind, ValidationError, ValidationErrorKind as Is};
use serde_json::Value;

use super::{Problem, forms, walk};
use crate::Position;
use crate::formats;
use crate::tree::{Kind, Node, steps};
use crate::words::{list, quoted, suggestion};

pub(super) struct Explainer<'a> {
    pub(super) schema: &'a Value,
    pub(super) root: &'a Node,
    /// Names the checked part as a whole.
    pub(super) label: &'a str,
}

impl<'a> Explainer<'a> {
    /// Adds what an error says.
    pub(super) fn explain(&self, error: &ValidationError<'_>, found: &mut Vec<Problem>) {
        let path = error.instance_path().as_str();
        let node = self.node(path);
        match error.kind() {
            Is::AdditionalProperties { unexpected } | Is::UnevaluatedProperties { unexpected } => {
                let known = forms::known_keys(self.schema, self.stated_in(error));
                found.extend(unexpected.iter().map(|key| self.unknown_key(path, key, &known)));
            }
            Is::Required { property } => {
                let key = property.as_str().unwrap_or_default();
                let message = format!("missing key {} in {}", quoted(key), self.subject(path));
                found.push(Problem { missing: Some(key.to_owned()), ..problem(node.at, path, message) });
            }
            Is::Type { kind } => {
                found.push(self.wrong_type(path, node, &type_names(kind), self.stated_in(error)))
            }
            Is::AnyOf { context } | Is::OneOfNotValid { context } => {
                forms::explain(self, error, context, found)
            }
            Is::OneOfMultipleValid { .. } => {
                let message = format!("{} fits more than one of the forms it can have", self.subject(path));
                let hint = forms::describe_all(self.schema, error.schema_path().as_str());
                found.push(Problem { hint, ..problem(node.at, path, message) });
            }
            Is::PropertyNames { error: inner } => {
                let key = inner.instance().as_str().unwrap_or_default();
                let at = node.as_map().and_then(|map| map.entry(key)).map_or(node.at, |entry| entry.at);
                let (message, hint) = self.requirement(inner, &format!("the key {}", quoted(key)), None);
                found.push(Problem { hint, ..problem(at, path, message) });
            }
            // How the validator says that a map without known keys has keys.
            Is::FalseSchema if error.schema_path().as_str().ends_with("/additionalProperties") => {
                let known = forms::known_keys(self.schema, self.stated_in(error));
                let unknown = node.entries().iter().filter(|entry| !known.contains(&entry.key.as_str()));
                found.extend(unknown.map(|entry| self.unknown_key(path, &entry.key, &known)));
            }
            Is::UniqueItems => found.push(self.repeated_item(path, node)),
            _ => {
                let (message, hint) = self.requirement(error, &self.subject(path), Some(node));
                found.push(Problem { hint, ..problem(node.at, path, message) });
            }
        }
    }

    /// The value a JSON pointer leads to, or the last one on the way to it.
    pub(super) fn node(&self, path: &str) -> &'a Node {
        steps(path)
            .iter()
            .try_fold(self.root, |node, step| node.step(step).ok_or(node))
            .unwrap_or_else(|last| last)
    }

    /// How a sentence names the value at a path.
    pub(super) fn subject(&self, path: &str) -> String {
        let steps = steps(path);
        let Some((last, before)) = steps.split_last() else { return self.label.to_owned() };
        let parent = before.iter().try_fold(self.root, |node, step| node.step(step));
        if !parent.is_some_and(|parent| matches!(parent.kind, Kind::List(_))) {
            return quoted(last);
        }
        let number = last.parse::<usize>().map_or(0, |index| index + 1);
        match before.last() {
            Some(list) => format!("entry {number} of {}", quoted(list)),
            None => format!("entry {number} of {}", self.label),
        }
    }

    /// The schema that holds the keyword an error is about.
    fn stated_in(&self, error: &ValidationError<'_>) -> Option<&'a Value> {
        let keyword = error.schema_path().as_str();
        self.schema.pointer(keyword.rsplit_once('/').map_or("", |(schema, _)| schema))
    }

    pub(super) fn unknown_key(&self, path: &str, key: &str, known: &[&str]) -> Problem {
        let node = self.node(path);
        let map = node.as_map();
        let at = map.and_then(|map| map.entry(key)).map_or(node.at, |entry| entry.at);
        let meant = crate::words::nearest(key, known.iter().copied());
        let (hint, meant) = match (meant, meant.and_then(|name| map?.entry(name))) {
            (Some(name), None) => (Some(format!("did you mean {}?", quoted(name))), Some(name)),
            (Some(name), Some(there)) => {
                (Some(format!("{} is in line {}", quoted(name), there.at.line)), None)
            }
            (None, _) => (suggestion(key, known.iter().copied()), None),
        };
        let message = format!("unknown key {} in {}", quoted(key), self.subject(path));
        Problem { hint, meant: meant.map(str::to_owned), ..problem(at, path, message) }
    }

    fn wrong_type(&self, path: &str, node: &Node, types: &[String], schema: Option<&Value>) -> Problem {
        let format = schema.and_then(|schema| schema.get("format")).and_then(Value::as_str);
        let wanted: Vec<String> = types.iter().map(|name| type_description(name, format)).collect();
        let (subject, wanted) = (self.subject(path), list(&wanted, "or"));
        let message = match node.kind {
            Kind::Null => format!("{subject} is empty, it must be {wanted}"),
            _ => format!("{subject} must be {wanted}, not {}", shown(node)),
        };
        let hint = types.iter().find_map(|name| type_hint(name, format, node));
        Problem { hint, wrong_type: true, ..problem(node.at, path, message) }
    }

    fn repeated_item(&self, path: &str, node: &Node) -> Problem {
        let items = node.items();
        let mut seen = HashSet::new();
        let second = items.iter().find(|item| !seen.insert(item.to_value().to_string()));
        let at = second.map_or(node.at, |item| item.at);
        problem(at, path, format!("{} has an entry twice", self.subject(path)))
    }

    /// A requirement on a single value, as a sentence, and a hint.
    fn requirement(
        &self,
        error: &ValidationError<'_>,
        subject: &str,
        node: Option<&Node>,
    ) -> (String, Option<String>) {
        let text = node.and_then(Node::as_text).or_else(|| error.instance().as_str());
        let says = |rest: String| (format!("{subject} {rest}"), None);
        match error.kind() {
            Is::Enum { options } => {
                one_of(subject, text, node, options.as_array().map(Vec::as_slice).unwrap_or_default())
            }
            Is::Constant { expected_value } => {
                one_of(subject, text, node, std::slice::from_ref(&**expected_value))
            }
            Is::Format { format } => format_complaint(subject, format, text.unwrap_or_default()),
            Is::Pattern { pattern } => says(format!("does not match {}", quoted(pattern))),
            Is::Minimum { limit } => says(format!("must be at least {limit}")),
            Is::Maximum { limit } => says(format!("must be at most {limit}")),
            Is::ExclusiveMinimum { limit } => says(format!("must be more than {limit}")),
            Is::ExclusiveMaximum { limit } => says(format!("must be less than {limit}")),
            Is::MultipleOf { multiple_of } => says(format!("must be a multiple of {multiple_of}")),
            Is::MinLength { limit: 1 } | Is::MinItems { limit: 1 } | Is::MinProperties { limit: 1 } => {
                says("must not be empty".to_owned())
            }
            Is::MinLength { limit } => says(format!("must have at least {limit} characters")),
            Is::MaxLength { limit } => says(format!("must have at most {limit} characters")),
            Is::MinItems { limit } => says(format!("must have at least {limit} entries")),
            Is::MaxItems { limit } => says(format!("must have at most {limit} entries")),
            Is::AdditionalItems { limit } => says(format!("must have at most {limit} entries")),
            Is::MinProperties { limit } => says(format!("must have at least {limit} keys")),
            Is::MaxProperties { limit } => says(format!("must have at most {limit} keys")),
            Is::Type { kind } => {
                let wanted: Vec<String> =
                    type_names(kind).iter().map(|name| type_description(name, None)).collect();
                says(format!("must be {}", list(&wanted, "or")))
            }
            Is::FalseSchema => says("is not allowed here".to_owned()),
            Is::Not { .. } => says("has a value that is not allowed".to_owned()),
            Is::Contains => says("lacks an entry that it must have".to_owned()),
            Is::BacktrackLimitExceeded { .. } => says("is too long to check against its pattern".to_owned()),
            _ => says(format!("is not valid: {}", error.masked())),
        }
    }
}

pub(super) fn problem(at: Position, path: &str, message: String) -> Problem {
    Problem { at, message, hint: None, path: path.to_owned(), wrong_type: false, meant: None, missing: None }
}

/// "must be one of …", with the nearest as a hint.
pub(super) fn one_of(
    subject: &str,
    text: Option<&str>,
    node: Option<&Node>,
    options: &[Value],
) -> (String, Option<String>) {
    let names: Vec<String> = options
        .iter()
        .map(|option| option.as_str().map_or_else(|| option.to_string(), str::to_owned))
        .collect();
    let shown_names: Vec<String> = names.iter().map(|name| quoted(name)).collect();
    let is = node.map(|node| format!(", not {}", shown(node))).unwrap_or_default();
    let message = format!("{subject} must be {}{is}", list(&shown_names, "or"));
    let near = text.and_then(|text| crate::words::nearest(text, names.iter().map(String::as_str)));
    (message, near.map(|name| format!("did you mean {}?", quoted(name))))
}

fn format_complaint(subject: &str, format: &str, text: &str) -> (String, Option<String>) {
    match formats::complaint(format, text) {
        Some(complaint) if text.is_empty() => (format!("{subject} {}", complaint.message), complaint.hint),
        Some(complaint) => (format!("{subject} {}: {}", complaint.message, quoted(text)), complaint.hint),
        None => (format!("{subject} is not of the format {}: {}", quoted(format), quoted(text)), None),
    }
}

fn type_names(kind: &TypeKind) -> Vec<String> {
    match kind {
        TypeKind::Single(name) => vec![name.to_string()],
        // "… or empty" is what an optional key's schema says; nobody looks for that.
        TypeKind::Multiple(names) => {
            names.iter().map(|name| name.to_string()).filter(|name| name != "null").collect()
        }
    }
}

pub(super) fn type_description(name: &str, format: Option<&str>) -> String {
    match name {
        "string" => format.and_then(formats::description).unwrap_or("a string"),
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => "`true` or `false`",
        "array" => "a list",
        "object" => "a map",
        "null" => "empty",
        other => other,
    }
    .to_owned()
}

/// A value as sentences name it.
pub(super) fn shown(node: &Node) -> String {
    match &node.kind {
        Kind::Null => "empty".to_owned(),
        Kind::Bool(value) => format!("`{value}`"),
        Kind::Number(_, written) => format!("the number {}", quoted(written)),
        Kind::Text(text) => format!("the string {}", quoted(text)),
        Kind::List(_) => "a list".to_owned(),
        Kind::Map(_) => "a map".to_owned(),
    }
}

/// How a value becomes one of the wanted type.
pub(super) fn type_hint(wanted: &str, format: Option<&str>, node: &Node) -> Option<String> {
    match (wanted, &node.kind) {
        ("string", Kind::Number(_, written)) => match format {
            Some("duration") => Some(format!("add a unit: `{written}s` or `{written}ms`")),
            Some("size") => Some(format!("add a unit: `{written}KiB` or `{written}MiB`")),
            Some("socket-address" | "listener-address") => {
                Some(format!("write an IP address before the port: `127.0.0.1:{written}`"))
            }
            Some("endpoint") => Some(format!("write a host before the port: `127.0.0.1:{written}`")),
            _ => Some(format!("quote it: `\"{written}\"`")),
        },
        ("string", Kind::Bool(value)) => Some(format!("quote it: `\"{value}\"`")),
        ("boolean", Kind::Text(text)) => match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "y" => Some("write `true`".to_owned()),
            "false" | "no" | "off" | "n" => Some("write `false`".to_owned()),
            _ => None,
        },
        ("integer" | "number", Kind::Text(text)) if text.parse::<f64>().is_ok() => {
            Some("write it without quotes".to_owned())
        }
        ("array", Kind::Text(text)) if text.len() < 30 => Some(format!("write it as a list: `[{text}]`")),
        ("array", Kind::Map(_)) => Some("start each entry with `- `".to_owned()),
        _ => None,
    }
}

/// The schema a schema stands for: the end of its `$ref`s.
pub(super) fn meant<'s>(root: &'s Value, schema: &'s Value) -> &'s Value {
    let mut meant = schema;
    // Circles have been refused.
    while let Some(target) = walk::target(root, meant) {
        meant = target;
    }
    meant
}
