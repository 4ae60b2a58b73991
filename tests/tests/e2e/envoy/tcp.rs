//! TCP filters in both proxies: what the client and the backend see, and what the filters are told, in which order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::Response;
use meshgate_tests::{Backend, Envoy, Lines, Meshgate, Socket, SocketBackend, full, guest, until};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::compare::differences;
use super::talk::talk_backend;
use super::world::Observed;

/// A connection that has not ended after so long stays open: one of the things that are compared.
const PATIENCE: Duration = Duration::from_secs(3);

/// What the two ends do, one after the other.
#[derive(Clone, Copy)]
pub(super) enum Step {
    /// The client writes.
    Ask(&'static str),
    /// The backend takes the connection.
    Accept,
    /// The backend reads as much as this.
    Heard(&'static str),
    /// The backend reads until the end.
    HeardEnd,
    /// The backend writes.
    Answer(&'static str),
    /// The client reads as much as this.
    Answered(&'static str),
    ClientEnds,
    BackendEnds,
    ClientResets,
    BackendResets,
    /// A filter logged this.
    Said(&'static str),
    /// The calls to `/held` are answered.
    Release,
}

use Step::{
    Accept, Answer, Answered, Ask, BackendEnds, BackendResets, ClientEnds, ClientResets, Heard, HeardEnd,
    Release, Said,
};

/// A question and its answer, ended by the client.
const CONVERSATION: &[Step] = &[
    Accept,
    Ask("question"),
    Heard("question"),
    Answer("answer"),
    Answered("answer"),
    ClientEnds,
    Said("downstream_data 0 true"),
    BackendEnds,
];

/// The filters, and what is done.
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) module: Module,
    /// Configurations, one for each filter.
    pub(super) filters: Vec<Value>,
    pub(super) steps: &'static [Step],
}

/// What all filters of a scenario are.
pub(super) struct Module {
    pub(super) name: &'static str,
    pub(super) bytes: Vec<u8>,
    pub(super) speech: Speech,
    /// A key of Meshgate's listener.
    pub(super) listener: Option<&'static str>,
}

/// How filters say what they are told.
pub(super) enum Speech {
    /// As the guest `tcp`, under the name in its configuration.
    Named,
    /// In words of its own: what a line of the log says, as the guest `tcp` would.
    Own(fn(&str) -> Option<String>),
    Silent,
}

async fn compare(name: &'static str, filters: impl Into<Vec<Value>>, steps: &'static [Step]) {
    let module = Module { name: "tcp", bytes: guest("tcp"), speech: Speech::Named, listener: None };
    Scenario { name, module, filters: filters.into(), steps }.compare().await;
}

/// What filters call: refuses `/deny`, and answers `/held` when it is let; or talks with them over gRPC.
struct Called {
    backend: Backend,
    talk: Backend,
    let_go: Arc<Semaphore>,
}

impl Called {
    async fn start() -> Called {
        let let_go = Arc::new(Semaphore::new(0));
        let held = Arc::clone(&let_go);
        let backend = Backend::answering("called", move |seen, _| {
            let held = Arc::clone(&held);
            async move {
                if seen.path == "/held" {
                    held.acquire().await.map_err(std::io::Error::other)?.forget();
                }
                let status = if seen.path == "/deny" { 403 } else { 200 };
                Response::builder().status(status).body(full("called")).map_err(std::io::Error::other)
            }
        });
        Called { backend: backend.await, talk: talk_backend().await, let_go }
    }
}

impl Scenario {
    /// Plays it in both proxies, and fails with every difference that is not known.
    pub(super) async fn compare(self) {
        if Envoy::installed().is_none() {
            println!("envoy is not installed: skipped");
            return;
        }
        let by_meshgate = self.by_meshgate(&Called::start().await).await;
        let by_envoy = self.by_envoy(&Called::start().await).await;
        let of = |observed| BTreeMap::from([("tcp".to_owned(), observed)]);
        let found = differences(self.name, &of(by_meshgate), &of(by_envoy));
        assert!(found.is_empty(), "{} differences:\n{}", found.len(), found.join("\n"));
    }

    /// The filters that say what they are told.
    fn speakers(&self) -> Vec<&str> {
        match self.module.speech {
            Speech::Named => self.filters.iter().filter_map(|filter| filter["name"].as_str()).collect(),
            Speech::Own(_) => vec![self.module.name],
            Speech::Silent => Vec::new(),
        }
    }

    /// What one of them says in a line of the log.
    fn told(&self, name: &str, line: &str) -> Option<String> {
        match self.module.speech {
            Speech::Own(told) => told(line),
            _ => Some(line.split_once(&format!("{name}: "))?.1.to_owned()),
        }
    }

    async fn by_meshgate(&self, called: &Called) -> Observed {
        let backend = SocketBackend::start().await;
        let Module { name, bytes, listener, .. } = &self.module;
        let chain: Vec<_> =
            self.filters.iter().map(|configuration| format!("- {name}: {configuration}")).collect();
        let setup = Meshgate::chain(&chain.join("\n")).listener("protocol: tcp").filter(name, bytes, "");
        let setup = listener.iter().fold(setup, |setup, key| setup.listener(key));
        let setup = setup.cluster_of("one", &[backend.address()], "").cluster("called", &[&called.backend]);
        let setup = setup.cluster("slow", &[&called.backend]);
        let setup = setup.cluster_of("talk", &[called.talk.address()], "protocol: http2");
        let gate = setup.start().await;
        let client = Socket::connect(gate.address()).await;
        self.play(client, &backend, called, gate.log()).await
    }

    async fn by_envoy(&self, called: &Called) -> Observed {
        let backend = SocketBackend::start().await;
        let filters = self.filters.iter().enumerate();
        let setup = filters.fold(Envoy::setup().tcp(), |setup, (place, configuration)| {
            setup.filter(&format!("filter{place}"), self.module.bytes.clone(), &configuration.to_string())
        });
        let setup = setup.cluster("one", backend.address()).cluster("called", called.backend.address());
        let setup =
            setup.cluster("slow", called.backend.address()).http2_cluster("talk", called.talk.address());
        let envoy = setup.start().await;
        let client = Socket::connect(envoy.address()).await;
        self.play(client, &backend, called, envoy.log()).await
    }

    /// Takes the steps, then waits for both ends.
    async fn play(&self, client: Socket, backend: &SocketBackend, called: &Called, log: &Lines) -> Observed {
        let mut ends =
            Ends { client: Some(client), backend: None, heard: String::new(), answered: String::new() };
        for step in self.steps {
            match step {
                Release => called.let_go.add_permits(1),
                step => ends.take(*step, backend, log).await,
            }
        }
        let mut observed = Observed::new();
        observed
            .insert("backend".to_owned(), format!("{}{}", ends.heard, ended(ends.backend.as_mut()).await));
        observed
            .insert("client".to_owned(), format!("{}{}", ends.answered, ended(ends.client.as_mut()).await));
        drop(ends);
        for name in self.speakers() {
            let told = whole_log(log, |line| self.told(name, line)).await;
            let (closes, others): (Vec<_>, Vec<_>) =
                told.into_iter().partition(|line| line.starts_with("upstream_close"));
            observed.insert(format!("log of {name}"), others.join("; "));
            if !closes.is_empty() {
                observed.insert(format!("upstream_close of {name}"), closes.join("; "));
            }
        }
        observed
    }
}

/// Both ends of a connection, and what they read until now.
struct Ends {
    client: Option<Socket>,
    backend: Option<Socket>,
    heard: String,
    answered: String,
}

impl Ends {
    async fn take(&mut self, step: Step, backend: &SocketBackend, log: &Lines) {
        let (client, server) = (&mut self.client, &mut self.backend);
        match (step, client.as_mut(), server.as_mut()) {
            (Accept, ..) => *server = Some(backend.accept().await),
            (Ask(text), Some(client), _) => client.write(text).await,
            (ClientEnds, Some(client), _) => client.finish().await,
            (Answer(text), _, Some(server)) => server.write(text).await,
            (BackendEnds, _, Some(server)) => server.finish().await,
            (Heard(text), _, Some(server)) => {
                self.heard += &String::from_utf8_lossy(&server.read(text.len()).await);
            }
            (HeardEnd, _, Some(server)) => {
                self.heard += &String::from_utf8_lossy(&server.end().await.bytes);
            }
            (Answered(text), Some(client), _) => {
                self.answered += &String::from_utf8_lossy(&client.read(text.len()).await);
            }
            (ClientResets, ..) => client.take().into_iter().for_each(Socket::reset),
            (BackendResets, ..) => server.take().into_iter().for_each(Socket::reset),
            (Said(words), ..) => {
                log.wait(words, |line| line.contains(words).then_some(())).await;
            }
            _ => panic!("a step of somebody who is not there"),
        }
    }
}

async fn ended(socket: Option<&mut Socket>) -> String {
    let Some(socket) = socket else { return String::new() };
    match tokio::time::timeout(PATIENCE, socket.end()).await {
        Ok(ended) => {
            let bytes = String::from_utf8_lossy(&ended.bytes);
            format!("{bytes}, then {}", if ended.reset { "reset" } else { "ended" })
        }
        Err(_) => ", then nothing".to_owned(),
    }
}

/// Everything a filter said, once it has been told of the end; or, if it never is, until now.
async fn whole_log(log: &Lines, told: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let lines = || -> Vec<String> {
        let message = |line: &String| told(line.split(" filter=").next().unwrap_or_default().trim_end());
        log.all().iter().filter_map(message).collect()
    };
    let logged = until("the log callback", || async {
        lines().iter().any(|line| line.starts_with("log")).then_some(())
    });
    let _ = tokio::time::timeout(PATIENCE, logged).await;
    lines()
}

/// The configuration of a filter that says what it is told.
fn saying(name: &str, configuration: &Value) -> Value {
    let mut configuration = configuration.clone();
    configuration["name"] = name.into();
    configuration
}

#[tokio::test]
async fn a_conversation() {
    compare("tcp conversation", [saying("flow-one", &json!({}))], CONVERSATION).await;
}

#[tokio::test]
async fn a_conversation_ended_by_the_backend() {
    const STEPS: &[Step] = &[
        Accept,
        Ask("question"),
        Heard("question"),
        Answer("answer"),
        Answered("answer"),
        BackendEnds,
        Said("upstream_data 0 true"),
        ClientEnds,
    ];
    compare("tcp ended by the backend", [saying("flow-one", &json!({}))], STEPS).await;
}

#[tokio::test]
async fn data_is_rewritten() {
    let configuration = json!({
        "downstream": {"uppercase": true, "prepend": "<", "append": ">"},
        "upstream": {"double": true, "prepend": "[", "append": "]"},
    });
    compare("tcp rewritten", [saying("flow-one", &configuration)], CONVERSATION).await;
    let swallow = json!({"downstream": {"swallow": true, "append": "only this"}});
    const STEPS: &[Step] = &[
        Accept,
        Ask("question"),
        Said("downstream_data 8 false"),
        ClientEnds,
        Said("downstream_data 0 true"),
        Answer("answer"),
        Answered("answer"),
        BackendEnds,
    ];
    compare("tcp swallowed", [saying("flow-one", &swallow)], STEPS).await;
}

#[tokio::test]
async fn data_is_held() {
    const STEPS: &[Step] = &[
        Accept,
        Ask("que"),
        Said("flow-one: downstream_data 3 false"),
        Ask("stion"),
        Heard("question"),
        Answer("ans"),
        Said("flow-one: upstream_data 3 false"),
        Answer("wer"),
        Answered("answer"),
        Ask("more"),
        Said("flow-one: downstream_data 4 false"),
        ClientEnds,
        BackendEnds,
    ];
    let held = json!({"downstream": {"hold": 8}, "upstream": {"hold": 6}});
    compare("tcp held", [saying("flow-one", &held)], STEPS).await;
}

#[tokio::test]
async fn a_chain_of_two() {
    let filters = [
        saying("flow-one", &json!({"downstream": {"append": "1"}, "upstream": {"append": "1"}})),
        saying("flow-two", &json!({"downstream": {"append": "2"}, "upstream": {"append": "2"}})),
    ];
    compare("tcp chain", filters, CONVERSATION).await;
}

#[tokio::test]
async fn resets() {
    const BY_CLIENT: &[Step] = &[Accept, Ask("half"), Heard("half"), ClientResets];
    compare("tcp reset by the client", [saying("flow-one", &json!({}))], BY_CLIENT).await;
    const BY_BACKEND: &[Step] =
        &[Accept, Ask("half"), Heard("half"), Answer("an"), Answered("an"), BackendResets];
    compare("tcp reset by the backend", [saying("flow-one", &json!({}))], BY_BACKEND).await;
}

#[tokio::test]
async fn calls() {
    let call = |at: &str, path: &str| json!({"call": {"at": at, "cluster": "called", "path": path}});
    const REST: &[Step] = &[
        Ask("question"),
        Said("new_connection"),
        Release,
        Said("call 200"),
        Accept,
        Heard("question"),
        ClientEnds,
        Said("downstream_data 0 true"),
        BackendEnds,
    ];
    const HELD: &[Step] = &[
        Accept,
        Ask("question"),
        Said("downstream_data 8 false"),
        Release,
        Heard("question"),
        Answer("answer"),
        Answered("answer"),
        ClientEnds,
        Said("downstream_data 0 true"),
        BackendEnds,
    ];
    compare("tcp call for a connection", [saying("flow-one", &call("new_connection", "/held"))], REST).await;
    compare("tcp call for data", [saying("flow-one", &call("downstream_data", "/held"))], HELD).await;
    const DENIED: &[Step] = &[Accept, Ask("question"), Said("flow-one: call 403")];
    compare("tcp call denied", [saying("flow-one", &call("downstream_data", "/deny"))], DENIED).await;
}

#[tokio::test]
async fn closing() {
    for (name, at, side, steps) in [
        ("tcp closed at new_connection", "new_connection", "downstream", &[][..]),
        ("tcp closed at downstream_data", "downstream_data", "downstream", &[Accept, Ask("question")]),
        (
            "tcp closed at upstream_data",
            "upstream_data",
            "downstream",
            &[Accept, Ask("question"), Heard("question"), Answer("answer")],
        ),
        (
            "tcp upstream closed at upstream_data",
            "upstream_data",
            "upstream",
            &[Accept, Ask("question"), Heard("question"), Answer("answer")],
        ),
        ("tcp upstream closed at downstream_data", "downstream_data", "upstream", &[Accept, Ask("question")]),
    ] {
        let configuration = json!({"close": {"at": at, "side": side}});
        compare(name, [saying("flow-one", &configuration)], steps).await;
    }
}

#[tokio::test]
async fn traps() {
    for (name, at, steps) in [
        ("tcp trap at new_connection", "new_connection", &[][..]),
        ("tcp trap at downstream_data", "downstream_data", &[Accept, Ask("question")]),
        (
            "tcp trap at upstream_data",
            "upstream_data",
            &[Accept, Ask("question"), Heard("question"), Answer("answer")],
        ),
    ] {
        compare(name, [saying("flow-one", &json!({"trap": at}))], steps).await;
    }
}

#[tokio::test]
async fn properties() {
    let paths = ["request/size", "response/size", "request/path", "response/code", "response/flags"];
    compare("tcp properties", [saying("flow-one", &json!({"properties": paths}))], CONVERSATION).await;
}
