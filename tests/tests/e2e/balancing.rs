//! Load balancing and outlier detection, seen from the clients and the endpoints.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use meshgate_tests::{
    Ask, Backend, Client, Meshgate, Seen, Setup, SocketBackend, full, streamed, until, within,
    within_binomial_bounds,
};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

async fn backends(count: usize) -> Vec<Backend> {
    let mut backends = Vec::new();
    for number in 1..=count {
        backends.push(Backend::echo(&format!("b{number}")).await);
    }
    backends
}

/// Answers 500, always.
async fn broken() -> Backend {
    let answer = async |_, _| {
        let mut answer = Response::new(full("broken"));
        *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        Ok(answer)
    };
    Backend::answering("broken", answer).await
}

fn addresses(backends: &[&Backend]) -> Vec<SocketAddr> {
    backends.iter().map(|backend| backend.address()).collect()
}

fn refs(backends: &[Backend]) -> Vec<&Backend> {
    backends.iter().collect()
}

/// Sends so many requests, each on a connection of its own, so that every worker gets some; counts the backends' names.
async fn answers(gate: &Meshgate, requests: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..requests {
        let reply = gate.get("/").await;
        let name = if reply.status == 200 { reply.header("x-backend") } else { reply.status.as_str() };
        *counts.entry(name.to_owned()).or_default() += 1;
    }
    counts
}

#[tokio::test]
async fn weights_are_kept_exactly_by_round_robin() {
    let backends = backends(2).await;
    let endpoints = format!(
        "[{{address: {}, weight: 3}}, {{address: {}, weight: 1}}]",
        backends[0].address(),
        backends[1].address()
    );
    let gate = Meshgate::with(&format!(
        "admin: {{address: 127.0.0.1:0}}\naccess_log: {{format: json}}\nworkers: 1\n\
         listeners: [{{name: web, address: 127.0.0.1:0, cluster: one}}]\n\
         clusters: [{{name: one, endpoints: {endpoints}}}]\n"
    ))
    .start()
    .await;
    let counts = answers(&gate, 80).await;
    assert!((59..=61).contains(&counts["b1"]) && (19..=21).contains(&counts["b2"]), "{counts:?}");
}

#[tokio::test]
async fn row_13_endpoint_that_fails_is_left_out_by_all_workers_and_comes_back_in_time() {
    let (good, bad) = (backends(3).await, broken().await);
    let mut all = refs(&good);
    all.push(&bad);
    let detection = "outlier_detection: {consecutive_errors: 5, ejection_time: 2s, max_ejection_percent: 50}";
    let gate = Meshgate::chain("").workers(2).cluster_of("one", &addresses(&all), detection).start().await;

    let labels = [("cluster", "one"), ("endpoint", &*bad.address().to_string())];
    let ejected_now = async || gate.metrics().await.sum("meshgate_endpoint_ejected", &labels);
    assert_eq!(ejected_now().await, 0.0);
    // Until the fifth failure in a row it gets its share; both workers count.
    until("the endpoint is ejected", || async {
        gate.get("/").await;
        (bad.requests() == 5).then_some(())
    })
    .await;
    let ejected = Instant::now();
    let counts = answers(&gate, 120).await;
    if ejected.elapsed() < Duration::from_secs(2) {
        assert_eq!(counts.get("500"), None, "{counts:?}");
        assert_eq!(bad.requests(), 5);
        assert_eq!(ejected_now().await, 1.0);
    }
    let page = gate.admin("/clusters").await.json();
    let shown = &page["clusters"][0]["endpoints"][3];
    assert_eq!(
        (&shown["address"], &shown["ejections"]),
        (&bad.address().to_string().into(), &1.into()),
        "{page}"
    );
    assert_eq!(gate.metrics().await.sum("meshgate_endpoint_ejections_total", &labels), 1.0);
    let warning = "endpoint ejected cluster=one";
    gate.log().wait(warning, |line| line.contains(warning).then_some(())).await;

    until("the endpoint is tried again", || async {
        gate.get("/").await;
        (bad.requests() > 5).then_some(())
    })
    .await;
    assert!(ejected.elapsed() >= Duration::from_millis(1_900), "back after {:?}", ejected.elapsed());
    assert_eq!(ejected_now().await, 0.0);
}

