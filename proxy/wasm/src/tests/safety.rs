//! Limits, their counters, the quarantine, and what a plugin may do.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::puppet::{Allocator, GROW, LOOP, RECURSE, STORM, UNREACHABLE};
use super::world::*;
use crate::pairs;
use crate::state::thread_time;
use crate::*;

fn limited(change: impl FnOnce(&mut PluginSpec)) -> Arc<PluginSpec> {
    let mut limited = spec("");
    limited.limits.time = Duration::from_millis(20);
    limited.limits.body_time = Duration::from_millis(30);
    limited.limits.start_time = Duration::from_millis(40);
    limited.limits.copied = 100_000;
    change(&mut limited);
    Arc::new(limited)
}

/// A call to a cluster, made in the callback for the request's head.
fn http_call(cluster: &str, timeout: u32) -> Vec<Step> {
    let mut scratch = Scratch::default();
    let (cluster, size) = scratch.put(cluster);
    let head = [(&b":method"[..], &b"GET"[..]), (b":path", b"/"), (b":authority", b"a")];
    let (h, hn) = scratch.put(pairs::encode(|| head.into_iter()));
    vec![scratch.step(), call("proxy_http_call", [cluster, size, h, hn, 0, 0, 0, 0, timeout, OUT])]
}

fn property(path: &str) -> Vec<Step> {
    let mut scratch = Scratch::default();
    let (path, size) = scratch.put(path);
    vec![scratch.step(), call("proxy_get_property", [path, size, OUT, OUT + 4])]
}

impl World {
    /// Runs the steps in the callback for the request's head of a new stream.
    fn head(&self, plugin: &Rc<Plugin>, steps: Vec<Step>) -> (StreamContext, Vec<u32>) {
        let stream = plugin.stream(self.exchange(), 0).unwrap();
        self.take();
        self.script("proxy_on_request_headers", steps);
        stream.on_request_headers(true).unwrap();
        (stream, self.statuses())
    }
}

#[test]
fn each_overrun_counts_under_its_own_name() {
    let world = World::new();
    let plugin = world.vms.plugin(limited(|_| {})).unwrap();
    let storm_of_bytes = vec![call("random_get", [8_192, 60_000]); 2];
    let reentering =
        Step::Call("proxy_get_header_map_pairs", vec![0, OUT.into(), (OUT + 4).into()], Allocator::Reenters);
    let cases = [
        ("proxy_on_request_headers", vec![Step::Crash(LOOP)], Limit::Time),
        ("proxy_on_request_headers", vec![Step::Crash(GROW)], Limit::Memory),
        ("proxy_on_request_headers", vec![Step::Crash(RECURSE)], Limit::Stack),
        ("proxy_on_request_headers", vec![Step::Crash(STORM)], Limit::Hostcalls),
        ("proxy_on_request_headers", storm_of_bytes, Limit::Copied),
        ("proxy_on_request_headers", vec![reentering], Limit::Allocator),
        ("proxy_on_request_body", vec![Step::Crash(LOOP)], Limit::BodyTime),
    ];
    for (callback, steps, limit) in cases {
        let stream = plugin.stream(world.exchange(), 0).unwrap();
        world.script(callback, steps);
        let failed = match callback {
            "proxy_on_request_headers" => stream.on_request_headers(false).map(drop),
            _ => stream.on_request_body(false).map(drop),
        };
        assert_eq!(failed.unwrap_err().flag(), "WL", "{}", limit.name());
        assert_eq!(plugin.ledger().exceeded(limit), 1, "{}", limit.name());
    }
    let counted: u64 = Limit::ALL.iter().map(|limit| plugin.ledger().exceeded(*limit)).sum();
    assert_eq!(counted, 7, "nothing else");
    assert_eq!((plugin.ledger().failures("deadline"), plugin.ledger().failures("limit")), (2, 5));
    drop(plugin);
    world.script("proxy_on_configure", vec![Step::Crash(LOOP)]);
    assert!(world.vms.plugin(limited(|_| {})).is_err());
    let counted = world.shared.ledgers().remove(0).1.exceeded(Limit::StartTime);
    assert_eq!(counted, 1, "the ledger outlives the plugin");
}

