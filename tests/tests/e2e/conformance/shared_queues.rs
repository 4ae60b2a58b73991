//! Shared queues.

use super::matrix::{ALL, Row, check, row};
use super::script::Arg::{Bytes, N, Save, Saved, T, Word};
use super::script::{BAD_ARGUMENT, EMPTY, NOT_FOUND, OK, Script, call, entered};
use super::world::{World, exchange, last};

pub(super) const ROWS: &[Row] = &[
    row("proxy_resolve_shared_queue", &[T(""), T("none"), Word], &[(ALL, NOT_FOUND)]),
    row("proxy_resolve_shared_queue", &[T("another vm"), T("queue"), Word], &[(ALL, NOT_FOUND)]),
    row("proxy_register_shared_queue", &[T("queue"), Save("queue")], &[(ALL, OK)]),
    row("proxy_register_shared_queue", &[T("queue"), Word], &[(ALL, OK)]),
    row("proxy_resolve_shared_queue", &[T(""), T("queue"), Word], &[(ALL, OK)]),
    row("proxy_enqueue_shared_queue", &[Saved("queue"), T("first")], &[(ALL, OK)]),
    row("proxy_enqueue_shared_queue", &[Saved("queue"), T("")], &[(ALL, OK)]),
    row("proxy_dequeue_shared_queue", &[Saved("queue"), Bytes], &[(ALL, OK)]),
    row("proxy_dequeue_shared_queue", &[Saved("queue"), Bytes], &[(ALL, OK)]),
    row("proxy_dequeue_shared_queue", &[Saved("queue"), Bytes], &[(ALL, EMPTY)]),
    row("proxy_enqueue_shared_queue", &[N(0), T("item")], &[(ALL, NOT_FOUND)]),
    row("proxy_enqueue_shared_queue", &[N(9_999), T("item")], &[(ALL, NOT_FOUND)]),
    row("proxy_dequeue_shared_queue", &[N(9_999), Bytes], &[(ALL, NOT_FOUND)]),
];

#[tokio::test]
async fn in_every_callback() {
    let reports = check(ROWS).await;
    for callback in ["vm_start", "tick", "queue_ready", "request_body", "log"] {
        let report = last(&reports, callback);
        let ids = [2, 3, 4].map(|place| report.value(place).as_u64().unwrap());
        assert!(ids.iter().all(|id| *id == ids[0] && *id != 0), "{callback}: one queue, one id: {ids:?}");
        assert_eq!(
            [7, 8].map(|place| report.value(place).clone()),
            ["first", ""],
            "{callback}: first in, first out"
        );
    }
}

#[tokio::test]
async fn each_item_is_announced_to_who_registered() {
    let script = Script::default()
        .on("configure", [call("proxy_register_shared_queue", &[T("work"), Save("work")])])
        .on(
            "request_headers",
            [
                call("proxy_enqueue_shared_queue", &[Saved("work"), T("one")]),
                call("proxy_enqueue_shared_queue", &[Saved("work"), T("two")]),
            ],
        )
        .on("queue_ready", [call("proxy_dequeue_shared_queue", &[Saved("work"), Bytes])]);
    let running = World::start().await.run(&script).await;
    running.exchange().await;
    entered(running.log(), "queue_ready", 2).await;
    let reports = running.stop().await;
    let id = last(&reports, "configure").value(0).as_u64().unwrap();
    let root = last(&reports, "configure").context;
    let ready: Vec<_> = reports.iter().filter(|report| report.phase == "queue_ready").collect();
    assert_eq!(ready.len(), 2, "{ready:?}");
    assert!(
        ready.iter().all(|report| report.context == root && u64::from(report.arguments[0]) == id),
        "{ready:?}"
    );
    assert_eq!([0, 1].map(|event| ready[event].value(0).clone()), ["one", "two"]);
}

