//! What waits for time to pass: sleeping futures, and the filter's own tick. All of it runs on the one timer that a host
//! gives each plugin (`proxy_set_tick_period_milliseconds`), so that it works on every host.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::time::Duration;

use super::current;
use super::ids::{self, IdMap};
use super::slot::Slot;
use crate::host::{self, Status};

/// Nanoseconds since 1970.
type Moment = u64;

thread_local! {
    static TIMERS: RefCell<IdMap<Timer>> = const { RefCell::new(ids::map()) };
    /// What the callback does. Whoever sets a timer sets it, so that a module whose filter waits for nothing does not have the code.
    static ON_TICK: Cell<fn(u32) -> bool> = const { Cell::new(|_| false) };
    static ON_OVER: Cell<fn(u32)> = const { Cell::new(|_| {}) };
}

/// One plugin's timer.
#[derive(Default)]
struct Timer {
    /// The filter's own tick: how often, and when next.
    tick: Option<(Duration, Moment)>,
    sleepers: Vec<(Moment, u64, Slot<()>)>,
    /// Tells sleepers apart.
    last: u64,
    /// When the host's timer fires next, if it does, and how often.
    armed: Option<(Moment, Duration)>,
}

impl Timer {
    fn next(&self) -> Option<Moment> {
        let tick = self.tick.map(|(_, next)| next);
        self.sleepers.iter().map(|(moment, ..)| *moment).chain(tick).min()
    }

    /// Sets the host's timer to what is due next. It repeats by itself, so it is left alone where that fits.
    fn arm(&mut self, now: Moment) -> Result<(), Status> {
        let Some(next) = self.next() else {
            return if self.armed.take().is_some() { host::set_tick_period(Duration::ZERO) } else { Ok(()) };
        };
        if self.armed.is_some_and(|(moment, _)| moment > now && moment <= next) {
            return Ok(());
        }
        // Rounded up, since waking too early would only mean to wait again.
        let wait = Duration::from_millis(next.saturating_sub(now).div_ceil(1_000_000).max(1));
        self.armed = Some((now.saturating_add(nanoseconds(wait)), wait));
        host::set_tick_period(wait)
    }
}

/// Lets the filter's own tick come this often; zero stops it.
pub(crate) fn tick_every(period: Duration) -> Result<(), Status> {
    set_up();
    let now = host::now_nanoseconds();
    TIMERS.with_borrow_mut(|timers| {
        let timer = timers.entry(current::get().plugin).or_default();
        timer.tick = (!period.is_zero()).then(|| (period, now.saturating_add(nanoseconds(period))));
        timer.armed = None;
        if timer.next().is_none() { host::set_tick_period(Duration::ZERO) } else { timer.arm(now) }
    })
}

/// Waits.
pub(crate) fn sleep(duration: Duration) -> impl Future<Output = Result<(), Status>> {
    let plugin = current::get().plugin;
    async move {
        let slot = Slot::new();
        let (id, armed) = register(plugin, duration, slot.share());
        let _sleeper = Sleeper { plugin, id };
        armed?;
        poll_fn(|context| slot.poll(context)).await;
        Ok(())
    }
}

fn set_up() {
    ON_TICK.set(wake);
    ON_OVER.set(drop_timer);
}

fn register(plugin: u32, duration: Duration, slot: Slot<()>) -> (u64, Result<(), Status>) {
    set_up();
    let now = host::now_nanoseconds();
    TIMERS.with_borrow_mut(|timers| {
        let timer = timers.entry(plugin).or_default();
        timer.last += 1;
        timer.sleepers.push((now.saturating_add(nanoseconds(duration)), timer.last, slot));
        (timer.last, timer.arm(now))
    })
}

struct Sleeper {
    plugin: u32,
    id: u64,
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        TIMERS.with_borrow_mut(|timers| {
            if let Some(timer) = timers.get_mut(&self.plugin) {
                timer.sleepers.retain(|(_, id, _)| *id != self.id);
            }
        });
    }
}

/// The callback `proxy_on_tick`: wakes who has slept long enough, and says whether the filter's own tick is due.
pub(crate) fn fire(plugin: u32) -> bool {
    ON_TICK.get()(plugin)
}

fn wake(plugin: u32) -> bool {
    let now = host::now_nanoseconds();
    let (due, woken) = TIMERS.with_borrow_mut(|timers| {
        let Some(timer) = timers.get_mut(&plugin) else { return (false, Vec::new()) };
        timer.armed = timer.armed.map(|(_, period)| (now.saturating_add(nanoseconds(period)), period));
        let woken: Vec<_> = timer.sleepers.extract_if(.., |(moment, ..)| *moment <= now).collect();
        let due = match &mut timer.tick {
            // The host's clock and its timer need not agree to the last microsecond.
            Some((period, next)) if next.saturating_sub(now) <= 1_000_000 => {
                *next = now.saturating_add(nanoseconds(*period));
                true
            }
            _ => false,
        };
        // Nobody could be told; the next sleeper tries again.
        let _ = timer.arm(now);
        (due, woken)
    });
    woken.into_iter().for_each(|(.., slot)| slot.fill(()));
    due
}

/// The plugin is gone.
pub(crate) fn forget(plugin: u32) {
    ON_OVER.get()(plugin);
}

fn drop_timer(plugin: u32) {
    drop(TIMERS.with_borrow_mut(|timers| timers.remove(&plugin)));
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
