//! The life of a filter written directly on the `proxy-wasm` crate: headers, bodies, trailers, calls, local responses,
//! ticks, properties, logs. The guest `plain` does what its configuration says.

use http::{HeaderMap, HeaderValue, Response};
use http_body_util::BodyExt;
use meshgate_tests::{
    Answer, Ask, Backend, Client, Meshgate, Reply, Seen, Setup, full, streamed, until, within,
};

/// A chain of one `plain` with this configuration.
fn plain(configuration: &str) -> Setup {
    Meshgate::chain(&format!("- plain: {configuration}")).guest("plain", "")
}

/// The same request over both versions of HTTP.
async fn over_both(gate: &Meshgate, ask: impl Fn() -> Ask) -> [Reply; 2] {
    [gate.call(ask()).await, Client::http2(gate.address()).await.call(ask()).await]
}

/// Answers with what came, in three parts, and with a trailer.
async fn mirror(_: Seen, request: http::Request<hyper::body::Incoming>) -> Answer {
    let body = request.into_body().collect().await.map_err(std::io::Error::other)?;
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("42"));
    let bytes = body.to_bytes();
    let (mut sender, body) = streamed();
    tokio::spawn(async move {
        for part in bytes.chunks(bytes.len().div_ceil(3).max(1)) {
            sender.send_data(bytes.slice_ref(part)).await?;
        }
        sender.send_trailers(trailers).await
    });
    Ok(Response::builder().header("trailer", "x-sum").body(body).unwrap())
}

#[tokio::test]
async fn header_maps_are_read_and_written() {
    let one = Backend::echo("one").await;
    let gate = plain(
        "{request: {remove: [x-remove], set: {x-set: new}, add: {x-add: second}}, \
          response: {remove: [content-type], set: {x-backend: hidden}, add: {x-added: \"1\"}}}",
    )
    .cluster("one", &[&one])
    .start()
    .await;
    let ask = || Ask::get("/").header("x-remove", "1").header("X-Set", "old").header("x-add", "first");
    for reply in over_both(&gate, ask).await {
        let headers = &reply.json()["headers"];
        assert!(headers["x-remove"].is_null());
        assert_eq!((&headers["x-set"], &headers["x-add"]), (&"new".into(), &"first, second".into()));
        assert_eq!((reply.header("x-backend"), reply.header("x-added")), ("hidden", "1"));
        assert!(!reply.headers.contains_key("content-type"));
    }
}

#[tokio::test]
async fn pseudo_headers_are_fields_like_others() {
    let one = Backend::echo("one").await;
    let gate = plain(
        "{request: {set: {\":path\": \"/rewritten?a=b\", \":method\": PUT, \":authority\": inside.example}}, \
          response: {set: {\":status\": \"418\"}}}",
    )
    .cluster("one", &[&one])
    .start()
    .await;
    for reply in over_both(&gate, || Ask::post("/original", "body")).await {
        assert_eq!(reply.status, 418);
        let seen = reply.json();
        assert_eq!((&seen["method"], &seen["path"]), (&"PUT".into(), &"/rewritten?a=b".into()));
        assert_eq!(seen["headers"]["host"], "inside.example");
        assert_eq!(seen["body"], "body");
    }
    assert_eq!(gate.access("/original").await["response_code"], 418);
}

#[tokio::test]
async fn what_a_filter_writes_is_checked_like_input() {
    let one = Backend::echo("one").await;
    for bad in [
        "x-a: \"b\\r\\nx-injected: 1\"",
        "\"x a\": b",
        "\"\": b",
        "\":path\": \"/a b\"",
        "\":method\": \"G T\"",
    ] {
        let gate = plain(&format!("{{request: {{set: {{{bad}}}}}}}")).cluster("one", &[&one]).start().await;
        let count = one.requests();
        // The hostcall is refused, and the crate `proxy-wasm` panics about that: nothing goes upstream.
        let reply = gate.get("/").await;
        assert_eq!((reply.status.as_u16(), one.requests()), (503, count), "{bad}");
        assert_eq!(gate.access("/").await["response_flags"], "WT", "{bad}");
    }
}

