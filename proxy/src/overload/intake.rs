//! What is read from a socket while memory is short: a little at a time, only when there is room for it, and slowly when there
//! is next to none. Every byte of every protocol enters the process here, so this is where the ceiling holds.

use std::future::Future;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::SockRef;
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
    pub fn poll_read<S: AsyncRead + AsFd + Unpin>(
        &mut self,
        source: &mut S,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        if holds() {
            ready!(self.poll_room(source, cx));
            ready!(poll_piece(source, cx, buffer))?;
        } else {
            ready!(Pin::new(source).poll_read(cx, buffer))?;
        }
        count((buffer.filled().len() - before) as u64);
        Poll::Ready(Ok(()))
    }

    /// Ready when a piece may be read, and when there is none: whoever holds memory for a peer that has left must learn of it, or
    /// there may be no room ever again.
    fn poll_room(&mut self, source: &impl AsFd, cx: &mut Context<'_>) -> Poll<()> {
        if has_room_below_close() {
            self.pause = None;
            return Poll::Ready(());
        }
        let pause = self.pause.get_or_insert_with(|| Box::pin(sleep(PAUSE)));
        loop {
            ready!(pause.as_mut().poll(cx));
            // For the next piece; nobody is woken for it unless it is asked for.
            pause.as_mut().reset(Instant::now() + PAUSE);
            if has_room_below_brink() || has_left(source) {
                return Poll::Ready(());
            }
        }
    }
}

/// Whether the peer has broken the connection off, or has said all and it was read.
fn has_left(source: &impl AsFd) -> bool {
    let mut looked = [PollFd::new(source, PollFlags::RDHUP)];
    if poll(&mut looked, Some(&Timespec::default())).is_err() {
        return false;
    }
    let seen = looked[0].revents();
    let is_empty = || matches!(SockRef::from(source).peek(&mut [MaybeUninit::uninit()]), Ok(0));
    seen.contains(PollFlags::ERR) || (seen.contains(PollFlags::RDHUP) && is_empty())
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream, UnixStream};

    use super::*;

    /// Two ends of a connection.
    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (client, accepted) =
            tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (client.unwrap(), accepted.unwrap().0)
    }

    async fn leaves(source: &impl AsFd) {
        let looks = async {
            while !has_left(source) {
                sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), looks).await.expect("it has left");
    }

    #[tokio::test]
    async fn who_has_left_is_seen_without_reading() {
        let (mut peer, mut source) = pair().await;
        assert!(!has_left(&source));
        peer.write_all(b"words").await.unwrap();
        source.readable().await.unwrap();
        assert!(!has_left(&source));
        peer.shutdown().await.unwrap();
        source.ready(tokio::io::Interest::READABLE).await.unwrap();
        assert!(!has_left(&source), "what it said last is still there");
        source.read_exact(&mut [0; 5]).await.unwrap();
        leaves(&source).await;
        assert_eq!(source.read(&mut [0; 1]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn who_broke_off_has_left_whatever_it_said() {
        let (mut peer, mut source) = pair().await;
        peer.write_all(b"words").await.unwrap();
        source.readable().await.unwrap();
        SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
        drop(peer);
        leaves(&source).await;
        assert!(source.read_to_end(&mut Vec::new()).await.is_err(), "the reason is still there");

        let (peer, source) = UnixStream::pair().unwrap();
        assert!(!has_left(&source));
        drop(peer);
        leaves(&source).await;
    }

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
