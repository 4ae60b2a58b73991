//! HTTP/2 to endpoints, gRPC through the proxy, gRPC calls of filters, and errors as gRPC clients understand them.

use std::net::TcpListener;

use bytes::{Bytes, BytesMut};
use http::{Method, Response};
use http_body_util::BodyExt;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use meshgate_tests::{
    Ask, Authority, Backend, Begun, BodySender, Client, GrpcCall, GrpcCalls, Meshgate, Messages, Reply, Says,
    Setup, TlsClient, TlsFront, empty, framed, full, grpc_backend, messages, streamed, within,
};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const HTTP2: &str = "protocol: http2";

/// No filters, one cluster that speaks HTTP/2.
fn to_http2(backend: &Backend) -> Setup {
    Meshgate::chain("").cluster_of("one", &[backend.address()], HTTP2)
}

fn unary(method: &str, message: &str) -> Ask {
    let ask = Ask::post(&format!("/test.Echo/{method}"), framed(message.as_bytes()));
    ask.header("content-type", "application/grpc").header("te", "trailers")
}

fn only_message(reply: &Reply) -> String {
    let found = messages(&mut BytesMut::from(&reply.body[..]));
    assert_eq!(found.len(), 1, "{reply:?}");
    String::from_utf8_lossy(&found[0]).into_owned()
}

fn trailer<'a>(reply: &'a Reply, name: &str) -> &'a str {
    reply.trailers.get(name).map_or("", |value| value.to_str().unwrap())
}

#[tokio::test]
async fn requests_share_a_connection_to_an_http2_endpoint() {
    let one = Backend::http2_echo("one").await;
    let gate = to_http2(&one).start().await;
    let mut http2 = Client::http2(gate.address()).await;
    for client in [&mut gate.client().await, &mut http2] {
        let reply = client.call(Ask::get("/path?a=b").header("x-a", "1")).await;
        let seen = reply.json();
        assert_eq!((&seen["method"], &seen["path"]), (&"GET".into(), &"/path?a=b".into()));
        assert_eq!((&seen["headers"]["x-a"], &seen["headers"]["host"]), (&"1".into(), &json!(null)));
        assert_eq!(reply.header("x-backend"), "one");

        let reply = client.call(Ask::post("/post", "x".repeat(300_000))).await;
        assert_eq!((&reply.json()["length"], reply.status.as_u16()), (&300_000.into(), 200));

        let (mut sender, body) = streamed();
        let ask = Ask::new(Method::POST, "/streamed", body).trailers(&[("x-last", "z")]);
        let asked = client.begin(ask).await.unwrap();
        sender.send_data(Bytes::from_static(b"in ")).await.unwrap();
        sender.send_data(Bytes::from_static(b"parts")).await.unwrap();
        drop(sender);
        let reply = Reply::collect(within("a response", asked).await.unwrap()).await.unwrap();
        assert_eq!(
            (&reply.json()["body"], &reply.json()["trailers"]["x-last"]),
            (&"in parts".into(), &"z".into())
        );
    }
    let answers: Vec<_> = futures_util::future::join_all((0..50).map(|_| gate.get("/many"))).await;
    assert!(answers.iter().all(|reply| reply.status == 200));
    assert_eq!(one.connections(), 1);
    let logged = gate.access("/post").await;
    assert_eq!((&logged["response_code"], &logged["cluster"]), (&200.into(), &"one".into()));
}

#[tokio::test]
async fn connections_outlive_a_reload_that_does_not_concern_them() {
    let one = Backend::http2_echo("one").await;
    let gate = to_http2(&one).start().await;
    assert_eq!(gate.get("/").await.status, 200);
    let before = gate.reload().await;
    let more = gate.setup().clone().cluster_of("two", &[one.address()], "");
    gate.edit("meshgate.yaml", more.yaml());
    let before = gate.reloaded(&before).await;
    assert_eq!(gate.get("/").await.status, 200);
    assert_eq!(one.connections(), 1);
    let changed =
        Meshgate::chain("").cluster_of("one", &[one.address()], "protocol: http2, idle_timeout: 50s");
    gate.edit("meshgate.yaml", changed.yaml());
    gate.reloaded(&before).await;
    assert_eq!(gate.get("/").await.status, 200);
    assert_eq!(one.connections(), 2);
}

