//! The hostcalls as imports of the Proxy-Wasm ABI, with statuses as numbers: a host may answer any.
#![allow(
    unsafe_code,
    reason = "imports of the Proxy-Wasm ABI take pointers; this file is the only one that calls them"
)]

use std::ptr::null_mut;
use std::time::Duration;

use super::{Buffer, Direction, GrpcCall, HttpCall, LocalResponse, Map, Status};

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
    fn proxy_get_shared_data(
        key: *const u8,
        key_size: usize,
        value: *mut *mut u8,
        value_size: *mut usize,
        version: *mut u32,
    ) -> u32;
    fn proxy_set_shared_data(
        key: *const u8,
        key_size: usize,
        value: *const u8,
        value_size: usize,
        version: u32,
    ) -> u32;
    fn proxy_http_call(
        cluster: *const u8,
        cluster_size: usize,
        headers: *const u8,
        headers_size: usize,
        body: *const u8,
        body_size: usize,
        trailers: *const u8,
        trailers_size: usize,
        timeout_ms: u32,
        token: *mut u32,
    ) -> u32;
    fn proxy_grpc_call(
        cluster: *const u8,
        cluster_size: usize,
        service: *const u8,
        service_size: usize,
        method: *const u8,
        method_size: usize,
        metadata: *const u8,
        metadata_size: usize,
        message: *const u8,
        message_size: usize,
        timeout_ms: u32,
        token: *mut u32,
    ) -> u32;
    fn proxy_grpc_cancel(token: u32) -> u32;
    fn proxy_get_status(code: *mut u32, message: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_set_effective_context(context: u32) -> u32;
}

/// What the host calls to get memory for what it hands over. [`bytes`] takes it back.
pub fn allocate(size: usize) -> *mut u8 {
    Box::into_raw(Box::<[u8]>::new_uninit_slice(size)).cast()
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

pub(crate) fn send_local_response(response: LocalResponse<'_>) -> Result<(), Status> {
    let LocalResponse { status, details, body, headers, grpc_status } = response;
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

/// The value and its version.
pub(crate) fn shared_data(key: &str) -> Result<(Vec<u8>, u32), Status> {
    let mut version = 0;
    // SAFETY: pointer and size are those of `key`; the host writes to where `bytes` points, and four bytes to `version`.
    let value = bytes(|pointer, size| unsafe {
        proxy_get_shared_data(key.as_ptr(), key.len(), pointer, size, &mut version)
    })?;
    Ok((value, version))
}

/// `None` removes, where the host can; a version of 0 overwrites whatever there is.
pub(crate) fn set_shared_data(key: &str, value: Option<&[u8]>, version: u32) -> Result<(), Status> {
    let (pointer, size) = value.map_or((std::ptr::null(), 0), |value| (value.as_ptr(), value.len()));
    // SAFETY: pointers and sizes are those of `key` and `value`; the null pointer comes with a size of 0.
    check(unsafe { proxy_set_shared_data(key.as_ptr(), key.len(), pointer, size, version) })
}

/// The token of the call.
pub(crate) fn http_call(call: HttpCall<'_>) -> Result<u32, Status> {
    let HttpCall { cluster, headers, body, timeout_ms } = call;
    let mut token = 0;
    // SAFETY: pointers and sizes are those of the slices; the host writes four bytes to `token`.
    check(unsafe {
        proxy_http_call(
            cluster.as_ptr(),
            cluster.len(),
            headers.as_ptr(),
            headers.len(),
            body.as_ptr(),
            body.len(),
            null_mut(),
            0,
            timeout_ms,
            &mut token,
        )
    })?;
    Ok(token)
}

/// The token of the call.
pub(crate) fn grpc_call(call: GrpcCall<'_>) -> Result<u32, Status> {
    let GrpcCall { cluster, service, method, metadata, message, timeout_ms } = call;
    let mut token = 0;
    // SAFETY: pointers and sizes are those of the slices; the host writes four bytes to `token`.
    check(unsafe {
        proxy_grpc_call(
            cluster.as_ptr(),
            cluster.len(),
            service.as_ptr(),
            service.len(),
            method.as_ptr(),
            method.len(),
            metadata.as_ptr(),
            metadata.len(),
            message.as_ptr(),
            message.len(),
            timeout_ms,
            &mut token,
        )
    })?;
    Ok(token)
}

pub(crate) fn grpc_cancel(token: u32) {
    // SAFETY: no pointers. A call that is over cannot be cancelled, and need not be.
    let _ = unsafe { proxy_grpc_cancel(token) };
}

/// The words beside the status with which a gRPC call ended.
pub(crate) fn status_message() -> Result<Vec<u8>, Status> {
    let mut code = 0;
    // SAFETY: the host writes four bytes to `code` and a pointer and a size to where `bytes` points.
    bytes(|pointer, size| unsafe { proxy_get_status(&mut code, pointer, size) })
}

/// Later hostcalls of this callback act for this context.
pub(crate) fn set_effective_context(context: u32) {
    // SAFETY: no pointers. A context that the host no longer knows is one that nothing can be done for.
    let _ = unsafe { proxy_set_effective_context(context) };
}
