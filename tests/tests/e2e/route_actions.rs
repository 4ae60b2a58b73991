//! What routes of the standard filter `routing` do beside sending requests to a cluster: staying with one, choosing by a key,
//! rewriting, answering, timeouts.

use std::collections::HashSet;
use std::time::Duration;

use http::{Method, Response, StatusCode};
use meshgate_tests::{
    Ask, Backend, DnsServer, Load, Meshgate, Reply, empty, full, until, within_binomial_bounds,
};

use crate::routing::routed;

#[tokio::test]
async fn row_2_weights_are_flipped_without_a_failed_request() {
    let split = |one: u32, two: u32| {
        format!("- routing: {{routes: [{{name: split, to: {{one: {one}, two: {two}}}}}]}}\n")
    };
    let (one, two) = (Backend::echo("one").await, Backend::echo("two").await);
    let setup = Meshgate::chain(&split(1, 0)).cluster("one", &[&one]).cluster("two", &[&two]);
    let gate = setup.start().await;
    let judge = |reply: &Reply| match reply.status {
        StatusCode::OK => Ok(()),
        other => Err(format!("status {other}")),
    };
    let load = Load::start(gate.address(), 4, || Ask::get("/"), judge);
    for (flipped, other) in [(split(0, 1), "two"), (split(1, 0), "one"), (split(0, 1), "two")] {
        gate.replace("meshgate.yaml", gate.setup().clone().with_chain(&flipped).yaml());
        until("the weights are flipped", || async {
            (gate.get("/").await.header("x-backend") == other).then_some(())
        })
        .await;
    }
    assert!(load.stop().await.all_good() > 0);
    assert!(one.requests() > 0 && two.requests() > 0);
}

/// The pair and the attributes of a cookie that a reply sets.
fn cookie(reply: &Reply) -> (String, String) {
    let (pair, attributes) = reply.header("set-cookie").split_once("; ").expect("a cookie");
    (pair.to_owned(), attributes.to_owned())
}

#[tokio::test]
async fn row_2_clients_stay_with_the_cluster_they_had() {
    const CLIENTS: usize = 600;
    let (gate, _backends) = routed(
        "
        - name: split
          to: {one: 70, two: 30}
          sticky: [{header: x-user}, {cookie: {name: side, ttl: 1h, path: /shop}}]
        ",
    )
    .await;
    let mut client = gate.client().await;
    let mut of_two = 0;
    for number in 0..CLIENTS {
        let first = client.get("/").await;
        let (pair, attributes) = cookie(&first);
        assert_eq!(attributes, "Path=/shop; Max-Age=3600; HttpOnly; SameSite=Lax");
        of_two += usize::from(first.header("x-backend") == "two");
        if number < 40 {
            let again = client.call(Ask::get("/").header("cookie", &format!("a=b; {pair}"))).await;
            assert_eq!(
                (again.header("x-backend"), again.header("set-cookie")),
                (first.header("x-backend"), "")
            );
            assert_eq!(again.json()["headers"]["cookie"], format!("a=b; {pair}"));
        }
    }
    assert!(within_binomial_bounds(of_two, CLIENTS, 0.3), "{of_two} of {CLIENTS} for 30 %");

    // By a field it is the same everywhere and at any time: 20 times for each of 20 users, and both sides have some.
    let mut sides = HashSet::new();
    for user in 0..20 {
        let ask = || Ask::get("/").header("x-user", &format!("user-{user}"));
        let side = client.call(ask()).await.header("x-backend").to_owned();
        for _ in 0..20 {
            assert_eq!(gate.call(ask()).await.header("x-backend"), side);
        }
        sides.insert(side);
    }
    assert_eq!(sides.len(), 2);
}

