//! How much of the load retries may be, so that they do not finish off what is overloaded.

use std::cell::{Cell, RefCell};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use meshgate_sdk::SharedMap;
use serde::{Deserialize, Serialize};

use crate::config::{ConcurrencyConfig, RateConfig};

/// How many parts the time is cut into for which a request counts.
const SLOTS: usize = 10;
/// What a retry costs.
const COST: i64 = 1_000;

/// The most retries that may be under way, with so many requests active.
pub(crate) fn most_retries(config: &ConcurrencyConfig, active: u64) -> u64 {
    let share = active as f64 * config.percent / 100.0;
    (share as u64).max(config.min_concurrency)
}

/// So many retries for so many requests of the last seconds, and a few more besides.
///
/// What requests pay in is each worker's own: together the workers spend no more than all requests paid in. The few more are
/// counted in shared data, which is touched for nothing else.
#[derive(Debug)]
pub(crate) struct Rate {
    deposit: i64,
    slot: Duration,
    reserve: u32,
    /// The current part of time, and what was paid in and spent in it and those before it.
    current: Cell<u64>,
    balance: RefCell<[i64; SLOTS]>,
    spent: SharedMap<Spent>,
}

/// What was spent of a cluster's reserve.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Spent {
    current: u64,
    retries: [u32; SLOTS],
}

impl Rate {
    pub(crate) fn new(config: &RateConfig) -> Self {
        let ttl = config.ttl.as_std();
        let reserve = f64::from(config.min_per_second) * ttl.as_secs_f64();
        Self {
            deposit: (config.ratio * COST as f64).round() as i64,
            slot: ttl / SLOTS as u32,
            reserve: reserve as u32,
            current: Cell::new(0),
            balance: RefCell::default(),
            spent: SharedMap::new("retry-reserve"),
        }
    }

    /// A request pays in.
    pub(crate) fn deposit(&self, now: SystemTime) {
        let slot = self.now(now);
        if let Some(balance) = self.balance.borrow_mut().get_mut(slot) {
            *balance += self.deposit;
        }
    }

    /// Pays for a retry to this cluster; false if there is not enough.
    pub(crate) fn withdraw(&self, cluster: &str, now: SystemTime) -> bool {
        let slot = self.now(now);
        let mut balance = self.balance.borrow_mut();
        if balance.iter().sum::<i64>() >= COST
            && let Some(balance) = balance.get_mut(slot)
        {
            *balance -= COST;
            return true;
        }
        drop(balance);
        self.reserve > 0 && self.spend_reserve(cluster)
    }

    fn spend_reserve(&self, cluster: &str) -> bool {
        let current = self.current.get();
        let mut granted = false;
        let changed = self.spent.update(&self.reserve_of(cluster), |known| {
            let mut spent = known.unwrap_or_default();
            // The clock of another worker may be ahead.
            let now = current.max(spent.current);
            forget(&mut spent.retries, spent.current, now);
            spent.current = now;
            granted = spent.retries.iter().sum::<u32>() < self.reserve;
            if granted && let Some(retries) = spent.retries.get_mut(index(now)) {
                *retries += 1;
            }
            spent
        });
        changed.is_ok() && granted
    }

    /// The key of a cluster's reserve. Filters that cut time into other parts, a new configuration's for one, have one of their
    /// own.
    fn reserve_of(&self, cluster: &str) -> String {
        format!("{}/{cluster}", self.slot.as_nanos())
    }

    /// The place of the current part of time. What is too old no longer counts.
    fn now(&self, now: SystemTime) -> usize {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(since.as_nanos() / self.slot.as_nanos().max(1)).unwrap_or(u64::MAX);
        let before = self.current.get();
        if now > before {
            forget(&mut self.balance.borrow_mut(), before, now);
            self.current.set(now);
        }
        index(now.max(before))
    }
}

fn index(slot: u64) -> usize {
    (slot % SLOTS as u64) as usize
}

/// Empties the places of the parts of time from after `before` to `now`.
fn forget<T: Default>(slots: &mut [T; SLOTS], before: u64, now: u64) {
    for slot in (before + 1..=now).rev().take(SLOTS) {
        if let Some(value) = slots.get_mut(index(slot)) {
            *value = T::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(ratio: f64, min_per_second: u32) -> Rate {
        let ttl = Duration::from_secs(10).into();
        Rate::new(&RateConfig { ratio, min_per_second, ttl })
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
    }

    #[test]
    fn a_fifth_of_the_requests_pays_for_retries() {
        let rate = rate(0.2, 0);
        let retries = (0..1_000).filter(|number| {
            let now = at(number / 200);
            rate.deposit(now);
            rate.withdraw("one", now)
        });
        assert_eq!(retries.count(), 200);
    }

    #[test]
    fn what_is_not_spent_is_lost_after_its_time() {
        let rate = rate(1.0, 0);
        (0..5).for_each(|_| rate.deposit(at(0)));
        assert!(rate.withdraw("one", at(9)));
        assert!(!rate.withdraw("one", at(10)), "what was paid in ten seconds ago is gone");
        // What was spent of it is still missing.
        rate.deposit(at(11));
        assert!(!rate.withdraw("one", at(11)));
        rate.deposit(at(11));
        assert!(rate.withdraw("one", at(11)));
        rate.deposit(at(500));
        assert!(rate.withdraw("one", at(500)) && !rate.withdraw("one", at(500)));
        // A clock that is set back changes nothing.
        rate.deposit(at(490));
        assert!(rate.withdraw("one", at(490)));
    }

    #[test]
    fn another_ttl_has_a_reserve_of_its_own() {
        let with_ttl = |seconds| {
            let ttl = Duration::from_secs(seconds).into();
            Rate::new(&RateConfig { ratio: 0.0, min_per_second: 1, ttl })
        };
        let (short, long) = (with_ttl(1), with_ttl(60));
        assert_eq!(short.reserve_of("one"), with_ttl(1).reserve_of("one"));
        assert_ne!(short.reserve_of("one"), long.reserve_of("one"), "their parts of time are not comparable");
    }

    #[test]
    fn concurrency_is_a_share_with_a_floor() {
        let config = ConcurrencyConfig { percent: 20.0, min_concurrency: 3 };
        let most: Vec<_> =
            [0, 10, 19, 20, 100, 1_004].iter().map(|active| most_retries(&config, *active)).collect();
        assert_eq!(most, [3, 3, 3, 4, 20, 200]);
        assert_eq!(most_retries(&ConcurrencyConfig { percent: 0.0, min_concurrency: 0 }, 1_000), 0);
    }
}
