//! Traces: the context that goes on with requests, sampling, and spans at a receiver.

use std::time::{SystemTime, UNIX_EPOCH};

use http::Response;
use meshgate_tests::{
    Ask, Backend, Load, Meshgate, OtlpReceiver, Seen, Setup, Span, full, until, within_binomial_bounds,
};

use super::exported;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

fn traceparent(sampled: u8) -> String {
    format!("00-{TRACE}-{PARENT}-{sampled:02x}")
}

/// The trace, the parent and the flags of a request, by `traceparent`.
fn context(seen: &Seen) -> (String, String, String) {
    let parts: Vec<_> = seen.header("traceparent").split('-').map(str::to_owned).collect();
    let [version, trace, parent, flags] = &parts[..] else { panic!("no context: {seen:?}") };
    assert_eq!((version.as_str(), trace.len(), parent.len()), ("00", 32, 16));
    (trace.clone(), parent.clone(), flags.clone())
}

/// A proxy that sends its spans to this receiver.
fn tracing(one: &Backend, receiver: &OtlpReceiver, protocol: &str, more: &str) -> Setup {
    let upstream = if protocol == "grpc" { "protocol: http2" } else { "" };
    let chain = format!(
        "- telemetry: {{traces: {{receiver: {{cluster: collector, protocol: {protocol}, interval: 50ms}}{more}}}}}
- routing: {{routes: [{{name: all, to: one}}]}}"
    );
    Meshgate::chain(&chain).without_default_cluster().cluster("one", &[one]).cluster_of(
        "collector",
        &[receiver.address()],
        upstream,
    )
}

fn now() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap()
}

fn of_kind(spans: &[Span], kind: u64) -> &Span {
    spans
        .iter()
        .find(|span| span.kind == kind)
        .unwrap_or_else(|| panic!("no span of kind {kind}: {spans:#?}"))
}

/// The same trace, a new parent at the backend, and spans at the receiver with the right parents and times.
#[tokio::test]
async fn row_30_tracing_goes_on_and_spans_arrive_with_parents_and_times() {
    for protocol in ["grpc", "http"] {
        let receiver = match protocol {
            "grpc" => OtlpReceiver::grpc().await,
            _ => OtlpReceiver::http().await,
        };
        let one = Backend::answering("one", async |_, _| {
            // The only wait: a span is to have a length that shows.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            Ok(Response::new(full("0123456789")))
        })
        .await;
        let gate = tracing(&one, &receiver, protocol, "").start().await;
        let before = now();
        let ask = Ask::post("/things?a=b", "12345")
            .header("traceparent", &traceparent(1))
            .header("tracestate", "a=1,b=2");
        gate.call(ask.header("user-agent", "tester")).await;
        let after = now();
        let spans = receiver.wait_for_spans(2).await;
        assert_eq!(spans.len(), 2, "{spans:#?}");
        let (server, client) = (of_kind(&spans, 2), of_kind(&spans, 3));
        let seen = &one.seen()[0];
        assert_eq!(context(seen), (TRACE.to_owned(), client.id.clone(), "01".to_owned()));
        assert_eq!(seen.header("tracestate"), "a=1,b=2");
        assert_eq!((&*server.trace, &*server.parent), (TRACE, PARENT));
        assert_eq!((&*client.trace, &client.parent), (TRACE, &server.id));
        assert!(server.id != client.id && server.id.len() == 16);
        assert_eq!((&*server.name, &*server.state, server.status), ("POST all", "a=1,b=2", 0));

        // A millisecond for clocks that are not read at the same moment.
        let slack = 1_000_000;
        assert!(
            before <= server.start + slack && server.end <= after + slack,
            "{before} {server:#?} {after}"
        );
        assert!(server.start <= client.start && client.end <= server.end, "{spans:#?}");
        assert!(client.end - client.start >= 50_000_000, "{spans:#?}");

        let attributes = &server.attributes;
        for (name, value) in [
            ("http.request.method", "POST"),
            ("url.path", "/things"),
            ("url.query", "a=b"),
            ("url.scheme", "http"),
            ("http.route", "all"),
            ("user_agent.original", "tester"),
            ("network.protocol.version", "1.1"),
            ("network.peer.address", "127.0.0.1"),
            ("meshgate.cluster", "one"),
            ("meshgate.response_details", "via_upstream"),
        ] {
            assert_eq!(attributes[name], value, "{name} in {attributes:?}");
        }
        assert_eq!(attributes["http.response.status_code"], 200);
        assert_eq!(
            (&attributes["http.request.body.size"], &attributes["http.response.body.size"]),
            (&5.into(), &10.into())
        );
        assert_eq!(client.attributes["network.peer.port"], one.address().port());
        assert_eq!(server.resource["service.name"], "meshgate");
        exported(&gate, "traces", 2.0).await;
    }
}

