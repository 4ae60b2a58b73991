//! What all plugins of one name have used and how they failed, over all workers and reloads. One ledger per filter
//! name; everything in it is atomic.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::error::VmError;
use crate::limits::Limit;
use crate::shared::lock;

/// Ledgers kept for filters that are gone: their counters go on if they come back.
const MOST_UNUSED: usize = 1_000;

/// What all plugins of one name have used, and how they failed.
pub struct Ledger {
    exceeded: [AtomicU64; Limit::ALL.len()],
    failures: [AtomicU64; VmError::CAUSES.len()],
    /// Linear memory and tables of the VMs that were started for it.
    pub(crate) memory: Account,
    /// Instances that serve one exchange each.
    pub(crate) instances: Account,
    pub(crate) shared_keys: Account,
    pub(crate) shared_bytes: Account,
    pub(crate) queues: Account,
    pub(crate) queue_bytes: Account,
    pub(crate) metrics: Account,
    pub(crate) series: Account,
}

/// What hostcalls have taken.
impl fmt::Debug for Ledger {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ledger { shared_keys, shared_bytes, queues, queue_bytes, metrics, series, .. } = self;
        let used = [shared_keys, shared_bytes, queues, queue_bytes, metrics, series];
        out.debug_list().entries(used.map(Account::used)).finish()
    }
}

impl Ledger {
    pub(crate) fn new() -> Ledger {
        Ledger {
            exceeded: std::array::from_fn(|_| AtomicU64::new(0)),
            failures: std::array::from_fn(|_| AtomicU64::new(0)),
            memory: Account::default(),
            instances: Account::default(),
            shared_keys: Account::default(),
            shared_bytes: Account::default(),
            queues: Account::default(),
            queue_bytes: Account::default(),
            metrics: Account::default(),
            series: Account::default(),
        }
    }

    /// How often the plugins met this limit.
    pub fn exceeded(&self, limit: Limit) -> u64 {
        self.exceeded[limit as usize].load(Ordering::Relaxed)
    }

    /// How many callbacks failed by this cause, one of [`VmError::CAUSES`].
    pub fn failures(&self, cause: &str) -> u64 {
        let index = VmError::CAUSES.iter().position(|known| *known == cause);
        index.map_or(0, |index| self.failures[index].load(Ordering::Relaxed))
    }

    /// Linear memory and tables of the VMs that were started for them, in bytes.
    pub fn memory(&self) -> usize {
        self.memory.used()
    }

    /// Counts that a limit was met.
    pub fn count(&self, limit: Limit) {
        self.exceeded[limit as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_failure(&self, cause: &str) {
        if let Some(index) = VmError::CAUSES.iter().position(|known| *known == cause) {
            self.failures[index].fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// How much of something is in use.
#[derive(Debug, Default)]
pub(crate) struct Account(AtomicUsize);

impl Account {
    pub(crate) fn used(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Takes so much, if it does not become more than `most`. Never takes too much, whoever else takes.
    pub(crate) fn take(&self, amount: usize, most: usize) -> bool {
        let before = self.0.fetch_add(amount, Ordering::Relaxed);
        let fits = before.checked_add(amount).is_some_and(|used| used <= most);
        if !fits {
            self.give_back(amount);
        }
        fits
    }

    /// As [`Account::take`], until what comes of it is dropped.
    pub(crate) fn hold(self: &Arc<Self>, amount: usize, most: usize) -> Option<Held> {
        self.take(amount, most).then(|| Held { account: self.clone(), amount })
    }

    pub(crate) fn give_back(&self, amount: usize) {
        self.0.fetch_sub(amount, Ordering::Relaxed);
    }
}

/// What was taken of an account. Given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    account: Arc<Account>,
    amount: usize,
}

impl Held {
    /// Takes so much more of the account, if it does not become more than `most`.
    pub(crate) fn grow(&mut self, by: usize, most: usize) -> bool {
        let fits = self.account.take(by, most);
        if fits {
            self.amount += by;
        }
        fits
    }

    /// Gives all of it back, before the end.
    pub(crate) fn give_back(&mut self) {
        self.account.give_back(std::mem::take(&mut self.amount));
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// The ledgers by filter name.
#[derive(Debug, Default)]
pub(crate) struct Ledgers(Mutex<HashMap<String, Arc<Ledger>>>);

impl Ledgers {
    /// The ledger of this name.
    pub(crate) fn of(&self, name: &str) -> Arc<Ledger> {
        let mut ledgers = lock(&self.0);
        if let Some(ledger) = ledgers.get(name) {
            return ledger.clone();
        }
        if ledgers.len() >= MOST_UNUSED {
            ledgers.retain(|_, ledger| Arc::strong_count(ledger) > 1);
        }
        let ledger = Arc::new(Ledger::new());
        ledgers.insert(name.to_owned(), ledger.clone());
        ledger
    }

    /// All of them, by name.
    pub(crate) fn all(&self) -> Vec<(String, Arc<Ledger>)> {
        let mut all: Vec<_> =
            lock(&self.0).iter().map(|(name, ledger)| (name.clone(), ledger.clone())).collect();
        all.sort_by(|(one, _), (other, _)| one.cmp(other));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_never_takes_more_than_there_is() {
        let account = Account::default();
        assert!(account.take(3, 4));
        assert!(!account.take(2, 4));
        assert!(account.take(1, 4));
        assert!(!account.take(usize::MAX, usize::MAX), "no overflow");
        account.give_back(4);
        assert_eq!(account.used(), 0);
    }

    #[test]
    fn what_is_held_is_given_back() {
        let account = Arc::new(Account::default());
        let three = account.hold(3, 4);
        assert!(three.is_some() && account.hold(2, 4).is_none());
        assert_eq!(account.used(), 3, "what was refused holds nothing");
        drop(three);
        assert_eq!(account.used(), 0);
    }

    #[test]
    fn counters_outlive_their_plugins() {
        let ledgers = Ledgers::default();
        ledgers.of("one").count(Limit::Time);
        ledgers.of("one").count_failure("trap");
        assert_eq!(ledgers.of("one").exceeded(Limit::Time), 1);
        assert_eq!(ledgers.of("one").failures("trap"), 1);
        assert_eq!(ledgers.of("two").exceeded(Limit::Time), 0);
        assert_eq!(ledgers.all().len(), 2);
    }

    #[test]
    fn every_limit_counts_under_a_name_of_its_own() {
        let names: std::collections::HashSet<_> = Limit::ALL.iter().map(|limit| limit.name()).collect();
        assert_eq!(names.len(), Limit::ALL.len());
    }
}
