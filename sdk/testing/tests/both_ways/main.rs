//! The SDK's own suite: everything natively, in the simulated host, and compiled, in the real one. Both must agree; where they
//! cannot, the test says why.
#![allow(missing_docs, clippy::panic, clippy::unwrap_used, reason = "a test fails by a panic")]

mod facts;
mod messages;
mod streams;
mod tcp;

use std::cell::RefCell;
use std::path::Path;
use std::time::Duration;

use guest_suite::Suite;
use meshgate_sdk::testing::{Done, Proxy, Request, Response};
use meshgate_testing::RealHost;

/// A proxy in the real host with a compiled filter.
fn compiled(guest: &str, configuration: &str) -> Result<Proxy, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../target/guests/{guest}.wasm"));
    let module = std::fs::read(&path).unwrap_or_else(|error| {
        panic!("{}: {error}: run `cargo xtask test`, which builds the modules first", path.display())
    });
    Proxy::try_with(RealHost::new(&module).unwrap(), configuration)
}

/// Runs a test both ways.
fn both(configuration: &str, test: impl Fn(&mut Proxy)) {
    for mut proxy in [Proxy::new::<Suite>(configuration), compiled("suite", configuration).unwrap()] {
        proxy.upstream("fast", |call| Response::new(200).body(format!("{} by fast", call.target())));
        proxy.upstream("slow", |_| Response::new(200).body("slow").after(Duration::from_millis(30)));
        proxy.upstream("never", |_| Response::timeout());
        proxy.upstream("broken", |_| Response::reset());
        proxy.upstream("nobody", |_| Response::refused());
        proxy.upstream("error", |_| Response::new(500));
        proxy.upstream("policy", |call| match call.target().as_str() {
            "/example.Policy/Check" => Response::grpc(format!("{}, {:?}", call.text(), call.field("x-a")))
                .after(Duration::from_millis(9)),
            "/example.Policy/Refuse" => Response::grpc_status(7, "not you"),
            _ => Response::timeout(),
        });
        proxy.upstream("echo", |call| {
            let seen = format!("{} {} {:?}", call.method(), call.target(), call.field("authorization"));
            let response = Response::new(201)
                .header("x-seen", seen)
                .header("x-authority", call.field(":authority").unwrap_or_default());
            response.body(call.bytes()).trailer("x-end", "yes")
        });
        proxy.grpc_streams("talk", streams::talk);
        test(&mut proxy);
    }
}

/// Where the two cannot agree: what the simulated host says, and what the real one says.
fn each(ask: impl Fn(&mut Proxy) -> String) -> Vec<String> {
    let answers = RefCell::<Vec<String>>::default();
    both("", |proxy| {
        let answer = ask(proxy);
        answers.borrow_mut().push(answer);
    });
    answers.into_inner()
}

fn asked(what: &str) -> Request {
    Request::get("/").header("x-do", what)
}

fn said(done: &Done) -> String {
    done.upstream().unwrap().field("x-said").unwrap_or_default()
}

#[test]
fn heads_are_read_and_changed() {
    let request = Request::get("/path?y")
        .header("x-do", "heads")
        .header("cookie", "a=1; b=2")
        .header("authorization", "Bearer of-ann")
        .header("x-none", "1")
        .property("source/address", "192.0.2.7:555")
        .peer_identity("spiffe://mesh/ann");
    let expected = [
        ":authority,:method,:path,:scheme,x-do,cookie,authorization,x-none",
        "GET http example.com /changed",
        r#"Some("A") Some("2") Some("of-ann")"#,
        r#"false 2 Some("new")"#,
        "Some(bad argument) Some(bad argument)",
        "Some(bad argument)",
        r#"None Some("192.0.2.7:555")"#,
        r#"Some("spiffe://mesh/ann") true"#,
        r#"Some("/changed?x=%41") None"#,
        "Some(bad argument)",
        "not found",
    ];
    both("", |proxy| {
        let done = proxy.send(request.clone());
        assert_eq!(said(&done), expected.join(" | "));
        let upstream = done.upstream().unwrap();
        assert_eq!(upstream.target(), "/changed?x=%41");
        assert_eq!((upstream.field("x-none"), upstream.field("x-one").as_deref()), (None, Some("new")));
        assert_eq!(done.header("x-callbacks").as_deref(), Some("2"));
    });
}

