//! What all workers know of a cluster's endpoints: counts, latencies, ejections. Written with relaxed atomics by whoever has
//! something to tell, read by every load balancer; no lock on a request's path.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

use meshgate_config::{Address, Discovery, Endpoint};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::health::Health;
use super::limits::Limits;

/// Milliseconds on the clock of [`SharedCluster::millis`]: small enough for an atomic. 0 is before every event.
pub(super) type Millis = u64;

/// The clusters of the process, by name, over reloads: what is known of an endpoint outlives a change of the others.
#[derive(Debug, Default)]
pub struct SharedClusters {
    by_name: HashMap<String, Weak<SharedCluster>>,
}

impl SharedClusters {
    /// The shared state of a cluster: the one there is, which stays as it is, or one with the configured endpoints.
    pub fn of(&mut self, configuration: &meshgate_config::Cluster) -> Arc<SharedCluster> {
        let name = configuration.subset.as_ref().map_or(&configuration.name, |subset| &subset.of);
        if let Some(known) = self.by_name.get(name).and_then(Weak::upgrade) {
            return known;
        }
        let cluster = Arc::new(SharedCluster::new(configuration));
        self.by_name.retain(|_, cluster| cluster.strong_count() > 0);
        self.by_name.insert(name.clone(), Arc::downgrade(&cluster));
        cluster
    }
}

/// A cluster as all workers share it. Its subsets share it too, but for their limits.
#[derive(Debug)]
pub struct SharedCluster {
    began: Instant,
    /// Read when `generation` says that something changed.
    members: RwLock<Arc<Members>>,
    /// Grows whenever an endpoint becomes unusable or usable by somebody's decision, and when there are others, so that
    /// workers can keep lists. What ends at a known time needs no word.
    generation: AtomicU64,
    /// Held while ejections are decided, which is rare.
    ejecting: Mutex<()>,
    pub(super) last_sweep: AtomicU64,
    limits: Arc<Limits>,
    subset_limits: Mutex<HashMap<String, Arc<Limits>>>,
    source: SourceState,
    used: AtomicBool,
    first_use: Notify,
    changed: Notify,
    settled: Notify,
}

/// The endpoints of a cluster at a time.
#[derive(Debug, Default)]
pub struct Members {
    list: Box<[Member]>,
    /// They are what the cluster's source says, or as near to it as can be known now.
    known: bool,
}

/// An endpoint in a cluster's list.
#[derive(Clone, Debug)]
pub struct Member {
    configuration: Endpoint,
    shared: Arc<SharedEndpoint>,
}

impl Member {
    /// What its source says of it.
    pub fn configuration(&self) -> &Endpoint {
        &self.configuration
    }

    /// What is known of it.
    pub fn shared(&self) -> &Arc<SharedEndpoint> {
        &self.shared
    }
}

impl Deref for Members {
    type Target = [Member];

    fn deref(&self) -> &[Member] {
        &self.list
    }
}

impl SharedCluster {
    pub(super) fn new(configuration: &meshgate_config::Cluster) -> SharedCluster {
        let checked = configuration.health_check.is_some();
        let cluster = SharedCluster {
            began: Instant::now(),
            members: RwLock::default(),
            generation: AtomicU64::new(0),
            ejecting: Mutex::new(()),
            last_sweep: AtomicU64::new(0),
            limits: Limits::new(&configuration.limits),
            subset_limits: Mutex::default(),
            source: SourceState::default(),
            used: AtomicBool::new(false),
            first_use: Notify::new(),
            changed: Notify::new(),
            settled: Notify::new(),
        };
        // At the start all endpoints are equally new: none has to be spared.
        if !matches!(configuration.discovery, Discovery::Dns(_)) {
            cluster.set_members_since(&configuration.endpoints, checked, 0);
        }
        cluster
    }

