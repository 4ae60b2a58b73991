//! Lines as they are written, and the way they take to the file.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use bytes::Bytes;
use meshgate_config::{AccessLogFormat, AccessLogOutput};
use proptest::prelude::*;
use serde_json::Value;
use tokio::task::LocalSet;

use super::*;
use crate::telemetry::Registry;
use crate::telemetry::timestamp::{DateCache, rfc3339};

const ABSURDLY_LONG: Duration = Duration::from_secs(60);

fn record() -> AccessRecord<'static> {
    AccessRecord {
        start: UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
        method: "GET",
        path: b"/a/b?c=d",
        protocol: "HTTP/1.1",
        status: 200,
        flags: "",
        details: "via_upstream",
        bytes_received: 0,
        bytes_sent: 1234,
        duration: Duration::from_micros(12_900),
        upstream_time: Some(Duration::from_millis(11)),
        forwarded_for: None,
        user_agent: Some(b"curl/8"),
        request_id: Some(b"77"),
        authority: Some(b"example.com"),
        server_name: Some("example.com"),
        upstream_address: Some(SocketAddr::from(([127, 0, 0, 1], 9001)).into()),
        upstream_failure: None,
        cluster: Some("reviews-v1"),
        route: Some("rest"),
        downstream_address: SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 55555)).into(),
        listener: "web",
        fields: LogFields::NONE,
    }
}

