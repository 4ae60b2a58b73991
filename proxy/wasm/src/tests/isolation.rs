//! An instance for each exchange: nothing is shared, nothing is left, and there are only so many.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::puppet::{LOOP, UNREACHABLE};
use super::world::*;
use crate::pairs;
use crate::*;

fn isolated() -> Arc<PluginSpec> {
    let mut isolated = spec("cfg");
    isolated.isolation = Isolation::Exchange;
    Arc::new(isolated)
}

fn callback(name: &'static str, parameters: &[u32]) -> Event {
    Event::Callback(name, parameters.to_vec())
}

#[test]
fn each_exchange_has_an_instance_from_start_to_end() {
    let world = World::new();
    let plugin = world.vms.plugin(isolated()).unwrap();
    let start = [
        callback("proxy_on_context_create", &[1, 0]),
        callback("proxy_on_vm_start", &[1, 9]),
        callback("proxy_on_configure", &[1, 3]),
    ];
    let end = [callback("proxy_on_done", &[1]), callback("proxy_on_delete", &[1])];
    assert_eq!(world.take(), [&start[..], &end].concat(), "it can start");
    assert_eq!((plugin.stats().vms(), world.shared.bounds().memory()), (0, 0));
    let streams: Vec<_> = (0..3)
        .map(|_| {
            let stream = plugin.stream(world.exchange(), 0).unwrap();
            let created = [&start[..], &[callback("proxy_on_context_create", &[2, 1])]].concat();
            assert_eq!(world.take(), created);
            stream
        })
        .collect();
    assert_eq!((plugin.stats().vms(), plugin.stats().contexts()), (3, 3));
    assert_eq!(world.shared.bounds().exchange_instances(), 3);
    for stream in streams {
        stream.on_request_headers(true).unwrap();
        world.take();
        stream.finish();
        let ended = ["proxy_on_done", "proxy_on_log", "proxy_on_delete"].map(|name| callback(name, &[2]));
        assert_eq!(world.take(), [&ended[..], &end].concat());
    }
    assert_eq!((plugin.stats().vms(), plugin.stats().contexts()), (0, 0));
    assert_eq!((world.shared.bounds().exchange_instances(), world.shared.bounds().memory()), (0, 0));
    drop(plugin);
    assert_eq!(world.take(), []);
}

#[test]
fn a_trap_touches_no_other_exchange() {
    let world = World::new();
    let plugin = world.vms.plugin(isolated()).unwrap();
    let beside = plugin.stream(world.exchange(), 0).unwrap();
    let failing = plugin.stream(world.exchange(), 0).unwrap();
    world.script("proxy_on_request_headers", vec![Step::Crash(UNREACHABLE)]);
    failing.on_request_headers(false).unwrap_err();
    assert!(failing.is_poisoned() && !beside.is_poisoned());
    beside.on_request_headers(false).unwrap();
    drop(failing);
    beside.on_response_headers(true).unwrap();
    assert_eq!(plugin.stats().vms(), 1, "what failed is gone");
}

#[test]
fn memory_of_one_exchange_is_not_seen_by_the_next() {
    let world = World::new();
    let plugin = world.vms.plugin(isolated()).unwrap();
    let secret = b"a card's number".to_vec();
    let steps = [
        vec![Step::Write(8_192, secret.clone()), Step::Peek(8_192, secret.len() as u32)],
        vec![Step::Peek(8_192, secret.len() as u32)],
    ];
    let shown = steps.map(|steps| {
        let stream = plugin.stream(world.exchange(), 0).unwrap();
        world.take();
        world.script("proxy_on_request_headers", steps);
        stream.on_request_headers(true).unwrap();
        world.take().pop()
    });
    assert_eq!(shown, [Some(Event::Peek(secret.clone())), Some(Event::Peek(vec![0; secret.len()]))]);
}

#[test]
fn too_many_instances_are_an_overload_and_no_failure() {
    let world = World::new();
    world.shared.bounds().set(Bounds::MEMORY, 2);
    let plugin = world.vms.plugin(isolated()).unwrap();
    let streams: Vec<_> = (0..2).map(|_| plugin.stream(world.exchange(), 0).unwrap()).collect();
    for _ in 0..100 {
        let error = plugin.stream(world.exchange(), 0).map(drop).unwrap_err();
        assert_eq!((error.cause(), error.flag()), ("overload", "WL"));
        assert_eq!(error.retry_after(), Some(Duration::from_secs(1)));
    }
    assert_eq!(plugin.ledger().exceeded(Limit::Instances), 100);
    assert_eq!((plugin.stats().traps(), plugin.stats().quarantined_until()), (0, None));
    let mut other = (*isolated()).clone();
    other.configuration = b"another".to_vec();
    assert!(world.vms.plugin(Arc::new(other)).is_ok(), "a plugin can come while all are busy");
    drop(streams);
    assert!(plugin.stream(world.exchange(), 0).is_ok());
}

