//! Path patterns: exact, `/**` and `*`, and regular expressions.

use meshgate_sdk::ConfigError;

use crate::config::PathConfig;
use crate::expression::{Expression, NoExpressions};

/// A pattern for a path without its query.
#[derive(Debug)]
pub enum PathPattern<E = NoExpressions> {
    /// Every path: `/**`.
    Every,
    /// This very path.
    Exact(Box<[u8]>),
    /// This path and everything below: `/reviews/**`.
    Below(Box<[u8]>),
    /// Segments with `*` in them, and perhaps everything below.
    Segments {
        /// The segments, without the slashes before them.
        segments: Box<[Box<[u8]>]>,
        /// Whether everything below is meant, too.
        below: bool,
    },
    /// A path that fits a regular expression.
    Regex(E),
}

impl<E: Expression> PathPattern<E> {
    /// Reads what a user writes.
    ///
    /// # Errors
    /// It is no pattern that a path could match.
    pub fn new(config: &PathConfig) -> Result<Self, ConfigError> {
        match config {
            PathConfig::Pattern(text) => Self::read(text),
            PathConfig::Rule(rule) => E::new(&rule.regex).map(Self::Regex).map_err(|error| error.at("regex")),
        }
    }

    fn read(text: &str) -> Result<Self, ConfigError> {
        let refuse = |message: &str| Err(ConfigError::new(format_args!("{text:?}: {message}")));
        if !text.starts_with('/') {
            return refuse("a path begins with /");
        }
        if text.contains(['?', '#']) {
            return refuse("a path ends before the query: use `query` for its parameters");
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return refuse(
                "write blanks and characters outside ASCII percent-encoded, as they stand in a URL",
            );
        }
        let (base, below) = match text.strip_suffix("/**") {
            Some(base) => (base, true),
            None => (text, false),
        };
        if base.contains("**") {
            return refuse("** stands only at the end, after a /");
        }
        Ok(match (base.contains('*'), below) {
            (false, false) => Self::Exact(base.as_bytes().into()),
            (false, true) if base.is_empty() => Self::Every,
            (false, true) => Self::Below(base.as_bytes().into()),
            (true, below) => {
                let segments = base.split('/').skip(1).map(|segment| segment.as_bytes().into()).collect();
                Self::Segments { segments, below }
            }
        })
    }

    /// Whether a path is meant.
    pub fn matches(&self, path: &[u8]) -> bool {
        match self {
            Self::Every => true,
            Self::Exact(exact) => path == &**exact,
            Self::Below(base) => {
                path.strip_prefix(&**base).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
            }
            Self::Segments { segments, below } => {
                let Some(path) = path.strip_prefix(b"/") else { return false };
                let mut given = path.split(|byte| *byte == b'/');
                let all = segments.iter().all(|pattern| given.next().is_some_and(|text| glob(pattern, text)));
                all && (*below || given.next().is_none())
            }
            Self::Regex(expression) => expression.matches(path),
        }
    }

    /// How many bytes of a path that matches stand before what `/**` is for. `None`: the pattern has no such end.
    pub fn prefix(&self, path: &[u8]) -> Option<usize> {
        match self {
            Self::Every => Some(0),
            Self::Below(base) => Some(base.len()),
            Self::Segments { segments, below: true } => {
                // Each segment of the pattern has a slash before it.
                let mut slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
                Some(slashes.nth(segments.len()).map_or(path.len(), |(at, _)| at))
            }
            Self::Exact(_) | Self::Segments { below: false, .. } | Self::Regex(_) => None,
        }
    }

    /// How much it says of a path: a kind, and a length within the kind. Exact paths say most, then patterns of the whole
    /// path, then those with `/**`.
    pub fn precision(&self) -> (u8, usize) {
        let written = |segments: &[Box<[u8]>]| segments.iter().map(|segment| segment.len() + 1).sum();
        match self {
            Self::Every => (0, 0),
            Self::Below(base) => (1, base.len()),
            Self::Segments { segments, below: true } => (1, written(segments)),
            Self::Segments { segments, below: false } => (2, written(segments)),
            Self::Regex(expression) => (2, expression.length()),
            Self::Exact(path) => (3, path.len()),
        }
    }
}

