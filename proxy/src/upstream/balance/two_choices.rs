//! The better of two drawn at random: nearly as even as the best of all, without a look at all of them, and without the
//! herd that runs to one best endpoint from every worker and every proxy at once.

use super::{Candidate, Weights};

/// What makes an endpoint the better one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::upstream) enum Choice {
    /// Fewer requests in flight, by weight.
    LeastRequest,
    /// The smaller product of latency and requests in flight, by weight.
    PeakEwma,
}

/// The balancer `least_request` or `peak_ewma`.
#[derive(Debug)]
pub(in crate::upstream) struct TwoChoices {
    by: Choice,
}

impl TwoChoices {
    pub(in crate::upstream) fn new(by: Choice) -> TwoChoices {
        TwoChoices { by }
    }

    pub(in crate::upstream) fn pick<C: Candidate>(
        &self,
        candidates: &[C],
        weights: &Weights,
    ) -> Option<usize> {
        let one = weights.draw()?;
        // Both are drawn by weight: of two that have nothing to do, the first is taken, and so each gets its share.
        let Some(other) = weights.draw_another(one) else { return Some(one) };
        let load =
            |index: usize| candidates.get(index).map_or(f64::INFINITY, |candidate| self.load(candidate));
        Some(if load(other) < load(one) { other } else { one })
    }

    fn load<C: Candidate>(&self, candidate: &C) -> f64 {
        let in_flight = candidate.in_flight() as f64 / candidate.weight();
        match self.by {
            Choice::LeastRequest => in_flight,
            Choice::PeakEwma => (in_flight + 1.0) * candidate.latency(),
        }
    }
}
