//! Bytes that were written as text: base64 and hexadecimal digits.
//!
//! ```
//! use meshgate_sdk::encoding;
//!
//! assert_eq!(encoding::base64(b"YW5uOnNlY3JldA==").as_deref(), Some(&b"ann:secret"[..]));
//! assert_eq!(encoding::base64_url(b"_-8").as_deref(), Some(&[0xff, 0xef][..]));
//! assert_eq!(encoding::hexadecimal(b"c0Ff").as_deref(), Some(&[0xc0, 0xff][..]));
//! ```

/// Reads base64 with the letters `+` and `/`, padded with `=`. `None` if it is anything else.
///
/// ```
/// assert_eq!(meshgate_sdk::encoding::base64(b"aGk="), Some(b"hi".to_vec()));
/// ```
pub fn base64(text: &[u8]) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let bare = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
    decode(bare, [b'+', b'/'])
}

/// Reads base64 with the letters `-` and `_`, without padding, as in tokens. `None` if it is anything else.
///
/// ```
/// assert_eq!(meshgate_sdk::encoding::base64_url(b"aGk"), Some(b"hi".to_vec()));
/// ```
pub fn base64_url(text: &[u8]) -> Option<Vec<u8>> {
    decode(text, [b'-', b'_'])
}

fn decode(text: &[u8], last: [u8; 2]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for group in text.chunks(4) {
        let mut bits = 0_u32;
        for letter in group {
            let value = match letter {
                b'A'..=b'Z' => letter - b'A',
                b'a'..=b'z' => letter - b'a' + 26,
                b'0'..=b'9' => letter - b'0' + 52,
                letter if *letter == last[0] => 62,
                letter if *letter == last[1] => 63,
                _ => return None,
            };
            bits = bits << 6 | u32::from(value);
        }
        // Of a group that is not full, the bits that make no byte are 0: each sequence of bytes is written in one way.
        let (count, spare) = match group.len() {
            4 => (3, 0),
            3 => (2, 2),
            2 => (1, 4),
            _ => return None,
        };
        if bits & ((1 << spare) - 1) != 0 {
            return None;
        }
        let [_, three @ ..] = (bits >> spare << (8 * (3 - count))).to_be_bytes();
        bytes.extend(three.iter().take(count));
    }
    Some(bytes)
}

/// Reads pairs of hexadecimal digits, in any case. `None` if it is anything else.
///
/// ```
/// assert_eq!(meshgate_sdk::encoding::hexadecimal(b"6869"), Some(b"hi".to_vec()));
/// ```
pub fn hexadecimal(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    text.chunks(2)
        .map(|pair| match pair {
            [high, low] => u8::try_from(digit(*high)? << 4 | digit(*low)?).ok(),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_as_it_is_written() {
        // RFC 4648, section 10.
        for (text, bytes) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9vYg==", "foob"),
            ("Zm9vYmE=", "fooba"),
            ("Zm9vYmFy", "foobar"),
        ] {
            assert_eq!(base64(text.as_bytes()).as_deref(), Some(bytes.as_bytes()), "{text}");
            let bare = text.trim_end_matches('=');
            assert_eq!(base64_url(bare.as_bytes()).as_deref(), Some(bytes.as_bytes()), "{bare}");
        }
        assert_eq!(base64(b"/+8="), Some(vec![0xff, 0xef]));
    }

    #[test]
    fn other_text_is_refused() {
        for wrong in ["Zg", "Zg=", "Zg===", "Z===", "Zh==", "Zm9=", "_-8=", "Zm 9", "Zm9v\n", "=", "===="] {
            assert_eq!(base64(wrong.as_bytes()), None, "{wrong}");
        }
        for wrong in ["Z", "Zh", "Zg==", "/+8", "Zm9vY", "Zm9\u{e4}"] {
            assert_eq!(base64_url(wrong.as_bytes()), None, "{wrong}");
        }
        for wrong in ["a", "0x", "abc", "g0", " 0"] {
            assert_eq!(hexadecimal(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