/// What a filter added.
fn added(fields: &[(&str, &'static [u8])]) -> LogFields {
    let mut all = LogFields::default();
    for (name, value) in fields {
        assert!(all.set(0, name, Bytes::from_static(value), usize::MAX));
    }
    all
}

fn text(record: &AccessRecord<'_>) -> String {
    let mut line = Vec::new();
    format::text(record, &mut DateCache::default(), &mut line);
    String::from_utf8(line).unwrap()
}

fn json(record: &AccessRecord<'_>) -> String {
    let mut line = Vec::new();
    format::json(record, &mut DateCache::default(), &mut line);
    String::from_utf8(line).unwrap()
}

#[test]
fn a_line_of_text() {
    assert_eq!(
        text(&record()),
        "[2023-11-14T22:13:20.123Z] \"GET /a/b?c=d HTTP/1.1\" 200 - via_upstream 0 1234 12 11 \"-\" \"curl/8\" \"77\" \"example.com\" \
         \"127.0.0.1:9001\" reviews-v1 rest [::1]:55555 web\n"
    );
}

#[test]
fn a_line_of_json() {
    let line = json(&record());
    let value: Value = serde_json::from_str(&line).unwrap();
    let expected = serde_json::json!({
        "start_time": "2023-11-14T22:13:20.123Z", "method": "GET", "path": "/a/b?c=d", "protocol": "HTTP/1.1",
        "response_code": 200, "response_flags": null, "response_code_details": "via_upstream",
        "bytes_received": 0, "bytes_sent": 1234, "duration_ms": 12, "upstream_time_ms": 11,
        "x_forwarded_for": null, "user_agent": "curl/8", "request_id": "77", "authority": "example.com", "requested_server_name": "example.com",
        "upstream_address": "127.0.0.1:9001", "upstream_failure": null, "cluster": "reviews-v1", "route": "rest",
        "downstream_address": "[::1]:55555", "listener": "web", "fields": null,
    });
    assert_eq!(value, expected);
}

#[test]
fn what_filters_added_stands_at_the_end() {
    let fields = added(&[("rate_limit.rule", b"per \"client\""), ("empty", b""), ("odd", b"a\n\xff")]);
    let record = AccessRecord { fields: &fields, ..record() };
    let line = text(&record);
    assert!(
        line.ends_with(" web rate_limit.rule=\"per \\\"client\\\"\" empty=\"\" odd=\"a\\x0a\\xff\"\n"),
        "{line}"
    );
    let value: Value = serde_json::from_str(&json(&record)).unwrap();
    let expected =
        serde_json::json!({"rate_limit.rule": "per \"client\"", "empty": "", "odd": "a\n\u{fffd}"});
    assert_eq!(value["fields"], expected);
}

#[test]
fn nothing_a_client_sends_ends_a_field_or_a_line() {
    let hostile = b"\" 200 -\n[2023] \"GET /\x1b[2J\xff\xe2\x80\xae\\";
    let line = text(&AccessRecord { user_agent: Some(hostile), ..record() });
    assert!(line.contains(r#" "\" 200 -\x0a[2023] \"GET /\x1b[2J\xff\xe2\x80\xae\\" "#), "{line}");
    let line = json(&AccessRecord { user_agent: Some(hostile), ..record() });
    assert!(
        line.contains(r#""user_agent":"\" 200 -\u000a[2023] \"GET /\u001b[2J\ufffd\u202e\\","#),
        "{line}"
    );
}

/// Splits a line of the text format and undoes the escapes. The inverse of [`format::text`], written independently of it.
fn fields(line: &str) -> Vec<Vec<u8>> {
    let mut fields = vec![Vec::new()];
    let mut quoted = false;
    let mut bytes = line.strip_suffix('\n').unwrap().bytes();
    while let Some(byte) = bytes.next() {
        let field = fields.last_mut().unwrap();
        match byte {
            b'\\' => match bytes.next().unwrap() {
                b'x' => {
                    let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
                    field.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
                }
                escaped => field.push(escaped),
            },
            b'"' => quoted = !quoted,
            b' ' if !quoted => fields.push(Vec::new()),
            byte => field.push(byte),
        }
    }
    assert!(!quoted, "unbalanced quotes: {line}");
    fields
}

/// Bytes as clients could send them, with the dangerous ones more often than chance would have it.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let dangerous = prop::sample::select(b"\"\\\n\r\t\0 \x7f\x1b-'<&\xc2\x80\xff\xf0\x9f".to_vec());
    let byte = prop_oneof![dangerous, any::<u8>(), b'a'..=b'z'];
    let characters = any::<String>().prop_map(String::into_bytes);
    prop_oneof![prop::collection::vec(byte, 1..40), characters]
        .prop_filter("absent values are shown as a dash", |value| !value.is_empty() && value != b"-")
}

prop_compose! {
    fn texts()(values in prop::collection::vec(bytes(), 5), names in prop::collection::vec("[ -~é\n\"\\\\]{1,20}", 4)
        .prop_filter("absent values are shown as a dash", |names| names.iter().all(|name| name != "-")))
        -> (Vec<Vec<u8>>, Vec<String>) {
        (values, names)
    }
}

proptest! {
    #[test]
    fn a_json_line_parses_back_to_the_same_values(
        (values, names) in texts(), status in any::<u16>(), sent in any::<u64>(), milliseconds in any::<u32>(),
    ) {
        let time = Duration::from_millis(milliseconds.into());
        let record = AccessRecord {
            path: &values[0], forwarded_for: Some(&values[1]), user_agent: Some(&values[2]), request_id: Some(&values[3]),
            authority: Some(&values[4]), details: &names[0], cluster: Some(&names[1]), route: Some(&names[2]), listener: &names[3],
            status, bytes_sent: sent, duration: time, upstream_time: None, start: UNIX_EPOCH + time, ..record()
        };
        let line = json(&record);
        prop_assert!(line.strip_suffix('\n').unwrap().bytes().all(|byte| matches!(byte, b' '..=b'~')), "{}", line);
        let parsed: Value = serde_json::from_str(&line).unwrap();
        for (key, value) in ["path", "x_forwarded_for", "user_agent", "request_id", "authority"].iter().zip(&values) {
            let expected = String::from_utf8_lossy(value);
            prop_assert_eq!(parsed[key].as_str(), Some(expected.as_ref()), "{}", key);
        }
        for (key, name) in ["response_code_details", "cluster", "route", "listener"].iter().zip(&names) {
            prop_assert_eq!(parsed[key].as_str(), Some(name.as_str()), "{}", key);
        }
        prop_assert_eq!(parsed["response_code"].as_u64(), Some(status.into()));
        prop_assert_eq!(parsed["bytes_sent"].as_u64(), Some(sent));
        prop_assert_eq!(parsed["duration_ms"].as_u64(), Some(milliseconds.into()));
        prop_assert_eq!(&parsed["upstream_time_ms"], &Value::Null);
        let start = rfc3339(UNIX_EPOCH + time);
        prop_assert_eq!(parsed["start_time"].as_str(), Some(start.as_str()));
    }

    #[test]
    fn a_line_of_text_splits_back_into_the_same_bytes((values, names) in texts()) {
        let record = AccessRecord {
            path: b"/", forwarded_for: Some(&values[1]), user_agent: Some(&values[2]), request_id: Some(&values[3]),
            authority: Some(&values[4]), details: &names[0], cluster: Some(&names[1]), route: Some(&names[2]), listener: &names[3],
            ..record()
        };
        let line = text(&record);
        prop_assert!(line.strip_suffix('\n').unwrap().bytes().all(|byte| matches!(byte, b' '..=b'~')), "{}", line);
        let fields = fields(&line);
        prop_assert_eq!(fields.len(), 18);
        prop_assert_eq!(&fields[1], b"GET / HTTP/1.1");
        for (index, value) in [(9, &values[1]), (10, &values[2]), (11, &values[3])] {
            prop_assert_eq!(&fields[index], value);
        }
        for (index, name) in [(4, &names[0]), (14, &names[1]), (15, &names[2])] {
            prop_assert_eq!(&fields[index], name.as_bytes());
        }
    }
}

fn target(path: &Path, format: AccessLogFormat) -> AccessLogTarget {
    let output = AccessLogOutput::File(path.to_owned());
    AccessLogTarget::open(&meshgate_config::AccessLog { format, output }).unwrap()
}

/// The value of a counter in the registry.
fn counted(registry: &Registry, name: &str) -> u64 {
    let text = registry.render();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name}"));
    line.trim().parse().unwrap()
}

fn wait_until(what: &str, mut happened: impl FnMut() -> bool) {
    let start = Instant::now();
    while !happened() {
        assert!(start.elapsed() < ABSURDLY_LONG, "never happened: {what}");
        std::thread::yield_now();
    }
}

const WRITTEN: &str = "meshgate_access_log_lines_written_total";
const DROPPED: &str = "meshgate_access_log_lines_dropped_total";

#[test]
fn every_line_of_every_worker_arrives_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let registry = Registry::new();
    let writer = AccessLogWriter::start(&registry).unwrap();
    writer.switch(target(&path, AccessLogFormat::Json));
    std::thread::scope(|scope| {
        for worker in 0..4_u64 {
            let sink = writer.sink();
            scope.spawn(move || {
                let log = AccessLog::new(sink);
                for line in 0..500 {
                    log.write(&AccessRecord { bytes_received: worker, bytes_sent: line, ..record() });
                }
            });
        }
    });
    assert!(writer.close(ABSURDLY_LONG));
    let mut next = [0; 4];
    for line in fs::read_to_string(&path).unwrap().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let worker = line["bytes_received"].as_u64().unwrap() as usize;
        assert_eq!(line["bytes_sent"], next[worker]);
        next[worker] += 1;
    }
    assert_eq!(next, [500; 4]);
    assert_eq!((counted(&registry, WRITTEN), counted(&registry, DROPPED)), (2000, 0));
}

#[test]
fn a_single_line_is_written_without_being_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let writer = AccessLogWriter::start(&Registry::new()).unwrap();
    writer.switch(target(&path, AccessLogFormat::Text));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let log = Rc::new(AccessLog::new(writer.sink()));
    runtime.block_on(LocalSet::new().run_until(async {
        let running = Rc::clone(&log);
        let running = tokio::task::spawn_local(async move { running.run().await });
        for count in 1..=2 {
            log.write(&record());
            let arrived = async {
                while fs::read_to_string(&path).unwrap().lines().count() < count {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(ABSURDLY_LONG, arrived).await.expect("the line stayed in its batch");
        }
        running.abort();
    }));
}

#[test]
fn an_output_that_nobody_reads_costs_lines_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    let registry = Registry::new();
    let writer = AccessLogWriter::start(&registry).unwrap();
    writer.switch(target(&path, AccessLogFormat::Text));
    let log = AccessLog::new(writer.sink());
    let long = vec![b'x'; 16 * 1024];
    for _ in 0..2_000 {
        log.write(&AccessRecord { user_agent: Some(&long), ..record() });
    }
    assert!(counted(&registry, DROPPED) > 1_000, "{} lines lost", counted(&registry, DROPPED));
    assert!(counted(&registry, WRITTEN) < 1_000);
    assert!(!writer.close(Duration::from_millis(10)), "the writer cannot have finished");
}

#[test]
fn a_full_disk_is_counted_and_survived() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let registry = Registry::new();
    let writer = AccessLogWriter::start(&registry).unwrap();
    writer.switch(target(Path::new("/dev/full"), AccessLogFormat::Text));
    let log = AccessLog::new(writer.sink());
    log.write(&record());
    log.flush();
    wait_until("the line is lost", || counted(&registry, DROPPED) == 1);
    writer.switch(target(&path, AccessLogFormat::Text));
    log.write(&record());
    log.flush();
    assert!(writer.close(ABSURDLY_LONG));
    assert_eq!(fs::read_to_string(&path).unwrap().trim_start(), text(&record()));
    assert_eq!((counted(&registry, WRITTEN), counted(&registry, DROPPED)), (1, 1));
}

