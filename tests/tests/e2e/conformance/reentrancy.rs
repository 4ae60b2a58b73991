//! Nothing enters a guest while it is being run: what its hostcalls bring about waits until the callback has returned.

use super::script::Arg::{Bytes, N, Pairs, Root, Save, Saved, Stream, T, Word};
use super::script::{OK, Script, call, entered};
use super::world::{World, last};

const HEAD: &[(&str, &str)] = &[(":method", "GET"), (":path", "/"), (":authority", "called.example")];

#[tokio::test]
async fn no_callback_inside_of_a_callback() {
    let everything = [
        // Each of these leads to a callback: at once, if nothing held it back.
        call("proxy_enqueue_shared_queue", &[Saved("queue"), T("item")]),
        call("proxy_http_call", &[T("gone"), Pairs(HEAD), T(""), Pairs(&[]), N(1000), Word]),
        call("proxy_http_call", &[T("called"), Pairs(HEAD), T(""), Pairs(&[]), N(1000), Word]),
        call("proxy_set_tick_period_milliseconds", &[N(10)]),
        call("proxy_continue_stream", &[N(0)]),
        call("proxy_continue_stream", &[N(1)]),
    ];
    let script = Script::default()
        .on("configure", [call("proxy_register_shared_queue", &[T("queue"), Save("queue")])])
        .on("request_headers", everything.clone())
        .on("request_body", everything[..2].to_vec())
        .on("response_headers", everything.clone())
        .on("queue_ready", [call("proxy_dequeue_shared_queue", &[Saved("queue"), Bytes])])
        .on("tick#2", [call("proxy_set_tick_period_milliseconds", &[N(0)])])
        .on(
            "response_body",
            [call("proxy_send_local_response", &[N(429), T(""), T("late"), Pairs(&[]), N(-1)])],
        );
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let world = World::start().await;
    let quoted = serde_json::to_string(&script.json()).unwrap();
    let gate = meshgate_tests::Meshgate::chain(&format!("- conformance: {quoted}"))
        .guest("conformance", "")
        .cluster("one", &[&world.one])
        .cluster("called", &[&world.called])
        .cluster_of("gone", &[gone], "")
        .start()
        .await;
    let mut client = gate.client().await;
    let _ = client.try_call(super::world::whole()).await;
    for callback in ["delete", "queue_ready", "http_call_response", "tick"] {
        entered(gate.log(), callback, if callback == "http_call_response" { 4 } else { 1 }).await;
    }
    let reports = super::script::reports(&gate.stop().await.log);
    assert_eq!(last(&reports, "request_headers").statuses(), [OK; 6]);
    let nested: Vec<_> = reports.iter().filter(|report| report.nested).collect();
    assert!(nested.is_empty(), "{nested:?}");
}

#[tokio::test]
async fn what_is_done_for_a_stream_from_its_roots_callback_comes_after_it() {
    // A call's response resumes, answers and closes in one go: the answer counts, and comes once.
    let script = Script::default()
        .on(
            "request_headers",
            [call("proxy_http_call", &[T("called"), Pairs(HEAD), T(""), Pairs(&[]), N(1000), Word])],
        )
        .answer("request_headers", 1)
        .on(
            "http_call_response",
            [
                call("proxy_set_effective_context", &[Stream]),
                call("proxy_send_local_response", &[N(403), T(""), T("refused"), Pairs(&[]), N(-1)]),
                call("proxy_continue_stream", &[N(0)]),
                call("proxy_set_effective_context", &[Root]),
            ],
        );
    let running = World::start().await.run(&script).await;
    let reply = running.exchange().await;
    assert_eq!((reply.status.as_u16(), reply.text().as_str()), (403, "refused"));
    assert_eq!(running.world.one.requests(), 0);
    let reports = running.stop().await;
    assert!(reports.iter().all(|report| !report.nested), "{reports:?}");
    let after = reports.iter().position(|report| report.phase == "http_call_response").unwrap();
    let order: Vec<_> = reports[after + 1..].iter().map(|report| report.phase.as_str()).collect();
    assert!(order.contains(&"response_headers") && !order.contains(&"request_body"), "{order:?}");
}
