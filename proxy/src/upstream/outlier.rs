//! Outlier detection: an endpoint that fails is left out for a while, by what its answers show.
//!
//! Errors in a row eject at once; the success rate is compared at intervals. An endpoint stays away for `ejection_time`,
//! times the number of its ejections of late; each interval without one takes one off that number. Never more endpoints
//! than `max_ejection_percent` are away, but one may always be.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use meshgate_config::{OutlierDetection, SuccessRate};

use super::error::{UpstreamError, UpstreamErrorKind};
use super::shared::{Member, Millis, SharedCluster, SharedEndpoint};

/// How an attempt at an endpoint ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Any answer below 500.
    Success,
    /// An answer from 500, but none of a gateway.
    ServerError,
    /// 502, 503 or 504.
    GatewayError,
    /// No answer: not connected, reset, or too late.
    NoAnswer,
}

impl Outcome {
    /// The outcome of an answer with this status.
    pub fn of(status: u16) -> Outcome {
        match status {
            502..=504 => Outcome::GatewayError,
            500.. => Outcome::ServerError,
            _ => Outcome::Success,
        }
    }

    /// What an attempt that failed says about its endpoint; nothing if others are to blame.
    pub fn of_failure(error: &UpstreamError) -> Option<Outcome> {
        match &error.kind {
            // An idle connection that closes is nobody's failure, nor is a server that goes and says so; the others never came to an endpoint or broke before it.
            UpstreamErrorKind::Reset { reused: true }
            | UpstreamErrorKind::NoEndpoint
            | UpstreamErrorKind::Overflow
            | UpstreamErrorKind::Refused
            | UpstreamErrorKind::NoUpgrades
            | UpstreamErrorKind::RequestBody(_) => None,
            _ => Some(Outcome::NoAnswer),
        }
    }
}

/// Notes an outcome, and ejects if it is one too many. True if an endpoint was ejected.
pub(super) fn report(
    settings: &OutlierDetection,
    shared: &SharedCluster,
    endpoint: &SharedEndpoint,
    outcome: Outcome,
    now: Millis,
) -> bool {
    if settings.success_rate.is_some() {
        endpoint.requests.fetch_add(1, Relaxed);
        if outcome == Outcome::Success {
            endpoint.successes.fetch_add(1, Relaxed);
        }
    }
    let too_many = count(settings, endpoint, outcome);
    let ejected = too_many && eject(settings, shared, endpoint, now);
    sweep_if_due(settings, shared, now) || ejected
}

/// Counts what comes in a row; true if it is one too many.
fn count(settings: &OutlierDetection, endpoint: &SharedEndpoint, outcome: Outcome) -> bool {
    let apart = settings.consecutive_local_errors.is_some();
    let tally = |counter: &AtomicU32, hit: bool, resets: bool, limit: Option<u32>| match (hit, limit) {
        (true, Some(limit)) => counter.fetch_add(1, Relaxed) + 1 >= limit,
        // Most endpoints have nothing to reset, and a store would take the line from the other workers.
        _ if resets && counter.load(Relaxed) != 0 => {
            counter.store(0, Relaxed);
            false
        }
        _ => false,
    };
    let answered = outcome != Outcome::NoAnswer;
    let error = matches!(outcome, Outcome::ServerError | Outcome::GatewayError);
    let errors = tally(
        &endpoint.errors,
        error || (!answered && !apart),
        answered && !error,
        settings.consecutive_errors,
    );
    // A reset or a timeout looks like a gateway's error to the client, which gets 503 or 504 from us.
    let gateway = outcome == Outcome::GatewayError || (!answered && !apart);
    let gateways =
        tally(&endpoint.gateway_errors, gateway, answered && !gateway, settings.consecutive_gateway_errors);
    let local = tally(&endpoint.local_errors, !answered, answered, settings.consecutive_local_errors);
    errors || gateways || local
}

/// Ejects the endpoint unless too many are away already.
fn eject(
    settings: &OutlierDetection,
    shared: &SharedCluster,
    endpoint: &SharedEndpoint,
    now: Millis,
) -> bool {
    let _deciding = shared.decide_ejections();
    if endpoint.is_ejected(now) {
        return false;
    }
    let all = shared.members();
    let away = all.iter().filter(|member| member.shared().is_ejected(now)).count();
    let allowed = (all.len() * settings.max_ejection_percent as usize / 100).max(1);
    if away >= allowed {
        return false;
    }
    let times = endpoint.ejections.fetch_add(1, Relaxed).saturating_add(1);
    let longest = settings.max_ejection_time.max(settings.ejection_time);
    let away_for = settings.ejection_time.saturating_mul(times).min(longest);
    endpoint.all_ejections.fetch_add(1, Relaxed);
    endpoint.ejected_until.store(now.saturating_add(millis(away_for)), Relaxed);
    // It comes back with a clean slate.
    for counter in [&endpoint.errors, &endpoint.gateway_errors, &endpoint.local_errors] {
        counter.store(0, Relaxed);
    }
    shared.change();
    true
}

