//! gRPC calls and streams: what is asked of the embedder, what comes back to the guest, and when it no longer does.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};

use super::world::*;
use crate::pairs;
use crate::*;

const METADATA: &[(&str, &str)] =
    &[("x-a", "1"), ("x-a", "2"), ("content-type", "text/plain"), ("TE", "gzip"), (":path", "/other")];

/// A hostcall that opens something: its own arguments stand between the metadata and the place for the id.
struct Open<'a> {
    upstream: &'a [u8],
    service: &'a str,
    method: &'a str,
    metadata: Vec<u8>,
}

fn encoded(pairs: &[(&str, &str)]) -> Vec<u8> {
    pairs::encode(|| pairs.iter().map(|(key, value)| (key.as_bytes(), value.as_bytes())))
}

fn to(upstream: &str) -> Open<'_> {
    Open { upstream: upstream.as_bytes(), service: "a.Greeter", method: "Hello", metadata: encoded(METADATA) }
}

impl Open<'_> {
    fn call(&self, timeout: u32) -> Vec<Step> {
        self.steps("proxy_grpc_call", Some(timeout))
    }

    /// What opening a stream takes; a call has its message, too.
    fn bytes(&self) -> usize {
        self.upstream.len() + self.service.len() + self.method.len() + self.metadata.len()
    }

    fn stream(&self) -> Vec<Step> {
        self.steps("proxy_grpc_stream", None)
    }

    fn steps(&self, name: &'static str, timeout: Option<u32>) -> Vec<Step> {
        let mut scratch = Scratch::default();
        let mut arguments = Vec::new();
        let mut put = |bytes: &[u8]| {
            let (at, size) = scratch.put(bytes);
            arguments.extend([u64::from(at), u64::from(size)]);
        };
        put(self.upstream);
        put(self.service.as_bytes());
        put(self.method.as_bytes());
        put(&self.metadata);
        if timeout.is_some() {
            put(b"question");
        }
        arguments.extend(timeout.map(u64::from));
        arguments.push(OUT.into());
        vec![scratch.step(), Step::Call(name, arguments, super::puppet::Allocator::Sound), Step::Peek(OUT, 4)]
    }
}

fn send(id: u32, message: &str, end: u32) -> Vec<Step> {
    let mut scratch = Scratch::default();
    let (at, size) = scratch.put(message);
    vec![scratch.step(), call("proxy_grpc_send", [id, at, size, end])]
}

/// Reads everything that a callback of gRPC may read.
fn look() -> Vec<Step> {
    let mut scratch = Scratch::default();
    let (status, status_length) = scratch.put(":status");
    let (key, length) = scratch.put("x-b");
    vec![
        scratch.step(),
        call("proxy_get_buffer_bytes", [5, 0, 100, OUT, OUT + 4]),
        call("proxy_get_header_map_value", [4, status, status_length, OUT, OUT + 4]),
        call("proxy_get_header_map_value", [4, key, length, OUT, OUT + 4]),
        call("proxy_get_header_map_value", [5, key, length, OUT, OUT + 4]),
        call("proxy_get_status", [OUT, OUT + 4, OUT + 8]),
        Step::Peek(OUT, 4),
        Step::PeekAt(OUT + 4),
        call("proxy_set_buffer_bytes", [5, 0, 0, OUT, 1]),
        call("proxy_add_header_map_value", [4, key, length, key, length]),
    ]
}

/// What `look` finds if there is nothing.
fn nothing() -> Vec<Event> {
    found([1, 1, 1, 1], 0, "")
}

/// The statuses of the buffer, `:status`, the initial and the trailing field; then the status that can be got.
fn found(there: [u32; 4], code: u8, message: &str) -> Vec<Event> {
    let mut events: Vec<Event> = there.map(Event::Status).to_vec();
    events.extend([
        Event::Status(0),
        Event::Peek(vec![code, 0, 0, 0]),
        Event::Peek(message.into()),
        Event::Status(2),
        Event::Status(2),
    ]);
    events
}

fn fields(value: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(http::HeaderName::from_static("x-b"), HeaderValue::from_static(value))])
}

