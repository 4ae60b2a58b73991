//! HTTP calls, ticks, foreign functions.

use std::time::Duration;

use super::world::*;
use crate::pairs;
use crate::*;

fn head(pairs: &[(&str, &str)]) -> Vec<u8> {
    pairs::encode(|| pairs.iter().map(|(key, value)| (key.as_bytes(), value.as_bytes())))
}

fn http_call(cluster: &str, headers: &[u8], timeout: u32) -> Vec<Step> {
    let mut scratch = Scratch::default();
    let (c, cn) = scratch.put(cluster);
    let (h, hn) = scratch.put(headers);
    let (b, bn) = scratch.put("body");
    vec![
        scratch.step(),
        call("proxy_http_call", [c, cn, h, hn, b, bn, 0, 0, timeout, OUT]),
        Step::Peek(OUT, 4),
    ]
}

const GET: &[(&str, &str)] = &[(":method", "GET"), (":path", "/x?y"), (":authority", "z")];

#[test]
fn a_call_is_answered_on_the_plugin_which_resumes_the_stream() {
    let world = World::new();
    let plugin = world.plugin();
    let stream = plugin.stream(world.exchange(), 0).unwrap();
    let request = head(&[GET, &[("x-a", "1"), ("Content-Length", "99"), ("connection", "close")]].concat());
    world.script(
        "proxy_on_request_headers",
        [http_call("known", &request, 250), vec![Step::Return(1)]].concat(),
    );
    world.take();
    assert_eq!(stream.on_request_headers(true).unwrap(), HeadersAction::StopAllWatermark);
    assert_eq!(world.take()[1..], [Event::Status(0), Event::Peek(vec![4, 0, 0, 0])]);
    let (sent, reply) = world.host.calls.borrow_mut().pop().unwrap();
    assert_eq!((sent.request.method.as_str(), sent.request.path.as_str()), ("GET", "/x?y"));
    assert_eq!((sent.request.authority.to_str().unwrap(), &sent.body[..]), ("z", &b"body"[..]));
    assert_eq!(sent.request.headers.keys().collect::<Vec<_>>(), ["x-a"]);
    assert_eq!(sent.timeout, Some(Duration::from_millis(250)));

    let mut scratch = Scratch::default();
    let (key, length) = scratch.put(":status");
    world.script(
        "proxy_on_http_call_response",
        vec![
            scratch.step(),
            call("proxy_get_header_map_value", [6, key, length, OUT, OUT + 4]),
            Step::PeekAt(OUT),
            call("proxy_get_buffer_bytes", [4, 0, 100, OUT, OUT + 4]),
            Step::PeekAt(OUT),
            call("proxy_set_effective_context", [2]),
            call("proxy_continue_stream", [0]),
            call("proxy_get_status", [OUT, OUT + 4, OUT + 8]),
            call("proxy_set_buffer_bytes", [4, 0, 0, OUT, 1]),
        ],
    );
    reply.deliver(Ok(call_response(204, "answer")));
    let events = world.take();
    assert_eq!(events[0], Event::Callback("proxy_on_http_call_response", vec![1, 4, 1, 6, 0]));
    assert_eq!((&events[2], &events[4]), (&Event::Peek(b"204".to_vec()), &Event::Peek(b"answer".to_vec())));
    assert_eq!(events.iter().filter(|event| **event == Event::Wake).count(), 1);
    assert_eq!(events.last(), Some(&Event::Status(2)), "read-only");
    assert!(stream.take_resumed_request());
    // Afterwards it is not there any more.
    world.script("proxy_on_request_body", vec![call("proxy_get_buffer_bytes", [4, 0, 100, OUT, OUT + 4])]);
    stream.on_request_body(true).unwrap();
    assert_eq!(world.statuses(), [1]);
}

#[test]
fn a_failed_call_has_no_response_but_a_reason() {
    let world = World::new();
    let mut with = spec("");
    with.compatibility.empty_failures = true;
    let plugin = world.vms.plugin(with.into()).unwrap();
    let stream = plugin.stream(world.exchange(), 0).unwrap();
    world.script("proxy_on_request_headers", http_call("known", &head(GET), 0));
    stream.on_request_headers(true).unwrap();
    let (sent, reply) = world.host.calls.borrow_mut().pop().unwrap();
    assert_eq!(sent.timeout, Some(Duration::from_secs(30)), "as long as it may");
    let mut scratch = Scratch::default();
    let (key, length) = scratch.put(":dispatch_status");
    world.script(
        "proxy_on_http_call_response",
        vec![
            scratch.step(),
            call("proxy_get_status", [OUT, OUT + 4, OUT + 8]),
            Step::Peek(OUT, 1),
            Step::PeekAt(OUT + 4),
            call("proxy_get_header_map_value", [6, key, length, OUT, OUT + 4]),
            Step::PeekAt(OUT),
            call("proxy_get_header_map_pairs", [6, OUT, OUT + 4]),
            call("proxy_get_buffer_bytes", [4, 0, 100, OUT, OUT + 4]),
            call("proxy_get_header_map_value", [7, key, length, OUT, OUT + 4]),
        ],
    );
    world.take();
    reply.deliver(Err(CallFailure::Timeout));
    let events = world.take();
    let expected = [
        Event::Callback("proxy_on_http_call_response", vec![1, 4, 0, 0, 0]),
        Event::Status(0),
        Event::Peek(vec![11]),
        Event::Peek(b"reset".to_vec()),
        Event::Status(0),
        Event::Peek(b"timeout".to_vec()),
        Event::Status(0),
        Event::Status(1),
        Event::Status(1),
    ];
    assert_eq!(events, expected);
}

