//! The question and the answer by which WebSocket begins over HTTP/1.1 (RFC 6455 section 4). A client that asks over HTTP/2 has
//! neither (RFC 8441 section 5): then the proxy asks its endpoint, and looks at the answer. An endpoint that speaks HTTP/2 has neither
//! either: then the proxy answers its client.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use http::{HeaderMap, HeaderName, HeaderValue};

/// The question.
pub const KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
/// The answer to it.
pub const ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");

/// What an answer is made with, besides the key.
const SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A key, and the only answer to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Challenge {
    key: HeaderValue,
    accept: String,
}

impl Challenge {
    /// Another one each time.
    pub(super) fn new() -> Challenge {
        Challenge::of(fastrand::u128(..).to_ne_bytes())
    }

    fn of(nonce: [u8; 16]) -> Challenge {
        let key = base64(&nonce);
        let accept = accept(key.as_bytes());
        // Base64 is made of letters that a field's value can have.
        let key = HeaderValue::from_str(&key).unwrap_or_else(|_| HeaderValue::from_static(""));
        Challenge { key, accept }
    }

    /// Asks, in a request's fields.
    pub(super) fn ask(&self, headers: &mut HeaderMap) {
        headers.insert(KEY, self.key.clone());
    }

    /// Whether a response's fields answer.
    pub(super) fn is_met(&self, headers: &HeaderMap) -> bool {
        let mut answers = headers.get_all(ACCEPT).iter();
        answers.next().is_some_and(|answer| answer == self.accept.as_str()) && answers.next().is_none()
    }

    /// Takes the answer out of a response's fields.
    pub(super) fn forget(headers: &mut HeaderMap) {
        headers.remove(ACCEPT);
    }
}

/// The only answer to a key.
pub fn accept(key: &[u8]) -> String {
    let question = [key, SUFFIX.as_bytes()].concat();
    base64(digest(&SHA1_FOR_LEGACY_USE_ONLY, &question).as_ref())
}

/// RFC 4648 section 4.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits =
            (0..3).fold(0_usize, |bits, at| bits << 8 | usize::from(group.get(at).copied().unwrap_or(0)));
        for place in 0..4 {
            let letter = LETTERS[bits >> (18 - 6 * place) & 63];
            text.push(if place <= group.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_specification() {
        let texts = ["", "f", "fo", "foo", "foob", "fooba", "foobar"];
        let expected = ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"];
        assert_eq!(texts.map(|text| base64(text.as_bytes())), expected);
    }

    #[test]
    fn the_answer_is_that_of_the_specification() {
        // RFC 6455 section 1.3.
        let challenge = Challenge::of(*b"the sample nonce");
        let mut headers = HeaderMap::new();
        challenge.ask(&mut headers);
        assert_eq!(headers[KEY], "dGhlIHNhbXBsZSBub25jZQ==");
        assert!(!challenge.is_met(&headers));
        headers.insert(ACCEPT, HeaderValue::from_static("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert!(challenge.is_met(&headers));
        headers.append(ACCEPT, HeaderValue::from_static("another"));
        assert!(!challenge.is_met(&headers));
        Challenge::forget(&mut headers);
        assert!(!headers.contains_key(ACCEPT));
        assert_ne!(Challenge::new(), Challenge::new());
    }
}
