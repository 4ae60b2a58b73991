//! The standard filter `routing`.

use http::{Method, Response};
use meshgate_tests::{
    Ask, Authority, Backend, Client, Meshgate, Says, TlsClient, empty, within_binomial_bounds,
};

/// Starts a proxy with these routes over backends `one`, `two` and `three`, with no default cluster.
pub(crate) async fn routed(routes: &str) -> (Meshgate, [Backend; 3]) {
    let routes: String = routes.lines().map(|line| format!("    {line}\n")).collect();
    routed_with(&format!("routes:\n{routes}")).await
}

/// As [`routed`], with this configuration.
async fn routed_with(configuration: &str) -> (Meshgate, [Backend; 3]) {
    let backends = [Backend::echo("one").await, Backend::echo("two").await, Backend::echo("three").await];
    let configuration: String = configuration.lines().map(|line| format!("    {line}\n")).collect();
    let chain = format!("- routing:\n{configuration}");
    let mut setup = Meshgate::chain(&chain).without_default_cluster();
    for backend in &backends {
        setup = setup.cluster(backend.name(), &[backend]);
    }
    (setup.start().await, backends)
}

/// Who answers: a backend's name, or the status if nobody did.
async fn answerer(gate: &Meshgate, ask: Ask) -> String {
    let reply = gate.call(ask).await;
    match reply.header("x-backend") {
        "" => reply.status.as_u16().to_string(),
        backend => backend.to_owned(),
    }
}

