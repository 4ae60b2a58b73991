//! Running one scenario in both proxies, and naming the differences.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use meshgate_tests::{Client, Envoy, Meshgate, filter, guest, until};
use serde_json::Value;

use super::known::{KNOWN, Known};
use super::world::{Observed, REQUESTS, Request, World, show};

/// A request without an answer for so long gets none: one of the things that are compared.
const PATIENCE: Duration = Duration::from_secs(10);

/// Filters that need no module in Meshgate.
const STANDARD: [&str; 4] = ["cors", "fault", "headers", "rate-limit"];

/// Runs the scenarios, and fails with every difference that is not known.
pub(super) async fn compare(scenarios: impl IntoIterator<Item = Scenario>) {
    if Envoy::installed().is_none() {
        println!("envoy is not installed: skipped");
        return;
    }
    let mut found = Vec::new();
    for scenario in scenarios {
        found.extend(scenario.differences().await);
    }
    assert!(found.is_empty(), "{} differences:\n{}", found.len(), found.join("\n"));
}

/// One module, or several, and what both proxies are asked.
pub(super) struct Scenario {
    name: &'static str,
    filters: Vec<(&'static str, Value)>,
    /// Words that the filters' log lines contain.
    log: Option<&'static str>,
    /// A counter or gauge that the filters define.
    metric: Option<&'static str>,
    /// What begins the one line that each exchange makes the filters log.
    line: Option<&'static str>,
    /// What is sent, over both versions of HTTP.
    requests: &'static [Request],
    /// More clusters, and which backend each has.
    clusters: &'static [(&'static str, &'static str)],
    /// Modules that are not among the guests.
    modules: BTreeMap<&'static str, Vec<u8>>,
}

impl Scenario {
    pub(super) fn new(name: &'static str, filters: Vec<(&'static str, Value)>) -> Scenario {
        Scenario {
            name,
            filters,
            log: None,
            metric: None,
            line: None,
            requests: REQUESTS,
            clusters: &[],
            modules: BTreeMap::new(),
        }
    }

    /// A chain of one `plain` with this configuration.
    pub(super) fn plain(name: &'static str, configuration: Value) -> Scenario {
        Scenario::new(name, vec![("plain", configuration)])
    }

    pub(super) fn log(mut self, words: &'static str) -> Scenario {
        self.log = Some(words);
        self
    }

    pub(super) fn metric(mut self, name: &'static str) -> Scenario {
        self.metric = Some(name);
        self
    }

    pub(super) fn line(mut self, words: &'static str) -> Scenario {
        self.line = Some(words);
        self
    }

    /// A filter may have names of its own for the world's backends.
    pub(super) fn clusters(mut self, clusters: &'static [(&'static str, &'static str)]) -> Scenario {
        self.clusters = clusters;
        self
    }

    pub(super) fn requests(mut self, requests: &'static [Request]) -> Scenario {
        self.requests = requests;
        self
    }

    /// Gives a filter a module of the test's own.
    pub(super) fn module(mut self, name: &'static str, module: Vec<u8>) -> Scenario {
        self.modules.insert(name, module);
        self
    }

    /// Runs it in both, one after the other. Every difference that is not known.
    async fn differences(self) -> Vec<String> {
        let world = World::start().await;
        let gate = self.meshgate(&world).await;
        let mut by_meshgate = self.observe(&world, gate.address()).await;
        let metrics = || async { gate.metrics().await.text().to_owned() };
        let afterwards = self.afterwards(by_meshgate.len(), gate.log(), metrics).await;
        by_meshgate.insert("afterwards".to_owned(), afterwards);
        let envoy = self.envoy(&world).await;
        let mut by_envoy = self.observe(&world, envoy.address()).await;
        let metrics = || async { envoy.admin("/stats").await.text() };
        let afterwards = self.afterwards(by_envoy.len(), envoy.log(), metrics).await;
        by_envoy.insert("afterwards".to_owned(), afterwards);
        differences(self.name, &by_meshgate, &by_envoy)
    }

    pub(super) async fn meshgate(&self, world: &World) -> Meshgate {
        let chain: Vec<_> = self.filters.iter().map(|(name, config)| format!("- {name}: {config}")).collect();
        let mut setup = Meshgate::chain(&chain.join("\n"));
        let mut names: BTreeSet<_> = self.filters.iter().map(|(name, _)| *name).collect();
        names.retain(|name| !STANDARD.contains(name));
        for name in names {
            setup = setup.filter(name, &self.module_of(name), "");
        }
        for (name, address) in world.clusters() {
            setup = setup.cluster_of(name, &[address], "");
        }
        let (name, address) = world.http2_cluster();
        setup = setup.cluster_of(name, &[address], "protocol: http2");
        for (name, backend) in self.clusters {
            let (address, http2) = world.backend(backend);
            setup = setup.cluster_of(name, &[address], if http2 { "protocol: http2" } else { "" });
        }
        setup.start().await
    }

