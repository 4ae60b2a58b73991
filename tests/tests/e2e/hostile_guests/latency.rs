//! What the neighbour of a hostile guest notices: its latency, before and during the attack.

use std::time::{Duration, Instant};

use meshgate_tests::{Ask, Backend, Client, HostileGuest, Load, Meshgate, Timed};

use super::arena::{Arena, answer, stamped, with_trailers};
use super::stalls::Stalls;

/// Connections of the neighbour's clients.
const CONNECTIONS: usize = 8;

/// How long the neighbour's answers are timed in a row. What the machine does otherwise changes by the minute, so that harmless
/// requests and attacks take turns, and it falls on both.
const TURN: Duration = Duration::from_secs(2);

/// How long they are not timed before that: connections are opened, and caches filled.
const WARM: Duration = Duration::from_millis(300);

/// Not a test but a measurement: the healthy neighbour's latency beside each guest, attacked over and over, on the one
/// worker that both share. `docs/safety.md` has the figures, and how to get them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement of many minutes; its figures mean something on a quiet machine only"]
async fn neighbours_latency() {
    let only = std::env::var("MESHGATE_GUESTS").unwrap_or_default();
    let mut found = Vec::new();
    for guest in HostileGuest::all() {
        let wanted = only.is_empty() || only.split(',').any(|part| guest.name.starts_with(part));
        if guest.says("refused").is_some() || !wanted {
            continue;
        }
        let (before, during) = measure(&guest).await;
        say(&format!("{:34} {}", guest.name, compared(&before, &during)));
        found.push(ratio(&before, &during));
    }
    found.sort_by(f64::total_cmp);
    let median = found.get(found.len() / 2).unwrap_or(&0.0);
    let doubled = found.iter().filter(|ratio| **ratio > 2.0).count();
    say(&format!(
        "{} guests: p99 × {median:.2} at the median, more than doubled beside {doubled}",
        found.len()
    ));
}

/// The neighbour's answers beside as many requests to its own filter, and beside attacks. What the attackers' connections and
/// requests cost whatever filter they meet is not the guest's doing.
async fn measure(guest: &HostileGuest) -> (Vec<Timed>, Vec<Timed>) {
    let short = number("MESHGATE_SHORT", 6);
    // Failures count by the minute: a filter that fails over and over is out for most of it.
    let long = number("MESHGATE_LONG", 20);
    let length = Duration::from_secs(if guest.fails() { long } else { short }.into());
    // Two proxies, since some guests go on when they are not attacked any more.
    let calm = Arena::with(vec![guest.clone()]).await;
    let attacked = Arena::with(vec![guest.clone()]).await;
    let path = format!("/{}", guest.name);
    let (mut before, mut during) = (Vec::new(), Vec::new());
    attacked.gate.hold();
    let stalls = Stalls::watch();
    for _ in 0..length.as_secs().div_ceil(TURN.as_secs()) {
        before.extend(turn(&calm, "/healthy").await);
        attacked.gate.release();
        during.extend(turn(&attacked, &path).await);
        attacked.gate.hold();
    }
    let stood = stalls.end();
    for times in [&mut before, &mut during] {
        stood.leave_out(times);
        times.sort_unstable_by_key(|timed| timed.took);
    }
    (before, during)
}

/// The neighbour's answers beside requests for this path.
async fn turn(arena: &Arena, path: &str) -> Vec<Timed> {
    let attacks = number("MESHGATE_ATTACKS_PER_SECOND", 20);
    tokio::select! {
        times = neighbour(arena) => times,
        () = requests(arena, path, attacks) => unreachable!("it goes on"),
    }
}

async fn neighbour(arena: &Arena) -> Vec<Timed> {
    let rate = number("MESHGATE_RATE", 400);
    let load = Load::paced(arena.gate.address(), CONNECTIONS, rate, || Ask::get("/healthy"), stamped);
    tokio::time::sleep(WARM).await;
    let since = Instant::now();
    tokio::time::sleep(TURN).await;
    let mut tally = load.stop().await;
    tally.all_good();
    tally.times.retain(|timed| timed.began >= since);
    tally.times
}

