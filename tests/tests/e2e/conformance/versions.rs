//! The versions of the ABI, and modules that do not fit: what is refused, what is called how.

use meshgate_tests::{Backend, Meshgate, Setup};

use super::script::{NOT_FOUND, OK};

/// A module of these exports beside the callbacks, in this order. Its response has a field `x-status`: what a field that is not
/// there answers, as a letter from `a` on, then a field of a map that is not there, and a third for what it gets as its last
/// parameter in that callback.
fn module(exports: &[&str], parameters: usize) -> Vec<u8> {
    let exports: String = exports.iter().map(|name| format!("(func (export \"{name}\"))")).collect();
    let types = " i32".repeat(parameters);
    let last = if parameters == 3 { "(local.get 2)" } else { "(i32.const 25)" };
    let text = format!(
        r#"(module
        (import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 16) "x-none") (data (i32.const 32) "x-status")
        {exports}
        (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 4096))
        (func (export "proxy_on_response_headers") (param{types}) (result i32)
          (i32.store8 (i32.const 64) (i32.add (i32.const 97)
            (call $get (i32.const 2) (i32.const 16) (i32.const 6) (i32.const 80) (i32.const 84))))
          (i32.store8 (i32.const 65) (i32.add (i32.const 97)
            (call $get (i32.const 3) (i32.const 16) (i32.const 6) (i32.const 80) (i32.const 84))))
          (i32.store8 (i32.const 66) (i32.add (i32.const 97) {last}))
          (call $add (i32.const 2) (i32.const 32) (i32.const 8) (i32.const 64) (i32.const 3))))"#
    );
    wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn proxy(module: &[u8], one: &Backend) -> Setup {
    Meshgate::chain("- old").filter("old", module, "").cluster("one", &[one])
}

#[tokio::test]
pub(super) async fn the_first_export_counts() {
    const VERSIONS: [&str; 3] =
        ["proxy_abi_version_0_1_0", "proxy_abi_version_0_2_0", "proxy_abi_version_0_2_1"];
    let one = Backend::echo("one").await;
    for (exports, status) in [
        (&VERSIONS[..1], OK),
        (&VERSIONS[1..2], NOT_FOUND),
        (&VERSIONS[2..], NOT_FOUND),
        (&VERSIONS[..], OK),
        (&[VERSIONS[2], VERSIONS[0]][..], NOT_FOUND),
        (&["proxy_abi_version_9_9_9", VERSIONS[0]][..], OK),
    ] {
        let gate = proxy(&module(exports, 3), &one).start().await;
        // The body is still to come.
        let status = b'a' + u8::try_from(status).unwrap();
        let expected = [status, status, b'a'];
        assert_eq!(gate.get("/").await.header("x-status").as_bytes(), expected, "{exports:?}");
    }
    for exports in [&[][..], &["proxy_abi_version_9_9_9"]] {
        let refused = proxy(&module(exports, 3), &one).start_refused().await;
        assert_ne!(refused.code, Some(0), "{exports:?}");
    }
}

#[tokio::test]
pub(super) async fn header_callbacks_have_two_parameters_or_three() {
    let one = Backend::echo("one").await;
    for version in ["proxy_abi_version_0_1_0", "proxy_abi_version_0_2_1"] {
        for (parameters, last) in [(2, 'z'), (3, 'a')] {
            let gate = proxy(&module(&[version], parameters), &one).start().await;
            let reply = gate.get("/").await;
            assert!(reply.header("x-status").ends_with(last), "{version} {parameters}: {reply:?}");
        }
        // With another type it counts as absent.
        let gate = proxy(&module(&[version], 4), &one).start().await;
        let reply = gate.get("/").await;
        assert_eq!((reply.status.as_u16(), reply.header("x-status")), (200, ""), "{version}");
    }
}

#[tokio::test]
pub(super) async fn only_functions_can_be_imported() {
    let one = Backend::echo("one").await;
    let import = r#"(import "env" "stack_pointer" (global i32))"#;
    let refused = proxy(&meshgate_tests::written(import, ""), &one).start_refused().await;
    assert_ne!(refused.code, Some(0));
}

#[tokio::test]
pub(super) async fn an_import_that_is_not_there_and_returns_no_status_ends_the_callback() {
    let one = Backend::echo("one").await;
    let module = meshgate_tests::written(
        r#"(import "env" "no_such_function" (func $f (result i64)))"#,
        r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.wrap_i64 (call $f)))"#,
    );
    let gate = proxy(&module, &one).start().await;
    let reply = gate.get("/").await;
    assert!(reply.status.is_server_error() && one.requests() == 0, "{reply:?}");
}

#[tokio::test]
pub(super) async fn callbacks_that_do_not_come() {
    // Each of them would fail the exchange.
    let never: String = [
        ("proxy_validate_configuration", "i32 i32", "(result i32)"),
        ("proxy_on_request_metadata", "i32 i32", "(result i32)"),
        ("proxy_on_response_metadata", "i32 i32", "(result i32)"),
        ("proxy_on_foreign_function", "i32 i32 i32", ""),
        ("envoy_on_resolve_dns", "i32 i32 i32", ""),
        ("envoy_on_stats_update", "i32 i32", ""),
        ("proxy_on_redis_call_response", "i32 i32 i32 i32", ""),
    ]
    .map(|(name, parameters, result)| {
        format!("(func (export \"{name}\") (param {parameters}) {result} unreachable)")
    })
    .concat();
    let one = Backend::echo("one").await;
    let gate = proxy(&meshgate_tests::written("", &never), &one).start().await;
    for mut client in [
        meshgate_tests::Client::http1(gate.address()).await,
        meshgate_tests::Client::http2(gate.address()).await,
    ] {
        assert_eq!(client.call(meshgate_tests::Ask::post("/", "a body")).await.status, 200);
    }
    let stopped = gate.stop().await;
    assert!(
        !stopped.log.iter().any(|line| line.contains("trap") || line.contains("unreachable")),
        "{:?}",
        stopped.log
    );
}
