//! Which callback is made when, on which context, and what ends it.

use std::any::Any;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::puppet;
use super::world::*;
use crate::*;

fn callback(name: &'static str, parameters: &[u32]) -> Event {
    Event::Callback(name, parameters.to_vec())
}

#[test]
fn a_plugin_and_an_exchange_from_start_to_end() {
    let world = World::new();
    let plugin = world.vms.plugin(Arc::new(spec("cfg"))).unwrap();
    let start = [
        callback("proxy_on_context_create", &[1, 0]),
        callback("proxy_on_vm_start", &[1, 9]),
        callback("proxy_on_configure", &[1, 3]),
    ];
    assert_eq!(world.take(), start);
    assert!(plugin.callbacks().contains(Callbacks::ALL));

    let exchange = world.exchange();
    let stream = plugin.stream(exchange.clone(), 0).unwrap();
    assert_eq!(stream.on_request_headers(false).unwrap(), HeadersAction::Continue);
    stream.request_body().push("abc".into());
    assert_eq!(stream.on_request_body(false).unwrap(), BodyAction::Continue);
    exchange.http().borrow_mut().request_trailers = Some(Default::default());
    assert_eq!(stream.on_request_trailers().unwrap(), TrailersAction::Continue);
    exchange.http().borrow_mut().response = Some(response(200));
    assert_eq!(stream.on_response_headers(true).unwrap(), HeadersAction::Continue);
    stream.on_response_body(true).unwrap();
    stream.on_response_trailers().unwrap();
    stream.on_foreign_function(9, "1234".into()).unwrap();
    stream.finish();
    drop(plugin);
    let events = [
        callback("proxy_on_context_create", &[2, 1]),
        // Four pseudo headers, three others.
        callback("proxy_on_request_headers", &[2, 7, 0]),
        callback("proxy_on_request_body", &[2, 3, 0]),
        callback("proxy_on_request_trailers", &[2, 0]),
        callback("proxy_on_response_headers", &[2, 1, 1]),
        callback("proxy_on_response_body", &[2, 0, 1]),
        callback("proxy_on_response_trailers", &[2, 0]),
        callback("proxy_on_foreign_function", &[2, 9, 4]),
        callback("proxy_on_done", &[2]),
        callback("proxy_on_log", &[2]),
        callback("proxy_on_delete", &[2]),
        callback("proxy_on_done", &[1]),
        callback("proxy_on_delete", &[1]),
    ];
    assert_eq!(world.take(), events);
}

#[test]
fn an_equal_spec_is_the_same_plugin_and_others_may_share_the_vm() {
    let world = World::new();
    let one = world.vms.plugin(Arc::new(spec("1"))).unwrap();
    let same = world.vms.plugin(Arc::new(spec("1"))).unwrap();
    assert!(Rc::ptr_eq(&one, &same));
    world.take();
    // Another configuration: the next context id of the same VM.
    let two = world.vms.plugin(Arc::new(spec("22"))).unwrap();
    assert_eq!(world.take()[2], callback("proxy_on_configure", &[2, 2]));
    // Another VM: ids begin again.
    let mut other = spec("1");
    other.environment.push(("A".into(), "B".into()));
    let three = world.vms.plugin(Arc::new(other)).unwrap();
    assert_eq!(world.take()[2], callback("proxy_on_configure", &[1, 1]));
    drop((one, same));
    assert_eq!(world.take(), [callback("proxy_on_done", &[1]), callback("proxy_on_delete", &[1])]);
    let again = world.vms.plugin(Arc::new(spec("1"))).unwrap();
    assert_eq!(world.take()[0], callback("proxy_on_context_create", &[3, 0]), "ids are not used again");
    drop((two, three, again));
}

#[test]
fn a_refused_configuration_starts_nothing() {
    let world = World::new();
    for refusing in ["proxy_on_vm_start", "proxy_on_configure"] {
        world.script(refusing, vec![Step::Return(0)]);
        match world.vms.plugin(Arc::new(spec(""))) {
            Err(StartError::Refused { plugin, callback }) => {
                assert_eq!((plugin.as_str(), callback), ("puppet", refusing));
            }
            other => panic!("{:?}", other.map(drop)),
        }
        assert_eq!(world.take().last(), Some(&callback("proxy_on_delete", &[1])));
    }
    assert!(world.vms.plugin(Arc::new(spec(""))).is_ok());
}