#[tokio::test]
async fn where_all_fail_no_more_than_the_configured_share_is_ejected() {
    let mut all = Vec::new();
    for _ in 0..4 {
        all.push(broken().await);
    }
    let detection = "outlier_detection: {consecutive_errors: 5, ejection_time: 1h, max_ejection_percent: 50}";
    let gate =
        Meshgate::chain("").workers(2).cluster_of("one", &addresses(&refs(&all)), detection).start().await;
    let ejected = async || gate.metrics().await.sum("meshgate_endpoint_ejected", &[("cluster", "one")]);
    until("two are ejected", || async {
        assert_eq!(gate.get("/").await.status, 500);
        (ejected().await == 2.0).then_some(())
    })
    .await;
    // Far more errors than would eject the others, too.
    let before: Vec<usize> = all.iter().map(Backend::requests).collect();
    let counts = answers(&gate, 60).await;
    assert_eq!(
        counts,
        BTreeMap::from([("500".to_owned(), 60)]),
        "the endpoints' own answers, and none of the proxy's"
    );
    let shares: Vec<usize> = all.iter().zip(before).map(|(one, before)| one.requests() - before).collect();
    assert_eq!(shares.iter().filter(|share| **share == 0).count(), 2, "{shares:?}");
    // Each of two workers goes round by itself.
    assert!(shares.iter().all(|share| *share == 0 || (28..=32).contains(share)), "{shares:?}");
    assert_eq!(ejected().await, 2.0);
    assert_eq!(gate.metrics().await.sum("meshgate_endpoint_ejections_total", &[]), 2.0);
}

#[tokio::test]
async fn streams_of_an_endpoint_that_is_ejected_live_on() {
    for protocol in ["http1", "http2"] {
        let (opened, mut streams) = mpsc::unbounded_channel();
        // Bodies of `/stream` are the test's to send; everything else fails.
        let answer = move |seen: Seen, _: Request<Incoming>| {
            let (sender, body) = streamed();
            let failing = seen.path != "/stream";
            if !failing {
                let _ = opened.send(sender);
            }
            async move { Ok(Response::builder().status(if failing { 500 } else { 200 }).body(body).unwrap()) }
        };
        let (patient, good) = match protocol {
            "http2" => (Backend::http2("patient", answer).await, Backend::http2_echo("good").await),
            _ => (Backend::answering("patient", answer).await, Backend::echo("good").await),
        };
        let detection =
            "outlier_detection: {consecutive_errors: 5, ejection_time: 1h, max_ejection_percent: 50}";
        let keys = format!("protocol: {protocol}, {detection}");
        let gate = Meshgate::chain("").cluster_of("one", &addresses(&[&patient, &good]), &keys).start().await;
        let mut client = gate.client().await;
        let mut body = loop {
            let response = within("a head", client.start(Ask::get("/stream"))).await.unwrap();
            if !response.headers().contains_key("x-backend") {
                break response.into_body();
            }
            response.into_body().collect().await.unwrap();
        };
        let mut sender = within("the stream", streams.recv()).await.unwrap();
        sender.send_data("before, ".into()).await.unwrap();
        let part = within("a part", body.frame()).await.unwrap().unwrap();
        assert_eq!(part.into_data().unwrap(), "before, ");

        until("the endpoint is ejected", || async {
            gate.get("/").await;
            (gate.metrics().await.sum("meshgate_endpoint_ejected", &[]) == 1.0).then_some(())
        })
        .await;
        let asked = patient.requests();
        assert_eq!(answers(&gate, 20).await, BTreeMap::from([("good".to_owned(), 20)]), "{protocol}");
        for part in ["while it is away, ", "and to the end"] {
            sender.send_data(part.into()).await.unwrap();
        }
        drop(sender);
        let rest = within("the rest", body.collect()).await.unwrap().to_bytes();
        assert_eq!(rest, "while it is away, and to the end", "{protocol}");
        assert_eq!(patient.requests(), asked, "{protocol}");
    }
}

