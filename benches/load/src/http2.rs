//! The client's side of HTTP/2, as much of it as the load needs: one request, sent on stream after stream, and its answers
//! checked. Hand-written for the same reason as [`crate::wire`].
//!
//! The server is told to keep no table of header fields, so that an answer's first byte says its status; other fields are
//! not looked at.

use std::net::SocketAddr;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

/// Requests in flight on one connection.
pub(crate) const STREAMS: usize = 8;

/// What a connection begins with: the preface, SETTINGS (no table, no push, windows of 1 MiB) and a window of 1 GiB for all.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\
    \x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x04\x00\x10\x00\x00\
    \x00\x00\x04\x08\x00\x00\x00\x00\x00\x3f\xff\x00\x00";
/// The window of the connection is filled up again when so much of it is used.
const REFILL: u32 = 1 << 28;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

/// Of DATA and HEADERS: the stream's end. Of SETTINGS and PING: an answer.
const END_OR_ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 32;

/// A field section's first byte if the status is 200: the static table's entry 8.
const STATUS_200: u8 = 0x88;

/// One connection's side of HTTP/2.
pub(crate) struct Http2 {
    /// The request's field section.
    fields: Vec<u8>,
    next_stream: u32,
    open: Vec<Open>,
    /// A frame that has not arrived as a whole.
    partial: Vec<u8>,
    /// Bytes of DATA since the connection's window was filled up.
    used: u32,
}

/// A request in flight.
struct Open {
    stream: u32,
    started: Instant,
    answered: bool,
    received: usize,
}

impl Http2 {
    /// A connection that asks for this path; what is to be written first goes to `out`.
    pub(crate) fn new(path: &str, authority: SocketAddr, out: &mut Vec<u8>) -> Self {
        out.extend_from_slice(PREFACE);
        // GET and http from the static table; path, authority, user-agent and accept by name, each with its text.
        let mut fields = vec![0x82, 0x86];
        for (name, text) in [
            (&[0x04][..], path),
            (&[0x01], &authority.to_string()),
            (&[0x0f, 0x2b], "meshgate-load"),
            (&[0x0f, 0x04], "*/*"),
        ] {
            fields.extend_from_slice(name);
            // All are shorter than the 127 bytes that one byte of length can say.
            fields.push(text.len() as u8 & 0x7f);
            fields.extend_from_slice(text.as_bytes());
        }
        Self { fields, next_stream: 1, open: Vec::with_capacity(STREAMS), partial: Vec::new(), used: 0 }
    }

