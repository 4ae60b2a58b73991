//! What one side of a session sends, on its way through the filters: down the chain from the client, up the chain from
//! the endpoint. Whoever reads the socket asks how much there is room for, and stops reading while there is none; bytes
//! that no filter looks at pass as they came.

use std::collections::VecDeque;
use std::collections::vec_deque;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use meshgate_wasm::{Callbacks, Limit, PeerType, StreamContext, TcpAction};

use super::run::Run;
use super::{Session, Side};
use crate::filter::failure::{FilterFailure, FilterFault, Stop};

/// Bytes, as they came from the network.
type Chunks = VecDeque<Bytes>;

/// What one side sends, through the filters.
pub struct Flow {
    session: Rc<Session>,
    side: Side,
    /// How many filters have heard of the new connection, if it is for this flow to tell them.
    greeted: usize,
    /// The new connection has passed the last filter.
    through: bool,
    /// A filter looks at what passes.
    looked_at: bool,
    out: Chunks,
    ended: bool,
}

impl Flow {
    /// What the client sends. It begins by telling the filters of the new connection, in [`Flow::begin`].
    pub fn downstream(session: &Rc<Session>) -> Flow {
        let looked_at = session.wants(Callbacks::DOWNSTREAM_DATA);
        Flow::new(session, Side::Downstream, looked_at, 0)
    }

    /// What the endpoint sends.
    pub fn upstream(session: &Rc<Session>) -> Flow {
        let looked_at = session.wants(Callbacks::UPSTREAM_DATA);
        Flow { through: true, ..Flow::new(session, Side::Upstream, looked_at, usize::MAX) }
    }

    fn new(session: &Rc<Session>, side: Side, looked_at: bool, greeted: usize) -> Flow {
        let session = Rc::clone(session);
        Flow { session, side, greeted, through: false, looked_at, out: Chunks::new(), ended: false }
    }

    /// Tells the filters of the new connection, as far down the chain as they let it.
    ///
    /// # Errors
    /// A filter stopped the session; so it is with everything here that runs filters.
    pub fn begin(&mut self) -> Result<(), Stop> {
        self.feed(0, Chunks::new(), false)
    }

    /// Whether the new connection has passed all filters: time to connect to an endpoint.
    pub fn is_through(&self) -> bool {
        self.through
    }

    /// How many bytes may be taken from the socket: none before the new connection has passed, while some wait to be
    /// written, or while a filter holds as many as it may.
    pub fn room(&self) -> usize {
        if !self.through || !self.out.is_empty() {
            return 0;
        }
        if !self.looked_at {
            return usize::MAX;
        }
        let runs = self.session.runs.iter();
        runs.filter_map(|run| run.room(self.side)).min().unwrap_or(usize::MAX)
    }

    /// Whether a filter looks at what passes, and so may hold it.
    pub fn is_looked_at(&self) -> bool {
        self.looked_at
    }

    /// Bytes came.
    ///
    /// # Errors
    /// A filter stopped the session.
    pub fn push(&mut self, bytes: Bytes) -> Result<(), Stop> {
        if !self.looked_at {
            self.out.push_back(bytes);
            return Ok(());
        }
        self.feed(0, Chunks::from([bytes]), false)
    }

    /// The side will send nothing more.
    ///
    /// # Errors
    /// A filter stopped the session.
    pub fn end(&mut self) -> Result<(), Stop> {
        self.feed(0, Chunks::new(), true)
    }

    /// Lets go what resumed filters held; `true` if there was any.
    ///
    /// # Errors
    /// A filter stopped the session.
    pub fn release_resumed(&mut self) -> Result<bool, Stop> {
        let session = Rc::clone(&self.session);
        let mut released = false;
        for position in 0..session.runs.len() {
            let Some(run) = self.run(&session, position) else { break };
            let half = run.half(self.side);
            if !half.held.get() || !run.take_resumed(self.side)? {
                continue;
            }
            released = true;
            half.held.set(false);
            let held = run.buffer(self.side).map(|buffer| buffer.borrow().drain().collect());
            self.feed(position + 1, held.unwrap_or_default(), half.end.take())?;
        }
        Ok(released)
    }

    /// How long the filters that hold something back may, if any does: the shortest time.
    pub fn pause(&self) -> Option<Duration> {
        self.holder().map(|run| run.filter().pause)
    }

    fn holder(&self) -> Option<&Run> {
        let holders = self.session.runs.iter().filter(|run| run.half(self.side).held.get());
        holders.min_by_key(|run| run.filter().pause)
    }

    /// The filter that holds things back has had its time.
    ///
    /// # Errors
    /// It ends the session, unless such a filter is to be skipped.
    pub fn give_up(&mut self) -> Result<(), Stop> {
        self.holder().map_or(Ok(()), |run| run.fail(FilterFault::PauseTimeout))?;
        self.release_resumed().map(drop)
    }

