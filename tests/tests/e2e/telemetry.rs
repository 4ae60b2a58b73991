//! The standard filter `telemetry`, and the proxy's own metrics.

mod connections; // TCP, and messages of gRPC
mod ends; // what waits when the filter goes
mod logs; // lines and records of the access log
mod metrics; // names, labels, counts, and the bound on series
mod spans; // what other filters add to a trace
mod traces; // contexts, sampling, spans

use http::Response;
use meshgate_tests::{Ask, Backend, Client, Meshgate, Metrics, full, until};

/// Reads the metrics once all these requests are counted; that happens at their end, when the client has its answer already.
async fn counted(gate: &Meshgate, requests: f64) -> Metrics {
    let all = |metrics: &Metrics| metrics.sum("meshgate_http_requests_total", &[]) >= requests;
    let metrics =
        until("all requests are counted", || async { Some(gate.metrics().await).filter(all) }).await;
    assert_eq!(metrics.sum("meshgate_http_requests_total", &[]), requests, "{}", metrics.text());
    metrics
}

#[tokio::test]
async fn requests_are_counted_by_route_cluster_and_code() {
    let coded = Backend::answering("coded", async |seen, _| {
        Ok(Response::builder().status(&seen.path[1..]).body(full("x")).unwrap())
    })
    .await;
    let gate = Meshgate::chain(
        "
        - telemetry: {}
        - routing:
            routes:
              - {name: first, match: {headers: {x-route: \"1\"}}, to: coded}
              - {name: second, match: {headers: {x-route: \"2\"}}, to: coded}
        ",
    )
    .without_default_cluster()
    .workers(2)
    .cluster("coded", &[&coded])
    .start()
    .await;

    let expected = [("1", 200, 7), ("1", 404, 3), ("2", 200, 5), ("2", 503, 2)];
    for (route, code, count) in expected {
        for number in 0..count {
            let ask = Ask::get(&format!("/{code}")).header("x-route", route);
            // Connections of their own, so that both workers count.
            match number % 2 {
                0 => gate.call(ask).await,
                _ => Client::http2(gate.address()).await.call(ask).await,
            };
        }
    }
    gate.get("/no-route").await;

    let metrics = counted(&gate, 18.0).await;
    for (route, code, count) in expected {
        let route = if route == "1" { "first" } else { "second" };
        let code = code.to_string();
        let labels = [("route", route), ("cluster", "coded"), ("code", code.as_str())];
        let total = metrics.sum("meshgate_http_requests_total", &labels);
        assert_eq!(total, f64::from(count), "{labels:?}\n{}", metrics.text());
        let observed = metrics.sum("meshgate_http_request_duration_seconds_count", &labels);
        assert_eq!(observed, f64::from(count), "{labels:?}\n{}", metrics.text());
    }
    assert_eq!(metrics.sum("meshgate_http_requests_total", &[("code", "404")]), 4.0, "{}", metrics.text());
}

#[tokio::test]
async fn durations_fall_into_buckets() {
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain("- telemetry: {}").cluster("one", &[&one]).start().await;
    for _ in 0..10 {
        gate.get("/").await;
    }
    let metrics = counted(&gate, 10.0).await;
    let name = "meshgate_http_request_duration_seconds";
    assert_eq!(metrics.sum(&format!("{name}_bucket"), &[("le", "+Inf")]), 10.0, "{}", metrics.text());
    assert_eq!(metrics.sum(&format!("{name}_count"), &[]), 10.0);
    let sum = metrics.sum(&format!("{name}_sum"), &[]);
    assert!(sum > 0.0 && sum < 600.0, "seconds, not other units: {sum}");
    assert!(metrics.text().contains(&format!("# TYPE {name} histogram")), "{}", metrics.text());
}

#[tokio::test]
async fn counts_survive_a_reload() {
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain("- telemetry: {}").cluster("one", &[&one]).start().await;
    gate.get("/").await;
    let before = gate.reload().await;
    let chain = "- telemetry: {}\n- headers: {response: {set: {x-a: b}}}";
    gate.replace("meshgate.yaml", gate.setup().clone().with_chain(chain).yaml());
    gate.reloaded(&before).await;
    assert_eq!(gate.get("/").await.header("x-a"), "b");
    counted(&gate, 2.0).await;
}

#[tokio::test]
async fn process_tells_about_itself() {
    let gate = Meshgate::chain("").start().await;
    gate.get("/").await;
    let metrics = gate.metrics().await;
    let names = [
        "meshgate_reloads_total",
        "meshgate_config_last_reload_successful",
        "meshgate_access_log_lines_dropped_total",
        "process_resident_memory_bytes",
        "process_open_fds",
    ];
    for name in names {
        assert!(
            metrics.text().contains(&format!("# TYPE {}", name.trim_end_matches("_total"))),
            "{name}\n{}",
            metrics.text()
        );
    }
    assert!(metrics.sum("process_resident_memory_bytes", &[]) > 1e6);
    for line in metrics.text().lines().filter(|line| !line.starts_with('#')) {
        let (_, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("not a sample: {line}"));
        assert!(value.parse::<f64>().is_ok(), "not a sample: {line}");
    }
}

/// Waits until so many records of a kind have been taken by their receiver: it has them before the proxy knows.
async fn exported(gate: &Meshgate, signal: &str, count: f64) {
    let what = format!("{count} {signal} are exported");
    until(what, || async {
        let metrics = gate.metrics().await;
        (metrics.sum("meshgate_telemetry_exported_total", &[("signal", signal)]) == count).then_some(())
    })
    .await;
}