#[test]
fn a_plugin_that_keeps_failing_goes_into_quarantine_alone() {
    let world = World::new();
    let plugin = world.vms.plugin(limited(|spec| spec.limits.crashes = 2)).unwrap();
    let other = limited(|spec| spec.name = "other".into());
    let other = world.vms.plugin(other).unwrap();
    for _ in 0..3 {
        let stream = plugin.stream(world.exchange(), 0).unwrap();
        world.script("proxy_on_request_headers", vec![Step::Crash(UNREACHABLE)]);
        stream.on_request_headers(false).unwrap_err();
    }
    world.take();
    let error = plugin.stream(world.exchange(), 0).map(drop).unwrap_err();
    assert_eq!((error.cause(), error.flag()), ("quarantined", "WT"), "{error}");
    assert_eq!(world.take(), [], "it does not run");
    assert_eq!(plugin.ledger().exceeded(Limit::Crashes), 1);
    assert!(plugin.stats().quarantined_until().is_some());
    // The other plugin of its VM goes on, without it.
    other.stream(world.exchange(), 0).unwrap().on_request_headers(false).unwrap();
    assert_eq!(other.stats().quarantined_until(), None);
    assert_eq!(plugin.stats().vms(), 1, "the failed one is gone, although the plugin has no other");
    world.take();

    // When the pause is over, one stream tries it, in the VM that the other one runs in.
    let deadline = Instant::now() + Duration::from_secs(20);
    let probe = loop {
        match plugin.stream(world.exchange(), 0) {
            Ok(stream) => break stream,
            Err(error) => std::thread::sleep(error.retry_after().unwrap()),
        }
        assert!(Instant::now() < deadline);
    };
    let started = world.take();
    assert!(matches!(started[0], Event::Callback("proxy_on_context_create", _)), "{started:?}");
    assert_eq!(plugin.stream(world.exchange(), 0).map(drop).unwrap_err().cause(), "quarantined");
    probe.on_request_headers(false).unwrap();
    drop(probe);
    plugin.stream(world.exchange(), 0).unwrap().on_request_headers(false).unwrap();
}