#[tokio::test]
async fn row_12_routes_choose_what_endpoints_are_chosen_by() {
    let backends = [Backend::echo("one").await, Backend::echo("two").await, Backend::echo("three").await];
    let addresses = backends.each_ref().map(Backend::address);
    let gate = Meshgate::chain(
        "
        - routing:
            routes:
              - name: ring
                match: {path: /ring}
                to: ring
                hash: [{header: x-user}, {query: user}, {cookie: {name: user, ttl: 0s}}]
              - {name: address, match: {path: /address}, to: ring, hash: source_address}
              - {name: maglev, match: {path: /maglev}, to: maglev, hash: {header: x-user}}
              - {name: own, to: ring}
        ",
    )
    .without_default_cluster()
    .cluster_of("ring", &addresses, "load_balancer: {ring_hash: {by: {header: x-user}}}")
    .cluster_of("maglev", &addresses, "load_balancer: {maglev: {by: source_address}}")
    .start()
    .await;
    let endpoint = |ask: Ask| async { gate.call(ask).await.header("x-backend").to_owned() };
    let mut used = HashSet::new();
    for user in 0..60 {
        let user = format!("user-{user}");
        // The route's own key is made as the cluster's is, so it leads to the same endpoint.
        let own = endpoint(Ask::get("/").header("x-user", &user)).await;
        for _ in 0..3 {
            assert_eq!(endpoint(Ask::get("/ring").header("x-user", &user)).await, own);
            assert_eq!(endpoint(Ask::get(&format!("/ring?user={user}"))).await, own);
            assert_eq!(endpoint(Ask::get("/ring").header("cookie", &format!("user={user}"))).await, own);
        }
        let maglev = endpoint(Ask::get("/maglev").header("x-user", &user)).await;
        assert_eq!(endpoint(Ask::get("/maglev").header("x-user", &user)).await, maglev);
        used.insert(own);
    }
    assert_eq!(used.len(), 3);
    let mut by_address = HashSet::new();
    for _ in 0..20 {
        by_address.insert(endpoint(Ask::get("/address")).await);
    }
    assert_eq!(by_address.len(), 1);
    // Who has no key is given one, and stays where it leads.
    let mut seen = HashSet::new();
    for _ in 0..20 {
        let first = gate.get("/ring").await;
        let (pair, attributes) = cookie(&first);
        assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Lax");
        assert_eq!(endpoint(Ask::get("/ring").header("cookie", &pair)).await, first.header("x-backend"));
        seen.insert(first.header("x-backend").to_owned());
    }
    // All twenty at one of three endpoints: less than once in a thousand million times.
    assert!(seen.len() > 1);
}

