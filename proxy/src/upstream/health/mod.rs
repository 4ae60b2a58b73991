//! Health checks: endpoints are asked at intervals whether they are well, and those that are not get no requests.
//!
//! They run on the main thread, once per process. What they find is in the endpoints' shared state: it is there for all
//! workers at once, and outlives reloads. Each check opens a connection of its own, of which there are few at a time.

mod probe;
mod streak;

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use meshgate_config::{Address, ClusterProtocol, HealthCheck, ProxyVersion};
use tokio::sync::Semaphore;

use self::probe::Prober;
use self::streak::Streak;
use super::care::Task;
use super::shared::{SharedCluster, SharedEndpoint};
use crate::tls::ClientTls;

/// What health checks say of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Health {
    /// Nothing: it is not checked, or was in use before the checks began.
    Unchecked,
    /// It is new, and its first check has not ended.
    Pending,
    /// It is well.
    Healthy,
    /// It is not.
    Unhealthy,
}

impl Health {
    pub(super) fn of(number: u8) -> Health {
        [Health::Unchecked, Health::Pending, Health::Healthy, Health::Unhealthy]
            .into_iter()
            .find(|health| *health as u8 == number)
            .unwrap_or(Health::Unchecked)
    }

    /// Whether it keeps requests away.
    pub(super) fn is_bad(self) -> bool {
        matches!(self, Health::Pending | Health::Unhealthy)
    }

    /// In the words of the admin API.
    pub fn word(self) -> &'static str {
        match self {
            Health::Unchecked => "unchecked",
            Health::Pending => "pending",
            Health::Healthy => "healthy",
            Health::Unhealthy => "unhealthy",
        }
    }
}

/// How a cluster's endpoints are spoken to.
#[derive(Clone)]
pub(super) struct Speaks {
    pub(super) protocol: ClusterProtocol,
    /// They are told for whom a connection is made; a check's is our own.
    pub(super) greets: Option<ProxyVersion>,
    /// Through TLS, where the cluster has it: a check finds out as well whether the handshake works.
    pub(super) tls: Option<Arc<ClientTls>>,
}

/// Checks a cluster's endpoints for as long as it is polled: those that it has, and those that it gets.
pub(super) async fn check(
    name: Rc<str>,
    settings: HealthCheck,
    speaks: Speaks,
    cluster: Arc<SharedCluster>,
    room: Rc<Semaphore>,
) {
    let settings = Rc::new(settings);
    let mut tasks: HashMap<Address, Task> = HashMap::new();
    loop {
        let changed = cluster.members_changed();
        let members = cluster.members();
        tasks.retain(|address, _| members.iter().any(|member| member.shared().address() == *address));
        for member in members.iter() {
            let endpoint = member.shared();
            tasks.entry(endpoint.address()).or_insert_with(|| {
                let checker = Checker {
                    cluster_name: Rc::clone(&name),
                    prober: Prober::new(&settings, &speaks, endpoint.address()),
                    settings: Rc::clone(&settings),
                    cluster: Arc::clone(&cluster),
                    endpoint: Arc::clone(endpoint),
                    room: Rc::clone(&room),
                };
                Task::spawn(checker.run())
            });
        }
        drop(members);
        changed.await;
    }
}

/// The checks of one endpoint.
struct Checker {
    cluster_name: Rc<str>,
    prober: Prober,
    settings: Rc<HealthCheck>,
    cluster: Arc<SharedCluster>,
    endpoint: Arc<SharedEndpoint>,
    /// How many checks there may be at a time.
    room: Rc<Semaphore>,
}

impl Checker {
    async fn run(self) {
        let mut streak = Streak::default();
        loop {
            let found = self.once().await;
            if let Err(reason) = &found {
                tracing::debug!(cluster = %self.cluster_name, endpoint = %self.endpoint.address(), %reason, "health check failed");
            }
            self.note(&mut streak, found);
            self.pause().await;
        }
    }

    async fn once(&self) -> Result<(), String> {
        // It is never closed.
        let _room = self.room.acquire().await;
        let timeout = self.settings.timeout;
        let late = |_| Err(format!("no answer within {timeout:?}"));
        tokio::time::timeout(timeout, self.prober.ask()).await.unwrap_or_else(late)
    }

    fn note(&self, streak: &mut Streak, found: Result<(), String>) {
        let endpoint = &self.endpoint;
        endpoint.checked(found.is_ok());
        let before = endpoint.health();
        let after = streak.note(before, found.is_ok(), &self.settings);
        if after != before {
            self.cluster.set_health(endpoint, after);
            let (cluster, address) = (&self.cluster_name, endpoint.address());
            match found {
                Ok(()) => tracing::info!(%cluster, endpoint = %address, "endpoint is healthy"),
                Err(reason) => {
                    tracing::warn!(%cluster, endpoint = %address, %reason, "endpoint is unhealthy")
                }
            }
        }
        if after == Health::Healthy && self.settings.ends_ejection && self.cluster.end_ejection(endpoint) {
            tracing::info!(cluster = %self.cluster_name, endpoint = %endpoint.address(), "ejection ended by a health check");
        }
    }

    /// Waits until the next check; not longer than until the cluster is first used.
    async fn pause(&self) {
        let settings = &self.settings;
        let used = self.cluster.first_use();
        let unused = !self.cluster.is_used();
        let interval = match self.endpoint.health() {
            Health::Unhealthy => settings.unhealthy_interval,
            _ if unused => settings.no_traffic_interval,
            _ => settings.interval,
        };
        let longer = interval.mul_f64(f64::from(settings.jitter) / 100.0 * fastrand::f64());
        let sleep = tokio::time::sleep(interval + longer);
        if unused && settings.no_traffic_interval > settings.interval {
            tokio::select! {
                () = sleep => {}
                () = used => {}
            }
        } else {
            sleep.await;
        }
    }
}
