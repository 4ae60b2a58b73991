//! Guests that fail in every way, in every callback: one stream pays, the next gets a fresh VM.

use std::sync::Arc;

use super::puppet::{CALLBACKS, GROW, LOOP, RECURSE, STORM, UNREACHABLE};
use super::world::*;
use crate::pairs;
use crate::*;

const CRASHES: [(u32, &str); 5] =
    [(UNREACHABLE, "trap"), (LOOP, "deadline"), (GROW, "limit"), (RECURSE, "limit"), (STORM, "limit")];

/// Makes one callback on a stream or its plugin.
fn make(stream: &StreamContext, callback: &str) -> Result<(), VmError> {
    match callback {
        "proxy_on_request_headers" => stream.on_request_headers(false).map(drop),
        "proxy_on_request_body" => stream.on_request_body(false).map(drop),
        "proxy_on_request_trailers" => stream.on_request_trailers().map(drop),
        "proxy_on_response_headers" => stream.on_response_headers(false).map(drop),
        "proxy_on_response_body" => stream.on_response_body(false).map(drop),
        "proxy_on_response_trailers" => stream.on_response_trailers().map(drop),
        "proxy_on_foreign_function" => stream.on_foreign_function(1, "".into()),
        other => panic!("{other}"),
    }
}

fn failures(events: &[Event]) -> Vec<&'static str> {
    events
        .iter()
        .filter_map(|event| if let Event::Failed(cause, _) = event { Some(*cause) } else { None })
        .collect()
}

fn quick() -> Arc<PluginSpec> {
    let mut quick = spec("");
    quick.limits.time = std::time::Duration::from_millis(30);
    quick.limits.body_time = std::time::Duration::from_millis(30);
    quick.limits.start_time = std::time::Duration::from_millis(30);
    quick.limits.crashes = 1_000;
    Arc::new(quick)
}

#[test]
fn each_crash_in_each_stream_callback_costs_one_stream() {
    let world = World::new();
    let plugin = world.vms.plugin(quick()).unwrap();
    let stream_callbacks = CALLBACKS.iter().map(|(name, ..)| *name).filter(|name| {
        name.contains("_request_")
            || name.contains("_response_") && !name.contains("http_call")
            || name.contains("foreign")
    });
    let mut crashes = 0;
    for callback in stream_callbacks {
        for (crash, cause) in CRASHES {
            let stream = plugin.stream(world.exchange(), 0).unwrap();
            world.script(callback, vec![Step::Crash(crash)]);
            world.take();
            let error = make(&stream, callback).unwrap_err();
            crashes += 1;
            assert_eq!((error.cause(), plugin.stats().traps()), (cause, crashes), "{error}");
            assert!(
                error.to_string().contains(callback) && error.to_string().contains("`puppet`"),
                "{error}"
            );
            assert!(stream.is_poisoned());
            let events = world.take();
            assert_eq!(failures(&events), [cause]);
            assert!(events.contains(&Event::Wake), "streams of the VM are told");
            // Never entered again, also not to end.
            assert_eq!(make(&stream, callback).unwrap_err().cause(), "poisoned");
            drop(stream);
            assert_eq!(world.take(), []);
        }
    }
    assert_eq!(crashes, 7 * 5);
    let next = plugin.stream(world.exchange(), 0).unwrap();
    let started: Vec<_> = world.take();
    assert_eq!(started[0], Event::Callback("proxy_on_context_create", vec![1, 0]), "a fresh VM");
    assert_eq!(started[3], Event::Callback("proxy_on_context_create", vec![2, 1]));
    next.on_request_headers(true).unwrap();
}

#[test]
fn crashes_while_a_stream_is_made_or_ended() {
    let world = World::new();
    let plugin = world.vms.plugin(quick()).unwrap();
    for (crash, cause) in CRASHES {
        // The plugin's own context is created first, by a script of no steps.
        let good = plugin.stream(world.exchange(), 0).unwrap();
        world.script("proxy_on_context_create", vec![Step::Crash(crash)]);
        assert_eq!(plugin.stream(world.exchange(), 0).map(drop).unwrap_err().cause(), cause);
        assert!(good.is_poisoned());
        for callback in ["proxy_on_done", "proxy_on_log", "proxy_on_delete"] {
            let stream = plugin.stream(world.exchange(), 0).unwrap();
            world.script(callback, vec![Step::Crash(crash)]);
            world.take();
            stream.finish();
            assert_eq!(failures(&world.take()), [cause], "{callback}");
        }
    }
    plugin.stream(world.exchange(), 0).unwrap().on_request_headers(true).unwrap();
}

