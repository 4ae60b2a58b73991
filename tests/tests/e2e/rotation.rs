//! Certificates that are renewed all the time under new handshakes: none fails, each new certificate is shown, what is no pair is
//! not taken, and nothing is left behind.
//!
//! Some hundred times as a rule; `MESHGATE_ROTATIONS=10000` makes it more. What it took is printed, see `docs/testing.md`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use meshgate_tests::{Authority, Backend, Issued, Meshgate, Says, TlsClient, within};
use tokio::task::JoinHandle;

const NAME: &str = "a.example.com";
const ROTATIONS: usize = 200;
/// How much more memory the second half of the rotations may end with than the first.
const GROWTH: u64 = 8 * 1024 * 1024;
/// One rotation in so many comes by way of a pair that is none.
const DETOURS: usize = 10;

/// Clients that shake hands anew all the time until they are told to stop. Each says how often it did.
fn comers(client: &TlsClient, address: std::net::SocketAddr, stop: &Arc<AtomicBool>) -> Vec<JoinHandle<u64>> {
    // Some keep their sessions, some do not.
    let clients = [client.clone(), client.clone().forgetful(), client.clone().forgetful()];
    let come = |client: TlsClient| {
        let stop = Arc::clone(stop);
        tokio::spawn(async move {
            let mut served = 0;
            while !stop.load(Relaxed) {
                let reply = client.http1(address).await.get("/").await;
                assert_eq!(reply.status, 200, "{}", reply.text());
                served += 1;
            }
            served
        })
    };
    clients.into_iter().map(come).collect()
}

/// Puts a new pair into the place of the old one. Returns when the second half was put there.
fn rotate(gate: &Meshgate, round: usize, new: &Issued, stranger: &Issued) -> Instant {
    if round.is_multiple_of(DETOURS) {
        match round / DETOURS % 3 {
            0 => gate.replace("web.key", &stranger.key),
            1 => gate.replace("web.pem", &new.certificate[..new.certificate.len() / 2]),
            _ => gate.replace("web.pem", ""),
        }
    }
    let (first, second) = match round % 2 {
        0 => (("web.key", &new.key), ("web.pem", &new.certificate)),
        _ => (("web.pem", &new.certificate), ("web.key", &new.key)),
    };
    gate.replace(first.0, first.1);
    let changed = Instant::now();
    gate.replace(second.0, second.1);
    changed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewed_certificates_are_used_at_once_and_no_handshake_fails() {
    let rotations =
        std::env::var("MESHGATE_ROTATIONS").ok().map_or(ROTATIONS, |count| count.parse().unwrap());
    let authority = Authority::new();
    let backend = Backend::echo("one").await;
    let issue = || authority.issue(&Says::name(NAME));
    let mut shown = issue();
    let setup = Meshgate::chain("- headers: {response: {set: {x-a: b}}}").workers(2);
    let setup = setup.listener("tls: {certificates: [{certificate: web.pem, key: web.key}]}");
    let gate = setup.pair("web", &shown).cluster("one", &[&backend]).start().await;
    let address = gate.address();
    let client = TlsClient::new(NAME, &authority);
    let fresh = client.clone().forgetful();
    let stop = Arc::new(AtomicBool::new(false));
    let comers = comers(&client, address, &stop);

    let mut times: Vec<Duration> = Vec::with_capacity(rotations);
    let mut memory = Vec::with_capacity(rotations);
    let mut files = Vec::new();
    for round in 0..rotations {
        shown = issue();
        let changed = rotate(&gate, round, &shown, &issue());
        within(format!("the certificate of round {round}"), async {
            while !fresh.connect(address).await.shows(&shown) {}
        })
        .await;
        times.push(changed.elapsed());
        memory.push(gate.memory().0);
        files.push(gate.open_files());
    }
    stop.store(true, Relaxed);
    let mut handshakes = 0;
    for comer in comers {
        handshakes += comer.await.unwrap();
    }
    gate.reload_until("the last pair is loaded", |reload| reload.errors.is_none()).await;

    let metrics = gate.metrics().await;
    let sum = |name: &str| metrics.sum(name, &[]);
    assert_eq!(sum("meshgate_downstream_tls_handshakes_failed_total"), 0.0);
    assert_eq!(sum("meshgate_downstream_tls_handshakes_timed_out_total"), 0.0);
    // By themselves, not with the whole configuration after its quiet time.
    let renewed = gate.log().all().iter().filter(|line| line.contains("certificates renewed")).count();
    assert!(renewed >= rotations / 2, "{renewed} of {rotations}");

    let (first, second) =
        (median(&memory[rotations / 4..rotations / 2]), median(&memory[rotations * 3 / 4..]));
    assert!(second < first + GROWTH, "memory grew from {first} to {second} bytes");
    times.sort_unstable();
    let quantile = |share: f64| times[(share * (rotations - 1) as f64) as usize];
    println!(
        "{rotations} rotations, {renewed} taken by themselves, {handshakes} other handshakes, none failed; from the change to the end \
         of a handshake that shows it: p50 {:?}, p99 {:?}, longest {:?}; resident memory {} kB at first, {} kB at the end; open \
         files {} at first, {} at most, {} at the end",
        quantile(0.5),
        quantile(0.99),
        quantile(1.0),
        memory[0] / 1024,
        memory[rotations - 1] / 1024,
        files[0],
        files.iter().max().unwrap(),
        gate.open_files(),
    );
    gate.stop().await;
}

fn median(values: &[u64]) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}
