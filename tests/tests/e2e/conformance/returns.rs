//! What callbacks answer, and what comes of it: a filter that stops is resumed by the response to a call that it made.

use std::sync::Arc;

use http::{Method, Response};
use http_body_util::BodyExt;
use meshgate_tests::{Ask, Backend, Client, Meshgate, Reply, full, streamed, until, within};
use tokio::sync::Semaphore;

use super::script::Arg::{N, Pairs, Stream, T, Word};
use super::script::{OK, Report, Script, call, entered, reports};
use super::world::{LIMITS, World, last, whole};

const HEAD: &[(&str, &str)] = &[(":method", "GET"), (":path", "/"), (":authority", "called.example")];

/// What an answer asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    Continue,
    /// Nothing more comes until it is resumed.
    Stop,
    /// The same, and what came is gone.
    Drop,
}

use Meaning::{Continue, Drop, Stop};

/// Numbers the ABI does not know: headers and trailers stop, a body's part is dropped.
pub(super) const HEADERS: &[(u32, Meaning)] =
    &[(0, Continue), (1, Stop), (2, Continue), (3, Stop), (4, Stop), (5, Stop), (99, Stop)];
pub(super) const BODY: &[(u32, Meaning)] =
    &[(0, Continue), (1, Stop), (2, Stop), (3, Drop), (4, Drop), (99, Drop)];
pub(super) const TRAILERS: &[(u32, Meaning)] = &[(0, Continue), (1, Stop), (99, Stop)];

