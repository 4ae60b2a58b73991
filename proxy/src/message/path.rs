//! One form of a path for routing, filters and endpoints, so that nobody checks one path and serves another.

use std::borrow::Cow;

/// A path that must not go further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadPath;

/// The path without `.` and `..` segments, also where they are written `%2e`. Everything else stays as it is.
///
/// Refused: a broken percent-encoding, an encoded NUL, an encoded or plain backslash, an encoded slash, control and
/// non-ASCII bytes, and `..` above the root. `path` is without its query.
pub fn canonical(path: &str) -> Result<Cow<'_, str>, BadPath> {
    if !path.starts_with('/') {
        return Err(BadPath);
    }
    let mut plain = true;
    let bytes = path.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'%' => {
                let code = bytes.get(at + 1..at + 3).and_then(decode).ok_or(BadPath)?;
                match code {
                    0 | b'/' | b'\\' => return Err(BadPath),
                    b'.' => plain = false,
                    _ => {}
                }
            }
            b'.' if bytes.get(at.wrapping_sub(1)) == Some(&b'/') => plain = false,
            0..=b' ' | b'\\' | 0x7f.. => return Err(BadPath),
            _ => {}
        }
    }
    if plain { Ok(Cow::Borrowed(path)) } else { remove_dots(path) }
}

fn decode(digits: &[u8]) -> Option<u8> {
    match digits {
        [high, low] => {
            let high = char::from(*high).to_digit(16)?;
            let low = char::from(*low).to_digit(16)?;
            u8::try_from(high << 4 | low).ok()
        }
        _ => None,
    }
}

/// RFC 3986 section 5.2.4, with `..` above the root refused instead of ignored.
fn remove_dots(path: &str) -> Result<Cow<'_, str>, BadPath> {
    let mut kept: Vec<Cow<'_, str>> = Vec::new();
    let segments = path.split('/').skip(1);
    let mut ends_open = false;
    for segment in segments {
        let segment = undisguise(segment);
        ends_open = false;
        match segment.as_ref() {
            "." => ends_open = true,
            ".." => {
                kept.pop().ok_or(BadPath)?;
                ends_open = true;
            }
            _ => kept.push(segment),
        }
    }
    let mut result = String::with_capacity(path.len());
    for segment in &kept {
        result.push('/');
        result.push_str(segment);
    }
    if ends_open || result.is_empty() {
        result.push('/');
    }
    Ok(Cow::Owned(result))
}

/// `%2e` is a dot by the URI rules: unreserved characters mean the same encoded and plain.
fn undisguise(segment: &str) -> Cow<'_, str> {
    if segment.contains('%') {
        Cow::Owned(segment.replace("%2e", ".").replace("%2E", "."))
    } else {
        Cow::Borrowed(segment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_are_resolved_and_the_rest_stays() {
        let cases = [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a//b", "/a//b"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/.", "/"),
            ("/a/..", "/"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e/b", "/b"),
            ("/%2e/b", "/b"),
            ("/.well-known/x", "/.well-known/x"),
            ("/a/...", "/a/..."),
            ("/a.b/c..d", "/a.b/c..d"),
            ("/a;x=y/%41", "/a;x=y/%41"),
            ("/a%2eb", "/a.b"),
        ];
        for (path, expected) in cases {
            assert_eq!(canonical(path).as_deref(), Ok(expected), "{path}");
        }
    }

    #[test]
    fn a_plain_path_is_not_copied() {
        assert!(matches!(canonical("/productpage/reviews-1.html"), Ok(Cow::Borrowed(_))));
    }

    #[test]
    fn traps_are_refused() {
        for path in [
            "", "a", "*", "/..", "/a/../..", "/%2e%2e", "/%", "/%4", "/%zz", "/%+1", "/%00", "/%2f", "/%2F",
            "/%5c", "/a\\b", "/a b", "/\u{e9}", "/\x7f",
        ] {
            assert_eq!(canonical(path), Err(BadPath), "{path}");
        }
    }

    proptest::proptest! {
        #[test]
        fn canonical_is_idempotent_and_dotless(path in "/([a.%2eE/]|%2e|/\\.\\.?){0,20}") {
            if let Ok(once) = canonical(&path) {
                let once = once.into_owned();
                let twice = canonical(&once).map(Cow::into_owned);
                proptest::prop_assert_eq!(twice, Ok(once.clone()));
                proptest::prop_assert!(once.split('/').all(|segment| segment != "." && segment != ".."));
            }
        }

        #[test]
        fn no_text_panics(path in "(/|\\.|%[0-9a-fA-F]?|[ -~]|\\PC){0,24}") {
            if let Ok(once) = canonical(&path) {
                proptest::prop_assert!(once.starts_with('/') && once.is_ascii());
                let twice = canonical(&once);
                proptest::prop_assert_eq!(twice.as_deref(), Ok(&*once));
            }
        }
    }
}
