//! Distributions, with seeds: each bound is at least five standard deviations wide.

use std::cell::Cell;

use super::hash::hash;
use super::*;

struct Fake {
    weight: f64,
    in_flight: Cell<usize>,
    latency: f64,
}

impl Candidate for Fake {
    fn weight(&self) -> f64 {
        self.weight
    }
    fn in_flight(&self) -> usize {
        self.in_flight.get()
    }
    fn latency(&self) -> f64 {
        self.latency
    }
}

fn fakes(weights: &[f64]) -> Vec<Fake> {
    weights.iter().map(|weight| Fake { weight: *weight, in_flight: Cell::new(0), latency: 0.01 }).collect()
}

fn shares(picks: usize, count: usize, mut pick: impl FnMut() -> usize) -> Vec<f64> {
    let mut counts = vec![0; count];
    (0..picks).for_each(|_| counts[pick()] += 1);
    counts.iter().map(|count| f64::from(*count) / picks as f64).collect()
}

fn close(shares: &[f64], expected: &[f64], tolerance: f64) {
    for (share, expected) in shares.iter().zip(expected) {
        assert!((share - expected).abs() < tolerance, "{shares:?} beside {expected:?}");
    }
}

#[test]
fn draws_follow_the_weights() {
    fastrand::seed(1);
    for weights in [vec![1.0; 4], vec![1.0, 2.0, 3.0, 4.0], vec![5.0]] {
        let all = fakes(&weights);
        let table = Weights::of(&all);
        let total: f64 = weights.iter().sum();
        let expected: Vec<f64> = weights.iter().map(|weight| weight / total).collect();
        close(&shares(100_000, weights.len(), || table.draw().unwrap()), &expected, 0.008);
    }
    assert_eq!(Weights::of::<Fake>(&[]).draw(), None);
}

#[test]
fn the_second_draw_is_another_and_follows_the_weights() {
    fastrand::seed(2);
    for (weights, expected) in
        [(vec![1.0, 1.0, 1.0], [0.5, 0.0, 0.5]), (vec![1.0, 5.0, 3.0], [0.25, 0.0, 0.75])]
    {
        let table = Weights::of(&fakes(&weights));
        close(&shares(100_000, 3, || table.draw_another(1).unwrap()), &expected, 0.008);
    }
    assert_eq!(Weights::of(&fakes(&[1.0])).draw_another(0), None);
}

#[test]
fn round_robin_gives_everyone_a_turn() {
    let (balancer, all) = (RoundRobin::default(), fakes(&[1.0; 3]));
    let weights = Weights::of(&all);
    let picks: Vec<_> = (0..7).filter_map(|_| balancer.pick(&all, &weights)).collect();
    assert_eq!(picks, [0, 1, 2, 0, 1, 2, 0]);
    assert_eq!(balancer.pick(&all[..1], &Weights::of(&all[..1])), Some(0));
    assert_eq!(balancer.pick::<Fake>(&[], &Weights::default()), None);
}

#[test]
fn weighted_round_robin_is_exact_and_even() {
    fastrand::seed(3);
    let (balancer, all) = (RoundRobin::default(), fakes(&[1.0, 2.0, 5.0]));
    let weights = Weights::of(&all);
    let picks: Vec<usize> = (0..8_000).map(|_| balancer.pick(&all, &weights).unwrap()).collect();
    for (index, expected) in [(0, 1000_i64), (1, 2000), (2, 5000)] {
        let count = picks.iter().filter(|pick| **pick == index).count() as i64;
        assert!((count - expected).abs() <= 1, "{index}: {count}");
    }
    // No eight turns in a row have the heavy one less than four times.
    assert!(picks.windows(8).all(|turns| turns.iter().filter(|pick| **pick == 2).count() >= 4));
    balancer.reset();
    let fewer = fakes(&[2.0, 1.0]);
    let table = Weights::of(&fewer);
    close(&shares(3_000, 2, || balancer.pick(&fewer, &table).unwrap()), &[0.667, 0.333], 0.01);
}

#[test]
fn least_request_evens_out_what_is_in_flight() {
    fastrand::seed(4);
    let all = fakes(&[1.0; 10]);
    let weights = Weights::of(&all);
    let balancer = TwoChoices::new(Choice::LeastRequest);
    for _ in 0..1_000 {
        let index = balancer.pick(&all, &weights).unwrap();
        all[index].in_flight.set(all[index].in_flight.get() + 1);
    }
    // A single random choice would differ by some forty.
    let loads: Vec<usize> = all.iter().map(|fake| fake.in_flight.get()).collect();
    assert!(loads.iter().all(|load| (95..=105).contains(load)), "{loads:?}");
}

#[test]
fn least_request_respects_weights() {
    fastrand::seed(5);
    let all = fakes(&[1.0, 3.0]);
    let weights = Weights::of(&all);
    let balancer = TwoChoices::new(Choice::LeastRequest);
    for _ in 0..4_000 {
        let index = balancer.pick(&all, &weights).unwrap();
        all[index].in_flight.set(all[index].in_flight.get() + 1);
    }
    let load = all[0].in_flight.get();
    assert!((990..=1_010).contains(&load), "{load} of 4000");
}