/// B3 in one field and in several is read, and goes on in the form in which it came, beside W3C's.
#[tokio::test]
async fn row_30_tracing_reads_and_writes_b3() {
    let (receiver, one) = (OtlpReceiver::http().await, Backend::echo("one").await);
    let gate = tracing(&one, &receiver, "http", "").start().await;
    let single = Ask::get("/single").header("b3", &format!("{TRACE}-{PARENT}-1"));
    let multi = Ask::get("/multi")
        .header("x-b3-traceid", TRACE)
        .header("x-b3-spanid", PARENT)
        .header("x-b3-parentspanid", "0000000000000001")
        .header("x-b3-sampled", "1");
    gate.call(single).await;
    gate.call(multi).await;
    let spans = receiver.wait_for_spans(4).await;
    assert!(spans.iter().all(|span| span.trace == TRACE), "{spans:#?}");
    let seen = one.seen();
    for seen in &seen {
        let (trace, parent, _) = context(seen);
        let client = spans.iter().find(|span| span.id == parent).expect("the backend's parent is a span");
        let server = spans.iter().find(|span| span.id == client.parent).expect("whose parent is one");
        assert_eq!((trace.as_str(), server.parent.as_str()), (TRACE, PARENT));
        if seen.path == "/single" {
            assert_eq!(seen.header("b3"), format!("{TRACE}-{parent}-1"));
            assert_eq!(seen.header("x-b3-traceid"), "");
        } else {
            assert_eq!((seen.header("x-b3-traceid"), seen.header("x-b3-spanid")), (TRACE, parent.as_str()));
            assert_eq!(
                (seen.header("x-b3-parentspanid"), seen.header("x-b3-sampled")),
                (server.id.as_str(), "1")
            );
        }
    }
}

/// What is not valid counts as absent; versions to come are read as this one; what is not sampled goes on and is not exported.
#[tokio::test]
async fn row_30_tracing_is_strict_about_what_is_no_context() {
    let (receiver, one) = (OtlpReceiver::grpc().await, Backend::echo("one").await);
    let gate = tracing(&one, &receiver, "grpc", ", sampling: 0").start().await;
    let ask =
        |path: &str, value: &str| Ask::get(path).header("traceparent", value).header("tracestate", "a=1");
    gate.call(ask("/unsampled", &traceparent(0))).await;
    gate.call(ask("/later", &format!("cc-{TRACE}-{PARENT}-01-more"))).await;
    gate.call(ask("/invalid", &format!("00-{}-{PARENT}-01", "0".repeat(32)))).await;
    gate.call(ask("/twice", &traceparent(1)).header("traceparent", &traceparent(1))).await;
    gate.get("/none").await;
    let seen = |path: &str| one.seen().into_iter().find(|seen| seen.path == path).unwrap();
    assert_eq!(seen("/unsampled").header("traceparent"), traceparent(0), "as it came");
    assert_eq!(seen("/unsampled").header("tracestate"), "a=1");
    let (trace, parent, flags) = context(&seen("/later"));
    assert!(trace == TRACE && parent != PARENT && flags == "01");
    for path in ["/invalid", "/twice", "/none"] {
        let (trace, _, flags) = context(&seen(path));
        assert!(trace != TRACE && flags == "00", "{path}: a trace of its own that is not recorded");
        assert_eq!(seen(path).header("tracestate"), "", "{path}: it belongs to no context");
        assert_eq!(seen(path).headers.get_all("traceparent").iter().count(), 1);
    }
    let spans = receiver.wait_for_spans(2).await;
    assert!(
        spans.len() == 2 && spans.iter().all(|span| span.attributes["url.path"] == "/later"),
        "{spans:#?}"
    );
}