#[tokio::test]
async fn row_1_paths_match_exactly_or_below_a_folder() {
    let (gate, _backends) = routed(
        "
        - {name: exact, match: {path: /exact}, to: one}
        - {name: folder, match: {path: /folder/**}, to: two}
        - {name: prefix, match: {path: /pre*}, to: three}
        ",
    )
    .await;
    for (path, expected) in [
        ("/exact", "one"),
        ("/exact?query=1", "one"),
        ("/exact/", "404"),
        ("/exactly", "404"),
        ("/Exact", "404"),
        ("/folder/a", "two"),
        ("/folder/a/b/c", "two"),
        ("/folder/", "two"),
        ("/folders", "404"),
        ("/folder", "two"),
        ("/pre", "three"),
        ("/prefix", "three"),
        ("/prefix/x", "404"),
        ("/", "404"),
    ] {
        assert_eq!(answerer(&gate, Ask::get(path)).await, expected, "{path}");
    }
}

#[tokio::test]
async fn row_1_the_first_match_wins() {
    let (gate, _backends) = routed(
        "
        - {name: one-page, match: {path: /a/b}, to: one}
        - {name: section, match: {path: /a/**}, to: two}
        - {name: rest, match: {path: /**}, to: three}
        ",
    )
    .await;
    for (path, expected) in [("/a/b", "one"), ("/a/c", "two"), ("/c", "three"), ("/", "three")] {
        assert_eq!(answerer(&gate, Ask::get(path)).await, expected, "{path}");
    }
}

#[tokio::test]
async fn row_1_hosts_match_without_case_and_port() {
    let (gate, _backends) = routed(
        "
        - {name: shop, match: {host: shop.example}, to: one}
        - {name: below, match: {host: \"*.shop.example\"}, to: two}
        ",
    )
    .await;
    for (host, expected) in [
        ("shop.example", "one"),
        ("SHOP.example", "one"),
        ("shop.example:8080", "one"),
        ("a.shop.example", "two"),
        ("other.example", ""),
        ("shop.example.evil", ""),
    ] {
        for client in [Client::http1(gate.address()).await, Client::http2(gate.address()).await] {
            let reply = client.authority(host).get("/").await;
            assert_eq!(reply.header("x-backend"), expected, "{host} over {:?}", reply.version);
        }
    }
}

#[tokio::test]
async fn row_1_methods_headers_and_queries_match_together() {
    let (gate, _backends) = routed(
        "
        - {name: canary, match: {method: POST, headers: {x-canary: \"true\"}}, to: one}
        - {name: changes, match: [{method: PUT}, {method: PATCH}], to: two}
        - {name: version, match: {query: {version: \"2\"}}, to: three}
        ",
    )
    .await;
    let method = |method: Method| Ask::new(method, "/", empty());
    for (ask, expected) in [
        (method(Method::POST).header("x-canary", "true"), "one"),
        (method(Method::POST).header("X-Canary", "true"), "one"),
        (method(Method::POST).header("x-canary", "True"), "404"),
        (method(Method::POST), "404"),
        (method(Method::GET).header("x-canary", "true"), "404"),
        (method(Method::PUT), "two"),
        (method(Method::PATCH), "two"),
        (Ask::get("/?version=2"), "three"),
        (Ask::get("/?a=b&version=2&c=d"), "three"),
        (Ask::get("/?version=21"), "404"),
        (Ask::get("/?xversion=2"), "404"),
    ] {
        assert_eq!(answerer(&gate, ask).await, expected);
    }
}

#[tokio::test]
async fn list_of_matches_is_an_or() {
    let (gate, _backends) =
        routed("- {name: either, match: [{path: /a}, {path: /b, method: GET}], to: one}").await;
    assert_eq!(answerer(&gate, Ask::get("/a")).await, "one");
    assert_eq!(answerer(&gate, Ask::get("/b")).await, "one");
    assert_eq!(answerer(&gate, Ask::post("/b", "")).await, "404");
    assert_eq!(answerer(&gate, Ask::get("/c")).await, "404");
}

/// Who sends the requests is known by what the configuration says of the proxy beside it.
#[tokio::test]
async fn row_1_requests_are_routed_by_the_labels_of_their_source() {
    for (app, expected) in [("shop", "one"), ("blog", "two"), ("", "two")] {
        let (one, two) = (Backend::echo("one").await, Backend::echo("two").await);
        let gate = Meshgate::chain(
            "
            - routing:
                routes:
                  - {name: shop, match: {properties: {node/metadata/app: shop}}, to: one}
                  - {name: others, match: {properties: {node/metadata/app: {not: shop}}}, to: two}
            ",
        )
        .top(&format!("node: {{metadata: {{app: {app:?}}}}}"))
        .cluster("one", &[&one])
        .cluster("two", &[&two])
        .start()
        .await;
        assert_eq!(gate.get("/").await.header("x-backend"), expected, "{app}");
    }
}

#[tokio::test]
async fn row_2_weights_are_kept() {
    const DRAWS: usize = 10_000;
    let (gate, backends) =
        routed("- {name: split, match: {path: /**}, to: {one: 90, two: 10, three: 0}}").await;
    let mut client = gate.client().await;
    for _ in 0..DRAWS {
        assert_eq!(client.get("/").await.status, 200);
    }
    let [one, two, three] = backends.map(|backend| backend.requests());
    assert_eq!((one + two, three), (DRAWS, 0));
    assert!(within_binomial_bounds(one, DRAWS, 0.9), "{one} of {DRAWS} for 90 %");
}

#[tokio::test]
async fn route_brings_its_own_filters() {
    let (gate, _backends) = routed(
        "
        - name: stamped
          match: {path: /stamped}
          to: one
          filters:
            - headers: {request: {set: {x-for: this-route}}, response: {set: {x-from: this-route}}}
            - headers: {response: {add: {x-from: inner}}}
        - {name: rest, match: {path: /**}, to: two}
        ",
    )
    .await;
    let stamped = gate.get("/stamped").await;
    assert_eq!(stamped.json()["headers"]["x-for"], "this-route");
    assert_eq!(stamped.header("x-from"), "this-route");
    let plain = gate.get("/plain").await;
    assert!(plain.json()["headers"]["x-for"].is_null());
    assert_eq!(plain.header("x-from"), "");
}

#[tokio::test]
async fn row_4_a_route_has_its_own_timeout() {
    let silent = Backend::answering("silent", async |_, _| std::future::pending().await).await;
    let gate = Meshgate::chain(
        "- routing: {routes: [{name: short, match: {path: /**}, to: silent, timeout: 100ms}]}",
    )
    .cluster("silent", &[&silent])
    .start()
    .await;
    assert_eq!(gate.get("/").await.status, 504);
    let entry = gate.access("/").await;
    assert_eq!((&entry["response_flags"], &entry["route"]), (&"UT".into(), &"short".into()));
    silent.wait_until_unused().await;
}

#[tokio::test]
async fn decision_shows_in_the_access_log() {
    let (gate, _backends) = routed(
        "
        - {name: canary, match: {path: /canary}, to: two}
        - {name: rest, match: {path: /**}, to: one}
        ",
    )
    .await;
    gate.get("/canary").await;
    gate.get("/else").await;
    let canary = gate.access("/canary").await;
    assert_eq!((&canary["route"], &canary["cluster"]), (&"canary".into(), &"two".into()));
    let rest = gate.access("/else").await;
    assert_eq!((&rest["route"], &rest["cluster"]), (&"rest".into(), &"one".into()));
}

#[tokio::test]
async fn no_match_falls_to_the_listeners_default_cluster() {
    let (one, two) = (Backend::echo("one").await, Backend::echo("two").await);
    let gate = Meshgate::chain("- routing: {routes: [{name: two, match: {path: /two}, to: two}]}")
        .cluster("one", &[&one])
        .cluster("two", &[&two])
        .start()
        .await;
    assert_eq!(gate.get("/two").await.header("x-backend"), "two");
    assert_eq!(gate.get("/else").await.header("x-backend"), "one");
}

#[tokio::test]
async fn earlier_filter_decides_what_routing_sees() {
    let (one, two) = (Backend::echo("one").await, Backend::echo("two").await);
    let gate = Meshgate::chain(
        "
        - headers: {request: {set: {x-canary: \"true\"}}}
        - routing: {routes: [{name: canary, match: {headers: {x-canary: \"true\"}}, to: two}]}
        ",
    )
    .cluster("one", &[&one])
    .cluster("two", &[&two])
    .start()
    .await;
    assert_eq!(gate.get("/").await.header("x-backend"), "two");
}

#[tokio::test]
async fn routed_bodies_arrive_whole() {
    let sink = Backend::answering("sink", async |_, request| {
        use http_body_util::BodyExt;
        let length = request.into_body().collect().await.map_err(std::io::Error::other)?.to_bytes().len();
        Ok(Response::new(meshgate_tests::full(length.to_string())))
    })
    .await;
    let gate = Meshgate::chain("- routing: {routes: [{name: uploads, match: {method: POST}, to: sink}]}")
        .without_default_cluster()
        .cluster("sink", &[&sink])
        .start()
        .await;
    assert_eq!(gate.call(Ask::post("/", vec![b'x'; 3_000_000])).await.text(), "3000000");
}

#[tokio::test]
async fn redirects_send_clients_elsewhere() {
    let (gate, _backends) = routed(
        "
        - name: secure
          match: {path: /secure/**}
          redirect: {scheme: https, port: 8443, code: 308}
          filters: [{headers: {response: {set: {x-route: secure}}}}]
        - {name: moved, match: {path: /moved/**}, redirect: {host: www.example}}
        - {name: rest, redirect: {scheme: https}}
        ",
    )
    .await;
    for (ask, status, location) in [
        (Ask::get("/secure/a?b=c"), 308, "https://shop.example:8443/secure/a?b=c"),
        (Ask::post("/secure/a", "body"), 308, "https://shop.example:8443/secure/a"),
        (Ask::get("/moved/a"), 301, "http://www.example/moved/a"),
        (Ask::get("//evil.example/%2e"), 301, ""),
    ] {
        let reply = gate.call(ask.header("host", "shop.example:8080")).await;
        assert_eq!(reply.status, status, "{location}");
        match location {
            // However the path is made canonical, the host is the request's own.
            "" => {
                assert!(reply.header("location").starts_with("https://shop.example/"), "{:?}", reply.headers)
            }
            _ => assert_eq!(reply.header("location"), location),
        }
    }
    let mut http2 = Client::http2(gate.address()).await.authority("shop.example");
    let reply = http2.call(Ask::new(Method::HEAD, "/secure/", empty())).await;
    assert_eq!((reply.status.as_u16(), reply.header("x-route")), (308, "secure"));
    assert_eq!(gate.access("/moved/a").await["route"], "moved");
}

#[tokio::test]
async fn routes_that_lead_nowhere_or_twice_are_refused() {
    for (route, reason) in [
        ("{name: a}", "leads nowhere"),
        ("{name: a, to: one, redirect: {scheme: https}}", "not both"),
        ("{name: a, redirect: {}}", "where it came from"),
        ("{name: a, redirect: {scheme: https}, timeout: 1s}", "take its time"),
        ("{name: a, redirect: {scheme: ftp}}", "ftp"),
        ("{name: a, redirect: {scheme: https, code: 200}}", "200"),
        ("{name: a, redirect: {host: \"a:80\"}}", "leave it out"),
    ] {
        let backend = Backend::echo("one").await;
        let chain = format!("- routing:\n    routes:\n      - {route}\n");
        let setup = Meshgate::chain(&chain).cluster("one", &[&backend]);
        let finished = setup.check().await;
        assert_eq!(finished.code, Some(2), "{route}: {finished:?}");
        assert!(finished.stderr.contains(reason), "{route}: {finished:?}");
    }
}

/// As [`answerer`], for a host.
async fn answerer_of(gate: &Meshgate, host: &str, path: &str) -> String {
    answerer(gate, Ask::get(path).header("host", host)).await
}

#[tokio::test]
async fn row_25_virtual_hosts_have_routes_of_their_own() {
    let (gate, _backends) = routed_with(
        "
        virtual_hosts:
          - hosts: [shop.example, \"*.shop.example:8443\"]
            routes: [{name: shop, match: {path: /a/**}, to: one}]
          - hosts: [\"*.example\"]
            routes: [{name: any, to: two}]
        routes: [{name: rest, to: three}]
        ",
    )
    .await;
    for (host, path, expected) in [
        ("shop.example", "/a", "one"),
        ("SHOP.example:1234", "/a/b", "one"),
        ("shop.example", "/b", "404"),
        ("eu.shop.example:8443", "/a", "one"),
        ("eu.shop.example", "/a", "two"),
        ("blog.example", "/a", "two"),
        ("example", "/a", "three"),
        ("else", "/a", "three"),
    ] {
        assert_eq!(answerer_of(&gate, host, path).await, expected, "{host}{path}");
        let mut http2 = Client::http2(gate.address()).await.authority(host);
        let reply = http2.get(path).await;
        assert_eq!(reply.header("x-backend"), if expected == "404" { "" } else { expected }, "{host}{path}");
    }
    assert_eq!(gate.access("/b").await["response_flags"], "NR");
}

#[tokio::test]
async fn row_1_rules_for_texts_and_methods() {
    let (gate, _backends) = routed(
        "
        - name: one
          match: {headers: {x-a: {prefix: b}, x-c: {present: false}}, method: [GET, HEAD]}
          to: one
        - {name: two, match: {path: {regex: \"/v[0-9]+/.*\"}, query: {q: {contains: needle}}}, to: two}
        - {name: three, match: {headers: {user-agent: {suffix: bot}}}, to: three}
        ",
    )
    .await;
    for (ask, expected) in [
        (Ask::get("/").header("x-a", "bcd"), "one"),
        (Ask::get("/").header("x-a", "cb"), "404"),
        (Ask::get("/").header("x-a", "b").header("x-c", ""), "404"),
        (Ask::post("/", "").header("x-a", "b"), "404"),
        (Ask::get("/v12/x?q=hayneedlehay"), "two"),
        (Ask::get("/v12/x?q=hay"), "404"),
        (Ask::get("/x/v12/x?q=needle"), "404"),
        (Ask::get("/").header("user-agent", "a bot"), "three"),
        (Ask::get("/").header("user-agent", "a bot 2"), "404"),
    ] {
        assert_eq!(answerer(&gate, ask).await, expected);
    }
}

#[tokio::test]
async fn row_1_the_most_specific_route_can_go_first() {
    let (gate, _backends) = routed_with(
        "
        order: specific
        routes:
          - {name: rest, to: one}
          - {name: section, match: {path: /a/**}, to: two}
          - {name: page, match: [{path: /a/b}, {path: /a/c, method: GET, headers: {x: \"1\"}}], to: three}
          - {name: posts, match: {path: /a/**, method: POST}, to: one}
        ",
    )
    .await;
    for (ask, expected) in [
        (Ask::get("/"), "one"),
        (Ask::get("/a/x"), "two"),
        (Ask::get("/a/b"), "three"),
        (Ask::get("/a/c"), "two"),
        (Ask::get("/a/c").header("x", "1"), "three"),
        (Ask::post("/a/x", ""), "one"),
        (Ask::post("/a/b", ""), "three"),
    ] {
        assert_eq!(answerer(&gate, ask).await, expected);
    }
}

#[tokio::test]
async fn row_1_clients_are_routed_by_their_certificate() {
    let (servers, clients) = (Authority::new(), Authority::new());
    let (one, two) = (Backend::echo("one").await, Backend::echo("two").await);
    let gate = Meshgate::chain(
        "
        - routing:
            routes:
              - {name: shop, match: {identity: {prefix: \"spiffe://example.org/ns/shop/\"}}, to: one}
              - {name: subject, match: {properties: {connection/tls_version: TLSv1.3}, path: /tls}, to: one}
              - {name: rest, to: two}
        ",
    )
    .listener(
        "tls: {certificates: [{certificate: web.pem, key: web.key}], client_certificates: {ca: ca.pem, mode: optional}}",
    )
    .pair("web", &servers.issue(&Says::name("a.example")))
    .file("ca.pem", clients.certificate())
    .cluster("one", &[&one])
    .cluster("two", &[&two])
    .start()
    .await;
    for (uri, expected) in [
        (Some("spiffe://example.org/ns/shop/sa/web"), "one"),
        (Some("spiffe://example.org/ns/blog/sa/web"), "two"),
        (None, "two"),
    ] {
        let client = match uri {
            Some(uri) => TlsClient::with_certificate("a.example", &servers, &clients.issue(&Says::uri(uri))),
            None => TlsClient::new("a.example", &servers),
        };
        let mut client = client.http1(gate.address()).await;
        assert_eq!(client.get("/").await.header("x-backend"), expected, "{uri:?}");
        assert_eq!(client.get("/tls").await.header("x-backend"), "one", "{uri:?}");
    }
}
