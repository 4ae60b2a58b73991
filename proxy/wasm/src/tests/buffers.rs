//! Buffers: bodies, configurations, pointers.

use super::puppet::Allocator;
use super::world::*;
use crate::*;

fn get(buffer: u32, start: u32, length: u32) -> Step {
    call("proxy_get_buffer_bytes", [buffer, start, length, OUT, OUT + 4])
}

fn set(start: u32, length: u32, bytes: &str) -> Vec<Step> {
    let mut scratch = Scratch::default();
    let (text, size) = scratch.put(bytes);
    vec![scratch.step(), call("proxy_set_buffer_bytes", [0, start, length, text, size])]
}

/// The body after these edits of "hello world", in two chunks.
fn edited(steps: Vec<Step>) -> (Vec<u32>, String, bool) {
    let world = World::new();
    let plugin = world.plugin();
    let stream = plugin.stream(world.exchange(), 0).unwrap();
    stream.request_body().push("hello".into());
    stream.request_body().push(" world".into());
    world.script("proxy_on_request_body", steps);
    world.take();
    stream.on_request_body(true).unwrap();
    let mut body = stream.request_body();
    let text = String::from_utf8(body.to_bytes().to_vec()).unwrap();
    assert_eq!(body.len(), text.len());
    (world.statuses(), text, body.take_modified())
}

#[test]
fn bodies_are_spliced() {
    let cases = [
        (set(0, 0, ">> "), ">> hello world"),
        (set(0, 11, "new"), "new"),
        (set(0, u32::MAX, "new"), "new"),
        (set(0, 5, "howdy"), "howdy world"),
        (set(5, 1, ", "), "hello, world"),
        (set(3, 5, ""), "helrld"),
        (set(5, 0, "X"), "helloX world"),
        (set(11, 0, "!"), "hello world!"),
        (set(4_000_000_000, u32::MAX, "!"), "hello world!"),
        (set(6, u32::MAX, "there"), "hello there"),
        (set(0, u32::MAX, ""), ""),
        ([set(0, 0, "a"), set(1, 0, "b"), set(13, 0, "c")].concat(), "abhello worldc"),
    ];
    for (steps, expected) in cases {
        let (statuses, text, modified) = edited(steps.clone());
        assert!(statuses.iter().all(|status| *status == 0), "{steps:?}");
        assert_eq!((text.as_str(), modified), (expected, true), "{steps:?}");
    }
    assert_eq!(edited(Vec::new()), (Vec::new(), "hello world".into(), false));
}

#[test]
fn bodies_are_read_in_parts() {
    let world = World::new();
    let plugin = world.plugin();
    let stream = plugin.stream(world.exchange(), 0).unwrap();
    stream.response_body().push("hello".into());
    stream.response_body().push(" world".into());
    let mut steps = Vec::new();
    for (start, length) in
        [(0, u32::MAX), (3, 4), (5, 1), (10, 100), (11, 1), (4_000_000_000, u32::MAX), (0, 0)]
    {
        steps.extend([get(1, start, length), Step::PeekAt(OUT)]);
    }
    world.script("proxy_on_response_body", steps);
    world.take();
    stream.on_response_body(false).unwrap();
    let peeks = world.take().into_iter().filter_map(|event| match event {
        Event::Peek(bytes) => Some(String::from_utf8(bytes).unwrap()),
        Event::Status(status) => (status != 0).then(|| format!("status {status}")),
        _ => None,
    });
    assert_eq!(peeks.collect::<Vec<_>>(), ["hello world", "lo w", " ", "d", "", "", ""]);
}

#[test]
fn a_held_body_grows_and_can_be_read_in_later_callbacks() {
    let world = World::new();
    let plugin = world.plugin();
    let stream = plugin.stream(world.exchange(), 0).unwrap();
    world.script("proxy_on_request_body", vec![Step::Return(1)]);
    world.script("proxy_on_request_body", vec![Step::Return(1)]);
    world.script("proxy_on_request_trailers", vec![get(0, 0, 100), Step::PeekAt(OUT)]);
    stream.request_body().push("abc".into());
    world.take();
    assert_eq!(stream.on_request_body(false).unwrap(), BodyAction::Buffer);
    stream.request_body().push("de".into());
    assert_eq!(stream.on_request_body(false).unwrap(), BodyAction::Buffer);
    stream.on_request_trailers().unwrap();
    let events = world.take();
    assert_eq!(events[1], Event::Callback("proxy_on_request_body", vec![2, 5, 0]), "the whole, each time");
    assert_eq!(events.last(), Some(&Event::Peek(b"abcde".to_vec())));
    let chunks: Vec<_> = stream.request_body().drain().collect();
    assert_eq!(chunks, ["abc", "de"], "as they came");
}

