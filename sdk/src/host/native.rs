//! The hostcalls where a filter is not compiled for wasm32: they go to the simulated host that a test has entered on its
//! thread. Where there is none, reading finds nothing, and writing succeeds and goes nowhere.

use std::time::Duration;

use super::{
    BufferType, Direction, GrpcCall, GrpcOpening, HttpCall, LocalResponse, LogLevel, MapType, MetricType,
    Status,
};
use crate::testing::world::{World, current};

fn read<T>(call: impl FnOnce(&mut World) -> Result<T, Status>) -> Result<T, Status> {
    current(call).unwrap_or(Err(Status::NOT_FOUND))
}

fn write(call: impl FnOnce(&mut World) -> Result<(), Status>) -> Result<(), Status> {
    current(call).unwrap_or(Ok(()))
}

pub(crate) fn log(_: LogLevel, message: &str) {
    if current(|world| world.log(message)).is_none() {
        use std::io::Write;
        // A test whose standard error is closed still passes.
        let _ = writeln!(std::io::stderr(), "{message}");
    }
}

pub(crate) fn now_nanoseconds() -> u64 {
    current(|world| world.now()).unwrap_or_else(|| {
        let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    })
}

pub(crate) fn set_tick_period(period: Duration) -> Result<(), Status> {
    write(|world| {
        world.set_tick_period(period);
        Ok(())
    })
}

pub(crate) fn buffer(buffer: BufferType, start: usize, max_size: usize) -> Result<Vec<u8>, Status> {
    read(|world| world.buffer(buffer, start, max_size))
}

pub(crate) fn set_buffer(buffer: BufferType, start: usize, size: usize, new: &[u8]) -> Result<(), Status> {
    write(|world| world.set_buffer(buffer, start, size, new))
}

pub(crate) fn pairs(map: MapType) -> Result<Vec<u8>, Status> {
    read(|world| Ok(crate::headers::serialize(world.map(map).map_or(&[][..], Vec::as_slice))))
}

pub(crate) fn header(map: MapType, name: &str) -> Result<Vec<u8>, Status> {
    read(|world| world.header(map, name))
}

pub(crate) fn add_header(map: MapType, name: &str, value: &[u8]) -> Result<(), Status> {
    write(|world| world.add_header(map, name, value))
}

pub(crate) fn set_header(map: MapType, name: &str, value: &[u8]) -> Result<(), Status> {
    write(|world| world.set_header(map, name, value))
}

pub(crate) fn remove_header(map: MapType, name: &str) -> Result<(), Status> {
    write(|world| world.remove_header(map, name))
}

pub(crate) fn property(path: &[u8]) -> Result<Vec<u8>, Status> {
    read(|world| world.property(path))
}

pub(crate) fn set_property(path: &[u8], value: &[u8]) -> Result<(), Status> {
    write(|world| world.set_property(path, value))
}

pub(crate) fn resume(direction: Direction) -> Result<(), Status> {
    write(|world| {
        world.resume(direction);
        Ok(())
    })
}

pub(crate) fn resume_connection(direction: Direction) -> Result<(), Status> {
    resume(direction)
}

pub(crate) fn reset_exchange() -> Result<(), Status> {
    close_connection()
}

pub(crate) fn close_connection() -> Result<(), Status> {
    write(|world| {
        world.close();
        Ok(())
    })
}

pub(crate) fn send_local_response(response: LocalResponse<'_>) -> Result<(), Status> {
    write(|world| world.answer(response))
}

pub(crate) fn call_foreign_function(name: &str, argument: &[u8]) -> Result<Vec<u8>, Status> {
    read(|world| world.foreign_function(name, argument))
}

pub(crate) fn define_metric(kind: MetricType, name: &str) -> Result<u32, Status> {
    current(|world| world.define_metric(kind as u32, name, Vec::new())).unwrap_or(Ok(0))
}

pub(crate) fn record_metric(id: u32, value: u64) -> Result<(), Status> {
    write(|world| world.record_metric(id, value))
}

pub(crate) fn increment_metric(id: u32, offset: i64) -> Result<(), Status> {
    write(|world| world.increment_metric(id, offset))
}

pub(crate) fn shared_data(key: &str) -> Result<(Vec<u8>, u32), Status> {
    read(|world| world.shared_data(key))
}

pub(crate) fn set_shared_data(key: &str, value: Option<&[u8]>, version: u32) -> Result<(), Status> {
    write(|world| world.set_shared_data(key, value, version))
}

pub(crate) fn register_queue(name: &str) -> Result<u32, Status> {
    current(|world| world.register_queue(name)).unwrap_or(Ok(0))
}

pub(crate) fn find_queue(_: &str, name: &str) -> Result<u32, Status> {
    read(|world| world.find_queue(name))
}

pub(crate) fn enqueue(id: u32, item: &[u8]) -> Result<(), Status> {
    write(|world| world.enqueue(id, item))
}

pub(crate) fn dequeue(id: u32) -> Result<Vec<u8>, Status> {
    read(|world| world.dequeue(id))
}

pub(crate) fn http_call(call: HttpCall<'_>) -> Result<u32, Status> {
    current(|world| world.http_call(call)).unwrap_or(Err(Status::BAD_ARGUMENT))
}

pub(crate) fn grpc_call(call: GrpcCall<'_>) -> Result<u32, Status> {
    current(|world| world.grpc_call(call)).unwrap_or(Err(Status::new(4)))
}

pub(crate) fn grpc_stream(opening: GrpcOpening<'_>) -> Result<u32, Status> {
    current(|world| world.grpc_stream(opening)).unwrap_or(Err(Status::new(4)))
}

pub(crate) fn grpc_send(id: u32, message: &[u8]) -> Result<(), Status> {
    read(|world| world.grpc_send(id, message))
}

pub(crate) fn grpc_close(id: u32) -> Result<(), Status> {
    read(|world| world.grpc_close(id))
}

pub(crate) fn grpc_cancel(id: u32) -> Result<(), Status> {
    read(|world| world.grpc_cancel(id))
}

pub(crate) fn status_message() -> Result<Vec<u8>, Status> {
    read(|world| Ok(world.status_message()))
}

pub(crate) fn set_effective_context(context: u32) {
    current(|world| world.set_effective_context(context));
}

pub(crate) fn done() {
    current(|world| world.is_done = true);
}
