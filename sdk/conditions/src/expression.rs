//! Regular expressions, as far as a filter has them.

use std::fmt::Debug;

use meshgate_sdk::ConfigError;

/// What regular expressions in conditions become: `WholeText` of the feature `regex`, or [`NoExpressions`].
pub trait Expression: Debug + Sized {
    /// Reads one.
    ///
    /// # Errors
    /// It is none, or the filter has none.
    fn new(expression: &str) -> Result<Self, ConfigError>;

    /// Whether all of a text fits.
    fn matches(&self, text: &[u8]) -> bool;

    /// How long it is, as it was written.
    fn length(&self) -> usize;
}

/// There are no regular expressions: a condition by one is refused.
#[derive(Debug)]
pub enum NoExpressions {}

impl Expression for NoExpressions {
    fn new(_: &str) -> Result<Self, ConfigError> {
        Err(ConfigError::new(
            "this filter knows no regular expressions: write a pattern, or put the filter under a route of `routing`, which does",
        ))
    }

    fn matches(&self, _: &[u8]) -> bool {
        match *self {}
    }

    fn length(&self) -> usize {
        match *self {}
    }
}