#[tokio::test]
async fn endpoint_that_refuses_connections_costs_few_requests() {
    let good = backends(3).await;
    let gone = Backend::echo("gone").await.address();
    let mut all = addresses(&refs(&good));
    all.push(gone);
    let detection = "outlier_detection: {consecutive_local_errors: 3}";
    let gate = Meshgate::chain("").cluster_of("one", &all, detection).start().await;
    let counts = answers(&gate, 200).await;
    assert_eq!(counts.get("503"), Some(&3), "{counts:?}");
}

#[tokio::test]
async fn what_is_known_of_an_endpoint_outlives_a_reload() {
    let (good, bad) = (backends(2).await, broken().await);
    let detection = "outlier_detection: {max_ejection_percent: 50}";
    let setup = |all: &[&Backend]| Meshgate::chain("").cluster_of("one", &addresses(all), detection);
    let gate = setup(&[&good[0], &bad]).start().await;
    answers(&gate, 20).await;
    assert_eq!(bad.requests(), 5);

    let before = gate.reload().await;
    gate.edit("meshgate.yaml", setup(&[&bad, &good[0], &good[1]]).yaml());
    gate.reloaded(&before).await;
    let counts = answers(&gate, 20).await;
    assert_eq!(counts, BTreeMap::from([("b1".to_owned(), 10), ("b2".to_owned(), 10)]));
    assert_eq!(bad.requests(), 5);
}

#[tokio::test]
async fn same_key_goes_to_the_same_endpoint_on_every_worker() {
    let backends = backends(5).await;
    for balancer in ["ring_hash: {by: {header: x-user}}", "maglev: {by: {header: x-user}}"] {
        let gate = Meshgate::chain("")
            .workers(2)
            .cluster_of("one", &addresses(&refs(&backends)), &format!("load_balancer: {{{balancer}}}"))
            .start()
            .await;
        let mut homes = BTreeMap::<String, usize>::new();
        for user in 0..120 {
            let ask = || Ask::get("/").header("x-user", &format!("user {user}"));
            let home = gate.call(ask()).await.header("x-backend").to_owned();
            for _ in 0..4 {
                assert_eq!(gate.call(ask()).await.header("x-backend"), home, "user {user}");
            }
            let mut http2 = Client::http2(gate.address()).await;
            assert_eq!(http2.call(ask()).await.header("x-backend"), home, "user {user} over HTTP/2");
            *homes.entry(home).or_default() += 1;
        }
        assert_eq!(homes.len(), 5, "{homes:?}");
    }
}

#[tokio::test]
async fn a_key_is_a_header_a_cookie_or_a_parameter_of_the_query() {
    const USERS: usize = 40;
    let backends = backends(5).await;
    let all = addresses(&refs(&backends));
    for balancer in ["ring_hash", "maglev"] {
        let by = async |key: &str| {
            let keys = format!("load_balancer: {{{balancer}: {{by: {{{key}}}}}}}");
            Meshgate::chain("").workers(2).cluster_of("one", &all, &keys).start().await
        };
        let (header, cookie, query) =
            (by("header: x-user").await, by("cookie: session").await, by("query: user").await);
        let home_of = async |gate: &Meshgate, ask: Ask| gate.call(ask).await.header("x-backend").to_owned();
        let mut homes = BTreeMap::<String, usize>::new();
        for user in 0..USERS {
            let home = home_of(&header, Ask::get("/").header("x-user", &format!("u{user}"))).await;
            // The same key leads to the same endpoint, wherever it stands, whatever else there is, on every worker.
            for turn in 0..3 {
                let cookies = format!("a=b; session=u{user}; sessions={turn}");
                let ask = Ask::get("/?user=other").header("x-user", "other").header("cookie", &cookies);
                assert_eq!(home_of(&cookie, ask).await, home, "{balancer}: {cookies}");
                let path = format!("/{turn}?a=b&user=u{user}&user=other&users={turn}");
                let ask = Ask::get(&path).header("x-user", "other").header("cookie", "session=other");
                assert_eq!(home_of(&query, ask).await, home, "{balancer}: {path}");
            }
            *homes.entry(home).or_default() += 1;
        }
        assert!(homes.len() > 1, "{balancer}: {homes:?}");
        // Without a key any will do: that one of five is left out by chance happens once in 10^8 times.
        for gate in [&cookie, &query] {
            let seen = answers(gate, 100).await;
            assert_eq!(seen.len(), 5, "{balancer}: {seen:?}");
        }
    }
}

