//! Trailers: added, changed, removed; made in the last body callback.

use http::{Method, Response};
use http_body_util::BodyExt;
use meshgate_tests::{Ask, Backend, Reply, full};

use super::returns::stops;
use super::script::Arg::{Bytes, N, T};
use super::script::{NOT_FOUND, OK, Report, Script, call};
use super::world::{LIMITS, World, last, whole};

#[tokio::test]
async fn they_are_added_changed_and_removed() {
    let script = Script::default()
        .on(
            "request_trailers",
            [
                call("proxy_replace_header_map_value", &[N(1), T("x-last"), T("changed")]),
                call("proxy_get_header_map_value", &[N(1), T("x-last"), Bytes]),
            ],
        )
        .on("response_headers", [call("proxy_replace_header_map_value", &[N(2), T("trailer"), T("x-new")])])
        .on(
            "response_trailers",
            [
                call("proxy_remove_header_map_value", &[N(3), T("x-sum")]),
                call("proxy_add_header_map_value", &[N(3), T("x-new"), T("1")]),
                call("proxy_add_header_map_value", &[N(3), T("x-new"), T("2")]),
                call("proxy_get_header_map_value", &[N(3), T("x-sum"), Bytes]),
            ],
        );
    let running = World::start().await.run(&script).await;
    for version in [1, 2] {
        let reply = running.ask(version, whole()).await.unwrap();
        assert!(reply.header("x-sent").contains("changed"), "{version}: {reply:?}");
        assert_eq!(reply.trailers.get_all("x-new").iter().collect::<Vec<_>>(), ["1", "2"], "{version}");
        assert!(!reply.trailers.contains_key("x-sum"), "{version}");
    }
    let reports = running.stop().await;
    assert_eq!(last(&reports, "request_trailers").arguments, [1], "how many there are");
    assert_eq!(last(&reports, "request_trailers").value(1), "changed");
    assert_eq!(last(&reports, "response_trailers").statuses(), [OK, OK, OK, NOT_FOUND]);
}

/// The callbacks that can make trailers.
const MAKERS: [&str; 2] = ["request_body", "response_body"];

/// This script, and trailers made at the end of the body, in a message that has room for them over HTTP/1.1, too.
fn making(callback: &str, script: Script) -> Script {
    let (headers, fields, trailers) =
        if callback == "request_body" { ("request_headers", 0, 1) } else { ("response_headers", 2, 3) };
    script
        .on(
            headers,
            [
                call("proxy_replace_header_map_value", &[N(fields), T("trailer"), T("x-made")]),
                // With a length there is no place for trailers in HTTP/1.1.
                call("proxy_remove_header_map_value", &[N(fields), T("content-length")]),
            ],
        )
        .on(callback, [call("proxy_add_header_map_value", &[N(trailers), T("x-made"), T("1")])])
}

/// A server whose responses have no trailers of their own.
async fn without_trailers() -> World {
    let one = Backend::answering("one", async |_, request| {
        let body = request.into_body().collect().await.map_err(std::io::Error::other)?;
        let sent = body.trailers().map(|trailers| format!("{trailers:?}")).unwrap_or_default();
        let said = format!("said {}", String::from_utf8_lossy(&body.to_bytes()));
        Response::builder().header("x-sent", sent).body(full(said)).map_err(std::io::Error::other)
    });
    World { one: one.await, ..World::start().await }
}

/// A request without trailers, from a client that takes those of the response.
fn plain() -> Ask {
    Ask::new(Method::POST, "/", full("hello")).header("te", "trailers")
}

/// Everything arrived, and so did the trailers that were made in this callback, and no others.
fn arrived(callback: &str, reply: &Reply) {
    assert_eq!(reply.text(), "said hello", "{callback}: {reply:?}");
    if callback == "request_body" {
        assert!(reply.header("x-sent").contains("x-made") && reply.trailers.is_empty(), "{reply:?}");
    } else {
        assert!(reply.header("x-sent").is_empty() && reply.trailers.len() == 1, "{reply:?}");
        assert_eq!(reply.trailers["x-made"], "1");
    }
}

#[tokio::test]
async fn the_last_body_callback_makes_them() {
    for callback in MAKERS {
        let running = without_trailers().await.run(&making(callback, Script::default())).await;
        for version in [1, 2] {
            arrived(callback, &running.ask(version, plain()).await.unwrap());
        }
        let reports = running.stop().await;
        let body: Vec<_> = reports.iter().filter(|report| report.phase == callback).collect();
        assert!(body.iter().any(|report| report.arguments[1] == 1 && report.statuses() == [OK]), "{body:?}");
        // A filter's own trailers do not come back to it.
        assert!(reports.iter().all(|report| !report.phase.ends_with("_trailers")), "{reports:?}");
    }
}

#[tokio::test]
async fn those_that_it_makes_wait_with_the_body() {
    for callback in MAKERS {
        let running = without_trailers().await.run(&making(callback, stops(callback, 1))).await;
        for version in [1, 2] {
            arrived(callback, &running.ask(version, plain()).await.unwrap());
        }
        let reports = running.stop().await;
        assert!(reports.iter().any(|report| report.phase == "http_call_response"), "{reports:?}");
        assert!(reports.iter().all(|report| !report.phase.ends_with("_trailers")), "{reports:?}");
    }
}

#[tokio::test]
async fn those_that_waited_pass_the_filters_behind() {
    // The outer one holds the body until its trailers are there.
    let read = call("proxy_get_header_map_value", &[N(3), T("x-made"), Bytes]);
    let outer = Script::default().answer("response_body", 1).on("response_trailers", [read]);
    let outer = format!("- conformance: {}", serde_json::to_string(&outer.json()).unwrap());
    let script = making("response_body", stops("response_body", 1));
    let running = without_trailers().await.run_behind(&outer, &script, LIMITS).await;
    for version in [1, 2] {
        arrived("response_body", &running.ask(version, plain()).await.unwrap());
    }
    let reports = running.stop().await;
    let trailers: Vec<_> = reports.iter().filter(|report| report.phase == "response_trailers").collect();
    assert_eq!(trailers.len(), 2, "those of the outer filter: {trailers:?}");
    for report in trailers {
        assert_eq!((report.status(0), report.value(0)), (OK, &"1".into()));
        let ended = |body: &Report| body.context == report.context && body.arguments[1] == 1;
        let mut bodies = reports.iter().filter(|body| body.phase == "response_body");
        assert!(!bodies.any(ended), "its trailers end the body: {reports:?}");
    }
}
