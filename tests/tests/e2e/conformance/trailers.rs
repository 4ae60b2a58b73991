//! Trailers: added, changed, removed; made in the last body callback.

use http::Method;
use meshgate_tests::{Ask, full};

use super::script::Arg::{Bytes, N, T};
use super::script::{NOT_FOUND, OK, Script, call};
use super::world::{World, last, whole};

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

#[tokio::test]
async fn the_last_body_callback_makes_them() {
    let add = |map| call("proxy_add_header_map_value", &[N(map), T("x-made"), T("1")]);
    let script = Script::default()
        .on(
            "request_headers",
            [
                call("proxy_replace_header_map_value", &[N(0), T("trailer"), T("x-made")]),
                // With a length there is no place for trailers in HTTP/1.1.
                call("proxy_remove_header_map_value", &[N(0), T("content-length")]),
            ],
        )
        .on("request_body", [add(1)]);
    let running = World::start().await.run(&script).await;
    for version in [1, 2] {
        let ask = Ask::new(Method::POST, "/", full("hello")).header("te", "trailers");
        let reply = running.ask(version, ask).await.unwrap();
        assert!(reply.header("x-sent").contains("x-made"), "{version}: {reply:?}");
    }
    let reports = running.stop().await;
    let body: Vec<_> = reports.iter().filter(|report| report.phase == "request_body").collect();
    assert!(body.iter().any(|report| report.arguments[1] == 1 && report.statuses() == [OK]), "{body:?}");
    // A filter's own trailers do not come back to it.
    assert!(reports.iter().all(|report| report.phase != "request_trailers"), "{reports:?}");
}