/// The names of the backends that answer one client, in that order.
async fn sequence(gate: &Meshgate, requests: usize) -> Vec<String> {
    let mut client = gate.client().await;
    let mut names = Vec::new();
    for _ in 0..requests {
        names.push(client.get("/").await.header("x-backend").to_owned());
    }
    names
}

/// A proxy whose only cluster has these endpoints with these weights.
fn weighted(backends: &[&Backend], weights: &[usize], keys: &str) -> Setup {
    let entries: Vec<_> = backends
        .iter()
        .zip(weights)
        .map(|(backend, weight)| format!("{{address: \"{}\", weight: {weight}}}", backend.address()))
        .collect();
    Meshgate::with(&format!(
        "admin: {{address: 127.0.0.1:0}}\naccess_log: {{format: json}}\nworkers: 1\n\
         listeners: [{{name: web, address: 127.0.0.1:0, cluster: one}}]\n\
         clusters: [{{name: one, endpoints: [{}], {keys}}}]\n",
        entries.join(", ")
    ))
}

#[tokio::test]
async fn random_draws_by_weight_whatever_was_drawn_before() {
    const REQUESTS: usize = 2_000;
    let backends = backends(3).await;
    for weights in [[1, 1, 1], [5, 3, 2]] {
        let gate = weighted(&refs(&backends), &weights, "load_balancer: random").start().await;
        let names = sequence(&gate, REQUESTS).await;
        let total: usize = weights.iter().sum();
        let shares = weights.map(|weight| weight as f64 / total as f64);
        for (backend, share) in backends.iter().zip(shares) {
            let hits = names.iter().filter(|name| *name == backend.name()).count();
            assert!(
                within_binomial_bounds(hits, REQUESTS, share),
                "{}: {hits} of {weights:?}",
                backend.name()
            );
        }
        if weights == [1, 1, 1] {
            // Equal weights: each is drawn again with the probability that it has anyway.
            let again = names.windows(2).filter(|pair| pair[0] == pair[1]).count();
            assert!(within_binomial_bounds(again, REQUESTS - 1, 1.0 / 3.0), "{again} times the same again");
        }
    }
}

/// Backends whose answers wait for a permit each.
async fn held(count: usize) -> (Vec<Backend>, Arc<Semaphore>) {
    let permits = Arc::new(Semaphore::new(0));
    let mut held = Vec::new();
    for number in 1..=count {
        let permits = Arc::clone(&permits);
        let answer = move |_, _| {
            let permits = Arc::clone(&permits);
            async move {
                permits.acquire().await.unwrap().forget();
                Ok(Response::new(full("")))
            }
        };
        held.push(Backend::answering(&format!("b{number}"), answer).await);
    }
    (held, permits)
}

