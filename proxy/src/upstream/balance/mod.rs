//! Load balancers: which endpoint takes the next request.
//!
//! A balancer sees endpoints and nothing else; it opens no connection and keeps no request.

mod round_robin;

use std::rc::Rc;

use meshgate_config::LoadBalancer;

use super::endpoint::Endpoint;
use round_robin::RoundRobin;

/// A cluster's load balancer, with the state it keeps between picks.
#[derive(Debug)]
pub(super) enum Balancer {
    RoundRobin(RoundRobin),
}

impl Balancer {
    pub(super) fn new(kind: LoadBalancer) -> Balancer {
        match kind {
            LoadBalancer::RoundRobin => Balancer::RoundRobin(RoundRobin::default()),
        }
    }

    /// The endpoint for the next request; none if there is none at all.
    pub(super) fn pick<'e>(&self, endpoints: &'e [Rc<Endpoint>]) -> Option<&'e Rc<Endpoint>> {
        match self {
            Balancer::RoundRobin(balancer) => balancer.pick(endpoints),
        }
    }
}