#[tokio::test]
async fn request_body_is_rewritten() {
    let one = Backend::echo("one").await;
    for (edit, expected) in [
        ("{replace: other}", "other"),
        ("{replace: \"\"}", ""),
        ("{append: \" world\"}", "hello world"),
        ("{prepend: \"oh, \"}", "oh, hello"),
        ("{uppercase: true}", "HELLO"),
    ] {
        let gate = plain(&format!("{{request_body: {edit}}}")).cluster("one", &[&one]).start().await;
        for reply in over_both(&gate, || Ask::post("/", "hello")).await {
            assert_eq!(reply.json()["body"], expected, "{edit}");
        }
        for reply in over_both(&gate, || Ask::new(http::Method::POST, "/", in_parts("hello"))).await {
            assert_eq!(reply.json()["body"], expected, "{edit}, of unknown length");
        }
    }
}

/// A body that comes letter by letter, of unknown length.
fn in_parts(text: &'static str) -> meshgate_tests::Body {
    let (mut sender, body) = streamed();
    tokio::spawn(async move {
        for letter in text.as_bytes().chunks(1) {
            let _ = sender.send_data(letter.into()).await;
        }
    });
    body
}

#[tokio::test]
async fn response_body_is_rewritten() {
    let one = Backend::answering("one", async |seen, _| {
        Ok(Response::new(if seen.path == "/parts" { in_parts("hello") } else { full("hello") }))
    })
    .await;
    for (edit, expected) in [
        ("{replace: other}", "other"),
        ("{replace: \"\"}", ""),
        ("{append: \" world\"}", "hello world"),
        ("{prepend: \"oh, \"}", "oh, hello"),
        ("{uppercase: true}", "HELLO"),
    ] {
        let gate = plain(&format!("{{response_body: {edit}}}")).cluster("one", &[&one]).start().await;
        for path in ["/whole", "/parts"] {
            for reply in over_both(&gate, || Ask::get(path)).await {
                assert_eq!(reply.text(), expected, "{edit} {path}");
            }
        }
    }
}

#[tokio::test]
async fn large_bodies_pass_a_filter_that_looks_at_each_part() {
    let one = Backend::answering("one", mirror).await;
    let gate = plain("{request_body: {uppercase: true}, response_body: {append: \"!\"}}")
        .cluster("one", &[&one])
        .start()
        .await;
    let sent: String = (0..700_000).map(|number| format!("{number:05}a")).collect();
    let expected = sent.to_ascii_uppercase() + "!";
    for reply in over_both(&gate, || Ask::post("/", sent.clone())).await {
        assert_eq!(reply.body.len(), expected.len());
        assert!(reply.body == expected.as_bytes(), "{} bytes that differ", reply.body.len());
    }
}

#[tokio::test]
async fn whole_body_is_held_up_to_the_limit() {
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain("- plain: {request_body: {replace: small}}")
        .guest("plain", "limits: {body: 100KiB}")
        .cluster("one", &[&one])
        .start()
        .await;
    for reply in over_both(&gate, || Ask::post("/", vec![b'x'; 100 * 1024])).await {
        assert_eq!(reply.json()["body"], "small");
    }
    for reply in over_both(&gate, || Ask::post("/too-large", vec![b'x'; 200 * 1024])).await {
        assert_eq!(reply.status, 413);
    }
    assert_eq!(gate.access("/too-large").await["response_flags"], "WL");

    let large =
        Backend::answering("large", async |_, _| Ok(Response::new(full(vec![b'x'; 200 * 1024])))).await;
    let gate = Meshgate::chain("- plain: {response_body: {replace: small}}")
        .guest("plain", "limits: {body: 100KiB}")
        .cluster("large", &[&large])
        .start()
        .await;
    let mut client = gate.client().await;
    // The head may be on its way when the limit is reached; then the answer is broken off.
    if let Ok(reply) = client.try_call(Ask::get("/")).await {
        assert_eq!(reply.status, 502);
    }
    assert_eq!(gate.access("/").await["response_flags"], "WL");
}

