//! The way from a path to a checked configuration.

use std::path::{Path, PathBuf};

use crate::{Config, Diagnostics, Modules, Position, Source};

/// What came of loading a file.
#[derive(Debug)]
pub struct Load {
    /// The configuration, or everything that is wrong with it.
    pub outcome: Result<Config, Diagnostics>,
    /// Every file that was looked at, also on failure, the configuration itself first: a change to any of them can change the outcome.
    pub files: Vec<PathBuf>,
}

/// Loads and checks a configuration file. Never panics, whatever the file holds.
pub fn load(path: &Path, modules: &mut dyn Modules) -> Load {
    let _ = modules.standard();
    let source = Source::new(path.display().to_string(), "");
    let outcome = Err(source.diagnostic(Position::default(), "the loader is not written yet", None).into());
    Load { outcome, files: vec![path.to_owned()] }
}

/// The JSON Schema of the configuration file, for editors.
pub fn schema() -> serde_json::Value {
    serde_json::Value::Bool(true)
}
