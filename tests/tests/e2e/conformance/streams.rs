//! Streams: resume, close, local responses.

use std::time::Duration;

use http::{Response, StatusCode};
use http_body_util::BodyExt;
use meshgate_tests::{Ask, Backend, Client, Meshgate, Reply, streamed, within};

use super::matrix::{ALL, PHASES, Row, check, row, script};
use super::script::Arg::{Bytes, Hex, N, Pairs, T};
use super::script::{BAD_ARGUMENT, OK, Report, call, entered};
use super::world::{World, last, whole};
use crate::upgrades::{ANSWERS, CLOSES, end_from_a_tick, ender};

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

/// A server whose responses do not end: one part, and under `/busy` another one again and again.
async fn endless() -> Backend {
    let one = Backend::answering("one", async |seen, _| {
        let (mut sender, body) = streamed();
        let busy = seen.path.starts_with("/busy");
        tokio::spawn(async move {
            while sender.send_data("part".into()).await.is_ok() {
                if !busy {
                    std::future::pending::<()>().await;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        Ok(Response::new(body))
    });
    one.await
}

/// The filter has no callback for the response's body.
#[tokio::test]
async fn a_tick_ends_a_response_on_its_way() {
    for (end, details) in [(CLOSES, "response_body_broken"), (ANSWERS, "wasm_late_response")] {
        let one = endless().await;
        let setup = Meshgate::chain("- ender").filter("ender", &ender(end), "");
        let gate = setup.cluster("one", &[&one]).start().await;
        for version in [1, 2] {
            for kind in ["busy", "quiet"] {
                let path = format!("/{kind}/{version}");
                let mut client = match version {
                    1 => Client::http1(gate.address()).await,
                    _ => Client::http2(gate.address()).await,
                };
                let mut response = within("a head", client.start(Ask::get(&path))).await.unwrap();
                let part = within("a part", response.body_mut().frame()).await;
                assert!(part.is_some_and(|part| part.is_ok()), "{end}, {path}");
                end_from_a_tick(&gate).await;
                let rest = within("the end", Reply::collect(response)).await;
                assert!(rest.is_err(), "{end}, {path}: it looks whole");
                let entry = gate.access(&path).await;
                assert_eq!(
                    (&entry["response_flags"], &entry["response_code_details"]),
                    (&"LR".into(), &details.into()),
                    "{entry}"
                );
                if version == 2 {
                    let next = within("a head", client.start(Ask::get("/quiet/next"))).await;
                    assert_eq!(next.unwrap().status(), 200, "{end}: only the stream is reset");
                }
            }
        }
    }
}