    /// Its endpoints now.
    pub fn members(&self) -> Arc<Members> {
        Arc::clone(&self.members.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Gives it these endpoints. What is known of those that stay is kept. With health checks, new ones get no requests
    /// before their first check.
    pub(super) fn set_members(&self, endpoints: &[Endpoint], checked: bool) {
        // Those of a cluster that had none are equally new.
        let first = !self.members().known;
        let up_since = if first { 0 } else { self.millis(Instant::now()) };
        self.set_members_since(endpoints, checked, up_since);
    }

    fn set_members_since(&self, endpoints: &[Endpoint], checked: bool, up_since: Millis) {
        let before = self.members();
        let unchanged = before.iter().map(|member| &member.configuration).eq(endpoints);
        if unchanged && before.known {
            return;
        }
        let known: HashMap<Address, &Arc<SharedEndpoint>> =
            before.iter().map(|member| (member.shared.address, &member.shared)).collect();
        let health = if checked { Health::Pending } else { Health::Unchecked };
        let member = |endpoint: &Endpoint| {
            let known = known.get(&endpoint.address).map(|known| Arc::clone(known));
            Member {
                configuration: endpoint.clone(),
                shared: known
                    .unwrap_or_else(|| Arc::new(SharedEndpoint::new(endpoint.address, up_since, health))),
            }
        };
        let members = Members { list: endpoints.iter().map(member).collect(), known: true };
        *self.members.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(members);
        self.change();
        self.changed.notify_waiters();
        self.settled.notify_waiters();
    }

    /// Its source gives no answer: there is nothing to wait for any more.
    pub(super) fn settle(&self) {
        let before = self.members();
        if !before.known {
            let members = Members { list: before.list.clone(), known: true };
            *self.members.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(members);
            self.settled.notify_waiters();
        }
    }

    /// Whether its endpoints are known, and each has been checked if they are.
    pub(super) fn is_settled(&self) -> bool {
        let members = self.members();
        members.known && members.iter().all(|member| member.shared.health() != Health::Pending)
    }

    /// Resolves when that may have changed.
    pub(super) fn settled(&self) -> Notified<'_> {
        self.settled.notified()
    }

    /// Resolves when it has other endpoints.
    pub(super) fn members_changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// How its source of endpoints does.
    pub fn source(&self) -> &SourceState {
        &self.source
    }

    /// A request is about to choose an endpoint.
    pub(super) fn use_it(&self) {
        if !self.used.load(Relaxed) {
            self.used.store(true, Relaxed);
            self.first_use.notify_waiters();
        }
    }

    /// Whether it has had a request.
    pub(super) fn is_used(&self) -> bool {
        self.used.load(Relaxed)
    }

    /// Resolves when it has its first.
    pub(super) fn first_use(&self) -> Notified<'_> {
        self.first_use.notified()
    }

    /// What health checks found out.
    pub(super) fn set_health(&self, endpoint: &SharedEndpoint, health: Health) {
        let before = Health::of(endpoint.health.swap(health as u8, Relaxed));
        if health == Health::Healthy && before.is_bad() && before != Health::Pending {
            endpoint.healthy_since.store(self.millis(Instant::now()), Relaxed);
        }
        self.change();
        self.settled.notify_waiters();
    }

    /// It is not checked any more.
    pub(super) fn forget_health(&self) {
        for member in self.members().iter() {
            if member.shared.health() != Health::Unchecked {
                self.set_health(&member.shared, Health::Unchecked);
            }
        }
    }

    /// Ends an ejection before its time. False if there was none.
    pub(super) fn end_ejection(&self, endpoint: &SharedEndpoint) -> bool {
        let now = self.millis(Instant::now());
        let ejected = endpoint.is_ejected(now);
        if ejected {
            endpoint.ejected_until.store(now, Relaxed);
            self.change();
        }
        ejected
    }

    /// Nobody is ejected any more.
    pub(super) fn end_ejections(&self) {
        for member in self.members().iter() {
            self.end_ejection(&member.shared);
        }
    }

