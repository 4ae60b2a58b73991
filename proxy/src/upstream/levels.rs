//! Which endpoints of a cluster may be used now, on one worker: without the ejected and the unhealthy ones, by priority and
//! nearness, in panic all of them.
//!
//! The lists are made anew only when something changed: another worker ejected an endpoint, a health check found one ill or
//! well again, an ejection ended, or an endpoint that is warming up has come a step further.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::balance::{Balancer, Candidate, Weights};
use super::endpoint::{Endpoint, Rank};
use super::shared::{Millis, SharedCluster};

/// An endpoint that warms up has its weight raised in so many steps.
const WARMING_STEPS: u32 = 20;

/// A level takes all requests as long as this many times its usable share is the whole: a few endpoints less do not move
/// traffic to the next level.
const SPARE: f64 = 1.4;

/// The endpoints by priority.
pub(super) struct Levels {
    levels: Vec<Level>,
    generation: u64,
    /// When the lists are to be made anew even if nobody says so.
    until: Option<Instant>,
}

/// The endpoints of one priority.
struct Level {
    all: Vec<Rc<Endpoint>>,
    balancer: Balancer,
    usable: Vec<Rc<Endpoint>>,
    weights: Weights,
    /// The share of requests for this level and those before it.
    share: f64,
}

impl Levels {
    pub(super) fn new(configuration: &meshgate_config::Cluster, endpoints: &[Rc<Endpoint>]) -> Levels {
        let mut ranks: Vec<Rank> = endpoints.iter().map(|endpoint| endpoint.rank()).collect();
        ranks.sort_unstable();
        ranks.dedup();
        let level = |rank: &Rank| {
            let all: Vec<Rc<Endpoint>> =
                endpoints.iter().filter(|endpoint| endpoint.rank() == *rank).cloned().collect();
            let names: Vec<(String, f64)> =
                all.iter().map(|endpoint| (endpoint.address().to_string(), endpoint.full_weight())).collect();
            let balancer = Balancer::new(&configuration.load_balancer, &names);
            Level { all, balancer, usable: Vec::new(), weights: Weights::default(), share: 0.0 }
        };
        // Made when first asked for.
        Levels { levels: ranks.iter().map(level).collect(), generation: u64::MAX, until: None }
    }

    /// Whether the lists still hold, and the endpoints in them. Costs a look at the clock only while something is ejected or warms up.
    pub(super) fn are_current(&self, shared: &SharedCluster) -> bool {
        self.generation == shared.generation() && self.until.is_none_or(|until| Instant::now() < until)
    }

    /// Makes the lists anew.
    pub(super) fn renew(
        &mut self,
        generation: u64,
        configuration: &meshgate_config::Cluster,
        shared: &SharedCluster,
    ) {
        self.generation = generation;
        let instant = Instant::now();
        let now = shared.millis(instant);
        let count = |usable: bool| {
            let all = self.levels.iter().flat_map(|level| &level.all);
            all.filter(|endpoint| !usable || !endpoint.shared().is_out(now)).count()
        };
        let panic = count(true) * 100 < count(false) * configuration.panic_threshold as usize;
        let mut until: Option<Millis> = None;
        let mut soonest = |at: Millis| until = Some(until.map_or(at, |until| until.min(at)));
        let mut left = 1.0;
        for level in &mut self.levels {
            for endpoint in &level.all {
                if let Some(at) = endpoint.renew(configuration.slow_start, now, panic) {
                    soonest(at);
                }
            }
            level.usable = level.all.iter().filter(|endpoint| endpoint.is_usable()).cloned().collect();
            level.weights = Weights::of(&level.usable);
            level.balancer.reset();
            let share = level.usable.len() as f64 / level.all.len().max(1) as f64 * SPARE;
            left -= share.min(left);
            level.share = 1.0 - left;
        }
        self.until = until.map(|until| shared.instant(until).max(instant + Duration::from_millis(1)));
    }

    /// The endpoint for the next request.
    pub(super) fn pick(&self, key: Option<u64>) -> Option<&Rc<Endpoint>> {
        let level = match &self.levels[..] {
            [level] => level,
            levels => {
                let total = levels.last()?.share;
                let point = fastrand::f64() * total;
                levels.iter().find(|level| level.share > point)?
            }
        };
        level.pick(key)
    }
}

impl Level {
    fn pick(&self, key: Option<u64>) -> Option<&Rc<Endpoint>> {
        if let (Some(key), Balancer::Table(table, by)) = (key, &self.balancer) {
            let usable = |index: usize| self.all.get(index).is_some_and(|endpoint| endpoint.is_usable());
            let chosen = match by.max_load {
                Some(max_load) => {
                    let bound = self.bound(max_load);
                    let fits = |index: usize| {
                        usable(index) && self.all.get(index).is_some_and(|one| bound.allows(one))
                    };
                    // All are over the bound only while they change under our eyes.
                    table.pick(key, fits).or_else(|| table.pick(key, usable))
                }
                None => table.pick(key, usable),
            };
            return chosen.and_then(|index| self.all.get(index));
        }
        self.balancer.pick(&self.usable, &self.weights).and_then(|index| self.usable.get(index))
    }

    /// How much each may have in flight, the new request included. (Mirrokni and others, "Consistent Hashing with Bounded
    /// Loads", 2016.)
    fn bound(&self, max_load: f64) -> Bound {
        let (mut in_flight, mut weight) = (1.0, 0.0);
        for endpoint in &self.usable {
            in_flight += Candidate::in_flight(endpoint) as f64;
            weight += endpoint.weight();
        }
        Bound { by_weight: max_load * in_flight / weight }
    }
}

struct Bound {
    by_weight: f64,
}

impl Bound {
    fn allows(&self, endpoint: &Rc<Endpoint>) -> bool {
        (Candidate::in_flight(endpoint) + 1) as f64 <= (self.by_weight * endpoint.weight()).ceil()
    }
}

/// What an endpoint's turn in the lists depends on, on one worker.
#[derive(Debug)]
pub(super) struct Standing {
    usable: Cell<bool>,
    weight: Cell<f64>,
}

impl Standing {
    pub(super) fn new(weight: f64) -> Standing {
        Standing { usable: Cell::new(true), weight: Cell::new(weight) }
    }

    pub(super) fn is_usable(&self) -> bool {
        self.usable.get()
    }

    pub(super) fn weight(&self) -> f64 {
        self.weight.get()
    }
}

impl Endpoint {
    /// Looks whether it may be used now and how much it weighs; when this is to be looked at again, if it is known.
    fn renew(&self, slow_start: Option<Duration>, now: Millis, panic: bool) -> Option<Millis> {
        let (standing, shared) = (self.standing(), self.shared());
        let (ejected, ill) = (shared.is_ejected(now), shared.health().is_bad());
        standing.usable.set(panic || !(ejected || ill));
        standing.weight.set(self.full_weight());
        if ejected {
            return Some(shared.up_since());
        }
        if ill {
            // Its recovery will be told.
            return None;
        }
        let warming = slow_start.map_or(0, |time| Millis::try_from(time.as_millis()).unwrap_or(Millis::MAX));
        let since = shared.up_since();
        let passed = now.saturating_sub(since);
        if since == 0 || passed >= warming {
            return None;
        }
        let grown = (passed as f64 / warming as f64).max(0.1);
        standing.weight.set(self.full_weight() * grown);
        Some(now.saturating_add(warming / Millis::from(WARMING_STEPS)).saturating_add(1))
    }
}

#[cfg(test)]
mod tests;
