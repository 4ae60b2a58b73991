//! A bound for what an HTTP/2 peer can make us do for nothing: frames that cost it a few bytes and us an answer, a look-up
//! or a wake-up, and that bring no message forward. PING, SETTINGS, WINDOW_UPDATE, PRIORITY, RST_STREAM, empty DATA.
//!
//! [`Watched`] stands between a socket and the HTTP/2 code above it and reads the frames' heads as they pass. A peer has a
//! budget of such frames. What it really does earns some back: messages and their content in either direction, and time.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes of a frame's head.
const HEAD: usize = 9;
/// What a client sends before its first frame.
pub const PREFACE: usize = 24;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Earned back by the head of a message: a cancelled one costs a RST_STREAM, browsers add a PRIORITY.
const FOR_HEAD: u32 = 4;
/// Bytes that we send for each frame earned back: peers that receive a lot update their windows often.
const SENT_FOR_ONE: u64 = 512;
/// In so many seconds without anything else, the whole budget is earned back.
const SECONDS_FOR_ALL: u64 = 60;

/// The budget of one peer.
#[derive(Debug)]
pub struct FrameBudget {
    most: u32,
    left: u32,
    sent: u64,
    renewed: Instant,
    head: [u8; HEAD],
    have: usize,
    /// Bytes to pass before the next head.
    skip: usize,
    /// Messages' heads that have begun to come, and whether the last one goes on in another frame.
    heads: u32,
    goes_on: bool,
}

impl FrameBudget {
    /// A budget of so many frames. The first `skip` bytes are no frames.
    pub fn new(most: u32, skip: usize) -> FrameBudget {
        let renewed = Instant::now();
        FrameBudget {
            most,
            left: most,
            sent: 0,
            renewed,
            head: [0; HEAD],
            have: 0,
            skip,
            heads: 0,
            goes_on: false,
        }
    }

    /// Bytes came from the peer. False: there was one frame too many among them.
    fn received(&mut self, mut bytes: &[u8]) -> bool {
        loop {
            let passed = self.skip.min(bytes.len());
            self.skip -= passed;
            bytes = &bytes[passed..];
            let wanted = (HEAD - self.have).min(bytes.len());
            let (head, rest) = bytes.split_at(wanted);
            if head.is_empty() {
                return true;
            }
            self.head[self.have..self.have + wanted].copy_from_slice(head);
            self.have += wanted;
            bytes = rest;
            if self.have < HEAD {
                return true;
            }
            self.have = 0;
            if !self.frame() {
                return false;
            }
        }
    }

    fn frame(&mut self) -> bool {
        let [high, middle, low, kind, flags, ..] = self.head;
        self.skip = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        self.goes_on = is_of_message_head(kind) && flags & END_HEADERS == 0;
        match kind {
            HEADERS => {
                self.heads = self.heads.wrapping_add(1);
                self.earn(FOR_HEAD);
            }
            DATA if self.skip > 0 || flags & END_STREAM != 0 => self.earn(1),
            // The HTTP/2 code counts them, and bounds what they add up to.
            CONTINUATION => {}
            _ => return self.spend(),
        }
        true
    }

    /// Which message's head has begun to come and is not whole, by its number.
    fn unfinished_head(&self) -> Option<u32> {
        let in_frame = self.skip > 0 && is_of_message_head(self.head[3]);
        (self.goes_on || in_frame).then_some(self.heads)
    }

    /// Bytes went to the peer.
    fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
        let earned = self.sent / SENT_FOR_ONE;
        if earned > 0 {
            self.sent %= SENT_FOR_ONE;
            self.earn(u32::try_from(earned).unwrap_or(u32::MAX));
        }
    }

    fn earn(&mut self, frames: u32) {
        self.left = self.left.saturating_add(frames).min(self.most);
    }

    fn spend(&mut self) -> bool {
        if self.left == 0 {
            let passed = self.renewed.elapsed().as_millis();
            let earned = passed.saturating_mul(self.most.into()) / u128::from(SECONDS_FOR_ALL * 1000);
            if earned == 0 {
                return false;
            }
            self.renewed = Instant::now();
            self.earn(u32::try_from(earned).unwrap_or(u32::MAX));
        }
        self.left -= 1;
        true
    }
}

/// Whether frames of this type carry the head of a message.
fn is_of_message_head(kind: u8) -> bool {
    matches!(kind, HEADERS | CONTINUATION)
}

/// The error that ends a connection whose peer is over its budget.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("too many HTTP/2 frames that carry nothing")]
pub struct TooManyFrames;

impl TooManyFrames {
    /// Whether that is what an error of a [`Watched`] connection says.
    pub fn is(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|error| error.is::<TooManyFrames>())
    }
}

/// A connection whose peer has a budget; without one, nothing is looked at.
#[derive(Debug)]
pub struct Watched<T> {
    stream: T,
    budget: Option<Box<FrameBudget>>,
    last_read: usize,
}

impl<T> Watched<T> {
    /// A connection on which HTTP/2 is spoken.
    pub fn new(stream: T, budget: FrameBudget) -> Watched<T> {
        Watched { stream, budget: Some(Box::new(budget)), last_read: 0 }
    }

