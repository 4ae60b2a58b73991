//! What both proxies have around them: the requests that come, and the backends that remember what they received.

use std::collections::BTreeMap;
use std::io::Error;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Response};
use http_body_util::BodyExt;
use meshgate_tests::{Answer, Ask, Backend, Body, Seen, full, grpc_backend, streamed};

use super::talk::talk_backend;

/// What was seen of one request: part by part, so that differences can be named.
pub(super) type Observed = BTreeMap<String, String>;

/// Fields that proxies add or change by themselves, in each its own way; filters have no part in them. And whether a timer
/// ran before a request came, which is a matter of chance.
pub(super) const IGNORED: [&str; 9] = [
    "date",
    "server",
    "via",
    "proxy-status",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-request-id",
    "x-test-id",
    "x-ticks",
];
/// The same, by prefix.
pub(super) const IGNORED_PREFIXES: [&str; 2] = ["x-envoy-", "x-meshgate-"];
/// Response fields whose values are compared by their form: digits and letters of hexadecimal numbers count as equal.
pub(super) const COMPARED_BY_FORM: &str = "x-form-";

/// One kind of request.
pub(super) struct Request {
    pub(super) label: &'static str,
    pub(super) ask: fn() -> Ask,
}

/// The requests that a scenario sends if it says nothing else, each over HTTP/1.1 and HTTP/2.
pub(super) const REQUESTS: &[Request] = &[
    Request { label: "get", ask: || marked(Ask::get("/get?a=b&c")) },
    Request { label: "post", ask: || marked(Ask::post("/post", "hello")) },
    Request { label: "chunked", ask: || marked(Ask::new(Method::POST, "/chunked", letters("hello"))) },
    Request { label: "letters", ask: || marked(Ask::get("/letters")) },
    Request {
        label: "trailers",
        ask: || {
            let ask = marked(Ask::post("/trailers", "hello")).header("te", "trailers");
            ask.trailers(&[("x-gone", "sent"), ("x-last", "z")])
        },
    },
];

/// The first one only, where the request does not matter.
pub(super) const GET: &[Request] = REQUESTS.split_at(1).0;

/// Where a body is held for a call, trailers are left out: they reach a filter although it holds the body, and what it
/// answers to them lets the body go. Whether that happens before or after the call's response is a matter of chance.
pub(super) const WITHOUT_TRAILERS: &[Request] = REQUESTS.split_at(REQUESTS.len() - 1).0;

/// Only those.
pub(super) const WITH_TRAILERS: &[Request] = REQUESTS.split_at(REQUESTS.len() - 1).1;

/// Adds fields that the scenarios work on.
pub(super) fn marked(ask: Ask) -> Ask {
    ask.header("x-remove", "1")
        .header("X-Set", "old")
        .header("x-add", "first")
        .header("x-request-id", "id-7")
        .header("user-agent", "tester")
        .header("referer", "http://elsewhere.example/")
}

/// Puts fields into `observed`, one part for each name.
pub(super) fn show(observed: &mut Observed, kind: &str, fields: &HeaderMap) {
    for name in fields.keys() {
        if IGNORED.contains(&name.as_str())
            || IGNORED_PREFIXES.iter().any(|start| name.as_str().starts_with(start))
        {
            continue;
        }
        let values = fields.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
        let mut values = values.collect::<Vec<_>>().join(" | ");
        if name.as_str().starts_with(COMPARED_BY_FORM) {
            values = form(&values);
        }
        if name.as_str() == "x-grpc" {
            values = without_words(&values);
        }
        observed.insert(format!("{kind} {name}"), values);
    }
}

/// What the guest `grpc` tells, but for the words beside a status: each proxy has its own.
fn without_words(events: &str) -> String {
    let shorten = |event: &str| match event.strip_prefix("close(").and_then(|rest| rest.split_once(' ')) {
        Some((code, _)) => format!("close({code})"),
        None => event.to_owned(),
    };
    events.split("; ").map(shorten).collect::<Vec<_>>().join("; ")
}

/// Hexadecimal digits become `#`; several of them become one, but for a whole 8-byte number.
pub(super) fn form(value: &str) -> String {
    let mut form: String = value.chars().map(|c| if c.is_ascii_hexdigit() { '#' } else { c }).collect();
    if value.contains([':', '-']) {
        while form.contains("##") {
            form = form.replace("##", "#");
        }
    }
    form
}

/// The backends that both proxies use, and what they received.
pub(super) struct World {
    one: Backend,
    called: Backend,
    silent: Backend,
    gone: SocketAddr,
    grpc: Backend,
    more: More,
    received: Received,
}

/// Backends that only some scenarios have clusters for.
struct More {
    broken: Backend,
    failing: Backend,
    /// It speaks HTTP/2, over which trailers need no leave.
    echo: Backend,
    talk: Backend,
}