#[tokio::test]
async fn an_endpoint_that_does_not_speak_http2_is_no_endpoint() {
    let one = Backend::echo("one").await;
    let gate = to_http2(&one).start().await;
    let reply = gate.get("/").await;
    assert_eq!((reply.status.as_u16(), one.requests()), (503, 0));
    assert_eq!(gate.access("/").await["response_flags"], "UF");
}

#[tokio::test]
async fn a_request_that_was_not_begun_is_sent_once_more() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = tokio::spawn(async move {
        let (mut first, _) = listener.accept().await.unwrap();
        first.read_exact(&mut [0; 24]).await.unwrap();
        first.write_all(b"\0\0\0\x04\0\0\0\0\0").await.unwrap();
        let mut kind = 0;
        while kind != 1 {
            let mut head = [0; 9];
            first.read_exact(&mut head).await.unwrap();
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            first.read_exact(&mut vec![0; length as usize]).await.unwrap();
            kind = head[3];
        }
        // GOAWAY: nothing was begun with, not even the request whose head has just come.
        first.write_all(b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0").await.unwrap();
        let (second, _) = listener.accept().await.unwrap();
        let answer = service_fn(async |_| Ok::<_, std::convert::Infallible>(Response::new(full("here"))));
        let _ =
            http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(second), answer).await;
    });
    let gate = Meshgate::chain("").cluster_of("one", &[address], HTTP2).start().await;
    let reply = gate.call(Ask::new(Method::POST, "/", empty())).await;
    assert_eq!((reply.status.as_u16(), reply.text()), (200, "here".to_owned()));
    served.abort();
}

#[tokio::test]
async fn grpc_passes_through() {
    let one = grpc_backend("one").await;
    let gate = to_http2(&one).start().await;
    let mut client = Client::http2(gate.address()).await;
    let reply = client.call(unary("Unary", "hello")).await;
    assert_eq!((reply.status.as_u16(), &*only_message(&reply)), (200, "echo: hello"));
    assert_eq!(
        (reply.header("x-initial"), trailer(&reply, "grpc-status"), trailer(&reply, "x-trailing")),
        ("i", "0", "t")
    );
    let fields = only_message(&client.call(unary("Fields", "")).await);
    assert!(fields.contains("te=trailers"), "{fields}");

    // Both ways at once: each answer is here before the next question.
    for method in ["Stream", "Early"] {
        let (mut sender, body) = streamed();
        let ask = Ask::new(Method::POST, &format!("/test.Echo/{method}"), body);
        let asked = client.begin(ask.header("content-type", "application/grpc")).await.unwrap();
        sender.send_data(framed(b"one")).await.unwrap();
        let mut response = within("the response's head", asked).await.unwrap().into_body();
        let answer = within("an answer", response.frame()).await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(answer, framed(b"echo: one"));
        if method == "Stream" {
            sender.send_data(framed(b"two")).await.unwrap();
            let answer = within("another answer", response.frame()).await.unwrap().unwrap();
            assert_eq!(answer.into_data().unwrap(), framed(b"echo: two"));
            drop(sender);
        }
        let last = within("the trailers", response.frame()).await.unwrap().unwrap();
        assert_eq!(last.into_trailers().unwrap()["grpc-status"], "0");
        assert!(within("the end", response.frame()).await.is_none());
    }
    let reply = client.call(unary("Refuse", "")).await;
    assert_eq!((reply.header("grpc-status"), reply.header("grpc-message")), ("7", "not for you"));
    assert!(client.try_call(unary("ResetLate", "x")).await.is_err(), "a broken response is not a whole one");
    assert_eq!(gate.access("/test.Echo/ResetLate").await["response_flags"], "UR");
}

/// A proxy that speaks HTTP/2 on both sides, a client, and an endpoint whose calls the test answers.
struct Led {
    gate: Meshgate,
    client: Client,
    endpoint: GrpcCalls,
    _front: Option<TlsFront>,
}

