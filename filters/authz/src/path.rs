//! Paths: the one form in which they are compared, and patterns for it.
//!
//! A rule must mean what the endpoint serves. Endpoints decode percent-encoding, resolve `.` and `..`, and many take several
//! slashes for one; so that is done here, too, before a path is compared. Where it is not clear what an endpoint would make
//! of a path (an encoded slash, a backslash), it has no such form, and rules take the safe side.

use meshgate_sdk::ConfigError;

/// The canonical form of a path, without its query; `None` if it is not clear what it stands for.
pub(crate) fn canonical(target: &[u8]) -> Option<Vec<u8>> {
    let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
    // `*` of OPTIONS is no path, and stands for itself.
    if path == b"*" {
        return Some(path.to_vec());
    }
    let rest = path.strip_prefix(b"/")?;
    let mut form = Vec::with_capacity(path.len());
    let mut ends_open = false;
    for segment in rest.split(|byte| *byte == b'/') {
        let segment = decode(segment)?;
        ends_open = true;
        match &segment[..] {
            b"" | b"." => {}
            b".." => {
                let above = form.iter().rposition(|byte| *byte == b'/')?;
                form.truncate(above);
            }
            segment => {
                form.push(b'/');
                form.extend_from_slice(segment);
                ends_open = false;
            }
        }
    }
    if ends_open {
        form.push(b'/');
    }
    Some(form)
}

/// Resolves percent-encoding; `None` where it is broken, or hides what separates.
fn decode(segment: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(segment.len());
    let mut bytes = segment.iter();
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'%' => {
                let mut digit = || char::from(*bytes.next()?).to_digit(16);
                let byte = u8::try_from(digit()? << 4 | digit()?).ok()?;
                if byte == b'/' {
                    return None;
                }
                byte
            }
            byte => *byte,
        };
        if matches!(byte, 0 | b'\\' | b'#') {
            return None;
        }
        plain.push(byte);
    }
    Some(plain)
}

/// A pattern for paths in their canonical form.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PathPattern {
    /// `*`
    Every,
    /// This very path.
    Exact(String),
    /// `/admin/*`
    Prefix(String),
    /// `*.png`
    Suffix(String),
    /// `/users/{*}/orders`: segments before a `{**}`, and what follows it, if there is one.
    Segments { before: Vec<Segment>, after: Option<Vec<Segment>> },
}

/// One segment of a pattern.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Segment {
    /// This very text.
    Exact(String),
    /// `{*}`: any text but none.
    One,
}

impl PathPattern {
    pub(crate) fn new(text: &str) -> Result<Self, ConfigError> {
        let refuse = |message: &str| Err(ConfigError::new(format_args!("{text:?}: {message}")));
        if text == "*" {
            return Ok(Self::Every);
        }
        if !text.starts_with(['/', '*']) {
            return refuse("a path begins with /");
        }
        if text.contains(['?', '#', '%', '\\']) {
            return refuse("a path is compared decoded and without its query: it has no ? # % or \\");
        }
        let never = |segment: &str| matches!(segment, "." | "..");
        if text.contains("//") || text.split('/').any(never) {
            return refuse("paths are compared with one slash for several, and without . and .. segments");
        }
        if text.contains(['{', '}']) {
            return Self::segments(text);
        }
        match (text.strip_prefix('*'), text.strip_suffix('*')) {
            (None, Some(start)) if !start.contains('*') => Ok(Self::Prefix(start.to_owned())),
            (Some(end), None) if !end.contains('*') => Ok(Self::Suffix(end.to_owned())),
            (None, None) if !text.contains('*') => Ok(Self::Exact(text.to_owned())),
            _ => refuse(
                "one * stands at the beginning or at the end; {*} stands for one segment, {**} for several",
            ),
        }
    }

    fn segments(text: &str) -> Result<Self, ConfigError> {
        let refuse = |message: &str| Err(ConfigError::new(format_args!("{text:?}: {message}")));
        let (mut before, mut after) = (Vec::new(), None::<Vec<Segment>>);
        for segment in text.split('/').skip(1) {
            let segment = match segment {
                "{**}" if after.is_some() => return refuse("{**} stands in a pattern once"),
                "{**}" => {
                    after = Some(Vec::new());
                    continue;
                }
                "{*}" => Segment::One,
                exact if exact.contains(['*', '{', '}']) => {
                    return refuse("{*} and {**} are whole segments, and no other * stands beside them");
                }
                exact => Segment::Exact(exact.to_owned()),
            };
            after.as_mut().unwrap_or(&mut before).push(segment);
        }
        if text.starts_with('*') {
            return refuse("a path with {*} or {**} begins with /");
        }
        Ok(Self::Segments { before, after })
    }

