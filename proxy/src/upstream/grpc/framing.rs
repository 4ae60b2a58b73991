//! gRPC's messages in a body: each has a prefix of a flag and its length.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use http_body::{Frame, SizeHint};

use crate::message::BodyError;

/// Bytes of the prefix.
const PREFIX: usize = 5;

/// What goes before a message. Apart from it: messages may be large, and are not copied.
pub(super) fn prefix(message: &Bytes) -> Bytes {
    // The guest's memory has not as many bytes as this could not hold.
    let [a, b, c, d] = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
    Bytes::copy_from_slice(&[0, a, b, c, d])
}

/// The body of a request that has one message.
#[derive(Debug)]
pub(super) struct Single {
    prefix: Bytes,
    message: Bytes,
}

impl Single {
    pub(super) fn new(message: Bytes) -> Single {
        Single { prefix: prefix(&message), message }
    }
}

impl http_body::Body for Single {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let next = match std::mem::take(&mut self.prefix) {
            sent if sent.is_empty() => std::mem::take(&mut self.message),
            prefix => prefix,
        };
        Poll::Ready((!next.is_empty()).then(|| Ok(Frame::data(next))))
    }

    fn is_end_stream(&self) -> bool {
        self.prefix.is_empty() && self.message.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact((self.prefix.len() + self.message.len()) as u64)
    }
}

/// What is wrong with a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FramingError {
    /// A message is longer than allowed.
    TooLarge,
    /// A message is compressed, or its flag means nothing: no compression was offered.
    Flag,
    /// The body ends inside of a message.
    Truncated,
}

/// Takes a body apart. Holds one message at most, and the chunk that its end came with.
#[derive(Debug)]
pub(super) struct Deframer {
    max_message: usize,
    /// The begin of a message whose end has not come yet.
    pending: BytesMut,
    /// What came after it; never both.
    chunk: Bytes,
}

impl Deframer {
    pub(super) fn new(max_message: usize) -> Deframer {
        Deframer { max_message, pending: BytesMut::new(), chunk: Bytes::new() }
    }

    /// Adds what came. All messages of what came before must have been taken.
    pub(super) fn push(&mut self, chunk: Bytes) {
        if self.pending.is_empty() && self.chunk.is_empty() {
            // A message that comes in one piece is not copied.
            self.chunk = chunk;
        } else {
            let begun = std::mem::take(&mut self.chunk);
            self.pending.extend_from_slice(&begun);
            self.pending.extend_from_slice(&chunk);
        }
    }

    /// Bytes that came and were not taken.
    pub(super) fn held(&self) -> usize {
        self.pending.len() + self.chunk.len()
    }

    /// The next whole message.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, FramingError> {
        let here: &[u8] = if self.pending.is_empty() { &self.chunk } else { &self.pending };
        let Some(prefix) = here.first_chunk::<PREFIX>() else { return Ok(None) };
        let [flag, length @ ..] = *prefix;
        if flag != 0 {
            return Err(FramingError::Flag);
        }
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > self.max_message {
            return Err(FramingError::TooLarge);
        }
        if here.len() - PREFIX < length {
            return Ok(None);
        }
        Ok(Some(if self.pending.is_empty() {
            self.chunk.advance(PREFIX);
            self.chunk.split_to(length)
        } else {
            self.pending.advance(PREFIX);
            self.pending.split_to(length).freeze()
        }))
    }

    /// The body has ended.
    pub(super) fn end(&self) -> Result<(), FramingError> {
        if self.held() == 0 { Ok(()) } else { Err(FramingError::Truncated) }
    }
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;
    use proptest::prelude::*;

    use super::*;

    fn all(deframer: &mut Deframer) -> Result<Vec<Bytes>, FramingError> {
        std::iter::from_fn(|| deframer.next().transpose()).collect()
    }

    #[test]
    fn a_message_is_not_copied() {
        let mut nobody = Context::from_waker(std::task::Waker::noop());
        for text in ["", "abc"] {
            let message = Bytes::from(text.as_bytes().to_vec());
            let mut body = Single::new(message.clone());
            assert_eq!(body.size_hint().exact(), Some((PREFIX + text.len()) as u64));
            let mut frames = Vec::new();
            while !body.is_end_stream() {
                let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut body).poll_frame(&mut nobody) else {
                    panic!("no frame");
                };
                frames.push(frame.into_data().unwrap());
            }
            assert_eq!(frames.concat(), [&[0, 0, 0, 0, text.len() as u8][..], text.as_bytes()].concat());
            let itself = frames.iter().any(|frame| frame.as_ptr() == message.as_ptr());
            assert_eq!(itself, !text.is_empty());
            assert!(matches!(Pin::new(&mut body).poll_frame(&mut nobody), Poll::Ready(None)));
        }
    }

    #[test]
    fn bad_frames_are_named() {
        let deframed = |bytes: &'static [u8]| {
            let mut deframer = Deframer::new(3);
            deframer.push(Bytes::from_static(bytes));
            let messages = all(&mut deframer)?;
            deframer.end().map(|()| messages.len())
        };
        assert_eq!(deframed(b""), Ok(0));
        assert_eq!(deframed(b"\0\0\0\0\x03abc\0\0\0\0\0"), Ok(2));
        assert_eq!(deframed(b"\0\0\0\0\x04abcd"), Err(FramingError::TooLarge));
        assert_eq!(
            deframed(b"\0\xff\xff\xff\xff"),
            Err(FramingError::TooLarge),
            "before its bytes have come"
        );
        assert_eq!(deframed(b"\x01\0\0\0\x01a"), Err(FramingError::Flag));
        assert_eq!(deframed(b"\0\0\0\0\x03ab"), Err(FramingError::Truncated));
        assert_eq!(deframed(b"\0\0"), Err(FramingError::Truncated));
    }

    proptest! {
        #[test]
        fn messages_come_out_as_they_went_in(messages: Vec<Vec<u8>>, cuts: Vec<u8>) {
            let mut wire = BytesMut::new();
            for message in &messages {
                wire.extend_from_slice(&prefix(&Bytes::copy_from_slice(message)));
                wire.extend_from_slice(message);
            }
            let mut wire = wire.freeze();
            let mut deframer = Deframer::new(1 << 20);
            let mut out = Vec::new();
            for cut in cuts {
                deframer.push(wire.split_to(usize::from(cut).min(wire.len())));
                out.extend(all(&mut deframer).unwrap());
            }
            deframer.push(wire);
            out.extend(all(&mut deframer).unwrap());
            prop_assert_eq!(deframer.end(), Ok(()));
            prop_assert_eq!(out, messages);
        }

        #[test]
        fn anything_is_taken_without_harm(chunks: Vec<Vec<u8>>) {
            let mut deframer = Deframer::new(16);
            for chunk in chunks {
                deframer.push(chunk.into());
                if all(&mut deframer).is_err() {
                    break;
                }
            }
        }
    }
}
