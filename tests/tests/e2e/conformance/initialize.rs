//! What may be called while a VM starts, before there is any context: the log, the clock, WASI. Everything else answers
//! INTERNAL_FAILURE, and the VM starts all the same.

use std::fmt::Write as _;

use meshgate_tests::{Backend, Meshgate};

use super::script::{INTERNAL_FAILURE, OK};

/// Function, parameters (`i` 32 bits, `I` 64 bits), status.
const FUNCTIONS: &[(&str, &str, u32)] = &[
    ("proxy_log", "iii", OK),
    ("proxy_get_log_level", "i", OK),
    ("proxy_get_current_time_nanoseconds", "i", OK),
    ("proxy_set_tick_period_milliseconds", "i", INTERNAL_FAILURE),
    ("proxy_get_buffer_bytes", "iiiii", INTERNAL_FAILURE),
    ("proxy_set_buffer_bytes", "iiiii", INTERNAL_FAILURE),
    ("proxy_get_buffer_status", "iii", INTERNAL_FAILURE),
    ("proxy_get_configuration", "ii", INTERNAL_FAILURE),
    ("proxy_get_header_map_size", "ii", INTERNAL_FAILURE),
    ("proxy_get_header_map_pairs", "iii", INTERNAL_FAILURE),
    ("proxy_set_header_map_pairs", "iii", INTERNAL_FAILURE),
    ("proxy_get_header_map_value", "iiiii", INTERNAL_FAILURE),
    ("proxy_add_header_map_value", "iiiii", INTERNAL_FAILURE),
    ("proxy_replace_header_map_value", "iiiii", INTERNAL_FAILURE),
    ("proxy_remove_header_map_value", "iii", INTERNAL_FAILURE),
    ("proxy_get_property", "iiii", INTERNAL_FAILURE),
    ("proxy_set_property", "iiii", INTERNAL_FAILURE),
    ("proxy_continue_stream", "i", INTERNAL_FAILURE),
    ("proxy_close_stream", "i", INTERNAL_FAILURE),
    ("proxy_continue_request", "", INTERNAL_FAILURE),
    ("proxy_continue_response", "", INTERNAL_FAILURE),
    ("proxy_clear_route_cache", "", INTERNAL_FAILURE),
    ("proxy_send_local_response", "iiiiiiii", INTERNAL_FAILURE),
    ("proxy_set_effective_context", "i", INTERNAL_FAILURE),
    ("proxy_done", "", INTERNAL_FAILURE),
    ("proxy_get_status", "iii", INTERNAL_FAILURE),
    ("proxy_http_call", "iiiiiiiiii", INTERNAL_FAILURE),
    ("proxy_grpc_call", "iiiiiiiiiiii", INTERNAL_FAILURE),
    ("proxy_grpc_stream", "iiiiiiiii", INTERNAL_FAILURE),
    ("proxy_grpc_send", "iiii", INTERNAL_FAILURE),
    ("proxy_grpc_cancel", "i", INTERNAL_FAILURE),
    ("proxy_grpc_close", "i", INTERNAL_FAILURE),
    ("proxy_get_shared_data", "iiiii", INTERNAL_FAILURE),
    ("proxy_set_shared_data", "iiiii", INTERNAL_FAILURE),
    ("proxy_register_shared_queue", "iii", INTERNAL_FAILURE),
    ("proxy_resolve_shared_queue", "iiiii", INTERNAL_FAILURE),
    ("proxy_enqueue_shared_queue", "iii", INTERNAL_FAILURE),
    ("proxy_dequeue_shared_queue", "iii", INTERNAL_FAILURE),
    ("proxy_define_metric", "iiii", INTERNAL_FAILURE),
    ("proxy_record_metric", "iI", INTERNAL_FAILURE),
    ("proxy_increment_metric", "iI", INTERNAL_FAILURE),
    ("proxy_get_metric", "ii", INTERNAL_FAILURE),
    ("proxy_call_foreign_function", "iiiiii", INTERNAL_FAILURE),
    ("clock_time_get", "iIi", OK),
    ("random_get", "ii", OK),
    ("environ_sizes_get", "ii", OK),
    ("sched_yield", "", OK),
];