#[test]
fn an_instance_starts_within_the_time_of_a_callback() {
    let world = World::new();
    let mut spec = (*isolated()).clone();
    spec.limits.time = Duration::from_millis(20);
    spec.limits.start_time = Duration::from_secs(60);
    let plugin = world.vms.plugin(Arc::new(spec)).unwrap();
    world.script("proxy_on_configure", vec![Step::Crash(LOOP)]);
    let error = plugin.stream(world.exchange(), 0).map(drop).unwrap_err();
    assert!(error.to_string().contains("proxy_on_configure ran longer than 20ms"), "{error}");
    assert_eq!(plugin.ledger().exceeded(Limit::StartTime), 1);
    assert!(plugin.stream(world.exchange(), 0).is_ok());
}

#[test]
fn limits_of_the_plugin_hold_over_all_its_instances() {
    let world = World::new();
    let mut spec = (*isolated()).clone();
    spec.limits.crashes = 1;
    let plugin = world.vms.plugin(Arc::new(spec)).unwrap();
    for _ in 0..2 {
        let stream = plugin.stream(world.exchange(), 0).unwrap();
        world.script("proxy_on_request_headers", vec![Step::Crash(UNREACHABLE)]);
        stream.on_request_headers(false).unwrap_err();
    }
    assert_eq!(plugin.stream(world.exchange(), 0).map(drop).unwrap_err().cause(), "quarantined");
    assert_eq!(plugin.stats().traps(), 2);
}

#[test]
fn a_timer_ends_with_the_instance() {
    let world = World::new();
    let plugin = world.vms.plugin(isolated()).unwrap();
    world.script("proxy_on_configure", vec![call("proxy_set_tick_period_milliseconds", [1_000])]);
    let stream = plugin.stream(world.exchange(), 0).unwrap();
    let (handle, period) = world.host.ticks.borrow_mut().pop().unwrap();
    assert_eq!(period, Some(Duration::from_secs(1)));
    world.take();
    assert!(handle.tick());
    assert_eq!(world.take(), [callback("proxy_on_tick", &[1])]);
    drop(stream);
    let (stopped, period) = world.host.ticks.borrow_mut().pop().unwrap();
    assert_eq!((stopped.key(), period), (handle.key(), None));
}

#[test]
fn an_instance_stays_until_its_stream_is_done() {
    let world = World::new();
    let plugin = world.vms.plugin(isolated()).unwrap();
    let stream = plugin.stream(world.exchange(), 0).unwrap();
    world.script("proxy_on_done", vec![Step::Return(0)]);
    drop(stream);
    world.take();
    assert_eq!(plugin.stats().vms(), 1);
    world.vms.sweep_at(Instant::now() + Duration::from_secs(6));
    let ends = [
        callback("proxy_on_log", &[2]),
        callback("proxy_on_delete", &[2]),
        callback("proxy_on_done", &[1]),
        callback("proxy_on_delete", &[1]),
    ];
    assert_eq!(world.take(), ends);
    assert_eq!((plugin.stats().vms(), world.shared.bounds().exchange_instances()), (0, 0));
    assert_eq!(plugin.ledger().exceeded(Limit::Done), 1);
}

/// Ends a stream that is not done, in an instance with a timer.
fn not_done(world: &World, plugin: &Rc<Plugin>) -> TickHandle {
    world.script("proxy_on_configure", vec![call("proxy_set_tick_period_milliseconds", [1_000])]);
    let stream = plugin.stream(world.exchange(), 0).unwrap();
    let (timer, _) = world.host.ticks.borrow_mut().pop().unwrap();
    world.script("proxy_on_done", vec![Step::Return(0)]);
    world.take();
    drop(stream);
    assert_eq!(world.take(), [callback("proxy_on_done", &[2])]);
    timer
}

/// In this callback the plugin says that the context is done.
fn done_in(world: &World, callback: &'static str, context: u32) {
    let steps = vec![call("proxy_set_effective_context", [context]), call("proxy_done", [])];
    world.script(callback, steps);
}

#[test]
fn an_instance_ends_as_soon_as_its_stream_is_done() {
    let world = World::new();
    let plugin = world.vms.plugin(isolated()).unwrap();
    let timer = not_done(&world, &plugin);
    assert_eq!((plugin.stats().vms(), world.shared.bounds().exchange_instances()), (1, 1));
    done_in(&world, "proxy_on_tick", 2);
    assert!(timer.tick());
    let ends = [
        callback("proxy_on_tick", &[1]),
        Event::Status(0),
        Event::Status(0),
        callback("proxy_on_log", &[2]),
        callback("proxy_on_delete", &[2]),
        callback("proxy_on_done", &[1]),
        callback("proxy_on_delete", &[1]),
    ];
    assert_eq!(world.take(), ends);
    assert_eq!((plugin.stats().vms(), plugin.stats().contexts()), (0, 0));
    assert_eq!((world.shared.bounds().exchange_instances(), world.shared.bounds().memory()), (0, 0));
    assert!(!world.vms.has_pending() && !timer.tick(), "nothing is left that waits");
    assert_eq!(plugin.ledger().exceeded(Limit::Done), 0);
}

