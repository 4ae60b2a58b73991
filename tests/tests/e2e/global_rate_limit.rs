//! The standard filter `global-rate-limit`: one service that counts for several proxies, its failures, and what clients see.

use meshgate_tests::{
    Ask, Backend, Client, Envoy, Facts, Load, Meshgate, RateLimits, Reply, Setup, filter, until,
    with_custom_section,
};
use serde_json::json;

/// A proxy with this configuration of the filter, beside the service's place and a timeout that a busy machine keeps.
fn limited(more: &str, service: &RateLimits, backend: &Backend) -> Setup {
    Meshgate::chain(&format!("- global-rate-limit: {{cluster: limits, domain: shop, timeout: 5s, {more}}}"))
        .cluster("one", &[backend])
        .cluster_of("limits", &[service.address()], "protocol: http2")
}

const BY_USER: &str = "descriptors: [{entries: [{from: {header: x-user}, key: user}]}]";

fn of(user: &str) -> Ask {
    Ask::get("/orders").header("x-user", user)
}

#[tokio::test]
async fn one_service_counts_for_all_proxies() {
    let (service, backend) = (RateLimits::start(10).await, Backend::echo("one").await);
    let gates = [
        limited(BY_USER, &service, &backend).workers(2).start().await,
        limited(BY_USER, &service, &backend).start().await,
    ];
    let mut clients = Vec::new();
    for gate in &gates {
        clients.push(gate.client().await);
        clients.push(Client::http2(gate.address()).await);
    }
    for round in 0..16 {
        let reply = clients[round % 4].call(of("ann")).await;
        let over = round >= 10;
        assert_eq!(reply.status, if over { 429 } else { 200 }, "{round}");
        assert_eq!(reply.header("x-ratelimit-limit"), "10, 10;w=60;name=\"each\"");
        assert_eq!(reply.header("x-ratelimit-remaining"), 9_usize.saturating_sub(round).to_string());
        assert_eq!((reply.header("x-ratelimit-reset"), reply.header("x-counted")), ("30", "yes"));
        assert_eq!(reply.header("x-envoy-ratelimited"), if over { "true" } else { "" });
        assert_eq!(reply.header("retry-after"), if over { "30" } else { "" });
        match over {
            true => assert_eq!(reply.text(), "come back later\n"),
            false => assert_eq!(reply.json()["headers"]["x-passed"], "yes"),
        }
    }
    assert_eq!(clients[0].call(of("bob")).await.status, 200, "others have their own");
    assert_eq!(clients[0].get("/orders").await.status, 200, "and who is nobody is not counted");
    assert_eq!(service.requests(), 17);
    assert_eq!(service.counts()["shop: user=ann"], 16);
    assert_eq!(backend.requests(), 12);
    let mut counted = [0.0; 3];
    for gate in &gates {
        let metrics = gate.metrics().await;
        for (sum, outcome) in counted.iter_mut().zip(["ok", "over_limit", "unlimited"]) {
            let labels = [("domain", "shop"), ("outcome", outcome)];
            *sum += metrics.sum("meshgate_global_rate_limit_requests_total", &labels);
        }
    }
    assert_eq!(counted, [11.0, 6.0, 1.0]);
    let refused =
        |entries: Vec<serde_json::Value>| entries.into_iter().find(|entry| entry["response_code"] == 429);
    let entry = until("a refusal is in the log", || async { refused(gates[1].access_log()) }).await;
    assert_eq!(
        (&entry["response_code_details"], &entry["response_flags"]),
        (&"request_rate_limited".into(), &"RL".into())
    );
}

#[tokio::test]
async fn however_many_come_at_once_no_more_pass() {
    let (service, backend) = (RateLimits::start(50).await, Backend::echo("one").await);
    let gate = limited(BY_USER, &service, &backend).workers(2).start().await;
    let ask = async || {
        let mut client = gate.client().await;
        let mut passed = 0;
        for _ in 0..10 {
            passed += u32::from(client.call(of("ann")).await.status == 200);
        }
        passed
    };
    let all = futures_util::future::join_all((0..10).map(|_| ask())).await;
    assert_eq!((all.into_iter().sum::<u32>(), backend.requests()), (50, 50));
}

