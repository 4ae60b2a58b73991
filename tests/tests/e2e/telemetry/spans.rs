//! Spans of filters in the traces that telemetry exports.

use std::time::Duration;

use http::Response;
use meshgate_tests::{Ask, Backend, Meshgate, OtlpReceiver, Setup, Span, full};

use super::exported;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

fn ask(what: &str, sampled: u8) -> Ask {
    let context = format!("00-{TRACE}-{PARENT}-{sampled:02x}");
    Ask::get("/").header("x-do", what).header("traceparent", &context).header("tracestate", "a=1")
}

/// Telemetry, and behind it a filter that does what it is told and calls `slow`.
fn chain(one: &Backend, slow: &Backend, receiver: &OtlpReceiver, more: &str) -> Setup {
    let traces = format!("{{receiver: {{cluster: collector, interval: 50ms}}{more}}}");
    Meshgate::chain(&format!("- telemetry: {{traces: {traces}}}\n- suite: {{}}"))
        .guest("suite", "limits: {spans: 4, time: 1s}")
        .cluster("one", &[one])
        .cluster("slow", &[slow])
        .cluster_of("collector", &[receiver.address()], "protocol: http2")
}

async fn slow() -> Backend {
    Backend::answering("slow", async |_, _| {
        // The only wait: a span is to have a length that shows.
        tokio::time::sleep(Duration::from_millis(30)).await;
        Ok(Response::new(full("slow")))
    })
    .await
}

fn named<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("no {name}: {spans:#?}"))
}

#[tokio::test]
async fn what_filters_do_is_a_part_of_the_trace_with_parents_and_times() {
    let (receiver, one, slow) = (OtlpReceiver::grpc().await, Backend::echo("one").await, slow().await);
    let gate = chain(&one, &slow, &receiver, "").start().await;
    assert_eq!(gate.call(ask("span", 1)).await.status, 200);
    let spans = receiver.wait_for_spans(5).await;
    assert_eq!(spans.len(), 5, "the proxy's two, and the filter's three: {spans:#?}");
    let of_kind = |kind| spans.iter().find(|span| span.kind == kind && span.name == "GET").unwrap();
    let (server, client) = (of_kind(2), of_kind(3));
    let (asked, think, fail) = (named(&spans, "ask"), named(&spans, "think"), named(&spans, "fail"));

    assert_eq!((&server.parent, &client.parent), (&PARENT.to_owned(), &server.id));
    assert_eq!((&asked.parent, &fail.parent, &think.parent), (&server.id, &server.id, &asked.id));
    assert!(spans.iter().all(|span| span.trace == TRACE && span.id.len() == 16), "{spans:#?}");
    let ids: std::collections::HashSet<_> = spans.iter().map(|span| &span.id).collect();
    assert_eq!(ids.len(), 5);
    for span in [asked, think, fail] {
        assert_eq!((&*span.state, span.flags), ("a=1", 0x101), "{span:?}");
        // A millisecond for clocks that are not read at the same moment.
        let slack = 1_000_000;
        assert!(server.start <= span.start + slack && span.end <= server.end + slack, "{spans:#?}");
    }
    assert!(asked.start <= think.start && think.end <= fail.start && fail.end <= asked.end, "{spans:#?}");
    assert!(asked.end - asked.start >= 50_000_000 && think.end - think.start >= 20_000_000, "{spans:#?}");
    assert!(asked.end <= client.start + 1_000_000, "the request went on after that: {spans:#?}");
    assert_eq!((asked.kind, think.kind, asked.status, fail.status), (3, 1, 0, 2));
    assert_eq!(asked.attributes["suite.word"], "one");
    assert_eq!(
        (&asked.attributes["suite.count"], &asked.attributes["suite.right"]),
        (&3.into(), &true.into())
    );
    assert_eq!(asked.resource["service.name"], "meshgate");

    let seen = slow.seen().pop().unwrap();
    assert_eq!(seen.header("traceparent"), format!("00-{TRACE}-{}-01", asked.id), "calls go on from there");
    assert_eq!(seen.header("tracestate"), "a=1");
    exported(&gate, "traces", 5.0).await;
}

/// Also a span that ends with its exchange comes in time; what is not sampled is not kept; more than there may be are counted.
#[tokio::test]
async fn spans_of_filters_are_bounded_and_only_of_what_is_sampled() {
    let (receiver, one, slow) = (OtlpReceiver::grpc().await, Backend::echo("one").await, slow().await);
    let gate = chain(&one, &slow, &receiver, ", spans: server").start().await;
    for what in ["span", "spans", "span-late"] {
        assert_eq!(gate.call(ask(what, 0)).await.status, 200);
    }
    assert_eq!(slow.seen()[0].header("traceparent"), format!("00-{TRACE}-{PARENT}-00"), "as it came");
    assert_eq!(gate.call(ask("spans", 1)).await.status, 200);
    let spans = receiver.wait_for_spans(5).await;
    assert_eq!(spans.len(), 5, "{spans:#?}");
    let metrics = gate.metrics().await;
    let met = [("plugin", "suite"), ("limit", "spans")];
    assert_eq!(metrics.sum("meshgate_plugin_limit_exceeded_total", &met), 36.0, "{}", metrics.text());

    assert_eq!(gate.call(ask("span-late", 1)).await.status, 200);
    let spans = receiver.wait_for_spans(7).await;
    let (late, server) = (named(&spans, "to the end"), spans.iter().rfind(|span| span.kind == 2).unwrap());
    assert_eq!(late.parent, server.id);
    assert!(late.end >= late.start && spans.len() == 7, "{spans:#?}");
}

/// A host without a tracer: nothing is kept, and nothing goes wrong.
#[tokio::test]
async fn spans_without_a_tracer_come_to_nothing() {
    let (one, slow) = (Backend::echo("one").await, slow().await);
    let gate = Meshgate::chain("- suite: {}")
        .guest("suite", "limits: {time: 1s}")
        .cluster("one", &[&one])
        .cluster("slow", &[&slow])
        .start()
        .await;
    let reply = gate.call(ask("span", 1)).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.json()["headers"]["x-said"], format!("false Some(\"{TRACE}\")"));
    assert_eq!(slow.seen()[0].header("traceparent"), format!("00-{TRACE}-{PARENT}-01"));
}
