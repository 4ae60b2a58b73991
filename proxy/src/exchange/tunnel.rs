//! Bytes both ways between a client and an endpoint that have changed their protocol, until both have said all they had
//! to say. `upgrade` uses it.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind};
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::ReadBuf;
use tokio::time::{Instant, Sleep, sleep};

use crate::filter::Stop;
use crate::message::Duplex;
use crate::tls::Transport;

/// Bytes read at a time. They are read onto the stack: a tunnel that waits holds no memory.
const CHUNK: usize = 16 * 1024;

impl Duplex for Transport {
    fn break_off(&self) {
        self.socket().break_off();
    }
}

/// Who is at one end of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Endpoint,
}

/// How a tunnel ended.
#[derive(Debug)]
pub(super) enum End {
    /// Both sides had said all they had to say.
    Over,
    /// This one broke off.
    Aborted(Side, io::Error),
    /// Nothing passed in either direction for too long.
    Idle,
    /// A filter broke it off.
    Stopped(Stop),
}

/// The two sides, and what was read ahead from each.
pub(super) struct Sides {
    pub(super) client: Box<dyn Duplex>,
    pub(super) endpoint: Box<dyn Duplex>,
    pub(super) from_client: Bytes,
    pub(super) from_endpoint: Bytes,
}

/// Passes on what both sides send, no faster than the other takes it, until `stopped` is ready. `note` hears who sent how many
/// bytes.
pub(super) async fn join(
    sides: Sides,
    idle_timeout: Duration,
    stopped: impl Fn(&mut Context<'_>) -> Poll<Stop>,
    note: impl Fn(Side, usize),
) -> End {
    let Sides { mut client, mut endpoint, from_client, from_endpoint } = sides;
    let last = Cell::new(Instant::now());
    let note = |side, bytes| {
        last.set(Instant::now());
        note(side, bytes);
    };
    note(Side::Client, from_client.len());
    note(Side::Endpoint, from_endpoint.len());
    let mut up = Direction::new(Side::Client, from_client);
    let mut down = Direction::new(Side::Endpoint, from_endpoint);
    let mut idle = pin!(sleep(idle_timeout));
    let end = poll_fn(|cx| {
        if let Poll::Ready(stop) = stopped(cx) {
            return Poll::Ready(Err(End::Stopped(stop)));
        }
        if let Some(gone) = up.advance(&mut *client, &mut *endpoint, &note, cx)? {
            // The client still gets all that the endpoint said. If that was not its last word, it broke off.
            down.source_gone = Some(gone).filter(|_| !down.ended);
        }
        if let Some(gone) = down.advance(&mut *endpoint, &mut *client, &note, cx)? {
            if up.ended {
                // It had said all it had to say, and did not wait for the answer.
                return Poll::Ready(Err(End::Aborted(Side::Client, gone)));
            }
            up.source_gone = Some(gone);
        }
        if up.done && down.done {
            return Poll::Ready(Ok(()));
        }
        poll_idle(idle.as_mut(), &last, idle_timeout, cx).map(|()| Err(End::Idle))
    })
    .await;
    match end {
        Ok(()) => End::Over,
        Err(end) => {
            if matches!(end, End::Aborted(..) | End::Stopped(_)) {
                client.break_off();
                endpoint.break_off();
            }
            end
        }
    }
}

/// One timer per tunnel. Bytes that pass leave a note of when they did; the timer looks at it when it fires.
fn poll_idle(
    mut timer: Pin<&mut Sleep>,
    last: &Cell<Instant>,
    timeout: Duration,
    cx: &mut Context<'_>,
) -> Poll<()> {
    loop {
        ready!(timer.as_mut().poll(cx));
        let due = last.get() + timeout;
        if due <= Instant::now() {
            return Poll::Ready(());
        }
        timer.as_mut().reset(due);
    }
}

/// What one side sends to the other.
struct Direction {
    from: Side,
    /// What was read and not yet written.
    left: Bytes,
    /// The side that sends said all it had to say.
    ended: bool,
    /// The end was passed on, or nobody is there any more to take it.
    done: bool,
    /// A write showed that the side that sends is gone. What it sent before is still read, and then this is why.
    source_gone: Option<io::Error>,
}

/// Why a direction came to no good end.
enum Break {
    Source(io::Error),
    Sink(io::Error),
}

impl Direction {
    fn new(from: Side, ahead: Bytes) -> Direction {
        Direction { from, left: ahead, ended: false, done: false, source_gone: None }
    }

    /// Passes on what there is. Gives the error when the side that receives is gone.
    fn advance(
        &mut self,
        source: &mut dyn Duplex,
        sink: &mut dyn Duplex,
        note: &dyn Fn(Side, usize),
        cx: &mut Context<'_>,
    ) -> Result<Option<io::Error>, End> {
        if self.done {
            return Ok(None);
        }
        match self.poll(source, sink, note, cx) {
            Poll::Pending => Ok(None),
            Poll::Ready(Ok(())) => {
                self.done = true;
                Ok(None)
            }
            Poll::Ready(Err(Break::Sink(error))) => {
                self.done = true;
                Ok(Some(error))
            }
            Poll::Ready(Err(Break::Source(error))) => Err(End::Aborted(self.from, error)),
        }
    }

    fn poll(
        &mut self,
        source: &mut dyn Duplex,
        sink: &mut dyn Duplex,
        note: &dyn Fn(Side, usize),
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Break>> {
        loop {
            while !self.left.is_empty() {
                let written = ready!(poll_write(sink, &self.left, cx)).map_err(Break::Sink)?;
                self.left.advance(written);
            }
            if self.ended {
                return Pin::new(sink).poll_shutdown(cx).map(|ended| match ended {
                    // It has closed its own side, and everything was sent.
                    Err(error) if error.kind() == ErrorKind::NotConnected => Ok(()),
                    ended => ended.map_err(Break::Sink),
                });
            }
            ready!(self.poll_pass(source, sink, note, cx))?;
        }
    }

    /// Reads once, and writes what was read as far as it is taken.
    fn poll_pass(
        &mut self,
        source: &mut dyn Duplex,
        sink: &mut dyn Duplex,
        note: &dyn Fn(Side, usize),
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Break>> {
        let mut chunk = [MaybeUninit::uninit(); CHUNK];
        let mut read = ReadBuf::uninit(&mut chunk);
        match Pin::new(source).poll_read(cx, &mut read) {
            Poll::Ready(read) => read.map_err(Break::Source)?,
            Poll::Pending => {
                ready!(Pin::new(sink).poll_flush(cx)).map_err(Break::Sink)?;
                return Poll::Pending;
            }
        }
        let mut bytes = read.filled();
        if bytes.is_empty() {
            self.ended = true;
            return Poll::Ready(self.source_gone.take().map_or(Ok(()), |gone| Err(Break::Source(gone))));
        }
        note(self.from, bytes.len());
        while !bytes.is_empty() {
            match poll_write(sink, bytes, cx) {
                Poll::Ready(written) => bytes = &bytes[written.map_err(Break::Sink)?..],
                Poll::Pending => {
                    self.left = Bytes::copy_from_slice(bytes);
                    break;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

fn poll_write(sink: &mut dyn Duplex, bytes: &[u8], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
    Pin::new(sink).poll_write(cx, bytes).map(|written| match written {
        Ok(0) => Err(ErrorKind::WriteZero.into()),
        written => written,
    })
}
