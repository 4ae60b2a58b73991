//! Streams: resume, close, local responses.

use http::StatusCode;
use meshgate_tests::Reply;

use super::matrix::{ALL, PHASES, Row, check, row, script};
use super::script::Arg::{Bytes, Hex, N, Pairs, T};
use super::script::{BAD_ARGUMENT, OK, Report, call, entered};
use super::world::{World, last, whole};

pub(super) const ROWS: &[Row] = &[
    // Nothing is held: nothing to do.
    row("proxy_continue_stream", &[N(0)], &[(ALL, OK)]),
    row("proxy_continue_stream", &[N(1)], &[(ALL, OK)]),
    row("proxy_continue_stream", &[N(2)], &[(ALL, OK)]),
    row("proxy_continue_stream", &[N(3)], &[(ALL, OK)]),
    row("proxy_continue_stream", &[N(4)], &[(ALL, BAD_ARGUMENT)]),
    row("proxy_continue_stream", &[N(-1)], &[(ALL, BAD_ARGUMENT)]),
    row("proxy_close_stream", &[N(4)], &[(ALL, BAD_ARGUMENT)]),
    row("proxy_close_stream", &[N(-1)], &[(ALL, BAD_ARGUMENT)]),
    // ABI 0.1.0.
    row("proxy_continue_request", &[], &[(ALL, OK)]),
    row("proxy_continue_response", &[], &[(ALL, OK)]),
    row("proxy_clear_route_cache", &[], &[(ALL, OK)]),
    // Answers that are none.
    row("proxy_send_local_response", &[N(0), T(""), T(""), Pairs(&[]), N(-1)], &[(ALL, BAD_ARGUMENT)]),
    row("proxy_send_local_response", &[N(100), T(""), T(""), Pairs(&[]), N(-1)], &[(ALL, BAD_ARGUMENT)]),
    row("proxy_send_local_response", &[N(65_736), T(""), T(""), Pairs(&[]), N(-1)], &[(ALL, BAD_ARGUMENT)]),
    row("proxy_send_local_response", &[N(200), T(""), T(""), Hex("01"), N(-1)], &[(ALL, BAD_ARGUMENT)]),
    row(
        "proxy_send_local_response",
        &[N(200), T(""), T(""), Pairs(&[("x a", "1")]), N(-1)],
        &[(ALL, BAD_ARGUMENT)],
    ),
];

#[tokio::test]
async fn in_every_callback() {
    check(ROWS).await;
}

fn refuse() -> super::script::Call {
    call(
        "proxy_send_local_response",
        &[N(429), T("too many"), T("slow down"), Pairs(&[("x-own", "1")]), N(-1)],
    )
}

/// One exchange with this call in that callback: the response, if there was a whole one, and the reports.
async fn with(callback: &str, calls: Vec<super::script::Call>, version: u8) -> (Option<Reply>, Vec<Report>) {
    // Every callback of the root context comes, and the one in question has these calls first.
    let script = script(std::iter::empty()).on(&format!("{callback}#1"), calls);
    let running = World::start().await.run(&script).await;
    for callback in ["queue_ready", "http_call_response", "grpc_close"] {
        entered(running.log(), callback, 1).await;
    }
    let reply = running.ask(version, whole()).await;
    entered(running.log(), "delete", 1).await;
    (reply, running.stop().await)
}

#[tokio::test]
async fn local_response_in_each_callback() {
    for (_, callback) in PHASES {
        let (reply, reports) = with(callback, vec![refuse()], 1).await;
        assert_eq!(last(&reports, callback).status(0), OK, "{callback}");
        match callback {
            "context_create" | "request_headers" | "request_body" | "request_trailers"
            | "foreign_function" | "response_headers" => {
                let reply = reply.unwrap_or_else(|| panic!("{callback}: no response"));
                assert_eq!(
                    (reply.status, reply.text().as_str()),
                    (StatusCode::TOO_MANY_REQUESTS, "slow down")
                );
                assert_eq!(
                    (reply.header("x-own"), reply.header("content-type")),
                    ("1", "text/plain"),
                    "{callback}"
                );
                // It runs up through the filter that made it.
                let ran = reports.iter().filter(|report| report.phase == "response_headers").count();
                let expected = if callback == "response_headers" { 1..=2 } else { 1..=1 };
                assert!(expected.contains(&ran), "{callback}: {ran} times");
            }
            // The head is on its way or gone.
            "response_body" | "response_trailers" => {
                let answered = reply.is_none_or(|reply| reply.status == StatusCode::TOO_MANY_REQUESTS);
                assert!(answered, "{callback}: the server's response came through");
            }
            // No exchange, or no longer.
            _ => assert_eq!(reply.map(|reply| reply.text()).as_deref(), Some("said hello"), "{callback}"),
        }
        assert_eq!(reports.iter().filter(|report| report.phase == "delete").count(), 1, "{callback}");
    }
}

#[tokio::test]
async fn the_first_local_response_counts() {
    let second = call("proxy_send_local_response", &[N(200), T(""), T("second"), Pairs(&[]), N(-1)]);
    for version in [1, 2] {
        let (reply, reports) = with("request_headers", vec![refuse(), second.clone()], version).await;
        assert_eq!(reply.unwrap().text(), "slow down");
        assert_eq!(last(&reports, "request_headers").statuses()[..2], [OK, OK]);
    }
}

#[tokio::test]
async fn close_in_each_callback() {
    for (_, callback) in PHASES {
        for stream in [0, 1] {
            let calls = vec![
                call("proxy_close_stream", &[N(stream)]),
                call("proxy_get_property", &[T("plugin_name"), Bytes]),
            ];
            let (reply, reports) = with(callback, calls, 2).await;
            assert_eq!(last(&reports, callback).statuses()[..2], [OK, OK], "{callback}");
            let in_exchange = ["context_create", "request", "foreign_function", "response"];
            if in_exchange.iter().any(|begin| callback.starts_with(begin)) {
                assert!(reply.is_none(), "{callback}: {reply:?}");
            } else {
                assert_eq!(reply.map(|reply| reply.text()).as_deref(), Some("said hello"), "{callback}");
            }
        }
    }
}