#[test]
fn return_values_are_actions() {
    let world = World::new();
    let plugin = world.plugin();
    let stream = plugin.stream(world.exchange(), 0).unwrap();
    let headers = [
        (0, HeadersAction::Continue),
        (1, HeadersAction::StopAllWatermark),
        (3, HeadersAction::StopAllBuffer),
        (4, HeadersAction::StopAllWatermark),
        (99, HeadersAction::StopAllWatermark),
    ];
    for (number, action) in headers {
        world.script("proxy_on_request_headers", vec![Step::Return(number)]);
        assert_eq!(stream.on_request_headers(false).unwrap(), action);
    }
    let bodies = [
        (0, BodyAction::Continue),
        (1, BodyAction::Buffer),
        (2, BodyAction::Watermark),
        (3, BodyAction::Drop),
        (99, BodyAction::Drop),
    ];
    for (number, action) in bodies {
        world.script("proxy_on_response_body", vec![Step::Return(number)]);
        assert_eq!(stream.on_response_body(false).unwrap(), action);
    }
    for (number, action) in [(0, TrailersAction::Continue), (1, TrailersAction::Pause)] {
        world.script("proxy_on_request_trailers", vec![Step::Return(number)]);
        assert_eq!(stream.on_request_trailers().unwrap(), action);
    }
    let mut stopping = spec("x");
    stopping.compatibility.stop_iteration = true;
    let plugin = world.vms.plugin(Arc::new(stopping)).unwrap();
    let stream = plugin.stream(world.exchange(), 0).unwrap();
    world.script("proxy_on_request_headers", vec![Step::Return(1)]);
    assert_eq!(stream.on_request_headers(false).unwrap(), HeadersAction::StopIteration);
}

#[test]
fn a_context_that_is_not_done_ends_when_it_says_so() {
    let world = World::new();
    let plugin = world.plugin();
    let stream = plugin.stream(world.exchange(), 0).unwrap();
    world.script("proxy_on_done", vec![Step::Return(0)]);
    world.take();
    drop(stream);
    assert_eq!(world.take(), [callback("proxy_on_done", &[2])]);
    // From another callback of the plugin.
    let stream = plugin.stream(world.exchange(), 0).unwrap();
    let steps =
        vec![call("proxy_done", []), call("proxy_set_effective_context", [2]), call("proxy_done", [])];
    world.script("proxy_on_request_headers", steps);
    world.take();
    stream.on_request_headers(true).unwrap();
    let events = world.take();
    assert_eq!(events[1..4], [Event::Status(1), Event::Status(0), Event::Status(0)]);
    assert_eq!(events[4..], [callback("proxy_on_log", &[2]), callback("proxy_on_delete", &[2])]);
}

#[test]
fn contexts_that_end_each_other_end_one_behind_the_other() {
    // Each within the one before would be more than the stack has.
    const CONTEXTS: u32 = 5_000;
    let end = |context: u32| vec![call("proxy_set_effective_context", [context]), call("proxy_done", [])];
    let world = World::new();
    let plugin = world.plugin();
    for context in 2..CONTEXTS + 2 {
        world.script("proxy_on_done", vec![Step::Return(0)]);
        world.script("proxy_on_log", end(context + 1));
        drop(plugin.stream(world.exchange(), 0).unwrap());
    }
    let stream = plugin.stream(world.exchange(), 0).unwrap();
    world.script("proxy_on_request_headers", end(2));
    stream.on_request_headers(true).unwrap();
    // Those for which there was no time.
    while world.vms.has_pending() {
        world.vms.sweep();
    }
    let ended =
        world.take().into_iter().filter(|event| matches!(event, Event::Callback("proxy_on_delete", _)));
    assert_eq!(ended.count(), CONTEXTS as usize);
    assert_eq!(plugin.stats().traps(), 0);
}

#[test]
fn a_context_that_is_never_done_ends_after_a_while() {
    let world = World::new();
    let plugin = world.plugin();
    world.script("proxy_on_done", vec![Step::Return(0)]);
    world.script("proxy_on_done", vec![Step::Return(0)]);
    drop(plugin.stream(world.exchange(), 0).unwrap());
    drop(plugin);
    world.take();
    world.vms.sweep_at(Instant::now() + Duration::from_secs(4));
    assert_eq!(world.take(), []);
    world.vms.sweep_at(Instant::now() + Duration::from_secs(6));
    let ends = [
        callback("proxy_on_log", &[2]),
        callback("proxy_on_delete", &[2]),
        callback("proxy_on_delete", &[1]),
    ];
    assert_eq!(world.take(), ends);
    world.vms.sweep_at(Instant::now() + Duration::from_secs(60));
    assert_eq!(world.take(), []);
}