/// Whether `text` has the form of `pattern`, where each `*` stands for any bytes, none included.
///
/// Going back is only ever needed to the last `*`, so the time is bounded by the product of the lengths.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at_pattern, mut at_text) = (0, 0);
    let mut last_star = None;
    while let Some(byte) = text.get(at_text) {
        match pattern.get(at_pattern) {
            Some(b'*') => {
                last_star = Some((at_pattern + 1, at_text));
                at_pattern += 1;
            }
            Some(expected) if expected == byte => {
                at_pattern += 1;
                at_text += 1;
            }
            _ => {
                let Some((after_star, taken)) = last_star else { return false };
                last_star = Some((after_star, taken + 1));
                at_pattern = after_star;
                at_text = taken + 1;
            }
        }
    }
    pattern[at_pattern..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::tests::Literal;

    fn pattern(text: &str) -> PathPattern<Literal> {
        PathPattern::read(text).unwrap()
    }

    fn matches(text: &str, path: &str) -> bool {
        pattern(text).matches(path.as_bytes())
    }

    #[test]
    fn what_stands_before_the_stars_is_known() {
        for (text, path, prefix) in [
            ("/**", "/a/b", Some("")),
            ("/a/**", "/a/b/c", Some("/a")),
            ("/a/**", "/a", Some("/a")),
            ("/users/*/**", "/users/7/orders/1", Some("/users/7")),
            ("/users/*/**", "/users/7", Some("/users/7")),
            ("/users/*", "/users/7", None),
            ("/a", "/a", None),
        ] {
            let known = pattern(text).prefix(path.as_bytes()).map(|length| &path[..length]);
            assert_eq!(known, prefix, "{text} of {path}");
        }
    }

    #[test]
    fn patterns_that_say_more_are_more_precise() {
        let regex = PathPattern::Regex(Literal::new("/a/[0-9]+").unwrap());
        let mut known = vec![pattern("/**"), pattern("/a/**"), pattern("/a/*/**"), pattern("/a/*"), regex];
        known.extend([pattern("/a"), pattern("/a/b")]);
        assert!(known.windows(2).all(|pair| pair[0].precision() < pair[1].precision()), "{known:?}");
    }

    #[test]
    fn exact_paths_match_only_themselves() {
        assert!(matches("/login", "/login"));
        for other in ["/", "/login/", "/login/x", "/loginx", "/Login", ""] {
            assert!(!matches("/login", other), "{other}");
        }
        assert!(matches("/", "/") && !matches("/", "/x"));
    }

    #[test]
    fn two_stars_match_the_path_itself_and_everything_below() {
        for path in ["/reviews", "/reviews/", "/reviews/1", "/reviews/1/2", "/reviews//"] {
            assert!(matches("/reviews/**", path), "{path}");
        }
        for path in ["/", "/review", "/reviewsx", "/reviewsx/1", "/x/reviews"] {
            assert!(!matches("/reviews/**", path), "{path}");
        }
        for path in ["/", "/x", "/x/y/", "*", ""] {
            assert!(matches("/**", path), "{path}");
        }
    }

    #[test]
    fn one_star_stays_in_its_segment() {
        assert!(matches("/users/*/orders", "/users/7/orders"));
        assert!(matches("/users/*/orders", "/users//orders"));
        assert!(!matches("/users/*/orders", "/users/7/8/orders"));
        assert!(!matches("/users/*/orders", "/users/7/orders/"));
        assert!(matches("/users/*/**", "/users/7") && matches("/users/*/**", "/users/7/8/9"));
        assert!(!matches("/users/*/**", "/users"));
        assert!(matches("/a/*.png", "/a/x.png") && !matches("/a/*.png", "/a/x.gif"));
        assert!(matches("/v*-b/c*", "/v1-b/c") && !matches("/v*-b/c*", "/v1-c/c"));
        assert!(!matches("/*", "x"));
    }

    #[test]
    fn globs_backtrack_without_exploding() {
        assert!(glob(b"a*b*c", b"aXbXbXc"));
        assert!(glob(b"*", b"") && glob(b"", b"") && !glob(b"", b"x"));
        assert!(!glob(&b"a*".repeat(50), &[b'a'; 49]));
        assert!(!glob(b"*a*a*a*a*a*a*a*a*a*a*a*b", &[b'a'; 4000]));
    }

    #[test]
    fn wrong_patterns_are_refused() {
        for wrong in ["", "reviews", "/a?b", "/a#b", "/a b", "/ü", "/a/**/b", "/a**", "/**/**", "**"] {
            assert!(PathPattern::<Literal>::read(wrong).is_err(), "{wrong}");
        }
    }
}
