//! The filter in the simulated host.

use std::time::Duration;

use meshgate_sdk::testing::{Begun, Proxy, Request, Response};

use super::Admission;

/// A limit that stays what it is.
const FIXED: &str = r#""name": "shop", "min": 4, "max": 4, "retry_after": "1500ms""#;

fn proxy(rest: &str) -> Proxy {
    Proxy::new::<Admission>(&format!("{{{FIXED}{rest}}}"))
}

fn results(proxy: &Proxy, priority: &str) -> [i64; 2] {
    ["admitted", "rejected"].map(|result| {
        let labels = [("admission", "shop"), ("priority", priority), ("result", result)];
        proxy.metric("meshgate_admission_requests_total", &labels)
    })
}

fn begin(proxy: &mut Proxy, many: usize, request: &Request) -> Vec<Begun> {
    (0..many).map(|_| proxy.begin(request.clone())).collect()
}

#[test]
fn no_more_at_a_time_than_the_limit() {
    let mut proxy = proxy("");
    let mut begun = begin(&mut proxy, 4, &Request::get("/"));
    let done = proxy.send(Request::get("/"));
    assert_eq!((done.status(), done.flags()), (503, vec!["DO"]));
    let said = ["retry-after", "x-envoy-overloaded"].map(|name| done.header(name).unwrap());
    assert_eq!(
        (said, done.text().as_str()),
        (["2", "true"].map(str::to_owned), "too many requests at a time")
    );
    proxy.give_up(begun.pop().unwrap());
    for begun in begun {
        assert_eq!(proxy.send(Request::get("/")).status(), 200, "one has left");
        assert_eq!(proxy.finish(begun).status(), 200);
    }
    assert_eq!(results(&proxy, "others"), [7, 1]);
}

#[test]
fn who_matters_less_is_turned_away_first() {
    let mut proxy = proxy(
        r#", "priorities": [
            {"name": "critical", "match": {"headers": {"x-priority": "critical"}}, "share": 100},
            {"name": "batch", "match": {"path": "/export/**"}, "share": 25},
            {"name": "rest", "share": 75}
        ]"#,
    );
    let critical = Request::get("/export/1").header("x-priority", "critical");
    let (batch, rest) = (Request::get("/export/1"), Request::get("/"));
    let mut begun = begin(&mut proxy, 1, &batch);
    assert_eq!(proxy.send(batch.clone()).status(), 503, "one in four is in use");
    begun.extend(begin(&mut proxy, 2, &rest));
    assert_eq!(proxy.send(rest).status(), 503, "three in four are");
    begun.extend(begin(&mut proxy, 1, &critical));
    assert_eq!(proxy.send(critical).status(), 503, "all are");
    assert_eq!(results(&proxy, "critical"), [1, 1]);
    assert_eq!(results(&proxy, "batch"), [1, 1]);
    assert_eq!(results(&proxy, "rest"), [2, 1]);
    for begun in begun {
        assert_eq!(proxy.finish(begun).status(), 200);
    }
    assert_eq!(proxy.send(batch).status(), 200);
}

#[test]
fn what_does_not_count_passes() {
    let mut proxy = proxy(r#", "match": {"path": "/counted/**"}"#);
    let counted = begin(&mut proxy, 4, &Request::get("/counted/1"));
    assert_eq!(proxy.send(Request::get("/counted/1")).status(), 503);
    assert_eq!(proxy.send(Request::get("/events")).status(), 200);
    counted.into_iter().for_each(|begun| proxy.give_up(begun));
    assert_eq!(results(&proxy, "others"), [4, 1]);
}

/// So many at a time, each of which takes so long, for a while.
fn load(proxy: &mut Proxy, at_a_time: usize, takes: Duration, rounds: u32) -> usize {
    let mut most = 0;
    for _ in 0..rounds {
        let begun = begin(proxy, at_a_time, &Request::get("/"));
        proxy.advance(takes);
        let served =
            begun.into_iter().map(|begun| proxy.finish(begun).status()).filter(|status| *status == 200);
        most = served.count();
    }
    most
}

#[test]
fn the_limit_follows_how_long_requests_take_for_new_workers_too() {
    let mut proxy = Proxy::new::<Admission>(r#"{"name": "shop", "samples": 3}"#);
    let base = Duration::from_millis(20);
    let limit = |proxy: &Proxy| proxy.metric("meshgate_admission_limit", &[("admission", "shop")]);
    // They do not wait: there may be more and more.
    assert_eq!(load(&mut proxy, 200, base, 150), 200);
    assert!(limit(&proxy) >= 200, "{}", limit(&proxy));
    assert_eq!(
        proxy.metric("meshgate_admission_base_latency_microseconds", &[("admission", "shop")]),
        20_000
    );
    // They wait, however few there are.
    assert!(load(&mut proxy, 200, base * 10, 30) <= 4);
    proxy.restart();
    assert!(load(&mut proxy, 200, base * 10, 1) <= 4, "what was learned is not lost");
    assert!(load(&mut proxy, 200, base, 200) >= 190, "and it recovers");
}

#[test]
fn a_service_that_says_that_it_is_overloaded_gets_less() {
    let mut proxy = Proxy::new::<Admission>(r#"{"name": "shop", "samples": 3}"#);
    proxy.endpoint(|_| Response::new(503));
    for _ in 0..200 {
        let begun = begin(&mut proxy, 20, &Request::get("/"));
        proxy.advance(Duration::from_millis(100));
        begun.into_iter().for_each(|begun| drop(proxy.finish(begun)));
    }
    assert_eq!(proxy.metric("meshgate_admission_limit", &[("admission", "shop")]), 3);
}

#[test]
fn mistakes_are_refused_with_their_place() {
    for (config, said) in [
        (r#"{}"#, "missing field `name`"),
        (r#"{"name": ""}"#, "name: say what is protected"),
        (r#"{"name": "a", "min": 0}"#, "min: a limit of 0"),
        (r#"{"name": "a", "min": 9, "max": 8}"#, "max: the greatest limit is less"),
        (r#"{"name": "a", "initial": 2}"#, "initial: it is not between"),
        (r#"{"name": "a", "tolerance": 0.5}"#, "tolerance: a tolerance is from 1"),
        (r#"{"name": "a", "samples": 0}"#, "samples: from 1"),
        (r#"{"name": "a", "interval": "0s"}"#, "interval: no time is too short"),
        (r#"{"name": "a", "match": {"path": "x"}}"#, "match/path: "),
        (r#"{"name": "a", "priorities": [{"name": "others", "share": 5}]}"#, "priorities/0/name: "),
        (
            r#"{"name": "a", "priorities": [{"name": "b", "share": 5}, {"name": "b", "share": 5}]}"#,
            "priorities/1/name: another priority",
        ),
        (
            r#"{"name": "a", "priorities": [{"name": "b", "share": 0}]}"#,
            "priorities/0/share: a share is from 1",
        ),
        (
            r#"{"name": "a", "priorities": [{"name": "b", "share": 5, "match": {"method": []}}]}"#,
            "priorities/0/match/method: ",
        ),
    ] {
        let refusal = Proxy::refusal::<Admission>(config);
        assert!(refusal.contains(said), "{refusal}");
    }
}
