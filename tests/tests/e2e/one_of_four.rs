//! One of four endpoints fails, is slow, flaps, or swallows packets: what that costs clients, what share of the requests it
//! gets, and when it is back, with outlier detection and with health checks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use http::Response;
use meshgate_tests::{Ask, Backend, BlackHole, Client, Load, Meshgate, Reply, Setup, full, until};
use serde_json::Value;
use tokio::sync::Semaphore;

/// Three endpoints that are well, and a bad one.
struct Four {
    good: Vec<Backend>,
    bad: Bad,
}

enum Bad {
    Backend(Backend),
    Nowhere(BlackHole),
}

/// A way to be bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// Every answer is a 500.
    Failing,
    /// Ten answers are 500, ten are good, and so on.
    Flapping,
    /// No answer comes.
    Slow,
    /// A good answer comes, after [`LATE`].
    Late,
    /// No connection is made.
    BlackHoled,
}

impl Four {
    async fn with(trouble: Trouble) -> Four {
        let mut good = Vec::new();
        for name in ["a", "b", "c"] {
            good.push(Backend::echo(name).await);
        }
        let asked = Arc::new(AtomicUsize::new(0));
        let answer = move |_, _| {
            let flap = (asked.fetch_add(1, SeqCst) / 10).is_multiple_of(2);
            async move {
                let status = match trouble {
                    Trouble::Slow | Trouble::BlackHoled => return std::future::pending().await,
                    Trouble::Late => {
                        tokio::time::sleep(LATE).await;
                        200
                    }
                    Trouble::Failing => 500,
                    Trouble::Flapping => [200, 500][usize::from(flap)],
                };
                Ok(Response::builder().status(status).header("x-backend", "bad").body(full("")).unwrap())
            }
        };
        let bad = match trouble {
            Trouble::BlackHoled => Bad::Nowhere(BlackHole::start()),
            _ => Bad::Backend(Backend::answering("bad", answer).await),
        };
        Four { good, bad }
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        let bad = match &self.bad {
            Bad::Backend(backend) => backend.address(),
            Bad::Nowhere(hole) => hole.address(),
        };
        self.good.iter().map(Backend::address).chain([bad]).collect()
    }

    /// A proxy in front of them, whose requests and connections have little time.
    fn behind(&self, keys: &str) -> Setup {
        let keys = format!("connect_timeout: 200ms, {keys}");
        Meshgate::chain("").workers(2).listener("request_timeout: 400ms").cluster_of(
            "one",
            &self.addresses(),
            &keys,
        )
    }
}

fn judge(reply: &Reply) -> Result<(), String> {
    if reply.status == 200 { Ok(()) } else { Err(reply.status.to_string()) }
}

/// What the admin API says of the bad one.
async fn shown(gate: &Meshgate) -> Value {
    gate.admin("/clusters").await.json()["clusters"][0]["endpoints"][3].clone()
}

/// How long an answer takes that is late: long beside one over loopback, even on a busy machine.
const LATE: Duration = Duration::from_millis(300);
/// Errors in a row that eject.
const ERRORS: usize = 5;
/// Clients that ask at a time.
const CLIENTS: usize = 16;
/// Requests after the first ejection.
const REQUESTS: u64 = 2_000;