/// Opens what the steps say, in the request's headers callback of a stream.
fn opened(world: &World, plugin: &std::rc::Rc<Plugin>, steps: Vec<Step>) -> (StreamContext, GrpcEvents) {
    world.script("proxy_on_request_headers", steps);
    let stream = plugin.stream(world.exchange(), 0).unwrap();
    stream.on_request_headers(true).unwrap();
    let (_, events) = world.host.grpc.borrow_mut().pop().unwrap();
    world.take();
    (stream, events)
}

#[test]
fn a_call_is_answered_on_the_plugin() {
    let world = World::new();
    let plugin = world.plugin();
    let stream = plugin.stream(world.exchange(), 0).unwrap();
    world.script("proxy_on_request_headers", to("known").call(250));
    world.take();
    stream.on_request_headers(true).unwrap();
    assert_eq!(world.take()[1..], [Event::Status(0), Event::Peek(vec![5, 0, 0, 0])]);
    let (request, events) = world.host.grpc.borrow_mut().pop().unwrap();
    assert_eq!((request.authority.as_bytes(), request.path.as_str()), (&b"known"[..], "/a.Greeter/Hello"));
    assert_eq!(request.metadata.keys().collect::<Vec<_>>(), ["x-a"], "the rest is the host's");
    assert_eq!(request.metadata.get_all("x-a").iter().count(), 2);
    let GrpcKind::Call { message, timeout } = request.kind else { panic!("a call") };
    assert_eq!((&message[..], timeout), (&b"question"[..], Some(Duration::from_millis(250))));

    let mut steps = look();
    steps.extend([call("proxy_set_effective_context", [2]), call("proxy_continue_stream", [0])]);
    steps.push(call("proxy_grpc_cancel", [5]));
    world.script("proxy_on_grpc_receive", steps);
    events.answer(Ok("answer".into()));
    let events = world.take();
    assert_eq!(events[0], Event::Callback("proxy_on_grpc_receive", vec![1, 5, 6]));
    let mut expected = found([0, 1, 1, 1], 0, "");
    expected.extend([Event::Status(0), Event::Status(0)]);
    expected.insert(expected.len() - 1, Event::Wake);
    expected.push(Event::Status(1));
    assert_eq!(events[1..], expected, "over already in its last callback");
    assert!(stream.take_resumed_request());
    assert_eq!(*world.host.grpc_sent.borrow(), [None]);
}

#[test]
fn a_call_that_fails_is_closed_with_its_status() {
    let world = World::new();
    let plugin = world.plugin();
    let (_stream, events) = opened(&world, &plugin, to("known").call(0));
    world.script("proxy_on_grpc_close", look());
    events.answer(Err(GrpcStatus::new(14, "not today")));
    let mut expected = vec![Event::Callback("proxy_on_grpc_close", vec![1, 5, 14])];
    expected.extend(found([1, 1, 1, 1], 14, "not today"));
    assert_eq!(world.take(), expected);
}

