//! Shared data.

use super::matrix::{ALL, Row, check, row};
use super::script::Arg::{Bytes, N, Save, Saved, T, Word};
use super::script::{CAS_MISMATCH, INTERNAL_FAILURE, NOT_FOUND, OK, Script, call, entered};
use super::world::{World, exchange, last};

pub(super) const ROWS: &[Row] = &[
    row("proxy_get_shared_data", &[T("none"), Bytes, Word], &[(ALL, NOT_FOUND)]),
    row("proxy_set_shared_data", &[T("key"), T("one"), N(0)], &[(ALL, OK)]),
    row("proxy_get_shared_data", &[T("key"), Bytes, Save("version")], &[(ALL, OK)]),
    row("proxy_set_shared_data", &[T("key"), T("two"), Saved("version")], &[(ALL, OK)]),
    // That version is gone.
    row("proxy_set_shared_data", &[T("key"), T("three"), Saved("version")], &[(ALL, CAS_MISMATCH)]),
    row("proxy_get_shared_data", &[T("key"), Bytes, Word], &[(ALL, OK)]),
    // No pointer: the key is removed. An empty value is a value.
    row("proxy_set_shared_data", &[T("key"), N(0), N(0), N(0)], &[(ALL, OK)]),
    row("proxy_get_shared_data", &[T("key"), Bytes, Word], &[(ALL, NOT_FOUND)]),
    row("proxy_set_shared_data", &[T("empty"), N(16), N(0), N(0)], &[(ALL, OK)]),
    row("proxy_get_shared_data", &[T("empty"), Bytes, Word], &[(ALL, OK)]),
    row("proxy_set_shared_data", &[T(""), T("no key"), N(0)], &[(ALL, OK)]),
    row("proxy_get_shared_data", &[T(""), Bytes, Word], &[(ALL, OK)]),
];

#[tokio::test]
async fn in_every_callback() {
    let reports = check(ROWS).await;
    let values = |callback| [2, 5, 9, 11].map(|place| last(&reports, callback).value(place).clone());
    for callback in ["vm_start", "tick", "request_body", "log", "root_done"] {
        assert_eq!(values(callback), ["one", "two", "", "no key"], "{callback}");
    }
    assert_ne!(last(&reports, "configure").results[2][2], 0, "a version is never 0");
}

#[tokio::test]
async fn every_change_has_a_new_version() {
    let calls = [
        call("proxy_set_shared_data", &[T("key"), T("a"), N(0)]),
        call("proxy_get_shared_data", &[T("key"), Bytes, Word]),
        call("proxy_set_shared_data", &[T("key"), T("a"), N(0)]),
        call("proxy_get_shared_data", &[T("key"), Bytes, Word]),
        call("proxy_set_shared_data", &[T("key"), N(0), N(0), N(77)]),
        call("proxy_set_shared_data", &[T("key"), N(0), N(0), N(0)]),
        call("proxy_set_shared_data", &[T("key"), T("a"), N(0)]),
        call("proxy_get_shared_data", &[T("key"), Bytes, Word]),
    ];
    let (_, reports) = exchange(&Script::default().on("request_headers", calls)).await;
    let report = last(&reports, "request_headers");
    assert_eq!(report.statuses(), [OK, OK, OK, OK, CAS_MISMATCH, OK, OK, OK]);
    let mut versions: Vec<_> =
        [1, 3, 7].map(|place: usize| report.results[place][2].as_u64().unwrap()).to_vec();
    versions.dedup();
    assert_eq!(versions.len(), 3, "{report:?}");
}

/// Keys that lie somewhere in the guest's memory.
#[tokio::test]
async fn keys_have_64_kib_at_most() {
    let calls = [
        call("proxy_set_shared_data", &[N(4_096), N(65_536), T("value"), N(0)]),
        call("proxy_set_shared_data", &[N(4_096), N(65_537), T("value"), N(0)]),
        call("proxy_get_shared_data", &[N(4_096), N(65_537), Bytes, Word]),
        call("proxy_set_shared_data", &[N(4_096), N(65_537), N(0), N(0), N(0)]),
    ];
    let (_, reports) = exchange(&Script::default().on("request_headers", calls)).await;
    let expected = [OK, INTERNAL_FAILURE, NOT_FOUND, OK];
    assert_eq!(last(&reports, "request_headers").statuses(), expected);
}

/// Plugins of a VM of the same name share; those of another name do not.
#[tokio::test]
async fn vms_of_one_name_share() {
    let world = World::start().await;
    let set = Script::default()
        .on("request_headers", [call("proxy_set_shared_data", &[T("key"), T("value"), N(0)])]);
    let get = Script::default().on("request_body", [call("proxy_get_shared_data", &[T("key"), Bytes, Word])]);
    let quoted = |script: &Script| serde_json::to_string(&script.json()).unwrap();
    for (theirs, status) in [("ours", OK), ("others", NOT_FOUND)] {
        let chain = format!("- setter: {}\n- getter: {}", quoted(&set), quoted(&get));
        let gate = meshgate_tests::Meshgate::chain(&chain)
            .filter("setter", &meshgate_tests::guest("conformance"), "vm: ours")
            .filter("getter", &meshgate_tests::guest("conformance"), &format!("vm: {theirs}"))
            .cluster("one", &[&world.one])
            .start()
            .await;
        gate.call(super::world::whole()).await;
        entered(gate.log(), "delete", 2).await;
        let reports = super::script::reports(&gate.stop().await.log);
        assert_eq!(last(&reports, "request_body").statuses(), [status], "{theirs}");
    }
}