/// However much is asked, an ejection costs the errors in a row that make it and, at most, what was on its way to the endpoint
/// when it was made.
async fn costs(trouble: Trouble, keys: &str) {
    let four = Four::with(trouble).await;
    let keys = format!("outlier_detection: {{{keys}, max_ejection_percent: 25, ejection_time: 1h}}");
    let gate = four.behind(&keys).start().await;
    let load = Load::start(gate.address(), CLIENTS, || Ask::get("/"), judge);
    until("the endpoint is ejected", || async { (shown(&gate).await["ejections"] == 1).then_some(()) }).await;
    load.wait_for_more(REQUESTS).await;
    let tally = load.stop().await;
    assert!(tally.unanswered.is_empty(), "{:?}", tally.unanswered);
    let failed = tally.bad.len();
    assert!(
        (ERRORS..ERRORS + CLIENTS).contains(&failed),
        "{failed} of {} failed: {:?}",
        tally.sent,
        tally.bad
    );
    assert_eq!(shown(&gate).await["ejections"], 1);
    // It had no request after that, and the others had equal shares of them.
    let shares: Vec<usize> = four.good.iter().map(Backend::requests).collect();
    let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
    assert!(most - least <= 2 * ERRORS + CLIENTS, "{shares:?}");
    assert_eq!(shares.iter().sum::<usize>() as u64, tally.good);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_fails_costs_one_ejection() {
    costs(Trouble::Failing, "consecutive_errors: 5").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_does_not_answer_costs_one_ejection() {
    costs(Trouble::Slow, "consecutive_local_errors: 5").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_swallows_packets_costs_one_ejection() {
    costs(Trouble::BlackHoled, "consecutive_local_errors: 5").await;
}

#[tokio::test]
async fn one_that_flaps_is_back_when_its_time_is_over_and_has_its_share_then() {
    // In this order: what it stays away for grows with each ejection, up to the longest.
    const AWAY: [u64; 5] = [150, 300, 400, 400, 400];
    let four = Four::with(Trouble::Flapping).await;
    let detection = "outlier_detection: {consecutive_errors: 5, ejection_time: 150ms, max_ejection_time: 400ms, \
                     interval: 1h, max_ejection_percent: 25}";
    let gate = four.behind(detection).workers(1).start().await;
    let mut client = gate.client().await;
    let mut ask = async || {
        let began = Instant::now();
        let reply = client.get("/").await;
        (began, reply.status.as_u16(), reply.header("x-backend") == "bad")
    };
    // The proxy counts in milliseconds.
    let millisecond = Duration::from_millis(1);
    let mut errors = 0;
    for (ejection, away) in AWAY.into_iter().enumerate() {
        let away = Duration::from_millis(away);
        let mut others = None;
        // It is ejected somewhere between the begin and the end of the request with the fifth error in a row.
        let (earliest, latest) = loop {
            let (began, status, bad) = ask().await;
            if !bad {
                others = others.map(|others: usize| others + 1);
                continue;
            }
            // While it is not away it has every fourth request.
            assert!(others.is_none_or(|others| others == 3), "{others:?} requests of the others in between");
            others = Some(0);
            errors = if status == 500 { errors + 1 } else { 0 };
            if errors == ERRORS {
                break (began, Instant::now());
            }
        };
        let mut late = 0;
        let status = loop {
            let (began, status, bad) = ask().await;
            if bad {
                assert!(
                    Instant::now() + millisecond >= earliest + away,
                    "ejection {ejection}: back too early"
                );
                break status;
            }
            late += usize::from(began > latest + away + millisecond);
            assert!(late <= 4, "ejection {ejection}: its time is over, and it has no request");
            tokio::time::sleep(millisecond).await;
        };
        // Its first ten answers are bad, the next ten are good, and so on: every second time it comes back well.
        assert_eq!(status, [500, 200][ejection % 2], "ejection {ejection}");
        errors = usize::from(status == 500);
        assert_eq!(shown(&gate).await["ejections"], ejection + 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_answers_late_gets_less_than_a_tenth_of_peak_ewma_and_none_of_its_answers_is_lost() {
    const CLIENTS: usize = 4;
    let four = Four::with(Trouble::Late).await;
    let setup = Meshgate::chain("").workers(2);
    let gate = setup.cluster_of("one", &four.addresses(), "load_balancer: peak_ewma").start().await;
    let load = Load::start(gate.address(), CLIENTS, || Ask::get("/"), judge);
    load.wait_for_more(2_000).await;
    let all = load.stop().await.all_good();
    let good: usize = four.good.iter().map(Backend::requests).sum();
    let late = all - good as u64;
    assert!(late * 10 < all, "{late} of {all}");
    let known = shown(&gate).await;
    assert_eq!(known["ejections"], 0, "{known}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_slow_holds_up_no_more_than_half_of_the_clients_of_least_request() {
    const CLIENTS: usize = 8;
    let mut good = Vec::new();
    for name in ["a", "b", "c"] {
        good.push(Backend::echo(name).await);
    }
    // As slow as can be: it answers when the test says.
    let permits = Arc::new(Semaphore::new(0));
    let waiting = Arc::clone(&permits);
    let slow = Backend::answering("slow", move |_, _| {
        let waiting = Arc::clone(&waiting);
        async move {
            waiting.acquire().await.unwrap().forget();
            Ok(Response::new(full("")))
        }
    })
    .await;
    let all: Vec<_> = good.iter().chain([&slow]).map(Backend::address).collect();
    let gate = Meshgate::chain("").cluster_of("one", &all, "load_balancer: least_request").start().await;
    let load = Load::start(gate.address(), CLIENTS, || Ask::get("/"), judge);
    // The slow one gets a request only if the other that is drawn has as many in flight: together no more than all clients have.
    for _ in 0..5 {
        load.wait_for_more(300).await;
        let held = slow.requests();
        assert!(held <= CLIENTS / 2, "{held} of {CLIENTS}");
    }
    permits.add_permits(100_000);
    let before = slow.requests() as u64;
    load.wait_for_more(300).await;
    load.stop().await.all_good();
    assert!(slow.requests() as u64 > before, "it is one of four again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_holds_requests_gets_no_more_of_them_from_least_request() {
    let mut good = Vec::new();
    for name in ["a", "b", "c"] {
        good.push(Backend::echo(name).await);
    }
    let permits = Arc::new(Semaphore::new(0));
    let waiting = Arc::clone(&permits);
    let slow = Backend::answering("slow", move |_, _| {
        let waiting = Arc::clone(&waiting);
        async move {
            waiting.acquire().await.unwrap().forget();
            Ok(Response::new(full("")))
        }
    })
    .await;
    let mut all: Vec<_> = good.iter().map(Backend::address).collect();
    all.push(slow.address());
    let gate =
        Meshgate::chain("").workers(2).cluster_of("one", &all, "load_balancer: least_request").start().await;
    let address = gate.address();
    let stuck = tokio::spawn(async move {
        let mut client = Client::http1(address).await;
        loop {
            if client.get("/").await.header("x-backend").is_empty() {
                return;
            }
        }
    });
    slow.wait_for_requests(1).await;
    // With one request at a time, each other endpoint has none: it has fewer than the slow one, whichever two are drawn.
    for _ in 0..300 {
        assert!(!gate.get("/").await.header("x-backend").is_empty());
    }
    assert_eq!(slow.requests(), 1);
    permits.add_permits(1);
    stuck.await.unwrap();
    permits.add_permits(100_000);
    until("it gets requests again", || async {
        gate.get("/").await;
        (slow.requests() > 2).then_some(())
    })
    .await;
}

/// An endpoint whose state the test sets: how it answers, checks included.
struct Patient {
    backend: Backend,
    /// 200 or 500; 0 for no answer.
    status: Arc<AtomicUsize>,
}

impl Patient {
    async fn new() -> Patient {
        let status = Arc::new(AtomicUsize::new(200));
        let told = Arc::clone(&status);
        let backend = Backend::answering("patient", move |_, _| {
            let status = told.load(SeqCst);
            async move {
                match u16::try_from(status).unwrap() {
                    0 => std::future::pending().await,
                    status => Ok(Response::builder().status(status).body(full("")).unwrap()),
                }
            }
        });
        Patient { backend: backend.await, status }
    }

    fn requests(&self) -> usize {
        asked(&self.backend)
    }
}

/// Requests that were no checks.
fn asked(backend: &Backend) -> usize {
    backend.seen().iter().filter(|seen| seen.path == "/").count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_falls_ill_costs_what_is_asked_until_the_checks_know_it() {
    let mut good = Vec::new();
    for name in ["a", "b", "c"] {
        good.push(Backend::echo(name).await);
    }
    let patient = Patient::new().await;
    let mut all: Vec<_> = good.iter().map(Backend::address).collect();
    all.push(patient.backend.address());
    let check = "health_check: {http: {path: /health}, interval: 20ms, jitter: 0, timeout: 200ms, \
                 healthy_threshold: 2, unhealthy_threshold: 3}";
    let setup = Meshgate::chain("").workers(2).listener("request_timeout: 400ms");
    let gate = setup.cluster_of("one", &all, check).start().await;
    let until_health = async |health: &str| {
        until(format!("it is {health}"), || async { (shown(&gate).await["health"] == health).then_some(()) })
            .await;
    };
    for ill in [500, 0] {
        let load = Load::start(gate.address(), 4, || Ask::get("/"), judge);
        load.wait_for_more(50).await;
        patient.status.store(ill, SeqCst);
        until_health("unhealthy").await;
        let cost = load.stop().await;
        assert!(cost.bad.len() <= patient.requests(), "only its own requests failed: {:?}", cost.bad);

        // From then on, nothing.
        let before = patient.requests();
        let load = Load::start(gate.address(), 4, || Ask::get("/"), judge);
        load.wait_for_more(500).await;
        load.stop().await.all_good();
        assert_eq!(patient.requests(), before);

        patient.status.store(200, SeqCst);
        until_health("healthy").await;
        let (before, others) = (patient.requests(), good.iter().map(asked).sum::<usize>());
        let load = Load::start(gate.address(), 4, || Ask::get("/"), judge);
        load.wait_for_more(400).await;
        load.stop().await.all_good();
        // Its share again: one in four of each worker's own round, wherever in it the round began and ended.
        let share = patient.requests() - before;
        let all = good.iter().map(asked).sum::<usize>() - others + share;
        assert!(share.abs_diff(all / 4) <= 4, "{share} of {all}");
    }
}