#[tokio::test]
async fn trailers_are_read_and_written() {
    let one = Backend::answering("one", async |seen, request| {
        let body = request.into_body().collect().await.map_err(std::io::Error::other)?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        let (mut sender, body) = streamed();
        tokio::spawn(async move {
            sender.send_data("body".into()).await?;
            sender.send_trailers(trailers).await
        });
        let _ = seen;
        Ok(Response::builder().header("trailer", "x-first, x-from-request").body(body).unwrap())
    })
    .await;
    // HTTP/1.1 carries upstream only trailers that the head announced, so the filter announces its own.
    let gate = plain(
        "{request: {set: {trailer: \"x-first, x-from-request\"}}, \
          request_trailers: {remove: [x-gone], add: {x-from-request: \"1\"}}, \
          response_trailers: {set: {x-first: changed}, add: {x-from-response: \"2\"}}}",
    )
    .cluster("one", &[&one])
    .start()
    .await;
    let ask = || {
        Ask::post("/", "body").header("te", "trailers").trailers(&[("x-first", "sent"), ("x-gone", "sent")])
    };
    let reply = Client::http2(gate.address()).await.call(ask()).await;
    let trailers = |name: &str| reply.trailers.get(name).map(|value| value.to_str().unwrap());
    assert_eq!(trailers("x-first"), Some("changed"));
    assert_eq!(trailers("x-from-request"), Some("1"), "added on the way in, seen by the backend, sent back");
    assert_eq!(trailers("x-from-response"), Some("2"));
    assert_eq!(trailers("x-gone"), None);
    assert_eq!(reply.text(), "body");
}

#[tokio::test]
async fn exchange_pauses_for_a_call_in_each_phase() {
    let called = Backend::answering("called", async |_, _| Ok(Response::new(full("from the call")))).await;
    for phase in ["request_headers", "request_body", "request_trailers", "response_headers", "response_body"]
    {
        let one = Backend::answering("one", mirror).await;
        let gate = plain(&format!("{{call: {{at: {phase}, cluster: called, path: /check?a=b}}}}"))
            .cluster("one", &[&one])
            .cluster("called", &[&called])
            .start()
            .await;
        let ask = || match phase {
            "request_trailers" => {
                Ask::post("/", "hello").header("te", "trailers").trailers(&[("x-last", "z")])
            }
            _ => Ask::post("/", "hello").header("te", "trailers"),
        };
        for reply in over_both(&gate, ask).await {
            assert_eq!((reply.status.as_u16(), reply.text().as_str()), (200, "hello"), "{phase}");
            assert_eq!(reply.trailers["x-sum"], "42", "{phase}");
            // Later than that, the response's head is on its way.
            if phase != "response_body" {
                assert_eq!(reply.header("x-call-status"), "200", "{phase}");
                assert_eq!(reply.header("x-call-body"), "from the call", "{phase}");
            }
        }
        if phase == "request_headers" {
            assert_eq!(one.seen()[0].header("x-call-body"), "from the call");
        }
    }
    let calls = called.seen();
    assert_eq!(calls.len(), 10);
    assert!(calls.iter().all(|call| call.path == "/check?a=b" && call.header("host") == "called.example"));
}

#[tokio::test]
async fn nothing_goes_upstream_while_a_call_is_out() {
    let go_on = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let waiting = go_on.clone();
    let called = Backend::answering("called", move |_, _| {
        let waiting = waiting.clone();
        async move {
            waiting.acquire().await.unwrap().forget();
            Ok(Response::new(full("done")))
        }
    })
    .await;
    let one = Backend::echo("one").await;
    let gate = plain("{call: {at: request_headers, cluster: called, path: /, timeout_ms: 60000}}")
        .cluster("one", &[&one])
        .cluster("called", &[&called])
        .start()
        .await;
    let mut client = gate.client().await;
    let begun = client.begin(Ask::post("/", "hello")).await.unwrap();
    called.wait_for_requests(1).await;
    assert_eq!(one.requests(), 0);
    // Others on the same worker are not held up.
    let mut other = gate.client().await;
    let other_begun = other.begin(Ask::get("/other")).await.unwrap();
    called.wait_for_requests(2).await;
    go_on.add_permits(2);
    let reply = Reply::collect(within("an answer", begun).await.unwrap()).await.unwrap();
    assert_eq!(reply.json()["body"], "hello");
    assert_eq!(within("an answer", other_begun).await.unwrap().status(), 200);
}

