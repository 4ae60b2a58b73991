//! Errors as the person who wrote the file reads them.

use std::fmt;

use crate::{Position, Source};

/// How much of a quoted line is shown on either side of the place, in characters. Generated files can have very long
/// lines.
const QUOTE_SIDE: usize = 90;

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
    /// The line the error is about, without its end.
    pub quote: String,
}

impl Diagnostic {
    pub(crate) fn new(source: &Source, at: Position, message: String, hint: Option<String>) -> Self {
        Self { file: source.name().to_owned(), at, message, hint, quote: source.line(at.line).to_owned() }
    }

    /// The part of the line worth showing and the caret's distance from its start, tabs and other control characters
    /// replaced so that the caret stands where it should and a hostile file cannot drive the terminal.
    fn excerpt(&self) -> (String, usize) {
        let column = self.at.column.saturating_sub(1);
        let start = column.saturating_sub(QUOTE_SIDE);
        let printable = |c: char| if c.is_control() { ' ' } else { c };
        let text: String = self.quote.chars().skip(start).take(2 * QUOTE_SIDE).map(printable).collect();
        (text.trim_end().to_owned(), column - start)
    }
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
            let (text, offset) = self.excerpt();
            write!(f, "\n  {number} | {text}")?;
            write!(f, "\n  {0:1$} | {0:2$}^", "", number.len(), offset)?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostic {}

/// Every error found, in the order of the file.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl Diagnostics {
    /// Sorts by place and drops errors said twice.
    pub(crate) fn in_order(mut found: Vec<Diagnostic>) -> Self {
        found.sort_by(|a, b| a.at.cmp(&b.at).then_with(|| a.message.cmp(&b.message)));
        found.dedup_by(|a, b| a.at == b.at && a.message == b.message);
        Self(found)
    }

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