    /// The time on this cluster's clock.
    pub(super) fn millis(&self, now: Instant) -> Millis {
        let passed = now.saturating_duration_since(self.began).as_millis();
        Millis::try_from(passed).unwrap_or(Millis::MAX).saturating_add(1)
    }

    /// The moment of a time on this cluster's clock.
    pub(super) fn instant(&self, millis: Millis) -> Instant {
        self.began + Duration::from_millis(millis.saturating_sub(1))
    }

    /// How much of it is in use, and may be.
    pub fn limits(&self) -> &Arc<Limits> {
        &self.limits
    }

    /// The limits of a cluster that is this one, or one of its subsets.
    pub fn limits_of(&self, configuration: &meshgate_config::Cluster) -> Arc<Limits> {
        if configuration.subset.is_none() {
            return Arc::clone(&self.limits);
        }
        let mut subsets = self.subset_limits.lock().unwrap_or_else(PoisonError::into_inner);
        let limits = subsets.entry(configuration.name.clone());
        Arc::clone(limits.or_insert_with(|| Limits::new(&configuration.limits)))
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Acquire)
    }

    /// Tells the workers that their lists are old.
    pub(super) fn change(&self) {
        self.generation.fetch_add(1, Release);
    }

    pub(super) fn decide_ejections(&self) -> MutexGuard<'_, ()> {
        // It guards no data that a panic could have left half-written.
        self.ejecting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How much longer an endpoint stays away; none if it is not ejected.
    pub fn away(&self, endpoint: &SharedEndpoint, now: Instant) -> Option<Duration> {
        let until = endpoint.ejected_until.load(Relaxed);
        let left = until.saturating_sub(self.millis(now));
        (left > 0).then(|| Duration::from_millis(left))
    }
}

/// An endpoint as all workers share it.
#[derive(Debug)]
pub struct SharedEndpoint {
    address: Address,
    up_since: Millis,
    in_flight: AtomicUsize,
    latency: Latency,
    /// Answers 5xx in a row, and what else `consecutive_errors` counts.
    pub(super) errors: AtomicU32,
    /// Answers 502, 503 and 504 in a row.
    pub(super) gateway_errors: AtomicU32,
    /// Requests without an answer in a row.
    pub(super) local_errors: AtomicU32,
    /// Since the last sweep.
    pub(super) requests: AtomicU64,
    pub(super) successes: AtomicU64,
    /// Ejected until then; 0: never was.
    pub(super) ejected_until: AtomicU64,
    /// Ejections, less one for each interval without: the next one lasts so many times as long, plus one.
    pub(super) ejections: AtomicU32,
    pub(super) all_ejections: AtomicU64,
    /// A [`Health`].
    health: AtomicU8,
    /// When health checks found it healthy again; 0: never since it was bad.
    healthy_since: AtomicU64,
    checks: AtomicU64,
    failed_checks: AtomicU64,
}