#[test]
fn a_filter_answers() {
    both("", |proxy| {
        let done = proxy.send(asked("answer"));
        assert_eq!((done.status(), done.text().as_str()), (403, "not for you"));
        assert_eq!(done.header("x-by").as_deref(), Some("suite"));
        assert!(done.upstream().is_none());
        let done = proxy.send(asked("redirect"));
        assert_eq!((done.status(), done.header("location").as_deref()), (303, Some("/elsewhere")));
        let done = proxy.send(asked("replace"));
        assert_eq!((done.status(), done.text().as_str(), done.upstream().is_some()), (410, "gone", true));
        assert_eq!(proxy.send(asked("fail")).status(), 500);
        assert_eq!(proxy.logs(), ["on_request failed: asked to"]);
    });
}

#[test]
fn a_filter_breaks_the_exchange_off() {
    both("", |proxy| {
        let done = proxy.send(asked("break"));
        assert!(done.was_reset() && done.upstream().is_none(), "{done:?}");
        let done = proxy.send(asked("break-late"));
        assert!(done.was_reset() && done.upstream().is_some(), "{done:?}");
        assert_eq!(proxy.send(asked("nothing")).status(), 200);
    });
}

#[test]
fn tries_are_judged() {
    both("", |proxy| {
        let mut left = 2;
        proxy.endpoint(move |_| {
            left -= 1;
            if left >= 0 { Response::new(503) } else { Response::new(200).body("at last") }
        });
        let done = proxy.send(asked("attempts"));
        assert_eq!((done.status(), done.text().as_str()), (200, "at last"));
        assert_eq!(done.took(), Duration::from_millis(20));
        assert_eq!(proxy.logs(), ["try 1: Response 503", "try 2: Response 503"]);
        // What failed a third time is delivered.
        proxy.endpoint(|_| Response::refused());
        assert_eq!(proxy.send(asked("attempts")).status(), 503);
        assert_eq!(proxy.logs()[2..].len(), 3);
    });
}

#[test]
fn responses_are_encoded_and_throttled() {
    both("", |proxy| {
        let done = proxy.send(asked("encode"));
        assert_eq!(done.header("x-said").as_deref(), Some("Some(bad argument)"));
        assert_eq!((done.encoding(), done.throttle()), (Some(("gzip".to_owned(), 9)), 1_000));
        let done = proxy.send(asked("nothing"));
        assert_eq!((done.encoding(), done.throttle()), (None, 0));
    });
}

