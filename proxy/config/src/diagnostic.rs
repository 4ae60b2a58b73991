//! Errors as the person who wrote the file reads them, and the list they are gathered in.

use std::collections::BTreeSet;
use std::fmt;

use crate::words::{quoted, suggestion};
use crate::{Position, Source};

/// How much of a quoted line is kept on either side of the place, in characters. Generated files can have very long
/// lines.
const QUOTE_SIDE: usize = 90;

/// Most errors listed. Beyond that nobody reads them, and a hostile file must not cost unbounded memory.
pub(crate) const MOST: usize = 500;

/// One error: where, what, and how to mend it if we can tell.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Diagnostic {
    /// The file's name, as given to the loader.
    pub file: String,
    /// Where in the file; line 0 if the error is about the file as a whole.
    pub at: Position,
    /// What is wrong.
    pub message: String,
    /// How it may be mended.
    pub hint: Option<String>,
    /// The line the error is about, or the part of it around the place.
    pub quote: String,
    /// Number of characters of `quote` before the place.
    pub caret: usize,
}

impl Diagnostic {
    pub(crate) fn new(source: &Source, at: Position, message: &str, hint: Option<&str>) -> Self {
        let column = at.column.saturating_sub(1);
        let start = column.saturating_sub(QUOTE_SIDE);
        let quote: String = source.line(at.line).chars().skip(start).take(2 * QUOTE_SIDE).collect();
        Self {
            file: source.name().to_owned(),
            at,
            message: printable(message),
            hint: hint.map(printable),
            quote: printable(quote.trim_end()),
            caret: column - start,
        }
    }
}

/// Control characters become spaces: the caret stands where it should after a tab, and nothing that is in a file or
/// comes from a module can drive the reader's terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || reorders(c) { ' ' } else { c }).collect()
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.at.line == 0 {
            write!(f, "{}: {}", self.file, self.message)?;
        } else {
            write!(f, "{}:{}: {}", self.file, self.at, self.message)?;
        }
        if let Some(hint) = &self.hint {
            write!(f, " (hint: {hint})")?;
        }
        if self.at.line != 0 {
            let number = self.at.line.to_string();
            write!(f, "\n  {number} | {}", self.quote)?;
            write!(f, "\n  {0:1$} | {0:2$}^", "", number.len(), self.caret)?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostic {}

/// Characters that make what follows them appear in another order than it stands: a line could lie about itself.
fn reorders(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Every error found, in the order of the file.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl Diagnostics {
    /// The errors one by one.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.0.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(one: Diagnostic) -> Self {
        Self(vec![one])
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for diagnostic in self {
            writeln!(f, "{diagnostic}")?;
        }
        match self.len() {
            1 => f.write_str("1 error"),
            n => write!(f, "{n} errors"),
        }
    }
}

impl std::error::Error for Diagnostics {}

/// Gathers errors while a file is checked.
pub(crate) struct Report<'s> {
    source: &'s Source,
    found: Vec<Diagnostic>,
    /// In other files.
    elsewhere: Vec<Diagnostic>,
    dropped: bool,
}

impl<'s> Report<'s> {
    pub(crate) fn new(source: &'s Source) -> Self {
        Self { source, found: Vec::new(), elsewhere: Vec::new(), dropped: false }
    }

    pub(crate) fn error(&mut self, at: Position, message: impl AsRef<str>) {
        self.push(at, message.as_ref(), None);
    }

    pub(crate) fn error_with(&mut self, at: Position, message: impl AsRef<str>, hint: impl AsRef<str>) {
        self.push(at, message.as_ref(), Some(hint.as_ref()));
    }

    pub(crate) fn push(&mut self, at: Position, message: &str, hint: Option<&str>) {
        if self.found.len() < MOST {
            self.found.push(Diagnostic::new(self.source, at, message, hint));
        } else {
            self.dropped = true;
        }
    }

    /// A name that leads nowhere.
    pub(crate) fn unknown(&mut self, what: &str, name: &str, at: Position, known: &BTreeSet<&str>) {
        // Looking for the nearest name is work, and nobody reads a hint that is not listed.
        let listed = self.found.len() < MOST;
        let hint = if listed { suggestion(name, known.iter().copied()) } else { None };
        self.push(at, &format!("unknown {what} {}", quoted(name)), hint.as_deref());
    }

    /// What is wrong with another file.
    pub(crate) fn absorb(&mut self, diagnostics: Diagnostics) {
        let room = MOST.saturating_sub(self.elsewhere.len());
        self.dropped |= diagnostics.len() > room;
        self.elsewhere.extend(diagnostics.0.into_iter().take(room));
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.found.is_empty() && self.elsewhere.is_empty()
    }

    /// What was found, sorted by place, each error once; what was found in other files comes last.
    pub(crate) fn finish(self) -> Diagnostics {
        let mut found = self.found;
        found.sort_by(|a, b| a.at.cmp(&b.at).then_with(|| a.message.cmp(&b.message)));
        found.dedup_by(|a, b| a.at == b.at && a.message == b.message);
        found.extend(self.elsewhere);
        if self.dropped {
            let message = "there are more errors, which are not listed";
            found.push(Diagnostic::new(self.source, Position::default(), message, None));
        }
        Diagnostics(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_cut_around_the_place() {
        let text = format!("{}X{}", "a".repeat(5000), "b".repeat(5000));
        let source = Source::new("f.yaml", text);
        let diagnostic = source.diagnostic(Position { line: 1, column: 5001 }, "here", None);
        assert_eq!(diagnostic.quote.chars().count(), 2 * QUOTE_SIDE);
        assert_eq!(diagnostic.quote.chars().nth(diagnostic.caret), Some('X'));
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let source = Source::new("f.yaml", "a:\t\u{1b}[31mred");
        let text = source.diagnostic(Position { line: 1, column: 4 }, "bad \u{7} thing", None).to_string();
        assert_eq!(text, "f.yaml:1:4: bad   thing\n  1 | a:  [31mred\n    |    ^");
    }

    #[test]
    fn the_list_is_bounded_sorted_and_says_each_error_once() {
        let source = Source::new("f.yaml", "");
        let mut report = Report::new(&source);
        for line in (1..=MOST + 7).rev() {
            report.error(Position { line, column: 1 }, "x");
        }
        let diagnostics = report.finish();
        assert_eq!(diagnostics.len(), MOST + 1);
        assert_eq!(diagnostics.0[MOST].message, "there are more errors, which are not listed");
        assert!(diagnostics.0[..MOST].is_sorted_by_key(|d| d.at));

        let mut report = Report::new(&source);
        report.error(Position { line: 1, column: 1 }, "x");
        report.error(Position { line: 1, column: 1 }, "x");
        assert_eq!(report.finish().len(), 1);
    }
}
