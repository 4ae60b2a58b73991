//! Regular expressions: of bounded size, in time that grows no faster than the text.

use meshgate_sdk::ConfigError;
use regex_lite::{Regex, RegexBuilder};

use crate::expression::Expression;

/// Bytes of a compiled expression. The time for a text grows with the product of both, and every request pays it.
const MOST_BYTES: usize = 64 << 10;

/// An expression that a text has to fit as a whole.
#[derive(Debug)]
pub struct WholeText(Regex);

impl Expression for WholeText {
    fn new(expression: &str) -> Result<Self, ConfigError> {
        // By itself first: a parenthesis too many must not close ours.
        compile(expression)?;
        Ok(Self(compile(&format!(r"\A(?:{expression})\z"))?))
    }

    /// Bytes that are no text fit nothing.
    fn matches(&self, text: &[u8]) -> bool {
        std::str::from_utf8(text).is_ok_and(|text| self.0.is_match(text))
    }

    fn length(&self) -> usize {
        self.0.as_str().len()
    }
}

/// Reads an expression that is looked for anywhere in a text.
///
/// # Errors
/// It is none, or too large.
pub fn compile(expression: &str) -> Result<Regex, ConfigError> {
    RegexBuilder::new(expression).size_limit(MOST_BYTES).build().map_err(|error| {
        ConfigError::new(format_args!("{expression:?} is not a regular expression: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_text_has_to_fit() {
        let digits = WholeText::new("[0-9]+|all").unwrap();
        for (text, fits) in [("12", true), ("all", true), ("x12", false), ("12x", false), ("12\n", false)] {
            assert_eq!(digits.matches(text.as_bytes()), fits, "{text:?}");
        }
        assert!(!digits.matches(b"\xff"));
        assert!(WholeText::new("(?i)abc").unwrap().matches(b"aBc"));
    }

    #[test]
    fn wrong_and_huge_expressions_are_refused() {
        for wrong in ["(", "a)|(b", "[z-a]", "(a", "\\p{Greek}", "(?:[a-z]{500}){500}"] {
            assert!(WholeText::new(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn time_does_not_explode() {
        let nested = WholeText::new("(a*)*b").unwrap();
        assert!(!nested.matches(&[b'a'; 4_000]));
    }
}
