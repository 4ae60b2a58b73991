//! What stands behind the examples: servers on free ports that answer `NAME: METHOD PATH`, NAME being their cluster's, or do what
//! an example's own servers do.

use std::io;
use std::net::SocketAddr;

use bytes::BytesMut;
use http::{HeaderName, HeaderValue, Response};
use http_body_util::BodyExt;
use meshgate_tests::{
    Backend, Body, OtlpReceiver, RateLimits, Seen, WebSocketBackend, framed, full, messages, streamed,
};
use tokio::net::TcpSocket;

/// How many requests `global-rate-limit/limits.yaml` lets each user have.
const LIMIT: u8 = 3;

/// All that were started.
#[derive(Default)]
pub(super) struct Servers {
    backends: Vec<Backend>,
    websockets: Vec<WebSocketBackend>,
    /// Those of OpenTelemetry's protocol.
    pub(super) receivers: Vec<OtlpReceiver>,
    limits: Vec<RateLimits>,
    /// Ports that nobody listens on, nor can anybody else have.
    nobody: Vec<TcpSocket>,
}

impl Servers {
    /// Starts a server for an endpoint of this cluster.
    pub(super) async fn play(&mut self, cluster: &str) -> SocketAddr {
        match cluster {
            "chat" => {
                let server = WebSocketBackend::start().await;
                let address = server.address();
                self.websockets.push(server);
                address
            }
            "collector" => {
                let server = OtlpReceiver::http().await;
                let address = server.address();
                self.receivers.push(server);
                address
            }
            "limits" => {
                let server = RateLimits::start(LIMIT).await;
                let address = server.address();
                self.limits.push(server);
                address
            }
            "nobody" => {
                let socket = TcpSocket::new_v4().unwrap();
                socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
                let address = socket.local_addr().unwrap();
                self.nobody.push(socket);
                address
            }
            "greeter" => self.keep(greeter().await),
            _ => {
                // One of several does not do what it should.
                let fails =
                    cluster == "orders" && self.backends.iter().all(|backend| backend.name() != cluster);
                let name = cluster.to_owned();
                let backend = Backend::answering(cluster, move |seen, _| {
                    let answered = answer(&name, fails, &seen);
                    async move { Ok(answered) }
                })
                .await;
                self.keep(backend)
            }
        }
    }

    fn keep(&mut self, backend: Backend) -> SocketAddr {
        let address = backend.address();
        self.backends.push(backend);
        address
    }
}

/// What a server of this cluster answers.
fn answer(cluster: &str, fails: bool, seen: &Seen) -> Response<Body> {
    let plain = |status, text| (status, None, text);
    let (status, field, text) = match cluster {
        "application" => plain(200, format!("Good morning, {}.\n", seen.header("x-user"))),
        "tokens" => match seen.header("authorization") {
            "Bearer of-ann" => plain(200, r#"{"user": "Ann", "groups": ["staff"]}"#.to_owned()),
            "Bearer of-bob" => plain(200, r#"{"user": "Bob", "groups": []}"#.to_owned()),
            _ => plain(404, "null".to_owned()),
        },
        "policy" => policy(seen),
        "web" => plain(200, web(seen)),
        _ => plain(if fails { 503 } else { 200 }, format!("{cluster}: {} {}\n", seen.method, seen.path)),
    };
    let response = Response::builder().status(status).header("content-type", "text/plain");
    let response = field.into_iter().fold(response, |response, (name, value)| response.header(name, value));
    response.body(full(text)).unwrap()
}

/// As in `ext-authz/servers.py`: the status, a field, and the body.
fn policy(seen: &Seen) -> (u16, Option<(&'static str, &'static str)>, String) {
    let path = seen.header("x-forwarded-uri").split('?').next().unwrap_or_default();
    match (seen.header("authorization"), path) {
        ("Bearer of-ann", _) => (200, Some(("x-user", "Ann")), String::new()),
        ("Bearer of-bob", "/news") => (200, Some(("x-user", "Bob")), String::new()),
        ("Bearer of-bob", _) => (403, None, "Bob may only read the news\n".to_owned()),
        _ => (401, Some(("www-authenticate", "Bearer")), "who are you?\n".to_owned()),
    }
}

/// As in `edge/servers.py`.
fn web(seen: &Seen) -> String {
    let names = ["x-client", "x-user"].map(|name| seen.header(name));
    let who = names.into_iter().find(|name| !name.is_empty()).unwrap_or("anybody");
    let line = format!("web: {} {} for {who}\n", seen.method, seen.path);
    line.repeat(if seen.path == "/catalogue" { 100 } else { 1 })
}

/// `helloworld.Greeter`, whose `SayHello` greets whoever a well-formed call names.
async fn greeter() -> Backend {
    Backend::http2("greeter", async |seen, request| {
        let body = request.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
        // A message with the text in its first field.
        let name = messages(&mut BytesMut::from(&body[..])).pop().and_then(|message| {
            let [10, length, name @ ..] = &message[..] else { return None };
            (usize::from(*length) == name.len()).then(|| name.to_vec())
        });
        let greeting = match (&*seen.path, name) {
            ("/helloworld.Greeter/SayHello", Some(name)) => [b"Hello, ", &name[..]].concat(),
            _ => return Err(io::Error::other("no call of SayHello")),
        };
        let reply = [&[10, u8::try_from(greeting.len()).unwrap()], &greeting[..]].concat();
        let (mut sender, body) = streamed();
        tokio::spawn(async move {
            sender.send_data(framed(&reply)).await?;
            sender.send_trailers([("grpc-status", "0")].into_iter().map(field).collect()).await
        });
        Ok(Response::builder().header("content-type", "application/grpc").body(body).unwrap())
    })
    .await
}

fn field((name, value): (&'static str, &'static str)) -> (HeaderName, HeaderValue) {
    (HeaderName::from_static(name), HeaderValue::from_static(value))
}
