//! Shared queues.

use super::matrix::{ALL, Row, check, row};
use super::script::Arg::{Bytes, N, Save, Saved, T, Word};
use super::script::{EMPTY, NOT_FOUND, OK, Script, call, entered};
use super::world::{World, last};

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

/// The name of a queue is its VM's, and others find it by that VM's name.
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
            call("proxy_resolve_shared_queue", &[T("takers"), T("work"), Save("theirs")]),
            call("proxy_enqueue_shared_queue", &[Saved("theirs"), T("item")]),
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
    assert_eq!(last(&reports, "request_headers").statuses(), [NOT_FOUND, NOT_FOUND, OK, OK]);
}
