//! Clusters: named groups of endpoints with a load balancer, as one worker holds them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use meshgate_config::{Address, HashBy, HashKey, LoadBalancer, Metadata, ProxyVersion};
use meshgate_wasm::RequestHead;

use super::balance::hash;
use super::dial::Dialer;
use super::endpoint::Endpoint;
use super::levels::Levels;
use super::limits::Limits;
use super::outlier::{self, Outcome};
use super::shared::{Member, Members, SharedCluster};
use crate::message::proxy_protocol::{self, Addresses};
use crate::tls::ClientTls;

/// What a request without an answer counts as for `peak_ewma`: a broken endpoint fails fast, and must not look fast.
const NO_ANSWER: Duration = Duration::from_secs(5);

/// A named group of endpoints and how one of them is chosen.
pub struct Cluster {
    name: Rc<str>,
    configuration: meshgate_config::Cluster,
    shared: Arc<SharedCluster>,
    limits: Arc<Limits>,
    dialer: Rc<Dialer>,
    metadata: Option<Rc<Metadata>>,
    current: RefCell<Current>,
}

/// The endpoints as they are at the moment.
struct Current {
    members: Arc<Members>,
    endpoints: Rc<[Rc<Endpoint>]>,
    levels: Levels,
}

impl Cluster {
    /// A cluster as configured, with no connection yet. `shared` holds its endpoints.
    pub fn new(
        configuration: &meshgate_config::Cluster,
        shared: &Arc<SharedCluster>,
        tls: Option<&Arc<ClientTls>>,
    ) -> Cluster {
        let limits = shared.limits_of(configuration);
        let dialer = Rc::new(Dialer::new(configuration.connect_timeout, tls.cloned()));
        let current = Current::new(configuration, shared.members(), &[], &limits, &dialer);
        Cluster {
            name: Rc::from(configuration.name.as_str()),
            configuration: configuration.clone(),
            shared: Arc::clone(shared),
            limits,
            dialer,
            current: RefCell::new(current),
            metadata: (!configuration.metadata.is_empty()).then(|| Rc::new(configuration.metadata.clone())),
        }
    }

    /// The name by which routes and filters refer to it.
    pub fn name(&self) -> &Rc<str> {
        &self.name
    }

    /// What its configuration says for filters to read; none if nothing.
    pub fn metadata(&self) -> Option<&Rc<Metadata>> {
        self.metadata.as_ref()
    }

    /// Its endpoints at the moment, in the order of their source.
    pub fn endpoints(&self) -> Rc<[Rc<Endpoint>]> {
        Rc::clone(&self.current.borrow().endpoints)
    }

    /// What its endpoints speak.
    pub fn protocol(&self) -> meshgate_config::ClusterProtocol {
        self.configuration.protocol
    }

    /// Whether its endpoints are told for whom a connection is made.
    pub fn tells_clients(&self) -> bool {
        self.configuration.proxy_protocol.is_some()
    }

    /// What a connection for this client begins with; nothing if endpoints are not told. Without a client it is our own.
    pub(super) fn greeting(&self, client: Option<Addresses>) -> Option<Vec<u8>> {
        Some(proxy_protocol::write(version_of(self.configuration.proxy_protocol?), client))
    }

    /// The endpoint for the next request.
    pub(super) fn pick(&self, key: Option<u64>) -> Option<Rc<Endpoint>> {
        self.shared.use_it();
        if !self.current.borrow().levels.are_current(&self.shared) {
            self.renew();
        }
        self.current.borrow().levels.pick(key).cloned()
    }

    /// Looks what has changed. Endpoints that stay keep their connections.
    fn renew(&self) {
        // What changes after this is read is seen next time.
        let generation = self.shared.generation();
        let members = self.shared.members();
        let mut current = self.current.borrow_mut();
        if !Arc::ptr_eq(&members, &current.members) {
            *current =
                Current::new(&self.configuration, members, &current.endpoints, &self.limits, &self.dialer);
        }
        current.levels.renew(generation, &self.configuration, &self.shared);
    }

    /// The key by which the load balancer is to choose this request's endpoint; none if it has none, or chooses otherwise.
    pub fn key(&self, request: &RequestHead, source: Option<IpAddr>) -> Option<u64> {
        let (LoadBalancer::RingHash(HashBy { by, .. }) | LoadBalancer::Maglev(HashBy { by, .. })) =
            &self.configuration.load_balancer
        else {
            return None;
        };
        match by {
            HashKey::Header(name) => request.headers.get(name).map(|value| hash(value.as_bytes())),
            HashKey::Cookie(name) => cookie(request, name).map(hash),
            HashKey::Query(name) => query(request, name).map(|value| hash(value.as_bytes())),
            HashKey::SourceAddress => source.map(hash_address),
        }
    }

    /// As [`Cluster::key`], for a request that brings its key along.
    pub fn key_of(&self, key: &[u8]) -> Option<u64> {
        let by_key =
            matches!(self.configuration.load_balancer, LoadBalancer::RingHash(_) | LoadBalancer::Maglev(_));
        by_key.then(|| hash(key))
    }

    /// As [`Cluster::key`], for a TCP connection.
    pub fn key_of_connection(&self, source: Option<IpAddr>) -> Option<u64> {
        match &self.configuration.load_balancer {
            LoadBalancer::RingHash(by) | LoadBalancer::Maglev(by) if by.by == HashKey::SourceAddress => {
                source.map(hash_address)
            }
            _ => None,
        }
    }