    pub(super) async fn envoy(&self, world: &World) -> Envoy {
        let mut setup = Envoy::setup();
        for (name, configuration) in &self.filters {
            // A text is given as it is, as in Meshgate.
            let configuration = configuration.as_str().map_or(configuration.to_string(), str::to_owned);
            setup = setup.filter(name, self.module_of(name), &configuration);
        }
        for (name, address) in world.clusters() {
            setup = setup.cluster(name, address);
        }
        let (name, address) = world.http2_cluster();
        setup = setup.http2_cluster(name, address);
        for (name, backend) in self.clusters {
            setup = match world.backend(backend) {
                (address, true) => setup.http2_cluster(name, address),
                (address, false) => setup.cluster(name, address),
            };
        }
        setup.start().await
    }

    fn module_of(&self, name: &str) -> Vec<u8> {
        match self.modules.get(name) {
            Some(module) => module.clone(),
            None if STANDARD.contains(&name) => filter(name),
            None => guest(name),
        }
    }

    /// Every request over both versions of HTTP, each on its own connection.
    async fn observe(&self, world: &World, proxy: SocketAddr) -> BTreeMap<String, Observed> {
        let mut all = BTreeMap::new();
        for request in self.requests {
            for version in ["h1", "h2"] {
                let client = match version {
                    "h1" => Client::http1(proxy).await,
                    _ => Client::http2(proxy).await,
                };
                let label = format!("{version} {}", request.label);
                let mut client = client.authority("shop.example");
                let reply = tokio::time::timeout(PATIENCE, client.try_call((request.ask)())).await;
                let mut observed = Observed::new();
                let status = match &reply {
                    Ok(Ok(reply)) => reply.status.as_str(),
                    Ok(Err(_)) => "broken off",
                    Err(_) => "no answer",
                };
                observed.insert("status".to_owned(), status.to_owned());
                if let Ok(Ok(reply)) = reply {
                    observed.insert("body".to_owned(), reply.text());
                    show(&mut observed, "header", &reply.headers);
                    show(&mut observed, "trailer", &reply.trailers);
                }
                observed.extend(world.received());
                all.insert(label, observed);
            }
        }
        all
    }

    /// What the filters logged and counted.
    async fn afterwards<F: Future<Output = String>>(
        &self,
        exchanges: usize,
        log: &meshgate_tests::Lines,
        metrics: impl Fn() -> F,
    ) -> Observed {
        let mut observed = Observed::new();
        if let Some(words) = self.log {
            let lines = until("every exchange is logged", || async {
                let lines: Vec<_> = log.all().iter().filter_map(|line| said(line, words)).collect();
                (lines.iter().filter(|line| line.ends_with("done")).count() == exchanges).then_some(lines)
            })
            .await;
            observed.insert("log".to_owned(), lines.join("\n"));
        }
        if let Some(words) = self.line {
            let lines = until("every exchange has logged its line", || async {
                let lines: Vec<_> = log.all().iter().filter_map(|line| said(line, words)).collect();
                (lines.len() >= exchanges).then_some(lines)
            })
            .await;
            observed.insert("line".to_owned(), lines.join("\n"));
        }
        if let Some(name) = self.metric {
            let value = metrics().await.lines().rev().find_map(|line| value_of(line, name));
            observed.insert("metric".to_owned(), value.unwrap_or_else(|| "absent".to_owned()));
        }
        observed
    }
}

/// From `words` to the message's end: Meshgate puts the filter's name behind it.
fn said(line: &str, words: &str) -> Option<String> {
    let from = line.find(words)?;
    Some(line[from..].split(" filter=").next().unwrap_or_default().trim_end().to_owned())
}

/// The value in a line of metrics, of Prometheus' form or of Envoy's.
fn value_of(line: &str, name: &str) -> Option<String> {
    let (_, value) = line.rsplit_once(' ')?;
    let value: f64 = value.parse().ok()?;
    (line.contains(name) && !line.starts_with('#')).then(|| value.to_string())
}

/// The differences between both that no entry of `KNOWN` admits, and the entries that nothing showed.
pub(super) fn differences(
    scenario: &str,
    meshgate: &BTreeMap<String, Observed>,
    envoy: &BTreeMap<String, Observed>,
) -> Vec<String> {
    let mut found = Vec::new();
    let mut expected: Vec<_> = KNOWN.iter().filter(|known| known.must_show(scenario)).collect();
    assert!(meshgate.keys().eq(envoy.keys()), "both were asked the same");
    for (request, ours) in meshgate {
        let theirs = &envoy[request];
        let parts: BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
        for part in parts {
            let (ours, theirs) = (ours.get(part), theirs.get(part));
            if ours == theirs {
                continue;
            }
            let admits = |known: &Known| {
                known.applies(scenario)
                    && request.contains(known.request)
                    && known.parts.iter().any(|begin| part.starts_with(begin))
                    && known.meshgate.admits(ours)
                    && known.envoy.admits(theirs)
            };
            if !KNOWN.iter().any(admits) {
                let shown =
                    |value: Option<&String>| value.map_or("absent".to_owned(), |value| format!("{value:?}"));
                let (ours, theirs) = (shown(ours), shown(theirs));
                found.push(format!("{scenario} / {request} / {part}: meshgate {ours}, envoy {theirs}"));
            }
            expected.retain(|known| !admits(known));
        }
    }
    found.extend(expected.iter().map(|known| {
        format!(
            "{scenario}: the known difference `{}` ({:?}) did not show: meshgate agrees",
            known.id, known.parts
        )
    }));
    found
}