#[tokio::test]
async fn call_can_make_the_answer() {
    let one = Backend::echo("one").await;
    let called = Backend::answering("called", async |_, _| {
        Ok(Response::builder().status(403).body(full("not you")).unwrap())
    })
    .await;
    let gate = plain("{call: {at: request_headers, cluster: called, path: /, then: reply}}")
        .cluster("one", &[&one])
        .cluster("called", &[&called])
        .start()
        .await;
    for reply in over_both(&gate, || Ask::post("/", "hello")).await {
        assert_eq!((reply.status.as_u16(), reply.text().as_str()), (403, "not you"));
        assert_eq!(reply.header("x-from"), "call");
    }
    assert_eq!(one.requests(), 0);
}

#[tokio::test]
async fn call_that_fails_is_told_to_the_filter() {
    let one = Backend::echo("one").await;
    let silent = Backend::answering("silent", async |_, _| std::future::pending().await).await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (cluster, expected) in [("silent", "504"), ("gone", "503"), ("unknown", "refused 2")] {
        let gate = plain(&format!(
            "{{call: {{at: request_headers, cluster: {cluster}, path: /, timeout_ms: 200}}}}"
        ))
        .cluster("one", &[&one])
        .cluster("silent", &[&silent])
        .cluster_of("gone", &[closed], "")
        .start()
        .await;
        let reply = gate.get("/").await;
        assert_eq!((reply.status.as_u16(), reply.header("x-call-status")), (200, expected), "{cluster}");
    }
    silent.wait_until_unused().await;
}

#[tokio::test]
async fn filter_answers_by_itself_in_each_phase() {
    let called = Backend::answering("called", async |_, _| Ok(Response::new(full("")))).await;
    for phase in [
        "request_headers",
        "request_body",
        "request_trailers",
        "response_headers",
        "response_body",
        "response_trailers",
        "call",
    ] {
        let one = Backend::answering("one", mirror).await;
        let call =
            if phase == "call" { "call: {at: request_headers, cluster: called, path: /}, " } else { "" };
        let reply =
            format!("reply: {{at: {phase}, status: 429, body: slow down, headers: {{x-own: \"1\"}}}}");
        // A filter outside of it sees the answer on its way out.
        let gate = Meshgate::chain(&format!(
            "- headers: {{response: {{set: {{x-outer: seen}}}}}}\n- plain: {{{call}{reply}}}"
        ))
        .guest("plain", "")
        .cluster("one", &[&one])
        .cluster("called", &[&called])
        .start()
        .await;
        let ask = || Ask::post("/", "hello").header("te", "trailers").trailers(&[("x-last", "z")]);
        for mut client in [gate.client().await, Client::http2(gate.address()).await] {
            match within(phase, client.try_call(ask())).await {
                Ok(reply) => {
                    assert_eq!((reply.status.as_u16(), reply.text().as_str()), (429, "slow down"), "{phase}");
                    assert_eq!((reply.header("x-own"), reply.header("x-outer")), ("1", "seen"), "{phase}");
                }
                // The response had begun: it can only be broken off.
                Err(_) => assert!(phase == "response_body" || phase == "response_trailers", "{phase}"),
            }
        }
        if ["request_headers", "call"].contains(&phase) {
            assert_eq!(one.requests(), 0, "{phase}: nothing went upstream");
        }
        // Whatever was left of bodies, the connections' next exchanges are whole.
        let mut client = gate.client().await;
        if phase == "request_trailers" {
            assert_eq!(client.call(Ask::post("/", "no trailers")).await.text(), "no trailers");
        }
    }
}

#[tokio::test]
async fn answer_to_a_body_is_not_answered_again() {
    // The length is known, so the head waits for the filters of the body, and their answer can take its place.
    let one = Backend::answering("one", async |_, _| Ok(Response::new(full("hello")))).await;
    let reply = "reply: {at: response_body, status: 429, body: slow down}";
    for chain in [
        format!("- plain: {{{reply}}}"),
        format!("- plain: {{{reply}}}\n- plain: {{{reply}}}"),
        // An answer of a filter's own is a response like others for the filters outside of it.
        format!("- plain: {{{reply}}}\n- plain: {{reply: {{at: request_headers, status: 403, body: no}}}}"),
    ] {
        let gate = Meshgate::chain(&chain).guest("plain", "").cluster("one", &[&one]).start().await;
        for answer in over_both(&gate, || Ask::get("/")).await {
            assert_eq!((answer.status.as_u16(), answer.text().as_str()), (429, "slow down"), "{chain}");
        }
    }
}

