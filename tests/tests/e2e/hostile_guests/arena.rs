//! A proxy with all guests in it, and what is asserted of each.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use meshgate_tests::{
    Answer, Ask, Backend, Client, HostileGuest, Load, Meshgate, Reply, Seen, full, streamed, until, within,
};

/// A proxy with one route for each guest that loads, one more where the filter may be skipped, and `/healthy`.
pub(super) struct Arena {
    pub(super) gate: Meshgate,
    pub(super) one: Backend,
    pub(super) guests: Vec<HostileGuest>,
}

/// What an attack came to.
struct Outcome {
    /// `STATUS`, `STATUS FLAGS`, or `broken`.
    word: String,
    /// The whole answer, if it was one.
    reply: Option<Reply>,
    /// The path it asked for, which no other request did.
    path: String,
}

impl Arena {
    pub(super) async fn start() -> Arena {
        let guests: Vec<_> =
            HostileGuest::all().into_iter().filter(|guest| guest.says("refused").is_none()).collect();
        Arena::with(guests).await
    }

    pub(super) async fn with(guests: Vec<HostileGuest>) -> Arena {
        let one = Backend::answering("one", answer).await;
        let mut routes = String::new();
        let mut setup = Meshgate::chain("");
        for guest in &guests {
            let limits = guest.says("limits").map(|limits| format!(", limits: {limits}")).unwrap_or_default();
            for (name, policy) in [(guest.name.clone(), "deny"), (skipping(&guest.name), "skip")] {
                setup = setup.filter(&name, &guest.module, &format!("on_error: {policy}{limits}"));
                routes += &format!(
                    "      - {{name: {name}, match: {{path: /{name}}}, to: one, filters: [{name}: {{}}]}}\n"
                );
            }
        }
        let chain = format!("- routing:\n    routes:\n{routes}{HEALTHY}");
        let gate = setup.with_chain(&chain).cluster("one", &[&one]).start().await;
        Arena { gate, one, guests }
    }

    /// Does what the guest's file says, and asserts what it says.
    async fn try_out(&self, guest: &HostileGuest) {
        let name = guest.name.as_str();
        self.goes_on(guest, name).await;
        let calls = self.calls();
        let traps = self.traps(name).await;
        let outcome = self.attack(guest, name).await;
        assert!(guest.allows("attack", &outcome.word), "{name}: {}", outcome.word);
        self.look_at(guest, &outcome);
        if let Some(wanted) = guest.says("calls") {
            let wanted: usize = wanted.parse().expect("a number of calls");
            until(format!("{name}: {wanted} calls"), || async {
                (self.calls() - calls >= wanted).then_some(())
            })
            .await;
            assert_eq!(self.calls() - calls, wanted, "{name}: calls");
        }
        if guest.says("traps") != Some("any") {
            let wanted = guest.says("traps").map_or(u8::from(guest.fails()), |traps| traps.parse().unwrap());
            assert_eq!(self.traps(name).await - traps, f64::from(wanted), "{name}: failed callbacks");
        }
        self.look_at_counters(guest).await;
        self.look_at_log(guest).await;
        for _ in 0..2 {
            self.goes_on(guest, name).await;
        }
        let skipped = guest.says("skip").or(guest.fails().then_some("200"));
        if let Some(wanted) = skipped.filter(|wanted| *wanted != "no") {
            let name = skipping(name);
            let outcome = self.attack(guest, &name).await;
            let status = outcome.word.split(' ').next();
            assert_eq!(status, Some(wanted), "{name}: {}", outcome.word);
            self.goes_on(guest, &name).await;
        }
    }

    /// A request that is no attack, through the same filter.
    async fn goes_on(&self, guest: &HostileGuest, route: &str) {
        let path = format!("/{route}");
        let reply = Client::http2(self.gate.address()).await.call(with_trailers(&path)).await;
        if guest.says("next").is_some() {
            assert!(guest.allows("next", reply.status.as_str()), "{path}: {}", reply.status);
            return;
        }
        assert_eq!((reply.status.as_u16(), reply.text().as_str()), (200, "answer"), "{path}");
        assert_eq!(reply.trailers["x-sum"], "42", "{path}");
    }

    async fn attack(&self, guest: &HostileGuest, route: &str) -> Outcome {
        static ATTACKS: AtomicU64 = AtomicU64::new(0);
        let path = format!("/{route}?attack={}", ATTACKS.fetch_add(1, Ordering::Relaxed));
        let address = self.gate.address();
        let (mut client, ask) = match guest.says("ask") {
            Some("length") => {
                (Client::http1(address).await, Ask::post(&path, "body").header("x-length", "1"))
            }
            Some("large") => (Client::http2(address).await, Ask::post(&path, vec![b'x'; 2 << 20])),
            _ => (Client::http2(address).await, with_trailers(&path)),
        };
        let call = client.try_call(ask.header("x-attack", "1"));
        let Ok(reply) = within(format!("{path} is answered"), call).await else {
            return Outcome { word: "broken".to_owned(), reply: None, path };
        };
        let entry = self.gate.access(&path).await;
        let flags = entry["response_flags"].as_str().unwrap_or_default().trim_matches('-');
        let word = format!("{} {flags}", reply.status.as_u16()).trim().to_owned();
        Outcome { word, reply: Some(reply), path }
    }

