//! A body as a filter sees it: chunks as they came from the network, passed through without a copy unless a
//! filter edits them.

use std::collections::VecDeque;
use std::collections::vec_deque;
use std::ops::Range;

use bytes::{Bytes, BytesMut};

/// More chunks than this are put together if they are small: a chunk of one byte takes the room of fifty.
const FEW_CHUNKS: usize = 64;
/// Bytes of a chunk that is not small, on average.
const SMALL_CHUNK: usize = 512;

/// A filter edited it.
const MODIFIED: usize = 1;
/// A filter tried to write more than it may.
const OVERFLOWED: usize = 2;

/// The bytes of a body that a filter has before it. Owned by a stream context, one per direction; the embedder
/// pushes what arrives, calls the filter, and takes out what goes on.
#[derive(Debug, Default)]
pub struct BodyBuffer {
    chunks: VecDeque<Bytes>,
    len: usize,
    limit: usize,
    /// [`MODIFIED`] and [`OVERFLOWED`]. A whole word, because flags with padding behind them are copied, as each stream context
    /// is made, in pieces that the processor has to wait for.
    marks: usize,
}

impl BodyBuffer {
    /// An empty buffer, which a filter may fill up to `limit` bytes.
    pub fn new(limit: usize) -> BodyBuffer {
        BodyBuffer { chunks: VecDeque::new(), len: 0, limit, marks: 0 }
    }

