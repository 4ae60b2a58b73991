//! Clusters: named groups of endpoints with a load balancer, as one worker holds them.

use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use super::balance::Balancer;
use super::endpoint::Endpoint;

/// A named group of endpoints and how one of them is chosen.
pub struct Cluster {
    name: Rc<str>,
    configuration: meshgate_config::Cluster,
    endpoints: Vec<Rc<Endpoint>>,
    balancer: Balancer,
}

impl Cluster {
    /// A cluster as configured, with no connection yet.
    pub fn new(configuration: &meshgate_config::Cluster) -> Cluster {
        let endpoints = configuration
            .endpoints
            .iter()
            .map(|address| Rc::new(Endpoint::new(*address, configuration.idle_timeout)))
            .collect();
        Cluster {
            name: Rc::from(configuration.name.as_str()),
            configuration: configuration.clone(),
            endpoints,
            balancer: Balancer::new(configuration.load_balancer),
        }
    }

    /// The name by which routes and filters refer to it.
    pub fn name(&self) -> &Rc<str> {
        &self.name
    }

    /// Its endpoints, in the configuration's order.
    pub fn endpoints(&self) -> &[Rc<Endpoint>] {
        &self.endpoints
    }

    /// How long a connection attempt may take.
    pub(super) fn connect_timeout(&self) -> Duration {
        self.configuration.connect_timeout
    }

    /// The endpoint for the next request.
    pub(super) fn pick(&self) -> Option<&Rc<Endpoint>> {
        self.balancer.pick(&self.endpoints)
    }

    /// Whether a reload leaves this cluster as it is; where it stands in the file does not matter.
    fn is_still(&self, configuration: &meshgate_config::Cluster) -> bool {
        let mine = &self.configuration;
        mine.name == configuration.name
            && mine.endpoints == configuration.endpoints
            && mine.load_balancer == configuration.load_balancer
            && mine.connect_timeout == configuration.connect_timeout
            && mine.idle_timeout == configuration.idle_timeout
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("name", &self.name).field("endpoints", &self.endpoints).finish()
    }
}

/// All clusters of one snapshot on one worker.
#[derive(Clone, Debug, Default)]
pub struct Clusters {
    by_name: Rc<HashMap<Rc<str>, Rc<Cluster>>>,
}

impl Clusters {
    /// The configured clusters. A cluster that `previous` holds with the same settings is taken over, so that a reload
    /// keeps its connections.
    pub fn new(configuration: &[meshgate_config::Cluster], previous: Option<&Clusters>) -> Clusters {
        let by_name = configuration
            .iter()
            .map(|configuration| {
                let kept = previous
                    .and_then(|clusters| clusters.find(&configuration.name))
                    .filter(|cluster| cluster.is_still(configuration));
                let cluster = kept.unwrap_or_else(|| Rc::new(Cluster::new(configuration)));
                (cluster.name.clone(), cluster)
            })
            .collect();
        Clusters { by_name: Rc::new(by_name) }
    }

    /// The cluster of that name.
    pub fn find(&self, name: &str) -> Option<Rc<Cluster>> {
        self.by_name.get(name).cloned()
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Rc<Cluster>> {
        self.by_name.values()
    }
}
