//! HTTP/1.1, HTTP/2, or, where that may be, something else: a connection's first bytes tell.

use std::io;

use http::Method;

use crate::socket::Socket;

/// What a client that speaks HTTP/2 by prior knowledge sends first (RFC 9113 section 3.4).
const HTTP2: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The protocol that a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
    /// Neither.
    Opaque,
}

/// The bytes read to find out, to be read again.
#[derive(Clone, Debug, Default)]
pub(super) struct Beginning {
    bytes: [u8; HTTP2.len()],
    from: usize,
    to: usize,
}

impl Beginning {
    /// Takes out at most `limit` bytes.
    pub(super) fn take(&mut self, limit: usize) -> Box<[u8]> {
        if self.from == self.to {
            return Box::default();
        }
        let to = self.to.min(self.from.saturating_add(limit));
        let taken = self.bytes[self.from..to].into();
        self.from = to;
        taken
    }

    /// How many they are.
    pub(super) fn len(&self) -> usize {
        self.to - self.from
    }

    /// None: it is not clear yet.
    fn protocol(&self, may_be_opaque: bool) -> Option<Protocol> {
        let seen = &self.bytes[..self.to];
        if HTTP2.starts_with(seen) {
            (seen.len() == HTTP2.len()).then_some(Protocol::Http2)
        } else if !may_be_opaque {
            Some(Protocol::Http1)
        } else {
            let looks = looks_like_http1(seen).or((seen.len() == HTTP2.len()).then_some(false))?;
            Some(if looks { Protocol::Http1 } else { Protocol::Opaque })
        }
    }
}

/// Whether this begins as a request line does (RFC 9112 section 3): a method, a space, and a target in one of its forms, of which
/// that of CONNECT can be anything. None: so far it does.
fn looks_like_http1(seen: &[u8]) -> Option<bool> {
    // Empty lines before a request are ignored (section 2.2).
    let empty = seen.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    let line = &seen[empty..];
    let end = line.iter().position(|byte| *byte == b' ');
    let method = &line[..end.unwrap_or(line.len())];
    if Method::from_bytes(method).is_err() && (end.is_some() || !method.is_empty()) {
        return Some(false);
    }
    let target = &line[end? + 1..];
    const SCHEME: &[u8] = b"http";
    match target {
        [] => None,
        [b'/' | b'*', ..] => Some(true),
        _ if method == b"CONNECT" => Some(true),
        _ => {
            let known = target.len().min(SCHEME.len());
            let fits = target[..known].eq_ignore_ascii_case(&SCHEME[..known]);
            if fits && known < SCHEME.len() { None } else { Some(fits) }
        }
    }
}

/// Reads until the protocol is clear. None if the client left before.
pub(super) async fn read(
    stream: &Socket,
    beginning: &mut Beginning,
    may_be_opaque: bool,
) -> io::Result<Option<Protocol>> {
    loop {
        stream.readable().await?;
        match stream.try_read(&mut beginning.bytes[beginning.to..]) {
            // It may have said all it has to say.
            Ok(0) => return Ok((may_be_opaque && beginning.len() > 0).then_some(Protocol::Opaque)),
            Ok(length) => beginning.to += length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        }
        if let Some(protocol) = beginning.protocol(may_be_opaque) {
            return Ok(Some(protocol));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beginning(text: &[u8]) -> Beginning {
        let mut beginning = Beginning { to: text.len(), ..Beginning::default() };
        beginning.bytes[..text.len()].copy_from_slice(text);
        beginning
    }

    #[test]
    fn the_first_bytes_tell() {
        for (text, expected) in [
            (&b"G"[..], Some(Protocol::Http1)),
            (b"PRI", None),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r", None),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Some(Protocol::Http2)),
            (b"PRI * HTTP/1.1\r\n", Some(Protocol::Http1)),
            (b"", None),
        ] {
            assert_eq!(beginning(text).protocol(false), expected, "{text:?}");
        }
    }

    #[test]
    fn what_is_no_request_is_passed_on_where_it_may_be() {
        let (http1, opaque) = (Some(Protocol::Http1), Some(Protocol::Opaque));
        for (text, expected) in [
            (&b""[..], None),
            (b"PRI * HTTP", None),
            (b"GET", None),
            (b"GET ", None),
            (b"GET /", http1),
            (b"OPTIONS *", http1),
            (b"\r\nGET / HTTP/1.1", http1),
            (b"\r", None),
            (b"GET ht", None),
            (b"GET HTTP://a", http1),
            (b"CONNECT a:1", http1),
            (b"UPDATEREDIRECTREF /a", http1),
            // TLS, Redis, memcached, PostgreSQL, SMTP, MQTT.
            (b"\x16\x03\x01", opaque),
            (b"*1\r\n$4", opaque),
            (b"get key\r\n", opaque),
            (b"\0\0\0\x08", opaque),
            (b"EHLO example.org\r\n", opaque),
            (b"\x10\x0c\0\x04MQTT", opaque),
            (b" GET / HTTP/1.1", opaque),
            (b"ONE-WORD-AND-NO-SPACE-IN", opaque),
            (b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", http1),
        ] {
            assert_eq!(beginning(text).protocol(true), expected, "{text:?}");
        }
    }

    #[test]
    fn they_come_out_again_in_order() {
        let mut beginning = beginning(b"GET / HTTP/1.1");
        assert_eq!(&*beginning.take(4), b"GET ");
        assert_eq!(&*beginning.take(100), b"/ HTTP/1.1");
        assert_eq!(&*beginning.take(100), b"");
    }
}
