//! The conformance suite: the host's functions and callbacks by the sections of the Proxy-Wasm specification.
//!
//! The guest `conformance` makes the hostcalls that a test's script names and logs each status and each value. Tables of
//! calls are made in every callback of one exchange over real sockets, and each status is compared (`matrix`); what a call
//! brings about, and what callbacks answer, is tested one thing at a time.

mod arguments; // pointers outside of the guest's memory, for every function
mod bodies; // in parts: over HTTP/1.1 with and without their length, over HTTP/2
mod buffers; // bodies, configurations, a call's response
mod clock;
mod contexts; // the effective context, done
mod envoy; // the same tables in Envoy, where it is installed
mod foreign_functions;
mod grpc;
mod headers; // all header maps, trailers too
mod http_calls;
mod initialize; // what may be called while a VM starts
mod isolated; // the same tables with an instance for each exchange
mod languages; // the same scenario in Rust, C++ and AssemblyScript
mod life_cycle; // which callback comes when, with which arguments
mod log;
mod matrix;
mod metrics;
mod page; // the table in the documentation against all of these
mod paths; // of the host's properties
mod properties;
mod reentrancy; // nothing enters a guest that is being run
mod returns; // what a callback answers, and what comes of it
mod script;
mod sequences; // of callbacks, side by side in Envoy
mod shared_data;
mod shared_queues;
mod streams; // resume, close, local responses
mod switches; // a filter's keys for where hosts differ
mod tcp; // the same tables in the callbacks of a TCP connection
mod timers;
mod toolchains; // what compilers import beside the ABI
mod trailers; // added, changed, removed
mod versions; // of the ABI
mod wasi;
mod world;

pub(crate) use self::envoy::{DIFFERENCES, UNTABLED};
pub(crate) use self::languages::{LANGUAGES, module as language};
pub(crate) use self::sequences::KNOWN as SEQUENCES;
