//! Filters on TCP listeners: what each callback sees and does, pause and resume, calls, closing, failing. The guest `tcp`
//! does what its configuration says.

use http::Response;
use meshgate_tests::{Backend, Ended, Meshgate, Setup, Socket, SocketBackend, example, full, until};

use super::tcp::{connected, entry, tcp};

/// A reset, with nothing before it.
fn reset() -> Ended {
    Ended { bytes: Vec::new(), reset: true }
}

/// A backend for calls, which answers with this status.
async fn answering(status: u16) -> Backend {
    Backend::answering("called", move |_, _| async move {
        Ok(Response::builder().status(status).body(full("")).unwrap())
    })
    .await
}

/// What the filters of this name said, up to the line in their log callback.
async fn said(gate: &Meshgate, name: &str) -> Vec<String> {
    let words = format!("{name}: ");
    let said = |line: &String| {
        let from = line.find(&words)? + words.len();
        Some(line[from..].split(" filter=").next().unwrap_or_default().to_owned())
    };
    until("the filter's log callback", || async {
        let lines: Vec<String> = gate.log().all().iter().filter_map(said).collect();
        lines.last().is_some_and(|line| line.starts_with("log")).then_some(lines)
    })
    .await
}

#[tokio::test]
async fn both_directions_are_rewritten() {
    let backend = SocketBackend::start().await;
    let gate = tcp(
        "- tcp: {downstream: {uppercase: true, prepend: '<', append: '>'}, upstream: {double: true, append: .}}",
        &backend,
    )
    .start()
    .await;
    let (mut client, mut server) = connected(&gate, &backend).await;
    client.write("hello").await;
    server.expect("<HELLO").await;
    server.write("ab").await;
    client.expect("abab").await;
    client.write(", you").await;
    client.finish().await;
    assert_eq!(server.end().await, Ended::in_order(", YOU>"));
    server.finish().await;
    assert_eq!(client.end().await, Ended::in_order("."));
    let entry = entry(&gate, 0).await;
    assert_eq!(
        (&entry["bytes_received"], &entry["bytes_sent"]),
        (&10.into(), &5.into()),
        "as the client has it"
    );
}

#[tokio::test]
async fn data_goes_down_the_chain_and_back_up() {
    let backend = SocketBackend::start().await;
    let chain =
        "- tcp: {name: both, downstream: {append: a}, upstream: {append: a}, properties: [plugin_name]}
                 - tcp: {downstream: {append: b}, upstream: {append: b}}
                 - tcp: {downstream: {swallow: true}, upstream: {hold: 6}}";
    let gate = tcp(&chain.replace("                 ", ""), &backend).start().await;
    let (mut client, mut server) = connected(&gate, &backend).await;
    client.write("lost").await;
    client.finish().await;
    // Bytes behind the end belong to the filter that put them there, and the last one swallowed them all.
    assert_eq!(server.end().await, Ended::in_order(""));
    server.write("abc").await;
    server.write("def").await;
    client.expect("abcdef").await;
    server.finish().await;
    assert_eq!(client.end().await, Ended::in_order("ba"));
}

#[tokio::test]
async fn callbacks_come_in_order() {
    let backend = SocketBackend::start().await;
    let properties = "[source/address, destination/port, connection/id, upstream/address, upstream/local_address, \
        request/size, response/size, request/path, xds/cluster_name, response/flags, request/duration]";
    let chain = format!("- tcp: {{name: seen, properties: {properties}}}");
    let gate = tcp(&chain, &backend).start().await;
    let (mut client, mut server) = connected(&gate, &backend).await;
    client.write("question").await;
    server.expect("question").await;
    client.finish().await;
    assert_eq!(server.end().await, Ended::in_order(""));
    server.write("answer").await;
    client.expect("answer").await;
    server.finish().await;
    assert_eq!(client.end().await, Ended::in_order(""));
    let mut lines = said(&gate, "seen").await;
    let log = lines.pop().unwrap();
    assert_eq!(
        lines,
        [
            "new_connection",
            "downstream_data 8 false",
            "downstream_data 0 true",
            "upstream_data 6 false",
            "upstream_data 0 true",
            "upstream_close 2",
            "downstream_close 1",
            "done"
        ]
    );
    let value = |path: &str| {
        let from = log.find(&format!(" {path}=")).unwrap() + path.len() + 2;
        log[from..].split(' ').next().unwrap().to_owned()
    };
    assert_eq!(value("source/address"), client.address().to_string());
    assert_eq!(value("destination/port"), gate.address().port().to_string());
    assert_eq!(value("upstream/address"), backend.address().to_string());
    assert!(value("upstream/local_address").starts_with("127.0.0.1:"), "{log}");
    assert_eq!((value("request/size"), value("response/size")), ("8".into(), "6".into()));
    assert_eq!((value("request/path"), value("xds/cluster_name")), ("none".into(), "one".into()));
    assert_eq!(value("response/flags"), "0");
    assert!(value("connection/id").parse::<u64>().unwrap() > 0);
    assert!(value("request/duration").parse::<u64>().unwrap() > 0);
}

