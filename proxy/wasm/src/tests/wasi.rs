//! The WASI functions, the clock and the log.

use std::time::Duration;

use super::puppet::Allocator;
use super::world::*;
use crate::*;

fn long(name: &'static str, arguments: &[u64]) -> Step {
    Step::Call(name, arguments.to_vec(), Allocator::Sound)
}

#[test]
fn answers_of_wasi() {
    let world = World::new();
    let statuses = world.run(vec![
        call("args_sizes_get", [OUT, OUT + 4]),
        call("args_sizes_get", [u32::MAX, OUT]),
        long("clock_time_get", &[0, 0, OUT.into()]),
        long("clock_time_get", &[1, 0, OUT.into()]),
        long("clock_time_get", &[2, 0, OUT.into()]),
        call("clock_res_get", [1, OUT]),
        call("clock_res_get", [9, OUT]),
        call("random_get", [OUT, 0]),
        call("random_get", [OUT, 64]),
        call("random_get", [131_000, 1_000]),
        call("fd_write", [3, OUT, 0, OUT]),
        call("fd_write", [1, u32::MAX, 1, OUT]),
        call("fd_write", [1, OUT, 2_000, OUT]),
        call("fd_fdstat_get", [1, OUT]),
        call("fd_fdstat_get", [3, OUT]),
        call("fd_fdstat_get", [1, 131_060]),
        call("fd_close", [1]),
        call("fd_close", [4]),
        long("fd_seek", &[2, 0, 0, OUT.into()]),
        call("fd_prestat_get", [3, OUT]),
        long("path_open", &[3, 0, 0, 0, 0, 0, 0, 0, OUT.into()]),
        call("poll_oneoff", [0, 0, 1, OUT]),
        call("sched_yield", []),
    ]);
    let expected = [0, 21, 0, 0, 58, 0, 58, 0, 0, 21, 8, 21, 21, 0, 8, 21, 0, 8, 0, 8, 44, 0, 0];
    assert_eq!(statuses, expected);
}

#[test]
fn random_bytes_may_be_many() {
    let world = World::new();
    let all = call("random_get", [8_192, 122_880]);
    let shown = world.show(vec![all, Step::Peek(8_192, 16), Step::Peek(131_056, 16)]);
    let [first, last] = &shown[..] else { panic!("{shown:?}") };
    assert_ne!(first, last);
    assert!(*first != [0; 16] && *last != [0; 16], "all of them are there: {shown:?}");
}

