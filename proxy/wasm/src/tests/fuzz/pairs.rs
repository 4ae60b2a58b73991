//! Serialized maps from a guest: decoded as an independent reader decodes them, written back as they were, and applied
//! to a request's head as a whole or not at all.

use http::{HeaderMap, HeaderValue, Method, Version};
use proptest::prelude::*;

use super::{cases, changed, replay};
use crate::pairs::{decode, encode, size, write};
use crate::{RequestHead, pairs};

const TARGET: &str = "pairs";

fn run(bytes: &[u8]) {
    let decoded = decode(bytes).ok();
    assert_eq!(decoded, plainly(bytes));
    let Some(pairs) = decoded else { return };
    let encoded = encode(|| pairs.iter().copied());
    match bytes {
        [] | [0] => assert_eq!(encoded, [0; 4]),
        // There is one form for each map.
        _ => assert_eq!(encoded, bytes),
    }
    assert_eq!(size(pairs.iter().copied()), encoded.len());
    let mut short = vec![0; encoded.len() - 1];
    assert!(write(&mut short, pairs.len(), || pairs.iter().copied()).is_err());
    apply(&pairs);
}

/// The format, read in the plainest way.
fn plainly(bytes: &[u8]) -> Option<Vec<pairs::Pair<'_>>> {
    if bytes.is_empty() || bytes == [0] {
        return Some(Vec::new());
    }
    let number = |index: usize| {
        let word: [u8; 4] = bytes.get(4 * index..4 * index + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(word)).ok()
    };
    let count = number(0).filter(|count| *count <= 1_024 && bytes.len() <= 1 << 20)?;
    let mut at = 4 + 8 * count;
    let mut text = |length: usize| {
        let text = bytes.get(at..at + length)?;
        at += length + 1;
        (bytes.get(at - 1) == Some(&0)).then_some(text)
    };
    let pairs = (0..count)
        .map(|index| Some((text(number(1 + 2 * index)?)?, text(number(2 + 2 * index)?)?)))
        .collect::<Option<Vec<_>>>()?;
    (at == bytes.len()).then_some(pairs)
}

/// What a head accepts it can show again, and be given again; what it refuses leaves it as it was.
fn apply(pairs: &[pairs::Pair<'_>]) {
    let mut headers = HeaderMap::new();
    headers.insert("x-before", HeaderValue::from_static("1"));
    let mut head = RequestHead {
        method: Method::GET,
        scheme: http::uri::Scheme::HTTP,
        authority: HeaderValue::from_static("example.com"),
        path: "/before".parse().unwrap(),
        version: Version::HTTP_11,
        headers,
    };
    let before = format!("{head:?}");
    if head.replace_all(pairs, usize::MAX).is_err() {
        assert_eq!(format!("{head:?}"), before);
        return;
    }
    let shown: Vec<(Vec<u8>, Vec<u8>)> =
        head.pairs().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
    for (name, value) in &shown {
        let name = name.strip_prefix(b":").unwrap_or(name);
        assert!(!name.is_empty() && name.iter().all(|byte| byte.is_ascii_graphic() && *byte != b':'));
        assert!(!value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
    }
    assert!(!head.headers.contains_key("transfer-encoding") && !head.headers.contains_key("host"));
    let after = format!("{head:?}");
    let again: Vec<pairs::Pair<'_>> = shown.iter().map(|(name, value)| (&name[..], &value[..])).collect();
    head.replace_all(&again, usize::MAX).unwrap();
    assert_eq!(format!("{head:?}"), after);
}

/// Words that maps are made of, good ones and bad ones.
fn word() -> impl Strategy<Value = Vec<u8>> {
    let words: Vec<&[u8]> = vec![
        b"",
        b":path",
        b":method",
        b":authority",
        b":scheme",
        b":status",
        b"host",
        b"Host",
        b"x-a",
        b"X-A",
        b"/a?b",
        b"a.example:80",
        b"GET",
        b"http",
        b"content-length",
        b"5",
        b"te",
        b"trailers",
        b"connection",
        b"upgrade",
        b"transfer-encoding",
        b"a\r\nb",
        b"a\0",
        b" a ",
        b"/a b",
        b"\xff",
    ];
    prop_oneof![
        4 => prop::sample::select(words).prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 0..12),
    ]
}

#[test]
fn stored_inputs() {
    replay(TARGET, run);
}

proptest! {
    #![proptest_config(cases(2_000))]

    #[test]
    fn changed_inputs(bytes in changed(TARGET)) {
        run(&bytes);
    }

    #[test]
    fn any_maps(pairs in prop::collection::vec((word(), word()), 0..8)) {
        run(&encode(|| pairs.iter().map(|(name, value)| (&name[..], &value[..]))));
    }

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        run(&bytes);
    }
}