#[test]
fn a_plugin_gets_no_more_time_to_start_again_than_it_needed_at_first() {
    let world = World::new();
    let plugin = world.vms.plugin(limited(|spec| spec.limits.start_time = Duration::from_secs(60))).unwrap();
    let stream = plugin.stream(world.exchange(), 0).unwrap();
    world.script("proxy_on_request_headers", vec![Step::Crash(UNREACHABLE)]);
    stream.on_request_headers(false).unwrap_err();
    world.script("proxy_on_configure", vec![Step::Crash(LOOP)]);
    let error = plugin.stream(world.exchange(), 0).map(drop).unwrap_err();
    match error {
        VmError::Unavailable(error) => match *error {
            StartError::Failed(VmError::Deadline { limit, .. }) => {
                assert!(limit < Duration::from_secs(10), "{limit:?}");
            }
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn memory_is_bounded_for_all_vms_of_a_filter_and_for_all_filters() {
    let world = World::new();
    let bounded = |vm: &str| {
        limited(|spec| {
            spec.limits.total_memory = 200 << 10;
            spec.vm_id = vm.into();
        })
    };
    let one = world.vms.plugin(bounded("1")).unwrap();
    // Two pages each.
    assert_eq!((one.ledger().memory(), one.stats().memory(), one.stats().vms()), (128 << 10, 128 << 10, 1));
    let error = world.vms.plugin(bounded("2")).map(drop).unwrap_err();
    assert!(error.to_string().contains("limits.total_memory"), "{error}");
    assert_eq!(one.ledger().exceeded(Limit::TotalMemory), 1);
    assert_eq!(one.ledger().memory(), 128 << 10, "what was not started holds nothing");

    let elsewhere = limited(|spec| spec.name = "elsewhere".into());
    world.shared.bounds().set(200 << 10, 1);
    let mut apart = (*elsewhere).clone();
    apart.vm_id = "3".into();
    match world.vms.plugin(Arc::new(apart)) {
        Err(StartError::Overloaded { plugin }) => assert_eq!(plugin, "elsewhere"),
        other => panic!("{:?}", other.map(drop)),
    }
    drop(one);
    assert_eq!(world.shared.bounds().memory(), 0);
}

#[test]
fn a_plugin_calls_only_the_clusters_it_may() {
    let world = World::new();
    let plugin = world.vms.plugin(limited(|spec| spec.may.call = Some(vec!["known".into()]))).unwrap();
    let (_stream, statuses) = world.head(&plugin, http_call("known", 0));
    assert_eq!(statuses, [0]);
    for _ in 0..2 {
        let (_stream, statuses) = world.head(&plugin, http_call("busy", 0));
        assert_eq!(statuses, [Status::BadArgument as u32], "as a cluster that does not exist");
    }
    assert_eq!(plugin.ledger().exceeded(Limit::MayCall), 2);
}

#[test]
fn a_plugin_reads_only_the_properties_it_may() {
    let world = World::new();
    let may = limited(|spec| spec.may.read = Some([PropertyGroup::Connection].into_iter().collect()));
    let plugin = world.vms.plugin(may).unwrap();
    for (path, status) in [
        ("source\0address", 0),
        ("connection\0id", 0),
        ("plugin_name", 0),
        ("request\0path", 1),
        ("request\0headers", 1),
        ("xds\0node", 1),
    ] {
        let (_stream, statuses) = world.head(&plugin, property(path));
        assert_eq!(statuses, [status], "{path}");
    }
    assert_eq!(plugin.ledger().exceeded(Limit::MayRead), 3);
}

#[test]
fn a_plugin_may_see_the_time_in_milliseconds_only() {
    let world = World::new();
    let plugin = world.vms.plugin(limited(|spec| spec.may.coarse_clock = true)).unwrap();
    let steps = vec![
        call("proxy_get_current_time_nanoseconds", [OUT]),
        Step::Call("clock_time_get", vec![0, 0, (OUT + 8).into()], Allocator::Sound),
        Step::Peek(OUT, 16),
    ];
    let stream = plugin.stream(world.exchange(), 0).unwrap();
    world.take();
    world.script("proxy_on_request_headers", steps);
    stream.on_request_headers(true).unwrap();
    let Some(Event::Peek(bytes)) = world.take().pop() else { panic!("nothing shown") };
    for time in bytes.as_chunks::<8>().0 {
        let time = u64::from_le_bytes(*time);
        assert!(time > 0 && time.is_multiple_of(1_000_000), "{time}");
    }
}

#[test]
fn calls_that_lead_to_calls_end() {
    let world = World::new();
    let plugin = world.vms.plugin(limited(|_| {})).unwrap();
    for (depth, status) in [(0, 0), (2, 0), (3, 10), (u32::MAX - 1, 10)] {
        let exchange = world.exchange();
        exchange.http().borrow_mut().attributes.call_depth = depth;
        let stream = plugin.stream(exchange, 0).unwrap();
        world.script("proxy_on_request_headers", http_call("known", 0));
        world.take();
        stream.on_request_headers(true).unwrap();
        assert_eq!(world.statuses(), [status], "{depth}");
        if status == 0 {
            assert_eq!(world.host.calls.borrow_mut().pop().unwrap().0.depth, depth + 1);
        }
    }
    assert_eq!(plugin.ledger().exceeded(Limit::CallDepth), 2);
}

#[test]
fn a_call_takes_no_longer_than_it_may() {
    let world = World::new();
    let plugin = world.vms.plugin(limited(|spec| spec.limits.call_time = Duration::from_secs(2))).unwrap();
    for (asked, given, exceeded) in [(0, 2_000, 0), (1_500, 1_500, 0), (3_000, 2_000, 1)] {
        world.head(&plugin, http_call("known", asked));
        let (call, _) = world.host.calls.borrow_mut().pop().unwrap();
        assert_eq!(call.timeout, Some(Duration::from_millis(given)));
        assert_eq!(plugin.ledger().exceeded(Limit::CallTime), exceeded);
    }
}

#[test]
fn calls_under_way_are_counted_against_the_stream_and_the_plugin() {
    let world = World::new();
    let plugin = world.vms.plugin(limited(|spec| {
        spec.limits.stream_http_calls = 1;
        spec.limits.http_calls = 2;
    }));
    let plugin = plugin.unwrap();
    let twice = [http_call("known", 0), http_call("known", 0)].concat();
    let (_one, statuses) = world.head(&plugin, twice);
    assert_eq!(statuses, [0, 10]);
    let (_two, statuses) = world.head(&plugin, http_call("known", 0));
    assert_eq!(statuses, [0]);
    let (_three, statuses) = world.head(&plugin, http_call("known", 0));
    assert_eq!(statuses, [10]);
    let exceeded = [Limit::StreamHttpCalls, Limit::HttpCalls].map(|limit| plugin.ledger().exceeded(limit));
    assert_eq!(exceeded, [1, 1]);
    let (_, reply) = world.host.calls.borrow_mut().pop().unwrap();
    reply.deliver(Err(CallFailure::TooLarge));
    assert_eq!(plugin.ledger().exceeded(Limit::CallBody), 1);
    assert_eq!(world.head(&plugin, http_call("known", 0)).1, [0], "one ended");
}

#[test]
fn a_timer_goes_with_its_plugin_and_is_not_too_quick() {
    let world = World::new();
    world.script("proxy_on_configure", vec![call("proxy_set_tick_period_milliseconds", [10])]);
    let plugin = world.vms.plugin(limited(|spec| spec.limits.tick = Duration::from_secs(1))).unwrap();
    let (handle, period) = world.host.ticks.borrow_mut().pop().unwrap();
    assert_eq!(period, Some(Duration::from_secs(1)));
    assert_eq!(plugin.ledger().exceeded(Limit::Tick), 1);
    drop(plugin);
    let (stopped, period) = world.host.ticks.borrow_mut().pop().unwrap();
    assert_eq!((stopped.key(), period), (handle.key(), None));
}

#[test]
fn a_supervised_plugin_is_started_again_by_itself() {
    let world = World::new();
    world.script("proxy_on_configure", vec![call("proxy_set_tick_period_milliseconds", [50])]);
    let plugin = world.vms.plugin(limited(|_| {})).unwrap();
    plugin.supervise();
    let (handle, _) = world.host.ticks.borrow_mut().pop().unwrap();
    world.script("proxy_on_tick", vec![Step::Crash(UNREACHABLE)]);
    assert!(handle.tick());
    world.take();
    world.vms.sweep();
    let started = world.take();
    assert!(started.contains(&Event::Callback("proxy_on_configure", vec![1, 0])), "{started:?}");
    world.vms.sweep();
    assert_eq!(world.take(), [], "once");
}

#[test]
fn live_contexts_are_told() {
    let world = World::new();
    let plugin = world.vms.plugin(limited(|spec| spec.limits.contexts = 3)).unwrap();
    let one = plugin.stream(world.exchange(), 0).unwrap();
    let _two = plugin.stream(world.exchange(), 0).unwrap();
    assert_eq!(plugin.stats().contexts(), 2);
    assert_eq!(plugin.stream(world.exchange(), 0).map(drop).unwrap_err().flag(), "WL");
    assert_eq!(plugin.ledger().exceeded(Limit::Contexts), 1);
    drop(one);
    assert_eq!(plugin.stats().contexts(), 1);
}

/// A guest without loops: its callback calls the function `report` so many times, each call standing behind the other.
fn straight_line(calls: usize) -> PluginSpec {
    let call = "(drop (call $foreign (i32.const 16) (i32.const 6)
            (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)))";
    let text = format!(
        r#"(module
        (import "env" "proxy_call_foreign_function"
            (func $foreign (param i32 i32 i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1) (data (i32.const 16) "report")
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "malloc") (param i32) (result i32) i32.const 8)
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            {} (i32.const 0)))"#,
        call.repeat(calls)
    );
    PluginSpec::new("straight", compile(&text), "")
}

