//! What waits to be sent when the filter goes: at the end of the process, and when a reload replaces or removes it.

use meshgate_tests::{Ask, Backend, Load, Meshgate, OtlpReceiver, Setup};

/// A proxy whose filter sends nothing by itself while a test runs.
fn collecting(one: &Backend, receiver: &OtlpReceiver, protocol: &str) -> Setup {
    let upstream = if protocol == "grpc" { "protocol: http2" } else { "" };
    let receivers = format!("{{cluster: collector, protocol: {protocol}, interval: 1h}}");
    let chain = format!(
        "- telemetry: {{traces: {{sampling: 100, receiver: {receivers}}}, access_log: {{otlp: {{receiver: {receivers}}}}}}}"
    );
    Meshgate::chain(&chain).workers(2).cluster("one", &[one]).cluster_of(
        "collector",
        &[receiver.address()],
        upstream,
    )
}

async fn receiver(protocol: &str) -> OtlpReceiver {
    match protocol {
        "grpc" => OtlpReceiver::grpc().await,
        _ => OtlpReceiver::http().await,
    }
}

/// Two spans and a record of each request: nothing is lost, and nothing sent twice.
fn has_all(receiver: &OtlpReceiver, requests: usize) {
    assert_eq!((receiver.spans().len(), receiver.logs().len()), (2 * requests, requests));
}

#[tokio::test]
async fn row_31_collector_gets_what_waits_when_the_process_ends() {
    for protocol in ["grpc", "http"] {
        let (one, receiver) = (Backend::echo("one").await, receiver(protocol).await);
        let gate = collecting(&one, &receiver, protocol).start().await;
        let load = Load::start(gate.address(), 8, || Ask::get("/"), |_| Ok(()));
        load.wait_for_more(200).await;
        let requests = load.stop().await.all_good();
        has_all(&receiver, 0);
        gate.stop().await;
        has_all(&receiver, usize::try_from(requests).unwrap());
    }
}

/// A receiver that cannot take it at first is tried again.
#[tokio::test]
async fn row_31_collector_that_fails_at_first_gets_what_waits_at_the_end() {
    let (one, receiver) = (Backend::echo("one").await, receiver("http").await);
    let gate = collecting(&one, &receiver, "http").start().await;
    for _ in 0..5 {
        gate.get("/").await;
    }
    receiver.fail(3);
    gate.stop().await;
    has_all(&receiver, 5);
}

/// A receiver that does not answer holds nobody up for longer than is configured: the process ends long before the receiver's timeout.
#[tokio::test]
async fn a_silent_receiver_does_not_hold_up_the_end() {
    let one = Backend::echo("one").await;
    let silent = Backend::answering("silent", async |_, _| std::future::pending().await).await;
    let gate = Meshgate::chain(
        "- telemetry: {traces: {sampling: 100, receiver: {cluster: silent, protocol: http, interval: 1h, timeout: 1h}}}",
    )
    .top("filters: {telemetry: {limits: {done: 200ms, call_time: 1h}}}")
    .cluster("one", &[&one])
    .cluster("silent", &[&silent])
    .start()
    .await;
    gate.get("/").await;
    gate.stop().await;
    assert_eq!(silent.requests(), 1);
}

/// Another configuration of the filter, and none any more, and no cluster of the receiver either.
#[tokio::test]
async fn row_31_collector_gets_what_waits_when_a_reload_replaces_or_removes_the_filter() {
    for protocol in ["grpc", "http"] {
        let (one, receiver) = (Backend::echo("one").await, receiver(protocol).await);
        let gate = collecting(&one, &receiver, protocol).start().await;
        let first = gate.setup().yaml();
        gate.get("/").await;
        let before = gate.reload().await;
        gate.replace("meshgate.yaml", first.replace("sampling: 100", "sampling: 99.9999"));
        gate.reloaded(&before).await;
        receiver.wait_for_logs(1).await;
        receiver.wait_for_spans(2).await;
        has_all(&receiver, 1);
        // Whether its trace is sampled is drawn; a record it has in any case.
        gate.call(
            Ask::get("/").header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        )
        .await;
        let before = gate.reload().await;
        let without = first.lines().filter(|line| !line.contains("telemetry") && !line.contains("collector"));
        let without: Vec<_> = without.map(|line| line.replace("  web:", "  web: []")).collect();
        gate.replace("meshgate.yaml", without.join("\n"));
        gate.reloaded(&before).await;
        receiver.wait_for_logs(2).await;
        receiver.wait_for_spans(4).await;
        has_all(&receiver, 2);
        gate.get("/").await;
        gate.stop().await;
        has_all(&receiver, 2);
    }
}
