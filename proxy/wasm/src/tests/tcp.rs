//! TCP connections: callbacks, data, resume and close, what is there and what is not.

use std::net::SocketAddr;

use super::world::*;
use crate::*;

const DATA: [(&str, u32); 2] = [("proxy_on_downstream_data", 2), ("proxy_on_upstream_data", 3)];

/// Makes the callback for the data with this buffer number.
fn data(stream: &StreamContext, buffer: u32, end: bool) -> TcpAction {
    if buffer == 2 { stream.on_downstream_data(end).unwrap() } else { stream.on_upstream_data(end).unwrap() }
}

fn push(stream: &StreamContext, buffer: u32, bytes: &'static str) {
    let mut data = if buffer == 2 { stream.downstream_data() } else { stream.upstream_data() };
    data.push(bytes.into());
}

fn get(buffer: u32, start: u32, length: u32) -> Step {
    call("proxy_get_buffer_bytes", [buffer, start, length, OUT, OUT + 4])
}

fn peeks(world: &World) -> Vec<String> {
    let text = |event| match event {
        Event::Peek(bytes) => Some(String::from_utf8(bytes).unwrap()),
        _ => None,
    };
    world.take().into_iter().filter_map(text).collect()
}

#[test]
fn a_connection_from_start_to_end() {
    let world = World::new();
    let plugin = world.plugin();
    let stream = plugin.stream(world.connection(), 0).unwrap();
    assert_eq!(stream.on_new_connection().unwrap(), TcpAction::Continue);
    push(&stream, 2, "hello");
    assert_eq!(stream.on_downstream_data(false).unwrap(), TcpAction::Continue);
    stream.downstream_data().clear();
    assert_eq!(stream.on_downstream_data(true).unwrap(), TcpAction::Continue);
    push(&stream, 3, "hi");
    assert_eq!(stream.on_upstream_data(true).unwrap(), TcpAction::Continue);
    stream.on_upstream_close(PeerType::Remote).unwrap();
    stream.on_downstream_close(PeerType::Local).unwrap();
    stream.finish();
    let calls: Vec<_> = world
        .take()
        .into_iter()
        .map(|event| match event {
            Event::Callback(name, parameters) => (name.trim_start_matches("proxy_on_"), parameters),
            other => panic!("{other:?}"),
        })
        .collect();
    let expected: [(&str, &[u32]); 10] = [
        ("context_create", &[2, 1]),
        ("new_connection", &[2]),
        ("downstream_data", &[2, 5, 0]),
        ("downstream_data", &[2, 0, 1]),
        ("upstream_data", &[2, 2, 1]),
        ("upstream_connection_close", &[2, 2]),
        ("downstream_connection_close", &[2, 1]),
        ("done", &[2]),
        ("log", &[2]),
        ("delete", &[2]),
    ];
    assert_eq!(calls, expected.map(|(name, parameters)| (name, parameters.to_vec())));
}

#[test]
fn anything_but_zero_pauses() {
    let world = World::new();
    let plugin = world.plugin();
    let stream = plugin.stream(world.connection(), 0).unwrap();
    for (number, action) in [(0, TcpAction::Continue), (1, TcpAction::Pause), (7, TcpAction::Pause)] {
        world.script("proxy_on_new_connection", vec![Step::Return(number)]);
        assert_eq!(stream.on_new_connection().unwrap(), action);
        for (callback, buffer) in DATA {
            world.script(callback, vec![Step::Return(number)]);
            assert_eq!(data(&stream, buffer, false), action);
        }
    }
}

#[test]
fn data_is_spliced_and_grows_while_paused() {
    for (callback, buffer) in DATA {
        let world = World::new();
        let plugin = world.plugin();
        let stream = plugin.stream(world.connection(), 0).unwrap();
        let mut scratch = Scratch::default();
        let (text, size) = scratch.put("XY");
        let set = |start, length| call("proxy_set_buffer_bytes", [buffer, start, length, text, size]);
        world.script(callback, vec![get(buffer, 0, 100), Step::PeekAt(OUT), Step::Return(1)]);
        let edits = [set(0, 0), set(4, 2), set(u32::MAX, 0), set(0, 1)];
        let steps = [vec![scratch.step()], edits.to_vec(), vec![get(buffer, 1, 100), Step::PeekAt(OUT)]];
        world.script(callback, steps.concat());
        push(&stream, buffer, "abc");
        world.take();
        assert_eq!(data(&stream, buffer, false), TcpAction::Pause);
        assert_eq!(peeks(&world), ["abc"]);
        push(&stream, buffer, "de");
        assert_eq!(data(&stream, buffer, true), TcpAction::Continue);
        let events = world.take();
        assert_eq!(events[0], Event::Callback(callback, vec![2, 5, 1]), "the whole");
        assert_eq!(events.last(), Some(&Event::Peek(b"YYabXYeXY".to_vec())));
        let mut left = if buffer == 2 { stream.downstream_data() } else { stream.upstream_data() };
        assert_eq!(left.to_bytes(), "XYYabXYeXY");
        assert!(left.take_modified() && !left.overflowed());
    }
}

