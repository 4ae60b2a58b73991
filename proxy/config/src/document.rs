//! Other files of ours in YAML, checked as strictly as the configuration and with the same errors.

use std::path::Path;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::diagnostic::Report;
use crate::load::read;
use crate::schema::Checker;
use crate::tree::Node;
use crate::{Diagnostics, Position, Source, yaml};

/// Reads a YAML file into a type, whose schema says what may stand there. `what` it is, for messages.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load_document<T: DeserializeOwned + JsonSchema>(path: &Path, what: &str) -> Result<T, Diagnostics> {
    let checker = Checker::new(schemars::schema_for!(T).to_value());
    read_checked(path, [what, &format!("the {what}")], &checker, |root, report| {
        if !report.is_clean() {
            return None;
        }
        let value = serde_json::from_value(root.to_value());
        value.map_err(|error| report.error(root.at, format!("the {what} cannot be read: {error}"))).ok()
    })
}

/// Reads a YAML file, checks its form, and makes of it what `make` does, unless something is wrong: then `make` may say
/// what else is. `what` it is, and what its root is called in messages.
pub(crate) fn read_checked<T>(
    path: &Path,
    [what, root_name]: [&str; 2],
    checker: &Result<Checker, String>,
    make: impl FnOnce(&Node, &mut Report<'_>) -> Option<T>,
) -> Result<T, Diagnostics> {
    let name = path.display().to_string();
    let text = match read(path, what) {
        Ok(text) => text,
        Err((message, at)) => return Err(Source::new(name, "").diagnostic(at, message, None).into()),
    };
    let source = Source::new(name, text);
    let mut report = Report::new(&source);
    let Some(root) = yaml::parse(&source, &mut report) else { return Err(report.finish()) };
    match checker {
        Ok(checker) => {
            for problem in checker.check(&root, root_name) {
                report.push(problem.at, &problem.message, problem.hint.as_deref());
            }
        }
        Err(error) => report.error(Position::default(), format!("the schema of the {what} {error}")),
    }
    match make(&root, &mut report) {
        Some(made) if report.is_clean() => Ok(made),
        _ => Err(report.finish()),
    }
}