#[test]
fn statuses_of_buffers() {
    let world = World::new();
    let statuses = world.run(
        [
            // No body before its callback; data of TCP, call responses and gRPC are not there; 9 is none.
            (0..=9).map(|buffer| get(buffer, 0, 10)).collect::<Vec<_>>(),
            (0..=9).map(|buffer| call("proxy_set_buffer_bytes", [buffer, 0, 0, OUT, 1])).collect(),
            (0..=9).map(|buffer| call("proxy_get_buffer_status", [buffer, OUT, OUT + 4])).collect(),
        ]
        .concat(),
    );
    assert_eq!(statuses[..10], [1, 1, 1, 1, 1, 1, 0, 0, 1, 2]);
    assert_eq!(statuses[10..20], [1, 1, 1, 1, 2, 2, 2, 2, 2, 2]);
    assert_eq!(statuses[20..], [1, 1, 1, 1, 1, 1, 0, 0, 1, 2]);
}

#[test]
fn configurations_can_always_be_read() {
    let world = World::new();
    let shown = world.show(vec![
        get(6, 0, u32::MAX),
        Step::PeekAt(OUT),
        get(7, 7, 3),
        Step::PeekAt(OUT),
        call("proxy_get_buffer_status", [7, OUT, OUT + 4]),
        Step::Peek(OUT, 8),
    ]);
    assert_eq!(shown, [&b"of the vm"[..], b"plu", b"\x0d\0\0\0\0\0\0\0"]);
}

#[test]
fn what_exceeds_the_limit_is_not_kept() {
    let world = World::new();
    let mut small = spec("");
    small.limits.body = 20;
    let plugin = world.vms.plugin(small.into()).unwrap();
    let stream = plugin.stream(world.exchange(), 0).unwrap();
    stream.request_body().push("hello".into());
    world.script("proxy_on_request_body", set(5, 0, "123456789012345"));
    world.script("proxy_on_request_body", set(5, 0, "x"));
    stream.on_request_body(false).unwrap();
    assert!(!stream.request_body().over_limit());
    world.take();
    stream.on_request_body(false).unwrap();
    assert_eq!(world.statuses(), [0], "the Rust SDK would trap on anything else");
    assert!(stream.request_body().over_limit());
    assert_eq!(stream.request_body().len(), 20);
    stream.response_body().push(vec![0; 21].into());
    assert!(stream.response_body().over_limit());
}

#[test]
fn pointers_out_of_bounds_are_told_and_nothing_is_done() {
    let world = World::new();
    let end = 2 * 65_536;
    let statuses = world.run(vec![
        call("proxy_get_buffer_bytes", [7, 0, 10, end - 3, OUT]),
        call("proxy_get_buffer_bytes", [7, 0, 10, OUT, end - 3]),
        call("proxy_get_buffer_bytes", [7, 0, 10, u32::MAX, u32::MAX]),
        call("proxy_get_current_time_nanoseconds", [end - 7]),
        call("proxy_get_current_time_nanoseconds", [end - 8]),
        call("proxy_get_current_time_nanoseconds", [OUT + 1]),
        call("proxy_log", [2, end, 1]),
        call("proxy_log", [2, end, 0]),
        call("proxy_log", [6, 0, 0]),
        call("proxy_get_log_level", [end - 3]),
    ]);
    assert_eq!(statuses, [6, 6, 6, 6, 0, 0, 6, 0, 2, 6]);
}

#[test]
fn the_guests_allocator_is_not_trusted() {
    let with = |allocator| {
        Step::Call("proxy_get_buffer_bytes", vec![7, 0, 10, OUT.into(), (OUT + 4).into()], allocator)
    };
    let world = World::new();
    let statuses = world.run(vec![
        with(Allocator::Sound),
        with(Allocator::Null),
        with(Allocator::OutOfBounds),
        with(Allocator::Logs),
    ]);
    assert_eq!(statuses, [0, 6, 6, 0]);
    // Nothing to allocate: not called.
    let empty =
        Step::Call("proxy_get_buffer_bytes", vec![7, 99, 10, OUT.into(), (OUT + 4).into()], Allocator::Null);
    assert_eq!(World::new().run(vec![empty]), [0]);
    // A hostcall from inside of it.
    let world = World::new();
    let plugin = world.plugin();
    let stream = plugin.stream(world.exchange(), 0).unwrap();
    world.script("proxy_on_request_headers", vec![with(Allocator::Reenters)]);
    let error = stream.on_request_headers(true).unwrap_err();
    assert_eq!(error.cause(), "limit");
    assert!(error.to_string().contains("allocator"), "{error}");
}