#[tokio::test]
async fn row_30_tracing_samples_the_configured_share() {
    let (receiver, one) = (OtlpReceiver::http().await, Backend::echo("one").await);
    let gate = tracing(&one, &receiver, "http", ", sampling: 10, spans: server").workers(2).start().await;
    let load = Load::start(gate.address(), 8, || Ask::get("/"), |_| Ok(()));
    load.wait_for_more(4_000).await;
    let requests = usize::try_from(load.stop().await.all_good()).unwrap();
    let seen = one.seen();
    let sampled = seen.iter().filter(|seen| context(seen).2 == "01").count();
    assert!(within_binomial_bounds(sampled, requests, 0.1), "{sampled} of {requests}");
    let spans = receiver.wait_for_spans(sampled).await;
    assert_eq!(spans.len(), sampled, "each sampled request has its span, and no other");
    let traces: std::collections::HashSet<_> = seen.iter().map(|seen| context(seen).0).collect();
    assert_eq!(traces.len(), requests, "no two traces have one id");
    assert!(spans.iter().all(|span| span.parent.is_empty()), "they begin here");
    let metrics = gate.metrics().await;
    assert_eq!(metrics.sum("meshgate_telemetry_dropped_total", &[]), 0.0);
}

/// Strangers do not decide what is recorded, nor into which trace.
#[tokio::test]
async fn contexts_of_strangers_are_replaced() {
    let (receiver, one) = (OtlpReceiver::grpc().await, Backend::echo("one").await);
    for (more, begins) in [(", trust: false, sampling: 0", true), (", trust: false, start: false", false)] {
        let gate = tracing(&one, &receiver, "grpc", more).start().await;
        gate.call(Ask::get("/").header("traceparent", &traceparent(1)).header("b3", "1")).await;
        let seen = one.seen().pop().unwrap();
        if begins {
            let (trace, _, flags) = context(&seen);
            assert!(trace != TRACE && flags == "00", "{seen:?}");
            assert!(!seen.header("b3").contains(TRACE));
        } else {
            assert_eq!((seen.header("traceparent"), seen.header("b3")), ("", ""));
        }
    }
    assert_eq!(receiver.spans().len(), 0);
}

#[tokio::test]
async fn a_proxy_that_begins_no_traces_goes_on_with_those_of_others() {
    let (receiver, one) = (OtlpReceiver::grpc().await, Backend::echo("one").await);
    let gate = tracing(&one, &receiver, "grpc", ", start: false, sampling: 100").start().await;
    gate.get("/none").await;
    gate.call(Ask::get("/one").header("traceparent", &traceparent(1))).await;
    let seen = one.seen();
    assert_eq!(seen[0].header("traceparent"), "");
    assert_eq!(context(&seen[1]).0, TRACE);
    assert_eq!(receiver.wait_for_spans(2).await.len(), 2);
}

/// An inbound sidecar tells of the server's part, an outbound one of the client's.
#[tokio::test]
async fn row_30_tracing_has_the_spans_of_the_proxys_place() {
    let (receiver, one) = (OtlpReceiver::grpc().await, Backend::echo("one").await);
    for (place, (direction, kind)) in [("inbound", 2), ("outbound", 3)].into_iter().enumerate() {
        let setup = tracing(&one, &receiver, "grpc", ", sampling: 100");
        let gate = setup.listener(&format!("direction: {direction}")).start().await;
        gate.get("/").await;
        let spans = receiver.wait_for_spans(place + 1).await;
        assert_eq!(spans.len(), place + 1);
        assert_eq!((spans[place].kind, &*spans[place].parent), (kind, ""));
        assert_eq!(context(&one.seen()[place]).1, spans[place].id);
    }
}

