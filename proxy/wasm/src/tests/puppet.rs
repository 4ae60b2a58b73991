//! A guest that does what the test says: in every callback it asks the fake host for steps and carries them out.

use std::fmt::Write;

/// The hostcalls the puppet can make: name, parameters (`i` 32 bits, `I` 64 bits). All answer a status.
pub(super) const HOSTCALLS: &[(&str, &str)] = &[
    ("proxy_log", "iii"),
    ("proxy_get_log_level", "i"),
    ("proxy_get_current_time_nanoseconds", "i"),
    ("proxy_set_tick_period_milliseconds", "i"),
    ("proxy_get_buffer_bytes", "iiiii"),
    ("proxy_set_buffer_bytes", "iiiii"),
    ("proxy_get_buffer_status", "iii"),
    ("proxy_get_configuration", "ii"),
    ("proxy_get_header_map_size", "ii"),
    ("proxy_get_header_map_pairs", "iii"),
    ("proxy_set_header_map_pairs", "iii"),
    ("proxy_get_header_map_value", "iiiii"),
    ("proxy_add_header_map_value", "iiiii"),
    ("proxy_replace_header_map_value", "iiiii"),
    ("proxy_remove_header_map_value", "iii"),
    ("proxy_get_property", "iiii"),
    ("proxy_set_property", "iiii"),
    ("proxy_continue_stream", "i"),
    ("proxy_close_stream", "i"),
    ("proxy_continue_request", ""),
    ("proxy_continue_response", ""),
    ("proxy_clear_route_cache", ""),
    ("proxy_send_local_response", "iiiiiiii"),
    ("proxy_set_effective_context", "i"),
    ("proxy_done", ""),
    ("proxy_get_status", "iii"),
    ("proxy_http_call", "iiiiiiiiii"),
    ("proxy_grpc_call", "iiiiiiiiiiii"),
    ("proxy_grpc_stream", "iiiiiiiii"),
    ("proxy_grpc_send", "iiii"),
    ("proxy_grpc_cancel", "i"),
    ("proxy_grpc_close", "i"),
    ("proxy_get_shared_data", "iiiii"),
    ("proxy_set_shared_data", "iiiii"),
    ("proxy_register_shared_queue", "iii"),
    ("proxy_resolve_shared_queue", "iiiii"),
    ("proxy_enqueue_shared_queue", "iii"),
    ("proxy_dequeue_shared_queue", "iii"),
    ("proxy_define_metric", "iiii"),
    ("proxy_record_metric", "iI"),
    ("proxy_increment_metric", "iI"),
    ("proxy_get_metric", "ii"),
    ("proxy_call_foreign_function", "iiiiii"),
    ("args_sizes_get", "ii"),
    ("environ_get", "ii"),
    ("environ_sizes_get", "ii"),
    ("clock_time_get", "iIi"),
    ("clock_res_get", "ii"),
    ("random_get", "ii"),
    ("fd_write", "iiii"),
    ("fd_fdstat_get", "ii"),
    ("fd_close", "i"),
    ("fd_seek", "iIii"),
    ("fd_prestat_get", "ii"),
    ("path_open", "iiiiiIIii"),
    ("poll_oneoff", "iiii"),
    ("sched_yield", ""),
];

/// The callbacks the puppet exports: name, parameters, and what it returns unless told otherwise.
pub(super) const CALLBACKS: &[(&str, usize, Option<u32>)] = &[
    ("_initialize", 0, None),
    ("proxy_on_context_create", 2, None),
    ("proxy_on_vm_start", 2, Some(1)),
    ("proxy_on_configure", 2, Some(1)),
    ("proxy_on_tick", 1, None),
    ("proxy_on_queue_ready", 2, None),
    ("proxy_on_http_call_response", 5, None),
    ("proxy_on_foreign_function", 3, None),
    ("proxy_on_grpc_receive_initial_metadata", 3, None),
    ("proxy_on_grpc_receive", 3, None),
    ("proxy_on_grpc_receive_trailing_metadata", 3, None),
    ("proxy_on_grpc_close", 3, None),
    ("proxy_on_request_headers", 3, Some(0)),
    ("proxy_on_request_body", 3, Some(0)),
    ("proxy_on_request_trailers", 2, Some(0)),
    ("proxy_on_response_headers", 3, Some(0)),
    ("proxy_on_response_body", 3, Some(0)),
    ("proxy_on_response_trailers", 2, Some(0)),
    ("proxy_on_new_connection", 1, Some(0)),
    ("proxy_on_downstream_data", 3, Some(0)),
    ("proxy_on_downstream_connection_close", 2, None),
    ("proxy_on_upstream_data", 3, Some(0)),
    ("proxy_on_upstream_connection_close", 2, None),
    ("proxy_on_done", 1, Some(1)),
    ("proxy_on_log", 1, None),
    ("proxy_on_delete", 1, None),
];

