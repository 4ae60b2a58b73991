//! Full load with bodies of 1 MiB in both directions: byte-identical, in bounded memory.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use meshgate_tests::{Answer, Ask, Backend, Client, Meshgate, Seen, full, within};
use tokio::task::JoinSet;

/// Bytes of one body.
const BODY: usize = 1024 * 1024;
/// Connections at a time.
const CONNECTIONS: usize = 64;
/// What the proxy may take beside what it has at rest. Holding the bodies themselves would take twice as much.
const BOUND: u64 = CONNECTIONS as u64 * BODY as u64;

/// Bytes without a pattern, eight times as many as a body: each body is a window into them, so that two bodies differ
/// everywhere, and any byte lost, doubled or moved shows.
static NOISE: LazyLock<Bytes> = LazyLock::new(|| {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.take(BODY).flatten().collect::<Vec<u8>>().into()
});

/// The body with this number.
fn window(number: usize) -> Bytes {
    let start = number.wrapping_mul(7919 * 64) % (NOISE.len() - BODY);
    NOISE.slice(start..start + BODY)
}

/// Compares a body with the expected one as it comes, without keeping it.
async fn same(mut body: Incoming, expected: Bytes) -> Result<(), String> {
    let mut at = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| format!("broken after {at} bytes: {error}"))?;
        let Ok(bytes) = frame.into_data() else { continue };
        if expected.get(at..at + bytes.len()) != Some(&*bytes) {
            return Err(format!("differs between byte {at} and {}", at + bytes.len()));
        }
        at += bytes.len();
    }
    if at == expected.len() { Ok(()) } else { Err(format!("ended after {at} bytes")) }
}

/// Compares what comes with window `x-up`, and answers with window `x-down`.
async fn compare(seen: Seen, request: http::Request<Incoming>) -> Answer {
    let number = |name| seen.header(name).parse::<usize>().unwrap();
    let mut answer = Response::new(full(window(number("x-down"))));
    if let Err(wrong) = same(request.into_body(), window(number("x-up"))).await {
        *answer.status_mut() = http::StatusCode::BAD_REQUEST;
        *answer.body_mut() = full(wrong);
    }
    Ok(answer)
}

async fn exchange(client: &mut Client, number: usize) {
    let ask = Ask::new(Method::POST, "/", full(window(number)))
        .header("x-up", &number.to_string())
        .header("x-down", &(number + 1).to_string());
    let response = within("a response head", client.start(ask)).await.unwrap();
    assert_eq!(response.status(), 200, "the request's body arrived changed");
    let result = within("a response body", same(response.into_body(), window(number + 1))).await;
    assert_eq!(result, Ok(()), "the response's body");
}

/// Runs the load through `chain`, for `MESHGATE_TEST_SECONDS` or a few seconds.
async fn load(chain: &str) {
    let seconds = std::env::var("MESHGATE_TEST_SECONDS").map_or(5, |seconds| seconds.parse().unwrap());
    let one = Backend::answering("one", compare).await;
    let gate = Meshgate::chain(chain).workers(2).cluster("one", &[&one]).start().await;
    let at_rest = gate.memory().0;
    let end = Instant::now() + Duration::from_secs(seconds);

    let address = gate.address();
    let numbers = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let mut connections = JoinSet::new();
    for connection in 0..CONNECTIONS {
        let numbers = Arc::clone(&numbers);
        connections.spawn(async move {
            let mut client = match connection % 2 {
                0 => Client::http1(address).await,
                _ => Client::http2(address).await,
            };
            while Instant::now() < end {
                exchange(&mut client, numbers.fetch_add(1, std::sync::atomic::Ordering::Relaxed)).await;
            }
        });
    }
    while let Some(connection) = connections.join_next().await {
        connection.unwrap();
    }

    let exchanges = numbers.load(std::sync::atomic::Ordering::Relaxed);
    assert!(exchanges >= CONNECTIONS, "every connection got through at least once: {exchanges}");
    assert_eq!(one.requests(), exchanges);
    let highest = gate.memory().1;
    println!(
        "{exchanges} exchanges in {seconds} s, {at_rest} bytes of memory at rest, {highest} at the highest"
    );
    assert!(
        highest < at_rest + BOUND,
        "{at_rest} bytes at rest, {highest} at the highest, {exchanges} exchanges"
    );
    gate.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_filters_that_leave_bodies_alone() {
    load("- telemetry: {}\n- headers: {response: {set: {x-a: b}}}").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_leave_nothing_behind_on_long_connections() {
    // Every answer has a field of its own. HTTP/2's header compression remembers fields, and what it remembers must not hold
    // on to the buffer in which field and body arrived.
    const ANSWERS: usize = 60;
    const PART: usize = 128 * 1024;
    const CLIENTS: usize = 24;
    let one = Backend::answering("one", async |seen, _| {
        let number = seen.path.trim_start_matches('/').parse().unwrap();
        let answer = Response::builder().header("x-own", format!("answer-{number}"));
        Ok(answer.body(full(window(number).slice(..PART))).unwrap())
    })
    .await;
    let gate = Meshgate::chain("").cluster("one", &[&one]).start().await;
    let mut connections = JoinSet::new();
    let at_rest = gate.memory().0;
    for client in 0..CLIENTS {
        let address = gate.address();
        connections.spawn(async move {
            let mut connection = Client::http2(address).await;
            for answer in 0..ANSWERS {
                let number = client * ANSWERS + answer;
                assert_eq!(connection.get(&format!("/{number}")).await.body, window(number).slice(..PART));
            }
            connection
        });
    }
    let connections = connections.join_all().await;
    let now = gate.memory().0;
    println!("{at_rest} bytes of memory at rest, {now} with {CLIENTS} idle connections");
    // All answers together are three times as much.
    assert!(
        now < at_rest + BOUND,
        "{at_rest} bytes at rest, {now} with {} idle connections",
        connections.len()
    );
}
