//! The hostcalls of a module: those of the `proxy-wasm` crate, and beside it imports of our own.
//!
//! The crate's wrappers know for each function the statuses that hosts answer to a filter without a fault, and panic about
//! all others; a panic costs the VM. So the SDK goes through a wrapper where it lists what hosts answer. The imports below are
//! for the rest; each says what is amiss. Their statuses are numbers, since a host may answer any.
#![allow(
    unsafe_code,
    reason = "imports of the Proxy-Wasm ABI take pointers; this file is the only one that calls them"
)]

use std::ptr::null_mut;
use std::time::{Duration, UNIX_EPOCH};

use proxy_wasm::hostcalls;
use proxy_wasm::types::Status as Known;

use super::{
    BufferType, Direction, GrpcCall, GrpcOpening, HttpCall, LocalResponse, LogLevel, MapType, MetricType,
    Status,
};

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    /// The crate panics where a body cannot be changed (any more): BAD_ARGUMENT, NOT_FOUND.
    fn proxy_set_buffer_bytes(
        buffer: BufferType,
        start: usize,
        size: usize,
        bytes: *const u8,
        new_size: usize,
    ) -> u32;
    /// The crate panics where there is no such map, such as the response's in the request's callbacks, and about names that
    /// are not UTF-8; and it copies each field, where the SDK only looks.
    fn proxy_get_header_map_pairs(map: MapType, pairs: *mut *mut u8, size: *mut usize) -> u32;
    /// The crate panics where there is no such map: Envoy answers BAD_ARGUMENT.
    fn proxy_get_header_map_value(
        map: MapType,
        name: *const u8,
        name_size: usize,
        value: *mut *mut u8,
        value_size: *mut usize,
    ) -> u32;
    /// The crate panics about fields that HTTP does not allow, and maps that cannot be written: BAD_ARGUMENT.
    fn proxy_add_header_map_value(
        map: MapType,
        name: *const u8,
        name_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    /// As for adding.
    fn proxy_replace_header_map_value(
        map: MapType,
        name: *const u8,
        name_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    /// As for adding.
    fn proxy_remove_header_map_value(map: MapType, name: *const u8, name_size: usize) -> u32;
    /// To the crate an empty value and none are one; and it takes a path as a list, which it puts together each time.
    fn proxy_get_property(
        path: *const u8,
        path_size: usize,
        value: *mut *mut u8,
        value_size: *mut usize,
    ) -> u32;
    /// The crate panics where a property cannot be set: NOT_FOUND outside of an exchange, INTERNAL_FAILURE beyond a limit.
    fn proxy_set_property(path: *const u8, path_size: usize, value: *const u8, value_size: usize) -> u32;
    /// The crate leaves the details out, gives either a body or a gRPC status, and panics about a response that cannot be
    /// sent: BAD_ARGUMENT.
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
    /// Hosts without such functions answer UNIMPLEMENTED, which the crate has no name for; and what a function answers is up to
    /// the function.
    fn proxy_call_foreign_function(
        name: *const u8,
        name_size: usize,
        argument: *const u8,
        argument_size: usize,
        answer: *mut *mut u8,
        answer_size: *mut usize,
    ) -> u32;
    /// The crate panics about names that a host does not take, and beyond its limits: BAD_ARGUMENT, INTERNAL_FAILURE.
    fn proxy_define_metric(kind: MetricType, name: *const u8, name_size: usize, id: *mut u32) -> u32;
    /// The crate panics beyond a limit: INTERNAL_FAILURE.
    fn proxy_set_shared_data(
        key: *const u8,
        key_size: usize,
        value: *const u8,
        value_size: usize,
        version: u32,
    ) -> u32;
    /// The crate panics beyond a limit: INTERNAL_FAILURE.
    fn proxy_register_shared_queue(name: *const u8, name_size: usize, id: *mut u32) -> u32;
    /// As for registering.
    fn proxy_enqueue_shared_queue(id: u32, item: *const u8, item_size: usize) -> u32;
    /// To the crate an empty item and none are one.
    fn proxy_dequeue_shared_queue(id: u32, item: *mut *mut u8, item_size: *mut usize) -> u32;
    /// The crate panics about all but what hosts answer to a sound id, and a stream may be let go of when its plugin is no
    /// longer there.
    fn proxy_grpc_send(id: u32, message: *const u8, message_size: usize, end: u32) -> u32;
    /// As for sending.
    fn proxy_grpc_close(id: u32) -> u32;
    /// As for sending.
    fn proxy_grpc_cancel(id: u32) -> u32;
    /// The crate panics about words that are not UTF-8, and they are the called server's.
    fn proxy_get_status(code: *mut u32, message: *mut *mut u8, size: *mut usize) -> u32;
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
    // SAFETY: the host wrote `size` bytes to memory that it got from the allocator function of the `proxy-wasm` crate, which
    // allocates exactly that size as a boxed slice of bytes, and gave it up with this call.
    Ok(unsafe { Vec::from_raw_parts(pointer, size, size) })
}

fn numbered(status: Known) -> Status {
    Status(status as u32)
}

pub(crate) fn log(level: LogLevel, message: &str) {
    // Nobody could be told that logging failed.
    let _ = hostcalls::log(level, message);
}

pub(crate) fn now_nanoseconds() -> u64 {
    let since = hostcalls::get_current_time().map(|now| now.duration_since(UNIX_EPOCH).unwrap_or_default());
    u64::try_from(since.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}

pub(crate) fn set_tick_period(period: Duration) -> Result<(), Status> {
    // In the ABI the milliseconds have 32 bits.
    hostcalls::set_tick_period(period.min(Duration::from_millis(u32::MAX.into()))).map_err(numbered)
}

/// `max_size` is not 0: an empty part and none are one.
pub(crate) fn buffer(buffer: BufferType, start: usize, max_size: usize) -> Result<Vec<u8>, Status> {
    hostcalls::get_buffer(buffer, start, max_size).map_err(numbered)?.ok_or(Status::NOT_FOUND)
}

pub(crate) fn set_buffer(buffer: BufferType, start: usize, size: usize, new: &[u8]) -> Result<(), Status> {
    // SAFETY: pointer and size are those of `new`.
    check(unsafe { proxy_set_buffer_bytes(buffer, start, size, new.as_ptr(), new.len()) })
}

pub(crate) fn pairs(map: MapType) -> Result<Vec<u8>, Status> {
    // SAFETY: the host writes a pointer and a size to where `bytes` points.
    bytes(|pointer, size| unsafe { proxy_get_header_map_pairs(map, pointer, size) })
}

pub(crate) fn header(map: MapType, name: &str) -> Result<Vec<u8>, Status> {
    // SAFETY: as above, and pointer and size are those of `name`.
    bytes(|pointer, size| unsafe {
        proxy_get_header_map_value(map, name.as_ptr(), name.len(), pointer, size)
    })
}

pub(crate) fn add_header(map: MapType, name: &str, value: &[u8]) -> Result<(), Status> {
    // SAFETY: pointers and sizes are those of `name` and `value`.
    check(unsafe { proxy_add_header_map_value(map, name.as_ptr(), name.len(), value.as_ptr(), value.len()) })
}

pub(crate) fn set_header(map: MapType, name: &str, value: &[u8]) -> Result<(), Status> {
    // SAFETY: pointers and sizes are those of `name` and `value`.
    check(unsafe {
        proxy_replace_header_map_value(map, name.as_ptr(), name.len(), value.as_ptr(), value.len())
    })
}

pub(crate) fn remove_header(map: MapType, name: &str) -> Result<(), Status> {
    // SAFETY: pointer and size are those of `name`.
    check(unsafe { proxy_remove_header_map_value(map, name.as_ptr(), name.len()) })
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
    match direction {
        Direction::Request => hostcalls::resume_http_request(),
        Direction::Response => hostcalls::resume_http_response(),
    }
    .map_err(numbered)
}

pub(crate) fn resume_connection(direction: Direction) -> Result<(), Status> {
    match direction {
        Direction::Request => hostcalls::resume_downstream(),
        Direction::Response => hostcalls::resume_upstream(),
    }
    .map_err(numbered)
}

/// Hosts reset both ways.
pub(crate) fn reset_exchange() -> Result<(), Status> {
    hostcalls::reset_http_request().map_err(numbered)
}

/// Hosts close both sides.
pub(crate) fn close_connection() -> Result<(), Status> {
    hostcalls::close_downstream().map_err(numbered)
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

pub(crate) fn define_metric(kind: MetricType, name: &str) -> Result<u32, Status> {
    let mut id = 0;
    // SAFETY: pointer and size are those of `name`; the host writes four bytes to `id`.
    check(unsafe { proxy_define_metric(kind, name.as_ptr(), name.len(), &mut id) })?;
    Ok(id)
}

pub(crate) fn record_metric(id: u32, value: u64) -> Result<(), Status> {
    hostcalls::record_metric(id, value).map_err(numbered)
}

pub(crate) fn increment_metric(id: u32, offset: i64) -> Result<(), Status> {
    hostcalls::increment_metric(id, offset).map_err(numbered)
}

/// The value and its version.
pub(crate) fn shared_data(key: &str) -> Result<(Vec<u8>, u32), Status> {
    match hostcalls::get_shared_data(key).map_err(numbered)? {
        (None, None) => Err(Status::NOT_FOUND),
        (value, version) => Ok((value.unwrap_or_default(), version.unwrap_or(0))),
    }
}

/// `None` removes, where the host can; a version of 0 overwrites whatever there is.
pub(crate) fn set_shared_data(key: &str, value: Option<&[u8]>, version: u32) -> Result<(), Status> {
    let (pointer, size) = value.map_or((std::ptr::null(), 0), |value| (value.as_ptr(), value.len()));
    // SAFETY: pointers and sizes are those of `key` and `value`; the null pointer comes with a size of 0.
    check(unsafe { proxy_set_shared_data(key.as_ptr(), key.len(), pointer, size, version) })
}

pub(crate) fn register_queue(name: &str) -> Result<u32, Status> {
    let mut id = 0;
    // SAFETY: pointer and size are those of `name`; the host writes four bytes to `id`.
    check(unsafe { proxy_register_shared_queue(name.as_ptr(), name.len(), &mut id) })?;
    Ok(id)
}

pub(crate) fn find_queue(vm_id: &str, name: &str) -> Result<u32, Status> {
    hostcalls::resolve_shared_queue(vm_id, name).map_err(numbered)?.ok_or(Status::NOT_FOUND)
}

pub(crate) fn enqueue(id: u32, item: &[u8]) -> Result<(), Status> {
    // SAFETY: pointer and size are those of `item`.
    check(unsafe { proxy_enqueue_shared_queue(id, item.as_ptr(), item.len()) })
}

pub(crate) fn dequeue(id: u32) -> Result<Vec<u8>, Status> {
    // SAFETY: the host writes a pointer and a size to where `bytes` points.
    bytes(|pointer, size| unsafe { proxy_dequeue_shared_queue(id, pointer, size) })
}

/// The token of the call. The crate notes which context it belongs to.
pub(crate) fn http_call(call: HttpCall<'_>) -> Result<u32, Status> {
    let HttpCall { cluster, headers, body, timeout } = call;
    hostcalls::dispatch_http_call(cluster, headers, Some(body), Vec::new(), timeout).map_err(numbered)
}

/// The token of the call. The crate notes which context it belongs to.
pub(crate) fn grpc_call(call: GrpcCall<'_>) -> Result<u32, Status> {
    let GrpcCall { cluster, service, method, metadata, message, timeout } = call;
    hostcalls::dispatch_grpc_call(cluster, service, method, metadata, Some(message), timeout)
        .map_err(numbered)
}

/// The stream's id. The crate notes which context it belongs to.
pub(crate) fn grpc_stream(opening: GrpcOpening<'_>) -> Result<u32, Status> {
    let GrpcOpening { cluster, service, method, metadata } = opening;
    hostcalls::open_grpc_stream(cluster, service, method, metadata).map_err(numbered)
}

/// BAD_ARGUMENT: too much waits to be sent, or our side has ended. NOT_FOUND: there is no such stream any more.
pub(crate) fn grpc_send(id: u32, message: &[u8]) -> Result<(), Status> {
    // SAFETY: pointer and size are those of `message`.
    check(unsafe { proxy_grpc_send(id, message.as_ptr(), message.len(), 0) })
}

/// Our side of a stream ends.
pub(crate) fn grpc_close(id: u32) -> Result<(), Status> {
    // SAFETY: it takes no pointers.
    check(unsafe { proxy_grpc_close(id) })
}

/// Nothing more comes of a call or stream.
pub(crate) fn grpc_cancel(id: u32) -> Result<(), Status> {
    // SAFETY: it takes no pointers.
    check(unsafe { proxy_grpc_cancel(id) })
}

/// The words beside the status with which a gRPC call ended.
pub(crate) fn status_message() -> Result<Vec<u8>, Status> {
    let mut code = 0;
    // SAFETY: the host writes four bytes to `code` and a pointer and a size to where `bytes` points.
    bytes(|pointer, size| unsafe { proxy_get_status(&mut code, pointer, size) })
}

/// Later hostcalls of this callback act for this context.
pub(crate) fn set_effective_context(context: u32) {
    // A context that the host no longer knows is one that nothing can be done for.
    let _ = hostcalls::set_effective_context(context);
}

/// The current context has nothing left to do, for which the host has waited.
pub(crate) fn done() {
    // A host that does not wait any more needs not hear of it.
    let _ = hostcalls::done();
}