#[test]
fn crashes_of_the_plugins_own_callbacks() {
    let world = World::new();
    let plugin = world.vms.plugin(quick()).unwrap();
    world.script("proxy_on_request_headers", vec![call("proxy_set_tick_period_milliseconds", [10])]);
    plugin.stream(world.exchange(), 0).unwrap().on_request_headers(true).unwrap();
    let (handle, _) = world.host.ticks.borrow_mut().pop().unwrap();
    for (crash, cause) in CRASHES {
        drop(plugin.stream(world.exchange(), 0).unwrap());
        world.script("proxy_on_tick", vec![Step::Crash(crash)]);
        world.take();
        assert!(handle.tick());
        assert_eq!(failures(&world.take()), [cause]);
        assert!(handle.tick(), "the plugin is started again for the next tick");
        assert_eq!(failures(&world.take()), [""; 0]);
        let stream = plugin.stream(world.exchange(), 0).unwrap();
        let mut scratch = Scratch::default();
        let (cluster, size) = scratch.put("known");
        let head = [(&b":method"[..], &b"GET"[..]), (b":path", b"/"), (b":authority", b"a")];
        let (h, hn) = scratch.put(pairs::encode(|| head.into_iter()));
        let steps = vec![scratch.step(), call("proxy_http_call", [cluster, size, h, hn, 0, 0, 0, 0, 0, OUT])];
        world.script("proxy_on_request_headers", steps);
        stream.on_request_headers(true).unwrap();
        world.script("proxy_on_http_call_response", vec![Step::Crash(crash)]);
        let (_, reply) = world.host.calls.borrow_mut().pop().unwrap();
        world.take();
        reply.deliver(Ok(call_response(200, "")));
        assert_eq!(failures(&world.take()), [cause]);
        assert!(stream.is_poisoned());
    }
}

#[test]
fn crashes_at_the_start_refuse_the_plugin() {
    for (crash, cause) in CRASHES {
        for callback in ["proxy_on_context_create", "proxy_on_vm_start", "proxy_on_configure"] {
            let world = World::new();
            world.script(callback, vec![Step::Crash(crash)]);
            match world.vms.plugin(quick()) {
                Err(StartError::Failed(error)) => {
                    assert_eq!(error.cause(), cause);
                    assert!(error.to_string().contains(callback), "{error}");
                }
                other => panic!("{callback}: {:?}", other.map(drop)),
            }
            assert!(world.vms.plugin(quick()).is_ok(), "an attempt later");
        }
    }
}

