//! What is wrong with a value that can have several forms (`anyOf`, `oneOf`): finds the form that was meant and speaks
//! of that one, instead of listing what is wrong with each.

use std::collections::BTreeSet;

use jsonschema::error::{ValidationError, ValidationErrorKind as Is};
use serde_json::Value;

use super::Problem;
use super::explain::{Explainer, meant, one_of, problem, shown, type_description, type_hint};
use super::walk::{Applies, parts, target};
use crate::formats;
use crate::tree::{Kind, Node};
use crate::words::{list, quoted};

type Errors = Vec<ValidationError<'static>>;

/// Adds what is wrong with a value that has none of its forms. `branches` holds the errors of each form.
pub(super) fn explain(
    explainer: &Explainer<'_>,
    error: &ValidationError<'_>,
    branches: &[Errors],
    found: &mut Vec<Problem>,
) {
    let path = error.instance_path().as_str();
    let node = explainer.node(path);
    let subject = explainer.subject(path);
    let of_type: Vec<&Errors> =
        branches.iter().filter(|errors| !errors.iter().any(|e| is_type(e, path))).collect();
    if let Some(options) = constants(&of_type, path).filter(|options| !options.is_empty()) {
        let (mut message, mut hint) = one_of(&subject, node.as_text(), Some(node), &options);
        if of_type.len() < branches.len() || of_type.iter().any(|errors| is_other_text(errors, path)) {
            message = format!("{subject} has none of the forms it can have: {}", shown(node));
            hint = hint
                .or_else(|| format_hint(&of_type, path, node))
                .or_else(|| describe_all(explainer.schema, error.schema_path().as_str()));
        }
        found.push(Problem { hint, ..problem(node.at, path, message) });
        return;
    }
    if of_type.is_empty() {
        let wanted = describe_branches(explainer.schema, error.schema_path().as_str());
        let wanted = list(&wanted, "or");
        let message = match node.kind {
            Kind::Null => format!("{subject} is empty, it must be {wanted}"),
            _ => format!("{subject} must be {wanted}, not {}", shown(node)),
        };
        let hint = type_hint_of_forms(explainer.schema, error.schema_path().as_str(), node);
        found.push(Problem { hint, wrong_type: true, ..problem(node.at, path, message) });
        return;
    }
    if let Some(best) = closest(&of_type, path) {
        for error in best {
            explainer.explain(error, found);
        }
        return;
    }
    let unknown = unknown_in_all(&of_type, path);
    if !unknown.is_empty() {
        let schema = explainer
            .schema
            .pointer(error.schema_path().as_str().rsplit_once('/').map_or("", |(schema, _)| schema));
        let known = known_keys(explainer.schema, schema);
        found.extend(unknown.iter().map(|key| explainer.unknown_key(path, key, &known)));
        return;
    }
    let message = format!("{subject} has none of the forms it can have");
    let hint = describe_all(explainer.schema, error.schema_path().as_str());
    found.push(Problem { hint, ..problem(node.at, path, message) });
}

fn is_type(error: &ValidationError<'_>, path: &str) -> bool {
    matches!(error.kind(), Is::Type { .. }) && error.instance_path().as_str() == path
}

/// Whether nothing but the text's own form is wrong.
fn is_other_text(errors: &Errors, path: &str) -> bool {
    let mut own = errors.iter().filter(|error| error.instance_path().as_str() == path).peekable();
    own.peek().is_some() && own.all(|error| matches!(error.kind(), Is::Format { .. } | Is::Pattern { .. }))
}

/// What a format that the text is not of says about it, if it has to say more than how it looks.
fn format_hint(branches: &[&Errors], path: &str, node: &Node) -> Option<String> {
    let own = branches.iter().flat_map(|errors| errors.iter());
    let own = own.filter(|error| error.instance_path().as_str() == path);
    let complaints = own.filter_map(|error| match error.kind() {
        Is::Format { format } => formats::complaint(format, node.as_text()?)?.hint,
        _ => None,
    });
    complaints.into_iter().find(|hint| hint.starts_with("did you mean"))
}

/// The values allowed, if every form is nothing but a constant; texts of some format may be others.
fn constants(branches: &[&Errors], path: &str) -> Option<Vec<Value>> {
    let mut options = Vec::new();
    for errors in branches.iter().filter(|errors| !is_other_text(errors, path)) {
        let mut constant = false;
        for error in errors.iter().filter(|error| error.instance_path().as_str() == path) {
            match error.kind() {
                Is::Constant { expected_value } => options.push((**expected_value).clone()),
                Is::Enum { options: more } => options.extend(more.as_array().cloned().unwrap_or_default()),
                _ => continue,
            }
            constant = true;
        }
        if !constant {
            return None;
        }
    }
    Some(options)
}