#[tokio::test]
async fn least_request_keeps_what_is_in_flight_to_the_weights() {
    const REQUESTS: usize = 40;
    let (backends, permits) = held(2).await;
    let gate = weighted(&refs(&backends), &[3, 1], "load_balancer: least_request").start().await;
    let mut clients = JoinSet::new();
    for sent in 1..=REQUESTS {
        let mut client = gate.client().await;
        clients.spawn(async move { client.get("/").await.status });
        // One after the other: each finds those before it under way.
        until("it is there", || async {
            (backends.iter().map(Backend::requests).sum::<usize>() == sent).then_some(())
        })
        .await;
        // Of two, both are drawn: the heavy one has three times as many in flight as the other, as near as whole numbers come.
        let light = backends[1].requests();
        assert!(light.abs_diff(sent / 4) <= 1, "{light} of {sent}");
    }
    permits.add_permits(REQUESTS);
    assert!(clients.join_all().await.iter().all(|status| *status == 200));
}

#[tokio::test]
async fn row_12_slow_endpoint_gets_little_of_peak_ewma() {
    let fast = backends(2).await;
    // Slow beside an answer over loopback, and fast enough not to hold up the test.
    let slow = Backend::answering("slow", async |_, _| {
        tokio::time::sleep(Duration::from_millis(60)).await;
        Ok(Response::new(full("slow")))
    })
    .await;
    let mut all = refs(&fast);
    all.push(&slow);
    let gate =
        Meshgate::chain("").cluster_of("one", &addresses(&all), "load_balancer: peak_ewma").start().await;
    answers(&gate, 300).await;
    // A new endpoint is taken for one of 30 ms, so each is tried; the slow one then loses every draw.
    assert!(slow.requests() <= 30, "{} of 300", slow.requests());
}

#[tokio::test]
async fn one_of_four_that_never_answers_costs_as_many_requests_as_configured() {
    let good = backends(3).await;
    // It accepts connections, and that is all.
    let black_hole = SocketBackend::start().await;
    let mut all = addresses(&refs(&good));
    all.push(black_hole.address());
    let detection = "outlier_detection: {consecutive_local_errors: 2, ejection_time: 1h}";
    let setup = Meshgate::chain("").listener("request_timeout: 2s");
    let gate = setup.cluster_of("one", &all, detection).start().await;
    let counts = answers(&gate, 100).await;
    assert_eq!(counts.get("504"), Some(&2), "{counts:?}");
}

#[tokio::test]
async fn one_of_four_that_flaps_costs_what_its_ejections_cost() {
    let good = backends(3).await;
    // Fails ten times, answers ten times, and so on.
    let asked = Arc::new(AtomicUsize::new(0));
    let flapping = Backend::answering("flapping", move |_, _| {
        let failing = (asked.fetch_add(1, Relaxed) / 10).is_multiple_of(2);
        let status = if failing { 500 } else { 200 };
        async move {
            Ok(Response::builder().status(status).header("x-backend", "flapping").body(full("")).unwrap())
        }
    })
    .await;
    let mut all = refs(&good);
    all.push(&flapping);
    let detection = "outlier_detection: {consecutive_errors: 5, ejection_time: 1ms, max_ejection_time: 5ms, max_ejection_percent: 50}";
    let gate = Meshgate::chain("").cluster_of("one", &addresses(&all), detection).start().await;
    let counts = answers(&gate, 400).await;
    let page = gate.admin("/clusters").await.json();
    let ejections = page["clusters"][0]["endpoints"][3]["ejections"].as_u64().unwrap() as usize;
    let failures = counts.get("500").copied().unwrap_or(0);
    // Five in a row for each ejection, and those of a row that has not come to its end.
    assert!(
        ejections >= 2 && (5 * ejections..5 * ejections + 5).contains(&failures),
        "{ejections}: {counts:?}"
    );
    assert!(counts["flapping"] >= 10, "it comes back: {counts:?}");
    assert_eq!(counts.values().sum::<usize>(), 400);
}

