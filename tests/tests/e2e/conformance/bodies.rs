//! Bodies that come in parts: what the guest is told of their size, and what it reads, over HTTP/1.1 with their length,
//! in chunks, and over HTTP/2, in both directions. And what becomes of them when the guest has no callback for what follows.

use http::{Method, Response};
use meshgate_tests::{Ask, Backend, Body, Client, Meshgate, Reply, streamed, written};

use super::returns::stops;
use super::script::Arg::{Bytes, Message, N, T};
use super::script::Field::Text;
use super::script::{Report, Script, call, entered, reports};
use super::world::{World, whole};

const PARTS: [&str; 3] = ["one", "two", "six"];

/// How a body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length,
    Chunked,
    Http2,
}

const FRAMINGS: [Framing; 3] = [Framing::Length, Framing::Chunked, Framing::Http2];

/// A proxy with the guest and a server that sends back what came, in the same parts, when it is told to.
struct Streaming {
    gate: Meshgate,
    /// Parts of the response, for the server to send.
    parts: tokio::sync::mpsc::UnboundedSender<Option<&'static str>>,
    _one: Backend,
}

impl Streaming {
    async fn start(script: &Script, length: Option<&'static str>) -> Streaming {
        let (parts, waiting) = tokio::sync::mpsc::unbounded_channel::<Option<&'static str>>();
        let waiting = std::sync::Arc::new(tokio::sync::Mutex::new(waiting));
        let one = Backend::answering("one", move |_, request| {
            let waiting = std::sync::Arc::clone(&waiting);
            async move {
                use http_body_util::BodyExt;
                request.into_body().collect().await.map_err(std::io::Error::other)?;
                let (mut sender, body) = streamed();
                tokio::spawn(async move {
                    while let Some(Some(part)) = waiting.lock().await.recv().await {
                        let _ = sender.send_data(part.into()).await;
                    }
                });
                let mut answer = Response::builder();
                if let Some(length) = length {
                    answer = answer.header("content-length", length);
                }
                answer.body(body).map_err(std::io::Error::other)
            }
        })
        .await;
        let quoted = serde_json::to_string(&script.json()).unwrap();
        let gate = Meshgate::chain(&format!("- conformance: {quoted}"))
            .guest("conformance", "limits: {time: 1s}")
            .cluster("one", &[&one])
            .start()
            .await;
        Streaming { gate, parts, _one: one }
    }

    async fn client(&self, framing: Framing) -> Client {
        match framing {
            Framing::Http2 => Client::http2(self.gate.address()).await,
            _ => Client::http1(self.gate.address()).await,
        }
    }

    /// A request whose body comes in parts, each of them when the guest has seen the one before.
    async fn request(&self, framing: Framing) -> Reply {
        // An empty response, at once.
        let _ = self.parts.send(None);
        let (mut sender, body): (_, Body) = streamed();
        let ask = Ask::new(Method::POST, "/", body);
        let ask = if framing == Framing::Length { ask.header("content-length", "9") } else { ask };
        let mut client = self.client(framing).await;
        let reply = tokio::spawn(async move { client.call(ask).await });
        for (place, part) in PARTS.into_iter().enumerate() {
            sender.send_data(part.into()).await.unwrap();
            entered(self.gate.log(), "request_body", place + 1).await;
        }
        drop(sender);
        reply.await.unwrap()
    }

    /// The same for the response.
    async fn response(&self, framing: Framing) -> Reply {
        let mut client = self.client(framing).await;
        let reply = tokio::spawn(async move { client.get("/").await });
        for (place, part) in PARTS.into_iter().enumerate() {
            self.parts.send(Some(part)).unwrap();
            entered(self.gate.log(), "response_body", place + 1).await;
        }
        let _ = self.parts.send(None);
        reply.await.unwrap()
    }

    async fn stop(self) -> Vec<Report> {
        entered(self.gate.log(), "delete", 1).await;
        reports(&self.gate.stop().await.log)
    }
}

/// Size, end of stream and content of each body callback.
fn seen(reports: &[Report], callback: &str) -> Vec<(u32, u32, String)> {
    let reports = reports.iter().filter(|report| report.phase == callback);
    let content = |report: &Report| report.value(0).as_str().unwrap_or_default().to_owned();
    reports.map(|report| (report.arguments[0], report.arguments[1], content(report))).collect()
}

/// In both directions, over every framing.
async fn each(answer: Option<u32>, check: impl Fn(&str, &[(u32, u32, String)])) {
    for framing in FRAMINGS {
        for callback in ["request_body", "response_body"] {
            let read = call(
                "proxy_get_buffer_bytes",
                &[N(i64::from(callback == "response_body")), N(0), N(100), Bytes],
            );
            let mut script = Script::default().on(callback, [read]);
            if let Some(answer) = answer {
                // The first two parts; the third callback has the end, or the fourth.
                script =
                    script.answer(&format!("{callback}#1"), answer).answer(&format!("{callback}#2"), answer);
            }
            let promised = callback == "response_body" && framing == Framing::Length;
            let running = Streaming::start(&script, promised.then_some("9")).await;
            let reply = match callback {
                "request_body" => running.request(framing).await,
                _ => running.response(framing).await,
            };
            assert_eq!(reply.status, 200);
            if callback == "response_body" && answer != Some(3) {
                assert_eq!(reply.text(), "onetwosix", "{framing:?}");
            }
            let reports = running.stop().await;
            check(&format!("{callback}, {framing:?}"), &seen(&reports, callback));
        }
    }
}

