//! The guest `suite`, of the SDK's own tests: what its exchanges and its plugin do with the standard ABI they do in Envoy, too.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Response;
use meshgate_tests::{Ask, Backend, Client, Envoy, GrpcCalls, Meshgate, full, guest, until};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::compare::{Scenario, compare};
use super::world::{REQUESTS, Request, World, letters, marked};

/// What the filter calls, and which backend that is.
const CLUSTERS: &[(&str, &str)] = &[
    ("fast", "called"),
    ("slow", "called"),
    ("keys", "called"),
    ("never", "silent"),
    ("nobody", "gone"),
    ("broken", "broken"),
    ("error", "failing"),
    ("echo", "echo"),
    ("policy", "talk"),
    ("talk", "talk"),
];

fn configured(name: &'static str, configuration: Value) -> Scenario {
    Scenario::new(name, vec![("suite", configuration)]).clusters(CLUSTERS)
}

fn suite(name: &'static str, requests: &'static [Request]) -> Scenario {
    configured(name, json!({})).requests(requests)
}

/// A request for what the filter is to do; its calls may take so many milliseconds.
fn doing(ask: Ask, what: &str, patience: &str) -> Ask {
    marked(ask).header("x-do", what).header("x-patience", patience)
}

/// With time enough for a machine that has other things to do as well.
fn asked(what: &str) -> Ask {
    doing(Ask::get("/"), what, "5000")
}

/// Requests for nothing else, named after what they ask for.
macro_rules! requests {
    ($($what:literal),*) => {
        &[$(Request { label: $what, ask: || asked($what) }),*]
    };
}

#[tokio::test]
async fn heads_are_read_and_changed() {
    const READS: &[Request] = &[
        Request {
            label: "read",
            ask: || asked("read").header("cookie", "a=1; b=2").header("authorization", "Bearer of-ann"),
        },
        Request {
            label: "credentials",
            ask: || {
                let ask = doing(Ask::get("/a?x=1&key=sesame"), "credentials", "5000");
                let ask = ask.header("authorization", "bearer of-ann").header("x-key", "one");
                ask.header("x-key", "two").header("cookie", "a=1; session=s; b=2")
            },
        },
    ];
    compare([suite("suite", REQUESTS), suite("suite reads heads", READS)]).await;
}

#[tokio::test]
async fn the_filter_answers() {
    const ANSWERS: &[Request] = requests!["answer", "redirect", "fail", "replace"];
    compare([suite("suite answers", ANSWERS)]).await;
}

/// What comes afterwards shows whether the VM lives on.
#[tokio::test]
async fn the_filter_breaks_exchanges_off() {
    const EARLY: &[Request] = requests!["break", "nothing"];
    const LATE: &[Request] = requests!["break-late", "nothing"];
    compare([suite("suite breaks off", EARLY), suite("suite breaks off late", LATE)]).await;
}

#[tokio::test]
async fn calls() {
    const CALLS: &[Request] = requests!["calls", "sequence", "response", "span", "sleep"];
    const FAILED: &[Request] = &[
        Request { label: "timeout", ask: || doing(Ask::get("/"), "timeout", "300") },
        Request { label: "refused", ask: || asked("refused") },
        Request { label: "reset", ask: || asked("reset") },
        Request { label: "unknown", ask: || asked("unknown") },
        Request { label: "status", ask: || asked("status") },
    ];
    compare([
        suite("suite calls", CALLS),
        // Each says why its call came to nothing.
        suite("suite calls in vain", FAILED).line("the call"),
        suite("suite gives a call up", requests!["bounded", "nothing"]),
    ])
    .await;
}

#[tokio::test]
async fn grpc() {
    const STREAMS: &[Request] = requests![
        "stream",
        "stream-lockstep",
        "stream-two",
        "stream-over",
        "stream-late",
        "stream-unknown",
        "stream-Refuse",
        "stream-Half"
    ];
    compare([
        suite("suite calls over gRPC", requests!["grpc", "grpc-ask"]),
        suite("suite talks over gRPC", STREAMS),
    ])
    .await;
}