#[tokio::test]
async fn client_that_is_still_sending_gets_the_answer() {
    let one = Backend::echo("one").await;
    let gate = plain("{reply: {at: request_headers, status: 429, body: slow down}}")
        .cluster("one", &[&one])
        .start()
        .await;
    for _ in 0..50 {
        let letters = || in_parts("many letters, one by one, some of them after the answer");
        for reply in over_both(&gate, || Ask::new(http::Method::POST, "/", letters())).await {
            assert_eq!((reply.status.as_u16(), reply.text().as_str()), (429, "slow down"));
        }
    }
}

#[tokio::test]
async fn tick_runs_again_and_again() {
    let one = Backend::echo("one").await;
    let gate = plain("{tick_ms: 10}").cluster("one", &[&one]).start().await;
    until("some ticks", || async {
        let reply = gate.get("/").await;
        let (shared, counted) = reply.header("x-ticks").split_once(' ').unwrap();
        assert_eq!(shared, counted, "shared data and counter agree on one worker");
        (shared.parse::<u64>().unwrap() >= 3).then_some(())
    })
    .await;
    assert!(gate.metrics().await.text().contains("plain_ticks"));
}

#[tokio::test]
async fn ticks_of_all_workers_count_in_one_place() {
    let one = Backend::echo("one").await;
    let gate = plain("{tick_ms: 10}").workers(2).cluster("one", &[&one]).start().await;
    until("some ticks", || async {
        let reply = gate.get("/").await;
        let (shared, _) = reply.header("x-ticks").split_once(' ').unwrap();
        (shared.parse::<u64>().unwrap() >= 10).then_some(())
    })
    .await;
}

#[tokio::test]
async fn counter_of_a_filter_is_shown_with_the_proxys_metrics() {
    let one = Backend::echo("one").await;
    let gate = plain("{count: my_requests}").cluster("one", &[&one]).start().await;
    let mut client = gate.client().await;
    for number in 1..=5 {
        assert_eq!(client.get("/").await.header("x-count"), number.to_string());
    }
    let metrics = gate.metrics().await;
    let line = metrics.text().lines().find(|line| line.contains("my_requests") && !line.starts_with('#'));
    assert!(
        line.is_some_and(|line| line.ends_with(" 5") || line.ends_with(" 5.0")),
        "{line:?}\n{}",
        metrics.text()
    );
}

#[tokio::test]
async fn properties_tell_about_the_exchange() {
    let one = Backend::echo("one").await;
    let gate = plain(
        "{properties: {x-path: request/path, x-url-path: request/url_path, x-query: request/query, \
          x-method: request/method, x-host: request/host, x-scheme: request/scheme, x-protocol: request/protocol, \
          x-agent: request/useragent, x-header: request/headers/x-sent, x-id: request/id, x-code: response/code, \
          x-source: source/address, x-port: source/port, x-plugin: plugin_name, x-cluster: cluster_name, \
          x-upstream: upstream/address, x-none: no/such/property}}",
    )
    .cluster("one", &[&one])
    .start()
    .await;
    let ask = Ask::get("/a/b?c=d")
        .header("user-agent", "tester")
        .header("x-sent", "yes")
        .header("x-request-id", "id-7");
    let reply = Client::http1(gate.address()).await.authority("shop.example").call(ask).await;
    let one = one.address().to_string();
    for (name, expected) in [
        ("x-path", "/a/b?c=d"),
        ("x-url-path", "/a/b"),
        ("x-query", "c=d"),
        ("x-method", "GET"),
        ("x-host", "shop.example"),
        ("x-scheme", "http"),
        ("x-protocol", "HTTP/1.1"),
        ("x-agent", "tester"),
        ("x-header", "yes"),
        ("x-id", "id-7"),
        ("x-code", "c800000000000000"),
        ("x-plugin", "plain"),
        ("x-cluster", "one"),
        ("x-upstream", one.as_str()),
        ("x-none", "(none)"),
    ] {
        assert_eq!(reply.header(name), expected, "{name}");
    }
    let source = reply.header("x-source").to_owned();
    let port: u64 = source.strip_prefix("127.0.0.1:").unwrap().parse().unwrap();
    let hex: String = port.to_le_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(reply.header("x-port"), hex, "an integer is eight bytes, little endian");
}