fn millis(time: Duration) -> Millis {
    Millis::try_from(time.as_millis()).unwrap_or(Millis::MAX)
}

/// Once per interval: compares success rates, and forgets old ejections.
fn sweep_if_due(settings: &OutlierDetection, shared: &SharedCluster, now: Millis) -> bool {
    let interval = millis(settings.interval).max(1);
    let last = shared.last_sweep.load(Relaxed);
    let intervals = now.saturating_sub(last) / interval;
    if intervals == 0 || shared.last_sweep.compare_exchange(last, now, Relaxed, Relaxed).is_err() {
        return false;
    }
    for member in shared.members().iter() {
        let endpoint = member.shared();
        let (until, ejections) = (endpoint.ejected_until.load(Relaxed), endpoint.ejections.load(Relaxed));
        if ejections > 0 && until <= now {
            // Only intervals in which it was back count.
            let healthy = now.saturating_sub(until.max(last)) / interval;
            let fewer = ejections.saturating_sub(u32::try_from(healthy).unwrap_or(u32::MAX));
            endpoint.ejections.store(fewer, Relaxed);
        }
    }
    settings.success_rate.as_ref().is_some_and(|rate| compare(settings, rate, shared, now))
}

/// Ejects the endpoints whose success rate is far below the others'.
fn compare(settings: &OutlierDetection, rate: &SuccessRate, shared: &SharedCluster, now: Millis) -> bool {
    let members = shared.members();
    let mut rates = Vec::with_capacity(members.len());
    for endpoint in members.iter().map(Member::shared) {
        let (requests, successes) = (endpoint.requests.swap(0, Relaxed), endpoint.successes.swap(0, Relaxed));
        if requests >= u64::from(rate.requests) && !endpoint.is_ejected(now) {
            rates.push((endpoint, successes as f64 / requests as f64));
        }
    }
    if rates.len() < rate.endpoints as usize {
        return false;
    }
    let count = rates.len() as f64;
    let mean = rates.iter().map(|(_, rate)| rate).sum::<f64>() / count;
    let variance = rates.iter().map(|(_, rate)| (rate - mean).powi(2)).sum::<f64>() / count;
    let lowest = mean - rate.deviations * variance.sqrt();
    let mut ejected = false;
    for (endpoint, _) in rates.into_iter().filter(|(_, rate)| *rate < lowest) {
        ejected |= eject(settings, shared, endpoint, now);
    }
    ejected
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(endpoints: u16) -> SharedCluster {
        let addresses: Vec<_> = (1..=endpoints).map(|port| ([127, 0, 0, 1], port).into()).collect();
        SharedCluster::new(&crate::upstream::tests::configuration(&addresses))
    }

    /// Reports about the endpoint with this number.
    fn report(
        settings: &OutlierDetection,
        shared: &SharedCluster,
        index: usize,
        outcome: Outcome,
        now: Millis,
    ) -> bool {
        super::report(settings, shared, shared.members()[index].shared(), outcome, now)
    }

    const BAD: Outcome = Outcome::ServerError;

    fn settings() -> OutlierDetection {
        OutlierDetection {
            consecutive_errors: Some(5),
            consecutive_gateway_errors: None,
            consecutive_local_errors: None,
            success_rate: None,
            interval: Duration::from_secs(10),
            ejection_time: Duration::from_secs(30),
            max_ejection_time: Duration::from_secs(300),
            max_ejection_percent: 50,
        }
    }

    fn times(
        count: usize,
        settings: &OutlierDetection,
        shared: &SharedCluster,
        index: usize,
        outcome: Outcome,
        now: Millis,
    ) -> bool {
        (0..count).any(|_| report(settings, shared, index, outcome, now))
    }

    fn away(shared: &SharedCluster, now: Millis) -> Vec<usize> {
        (0..shared.members().len())
            .filter(|index| shared.members()[*index].shared().is_ejected(now))
            .collect()
    }

    #[test]
    fn errors_in_a_row_eject_at_once_and_for_longer_each_time() {
        let (settings, shared) = (settings(), shared(4));
        assert!(!times(4, &settings, &shared, 1, BAD, 100));
        report(&settings, &shared, 1, Outcome::Success, 100);
        assert!(!times(4, &settings, &shared, 1, BAD, 200), "a success in between starts anew");
        let generation = shared.generation();
        assert!(report(&settings, &shared, 1, BAD, 300));
        assert!(shared.generation() > generation);
        assert_eq!((away(&shared, 30_299), away(&shared, 30_300)), (vec![1], vec![]));
        assert!(times(5, &settings, &shared, 1, BAD, 30_300));
        assert_eq!((away(&shared, 90_299), away(&shared, 90_300)), (vec![1], vec![]));
    }

    #[test]
    fn time_without_ejections_is_forgiven() {
        let (settings, shared) = (settings(), shared(4));
        for at in [1_000, 40_000, 105_000] {
            assert!(times(5, &settings, &shared, 0, BAD, at));
        }
        assert_eq!(away(&shared, 194_999), [0], "90 s from 105 s on");
        assert_eq!(shared.members()[0].shared().ejections.load(Relaxed), 3);
        // Two healthy intervals after its return.
        report(&settings, &shared, 1, Outcome::Success, 215_000);
        assert_eq!(shared.members()[0].shared().ejections.load(Relaxed), 1);
        for at in 220..600 {
            report(&settings, &shared, 1, Outcome::Success, at * 1_000);
        }
        assert_eq!(shared.members()[0].shared().ejections.load(Relaxed), 0);
    }

    #[test]
    fn ejections_do_not_last_for_ever() {
        let (settings, shared) = (settings(), shared(4));
        shared.members()[2].shared().ejections.store(1_000_000, Relaxed);
        assert!(times(5, &settings, &shared, 2, BAD, 1_000));
        assert_eq!((away(&shared, 300_999), away(&shared, 301_000)), (vec![2], vec![]));
    }

    #[test]
    fn never_more_than_allowed_but_always_one() {
        for (endpoints, percent, allowed) in [(4, 50, 2), (4, 10, 1), (1, 10, 1), (10, 100, 10), (3, 50, 1)] {
            let (mut settings, shared) = (settings(), shared(endpoints));
            settings.max_ejection_percent = percent;
            for index in 0..usize::from(endpoints) {
                times(10, &settings, &shared, index, BAD, 1_000);
            }
            assert_eq!(away(&shared, 1_001).len(), allowed, "{endpoints} endpoints, {percent} %");
        }
    }

    #[test]
    fn what_counts_as_what() {
        let mut apart = settings();
        apart.consecutive_local_errors = Some(2);
        apart.consecutive_gateway_errors = Some(3);
        let ejects = |settings: &OutlierDetection, outcomes: &[Outcome]| {
            let shared = shared(2);
            outcomes
                .iter()
                .position(|outcome| report(settings, &shared, 0, *outcome, 1))
                .map(|index| index + 1)
        };
        use Outcome::{GatewayError, NoAnswer, ServerError, Success};
        assert_eq!(ejects(&settings(), &[NoAnswer; 9]), Some(5), "no answer is an error like others");
        assert_eq!(ejects(&apart, &[NoAnswer; 9]), Some(2));
        assert_eq!(ejects(&apart, &[NoAnswer, ServerError, NoAnswer, ServerError, NoAnswer]), None);
        assert_eq!(ejects(&apart, &[GatewayError; 9]), Some(3));
        assert_eq!(
            ejects(&apart, &[GatewayError, GatewayError, ServerError, GatewayError, ServerError]),
            Some(5)
        );
        assert_eq!(ejects(&apart, &[GatewayError, Success, GatewayError, Success, GatewayError]), None);
        assert_eq!(
            [200, 404, 499, 500, 501, 502, 503, 504, 505].map(Outcome::of),
            [
                Success,
                Success,
                Success,
                ServerError,
                ServerError,
                GatewayError,
                GatewayError,
                GatewayError,
                ServerError
            ]
        );
    }

    #[test]
    fn success_rates_are_compared_at_intervals() {
        let mut settings = settings();
        settings.consecutive_errors = None;
        settings.success_rate = Some(SuccessRate { requests: 100, endpoints: 5, deviations: 1.9 });
        let shared = shared(6);
        for index in 0..6 {
            for n in 0..200 {
                let bad = index == 4 && n % 3 == 0;
                report(&settings, &shared, index, if bad { BAD } else { Outcome::Success }, 5_000);
            }
        }
        assert!(away(&shared, 9_999).is_empty());
        assert!(report(&settings, &shared, 0, Outcome::Success, 10_001));
        assert_eq!(away(&shared, 10_002), [4]);
        // Too few requests since then: nothing to compare.
        assert!(!report(&settings, &shared, 0, BAD, 20_100));
    }

    #[test]
    fn workers_at_once_eject_no_more_than_allowed() {
        let (settings, shared) = (settings(), shared(8));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for round in 0..1_000 {
                        times(5, &settings, &shared, round % 8, BAD, 1_000);
                        assert!(away(&shared, 1_001).len() <= 4);
                    }
                });
            }
        });
        assert_eq!(away(&shared, 1_001).len(), 4);
    }
}