#[test]
fn endpoints_that_have_nothing_to_do_get_their_weights() {
    fastrand::seed(7);
    let all = fakes(&[1.0, 3.0]);
    let weights = Weights::of(&all);
    for by in [Choice::LeastRequest, Choice::PeakEwma] {
        let balancer = TwoChoices::new(by);
        close(&shares(10_000, 2, || balancer.pick(&all, &weights).unwrap()), &[0.25, 0.75], 0.02);
    }
}

#[test]
fn peak_ewma_avoids_the_slow_one() {
    fastrand::seed(6);
    let mut all = fakes(&[1.0; 3]);
    all[2].latency = 0.21;
    let weights = Weights::of(&all);
    let balancer = TwoChoices::new(Choice::PeakEwma);
    // Without load in flight the slow one is chosen only if drawn twice, which cannot be.
    let shares = shares(10_000, 3, || balancer.pick(&all, &weights).unwrap());
    assert!(shares[2] < 0.001, "{shares:?}");
}

fn names(count: usize) -> Vec<(String, f64)> {
    (0..count).map(|index| (format!("10.0.0.{index}:80"), 1.0)).collect()
}

/// The share of keys that each of the endpoints gets.
fn spread(count: usize, pick: impl Fn(u64) -> usize) -> Vec<f64> {
    let mut key = 0_u64;
    shares(100_000, count, || {
        key += 1;
        pick(hash(&key.to_le_bytes()))
    })
}

#[test]
fn ring_and_maglev_spread_by_weight() {
    let mut endpoints = names(5);
    let maglev = Maglev::new(&endpoints, MAGLEV_SIZE);
    close(&spread(5, |key| maglev.pick(key, |_| true).unwrap()), &[0.2; 5], 0.01);
    let ring = Ring::new(&endpoints);
    close(&spread(5, |key| ring.pick(key, |_| true).unwrap()), &[0.2; 5], 0.05);
    endpoints[0].1 = 4.0;
    let expected = [0.5, 0.125, 0.125, 0.125, 0.125];
    let maglev = Maglev::new(&endpoints, MAGLEV_SIZE);
    close(&spread(5, |key| maglev.pick(key, |_| true).unwrap()), &expected, 0.01);
    let ring = Ring::new(&endpoints);
    close(&spread(5, |key| ring.pick(key, |_| true).unwrap()), &expected, 0.06);
}

/// How many of the keys that did not have to move moved, when the last of the endpoints went.
fn moved(build: impl Fn(&[(String, f64)]) -> Box<dyn Fn(u64) -> usize>) -> f64 {
    let all = names(10);
    let (before, after) = (build(&all), build(&all[..9]));
    let keys: Vec<u64> =
        (0..50_000_u64).map(|key| hash(&key.to_le_bytes())).filter(|key| before(*key) != 9).collect();
    let moved = keys.iter().filter(|key| before(**key) != after(**key)).count();
    moved as f64 / keys.len() as f64
}

#[test]
fn few_keys_move_when_an_endpoint_goes() {
    let ring = moved(|endpoints| {
        let ring = Ring::new(endpoints);
        Box::new(move |key| ring.pick(key, |_| true).unwrap())
    });
    assert_eq!(ring, 0.0);
    let maglev = moved(|endpoints| {
        let maglev = Maglev::new(endpoints, MAGLEV_SIZE);
        Box::new(move |key| maglev.pick(key, |_| true).unwrap())
    });
    assert!(maglev < 0.03, "{maglev}");
}

#[test]
fn an_endpoint_that_is_out_moves_its_own_keys_only_and_to_all_others() {
    let endpoints = names(6);
    for table in [Table::Ring(Ring::new(&endpoints)), Table::Maglev(Maglev::new(&endpoints, MAGLEV_SIZE))] {
        let mut heirs = [0; 6];
        for key in (0..20_000_u64).map(|key| hash(&key.to_le_bytes())) {
            let (before, after) =
                (table.pick(key, |_| true).unwrap(), table.pick(key, |index| index != 3).unwrap());
            if before == 3 {
                heirs[after] += 1;
            } else {
                assert_eq!(before, after);
            }
        }
        assert!([0, 1, 2, 4, 5].iter().all(|heir| heirs[*heir] > 300), "{heirs:?}");
        assert_eq!(table.pick(7, |_| false), None);
    }
    let many: Vec<(String, f64)> = names(200).into_iter().map(|(name, _)| (name, 100.0)).collect();
    assert!(Ring::new(&many).pick(1, |_| true).is_some());
    assert_eq!(Ring::new(&[]).pick(1, |_| true), None);
    assert_eq!(Maglev::new(&[], MAGLEV_SIZE).pick(1, |_| true), None);
}