    /// What passed the filters and waits to be written.
    pub fn out(&self) -> vec_deque::Iter<'_, Bytes> {
        self.out.iter()
    }

    /// So many bytes of it were written.
    pub fn advance(&mut self, mut written: usize) {
        while let Some(first) = self.out.front_mut() {
            if first.len() > written {
                first.advance(written);
                return;
            }
            written -= first.len();
            self.out.pop_front();
        }
    }

    /// Whether anything has passed the filters that was not written yet.
    pub fn has_passed(&self) -> bool {
        self.ended || !self.out.is_empty()
    }

    /// Whether the end passed the filters: what waits to be written is the last.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Gives bytes to the filters from this position on, as far as they let them through; and the new connection, which
    /// goes ahead of the bytes.
    fn feed(&mut self, mut position: usize, mut bytes: Chunks, end: bool) -> Result<(), Stop> {
        let session = Rc::clone(&self.session);
        while let Some(run) = self.run(&session, position) {
            if position >= self.greeted {
                self.greeted = position + 1;
                let action =
                    run.call(&session, Callbacks::NEW_CONNECTION, StreamContext::on_new_connection)?;
                run.half(self.side).held.set(action == Some(TcpAction::Pause));
            }
            if !bytes.is_empty() || end {
                match self.pass(&session, run, bytes, end)? {
                    Some(passed) => bytes = passed,
                    None => return Ok(()),
                }
            } else if run.half(self.side).held.get() {
                return Ok(());
            }
            position += 1;
        }
        self.through = true;
        self.out.extend(bytes.into_iter().filter(|chunk| !chunk.is_empty()));
        self.ended |= end;
        Ok(())
    }

    /// Gives bytes to one filter: what it lets through, or `None` if it holds them.
    fn pass(
        &self,
        session: &Rc<Session>,
        run: &Run,
        bytes: Chunks,
        end: bool,
    ) -> Result<Option<Chunks>, Stop> {
        let mut bytes = Some(bytes);
        let push = |context: &StreamContext, chunks: Option<Chunks>| {
            let mut buffer = match self.side {
                Side::Downstream => context.downstream_data(),
                Side::Upstream => context.upstream_data(),
            };
            chunks.into_iter().flatten().for_each(|chunk| buffer.push(chunk));
        };
        let action = match self.side {
            Side::Downstream => run.call(session, Callbacks::DOWNSTREAM_DATA, |context| {
                push(context, bytes.take());
                context.on_downstream_data(end)
            })?,
            Side::Upstream => run.call(session, Callbacks::UPSTREAM_DATA, |context| {
                push(context, bytes.take());
                context.on_upstream_data(end)
            })?,
        };
        if end && self.side == Side::Upstream {
            run.tell_upstream_closed(session, PeerType::Remote)?;
        }
        let half = run.half(self.side);
        let Some(buffer) = run.buffer(self.side) else { return Ok(bytes) };
        let mut buffer = buffer.borrow();
        // A filter that failed and is skipped lets everything through that it held.
        let holds = action == Some(TcpAction::Pause);
        half.held.set(holds);
        if buffer.overflowed() && !run.is_skipped() {
            return Err(over_limit(run));
        }
        if !holds {
            let mut passed: Chunks = buffer.drain().collect();
            passed.extend(bytes.into_iter().flatten());
            return Ok(Some(passed));
        }
        bytes.into_iter().flatten().for_each(|chunk| buffer.push(chunk));
        half.end.set(end);
        if buffer.over_limit() { Err(over_limit(run)) } else { Ok(None) }
    }

    /// The filter at this position of the way: down the chain from the client, up from the endpoint.
    fn run<'s>(&self, session: &'s Session, position: usize) -> Option<&'s Run> {
        match self.side {
            Side::Downstream => session.runs.get(position),
            Side::Upstream => session.runs.get(session.runs.len().checked_sub(position + 1)?),
        }
    }
}

impl Run {
    /// How many more bytes may come before this filter; no answer if it does not care.
    fn room(&self, side: Side) -> Option<usize> {
        // One byte at least: a filter that may hold nothing is still shown what passes.
        let limit = self.filter().body_limit.max(1);
        if self.half(side).held.get() {
            let held = self.buffer(side).map_or(0, |buffer| buffer.borrow().len());
            return Some(limit.saturating_sub(held));
        }
        let data = match side {
            Side::Downstream => Callbacks::DOWNSTREAM_DATA,
            Side::Upstream => Callbacks::UPSTREAM_DATA,
        };
        self.wants(data).then_some(limit)
    }
}

fn over_limit(run: &Run) -> Stop {
    let filter = run.filter();
    filter.plugin.exceeded(Limit::Body);
    let fault = FilterFault::DataLimit(filter.body_limit);
    Stop::Failed(FilterFailure { filter: Rc::clone(&filter.name), fault })
}
