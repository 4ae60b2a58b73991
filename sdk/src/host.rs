//! The hostcalls, as safe functions: every status becomes a `Result`, and nothing panics.
//!
//! The `proxy-wasm` crate dispatches callbacks; its wrappers of the hostcalls however panic on statuses that they do not
//! list, and a panic costs the VM. So the SDK imports the functions itself, with statuses as numbers. The one exception
//! is `proxy_http_call`, whose token `proxy-wasm` must know. Used by every other file of the SDK.
#![allow(
    unsafe_code,
    reason = "imports of the Proxy-Wasm ABI take pointers; this file is the only one that calls them"
)]

use std::fmt;
use std::ptr::null_mut;
use std::time::Duration;

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_log(level: u32, message: *const u8, size: usize) -> u32;
    fn proxy_get_current_time_nanoseconds(time: *mut u64) -> u32;
    fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
    fn proxy_get_buffer_bytes(
        buffer: u32,
        start: usize,
        max_size: usize,
        bytes: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_set_buffer_bytes(
        buffer: u32,
        start: usize,
        size: usize,
        bytes: *const u8,
        new_size: usize,
    ) -> u32;
    fn proxy_get_header_map_pairs(map: u32, pairs: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_get_header_map_value(
        map: u32,
        name: *const u8,
        name_size: usize,
        value: *mut *mut u8,
        value_size: *mut usize,
    ) -> u32;
    fn proxy_add_header_map_value(
        map: u32,
        name: *const u8,
        name_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    fn proxy_replace_header_map_value(
        map: u32,
        name: *const u8,
        name_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    fn proxy_remove_header_map_value(map: u32, name: *const u8, name_size: usize) -> u32;
    fn proxy_get_property(
        path: *const u8,
        path_size: usize,
        value: *mut *mut u8,
        value_size: *mut usize,
    ) -> u32;
    fn proxy_set_property(path: *const u8, path_size: usize, value: *const u8, value_size: usize) -> u32;
    fn proxy_continue_stream(stream: u32) -> u32;
    fn proxy_send_local_response(
        status: u32,
        details: *const u8,
        details_size: usize,
        body: *const u8,
        body_size: usize,
        headers: *const u8,
        headers_size: usize,
        grpc_status: i32,
    ) -> u32;
    fn proxy_call_foreign_function(
        name: *const u8,
        name_size: usize,
        argument: *const u8,
        argument_size: usize,
        answer: *mut *mut u8,
        answer_size: *mut usize,
    ) -> u32;
    fn proxy_define_metric(kind: u32, name: *const u8, name_size: usize, id: *mut u32) -> u32;
    fn proxy_record_metric(id: u32, value: u64) -> u32;
    fn proxy_increment_metric(id: u32, offset: i64) -> u32;
}

/// What a host answered instead of OK.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status(u32);

impl Status {
    /// There is no such thing.
    pub const NOT_FOUND: Self = Self(1);
    /// The host does not accept the arguments.
    pub const BAD_ARGUMENT: Self = Self(2);
    /// The host failed, or a limit was reached.
    pub const INTERNAL_FAILURE: Self = Self(10);
    /// The host does not offer the function.
    pub const UNIMPLEMENTED: Self = Self(12);

    /// The status with this number in the ABI; 0 is not one.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number in the ABI.
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            1 => "not found",
            2 => "bad argument",
            3 => "cannot be serialized",
            4 => "cannot be parsed",
            6 => "invalid memory access",
            7 => "empty",
            8 => "changed meanwhile",
            10 => "internal failure",
            12 => "not implemented",
            number => return write!(f, "status {number}"),
        })
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A header map's number in the ABI.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum Map {
    RequestHeaders = 0,
    RequestTrailers = 1,
    ResponseHeaders = 2,
    ResponseTrailers = 3,
    CallHeaders = 6,
    CallTrailers = 7,
}

/// A buffer's number in the ABI.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum Buffer {
    RequestBody = 0,
    ResponseBody = 1,
    CallBody = 4,
    PluginConfiguration = 7,
}

/// Which way of an exchange is meant. The numbers are the ABI's stream types.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum Direction {
    Request = 0,
    Response = 1,
}

fn check(status: u32) -> Result<(), Status> {
    match status {
        0 => Ok(()),
        other => Err(Status(other)),
    }
}

