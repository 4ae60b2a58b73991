//! Tests of the host through the ABI: WAT guests against a fake worker and fake exchanges.

mod buffers;
mod calls;
mod foreign;
mod fuzz;
mod grpc;
mod headers;
mod isolation;
mod lifecycle;
mod modules;
mod properties;
mod puppet;
mod safety;
mod shared;
mod streams;
mod tcp;
mod toolchain;
mod traps;
mod wasi;
mod world;
