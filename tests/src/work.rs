//! Modules in WebAssembly text that work, wait or keep time: for tests of limits and of services.

use crate::hand_written::{FRAME, assemble};

/// A module that counts down from `turns` in each request's header callback: finite work, about a nanosecond a turn.
pub fn busy(turns: u64) -> Vec<u8> {
    assemble(&format!(
        r#"(module {FRAME}
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
    (local $left i64)
    (local.set $left (i64.const {turns}))
    (loop $again
      (local.set $left (i64.sub (local.get $left) (i64.const 1)))
      (br_if $again (i64.ne (local.get $left) (i64.const 0))))
    (i32.const 0)))"#
    ))
}

/// A module that pauses in `callback` of a stream, without `proxy_on_`, and never resumes.
pub fn waiting(callback: &str) -> Vec<u8> {
    let parameters = if callback.ends_with("_trailers") { "i32 i32" } else { "i32 i32 i32" };
    assemble(&format!(
        r#"(module {FRAME}
  (func (export "proxy_on_{callback}") (param {parameters}) (result i32) (i32.const 1)))"#
    ))
}

/// A module without streams that counts its starts in `wasmcustom_NAME_starts` and its ticks, one every 20 ms, in
/// `wasmcustom_NAME_ticks`. It refuses a configuration that is not empty.
pub fn counting(name: &str) -> Vec<u8> {
    let (starts, ticks) = (format!("{name}_starts"), format!("{name}_ticks"));
    assemble(&format!(
        r#"(module
  (import "env" "proxy_define_metric" (func $define (param i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_increment_metric" (func $add (param i32 i64) (result i32)))
  (import "env" "proxy_set_tick_period_milliseconds" (func $tick (param i32) (result i32)))
  {FRAME}
  (data (i32.const 128) "{starts}")
  (data (i32.const 256) "{ticks}")
  (func (export "proxy_on_configure") (param i32 i32) (result i32)
    (if (local.get 1) (then (return (i32.const 0))))
    (drop (call $define (i32.const 0) (i32.const 128) (i32.const {}) (i32.const 80)))
    (drop (call $define (i32.const 0) (i32.const 256) (i32.const {}) (i32.const 84)))
    (drop (call $add (i32.load (i32.const 80)) (i64.const 1)))
    (drop (call $tick (i32.const 20)))
    (i32.const 1))
  (func (export "proxy_on_tick") (param i32)
    (drop (call $add (i32.load (i32.const 84)) (i64.const 1)))))"#,
        starts.len(),
        ticks.len(),
    ))
}
