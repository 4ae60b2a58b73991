//! What the guest has around it: a proxy, the server that requests go to, and the one that it can call.

use http::{HeaderMap, HeaderValue, Method, Response};
use http_body_util::BodyExt;
use meshgate_tests::{
    Answer, Ask, Backend, Body, Client, Lines, Meshgate, Reply, full, grpc_backend, streamed,
};

use super::script::{Report, Script, entered, reports};

/// More time than a callback needs on any machine: the suite looks at statuses, not at limits.
pub(super) const LIMITS: &str = "limits: {time: 1s}";

/// What the configuration says of the proxy and its parts, for the properties that hand it on.
pub(super) const NODE: &str =
    "node: {id: gate-7, cluster: gates, locality: north/north-1/a, metadata: {REGION: north, LIST: [a, b]}}";
pub(super) const LISTENER: [&str; 2] = ["direction: inbound", "metadata: {suite: {key: of the listener}}"];
pub(super) const CLUSTER: &str = "metadata: {suite: {key: of the cluster}}";

/// The server that requests go to, the one that is called, and one that speaks gRPC.
pub(super) struct World {
    pub(super) one: Backend,
    pub(super) called: Backend,
    pub(super) rpc: Backend,
}

/// A proxy with one guest.
pub(super) struct Running {
    pub(super) gate: Meshgate,
    pub(super) world: World,
}

impl World {
    pub(super) async fn start() -> World {
        World {
            one: Backend::answering("one", async |_, request| {
                let body = request.into_body().collect().await.map_err(std::io::Error::other)?;
                let sent = body.trailers().map(|trailers| format!("{trailers:?}")).unwrap_or_default();
                answer(&String::from_utf8_lossy(&body.to_bytes()), &sent)
            })
            .await,
            called: Backend::answering("called", async |_, _| answer("from the call", "")).await,
            rpc: grpc_backend("rpc").await,
        }
    }

    /// A proxy whose only filter is the guest with this script.
    pub(super) async fn run(self, script: &Script) -> Running {
        self.run_with(script, LIMITS).await
    }

    /// The same, with these keys for the filter.
    pub(super) async fn run_with(self, script: &Script, keys: &str) -> Running {
        self.run_behind("", script, keys).await
    }

    /// The same, with a chain before the guest.
    pub(super) async fn run_behind(self, chain: &str, script: &Script, keys: &str) -> Running {
        let quoted = serde_json::to_string(&script.json()).unwrap();
        let [direction, metadata] = LISTENER;
        let gate = Meshgate::chain(&format!("{chain}\n- conformance: {quoted}"))
            .guest("conformance", keys)
            .top(NODE)
            .listener(direction)
            .listener(metadata)
            .cluster_of("one", &[self.one.address()], CLUSTER)
            .cluster("called", &[&self.called])
            .cluster_of("rpc", &[self.rpc.address()], "protocol: http2")
            .start()
            .await;
        Running { gate, world: self }
    }
}

/// The response of both servers: the body in one part, and a trailer.
fn answer(body: &str, sent: &str) -> Answer {
    let answer = Response::builder().header("trailer", "x-sum").header("x-b", "back").header("x-sent", sent);
    answer.body(with_trailers(format!("said {body}"))).map_err(std::io::Error::other)
}

fn with_trailers(text: String) -> Body {
    let (mut sender, body) = streamed();
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("42"));
    tokio::spawn(async move {
        sender.send_data(text.into()).await?;
        sender.send_trailers(trailers).await
    });
    body
}

/// A request with everything a message can have: fields, a body in one part, a trailer.
pub(super) fn whole() -> Ask {
    let ask = Ask::new(Method::POST, "/path?query=1", full("hello")).header("x-a", "1").header("x-a", "2");
    let ask = ask.header("referer", "http://from.example/").header("user-agent", "suite/1");
    let ask = ask.header("x-request-id", "7e0c4f9a-0000-4000-8000-0123456789ab");
    ask.header("te", "trailers").trailers(&[("x-last", "z")])
}

impl Running {
    /// The guest's log.
    pub(super) fn log(&self) -> &Lines {
        self.gate.log()
    }

    /// Sends a whole request and waits until the guest has let go of it.
    pub(super) async fn exchange(&self) -> Reply {
        let reply = self.gate.call(whole()).await;
        entered(self.log(), "delete", 1).await;
        reply
    }

    /// Sends a request over this version of HTTP, and waits for the response's end or the connection's.
    pub(super) async fn ask(&self, version: u8, ask: Ask) -> Option<Reply> {
        let mut client = match version {
            1 => Client::http1(self.gate.address()).await,
            _ => Client::http2(self.gate.address()).await,
        };
        meshgate_tests::within("a response, or the connection's end", client.try_call(ask)).await.ok()
    }

    /// Ends the proxy: all that the guest reported.
    pub(super) async fn stop(self) -> Vec<Report> {
        reports(&self.gate.stop().await.log)
    }
}

/// Runs the script over one exchange: the response, and everything the guest reported.
pub(super) async fn exchange(script: &Script) -> (Reply, Vec<Report>) {
    let running = World::start().await.run(script).await;
    let reply = running.exchange().await;
    (reply, running.stop().await)
}

/// The last report of this callback in which hostcalls were made.
pub(super) fn last<'a>(reports: &'a [Report], callback: &str) -> &'a Report {
    let found = reports.iter().rev().find(|report| report.phase == callback && !report.results.is_empty());
    found.unwrap_or_else(|| panic!("no hostcalls in {callback}: {reports:?}"))
}

/// The part of the reports that a worker's VM made: a first VM only tried the configuration.
pub(super) fn worker(reports: &[Report]) -> &[Report] {
    let begin = reports.iter().rposition(|report| report.phase == "root_context_create").unwrap();
    &reports[begin..]
}