/// Where the statuses are kept until there is a response to put them into, a letter for each: `a` is OK.
const STATUSES: usize = 1024;

/// A module that makes every call in this function, which hosts run first, and shows the statuses in a response's field.
fn module(function: &str) -> Vec<u8> {
    let (mut imports, mut calls) = (String::new(), String::new());
    for (place, (name, parameters, _)) in FUNCTIONS.iter().enumerate() {
        let module = if name.starts_with("proxy_") { "env" } else { "wasi_snapshot_preview1" };
        let types = parameters.chars().map(|letter| if letter == 'I' { " i64" } else { " i32" });
        let zeros =
            parameters.chars().map(|letter| if letter == 'I' { " (i64.const 0)" } else { " (i32.const 0)" });
        let (types, zeros) = (types.collect::<String>(), zeros.collect::<String>());
        writeln!(imports, "(import \"{module}\" \"{name}\" (func ${name} (param{types}) (result i32)))")
            .unwrap();
        let at = STATUSES + place;
        writeln!(calls, "(i32.store8 (i32.const {at}) (i32.add (i32.const 97) (call ${name}{zeros})))")
            .unwrap();
    }
    let count = FUNCTIONS.len();
    let text = format!(
        r#"(module
{imports}
  (memory (export "memory") 1)
  (data (i32.const 512) "x-statuses")
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 4096))
  (func (export "{function}")
{calls})
  (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
    (call $proxy_add_header_map_value (i32.const 2) (i32.const 512) (i32.const 10)
      (i32.const {STATUSES}) (i32.const {count}))))"#
    );
    wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

#[tokio::test]
pub(super) async fn in_either_function() {
    for function in ["_initialize", "_start"] {
        let one = Backend::echo("one").await;
        let setup = Meshgate::chain("- starts: {}").filter("starts", &module(function), "");
        let gate = setup.cluster("one", &[&one]).start().await;
        let reply = gate.get("/").await;
        let statuses: Vec<_> =
            reply.header("x-statuses").bytes().map(|letter| u32::from(letter - b'a')).collect();
        let expected: Vec<_> = FUNCTIONS.iter().map(|(_, _, status)| *status).collect();
        assert_eq!(statuses, expected, "{function}");
    }
}

/// What a toolchain's start-up code runs after `_initialize`.
#[tokio::test]
pub(super) async fn mains_of_c() {
    let one = Backend::echo("one").await;
    let initialize = r#"(func (export "_initialize") (i32.store8 (i32.const 64) (i32.const 105)))"#;
    let main = r#"(func (export "main") (param i32 i32) (result i32)
        (i32.store8 (i32.const 65) (i32.add (i32.const 109) (i32.add (local.get 0) (local.get 1)))) (i32.const 9))"#;
    let main_void = r#"(func (export "__main_void") (result i32) (i32.store8 (i32.const 66) (i32.const 118)) (i32.const 9))"#;
    let start = r#"(func (export "_start") (i32.store8 (i32.const 67) (i32.const 115)))"#;
    for (functions, ran) in [
        (initialize.to_owned(), "i..."),
        (initialize.to_owned() + main, "im.."),
        (initialize.to_owned() + main_void, "i.v."),
        (initialize.to_owned() + main + main_void + start, "im.."),
        (start.to_owned(), "...s"),
        (start.to_owned() + main, "...s"),
        (main.to_owned(), "...."),
    ] {
        let module = meshgate_tests::written(
            r#"(import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))"#,
            &format!(
                r#"(data (i32.const 32) "x-ran") (data (i32.const 64) "....") {functions}
                (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
                  (call $add (i32.const 2) (i32.const 32) (i32.const 5) (i32.const 64) (i32.const 4)))"#
            ),
        );
        let gate =
            Meshgate::chain("- starts").filter("starts", &module, "").cluster("one", &[&one]).start().await;
        assert_eq!(gate.get("/").await.header("x-ran"), ran, "{functions}");
    }
}