#[tokio::test]
async fn grpc_clients_hear_of_it_in_their_own_way() {
    let (service, backend) = (RateLimits::start(0).await, Backend::echo("one").await);
    let gate = limited(BY_USER, &service, &backend).start().await;
    let ask = Ask::post("/shop.Orders/List", "\0\0\0\0\0").header("content-type", "application/grpc");
    let reply = Client::http2(gate.address()).await.call(ask.header("x-user", "ann")).await;
    assert_eq!((reply.status.as_u16(), reply.header("grpc-status")), (200, "8"));
    assert_eq!(reply.header("x-envoy-ratelimited"), "true");
}

#[tokio::test]
async fn a_routes_own_filter_knows_the_route_and_the_cluster() {
    let (service, backend) = (RateLimits::start(1).await, Backend::echo("one").await);
    let gate = Meshgate::chain(
        "
        - routing:
            routes:
              - name: orders
                match: {path: /orders}
                to: one
                filters:
                  - global-rate-limit:
                      cluster: limits
                      domain: shop
                      timeout: 5s
                      hits: 2
                      descriptors:
                        - entries: [{from: route}, {from: cluster}, {from: client_address}]
                        - entries: [{from: {client_network: {v4: 8}}}, {from: {value: all}}]
                          hits: 0
              - {name: rest, match: {path: /**}, to: one}
        ",
    )
    .cluster("one", &[&backend])
    .cluster_of("limits", &[service.address()], "protocol: http2")
    .start()
    .await;
    assert_eq!(gate.get("/other").await.status, 200);
    assert_eq!(gate.get("/orders").await.status, 429, "two hits are more than one");
    let expected = [
        ("shop: masked_remote_address=127.0.0.0/8, generic_key=all".to_owned(), 0),
        ("shop: route=orders, destination_cluster=one, remote_address=127.0.0.1".to_owned(), 2),
    ];
    assert_eq!(service.counts().into_iter().collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn when_there_is_no_service_the_configuration_decides() {
    let backend = Backend::echo("one").await;
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let silent = Backend::http2("silent", async |_, _| std::future::pending().await).await;
    for (more, expected, outcome) in [
        ("", 200, "error_allowed"),
        ("on_failure: deny, ", 500, "error"),
        ("on_failure: deny, status_on_error: 503, ", 503, "error"),
        ("on_failure: deny, shadow: true, ", 200, "error_allowed"),
    ] {
        for cluster in ["gone", "silent"] {
            let chain = format!("- global-rate-limit: {{cluster: {cluster}, domain: shop, {more}{BY_USER}}}");
            let gate = Meshgate::chain(&chain)
                .cluster("one", &[&backend])
                .cluster_of("gone", &[gone], "protocol: http2")
                .cluster_of("silent", &[silent.address()], "protocol: http2")
                .start()
                .await;
            assert_eq!(gate.call(of("ann")).await.status, expected, "{chain}");
            let metrics = gate.metrics().await;
            let labels = [("outcome", outcome)];
            assert_eq!(metrics.sum("meshgate_global_rate_limit_requests_total", &labels), 1.0, "{chain}");
            let entry = gate.access("/orders").await;
            assert_eq!(entry["response_flags"], "RLSE", "{chain}");
            if expected != 200 {
                assert_eq!(entry["response_code_details"], "rate_limiter_error", "{chain}");
            }
        }
    }
}

#[tokio::test]
async fn in_the_shadow_the_service_is_asked_and_everything_passes() {
    let (service, backend) = (RateLimits::start(1).await, Backend::echo("one").await);
    let gate = limited(&format!("shadow: true, {BY_USER}"), &service, &backend).start().await;
    for _ in 0..3 {
        let reply = gate.call(of("ann")).await;
        assert_eq!((reply.status.as_u16(), reply.header("x-ratelimit-limit")), (200, ""));
    }
    assert_eq!(service.counts()["shop: user=ann"], 3);
    let metrics = gate.metrics().await;
    let would = metrics.sum("meshgate_global_rate_limit_requests_total", &[("outcome", "would_limit")]);
    assert_eq!(would, 2.0);
}

#[tokio::test]
async fn mistakes_are_refused_with_line_and_column() {
    let (service, backend) = (RateLimits::start(1).await, Backend::echo("one").await);
    let setup = limited("descriptors: [{entries: [{form: path}]}]", &service, &backend);
    let place = setup.place("form: path");
    let finished = setup.check().await;
    let said = finished.stdout + &finished.stderr;
    assert!(said.contains(&place) && said.contains("unknown key `form`"), "{said}");
    let setup = limited(BY_USER, &service, &backend);
    let finished =
        setup.with_chain(&format!("- global-rate-limit: {{cluster: limit, domain: shop, {BY_USER}}}"));
    let finished = finished.check().await;
    let said = finished.stdout + &finished.stderr;
    assert!(said.contains("unknown cluster `limit` (hint: did you mean `limits`?)"), "{said}");
}

#[tokio::test]
async fn the_module_is_swapped_under_load_without_a_failed_request() {
    let (service, backend) = (RateLimits::start(100).await, Backend::echo("one").await);
    let module = filter("global-rate-limit");
    let gate = limited(BY_USER, &service, &backend)
        .with_chain(&format!(
            "- guard: {{cluster: limits, domain: shop, timeout: 5s, on_failure: deny, {BY_USER}}}"
        ))
        .filter("guard", &module, "")
        .workers(2)
        .start()
        .await;
    let judge = |reply: &Reply| match reply.status.as_u16() {
        200 | 429 => Ok(()),
        other => Err(other.to_string()),
    };
    let load = Load::start(gate.address(), 4, || of("ann"), judge);
    for round in 0..3_u8 {
        load.wait_for_more(200).await;
        let before = gate.reload().await;
        gate.replace("guard.wasm", with_custom_section(&module, "round", &[round]));
        gate.reloaded(&before).await;
    }
    load.wait_for_more(200).await;
    assert!(load.stop().await.all_good() >= 800);
    assert_eq!(backend.requests(), 100);
}

/// Envoy's own filter for the same service, with the same configuration, answers as ours does.
#[tokio::test]
async fn envoys_own_filter_answers_alike() {
    if Envoy::installed().is_none() {
        println!("Envoy is not installed: nothing to compare with");
        return;
    }
    let backend = Backend::echo("one").await;
    let (ours, theirs) = (RateLimits::start(3).await, RateLimits::start(3).await);
    let descriptors = "descriptors: [{entries: [{from: {header: x-user}, key: user}, {from: client_address}]}, \
                       {entries: [{from: {value: all}}, {from: cluster}]}]";
    // The route is decided in Envoy before the filter runs.
    let chain = format!(
        "- routing: {{routes: [{{name: all, match: {{path: /**}}, to: one, filters: [global-rate-limit: \
         {{cluster: limits, domain: shop, timeout: 5s, {descriptors}}}]}}]}}"
    );
    let gate = limited(BY_USER, &ours, &backend).with_chain(&chain).start().await;
    let limits = json!([
        {"actions": [{"request_headers": {"header_name": "x-user", "descriptor_key": "user"}}, {"remote_address": {}}]},
        {"actions": [{"generic_key": {"descriptor_value": "all"}}, {"destination_cluster": {}}]},
    ]);
    let facts = Facts { route: json!({"rate_limits": limits}), ..Facts::default() };
    let envoy = Envoy::setup()
        .own_filter(
            "ratelimit",
            "ratelimit.v3.RateLimit",
            json!({
                "domain": "shop", "timeout": "5s", "enable_x_ratelimit_headers": "DRAFT_VERSION_03",
                "rate_limited_as_resource_exhausted": true,
                "rate_limit_service": {"transport_api_version": "V3", "grpc_service": {"envoy_grpc": {"cluster_name": "limits"}}},
            }),
        )
        .facts(facts)
        .cluster("one", backend.address())
        .http2_cluster("limits", theirs.address())
        .start()
        .await;
    for (user, expected) in [("ann", 200), ("", 200), ("bob", 200), ("ann", 429), ("", 429)] {
        let ask = || if user.is_empty() { Ask::get("/orders") } else { of(user) };
        let (own, other) = (gate.call(ask()).await, Client::http1(envoy.address()).await.call(ask()).await);
        assert_eq!((own.status.as_u16(), other.status.as_u16()), (expected, expected), "{user}");
        for name in [
            "x-ratelimit-limit",
            "x-ratelimit-remaining",
            "x-ratelimit-reset",
            "x-envoy-ratelimited",
            "x-counted",
        ] {
            assert_eq!(own.header(name), other.header(name), "{user} {name}");
        }
        if expected == 429 {
            assert_eq!(own.text(), other.text());
        } else {
            let passed = |reply: &Reply| reply.json()["headers"]["x-passed"].clone();
            assert_eq!(passed(&own), passed(&other));
        }
    }
    assert_eq!(ours.counts(), theirs.counts());
}
