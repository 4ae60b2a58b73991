//! How far a VM's memory and tables may grow: its own limit, the limit of its plugins' VMs together, and the limit of the
//! whole process.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use wasmtime::ResourceLimiter;

use crate::engine::MAX_MEMORY;
use crate::ledger::Ledger;
use crate::limits::{Limit, Limits};
use crate::shared::Bounds;
use crate::stats::PlaceStats;

/// The most elements of a table. Large Go modules have some ten thousand functions in theirs.
pub(crate) const MAX_TABLE_ELEMENTS: usize = 50_000;
/// The most tables of a module.
pub(crate) const MAX_TABLES: usize = 4;
/// Bytes of a table's element: a pointer.
const TABLE_ELEMENT: usize = size_of::<usize>();

/// What one VM holds, and how far it may grow. Gives everything back when it is dropped.
pub(crate) struct Growth {
    /// Bytes of linear memory.
    pub(crate) limit: usize,
    /// What was refused in this callback: if the guest gives up after it, that is why.
    pub(crate) refused: Option<Limit>,
    /// Bytes of memory and tables.
    held: usize,
    /// What was granted last, to be given back if the system has no memory for it.
    granted: usize,
    total: usize,
    ledger: Arc<Ledger>,
    bounds: Arc<Bounds>,
    place: Arc<PlaceStats>,
}

impl Growth {
    pub(crate) fn new(
        limits: &Limits,
        ledger: &Arc<Ledger>,
        bounds: &Arc<Bounds>,
        place: &Arc<PlaceStats>,
    ) -> Growth {
        place.vms.fetch_add(1, Ordering::Relaxed);
        Growth {
            limit: usize::try_from(limits.memory).unwrap_or(MAX_MEMORY).min(MAX_MEMORY),
            refused: None,
            held: 0,
            granted: 0,
            total: usize::try_from(limits.total_memory).unwrap_or(usize::MAX),
            ledger: ledger.clone(),
            bounds: bounds.clone(),
            place: place.clone(),
        }
    }

    /// The limit in words.
    pub(crate) fn words(&self, limit: Limit) -> String {
        match limit {
            Limit::TotalMemory => {
                format!("{} bytes of memory in all VMs of the filter (limits.total_memory)", self.total)
            }
            Limit::AllMemory => "the memory of all filters together (wasm.memory)".into(),
            Limit::Table => format!("{MAX_TABLE_ELEMENTS} elements of a table"),
            _ => format!("{} bytes of memory", self.limit),
        }
    }

    fn refuse(&mut self, limit: Limit) -> bool {
        // A guest that asks over and over in one callback is counted once.
        if self.refused.replace(limit).is_none() {
            self.ledger.count(limit);
        }
        false
    }

    fn grant(&mut self, amount: usize) -> bool {
        if !self.ledger.memory.take(amount, self.total) {
            return self.refuse(Limit::TotalMemory);
        }
        if !self.bounds.take_memory(amount) {
            self.ledger.memory.give_back(amount);
            return self.refuse(Limit::AllMemory);
        }
        self.place.memory.fetch_add(amount as u64, Ordering::Relaxed);
        self.held += amount;
        self.granted = amount;
        true
    }

    /// What was granted last did not come to be.
    fn revoke(&mut self) {
        let granted = std::mem::take(&mut self.granted);
        self.give_back(granted);
    }

    /// The VM has nothing any more, or is about to.
    pub(crate) fn give_all_back(&mut self) {
        self.give_back(self.held);
    }

    fn give_back(&mut self, amount: usize) {
        self.ledger.memory.give_back(amount);
        self.bounds.give_memory_back(amount);
        self.place.memory.fetch_sub(amount as u64, Ordering::Relaxed);
        self.held -= amount;
    }
}

impl Drop for Growth {
    fn drop(&mut self) {
        self.give_all_back();
        self.place.vms.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ResourceLimiter for Growth {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            // The module's own limit.
            return Ok(false);
        }
        if desired > self.limit {
            return Ok(self.refuse(Limit::Memory));
        }
        Ok(self.grant(desired.saturating_sub(current)))
    }

    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.revoke();
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // First, since a place in the pool has the same maximum.
        if desired > MAX_TABLE_ELEMENTS {
            return Ok(self.refuse(Limit::Table));
        }
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        Ok(self.grant(desired.saturating_sub(current).saturating_mul(TABLE_ELEMENT)))
    }

    fn table_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.revoke();
        Ok(())
    }

    fn instances(&self) -> usize {
        1
    }

    fn tables(&self) -> usize {
        MAX_TABLES
    }

    fn memories(&self) -> usize {
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 64 << 10;

    /// A VM that may have two pages of memory, and three pages in all.
    fn small() -> (Growth, Arc<Ledger>, Arc<Bounds>, Arc<PlaceStats>) {
        let limits = Limits { memory: 2 << 16, total_memory: 3 << 16, ..Limits::default() };
        let (ledger, bounds, place) = (Arc::new(Ledger::new()), Arc::default(), Arc::default());
        (Growth::new(&limits, &ledger, &bounds, &place), ledger, bounds, place)
    }

    #[test]
    fn tables_count_as_memory_does() {
        let (mut growth, ledger, bounds, place) = small();
        assert!(growth.memory_growing(0, PAGE, None).unwrap());
        assert!(growth.table_growing(0, 8_192, None).unwrap(), "a page of elements");
        assert!(growth.table_growing(8_192, 16_384, None).unwrap(), "and another");
        let counted = || (ledger.memory(), bounds.memory(), place.memory.load(Ordering::Relaxed) as usize);
        assert_eq!(counted(), (3 * PAGE, 3 * PAGE, 3 * PAGE));
        assert!(!growth.table_growing(16_384, 16_385, None).unwrap());
        assert!(!growth.memory_growing(PAGE, 2 * PAGE, None).unwrap(), "nor for memory");
        assert_eq!(ledger.exceeded(Limit::TotalMemory), 1, "once in a callback");
        drop(growth);
        assert_eq!(counted(), (0, 0, 0));
    }

    #[test]
    fn what_could_not_grow_is_given_back_once() {
        let (mut growth, ledger, bounds, _place) = small();
        assert!(growth.memory_growing(0, PAGE, None).unwrap());
        assert!(growth.table_growing(0, 8_192, None).unwrap());
        for _ in 0..2 {
            growth.table_grow_failed(wasmtime::Error::msg("no memory")).unwrap();
            assert_eq!((ledger.memory(), bounds.memory()), (PAGE, PAGE), "what was there before stays");
        }
    }

    #[test]
    fn tables_have_a_maximum_of_their_own() {
        let (mut growth, ledger, bounds, _place) = small();
        assert!(!growth.table_growing(0, 11, Some(10)).unwrap());
        assert_eq!(ledger.exceeded(Limit::Table), 0, "the module's own");
        // As in the pool, whose places have it too.
        assert!(!growth.table_growing(0, MAX_TABLE_ELEMENTS + 1, Some(MAX_TABLE_ELEMENTS)).unwrap());
        assert!(!growth.table_growing(0, usize::MAX, None).unwrap());
        assert_eq!((ledger.exceeded(Limit::Table), bounds.memory()), (1, 0));
    }
}