/// So many requests a second, each on a connection of its own, for ever.
async fn requests(arena: &Arena, path: &str, a_second: u32) {
    let mut interval = tokio::time::interval(Duration::from_secs(1) / a_second);
    loop {
        interval.tick().await;
        let ask = with_trailers(path).header("x-attack", "1");
        let mut client = Client::http2(arena.gate.address()).await;
        // Some are answered late or not at all.
        tokio::spawn(async move { drop(client.try_call(ask).await) });
    }
}

fn number(variable: &str, otherwise: u32) -> u32 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// The time within which this share of the answers came, of which the shortest comes first.
fn quantile(times: &[Timed], share: f64) -> Duration {
    let last = times.len().saturating_sub(1);
    times.get((last as f64 * share) as usize).map_or(Duration::ZERO, |timed| timed.took)
}

fn ratio(before: &[Timed], during: &[Timed]) -> f64 {
    quantile(during, 0.99).as_secs_f64() / quantile(before, 0.99).as_secs_f64()
}

/// Both loads' figures in a line.
pub(super) fn compared(before: &[Timed], during: &[Timed]) -> String {
    let [one, other] = [before, during].map(figures);
    format!("before: {one}; during: {other}; p99 × {:.2}", ratio(before, during))
}

fn figures(times: &[Timed]) -> String {
    let [p50, p99, most] = [0.5, 0.99, 1.0].map(|share| quantile(times, share).as_micros());
    format!("p50 {p50:>5} µs, p99 {p99:>6} µs, longest {most:>6} µs of {:>4}", times.len())
}

#[expect(clippy::print_stderr, reason = "figures for who runs the test with --nocapture")]
pub(super) fn say(line: &str) {
    eprintln!("{line}");
}

/// Not a test but a measurement: how long after its limit a loop's exchange is answered by the filter's policy, and how
/// long the next one through the same filter takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement; its figures mean something on a quiet machine only"]
async fn loops_are_stopped() {
    let guest = HostileGuest::all().into_iter().find(|guest| guest.name == "01-loop").expect("it is there");
    for limit in [1, 2, 5, 10, 20] {
        say(&format!("time: {limit:>2}ms: {}", attacks(&guest, &format!("time: {limit}ms")).await));
    }
}

/// Not a test but a measurement: how soon each guest that fails is answered for, and how long the next exchange through the same
/// filter takes, which meets a new VM.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement; its figures mean something on a quiet machine only"]
async fn failed_filters_go_on() {
    for guest in HostileGuest::all() {
        if !guest.fails() || guest.says("next").is_some() || guest.says("ask").is_some() {
            continue;
        }
        let limits = guest.says("limits").unwrap_or_default().trim_matches(['{', '}']).to_owned();
        say(&format!("{:34} {}", guest.name, attacks(&guest, &limits).await));
    }
}

/// What attacks take until they are answered, and what the two exchanges after each take, without what the machine stood still in.
/// The second of the two finds all as it was: it tells what any exchange takes on this machine.
async fn attacks(guest: &HostileGuest, limits: &str) -> String {
    let one = Backend::answering("one", answer).await;
    let more = if limits.is_empty() { String::new() } else { format!(", {limits}") };
    let limits = format!("limits: {{crashes: 1000000, cpu_percent: 100{more}}}");
    let gate = Meshgate::chain("- guest: {}").filter("guest", &guest.module, &limits);
    let gate = gate.cluster("one", &[&one]).start().await;
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    let stalls = Stalls::watch();
    for _ in 0..number("MESHGATE_ATTACKS", 200) {
        for (times, attack) in times.iter_mut().zip([true, false, false]) {
            let ask = with_trailers("/");
            let ask = if attack { ask.header("x-attack", "1") } else { ask };
            let mut client = Client::http2(gate.address()).await;
            let began = Instant::now();
            assert_eq!(client.call(ask).await.status, if attack { 503 } else { 200 }, "{}", guest.name);
            times.push(Timed { began, took: began.elapsed() });
        }
    }
    let stood = stalls.end();
    gate.stop().await;
    let [stopped, next, third] = times.map(|mut times| {
        stood.leave_out(&mut times);
        times.sort_unstable_by_key(|timed| timed.took);
        figures(&times)
    });
    format!("answered after {stopped}; the next exchange: {next}; the one after that: {third}")
}
