//! What all workers know of a cluster's endpoints: counts, latencies, ejections. Written with relaxed atomics by whoever has
//! something to tell, read by every load balancer; no lock on a request's path.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use meshgate_config::ClusterLimits;

use super::limits::Limits;

/// Milliseconds on the clock of [`SharedCluster::millis`]: small enough for an atomic. 0 is before every event.
pub(super) type Millis = u64;

/// The clusters of the process, by name, over reloads: what is known of an endpoint outlives a change of the others.
#[derive(Debug, Default)]
pub struct SharedClusters {
    by_name: HashMap<String, Weak<SharedCluster>>,
}

impl SharedClusters {
    /// The shared state of a cluster with these endpoints; those that it had already keep theirs.
    pub fn of(&mut self, configuration: &meshgate_config::Cluster) -> Arc<SharedCluster> {
        let addresses: Vec<SocketAddr> =
            configuration.endpoints.iter().map(|endpoint| endpoint.address).collect();
        let known = self.by_name.get(&configuration.name).and_then(Weak::upgrade);
        if let Some(known) = known.as_ref().filter(|known| known.is_of(&addresses)) {
            return Arc::clone(known);
        }
        let cluster = Arc::new(SharedCluster::new(&addresses, &configuration.limits, known.as_deref()));
        self.by_name.retain(|_, cluster| cluster.strong_count() > 0);
        self.by_name.insert(configuration.name.clone(), Arc::downgrade(&cluster));
        cluster
    }
}

/// A cluster as all workers share it.
#[derive(Debug)]
pub struct SharedCluster {
    began: Instant,
    endpoints: Box<[Arc<SharedEndpoint>]>,
    /// Grows whenever an endpoint becomes unusable, so that workers can keep lists. Each ends with a time that workers know.
    generation: AtomicU64,
    /// Held while ejections are decided, which is rare.
    ejecting: Mutex<()>,
    pub(super) last_sweep: AtomicU64,
    limits: Arc<Limits>,
}

impl SharedCluster {
    /// What `previous` knows of the endpoints that stay is kept, and so is what is in use.
    pub(super) fn new(
        addresses: &[SocketAddr],
        limits: &ClusterLimits,
        previous: Option<&SharedCluster>,
    ) -> SharedCluster {
        let began = previous.map_or_else(Instant::now, |previous| previous.began);
        // At the start all endpoints are equally new: none has to be spared.
        let up_since = previous.map_or(0, |previous| previous.millis(Instant::now()));
        let known = |address: SocketAddr| {
            let mut known = previous.into_iter().flat_map(|previous| &previous.endpoints);
            known.find(|endpoint| endpoint.address == address).map(Arc::clone)
        };
        let endpoint = |address: &SocketAddr| {
            known(*address).unwrap_or_else(|| Arc::new(SharedEndpoint::new(*address, up_since)))
        };
        SharedCluster {
            began,
            endpoints: addresses.iter().map(endpoint).collect(),
            generation: AtomicU64::new(0),
            ejecting: Mutex::new(()),
            last_sweep: AtomicU64::new(previous.map_or(0, |previous| previous.last_sweep.load(Relaxed))),
            limits: previous.map_or_else(|| Limits::new(limits), |previous| Arc::clone(&previous.limits)),
        }
    }

    fn is_of(&self, addresses: &[SocketAddr]) -> bool {
        self.endpoints.iter().map(|endpoint| &endpoint.address).eq(addresses)
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

    /// Its endpoints, in the configuration's order.
    pub fn endpoints(&self) -> &[Arc<SharedEndpoint>] {
        &self.endpoints
    }

    /// How much of it is in use, and may be.
    pub fn limits(&self) -> &Arc<Limits> {
        &self.limits
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Relaxed)
    }

    /// Tells the workers that their lists are old.
    pub(super) fn change(&self) {
        self.generation.fetch_add(1, Relaxed);
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
    address: SocketAddr,
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
}

impl SharedEndpoint {
    fn new(address: SocketAddr, up_since: Millis) -> SharedEndpoint {
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
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether it was ejected and is to stay away.
    pub(super) fn is_ejected(&self, now: Millis) -> bool {
        self.ejected_until.load(Relaxed) > now
    }

    /// Since when it has been there without a break.
    pub(super) fn up_since(&self) -> Millis {
        self.up_since.max(self.ejected_until.load(Relaxed))
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
        let addresses: Vec<SocketAddr> = ports.iter().map(|port| ([127, 0, 0, 1], *port).into()).collect();
        crate::upstream::tests::configuration(&addresses)
    }

    #[test]
    fn what_is_known_of_an_endpoint_outlives_a_reload() {
        let mut clusters = SharedClusters::default();
        let first = clusters.of(&cluster(&[1, 2]));
        first.endpoints()[1].ejected_until.store(5_000, Relaxed);
        let same = clusters.of(&cluster(&[1, 2]));
        assert!(Arc::ptr_eq(&first, &same));
        let changed = clusters.of(&cluster(&[2, 3]));
        assert!(changed.endpoints()[0].is_ejected(4_999) && !changed.endpoints()[1].is_ejected(1));
        assert_eq!(changed.began, first.began);
        // Only the one that is new has to warm up.
        assert!(changed.endpoints()[1].up_since() > 0 && first.endpoints()[0].up_since() == 0);
        drop((first, same, changed));
        let anew = clusters.of(&cluster(&[2]));
        assert!(!anew.endpoints()[0].is_ejected(1));
    }

    #[test]
    fn time_begins_after_zero() {
        let shared = SharedCluster::new(&[([127, 0, 0, 1], 1).into()], &ClusterLimits::default(), None);
        assert!(shared.millis(shared.began) == 1 && !shared.endpoints()[0].is_ejected(1));
        let later = shared.began + Duration::from_secs(2);
        assert_eq!(shared.millis(later), 2_001);
        assert_eq!(shared.instant(2_001), later);
    }
}
