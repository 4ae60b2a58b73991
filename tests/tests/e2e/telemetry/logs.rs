//! The access log with a format of its own: lines of text and JSON, and records at a receiver.

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

/// The line on standard output that contains this.
async fn line(gate: &Meshgate, part: &str) -> String {
    gate.stdout()
        .wait(&format!("a line with {part}"), |line| line.contains(part).then(|| line.to_owned()))
        .await
}

#[tokio::test]
async fn row_32_access_log_has_envoys_line() {
    let one = answering().await;
    let gate =
        Meshgate::chain("- telemetry: {access_log: {text: envoy}}").cluster("one", &[&one]).start().await;
    let ask =
        Ask::post("/things?a=b", "12345").header("user-agent", "tester \"x\"").header("x-request-id", "id-1");
    gate.client().await.authority("shop.example").call(ask).await;
    let line = line(&gate, "/things").await;
    let (start, rest) = line.split_once("] ").unwrap();
    let digits =
        |text: &str| text.chars().map(|letter| if letter.is_ascii_digit() { '0' } else { letter }).collect();
    let shape: String = digits(start);
    assert_eq!(shape, "[0000-00-00T00:00:00.000Z");
    let parts: Vec<_> = rest.split(' ').collect();
    assert_eq!(parts[..7], ["\"POST", "/things?a=b", "HTTP/1.1\"", "200", "-", "5", "10"]);
    assert!(parts[7].parse::<u64>().is_ok(), "{line}");
    let end = format!("- \"127.0.0.1\" \"tester \\\"x\\\"\" \"id-1\" \"shop.example\" \"{}\"", one.address());
    assert!(line.ends_with(&end), "{line}\n{end}");
}

/// Each operator that is offered shows what the exchange was.
#[tokio::test]
async fn row_32_access_log_operators_show_the_exchange() {
    let one = answering().await;
    let chain = r#"
        - telemetry:
            traces: {}
            access_log:
              json:
                code: "%RESPONSE_CODE%"
                details: "%RESPONSE_CODE_DETAILS%"
                flags: "%RESPONSE_FLAGS%"
                flags_long: "%RESPONSE_FLAGS_LONG%"
                method: "%REQ(:METHOD)%"
                path: "%REQ(X-ORIGINAL?:PATH):4%"
                protocol: "%PROTOCOL%"
                received: "%BYTES_RECEIVED%"
                sent: "%BYTES_SENT%"
                took: "%DURATION%"
                to_response: "%RESPONSE_DURATION%"
                of_response: "%RESPONSE_TX_DURATION%"
                route: "%ROUTE_NAME%"
                cluster: "%UPSTREAM_CLUSTER%"
                host: "%UPSTREAM_HOST%"
                remote: "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"
                local: "%DOWNSTREAM_LOCAL_ADDRESS%"
                local_port: "%DOWNSTREAM_LOCAL_PORT%"
                attempts: "%UPSTREAM_REQUEST_ATTEMPT_COUNT%"
                upstream_said: "%RESP(X-UPSTREAM)%"
                trailer: "%TRAILER(x-none)%"
                grpc: "%GRPC_STATUS%"
                page: "%QUERY_PARAM(page)%"
                trace: "%TRACE_ID%"
                tls: "%DOWNSTREAM_TLS_VERSION%"
                year: "%START_TIME(%Y)%"
                mixed: "%REQ(:METHOD)% 100%% %REQ(x-none)%"
                nested: {list: ["%RESPONSE_CODE%", 7, true, null], constant: 1.5}
        - routing: {routes: [{name: all, to: one}]}
    "#;
    let gate = Meshgate::chain(chain).without_default_cluster().cluster("one", &[&one]).start().await;
    let ask = Ask::post("/things?page=7", "12345").header("traceparent", TRACEPARENT);
    gate.call(ask).await;
    let line = line(&gate, "\"/thi\"").await;
    let entry: serde_json::Value = serde_json::from_str(&line).unwrap();
    let expected = json!({
        "code": 200, "details": "via_upstream", "flags": null, "flags_long": null, "method": "POST", "path": "/thi",
        "protocol": "HTTP/1.1", "received": 5, "sent": 10, "route": "all", "cluster": "one",
        "host": one.address().to_string(), "remote": "127.0.0.1", "local": gate.address().to_string(),
        "local_port": gate.address().port().to_string(), "attempts": 1, "upstream_said": "yes", "trailer": null,
        "grpc": null, "page": "7", "trace": "4bf92f3577b34da6a3ce929d0e0e4736", "tls": null,
        "mixed": "POST 100% -", "nested": {"list": [200, 7, true, null], "constant": 1.5},
    });
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&entry[key], value, "{key} in {entry}");
    }
    for key in ["took", "to_response", "of_response"] {
        assert!(entry[key].is_u64(), "{key} in {entry}");
    }
    assert!(entry["year"].as_str().unwrap() >= "2024", "{entry}");
}

/// One line for each request, also for those that nobody was asked for, with the reason.
#[tokio::test]
async fn row_32_access_log_has_one_line_per_request_and_a_reason_for_aborts() {
    let one = answering().await;
    let chain = "
        - telemetry: {access_log: {text: \"LINE %REQ(:path)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\"}}
        - routing: {routes: [{name: one, match: {path: /one}, to: one}]}
        ";
    let gate = Meshgate::chain(chain).without_default_cluster().cluster("one", &[&one]).start().await;
    let mut client = gate.client().await;
    for path in ["/one", "/none", "/one"] {
        client.get(path).await;
    }
    drop(one);
    client.get("/one?last").await;
    let stopped_line = line(&gate, "?last").await;
    assert!(stopped_line.starts_with("LINE /one?last 503 UF "), "{stopped_line}");
    let lines = gate.stdout().all();
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert_eq!(lines[0], "LINE /one 200 - via_upstream");
    assert_eq!(lines[1], "LINE /none 404 NR route_not_found");
}

/// A client cannot end a line, nor a field of it.
#[tokio::test]
async fn a_line_stays_a_line_whatever_a_client_sends() {
    let one = answering().await;
    let gate = Meshgate::chain("- telemetry: {access_log: {text: '\"%REQ(x-hostile)%\" end'}}")
        .cluster("one", &[&one])
        .start()
        .await;
    gate.call(Ask::get("/").header("x-hostile", "a\" b\\ \u{e9}\t")).await;
    assert_eq!(line(&gate, "end").await, "\"a\\\" b\\\\ \\xc3\\xa9\" end");
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