/// The first hostcall's step number; lower ones are below.
pub(super) const CALL: u32 = 100;
pub(super) const WRITE: u32 = 0;
pub(super) const PEEK: u32 = 1;
pub(super) const RETURN: u32 = 2;
pub(super) const UNREACHABLE: u32 = 3;
pub(super) const LOOP: u32 = 4;
pub(super) const GROW: u32 = 5;
pub(super) const RECURSE: u32 = 6;
pub(super) const STORM: u32 = 7;
pub(super) const PEEK_AT: u32 = 8;

/// Memory that is the test's: below the heap and above the puppet's own words.
pub(super) const SCRATCH: u32 = 4_096;

/// How the puppet's allocator behaves during one hostcall.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Allocator {
    #[default]
    Sound = 0,
    Null = 1,
    OutOfBounds = 2,
    /// Calls `proxy_log`, which is fine.
    Logs = 3,
    /// Calls `proxy_done`, which is not.
    Reenters = 4,
}

/// The module's text. `abi` as in `0_2_1`.
pub(super) fn text(abi: &str) -> String {
    let mut out = String::from("(module\n");
    for (index, (name, parameters)) in HOSTCALLS.iter().enumerate() {
        let module = if name.starts_with("proxy_") { "env" } else { "wasi_snapshot_preview1" };
        let parameters: Vec<&str> = parameters.chars().map(wat_type).collect();
        let parameters = parameters.join(" ");
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "(import \"{module}\" \"{name}\" (func $h{index} (param {parameters}) (result i32)))"
        );
    }
    out.push_str(BODY);
    dispatch(&mut out);
    for (index, (name, parameters, result)) in CALLBACKS.iter().enumerate() {
        callback(&mut out, index, name, *parameters, *result, abi);
    }
    let _ = writeln!(out, "(func (export \"proxy_abi_version_{abi}\"))\n)");
    out
}

fn wat_type(letter: char) -> &'static str {
    if letter == 'I' { "i64" } else { "i32" }
}

/// Makes one hostcall with the arguments that lie 8 bytes apart behind the step's head.
fn dispatch(out: &mut String) {
    out.push_str("(func $call (param $index i32) (param $at i32) (result i32)\n");
    for (index, (_, parameters)) in HOSTCALLS.iter().enumerate() {
        let _ =
            write!(out, "(if (i32.eq (local.get $index) (i32.const {index})) (then (return (call $h{index}");
        for (position, letter) in parameters.chars().enumerate() {
            let _ = write!(out, " ({}.load offset={} (local.get $at))", wat_type(letter), 8 * (position + 1));
        }
        out.push_str("))))\n");
    }
    out.push_str("unreachable)\n");
}

fn callback(out: &mut String, index: usize, name: &str, parameters: usize, result: Option<u32>, abi: &str) {
    let headers = name.ends_with("_headers");
    let parameters = if headers && abi == "0_1_0" { 2 } else { parameters };
    let _ = write!(out, "(func $callback{index} (export \"{name}\") (param {})", "i32 ".repeat(parameters));
    if result.is_some() {
        out.push_str(" (result i32)");
    }
    let _ = writeln!(out, "\n(i32.store (i32.const 64) (i32.const {index}))");
    for parameter in 0..5 {
        let value = match parameter < parameters {
            true => format!("(local.get {parameter})"),
            false => "(i32.const -1)".to_owned(),
        };
        let _ = writeln!(out, "(i32.store (i32.const {}) {value})", 68 + 4 * parameter);
    }
    let _ = writeln!(out, "(call $run (i32.const {}))", result.unwrap_or(0));
    out.push_str(if result.is_some() { ")\n" } else { "drop)\n" });
}

