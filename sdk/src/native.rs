//! Stand-ins for the host's functions where a filter is not compiled for wasm32, so that `cargo test` links.
//!
//! There is no exchange behind them: reading finds nothing, writing succeeds and goes nowhere, and log lines go to
//! standard error. A filter's pure logic is tested natively; its callbacks are tested in a real proxy.
#![allow(
    unsafe_code,
    reason = "these functions have the names and the C calling convention that the ABI prescribes"
)]
#![allow(unreachable_pub, reason = "they are called by the linker's symbol, not by their path")]

use std::io::Write;

const OK: u32 = 0;
const NOT_FOUND: u32 = 1;

/// # Safety
/// `message` points to `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn proxy_log(_level: u32, message: *const u8, size: usize) -> u32 {
    // SAFETY: the caller's promise.
    let message = unsafe { std::slice::from_raw_parts(message, size) };
    // A test whose standard error is closed still passes.
    let _ = writeln!(std::io::stderr(), "{}", String::from_utf8_lossy(message));
    OK
}

/// # Safety
/// `time` may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn proxy_get_current_time_nanoseconds(time: *mut u64) -> u32 {
    let since_epoch = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    // SAFETY: the caller's promise.
    unsafe { *time = u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX) };
    OK
}

/// Functions that take numbers and pointers, look at none of them, and answer one status.
macro_rules! stand_ins {
    ($($status:ident: $($name:ident($($argument:ty),*))*;)*) => {$($(
        #[unsafe(no_mangle)]
        pub extern "C" fn $name($(_: $argument),*) -> u32 {
            $status
        }
    )*)*};
}

type In = *const u8;
type Out = *mut *mut u8;
type Size = *mut usize;
type Id = *mut u32;

stand_ins! {
    OK:
        proxy_get_log_level(Id)
        proxy_set_tick_period_milliseconds(u32)
        proxy_set_buffer_bytes(u32, usize, usize, In, usize)
        proxy_get_header_map_pairs(u32, Out, Size)
        proxy_set_header_map_pairs(u32, In, usize)
        proxy_add_header_map_value(u32, In, usize, In, usize)
        proxy_replace_header_map_value(u32, In, usize, In, usize)
        proxy_remove_header_map_value(u32, In, usize)
        proxy_set_property(In, usize, In, usize)
        proxy_set_shared_data(In, usize, In, usize, u32)
        proxy_register_shared_queue(In, usize, Id)
        proxy_continue_stream(u32)
        proxy_close_stream(u32)
        proxy_send_local_response(u32, In, usize, In, usize, In, usize, i32)
        proxy_get_status(Id, Out, Size)
        proxy_set_effective_context(u32)
        proxy_done()
        proxy_define_metric(u32, In, usize, Id)
        proxy_record_metric(u32, u64)
        proxy_increment_metric(u32, i64);
    NOT_FOUND:
        proxy_get_buffer_bytes(u32, usize, usize, Out, Size)
        proxy_get_header_map_value(u32, In, usize, Out, Size)
        proxy_get_property(In, usize, Out, Size)
        proxy_get_shared_data(In, usize, Out, Size, Id)
        proxy_resolve_shared_queue(In, usize, In, usize, Id)
        proxy_dequeue_shared_queue(u32, Out, Size)
        proxy_enqueue_shared_queue(u32, In, usize)
        proxy_grpc_send(u32, In, usize, u32)
        proxy_grpc_cancel(u32)
        proxy_grpc_close(u32)
        proxy_call_foreign_function(In, usize, In, usize, Out, Size)
        proxy_get_metric(u32, *mut u64);
    BAD_ARGUMENT:
        proxy_http_call(In, usize, In, usize, In, usize, In, usize, u32, Id);
    PARSE_FAILURE:
        proxy_grpc_call(In, usize, In, usize, In, usize, In, usize, In, usize, u32, Id)
        proxy_grpc_stream(In, usize, In, usize, In, usize, In, usize, Id);
}

const BAD_ARGUMENT: u32 = 2;
const PARSE_FAILURE: u32 = 4;
