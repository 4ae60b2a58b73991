//! Non-blocking connections, with TLS or without, and HTTP/1.1 framing for both ends of the load: the generator and the backend.
//!
//! Hand-written and small on purpose: both ends share one core, and every microsecond they spend is one that the
//! proxy between them cannot be asked for. Nothing is taken on trust either: each message's length and each byte of
//! its body are compared with what was sent.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use anyhow::{Result, anyhow, bail};
use rustix::event::epoll;

/// How much is read at once: large enough that a 1 MiB body takes few system calls.
pub(crate) const READ_SIZE: usize = 256 * 1024;

/// A head longer than this is no answer to what the load sends.
const MAX_HEAD: usize = 16 * 1024;

/// One non-blocking connection and the message that is being written to it.
pub(crate) struct Wire {
    stream: TcpStream,
    tls: Option<Box<rustls::Connection>>,
    message: Arc<[u8]>,
    sent: usize,
    /// What is written beside messages: frames of HTTP/2.
    frames: Vec<u8>,
}

/// What a read brought.
pub(crate) enum Received {
    /// So many bytes; there may be more when the buffer was filled.
    Bytes(usize),
    /// Nothing for now.
    Nothing,
    /// The peer closed the connection.
    Closed,
}

impl Wire {
    /// Registers `stream` with `epoll` under `token`, edge-triggered and for both directions.
    pub(crate) fn register(
        stream: TcpStream,
        tls: Option<rustls::Connection>,
        epoll: &impl std::os::fd::AsFd,
        token: u64,
    ) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let interest = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        epoll::add(epoll, &stream, epoll::EventData::new_u64(token), interest)?;
        Ok(Self { stream, tls: tls.map(Box::new), message: Arc::from([]), sent: 0, frames: Vec::new() })
    }

    /// Begins a message. What does not fit into the socket now is written by [`Wire::flush`].
    pub(crate) fn send(&mut self, message: &Arc<[u8]>) -> io::Result<()> {
        self.message = Arc::clone(message);
        self.sent = 0;
        self.flush()
    }

    /// Frames that are to be written, by [`Wire::flush`]; in cleartext only.
    pub(crate) fn frames(&mut self) -> &mut Vec<u8> {
        &mut self.frames
    }

    /// Writes what is left of the message, or of the frames.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if self.tls.is_some() {
            return self.flush_tls();
        }
        while let Some(rest) = self.message.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match written(self.stream.write(rest))? {
                Some(written) => self.sent += written,
                None => break,
            }
        }
        while !self.frames.is_empty()
            && let Some(written) = written(self.stream.write(&self.frames))?
        {
            self.frames.drain(..written);
        }
        Ok(())
    }

    fn flush_tls(&mut self) -> io::Result<()> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        loop {
            while tls.wants_write() {
                if written(tls.write_tls(&mut self.stream))?.is_none() {
                    return Ok(());
                }
            }
            let rest = self.message.get(self.sent..).unwrap_or_default();
            // During a handshake it takes what is to be written when that is over.
            match tls.writer().write(rest)? {
                0 => return Ok(()),
                taken => self.sent += taken,
            }
        }
    }

    /// Whether the whole message went out.
    pub(crate) fn is_sent(&self) -> bool {
        self.sent == self.message.len()
    }

    /// Reads once.
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Received> {
        if self.tls.is_some() {
            return self.receive_tls(buffer);
        }
        read(|| self.stream.read(buffer))
    }

    fn receive_tls(&mut self, buffer: &mut [u8]) -> io::Result<Received> {
        let Self { tls: Some(tls), stream, .. } = self else { return Ok(Received::Nothing) };
        loop {
            match tls.reader().read(buffer) {
                Ok(0) => return Ok(Received::Closed),
                Ok(read) => return Ok(Received::Bytes(read)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            match read(|| tls.read_tls(stream))? {
                Received::Bytes(_) => {}
                other => return Ok(other),
            }
            tls.process_new_packets().map_err(io::Error::other)?;
            // The handshake's next part.
            while tls.wants_write() && written(tls.write_tls(stream))?.is_some() {}
        }
    }

    /// Whether a read of so many bytes into so large a buffer took all that was there.
    pub(crate) fn is_drained(&self, read: usize, buffer: usize) -> bool {
        // With TLS, there may be more records behind those that were taken.
        self.tls.is_none() && read < buffer
    }
}

/// How much was written; None: there is no room for now.
fn written(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(0) => Err(ErrorKind::WriteZero.into()),
        Ok(written) => Ok(Some(written)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) if error.kind() == ErrorKind::Interrupted => Ok(Some(0)),
        Err(error) => Err(error),
    }
}