#[test]
fn more_than_the_limit_cannot_be_written() {
    let world = World::new();
    let mut small = spec("");
    small.limits.body = 4;
    let plugin = world.vms.plugin(small.into()).unwrap();
    let stream = plugin.stream(world.connection(), 0).unwrap();
    let mut scratch = Scratch::default();
    let (text, size) = scratch.put("12345");
    let write = call("proxy_set_buffer_bytes", [3, 0, u32::MAX, text, size]);
    world.script("proxy_on_upstream_data", vec![scratch.step(), write]);
    push(&stream, 3, "abc");
    assert_eq!(data(&stream, 3, false), TcpAction::Continue);
    assert!(stream.upstream_data().overflowed() && stream.upstream_data().over_limit());
    assert_eq!(stream.upstream_data().len(), 3);
}

#[test]
fn each_side_is_resumed_by_its_number() {
    let world = World::new();
    let plugin = world.plugin();
    let stream = plugin.stream(world.connection(), 0).unwrap();
    // In its own callback, a guest that resumes has continued; another side's stays noted.
    for (callback, buffer) in DATA {
        let other = 5 - buffer;
        for (resumed, action) in [(buffer, TcpAction::Continue), (other, TcpAction::Pause)] {
            world.script(callback, vec![call("proxy_continue_stream", [resumed]), Step::Return(1)]);
            assert_eq!(data(&stream, buffer, false), action);
        }
        let (downstream, upstream) = (stream.take_resumed_downstream(), stream.take_resumed_upstream());
        assert_eq!((downstream, upstream), (other == 2, other == 3));
    }
    world.script("proxy_on_new_connection", vec![call("proxy_continue_stream", [2]), Step::Return(1)]);
    assert_eq!(stream.on_new_connection().unwrap(), TcpAction::Continue);
}

/// Whether the embedder is woken when the guest resumes this side in that callback.
fn wakes(world: &World, callback: &'static str, side: u32, make: impl FnOnce()) -> bool {
    world.script(callback, vec![call("proxy_continue_stream", [side]), Step::Return(1)]);
    world.take();
    make();
    world.take().contains(&Event::Wake)
}

#[test]
fn the_embedder_is_woken_for_the_side_that_a_callback_is_not_about() {
    let world = World::new();
    let plugin = world.plugin();
    let stream = plugin.stream(world.connection(), 0).unwrap();
    for side in [2, 3] {
        for (callback, buffer) in DATA {
            let woken = wakes(&world, callback, side, || {
                data(&stream, buffer, false);
            });
            assert_eq!(woken, side != buffer, "{callback}, {side}");
        }
        let woken = wakes(&world, "proxy_on_new_connection", side, || {
            stream.on_new_connection().unwrap();
        });
        assert!(!woken, "nothing has come that could be held: {side}");
        let woken = wakes(&world, "proxy_on_upstream_connection_close", side, || {
            stream.on_upstream_close(PeerType::Remote).unwrap();
        });
        assert_eq!(woken, side == 2, "upstream_connection_close, {side}");
    }
    // What is closed is looked for after every callback.
    for (callback, buffer) in DATA {
        world.script(callback, vec![call("proxy_close_stream", [5 - buffer])]);
        world.take();
        data(&stream, buffer, false);
        assert!(stream.take_closed() && !world.take().contains(&Event::Wake), "{callback}");
    }
}

#[test]
fn what_belongs_to_http_has_no_effect_here_and_the_other_way_round() {
    let numbers = |name, numbers: [u32; 6]| numbers.map(|number| call(name, [number])).to_vec();
    let steps = [
        numbers("proxy_continue_stream", [0, 1, 2, 3, 4, u32::MAX]),
        numbers("proxy_close_stream", [0, 1, 0, 1, 4, u32::MAX]),
    ];
    let world = World::new();
    let plugin = world.plugin();
    let stream = plugin.stream(world.connection(), 0).unwrap();
    world.script("proxy_on_new_connection", steps.concat());
    world.take();
    stream.on_new_connection().unwrap();
    assert_eq!(world.statuses(), [0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 2, 2]);
    assert!(!stream.take_closed(), "a request was meant");

    let http = plugin.stream(world.exchange(), 0).unwrap();
    let steps = [2, 3].map(|number| call("proxy_close_stream", [number]));
    world.script("proxy_on_request_headers", steps.to_vec());
    http.on_request_headers(true).unwrap();
    assert!(!http.take_closed(), "a connection was meant");
    world.take();
    world.script("proxy_on_request_headers", vec![call("proxy_continue_stream", [2]), Step::Return(1)]);
    assert_eq!(http.on_request_headers(true).unwrap(), HeadersAction::StopAllWatermark);
}

