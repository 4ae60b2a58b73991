//! How connections leave when their listener drains, or when those that are open do not have its terms any more: little by
//! little, and without losing a request.

use std::rc::{Rc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::{Order, Phase, Slot, Slots};

/// How long an idle HTTP/1.1 connection is kept when its time to leave has come: a request that is already on its way is
/// answered (with `connection: close`) instead of being lost.
pub(super) const DRAIN_LINGER: Duration = Duration::from_millis(250);

impl Slots {
    /// Has every connection that is open now leave, each at a moment drawn from the window. So the share of those that have been
    /// told grows evenly, and their clients do not all come back at once.
    pub(in crate::downstream) fn leave(&self, window: Duration) {
        let open = self.open.borrow();
        let staying = open.values().filter(|slot| !slot.leaving.get());
        let mut order: Vec<(Duration, Weak<Slot>)> =
            staying.map(|slot| (moment(window), Rc::downgrade(slot))).collect();
        order.sort_unstable_by_key(|(moment, _)| *moment);
        let (order, now, stats) = (Rc::<[_]>::from(order), Instant::now(), self.stats.clone());
        tokio::task::spawn_local(at_their_moments(order.clone(), now, move |slot| {
            if slot.tell_to_leave() {
                stats.count_drained();
            }
        }));
        tokio::task::spawn_local(at_their_moments(order, now + DRAIN_LINGER, Slot::leave_if_idle));
    }
}

/// Does something with connections that are still open, each at its moment after `begin`.
async fn at_their_moments(order: Rc<[(Duration, Weak<Slot>)]>, begin: Instant, act: impl Fn(&Slot)) {
    for (moment, slot) in &*order {
        // Connections that are gone need no wakeup of their own.
        if begin + *moment > Instant::now() && slot.strong_count() > 0 {
            tokio::time::sleep_until(begin + *moment).await;
        }
        if let Some(slot) = slot.upgrade() {
            act(&slot);
        }
    }
}

impl Slot {
    /// Whether responses should announce the end of the connection.
    pub(in crate::downstream) fn is_leaving(&self) -> bool {
        self.leaving.get()
    }

    /// Its time has come: HTTP/2 says so at once, HTTP/1.1 with the next response. False: it knew.
    fn tell_to_leave(&self) -> bool {
        if self.leaving.replace(true) {
            return false;
        }
        if self.multiplexed.get() {
            self.give(Order::Finish);
        }
        true
    }

    /// No response came by which the client could have been told.
    fn leave_if_idle(&self) {
        let idle = self.phase.get() == Phase::Idle && !self.multiplexed.get();
        if idle || self.is_untouched() {
            self.give(Order::Finish);
        }
    }
}

/// Any moment of the window is as likely as any other.
fn moment(window: Duration) -> Duration {
    window.mul_f64(fastrand::f64())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::task::LocalSet;

    use super::super::super::{ConnectionLimits, ListenerStats};
    use super::super::OpenSlot;
    use super::*;

    const LONG: Duration = Duration::from_secs(1_000_000);

    #[test]
    fn the_share_of_those_told_grows_with_the_time() {
        let moments: Vec<_> = (0..1000).map(|_| moment(LONG)).collect();
        for tenth in 1..=10 {
            let told = moments.iter().filter(|moment| **moment <= LONG / 10 * tenth).count();
            // 100 more or less are more than six standard deviations.
            assert!(told.abs_diff(tenth as usize * 100) < 100, "{told} after {tenth} tenths of the time");
        }
        assert_eq!(moment(Duration::ZERO), Duration::ZERO);
    }

    /// So many connections that wait for a request.
    fn waiting(slots: &Rc<Slots>, ids: std::ops::Range<u64>) -> Vec<OpenSlot> {
        let limits = ConnectionLimits::default();
        let open = ids.map(|id| {
            let (slot, open) = slots.open(id, &limits);
            drop(slot.begin().answered());
            open
        });
        open.collect()
    }

    #[tokio::test(flavor = "current_thread")]
    async fn an_earlier_end_overtakes_a_later_one_and_counts_once() {
        let test = async {
            let stats = Arc::new(ListenerStats::default());
            let slots = Slots::new(stats.clone());
            let open = waiting(&slots, 0..10);
            slots.leave(LONG);
            tokio::task::yield_now().await;
            assert_eq!(stats.drained(), 0);
            slots.leave(Duration::ZERO);
            while stats.drained() < 10 {
                tokio::task::yield_now().await;
            }
            // Those that come later stay.
            let later = waiting(&slots, 10..11);
            slots.leave(LONG);
            tokio::task::yield_now().await;
            assert_eq!(stats.drained(), 10);
            drop((open, later));
            slots.emptied().await;
        };
        LocalSet::new().run_until(test).await;
    }
}
