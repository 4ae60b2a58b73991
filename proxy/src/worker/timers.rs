//! The timers of plugins, for the worker's host. Each ticks in a task of its own for as long as it is set: a plugin may set it
//! thousands of times in one callback.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use meshgate_wasm::TickHandle;
use tokio::sync::Notify;
use tokio::task;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// The timers of one worker's plugins, by their keys.
#[derive(Default)]
pub(super) struct Timers(RefCell<HashMap<u64, Rc<Timer>>>);

/// A plugin's timer: the map has it, and its task for as long as it runs.
struct Timer {
    /// None if it is to end.
    period: Cell<Option<Duration>>,
    changed: Notify,
}

impl Timers {
    /// Lets a plugin's timer tick so often, the first time after one period, or not at all.
    pub(super) fn set(&self, plugin: TickHandle, period: Option<Duration>) {
        let mut timers = self.0.borrow_mut();
        if let Some(timer) = timers.get(&plugin.key()).filter(|timer| timer.runs()) {
            timer.period.set(period);
            timer.changed.notify_one();
            return;
        }
        timers.retain(|_, timer| timer.runs());
        if period.is_some() {
            let timer = Rc::new(Timer { period: Cell::new(period), changed: Notify::new() });
            timers.insert(plugin.key(), Rc::clone(&timer));
            task::spawn_local(timer.run(plugin));
        }
    }
}

impl Timer {
    fn runs(self: &Rc<Timer>) -> bool {
        Rc::strong_count(self) > 1
    }

    async fn run(self: Rc<Timer>, plugin: TickHandle) {
        while let Some(period) = self.period.get() {
            let mut interval = interval_at(Instant::now() + period, period);
            // The next tick is one period after this one, however long this one took.
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    biased;
                    () = self.changed.notified() => break,
                    _ = interval.tick() => if !plugin.tick() { return },
                }
            }
        }
    }
}