#[test]
fn closing_is_left_for_the_embedder() {
    for number in [2, 3] {
        let world = World::new();
        let plugin = world.plugin();
        let stream = plugin.stream(world.connection(), 0).unwrap();
        world.script("proxy_on_new_connection", vec![call("proxy_close_stream", [number])]);
        stream.on_new_connection().unwrap();
        assert!(stream.take_closed() && !stream.take_closed());
    }
}

#[test]
fn buffers_and_maps_of_http_are_not_there() {
    let world = World::new();
    let plugin = world.plugin();
    let stream = plugin.stream(world.connection(), 0).unwrap();
    push(&stream, 2, "abc");
    let answer = [200, 0, 0, 0, 0, 0, 0, 0];
    let steps = [
        (0..=9).map(|buffer| get(buffer, 0, 10)).collect::<Vec<_>>(),
        (0..=9).map(|buffer| call("proxy_set_buffer_bytes", [buffer, 0, 0, OUT, 1])).collect(),
        (0..=9).map(|buffer| call("proxy_get_buffer_status", [buffer, OUT, OUT + 4])).collect(),
        (0..=8).map(|map| call("proxy_get_header_map_pairs", [map, OUT, OUT + 4])).collect(),
        (0..=8).map(|map| call("proxy_get_header_map_value", [map, 0, 1, OUT, OUT + 4])).collect(),
        (0..=8).map(|map| call("proxy_add_header_map_value", [map, 0, 1, 0, 1])).collect(),
        vec![call("proxy_send_local_response", answer)],
    ];
    world.script("proxy_on_downstream_data", steps.concat());
    world.take();
    stream.on_downstream_data(false).unwrap();
    let statuses = world.statuses();
    assert_eq!(statuses[..10], [1, 1, 0, 1, 1, 1, 0, 0, 1, 2]);
    assert_eq!(statuses[10..20], [1, 1, 0, 1, 2, 2, 2, 2, 2, 2]);
    assert_eq!(statuses[20..30], [1, 1, 0, 1, 1, 1, 0, 0, 1, 2]);
    assert_eq!(statuses[30..39], [0, 0, 0, 0, 0, 0, 0, 0, 2], "empty");
    assert_eq!(statuses[39..48], [1, 1, 1, 1, 1, 1, 1, 1, 2]);
    assert_eq!(statuses[48..57], [2; 9]);
    assert_eq!(statuses[57..], [0], "nothing to answer, and the Rust SDK takes nothing but OK");
}

#[test]
fn held_data_can_be_read_and_changed_when_a_call_is_answered() {
    let world = World::new();
    let plugin = world.plugin();
    let stream = plugin.stream(world.connection(), 0).unwrap();
    push(&stream, 2, "abc");
    world.script("proxy_on_downstream_data", vec![Step::Return(1)]);
    assert_eq!(data(&stream, 2, false), TcpAction::Pause);
    let steps = [
        call("proxy_set_effective_context", [2]),
        get(2, 0, 10),
        Step::PeekAt(OUT),
        call("proxy_set_buffer_bytes", [2, 0, 1, OUT, 0]),
        call("proxy_continue_stream", [2]),
    ];
    world.script("proxy_on_foreign_function", steps.to_vec());
    world.take();
    let other = plugin.stream(world.connection(), 1).unwrap();
    other.on_foreign_function(0, "".into()).unwrap();
    let events = world.take();
    assert!(events.contains(&Event::Peek(b"abc".to_vec())) && events.contains(&Event::Wake));
    assert!(stream.take_resumed_downstream());
    assert_eq!(stream.downstream_data().to_bytes(), "bc");
}