/// Takes so much CPU time, as a hostcall does that is much work.
fn work(time: Duration) {
    let began = thread_time();
    while thread_time() - began < time {}
}

#[test]
fn a_guest_without_loops_is_stopped_between_its_hostcalls() {
    const CALLS: usize = 1_000;
    let world = World::new();
    let made = Rc::new(Cell::new(0));
    let counted = Rc::clone(&made);
    world.host.watch(move |_| {
        counted.set(counted.get() + 1);
        work(Duration::from_millis(1));
    });
    let mut straight = straight_line(CALLS);
    straight.limits.time = Duration::from_millis(5);
    let plugin = world.vms.plugin(Arc::new(straight)).unwrap();
    let error = plugin.stream(world.exchange(), 0).unwrap().on_request_headers(true).unwrap_err();
    assert_eq!((error.cause(), error.flag()), ("deadline", "WL"), "{error}");
    assert!(made.get() < CALLS, "{} calls", made.get());
    assert_eq!((plugin.ledger().exceeded(Limit::Time), plugin.ledger().failures("deadline")), (1, 1));
}

#[test]
fn a_guest_is_stopped_within_one_instruction() {
    let world = World::new();
    for (name, instruction) in [
        ("fill", "(memory.fill (i32.const 0) (i32.const 1) (local.get $most))"),
        ("copy up", "(memory.copy (i32.const 1) (i32.const 0) (local.get $most))"),
        ("copy down", "(memory.copy (i32.const 0) (i32.const 1) (local.get $most))"),
    ] {
        // Half a gigabyte that nobody has touched: to find the pages alone takes longer than the limit.
        let text = format!(
            r#"(module
            (memory (export "memory") 1)
            (func (export "proxy_abi_version_0_2_1"))
            (func (export "malloc") (param i32) (result i32) i32.const 8)
            (func ${name:?} (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                (local $most i32)
                (drop (memory.grow (i32.const 8000)))
                (local.set $most (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 2)))
                {instruction}
                (i32.const 0)))"#
        );
        let mut long = PluginSpec::new(name, compile(&text), "");
        long.limits.time = Duration::from_millis(5);
        long.limits.memory = 512 << 20;
        long.limits.total_memory = 512 << 20;
        let plugin = world.vms.plugin(Arc::new(long)).unwrap();
        let stopped = plugin.stream(world.exchange(), 0).unwrap().on_request_headers(true).unwrap_err();
        assert_eq!((stopped.cause(), plugin.ledger().exceeded(Limit::Time)), ("deadline", 1), "{stopped}");
        // It did not come back first; and what does the work in its place is not spoken of.
        let VmError::Deadline { frames, .. } = stopped else { panic!("{stopped}") };
        assert_eq!(frames.iter().map(|frame| &*frame.function).collect::<Vec<_>>(), [name]);
    }
}