    pub(crate) fn matches(&self, path: &[u8]) -> bool {
        match self {
            Self::Every => true,
            Self::Exact(exact) => path == exact.as_bytes(),
            Self::Prefix(start) => path.starts_with(start.as_bytes()),
            Self::Suffix(end) => path.ends_with(end.as_bytes()),
            Self::Segments { before, after } => {
                let Some(rest) = path.strip_prefix(b"/") else { return false };
                let given: Vec<&[u8]> = rest.split(|byte| *byte == b'/').collect();
                // At the end, `{**}` stands for what follows a slash: for one segment or more, the last of which may be empty.
                let least = before.len() + after.as_ref().map_or(0, |after| after.len().max(1));
                let fits = if after.is_some() { given.len() >= least } else { given.len() == least };
                let (start, end) = (given.iter(), given.iter().rev());
                fits && before.iter().zip(start).all(Segment::fits)
                    && after.iter().flatten().rev().zip(end).all(Segment::fits)
            }
        }
    }
}

impl Segment {
    fn fits((segment, text): (&Self, &&[u8])) -> bool {
        match segment {
            Self::Exact(exact) => *text == exact.as_bytes(),
            Self::One => !text.is_empty(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(path: &str) -> Option<String> {
        canonical(path.as_bytes()).map(|form| String::from_utf8(form).unwrap())
    }

    #[test]
    fn ways_of_writing_a_path_have_one_form() {
        for same in [
            "/admin/x",
            "//admin//x",
            "/./admin/x",
            "/a/../admin/x",
            "/%61dmin/x",
            "/%61%64min/%78",
            "/admin/x?y=/z",
            "/a/%2e%2E/admin/x",
            "/admin/y/../x",
            "///admin/././x",
        ] {
            assert_eq!(form(same).as_deref(), Some("/admin/x"), "{same}");
        }
        for (path, expected) in [
            ("/", "/"),
            ("//", "/"),
            ("/.", "/"),
            ("/a/", "/a/"),
            ("/a/.", "/a/"),
            ("/a/b/..", "/a/"),
            ("/a/..", "/"),
            ("*", "*"),
        ] {
            assert_eq!(form(path).as_deref(), Some(expected), "{path}");
        }
        assert_eq!(canonical(b"/%e4/\xff"), Some(b"/\xe4/\xff".to_vec()));
    }

    #[test]
    fn what_could_be_taken_in_two_ways_has_no_form() {
        for path in [
            "", "admin", "/a%2fb", "/a%2F", "/a\\b", "/a%5Cb", "/%00", "/%", "/%4", "/%zz", "/..",
            "/a/../..", "/a#b", "/a%23",
        ] {
            assert_eq!(form(path), None, "{path}");
        }
    }

    fn matches(pattern: &str, path: &str) -> bool {
        PathPattern::new(pattern).unwrap().matches(path.as_bytes())
    }

    #[test]
    fn patterns_match_as_written() {
        assert!(matches("/a", "/a") && !matches("/a", "/a/") && !matches("/a", "/A"));
        assert!(
            matches("/a/*", "/a/")
                && matches("/a/*", "/a/b/c")
                && !matches("/a/*", "/a")
                && matches("/a*", "/ab/c")
        );
        assert!(
            matches("*.png", "/x/y.png") && !matches("*.png", "/x/y.png/z") && matches("*/info", "/a/info")
        );
        assert!(matches("*", "/") && matches("*", "*"));
        assert!(
            matches("/u/{*}/o", "/u/7/o")
                && !matches("/u/{*}/o", "/u//o")
                && !matches("/u/{*}/o", "/u/7/8/o")
        );
        assert!(matches("/f/{**}", "/f/") && matches("/f/{**}", "/f/a/b") && !matches("/f/{**}", "/f"));
        assert!(
            matches("/f/{**}/z", "/f/z") && matches("/f/{**}/z", "/f/a/b/z") && !matches("/f/{**}/z", "/f/a")
        );
        assert!(matches("/{*}/x/{**}", "/a/x/b") && !matches("/{*}/x/{**}", "/a/y/b"));
        assert!(!matches("/{**}/{*}", "/a/"));
    }

    #[test]
    fn patterns_that_cannot_match_are_refused() {
        for wrong in [
            "",
            "a",
            "/a?b",
            "/a%20b",
            "/a\\b",
            "/a//b",
            "/a/../b",
            "/./a",
            "/a*b",
            "*a*",
            "/a/**",
            "/{**}/{**}",
            "/a{*}",
            "/{x}",
            "/{*}*",
            "*/{*}",
        ] {
            assert!(PathPattern::new(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn any_bytes_have_a_form_or_none() {
        // Every text of up to four of the bytes that mean something.
        let alphabet = b"/.%2eF\\a?";
        let mut texts = vec![Vec::new()];
        for _ in 0..4 {
            texts = texts
                .iter()
                .flat_map(|text: &Vec<u8>| alphabet.iter().map(|byte| [&text[..], &[*byte]].concat()))
                .collect();
            for text in &texts {
                if let Some(form) = canonical(&[b"/", &text[..]].concat()) {
                    assert!(form.starts_with(b"/") && !form.windows(2).any(|two| two == b"//"));
                    assert!(
                        form.split(|byte| *byte == b'/').all(|segment| segment != b"." && segment != b"..")
                    );
                }
            }
        }
    }
}