#[test]
fn a_response_stands_in_for_one_that_never_came() {
    let world = World::new();
    let plugin = world.plugin();
    let outcome = |failure| {
        let stream = plugin.stream(world.exchange(), 0).unwrap();
        world.script("proxy_on_request_headers", http_call("known", &head(GET), 0));
        stream.on_request_headers(true).unwrap();
        let (_, reply) = world.host.calls.borrow_mut().pop().unwrap();
        let mut scratch = Scratch::default();
        let (key, length) = scratch.put(":status");
        let steps = vec![
            scratch.step(),
            call("proxy_get_header_map_value", [6, key, length, OUT, OUT + 4]),
            Step::PeekAt(OUT),
            call("proxy_get_buffer_bytes", [4, 0, 100, OUT, OUT + 4]),
            Step::PeekAt(OUT),
            call("proxy_get_status", [OUT, OUT + 4, OUT + 8]),
            Step::Peek(OUT, 1),
        ];
        world.script("proxy_on_http_call_response", steps);
        world.take();
        reply.deliver(Err(failure));
        let events = world.take();
        let texts = |event: &Event| match event {
            Event::Peek(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            _ => None,
        };
        (events[1].clone(), events.iter().filter_map(texts).collect::<Vec<_>>())
    };
    let there = |status: &str, body: &str| (Event::Status(0), vec![status.into(), body.into(), "\0".into()]);
    assert_eq!(outcome(CallFailure::Timeout), there("504", "upstream request timeout"));
    assert_eq!(outcome(CallFailure::NoEndpoint), there("503", "no healthy upstream"));
    assert_eq!(outcome(CallFailure::ConnectFailed), there("503", "upstream connect error"));
    let unanswered =
        "upstream connect error or disconnect/reset before headers. reset reason: connection termination";
    assert_eq!(outcome(CallFailure::Unanswered), there("503", unanswered));
    for failure in [CallFailure::Reset, CallFailure::TooLarge, CallFailure::NoRoom] {
        let (status, texts) = outcome(failure);
        assert_eq!((status, &texts[2][..]), (Event::Status(1), "\u{b}"), "{failure}");
    }
}

#[test]
fn calls_that_cannot_be_made() {
    let world = World::new();
    let get = head(GET);
    let missing = |name: &str| head(&GET.iter().copied().filter(|(key, _)| *key != name).collect::<Vec<_>>());
    let with = |field| head(&[GET, &[field]].concat());
    let statuses = world.run(
        [
            http_call("unknown", &get, 1),
            http_call("busy", &get, 1),
            http_call("known", &missing(":method"), 1),
            http_call("known", &missing(":path"), 1),
            http_call("known", &missing(":authority"), 1),
            http_call("known", &with(("x", "\r\n")), 1),
            http_call("known", &with((":odd", "1")), 1),
            http_call("known", &with((":scheme", "gopher")), 1),
            http_call("known", b"\xff\xff", 1),
            http_call("known", &get, u32::MAX),
            vec![call("proxy_http_call", [0, u32::MAX, 0, 0, 0, 0, 0, 0, 1, OUT])],
            vec![call("proxy_http_call", [0, 0, u32::MAX, 9, 0, 0, 0, 0, 1, OUT])],
            vec![call("proxy_http_call", [0, 0, 0, 0, 0, 0, 0, 0, 1, u32::MAX])],
        ]
        .concat(),
    );
    assert_eq!(statuses, [2, 10, 2, 2, 2, 2, 2, 2, 2, 2, 6, 6, 6]);
    assert!(world.host.calls.borrow().is_empty());
}

#[test]
fn calls_under_way_are_bounded_per_stream_and_plugin() {
    let world = World::new();
    let plugin = world.plugin();
    let get = head(GET);
    let many =
        |count: usize| std::iter::repeat_with(|| http_call("known", &get, 1)).take(count).flatten().collect();
    let stream = plugin.stream(world.exchange(), 0).unwrap();
    world.script("proxy_on_request_headers", many(9));
    stream.on_request_headers(true).unwrap();
    assert_eq!(world.statuses(), [0, 0, 0, 0, 0, 0, 0, 0, 10]);
    world.host.calls.borrow_mut().pop().unwrap().1.deliver(Err(CallFailure::Reset));
    world.script("proxy_on_request_headers", many(2));
    world.take();
    stream.on_request_headers(true).unwrap();
    assert_eq!(world.statuses(), [0, 10], "one came back");
    let streams: Vec<_> = (0..40).map(|_| plugin.stream(world.exchange(), 0).unwrap()).collect();
    let mut started = 8;
    for stream in &streams {
        world.script("proxy_on_request_headers", many(8));
        stream.on_request_headers(true).unwrap();
        started += world.statuses().iter().filter(|status| **status == 0).count();
    }
    assert_eq!(started, 256);
}

#[test]
fn what_calls_send_is_bounded_until_they_are_over() {
    let world = World::new();
    let get = head(GET);
    let call = |cluster| http_call(cluster, &get, 1);
    let mut with = spec("");
    with.limits.call_bytes = 2 * ("known".len() + get.len() + "body".len()) as u64;
    let plugin = world.vms.plugin(with.into()).unwrap();
    let stream = plugin.stream(world.exchange(), 0).unwrap();
    world.script("proxy_on_request_headers", [call("known"), call("known"), call("known")].concat());
    stream.on_request_headers(true).unwrap();
    assert_eq!(world.statuses(), [0, 0, 10]);
    assert_eq!(plugin.ledger().exceeded(Limit::CallBytes), 1);
    // In the callback for its answer, a call is over.
    let (_, reply) = world.host.calls.borrow_mut().pop().unwrap();
    world.script("proxy_on_http_call_response", [call("known"), call("known")].concat());
    reply.deliver(Ok(call_response(200, "")));
    assert_eq!(world.statuses(), [0, 10], "as much as it took");
    drop(world.host.calls.take());
    // What is not made takes nothing.
    let steps = ["busy", "unknown", "known", "known"].map(call).concat();
    world.script("proxy_on_request_body", steps);
    stream.on_request_body(true).unwrap();
    assert_eq!(world.statuses(), [10, 2, 0, 0]);
    assert_eq!(plugin.ledger().exceeded(Limit::CallBytes), 2);
    drop(world.host.calls.take());
    assert_eq!(plugin.core.usage.call_bytes.used(), 0);
}

#[test]
fn what_comes_back_is_bounded_with_what_was_sent() {
    let world = World::new();
    let get = head(GET);
    let sent = "known".len() + get.len() + "body".len();
    let mut with = spec("");
    with.limits.call_bytes = 2 * sent as u64 + 10;
    let plugin = world.vms.plugin(with.into()).unwrap();
    let stream = plugin.stream(world.exchange(), 0).unwrap();
    world.script(
        "proxy_on_request_headers",
        [http_call("known", &get, 1), http_call("known", &get, 1)].concat(),
    );
    stream.on_request_headers(true).unwrap();
    let [one, other] = [(); 2].map(|()| world.host.calls.borrow_mut().pop().unwrap().1);
    assert!(one.has_room(4) && one.has_room(4) && other.has_room(2));
    assert!(!other.has_room(1));
    assert_eq!(plugin.ledger().exceeded(Limit::CallBytes), 1);
    one.deliver(Ok(call_response(200, "12345678")));
    assert!(other.has_room(sent + 8));
    other.deliver(Err(CallFailure::NoRoom));
    assert_eq!(plugin.core.usage.call_bytes.used(), 0);
}

#[test]
fn a_call_counts_until_it_is_over_also_when_its_vm_is_gone() {
    let world = World::new();
    let mut with = spec("");
    with.limits.http_calls = 1;
    let plugin = world.vms.plugin(with.into()).unwrap();
    let get = head(GET);
    let calling = || {
        let stream = plugin.stream(world.exchange(), 0).unwrap();
        world.script("proxy_on_request_headers", http_call("known", &get, 1));
        stream.on_request_headers(false).unwrap();
        stream
    };
    let failing = calling();
    assert_eq!(world.statuses(), [0]);
    world.script("proxy_on_request_body", vec![Step::Crash(super::puppet::UNREACHABLE)]);
    failing.on_request_body(false).unwrap_err();
    drop(failing);
    drop(calling());
    assert_eq!(world.statuses(), [10], "from the next VM");
    let (_, reply) = world.host.calls.borrow_mut().pop().unwrap();
    reply.deliver(Ok(call_response(200, "")));
    drop(calling());
    assert_eq!(world.statuses(), [0]);
}

#[test]
fn tokens_differ_and_answers_never_reach_the_dead() {
    let world = World::new();
    let plugin = world.plugin();
    let get = head(GET);
    let stream = plugin.stream(world.exchange(), 0).unwrap();
    world.script(
        "proxy_on_request_headers",
        [http_call("known", &get, 1), http_call("known", &get, 1)].concat(),
    );
    world.take();
    stream.on_request_headers(true).unwrap();
    let tokens: Vec<_> = world.take().into_iter().filter(|event| matches!(event, Event::Peek(_))).collect();
    assert_eq!(tokens, [Event::Peek(vec![4, 0, 0, 0]), Event::Peek(vec![8, 0, 0, 0])]);
    let (_, second) = world.host.calls.borrow_mut().pop().unwrap();
    let (_, first) = world.host.calls.borrow_mut().pop().unwrap();
    drop(stream);
    world.take();
    // The stream is gone, the plugin is there: it is told, as it may keep something by the token.
    second.deliver(Ok(call_response(200, "")));
    assert_eq!(world.take(), [Event::Callback("proxy_on_http_call_response", vec![1, 8, 1, 0, 0])]);
    drop(plugin);
    world.take();
    first.deliver(Ok(call_response(200, "")));
    assert_eq!(world.take(), []);
}

#[test]
fn a_timer_belongs_to_the_plugin() {
    let world = World::new();
    let plugin = world.plugin();
    let stream = plugin.stream(world.exchange(), 0).unwrap();
    let periods = [50, 0].map(|period| call("proxy_set_tick_period_milliseconds", [period]));
    world.script("proxy_on_request_headers", periods.to_vec());
    stream.on_request_headers(true).unwrap();
    let ticks = world.host.ticks.take();
    assert_eq!(
        ticks.iter().map(|(_, period)| *period).collect::<Vec<_>>(),
        [Some(Duration::from_millis(50)), None]
    );
    assert_eq!(ticks[0].0.key(), ticks[1].0.key());
    world.take();
    assert!(ticks[0].0.tick());
    assert_eq!(world.take(), [Event::Callback("proxy_on_tick", vec![1])]);
    drop((stream, plugin));
    assert!(!ticks[0].0.tick());
}

fn foreign(name: &str, argument: &str, address_at: u32, size_at: u32) -> Vec<Step> {
    let mut scratch = Scratch::default();
    let (n, nn) = scratch.put(name);
    let (a, an) = scratch.put(argument);
    vec![scratch.step(), call("proxy_call_foreign_function", [n, nn, a, an, address_at, size_at])]
}

#[test]
fn foreign_functions_are_the_embedders() {
    let world = World::new();
    let plugin = world.plugin();
    let stream = plugin.stream(world.exchange(), 3).unwrap();
    let steps = [
        foreign("echo", "hello", OUT, OUT + 4),
        vec![Step::PeekAt(OUT)],
        foreign("echo", "", OUT, OUT + 4),
        vec![Step::Peek(OUT, 8)],
        foreign("echo", "dropped", 0, 0),
        foreign("nobody", "", OUT, OUT + 4),
        foreign("echo", "x", u32::MAX, OUT),
        foreign("place", "", OUT, OUT + 4),
        vec![Step::PeekAt(OUT)],
    ];
    world.script("proxy_on_request_headers", steps.concat());
    world.take();
    stream.on_request_headers(true).unwrap();
    let expected = [
        Event::Status(0),
        Event::Peek(b"hello".to_vec()),
        Event::Status(0),
        Event::Peek(vec![0; 8]),
        Event::Status(0),
        Event::Status(1),
        Event::Status(6),
        Event::Status(0),
        Event::Peek(vec![3]),
    ];
    assert_eq!(world.take()[1..], expected);
}

#[test]
fn events_of_foreign_functions_are_read_as_a_buffer() {
    let world = World::new();
    let plugin = world.plugin();
    let stream = plugin.stream(world.exchange(), 0).unwrap();
    let read = call("proxy_get_buffer_bytes", [8, 1, 100, OUT, OUT + 4]);
    world.script("proxy_on_foreign_function", vec![read.clone(), Step::PeekAt(OUT)]);
    world.take();
    stream.on_foreign_function(42, "event".into()).unwrap();
    let callback = Event::Callback("proxy_on_foreign_function", vec![2, 42, 5]);
    assert_eq!(world.take(), [callback, Event::Status(0), Event::Peek(b"vent".to_vec())]);
    world.script("proxy_on_request_headers", vec![read]);
    stream.on_request_headers(true).unwrap();
    assert_eq!(world.statuses(), [1]);
}
