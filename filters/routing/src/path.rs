//! Path patterns: exact, `/**` and `*`.

use meshgate_sdk::ConfigError;

/// A pattern for a path without its query.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PathPattern {
    /// Every path: `/**`.
    Every,
    /// This very path.
    Exact(Box<[u8]>),
    /// This path and everything below: `/reviews/**`.
    Below(Box<[u8]>),
    /// Segments with `*` in them, and perhaps everything below.
    Segments { segments: Box<[Box<[u8]>]>, below: bool },
}

impl PathPattern {
    /// Reads a pattern.
    pub(crate) fn new(text: &str) -> Result<Self, ConfigError> {
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
    pub(crate) fn matches(&self, path: &[u8]) -> bool {
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
        }
    }
}

/// Whether `text` has the form of `pattern`, where each `*` stands for any bytes, none included.
///
/// Going back is only ever needed to the last `*`, so the time is bounded by the product of the lengths.
pub(crate) fn glob(pattern: &[u8], text: &[u8]) -> bool {
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

    fn matches(pattern: &str, path: &str) -> bool {
        PathPattern::new(pattern).unwrap().matches(path.as_bytes())
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
            assert!(PathPattern::new(wrong).is_err(), "{wrong}");
        }
    }
}