#[test]
fn a_stream_goes_both_ways_to_its_end() {
    let world = World::new();
    let plugin = world.plugin();
    let steps = [
        to("known").stream(),
        send(6, "one", 0),
        send(6, "full", 0),
        send(6, "", 1),
        vec![call("proxy_grpc_close", [6])],
    ];
    world.script("proxy_on_request_headers", steps.concat());
    let stream = plugin.stream(world.exchange(), 0).unwrap();
    stream.on_request_headers(true).unwrap();
    assert_eq!(world.statuses(), [0, 0, 2, 0, 0]);
    let sent = [("one", false), ("", true)].map(|(text, last)| Some((Some(Bytes::from(text)), last)));
    assert_eq!(world.host.grpc_sent.take(), [&sent[..], &[Some((None, true))]].concat());
    let (request, events) = world.host.grpc.borrow_mut().pop().unwrap();
    assert!(matches!(request.kind, GrpcKind::Stream));

    let names = ["receive_initial_metadata", "receive", "receive_trailing_metadata", "close"];
    let names = names.map(|name| &*format!("proxy_on_grpc_{name}").leak());
    names.iter().for_each(|name| world.script(name, look()));
    let mut head = response(200);
    head.headers = fields("initial");
    assert!(events.initial_metadata(GrpcMetadata::Head(head)));
    assert!(events.message("hello".into()));
    assert!(events.trailing_metadata(GrpcMetadata::Fields(fields("trailing"))));
    events.close(GrpcStatus::new(0, ""));
    let expected = [
        (vec![1, 6, 2], [1, 0, 0, 1]),
        (vec![1, 6, 5], [0, 1, 1, 1]),
        (vec![1, 6, 1], [1, 1, 1, 0]),
        (vec![1, 6, 0], [1, 1, 1, 1]),
    ];
    let expected = names.into_iter().zip(expected).flat_map(|(name, (parameters, there))| {
        [vec![Event::Callback(name, parameters)], found(there, 0, "")].concat()
    });
    assert_eq!(world.take(), expected.collect::<Vec<_>>());
    assert_eq!(world.host.grpc_sent.take(), [None], "let go of at the end");

    // Everything is over: nothing of it can be read, and its id names nothing.
    let steps =
        [look(), send(6, "x", 0), vec![call("proxy_grpc_close", [6]), call("proxy_grpc_cancel", [6])]];
    world.script("proxy_on_request_body", steps.concat());
    stream.on_request_body(true).unwrap();
    let after: Vec<_> = nothing().into_iter().chain([1, 1, 1].map(Event::Status)).collect();
    assert_eq!(world.take()[1..], after);
}

/// `meshgate.cancel`: nothing more comes but the end, which does.
#[test]
fn a_cancellation_whose_end_is_told() {
    let cancel = |id: u8| {
        let mut scratch = Scratch::default();
        let (name, size) = scratch.put("meshgate.cancel");
        let (argument, length) = scratch.put([8, id]);
        let arguments = [name, size, argument, length, OUT, OUT + 4];
        vec![scratch.step(), call("proxy_call_foreign_function", arguments)]
    };
    for (id, stream) in [(6, true), (5, false)] {
        let world = World::new();
        let plugin = world.plugin();
        let open = if stream { to("known").stream() } else { to("known").call(0) };
        let (context, events) = opened(&world, &plugin, open);
        world.script("proxy_on_request_body", [cancel(id), cancel(id), cancel(77)].concat());
        context.on_request_body(true).unwrap();
        assert_eq!(world.statuses(), [0, 0, 2]);
        assert_eq!(world.host.grpc_sent.take(), [Some((None, false))], "once");
        world.take();
        if stream {
            assert!(!events.initial_metadata(GrpcMetadata::Fields(HeaderMap::new())));
            assert!(!events.message("late".into()));
            events.close(GrpcStatus::cancelled());
        } else {
            events.answer(Ok("late".into()));
        }
        let closed = Event::Callback("proxy_on_grpc_close", vec![1, id.into(), 1]);
        assert_eq!(world.take(), [closed]);
        assert_eq!(world.host.grpc_sent.take(), [None], "let go of at the end");
    }
}

#[test]
fn the_statuses_that_guests_expect() {
    let world = World::new();
    let envoy = |cluster: &str| {
        let inside = [&[0x0a, cluster.len() as u8], cluster.as_bytes(), b"\x12\x04auth"].concat();
        [&[0x0a, inside.len() as u8], &inside[..]].concat()
    };
    let (known, unknown) = (envoy("known"), envoy("unknown"));
    let as_message = |upstream| Open { upstream, ..to("") };
    let steps = [
        to("unknown").call(1),
        to("unknown").stream(),
        as_message(&known).call(1),
        as_message(&unknown).call(1),
        to("busy").call(1),
        to("").call(1),
        to("known").call(u32::MAX),
        Open { service: "a b", ..to("known") }.stream(),
        Open { method: "a?b", ..to("known") }.stream(),
        Open { metadata: encoded(&[("x", "\r\n")]), ..to("known") }.stream(),
        Open { metadata: vec![9, 9], ..to("known") }.stream(),
        vec![call("proxy_grpc_stream", [0, 1, 0, 1, 0, 1, 0, u32::MAX, OUT])],
        vec![call("proxy_grpc_stream", [0, 0, 0, 0, 0, 0, 0, 0, u32::MAX])],
        to("known").stream(),
        // A call has no more to say; nobody has heard of 99 and 4.
        send(13, "x", 0),
        send(4, "x", 0),
        send(98, "x", 0),
        vec![
            call("proxy_grpc_close", [99]),
            call("proxy_grpc_cancel", [98]),
            call("proxy_grpc_send", [99, u32::MAX, 9, 0]),
        ],
        vec![call("proxy_grpc_close", [13]), call("proxy_grpc_close", [13])],
        vec![call("proxy_grpc_cancel", [26]), call("proxy_grpc_cancel", [26])],
    ];
    let statuses = world.run(steps.concat());
    assert_eq!(statuses, [4, 4, 0, 4, 10, 4, 4, 4, 4, 4, 4, 6, 6, 0, 2, 1, 1, 1, 1, 6, 0, 1, 0, 1]);
    let requests = world.host.grpc.take();
    assert_eq!(requests[0].0.authority, "auth");
    assert_eq!(requests[1].0.authority, "known");
    assert_eq!(world.host.grpc_sent.take(), [None, None], "both were let go of");
}