/// Words at: 0 address and 4 size of what `next` gave, 16 a status; 64 the callback's number and arguments.
const BODY: &str = r#"
(memory (export "memory") 2)
(data (i32.const 128) "nextpeekstatuscallback")
(global $heap (mut i32) (i32.const 65536))
(global $mode (mut i32) (i32.const 0))

(func $allocate (export "proxy_on_memory_allocate") (param $size i32) (result i32)
  (local $at i32)
  (if (i32.eq (global.get $mode) (i32.const 1)) (then (return (i32.const 0))))
  (if (i32.eq (global.get $mode) (i32.const 2))
    (then (return (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 1)))))
  (if (i32.eq (global.get $mode) (i32.const 3))
    (then (drop (call $h0 (i32.const 4) (i32.const 128) (i32.const 4)))))
  (if (i32.eq (global.get $mode) (i32.const 4)) (then (drop (call $h24))))
  (local.set $at (global.get $heap))
  (global.set $heap
    (i32.and (i32.add (i32.add (local.get $at) (local.get $size)) (i32.const 15)) (i32.const -8)))
  (block $enough
    (loop $more
      (br_if $enough (i32.le_u (global.get $heap) (i32.mul (memory.size) (i32.const 65536))))
      (if (i32.eq (memory.grow (i32.const 16)) (i32.const -1)) (then (unreachable)))
      (br $more)))
  (local.get $at))

(func $tell (param $name i32) (param $name_size i32) (param $at i32) (param $size i32)
  (drop (call $h42 (local.get $name) (local.get $name_size) (local.get $at) (local.get $size)
                   (i32.const 0) (i32.const 0))))

(func $recurse (param i64 i64 i64 i64) (result i64)
  (i64.add (local.get 0)
    (call $recurse (i64.add (local.get 0) (i64.const 1)) (local.get 2) (local.get 3) (local.get 1))))

(func $run (param $result i32) (result i32)
  (local $step i32) (local $kind i32)
  (global.set $heap (i32.const 65536))
  (call $tell (i32.const 142) (i32.const 8) (i32.const 64) (i32.const 24))
  (loop $steps
    (drop (call $h42 (i32.const 128) (i32.const 4) (i32.const 0) (i32.const 0) (i32.const 0x20) (i32.const 0x24)))
    (if (i32.eqz (i32.load (i32.const 0x24))) (then (return (local.get $result))))
    (local.set $step (i32.load (i32.const 0x20)))
    (local.set $kind (i32.load (local.get $step)))
    (if (i32.eq (local.get $kind) (i32.const 0)) (then
      (memory.copy (i32.load offset=4 (local.get $step)) (i32.add (local.get $step) (i32.const 12))
                   (i32.load offset=8 (local.get $step)))
      (br $steps)))
    (if (i32.eq (local.get $kind) (i32.const 1)) (then
      (call $tell (i32.const 132) (i32.const 4)
                  (i32.load offset=4 (local.get $step)) (i32.load offset=8 (local.get $step)))
      (br $steps)))
    (if (i32.eq (local.get $kind) (i32.const 8)) (then
      (call $tell (i32.const 132) (i32.const 4)
                  (i32.load (i32.load offset=4 (local.get $step)))
                  (i32.load offset=4 (i32.load offset=4 (local.get $step))))
      (br $steps)))
    (if (i32.eq (local.get $kind) (i32.const 2)) (then (return (i32.load offset=4 (local.get $step)))))
    (if (i32.eq (local.get $kind) (i32.const 3)) (then (unreachable)))
    (if (i32.eq (local.get $kind) (i32.const 4)) (then (loop $for_ever (br $for_ever))))
    (if (i32.eq (local.get $kind) (i32.const 5)) (then
      (loop $more (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
      (unreachable)))
    (if (i32.eq (local.get $kind) (i32.const 6)) (then
      (drop (call $recurse (i64.const 1) (i64.const 2) (i64.const 3) (i64.const 4)))))
    (if (i32.eq (local.get $kind) (i32.const 7)) (then
      (loop $storm (drop (call $h2 (i32.const 16))) (br $storm))))
    (global.set $mode (i32.load offset=4 (local.get $step)))
    (i32.store (i32.const 16)
      (call $call (i32.sub (local.get $kind) (i32.const 100)) (local.get $step)))
    (global.set $mode (i32.const 0))
    (call $tell (i32.const 136) (i32.const 6) (i32.const 16) (i32.const 4))
    (br $steps))
  (unreachable))
"#;
