//! An instance for each exchange: nothing is shared, nothing is left, and there are only so many.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::puppet::UNREACHABLE;
use super::world::*;
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
        callback("proxy_on_delete", &[1]),
    ];
    assert_eq!(world.take(), ends);
    assert_eq!(plugin.stats().vms(), 0);
    assert_eq!(plugin.ledger().exceeded(Limit::Done), 1);
}

#[test]
fn a_plugin_that_cannot_start_is_refused() {
    let world = World::new();
    world.script("proxy_on_configure", vec![Step::Return(0)]);
    assert!(matches!(world.vms.plugin(isolated()), Err(StartError::Refused { .. })));
    assert_eq!(world.shared.bounds().exchange_instances(), 0);
}