/// Runs a call that hands over bytes, and takes ownership of them.
fn bytes(call: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> Result<Vec<u8>, Status> {
    let mut pointer: *mut u8 = null_mut();
    let mut size = 0;
    check(call(&mut pointer, &mut size))?;
    if pointer.is_null() || size == 0 {
        return Ok(Vec::new());
    }
    // SAFETY: the host wrote `size` bytes to memory that it got from this module's allocator function, which allocates
    // exactly that size as a boxed slice of bytes, and gave it up with this call.
    Ok(unsafe { Vec::from_raw_parts(pointer, size, size) })
}

pub(crate) fn log(level: u32, message: &str) {
    // SAFETY: pointer and size are those of `message`. Nobody could be told that logging failed.
    let _ = unsafe { proxy_log(level, message.as_ptr(), message.len()) };
}

pub(crate) fn now_nanoseconds() -> u64 {
    let mut time = 0;
    // SAFETY: the host writes eight bytes to `time`. A host without a clock leaves it at 0.
    let _ = unsafe { proxy_get_current_time_nanoseconds(&mut time) };
    time
}

pub(crate) fn set_tick_period(period: Duration) -> Result<(), Status> {
    let milliseconds = u32::try_from(period.as_millis()).unwrap_or(u32::MAX);
    // SAFETY: no pointers.
    check(unsafe { proxy_set_tick_period_milliseconds(milliseconds) })
}

pub(crate) fn buffer(buffer: Buffer, start: usize, max_size: usize) -> Result<Vec<u8>, Status> {
    // SAFETY: the host writes a pointer and a size to where `bytes` points.
    bytes(|pointer, size| unsafe { proxy_get_buffer_bytes(buffer as u32, start, max_size, pointer, size) })
}

pub(crate) fn set_buffer(buffer: Buffer, start: usize, size: usize, new: &[u8]) -> Result<(), Status> {
    // SAFETY: pointer and size are those of `new`.
    check(unsafe { proxy_set_buffer_bytes(buffer as u32, start, size, new.as_ptr(), new.len()) })
}

pub(crate) fn pairs(map: Map) -> Result<Vec<u8>, Status> {
    // SAFETY: the host writes a pointer and a size to where `bytes` points.
    bytes(|pointer, size| unsafe { proxy_get_header_map_pairs(map as u32, pointer, size) })
}

pub(crate) fn header(map: Map, name: &str) -> Result<Vec<u8>, Status> {
    // SAFETY: as above, and pointer and size are those of `name`.
    bytes(|pointer, size| unsafe {
        proxy_get_header_map_value(map as u32, name.as_ptr(), name.len(), pointer, size)
    })
}

pub(crate) fn add_header(map: Map, name: &str, value: &[u8]) -> Result<(), Status> {
    // SAFETY: pointers and sizes are those of `name` and `value`.
    check(unsafe {
        proxy_add_header_map_value(map as u32, name.as_ptr(), name.len(), value.as_ptr(), value.len())
    })
}

pub(crate) fn set_header(map: Map, name: &str, value: &[u8]) -> Result<(), Status> {
    // SAFETY: pointers and sizes are those of `name` and `value`.
    check(unsafe {
        proxy_replace_header_map_value(map as u32, name.as_ptr(), name.len(), value.as_ptr(), value.len())
    })
}

pub(crate) fn remove_header(map: Map, name: &str) -> Result<(), Status> {
    // SAFETY: pointer and size are those of `name`.
    check(unsafe { proxy_remove_header_map_value(map as u32, name.as_ptr(), name.len()) })
}

pub(crate) fn property(path: &[u8]) -> Result<Vec<u8>, Status> {
    // SAFETY: pointer and size are those of `path`; the host writes a pointer and a size to where `bytes` points.
    bytes(|pointer, size| unsafe { proxy_get_property(path.as_ptr(), path.len(), pointer, size) })
}

pub(crate) fn set_property(path: &[u8], value: &[u8]) -> Result<(), Status> {
    // SAFETY: pointers and sizes are those of `path` and `value`.
    check(unsafe { proxy_set_property(path.as_ptr(), path.len(), value.as_ptr(), value.len()) })
}

pub(crate) fn resume(direction: Direction) -> Result<(), Status> {
    // SAFETY: no pointers.
    check(unsafe { proxy_continue_stream(direction as u32) })
}

/// `headers` are serialized pairs; `grpc_status` is -1 for none.
pub(crate) fn send_local_response(
    status: u16,
    details: &str,
    body: &[u8],
    headers: &[u8],
    grpc_status: i32,
) -> Result<(), Status> {
    // SAFETY: pointers and sizes are those of the slices.
    check(unsafe {
        proxy_send_local_response(
            status.into(),
            details.as_ptr(),
            details.len(),
            body.as_ptr(),
            body.len(),
            headers.as_ptr(),
            headers.len(),
            grpc_status,
        )
    })
}

pub(crate) fn call_foreign_function(name: &str, argument: &[u8]) -> Result<Vec<u8>, Status> {
    // SAFETY: pointers and sizes are those of `name` and `argument`; the host writes to where `bytes` points.
    bytes(|pointer, size| unsafe {
        proxy_call_foreign_function(
            name.as_ptr(),
            name.len(),
            argument.as_ptr(),
            argument.len(),
            pointer,
            size,
        )
    })
}

pub(crate) fn define_metric(kind: u32, name: &str) -> Result<u32, Status> {
    let mut id = 0;
    // SAFETY: pointer and size are those of `name`; the host writes four bytes to `id`.
    check(unsafe { proxy_define_metric(kind, name.as_ptr(), name.len(), &mut id) })?;
    Ok(id)
}

pub(crate) fn record_metric(id: u32, value: u64) -> Result<(), Status> {
    // SAFETY: no pointers.
    check(unsafe { proxy_record_metric(id, value) })
}

pub(crate) fn increment_metric(id: u32, offset: i64) -> Result<(), Status> {
    // SAFETY: no pointers.
    check(unsafe { proxy_increment_metric(id, offset) })
}
