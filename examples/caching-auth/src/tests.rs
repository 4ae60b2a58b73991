//! The filter in `cargo test`: no proxy, no network, and time passes when the test says so.

use std::time::Duration;

use meshgate_sdk::testing::{Proxy, Request, Response};

use super::CachingAuth;

const CONFIG: &str = r#"{"service": "tokens", "timeout": "200ms", "remember": "1m", "group": "staff"}"#;

fn proxy() -> Proxy {
    let mut proxy = Proxy::new::<CachingAuth>(CONFIG);
    proxy.upstream("tokens", |call| match call.field("authorization").as_deref() {
        Some("Bearer ann") => Response::new(200).body(r#"{"user": "Ann", "groups": ["staff"]}"#),
        Some("Bearer bob") => Response::new(200).body(r#"{"user": "Bob", "groups": []}"#),
        _ => Response::new(404),
    });
    proxy
}

fn with_token(token: &str) -> Request {
    Request::get("/").header("authorization", format!("Bearer {token}")).header("x-user", "root")
}

#[test]
fn the_endpoint_learns_who_it_is() {
    let mut proxy = proxy();
    let done = proxy.send(with_token("ann"));
    assert_eq!(done.status(), 200);
    assert_eq!(done.upstream().unwrap().field("x-user").as_deref(), Some("Ann"));
    assert_eq!(proxy.metric("auth_checks_total", &[("outcome", "allowed")]), 1);
}

#[test]
fn others_stay_outside() {
    let mut proxy = proxy();
    for (request, status) in [(Request::get("/"), 401), (with_token("eve"), 401), (with_token("bob"), 403)] {
        let done = proxy.send(request);
        assert_eq!(done.status(), status);
        assert!(done.upstream().is_none());
        assert_eq!(done.header("www-authenticate").is_some(), status == 401);
    }
}

#[test]
fn answers_are_remembered_for_all_workers_until_they_expire() {
    let mut proxy = proxy();
    for token in ["ann", "ann", "eve", "eve"] {
        proxy.send(with_token(token));
    }
    assert_eq!(proxy.calls("tokens").len(), 2);
    proxy.restart();
    proxy.advance(Duration::from_secs(59));
    assert_eq!(proxy.send(with_token("ann")).status(), 200);
    assert_eq!(proxy.calls("tokens").len(), 2);
    proxy.advance(Duration::from_secs(1));
    assert_eq!(proxy.send(with_token("ann")).status(), 200);
    assert_eq!(proxy.calls("tokens").len(), 3);
}

#[test]
fn without_the_service_nobody_comes_in_and_nothing_is_remembered() {
    let mut proxy = proxy();
    for broken in [Response::timeout(), Response::refused(), Response::new(500), Response::new(200).body("<")]
    {
        let slow = if broken == Response::timeout() { Duration::from_millis(200) } else { Duration::ZERO };
        proxy.upstream("tokens", move |_| broken.clone());
        let done = proxy.send(with_token("ann"));
        assert_eq!((done.status(), done.took()), (503, slow));
    }
    assert_eq!(proxy.metric("auth_checks_total", &[("outcome", "unavailable")]), 4);
    proxy.upstream("tokens", |_| Response::new(200).body(r#"{"user": "Ann", "groups": ["staff"]}"#));
    assert_eq!(proxy.send(with_token("ann")).status(), 200);
}