/// A failure is an error in the span; a local response has no part of an endpoint.
#[tokio::test]
async fn row_31_collector_gets_peer_route_and_status_of_failures() {
    let (receiver, one) = (OtlpReceiver::grpc().await, Backend::echo("one").await);
    let more = ", sampling: 100, attributes: {tenant: \"%REQ(x-tenant)%\", none: \"%REQ(x-none)%\"}";
    let gate = tracing(&one, &receiver, "grpc", more).start().await;
    drop(one);
    assert_eq!(gate.call(Ask::get("/").header("x-tenant", "blue")).await.status, 503);
    let spans = receiver.wait_for_spans(1).await;
    let server = of_kind(&spans, 2);
    assert_eq!((server.status, &*server.name), (2, "GET all"));
    assert_eq!(server.attributes["http.response.status_code"], 503);
    assert_eq!(server.attributes["meshgate.response_flags"], "UF");
    assert_eq!(server.attributes["tenant"], "blue");
    assert!(!server.attributes.contains_key("none"));
}

/// A receiver that is away for a while gets all of it later; one that stays away costs what the queue holds, and no request.
#[tokio::test]
async fn spans_wait_for_a_receiver_and_are_dropped_and_counted_when_there_are_too_many() {
    for protocol in ["grpc", "http"] {
        let receiver =
            if protocol == "grpc" { OtlpReceiver::grpc().await } else { OtlpReceiver::http().await };
        let one = Backend::echo("one").await;
        let gate = tracing(&one, &receiver, protocol, ", sampling: 100, spans: server").start().await;
        receiver.fail(2);
        for _ in 0..3 {
            gate.get("/").await;
        }
        assert_eq!(receiver.wait_for_spans(3).await.len(), 3, "each once");
    }
    let one = Backend::echo("one").await;
    let chain =
        "- telemetry: {traces: {sampling: 100, spans: server, receiver: {cluster: nobody, queue: 2KiB}}}";
    let gate = Meshgate::chain(chain)
        .cluster("one", &[&one])
        .cluster_of("nobody", &["127.0.0.1:1".parse().unwrap()], "")
        .start()
        .await;
    let mut client = gate.client().await;
    for _ in 0..50 {
        assert_eq!(client.get("/").await.status, 200);
    }
    until("spans are dropped", || async {
        let metrics = gate.metrics().await;
        (metrics.sum("meshgate_telemetry_dropped_total", &[("signal", "traces")]) >= 10.0).then_some(())
    })
    .await;
}

/// What is not configured is not there: headers pass as they are, and nothing is exported.
#[tokio::test]
async fn without_traces_headers_pass_as_they_are() {
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain("- telemetry: {}").cluster("one", &[&one]).start().await;
    gate.call(Ask::get("/").header("traceparent", "anything").header("b3", "0")).await;
    gate.get("/").await;
    let seen = one.seen();
    assert_eq!((seen[0].header("traceparent"), seen[0].header("b3")), ("anything", "0"));
    assert_eq!(seen[1].header("traceparent"), "");
}

/// Nor is a callback made for it: with traces there is one more for each request, and with spans of endpoints two.
#[tokio::test]
async fn what_is_not_configured_is_not_called() {
    let one = Backend::echo("one").await;
    let mut per_request = Vec::new();
    for configuration in ["", "traces: {}", "traces: {receiver: {cluster: one}, sampling: 0}"] {
        let chain = format!("- telemetry: {{{configuration}}}");
        let gate = Meshgate::chain(&chain).cluster("one", &[&one]).start().await;
        gate.get("/").await;
        let before = callbacks(&gate, 1.0).await;
        for _ in 0..10 {
            gate.get("/").await;
        }
        per_request.push(callbacks(&gate, 11.0).await - before);
    }
    let none = per_request[0];
    // A tick a second may come in between where there is a receiver.
    assert_eq!(per_request[1], none + 10.0, "{per_request:?}");
    assert!((none + 20.0..none + 30.0).contains(&per_request[2]), "{per_request:?}");
}

/// How many callbacks the filter had once so many requests are counted.
async fn callbacks(gate: &Meshgate, requests: f64) -> f64 {
    until(format!("{requests} requests are counted"), || async {
        let metrics = gate.metrics().await;
        (metrics.sum("meshgate_http_requests_total", &[]) == requests).then_some(())
    })
    .await;
    // The last of an exchange's callbacks comes after the one that counts it.
    gate.metrics().await.sum("meshgate_plugin_callbacks_total", &[("plugin", "telemetry")])
}
