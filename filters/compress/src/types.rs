//! Media types: which are worth it.

use meshgate_sdk::ConfigError;

/// A pattern for a media type, in lower case: what is before the `*` and what is after it, or all of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TypePattern {
    start: String,
    /// What it ends with, if there is a `*`.
    end: Option<String>,
}

/// Text in its many forms.
pub(crate) fn usual() -> Vec<String> {
    let all = [
        "text/*",
        "application/json",
        "application/*+json",
        "application/xml",
        "application/*+xml",
        "application/javascript",
        "application/wasm",
        "image/svg+xml",
    ];
    all.map(str::to_owned).to_vec()
}

/// The patterns, prepared.
pub(crate) fn patterns(texts: &[String]) -> Result<Vec<TypePattern>, ConfigError> {
    let patterns = texts.iter().enumerate().map(|(index, text)| {
        TypePattern::new(text).ok_or_else(|| {
            let message = format_args!("{text:?} is no type: write text/html, text/* or application/*+json");
            ConfigError::new(message).at(format!("types/{index}"))
        })
    });
    patterns.collect()
}

/// Whether a type is one of those, whatever its parameters.
pub(crate) fn matches(patterns: &[TypePattern], content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    patterns.iter().any(|pattern| pattern.matches(&essence))
}

impl TypePattern {
    fn new(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        let (kind, rest) = text.split_once('/')?;
        let sound = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+*".contains(&byte))
        };
        if !sound(kind) || !sound(rest) || text.matches('*').count() > 1 {
            return None;
        }
        Some(match text.split_once('*') {
            Some((start, end)) => Self { start: start.to_owned(), end: Some(end.to_owned()) },
            None => Self { start: text, end: None },
        })
    }

    fn matches(&self, essence: &str) -> bool {
        match &self.end {
            None => essence == self.start,
            Some(end) => essence.strip_prefix(&self.start).is_some_and(|rest| rest.ends_with(end.as_str())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_worth_it() {
        let usual = patterns(&usual()).unwrap();
        for worth in [
            "text/html; charset=utf-8",
            "TEXT/Plain",
            "application/json",
            "application/problem+json",
            "application/atom+xml",
            "image/svg+xml",
            "text/event-stream",
        ] {
            assert!(matches(&usual, worth), "{worth}");
        }
        for not in [
            "image/png",
            "application/grpc",
            "application/octet-stream",
            "application/jsonx",
            "",
            "video/mp4",
        ] {
            assert!(!matches(&usual, not), "{not}");
        }
    }

    #[test]
    fn what_is_no_type_is_refused() {
        for wrong in ["", "*", "text", "text/", "/html", "text/html; charset=utf-8", "*/*", "text/*x*"] {
            assert!(TypePattern::new(wrong).is_none(), "{wrong}");
        }
    }
}
