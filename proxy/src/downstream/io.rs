//! A client's socket as hyper reads and writes it: gives back the bytes that told the protocol, and notes progress.

use std::io::{Error, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;

use super::preface::Beginning;
use super::slots::Slot;
use crate::message::http2_frames::{FrameBudget, PREFACE, TooManyFrames, Watched};
use crate::tls::Transport;

/// A client's socket.
pub(super) struct Socket {
    stream: TokioIo<Watched<Transport>>,
    beginning: Beginning,
    slot: Rc<Slot>,
}

impl Socket {
    pub(super) fn new(stream: Transport, beginning: Beginning, slot: Rc<Slot>) -> Socket {
        Socket { stream: TokioIo::new(Watched::unwatched(stream)), beginning, slot }
    }

    /// As `new`, for a client that speaks HTTP/2 and has so many frames that carry nothing.
    pub(super) fn http2(stream: Transport, beginning: Beginning, slot: Rc<Slot>, frames: u32) -> Socket {
        let preface = PREFACE.saturating_sub(beginning.len());
        let stream = Watched::new(stream, FrameBudget::new(frames, preface));
        Socket { stream: TokioIo::new(stream), beginning, slot }
    }

    pub(super) fn into_stream(self) -> Transport {
        self.stream.into_inner().into_inner()
    }

    fn note_write(&self, written: &Poll<Result<usize, Error>>) {
        match written {
            Poll::Ready(Ok(bytes)) => self.slot.has_written(*bytes),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.slot.cannot_write(),
        }
    }
}

impl Read for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<Result<(), Error>> {
        let beginning = self.beginning.take(buf.remaining());
        if !beginning.is_empty() {
            buf.put_slice(&beginning);
            return Poll::Ready(Ok(()));
        }
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        match &read {
            Poll::Ready(Err(error)) if TooManyFrames::is(error) => self.slot.set_flooding(),
            Poll::Ready(_) => {
                let stream = self.stream.inner();
                self.slot.has_read(stream.last_read(), stream.unfinished_head());
            }
            Poll::Pending => {}
        }
        read
    }
}

impl Write for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize, Error>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.note_write(&written);
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        // Through TLS, what was written may wait here instead of being refused.
        match &flushed {
            Poll::Ready(Ok(())) if self.slot.is_stuck() => self.slot.has_written(usize::MAX),
            Poll::Pending => self.slot.cannot_write(),
            Poll::Ready(_) => {}
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<Result<usize, Error>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.note_write(&written);
        written
    }
}
