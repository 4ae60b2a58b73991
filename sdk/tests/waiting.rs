//! What filters wait for: calls, time, bodies; alone and together, and given up. Native, in the simulated host.
#![allow(missing_docs, reason = "a test")]

mod filters;

use std::time::Duration;

use meshgate_sdk::testing::{Proxy, Request, Response};

use crate::filters::{bodies, calls, ticks};

fn calling() -> Proxy {
    let mut proxy = Proxy::new::<calls::Calling>("");
    proxy.upstream("fast", |call| Response::new(200).body(format!("{} by fast", call.target())));
    proxy.upstream("slow", |_| Response::new(200).body("slow").after(Duration::from_millis(30)));
    proxy.upstream("never", |_| Response::timeout());
    proxy
}

fn asked(what: &str) -> Request {
    Request::get("/").header("x-do", what)
}

#[test]
fn one_call_after_the_other() {
    let done = calling().send(asked("sequence"));
    assert_eq!(done.upstream().unwrap().field("x-said").as_deref(), Some("/1 by fast, slow"));
    assert_eq!(done.took(), Duration::from_millis(30));
}

#[test]
fn calls_at_once_take_as_long_as_the_longest() {
    let done = calling().send(asked("join"));
    assert_eq!(done.upstream().unwrap().field("x-said").as_deref(), Some("slow, /2 by fast, slow"));
    assert_eq!(done.took(), Duration::from_millis(30));
}

#[test]
fn failures_have_their_status() {
    for (what, status, took) in [("timeout", 504, 70), ("unknown", 503, 0), ("bounded", 504, 50)] {
        let done = calling().send(asked(what));
        assert_eq!((done.status(), done.took()), (status, Duration::from_millis(took)), "{what}");
        assert!(done.upstream().is_none());
    }
}

#[test]
fn sleeping_lets_time_pass() {
    let done = calling().send(asked("sleep"));
    assert_eq!((done.status(), done.took()), (200, Duration::from_millis(120)));
    assert!(done.upstream().is_some());
}

#[test]
fn what_waits_is_dropped_with_its_exchange() {
    let mut proxy = calling();
    proxy.abandon(asked("sequence"));
    assert_eq!(proxy.logs(), ["dropped"]);
    assert_eq!(proxy.send(asked("sequence")).status(), 200);
}

#[test]
fn a_call_is_awaited_in_the_response() {
    let done = calling().send(asked("response"));
    assert_eq!(done.header("x-said").as_deref(), Some("slow"));
    assert_eq!(done.took(), Duration::from_millis(30));
}

#[test]
fn bodies_part_by_part() {
    let mut proxy = Proxy::new::<bodies::Bodies>("");
    let request = Request::post("/parts", "").parts(["ab", "c", "def"]);
    let done = proxy.send(request);
    let sent = done.upstream().unwrap();
    assert_eq!(sent.body_parts(), [b"0AB".to_vec(), b"1C".to_vec(), b"2DEF!".to_vec()]);
}

#[test]
fn bodies_part_by_part_with_a_call_in_between() {
    let mut proxy = Proxy::new::<bodies::Bodies>("");
    proxy.upstream("check", |_| Response::new(200).after(Duration::from_millis(5)));
    let done = proxy.send(Request::post("/checked", "").parts(["ab", "c", "def"]));
    assert_eq!(done.upstream().unwrap().text(), "[ab][cdef]");
}

#[test]
fn whole_bodies() {
    let mut proxy = Proxy::new::<bodies::Bodies>("");
    proxy.endpoint(|request| Response::new(200).parts(request.body_parts().to_vec()).trailer("x-end", "1"));
    let done = proxy.send(Request::post("/whole", "").parts(["{\"a\"", ": [1, 2]}"]).trailer("x-sum", "0"));
    assert_eq!(done.upstream().unwrap().text(), r#"{"sum":3}"#);
    assert_eq!(done.upstream().unwrap().trailer_field("x-sum").as_deref(), Some("0"));
    assert_eq!(done.text(), r#"<{"sum":3}>"#);
    assert_eq!(done.response().trailer_field("x-end").as_deref(), Some("1"));
}

#[test]
fn bodies_that_are_too_long_or_malformed() {
    let mut proxy = Proxy::new::<bodies::Bodies>("");
    let long = "x".repeat(40);
    for (body, status) in [(long.as_str(), 413), ("{", 400), (r#"{"a": [1]}"#, 200)] {
        assert_eq!(proxy.send(Request::post("/whole", body)).status(), status, "{body}");
    }
    proxy.endpoint(move |_| Response::new(200).body("y".repeat(99)));
    assert_eq!(proxy.send(Request::get("/")).status(), 502);
}

#[test]
fn ticks_come_beside_everything_else() {
    let mut proxy = Proxy::new::<ticks::Ticking>("");
    proxy.upstream("keys", |_| Response::new(200).body("key").after(Duration::from_millis(10)));
    proxy.advance(Duration::from_millis(3_000));
    assert_eq!(proxy.calls("keys").len(), 3);
    // The third is still under way.
    assert_eq!(proxy.send(Request::get("/")).upstream().unwrap().field("x-keys").as_deref(), Some("2"));
    proxy.advance(Duration::from_millis(500));
    let done = proxy.send(Request::get("/sleep"));
    assert_eq!(done.took(), Duration::from_millis(700));
    assert_eq!(proxy.calls("keys").len(), 4);
    proxy.advance(Duration::from_millis(800));
    assert_eq!(proxy.calls("keys").len(), 5);
}
