//! The text that was loaded, and places in it.

use std::fmt;

use crate::Diagnostic;

/// A place in the configuration file. Both numbers count from 1; columns count characters.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// The configuration file's name and text, kept so that errors found after loading (a module that does not
/// compile, an address in use) can quote the line they are about.
#[derive(Debug)]
pub struct Source {
    name: String,
    text: String,
}

impl Source {
    /// A text and the name that diagnostics give it, usually the path as the user wrote it.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { name: name.into(), text: text.into() }
    }

    /// The name that diagnostics give the text.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// An error about the given place.
    pub fn diagnostic(&self, at: Position, message: impl Into<String>, hint: Option<String>) -> Diagnostic {
        Diagnostic::new(self, at, message.into(), hint)
    }

    /// One line without its end; empty if there is no such line.
    pub(crate) fn line(&self, line: usize) -> &str {
        line.checked_sub(1).and_then(|index| self.text.lines().nth(index)).unwrap_or_default()
    }
}
