use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use meshgate_sdk::testing::{Proxy, Request, Response};

use crate::Retries;

/// A proxy whose endpoint answers the nth request by `answer`, and how many it got.
fn proxy(
    configuration: &str,
    mut answer: impl FnMut(usize, &Request) -> Response + 'static,
) -> (Proxy, Rc<Cell<usize>>) {
    let hits = Rc::new(Cell::new(0));
    let counted = Rc::clone(&hits);
    let mut proxy = Proxy::new::<Retries>(configuration);
    proxy.endpoint(move |request| {
        counted.set(counted.get() + 1);
        answer(counted.get(), request)
    });
    (proxy, hits)
}

/// How often a request is sent, and what the client gets, if the endpoint answers everything like that.
fn always(configuration: &str, request: Request, response: Response) -> (usize, u16) {
    let (mut proxy, hits) = proxy(configuration, move |_, _| response.clone());
    let status = proxy.send(request).status();
    (hits.get(), status)
}

#[test]
fn a_request_is_sent_as_often_as_is_said_and_tells_which_try_it_is() {
    let seen = Rc::new(std::cell::RefCell::new(Vec::new()));
    let numbers = Rc::clone(&seen);
    let (mut proxy, hits) = proxy(r#"{"if": ["5xx"], "attempts": 3}"#, move |_, request| {
        numbers.borrow_mut().push(request.field("x-envoy-attempt-count").unwrap());
        Response::new(500)
    });
    assert_eq!((proxy.send(Request::get("/")).status(), hits.get()), (500, 4));
    assert_eq!(*seen.borrow(), ["1", "2", "3", "4"]);
    assert_eq!(proxy.metric("meshgate_retries_total", &[("because", "5xx")]), 3);
    assert_eq!(proxy.metric("meshgate_retries_refused_total", &[("because", "attempts")]), 1);
}