#[tokio::test]
async fn endpoint_with_the_lowest_success_rate_is_ejected() {
    let (good, bad) = (backends(4).await, broken().await);
    let mut all = refs(&good);
    all.push(&bad);
    let detection = "outlier_detection: {consecutive_errors: 0, success_rate: {requests: 5}, interval: 500ms, ejection_time: 1h}";
    let gate = Meshgate::chain("").cluster_of("one", &addresses(&all), detection).start().await;
    let labels = [("cluster", "one"), ("endpoint", &*bad.address().to_string())];
    until("it is ejected", || async {
        answers(&gate, 50).await;
        (gate.metrics().await.sum("meshgate_endpoint_ejections_total", &labels) == 1.0).then_some(())
    })
    .await;
    assert_eq!(answers(&gate, 40).await.get("500"), None);
    assert_eq!(gate.metrics().await.sum("meshgate_endpoint_ejections_total", &[]), 1.0);
}

#[tokio::test]
async fn gateway_errors_in_a_row_eject_and_other_errors_do_not() {
    for (status, ejects) in [(503, true), (500, false)] {
        let good = backends(3).await;
        let bad = Backend::answering("bad", move |_, _| {
            std::future::ready(Ok(Response::builder().status(status).body(full("")).unwrap()))
        })
        .await;
        let mut all = refs(&good);
        all.push(&bad);
        let detection =
            "outlier_detection: {consecutive_errors: 0, consecutive_gateway_errors: 3, ejection_time: 1h}";
        let gate = Meshgate::chain("").cluster_of("one", &addresses(&all), detection).start().await;
        let counts = answers(&gate, 80).await;
        let expected = if ejects { 3 } else { 20 };
        assert_eq!(counts.get(&status.to_string()), Some(&expected), "{counts:?}");
    }
}

#[tokio::test]
async fn endpoint_that_is_new_begins_with_a_tenth_of_its_share() {
    let all = backends(3).await;
    let setup = |all: &[&Backend]| Meshgate::chain("").cluster_of("one", &addresses(all), "slow_start: 1h");
    let gate = setup(&[&all[0], &all[1]]).start().await;
    answers(&gate, 10).await;
    let before = gate.reload().await;
    gate.edit("meshgate.yaml", setup(&[&all[0], &all[1], &all[2]]).yaml());
    gate.reloaded(&before).await;
    let counts = answers(&gate, 210).await;
    assert!((8..=12).contains(&counts["b3"]), "{counts:?}");
    assert!(counts["b1"].abs_diff(counts["b2"]) <= 2, "{counts:?}");
}

#[tokio::test]
async fn what_is_too_much_for_a_keys_endpoint_goes_to_others() {
    const REQUESTS: usize = 12;
    let gates = Arc::new(Semaphore::new(0));
    let mut all = Vec::new();
    for number in 1..=3 {
        let gates = Arc::clone(&gates);
        let held = move |_, _| {
            let gates = Arc::clone(&gates);
            async move {
                let _pass = gates.acquire().await;
                Ok(Response::new(full("")))
            }
        };
        all.push(Backend::answering(&format!("b{number}"), held).await);
    }
    let balancer = "load_balancer: {ring_hash: {by: {header: x-user}, max_load: 1.25}}";
    let gate = Meshgate::chain("").cluster_of("one", &addresses(&refs(&all)), balancer).start().await;
    let mut clients = JoinSet::new();
    for sent in 1..=REQUESTS {
        let mut client = gate.client().await;
        clients.spawn(async move { client.call(Ask::get("/").header("x-user", "anna")).await.status });
        // One after the other: each finds those before it under way.
        until("it is there", || async {
            (all.iter().map(Backend::requests).sum::<usize>() == sent).then_some(())
        })
        .await;
    }
    let shares: Vec<usize> = all.iter().map(Backend::requests).collect();
    // 1.25 times a third of twelve, or thirteen.
    assert!(shares.iter().all(|share| (1..=6).contains(share)), "{shares:?}");
    gates.add_permits(REQUESTS);
    assert!(clients.join_all().await.iter().all(|status| *status == 200));
}