#[test]
fn after_a_rename_reopening_starts_a_new_file() {
    let folder = tempfile::tempdir().unwrap();
    let (path, rotated) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
    let registry = Registry::new();
    let writer = AccessLogWriter::start(&registry).unwrap();
    writer.switch(target(&path, AccessLogFormat::Text));
    let log = AccessLog::new(writer.sink());
    log.write(&AccessRecord { route: Some("old"), ..record() });
    log.flush();
    wait_until("the first line is written", || counted(&registry, WRITTEN) == 1);
    fs::rename(&path, &rotated).unwrap();
    writer.reopen();
    log.write(&AccessRecord { route: Some("new"), ..record() });
    log.flush();
    assert!(writer.close(ABSURDLY_LONG));
    assert_eq!(fs::read_to_string(&rotated).unwrap(), text(&AccessRecord { route: Some("old"), ..record() }));
    assert_eq!(fs::read_to_string(&path).unwrap(), text(&AccessRecord { route: Some("new"), ..record() }));
}

#[test]
fn nothing_is_gathered_while_the_log_is_off() {
    let registry = Registry::new();
    let writer = AccessLogWriter::start(&registry).unwrap();
    let off = meshgate_config::AccessLog { output: AccessLogOutput::Off, ..Default::default() };
    writer.switch(AccessLogTarget::open(&off).unwrap());
    let log = AccessLog::new(writer.sink());
    assert!(!log.is_on());
    log.write(&record());
    drop(log);
    assert!(writer.close(ABSURDLY_LONG));
    assert_eq!(counted(&registry, WRITTEN), 0);
}

#[test]
fn a_file_that_cannot_be_opened_is_an_error() {
    let output = AccessLogOutput::File("/nonexistent/access.log".into());
    AccessLogTarget::open(&meshgate_config::AccessLog { output, ..Default::default() }).unwrap_err();
}
