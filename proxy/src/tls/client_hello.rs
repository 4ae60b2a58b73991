//! The server name in the first message of a TLS connection that is passed through as it is. Nothing is decrypted, and nothing
//! is taken away: `downstream` shows what a client sends to [`HelloReader`] until that has found the name, and passes on all
//! of it. Each byte is looked at once, however small the pieces are that it comes in.

use std::rc::Rc;

const HANDSHAKE_RECORD: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: usize = 0;
const HOST_NAME: usize = 0;
/// A record's head: its type, a version, its length.
const RECORD_HEAD: usize = 5;
/// A message's head: its type, its length.
const MESSAGE_HEAD: usize = 4;
/// The most that a record in cleartext may hold (RFC 8446 section 5.1).
const LONGEST_RECORD: usize = 1 << 14;

/// What a client says first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The server that it asks for, in lower case, if it says one.
    pub server_name: Option<Rc<str>>,
}

/// Why there is no name to be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoHello {
    /// It does not begin as TLS does.
    #[error("this is not TLS")]
    NotTls,
    /// It is longer than anybody needs.
    #[error("its first message is too long")]
    TooLong,
    /// It is TLS, but not as it should be.
    #[error("its first message is malformed")]
    Malformed,
}

/// Reads a ClientHello as its bytes come, out of as many records as it was put into.
#[derive(Debug)]
pub struct HelloReader {
    /// Most bytes, with what is around the message.
    most: usize,
    seen: usize,
    head: [u8; RECORD_HEAD],
    head_seen: usize,
    /// What is left of the record.
    left: usize,
    message: Vec<u8>,
}

impl HelloReader {
    /// Before the first byte. With `most` bytes and no end it gives up.
    pub fn new(most: usize) -> HelloReader {
        HelloReader { most, seen: 0, head: [0; RECORD_HEAD], head_seen: 0, left: 0, message: Vec::new() }
    }

    /// How many more bytes it would look at.
    pub fn room(&self) -> usize {
        self.most.saturating_sub(self.seen)
    }

    /// Looks at what came next. None: there must be more.
    ///
    /// # Errors
    /// Why more will not help. What comes after an error, or after the whole message, is not to be shown to it.
    pub fn read(&mut self, bytes: &[u8]) -> Result<Option<Hello>, NoHello> {
        let mut rest = bytes;
        while let Some(first) = rest.first() {
            if self.left == 0 {
                self.read_head(*first)?;
                rest = &rest[1..];
                self.seen += 1;
                continue;
            }
            let (content, next) = rest.split_at(self.left.min(rest.len()));
            self.message.extend_from_slice(content);
            self.left -= content.len();
            self.seen += content.len();
            rest = next;
            if let Some(message) = self.whole()? {
                let server_name = server_name(message).ok_or(NoHello::Malformed)?;
                return Ok(Some(Hello { server_name }));
            }
        }
        if self.room() == 0 { Err(NoHello::TooLong) } else { Ok(None) }
    }

    /// The next byte of a record's head.
    fn read_head(&mut self, byte: u8) -> Result<(), NoHello> {
        let plausible = match self.head_seen {
            0 => byte == HANDSHAKE_RECORD,
            1 => byte == 3,
            _ => true,
        };
        if !plausible {
            return Err(if self.seen < 2 { NoHello::NotTls } else { NoHello::Malformed });
        }
        self.head[self.head_seen] = byte;
        self.head_seen += 1;
        if let (RECORD_HEAD, [_, _, _, high, low]) = (self.head_seen, self.head) {
            self.left = usize::from(u16::from_be_bytes([high, low]));
            self.head_seen = 0;
            if self.left == 0 || self.left > LONGEST_RECORD {
                return Err(NoHello::Malformed);
            }
        }
        Ok(())
    }

    /// The message, once all of it is there.
    fn whole(&self) -> Result<Option<&[u8]>, NoHello> {
        let [kind, high, middle, low] = match self.message.first_chunk() {
            Some(head) => *head,
            None if self.message.first().is_none_or(|kind| *kind == CLIENT_HELLO) => return Ok(None),
            None => return Err(NoHello::Malformed),
        };
        let length = MESSAGE_HEAD + (usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low));
        if kind != CLIENT_HELLO {
            return Err(NoHello::Malformed);
        }
        if length > self.most {
            return Err(NoHello::TooLong);
        }
        Ok(self.message.get(..length))
    }
}

/// The name in a whole ClientHello. The outer `None`: it is malformed.
fn server_name(message: &[u8]) -> Option<Option<Rc<str>>> {
    let mut rest = Reader(message.get(MESSAGE_HEAD..)?);
    rest.take(2 + 32)?; // version, random
    rest.block(1)?; // session id
    rest.block(2)?; // cipher suites
    rest.block(1)?; // compression methods
    if rest.0.is_empty() {
        return Some(None);
    }
    let mut extensions = Reader(rest.block(2)?);
    let mut found = None;
    while !extensions.0.is_empty() {
        let kind = extensions.number(2)?;
        let content = extensions.block(2)?;
        // Of two names the server might take the other one.
        if kind == SERVER_NAME && found.replace(host_name(content)?).is_some() {
            return None;
        }
    }
    rest.0.is_empty().then_some(found)
}

/// The one host name in the extension's list (RFC 6066 section 3).
fn host_name(content: &[u8]) -> Option<Rc<str>> {
    let mut rest = Reader(content);
    let mut list = Reader(rest.block(2)?);
    let mut found = None;
    while !list.0.is_empty() {
        let kind = list.number(1)?;
        let name = list.block(2)?;
        if kind == HOST_NAME && found.replace(name).is_some() {
            return None;
        }
    }
    let name = found.filter(|_| rest.0.is_empty())?;
    let plausible = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let plain = name.len() <= 255 && name.iter().all(plausible);
    let name = std::str::from_utf8(name).ok().filter(|_| plain)?;
    let name = name.strip_suffix('.').unwrap_or(name);
    (!name.is_empty()).then(|| name.to_ascii_lowercase().into())
}

/// Numbers, and blocks with their length before them, big end first.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self, bytes: usize) -> Option<usize> {
        Some(self.take(bytes)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    fn block(&mut self, length_bytes: usize) -> Option<&'a [u8]> {
        let length = self.number(length_bytes)?;
        self.take(length)
    }
}

#[cfg(test)]
mod tests;