impl Led {
    async fn in_cleartext() -> Led {
        let endpoint = GrpcCalls::start("one").await;
        let gate = Meshgate::chain("").cluster_of("one", &[endpoint.address()], HTTP2).start().await;
        let client = Client::http2(gate.address()).await;
        Led { gate, client, endpoint, _front: None }
    }

    async fn through_tls() -> Led {
        const NAME: &str = "a.example.com";
        let (endpoint, authority) = (GrpcCalls::start("one").await, Authority::new());
        let issued = authority.issue(&Says::name(NAME));
        let front = TlsFront::to(endpoint.address(), &issued).alpn(&["h2"]).start().await;
        let keys = format!("{HTTP2}, tls: {{ca: ca.pem, server_name: {NAME}}}");
        let gate = Meshgate::chain("")
            .listener("tls: {certificates: [{certificate: web.pem, key: web.key}]}")
            .pair("web", &issued)
            .file("ca.pem", authority.certificate())
            .cluster_of("one", &[front.address()], &keys)
            .start()
            .await;
        let client = TlsClient::new(NAME, &authority).http2(gate.address()).await;
        Led { gate, client, endpoint, _front: Some(front) }
    }

    async fn both() -> [Led; 2] {
        [Led::in_cleartext().await, Led::through_tls().await]
    }

    /// Begins a call with one message.
    async fn ask(&mut self, method: &str, message: &str) -> (Begun, GrpcCall) {
        let asked = self.client.begin(unary(method, message)).await.unwrap();
        (asked, self.endpoint.next().await)
    }

    /// Begins a call whose messages the test sends.
    async fn open(&mut self, method: &str) -> (BodySender, Begun, GrpcCall) {
        let (sender, body) = streamed();
        let ask = Ask::new(Method::POST, &format!("/test.Echo/{method}"), body);
        let ask = ask.header("content-type", "application/grpc").header("te", "trailers");
        let asked = self.client.begin(ask).await.unwrap();
        (sender, asked, self.endpoint.next().await)
    }
}

/// The messages of a response.
async fn answered(asked: Begun) -> Messages {
    let response = within("the response's head", asked).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["content-type"]),
        (200, &"application/grpc".parse().unwrap())
    );
    Messages::of(response.into_body())
}

/// An empty message, one of all bytes, one that takes several frames and more than a window, and a last one.
fn contents() -> [Bytes; 4] {
    [Bytes::new(), (0..=255_u8).collect(), vec![7_u8; 200_000].into(), Bytes::from_static(b"last")]
}

#[tokio::test]
async fn one_message_is_answered_by_many_each_of_which_comes_as_it_is_sent() {
    for (mut led, status) in Led::both().await.into_iter().zip(["0", "8"]) {
        let (asked, mut call) = led.ask("Many", "how many?").await;
        assert_eq!((call.seen.path.as_str(), call.seen.header("te")), ("/test.Echo/Many", "trailers"));
        assert_eq!(call.asked.next().await.unwrap(), Some("how many?".into()));
        assert_eq!(call.asked.next().await.unwrap(), None, "the client has ended");
        let [first, others @ ..] = contents();
        call.answer(&first).await;
        let mut answers = answered(asked).await;
        assert_eq!(answers.next().await.unwrap(), Some(first));
        // Each is read before the next one is sent.
        for content in others {
            call.answer(&content).await;
            assert_eq!(answers.next().await.unwrap(), Some(content));
        }
        call.end(status).await;
        assert_eq!(answers.next().await.unwrap(), None);
        assert_eq!((answers.trailer("grpc-status"), answers.trailer("x-trailing")), (status, "t"));
        let logged = led.gate.access("/test.Echo/Many").await;
        assert_eq!(logged["response_code"], 200, "{logged}");
        assert!(logged["response_flags"].is_null(), "{logged}");
    }
}