/// What the property holds: text if it is some, else the number.
fn property(path: &str, prepare: impl FnOnce(&mut Attributes)) -> Option<String> {
    let world = World::new();
    let plugin = world.plugin();
    let connection = world.connection();
    prepare(&mut connection.attributes.borrow_mut());
    let stream = plugin.stream(connection, 0).unwrap();
    let mut scratch = Scratch::default();
    let (at, size) = scratch.put(path.replace('/', "\0"));
    let read = call("proxy_get_property", [at, size, OUT, OUT + 4]);
    world.script("proxy_on_new_connection", vec![scratch.step(), read, Step::PeekAt(OUT)]);
    world.take();
    stream.on_new_connection().unwrap();
    let events = world.take();
    if !events.contains(&Event::Status(0)) {
        assert!(events.contains(&Event::Status(1)), "{path}: {events:?}");
        return None;
    }
    match events.last() {
        Some(Event::Peek(bytes)) => Some(match <[u8; 8]>::try_from(&bytes[..]) {
            Ok(number) => u64::from_le_bytes(number).to_string(),
            Err(_) => String::from_utf8(bytes.clone()).unwrap(),
        }),
        other => panic!("{path}: {other:?}"),
    }
}

#[test]
fn properties_of_a_connection() {
    let upstream: SocketAddr = "192.0.2.9:5432".parse().unwrap();
    let known = |attributes: &mut Attributes| {
        attributes.request_bytes = 11;
        attributes.response_bytes = 22;
        attributes.response_flags = 4;
        attributes.cluster = Some("base".into());
        attributes.upstream_address = Some(upstream.into());
        attributes.response_code_details = Some("because_of_it".into());
    };
    for (path, value) in [
        ("source/address", "192.0.2.1:1234"),
        ("source/port", "1234"),
        ("destination/port", "80"),
        ("connection/id", "7"),
        ("connection_id", "7"),
        ("upstream/address", "192.0.2.9:5432"),
        ("upstream/port", "5432"),
        ("request/size", "11"),
        ("response/size", "22"),
        ("response/flags", "4"),
        ("response/code_details", "because_of_it"),
        ("xds/cluster_name", "base"),
        ("plugin_name", "puppet"),
    ] {
        assert_eq!(property(path, known).as_deref(), Some(value), "{path}");
    }
    assert!(property("request/time", known).is_some());
    for path in ["request/path", "request/headers", "response/code", "request/method", "response/headers/a"] {
        assert_eq!(property(path, known), None, "{path}");
    }
    for path in ["upstream/address", "xds/cluster_name", "request/duration"] {
        assert_eq!(property(path, |_| {}), None, "{path}");
    }
}

#[test]
fn filters_leave_properties_for_each_other() {
    let world = World::new();
    let plugin = world.plugin();
    let connection = world.connection();
    let first = plugin.stream(connection.clone(), 0).unwrap();
    let second = plugin.stream(connection.clone(), 1).unwrap();
    let mut scratch = Scratch::default();
    let (path, length) = scratch.put("my\0key");
    let (value, size) = scratch.put("seen");
    let set = call("proxy_set_property", [path, length, value, size]);
    let read = call("proxy_get_property", [path, length, OUT, OUT + 4]);
    world.script("proxy_on_new_connection", vec![scratch.step(), set]);
    world.script("proxy_on_new_connection", vec![read, Step::PeekAt(OUT)]);
    first.on_new_connection().unwrap();
    world.take();
    second.on_new_connection().unwrap();
    assert_eq!(peeks(&world), ["seen"]);
    assert_eq!(connection.attributes.borrow().custom.find(b"my\0key").unwrap(), b"seen");
}

#[test]
fn a_crash_in_each_callback_costs_the_connection() {
    type Make = fn(&StreamContext) -> Result<(), VmError>;
    let callbacks: [(&'static str, Make); 5] = [
        ("proxy_on_new_connection", |stream| stream.on_new_connection().map(drop)),
        ("proxy_on_downstream_data", |stream| stream.on_downstream_data(false).map(drop)),
        ("proxy_on_downstream_connection_close", |stream| stream.on_downstream_close(PeerType::Remote)),
        ("proxy_on_upstream_data", |stream| stream.on_upstream_data(true).map(drop)),
        ("proxy_on_upstream_connection_close", |stream| stream.on_upstream_close(PeerType::Local)),
    ];
    for (callback, make) in callbacks {
        let world = World::new();
        let plugin = world.plugin();
        let stream = plugin.stream(world.connection(), 0).unwrap();
        world.script(callback, vec![Step::Crash(super::puppet::UNREACHABLE)]);
        let error = make(&stream).unwrap_err();
        assert!(error.to_string().contains(&format!("{callback} trapped")), "{error}");
        assert!(stream.is_poisoned());
        assert_eq!(make(&stream).unwrap_err().cause(), "poisoned");
        let next = plugin.stream(world.connection(), 0).unwrap();
        make(&next).unwrap();
    }
}