fn read(mut once: impl FnMut() -> io::Result<usize>) -> io::Result<Received> {
    loop {
        match once() {
            Ok(0) => return Ok(Received::Closed),
            Ok(read) => return Ok(Received::Bytes(read)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Received::Nothing),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A parsed head: where it ends, how long the body is, and what the reader made of it.
pub(crate) struct Head<T> {
    pub(crate) length: usize,
    pub(crate) body: usize,
    pub(crate) meaning: T,
}

/// Cuts the received bytes into messages and compares each body with the expected bytes.
pub(crate) struct Incoming<T> {
    partial_head: Vec<u8>,
    open: Option<Open<T>>,
}

struct Open<T> {
    meaning: T,
    received: usize,
    length: usize,
}

impl<T> Incoming<T> {
    /// Nothing received yet.
    pub(crate) fn new() -> Self {
        Self { partial_head: Vec::new(), open: None }
    }

    /// Whether a message has begun and not ended.
    pub(crate) fn is_mid_message(&self) -> bool {
        self.open.is_some() || !self.partial_head.is_empty()
    }

    /// Takes `bytes` in. `parse` reads a head (None: not complete yet), `complete` gets each finished message.
    /// Every body must be a prefix of `pattern`.
    pub(crate) fn feed(
        &mut self,
        bytes: &[u8],
        pattern: &[u8],
        parse: impl Fn(&[u8]) -> Result<Option<Head<T>>>,
        mut complete: impl FnMut(T) -> Result<()>,
    ) -> Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let open = match self.open.take() {
                Some(open) => open,
                None => match self.begin(&mut rest, &parse)? {
                    Some(open) => open,
                    None => return Ok(()),
                },
            };
            rest = self.advance(open, rest, pattern, &mut complete)?;
        }
        Ok(())
    }

    /// Parses a head off the front of `rest`; keeps the bytes when it is incomplete.
    fn begin(
        &mut self,
        rest: &mut &[u8],
        parse: &impl Fn(&[u8]) -> Result<Option<Head<T>>>,
    ) -> Result<Option<Open<T>>> {
        let before = self.partial_head.len();
        let head = if before == 0 {
            parse(rest)?
        } else {
            self.partial_head.extend_from_slice(rest);
            parse(&self.partial_head)?
        };
        let Some(head) = head else {
            if before == 0 {
                self.partial_head.extend_from_slice(rest);
            }
            if self.partial_head.len() > MAX_HEAD {
                bail!("a head of more than {MAX_HEAD} bytes");
            }
            *rest = &[];
            return Ok(None);
        };
        self.partial_head.clear();
        *rest = rest.get(head.length - before..).unwrap_or_default();
        Ok(Some(Open { meaning: head.meaning, received: 0, length: head.body }))
    }

    /// Takes what belongs to the open message and answers the rest.
    fn advance<'a>(
        &mut self,
        mut open: Open<T>,
        rest: &'a [u8],
        pattern: &[u8],
        complete: &mut impl FnMut(T) -> Result<()>,
    ) -> Result<&'a [u8]> {
        let (body, after) = rest.split_at(rest.len().min(open.length - open.received));
        let end = open.received + body.len();
        let expected =
            pattern.get(open.received..end).ok_or_else(|| anyhow!("a body longer than any sent"))?;
        if body != expected {
            bail!("body bytes differ from those sent, between offsets {} and {end}", open.received);
        }
        open.received = end;
        if open.received == open.length {
            complete(open.meaning)?;
        } else {
            self.open = Some(open);
        }
        Ok(after)
    }
}

/// The bytes every body is a prefix of: without a period that a misplaced chunk could hide behind.
pub(crate) fn pattern(length: usize) -> Arc<[u8]> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[5]
        })
        .collect()
}

/// The value of `content-length` among `headers`; None when there is none.
pub(crate) fn content_length(headers: &[httparse::Header<'_>]) -> Result<Option<usize>> {
    let mut lengths = headers.iter().filter(|header| header.name.eq_ignore_ascii_case("content-length"));
    let Some(first) = lengths.next() else { return Ok(None) };
    if lengths.next().is_some() {
        bail!("two content-length fields");
    }
    let text = std::str::from_utf8(first.value)?;
    Ok(Some(text.trim().parse()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bytes: &[u8]) -> Result<Option<Head<()>>> {
        let mut headers = [httparse::EMPTY_HEADER; 8];
        let mut response = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(length) = response.parse(bytes)? else { return Ok(None) };
        Ok(Some(Head { length, body: content_length(response.headers)?.unwrap_or(0), meaning: () }))
    }

    fn messages(pieces: &[&[u8]], pattern: &[u8]) -> Result<usize> {
        let mut incoming = Incoming::new();
        let mut complete = 0;
        for piece in pieces {
            incoming.feed(piece, pattern, parse, |()| {
                complete += 1;
                Ok(())
            })?;
        }
        assert!(!incoming.is_mid_message());
        Ok(complete)
    }

    #[test]
    fn messages_are_counted_wherever_the_bytes_are_cut() {
        let two =
            b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nabcdHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nab";
        for cut in 1..two.len() {
            let (one, other) = two.split_at(cut);
            assert_eq!(messages(&[one, other], b"abcdef").unwrap(), 2, "cut at {cut}");
        }
        let single: Vec<&[u8]> = two.chunks(1).collect();
        assert_eq!(messages(&single, b"abcdef").unwrap(), 2);
    }

    #[test]
    fn a_changed_byte_is_found() {
        let bytes: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nabXd";
        assert!(messages(&[bytes], b"abcdef").unwrap_err().to_string().contains("differ"));
    }

    #[test]
    fn an_overlong_body_is_found() {
        let bytes: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nabcd";
        assert!(messages(&[bytes], b"abc").unwrap_err().to_string().contains("longer"));
    }
}