pub(super) type Received = Arc<Mutex<Vec<(&'static str, Observed)>>>;

impl World {
    pub(super) async fn start() -> World {
        let received = Received::default();
        let (to_one, to_called) = (Arc::clone(&received), Arc::clone(&received));
        let more = More::start(&received).await;
        World {
            one: Backend::answering("one", move |seen, request| {
                let received = Arc::clone(&to_one);
                async move {
                    let body = record(&received, "one", seen.clone(), request).await?;
                    answer(&seen, &body)
                }
            })
            .await,
            called: Backend::answering("called", move |seen, request| {
                let received = Arc::clone(&to_called);
                async move {
                    let (status, text) = match (seen.path.as_str(), seen.header("authorization")) {
                        ("/whoami", "Bearer of-ann") => (200, r#"{"user": "Ann", "groups": ["staff"]}"#),
                        ("/whoami", "Bearer of-bob") => (200, r#"{"user": "Bob", "groups": []}"#),
                        ("/whoami", _) => (404, "nobody"),
                        (path, _) if path.starts_with("/deny") => (403, "from the call"),
                        _ => (200, "from the call"),
                    };
                    record(&received, "called", seen, request).await?;
                    let answer = Response::builder().status(status).body(full(text));
                    answer.map_err(Error::other)
                }
            })
            .await,
            silent: Backend::answering("silent", async |_, _| std::future::pending().await).await,
            grpc: grpc_backend("grpc").await,
            more,
            gone: std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap(),
            received,
        }
    }

    pub(super) fn clusters(&self) -> [(&'static str, SocketAddr); 4] {
        let Self { one, called, silent, gone, .. } = self;
        [("one", one.address()), ("called", called.address()), ("silent", silent.address()), ("gone", *gone)]
    }

    /// The one that speaks HTTP/2, and gRPC.
    pub(super) fn http2_cluster(&self) -> (&'static str, SocketAddr) {
        ("grpc", self.grpc.address())
    }

    /// The backend of this name, and whether it speaks HTTP/2.
    pub(super) fn backend(&self, name: &str) -> (SocketAddr, bool) {
        let More { broken, failing, echo, talk } = &self.more;
        let more = [(broken, false), (failing, false), (echo, true), (talk, true)];
        let more = more.map(|(backend, http2)| (backend.name().to_owned(), backend.address(), http2));
        let clusters = self.clusters().map(|(name, address)| (name.to_owned(), address, false));
        let found = clusters.into_iter().chain(more).find(|(known, ..)| known == name);
        let (_, address, http2) = found.unwrap_or_else(|| panic!("no backend {name}"));
        (address, http2)
    }

    /// What the backends received as a whole since the last time.
    pub(super) fn received(&self) -> Observed {
        let mut observed = Observed::new();
        let mut counts = BTreeMap::from([("one", 0), ("called", 0)]);
        for (backend, parts) in std::mem::take(&mut *self.received.lock().unwrap()) {
            let count = counts.entry(backend).or_insert(0);
            *count += 1;
            observed
                .extend(parts.into_iter().map(|(part, value)| (format!("{backend} {count}: {part}"), value)));
        }
        observed.extend(
            counts.into_iter().map(|(backend, count)| (format!("requests to {backend}"), count.to_string())),
        );
        observed
    }
}

impl More {
    async fn start(received: &Received) -> More {
        let received = Arc::clone(received);
        More {
            broken: Backend::answering("broken", async |_, _| Err(Error::other("broken"))).await,
            failing: Backend::answering("failing", async |_, _| {
                Response::builder().status(500).body(full("")).map_err(Error::other)
            })
            .await,
            echo: Backend::http2("echo", move |seen, request| echo(Arc::clone(&received), seen, request))
                .await,
            talk: talk_backend().await,
        }
    }
}

/// Answers with the request: its authority, method, path and token in fields, its body, and a trailer.
async fn echo(received: Received, seen: Seen, request: http::Request<hyper::body::Incoming>) -> Answer {
    let authority = request.uri().authority().map(ToString::to_string).unwrap_or_default();
    let said = format!("{} {} {:?}", seen.method, seen.path, seen.header("authorization"));
    let answer = Response::builder().status(201).header("x-seen", said).header("x-authority", authority);
    let body = record(&received, "echo", seen, request).await?;
    answer.body(with_trailers(body, &[("x-end", "yes")])).map_err(Error::other)
}

/// Reads the whole request, and remembers it if it was whole.
pub(super) async fn record(
    received: &Received,
    backend: &'static str,
    seen: Seen,
    request: http::Request<hyper::body::Incoming>,
) -> std::io::Result<String> {
    let body = request.into_body().collect().await.map_err(Error::other)?;
    let mut parts = Observed::new();
    parts.insert("method".to_owned(), seen.method.to_string());
    parts.insert("path".to_owned(), seen.path);
    show(&mut parts, "header", &seen.headers);
    if let Some(trailers) = body.trailers() {
        show(&mut parts, "trailer", trailers);
    }
    let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
    parts.insert("body".to_owned(), body.clone());
    received.lock().unwrap().push((backend, parts));
    Ok(body)
}

/// Two fields of one name, a field to remove; a body as a whole, letter by letter, or with trailers.
pub(super) fn answer(seen: &Seen, body: &str) -> Answer {
    let text = format!("said: {body}");
    let answer = Response::builder()
        .header("content-type", "text/x-test")
        .header("x-twice", "1")
        .header("x-twice", "2")
        .header("x-backend", "one");
    let answer = match seen.path.as_str() {
        "/letters" => answer.body(letters("letters")),
        "/trailers" => {
            let trailers = with_trailers(text, &[("x-sum", "42"), ("x-gone", "sent")]);
            answer.header("trailer", "x-sum, x-gone").body(trailers)
        }
        _ => answer.body(full(text)),
    };
    answer.map_err(Error::other)
}

/// A body that comes letter by letter, of unknown length.
pub(super) fn letters(text: &'static str) -> Body {
    let (mut sender, body) = streamed();
    tokio::spawn(async move {
        for letter in text.as_bytes().chunks(1) {
            let _ = sender.send_data(letter.into()).await;
        }
    });
    body
}

pub(super) fn with_trailers(text: String, fields: &[(&'static str, &'static str)]) -> Body {
    let (mut sender, body) = streamed();
    let fields = fields.iter();
    let fields = fields.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
    let trailers: HeaderMap = fields.collect();
    tokio::spawn(async move {
        sender.send_data(text.into()).await?;
        sender.send_trailers(trailers).await
    });
    body
}