#[test]
fn crashes_before_the_first_callback() {
    let crashes = [
        ("unreachable", "trap"),
        ("(loop $l (br $l))", "deadline"),
        ("(call $f)", "limit"),
        ("(loop $l (br_if $l (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable", "limit"),
    ];
    for (body, cause) in crashes {
        for entry in ["(start $f)", "(export \"_initialize\" (func $f))", "(export \"_start\" (func $f))"] {
            let text = format!(
                "(module (memory (export \"memory\") 1) (func (export \"malloc\") (param i32) (result i32) i32.const 8)
                 (func (export \"proxy_abi_version_0_2_1\")) (func $f {body}) {entry})"
            );
            let world = World::new();
            let mut failing = PluginSpec::new("failing", compile(&text), "");
            failing.limits.start_time = std::time::Duration::from_millis(20);
            match world.vms.plugin(Arc::new(failing)) {
                Err(StartError::Failed(error)) => assert_eq!(error.cause(), cause, "{entry}: {error}"),
                other => panic!("{entry} {body}: {:?}", other.map(drop)),
            }
            assert_eq!(failures(&world.take()), [cause]);
        }
    }
}

#[test]
fn a_failed_vm_takes_its_streams_and_the_others_go_on() {
    let world = World::new();
    let plugin = world.vms.plugin(quick()).unwrap();
    let mut elsewhere = spec("");
    elsewhere.vm_id = "another".into();
    let neighbour = world.vms.plugin(Arc::new(elsewhere)).unwrap();
    let beside = neighbour.stream(world.exchange(), 0).unwrap();
    let same = plugin.stream(world.exchange(), 0).unwrap();
    let failing = plugin.stream(world.exchange(), 0).unwrap();
    world.script("proxy_on_request_headers", vec![Step::Crash(UNREACHABLE)]);
    failing.on_request_headers(false).unwrap_err();
    assert_eq!(same.on_request_headers(false).unwrap_err().cause(), "poisoned");
    assert!(!beside.is_poisoned());
    beside.on_request_headers(false).unwrap();
    // In flight on the failed VM, while the new one works.
    let next = plugin.stream(world.exchange(), 0).unwrap();
    next.on_request_headers(false).unwrap();
    drop((same, failing));
    next.on_response_headers(false).unwrap();
}

#[test]
fn a_vm_that_failed_is_replaced_before_the_next_exchange() {
    let world = World::new();
    let plugin = world.vms.plugin(quick()).unwrap();
    let stream = plugin.stream(world.exchange(), 0).unwrap();
    let (_, again) = world.poll_events();
    assert!(!again.is_set());
    world.script("proxy_on_request_headers", vec![Step::Crash(UNREACHABLE)]);
    stream.on_request_headers(true).unwrap_err();
    assert!(again.is_set());
    world.take();
    world.poll_events();
    let configure = Event::Callback("proxy_on_configure", vec![1, 0]);
    assert_eq!(world.take().iter().filter(|event| **event == configure).count(), 1);
    world.poll_events();
    assert_eq!(world.take(), [], "once");
    drop(stream);
    plugin.stream(world.exchange(), 0).unwrap().on_request_headers(true).unwrap();
    assert!(!world.take().contains(&configure));
}

#[test]
fn a_plugin_that_fails_and_ends_is_not_started_again() {
    let world = World::new();
    let plugin = world.vms.plugin(quick()).unwrap();
    let stream = plugin.stream(world.exchange(), 0).unwrap();
    world.script("proxy_on_request_headers", vec![Step::Crash(UNREACHABLE)]);
    stream.on_request_headers(true).unwrap_err();
    drop((plugin, stream));
    world.take();
    world.poll_events();
    assert_eq!(world.take(), []);
}

#[test]
fn all_plugins_of_a_vm_start_again_with_it() {
    let world = World::new();
    let one = world.vms.plugin(quick()).unwrap();
    let mut other = spec("two");
    other.name = "two".into();
    let two = world.vms.plugin(Arc::new(other)).unwrap();
    let stream = two.stream(world.exchange(), 0).unwrap();
    world.script("proxy_on_request_headers", vec![Step::Crash(UNREACHABLE)]);
    stream.on_request_headers(false).unwrap_err();
    world.take();
    let stream = one.stream(world.exchange(), 0).unwrap();
    let created: Vec<_> = world
        .take()
        .into_iter()
        .filter(|event| matches!(event, Event::Callback("proxy_on_context_create", _)))
        .collect();
    let expected =
        [vec![1, 0], vec![2, 0], vec![3, 1]].map(|ids| Event::Callback("proxy_on_context_create", ids));
    assert_eq!(created, expected);
    two.stream(world.exchange(), 0).unwrap().on_request_headers(true).unwrap();
    drop(stream);
}

#[test]
fn a_plugin_that_cannot_start_again_pauses() {
    let world = World::new();
    let plugin = world.vms.plugin(quick()).unwrap();
    let stream = plugin.stream(world.exchange(), 0).unwrap();
    world.script("proxy_on_request_headers", vec![Step::Crash(UNREACHABLE)]);
    stream.on_request_headers(false).unwrap_err();
    world.script("proxy_on_configure", vec![Step::Return(0)]);
    match plugin.stream(world.exchange(), 0).map(drop) {
        Err(VmError::Unavailable(error)) => assert!(matches!(*error, StartError::Refused { .. }), "{error}"),
        other => panic!("{other:?}"),
    }
    world.take();
    match plugin.stream(world.exchange(), 0).map(drop) {
        Err(VmError::Unavailable(error)) => {
            assert!(matches!(*error, StartError::Quarantined { .. }), "{error}")
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(world.take(), [], "not tried");
}

#[test]
fn a_defect_of_the_embedder_stays_inside() {
    let world = World::new();
    let plugin = world.plugin();
    let stream = plugin.stream(world.exchange(), 0).unwrap();
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    world.host.panics.set(true);
    let error = stream.on_request_headers(false).unwrap_err();
    std::panic::set_hook(hook);
    assert_eq!(error.cause(), "host");
    assert!(stream.is_poisoned());
    plugin.stream(world.exchange(), 0).unwrap().on_request_headers(false).unwrap();
}

#[test]
fn bytes_copied_in_one_callback_are_bounded() {
    let world = World::new();
    let mut frugal = spec("");
    frugal.limits.copied = 100_000;
    let plugin = world.vms.plugin(Arc::new(frugal)).unwrap();
    let stream = plugin.stream(world.exchange(), 0).unwrap();
    let reads = vec![call("random_get", [8_192, 60_000]); 2];
    world.script("proxy_on_request_headers", reads.clone());
    let error = stream.on_request_headers(false).unwrap_err();
    assert!(error.to_string().contains("100000 bytes copied"), "{error}");
    assert_eq!(error.flag(), "WL");
}

#[test]
fn a_trap_names_the_guests_functions() {
    let text = r#"(module (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))
        (func (export "malloc") (param i32) (result i32) i32.const 8)
        (func $_ZN6filter5crash17h0123456789abcdefE unreachable)
        (func $outer (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (call $_ZN6filter5crash17h0123456789abcdefE) i32.const 0))"#;
    let world = World::new();
    let plugin = world.vms.plugin(Arc::new(PluginSpec::new("named", compile(text), ""))).unwrap();
    let error = plugin.stream(world.exchange(), 0).unwrap().on_request_headers(false).unwrap_err();
    let expected = "plugin `named`: proxy_on_request_headers trapped: wasm trap: wasm `unreachable` instruction \
                    executed (in filter::crash < outer)";
    assert_eq!(error.to_string(), expected);
}

/// Why a guest's callback fails in which a function of this name does this.
fn failure(imports: &str, name: &str, body: &str) -> VmError {
    let text = format!(
        r#"(module {imports} (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))
        (func (export "malloc") (param i32) (result i32) i32.const 8)
        (data (i32.const 96) "\12\00\00\00d\00o\00n\00e\00\0a\00N\00E\00W\00\1b\00")
        (func $named (@name "{name}") {body})
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (call $named) i32.const 0))"#
    );
    let world = World::new();
    let plugin = world.vms.plugin(Arc::new(PluginSpec::new("odd", compile(&text), ""))).unwrap();
    plugin.stream(world.exchange(), 0).unwrap().on_request_headers(false).unwrap_err()
}

/// The innermost function of a guest that trapped.
fn innermost(error: &VmError) -> &str {
    match error {
        VmError::Trap { frames, .. } => &frames[0].function,
        other => panic!("{other}"),
    }
}

#[test]
fn what_a_guest_says_of_its_failure_stays_on_its_line() {
    let error = failure("", r"evil\0aNEW line\1b[31m", "unreachable");
    assert_eq!(innermost(&error), "evil\\nNEW line\\u{1b}[31m");
    // What it calls, and what it says when it aborts.
    let odd = r#"(import "e\0anv" "\1bodd" (func $odd (result f64)))"#;
    let calls = failure(odd, "calls", "(drop (call $odd))");
    assert!(calls.to_string().contains("called `e\\nnv.\\u{1b}odd`, which"), "{calls}");
    let abort = r#"(import "env" "abort" (func $abort (param i32 i32 i32 i32)))"#;
    let end = "(call $abort (i32.const 100) (i32.const 0) (i32.const 7) (i32.const 9))";
    let aborts = failure(abort, "aborts", end);
    assert!(aborts.to_string().contains("abort: done\\nNEW\\u{1b} at :7:9"), "{aborts}");
    for error in [error, calls, aborts] {
        assert!(!error.to_string().contains(char::is_control), "{error}");
    }
}

#[test]
fn names_of_functions_are_cut() {
    // A function with a quarter of a million lifetimes, which takes a megabyte and a while to write down.
    let error = failure("", "_RMC0FGZZZ_Eu", "unreachable");
    let name = innermost(&error);
    assert!(name.starts_with("<for<'a, 'b, 'c, 'd, 'e, ") && name.ends_with('…'), "{name}");
    assert_eq!(name.chars().count(), 257);
    // Longer than any compiler makes them: as it is, as far as it goes.
    let error = failure("", &format!("_ZN5000{}E", "x".repeat(5_000)), "unreachable");
    let name = innermost(&error);
    assert!(name.starts_with("_ZN5000xx") && name.ends_with("xx…"), "{name}");
    assert_eq!(name.chars().count(), 257);
}