#[tokio::test]
async fn an_abort_is_told_by_who_did_it() {
    let backend = SocketBackend::start().await;
    for (by_client, expected) in [
        (true, ["upstream_close 1", "downstream_close 2"]),
        (false, ["upstream_close 2", "downstream_close 1"]),
    ] {
        let gate = tcp("- tcp: {name: seen}", &backend).start().await;
        let (mut client, mut server) = connected(&gate, &backend).await;
        client.write("half").await;
        server.expect("half").await;
        if by_client {
            client.reset()
        } else {
            server.reset()
        }
        let lines = said(&gate, "seen").await;
        assert_eq!(lines[2..4], expected, "{lines:?}");
    }
}

#[tokio::test]
async fn a_paused_side_goes_on_when_it_is_resumed() {
    let backend = SocketBackend::start().await;
    for phase in ["new_connection", "downstream_data", "upstream_data"] {
        let called = answering(200).await;
        let call = format!("call: {{at: {phase}, cluster: called, path: /}}");
        let chain = format!("- tcp: {{name: outer, {call}}}\n- tcp: {{name: inner}}");
        let gate = tcp(&chain, &backend).cluster("called", &[&called]).start().await;
        let mut client = Socket::connect(gate.address()).await;
        client.write("question").await;
        let mut server = backend.accept().await;
        server.expect("question").await;
        server.write("answer").await;
        client.expect("answer").await;
        client.write(" more").await;
        server.expect(" more").await;
        client.finish().await;
        assert_eq!(server.end().await, Ended::in_order(""));
        server.finish().await;
        assert_eq!(client.end().await, Ended::in_order(""));
        assert_eq!(called.seen().len(), 1, "{phase}");
        let outer = said(&gate, "outer").await;
        let at = |line: &str| outer.iter().position(|said| said.starts_with(line)).unwrap();
        assert!(at("call 200") > at(phase), "{outer:?}");
        let inner = said(&gate, "inner").await;
        assert!(inner.contains(&"downstream_data 8 false".to_owned()), "{inner:?}");
    }
}

#[tokio::test]
async fn data_that_comes_while_a_filter_pauses_is_kept() {
    let backend = SocketBackend::start().await;
    let gate =
        tcp("- tcp: {name: held, downstream: {hold: 10}, upstream: {hold: 4}}", &backend).start().await;
    let (mut client, mut server) = connected(&gate, &backend).await;
    for (part, total) in [("abc", 3), ("defg", 7), ("hij", 10)] {
        client.write(part).await;
        let line = format!("held: downstream_data {total} ");
        gate.log().wait("all that is held", |seen| seen.contains(&line).then_some(())).await;
    }
    server.expect("abcdefghij").await;
    // What is held when the side ends comes with the end.
    server.write("x").await;
    server.finish().await;
    assert_eq!(client.end().await, Ended::in_order("x"));
}

#[tokio::test]
async fn a_filter_that_holds_all_it_may_is_not_given_more() {
    let backend = SocketBackend::start().await;
    let setup = Meshgate::chain("- tcp: {downstream: {hold: 1000000}}").listener("protocol: tcp");
    let gate = setup
        .guest("tcp", "limits: {body: 64KiB, pause: 2s}")
        .cluster_of("one", &[backend.address()], "")
        .start()
        .await;
    let (client, mut server) = connected(&gate, &backend).await;
    let (_in, mut out) = client.split();
    let mut sent = 0;
    let patience = std::time::Duration::from_secs(1);
    let bytes = vec![7; 1 << 20];
    while let Ok(written) =
        tokio::time::timeout(patience, tokio::io::AsyncWriteExt::write(&mut out, &bytes)).await
    {
        sent += written.unwrap();
        assert!(sent < 64 << 20, "all was taken");
    }
    // It never lets go, and not for ever: the connection is broken off.
    assert_eq!(server.end().await, reset());
    assert_eq!(entry(&gate, 0).await["response_code_details"], "wasm_pause_timeout");
}

