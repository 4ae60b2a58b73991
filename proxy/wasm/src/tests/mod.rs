//! Tests of the host through the ABI: WAT guests against a fake worker and fake exchanges.

mod buffers;
mod calls;
mod foreign;
mod headers;
mod lifecycle;
mod modules;
mod properties;
mod puppet;
mod random;
mod shared;
mod streams;
mod toolchain;
mod traps;
mod wasi;
mod world;