/// An exchange that nobody but the test keeps.
struct Passing {
    http: Option<RefCell<HttpStream>>,
    tcp: Option<RefCell<Attributes>>,
}

impl Exchange for Passing {
    fn http(&self) -> Option<&RefCell<HttpStream>> {
        self.http.as_ref()
    }

    fn tcp(&self) -> Option<&RefCell<Attributes>> {
        self.tcp.as_ref()
    }

    fn wake(&self) {}

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Steps that read properties, and show what is there.
fn properties(paths: &[&str]) -> Vec<Step> {
    let mut scratch = Scratch::default();
    let places: Vec<_> = paths.iter().map(|path| scratch.put(path)).collect();
    let read = |(path, size): (u32, u32)| {
        [call("proxy_get_property", [path, size, OUT, OUT + 4]), Step::PeekAt(OUT)]
    };
    [scratch.step()].into_iter().chain(places.into_iter().flat_map(read)).collect()
}

#[test]
fn a_context_that_is_done_late_logs_the_exchange_as_it_ended() {
    for says_so in [true, false] {
        let world = World::new();
        let plugin = world.plugin();
        let known = world.exchange();
        let (request, attributes) = {
            let known = known.http().borrow();
            (known.request.clone(), known.attributes.clone())
        };
        let connection = attributes.connection.clone();
        let http = HttpStream { response: Some(response(418)), ..HttpStream::new(request, attributes) };
        let exchange = Rc::new(Passing { http: Some(RefCell::new(http)), tcp: None });
        let stream = plugin.stream(exchange.clone(), 0).unwrap();
        world.script("proxy_on_done", vec![Step::Return(0)]);
        let mut scratch = Scratch::default();
        let (key, length) = scratch.put(":status");
        let status = vec![
            scratch.step(),
            call("proxy_get_header_map_value", [2, key, length, OUT, OUT + 4]),
            Step::PeekAt(OUT),
        ];
        let read = properties(&["response\0code", "request\0path"]);
        world.script("proxy_on_log", [status, read].concat());
        drop(stream);
        assert!(Rc::into_inner(exchange).is_some(), "its owner can let go of all that it holds");
        if says_so {
            let other = plugin.stream(world.exchange(), 0).unwrap();
            let steps = vec![call("proxy_set_effective_context", [2]), call("proxy_done", [])];
            world.script("proxy_on_request_headers", steps);
            other.on_request_headers(true).unwrap();
        } else {
            world.vms.sweep_at(Instant::now() + Duration::from_secs(6));
        }
        let events = world.take();
        let logs = events.iter().position(|event| *event == callback("proxy_on_log", &[2])).unwrap();
        let expected = [
            callback("proxy_on_log", &[2]),
            Event::Status(0),
            Event::Peek(b"418".to_vec()),
            Event::Status(0),
            Event::Peek(418_u64.to_le_bytes().to_vec()),
            Event::Status(0),
            Event::Peek(b"/path?query=1".to_vec()),
            callback("proxy_on_delete", &[2]),
        ];
        assert_eq!(events[logs..][..expected.len()], expected);
        // The test's, and that of the exchange which it was taken from.
        assert_eq!(Rc::strong_count(&connection), 2, "nothing is left");
    }
}

#[test]
fn a_context_that_is_done_late_logs_the_connection_as_it_ended() {
    let world = World::new();
    let plugin = world.plugin();
    let attributes = world.connection().attributes.borrow().clone();
    let exchange = Rc::new(Passing { http: None, tcp: Some(RefCell::new(attributes)) });
    let stream = plugin.stream(exchange.clone(), 0).unwrap();
    world.script("proxy_on_done", vec![Step::Return(0)]);
    world.script("proxy_on_log", properties(&["source\0address"]));
    drop(stream);
    drop(exchange);
    world.take();
    world.vms.sweep_at(Instant::now() + Duration::from_secs(6));
    let expected = [
        callback("proxy_on_log", &[2]),
        Event::Status(0),
        Event::Peek(b"192.0.2.1:1234".to_vec()),
        callback("proxy_on_delete", &[2]),
    ];
    assert_eq!(world.take(), expected);
}

#[test]
fn a_plugin_that_is_not_done_still_ticks() {
    let world = World::new();
    world.script("proxy_on_configure", vec![call("proxy_set_tick_period_milliseconds", [1])]);
    let plugin = world.vms.plugin(Arc::new(spec(""))).unwrap();
    let (handle, period) = world.host.ticks.borrow_mut().pop().unwrap();
    assert_eq!(period, Some(Duration::from_millis(10)), "the shortest there is");
    world.script("proxy_on_done", vec![Step::Return(0)]);
    drop(plugin);
    world.take();
    assert!(handle.tick());
    assert_eq!(world.take(), [callback("proxy_on_tick", &[1])]);
    world.script("proxy_on_tick", vec![call("proxy_done", [])]);
    assert!(handle.tick());
    assert_eq!(world.take().last(), Some(&callback("proxy_on_delete", &[1])));
    assert!(!handle.tick());
    assert_eq!(world.take(), []);
}

#[test]
fn abi_0_1_0_has_no_end_of_stream() {
    let world = World::new();
    let mut old = spec("");
    old.module = compile(&puppet::text("0_1_0"));
    assert_eq!(old.module.abi(), AbiVersion::V0_1_0);
    let missing = {
        let mut scratch = Scratch::default();
        let (key, length) = scratch.put("x-missing");
        vec![
            scratch.step(),
            call("proxy_get_header_map_value", [0, key, length, OUT, OUT + 4]),
            Step::Peek(OUT, 8),
        ]
    };
    world.script("proxy_on_request_headers", missing);
    let configuration = vec![call("proxy_get_configuration", [OUT, OUT + 4]), Step::PeekAt(OUT)];
    world.script("proxy_on_configure", configuration.clone());
    world.script("proxy_on_vm_start", configuration);
    old.configuration = b"of the plugin".to_vec();
    let plugin = world.vms.plugin(Arc::new(old)).unwrap();
    let events = world.take();
    assert!(events.contains(&Event::Peek(b"of the plugin".to_vec())), "{events:?}");
    assert!(events.contains(&Event::Peek(b"of the vm".to_vec())), "{events:?}");
    let stream = plugin.stream(world.exchange(), 0).unwrap();
    world.take();
    assert_eq!(stream.on_request_headers(true).unwrap(), HeadersAction::Continue);
    let expected = [callback("proxy_on_request_headers", &[2, 7]), Event::Status(0), Event::Peek(vec![0; 8])];
    assert_eq!(world.take(), expected, "a missing header is an empty one");
}

#[test]
fn many_streams_live_at_once_under_different_ids() {
    let world = World::new();
    let plugin = world.plugin();
    let streams: Vec<_> = (0..200).map(|_| plugin.stream(world.exchange(), 0).unwrap()).collect();
    let mut ids = Vec::new();
    for stream in &streams {
        world.take();
        stream.on_request_headers(true).unwrap();
        match &world.take()[..] {
            [Event::Callback("proxy_on_request_headers", parameters)] => ids.push(parameters[0]),
            other => panic!("{other:?}"),
        }
    }
    assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
    drop(streams);
    let last = *ids.last().unwrap();
    world.take();
    let _stream = plugin.stream(world.exchange(), 0).unwrap();
    match &world.take()[..] {
        [Event::Callback("proxy_on_context_create", parameters)] => assert!(parameters[0] > last),
        other => panic!("{other:?}"),
    }
}

#[test]
fn live_contexts_are_bounded() {
    let world = World::new();
    let plugin = world.plugin();
    let mut streams = Vec::new();
    let error = loop {
        match plugin.stream(world.exchange(), 0) {
            Ok(stream) => streams.push(stream),
            Err(error) => break error,
        }
    };
    assert_eq!(streams.len(), 9_999, "and the plugin's own");
    assert_eq!(error.flag(), "WL");
    streams.pop();
    assert!(plugin.stream(world.exchange(), 0).is_ok(), "the VM goes on");
}

#[test]
fn callbacks_are_counted_and_timed() {
    let world = World::new();
    let plugin = world.plugin();
    let before = plugin.stats().callbacks();
    for _ in 0..32 {
        plugin.stream(world.exchange(), 0).unwrap().on_request_headers(true).unwrap();
    }
    // Create, headers, done, log, delete.
    assert_eq!(plugin.stats().callbacks() - before, 32 * 5);
    assert!(plugin.stats().nanoseconds() > 0);
    assert_eq!(plugin.stats().traps(), 0);
}