#[test]
fn only_what_was_named_is_tried_again() {
    let get = || Request::get("/");
    for (conditions, response, hits) in [
        (r#"["5xx"]"#, Response::new(500), 2),
        (r#"["5xx"]"#, Response::new(404), 1),
        (r#"["5xx"]"#, Response::refused(), 2),
        (r#"["5xx"]"#, Response::reset(), 2),
        (r#"["gateway-error"]"#, Response::new(500), 1),
        (r#"["gateway-error"]"#, Response::new(502), 2),
        (r#"["connect-failure"]"#, Response::refused(), 2),
        (r#"["connect-failure"]"#, Response::reset(), 1),
        (r#"["connect-failure"]"#, Response::new(503), 1),
        (r#"["reset"]"#, Response::reset(), 2),
        (r#"["reset"]"#, Response::refused(), 1),
        (r#"["retriable-4xx"]"#, Response::new(409), 2),
        (r#"["retriable-4xx"]"#, Response::new(404), 1),
        (r#"[429, "500-503"]"#, Response::new(429), 2),
        (r#"[429, "500-503"]"#, Response::new(503), 2),
        (r#"[429, "500-503"]"#, Response::new(504), 1),
        (r#"[500]"#, Response::reset(), 1),
    ] {
        let configuration = format!(r#"{{"if": {conditions}, "attempts": 1}}"#);
        let (got, _) = always(&configuration, get(), response.clone());
        assert_eq!(got, hits, "{conditions} {response:?}");
    }
    // Without a word, what cannot have been processed.
    assert_eq!(always("{}", get(), Response::refused()), (3, 503));
    assert_eq!(always("{}", get(), Response::new(503)), (1, 503));
    assert_eq!(always(r#"{"if": ["5xx"], "attempts": 0}"#, get(), Response::new(500)), (1, 500));
}

#[test]
fn what_may_have_been_done_is_not_done_twice_unless_the_method_allows_it() {
    let conditions = r#""if": ["5xx"], "attempts": 1"#;
    let plain = format!("{{{conditions}}}");
    let post = || Request::post("/", "body");
    assert_eq!(always(&plain, post(), Response::new(503)), (1, 503));
    assert_eq!(always(&plain, post(), Response::reset()), (1, 503));
    assert_eq!(always(&plain, post(), Response::refused()), (2, 503));
    assert_eq!(always(&plain, Request::new("PUT", "/").body("x"), Response::new(503)), (2, 503));
    let named = format!(r#"{{{conditions}, "methods": ["POST"]}}"#);
    assert_eq!(always(&named, post(), Response::new(503)), (2, 503));
    assert_eq!(always(&named, Request::get("/"), Response::new(503)), (1, 503));
}

#[test]
fn bodies_are_sent_again_up_to_the_limit() {
    let configuration = r#"{"if": ["5xx"], "attempts": 1, "methods": ["POST"], "replay": "8B"}"#;
    assert_eq!(always(configuration, Request::post("/", "12345678"), Response::new(500)), (2, 500));
    assert_eq!(always(configuration, Request::post("/", "123456789"), Response::new(500)), (1, 500));
}

#[test]
fn an_endpoint_that_is_overloaded_or_counts_is_left_alone() {
    let configuration = r#"{"if": ["5xx", 429]}"#;
    for name in ["x-envoy-overloaded", "x-envoy-ratelimited"] {
        let response = Response::new(503).header(name, "true");
        assert_eq!(always(configuration, Request::get("/"), response), (1, 503));
    }
    // Unless that is what is named.
    let named = r#"{"if": ["envoy-ratelimited"], "attempts": 1}"#;
    let response = |name| Response::new(429).header(name, "true");
    assert_eq!(always(named, Request::get("/"), response("x-envoy-ratelimited")), (2, 429));
    assert_eq!(always(named, Request::get("/"), response("x-envoy-overloaded")), (1, 429));
    assert_eq!(always(named, Request::get("/"), Response::new(429)), (1, 429));
}

#[test]
fn endpoints_may_ask_for_another_try_by_a_field() {
    let any = r#"{"if": [{"header": "x-again"}], "attempts": 1}"#;
    let one = r#"{"if": [{"header": "x-again", "value": "yes"}], "attempts": 1}"#;
    for (configuration, value, hits) in
        [(any, Some(""), 2), (any, None, 1), (one, Some("yes"), 2), (one, Some("no"), 1), (one, None, 1)]
    {
        let mut response = Response::new(200);
        if let Some(value) = value {
            response = response.header("x-again", value);
        }
        assert_eq!(
            always(configuration, Request::get("/"), response),
            (hits, 200),
            "{configuration} {value:?}"
        );
    }
    assert_eq!(always(any, Request::get("/"), Response::reset()), (1, 503));
}

#[test]
fn grpc_says_how_a_call_failed_in_nothing_but_trailers() {
    let call = || Request::post("/s/m", "x").header("content-type", "application/grpc");
    let answer = |status: &str| {
        Response::new(200).header("content-type", "application/grpc").header("grpc-status", status)
    };
    let configuration = r#"{"if": ["unavailable", "cancelled"], "methods": ["POST"], "attempts": 1}"#;
    for (status, hits) in [("14", 2), ("1", 2), ("0", 1), ("13", 1), ("4", 1)] {
        assert_eq!(always(configuration, call(), answer(status)), (hits, 200), "{status}");
    }
}

#[test]
fn a_try_that_takes_too_long_is_one_that_failed() {
    let configuration = r#"{"if": ["timeout"], "per_try_timeout": "100ms", "back_off": {"base": "0ms"}}"#;
    let (mut once_slow, hits) = proxy(configuration, |number, _| {
        let after = Duration::from_secs(if number == 1 { 60 } else { 0 });
        Response::new(200).after(after)
    });
    let done = once_slow.send(Request::get("/"));
    assert_eq!((done.status(), hits.get(), done.took()), (200, 2, Duration::from_millis(100)));
    // The last try has no more time than the others.
    let (mut slow, hits) = proxy(configuration, |_, _| Response::new(200).after(Duration::from_secs(60)));
    let done = slow.send(Request::get("/"));
    assert_eq!((done.status(), hits.get(), done.took()), (504, 3, Duration::from_millis(300)));
    // A condition that does not name it does not mean it.
    let configuration = r#"{"if": [500], "per_try_timeout": "100ms"}"#;
    assert_eq!(
        always(configuration, Request::get("/"), Response::new(200).after(Duration::from_secs(1))),
        (1, 504)
    );
}

#[test]
fn endpoints_say_when_to_come_again() {
    let configuration = r#"{"if": [503], "retry_after": "5s", "back_off": {"base": "0ms"}}"#;
    for (asked, hits, took) in [("2", 2, 2), ("5", 2, 5), ("6", 1, 0), ("nonsense", 2, 0)] {
        let (mut busy, got) = proxy(configuration, move |number, _| match number {
            1 => Response::new(503).header("retry-after", asked),
            _ => Response::new(200),
        });
        let done = busy.send(Request::get("/"));
        assert_eq!((got.get(), done.took().as_secs()), (hits, took), "{asked}");
    }
}

#[test]
fn pauses_stay_below_their_bounds() {
    let (mut bad, _) = proxy(r#"{"if": ["5xx"], "attempts": 9}"#, |_, _| Response::new(500));
    let took = bad.send(Request::get("/")).took();
    let most = 25 + 75 + 175 + 6 * 250;
    assert!(took > Duration::ZERO && took < Duration::from_millis(most), "{took:?}");
}

#[test]
fn a_rate_of_retries_is_a_share_of_the_requests() {
    let configuration = r#"{"if": ["5xx"], "attempts": 3, "back_off": {"base": "0ms"}, "budget": {"ratio": 0.2, "min_per_second": 1}}"#;
    let (mut bad, hits) = proxy(configuration, |_, _| Response::new(500));
    for _ in 0..1_000 {
        bad.send(Request::get("/"));
    }
    // One for five requests, and the reserve of ten seconds.
    assert_eq!(hits.get(), 1_000 + 200 + 10);
    // Another worker shares the reserve.
    bad.restart();
    for _ in 0..1_000 {
        bad.send(Request::get("/"));
    }
    assert_eq!(hits.get(), 2_000 + 400 + 10);
}

#[test]
fn what_is_slow_gets_company() {
    let slow_first = |number: usize, _: &Request| {
        let after = Duration::from_millis(if number % 2 == 1 { 1_000 } else { 10 });
        Response::new(200).body(number.to_string()).after(after)
    };
    let (mut hedged, hits) = proxy(r#"{"hedge": {"after": "50ms"}}"#, slow_first);
    let done = hedged.send(Request::get("/"));
    assert_eq!((done.text().as_str(), hits.get(), done.took()), ("2", 2, Duration::from_millis(60)));
    // Not what must not be done twice.
    let (mut hedged, hits) = proxy(r#"{"hedge": {"after": "50ms"}}"#, slow_first);
    assert_eq!((hedged.send(Request::post("/", "x")).text().as_str(), hits.get()), ("1", 1));
}

#[test]
fn what_is_slower_than_most_gets_company() {
    let (mut hedged, hits) = proxy(r#"{"hedge": {"percentile": 90}}"#, |number, _| {
        Response::new(200).after(Duration::from_millis(if number == 101 { 1_000 } else { 10 }))
    });
    for _ in 0..100 {
        hedged.send(Request::get("/"));
    }
    assert_eq!(hits.get(), 100);
    let took = hedged.send(Request::get("/")).took();
    assert_eq!(hits.get(), 102);
    assert!(took >= Duration::from_millis(20) && took < Duration::from_millis(23), "{took:?}");
}

#[test]
fn what_makes_no_sense_is_refused() {
    for (configuration, reason) in [
        (r#"{"if": []}"#, "if: no condition"),
        (r#"{"if": ["5xx", "retriable-status-500"]}"#, "if/1: invalid value"),
        (r#"{"if": ["unavailable"]}"#, "if/0: calls of gRPC are POST requests"),
        (r#"{"methods": ["get"]}"#, "methods/0: \"get\" is not a method"),
        (r#"{"budget": {"ratio": 0.2, "ttl": "2m"}}"#, "budget/ttl: from 1s to 60s"),
        (r#"{"back_off": {"base": "1s", "max": "10ms"}}"#, "back_off/max: less than `base`"),
        (r#"{"budget": {}}"#, "budget"),
        (r#"{"tries": 3}"#, "tries: unknown field"),
    ] {
        let refusal = Proxy::refusal::<Retries>(configuration);
        assert!(refusal.contains(reason), "{configuration}: {refusal}");
    }
}