#[tokio::test]
async fn what_a_filter_holds_takes_no_more_memory_than_it_must() {
    const HELD: usize = 400;
    let backend = SocketBackend::start().await;
    let gate = tcp(&format!("- tcp: {{downstream: {{hold: {HELD}}}}}"), &backend).start().await;
    let (mut client, mut server) = connected(&gate, &backend).await;
    let (before, _) = gate.memory();
    // Each byte comes by itself, and none may keep a whole chunk for reading alive.
    for count in 1..=HELD {
        client.write("x").await;
        until("the byte is taken", || async {
            let taken = gate.metrics().await.sum("meshgate_downstream_tcp_received_bytes_total", &[]);
            (taken == count as f64).then_some(())
        })
        .await;
    }
    assert_eq!(server.read(HELD).await, [b'x'; HELD]);
    let (_, highest) = gate.memory();
    assert!(highest < before + (8 << 20), "{before} bytes at rest, {highest} with {HELD} held");
}

#[tokio::test]
async fn a_call_may_end_in_closing() {
    let backend = SocketBackend::start().await;
    let denied = answering(403).await;
    let gate = tcp("- tcp: {call: {at: new_connection, cluster: called, path: /}}", &backend)
        .cluster("called", &[&denied])
        .start()
        .await;
    let mut client = Socket::connect(gate.address()).await;
    client.write("question").await;
    assert_eq!(client.end().await, Ended::in_order(""));
    assert!(!backend.is_waited_for().await);
    let entry = entry(&gate, 0).await;
    assert_eq!(
        (&entry["response_flags"], &entry["response_code_details"]),
        (&"LR".into(), &"wasm_close".into())
    );
}

#[tokio::test]
async fn each_callback_may_close() {
    let backend = SocketBackend::start().await;
    for side in ["downstream", "upstream"] {
        for phase in ["new_connection", "downstream_data", "upstream_data", "upstream_close"] {
            let chain = format!("- tcp: {{name: closing, close: {{at: {phase}, side: {side}}}}}");
            let gate = tcp(&chain, &backend).start().await;
            let mut client = Socket::connect(gate.address()).await;
            if phase != "new_connection" {
                let mut server = backend.accept().await;
                client.write("question").await;
                if phase != "downstream_data" {
                    server.expect("question").await;
                }
                if phase == "upstream_data" {
                    server.write("answer").await;
                }
                if phase == "upstream_close" {
                    server.write("answer").await;
                    client.expect("answer").await;
                    server.finish().await;
                }
                assert_eq!(server.end().await, Ended::in_order(""), "{phase} {side}");
            }
            assert_eq!(client.end().await, Ended::in_order(""), "{phase} {side}");
            assert_eq!(entry(&gate, 0).await["response_flags"], "LR", "{phase} {side}");
            let lines = said(&gate, "closing").await;
            assert!(lines.contains(&"downstream_close 1".to_owned()), "{phase} {side}: {lines:?}");
        }
    }
}

/// What the client and the backend see of a filter that traps.
async fn trapping(phase: &str, on_error: &str, backend: &SocketBackend) -> Meshgate {
    let chain = format!("- tcp: {{trap: {phase}}}");
    let setup: Setup = Meshgate::chain(&chain).listener("protocol: tcp");
    setup.guest("tcp", on_error).cluster_of("one", &[backend.address()], "").start().await
}

#[tokio::test]
async fn a_trap_breaks_the_connection_off() {
    let backend = SocketBackend::start().await;
    for phase in ["new_connection", "downstream_data", "upstream_data"] {
        let gate = trapping(phase, "", &backend).await;
        for index in 0..2 {
            let mut client = Socket::connect(gate.address()).await;
            if phase != "new_connection" {
                let mut server = backend.accept().await;
                client.write("question").await;
                if phase == "upstream_data" {
                    server.expect("question").await;
                    server.write("answer").await;
                }
                assert_eq!(server.end().await, reset(), "{phase}");
            }
            assert_eq!(client.end().await, reset(), "{phase}");
            let entry = entry(&gate, index).await;
            assert_eq!(
                (&entry["response_flags"], &entry["response_code_details"]),
                (&"WT".into(), &"wasm_trap".into())
            );
        }
    }
}

