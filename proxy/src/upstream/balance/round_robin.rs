//! Round robin: one endpoint after the other, each worker by itself; heavier ones more often, evenly spread.

use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::{Candidate, Weights};

/// Where the next turn goes.
#[derive(Debug, Default)]
pub(in crate::upstream) struct RoundRobin {
    next: Cell<usize>,
    schedule: RefCell<Schedule>,
}

impl RoundRobin {
    /// The list changed: what was planned for the old one is void.
    pub(in crate::upstream) fn reset(&self) {
        self.schedule.borrow_mut().turns.clear();
    }

    pub(in crate::upstream) fn pick<C: Candidate>(
        &self,
        candidates: &[C],
        weights: &Weights,
    ) -> Option<usize> {
        if !weights.are_equal() {
            return self.schedule.borrow_mut().next(candidates);
        }
        let turn = self.next.get();
        // Compare instead of dividing: the list can have shrunk since the last turn.
        let turn = if turn < candidates.len() { turn } else { 0 };
        self.next.set(turn + 1);
        (turn < candidates.len()).then_some(turn)
    }
}

/// Earliest deadline first: each turn of an endpoint puts its next one `1 / weight` later.
#[derive(Debug, Default)]
struct Schedule {
    turns: BinaryHeap<Turn>,
}

impl Schedule {
    fn next<C: Candidate>(&mut self, candidates: &[C]) -> Option<usize> {
        if self.turns.len() != candidates.len() {
            // A random start keeps the workers from walking in step.
            let first =
                |(index, candidate): (usize, &C)| Turn { at: fastrand::f64() / candidate.weight(), index };
            self.turns = candidates.iter().enumerate().map(first).collect();
        }
        let mut turn = self.turns.peek_mut()?;
        let index = turn.index;
        turn.at += 1.0 / candidates.get(index)?.weight();
        Some(index)
    }
}

/// An endpoint's next turn. The earliest is the greatest, for a heap gives out the greatest first.
#[derive(Debug)]
struct Turn {
    at: f64,
    index: usize,
}

impl Ord for Turn {
    fn cmp(&self, other: &Turn) -> Ordering {
        other.at.total_cmp(&self.at).then_with(|| other.index.cmp(&self.index))
    }
}

impl PartialOrd for Turn {
    fn partial_cmp(&self, other: &Turn) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Turn {
    fn eq(&self, other: &Turn) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Turn {}