    /// What the client and the endpoint got.
    fn look_at(&self, guest: &HostileGuest, outcome: &Outcome) {
        let name = guest.name.as_str();
        let seen = self.one.seen().into_iter().find(|seen| seen.path == outcome.path);
        match guest.says("upstream") {
            Some("none") => assert!(seen.is_none(), "{name}: the endpoint got {seen:?}"),
            Some("kept") => {
                let seen =
                    seen.as_ref().unwrap_or_else(|| panic!("{name}: the endpoint got another request"));
                let authority = self.gate.address().to_string();
                assert_eq!(
                    (seen.method.as_str(), seen.header("host")),
                    ("POST", authority.as_str()),
                    "{name}"
                );
            }
            _ => {}
        }
        if let Some(field) = guest.says("without") {
            let of_request = seen.iter().flat_map(|seen| seen.headers.keys());
            let of_response = outcome.reply.iter().flat_map(|reply| reply.headers.keys());
            for found in of_request.chain(of_response) {
                assert!(!found.as_str().starts_with(field), "{name}: {found}");
            }
        }
        if let Some(said) = guest.says("said") {
            let reply = outcome.reply.as_ref().expect("an answer to look at");
            assert_eq!(reply.header("x-said"), said, "{name}");
        }
        if guest.says("body") == Some("empty") {
            assert_eq!(outcome.reply.as_ref().map(Reply::text).as_deref(), Some(""), "{name}");
        }
    }

    async fn look_at_counters(&self, guest: &HostileGuest) {
        let name = guest.name.as_str();
        let counters =
            [("cause", "meshgate_plugin_failures_total"), ("limit", "meshgate_plugin_limit_exceeded_total")];
        for (key, counter) in counters {
            if let Some(value) = guest.says(key) {
                // A timer's failures come when they come.
                until(format!("{name}: {counter} {key}={value}"), || async {
                    let metrics = self.gate.metrics().await;
                    (metrics.sum(counter, &[("plugin", name), (key, value)]) > 0.0).then_some(())
                })
                .await;
            }
        }
        if let Some(limit) = guest.says("limit") {
            let page = self.gate.admin("/filters").await.json();
            let filters = page["filters"].as_array().expect("a list");
            let filter = filters.iter().find(|filter| filter["name"] == name).expect("the filter is listed");
            assert!(filter["limits_exceeded"][limit].as_u64() > Some(0), "{name}: {filter}");
        }
    }

    async fn look_at_log(&self, guest: &HostileGuest) {
        let name = guest.name.as_str();
        if let Some(text) = guest.says("log") {
            self.gate
                .log()
                .wait(text, |line| (line.contains(text) && line.contains(name)).then_some(()))
                .await;
        }
        if guest.says("log-without").is_some() {
            assert!(!self.gate.log().all().iter().any(|line| line.contains('\x1b')), "{name}: a raw ESC");
        }
        if guest.says("dropped-lines").is_some() {
            let dropped =
                self.gate.metrics().await.sum("meshgate_plugin_log_lines_dropped_total", &[("plugin", name)]);
            assert!(dropped > 0.0, "{name}: no dropped lines");
        }
        if let Some(import) = guest.says("unknown") {
            let page = self.gate.admin("/filters").await.json();
            let filters = page["filters"].as_array().expect("a list");
            let filter = filters.iter().find(|filter| filter["name"] == name).expect("the filter is listed");
            assert_eq!(filter["unknown_imports"][0], import, "{name}");
        }
    }

    fn calls(&self) -> usize {
        self.one.seen().iter().filter(|seen| seen.path == "/called").count()
    }

    async fn traps(&self, name: &str) -> f64 {
        self.gate.metrics().await.sum("meshgate_plugin_traps_total", &[("plugin", name)])
    }

    /// Tries all guests. Fails with all that did not do what they say.
    pub(super) async fn try_all(self: &Arc<Self>) {
        let mut failed = Vec::new();
        for guest in &self.guests {
            // Each in a task of its own, so that one that panics does not hide the others.
            let (arena, guest) = (Arc::clone(self), guest.clone());
            let name = guest.name.clone();
            if tokio::spawn(async move { arena.try_out(&guest).await }).await.is_err() {
                failed.push(name);
            }
        }
        assert!(failed.is_empty(), "{failed:?}");
    }

    /// The process has lived until here, and ends in order.
    pub(super) async fn stop(self: Arc<Self>) {
        let arena = Arc::try_unwrap(self).unwrap_or_else(|_| panic!("the tasks have ended"));
        arena.gate.stop().await;
    }

    pub(super) fn load(&self, connections: usize) -> Load {
        Load::start(self.gate.address(), connections, || Ask::get("/healthy"), stamped)
    }
}

/// What the healthy neighbour's answers must be.
pub(super) fn stamped(reply: &Reply) -> Result<(), String> {
    match (reply.status.as_u16(), reply.header("x-stamp"), &*reply.body) {
        (200, "stamped", b"answer") => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

/// The route of the healthy neighbour.
pub(super) const HEALTHY: &str = "      - {name: healthy, match: {path: /healthy}, to: one, \
                       filters: [headers: {response: {set: {x-stamp: stamped}}}]}\n";

/// The same filter, where it may be skipped.
fn skipping(name: &str) -> String {
    format!("{name}-skipping")
}

/// A request in which every callback has something to look at.
pub(super) fn with_trailers(path: &str) -> Ask {
    Ask::post(path, "body").header("te", "trailers").trailers(&[("x-last", "z")])
}

/// With trailers, or with its length if the request says so.
pub(super) async fn answer(_: Seen, request: Request<Incoming>) -> Answer {
    let length = request.headers().contains_key("x-length");
    request.into_body().collect().await.map_err(std::io::Error::other)?;
    if length {
        return Ok(Response::new(full("answer")));
    }
    let (mut sender, body) = streamed();
    tokio::spawn(async move {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("42"));
        let _ = sender.send_data("answer".into()).await;
        let _ = sender.send_trailers(trailers).await;
    });
    Ok(Response::builder().header("trailer", "x-sum").body(body).expect("a response"))
}
