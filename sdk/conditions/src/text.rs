//! What a text has to be: a field's value, a parameter's, a property's.

use meshgate_sdk::ConfigError;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::expression::{Expression, NoExpressions};

/// What a text has to be: the text itself, or a rule for it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "expected a text, or one of exact, prefix, suffix, contains, regex, present and not"
)]
pub enum TextConfig {
    /// This very text.
    Exact(String),
    /// A text to which this applies.
    Rule(TextRule),
}

/// A rule for a text.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TextRule {
    /// It is this very text.
    Exact(String),
    /// It begins so.
    Prefix(#[schemars(length(min = 1))] String),
    /// It ends so.
    Suffix(#[schemars(length(min = 1))] String),
    /// This is somewhere in it.
    Contains(#[schemars(length(min = 1))] String),
    /// All of it fits this regular expression, where the filter knows them.
    Regex(String),
    /// Whether there is one at all.
    Present(bool),
    /// It is not what this says, or there is none.
    Not(Box<TextConfig>),
}

/// A rule, prepared.
#[derive(Debug)]
pub enum Text<E = NoExpressions> {
    /// It is this very text.
    Exact(Box<[u8]>),
    /// It begins so.
    Prefix(Box<[u8]>),
    /// It ends so.
    Suffix(Box<[u8]>),
    /// This is somewhere in it.
    Contains(Box<[u8]>),
    /// All of it fits.
    Regex(E),
    /// Whether there is one at all.
    Present(bool),
    /// It is something else, or there is none.
    Not(Box<Self>),
}

impl<E: Expression> Text<E> {
    /// Reads what a user writes.
    ///
    /// # Errors
    /// It says nothing, or is no regular expression.
    pub fn new(config: &TextConfig) -> Result<Self, ConfigError> {
        let bytes = |text: &str| Box::from(text.as_bytes());
        let part = |text: &str, key: &str| {
            let empty = || ConfigError::new("every text has the empty text in it: use `present`").at(key);
            (!text.is_empty()).then(|| bytes(text)).ok_or_else(empty)
        };
        let rule = match config {
            TextConfig::Exact(text) => return Ok(Self::Exact(bytes(text))),
            TextConfig::Rule(rule) => rule,
        };
        Ok(match rule {
            TextRule::Exact(text) => Self::Exact(bytes(text)),
            TextRule::Prefix(text) => Self::Prefix(part(text, "prefix")?),
            TextRule::Suffix(text) => Self::Suffix(part(text, "suffix")?),
            TextRule::Contains(text) => Self::Contains(part(text, "contains")?),
            TextRule::Regex(text) => Self::Regex(E::new(text).map_err(|error| error.at("regex"))?),
            TextRule::Present(present) => Self::Present(*present),
            TextRule::Not(other) => {
                Self::Not(Box::new(Self::new(other).map_err(|error| error.within("not"))?))
            }
        })
    }

    /// Whether a text, or that there is none, is what is meant.
    pub fn matches(&self, given: Option<&[u8]>) -> bool {
        match (self, given) {
            (Self::Present(present), given) => given.is_some() == *present,
            (Self::Not(other), given) => !other.matches(given),
            (_, None) => false,
            (Self::Exact(text), Some(given)) => given == &**text,
            (Self::Prefix(text), Some(given)) => given.starts_with(text),
            (Self::Suffix(text), Some(given)) => given.ends_with(text),
            (Self::Contains(text), Some(given)) => given.windows(text.len()).any(|part| part == &**text),
            (Self::Regex(expression), Some(given)) => expression.matches(given),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Stands in for regular expressions, one of which it is too simple to read.
    #[derive(Debug)]
    pub(crate) struct Literal(String);

    impl Expression for Literal {
        fn new(expression: &str) -> Result<Self, ConfigError> {
            if expression == "(" {
                return Err(ConfigError::new("not closed"));
            }
            Ok(Self(expression.to_owned()))
        }

        fn matches(&self, text: &[u8]) -> bool {
            self.0.split('|').any(|literal| literal.as_bytes() == text)
        }

        fn length(&self) -> usize {
            self.0.len()
        }
    }

    fn text(config: &str) -> Result<Text<Literal>, String> {
        let config: TextConfig = serde_json::from_str(config).map_err(|error| error.to_string())?;
        Text::new(&config).map_err(|error| error.to_string())
    }

    #[test]
    fn each_rule_means_what_it_says() {
        for (rule, fitting, others) in [
            (r#""abc""#, vec!["abc"], vec!["ABC", "abcd", ""]),
            (r#"{"exact": ""}"#, vec![""], vec!["a"]),
            (r#"{"prefix": "ab"}"#, vec!["ab", "abc"], vec!["a", "xab", ""]),
            (r#"{"suffix": "ab"}"#, vec!["ab", "xab"], vec!["b", "abx", ""]),
            (r#"{"contains": "ab"}"#, vec!["ab", "xabx"], vec!["axb", "a", ""]),
            (r#"{"regex": "a|bb"}"#, vec!["a", "bb"], vec!["ab", "xa", ""]),
            (r#"{"present": true}"#, vec!["", "a"], vec![]),
            (r#"{"present": false}"#, vec![], vec!["", "a"]),
            (r#"{"not": "a"}"#, vec!["", "b", "aa"], vec!["a"]),
            (r#"{"not": {"prefix": "a"}}"#, vec!["", "b", "ba"], vec!["a", "ab"]),
        ] {
            let rule = text(rule).unwrap();
            assert!(fitting.iter().all(|text| rule.matches(Some(text.as_bytes()))), "{rule:?}");
            assert!(!others.iter().any(|text| rule.matches(Some(text.as_bytes()))), "{rule:?}");
            let fits_none = matches!(rule, Text::Present(false) | Text::Not(_));
            assert_eq!(rule.matches(None), fits_none, "{rule:?}");
        }
    }

    #[test]
    fn rules_that_say_nothing_are_refused() {
        for (rule, place) in [
            (r#"{"prefix": ""}"#, "prefix: "),
            (r#"{"suffix": ""}"#, "suffix: "),
            (r#"{"contains": ""}"#, "contains: "),
            (r#"{"regex": "("}"#, "regex: "),
            (r#"{"not": {"prefix": ""}}"#, "not/prefix: "),
        ] {
            assert!(text(rule).unwrap_err().starts_with(place), "{rule}");
        }
        for wrong in [r#"{"like": "a"}"#, r#"{}"#, r#"{"exact": "a", "prefix": "b"}"#, "5"] {
            assert!(text(wrong).unwrap_err().contains("expected a text"), "{wrong}");
        }
    }

    #[test]
    fn filters_without_regular_expressions_say_so() {
        let rule: TextConfig = serde_json::from_str(r#"{"regex": "a"}"#).unwrap();
        let error = Text::<NoExpressions>::new(&rule).unwrap_err().to_string();
        assert!(error.starts_with("regex: this filter knows no regular expressions"), "{error}");
    }
}
