//! Metrics: the names and labels of Meshgate, Istio and Linkerd, exact counts, and the bound on series.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Response;
use meshgate_tests::{
    Ask, Authority, Backend, Client, Load, Meshgate, Metrics, Says, TlsClient, TlsFront, framed, full,
    grpc_backend, until,
};

/// Reads the metrics once `name` has counted so many in all.
async fn counted(gate: &Meshgate, name: &str, count: f64) -> Metrics {
    let all = |metrics: &Metrics| metrics.sum(name, &[]) >= count;
    let metrics =
        until(format!("{name} is {count}"), || async { Some(gate.metrics().await).filter(all) }).await;
    assert_eq!(metrics.sum(name, &[]), count, "{}", metrics.text());
    metrics
}

/// Answers with the status in the path and ten bytes.
async fn coded() -> Backend {
    Backend::answering("coded", async |seen, _| {
        let code = seen.path[1..4].parse::<u16>().unwrap();
        Ok(Response::builder().status(code).body(full("0123456789")).unwrap())
    })
    .await
}

/// Every preset counts what the load generator counted, per code.
#[tokio::test]
async fn row_28_golden_metrics_equal_the_load_generators_counts_per_code() {
    let presets = [
        ("meshgate", "meshgate_http_requests_total", "code", "meshgate_http_request_duration_seconds"),
        ("istio", "istio_requests_total", "response_code", "istio_request_duration_milliseconds"),
        ("linkerd", "response_total", "status_code", "response_latency_ms"),
    ];
    for (preset, requests, code_label, durations) in presets {
        let coded = coded().await;
        let chain = format!("- telemetry: {{metrics: {{preset: {preset}}}}}");
        let gate = Meshgate::chain(&chain).workers(2).cluster("coded", &[&coded]).start().await;
        let codes = [200, 404, 503];
        let next = Arc::new(AtomicUsize::new(0));
        let ask = move || Ask::get(&format!("/{}", codes[next.fetch_add(1, Ordering::Relaxed) % 3]));
        let load = Load::start(gate.address(), 8, ask, |_| Ok(()));
        load.wait_for_more(600).await;
        let sent = load.stop().await.all_good() as f64;
        let metrics = counted(&gate, requests, sent).await;
        for code in codes {
            let path = format!("/{code}");
            let expected = coded.seen().iter().filter(|seen| seen.path == path).count() as f64;
            let code = code.to_string();
            let labels = [(code_label, code.as_str())];
            assert_eq!(metrics.sum(requests, &labels), expected, "{}", metrics.text());
            assert_eq!(metrics.sum(&format!("{durations}_count"), &labels), expected, "{}", metrics.text());
        }
    }
}

#[tokio::test]
async fn row_28_golden_metrics_of_istio_have_its_labels() {
    let cart = Backend::echo("cart").await;
    let setup = "- telemetry:
    metrics: {preset: istio}
    workload: {name: cart-v1, namespace: shop, app: cart, version: v1, cluster: north}";
    let gate = Meshgate::chain(setup)
        .listener("direction: inbound")
        .cluster("cart.shop.svc.cluster.local", &[&cart])
        .start()
        .await;
    gate.call(Ask::post("/", "12345")).await;
    let metrics = counted(&gate, "istio_requests_total", 1.0).await;
    let labels = [
        ("reporter", "destination"),
        ("source_workload", "unknown"),
        ("source_workload_namespace", "unknown"),
        ("source_principal", "unknown"),
        ("source_app", "unknown"),
        ("source_version", "unknown"),
        ("source_cluster", "unknown"),
        ("source_canonical_service", "unknown"),
        ("source_canonical_revision", "unknown"),
        ("destination_workload", "cart-v1"),
        ("destination_workload_namespace", "shop"),
        ("destination_principal", "unknown"),
        ("destination_app", "cart"),
        ("destination_version", "v1"),
        ("destination_cluster", "north"),
        ("destination_service", "cart.shop.svc.cluster.local"),
        ("destination_service_name", "cart"),
        ("destination_service_namespace", "shop"),
        ("destination_canonical_service", "cart"),
        ("destination_canonical_revision", "v1"),
        ("request_protocol", "http"),
        ("response_code", "200"),
        ("grpc_response_status", ""),
        ("response_flags", "-"),
        ("connection_security_policy", "none"),
    ];
    for name in
        ["istio_requests_total", "istio_request_duration_milliseconds_count", "istio_request_bytes_count"]
    {
        assert_eq!(metrics.sum(name, &labels), 1.0, "{name}\n{}", metrics.text());
    }
    assert_eq!(metrics.sum("istio_request_bytes_sum", &labels), 5.0);
    let line = metrics.text().lines().find(|line| line.starts_with("istio_requests_total{")).unwrap();
    assert_eq!(line.matches("=\"").count(), labels.len(), "no labels but these: {line}");
    for bound in ["0.5", "1", "5", "10", "25", "50", "100", "250", "500", "1000", "3600000", "+Inf"] {
        let name = "istio_request_duration_milliseconds_bucket";
        assert!(metrics.text().contains(&format!("le=\"{bound}\"")), "{name} le {bound}");
    }
}