/// Whether the last callback, and only that, says that the body has ended.
fn ends_once(what: &str, seen: &[(u32, u32, String)]) {
    let ends: Vec<_> = seen.iter().map(|(_, end, _)| *end).collect();
    assert_eq!((ends.last(), ends.iter().sum::<u32>()), (Some(&1), 1), "{what}: {seen:?}");
    for (size, _, content) in seen {
        assert_eq!(*size as usize, content.len(), "{what}: {seen:?}");
    }
}

#[tokio::test]
async fn what_passed_is_gone() {
    each(None, |what, seen| {
        ends_once(what, seen);
        let contents: Vec<_> =
            seen.iter().map(|(_, _, content)| content.as_str()).filter(|part| !part.is_empty()).collect();
        assert_eq!(contents, PARTS, "{what}");
    })
    .await;
}

#[tokio::test]
async fn what_is_held_adds_up() {
    each(Some(1), |what, seen| {
        ends_once(what, seen);
        let contents: Vec<_> = seen.iter().take(3).map(|(_, _, content)| content.as_str()).collect();
        assert_eq!(contents, ["one", "onetwo", "onetwosix"], "{what}");
    })
    .await;
}

#[tokio::test]
async fn what_is_dropped_is_gone() {
    each(Some(3), |what, seen| {
        ends_once(what, seen);
        let contents: Vec<_> = seen.iter().take(3).map(|(_, _, content)| content.as_str()).collect();
        assert_eq!(contents, PARTS, "{what}");
    })
    .await;
}

#[tokio::test]
async fn splices() {
    let set = |start: i64, length: i64, text: &'static str| {
        call("proxy_set_buffer_bytes", &[N(0), N(start), N(length), T(text)])
    };
    let read = call("proxy_get_buffer_bytes", &[N(0), N(0), N(100), Bytes]);
    for (splice, expected) in [
        (set(0, 0, "<"), "<hello"),
        (set(5, 0, ">"), "hello>"),
        (set(9_999, 7, ">"), "hello>"),
        (set(0, 5, "bye"), "bye"),
        (set(0, 0xffff_ffff, "bye"), "bye"),
        (set(0, 1, "J"), "Jello"),
        (set(1, 3, "-"), "h-o"),
        (set(2, 0, "--"), "he--llo"),
        (set(4, 0xffff_ffff, ""), "hell"),
        (set(0, 9, ""), ""),
    ] {
        let script = Script::default().on("request_body#1", [splice.clone(), read.clone()]);
        let (reply, reports) = super::world::exchange(&script).await;
        assert_eq!(super::world::last(&reports, "request_body").value(1), expected, "{}", splice.shown());
        assert_eq!(reply.text(), format!("said {expected}"), "{}", splice.shown());
    }
}

/// A filter without any other callback, which holds both bodies until it is told of their end.
fn holder() -> Vec<u8> {
    let callback = |direction: &str| {
        format!(
            r#"(func (export "proxy_on_{direction}_body") (param i32 i32 i32) (result i32) (i32.eqz (local.get 2)))"#
        )
    };
    written("", &(callback("request") + &callback("response")))
}

#[tokio::test]
async fn trailers_end_a_body_that_is_held_without_a_callback_for_them() {
    let world = World::start().await;
    let gate = Meshgate::chain("- holder")
        .filter("holder", &holder(), "")
        .cluster("one", &[&world.one])
        .start()
        .await;
    for mut client in [Client::http1(gate.address()).await, Client::http2(gate.address()).await] {
        let reply = client.call(whole()).await;
        assert_eq!((reply.status.as_u16(), reply.text().as_str()), (200, "said hello"));
        assert!(reply.header("x-sent").contains("x-last"), "{reply:?}");
        assert_eq!(reply.trailers["x-sum"], "42");
        // The end is told where there are none.
        let reply = client.call(Ask::post("/", "hello")).await;
        assert_eq!((reply.status.as_u16(), reply.text().as_str()), (200, "said hello"));
    }
}

#[tokio::test]
async fn what_has_no_callback_does_not_overtake_a_head_that_is_held() {
    let leave_out =
        |callbacks| call("proxy_call_foreign_function", &[T("meshgate.callbacks"), callbacks, Bytes]);
    for callbacks in [
        Message(&[(1, Text("request_trailers"))]),
        Message(&[(1, Text("request_body"))]),
        Message(&[(1, Text("request_body")), (1, Text("request_trailers"))]),
    ] {
        // It never resumes, and then it does when a call is answered.
        for (resumes, script, pause) in [
            (false, Script::default().answer("request_headers", 1), "300ms"),
            (true, stops("request_headers", 1), "15s"),
        ] {
            let script = script.answer("request_body", 1).on("configure", [leave_out(callbacks)]);
            let keys = format!(
                "limits: {{time: 1s, pause: {pause}}}, compatibility: {{stop_iteration: hold_headers}}"
            );
            let running = World::start().await.run_with(&script, &keys).await;
            for version in [1, 2] {
                let what = format!("{callbacks:?}, resumes: {resumes}, HTTP/{version}");
                let reply = running.ask(version, whole()).await.unwrap_or_else(|| panic!("{what}: nothing"));
                if resumes {
                    assert_eq!((reply.status.as_u16(), reply.text().as_str()), (200, "said hello"), "{what}");
                    assert!(reply.header("x-sent").contains("x-last"), "{what}: {reply:?}");
                } else {
                    assert_eq!((reply.status.as_u16(), running.world.one.requests()), (504, 0), "{what}");
                }
            }
        }
    }
}