/// What was taken out before is not announced, and the guest hears of each item that is there.
#[tokio::test]
async fn what_is_not_there_any_more_is_not_announced() {
    let [put, take] = [
        call("proxy_enqueue_shared_queue", &[Saved("work"), T("item")]),
        call("proxy_dequeue_shared_queue", &[Saved("work"), Bytes]),
    ];
    let storm = std::iter::repeat_n([put.clone(), take.clone()], 40).flatten();
    let script = Script::default()
        .on("configure", [call("proxy_register_shared_queue", &[T("work"), Save("work")])])
        .on("request_headers", storm.chain([put.clone(), put]))
        .on("queue_ready", [take]);
    let running = World::start().await.run(&script).await;
    running.exchange().await;
    entered(running.log(), "queue_ready", 2).await;
    // Whatever was announced before comes before this exchange's end.
    running.exchange().await;
    entered(running.log(), "queue_ready", 4).await;
    let reports = running.stop().await;
    assert_eq!(last(&reports, "request_headers").statuses(), [OK; 82]);
    let ready: Vec<_> = reports.iter().filter(|report| report.phase == "queue_ready").collect();
    assert_eq!(ready.len(), 4, "{ready:?}");
    assert!(ready.iter().all(|report| report.status(0) == OK), "{ready:?}");
}

#[tokio::test]
async fn names_have_256_bytes_at_most() {
    let name = |length| T("x".repeat(length).leak());
    let (_, reports) = exchange(&Script::default().on(
        "request_headers",
        [
            call("proxy_register_shared_queue", &[name(256), Save("long")]),
            call("proxy_resolve_shared_queue", &[T(""), name(256), Word]),
            call("proxy_enqueue_shared_queue", &[Saved("long"), T("item")]),
            call("proxy_register_shared_queue", &[name(257), Word]),
            call("proxy_resolve_shared_queue", &[T(""), name(257), Word]),
            call("proxy_resolve_shared_queue", &[name(257), T("queue"), Word]),
        ],
    ))
    .await;
    let expected = [OK, OK, OK, BAD_ARGUMENT, NOT_FOUND, NOT_FOUND];
    assert_eq!(last(&reports, "request_headers").statuses(), expected);
}

/// The name of a queue is its VM's, and others find it by that VM's name. Before, its token is none to them; then they put
/// items in, and take none out.
#[tokio::test]
async fn a_queue_of_another_vm() {
    let world = World::start().await;
    let taker = Script::default()
        .on("configure", [call("proxy_register_shared_queue", &[T("work"), Save("work")])])
        .on("queue_ready", [call("proxy_dequeue_shared_queue", &[Saved("work"), Bytes])]);
    let giver = Script::default().on(
        "request_headers",
        [
            call("proxy_resolve_shared_queue", &[T(""), T("work"), Word]),
            call("proxy_resolve_shared_queue", &[T("givers"), T("work"), Word]),
            // The first queue that there is.
            call("proxy_enqueue_shared_queue", &[N(1), T("forged")]),
            call("proxy_dequeue_shared_queue", &[N(1), Bytes]),
            call("proxy_resolve_shared_queue", &[T("takers"), T("work"), Save("theirs")]),
            call("proxy_enqueue_shared_queue", &[Saved("theirs"), T("item")]),
            call("proxy_dequeue_shared_queue", &[Saved("theirs"), Bytes]),
        ],
    );
    let quoted = |script: &Script| serde_json::to_string(&script.json()).unwrap();
    let chain = format!("- taker: {}\n- giver: {}", quoted(&taker), quoted(&giver));
    let gate = meshgate_tests::Meshgate::chain(&chain)
        .filter("taker", &meshgate_tests::guest("conformance"), "vm: takers")
        .filter("giver", &meshgate_tests::guest("conformance"), "vm: givers")
        .cluster("one", &[&world.one])
        .start()
        .await;
    gate.get("/").await;
    let ready = entered(gate.log(), "queue_ready", 1).await;
    assert_eq!((ready[0].status(0), ready[0].value(0)), (OK, &"item".into()));
    let reports = super::script::reports(&gate.stop().await.log);
    let expected = [NOT_FOUND, NOT_FOUND, NOT_FOUND, NOT_FOUND, OK, OK, NOT_FOUND];
    assert_eq!(last(&reports, "request_headers").statuses(), expected);
    let token = last(&reports, "configure").value(0).as_u64();
    assert_eq!(token, Some(1), "the token that was tried is the queue's");
}