impl SharedEndpoint {
    fn new(address: Address, up_since: Millis, health: Health) -> SharedEndpoint {
        SharedEndpoint {
            address,
            up_since,
            in_flight: AtomicUsize::new(0),
            latency: Latency::default(),
            errors: AtomicU32::new(0),
            gateway_errors: AtomicU32::new(0),
            local_errors: AtomicU32::new(0),
            requests: AtomicU64::new(0),
            successes: AtomicU64::new(0),
            ejected_until: AtomicU64::new(0),
            ejections: AtomicU32::new(0),
            all_ejections: AtomicU64::new(0),
            health: AtomicU8::new(health as u8),
            healthy_since: AtomicU64::new(0),
            checks: AtomicU64::new(0),
            failed_checks: AtomicU64::new(0),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> Address {
        self.address
    }

    /// Whether it was ejected and is to stay away.
    pub(super) fn is_ejected(&self, now: Millis) -> bool {
        self.ejected_until.load(Relaxed) > now
    }

    /// Whether it gets no requests unless all do: it is ejected, or not well.
    pub(super) fn is_out(&self, now: Millis) -> bool {
        self.is_ejected(now) || self.health().is_bad()
    }

    /// Since when it has been there without a break.
    pub(super) fn up_since(&self) -> Millis {
        let healthy_since = self.healthy_since.load(Relaxed);
        self.up_since.max(self.ejected_until.load(Relaxed)).max(healthy_since)
    }

    /// What health checks say of it.
    pub fn health(&self) -> Health {
        Health::of(self.health.load(Relaxed))
    }

    /// Notes a health check.
    pub(super) fn checked(&self, good: bool) {
        self.checks.fetch_add(1, Relaxed);
        if !good {
            self.failed_checks.fetch_add(1, Relaxed);
        }
    }

    /// How often it was checked, and how often in vain.
    pub fn checks(&self) -> (u64, u64) {
        (self.checks.load(Relaxed), self.failed_checks.load(Relaxed))
    }

    /// How often it was ejected since it is known.
    pub fn ejections(&self) -> u64 {
        self.all_ejections.load(Relaxed)
    }

    /// Requests in flight, of all workers.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }

    pub(super) fn begin(&self) {
        self.in_flight.fetch_add(1, Relaxed);
    }

    pub(super) fn end(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
    }

    pub(super) fn latency(&self) -> &Latency {
        &self.latency
    }

    /// How long it takes to answer of late, in seconds; known only to load balancers that look at it.
    pub fn average_latency(&self) -> f64 {
        self.latency.seconds()
    }
}

/// How a source of endpoints (DNS, a file) does.
#[derive(Debug, Default)]
pub struct SourceState {
    updates: AtomicU64,
    failures: AtomicU64,
    error: Mutex<Option<String>>,
}

impl SourceState {
    pub(super) fn succeeded(&self) {
        self.updates.fetch_add(1, Relaxed);
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(super) fn failed(&self, reason: &str) {
        self.failures.fetch_add(1, Relaxed);
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
    }

    /// How often it gave a list that could be used.
    pub fn updates(&self) -> u64 {
        self.updates.load(Relaxed)
    }

    /// How often it did not.
    pub fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }

    /// Why it did not the last time, if it did not.
    pub fn error(&self) -> Option<String> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A moving average of latencies that jumps up with a peak and forgets slowly. (Finagle's "peak EWMA".)
#[derive(Debug)]
pub(super) struct Latency {
    /// Seconds, as the bits of an f32, and the time of the last sample in its upper half, in tenths of a second.
    state: AtomicU64,
}

impl Default for Latency {
    fn default() -> Latency {
        Latency { state: AtomicU64::new(pack(Latency::UNKNOWN, 0)) }
    }
}

impl Latency {
    /// What a new endpoint is taken for, in seconds: neither shunned nor run down.
    const UNKNOWN: f32 = 0.03;
    /// What is older than this counts for little.
    const DECAY: Duration = Duration::from_secs(10);

    /// The average in seconds.
    pub(super) fn seconds(&self) -> f64 {
        f64::from(unpack(self.state.load(Relaxed)).0)
    }

    /// A request took so long. Two workers at the same moment may lose one of the two samples.
    pub(super) fn record(&self, sample: Duration, now: Millis) {
        let tick = now / 100;
        let (average, last) = unpack(self.state.load(Relaxed));
        let sample = sample.as_secs_f32();
        let passed =
            (tick.saturating_sub(u64::from(last))) as f32 / (Latency::DECAY.as_millis() as f32 / 100.0);
        // Within a tenth of a second samples count a little each.
        let kept = (-passed.max(0.001)).exp();
        let next = if sample > average { sample } else { average * kept + sample * (1.0 - kept) };
        self.state.store(pack(next, tick), Relaxed);
    }
}

fn pack(seconds: f32, tick: u64) -> u64 {
    (tick & 0xffff_ffff) << 32 | u64::from(seconds.to_bits())
}

fn unpack(state: u64) -> (f32, u32) {
    (f32::from_bits(state as u32), (state >> 32) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_jumps_up_and_forgets_slowly() {
        let latency = Latency::default();
        assert!((latency.seconds() - 0.03).abs() < 1e-6);
        latency.record(Duration::from_millis(500), 1_000);
        assert!((latency.seconds() - 0.5).abs() < 1e-6);
        latency.record(Duration::from_millis(10), 1_000);
        assert!(latency.seconds() > 0.49, "a single fast answer says little");
        latency.record(Duration::from_millis(10), 11_000);
        let after = latency.seconds();
        assert!((0.15..0.25).contains(&after), "{after}: a third of the peak is left after ten seconds");
        for _ in 0..10_000 {
            latency.record(Duration::from_millis(10), 11_000);
        }
        assert!(latency.seconds() < 0.02);
    }

    fn cluster(ports: &[u16]) -> meshgate_config::Cluster {
        let addresses: Vec<std::net::SocketAddr> =
            ports.iter().map(|port| ([127, 0, 0, 1], *port).into()).collect();
        crate::upstream::tests::configuration(&addresses)
    }

    fn endpoint(cluster: &SharedCluster, index: usize) -> Arc<SharedEndpoint> {
        Arc::clone(cluster.members()[index].shared())
    }

    #[test]
    fn what_is_known_of_an_endpoint_outlives_a_reload() {
        let mut clusters = SharedClusters::default();
        let first = clusters.of(&cluster(&[1, 2]));
        endpoint(&first, 1).ejected_until.store(5_000, Relaxed);
        let generation = first.generation();
        let changed = clusters.of(&cluster(&[2, 3]));
        assert!(Arc::ptr_eq(&first, &changed) && first.generation() == generation, "nothing has changed yet");
        changed.set_members(&cluster(&[2, 3]).endpoints, false);
        assert!(first.generation() > generation);
        let [two, three] = [0, 1].map(|index| endpoint(&changed, index));
        assert!(two.is_ejected(4_999) && !three.is_ejected(1));
        // Only the one that is new has to warm up.
        assert!(three.up_since() > 0 && two.up_since.eq(&0));
        drop((first, changed));
        let anew = clusters.of(&cluster(&[2]));
        assert!(!endpoint(&anew, 0).is_ejected(1));
    }

    #[test]
    fn endpoints_with_health_checks_wait_for_the_first() {
        let mut configuration = cluster(&[1, 2]);
        let shared = SharedCluster::new(&configuration);
        assert!(shared.is_settled() && !endpoint(&shared, 0).is_out(1));
        configuration.endpoints.push(Endpoint::at(std::net::SocketAddr::from(([127, 0, 0, 1], 3))));
        shared.set_members(&configuration.endpoints, true);
        // Those that had requests before keep them until a check says otherwise.
        assert!(!endpoint(&shared, 1).is_out(1) && endpoint(&shared, 2).is_out(1) && !shared.is_settled());
        shared.set_health(&endpoint(&shared, 2), Health::Healthy);
        assert!(shared.is_settled() && !endpoint(&shared, 2).is_out(1));
        shared.set_health(&endpoint(&shared, 0), Health::Unhealthy);
        assert!(endpoint(&shared, 0).is_out(1));
        shared.forget_health();
        assert!(!endpoint(&shared, 0).is_out(1));
    }

    #[test]
    fn time_begins_after_zero() {
        let shared = SharedCluster::new(&cluster(&[1]));
        assert!(shared.millis(shared.began) == 1 && !endpoint(&shared, 0).is_ejected(1));
        let later = shared.began + Duration::from_secs(2);
        assert_eq!(shared.millis(later), 2_001);
        assert_eq!(shared.instant(2_001), later);
    }
}