/// A module with allocators of these names, each of which gives memory at its own address and is exported in this order. The
/// field `x-from` of its response says which one was asked.
fn allocating(allocators: &[&str]) -> Vec<u8> {
    let functions: String = allocators
        .iter()
        .map(|name| {
            let at = if *name == "malloc" { 2048 } else { 1024 };
            format!("(func (export \"{name}\") (param i32) (result i32) (i32.const {at}))")
        })
        .collect();
    let text = format!(
        r#"(module
        (import "env" "proxy_get_property" (func $get (param i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 16) "plugin_name") (data (i32.const 32) "x-from") (data (i32.const 64) "proxy_on malloc  ")
        (func (export "proxy_abi_version_0_2_1"))
        {functions}
        (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
          (drop (call $get (i32.const 16) (i32.const 11) (i32.const 48) (i32.const 52)))
          (call $add (i32.const 2) (i32.const 32) (i32.const 6)
            (select (i32.const 73) (i32.const 64) (i32.eq (i32.load (i32.const 48)) (i32.const 2048))) (i32.const 8))))"#
    );
    wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

#[tokio::test]
pub(super) async fn memory_comes_from_the_guest() {
    const BOTH: [&str; 2] = ["malloc", "proxy_on_memory_allocate"];
    let one = Backend::echo("one").await;
    for (allocators, keys, expected) in [
        (&BOTH[..], "", "proxy_on"),
        (&BOTH[..], "compatibility: {allocator: proxy_on_memory_allocate}", "proxy_on"),
        (&BOTH[..], "compatibility: {allocator: malloc}", "malloc"),
        (&BOTH[..1], "", "malloc"),
        (&BOTH[1..], "compatibility: {allocator: malloc}", "proxy_on"),
    ] {
        let setup = Meshgate::chain("- asks").filter("asks", &allocating(allocators), keys);
        let gate = setup.cluster("one", &[&one]).start().await;
        assert_eq!(gate.get("/").await.header("x-from").trim(), expected, "{allocators:?} {keys}");
    }
    let setup = Meshgate::chain("- asks").filter("asks", &allocating(&[]), "").cluster("one", &[&one]);
    assert_ne!(setup.start_refused().await.code, Some(0), "neither");
}

/// While the guest's allocator runs, it may log and ask for the time: a garbage collector does. Anything else fails the
/// callback, because it could lead back into the allocator.
#[tokio::test]
async fn what_an_allocator_may_call() {
    let one = Backend::echo("one").await;
    for (name, parameters, status) in FUNCTIONS {
        let module = if name.starts_with("proxy_") { "env" } else { "wasi_snapshot_preview1" };
        let types = parameters.chars().map(|letter| if letter == 'I' { " i64" } else { " i32" });
        let zeros =
            parameters.chars().map(|letter| if letter == 'I' { " (i64.const 0)" } else { " (i32.const 0)" });
        let (types, zeros) = (types.collect::<String>(), zeros.collect::<String>());
        let text = format!(
            r#"(module
            (import "{module}" "{name}" (func $f (param{types}) (result i32)))
            (import "env" "proxy_get_header_map_pairs" (func $pairs (param i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (func (export "proxy_abi_version_0_2_1"))
            (func (export "proxy_on_memory_allocate") (param i32) (result i32) (drop (call $f{zeros})) (i32.const 4096))
            (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
              (call $pairs (i32.const 0) (i32.const 16) (i32.const 20))))"#
        );
        let module = wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let gate =
            Meshgate::chain("- asks").filter("asks", &module, "").cluster("one", &[&one]).start().await;
        assert_eq!(gate.get("/").await.status == 200, *status == OK, "{name}");
    }
}
