//! One open connection: what it does and since when, what it is told, what it holds.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::task::AbortHandle;

use super::STILL;
use super::leaving::DRAIN_LINGER;
use crate::downstream::ConnectionLimits;
use crate::message::Tunnel;
use crate::overload;

/// HTTP/2: the bytes of a PING, the longest of the frames that keep a connection as it is.
const PING: usize = 17;

/// HTTP/2: a client that takes back so many requests, and at least half of all it makes, makes them to be taken back.
/// Each costs us a whole exchange and the client a few bytes.
const MAX_CANCELLED: u32 = 100;

/// What a connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::downstream) enum Phase {
    /// The TLS handshake of a new connection.
    Handshake,
    /// A head is on its way, or is due on a new connection.
    Head,
    /// Exchanges are under way.
    Busy,
    /// It waits for the next request.
    Idle,
}

/// What a connection is told from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::downstream) enum Order {
    /// Finish what is under way, then close.
    Finish,
    /// Close: the client was too slow in this phase.
    Late(Phase),
    /// Close: the client means harm.
    Abuse,
}

/// One open connection.
pub(in crate::downstream) struct Slot {
    pub(super) phase: Cell<Phase>,
    since: Cell<u32>,
    in_flight: Cell<u32>,
    /// Exchanges so far, and those the client took back before they were answered.
    begun: Cell<u32>,
    cancelled: Cell<u32>,
    /// Bytes wait to be written and the socket takes none.
    pub(super) stuck: Cell<bool>,
    /// Bodies of responses that wait for memory.
    held: RefCell<Vec<Waker>>,
    /// One of them may go on.
    turn: Cell<bool>,
    /// What they gave when memory was short already, and the socket has taken nothing since.
    unwritten: Cell<bool>,
    /// It was so when memory was found short last, and has taken nothing since.
    was_stuck: Cell<bool>,
    /// Bytes that came since it is busy, and when the last went in either direction.
    came: Cell<usize>,
    moved: Cell<u32>,
    still_ticks: u32,
    /// It was told to close for want of memory.
    shed: Cell<bool>,
    /// HTTP/2 has its own framing: bytes between exchanges need not be a head.
    pub(super) multiplexed: Cell<bool>,
    /// HTTP/2: the head that has begun to come and is not whole, by its number, and since when.
    unfinished_head: Cell<Option<(u32, u32)>>,
    /// It counts among the handshakes.
    pub(super) shakes: Cell<bool>,
    handshake_ticks: u32,
    /// The client sent too many frames that carry nothing.
    flooding: Cell<bool>,
    /// What goes on with the connection when the head that changed its protocol is written.
    tunnel: Cell<Option<Tunnel>>,
    header_ticks: u32,
    idle_ticks: u32,
    write_ticks: u32,
    /// Its time to leave has come: responses say so, and it is not kept when it has nothing to do.
    pub(super) leaving: Cell<bool>,
    linger_ticks: u32,
    /// What serves the connection.
    task: OnceCell<AbortHandle>,
    /// HTTP/2: what carries its streams that changed their protocol, as far as it is not over.
    tunnels: RefCell<Vec<AbortHandle>>,
    order: Cell<Option<Order>>,
    waker: RefCell<Option<Waker>>,
    tick: Rc<Cell<u32>>,
    shaking: Rc<Cell<usize>>,
}