#[test]
fn the_memory_of_a_vm_that_failed_is_there_for_the_next() {
    const PAGES: u64 = 101;
    // So much that it is given back by another thread.
    let text = r#"(module
        (memory (export "memory") 1)
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "malloc") (param i32) (result i32) i32.const 8)
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (if (i32.eq (memory.grow (i32.const 100)) (i32.const -1)) (then (return (i32.const 0))))
            ;; What the VM before it has left in this place.
            (if (i32.or (i32.load (i32.const 0)) (i32.load (i32.const 6000000))) (then (return (i32.const 0))))
            (memory.fill (i32.const 0) (i32.const 1) (i32.mul (memory.size) (i32.const 65536)))
            unreachable))"#;
    let world = World::new();
    let mut large = PluginSpec::new("large", compile(text), "");
    large.limits.memory = PAGES << 16;
    large.limits.total_memory = PAGES << 16;
    large.limits.time = Duration::from_secs(10);
    large.limits.crashes = 1_000;
    let plugin = world.vms.plugin(Arc::new(large)).unwrap();
    for _ in 0..30 {
        let failed = plugin.stream(world.exchange(), 0).unwrap().on_request_headers(true).unwrap_err();
        assert_eq!(failed.cause(), "trap", "{failed}");
    }
    assert_eq!(plugin.ledger().exceeded(Limit::TotalMemory), 0);
    plugin.stream(world.exchange(), 0).unwrap();
    assert_eq!(plugin.ledger().memory(), 1 << 16, "of the VM that runs");
}

