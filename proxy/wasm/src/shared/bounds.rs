//! What all plugins of the process may use together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::ledger::{Account, Ledger};

/// What all plugins of the process may use together, and how much of it is in use.
#[derive(Debug)]
pub struct Bounds {
    memory: Account,
    most_memory: AtomicUsize,
    instances: Account,
    most_instances: AtomicUsize,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds {
            memory: Account::default(),
            most_memory: AtomicUsize::new(usize::try_from(Bounds::MEMORY).unwrap_or(usize::MAX)),
            instances: Account::default(),
            most_instances: AtomicUsize::new(Bounds::EXCHANGE_INSTANCES as usize),
        }
    }
}

impl Bounds {
    /// Linear memory of all VMs, in bytes, unless set otherwise.
    pub const MEMORY: u64 = 2 << 30;
    /// Instances that serve one exchange each, at a time, unless set otherwise.
    pub const EXCHANGE_INSTANCES: u32 = 512;

    /// Sets the bounds anew. What is in use already stays.
    pub fn set(&self, memory: u64, exchange_instances: u32) {
        self.most_memory.store(usize::try_from(memory).unwrap_or(usize::MAX), Ordering::Relaxed);
        self.most_instances.store(exchange_instances as usize, Ordering::Relaxed);
    }

    /// Linear memory of all VMs, in bytes.
    pub fn memory(&self) -> usize {
        self.memory.used()
    }

    /// Instances that serve one exchange each.
    pub fn exchange_instances(&self) -> usize {
        self.instances.used()
    }

    pub(crate) fn take_memory(&self, amount: usize) -> bool {
        self.memory.take(amount, self.most_memory.load(Ordering::Relaxed))
    }

    pub(crate) fn give_memory_back(&self, amount: usize) {
        self.memory.give_back(amount);
    }

    /// A place for one more instance, as long as at least as many are left as the filter has: however long it keeps them,
    /// others find some.
    pub(crate) fn instance(self: &Arc<Self>, ledger: &Arc<Ledger>) -> Option<InstancePermit> {
        let most = self.most_instances.load(Ordering::Relaxed);
        let left = most.saturating_sub(self.instances.used());
        if !ledger.instances.take(1, left.saturating_add(1)) {
            return None;
        }
        if !self.instances.take(1, most) {
            ledger.instances.give_back(1);
            return None;
        }
        Some(InstancePermit { bounds: self.clone(), ledger: ledger.clone() })
    }
}

/// An instance's place among those that there may be.
pub(crate) struct InstancePermit {
    bounds: Arc<Bounds>,
    ledger: Arc<Ledger>,
}

impl Drop for InstancePermit {
    fn drop(&mut self) {
        self.bounds.instances.give_back(1);
        self.ledger.instances.give_back(1);
    }
}
