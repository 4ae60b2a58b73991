//! HTTP/1.1 or HTTP/2: a connection's first bytes tell.

use std::io;

use crate::socket::Socket;

/// What a client that speaks HTTP/2 by prior knowledge sends first (RFC 9113 section 3.4).
const HTTP2: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The protocol that a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
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

    fn protocol(&self) -> Option<Protocol> {
        let seen = &self.bytes[..self.to];
        if !HTTP2.starts_with(seen) {
            Some(Protocol::Http1)
        } else if seen.len() == HTTP2.len() {
            Some(Protocol::Http2)
        } else {
            None
        }
    }
}

/// Reads until the protocol is clear. None if the client left before.
pub(super) async fn read(stream: &Socket) -> io::Result<Option<(Protocol, Beginning)>> {
    let mut beginning = Beginning::default();
    loop {
        stream.readable().await?;
        match stream.try_read(&mut beginning.bytes[beginning.to..]) {
            Ok(0) => return Ok(None),
            Ok(length) => beginning.to += length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        }
        if let Some(protocol) = beginning.protocol() {
            return Ok(Some((protocol, beginning)));
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
            assert_eq!(beginning(text).protocol(), expected, "{text:?}");
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
