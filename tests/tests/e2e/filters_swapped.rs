//! Each standard filter comes, changes its configuration, changes its module, and goes, under load: no request fails.

use std::fs;

use meshgate_tests::{Ask, Backend, Load, Meshgate, Reply, filter, repository, with_custom_section};

const CONNECTIONS: usize = 16;

/// A standard filter with two configurations, both of which let a request with this field pass.
struct Swapped {
    name: &'static str,
    field: (&'static str, &'static str),
    configurations: [&'static str; 2],
}

const NONE: (&str, &str) = ("x-nothing", "at all");

const SWAPPED: &[Swapped] = &[
    Swapped {
        name: "admission",
        field: NONE,
        configurations: ["{name: a, min: 100}", "{name: b, min: 100, tolerance: 3}"],
    },
    Swapped {
        name: "api-key",
        field: ("x-api-key", "secret"),
        configurations: [
            "{forward: true, keys: {ann: [2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b]}}",
            "{forward: true, keys: {bob: [2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b]}, client_header: x-client}",
        ],
    },
    Swapped {
        name: "authz",
        field: NONE,
        configurations: ["{allow: {all: {to: {methods: [GET]}}}}", "{deny: {all: {to: {paths: [/no]}}}}"],
    },
    Swapped {
        name: "basic",
        field: ("authorization", "Basic YW5uOnNlY3JldA=="),
        configurations: [
            "{forward: true, users: {ann: \"{SHA256}K7gNU3sdo+OL0wNhqoVWhr3g6s1xYv72ol/pe/Unols=\"}}",
            "{forward: true, realm: other, users: {ann: \"{SHA256}K7gNU3sdo+OL0wNhqoVWhr3g6s1xYv72ol/pe/Unols=\"}}",
        ],
    },
    Swapped { name: "compress", field: NONE, configurations: ["{}", "{level: 1, min_size: 10}"] },
    Swapped {
        name: "cors",
        field: NONE,
        configurations: ["{origins: [\"https://a.example\"]}", "{origins: [\"*\"], max_age: 1m}"],
    },
    Swapped {
        name: "ext-authz",
        field: NONE,
        configurations: ["{http: {cluster: one}}", "{http: {cluster: two, path: /check}}"],
    },
    Swapped {
        name: "fault",
        field: NONE,
        configurations: [
            "{delay: {percent: 0, duration: 1s}}",
            "{match: {path: /other}, abort: {percent: 100, status: 503}}",
        ],
    },
    Swapped {
        name: "global-rate-limit",
        // The cluster is no service of limits: without a decision, everything passes.
        field: NONE,
        configurations: [
            "{cluster: one, domain: a, descriptors: [{entries: [{from: path}]}]}",
            "{cluster: two, domain: b, shadow: true, descriptors: [{entries: [{from: method}, {from: client_address}]}]}",
        ],
    },
    Swapped {
        name: "headers",
        field: NONE,
        configurations: ["{response: {set: {x-by: one}}}", "{request: {set: {x-by: two}}}"],
    },
    Swapped {
        name: "jwt",
        field: (
            "authorization",
            concat!("Bearer ", include_str!("../../../examples/jwt-authorization/ann.jwt")),
        ),
        configurations: [
            "{providers: {a: {issuer: https://idp.example, forward: true, require_expiry: false, keys: {inline: {keys: [{kty: EC, crv: P-256, kid: example, x: \"tnZLu3VmfdDfOUblSUXx-FGOqvkyTWBrHwwocf8A_aA\", y: \"uQDmp7lxR-6ewyR_BCW2rGiw7Z6Z_Nn0wYqvungc1YI\"}]}}}}}",
            "{providers: {b: {issuer: https://idp.example, forward: true, require_expiry: false, keys: {inline: {keys: [{kty: EC, crv: P-256, kid: example, x: \"tnZLu3VmfdDfOUblSUXx-FGOqvkyTWBrHwwocf8A_aA\", y: \"uQDmp7lxR-6ewyR_BCW2rGiw7Z6Z_Nn0wYqvungc1YI\"}]}}}}, cache: 0}",
        ],
    },
    Swapped {
        name: "rate-limit",
        field: NONE,
        configurations: [
            "{rules: [{name: a, limit: 1000000/s}]}",
            "{headers: envoy, rules: [{name: b, limit: 1000000/s, key: [path]}]}",
        ],
    },
    Swapped {
        name: "retry",
        field: NONE,
        configurations: ["{attempts: 2, if: [5xx]}", "{attempts: 3, per_try_timeout: 10s, if: [reset]}"],
    },
    Swapped {
        name: "routing",
        field: NONE,
        configurations: [
            "{routes: [{name: all, match: {path: /**}, to: one}]}",
            "{routes: [{name: half, match: {path: /**}, to: {one: 50, two: 50}, timeout: 10s}]}",
        ],
    },
    Swapped { name: "telemetry", field: NONE, configurations: ["{}", "{metrics: {preset: istio}}"] },
];

#[test]
fn all_of_them_are_swapped() {
    let folders = fs::read_dir(repository().join("filters")).unwrap();
    let mut names: Vec<_> =
        folders.map(|folder| folder.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, SWAPPED.iter().map(|swapped| swapped.name).collect::<Vec<_>>());
}

fn ask((name, value): &(&str, &str)) -> Ask {
    Ask::get("/some/path").header(name, value.trim_end())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_filter_is_added_changed_updated_and_removed_without_a_failed_request() {
    let (one, two) = (Backend::echo("one").await, Backend::echo("two").await);
    for Swapped { name, field, configurations: [first, second] } in SWAPPED {
        let module = filter(name);
        let setup = Meshgate::chain("").cluster("one", &[&one]).cluster("two", &[&two]).workers(2);
        let gate = setup.filter("swapped", &module, "").start().await;
        let judge = |reply: &Reply| match reply.status.as_u16() {
            200 => Ok(()),
            status => Err(format!("{status}: {}", reply.text())),
        };
        let load = Load::start(gate.address(), CONNECTIONS, || ask(field), judge);
        // What changes besides shows which configuration answers, and that there is a change at all.
        let chain = |what: &str, rest: &str| {
            let shown = format!("- headers: {{response: {{set: {{x-step: {what}}}}}}}\n{rest}");
            gate.setup().clone().with_chain(&shown).yaml()
        };
        for (what, rest) in [
            ("added", Some(format!("- swapped: {first}"))),
            ("changed", Some(format!("- swapped: {second}"))),
            ("updated", None),
            ("doubled", Some(format!("- swapped: {second}\n- {name}: {first}"))),
            ("removed", Some(String::new())),
        ] {
            load.wait_for_more(CONNECTIONS as u64 + 1).await;
            let before = gate.reload().await;
            match &rest {
                Some(rest) => gate.replace("meshgate.yaml", chain(what, rest)),
                None => gate.edit("swapped.wasm", with_custom_section(&module, "padding", b"another build")),
            }
            gate.reloaded(&before).await;
            assert!(gate.reload().await.errors.is_none(), "{name} is {what}");
            if rest.is_some() {
                assert_eq!(gate.call(ask(field)).await.header("x-step"), what, "{name}");
            }
        }
        load.wait_for_more(CONNECTIONS as u64 + 1).await;
        let requests = load.stop().await.all_good();
        println!("{name}: {requests} requests");
        gate.stop().await;
    }
}