    /// A connection on which it is not.
    pub fn unwatched(stream: T) -> Watched<T> {
        Watched { stream, budget: None, last_read: 0 }
    }

    /// Bytes that the last read brought.
    pub fn last_read(&self) -> usize {
        self.last_read
    }

    /// Which message's head has begun to come and is not whole, by its number.
    pub fn unfinished_head(&self) -> Option<u32> {
        self.budget.as_ref().and_then(|budget| budget.unfinished_head())
    }

    /// What it stands before.
    pub fn into_inner(self) -> T {
        self.stream
    }

    fn sent(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let (Some(budget), Poll::Ready(Ok(bytes))) = (&mut self.budget, &written) {
            budget.sent(*bytes);
        }
        written
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.last_read = buf.filled().len() - before;
        let kept = self.budget.as_mut().is_none_or(|budget| budget.received(&buf.filled()[before..]));
        Poll::Ready(if kept { Ok(()) } else { Err(io::Error::other(TooManyFrames)) })
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.sent(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
        self.sent(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PING: u8 = 6;
    const WINDOW_UPDATE: u8 = 8;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload).unwrap().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
        frame.resize(HEAD + payload, 0xff);
        frame
    }

    #[test]
    fn frames_that_carry_nothing_are_counted() {
        for kind in [2, 3, 4, PING, WINDOW_UPDATE, 0xf] {
            let mut budget = FrameBudget::new(10, 0);
            let flood = frame(kind, 0, 8).repeat(10);
            assert!(budget.received(&flood), "{kind}");
            assert!(!budget.received(&frame(kind, 0, 8)), "{kind}");
        }
        let mut budget = FrameBudget::new(10, 0);
        assert!(budget.received(&frame(DATA, 0, 0).repeat(10)) && !budget.received(&frame(DATA, 0, 0)));
        // Those that carry something are not.
        let mut budget = FrameBudget::new(1, PREFACE);
        assert!(budget.received(&[0; PREFACE]));
        for _ in 0..100 {
            assert!(budget.received(&[frame(HEADERS, 4, 30), frame(DATA, 0, 5), frame(DATA, 1, 0)].concat()));
        }
    }

    #[test]
    fn work_and_time_earn_frames_back() {
        let mut budget = FrameBudget::new(10, 0);
        assert!(budget.received(&frame(PING, 0, 8).repeat(10)));
        assert!(budget.received(&[frame(HEADERS, 4, 30), frame(PING, 0, 8).repeat(4)].concat()));
        assert!(budget.received(&[frame(DATA, 0, 1), frame(WINDOW_UPDATE, 0, 4)].concat()));
        budget.sent(1023);
        budget.sent(1);
        assert!(budget.received(&frame(WINDOW_UPDATE, 0, 4).repeat(2)));
        budget.renewed -= Duration::from_secs(6);
        assert!(budget.received(&frame(PING, 0, 8)));
        budget.sent(1 << 20);
        assert!(budget.received(&frame(PING, 0, 8).repeat(10)), "never more than the whole budget");
        assert!(!budget.received(&frame(PING, 0, 8)));
    }

    #[test]
    fn heads_that_are_not_whole_are_told_apart() {
        let mut budget = FrameBudget::new(10, PREFACE);
        assert_eq!(budget.unfinished_head(), None);
        let mut after = |bytes: &[u8]| {
            assert!(budget.received(bytes));
            budget.unfinished_head()
        };
        assert_eq!(after(&[0; PREFACE]), None);
        assert_eq!(after(&frame(HEADERS, 0, 10)), Some(1), "a CONTINUATION is due");
        let last = frame(CONTINUATION, END_HEADERS, 10);
        assert_eq!(after(&last[..5]), Some(1));
        assert_eq!(after(&last[5..12]), Some(1));
        assert_eq!(after(&last[12..]), None);
        let next = frame(HEADERS, END_HEADERS, 10);
        assert_eq!(after(&next[..5]), None, "of what type the frame is has not come yet");
        assert_eq!(after(&[&next[5..], &next[..12]].concat()), Some(3), "another one");
        assert_eq!(after(&next[12..]), None);
        assert_eq!(after(&frame(DATA, 0, 10)[..12]), None);
    }

    proptest::proptest! {
        /// However the bytes are cut, the same frames are seen.
        #[test]
        fn cuts_do_not_matter(
            frames in proptest::collection::vec((0_u8..12, 0_u8..3, 0_usize..40), 0..60),
            cuts in proptest::collection::vec(1_usize..30, 1..20),
        ) {
            let bytes: Vec<u8> = frames.iter().flat_map(|(kind, flags, size)| frame(*kind, *flags, *size)).collect();
            let (mut whole, mut cut) = (FrameBudget::new(20, 0), FrameBudget::new(20, 0));
            let expected = whole.received(&bytes);
            let (mut rest, mut kept) = (&bytes[..], true);
            for length in cuts.iter().cycle() {
                if rest.is_empty() || !kept {
                    break;
                }
                let (piece, more) = rest.split_at((*length).min(rest.len()));
                kept = cut.received(piece);
                rest = more;
            }
            proptest::prop_assert_eq!(kept, expected);
        }
    }
}
