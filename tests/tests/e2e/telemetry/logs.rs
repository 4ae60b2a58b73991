//! Records of exchanges at a receiver, with Envoy's format operators.

use http::Response;
use meshgate_tests::{Ask, Backend, Meshgate, OtlpReceiver, full};
use serde_json::json;

use super::exported;

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

async fn answering() -> Backend {
    Backend::answering("one", async |_, _| {
        Ok(Response::builder().header("x-upstream", "yes").body(full("0123456789")).unwrap())
    })
    .await
}

/// A record has the line, what was asked for, and the trace.
#[tokio::test]
async fn row_32_access_log_goes_to_a_receiver_of_otlp() {
    for protocol in ["grpc", "http"] {
        let receiver =
            if protocol == "grpc" { OtlpReceiver::grpc().await } else { OtlpReceiver::http().await };
        let one = answering().await;
        let upstream = if protocol == "grpc" { "protocol: http2" } else { "" };
        let chain = format!(
            "- telemetry:
    traces: {{sampling: 100}}
    access_log:
      otlp:
        receiver: {{cluster: collector, protocol: {protocol}, interval: 50ms, resource: {{zone: north}}, headers: {{x-key: secret}}}}
        body: \"%REQ(:METHOD)% %RESPONSE_CODE%\"
        attributes: {{tenant: \"%REQ(x-tenant)%\", none: \"%REQ(x-none)%\"}}"
        );
        let gate = Meshgate::chain(&chain)
            .cluster("one", &[&one])
            .cluster_of("collector", &[receiver.address()], upstream)
            .start()
            .await;
        gate.call(
            Ask::get("/a")
                .header("x-tenant", "blue")
                .header("traceparent", &TRACEPARENT.replace("-00f0", "-00f1")),
        )
        .await;
        drop(one);
        gate.get("/b").await;
        let logs = receiver.wait_for_logs(2).await;
        let (good, bad) = (&logs[0], &logs[1]);
        assert_eq!((&good.body, &*good.severity), (&json!("GET 200"), "INFO"));
        assert_eq!((&bad.body, &*bad.severity), (&json!("GET 503"), "ERROR"));
        assert_eq!((&good.attributes["tenant"], good.attributes.len()), (&json!("blue"), 1));
        assert_eq!(good.trace, "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!((good.span.len(), bad.trace.len()), (16, 32));
        assert_eq!(good.resource["zone"], "north");
        assert!(good.time > 1_700_000_000_000_000_000);
        assert_eq!(receiver.backend().seen()[0].header("x-key"), "secret");
        exported(&gate, "logs", 2.0).await;
        // The proxy's own lines are still there.
        assert_eq!(gate.access("/a").await["response_code"], 200);
    }
}