#[tokio::test]
async fn many_messages_each_of_which_arrives_as_it_is_sent_are_answered_by_one() {
    for mut led in Led::both().await {
        let (mut sender, asked, mut call) = led.open("One").await;
        // Each is read before the next one is sent.
        for content in contents() {
            sender.send_data(framed(&content)).await.unwrap();
            assert_eq!(call.asked.next().await.unwrap(), Some(content));
        }
        drop(sender);
        assert_eq!(call.asked.next().await.unwrap(), None, "the end arrives, too");
        call.answer(b"one for all").await;
        call.end("0").await;
        let reply = Reply::collect(within("the response's head", asked).await.unwrap()).await.unwrap();
        assert_eq!(
            (&*only_message(&reply), trailer(&reply, "grpc-status"), trailer(&reply, "x-trailing")),
            ("one for all", "0", "t")
        );
    }
}

#[tokio::test]
async fn an_endpoint_hears_that_the_client_gives_up_in_each_kind_of_stream() {
    for mut led in Led::both().await {
        // Many to one: there is no response yet.
        let (mut sender, asked, mut call) = led.open("One").await;
        sender.send_data(framed(b"first")).await.unwrap();
        assert_eq!(call.asked.next().await.unwrap(), Some("first".into()));
        drop(asked);
        assert!(call.asked.next().await.is_err(), "that is no end in order");
        call.given_up().await;
        assert_eq!(led.gate.access("/test.Echo/One").await["response_flags"], "DC");

        // One to many: the response is in its middle.
        let (asked, mut call) = led.ask("Many", "how many?").await;
        call.answer(b"first").await;
        let mut answers = answered(asked).await;
        assert_eq!(answers.next().await.unwrap(), Some("first".into()));
        drop(answers);
        call.given_up().await;
        assert_eq!(led.gate.access("/test.Echo/Many").await["response_flags"], "DC");

        // Both ways.
        let (mut talker, asked, mut call) = led.open("Both").await;
        talker.send_data(framed(b"question")).await.unwrap();
        assert_eq!(call.asked.next().await.unwrap(), Some("question".into()));
        call.answer(b"answer").await;
        let mut answers = answered(asked).await;
        assert_eq!(answers.next().await.unwrap(), Some("answer".into()));
        talker.abort(std::io::Error::other("gives up"));
        assert!(call.asked.next().await.is_err(), "that is no end in order");
        call.given_up().await;

        // The connections have not suffered.
        let (asked, mut call) = led.ask("Again", "still here?").await;
        call.answer(b"yes").await;
        call.end("0").await;
        let mut answers = answered(asked).await;
        assert_eq!(answers.next().await.unwrap(), Some("yes".into()));
        assert_eq!(answers.next().await.unwrap(), None);
        assert_eq!(answers.trailer("grpc-status"), "0");
        drop(sender);
    }
}

#[tokio::test]
async fn failures_are_told_in_grpc() {
    let one = grpc_backend("one").await;
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gone = Meshgate::chain("").cluster_of("gone", &[nobody], HTTP2).start().await;
    let reply = Client::http2(gone.address()).await.call(unary("Unary", "x")).await;
    let told = |reply: &Reply| {
        assert_eq!(
            (reply.status.as_u16(), reply.header("content-type"), reply.body.len()),
            (200, "application/grpc", 0)
        );
        (reply.header("grpc-status").to_owned(), reply.header("grpc-message").to_owned())
    };
    assert_eq!(told(&reply), ("14".into(), "upstream connection failure".into()));
    let logged = gone.access("/test.Echo/Unary").await;
    assert_eq!((&logged["response_code"], &logged["response_flags"]), (&200.into(), &"UF".into()));

    let gate =
        to_http2(&one).listener("request_timeout: 100ms").listener("max_request_body: 1KiB").start().await;
    let mut client = Client::http2(gate.address()).await;
    assert_eq!(
        told(&client.call(unary("Silent", "x")).await),
        ("4".into(), "upstream request timeout".into())
    );
    assert_eq!(told(&client.call(unary("ResetEarly", "x")).await).0, "14");
    assert_eq!(
        told(&client.call(unary("Unary", &"far too long".repeat(100))).await),
        ("2".into(), "request body too large".into())
    );
    let refused = unary("Unary", "x").header("expect", "a miracle");
    assert_eq!(told(&client.call(refused).await).0, "2", "no request head is acceptable that expects more");

    let none = Meshgate::chain("").start().await;
    assert_eq!(
        told(&Client::http2(none.address()).await.call(unary("x", "")).await),
        ("12".into(), "no route".into())
    );
}