impl Slot {
    pub(super) fn new(
        limits: &ConnectionLimits,
        period: Duration,
        tick: &Rc<Cell<u32>>,
        shaking: &Rc<Cell<usize>>,
    ) -> Slot {
        Slot {
            phase: Cell::new(if limits.handshake_timeout.is_some() { Phase::Handshake } else { Phase::Head }),
            since: Cell::new(tick.get()),
            in_flight: Cell::new(0),
            begun: Cell::new(0),
            cancelled: Cell::new(0),
            stuck: Cell::new(false),
            held: RefCell::default(),
            turn: Cell::new(false),
            unwritten: Cell::new(false),
            was_stuck: Cell::new(false),
            came: Cell::new(0),
            moved: Cell::new(tick.get()),
            still_ticks: ticks(STILL, period),
            shed: Cell::new(false),
            multiplexed: Cell::new(false),
            unfinished_head: Cell::new(None),
            shakes: Cell::new(false),
            handshake_ticks: limits.handshake_timeout.map_or(0, |timeout| ticks(timeout, period)),
            flooding: Cell::new(false),
            tunnel: Cell::default(),
            header_ticks: ticks(limits.header_timeout, period),
            idle_ticks: ticks(limits.idle_timeout, period),
            write_ticks: ticks(limits.write_timeout, period),
            leaving: Cell::new(false),
            linger_ticks: ticks(DRAIN_LINGER, period),
            task: OnceCell::new(),
            tunnels: RefCell::default(),
            order: Cell::new(None),
            waker: RefCell::default(),
            tick: tick.clone(),
            shaking: shaking.clone(),
        }
    }

    pub(super) fn check(&self, now: u32) {
        let age = now.wrapping_sub(self.since.get());
        // hyper may hold the rest of a response whose exchange is over already.
        let phase = if self.stuck.get() { Phase::Busy } else { self.phase.get() };
        if phase == Phase::Idle && self.is_late_with_head(now) {
            return self.give(Order::Late(Phase::Head));
        }
        let late = match phase {
            Phase::Handshake => age > self.handshake_ticks,
            Phase::Head => age > self.header_ticks,
            Phase::Idle if self.leaving.get() && !self.multiplexed.get() => age > self.linger_ticks,
            Phase::Idle => age > self.idle_ticks,
            Phase::Busy => self.stuck.get() && age > self.write_ticks,
        };
        if late {
            self.give(Order::Late(phase));
        }
    }

    /// HTTP/2: whether the head that has begun to come should be whole by now.
    fn is_late_with_head(&self, now: u32) -> bool {
        self.unfinished_head.get().is_some_and(|(_, since)| now.wrapping_sub(since) > self.header_ticks)
    }

    /// Memory is short: closes the connection if it has nothing to do yet, or any more, or if it holds what its client does not
    /// take. False if it goes on, or has been told.
    pub(super) fn shed(&self) -> bool {
        let is_stuck = self.stuck.get();
        let order = match self.phase.get() {
            // Not one that has just begun to be: its client may be about to take what there is.
            _ if is_stuck && self.was_stuck.replace(true) => Order::Late(Phase::Busy),
            Phase::Idle if !is_stuck => Order::Finish,
            Phase::Head => Order::Late(Phase::Head),
            _ => return false,
        };
        if self.shed.replace(true) {
            return false;
        }
        overload::count_closed();
        self.give(order);
        true
    }

    /// Memory is short: closes the connection if it brought so much and nothing has moved for long. False if something has, or
    /// if it has been told.
    pub(super) fn shed_still(&self, much: usize) -> bool {
        let still = self.tick.get().wrapping_sub(self.moved.get()) > self.still_ticks;
        let is_stuck = still && self.phase.get() == Phase::Busy && self.came.get() >= much;
        if !is_stuck || self.shed.replace(true) {
            return false;
        }
        overload::count_closed();
        self.give(Order::Late(Phase::Busy));
        true
    }

    /// Ready when the body of a response may give what is next, when memory is short: not while what it gave before has not
    /// been written, and when memory is very short only when it is its turn. The task is woken when that may have changed.
    pub(in crate::downstream) fn poll_turn(&self, cx: &Context<'_>) -> Poll<()> {
        let may = if overload::refuses() {
            self.turn.replace(false)
        } else {
            !self.stuck.get() && !self.unwritten.get()
        };
        if may {
            return Poll::Ready(());
        }
        let mut held = self.held.borrow_mut();
        if !held.iter().any(|waker| waker.will_wake(cx.waker())) {
            held.push(cx.waker().clone());
            overload::count_held();
        }
        Poll::Pending
    }

    /// The body of a response gave something to be written.
    pub(in crate::downstream) fn gave(&self) {
        self.unwritten.set(true);
    }