#[test]
fn nothing_comes_after_a_guest_has_cancelled() {
    let world = World::new();
    let plugin = world.plugin();
    let (stream, events) = opened(&world, &plugin, to("known").stream());
    world.script("proxy_on_grpc_receive", vec![call("proxy_grpc_cancel", [6])]);
    assert!(!events.message("one".into()), "cancelled while it was told");
    assert!(!events.message("two".into()));
    events.close(GrpcStatus::new(0, ""));
    let expected = [Event::Callback("proxy_on_grpc_receive", vec![1, 6, 3]), Event::Status(0)];
    assert_eq!(world.take(), expected);
    drop(stream);
}

#[test]
fn calls_outlive_their_stream_but_not_their_plugin() {
    let world = World::new();
    let plugin = world.plugin();
    let (stream, first) = opened(&world, &plugin, to("known").stream());
    let (other, second) = opened(&world, &plugin, to("known").call(1));
    drop((stream, other));
    world.take();
    assert!(first.message("late".into()));
    assert_eq!(world.take(), [Event::Callback("proxy_on_grpc_receive", vec![1, 6, 4])]);
    assert_eq!(world.host.grpc_sent.take(), []);
    drop(plugin);
    assert_eq!(world.host.grpc_sent.take(), [None, None], "cancelled");
    world.take();
    assert!(!first.message("later".into()));
    second.answer(Ok("too late".into()));
    assert_eq!(world.take(), []);
}

#[test]
fn a_vm_that_failed_lets_go_of_everything() {
    let world = World::new();
    let plugin = world.plugin();
    let (_stream, first) = opened(&world, &plugin, to("known").stream());
    let (_other, second) = opened(&world, &plugin, to("known").call(1));
    world.script("proxy_on_grpc_receive", vec![Step::Crash(super::puppet::UNREACHABLE)]);
    assert!(!first.message("bang".into()));
    assert_eq!(world.host.grpc_sent.take(), [None, None]);
    world.take();
    second.answer(Ok("nobody".into()));
    first.close(GrpcStatus::new(0, ""));
    assert_eq!(world.take(), []);
}

#[test]
fn calls_under_way_are_bounded_per_stream_and_plugin() {
    let world = World::new();
    let plugin = world.plugin();
    let many = |count: usize| std::iter::repeat_with(|| to("known").call(1)).take(count).flatten().collect();
    let streams: Vec<_> = (0..40).map(|_| plugin.stream(world.exchange(), 0).unwrap()).collect();
    let mut started = Vec::new();
    for stream in &streams {
        world.script("proxy_on_request_headers", many(9));
        world.take();
        stream.on_request_headers(true).unwrap();
        started.push(world.statuses().iter().filter(|status| **status == 0).count());
    }
    assert_eq!(started[..33], [&[8; 32][..], &[0]].concat());
    let (_, events) = world.host.grpc.borrow_mut().pop().unwrap();
    events.answer(Err(GrpcStatus::new(1, "")));
    world.take();
    world.script("proxy_on_request_headers", many(2));
    streams[39].on_request_headers(true).unwrap();
    assert_eq!(world.statuses(), [0, 10], "one came back");
}

