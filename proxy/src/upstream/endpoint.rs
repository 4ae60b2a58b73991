//! One endpoint: its address, its unused connections and its counts, as one worker sees it.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use meshgate_config::Address;
use meshgate_wasm::{Attributes, EndpointFacts, Locality};

use super::balance::Candidate;
use super::dial::Dialer;
use super::http2;
use super::levels::Standing;
use super::limits::Limits;
use super::pool::Pool;
use super::shared::{Member, SharedEndpoint};
use crate::socket::seen;

/// One server of a cluster.
pub struct Endpoint {
    weight: f64,
    /// Endpoints with a higher one are used while too few with this one can be.
    rank: Rank,
    shared: Arc<SharedEndpoint>,
    standing: Standing,
    pool: Rc<Pool>,
    http2: Rc<http2::Connections>,
    in_flight: Rc<Cell<usize>>,
    limits: Arc<Limits>,
    dialer: Rc<Dialer>,
    /// What requests for it call it, if it was found by a name.
    authority: Option<HeaderValue>,
    /// For filters to read.
    facts: Option<Rc<EndpointFacts>>,
}

/// Its priority, and among those of the same how far it is away.
pub(super) type Rank = (u32, u32);

impl Endpoint {
    pub(super) fn new(
        member: &Member,
        rank: Rank,
        limits: &Arc<Limits>,
        dialer: &Rc<Dialer>,
        idle_timeout: Duration,
    ) -> Endpoint {
        let configuration = member.configuration();
        let weight = f64::from(configuration.weight.max(1));
        Endpoint {
            weight,
            rank,
            shared: Arc::clone(member.shared()),
            standing: Standing::new(weight),
            pool: Pool::new(idle_timeout, limits),
            http2: http2::Connections::new(configuration.address, dialer, idle_timeout, limits),
            in_flight: Rc::default(),
            limits: Arc::clone(limits),
            dialer: Rc::clone(dialer),
            authority: authority(configuration, dialer),
            facts: facts(configuration),
        }
    }

    /// The same endpoint, with the same connections, of which its source says something else now.
    pub(super) fn renewed(&self, member: &Member, rank: Rank) -> Endpoint {
        let weight = f64::from(member.configuration().weight.max(1));
        Endpoint {
            weight,
            rank,
            shared: Arc::clone(member.shared()),
            standing: Standing::new(weight),
            pool: Rc::clone(&self.pool),
            http2: Rc::clone(&self.http2),
            in_flight: Rc::clone(&self.in_flight),
            limits: Arc::clone(&self.limits),
            dialer: Rc::clone(&self.dialer),
            authority: authority(member.configuration(), &self.dialer),
            facts: facts(member.configuration()),
        }
    }

    /// Its host name as an authority, with the port if that is not the usual one; none if it was found by its address.
    pub fn authority(&self) -> Option<&HeaderValue> {
        self.authority.as_ref()
    }

    /// Tells filters that the exchange goes here.
    pub fn show(&self, attributes: &mut Attributes) {
        attributes.upstream_address = Some(seen(self.address()));
        attributes.upstream_facts.clone_from(&self.facts);
    }

    /// How it is connected to.
    pub(super) fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    /// Where it listens.
    pub fn address(&self) -> Address {
        self.shared.address()
    }

    /// Exchanges of this worker that it works on right now.
    pub fn in_flight(&self) -> usize {
        self.in_flight.get()
    }

    /// Connections of this worker that wait for the next request.
    pub fn idle_connections(&self) -> usize {
        self.pool.len() + self.http2.idle()
    }

    /// Its connections for HTTP/2.
    pub(super) fn http2(&self) -> &Rc<http2::Connections> {
        &self.http2
    }

    pub(super) fn pool(&self) -> &Rc<Pool> {
        &self.pool
    }

    /// Its cluster's limits.
    pub(super) fn limits(&self) -> &Arc<Limits> {
        &self.limits
    }

    pub(super) fn rank(&self) -> Rank {
        self.rank
    }

    /// Its weight as configured, without slow start.
    pub(super) fn full_weight(&self) -> f64 {
        self.weight
    }

    pub(super) fn shared(&self) -> &Arc<SharedEndpoint> {
        &self.shared
    }

    pub(super) fn standing(&self) -> &Standing {
        &self.standing
    }

    pub(super) fn is_usable(&self) -> bool {
        self.standing.is_usable()
    }

    pub(super) fn begin(&self) {
        self.in_flight.set(self.in_flight.get() + 1);
        self.shared.begin();
    }

    pub(super) fn end(&self) {
        self.in_flight.set(self.in_flight.get().saturating_sub(1));
        self.shared.end();
    }
}

/// Its locality, and its labels where Envoy has what subsets are chosen by.
fn facts(configuration: &meshgate_config::Endpoint) -> Option<Rc<EndpointFacts>> {
    let mut metadata = meshgate_config::Metadata::new();
    if !configuration.labels.is_empty() {
        let labels = configuration.labels.iter().map(|(name, value)| (name.clone(), value.clone().into()));
        metadata.insert("envoy.lb".to_owned(), serde_json::Value::Object(labels.collect()));
    }
    let facts = EndpointFacts { locality: place(&configuration.locality), metadata };
    (facts != EndpointFacts::default()).then(|| Rc::new(facts))
}

/// A locality as filters see it.
pub fn place(locality: &meshgate_config::Locality) -> Locality {
    let meshgate_config::Locality { region, zone, subzone } = locality.clone();
    Locality { region, zone, sub_zone: subzone }
}

fn authority(endpoint: &meshgate_config::Endpoint, dialer: &Dialer) -> Option<HeaderValue> {
    let host = endpoint.host.as_deref()?;
    let Address::Ip(address) = endpoint.address else { return None };
    let usual = if dialer.is_secure() { 443 } else { 80 };
    let text = match address.port() {
        port if port == usual => host.to_owned(),
        port => format!("{host}:{port}"),
    };
    HeaderValue::try_from(text).ok()
}

impl Candidate for Rc<Endpoint> {
    fn weight(&self) -> f64 {
        self.standing.weight()
    }

    fn in_flight(&self) -> usize {
        self.shared.in_flight()
    }

    fn latency(&self) -> f64 {
        self.shared.latency().seconds()
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("address", &self.address())
            .field("in_flight", &self.in_flight.get())
            .field("idle_connections", &self.idle_connections())
            .finish()
    }
}