#[test]
fn the_memory_of_a_vm_that_failed_does_not_wait_for_its_streams() {
    let text = r#"(module
        (memory (export "memory") 100)
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "malloc") (param i32) (result i32) i32.const 8)
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) unreachable))"#;
    let world = World::new();
    let mut only = PluginSpec::new("only", compile(text), "");
    only.limits.total_memory = 100 << 16;
    let plugin = world.vms.plugin(Arc::new(only)).unwrap();
    let mut bystanders = Vec::new();
    for _ in 0..3 {
        bystanders.push(plugin.stream(world.exchange(), 0).unwrap());
        let stream = plugin.stream(world.exchange(), 0).unwrap();
        assert_eq!(stream.on_request_headers(true).unwrap_err().cause(), "trap");
        world.poll_events();
    }
    assert_eq!(plugin.ledger().exceeded(Limit::TotalMemory), 0);
    assert_eq!(plugin.ledger().memory(), 100 << 16, "of the VM that runs");
    for bystander in bystanders {
        assert_eq!(bystander.on_request_headers(true).unwrap_err().cause(), "poisoned");
    }
}

#[test]
fn a_callback_that_took_far_too_long_is_a_failure_although_it_has_returned() {
    let world = World::new();
    world.host.watch(|_| {
        // More than twice the limit, by the ticks as well.
        let ticks = engine().ticks();
        let until = ticks.now() + 150;
        work(Duration::from_millis(120));
        while ticks.now() < until {}
    });
    let mut straight = straight_line(1);
    straight.limits.time = Duration::from_millis(50);
    let plugin = world.vms.plugin(Arc::new(straight)).unwrap();
    let run = || plugin.stream(world.exchange(), 0).unwrap().on_request_headers(true);
    // The first may only have the others measured: it was not, when it began.
    let failed = (0..2).find_map(|_| run().err()).unwrap();
    assert_eq!((failed.cause(), failed.flag()), ("deadline", "WL"), "{failed}");
    assert_eq!((plugin.ledger().exceeded(Limit::Time), plugin.ledger().failures("deadline")), (1, 1));
    world.host.watch(|_| {});
    run().unwrap();
    assert_eq!(plugin.ledger().failures("deadline"), 1, "in another VM, in time");
}

#[test]
fn a_guest_at_the_end_of_its_stack_leaves_enough_for_hostcalls() {
    // Each level makes a call that copies, and one that asks the guest's allocator.
    let text = r#"(module 
        (import "env" "proxy_get_header_map_pairs" (func $pairs (param i32 i32 i32) (result i32)))
        (import "env" "proxy_http_call"
            (func $call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 4) (func (export "proxy_abi_version_0_2_1"))
        (func (export "malloc") (param i32) (result i32) i32.const 4096)
        (func $deeper (param i64 i64 i64 i64) (result i64)
            (drop (call $pairs (i32.const 0) (i32.const 8) (i32.const 12)))
            (drop (call $call (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
                (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 16)))
            (i64.add (local.get 0)
                (call $deeper (i64.add (local.get 0) (i64.const 1)) (local.get 2) (local.get 3) (local.get 1))))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (i32.wrap_i64 (call $deeper (i64.const 1) (i64.const 2) (i64.const 3) (i64.const 4)))))"#;
    let world = World::new();
    let mut deep = PluginSpec::new("deep", compile(text), "");
    deep.limits.time = Duration::from_secs(10);
    deep.limits.hostcalls = u32::MAX;
    deep.limits.copied = u64::MAX;
    let plugin = world.vms.plugin(Arc::new(deep)).unwrap();
    let error = plugin.stream(world.exchange(), 0).unwrap().on_request_headers(true).unwrap_err();
    assert!(error.to_string().contains("call stack"), "{error}");
    assert_eq!(plugin.ledger().exceeded(Limit::Stack), 1);
}
