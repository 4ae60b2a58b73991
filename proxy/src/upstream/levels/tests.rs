//! Whole clusters: who is used when some are ejected, warm up, or are of lower priority. With seeds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use meshgate_config::{HashBy, HashKey, LoadBalancer};

use super::*;
use crate::upstream::cluster::Cluster;
use crate::upstream::tests::configuration;

fn port(address: meshgate_config::Address) -> u16 {
    match address {
        meshgate_config::Address::Ip(address) => address.port(),
        other => panic!("{other}"),
    }
}

/// A cluster of endpoints given by weight and priority, on ports 1, 2, ….
fn cluster(
    endpoints: &[(u32, u32)],
    change: impl FnOnce(&mut meshgate_config::Cluster),
) -> (Cluster, Arc<SharedCluster>) {
    fastrand::seed(7);
    let addresses: Vec<_> = (1..=endpoints.len() as u16).map(|port| ([127, 0, 0, 1], port).into()).collect();
    let mut configuration = configuration(&addresses);
    for (endpoint, (weight, priority)) in configuration.endpoints.iter_mut().zip(endpoints) {
        (endpoint.weight, endpoint.priority) = (*weight, *priority);
    }
    change(&mut configuration);
    let shared = Arc::new(SharedCluster::new(&configuration));
    (Cluster::new(&configuration, &shared, None), shared)
}

fn eject(shared: &SharedCluster, ports: &[u16], time: Duration) {
    for port in ports {
        let until = shared.millis(Instant::now() + time);
        shared.members()[usize::from(*port) - 1].shared().ejected_until.store(until, Relaxed);
    }
    shared.change();
}

const LONG: Duration = Duration::from_secs(3600);

/// How many of a thousand picks each port gets.
fn picks(cluster: &Cluster) -> BTreeMap<u16, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..1000 {
        if let Some(endpoint) = cluster.pick(None) {
            *counts.entry(port(endpoint.address())).or_default() += 1;
        }
    }
    counts
}

fn ports(counts: &BTreeMap<u16, usize>) -> Vec<u16> {
    counts.keys().copied().collect()
}

#[test]
fn ejected_endpoints_get_nothing_and_come_back_by_themselves() {
    let (cluster, shared) = cluster(&[(1, 0); 4], |_| {});
    assert_eq!(ports(&picks(&cluster)), [1, 2, 3, 4]);
    eject(&shared, &[2], LONG);
    assert_eq!(ports(&picks(&cluster)), [1, 3, 4]);
    eject(&shared, &[2], Duration::from_millis(30));
    assert_eq!(ports(&picks(&cluster)), [1, 3, 4]);
    let back = Instant::now() + LONG;
    while !ports(&picks(&cluster)).contains(&2) {
        assert!(Instant::now() < back);
    }
    eject(&shared, &[1, 2, 3, 4], LONG);
    assert!(picks(&cluster).is_empty());
}

#[test]
fn in_panic_all_are_used() {
    let (cluster, shared) = cluster(&[(1, 0); 4], |cluster| cluster.panic_threshold = 50);
    eject(&shared, &[1, 2], LONG);
    assert_eq!(ports(&picks(&cluster)), [3, 4]);
    eject(&shared, &[1, 2, 3], LONG);
    assert_eq!(ports(&picks(&cluster)), [1, 2, 3, 4]);
}

#[test]
fn lower_priorities_step_in_as_far_as_they_are_needed() {
    let (cluster, shared) = cluster(&[(1, 0), (1, 0), (1, 0), (1, 0), (1, 1), (1, 2)], |_| {});
    assert_eq!(ports(&picks(&cluster)), [1, 2, 3, 4]);
    eject(&shared, &[1], LONG);
    assert_eq!(ports(&picks(&cluster)), [2, 3, 4], "three quarters times 1.4 are enough");
    eject(&shared, &[2], LONG);
    let counts = picks(&cluster);
    // Half times 1.4 leaves three tenths; six standard deviations.
    assert!((215..385).contains(&counts[&5]) && !counts.contains_key(&6), "{counts:?}");
    eject(&shared, &[1, 2, 3, 4, 5], LONG);
    assert_eq!(ports(&picks(&cluster)), [6]);
}

