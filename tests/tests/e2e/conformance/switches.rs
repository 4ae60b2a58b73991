//! A filter's keys that say what it gets and which way it wants it where hosts differ: those whose effect is on every
//! callback or every call. What the others do is tested in `compatibility`, `paths` and `initialize`.

use super::headers::VALUES;
use super::matrix::{NOWHERE, Phases, Row, check_on, script};
use super::script::Arg::{Bytes, N, T, Word};
use super::script::{BAD_ARGUMENT, NOT_FOUND, OK, Script, call};
use super::world::{LIMITS, World, last};

/// The callbacks in which the row finds what it asks for.
fn found(row: &Row) -> Phases {
    row.expected.iter().filter(|(_, status)| *status == OK).fold(NOWHERE, |all, (phases, _)| all.or(*phases))
}

#[tokio::test]
pub(super) async fn absent_maps() {
    // A field of each map: absent with its map, never alone.
    let rows: Vec<Row> = VALUES[..8]
        .iter()
        .map(|row| {
            let found = found(row);
            let expected: &'static [(Phases, u32)] =
                vec![(found, OK), (super::matrix::ALL, BAD_ARGUMENT)].leak();
            Row { function: row.function, arguments: row.arguments, expected }
        })
        .collect();
    let keys = format!("{LIMITS}, compatibility: {{absent_maps: bad_argument}}");
    check_on(World::start().await.run_with(&script(rows.iter()), &keys).await, 1, &rows).await;
}

#[tokio::test]
pub(super) async fn null_values() {
    for (keys, status) in [("remove", NOT_FOUND), ("store", OK)] {
        let script = Script::default().on(
            "request_headers",
            [
                call("proxy_set_shared_data", &[T("key"), T("value"), N(0)]),
                call("proxy_set_shared_data", &[T("key"), N(0), N(0), N(0)]),
                call("proxy_get_shared_data", &[T("key"), Bytes, Word]),
            ],
        );
        let keys = format!("{LIMITS}, compatibility: {{null_values: {keys}}}");
        let running = World::start().await.run_with(&script, &keys).await;
        running.exchange().await;
        let reports = running.stop().await;
        assert_eq!(last(&reports, "request_headers").statuses(), [OK, OK, status], "{keys}");
    }
}

#[tokio::test]
pub(super) async fn what_a_vm_is_given() {
    for (given, text) in [("a text", "a text"), ("{a: [1, true]}", r#"{"a":[1,true]}"#)] {
        let script =
            Script::default().on("vm_start", [call("proxy_get_buffer_bytes", &[N(6), N(0), N(100), Bytes])]);
        let keys = format!("{LIMITS}, vm_configuration: {given}");
        let running = World::start().await.run_with(&script, &keys).await;
        let reports = running.stop().await;
        let report = last(&reports, "vm_start");
        assert_eq!(report.value(0), text);
        assert_eq!(report.arguments, [u32::try_from(text.len()).unwrap()]);
    }
}

#[tokio::test]
pub(super) async fn environment() {
    // Two variables, of 14 and 4 bytes with their NULs.
    let sizes = call("environ_sizes_get", &[Word, Word]);
    let script = Script::default().on("request_headers", [sizes]);
    let keys = format!("{LIMITS}, environment: {{LEVEL: verbose, A: b}}");
    let running = World::start().await.run_with(&script, &keys).await;
    running.exchange().await;
    let reports = running.stop().await;
    let result = &last(&reports, "request_headers").results[0];
    assert_eq!(result, &[0, 2, 18].map(serde_json::Value::from));
}
