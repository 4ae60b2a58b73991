//! Who looks after the clusters' endpoints: keeps their lists up to date and has them checked. On the main thread, once
//! per process, whatever the number of workers.
//!
//! The server tells it which clusters there are: before a swap, so that new clusters have endpoints when the first request
//! comes, and after it, so that what is gone is let go of.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use meshgate_config::{ClusterProtocol, Discovery, HealthCheck, ProxyVersion};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

use super::cluster::ConfiguredCluster;
use super::discovery::{self, Resolvers};
use super::health::{self, Speaks};
use super::shared::SharedCluster;
use crate::tls::ClientTls;

/// Health checks at a time, of the whole process: each has a socket.
const CHECKS_AT_A_TIME: usize = 64;

/// How long the start of a cluster waits for its first endpoints, and for their first checks beyond the time that these may
/// take. What is not there by then comes later: a name server that is down does not stop a reload.
const PATIENCE: Duration = Duration::from_secs(5);

/// Looks after clusters.
pub struct Caretaker {
    cares: HashMap<String, Care>,
    resolvers: Resolvers,
    room: Rc<Semaphore>,
}

/// What is done for one cluster. Ends with it.
struct Care {
    orders: Orders,
    cluster: Arc<SharedCluster>,
    tasks: Vec<Task>,
}

/// What is to be done for one cluster.
#[derive(Clone, PartialEq)]
struct Orders {
    discovery: Discovery,
    health_check: Option<HealthCheck>,
    protocol: ClusterProtocol,
    greets: Option<ProxyVersion>,
    /// The fingerprint of its TLS, if it has it: other certificates, other checks.
    tls: Option<Vec<u8>>,
}

/// A task on this thread that ends when it is dropped.
pub(super) struct Task(AbortHandle);

impl Task {
    pub(super) fn spawn(task: impl Future<Output = ()> + 'static) -> Task {
        Task(tokio::task::spawn_local(task).abort_handle())
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Caretaker {
    /// Without clusters.
    pub fn new() -> Caretaker {
        Caretaker {
            cares: HashMap::new(),
            resolvers: Resolvers::default(),
            room: Rc::new(Semaphore::new(CHECKS_AT_A_TIME)),
        }
    }

    /// Begins to look after clusters that are new, and says what there is to wait for until they can be used. Nothing
    /// changes for clusters that are there already.
    pub fn prepare<'c>(&mut self, clusters: impl Iterator<Item = ConfiguredCluster<'c>>) -> Preparation {
        let mut waited_for = Vec::new();
        // A subset's endpoints are those of its cluster.
        for (configuration, cluster, tls) in
            clusters.filter(|(configuration, ..)| configuration.subset.is_none())
        {
            let known = self.cares.get(&configuration.name);
            if known.is_some_and(|known| Arc::ptr_eq(&known.cluster, cluster)) {
                continue;
            }
            let care = self.care(configuration, cluster, tls);
            if !care.tasks.is_empty() {
                let check = configuration.health_check.as_ref().map_or(Duration::ZERO, |check| check.timeout);
                waited_for.push((Arc::clone(cluster), PATIENCE + check));
            }
            self.cares.insert(configuration.name.clone(), care);
        }
        Preparation(waited_for)
    }

    /// Looks after these clusters, as they are configured now, and after no others.
    pub fn take_over<'c>(&mut self, clusters: impl Iterator<Item = ConfiguredCluster<'c>>) {
        let mut cares = HashMap::new();
        for (configuration, cluster, tls) in clusters {
            cluster.limits_of(configuration).set(&configuration.limits);
            if configuration.subset.is_some() {
                // The cluster it belongs to is looked after.
                continue;
            }
            if configuration.discovery == Discovery::Static {
                cluster.set_members(&configuration.endpoints, configuration.health_check.is_some());
            }
            if configuration.outlier_detection.is_none() {
                cluster.end_ejections();
            }
            let known = self.cares.remove(&configuration.name);
            let orders = Orders::of(configuration, tls);
            let kept = known.filter(|known| known.orders == orders && Arc::ptr_eq(&known.cluster, cluster));
            let care = kept.unwrap_or_else(|| self.care(configuration, cluster, tls));
            cares.insert(configuration.name.clone(), care);
        }
        self.cares = cares;
    }

    fn care(
        &self,
        configuration: &meshgate_config::Cluster,
        cluster: &Arc<SharedCluster>,
        tls: Option<&Arc<ClientTls>>,
    ) -> Care {
        let orders = Orders::of(configuration, tls);
        let name: Rc<str> = Rc::from(configuration.name.as_str());
        let mut tasks = Vec::new();
        let checked = orders.health_check.is_some();
        if let Some(following) =
            discovery::follow(&name, &orders.discovery, checked, cluster, &self.resolvers)
        {
            tasks.push(following);
        }
        match &orders.health_check {
            Some(settings) => {
                let (cluster, room) = (Arc::clone(cluster), Rc::clone(&self.room));
                let speaks = Speaks { protocol: orders.protocol, greets: orders.greets, tls: tls.cloned() };
                let checks = health::check(name, settings.clone(), speaks, cluster, room);
                tasks.push(Task::spawn(checks));
            }
            None => cluster.forget_health(),
        }
        Care { orders, cluster: Arc::clone(cluster), tasks }
    }
}

impl Default for Caretaker {
    fn default() -> Caretaker {
        Caretaker::new()
    }
}

impl Orders {
    fn of(configuration: &meshgate_config::Cluster, tls: Option<&Arc<ClientTls>>) -> Orders {
        Orders {
            discovery: configuration.discovery.clone(),
            health_check: configuration.health_check.clone(),
            protocol: configuration.protocol,
            greets: configuration.proxy_protocol,
            tls: tls.map(|tls| tls.fingerprint().to_vec()),
        }
    }
}

/// New clusters whose endpoints are not known yet, or not checked.
pub struct Preparation(Vec<(Arc<SharedCluster>, Duration)>);

impl Preparation {
    /// Waits until they are, but not for ever.
    pub async fn finish(self) {
        let began = Instant::now();
        for (cluster, patience) in self.0 {
            loop {
                let changed = cluster.settled();
                if cluster.is_settled() || timeout_at(began + patience, changed).await.is_err() {
                    break;
                }
            }
        }
    }
}
