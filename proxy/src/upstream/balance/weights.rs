//! Drawing by weight.

use super::Candidate;

/// The weights of a list, added up, so that a draw is one random number and a binary search.
#[derive(Debug, Default)]
pub(in crate::upstream) struct Weights {
    /// Empty if all are equal: then any index is as good as any other.
    sums: Vec<f64>,
    count: usize,
}

impl Weights {
    pub(in crate::upstream) fn of<C: Candidate>(candidates: &[C]) -> Weights {
        let count = candidates.len();
        let equal = candidates.windows(2).all(|pair| pair[0].weight() == pair[1].weight());
        let mut sum = 0.0;
        let add = |candidate: &C| {
            sum += candidate.weight();
            sum
        };
        let sums = if equal { Vec::new() } else { candidates.iter().map(add).collect() };
        Weights { sums, count }
    }

    /// Whether weights play no part.
    pub(super) fn are_equal(&self) -> bool {
        self.sums.is_empty()
    }

    /// One of the list, by weight; none of an empty one.
    pub(in crate::upstream) fn draw(&self) -> Option<usize> {
        match self.sums.last() {
            None if self.count == 0 => None,
            None => Some(fastrand::usize(..self.count)),
            Some(total) => {
                let point = fastrand::f64() * total;
                Some(self.sums.partition_point(|sum| *sum <= point).min(self.count - 1))
            }
        }
    }

    /// One of the list that is not `other`, by weight; none if there is no other.
    pub(super) fn draw_another(&self, other: usize) -> Option<usize> {
        if self.count < 2 {
            return None;
        }
        if self.are_equal() {
            let index = fastrand::usize(..self.count - 1);
            return Some(if index < other { index } else { index + 1 });
        }
        let before = other.checked_sub(1).map_or(0.0, |index| self.sums[index]);
        let own = self.sums[other] - before;
        let point = fastrand::f64() * (self.sums[self.count - 1] - own);
        let point = if point < before { point } else { point + own };
        let index = self.sums.partition_point(|sum| *sum <= point).min(self.count - 1);
        // Rounding may land on the excluded one's border.
        Some(if index == other { (other + 1) % self.count } else { index })
    }
}