#[test]
fn what_calls_send_is_bounded_until_they_are_over() {
    let world = World::new();
    let mut with = spec("");
    with.limits.call_bytes = 2 * (to("known").bytes() + "question".len()) as u64;
    let plugin = world.vms.plugin(with.into()).unwrap();
    let many = |count| std::iter::repeat_with(|| to("known").call(1)).take(count).flatten().collect();
    let stream = plugin.stream(world.exchange(), 0).unwrap();
    world.script("proxy_on_request_headers", many(3));
    stream.on_request_headers(true).unwrap();
    assert_eq!(world.statuses(), [0, 0, 10]);
    assert_eq!(plugin.ledger().exceeded(Limit::CallBytes), 1);
    // In its last callback, a call is over.
    let (_, events) = world.host.grpc.borrow_mut().pop().unwrap();
    world.script("proxy_on_grpc_receive", many(2));
    events.answer(Ok("answer".into()));
    assert_eq!(world.statuses(), [0, 10], "as much as it took");
    // One that is given up counts until the embedder has let go of it.
    world.script("proxy_on_request_body", [vec![call("proxy_grpc_cancel", [5])], many(1)].concat());
    stream.on_request_body(true).unwrap();
    assert_eq!(world.statuses(), [0, 10]);
    drop(world.host.grpc.take());
    assert_eq!(plugin.core.usage.call_bytes.used(), 0);
}

#[test]
fn what_comes_back_is_bounded_with_what_was_sent() {
    let world = World::new();
    let mut with = spec("");
    with.limits.call_bytes = to("known").bytes() as u64 + 10;
    let plugin = world.vms.plugin(with.into()).unwrap();
    let stream = plugin.stream(world.exchange(), 0).unwrap();
    world.script("proxy_on_request_headers", to("known").stream());
    stream.on_request_headers(true).unwrap();
    let (_, events) = world.host.grpc.borrow_mut().pop().unwrap();
    assert!(events.has_room(4) && events.has_room(10), "what has come so far, each time");
    assert!(!events.has_room(11));
    assert_eq!(plugin.ledger().exceeded(Limit::CallBytes), 1);
    assert!(events.has_room(0), "it was given away");
    let sent = to("known").bytes();
    assert_eq!(plugin.core.usage.call_bytes.used(), sent);
    assert!(events.has_room(1));
    events.close(GrpcStatus::new(0, ""));
    assert_eq!(plugin.core.usage.call_bytes.used(), 0);
}

#[test]
fn messages_count_until_nobody_has_them() {
    let world = World::new();
    let mut with = spec("");
    let message = "one".len() as u64 + GrpcRequest::MESSAGE_COST;
    with.limits.call_bytes = to("known").bytes() as u64 + 2 * message;
    let plugin = world.vms.plugin(with.into()).unwrap();
    let stream = plugin.stream(world.exchange(), 0).unwrap();
    let three = || [send(6, "one", 0), send(6, "two", 0), send(6, "six", 0)].concat();
    world.script("proxy_on_request_headers", [to("known").stream(), three()].concat());
    stream.on_request_headers(true).unwrap();
    assert_eq!(world.statuses(), [0, 0, 0, 2]);
    let exceeded = [Limit::CallBytes, Limit::GrpcQueue].map(|limit| plugin.ledger().exceeded(limit));
    assert_eq!(exceeded, [1, 0]);
    // One of them has been sent.
    let unsent = world.host.grpc_sent.take().swap_remove(1);
    world.script("proxy_on_request_body", three());
    stream.on_request_body(true).unwrap();
    assert_eq!(world.statuses(), [0, 2, 2]);
    // The stream ends while messages are on their way.
    let (_, events) = world.host.grpc.borrow_mut().pop().unwrap();
    events.close(GrpcStatus::new(0, ""));
    assert_eq!(plugin.core.usage.call_bytes.used() as u64, 2 * message);
    drop((unsent, world.host.grpc_sent.take()));
    assert_eq!(plugin.core.usage.call_bytes.used(), 0);
}