#[test]
fn an_instance_stays_until_its_plugin_is_done() {
    let world = World::new();
    let plugin = world.vms.plugin(isolated()).unwrap();
    for says_so in [true, false] {
        let timer = not_done(&world, &plugin);
        world.script("proxy_on_done", vec![Step::Return(0)]);
        done_in(&world, "proxy_on_tick", 2);
        assert!(timer.tick());
        assert_eq!(world.take().last(), Some(&callback("proxy_on_done", &[1])));
        assert_eq!((plugin.stats().vms(), world.shared.bounds().exchange_instances()), (1, 1));
        if says_so {
            done_in(&world, "proxy_on_tick", 1);
            assert!(timer.tick());
        } else {
            world.vms.sweep_at(Instant::now() + Duration::from_secs(4));
            assert_eq!(world.take(), []);
            world.vms.sweep_at(Instant::now() + Duration::from_secs(6));
        }
        assert_eq!(world.take().last(), Some(&callback("proxy_on_delete", &[1])));
        assert_eq!((plugin.stats().vms(), world.shared.bounds().exchange_instances()), (0, 0));
        assert_eq!(plugin.ledger().exceeded(Limit::Done), u64::from(!says_so));
    }
}

#[test]
fn an_instance_that_fails_while_it_waits_is_let_go() {
    let world = World::new();
    let plugin = world.vms.plugin(isolated()).unwrap();
    let timer = not_done(&world, &plugin);
    world.script("proxy_on_tick", vec![Step::Crash(UNREACHABLE)]);
    timer.tick();
    world.vms.sweep_at(Instant::now());
    assert_eq!((plugin.stats().vms(), plugin.stats().contexts()), (0, 0));
    assert_eq!(world.shared.bounds().exchange_instances(), 0);
    assert!(!world.vms.has_pending());
}

#[test]
fn a_call_counts_until_it_is_over_also_when_its_instance_is_gone() {
    let world = World::new();
    let mut spec = (*isolated()).clone();
    spec.limits.http_calls = 1;
    let plugin = world.vms.plugin(Arc::new(spec)).unwrap();
    // The stream waits for the response, or does not.
    for done in [0, 1, 0] {
        let stream = plugin.stream(world.exchange(), 0).unwrap();
        let mut scratch = Scratch::default();
        let (cluster, size) = scratch.put("known");
        let head = [(&b":method"[..], &b"GET"[..]), (b":path", b"/"), (b":authority", b"a")];
        let (h, hn) = scratch.put(pairs::encode(|| head.into_iter()));
        let sent = call("proxy_http_call", [cluster, size, h, hn, 0, 0, 0, 0, 0, OUT]);
        world.script("proxy_on_done", vec![scratch.step(), sent, Step::Return(done)]);
        world.take();
        drop(stream);
        assert_eq!(world.take()[..2], [callback("proxy_on_done", &[2]), Event::Status(0)], "no other call");
        if done == 0 {
            done_in(&world, "proxy_on_http_call_response", 2);
        }
        let (_, reply) = world.host.calls.borrow_mut().pop().unwrap();
        reply.deliver(Ok(call_response(200, "")));
        assert_eq!(plugin.stats().vms(), 0);
    }
    assert_eq!(plugin.ledger().exceeded(Limit::HttpCalls), 0);
}

#[test]
fn a_plugin_that_cannot_start_is_refused() {
    let world = World::new();
    world.script("proxy_on_configure", vec![Step::Return(0)]);
    assert!(matches!(world.vms.plugin(isolated()), Err(StartError::Refused { .. })));
    assert_eq!(world.shared.bounds().exchange_instances(), 0);
}

#[test]
fn one_filter_leaves_instances_for_others() {
    let world = World::new();
    world.shared.bounds().set(Bounds::MEMORY, 8);
    let plugin = world.vms.plugin(isolated()).unwrap();
    let mut other = (*isolated()).clone();
    other.name = "other".into();
    let other = world.vms.plugin(Arc::new(other)).unwrap();
    let all_of = |plugin: &Rc<Plugin>| -> Vec<_> {
        std::iter::from_fn(|| plugin.stream(world.exchange(), 0).ok()).collect()
    };
    let (first, second) = (all_of(&plugin), all_of(&other));
    assert_eq!((first.len(), second.len()), (5, 2));
}
