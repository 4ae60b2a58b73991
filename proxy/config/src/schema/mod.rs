//! JSON Schemas at work: a compiled schema, and what it says about a part of the file in words with positions.

mod explain;
mod forms;
pub(crate) mod marks;
pub(crate) mod sound;
mod walk;

use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::Value;

use crate::Position;
use crate::diagnostic::MOST;
use crate::formats::{FORMATS, complaint};
use crate::tree::Node;

/// Most steps a regular expression in a schema may go back before a value counts as not matching.
const BACKTRACKS: usize = 100_000;

/// A compiled JSON Schema.
pub(crate) struct Checker {
    schema: Value,
    validator: Validator,
}

/// An error in the file that a schema found.
pub(crate) struct Problem {
    pub(crate) at: Position,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
    /// JSON pointer to the value that is wrong, from the checked part's root.
    pub(crate) path: String,
    /// Whether the value has the wrong type.
    pub(crate) wrong_type: bool,
    /// For an unknown key: the known one that was probably meant.
    meant: Option<String>,
    /// For a missing key: its name.
    missing: Option<String>,
}

impl Checker {
    /// Compiles a schema.
    ///
    /// # Errors
    /// What is wrong with the schema.
    pub(crate) fn new(schema: Value) -> Result<Self, String> {
        sound::check(&schema)?;
        let mut options = jsonschema::options()
            .with_draft(Draft::Draft202012)
            .should_validate_formats(true)
            .with_pattern_options(PatternOptions::fancy_regex().backtrack_limit(BACKTRACKS));
        for (name, _) in FORMATS {
            options = options.with_format(name, move |text: &str| complaint(name, text).is_none());
        }
        let validator = options.build(&schema).map_err(|error| {
            let place = error.instance_path().as_str();
            if place.is_empty() {
                format!("is not valid: {error}")
            } else {
                format!("is not valid at `{place}`: {error}")
            }
        })?;
        Ok(Self { schema, validator })
    }

    pub(crate) fn schema(&self) -> &Value {
        &self.schema
    }

    pub(crate) fn accepts(&self, value: &Value) -> bool {
        self.validator.is_valid(value)
    }

    /// What is wrong with a part of the file. `label` names the part as a whole. Everything, but no more
    /// than can be listed.
    pub(crate) fn check(&self, node: &Node, label: &str) -> Vec<Problem> {
        let value = node.to_value();
        let explainer = explain::Explainer { schema: &self.schema, root: node, label };
        let mut problems = Vec::new();
        // One more than are listed, so that the report knows that there are more.
        for error in self.validator.iter_errors(&value).take(MOST + 1) {
            explainer.explain(&error, &mut problems);
        }
        drop_consequences(&mut problems);
        problems
    }
}

/// A misspelt key is one mistake: that the key it was meant to be is missing need not be said.
fn drop_consequences(problems: &mut Vec<Problem>) {
    let meant: Vec<(String, String)> =
        problems.iter().filter_map(|problem| Some((problem.path.clone(), problem.meant.clone()?))).collect();
    problems.retain(|problem| {
        let Some(missing) = &problem.missing else { return true };
        !meant.iter().any(|(path, meant)| *path == problem.path && meant == missing)
    });
}