#[tokio::test]
async fn row_1_paths_and_authorities_are_rewritten() {
    let (gate, _backends) = routed(
        "
        - {name: prefix, match: {path: /api/**}, to: one, rewrite: {prefix: /v2, authority: \"api.internal:81\"}}
        - {name: whole, match: {path: /page}, to: one, rewrite: {path: /index.html}}
        - {name: regex, match: {path: /u/**}, to: one, rewrite: {regex: {find: \"^/u/([0-9]+)\", replace: \"/users/$1\"}}}
        - {name: header, match: {path: /host}, to: one, rewrite: {authority: {header: x-host}}}
        - {name: root, match: {path: /strip/**}, to: one, rewrite: {prefix: /}}
        ",
    )
    .await;
    for (path, expected) in [
        ("/api/users?x=/api", "/v2/users?x=/api"),
        ("/api", "/v2"),
        ("/page?x", "/index.html?x"),
        ("/u/7/orders", "/users/7/orders"),
        ("/u/x", "/u/x"),
        ("/strip/a", "/a"),
        ("/strip", "/"),
    ] {
        assert_eq!(gate.get(path).await.json()["path"], expected, "{path}");
        // The access log has what the client asked for.
        assert_eq!(gate.access(path).await["path"], path);
    }
    assert_eq!(gate.get("/api/x").await.json()["headers"]["host"], "api.internal:81");
    let to_host = |value| Ask::get("/host").header("host", "a.example").header("x-host", value);
    assert_eq!(gate.call(to_host("b.example")).await.json()["headers"]["host"], "b.example");
    assert_eq!(gate.call(to_host("b/c")).await.status, 400);
    let kept = gate.call(Ask::get("/host").header("host", "a.example")).await;
    assert_eq!(kept.json()["headers"]["host"], "a.example");
}

#[tokio::test]
async fn row_1_endpoints_are_called_by_their_names() {
    let backend = Backend::echo("one").await;
    let (address, port) = (backend.address(), backend.address().port());
    let server = DnsServer::start().await;
    let local = std::net::Ipv4Addr::LOCALHOST;
    server.host("host.test", 60, &[local]);
    server.host("of-service.test", 60, &[local]);
    server.service("_http._tcp.test", 60, &[(0, 1, port, "of-service.test")]);
    let resolver = server.address();
    let clusters = [
        ("host", format!("dns: {{host: \"host.test:{port}\", resolvers: [\"{resolver}\"]}}")),
        ("service", format!("dns: {{srv: _http._tcp.test, resolvers: [\"{resolver}\"]}}")),
        ("written", format!("endpoints: [\"localhost:{port}\"]")),
        ("address", format!("endpoints: [\"{address}\"]")),
    ];
    let mut yaml = "admin: {address: 127.0.0.1:0}\naccess_log: {format: json}\n\
         listeners: [{name: web, address: 127.0.0.1:0, chain: web}]\n\
         chains:\n  web:\n    - routing:\n        routes:\n"
        .to_owned();
    for (name, _) in &clusters {
        yaml += &format!(
            "          - {{name: {name}, match: {{path: /{name}}}, to: {name}, rewrite: {{authority: {{from: endpoint}}}}}}\n"
        );
    }
    yaml += "          - {name: rest, to: host}\nclusters:\n";
    for (name, endpoints) in &clusters {
        yaml += &format!("  - {{name: {name}, {endpoints}}}\n");
    }
    let gate = Meshgate::with(&yaml).start().await;
    for (path, expected) in [
        ("/host", format!("host.test:{port}")),
        ("/service", format!("of-service.test:{port}")),
        ("/written", format!("localhost:{port}")),
        ("/address", "shop.example".to_owned()),
        ("/else", "shop.example".to_owned()),
    ] {
        // `localhost` may have an address at which nobody listens.
        let reply = until(path, || async {
            let reply = gate.call(Ask::get(path).header("host", "shop.example")).await;
            (reply.status == 200).then_some(reply)
        })
        .await;
        assert_eq!(reply.json()["headers"]["host"], expected, "{path}");
    }
}

#[tokio::test]
async fn row_1_routes_answer_and_redirect_with_another_path() {
    let (gate, backends) = routed(
        "
        - name: gone
          match: {path: /gone/**}
          answer: {status: 410, body: \"moved out\\n\", headers: {x-since: \"2020\"}}
          filters: [{headers: {response: {set: {x-route: gone}}}}]
        - {name: health, match: {path: /healthz}, answer: {}}
        - {name: old, match: {path: /old/**}, redirect: {prefix: /new, code: 302}}
        - {name: home, match: {path: /home}, redirect: {path: /}}
        ",
    )
    .await;
    let gone = gate.get("/gone/a").await;
    assert_eq!((gone.status.as_u16(), gone.text().as_str()), (410, "moved out\n"));
    assert_eq!((gone.header("x-since"), gone.header("x-route")), ("2020", "gone"));
    assert_eq!(gate.access("/gone/a").await["route"], "gone");
    let health = gate.call(Ask::new(Method::HEAD, "/healthz", empty())).await;
    assert_eq!((health.status.as_u16(), health.text().as_str()), (200, ""));
    for (path, status, location) in
        [("/old/a?b=c", 302, "http://shop.example/new/a?b=c"), ("/home?x", 301, "http://shop.example/?x")]
    {
        let reply = gate.call(Ask::get(path).header("host", "shop.example")).await;
        assert_eq!((reply.status.as_u16(), reply.header("location")), (status, location));
    }
    assert!(backends.iter().all(|backend| backend.requests() == 0));
}

#[tokio::test]
async fn row_4_a_route_without_a_timeout_outlives_the_listeners() {
    let slow = Backend::answering("slow", async |_, _| {
        tokio::time::sleep(Duration::from_millis(700)).await;
        Ok(Response::new(full("late")))
    })
    .await;
    let gate = Meshgate::chain(
        "- routing: {routes: [{name: patient, match: {path: /patient}, to: slow, timeout: 0s}, {name: rest, to: slow}]}",
    )
    .listener("request_timeout: 200ms")
    .cluster("slow", &[&slow])
    .start()
    .await;
    assert_eq!(gate.get("/patient").await.text(), "late");
    assert_eq!(gate.get("/else").await.status, 504);
}

#[tokio::test]
async fn row_4_a_client_of_grpc_waits_no_longer_than_the_route() {
    let silent = Backend::answering("silent", async |_, _| std::future::pending().await).await;
    let gate = Meshgate::chain("- routing: {routes: [{name: short, to: silent, timeout: 200ms}]}")
        .cluster("silent", &[&silent])
        .start()
        .await;
    let ask = |patience| {
        Ask::post("/a.B/C", "").header("content-type", "application/grpc").header("grpc-timeout", patience)
    };
    // The client would wait for an hour, or for less than the route.
    for patience in ["1H", "50m"] {
        assert_eq!(gate.call(ask(patience)).await.header("grpc-status"), "4", "{patience}");
    }
}
