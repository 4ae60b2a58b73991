//! The standard filter `authz`: rows 19 and 20 of what others do, from the outside.

use meshgate_tests::{
    Ask, Authority, Backend, Client, Ended, Envoy, Load, Meshgate, Says, Setup, Socket, SocketBackend,
    TlsClient, Wire, filter, until, with_custom_section,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const NAME: &str = "a.example.com";
const FRONTEND: &str = "spiffe://cluster.local/ns/production/sa/ingress-gateway";
const OTHER: &str = "spiffe://cluster.local/ns/test/sa/probe";

/// A listener that takes clients with and without certificates.
struct World {
    servers: Authority,
    clients: Authority,
}

impl World {
    fn new() -> World {
        World { servers: Authority::new(), clients: Authority::new() }
    }

    fn gate(&self, chain: &str) -> Setup {
        let tls = "tls: {certificates: [{certificate: web.pem, key: web.key}], \
                   client_certificates: {ca: ca.pem, mode: optional}}";
        Meshgate::chain(chain)
            .listener(tls)
            .pair("web", &self.servers.issue(&Says::name(NAME)))
            .file("ca.pem", self.clients.certificate())
    }

    /// A client with this identity, or without any.
    fn client(&self, identity: Option<&str>) -> TlsClient {
        match identity {
            Some(uri) => {
                TlsClient::with_certificate(NAME, &self.servers, &self.clients.issue(&Says::uri(uri)))
            }
            None => TlsClient::new(NAME, &self.servers),
        }
    }
}

#[tokio::test]
async fn row_19_identity_method_and_path_must_all_fit() {
    let world = World::new();
    let backend = Backend::echo("one").await;
    let chain = "
        - authz:
            deny:
              no-admin: {to: {paths: [/admin, /admin/*]}}
            allow:
              frontend-ingress:
                from: {identities: [cluster.local/ns/production/sa/ingress-gateway]}
                to: {methods: [GET, POST]}
              health: {to: {paths: [/healthz]}}
        ";
    let gate = world.gate(chain).cluster("one", &[&backend]).start().await;
    let mut served = 0;
    for (identity, method, path, expected) in [
        (Some(FRONTEND), "GET", "/", 200),
        (Some(FRONTEND), "POST", "/orders", 200),
        (Some(FRONTEND), "DELETE", "/orders", 403),
        (Some(FRONTEND), "GET", "/admin", 403),
        (Some(FRONTEND), "GET", "/admin/x", 403),
        (Some(OTHER), "GET", "/", 403),
        (Some(OTHER), "GET", "/healthz", 200),
        (Some(OTHER), "GET", "/admin/healthz", 403),
        (None, "GET", "/", 403),
        (None, "POST", "/", 403),
        (None, "GET", "/healthz", 200),
    ] {
        for client in [
            world.client(identity).http1(gate.address()).await,
            world.client(identity).http2(gate.address()).await,
        ] {
            let mut client = client.authority(NAME);
            let ask = Ask::new(method.parse().unwrap(), path, meshgate_tests::empty());
            let reply = client.call(ask).await;
            assert_eq!(reply.status, expected, "{identity:?} {method} {path}");
            if expected == 403 {
                assert_eq!(reply.text(), "access denied\n");
            } else {
                served += 1;
            }
        }
    }
    assert_eq!(backend.requests(), served);
    let metrics = gate.metrics().await;
    let count = |decision, rule| {
        metrics.sum("meshgate_authz_decisions_total", &[("decision", decision), ("rule", rule)])
    };
    assert_eq!(count("allowed", "frontend-ingress"), 4.0);
    assert_eq!(count("allowed", "health"), 4.0);
    assert_eq!(count("denied", "no-admin"), 6.0);
    assert_eq!(count("denied", ""), 8.0);
    let refused = gate.access("/admin/x").await;
    assert_eq!(refused["response_code_details"], "authz_denied[no-admin]");
    assert_eq!(refused["response_flags"], "UAEX");
    assert!(gate.access("/healthz").await["response_flags"].is_null());
}

/// Requests and connections by what became of them: decision, rule, and how many.
async fn decided(gate: &Meshgate, expected: &[(&str, &str, u32)]) {
    let metrics = gate.metrics().await;
    for (decision, rule, times) in expected {
        let labels = [("decision", *decision), ("rule", *rule)];
        let counted = metrics.sum("meshgate_authz_decisions_total", &labels);
        assert_eq!(counted, f64::from(*times), "{decision} {rule:?}");
    }
}

#[tokio::test]
async fn row_19_on_tcp_who_may_not_come_in_is_disconnected() {
    let world = World::new();
    let backend = SocketBackend::start().await;
    // A condition of HTTP makes a rule that refuses wider, and one that lets in vanish.
    let chain = "
        - authz:
            deny:
              test: {from: {namespaces: [test]}, to: {paths: [/admin]}}
            allow:
              frontend: {from: {identities: [cluster.local/ns/production/sa/ingress-gateway]}}
              readers: {to: {methods: [GET]}}
        ";
    let gate =
        world.gate(chain).listener("protocol: tcp").cluster_of("one", &[backend.address()], "").start().await;
    let mut admitted = world.client(Some(FRONTEND)).connect(gate.address()).await;
    admitted.stream.write_all(b"hello").await.unwrap();
    let mut server = backend.accept().await;
    server.expect("hello").await;
    for identity in [Some(OTHER), None] {
        let mut refused = world.client(identity).connect(gate.address()).await;
        let mut heard = Vec::new();
        refused.stream.read_to_end(&mut heard).await.unwrap();
        assert!(heard.is_empty(), "{identity:?}");
    }
    assert!(!backend.is_waited_for().await, "nobody was connected to for them");
    // Who is in stays in.
    server.write("welcome").await;
    let mut heard = [0; 7];
    admitted.stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"welcome");
    decided(&gate, &[("allowed", "frontend", 1), ("denied", "test", 1), ("denied", "", 1)]).await;
    let entries =
        until("both are in the log", || async { Some(gate.access_log()).filter(|all| all.len() == 2) }).await;
    for (entry, rule) in entries.iter().zip(["test", ""]) {
        assert_eq!(
            (&entry["response_flags"], &entry["fields"]["authz.rule"]),
            (&"LR,UAEX".into(), &rule.into())
        );
    }
}

#[tokio::test]
async fn row_19_on_tcp_by_addresses_ports_and_names() {
    let world = World::new();
    let backend = SocketBackend::start().await;
    let admits = async |setup: Setup, expected: bool| {
        let gate = setup.cluster_of("one", &[backend.address()], "").start().await;
        let mut client = Socket::connect(gate.address()).await;
        if expected {
            client.write("hello").await;
            backend.accept().await.expect("hello").await;
        } else {
            assert_eq!(client.end().await, Ended::in_order(""));
        }
    };
    for (rules, expected) in [
        ("{}", true),
        ("{default: deny}", false),
        ("{allow: {near: {from: {addresses: [127.0.0.0/8, ::1]}}}}", true),
        ("{allow: {far: {from: {addresses: [10.0.0.0/8]}}}}", false),
        ("{deny: {far: {from: {not_addresses: [10.0.0.0/8]}}}}", false),
        ("{allow: {elsewhere: {to: {ports: [1]}}}}", false),
        ("{deny: {elsewhere: {to: {not_ports: [1]}}}}", false),
        ("{deny: {elsewhere: {to: {ports: [1]}}}}", true),
        ("{dry_run: true, default: deny}", true),
    ] {
        admits(Meshgate::chain(&format!("- authz: {rules}")).listener("protocol: tcp"), expected).await;
    }

    // The name is known although the bytes are passed on as they are.
    let gate = Meshgate::chain("- authz: {allow: {ours: {when: {server_names: [\"*.example.com\"]}}}}")
        .listener("protocol: tcp")
        .listener("tls_passthrough: {}")
        .cluster_of("one", &[backend.address()], "")
        .start()
        .await;
    for (name, expected) in [(NAME, true), ("example.org", false)] {
        let client = TlsClient::new(name, &world.servers);
        let shaken = client.try_connect(gate.address());
        if expected {
            let (server, _) = tokio::join!(
                async {
                    let mut server = backend.accept().await;
                    // A handshake begins with this byte.
                    server.read(1).await
                },
                shaken
            );
            assert_eq!(server, [0x16]);
        } else {
            assert!(shaken.await.is_err());
        }
    }
    decided(&gate, &[("allowed", "ours", 1), ("denied", "", 1)]).await;
}

/// The same module as a network filter of Envoy.
#[tokio::test]
async fn row_19_on_tcp_envoy_decides_alike() {
    if Envoy::installed().is_none() {
        println!("Envoy is not installed: nothing to compare with");
        return;
    }
    for (rules, expected) in [
        (r#"{"allow": {"near": {"from": {"addresses": ["127.0.0.0/8"]}}}}"#, true),
        (r#"{"allow": {"far": {"from": {"addresses": ["10.0.0.0/8"]}}}}"#, false),
        (r#"{"allow": {"readers": {"to": {"methods": ["GET"]}}}}"#, false),
        (r#"{"deny": {"near": {"from": {"addresses": ["127.0.0.0/8"]}, "to": {"paths": ["/x"]}}}}"#, false),
    ] {
        let backend = SocketBackend::start().await;
        let chain = format!("- authz: {rules}");
        let gate = Meshgate::chain(&chain).listener("protocol: tcp");
        let gate = gate.cluster_of("one", &[backend.address()], "").start().await;
        let envoy = Envoy::setup()
            .tcp()
            .filter("authz", filter("authz"), rules)
            .cluster("one", backend.address())
            .start()
            .await;
        for address in [gate.address(), envoy.address()] {
            let mut client = Socket::connect(address).await;
            if expected {
                client.write("hello").await;
                backend.accept().await.expect("hello").await;
            } else {
                assert!(client.end().await.bytes.is_empty(), "{rules}");
            }
        }
        assert!(!backend.is_waited_for().await, "{rules}");
    }
}

#[tokio::test]
async fn one_chain_serves_http_and_tcp() {
    let (backend, sockets) = (Backend::echo("one").await, SocketBackend::start().await);
    let yaml = format!(
        "workers: 1
admin: {{address: 127.0.0.1:0}}
listeners:
  - {{name: web, address: 127.0.0.1:0, chain: guard, cluster: one}}
  - {{name: database, address: 127.0.0.1:0, protocol: tcp, chain: guard, cluster: two}}
chains:
  guard:
    - authz: {{deny: {{admin: {{to: {{paths: [/admin]}}}}}}, audit: {{all: {{}}}}}}
    - authz: {{allow: {{near: {{from: {{addresses: [127.0.0.0/8, ::1]}}}}}}}}
clusters:
  - {{name: one, endpoints: [\"{}\"]}}
  - {{name: two, endpoints: [\"{}\"]}}
",
        backend.address(),
        sockets.address()
    );
    let gate = Meshgate::with(&yaml).start().await;
    let before = gate.reload().await;
    for _ in 0..3 {
        assert_eq!(Client::http1(gate.listener("web")).await.get("/admin").await.status, 403);
        let mut client = Socket::connect(gate.listener("database")).await;
        assert_eq!(client.end().await, Ended::in_order(""), "no path could be other than that one");
    }
    gate.replace("meshgate.yaml", yaml.replace("paths: [/admin]", "ports: [1]"));
    gate.reloaded(&before).await;
    for _ in 0..3 {
        assert_eq!(Client::http1(gate.listener("web")).await.get("/admin").await.status, 200);
        let mut client = Socket::connect(gate.listener("database")).await;
        client.write("hello").await;
        sockets.accept().await.expect("hello").await;
    }
    decided(&gate, &[("audited", "all", 12), ("allowed", "near", 6)]).await;
}

#[tokio::test]
async fn trap_1_two_dashes_are_not_two_rules() {
    let chain = "
        - authz:
            allow:
              - from: {identities: [cluster.local/ns/production/sa/ingress-gateway]}
              - to: {methods: [GET, POST]}
        ";
    let finished = Meshgate::chain(chain).check().await;
    assert_eq!(finished.code, Some(2));
    assert!(finished.stderr.contains("`allow` must be a map, not a list"), "{finished:?}");
}

#[tokio::test]
async fn mistakes_are_refused_with_line_and_column() {
    let setup = Meshgate::chain(
        "
        - authz:
            deny:
              one: {form: {addresses: [10.0.0.0/8]}}
              two: {to: {ports: [http]}}
        - authz: {allow: {three: {to: {paths: [admin]}}}}
        ",
    );
    let finished = setup.clone().check().await;
    let said = finished.stdout + &finished.stderr;
    assert!(said.contains(&format!("{}17: unknown key `form`", setup.place("one: "))), "{said}");
    assert!(said.contains(&setup.place("two: ")), "{said}");
    let setup = setup.with_chain("- authz: {allow: {three: {to: {paths: [admin]}}}}");
    let finished = setup.clone().check().await;
    let said = finished.stdout + &finished.stderr;
    assert!(said.contains(&setup.place("three: ")), "{said}");
    assert!(said.contains(r#"allow/three/to/paths/0: "admin": a path begins with /"#), "{said}");
}

#[tokio::test]
async fn row_20_by_default_everything_or_nothing() {
    let backend = Backend::echo("one").await;
    for (chain, expected) in
        [("- authz: {}", 200), ("- authz: {default: deny}", 403), ("- authz: {allow: {all: {}}}", 200)]
    {
        let gate = Meshgate::chain(chain).cluster("one", &[&backend]).start().await;
        assert_eq!(gate.get("/").await.status, expected, "{chain}");
    }
}

#[tokio::test]
async fn row_19_a_changed_policy_meets_open_connections() {
    let backend = Backend::echo("one").await;
    let open = Meshgate::chain("- authz: {}").cluster("one", &[&backend]);
    let closed = open.clone().with_chain("- authz: {deny: {orders: {to: {paths: [/orders]}}}}").yaml();
    let gate = open.clone().start().await;
    let mut clients = [gate.client().await, Client::http2(gate.address()).await];
    for (yaml, expected) in [(closed.clone(), 403), (open.yaml(), 200), (closed, 403)] {
        let before = gate.reload().await;
        gate.replace("meshgate.yaml", yaml);
        gate.reloaded(&before).await;
        for client in &mut clients {
            assert_eq!(client.get("/orders").await.status, expected);
            assert_eq!(client.get("/").await.status, 200);
        }
    }
    assert!(clients.iter().all(|client| !client.is_closed()));
}

#[tokio::test]
async fn no_way_of_writing_a_path_gets_around_a_rule() {
    let backend = Backend::echo("one").await;
    let gate =
        Meshgate::chain("- authz: {deny: {admin: {to: {hosts: [shop.example], paths: [/admin, /admin/*]}}}}")
            .cluster("one", &[&backend])
            .start()
            .await;
    for (target, authority) in [
        ("/admin", "shop.example"),
        ("//admin", "shop.example"),
        ("/admin//x", "SHOP.example:80"),
        ("/%61dmin", "shop.example."),
        ("/x/../admin", "shop.example"),
        ("/x/%2e%2e/admin/", "shop.example:8080"),
        ("/./admin?x=/", "Shop.Example"),
        ("http://shop.example/admin", "shop.example"),
        ("/x%2f..%2fadmin", "shop.example"),
        ("/x\\..\\admin", "shop.example"),
    ] {
        let mut wire = Wire::connect(gate.address()).await;
        wire.write(format!("GET {target} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n\r\n")).await;
        let answer = wire.read_to_end().await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(
            answer.starts_with("HTTP/1.1 403 ") || answer.starts_with("HTTP/1.1 400 "),
            "{target}: {answer}"
        );
    }
    assert_eq!(backend.requests(), 0);
    assert_eq!(gate.get("/admin").await.status, 200, "another host");
}

#[tokio::test]
async fn grpc_clients_hear_of_it_in_their_own_way() {
    let gate = Meshgate::chain("- authz: {default: deny}").start().await;
    let ask = Ask::post("/shop.Orders/List", "\0\0\0\0\0").header("content-type", "application/grpc");
    let reply = Client::http2(gate.address()).await.call(ask).await;
    assert_eq!((reply.status.as_u16(), reply.header("grpc-status")), (200, "7"));
}

#[tokio::test]
async fn addresses_are_those_of_connections() {
    let backend = Backend::echo("one").await;
    let chain = "
        - authz:
            allow:
              local:
                from: {addresses: [127.0.0.0/8, ::1], not_addresses: [127.0.0.2]}
        ";
    let gate = Meshgate::chain(chain).cluster("one", &[&backend]).start().await;
    assert_eq!(gate.get("/").await.status, 200);
    let claimed = Ask::get("/").header("x-forwarded-for", "127.0.0.2");
    assert_eq!(gate.call(claimed).await.status, 200, "nobody is trusted to say where a request comes from");
    let elsewhere = chain.replace("127.0.0.0/8", "10.0.0.0/8");
    let gate = Meshgate::chain(&elsewhere).cluster("one", &[&backend]).start().await;
    assert_eq!(gate.get("/").await.status, 403);
}

#[tokio::test]
async fn row_39_what_would_be_refused_is_counted_and_logged() {
    let backend = Backend::echo("one").await;
    let gate = Meshgate::chain(
        "
        - authz:
            dry_run: true
            deny: {admin: {to: {paths: [/admin]}}}
            audit: {writes: {to: {not_methods: [GET]}}}
        ",
    )
    .cluster("one", &[&backend])
    .start()
    .await;
    assert_eq!(gate.get("/admin").await.status, 200);
    assert_eq!(gate.call(Ask::post("/admin", "x")).await.status, 200);
    assert_eq!(gate.get("/").await.status, 200);
    let metrics = gate.metrics().await;
    let count = |decision, rule| {
        metrics.sum("meshgate_authz_decisions_total", &[("decision", decision), ("rule", rule)])
    };
    assert_eq!(
        (count("would_deny", "admin"), count("audited", "writes"), count("allowed", "")),
        (2.0, 1.0, 3.0)
    );
    let logged = |words: &str| gate.log().all().iter().filter(|line| line.contains(words)).count();
    assert_eq!(
        logged("would_deny by rule \\\"admin\\\": GET") + logged("would_deny by rule \"admin\": GET"),
        1
    );
    assert_eq!(
        logged("audited by rule \\\"writes\\\": POST") + logged("audited by rule \"writes\": POST"),
        1
    );
}

#[tokio::test]
async fn the_module_is_swapped_under_load_without_a_failed_request() {
    let backend = Backend::echo("one").await;
    let module = filter("authz");
    let gate = Meshgate::chain("- guard: {allow: {get: {to: {methods: [GET]}}}}")
        .filter("guard", &module, "")
        .workers(2)
        .cluster("one", &[&backend])
        .start()
        .await;
    let load = Load::start(
        gate.address(),
        4,
        || Ask::get("/"),
        |reply| match reply.status.as_u16() {
            200 => Ok(()),
            other => Err(other.to_string()),
        },
    );
    for round in 0..3_u8 {
        load.wait_for_more(200).await;
        let before = gate.reload().await;
        gate.replace("guard.wasm", with_custom_section(&module, "round", &[round]));
        gate.reloaded(&before).await;
    }
    load.wait_for_more(200).await;
    assert!(load.stop().await.all_good() >= 800);
}
