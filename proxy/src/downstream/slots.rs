//! The open connections of a listener, and the one task that watches their clocks.
//!
//! A timer per request would cost more than the request's own parsing. Instead each connection notes what it does and
//! since which tick; a sweep finds the late ones. The same way leads a drain to every connection.

mod leaving;

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use self::leaving::DRAIN_LINGER;
use super::{ConnectionLimits, ListenerStats};
use crate::message::Tunnel;
use crate::overload;

/// The sweep looks this often within the shortest timeout.
const SWEEPS_PER_TIMEOUT: u32 = 8;
const SHORTEST_TICK: Duration = Duration::from_millis(10);
const LONGEST_TICK: Duration = Duration::from_secs(1);

/// When memory is very short: how often bodies that wait have a turn, how many; and, when it is so short that connections are
/// closed, which share of them each time.
const SHED_PERIOD: Duration = Duration::from_millis(20);
const TURNS: usize = 8;
const SHED_SHARE: usize = 8;
/// When memory is short: a connection that has brought so much since it was busy, and then nothing in either direction for so
/// long, holds what nobody takes.
const MUCH: usize = 64 << 10;
const STILL: Duration = Duration::from_secs(5);

/// HTTP/2: the bytes of a PING, the longest of the frames that keep a connection as it is.
const PING: usize = 17;

/// HTTP/2: a client that takes back so many requests, and at least half of all it makes, makes them to be taken back.
/// Each costs us a whole exchange and the client a few bytes.
const MAX_CANCELLED: u32 = 100;

/// All open connections of a listener on this worker.
pub(super) struct Slots {
    open: RefCell<HashMap<u64, Rc<Slot>>>,
    tick: Rc<Cell<u32>>,
    period: Cell<Duration>,
    sweeping: Cell<bool>,
    stats: Arc<ListenerStats>,
    emptied: Notify,
    /// Those that were in their handshake when they came, in that order; some are not any more.
    handshakes: RefCell<VecDeque<Weak<Slot>>>,
    shaking: Rc<Cell<usize>>,
}

/// What a connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
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
pub(super) enum Order {
    /// Finish what is under way, then close.
    Finish,
    /// Close: the client was too slow in this phase.
    Late(Phase),
    /// Close: the client means harm.
    Abuse,
}

/// One open connection.
pub(super) struct Slot {
    phase: Cell<Phase>,
    since: Cell<u32>,
    in_flight: Cell<u32>,
    /// Exchanges so far, and those the client took back before they were answered.
    begun: Cell<u32>,
    cancelled: Cell<u32>,
    /// Bytes wait to be written and the socket takes none.
    stuck: Cell<bool>,
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
    multiplexed: Cell<bool>,
    /// HTTP/2: the head that has begun to come and is not whole, by its number, and since when.
    unfinished_head: Cell<Option<(u32, u32)>>,
    /// It counts among the handshakes.
    shakes: Cell<bool>,
    handshake_ticks: u32,
    /// The client sent too many frames that carry nothing.
    flooding: Cell<bool>,
    /// What goes on with the connection when the head that changed its protocol is written.
    tunnel: Cell<Option<Tunnel>>,
    header_ticks: u32,
    idle_ticks: u32,
    write_ticks: u32,
    /// Its time to leave has come: responses say so, and it is not kept when it has nothing to do.
    leaving: Cell<bool>,
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

impl Slots {
    pub(super) fn new(stats: Arc<ListenerStats>) -> Rc<Slots> {
        Rc::new(Slots {
            open: RefCell::default(),
            tick: Rc::default(),
            period: Cell::new(LONGEST_TICK),
            sweeping: Cell::new(false),
            stats,
            emptied: Notify::new(),
            handshakes: RefCell::default(),
            shaking: Rc::default(),
        })
    }

    /// A place for a new connection, and the guard that gives it up.
    pub(super) fn open(self: &Rc<Self>, id: u64, limits: &ConnectionLimits) -> (Rc<Slot>, OpenSlot) {
        let period = self.period_for(limits);
        let slot = Rc::new(Slot {
            phase: Cell::new(if limits.handshake_timeout.is_some() { Phase::Handshake } else { Phase::Head }),
            since: Cell::new(self.tick.get()),
            in_flight: Cell::new(0),
            begun: Cell::new(0),
            cancelled: Cell::new(0),
            stuck: Cell::new(false),
            held: RefCell::default(),
            turn: Cell::new(false),
            unwritten: Cell::new(false),
            was_stuck: Cell::new(false),
            came: Cell::new(0),
            moved: Cell::new(self.tick.get()),
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
            tick: self.tick.clone(),
            shaking: self.shaking.clone(),
        });
        self.open.borrow_mut().insert(id, slot.clone());
        if limits.handshake_timeout.is_some() {
            self.begin_handshake(&slot, limits.max_handshakes);
        }
        if !self.sweeping.replace(true) {
            tokio::task::spawn_local(sweep(Rc::downgrade(self)));
        }
        (slot, OpenSlot { id, slots: self.clone() })
    }