    /// Requests in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.open.len()
    }

    /// Begins a request.
    pub(crate) fn begin(&mut self, out: &mut Vec<u8>) {
        frame(out, HEADERS, END_OR_ACK | END_HEADERS, self.next_stream, &self.fields);
        let stream = self.next_stream;
        self.open.push(Open { stream, started: Instant::now(), answered: false, received: 0 });
        self.next_stream += 2;
    }

    /// Takes `bytes` in; `complete` gets the beginning of each request whose answer is whole. Every body must be the first
    /// `length` bytes of `pattern`.
    pub(crate) fn feed(
        &mut self,
        bytes: &[u8],
        pattern: &[u8],
        length: usize,
        out: &mut Vec<u8>,
        mut complete: impl FnMut(Instant) -> Result<()>,
    ) -> Result<()> {
        let expected = pattern.get(..length).context("a body longer than any sent")?;
        let mut all = std::mem::take(&mut self.partial);
        all.extend_from_slice(bytes);
        let mut rest = &all[..];
        while let Some((head, after)) = rest.split_first_chunk::<9>() {
            let [high, middle, low, kind, flags, stream @ ..] = *head;
            let size = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
            let Some((payload, after)) = after.split_at_checked(size) else { break };
            let stream = u32::from_be_bytes(stream) & 0x7fff_ffff;
            if let Some(started) = self.frame(kind, flags, stream, payload, expected, out)? {
                complete(started)?;
            }
            rest = after;
        }
        self.partial = rest.to_vec();
        Ok(())
    }

    /// Deals with one frame; the beginning of the request that it completes, if it does.
    fn frame(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        payload: &[u8],
        expected: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<Instant>> {
        match kind {
            HEADERS
                if flags & (PADDED | PRIORITY) != 0
                    || flags & END_HEADERS == 0
                    || flags & END_OR_ACK != 0 =>
            {
                bail!("HEADERS with flags {flags:#x}: padded, in parts, or without a body")
            }
            HEADERS => {
                // The size of the table may be told first.
                let status = payload.iter().find(|byte| **byte & 0xe0 != 0x20);
                if status != Some(&STATUS_200) {
                    bail!("a status other than 200");
                }
                self.of(stream)?.answered = true;
            }
            DATA if flags & PADDED != 0 => bail!("padded DATA"),
            DATA => {
                self.used += u32::try_from(payload.len())?;
                if self.used > REFILL {
                    frame(out, 8, 0, 0, &self.used.to_be_bytes());
                    self.used = 0;
                }
                let open = self.of(stream)?;
                let end = open.received + payload.len();
                if !open.answered || expected.get(open.received..end) != Some(payload) {
                    bail!("body bytes differ from those sent, between offsets {} and {end}", open.received);
                }
                open.received = end;
                if flags & END_OR_ACK != 0 {
                    if end != expected.len() {
                        bail!("a body of {end} bytes, expected {}", expected.len());
                    }
                    let index = self.open.iter().position(|open| open.stream == stream);
                    return Ok(index.map(|index| self.open.swap_remove(index).started));
                }
            }
            SETTINGS if flags & END_OR_ACK == 0 => frame(out, SETTINGS, END_OR_ACK, 0, &[]),
            PING if flags & END_OR_ACK == 0 => frame(out, PING, END_OR_ACK, 0, payload),
            RST_STREAM => bail!("the subject reset a stream"),
            GOAWAY => bail!("the subject ends the connection (GOAWAY)"),
            CONTINUATION => bail!("a head in parts"),
            _ => {}
        }
        Ok(None)
    }

    fn of(&mut self, stream: u32) -> Result<&mut Open> {
        self.open.iter_mut().find(|open| open.stream == stream).context("an answer that nobody asked for")
    }
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let [_, high, middle, low] = (payload.len() as u32).to_be_bytes();
    out.extend_from_slice(&[high, middle, low, kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATTERN: &[u8] = b"abcdef";

    fn begun() -> (Http2, Vec<u8>) {
        let mut out = Vec::new();
        let mut http2 = Http2::new("/small", ([127, 0, 0, 1], 80).into(), &mut out);
        http2.begin(&mut out);
        http2.begin(&mut out);
        out.clear();
        (http2, out)
    }

    fn answer(stream: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        frame(&mut bytes, HEADERS, END_HEADERS, stream, &[0x20, STATUS_200, 0]);
        let (one, two) = body.split_at(body.len() / 2);
        frame(&mut bytes, DATA, 0, stream, one);
        frame(&mut bytes, DATA, END_OR_ACK, stream, two);
        bytes
    }

    #[test]
    fn answers_are_counted_wherever_they_are_cut() {
        let bytes = [answer(3, b"abcd"), answer(1, b"abcd")].concat();
        for cut in 0..bytes.len() {
            let (mut http2, mut out) = begun();
            let mut complete = 0;
            for part in [&bytes[..cut], &bytes[cut..]] {
                http2
                    .feed(part, PATTERN, 4, &mut out, |_| {
                        complete += 1;
                        Ok(())
                    })
                    .unwrap();
            }
            assert_eq!((complete, http2.in_flight(), out.len()), (2, 0, 0), "cut at {cut}");
        }
    }

    #[test]
    fn wrong_answers_are_found() {
        let refused = |bytes: &[u8]| {
            let (mut http2, mut out) = begun();
            http2.feed(bytes, PATTERN, 4, &mut out, |_| Ok(())).unwrap_err().to_string()
        };
        assert!(refused(&answer(1, b"abXd")).contains("differ"));
        assert!(refused(&answer(1, b"ab")).contains("2 bytes"));
        assert!(refused(&answer(5, b"abcd")).contains("nobody asked"));
        let mut bytes = Vec::new();
        frame(&mut bytes, HEADERS, END_HEADERS, 1, &[0x8d]);
        assert!(refused(&bytes).contains("status"));
    }

    #[test]
    fn settings_and_pings_are_answered() {
        let (mut http2, mut out) = begun();
        let mut bytes = Vec::new();
        frame(&mut bytes, SETTINGS, 0, 0, &[]);
        frame(&mut bytes, PING, 0, 0, b"12345678");
        http2.feed(&bytes, PATTERN, 4, &mut out, |_| Ok(())).unwrap();
        let mut expected = Vec::new();
        frame(&mut expected, SETTINGS, END_OR_ACK, 0, &[]);
        frame(&mut expected, PING, END_OR_ACK, 0, b"12345678");
        assert_eq!(out, expected);
    }
}