/// Who is who by the certificates of both connections.
#[tokio::test]
async fn row_28_golden_metrics_tell_identities_of_source_and_destination() {
    const CLIENT: &str = "spiffe://example.org/ns/shop/sa/web";
    const GATEWAY: &str = "spiffe://example.org/ns/edge/sa/gateway";
    const SERVER: &str = "spiffe://example.org/ns/stock/sa/cart";
    let authority = Authority::new();
    let (client, gateway) =
        (authority.issue(&Says::uri(CLIENT)), Says::name("gate.example").and_uri(GATEWAY));
    let server = authority.issue(&Says::name("cart.example").and_uri(SERVER));
    let cart = Backend::echo("cart").await;
    let front = TlsFront::to(cart.address(), &server).asking(&authority).start().await;
    for (direction, preset, expected) in [
        ("inbound", "istio", [("source_principal", CLIENT), ("destination_principal", GATEWAY)]),
        ("outbound", "istio", [("source_principal", GATEWAY), ("destination_principal", SERVER)]),
        ("inbound", "linkerd", [("client_id", CLIENT), ("server_id", "")]),
        ("outbound", "linkerd", [("client_id", ""), ("server_id", SERVER)]),
        (
            "outbound",
            "meshgate, labels: [source, destination]",
            [("source", CLIENT), ("destination", SERVER)],
        ),
    ] {
        let tls =
            "tls: {certificates: [{certificate: web.pem, key: web.key}], client_certificates: {ca: ca.pem}}";
        let upstream = "tls: {ca: ca.pem, server_name: cart.example, certificate: web.pem, key: web.key}";
        let gate = Meshgate::chain(&format!("- telemetry: {{metrics: {{preset: {preset}}}}}"))
            .listener(tls)
            .listener(&format!("direction: {direction}"))
            .pair("web", &authority.issue(&gateway))
            .file("ca.pem", authority.certificate())
            .cluster_of("cart", &[front.address()], upstream)
            .start()
            .await;
        let tls = TlsClient::with_certificate("gate.example", &authority, &client);
        assert_eq!(tls.http1(gate.address()).await.get("/").await.status, 200);
        let name = match preset {
            "istio" => "istio_requests_total",
            "linkerd" => "response_total",
            _ => "meshgate_http_requests_total",
        };
        let metrics = counted(&gate, name, 1.0).await;
        assert_eq!(metrics.sum(name, &expected), 1.0, "{direction} {preset}\n{}", metrics.text());
        if preset == "istio" {
            let inbound = direction == "inbound";
            let policy = ("connection_security_policy", if inbound { "mutual_tls" } else { "unknown" });
            let namespace = if inbound {
                ("source_workload_namespace", "shop")
            } else {
                ("destination_workload_namespace", "stock")
            };
            let reporter = ("reporter", if inbound { "destination" } else { "source" });
            assert_eq!(metrics.sum(name, &[policy, namespace, reporter]), 1.0, "{}", metrics.text());
        }
        if preset == "linkerd" {
            assert_eq!(
                metrics.sum(name, &[("tls", "true"), ("direction", direction)]),
                1.0,
                "{}",
                metrics.text()
            );
        }
    }
}