    /// With too many handshakes under way the oldest is given up: whoever is honest is done long before that.
    fn begin_handshake(&self, slot: &Rc<Slot>, most: usize) {
        let mut handshakes = self.handshakes.borrow_mut();
        while self.shaking.get() >= most.max(1)
            && let Some(oldest) = handshakes.pop_front()
        {
            if let Some(oldest) = oldest.upgrade().filter(|oldest| oldest.phase.get() == Phase::Handshake) {
                oldest.leave_handshake();
                oldest.give(Order::Late(Phase::Handshake));
            }
        }
        self.shaking.set(self.shaking.get() + 1);
        slot.shakes.set(true);
        // The front of the queue is forgotten as it ends, so that the queue holds little that is over.
        while handshakes.front().is_some_and(|oldest| oldest.upgrade().is_none_or(|slot| !slot.shakes.get()))
        {
            handshakes.pop_front();
        }
        handshakes.push_back(Rc::downgrade(slot));
    }

    /// The period is fixed while connections are open: their ages are counted in it.
    fn period_for(&self, limits: &ConnectionLimits) -> Duration {
        if self.open.borrow().is_empty() {
            let shortest = limits.header_timeout.min(limits.idle_timeout).min(limits.write_timeout);
            let shortest = limits.handshake_timeout.unwrap_or(shortest).min(shortest) / SWEEPS_PER_TIMEOUT;
            self.period.set(shortest.clamp(SHORTEST_TICK, LONGEST_TICK));
        }
        self.period.get()
    }

    /// Memory is short, or was: who waits for it goes on, or has a turn, or is closed.
    fn relieve(&self) {
        if overload::closes() {
            self.shed();
        }
        if overload::holds() {
            self.shed_still();
        }
        let open = self.open.borrow();
        if overload::refuses() {
            open.values().filter(|slot| slot.give_turn()).take(TURNS).for_each(drop);
        } else {
            open.values().for_each(|slot| slot.go_on());
        }
    }

    /// Closes a few connections for want of memory, those that hold most of it for nothing first.
    fn shed(&self) {
        let open = self.open.borrow();
        let most = open.len() / SHED_SHARE + 1;
        let (stuck, others) = open.values().partition::<Vec<_>, _>(|slot| slot.stuck.get());
        stuck.into_iter().chain(others).filter(|slot| slot.shed()).take(most).for_each(drop);
    }

    /// Closes a few connections that hold what they brought because nobody takes it: what waits for that will not go on by
    /// itself.
    fn shed_still(&self) {
        let open = self.open.borrow();
        let most = open.len() / SHED_SHARE + 1;
        open.values().filter(|slot| slot.shed_still()).take(most).for_each(drop);
    }

    /// Breaks all connections off.
    pub(super) fn abort(&self) {
        for slot in self.open.borrow().values() {
            // First: to these, a connection that is gone would look like a client that left.
            slot.tunnels.take().iter().for_each(AbortHandle::abort);
            if let Some(task) = slot.task.get() {
                task.abort();
            }
        }
    }

    /// Waits until no connection is open.
    pub(super) async fn emptied(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.open.borrow().is_empty() {
                return;
            }
            emptied.await;
        }
    }
}

fn ticks(timeout: Duration, period: Duration) -> u32 {
    // One more: the tick during which the wait began was partly over.
    u32::try_from(timeout.as_nanos().div_ceil(period.as_nanos().max(1))).unwrap_or(u32::MAX - 1) + 1
}

/// Runs while connections are open; `Slots::open` starts it again.
async fn sweep(slots: Weak<Slots>) {
    let mut period = slots.upgrade().map_or(LONGEST_TICK, |slots| slots.period.get());
    let mut due = Instant::now() + period;
    loop {
        let changed = overload::changed();
        let pause = if overload::refuses() { Instant::now() + SHED_PERIOD } else { due };
        tokio::select! {
            () = tokio::time::sleep_until(pause.min(due)) => {}
            () = changed => {}
        }
        let Some(slots) = slots.upgrade() else { return };
        slots.relieve();
        if Instant::now() < due {
            continue;
        }
        let now = slots.tick.get().wrapping_add(1);
        slots.tick.set(now);
        if slots.open.borrow().is_empty() {
            slots.sweeping.set(false);
            return;
        }
        period = slots.period.get();
        due = Instant::now() + period;
        for slot in slots.open.borrow().values() {
            slot.check(now);
        }
    }
}

/// Gives the slot up when dropped, however the connection ends.
pub(super) struct OpenSlot {
    id: u64,
    slots: Rc<Slots>,
}

impl Drop for OpenSlot {
    fn drop(&mut self) {
        let mut open = self.slots.open.borrow_mut();
        if let Some(slot) = open.remove(&self.id) {
            slot.leave_handshake();
        }
        if open.is_empty() {
            self.slots.emptied.notify_waiters();
        }
    }
}