#[tokio::test]
async fn a_trap_is_passed_over_if_the_filter_is_to_be_skipped() {
    let backend = SocketBackend::start().await;
    for phase in ["new_connection", "downstream_data", "upstream_data"] {
        let gate = trapping(phase, "on_error: skip", &backend).await;
        for index in 0..2 {
            answered(&gate, &backend).await;
            assert!(entry(&gate, index).await["response_flags"].is_null(), "{phase}");
        }
    }
}

#[tokio::test]
async fn a_trap_at_the_end_costs_nothing() {
    let backend = SocketBackend::start().await;
    for phase in ["upstream_close", "downstream_close", "done", "log"] {
        let gate = trapping(phase, "on_error: skip", &backend).await;
        for index in 0..2 {
            answered(&gate, &backend).await;
            assert!(entry(&gate, index).await["response_flags"].is_null(), "{phase}");
        }
        gate.log().wait("the trap", |line| line.contains("filter failed").then_some(())).await;
    }
}

/// A question, its answer, and an end in order.
async fn answered(gate: &Meshgate, backend: &SocketBackend) {
    let (mut client, mut server) = connected(gate, backend).await;
    client.write("question").await;
    server.expect("question").await;
    server.write("answer").await;
    client.expect("answer").await;
    client.finish().await;
    assert_eq!(server.end().await, Ended::in_order(""));
    server.finish().await;
    assert_eq!(client.end().await, Ended::in_order(""));
}

#[tokio::test]
async fn a_filter_chooses_the_cluster() {
    let (backend, other) = (SocketBackend::start().await, SocketBackend::start().await);
    let setup = |chain: &str| tcp(chain, &backend).cluster_of("other", &[other.address()], "");
    let gate = setup("- tcp: {cluster: other}").without_default_cluster().start().await;
    answered(&gate, &other).await;
    assert_eq!(entry(&gate, 0).await["cluster"], "other");

    let gate = setup("- tcp: {name: route, cluster: nowhere}").start().await;
    answered(&gate, &backend).await;
    assert!(said(&gate, "route").await.contains(&"route refused 2".to_owned()));

    let gate = setup("- tcp: {by_first_byte: {q: other}}\n- tcp: {name: behind}");
    let gate = gate.listener("wait_for_data: true").start().await;
    for (text, chosen) in [("question", &other), ("another", &backend)] {
        let mut client = Socket::connect(gate.address()).await;
        client.write(text).await;
        let mut server = chosen.accept().await;
        server.expect(text).await;
        client.finish().await;
        assert_eq!(server.end().await, Ended::in_order(""));
        server.finish().await;
        assert_eq!(client.end().await, Ended::in_order(""));
    }
    assert_eq!(said(&gate, "behind").await[..2], ["new_connection", "downstream_data 8 false"]);
}

#[tokio::test]
async fn a_filter_without_callbacks_for_tcp_is_refused() {
    let setup = Meshgate::chain("- tcp: {}\n- headers: {}").listener("protocol: tcp").guest("tcp", "");
    let setup = setup.cluster_of("one", &["127.0.0.1:9".parse().unwrap()], "");
    let place = setup.place("headers");
    let finished = setup.check().await;
    let expected = "filter `headers` has no callback for TCP, and listener `web` has `protocol: tcp`";
    let said = finished.stdout + &finished.stderr;
    assert!(said.contains(&place) && said.contains(expected), "{said}");
    assert_eq!(finished.code, Some(2));
}

#[tokio::test]
async fn a_filter_with_callbacks_for_tcp_only_is_refused_on_a_listener_of_http() {
    let setup = Meshgate::chain("- tcp: []").filter("tcp", &example("tcp"), "");
    let place = setup.place("tcp: []");
    let finished = setup.check().await;
    let expected = "filter `tcp` has no callback for HTTP, and listener `web` has `protocol: http`";
    let said = finished.stdout + &finished.stderr;
    assert!(said.contains(&place) && said.contains(expected), "{said}");
    assert_eq!(finished.code, Some(2));
}

#[tokio::test]
async fn flags_and_fields_of_a_filter_are_logged() {
    let backend = SocketBackend::start().await;
    let gate = tcp("- tcp: {log: a word}", &backend).start().await;
    answered(&gate, &backend).await;
    let entry = entry(&gate, 0).await;
    assert_eq!((&entry["response_flags"], &entry["fields"]["tcp.word"]), (&"DO".into(), &"a word".into()));
    let flagged = [("listener", "web"), ("flag", "DO")];
    assert_eq!(gate.metrics().await.sum("meshgate_downstream_tcp_response_flags_total", &flagged), 1.0);
}