    /// Bytes in the buffer.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the buffer holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends what arrived from the network. The limit is the caller's to check: see [`BodyBuffer::over_limit`].
    pub fn push(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.len += chunk.len();
            self.chunks.push_back(chunk);
            self.join_small();
        }
    }

    /// Puts the chunks together if there are many and they are small.
    fn join_small(&mut self) {
        if self.chunks.len() > FEW_CHUNKS && self.len / self.chunks.len() < SMALL_CHUNK {
            let whole = self.to_bytes();
            self.chunks.clear();
            self.chunks.push_back(whole);
        }
    }

    /// Takes the first chunk out.
    pub fn pop(&mut self) -> Option<Bytes> {
        let chunk = self.chunks.pop_front()?;
        self.len -= chunk.len();
        Some(chunk)
    }

    /// Takes everything out, in order.
    pub fn drain(&mut self) -> vec_deque::Drain<'_, Bytes> {
        self.len = 0;
        self.chunks.drain(..)
    }

    /// Drops everything in the buffer.
    pub fn clear(&mut self) {
        self.chunks.clear();
        self.len = 0;
    }

    /// Whether a filter edited the body since the last call: its length as announced no longer holds.
    pub fn take_modified(&mut self) -> bool {
        let modified = self.marks & MODIFIED != 0;
        self.marks &= !MODIFIED;
        modified
    }

    /// Whether a filter tried to write more than the plugin's limit allows, so that bytes are missing.
    pub fn overflowed(&self) -> bool {
        self.marks & OVERFLOWED != 0
    }

    /// Whether more is buffered than the plugin's limit allows, or a filter tried to write more than that.
    /// The exchange is to be answered with 413 (request) or 502 (response).
    pub fn over_limit(&self) -> bool {
        self.overflowed() || self.len > self.limit
    }

    /// Replaces `length` bytes from `start` on by `bytes`; both are cut at the end of the buffer, so that a
    /// start behind it appends. What would exceed the limit is not written, and [`BodyBuffer::over_limit`]
    /// tells.
    pub fn splice(&mut self, start: usize, length: usize, bytes: &[u8]) {
        let start = start.min(self.len);
        let end = start.saturating_add(length).min(self.len);
        self.marks |= MODIFIED;
        if self.len - (end - start) + bytes.len() > self.limit {
            self.marks |= OVERFLOWED;
            return;
        }
        let first = self.chunk_from(start);
        let after = self.chunk_from(end);
        self.len -= end - start;
        self.len += bytes.len();
        self.replace(first..after, Bytes::copy_from_slice(bytes));
        self.join_small();
    }

    /// The index of the chunk that begins at `position`; a chunk that goes across it is made two.
    fn chunk_from(&mut self, position: usize) -> usize {
        let mut left = position;
        for (index, chunk) in self.chunks.iter_mut().enumerate() {
            if left == 0 {
                return index;
            }
            if left < chunk.len() {
                let rest = chunk.split_off(left);
                self.chunks.insert(index + 1, rest);
                return index + 1;
            }
            left -= chunk.len();
        }
        self.chunks.len()
    }

    /// Puts `chunk` in the place of those of `range`, and nothing if it is empty.
    fn replace(&mut self, range: Range<usize>, chunk: Bytes) {
        if chunk.is_empty() {
            self.chunks.drain(range);
        } else if range.is_empty() {
            self.chunks.insert(range.start, chunk);
        } else {
            self.chunks[range.start] = chunk;
            self.chunks.drain(range.start + 1..range.end);
        }
    }

    /// The slices that make up `length` bytes from `start` on, cut at the end of the buffer.
    pub fn slices(&self, start: usize, length: usize) -> impl Iterator<Item = &[u8]> {
        let mut skip = start;
        let mut left = length;
        self.chunks.iter().filter_map(move |chunk| {
            let from = skip.min(chunk.len());
            skip -= from;
            let count = left.min(chunk.len() - from);
            left -= count;
            (count > 0).then(|| &chunk[from..from + count])
        })
    }

    /// The whole buffer as one piece; copies if there is more than one chunk.
    pub fn to_bytes(&self) -> Bytes {
        if self.chunks.len() == 1 {
            return self.chunks[0].clone();
        }
        let mut whole = BytesMut::with_capacity(self.len);
        for chunk in &self.chunks {
            whole.extend_from_slice(chunk);
        }
        whole.freeze()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn splices_do_to_chunks_what_they_do_to_one_piece(
            chunks in prop::collection::vec(0..40_usize, 0..80),
            splices in prop::collection::vec((0..1_000_usize, 0..200_usize, 0..60_usize), 0..40),
        ) {
            let mut body = BodyBuffer::new(usize::MAX);
            let mut bytes = (0..).map(|number: u32| number as u8);
            chunks.iter().for_each(|length| body.push(bytes.by_ref().take(*length).collect()));
            let mut expected = body.to_bytes().to_vec();
            for (start, length, size) in splices {
                let text: Vec<u8> = bytes.by_ref().take(size).collect();
                body.splice(start, length, &text);
                let start = start.min(expected.len());
                expected.splice(start..(start + length).min(expected.len()), text);
                prop_assert_eq!((body.len(), &body.to_bytes()[..]), (expected.len(), &expected[..]));
                prop_assert!(body.chunks.iter().all(|chunk| !chunk.is_empty()));
                prop_assert!(body.chunks.len() <= FEW_CHUNKS);
            }
        }
    }

    #[test]
    fn many_small_chunks_take_little_more_room_than_their_bytes() {
        let mut body = BodyBuffer::new(usize::MAX);
        let bytes: Vec<u8> = (0..100_000_u32).map(|number| number as u8).collect();
        let mut most = 0;
        for byte in &bytes {
            body.push(Bytes::copy_from_slice(&[*byte]));
            most = most.max(body.chunks.len());
        }
        assert!(most <= FEW_CHUNKS + bytes.len() / SMALL_CHUNK + 1, "{most} chunks");
        assert_eq!((body.len(), &body.to_bytes()[..]), (bytes.len(), &bytes[..]));
    }

    #[test]
    fn large_chunks_stay_as_they_came() {
        let mut body = BodyBuffer::new(usize::MAX);
        (0..200).for_each(|_| body.push(Bytes::from_static(&[7; SMALL_CHUNK])));
        assert_eq!(body.drain().count(), 200);
    }
}
