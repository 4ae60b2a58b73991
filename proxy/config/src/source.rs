//! The text that was loaded, and places in it.

use std::fmt;

use crate::Diagnostic;

/// A place in the configuration file. Both numbers count from 1; columns count characters. Line 0 means the file as a
/// whole.
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
    /// Where each line starts, in bytes.
    lines: Vec<usize>,
}

impl Source {
    /// A text and the name that diagnostics give it, usually the path as the user wrote it.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        let text = text.into();
        let lines = line_starts(&text);
        Self { name: name.into(), text, lines }
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
        Diagnostic::new(self, at, &message.into(), hint.as_deref())
    }

    /// One line without its end; empty if there is no such line.
    pub(crate) fn line(&self, line: usize) -> &str {
        let Some(index) = line.checked_sub(1) else { return "" };
        let Some(&start) = self.lines.get(index) else { return "" };
        let end = self.lines.get(index + 1).copied().unwrap_or(self.text.len());
        self.text[start..end].trim_end_matches(['\r', '\n']).trim_start_matches('\u{feff}')
    }

    /// The place of a byte.
    pub(crate) fn position(&self, byte: usize) -> Position {
        let line = self.lines.partition_point(|&start| start <= byte).max(1);
        let start = self.lines.get(line - 1).copied().unwrap_or_default();
        let column = self.text.get(start..byte).map_or(0, |before| before.chars().count()) + 1;
        Position { line, column }
    }
}

/// Where lines start. A line ends as in YAML: with CR LF, LF, or CR alone.
fn line_starts(text: &str) -> Vec<usize> {
    let bytes = text.as_bytes();
    let ends = bytes
        .iter()
        .enumerate()
        .filter(|&(index, &byte)| byte == b'\n' || (byte == b'\r' && bytes.get(index + 1) != Some(&b'\n')));
    std::iter::once(0).chain(ends.map(|(index, _)| index + 1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_as_in_yaml() {
        let source = Source::new("x", "one\r\ntwo\rthree\n\nfive");
        let lines: Vec<&str> = (0..=6).map(|line| source.line(line)).collect();
        assert_eq!(lines, ["", "one", "two", "three", "", "five", ""]);
    }

    #[test]
    fn positions_count_characters() {
        let source = Source::new("x", "ä b\nöü c");
        assert_eq!(source.position(0), Position { line: 1, column: 1 });
        assert_eq!(source.position(3), Position { line: 1, column: 3 });
        assert_eq!(source.position(source.text().len() - 1), Position { line: 2, column: 4 });
        assert_eq!(source.position(999).line, 2);
    }
}