    /// Memory is not very short: has bodies go on whose client takes what there is.
    pub(super) fn go_on(&self) {
        if !self.stuck.get() || !overload::holds() {
            self.unwritten.set(false);
            self.release_held();
        }
    }

    /// Gives a body that waits its turn. False if none waits, or its client would not take what it gives.
    pub(super) fn give_turn(&self) -> bool {
        if self.stuck.get() || self.held.borrow().is_empty() {
            return false;
        }
        self.turn.set(true);
        self.release_held();
        true
    }

    /// Breaks the connection off.
    pub(super) fn abort(&self) {
        // First: to these, a connection that is gone would look like a client that left.
        self.tunnels.take().iter().for_each(AbortHandle::abort);
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }

    fn release_held(&self) {
        for waker in self.held.take() {
            waker.wake();
        }
    }

    pub(super) fn give(&self, order: Order) {
        self.order.set(Some(order));
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    /// What the connection was told since it asked last. Its task is woken for the next order.
    pub(in crate::downstream) fn order(&self, cx: &Context<'_>) -> Option<Order> {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        self.order.take()
    }

    /// The handshake is done.
    pub(in crate::downstream) fn is_shaken(&self) {
        self.leave_handshake();
        self.enter(Phase::Head);
    }

    pub(super) fn leave_handshake(&self) {
        if self.shakes.replace(false) {
            self.shaking.set(self.shaking.get().saturating_sub(1));
        }
    }

    /// The client sends too many frames that carry nothing.
    pub(in crate::downstream) fn set_flooding(&self) {
        self.flooding.set(true);
    }

    /// Whether it did.
    pub(in crate::downstream) fn is_flooding(&self) -> bool {
        self.flooding.get()
    }

    /// The connection is served by this task.
    pub(in crate::downstream) fn set_task(&self, task: AbortHandle) {
        // It is told once.
        let _ = self.task.set(task);
    }

    /// HTTP/2: a stream that changed its protocol is carried by this task.
    pub(in crate::downstream) fn carries(&self, stream: AbortHandle) {
        let mut tunnels = self.tunnels.borrow_mut();
        tunnels.retain(|tunnel| !tunnel.is_finished());
        tunnels.push(stream);
    }

    /// The connection speaks HTTP/2.
    pub(in crate::downstream) fn set_multiplexed(&self) {
        self.multiplexed.set(true);
        self.enter(Phase::Idle);
        if self.leaving.get() {
            self.give(Order::Finish);
        }
    }

    /// The connection changes its protocol after this response.
    pub(in crate::downstream) fn put_tunnel(&self, tunnel: Tunnel) {
        self.tunnel.set(Some(tunnel));
    }

    /// What goes on with the connection after its last response, if anything.
    pub(in crate::downstream) fn take_tunnel(&self) -> Option<Tunnel> {
        self.tunnel.take()
    }

    /// A new connection that has not said a word.
    pub(super) fn is_untouched(&self) -> bool {
        self.phase.get() == Phase::Head && self.in_flight.get() == 0
    }

    /// Bytes wait to be written and the socket takes none.
    pub(in crate::downstream) fn is_stuck(&self) -> bool {
        self.stuck.get()
    }

    fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.since.set(self.tick.get());
    }

    /// So many bytes came from the client. Over HTTP/2, they may end within the head of this number.
    pub(in crate::downstream) fn has_read(&self, bytes: usize, unfinished_head: Option<u32>) {
        self.came.set(self.came.get().saturating_add(bytes));
        self.moved.set(self.tick.get());
        if self.unfinished_head.get().map(|(number, _)| number) != unfinished_head {
            self.unfinished_head.set(unfinished_head.map(|number| (number, self.tick.get())));
        }
        if self.phase.get() == Phase::Idle && !self.multiplexed.get() {
            self.enter(Phase::Head);
        }
    }