/// Its name, and how it is made.
type Message = (&'static str, fn() -> Ask);

/// With trailers, and with a length.
const MESSAGES: [Message; 2] =
    [("with trailers", whole), ("with length", || Ask::new(Method::POST, "/", full("hello")))];

/// A guest that answers this in that callback, whenever it enters it, after it made a call whose response resumes it.
pub(super) fn stops(callback: &str, answer: u32) -> Script {
    let direction = i64::from(callback.starts_with("response"));
    let resume =
        [call("proxy_set_effective_context", &[Stream]), call("proxy_continue_stream", &[N(direction)])];
    Script::default()
        .on(
            callback,
            [call("proxy_http_call", &[T("called"), Pairs(HEAD), T(""), Pairs(&[]), N(5000), Word])],
        )
        .answer(callback, answer)
        .on("http_call_response", resume)
}

async fn run(callback: &str, answer: u32, keys: &str, version: u8, ask: Ask) -> (Option<Reply>, Vec<Report>) {
    let running = World::start().await.run_with(&stops(callback, answer), keys).await;
    let reply = running.ask(version, ask).await;
    entered(running.log(), "delete", 1).await;
    (reply, running.stop().await)
}

/// The callbacks of the exchange that came between this one and the call's response.
fn before_resumed(reports: &[Report], callback: &str) -> Vec<String> {
    let from = reports.iter().position(|report| report.phase == callback).unwrap();
    let to = reports.iter().position(|report| report.phase == "http_call_response").unwrap_or(reports.len());
    reports[(from + 1).min(to)..to].iter().map(Report::shown).collect()
}

async fn check(callback: &str, answers: &[(u32, Meaning)], keys: &str) {
    for (answer, meaning) in answers {
        for version in [1, 2] {
            for (message, ask) in MESSAGES {
                let what = format!("{callback} answers {answer}, over HTTP/{version}, {message}");
                let (reply, reports) = run(callback, *answer, keys, version, ask()).await;
                let reply = reply.unwrap_or_else(|| panic!("{what}: no response\n{reports:?}"));
                let expected = match (meaning, callback) {
                    (Drop, "request_body") => "said ",
                    (Drop, _) => "",
                    _ => "said hello",
                };
                assert_eq!(reply.text(), expected, "{what}");
                // The server sends them to who asks for them.
                assert_eq!(
                    reply.trailers.len(),
                    usize::from(message == "with trailers"),
                    "{what}: {reply:?}"
                );
                let between = before_resumed(&reports, callback);
                // A body that is held meets what follows it: its own end, and trailers.
                let admitted = |entry: &String| {
                    callback.ends_with("_body")
                        && (entry.starts_with(callback)
                            || entry.starts_with(&callback.replace("body", "trailers")))
                };
                match meaning {
                    Continue => {}
                    _ if callback.ends_with("_body") && message == "with trailers" => {}
                    _ => assert!(between.iter().all(admitted), "{what}: {between:?}"),
                }
            }
        }
    }
}

#[tokio::test]
async fn of_request_headers() {
    check("request_headers", HEADERS, LIMITS).await;
}

#[tokio::test]
async fn of_request_body() {
    check("request_body", BODY, LIMITS).await;
}

#[tokio::test]
async fn of_request_trailers() {
    for (answer, meaning) in TRAILERS {
        for version in [1, 2] {
            trailers("request_trailers", *answer, *meaning, version).await;
        }
    }
}

#[tokio::test]
async fn of_response_headers() {
    check("response_headers", HEADERS, LIMITS).await;
}

#[tokio::test]
async fn of_response_body() {
    check("response_body", BODY, LIMITS).await;
}

#[tokio::test]
async fn of_response_trailers() {
    for (answer, meaning) in TRAILERS {
        for version in [1, 2] {
            trailers("response_trailers", *answer, *meaning, version).await;
        }
    }
}

/// With the opt-in of the filter: the body comes while the headers wait, and its callback can still change them.
#[tokio::test]
pub(super) async fn of_headers_that_are_held() {
    let keys = format!("{LIMITS}, compatibility: {{stop_iteration: hold_headers}}");
    let others: Vec<_> = HEADERS.iter().copied().filter(|(answer, _)| *answer != 1).collect();
    for (callback, body, map) in
        [("request_headers", "request_body", 0), ("response_headers", "response_body", 2)]
    {
        check(callback, &others, &keys).await;
        let mark = call("proxy_add_header_map_value", &[N(map), T("x-late"), T("1")]);
        let script = Script::default().answer(callback, 1).on(&format!("{body}#1"), [mark]);
        let running = World::start().await.run_with(&script, &keys).await;
        for version in [1, 2] {
            let reply = running.ask(version, whole()).await.expect("a response");
            assert_eq!(reply.text(), "said hello", "{callback}, HTTP/{version}");
            let seen = running.world.one.seen().pop().expect("a request");
            let late =
                if map == 0 { seen.header("x-late").to_owned() } else { reply.header("x-late").to_owned() };
            assert_eq!(late, "1", "{callback}, HTTP/{version}");
        }
        let reports = running.stop().await;
        assert_eq!(last(&reports, body).status(0), OK);
    }
}

/// A proxy with the guest, and a server over HTTP/2 that begins to answer when it is let, and then says what it is sent.
struct Early {
    gate: Meshgate,
    let_go: Arc<Semaphore>,
    /// There for as long as this is.
    _server: Backend,
}

impl Early {
    async fn start(script: &Script) -> Early {
        let let_go = Arc::new(Semaphore::new(0));
        let begin = Arc::clone(&let_go);
        let server = Backend::http2("early", move |_, request| {
            let begin = Arc::clone(&begin);
            async move {
                begin.acquire().await.map_err(std::io::Error::other)?.forget();
                let (mut sender, body) = streamed();
                tokio::spawn(async move {
                    if let Ok(sent) = request.into_body().collect().await {
                        let said = format!("said {}", String::from_utf8_lossy(&sent.to_bytes()));
                        let _ = sender.send_data(said.into()).await;
                    }
                });
                Response::builder().body(body).map_err(std::io::Error::other)
            }
        });
        let server = server.await;
        let quoted = serde_json::to_string(&script.json()).unwrap();
        let gate = Meshgate::chain(&format!("- conformance: {quoted}"))
            .guest("conformance", LIMITS)
            .cluster_of("one", &[server.address()], "protocol: http2")
            .start()
            .await;
        Early { gate, let_go, _server: server }
    }

    async fn client(&self, version: u8) -> Client {
        match version {
            1 => Client::http1(self.gate.address()).await,
            _ => Client::http2(self.gate.address()).await,
        }
    }
}

/// A request's body is held to its end, and resumed when the response's head is there. Another task sends it.
#[tokio::test]
async fn a_response_resumes_its_request() {
    let resume = call("proxy_continue_stream", &[N(0)]);
    let script = Script::default().answer("request_body", 1).on("response_headers", [resume]);
    for version in [1, 2] {
        let early = Early::start(&script).await;
        let mut client = early.client(version).await;
        let (mut sender, body) = streamed();
        let asked = client.begin(Ask::new(Method::POST, "/", body)).await.unwrap();
        sender.send_data("hello".into()).await.unwrap();
        drop(sender);
        until("the request's end in the filter", || async {
            let reports = reports(&early.gate.log().all());
            let mut bodies = reports.iter().filter(|report| report.phase == "request_body");
            bodies.any(|report| report.arguments.last() == Some(&1)).then_some(())
        })
        .await;
        early.let_go.add_permits(1);
        let response = within("the response's head", asked).await.unwrap();
        let reply = within("the response", Reply::collect(response)).await.unwrap();
        assert_eq!(reply.text(), "said hello", "HTTP/{version}");
    }
}

/// A response is held, and resumed when more of the request comes. The request's end, which all tasks hear of, comes later.
#[tokio::test]
async fn a_request_resumes_its_response() {
    let resume = call("proxy_continue_stream", &[N(1)]);
    let script = Script::default().answer("response_headers", 1).on("request_body", [resume]);
    for version in [1, 2] {
        let early = Early::start(&script).await;
        early.let_go.add_permits(1);
        let mut client = early.client(version).await;
        let (mut sender, body) = streamed();
        let asked = client.begin(Ask::new(Method::POST, "/", body)).await.unwrap();
        // Held from here on.
        entered(early.gate.log(), "response_headers", 1).await;
        sender.send_data("hello".into()).await.unwrap();
        let response = within("the response's head", asked).await.unwrap();
        drop(sender);
        let reply = within("the response", Reply::collect(response)).await.unwrap();
        assert_eq!(reply.text(), "said hello", "HTTP/{version}");
    }
}

async fn trailers(callback: &str, answer: u32, meaning: Meaning, version: u8) {
    let what = format!("{callback} answers {answer}, over HTTP/{version}");
    let (reply, reports) = run(callback, answer, LIMITS, version, whole()).await;
    let reply = reply.unwrap_or_else(|| panic!("{what}: no response"));
    assert_eq!((reply.text().as_str(), reply.trailers.len()), ("said hello", 1), "{what}");
    assert!(reply.header("x-sent").contains("x-last"), "{what}: {reply:?}");
    if meaning == Stop {
        let between = before_resumed(&reports, callback);
        assert!(between.iter().all(|entry| entry.starts_with("response_")), "{what}: {between:?}");
        assert!(callback == "request_trailers" || between.is_empty(), "{what}: {between:?}");
    }
}