#[test]
fn what_a_filter_does_becomes_spans() {
    both("", |proxy| {
        let done = proxy.send(asked("span").recorded());
        assert_eq!(said(&done), format!(r#"true Some("{}")"#, "ab".repeat(16)));
        let spans = done.spans();
        let names: Vec<_> = spans.iter().map(|span| span.name.as_str()).collect();
        assert_eq!(names, ["think", "fail", "ask"], "as they end");
        let [think, fail, ask] = &spans[..] else { panic!("{spans:?}") };
        assert_eq!((&ask.parent, &fail.parent, think.parent.as_ref()), (&None, &None, Some(&ask.id)));
        assert_eq!((ask.is_call, think.is_call), (true, false));
        assert_eq!((ask.took, think.took), (Duration::from_millis(50), Duration::from_millis(20)));
        assert_eq!(fail.failure.as_deref(), Some("asked to"));
        let attributes =
            ["suite.word", "suite.count", "suite.right"].map(|name| ask.attribute(name).unwrap());
        assert_eq!(attributes, ["one", "3", "true"]);
        assert_eq!(ask.events, ["answered"]);
        let carried = proxy.calls("slow")[0].field("traceparent").unwrap();
        assert_eq!(carried, format!("00-{}-{}-01", "ab".repeat(16), ask.id));
    });
}

#[test]
fn spans_of_what_is_not_recorded_are_not_kept() {
    both("", |proxy| {
        assert_eq!(said(&proxy.send(asked("span"))), "false None");
        assert_eq!(proxy.calls("slow")[0].field("traceparent"), None);
        let traceparent = format!("00-{}-{}-00", "1".repeat(32), "2".repeat(16));
        let request = asked("span").header("traceparent", &traceparent).header("tracestate", "a=b");
        let done = proxy.send(request);
        assert_eq!(said(&done), format!(r#"false Some("{}")"#, "1".repeat(32)));
        assert!(done.spans().is_empty());
        let call = &proxy.calls("slow")[1];
        assert_eq!(call.field("traceparent"), Some(traceparent), "what there is goes on");
        assert_eq!(call.field("tracestate").as_deref(), Some("a=b"));
    });
}

#[test]
fn spans_are_bounded_and_end_with_their_exchange() {
    both("", |proxy| {
        let done = proxy.send(asked("spans").recorded());
        assert_eq!(done.spans().len(), 32);
        let done = proxy.send(asked("span-late").recorded());
        assert_eq!(done.spans()[0].name, "to the end");
        let waiting = proxy.begin(asked("span").recorded());
        let other = proxy.send(asked("span").recorded());
        assert_eq!(other.spans().len(), 3);
        assert_eq!(proxy.finish(waiting).spans().len(), 3, "each has its own");
    });
}

#[test]
fn calls_say_everything() {
    both("", |proxy| {
        let done = proxy.send(asked("calls"));
        assert_eq!(said(&done), r#"201 :status,x-seen,x-authority [1, 2] Some("yes")"#);
        let seen = done.upstream().unwrap().field("x-call").unwrap();
        assert_eq!(seen, r#"PUT /call?x=1 Some("Bearer t")"#);
        let call = &proxy.calls("echo")[0];
        assert_eq!(call.field(":authority").as_deref(), Some("inside"));
        assert_eq!(call.field("content-type").as_deref(), Some("application/json"));
    });
}

#[test]
fn calls_wait_for_one_another_or_do_not() {
    both("", |proxy| {
        let done = proxy.send(asked("sequence"));
        assert_eq!((said(&done).as_str(), done.took()), ("/1 by fast, slow", Duration::from_millis(30)));
        let done = proxy.send(asked("join"));
        assert_eq!(said(&done), "/2 by fast, slow, slow");
        assert_eq!(done.took(), Duration::from_millis(30));
        let done = proxy.send(asked("response"));
        assert_eq!(done.header("x-said").as_deref(), Some("slow"));
        assert_eq!(done.took(), Duration::from_millis(30));
    });
}

#[test]
fn grpc_calls_are_answered_or_refused() {
    both("", |proxy| {
        let done = proxy.send(asked("grpc"));
        assert_eq!(said(&done), r#"question, Some("1") not you Some(4)"#);
        assert_eq!(done.took(), Duration::from_millis(59));
    });
}

#[test]
fn failed_calls_have_their_status() {
    for (what, status, took, logged) in [
        ("timeout", 599, 70, "the call took too long"),
        ("refused", 503, 0, "the call found no endpoint to connect to"),
        ("reset", 503, 0, "the call's connection broke"),
        ("unknown", 503, 0, "the host did not make the call: bad argument"),
        ("status", 599, 0, "the call was answered with 500"),
    ] {
        both("", |proxy| {
            let done = proxy.send(asked(what));
            assert_eq!((done.status(), done.took()), (status, Duration::from_millis(took)), "{what}");
            assert!(done.upstream().is_none());
            assert_eq!(proxy.logs(), [logged]);
        });
    }
    both("", |proxy| {
        let done = proxy.send(asked("bounded"));
        assert_eq!((done.status(), done.took()), (504, Duration::from_millis(50)));
    });
}

#[test]
fn sleeping_lets_time_pass() {
    both("", |proxy| {
        let done = proxy.send(asked("sleep"));
        assert_eq!((done.status(), done.took()), (200, Duration::from_millis(120)));
    });
}

#[test]
fn what_waits_is_dropped_with_its_exchange() {
    both("", |proxy| {
        proxy.abandon(asked("sequence"));
        assert_eq!(proxy.logs(), ["dropped"]);
        assert_eq!(proxy.send(asked("sequence")).status(), 200);
    });
}

#[test]
fn what_another_exchange_has_woken_makes_its_calls_all_the_same() {
    both("", |proxy| {
        let waiting = [proxy.begin(asked("await-bell")), proxy.begin(asked("await-bell"))];
        assert_eq!(proxy.send(asked("ring")).status(), 200);
        for waiting in waiting {
            assert_eq!(said(&proxy.finish(waiting)), "/rung by fast, slow");
        }
        assert_eq!(proxy.calls("slow").len(), 2);
    });
}

#[test]
fn a_call_of_an_exchange_that_is_over_fails_for_others() {
    both("", |proxy| {
        let (first, second) = (proxy.begin(asked("ask")), proxy.begin(asked("ask-too")));
        proxy.give_up(first);
        assert_eq!(proxy.finish(second).status(), 503);
        assert_eq!(proxy.logs(), ["the call's connection broke"]);
        // One that goes on gets its answer, and who waits with it as well.
        let (first, second) = (proxy.begin(asked("ask")), proxy.begin(asked("ask-too")));
        assert_eq!(said(&proxy.finish(second)), "slow");
        proxy.give_up(first);
    });
}

#[test]
fn requests_go_where_the_filter_says() {
    both("", |proxy| {
        let done = proxy.send(asked("route"));
        assert_eq!(said(&done), r#"Some("to-fast") Some("fast")"#);
        assert_eq!(done.text(), "/ by fast");
        let done = proxy.send(asked("direct"));
        assert_eq!((done.status(), done.text().as_str(), done.upstream().is_some()), (418, "teapot", false));
        assert_eq!(done.header("x-tea").as_deref(), Some("green"));
    });
}

#[test]
fn shared_data_outlives_the_worker_and_expires() {
    both("", |proxy| {
        assert_eq!(said(&proxy.send(asked("shared"))), r#"None Some("for ever") c None 2"#);
        proxy.restart();
        proxy.advance(Duration::from_secs(9));
        assert_eq!(said(&proxy.send(asked("shared"))), r#"Some("noted") Some("for ever") cc None 4"#);
        proxy.advance(Duration::from_secs(10));
        assert_eq!(said(&proxy.send(asked("shared"))), r#"None Some("for ever") ccc None 6"#);
    });
}

#[test]
fn queues_are_looked_into_when_there_is_something() {
    both("", |proxy| {
        assert_eq!(said(&proxy.send(asked("queue"))), "true false");
        let expected = ["/one by fast known=true", "/ by fast known=true", "/two by fast known=true"];
        assert_eq!(proxy.logs(), expected);
        proxy.send(asked("queue"));
        assert_eq!(proxy.calls("fast").len(), 6);
    });
}

#[test]
fn numbers_are_counted_within_bounds() {
    both("", |proxy| {
        let rest = "42 40 | (None, Some(4), 4) | Err(bad argument)";
        let first = said(&proxy.send(asked("counted")));
        assert_eq!(first, format!("1 true, 2 true, 3 true, 3 false | {rest}"));
        let second = said(&proxy.send(asked("counted")));
        assert_eq!(second, format!("3 false, 3 false, 3 false, 3 false | {rest}"));
    });
}

#[test]
fn what_exchanges_hold_is_given_back_with_them() {
    both("", |proxy| {
        let (first, second) = (proxy.begin(asked("hold")), proxy.begin(asked("hold")));
        assert_eq!(said(&proxy.send(asked("hold"))), "None");
        proxy.give_up(first);
        assert_eq!(said(&proxy.send(asked("hold"))), "Some(2)");
        assert_eq!(said(&proxy.finish(second)), "Some(2)");
        assert_eq!(said(&proxy.send(asked("hold"))), "Some(1)");
    });
}

#[test]
fn numbers_are_forgotten() {
    // Only natively: the real host's own clock cannot be set.
    let mut proxy = Proxy::new::<Suite>("");
    let seats = |proxy: &mut Proxy| said(&proxy.send(asked("counted"))).starts_with("1 true");
    assert!(seats(&mut proxy));
    proxy.advance(Duration::from_secs(9));
    assert!(!seats(&mut proxy));
    proxy.advance(Duration::from_secs(1));
    assert!(seats(&mut proxy));
}

#[test]
fn flags_and_fields_are_logged() {
    both("", |proxy| {
        let done = proxy.send(asked("log"));
        assert_eq!(said(&done), "Some(bad argument)");
        assert_eq!(done.flags(), ["FI", "RL"]);
        assert_eq!(done.log_field("suite.word").as_deref(), Some("second"));
        assert_eq!(done.log_field("suite.other").as_deref(), Some("\"\n\u{fffd}"));
        assert_eq!(done.log_field("suite.none"), None);
        assert!(proxy.send(asked("nothing")).flags().is_empty());
        assert_eq!(said(&proxy.send(asked("line"))), "true");
    });
}

#[test]
fn metrics_are_counted_by_their_labels() {
    both("", |proxy| {
        proxy.send(asked("nothing"));
        proxy.send(asked("answer"));
        proxy.send(Request::post("/", "x"));
        proxy.send(Request::post("/", "x"));
        let count =
            |method, code| proxy.metric("suite_exchanges_total", &[("method", method), ("code", code)]);
        assert_eq!((count("GET", "200"), count("POST", "200"), count("PUT", "200")), (1, 2, 0));
        assert_eq!(proxy.metric("suite_sizes", &[]), 4);
    });
}

#[test]
fn bodies_part_by_part() {
    both("", |proxy| {
        let done = proxy.send(Request::post("/parts", "").parts(["ab", "c", "def"]));
        let parts = [b"0AB".to_vec(), b"1C".to_vec(), b"2DEF!".to_vec()];
        assert_eq!(done.upstream().unwrap().body_parts(), parts);
        let done = proxy.send(Request::post("/checked", "").parts(["ab", "c", "def"]));
        assert_eq!(done.upstream().unwrap().text(), "[ab][cdef]");
        assert_eq!(done.took(), Duration::from_millis(60));
        let done = proxy.send(Request::post("/first", "").parts(["ab", "c"]).trailer("x-sum", "3"));
        assert_eq!(done.upstream().unwrap().body_parts(), [b"abab".to_vec(), b"c".to_vec()]);
        assert_eq!(done.upstream().unwrap().trailer_field("x-seen").as_deref(), Some("request trailers"));
    });
}

#[test]
fn whole_bodies() {
    both("", |proxy| {
        proxy.endpoint(|request| {
            Response::new(200).parts(request.body_parts().to_vec()).trailer("x-end", "1")
        });
        let request = Request::post("/whole", "").parts(["{\"a\"", ": [1, 2]}"]).trailer("x-sum", "0");
        let done = proxy.send(request);
        let upstream = done.upstream().unwrap();
        assert_eq!(upstream.text(), r#"{"sum":3}"#);
        assert_eq!(upstream.trailer_field("x-sum").as_deref(), Some("0"));
        assert_eq!(done.text(), r#"<{"sum":3}>"#);
        assert_eq!(done.response().trailer_field("x-end").as_deref(), Some("1"));
        assert_eq!(done.response().trailer_field("x-seen").as_deref(), Some("response trailers"));
        proxy.endpoint(|_| Response::new(200).parts(["ab", "cd"]));
        assert_eq!(proxy.send(Request::get("/shout")).text(), "ABCD");
    });
}

#[test]
fn bodies_that_are_refused() {
    both("", |proxy| {
        let long = "x".repeat(40);
        for (body, status) in [(long.as_str(), 413), ("{", 400), (r#"{"a": [1]}"#, 200)] {
            assert_eq!(proxy.send(Request::post("/whole", body)).status(), status, "{body}");
        }
        let done = proxy.send(Request::post("/denied", "").parts(["so", "so"]));
        assert_eq!((done.status(), done.text().as_str()), (422, "soso"));
        proxy.endpoint(|_| Response::new(200).body("y".repeat(99)));
        assert_eq!(proxy.send(Request::get("/wrapped")).status(), 502);
    });
}

#[test]
fn ticks_come_beside_everything_else() {
    both(r#"{"tick": "1s"}"#, |proxy| {
        proxy.upstream("keys", |_| Response::new(200).body("key").after(Duration::from_millis(10)));
        proxy.advance(Duration::from_millis(3_000));
        assert_eq!(proxy.calls("keys").len(), 3);
        // The third is still under way.
        assert_eq!(said(&proxy.send(asked("fetched"))), "2");
        proxy.advance(Duration::from_millis(950));
        assert_eq!(proxy.send(asked("sleep")).took(), Duration::from_millis(120));
        assert_eq!(said(&proxy.send(asked("fetched"))), "4");
    });
}

#[test]
fn what_is_left_to_do_at_the_end_is_done() {
    both(r#"{"tick": "1h"}"#, |proxy| {
        proxy.upstream("keys", |_| Response::new(200).after(Duration::from_secs(1)));
        assert!(proxy.end());
        let targets: Vec<_> = proxy.calls("keys").iter().map(Request::target).collect();
        assert_eq!(targets, ["/end"]);
    });
    both("{}", |proxy| {
        proxy.upstream("keys", |_| Response::timeout());
        assert!(!proxy.end(), "nobody waits for it for ever");
    });
    // What fails is over, too.
    both("{}", |proxy| assert!(proxy.end()));
}

#[test]
fn configurations_are_refused_with_the_field() {
    for (configuration, expected) in [
        (r#"{"tick": "0s"}"#, "configuration refused: tick: no time at all"),
        (
            r#"{"tock": 1}"#,
            "configuration refused: tock: unknown field `tock`, expected one of `tick`, `follow`, `quiet`, `chain`, \
             `file`, `text`",
        ),
    ] {
        assert_eq!(Proxy::refusal::<Suite>(configuration), expected);
        assert_eq!(compiled("suite", configuration).err().as_deref(), Some(expected));
    }
}
