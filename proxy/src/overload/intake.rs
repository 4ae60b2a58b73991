//! What is read from a socket while memory is short: a little at a time, only when there is room for it, and slowly when there
//! is next to none. Every byte of every protocol enters the process here, so this is where the ceiling holds.

use std::future::Future;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::{PIECE, count, has_room_below_brink, has_room_below_close, holds};

/// How long a socket is left alone when there is next to no room.
const PAUSE: Duration = Duration::from_millis(20);

/// A socket's reads while memory is watched.
#[derive(Debug, Default)]
pub struct Intake {
    pause: Option<Pin<Box<Sleep>>>,
}

impl Intake {
    /// Reads once.
    #[cold]
    pub fn poll_read<S: AsyncRead + Unpin>(
        &mut self,
        source: &mut S,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        if holds() {
            ready!(self.poll_room(cx));
            ready!(poll_piece(source, cx, buffer))?;
        } else {
            ready!(Pin::new(source).poll_read(cx, buffer))?;
        }
        count((buffer.filled().len() - before) as u64);
        Poll::Ready(Ok(()))
    }

    /// Ready when a piece may be read.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if has_room_below_close() {
            self.pause = None;
            return Poll::Ready(());
        }
        let pause = self.pause.get_or_insert_with(|| Box::pin(sleep(PAUSE)));
        loop {
            ready!(pause.as_mut().poll(cx));
            // For the next piece; nobody is woken for it unless it is asked for.
            pause.as_mut().reset(Instant::now() + PAUSE);
            if has_room_below_brink() {
                return Poll::Ready(());
            }
        }
    }
}

/// Reads a piece, and no more however much room is in the buffer.
fn poll_piece<S: AsyncRead + Unpin>(
    source: &mut S,
    cx: &mut Context<'_>,
    buffer: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    let mut piece = [MaybeUninit::uninit(); PIECE];
    let most = buffer.remaining().min(PIECE);
    let mut read = ReadBuf::uninit(&mut piece[..most]);
    ready!(Pin::new(source).poll_read(cx, &mut read))?;
    buffer.put_slice(read.filled());
    Poll::Ready(Ok(()))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn a_piece_is_a_piece_of_what_is_there() {
        let bytes: Vec<u8> = (0..u8::MAX).cycle().take(3 * PIECE).collect();
        let mut source = bytes.as_slice();
        let mut came = Vec::new();
        for _ in 0..3 {
            let mut room = vec![0; 2 * PIECE];
            let mut buffer = ReadBuf::new(&mut room);
            std::future::poll_fn(|cx| poll_piece(&mut source, cx, &mut buffer)).await.unwrap();
            assert_eq!(buffer.filled().len(), PIECE);
            came.extend_from_slice(buffer.filled());
        }
        assert_eq!(came, bytes);
        let mut little = [0; 10];
        let mut buffer = ReadBuf::new(&mut little);
        let mut source = &b"twelve bytes"[..];
        std::future::poll_fn(|cx| poll_piece(&mut source, cx, &mut buffer)).await.unwrap();
        assert_eq!(buffer.filled(), b"twelve byt");
        assert_eq!(source.read(&mut [0; 9]).await.unwrap(), 2);
    }
}
