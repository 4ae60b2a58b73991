//! Load balancers: which endpoint takes the next request.
//!
//! A balancer sees what [`Candidate`] tells and nothing else; it opens no connection and keeps no request. Each worker has
//! its own, so none of them locks; what they look at (requests in flight, latencies) counts all workers.

mod hash;
mod maglev;
mod ring;
mod round_robin;
mod two_choices;
mod weights;

use meshgate_config::{HashBy, LoadBalancer};

pub(super) use hash::hash;
use maglev::Maglev;
use ring::Ring;
use round_robin::RoundRobin;
use two_choices::{Choice, TwoChoices};
pub(super) use weights::Weights;

/// What a balancer asks of an endpoint.
pub(super) trait Candidate {
    /// Its share of the load beside the others'; above 0.
    fn weight(&self) -> f64;

    /// Requests it works on.
    fn in_flight(&self) -> usize;

    /// How long it takes to answer of late, in seconds.
    fn latency(&self) -> f64;
}

/// Places of a Maglev table: a prime, of which 100 endpoints have 655 each, more or less one.
const MAGLEV_SIZE: usize = 65_537;

/// A load balancer, with the state it keeps between picks.
#[derive(Debug)]
pub(super) enum Balancer {
    RoundRobin(RoundRobin),
    Random,
    TwoChoices(TwoChoices),
    /// By key, over all endpoints, usable or not.
    Table(Table, HashBy),
}

/// Which endpoint a key belongs to.
#[derive(Debug)]
pub(super) enum Table {
    Ring(Ring),
    Maglev(Maglev),
}

impl Balancer {
    /// The balancer for these endpoints, by name and weight.
    pub(super) fn new(kind: &LoadBalancer, endpoints: &[(String, f64)]) -> Balancer {
        match kind {
            LoadBalancer::RoundRobin => Balancer::RoundRobin(RoundRobin::default()),
            LoadBalancer::LeastRequest => Balancer::TwoChoices(TwoChoices::new(Choice::LeastRequest)),
            LoadBalancer::PeakEwma => Balancer::TwoChoices(TwoChoices::new(Choice::PeakEwma)),
            LoadBalancer::Random => Balancer::Random,
            LoadBalancer::RingHash(by) => Balancer::Table(Table::Ring(Ring::new(endpoints)), by.clone()),
            LoadBalancer::Maglev(by) => {
                Balancer::Table(Table::Maglev(Maglev::new(endpoints, MAGLEV_SIZE)), by.clone())
            }
        }
    }

    /// The list of candidates or their weights changed.
    pub(super) fn reset(&self) {
        if let Balancer::RoundRobin(balancer) = self {
            balancer.reset();
        }
    }

    /// The candidate for the next request; none if there is none at all. A key has been looked up before.
    pub(super) fn pick<C: Candidate>(&self, candidates: &[C], weights: &Weights) -> Option<usize> {
        match self {
            Balancer::RoundRobin(balancer) => balancer.pick(candidates, weights),
            Balancer::TwoChoices(balancer) => balancer.pick(candidates, weights),
            Balancer::Random | Balancer::Table(..) => weights.draw(),
        }
    }
}

impl Table {
    /// The endpoint for a key, of all that the table was made of; the first in the key's order that `may` be used.
    pub(super) fn pick(&self, key: u64, may: impl Fn(usize) -> bool) -> Option<usize> {
        match self {
            Table::Ring(ring) => ring.pick(key, may),
            Table::Maglev(maglev) => maglev.pick(key, may),
        }
    }
}

#[cfg(test)]
mod tests;