/// A proxy whose requests each have the guest make a call to a gRPC server; the requests go to another one.
struct Calls {
    gate: Meshgate,
    server: Backend,
    _one: Backend,
}

impl Calls {
    async fn start(configuration: &str) -> Calls {
        Calls::limited(configuration, "").await
    }

    /// The filter has these settings.
    async fn limited(configuration: &str, settings: &str) -> Calls {
        let (one, server) = (Backend::echo("one").await, grpc_backend("grpc").await);
        let gate = Meshgate::chain(&format!("- grpc: {configuration}"))
            .guest("grpc", settings)
            .cluster("one", &[&one])
            .cluster("grpc", &[&server])
            .start()
            .await;
        Calls { gate, server, _one: one }
    }

    /// What one request's call came to, as the endpoint and the client see it.
    async fn told(configuration: &str) -> String {
        let calls = Calls::start(configuration).await;
        let reply = calls.gate.get("/").await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.json()["headers"]["x-grpc"], reply.header("x-grpc"));
        reply.header("x-grpc").to_owned()
    }
}

#[tokio::test]
async fn a_filter_calls() {
    let calls = Calls::start("{method: Unary, send: [hello]}").await;
    for _ in 0..3 {
        assert_eq!(calls.gate.get("/").await.header("x-grpc"), "start(); message(echo: hello)");
    }
    assert_eq!(calls.server.connections(), 1, "over HTTP/2, whatever the cluster says");

    let fields = Calls::told("{method: Fields, send: [x], metadata: {x-own: a}, timeout_ms: 1500}").await;
    let expected = ":authority=grpc content-type=application/grpc grpc-timeout=1500m te=trailers x-own=a";
    assert_eq!(fields, format!("start(); message({expected})"));
    let fields = Calls::told("{as_message: true, method: Fields, send: [x]}").await;
    let expected = ":authority=grpc.example content-type=application/grpc te=trailers x-service=1";
    assert_eq!(fields, format!("start(); message({expected})"));
}

#[tokio::test]
async fn a_filter_streams() {
    let both = "initial(true 200 i); message(echo: one); message(echo: two); trailing(true 0 t); close(0 )";
    for how in ["", ", lockstep: true", ", then: close", ", lockstep: true, then: close"] {
        let configuration = format!("{{stream: true, method: Stream, send: [one, two]{how}}}");
        assert_eq!(Calls::told(&configuration).await, format!("start(); {both}"), "{how}");
    }
    let told = Calls::told("{stream: true, method: Early, send: [one], then: nothing, again: true}").await;
    let one = "initial(true 200 i); message(echo: one); trailing(true 0 t); close(0 )";
    assert_eq!(told, format!("start(); {one}; again[false, false, false]"));
    let told = Calls::told("{stream: true, method: Refuse, send: [one]}").await;
    assert_eq!(told, "start(); initial(false - -); trailing(true 7 -); close(7 not for you)");

    // One to many, and many to one.
    for (configuration, messages) in [
        ("method: Split, send: [one two three]", "message(one); message(two); message(three)"),
        ("method: Join, send: [one, two, three]", "message(one two three)"),
        ("method: Join, send: [one, two, three], then: close", "message(one two three)"),
    ] {
        let told = Calls::told(&format!("{{stream: true, {configuration}}}")).await;
        let expected = format!("start(); initial(true 200 i); {messages}; trailing(true 0 t); close(0 )");
        assert_eq!(told, expected, "{configuration}");
    }
}

