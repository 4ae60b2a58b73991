//! The request and the response of an exchange, and their bodies. Used through `Exchange`.

use crate::error::Refused;
use crate::headers::{Headers, Value};
use crate::host::{self, Buffer, Map};

/// The exchange's request.
///
/// In Meshgate it can be read in every callback of the exchange. Other hosts may let go of it when it has been sent: in
/// Envoy its fields are missing in the callbacks of the response. What a filter needs there it keeps in its
/// [`State`](crate::Filter::State).
#[derive(Clone, Copy, Debug)]
pub struct Request;

impl Request {
    /// The fields of its head. The pseudo-headers `:method`, `:scheme`, `:authority` and `:path` can be written here, too.
    pub fn headers(&self) -> Headers {
        Headers::new(Map::RequestHeaders)
    }

    /// The fields after its body; empty until they have arrived.
    pub fn trailers(&self) -> Headers {
        Headers::new(Map::RequestTrailers)
    }

    /// The method, as written by the client.
    pub fn method(&self) -> Value {
        self.headers().first(":method").unwrap_or_default()
    }

    /// The scheme: `http` or `https`.
    pub fn scheme(&self) -> Value {
        self.headers().first(":scheme").unwrap_or_default()
    }

    /// The authority: what HTTP/1.1 calls `Host`, with the port if the client gave one.
    pub fn authority(&self) -> Value {
        self.headers().first(":authority").unwrap_or_default()
    }

    /// Path and query.
    pub fn target(&self) -> Target {
        Target(self.headers().first(":path").unwrap_or_default())
    }
}

/// A request's path and query, as the client wrote them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target(Value);

impl Target {
    /// The whole of it.
    pub fn whole(&self) -> &Value {
        &self.0
    }

    /// What stands before the first `?`.
    pub fn path(&self) -> &[u8] {
        self.split().0
    }

    /// What stands after the first `?`, if there is one.
    pub fn query(&self) -> Option<&[u8]> {
        self.split().1
    }

    /// The value of the query's first parameter of this name, as written (percent-encoded). A parameter without `=` has
    /// the empty value.
    pub fn parameter(&self, name: &str) -> Option<&[u8]> {
        self.query()?.split(|byte| *byte == b'&').find_map(|parameter| {
            let mut parts = parameter.splitn(2, |byte| *byte == b'=');
            (parts.next()? == name.as_bytes()).then(|| parts.next().unwrap_or_default())
        })
    }

    fn split(&self) -> (&[u8], Option<&[u8]>) {
        match self.0.iter().position(|byte| *byte == b'?') {
            Some(at) => (&self.0[..at], Some(&self.0[at + 1..])),
            None => (&self.0, None),
        }
    }
}

impl From<&str> for Target {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

/// The exchange's response.
#[derive(Clone, Copy, Debug)]
pub struct Response;

impl Response {
    /// The fields of its head. The pseudo-header `:status` can be written here, too.
    pub fn headers(&self) -> Headers {
        Headers::new(Map::ResponseHeaders)
    }

    /// The fields after its body; empty until they have arrived.
    pub fn trailers(&self) -> Headers {
        Headers::new(Map::ResponseTrailers)
    }

    /// The status; `None` as long as there is no response.
    pub fn status(&self) -> Option<u16> {
        status_of(&self.headers())
    }
}

pub(crate) fn status_of(headers: &Headers) -> Option<u16> {
    headers.first(":status")?.as_text()?.parse().ok()
}

/// The part of a body that a callback may look at and change: what has arrived and was not passed on yet.
#[derive(Debug)]
pub struct Body {
    buffer: Buffer,
    length: usize,
    is_last: bool,
}

impl Body {
    pub(crate) const fn new(buffer: Buffer, length: usize, is_last: bool) -> Self {
        Self { buffer, length, is_last }
    }

    /// Bytes in the buffer.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether the buffer is empty, as it may be in the last call.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Whether the message ends here. It does not where trailers follow: then their callback is the end.
    pub fn is_last(&self) -> bool {
        self.is_last
    }

    /// A copy of the buffer.
    ///
    /// # Errors
    /// The host gave no access to it.
    pub fn bytes(&self) -> Result<Vec<u8>, Refused> {
        self.range(0, self.length)
    }

    /// A copy of a part of the buffer, cut off at its end.
    ///
    /// # Errors
    /// The host gave no access to it.
    pub fn range(&self, start: usize, length: usize) -> Result<Vec<u8>, Refused> {
        host::buffer(self.buffer, start, length)
            .map_err(|status| Refused::new("cannot read the body", status))
    }

    /// Puts `bytes` in the buffer's place.
    ///
    /// # Errors
    /// The host does not let the body be changed in this callback.
    pub fn replace(&mut self, bytes: impl AsRef<[u8]>) -> Result<(), Refused> {
        self.write(0, self.length, bytes.as_ref())?;
        self.length = bytes.as_ref().len();
        Ok(())
    }

    /// Puts `bytes` before the buffer's first.
    ///
    /// # Errors
    /// As for [`replace`](Self::replace).
    pub fn prepend(&mut self, bytes: impl AsRef<[u8]>) -> Result<(), Refused> {
        self.write(0, 0, bytes.as_ref())?;
        self.length += bytes.as_ref().len();
        Ok(())
    }

    /// Puts `bytes` after the buffer's last.
    ///
    /// # Errors
    /// As for [`replace`](Self::replace).
    pub fn append(&mut self, bytes: impl AsRef<[u8]>) -> Result<(), Refused> {
        self.write(self.length, 0, bytes.as_ref())?;
        self.length += bytes.as_ref().len();
        Ok(())
    }

    fn write(&self, start: usize, length: usize, bytes: &[u8]) -> Result<(), Refused> {
        host::set_buffer(self.buffer, start, length, bytes)
            .map_err(|status| Refused::new("cannot change the body", status))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_split_at_the_first_question_mark() {
        let target = Target::from("/a/b?x=1&y&x=2&z=a=b?c");
        assert_eq!(target.path(), b"/a/b");
        assert_eq!(target.query(), Some(&b"x=1&y&x=2&z=a=b?c"[..]));
        assert_eq!(target.parameter("x"), Some(&b"1"[..]));
        assert_eq!(target.parameter("y"), Some(&b""[..]));
        assert_eq!(target.parameter("z"), Some(&b"a=b?c"[..]));
        assert_eq!(target.parameter("w"), None);
        assert_eq!(Target::from("/").query(), None);
        assert_eq!(Target::from("/?").query(), Some(&b""[..]));
    }
}