#[tokio::test]
async fn log_lines_of_a_filter_name_it() {
    let one = Backend::echo("one").await;
    let gate = plain("{log: \"a \\u001b[31mred\\u001b[0m word\"}").cluster("one", &[&one]).start().await;
    gate.get("/").await;
    let line =
        gate.log().wait("the filter's line", |line| line.contains("red").then(|| line.to_owned())).await;
    assert!(line.contains("plain") && line.contains("INFO"), "{line}");
    assert!(!line.contains('\u{1b}'), "control characters do not reach a terminal: {line:?}");
    gate.log().wait("the line at the exchange's end", |line| line.contains(" done").then_some(())).await;
}

#[tokio::test]
async fn requests_run_down_the_chain_and_responses_up() {
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain("- plain: {order: a}\n- plain: {order: b}\n- plain: {order: c}")
        .guest("plain", "")
        .cluster("one", &[&one])
        .start()
        .await;
    let reply = gate.get("/").await;
    assert_eq!(reply.json()["headers"]["x-order"], "a,b,c");
    assert_eq!(reply.header("x-order"), "c,b,a");
}

#[tokio::test]
async fn filters_of_both_kinds_work_in_one_chain() {
    let (one, called) = (Backend::echo("one").await, Backend::echo("called").await);
    let gate = Meshgate::chain(
        "
        - telemetry: {}
        - plain: {request_body: {uppercase: true}, call: {at: request_headers, cluster: called, path: /}}
        - headers: {request: {add: {x-by: sdk}}, response: {set: {x-by: sdk}}}
        - plain: {response_body: {append: \"!\"}, request: {add: {x-by: plain}}}
        - routing: {routes: [{name: all, match: {path: /**}, to: one, filters: [headers: {response: {add: {x-last: \"1\"}}}]}]}
        ",
    )
    .guest("plain", "")
    .cluster("one", &[&one])
    .cluster("called", &[&called])
    .start()
    .await;
    for reply in over_both(&gate, || Ask::post("/", "hello")).await {
        let text = reply.text();
        assert!(text.ends_with("}!"), "{text}");
        let seen: serde_json::Value = serde_json::from_str(text.trim_end_matches('!')).unwrap();
        assert_eq!((&seen["body"], &seen["headers"]["x-by"]), (&"HELLO".into(), &"sdk, plain".into()));
        assert_eq!((reply.header("x-by"), reply.header("x-last")), ("sdk", "1"));
    }
}

#[tokio::test]
async fn plugin_that_did_not_change_keeps_its_state_over_a_reload() {
    let one = Backend::echo("one").await;
    let setup = plain("{order: a}").cluster("one", &[&one]);
    let changed =
        setup.clone().with_chain("- plain: {order: a}\n- headers: {response: {set: {x-new: \"1\"}}}").yaml();
    let gate = setup.start().await;
    let callbacks = |page: &serde_json::Value| {
        let filters = page["filters"].as_array().unwrap();
        filters.iter().find(|filter| filter["name"] == "plain").unwrap()["callbacks"].as_u64().unwrap()
    };
    for _ in 0..10 {
        gate.get("/").await;
    }
    let counted = callbacks(&gate.admin("/filters").await.json());
    let before = gate.reload().await;
    gate.replace("meshgate.yaml", changed);
    gate.reloaded(&before).await;
    assert_eq!(gate.get("/").await.header("x-new"), "1");
    assert!(callbacks(&gate.admin("/filters").await.json()) > counted);
}

#[tokio::test]
async fn guest_that_refuses_its_configuration_says_why() {
    let one = Backend::echo("one").await;
    let setup = plain("{refuse: \"I do not like it\"}").cluster("one", &[&one]);
    let place = setup.place("refuse");
    let finished = setup.check().await;
    assert_eq!(finished.code, Some(2), "{finished:?}");
    let said = finished.stdout + &finished.stderr;
    assert!(said.contains(&place) && said.contains("I do not like it"), "{said}");
}