/// The form whose keys fit best, if one stands out.
fn closest<'e>(branches: &[&'e Errors], path: &str) -> Option<&'e Errors> {
    if let [only] = branches {
        return Some(only);
    }
    let mut ranked: Vec<((usize, usize), &Errors)> =
        branches.iter().map(|errors| ((misfit(errors, path), errors.len()), *errors)).collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    match ranked.as_slice() {
        [((0, first), best), ((0, second), _), ..] if first < second => Some(best),
        [((first, _), best), ((second, _), _), ..] if first < second => Some(best),
        _ => None,
    }
}

/// How far a map's keys, and the constants that tell forms apart, are from a form.
fn misfit(errors: &Errors, path: &str) -> usize {
    let misfits = errors.iter().map(|error| {
        let own = error.instance_path().as_str() == path;
        match error.kind() {
            Is::AdditionalProperties { unexpected } | Is::UnevaluatedProperties { unexpected } if own => {
                unexpected.len()
            }
            Is::Required { .. } | Is::Format { .. } | Is::Pattern { .. } if own => 1,
            Is::Constant { .. } | Is::Enum { .. } => 1,
            _ => 0,
        }
    });
    misfits.sum()
}

/// Keys that no form knows.
fn unknown_in_all(branches: &[&Errors], path: &str) -> Vec<String> {
    let mut unknown: Option<BTreeSet<String>> = None;
    for errors in branches {
        let mut here = BTreeSet::new();
        for error in errors.iter().filter(|error| error.instance_path().as_str() == path) {
            if let Is::AdditionalProperties { unexpected } | Is::UnevaluatedProperties { unexpected } =
                error.kind()
            {
                here.extend(unexpected.iter().cloned());
            }
        }
        unknown = Some(match unknown {
            None => here,
            Some(before) => before.intersection(&here).cloned().collect(),
        });
    }
    unknown.unwrap_or_default().into_iter().collect()
}

/// The keys that a schema knows, in any of its forms.
pub(super) fn known_keys<'s>(root: &'s Value, schema: Option<&'s Value>) -> Vec<&'s str> {
    let mut known = BTreeSet::new();
    if let Some(schema) = schema {
        collect_keys(root, schema, &mut known);
    }
    known.into_iter().collect()
}

fn collect_keys<'s>(root: &'s Value, schema: &'s Value, known: &mut BTreeSet<&'s str>) {
    if let Some(target) = target(root, schema) {
        collect_keys(root, target, known);
    }
    for (applies, part) in parts(schema) {
        match applies {
            // A key whose schema is `false` is one that must not be there.
            Applies::Property(name) if *part != Value::Bool(false) => {
                known.insert(name);
            }
            Applies::Same | Applies::Branch => collect_keys(root, part, known),
            _ => {}
        }
    }
}

/// The forms that an `anyOf` or `oneOf` offers, as a hint.
pub(super) fn describe_all(root: &Value, keyword: &str) -> Option<String> {
    let forms = describe_branches(root, keyword);
    (!forms.is_empty()).then(|| format!("write {}", list(&forms, "or")))
}

/// How the value becomes one of a form that is a single value.
fn type_hint_of_forms(root: &Value, keyword: &str, node: &Node) -> Option<String> {
    let branches = root.pointer(keyword).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    branches.iter().find_map(|branch| {
        let schema = meant(root, branch);
        let wanted = schema
            .get("type")
            .and_then(Value::as_str)
            .filter(|wanted| !matches!(*wanted, "object" | "array"))?;
        type_hint(wanted, schema.get("format").and_then(Value::as_str), node)
    })
}

/// Each form in a few words, each once.
fn describe_branches(root: &Value, keyword: &str) -> Vec<String> {
    let branches = root.pointer(keyword).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut forms: Vec<String> = Vec::new();
    for branch in branches {
        let form = describe(root, meant(root, branch));
        if !forms.contains(&form) {
            forms.push(form);
        }
    }
    forms
}

fn describe(root: &Value, schema: &Value) -> String {
    if let Some(constant) = schema.get("const") {
        return constant.as_str().map_or_else(|| constant.to_string(), quoted);
    }
    if let Some(options) = schema.get("enum").and_then(Value::as_array) {
        let names: Vec<String> =
            options.iter().map(|o| o.as_str().map_or_else(|| o.to_string(), quoted)).collect();
        return list(&names, "or");
    }
    let format = schema.get("format").and_then(Value::as_str);
    match schema.get("type") {
        Some(Value::String(name)) if name == "object" => describe_map(root, schema),
        Some(Value::String(name)) => type_description(name, format),
        Some(Value::Array(names)) => {
            let names: Vec<String> =
                names.iter().filter_map(Value::as_str).map(|name| type_description(name, format)).collect();
            list(&names, "or")
        }
        _ => "something else".to_owned(),
    }
}

fn describe_map(root: &Value, schema: &Value) -> String {
    let required: Vec<&str> = schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let keys = if required.is_empty() { known_keys(root, Some(schema)) } else { required };
    if keys.is_empty() || keys.len() > 6 {
        return "a map".to_owned();
    }
    let keys: Vec<String> = keys.into_iter().map(quoted).collect();
    format!("a map with {}", list(&keys, "and"))
}
