//! gRPC's messages: how many a body has. Of each only the five bytes before it are looked at; the rest stays in the host.

use meshgate_sdk::{Body, BodyError};

/// A flag and the length.
const HEAD: usize = 5;
/// How much is read where a message begins: small messages are counted many at once, and of large ones little is read.
const WINDOW: usize = 512;

/// Counts the messages of a body as it passes.
///
/// # Errors
/// The host gives no access to the body.
pub(crate) async fn count(body: &mut Body, mut one: impl FnMut()) -> Result<(), BodyError> {
    let mut frames = Frames::default();
    while let Some(size) = body.next_size().await {
        let mut at = 0;
        while let Some(next) = frames.next(at).filter(|next| *next < size) {
            let window = body.part(next..next.saturating_add(WINDOW).min(size))?;
            if window.is_empty() {
                break;
            }
            at = next + window.len();
            frames.read(&window, &mut one);
        }
        frames.passed(size.saturating_sub(at));
    }
    Ok(())
}

/// Where in a body one is.
#[derive(Debug, Default)]
struct Frames {
    /// Bytes of the current message that are still to come.
    rest: u64,
    head: [u8; HEAD],
    /// How many of the head's bytes are there.
    have: usize,
}

impl Frames {
    /// Where the next byte is that has to be looked at, if that can be said; what lies before it is taken for passed.
    fn next(&self, at: usize) -> Option<usize> {
        let rest = usize::try_from(self.rest).ok()?;
        at.checked_add(rest)
    }

    /// Takes bytes in, from that place on.
    fn read(&mut self, window: &[u8], one: &mut impl FnMut()) {
        self.rest = 0;
        let mut bytes = window;
        while !bytes.is_empty() {
            let take = bytes.len().min(HEAD - self.have);
            let (head, after) = bytes.split_at(take);
            if let Some(place) = self.head.get_mut(self.have..self.have + take) {
                place.copy_from_slice(head);
            }
            self.have += take;
            bytes = after;
            if self.have == HEAD {
                one();
                let [_, length @ ..] = self.head;
                let length = u32::from_be_bytes(length);
                let here = usize::try_from(length).unwrap_or(usize::MAX).min(bytes.len());
                self.rest = u64::from(length) - here as u64;
                bytes = bytes.get(here..).unwrap_or_default();
                self.have = 0;
            }
        }
    }

    /// So many bytes of a message passed.
    fn passed(&mut self, bytes: usize) {
        self.rest = self.rest.saturating_sub(bytes as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts as `count` does, over parts.
    fn counted<'a>(parts: impl Iterator<Item = &'a [u8]>) -> (usize, usize) {
        let (mut frames, mut messages, mut read) = (Frames::default(), 0, 0);
        for part in parts {
            let mut at = 0;
            while let Some(next) = frames.next(at).filter(|next| *next < part.len()) {
                let window = &part[next..(next + WINDOW).min(part.len())];
                at = next + window.len();
                frames.read(window, &mut || messages += 1);
                read += 1;
            }
            frames.passed(part.len() - at);
        }
        (messages, read)
    }

    fn message(length: u32) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.resize(HEAD + length as usize, 7);
        bytes
    }

    #[test]
    fn messages_are_counted_however_they_are_cut() {
        let lengths = [0, 1, 3, 0, 5, 600, 70_000, 2, 511, 512, 513, 0];
        let all: Vec<u8> = lengths.iter().flat_map(|length| message(*length)).collect();
        for cut in [1, 2, 3, 4, 5, 6, 7, 100, 511, 512, 513, 4_096, 65_536, all.len()] {
            assert_eq!(counted(all.chunks(cut)).0, lengths.len(), "in parts of {cut}");
        }
        // All but the last, which has no head yet.
        assert_eq!(counted([&all[..all.len() - 1]].into_iter()).0, lengths.len() - 1);
        assert_eq!(counted(std::iter::empty()), (0, 0));
    }

    #[test]
    fn little_is_read() {
        let large: Vec<u8> = (0..4).flat_map(|_| message(1 << 20)).collect();
        assert_eq!(counted(large.chunks(64 << 10)), (4, 4));
        let small: Vec<u8> = (0..10_000).flat_map(|_| message(0)).collect();
        assert_eq!(counted([&small[..]].into_iter()), (10_000, small.len().div_ceil(WINDOW)));
        // One that says that it has 4 GiB.
        assert_eq!(counted([&[0, 255, 255, 255, 255, 1][..], &[1; 100]].into_iter()), (1, 1));
    }
}