impl Slot {
    fn check(&self, now: u32) {
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

    /// Memory is short: closes the connection if it has nothing to do, or if it holds what its client does not take. False if it
    /// goes on, or has been told.
    fn shed(&self) -> bool {
        let is_stuck = self.stuck.get();
        let order = match self.phase.get() {
            // Not one that has just begun to be: its client may be about to take what there is.
            _ if is_stuck && self.was_stuck.replace(true) => Order::Late(Phase::Busy),
            Phase::Idle if !is_stuck => Order::Finish,
            _ => return false,
        };
        if self.shed.replace(true) {
            return false;
        }
        overload::count_closed();
        self.give(order);
        true
    }

    /// Memory is short: closes the connection if what it brought has not moved for long. False if it has, or has been told.
    fn shed_still(&self) -> bool {
        let still = self.tick.get().wrapping_sub(self.moved.get()) > self.still_ticks;
        let is_stuck = still && self.phase.get() == Phase::Busy && self.came.get() >= MUCH;
        if !is_stuck || self.shed.replace(true) {
            return false;
        }
        overload::count_closed();
        self.give(Order::Late(Phase::Busy));
        true
    }

    /// Ready when the body of a response may give what is next, when memory is short: not while what it gave before has not
    /// been written, and when memory is very short only when it is its turn. The task is woken when that may have changed.
    pub(super) fn poll_turn(&self, cx: &Context<'_>) -> Poll<()> {
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
    pub(super) fn gave(&self) {
        self.unwritten.set(true);
    }

    /// Memory is not very short: has bodies go on whose client takes what there is.
    fn go_on(&self) {
        if !self.stuck.get() || !overload::holds() {
            self.unwritten.set(false);
            self.release_held();
        }
    }

    /// Gives a body that waits its turn. False if none waits, or its client would not take what it gives.
    fn give_turn(&self) -> bool {
        if self.stuck.get() || self.held.borrow().is_empty() {
            return false;
        }
        self.turn.set(true);
        self.release_held();
        true
    }

    fn release_held(&self) {
        for waker in self.held.take() {
            waker.wake();
        }
    }

    fn give(&self, order: Order) {
        self.order.set(Some(order));
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    /// What the connection was told since it asked last. Its task is woken for the next order.
    pub(super) fn order(&self, cx: &Context<'_>) -> Option<Order> {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        self.order.take()
    }

    /// The handshake is done.
    pub(super) fn is_shaken(&self) {
        self.leave_handshake();
        self.enter(Phase::Head);
    }

    fn leave_handshake(&self) {
        if self.shakes.replace(false) {
            self.shaking.set(self.shaking.get().saturating_sub(1));
        }
    }

    /// The client sends too many frames that carry nothing.
    pub(super) fn set_flooding(&self) {
        self.flooding.set(true);
    }

    /// Whether it did.
    pub(super) fn is_flooding(&self) -> bool {
        self.flooding.get()
    }

    /// The connection is served by this task.
    pub(super) fn set_task(&self, task: AbortHandle) {
        // It is told once.
        let _ = self.task.set(task);
    }

    /// HTTP/2: a stream that changed its protocol is carried by this task.
    pub(super) fn carries(&self, stream: AbortHandle) {
        let mut tunnels = self.tunnels.borrow_mut();
        tunnels.retain(|tunnel| !tunnel.is_finished());
        tunnels.push(stream);
    }

    /// The connection speaks HTTP/2.
    pub(super) fn set_multiplexed(&self) {
        self.multiplexed.set(true);
        self.enter(Phase::Idle);
        if self.leaving.get() {
            self.give(Order::Finish);
        }
    }

    /// The connection changes its protocol after this response.
    pub(super) fn put_tunnel(&self, tunnel: Tunnel) {
        self.tunnel.set(Some(tunnel));
    }

    /// What goes on with the connection after its last response, if anything.
    pub(super) fn take_tunnel(&self) -> Option<Tunnel> {
        self.tunnel.take()
    }

    /// A new connection that has not said a word.
    fn is_untouched(&self) -> bool {
        self.phase.get() == Phase::Head && self.in_flight.get() == 0
    }

    /// Bytes wait to be written and the socket takes none.
    pub(super) fn is_stuck(&self) -> bool {
        self.stuck.get()
    }

    fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.since.set(self.tick.get());
    }

    /// So many bytes came from the client. Over HTTP/2, they may end within the head of this number.
    pub(super) fn has_read(&self, bytes: usize, unfinished_head: Option<u32>) {
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
    pub(super) fn has_written(&self, bytes: usize) {
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
    pub(super) fn cannot_write(&self) {
        if !self.stuck.replace(true) && self.phase.get() == Phase::Busy {
            self.since.set(self.tick.get());
        }
    }

    /// An exchange begins; it lasts until the value is dropped.
    pub(super) fn begin(self: &Rc<Self>) -> InFlight {
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
pub(super) struct InFlight {
    slot: Rc<Slot>,
    answered: bool,
}

impl InFlight {
    /// There is a response, or a reason for having none; the client did not take the request back.
    pub(super) fn answered(mut self) -> InFlight {
        self.answered = true;
        self
    }

    /// As [`Slot::gave`].
    pub(super) fn gave(&self) {
        self.slot.gave();
    }

    /// As [`Slot::poll_turn`].
    pub(super) fn poll_turn(&self, cx: &Context<'_>) -> Poll<()> {
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