#[tokio::test]
async fn a_filter_cancels() {
    for (configuration, expected) in [
        ("{method: Silent, send: [x], cancel: start}", "start(); cancelled"),
        ("{stream: true, method: Silent, send: [x], cancel: start}", "start(); cancelled"),
        (
            "{stream: true, method: Stream, send: [x], then: nothing, cancel: message, again: true}",
            "start(); initial(true 200 i); message(echo: x); cancelled; again[false, false, false]",
        ),
    ] {
        let calls = Calls::start(configuration).await;
        assert_eq!(calls.gate.get("/").await.header("x-grpc"), expected);
        // The next one is not disturbed.
        assert_eq!(calls.gate.get("/").await.header("x-grpc"), expected);
    }
}

#[tokio::test]
async fn failed_calls_have_the_status_that_grpc_gives_them() {
    for (method, expected) in [
        ("Refuse", "close(7 not for you)"),
        ("NoSuch", "close(12 )"),
        ("Status404", "close(12 the response is not one of gRPC)"),
        ("Html", "close(2 the response's content-type is not gRPC's)"),
        ("NoStatus", "close(2 )"),
        ("NoTrailers", "close(2 )"),
        ("NoMessage", "close(13 no message)"),
        ("TwoMessages", "close(13 more than one message)"),
        ("Compressed", "close(13 message with a compression that was not offered)"),
        ("Cut", "close(13 the response ends inside of a message)"),
        ("Large", "close(8 message too large)"),
        ("ResetEarly", "close(13 upstream reset the stream)"),
        ("ResetLate", "close(13 upstream reset the stream)"),
        ("Silent", "close(4 upstream request timeout)"),
    ] {
        let told = Calls::told(&format!("{{method: {method}, send: [x], timeout_ms: 300}}")).await;
        assert_eq!(told, format!("start(); {expected}"), "{method}");
    }
    let none = "initial(false - -); trailing";
    let begun = "initial(true 200 i)";
    for (method, expected) in [
        ("Status404", format!("{none}(false - -); close(12 the response is not one of gRPC)")),
        ("Large", format!("{begun}; trailing(false - -); close(8 message too large)")),
        ("ResetEarly", format!("{none}(true 13 -); close(13 upstream reset the stream)")),
        (
            "ResetLate, lockstep: true",
            format!("{begun}; message(echo: x); trailing(false - -); close(13 upstream reset the stream)"),
        ),
    ] {
        let told = Calls::told(&format!("{{stream: true, send: [x, y], method: {method}}}")).await;
        assert_eq!(told, format!("start(); {expected}"), "{method}");
    }
}

#[tokio::test]
async fn what_comes_must_find_room() {
    let settings = "limits: {call_body: 4MiB, call_bytes: 256KiB}";
    let calls = Calls::limited("{method: Large, send: [x]}", settings).await;
    for _ in 0..2 {
        assert_eq!(calls.gate.get("/").await.header("x-grpc"), "start(); close(8 no room for the message)");
    }
    let met = [("plugin", "grpc"), ("limit", "call_bytes")];
    assert_eq!(calls.gate.metrics().await.sum("meshgate_plugin_limit_exceeded_total", &met), 2.0);
    let calls = Calls::limited("{method: Unary, send: [x]}", settings).await;
    assert_eq!(calls.gate.get("/").await.header("x-grpc"), "start(); message(echo: x)");
}

#[tokio::test]
async fn calls_to_nowhere() {
    let told = Calls::told("{cluster: nowhere, method: Unary, send: [x]}").await;
    assert_eq!(told, "refused(4)");
    let one = Backend::echo("one").await;
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (kind, expected) in [
        ("", "start(); close(14 upstream connect error)"),
        (
            "stream: true, ",
            "start(); initial(false - -); trailing(true 14 -); close(14 upstream connect error)",
        ),
    ] {
        let gate = Meshgate::chain(&format!("- grpc: {{{kind}cluster: gone, method: Unary, send: [x]}}"))
            .guest("grpc", "")
            .cluster("one", &[&one])
            .cluster_of("gone", &[nobody], "")
            .start()
            .await;
        assert_eq!(gate.get("/").await.header("x-grpc"), expected);
    }
}
