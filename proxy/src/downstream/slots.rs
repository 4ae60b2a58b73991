//! The open connections of a listener, and the one task that watches their clocks.
//!
//! A timer per request would cost more than the request's own parsing. Instead each connection notes what it does and
//! since which tick; a sweep finds the late ones. The same way leads a drain to every connection.

mod leaving;
mod slot;

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

pub(super) use self::slot::{InFlight, Order, Phase, Slot};
use super::{ConnectionLimits, ListenerStats};
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

/// All open connections of a listener on this worker.
pub(super) struct Slots {
    open: RefCell<HashMap<u64, Rc<Slot>>>,
    tick: Rc<Cell<u32>>,
    period: Cell<Duration>,
    sweeping: Cell<bool>,
    stats: Arc<ListenerStats>,
    emptied: Notify,
    /// Since when memory has been so short that nothing is read.
    full: Cell<Option<Instant>>,
    /// Those that were in their handshake when they came, in that order; some are not any more.
    handshakes: RefCell<VecDeque<Weak<Slot>>>,
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
            full: Cell::default(),
            handshakes: RefCell::default(),
            shaking: Rc::default(),
        })
    }

    /// A place for a new connection, and the guard that gives it up.
    pub(super) fn open(self: &Rc<Self>, id: u64, limits: &ConnectionLimits) -> (Rc<Slot>, OpenSlot) {
        let period = self.period_for(limits);
        let slot = Rc::new(Slot::new(limits, period, &self.tick, &self.shaking));
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
        } else {
            self.full.set(None);
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
    /// itself. If nothing has been read for long, neither will anything else.
    fn shed_still(&self) {
        let since = overload::is_full().then(|| self.full.get().unwrap_or_else(Instant::now));
        self.full.set(since);
        let is_over = since.is_some_and(|since| since.elapsed() > STILL);
        let open = self.open.borrow();
        let (most, much) = if is_over { (TURNS, 0) } else { (open.len() / SHED_SHARE + 1, MUCH) };
        open.values().filter(|slot| slot.shed_still(much)).take(most).for_each(drop);
    }

    /// Breaks all connections off.
    pub(super) fn abort(&self) {
        for slot in self.open.borrow().values() {
            slot.abort();
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