    /// The client took so many bytes.
    pub(in crate::downstream) fn has_written(&self, bytes: usize) {
        self.moved.set(self.tick.get());
        self.stuck.set(false);
        self.was_stuck.set(false);
        self.unwritten.set(false);
        self.release_held();
        let is_kept = match self.phase.get() {
            Phase::Head => true,
            // Whether the client is there is asked while nobody wants anything.
            Phase::Idle => self.multiplexed.get() && bytes <= PING,
            Phase::Handshake | Phase::Busy => false,
        };
        if !is_kept {
            self.since.set(self.tick.get());
        }
    }

    /// The client takes nothing now.
    pub(in crate::downstream) fn cannot_write(&self) {
        if !self.stuck.replace(true) && self.phase.get() == Phase::Busy {
            self.since.set(self.tick.get());
        }
    }

    /// An exchange begins; it lasts until the value is dropped.
    pub(in crate::downstream) fn begin(self: &Rc<Self>) -> InFlight {
        if self.in_flight.get() == 0 {
            self.came.set(0);
            self.moved.set(self.tick.get());
        }
        self.in_flight.set(self.in_flight.get() + 1);
        self.begun.set(self.begun.get().saturating_add(1));
        self.phase.set(Phase::Busy);
        InFlight { slot: self.clone(), answered: false }
    }

    fn count_cancelled(&self) {
        let cancelled = self.cancelled.get() + 1;
        self.cancelled.set(cancelled);
        if self.multiplexed.get() && cancelled >= MAX_CANCELLED && cancelled >= self.begun.get() / 2 {
            self.give(Order::Abuse);
        }
    }
}

/// An exchange on a connection.
pub(in crate::downstream) struct InFlight {
    slot: Rc<Slot>,
    answered: bool,
}

impl InFlight {
    /// There is a response, or a reason for having none; the client did not take the request back.
    pub(in crate::downstream) fn answered(mut self) -> InFlight {
        self.answered = true;
        self
    }

    /// As [`Slot::gave`].
    pub(in crate::downstream) fn gave(&self) {
        self.slot.gave();
    }

    /// As [`Slot::poll_turn`].
    pub(in crate::downstream) fn poll_turn(&self, cx: &Context<'_>) -> Poll<()> {
        self.slot.poll_turn(cx)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if !self.answered {
            self.slot.count_cancelled();
        }
        let left = self.slot.in_flight.get().saturating_sub(1);
        self.slot.in_flight.set(left);
        if left == 0 {
            self.slot.enter(Phase::Idle);
        }
    }
}

fn ticks(timeout: Duration, period: Duration) -> u32 {
    // One more: the tick during which the wait began was partly over.
    u32::try_from(timeout.as_nanos().div_ceil(period.as_nanos().max(1))).unwrap_or(u32::MAX - 1) + 1
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    /// A connection over HTTP/2 that is idle, and what time it is for it.
    fn idle() -> (Slot, Rc<Cell<u32>>) {
        let (tick, limits) = (Rc::default(), ConnectionLimits::default());
        let slot = Slot::new(&limits, limits.idle_timeout, &tick, &Rc::default());
        slot.set_multiplexed();
        (slot, tick)
    }

    /// What a look at this time comes to.
    async fn told(slot: &Slot, tick: &Cell<u32>, now: u32) -> Option<Order> {
        tick.set(now);
        slot.check(now);
        poll_fn(|cx| Poll::Ready(slot.order(cx))).await
    }

    #[tokio::test(flavor = "current_thread")]
    async fn whether_the_client_is_there_is_asked_of_idle_connections() {
        let (slot, tick) = idle();
        assert_eq!(told(&slot, &tick, slot.idle_ticks).await, None);
        slot.has_written(PING);
        slot.has_read(PING, None);
        assert_eq!(told(&slot, &tick, slot.idle_ticks + 1).await, Some(Order::Late(Phase::Idle)));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_more_than_a_ping_is_written_to_is_not_idle() {
        let (slot, tick) = idle();
        assert_eq!(told(&slot, &tick, slot.idle_ticks).await, None);
        slot.has_written(PING + 1);
        assert_eq!(told(&slot, &tick, 2 * slot.idle_ticks).await, None);
        assert_eq!(told(&slot, &tick, 2 * slot.idle_ticks + 1).await, Some(Order::Late(Phase::Idle)));
    }
}