#[test]
fn what_is_left_shares_by_health_when_all_levels_together_are_too_few() {
    let (cluster, shared) =
        cluster(&[(1, 0), (1, 0), (1, 0), (1, 0), (1, 1), (1, 1), (1, 1), (1, 1)], |_| {});
    eject(&shared, &[1, 2, 3, 5, 6, 7], LONG);
    let counts = picks(&cluster);
    assert_eq!(ports(&counts), [4, 8]);
    assert!((400..600).contains(&counts[&4]), "{counts:?}");
}

#[test]
fn a_new_endpoint_gets_more_from_step_to_step() {
    let addresses = [([127, 0, 0, 1], 1).into(), ([127, 0, 0, 1], 2).into()];
    let mut configuration = configuration(&addresses);
    let shared = Arc::new(SharedCluster::new(&crate::upstream::tests::configuration(&addresses[..1])));
    shared.set_members(&configuration.endpoints, false);
    configuration.slow_start = Some(LONG);
    let slow = Cluster::new(&configuration, &shared, None);
    let counts = picks(&slow);
    // A tenth beside a whole: one eleventh.
    assert!((85..=97).contains(&counts[&2]), "{counts:?}");
    configuration.slow_start = Some(Duration::from_millis(1));
    let quick = Cluster::new(&configuration, &shared, None);
    let end = Instant::now() + LONG;
    while picks(&quick)[&2] != 500 {
        assert!(Instant::now() < end);
    }
}

#[test]
fn a_key_stays_with_its_endpoint_until_that_is_full() {
    let by = |max_load| HashBy { by: HashKey::SourceAddress, max_load };
    for balancer in [LoadBalancer::Maglev(by(None)), LoadBalancer::RingHash(by(None))] {
        let (cluster, shared) = cluster(&[(1, 0); 5], |cluster| cluster.load_balancer = balancer);
        let own = cluster.pick(Some(42)).unwrap();
        assert!((0..100).all(|_| cluster.pick(Some(42)).unwrap().address() == own.address()));
        eject(&shared, &[port(own.address())], LONG);
        assert_ne!(cluster.pick(Some(42)).unwrap().address(), own.address());
        assert_eq!(ports(&picks(&cluster)).len(), 4, "without a key any will do");
    }
    let (cluster, _) =
        cluster(&[(1, 0); 5], |cluster| cluster.load_balancer = LoadBalancer::Maglev(by(Some(1.5))));
    let mut loads = BTreeMap::<_, usize>::new();
    for _ in 0..100 {
        let endpoint = cluster.pick(Some(42)).unwrap();
        endpoint.begin();
        *loads.entry(endpoint.address()).or_default() += 1;
    }
    assert_eq!(loads.values().max(), Some(&30), "half more than the average of 20: {loads:?}");
}

#[test]
fn keys_come_from_the_request() {
    let request = |path: &str, fields: &[(&'static str, &'static str)]| meshgate_wasm::RequestHead {
        method: http::Method::GET,
        scheme: http::uri::Scheme::HTTP,
        authority: http::HeaderValue::from_static("a"),
        path: path.parse().unwrap(),
        version: http::Version::HTTP_11,
        headers: fields
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), http::HeaderValue::from_static(value)))
            .collect(),
    };
    let key = |by: HashKey, request: &meshgate_wasm::RequestHead| {
        let balancer = LoadBalancer::RingHash(HashBy { by, max_load: None });
        let (cluster, _) = cluster(&[(1, 0)], |cluster| cluster.load_balancer = balancer);
        cluster.key(request, Some([10, 0, 0, 1].into()))
    };
    let hash = |text: &str| Some(crate::upstream::balance::hash(text.as_bytes()));
    let full = request("/?a=1&user=me&user=you", &[("x-user", "me"), ("cookie", "a=b; user=me; xuser=no")]);
    assert_eq!(key(HashKey::Header("x-user".into()), &full), hash("me"));
    assert_eq!(key(HashKey::Header("X-User".into()), &full), hash("me"));
    assert_eq!(key(HashKey::Cookie("user".into()), &full), hash("me"));
    assert_eq!(key(HashKey::Query("user".into()), &full), hash("me"));
    assert_eq!(key(HashKey::SourceAddress, &full), Some(crate::upstream::balance::hash(&[10, 0, 0, 1])));
    let bare = request("/", &[]);
    for by in
        [HashKey::Header("x-user".into()), HashKey::Cookie("user".into()), HashKey::Query("user".into())]
    {
        assert_eq!(key(by, &bare), None);
    }
    let (plain, _) = cluster(&[(1, 0)], |_| {});
    assert_eq!(plain.key(&full, Some([10, 0, 0, 1].into())), None);
}
