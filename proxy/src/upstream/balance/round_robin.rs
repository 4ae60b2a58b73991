//! Round robin: one endpoint after the other, each worker by itself.

use std::cell::Cell;

/// Where the next turn goes.
#[derive(Debug, Default)]
pub(in crate::upstream) struct RoundRobin {
    next: Cell<usize>,
}

impl RoundRobin {
    pub(super) fn pick<'e, T>(&self, endpoints: &'e [T]) -> Option<&'e T> {
        let turn = self.next.get();
        // Compare instead of dividing: the list can have shrunk since the last turn, never the other way round.
        let turn = if turn < endpoints.len() { turn } else { 0 };
        self.next.set(turn + 1);
        endpoints.get(turn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyone_gets_a_turn() {
        let balancer = RoundRobin::default();
        let picks: Vec<_> = (0..7).filter_map(|_| balancer.pick(&["a", "b", "c"])).copied().collect();
        assert_eq!(picks, ["a", "b", "c", "a", "b", "c", "a"]);
    }

    #[test]
    fn a_shorter_list_or_none_at_all_is_fine() {
        let balancer = RoundRobin::default();
        assert_eq!(balancer.pick::<&str>(&[]), None);
        let first = balancer.pick(&["a", "b", "c"]);
        let second = balancer.pick(&["a", "b", "c"]);
        assert_ne!(first, second);
        assert_eq!(balancer.pick(&["a"]), Some(&"a"));
    }
}