/// The queries of Linkerd's dashboards: success rate, request rate, latency by direction.
#[tokio::test]
async fn row_28_golden_metrics_of_linkerd_have_its_labels() {
    let coded = coded().await;
    let chain = "- telemetry: {metrics: {preset: linkerd, tags: {namespace: shop, deployment: cart}}}";
    let setup = Meshgate::chain(chain).listener("direction: outbound").cluster("coded", &[&coded]);
    let gate = setup.start().await;
    let mut client = gate.client().await.authority("cart.shop");
    client.get("/200").await;
    client.get("/503").await;
    let metrics = counted(&gate, "response_total", 2.0).await;
    let target = coded.address().to_string();
    let base = [
        ("direction", "outbound"),
        ("authority", "cart.shop"),
        ("target_addr", target.as_str()),
        ("tls", "false"),
        ("namespace", "shop"),
        ("deployment", "cart"),
    ];
    assert_eq!(metrics.sum("request_total", &base), 2.0, "{}", metrics.text());
    for (code, class) in [("200", "success"), ("503", "failure")] {
        let labels = [&base[..], &[("status_code", code), ("classification", class)]].concat();
        assert_eq!(metrics.sum("response_total", &labels), 1.0, "{}", metrics.text());
        let labels = [&base[..], &[("status_code", code), ("le", "10000")]].concat();
        assert_eq!(metrics.sum("response_latency_ms_bucket", &labels), 1.0, "{}", metrics.text());
    }
    let requests = metrics.text().lines().find(|line| line.starts_with("request_total{")).unwrap();
    assert!(!requests.contains("classification") && !requests.contains("status_code"), "{requests}");
}

#[tokio::test]
async fn row_29_response_classification_makes_a_404_a_failure() {
    let coded = coded().await;
    for (failures, failed) in [("", 1.0), (", failures: [5xx, 404]", 2.0)] {
        let chain = format!("- telemetry: {{metrics: {{labels: [outcome, class]}}{failures}}}");
        let gate = Meshgate::chain(&chain).cluster("coded", &[&coded]).start().await;
        for path in ["/200", "/404", "/503"] {
            gate.get(path).await;
        }
        let metrics = counted(&gate, "meshgate_http_requests_total", 3.0).await;
        let of = |labels: &[_]| metrics.sum("meshgate_http_requests_total", labels);
        assert_eq!(of(&[("outcome", "failure")]), failed, "{}", metrics.text());
        assert_eq!(of(&[("class", "4xx")]), 1.0);
    }
}

/// What failed is told by gRPC's status, which comes after the body.
#[tokio::test]
async fn row_29_response_classification_of_grpc_is_by_its_status() {
    let echo = grpc_backend("echo").await;
    let gate = Meshgate::chain("- telemetry: {metrics: {labels: [outcome, grpc_status, protocol]}}")
        .cluster_of("echo", &[echo.address()], "protocol: http2")
        .start()
        .await;
    for method in ["Unary", "Refuse", "Nothing", "Status13", "Status14"] {
        let ask = Ask::post(&format!("/test.Echo/{method}"), framed(b"x"))
            .header("content-type", "application/grpc");
        Client::http2(gate.address()).await.call(ask).await;
    }
    let metrics = counted(&gate, "meshgate_http_requests_total", 5.0).await;
    for (status, outcome) in
        [("0", "success"), ("7", "success"), ("12", "success"), ("13", "failure"), ("14", "failure")]
    {
        let labels = [("grpc_status", status), ("outcome", outcome), ("protocol", "HTTP/2")];
        assert_eq!(metrics.sum("meshgate_http_requests_total", &labels), 1.0, "{}", metrics.text());
    }
}

#[tokio::test]
async fn flags_and_sizes_are_counted() {
    let coded = coded().await;
    let chain = "- telemetry: {metrics: {labels: [flags, code], sizes: true}}";
    let gate = Meshgate::chain(chain).cluster("coded", &[&coded]).start().await;
    gate.call(Ask::post("/200", vec![b'x'; 1_000])).await;
    drop(coded);
    assert_eq!(gate.get("/200").await.status, 503);
    let metrics = counted(&gate, "meshgate_http_requests_total", 2.0).await;
    let of = |name: &str, labels: &[_]| metrics.sum(name, labels);
    assert_eq!(
        of("meshgate_http_request_bytes_sum", &[("code", "200"), ("flags", "")]),
        1_000.0,
        "{}",
        metrics.text()
    );
    assert_eq!(of("meshgate_http_response_bytes_sum", &[("code", "200")]), 10.0, "{}", metrics.text());
    assert_eq!(of("meshgate_http_response_bytes_bucket", &[("code", "200"), ("le", "64")]), 1.0);
    assert_eq!(
        of("meshgate_http_requests_total", &[("code", "503"), ("flags", "UF")]),
        1.0,
        "{}",
        metrics.text()
    );
}