    /// Notes how an attempt at an endpoint ended, and after how long.
    pub fn report(&self, endpoint: &Endpoint, outcome: Outcome, after: Duration) {
        let ewma = self.configuration.load_balancer == LoadBalancer::PeakEwma;
        let outliers = self.configuration.outlier_detection.as_ref();
        if !ewma && outliers.is_none() {
            return;
        }
        let now = self.shared.millis(Instant::now());
        if ewma {
            let sample = if outcome == Outcome::NoAnswer { NO_ANSWER.max(after) } else { after };
            endpoint.shared().latency().record(sample, now);
        }
        if let Some(outliers) = outliers
            && outlier::report(outliers, &self.shared, endpoint.shared(), outcome, now)
        {
            let instant = Instant::now();
            let members = self.shared.members();
            let away = members.iter().filter(|one| self.shared.away(one.shared(), instant).is_some());
            tracing::warn!(cluster = %self.name, last = %endpoint.address(), ?outcome, ejected = away.count(), "endpoint ejected");
        }
    }

    /// Notes that an attempt at an endpoint was given up after so long: another one was quicker.
    pub fn report_slower(&self, endpoint: &Endpoint, after: Duration) {
        if self.configuration.load_balancer == LoadBalancer::PeakEwma {
            let now = self.shared.millis(Instant::now());
            endpoint.shared().latency().record(after, now);
        }
    }

    /// How much of it is in use, by all workers, and may be.
    pub fn limits(&self) -> &Arc<Limits> {
        &self.limits
    }

    /// Whether a reload leaves this cluster as it is. Where it stands in the file does not matter; its limits and its
    /// endpoints are shared, and change there.
    fn is_still(
        &self,
        configuration: &meshgate_config::Cluster,
        shared: &Arc<SharedCluster>,
        tls: Option<&Arc<ClientTls>>,
    ) -> bool {
        let mut moved = self.configuration.clone();
        (moved.at, moved.limits) = (configuration.at, configuration.limits);
        moved.endpoints.clone_from(&configuration.endpoints);
        moved.discovery.clone_from(&configuration.discovery);
        moved.health_check.clone_from(&configuration.health_check);
        moved == *configuration && Arc::ptr_eq(&self.shared, shared) && self.dialer.has_same_tls(tls)
    }
}

impl Current {
    /// The endpoints among `members` that are this cluster's. Those that are `known` keep their connections.
    fn new(
        configuration: &meshgate_config::Cluster,
        members: Arc<Members>,
        known: &[Rc<Endpoint>],
        limits: &Arc<Limits>,
        dialer: &Rc<Dialer>,
    ) -> Current {
        let known: HashMap<Address, &Rc<Endpoint>> =
            known.iter().map(|endpoint| (endpoint.address(), endpoint)).collect();
        let endpoint = |member: &Member| {
            let described = member.configuration();
            let distance = configuration.near.as_ref().map_or(0, |here| described.locality.distance(here));
            let rank = (described.priority, distance);
            Rc::new(match known.get(&described.address) {
                Some(known) => known.renewed(member, rank),
                None => Endpoint::new(member, rank, limits, dialer, configuration.idle_timeout),
            })
        };
        let endpoints: Rc<[Rc<Endpoint>]> = members
            .iter()
            .filter(|member| configuration.holds(member.configuration()))
            .map(endpoint)
            .collect();
        let levels = Levels::new(configuration, &endpoints);
        Current { members, endpoints, levels }
    }
}

/// The version in the words of those who write it.
pub(super) fn version_of(version: ProxyVersion) -> proxy_protocol::Version {
    match version {
        ProxyVersion::V1 => proxy_protocol::Version::V1,
        ProxyVersion::V2 => proxy_protocol::Version::V2,
    }
}

fn hash_address(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(address) => hash(&address.octets()),
        IpAddr::V6(address) => hash(&address.octets()),
    }
}

fn cookie<'r>(request: &'r RequestHead, name: &str) -> Option<&'r [u8]> {
    let fields = request.headers.get_all(http::header::COOKIE).iter();
    let pairs = fields.flat_map(|field| field.as_bytes().split(|byte| *byte == b';'));
    pairs.map(<[u8]>::trim_ascii).find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

fn query<'r>(request: &'r RequestHead, name: &str) -> Option<&'r str> {
    let pairs = request.path.query().into_iter().flat_map(|query| query.split('&'));
    pairs.into_iter().find_map(|pair| match pair.split_once('=') {
        Some((key, value)) => (key == name).then_some(value),
        None => (pair == name).then_some(""),
    })
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("name", &self.name).field("endpoints", &self.endpoints()).finish()
    }
}

/// A cluster's configuration, what all workers know of it, and its TLS.
pub type ConfiguredCluster<'c> =
    (&'c meshgate_config::Cluster, &'c Arc<SharedCluster>, Option<&'c Arc<ClientTls>>);

/// All clusters of one snapshot on one worker.
#[derive(Clone, Debug, Default)]
pub struct Clusters {
    by_name: Rc<HashMap<Rc<str>, Rc<Cluster>>>,
}

impl Clusters {
    /// The configured clusters, each with its shared state. A cluster that `previous` holds with the same settings is taken
    /// over, so that a reload keeps its connections.
    pub fn new<'c>(
        configured: impl Iterator<Item = ConfiguredCluster<'c>>,
        previous: Option<&Clusters>,
    ) -> Clusters {
        let by_name = configured
            .map(|(configuration, shared, tls)| {
                let kept = previous
                    .and_then(|clusters| clusters.find(&configuration.name))
                    .filter(|cluster| cluster.is_still(configuration, shared, tls));
                let cluster = kept.unwrap_or_else(|| Rc::new(Cluster::new(configuration, shared, tls)));
                (cluster.name.clone(), cluster)
            })
            .collect();
        Clusters { by_name: Rc::new(by_name) }
    }

    /// Whether somebody else has them, too.
    pub fn are_shared(&self) -> bool {
        Rc::strong_count(&self.by_name) > 1
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