#[tokio::test]
async fn bodies() {
    /// Two messages of gRPC.
    const MESSAGES: &str = "\0\0\0\0\u{3}one\0\0\0\0\u{3}two";
    const BODIES: &[Request] = &[
        Request { label: "in parts", ask: || marked(Ask::post("/parts", "hello")) },
        Request { label: "checked", ask: || marked(Ask::post("/checked", "hello")) },
        Request { label: "the first part", ask: || marked(Ask::post("/first", "hello")) },
        Request { label: "whole", ask: || marked(Ask::post("/whole", r#"{"a": [1, 2]}"#)) },
        Request {
            label: "whole before trailers",
            ask: || {
                let ask = marked(Ask::post("/whole", r#"{"a": [1, 2]}"#)).header("te", "trailers");
                ask.trailers(&[("x-last", "z")])
            },
        },
        Request { label: "too long", ask: || marked(Ask::post("/whole", "x".repeat(40))) },
        Request { label: "malformed", ask: || marked(Ask::post("/whole", "{")) },
        Request { label: "denied", ask: || marked(Ask::post("/denied", "so so")) },
        Request { label: "wrapped", ask: || marked(Ask::get("/wrapped")) },
        Request { label: "shouted", ask: || marked(Ask::post("/shout", "hello")) },
        Request { label: "messages", ask: || marked(Ask::post("/messages-sent", MESSAGES)) },
        Request {
            label: "messages in letters",
            ask: || marked(Ask::new(http::Method::POST, "/messages-sent", letters(MESSAGES))),
        },
        Request { label: "messages checked", ask: || marked(Ask::post("/messages-checked", MESSAGES)) },
    ];
    compare([suite("suite and bodies", BODIES)]).await;
}

#[tokio::test]
async fn shared_data_and_metrics() {
    compare([
        suite("suite shares", requests!["shared", "kept"]),
        suite("suite counts", requests!["counted"]),
        suite("suite measures", requests!["measure"]).metric("suite_level"),
    ])
    .await;
}

#[tokio::test]
async fn what_only_meshgate_has_is_refused() {
    compare([suite("suite asks for what only Meshgate has", requests!["route", "attempts"])]).await;
}

/// Both proxies with the filter, in the same world; `None` without Envoy.
async fn both(configuration: Value) -> Option<(World, Meshgate, Envoy)> {
    if Envoy::installed().is_none() {
        println!("envoy is not installed: skipped");
        return None;
    }
    let world = World::start().await;
    let scenario = configured("suite", configuration);
    let (gate, envoy) = (scenario.meshgate(&world).await, scenario.envoy(&world).await);
    Some((world, gate, envoy))
}

/// What the backends have received since the last time, of the parts whose names begin and end so.
fn received(world: &World, begin: &str, end: &str) -> Vec<String> {
    let parts = world.received().into_iter();
    parts.filter(|(part, _)| part.starts_with(begin) && part.ends_with(end)).map(|(_, value)| value).collect()
}

#[tokio::test]
async fn ticks_call_and_talk() {
    let (calling, talking) = (json!({"tick": "10ms"}), json!({"tick": "10ms", "follow": true}));
    for (configuration, least) in [(calling, 3), (talking, 1)] {
        let Some((world, gate, envoy)) = both(configuration).await else { return };
        for proxy in [gate.address(), envoy.address()] {
            until("ticks have been answered", || async {
                Client::http1(proxy).await.call(asked("fetched")).await;
                let said = received(&world, "one ", "header x-said");
                let fetched = said.first().and_then(|said| said.parse::<u32>().ok()).unwrap_or(0);
                (fetched >= least).then_some(())
            })
            .await;
        }
    }
}

#[tokio::test]
async fn queues_are_looked_into() {
    let Some((world, gate, envoy)) = both(json!({})).await else { return };
    let mut of_both = Vec::new();
    for proxy in [gate.address(), envoy.address()] {
        assert_eq!(Client::http1(proxy).await.call(asked("queue")).await.status, 200);
        let mut paths = Vec::new();
        until("every item is told of", || {
            paths.extend(received(&world, "called ", ": path"));
            std::future::ready((paths.len() >= 3).then_some(()))
        })
        .await;
        of_both.push(paths);
    }
    assert_eq!(of_both[0], of_both[1], "in Meshgate, and in Envoy");
}

/// They arrive in any order.
#[tokio::test]
async fn calls_at_once() {
    let Some((world, gate, envoy)) = both(json!({})).await else { return };
    for proxy in [gate.address(), envoy.address()] {
        assert_eq!(Client::http1(proxy).await.call(asked("join")).await.status, 200);
        let said = received(&world, "one ", "header x-said");
        assert_eq!(said, ["from the call, from the call, from the call"]);
    }
}

/// One exchange is woken in another one's callback, and makes calls.
#[tokio::test]
async fn exchanges_wake_one_another() {
    let Some((world, gate, envoy)) = both(json!({})).await else { return };
    for proxy in [gate.address(), envoy.address()] {
        let waiting = tokio::spawn(async move { Client::http1(proxy).await.call(asked("await-bell")).await });
        until("somebody hears the bell", || async {
            Client::http1(proxy).await.call(asked("ring")).await;
            waiting.is_finished().then_some(())
        })
        .await;
        assert_eq!(waiting.await.unwrap().status, 200);
        let said = received(&world, "one ", "header x-said");
        assert!(said.contains(&"from the call, from the call".to_owned()), "{said:?}");
    }
}

/// Labels are labels here, and elsewhere a part of the name.
#[tokio::test]
async fn metrics_have_labels() {
    let Some((_world, gate, envoy)) = both(json!({})).await else { return };
    for proxy in [gate.address(), envoy.address()] {
        assert_eq!(Client::http1(proxy).await.get("/").await.status, 200);
    }
    let labels = [("method", "GET"), ("code", "200")];
    until("Meshgate has counted it", || async {
        let count = gate.metrics().await.sum("suite_exchanges_total", &labels);
        (count >= 1.0).then_some(())
    })
    .await;
    until("Envoy has counted it", || async {
        let metrics = envoy.admin("/stats").await.text();
        metrics.contains("method=.=GET;.;code=.=200;.;_suite_exchanges_total: 1").then_some(())
    })
    .await;
}

/// What the filter gives up after 50 milliseconds, in an exchange that goes on until it is let.
struct GivenUp {
    one: Backend,
    slow: Backend,
    held: Arc<Semaphore>,
    never: Backend,
    grpc: GrpcCalls,
}

impl GivenUp {
    async fn start() -> GivenUp {
        let held = Arc::new(Semaphore::new(0));
        let answers = Arc::clone(&held);
        let slow = Backend::answering("slow", move |_, _| {
            let held = Arc::clone(&answers);
            async move {
                held.acquire().await.map_err(std::io::Error::other)?.forget();
                Ok(Response::new(full("slow")))
            }
        });
        GivenUp {
            one: Backend::echo("one").await,
            slow: slow.await,
            held,
            never: Backend::answering("never", async |_, _| std::future::pending().await).await,
            grpc: GrpcCalls::start("grpc").await,
        }
    }

    async fn meshgate(&self) -> Meshgate {
        let setup = Meshgate::chain("- suite: {}").guest("suite", "").cluster("one", &[&self.one]);
        let setup = setup.cluster("slow", &[&self.slow]).cluster("never", &[&self.never]);
        let setup = setup.cluster_of("policy", &[self.grpc.address()], "protocol: http2");
        setup.cluster_of("talk", &[self.grpc.address()], "protocol: http2").start().await
    }

    async fn envoy(&self) -> Envoy {
        let setup = Envoy::setup().filter("suite", guest("suite"), "{}").cluster("one", self.one.address());
        let setup = setup.cluster("slow", self.slow.address()).cluster("never", self.never.address());
        let setup = setup.http2_cluster("policy", self.grpc.address());
        setup.http2_cluster("talk", self.grpc.address()).start().await
    }

    /// How long it takes until the called server has heard that nobody waits any more.
    async fn lasted(&mut self, proxy: SocketAddr, what: &'static str, patience: Duration) -> Duration {
        let (begun, before) = (Instant::now(), self.never.requests());
        let ask = doing(Ask::get("/"), what, &patience.as_millis().to_string());
        let exchange = tokio::spawn(async move { Client::http1(proxy).await.call(ask).await });
        if what == "give-up-call" {
            self.never.wait_for_requests(before + 1).await;
            self.never.wait_until_unused().await;
        } else {
            self.grpc.next().await.given_up().await;
        }
        let lasted = begun.elapsed();
        self.held.add_permits(1);
        assert_eq!(exchange.await.unwrap().status, 200, "{what}");
        lasted
    }
}

/// Meshgate cancels what nobody awaits any more. Elsewhere a call runs on until its timeout; only a stream is cancelled.
#[tokio::test]
async fn what_nobody_awaits_any_more() {
    const PATIENCE: Duration = Duration::from_secs(3);
    const SOON: Duration = Duration::from_secs(2);
    if Envoy::installed().is_none() {
        println!("envoy is not installed: skipped");
        return;
    }
    let mut given_up = GivenUp::start().await;
    let (gate, envoy) = (given_up.meshgate().await, given_up.envoy().await);
    for (what, is_stream) in [("give-up-call", false), ("give-up-grpc", false), ("give-up-stream", true)] {
        let in_meshgate = given_up.lasted(gate.address(), what, PATIENCE).await;
        assert!(in_meshgate < SOON, "{what}: {in_meshgate:?}");
        let in_envoy = given_up.lasted(envoy.address(), what, PATIENCE).await;
        assert_eq!(in_envoy < SOON, is_stream, "{what}: {in_envoy:?}");
    }
}