/// A client that makes a label's values up fills its bound and no more, and it shows.
#[tokio::test]
async fn too_many_sets_of_labels_count_under_other() {
    let one = Backend::echo("one").await;
    let chain = "- telemetry: {metrics: {labels: [code], tags: {path: \"%REQ(:path)%\"}, max_series: 10}}";
    let gate = Meshgate::chain(chain).cluster("one", &[&one]).start().await;
    let mut client = gate.client().await;
    for number in 0..50 {
        client.get(&format!("/{number}")).await;
    }
    client.get("/3").await;
    let metrics = counted(&gate, "meshgate_http_requests_total", 51.0).await;
    let of = |labels: &[_]| metrics.sum("meshgate_http_requests_total", labels);
    assert_eq!(of(&[("path", "/3"), ("code", "200")]), 2.0, "{}", metrics.text());
    assert_eq!(of(&[("path", "other"), ("code", "other")]), 40.0, "{}", metrics.text());
    assert_eq!(metrics.sum("meshgate_telemetry_overflow_total", &[]), 40.0);
    let lines = metrics.text().lines().filter(|line| line.starts_with("meshgate_http_requests_total{"));
    assert_eq!(lines.count(), 11);
}

/// The copies of a request and its further tries are no requests of clients.
#[tokio::test]
async fn mirrored_and_repeated_requests_do_not_count() {
    let (coded, shadow) = (coded().await, Backend::echo("shadow").await);
    let chain = "
        - telemetry: {}
        - routing:
            routes:
              - name: all
                to: coded
                mirrors: [{to: shadow}]
                filters: [{retry: {attempts: 2, if: [5xx], back_off: {base: 1ms}}}]
        ";
    let setup = Meshgate::chain(chain)
        .without_default_cluster()
        .cluster("coded", &[&coded])
        .cluster("shadow", &[&shadow]);
    let gate = setup.start().await;
    assert_eq!(gate.get("/503").await.status, 503);
    shadow.wait_for_requests(1).await;
    let metrics = counted(&gate, "meshgate_http_requests_total", 1.0).await;
    assert_eq!(coded.requests(), 3);
    assert_eq!(metrics.sum("meshgate_http_requests_total", &[("cluster", "shadow")]), 0.0);
}

#[tokio::test]
async fn mistakes_are_found_before_anything_runs() {
    for (configuration, expected) in [
        ("metrics: {preset: grafana}", "grafana"),
        ("metrics: {labels: [path]}", "path"),
        ("metrics: {tags: {a: \"%NOTHING%\"}}", "there is no operator %NOTHING%"),
        ("metrics: {preset: istio, labels: [code]}", "the preset has its own labels"),
        (
            "access_log: {otlp: {receiver: {cluster: one}, body: \"%UPSTREAM_PROTOCOL%\"}}",
            "is not offered here",
        ),
        ("access_log: {}", "nothing would be written"),
        ("access_log: {text: a, json: {}}", "a line is either text or JSON"),
        ("access_log: {text: \"%UPSTREAM_PROTOCOL%\"}", "is Envoy's, and is not offered here"),
        ("access_log: {json: {a: [\"%NO%\"]}}", "there is no operator %NO%"),
        ("failures: [teapot]", "`teapot` is not a status"),
        ("traces: {receiver: {cluster: nowhere}}", "nowhere"),
        ("traces: {sampling: 101}", "101"),
        ("traces: {receiver: {cluster: one, path: here}}", "`here` is not a path"),
    ] {
        let one = Backend::echo("one").await;
        let setup = Meshgate::chain(&format!("- telemetry: {{{configuration}}}")).cluster("one", &[&one]);
        let checked = setup.check().await;
        assert_ne!(checked.code, Some(0), "{configuration}");
        assert!(checked.stderr.contains(expected), "{configuration}: {}", checked.stderr);
    }
}