#[test]
fn random_bytes_do_not_outlast_the_callbacks_time() {
    let text = r#"(module
        (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
        (memory (export "memory") 1024) (func (export "proxy_abi_version_0_2_1"))
        (func (export "malloc") (param i32) (result i32) i32.const 8)
        (func $asking (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (drop (call $random (i32.const 0) (i32.const 0x4000000))) (i32.const 0)))"#;
    let world = World::new();
    let mut spec = PluginSpec::new("random", compile(text), "");
    spec.limits.time = Duration::from_millis(1);
    spec.limits.memory = 64 << 20;
    spec.limits.copied = u64::MAX;
    let plugin = world.vms.plugin(spec.into()).unwrap();
    let error = plugin.stream(world.exchange(), 0).unwrap().on_request_headers(true).unwrap_err();
    assert_eq!(error.cause(), "deadline", "{error}");
    assert!(error.to_string().ends_with("(in asking)"), "in the midst of the call: {error}");
}

#[test]
fn the_environment_is_the_plugins() {
    let world = World::new();
    let mut with = spec("");
    with.environment = vec![("A".into(), "1".into()), ("BC".into(), "".into())];
    let plugin = world.vms.plugin(with.into()).unwrap();
    let steps = vec![
        call("environ_sizes_get", [OUT, OUT + 4]),
        Step::Peek(OUT, 8),
        call("environ_get", [OUT, OUT + 64]),
        Step::Peek(OUT, 8),
        Step::Peek(OUT + 64, 8),
        call("environ_get", [131_070, OUT]),
        call("environ_get", [OUT, u32::MAX - 1]),
    ];
    world.script("proxy_on_request_headers", steps);
    world.take();
    let stream = plugin.stream(world.exchange(), 0).unwrap();
    stream.on_request_headers(true).unwrap();
    let pointers = [OUT + 64, OUT + 68].map(u32::to_le_bytes).concat();
    let expected = [
        Event::Status(0),
        Event::Peek(vec![2, 0, 0, 0, 8, 0, 0, 0]),
        Event::Status(0),
        Event::Peek(pointers),
        Event::Peek(b"A=1\0BC=\0".to_vec()),
        Event::Status(21),
        Event::Status(21),
    ];
    assert_eq!(world.take()[2..], expected);
}

#[test]
fn standard_output_and_error_are_the_log() {
    let world = World::new();
    let mut scratch = Scratch::default();
    let (one, one_size) = scratch.put("hello ");
    let (two, two_size) = scratch.put("world\n");
    let (list, _) = scratch.put([one, one_size, two, two_size].map(u32::to_le_bytes).concat());
    let steps = vec![
        scratch.step(),
        call("fd_write", [1, list, 2, OUT]),
        Step::Peek(OUT, 4),
        call("fd_write", [2, list, 1, OUT]),
    ];
    world.script("proxy_on_request_headers", steps);
    let plugin = world.plugin();
    let stream = plugin.stream(world.exchange(), 0).unwrap();
    stream.on_request_headers(true).unwrap();
    let events = world.take();
    let expected = [
        Event::Log(LogLevel::Info, "hello world".into()),
        Event::Status(0),
        Event::Peek(vec![12, 0, 0, 0]),
        Event::Log(LogLevel::Error, "hello ".into()),
        Event::Status(0),
    ];
    assert_eq!(events[events.len() - 5..], expected);
}

#[test]
fn log_lines_have_levels_and_a_rate() {
    let world = World::new();
    let mut scratch = Scratch::default();
    let (text, size) = scratch.put("a\nb");
    let mut steps = vec![scratch.step()];
    steps.extend((0..=5).map(|level| call("proxy_log", [level, text, size])));
    steps.extend(vec![call("proxy_log", [4, text, 0]); 200]);
    steps.extend([call("proxy_get_log_level", [OUT]), Step::Peek(OUT, 4)]);
    world.script("proxy_on_request_headers", steps);
    let plugin = world.plugin();
    let stream = plugin.stream(world.exchange(), 0).unwrap();
    stream.on_request_headers(true).unwrap();
    let events = world.take();
    let lines: Vec<_> = events.iter().filter(|event| matches!(event, Event::Log(..))).collect();
    // Trace and debug are below the fake host's level. A second may begin in between, rarely.
    assert_eq!(
        lines[..4].iter().filter(|line| ***line == Event::Log(LogLevel::Info, "a\\nb".into())).count(),
        1
    );
    assert!(lines.len() as u64 >= 100 && lines.len() as u64 + plugin.stats().dropped_log_lines() == 204);
    assert_eq!(events.last(), Some(&Event::Peek(vec![2, 0, 0, 0])));
}

#[test]
fn exiting_is_fine_at_the_start_only() {
    let guest = |code: u32, entry: &str| {
        compile(&format!(
            r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            (memory (export "memory") 1) (func (export "malloc") (param i32) (result i32) i32.const 8)
            (func (export "proxy_abi_version_0_2_1"))
            (func (export "{entry}") (call $exit (i32.const {code})))
            (func (export "proxy_on_log") (param i32) (call $exit (i32.const 0))))"#
        ))
    };
    let world = World::new();
    let start = |module| world.vms.plugin(PluginSpec::new("p", module, "").into());
    let plugin = start(guest(0, "_start")).unwrap();
    assert_eq!(world.take(), []);
    drop(plugin.stream(world.exchange(), 0).unwrap());
    let last = world.take().pop();
    assert!(
        matches!(&last, Some(Event::Failed("trap", text)) if text.contains("exited with code 0")),
        "{last:?}"
    );
    let error = start(guest(3, "_start")).map(drop).unwrap_err();
    assert!(error.to_string().contains("exited with code 3"), "{error}");
    assert!(start(guest(0, "_initialize")).is_ok());
}
