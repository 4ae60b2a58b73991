//! One direction of a session: reads what a side sends, lets it pass the filters, and writes it to the other side, no
//! faster than that takes it.

use std::future::Future;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWrite as _};
use tokio::time::Sleep;

use super::record::Record;
use crate::filter::{Flow, Side, Stop};
use crate::tls::Transport;

/// Bytes read at a time.
const CHUNK: usize = 64 * 1024;
/// What a filter may hold is copied if it is less than this: it would hold the rest of its chunk as well.
const WORTH_A_CHUNK: usize = CHUNK / 4;
/// With less room than this, a new chunk is begun.
const SMALLEST_READ: usize = 4 * 1024;
/// Pieces written at a time.
const PIECES: usize = 16;

/// One direction of a session.
pub(super) struct Pump {
    pub(super) flow: Flow,
    side: Side,
    /// What is left of the chunk that was read last.
    chunk: BytesMut,
    source_ended: bool,
    /// The side that sends is gone: what it sent before is still read, and then this is why.
    source_gone: Option<io::Error>,
    done: bool,
    /// Runs while nothing but a paused filter is waited for.
    pause: Option<Pin<Box<Sleep>>>,
}

/// Why a direction came to no good end.
#[derive(Debug)]
pub(super) enum Break {
    /// A filter stopped the session.
    Stop(Stop),
    /// The side that sends broke its connection off.
    Source(io::Error),
    /// The side that receives broke its connection off.
    Sink(io::Error),
}

impl From<Stop> for Break {
    fn from(stop: Stop) -> Break {
        Break::Stop(stop)
    }
}

impl Pump {
    pub(super) fn new(flow: Flow, side: Side) -> Pump {
        Pump {
            flow,
            side,
            chunk: BytesMut::new(),
            source_ended: false,
            source_gone: None,
            done: false,
            pause: None,
        }
    }

    /// Whether the end was passed on, or nobody is there any more to take it.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// Whether the side said all it had to say.
    pub(super) fn source_ended(&self) -> bool {
        self.source_ended
    }

    /// A write showed that the side that sends is gone. The system tells that once, so this is the one to remember it.
    pub(super) fn source_is_gone(&mut self, error: io::Error) {
        self.source_gone = Some(error);
    }

    /// There is nobody to pass anything on to: what may still come does not matter.
    pub(super) fn abandon(&mut self) {
        self.done = true;
    }

    /// What the side has sent was read from it before.
    pub(super) fn push_ahead(&mut self, record: &Record, bytes: Bytes) -> Result<(), Stop> {
        if bytes.is_empty() {
            return Ok(());
        }
        record.received(bytes.len());
        self.flow.push(bytes)
    }

    /// Passes on what there is. Ready when the end was passed on. Without a sink, what comes is kept, as far as there is
    /// room for it.
    pub(super) fn poll(
        &mut self,
        record: &Record,
        source: &mut Transport,
        mut sink: Option<&mut Transport>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Break>> {
        loop {
            self.flow.release_resumed()?;
            if let Some(sink) = &mut sink {
                ready!(self.poll_write(record, sink, cx)).map_err(Break::Sink)?;
                if self.flow.has_ended() {
                    return self.poll_finish(sink, cx).map_err(Break::Sink);
                }
            }
            let room = self.flow.room();
            if self.source_ended || room == 0 {
                ready!(self.poll_pause(cx))?;
                continue;
            }
            let read = ready!(self.poll_read(source, room, cx)).map_err(Break::Source)?;
            self.pause = None;
            record.passed();
            match read {
                Some(bytes) => {
                    if self.side == Side::Downstream {
                        record.received(bytes.len());
                    }
                    self.flow.push(bytes)?;
                }
                None => {
                    if let Some(error) = self.source_gone.take() {
                        return Poll::Ready(Err(Break::Source(error)));
                    }
                    self.source_ended = true;
                    self.flow.end()?;
                }
            }
        }
    }

    /// Writes what passed the filters, and says that it was the last.
    pub(super) fn poll_flush(
        &mut self,
        record: &Record,
        sink: &mut Transport,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.done {
            ready!(self.poll_write(record, sink, cx))?;
            ready!(self.poll_finish(sink, cx))?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_finish(&mut self, sink: &mut Transport, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let finished = ready!(Pin::new(sink).poll_shutdown(cx));
        self.done = true;
        Poll::Ready(match finished {
            // It has closed its own side, and everything was sent.
            Err(error) if error.kind() == ErrorKind::NotConnected => Ok(()),
            outcome => outcome,
        })
    }

    fn poll_write(
        &mut self,
        record: &Record,
        sink: &mut Transport,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.flow.out().len() > 0 {
            let mut pieces = [IoSlice::new(&[]); PIECES];
            let waiting = self.flow.out().len().min(PIECES);
            for (piece, bytes) in pieces.iter_mut().zip(self.flow.out()) {
                *piece = IoSlice::new(bytes);
            }
            match ready!(Pin::new(&mut *sink).poll_write_vectored(cx, &pieces[..waiting])) {
                Ok(0) => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                Ok(written) => {
                    self.flow.advance(written);
                    record.passed();
                    if self.side == Side::Upstream {
                        record.sent(written);
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        // Through TLS, what was written may not have left yet.
        Pin::new(sink).poll_flush(cx)
    }

    /// Reads once. `None` is the end.
    fn poll_read(
        &mut self,
        source: &mut Transport,
        room: usize,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Option<Bytes>>> {
        loop {
            if self.chunk.capacity() < SMALLEST_READ {
                self.chunk.reserve(CHUNK);
            }
            let mut free = (&mut self.chunk).limit(room);
            match pin!(source.read_buf(&mut free)).poll(cx) {
                Poll::Pending => {
                    // A connection that waits holds no memory.
                    self.chunk = BytesMut::new();
                    return Poll::Pending;
                }
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(None)),
                Poll::Ready(Ok(read)) if read < WORTH_A_CHUNK && self.flow.is_looked_at() => {
                    let bytes = Bytes::copy_from_slice(&self.chunk);
                    self.chunk.clear();
                    return Poll::Ready(Ok(Some(bytes)));
                }
                Poll::Ready(Ok(_)) => return Poll::Ready(Ok(Some(self.chunk.split().freeze()))),
                Poll::Ready(Err(error)) if error.kind() == ErrorKind::Interrupted => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Nothing but a filter is waited for: for so long and no longer. If nothing is held, it is not a filter.
    fn poll_pause(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Stop>> {
        let Some(allowed) = self.flow.pause() else {
            self.pause = None;
            return Poll::Pending;
        };
        let timer = self.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep(allowed)));
        ready!(timer.as_mut().poll(cx));
        self.pause = None;
        Poll::Ready(self.flow.give_up())
    }
}
