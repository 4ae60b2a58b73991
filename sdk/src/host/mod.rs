//! The hostcalls, as safe functions: every status becomes a `Result`, and nothing panics. Used by every other file of the
//! SDK.
//!
//! In a module they are those of the `proxy-wasm` crate, with a few imports of our own beside it (`wasm.rs`), and the types
//! are the crate's. Natively they go to the simulated host that a test has started on its thread (`native.rs`, `testing`),
//! and find nothing where there is none.

use std::fmt;
use std::time::Duration;

#[cfg(not(target_arch = "wasm32"))]
mod native;
#[cfg(not(target_arch = "wasm32"))]
mod types;
#[cfg(target_arch = "wasm32")]
mod wasm;

#[cfg(target_arch = "wasm32")]
pub(crate) use proxy_wasm::types::{Action, BufferType, LogLevel, MapType, MetricType};

#[cfg(not(target_arch = "wasm32"))]
pub(crate) use self::native::*;
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use self::types::{Action, BufferType, LogLevel, MapType, MetricType};
#[cfg(target_arch = "wasm32")]
pub(crate) use self::wasm::*;

/// What a host answered instead of OK.
///
/// ```
/// use meshgate_sdk::Status;
///
/// assert_eq!(Status::NOT_FOUND.number(), 1);
/// assert_eq!(Status::new(10).to_string(), "internal failure");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status(u32);

impl Status {
    /// There is no such thing.
    pub const NOT_FOUND: Self = Self(1);
    /// The host does not accept the arguments.
    pub const BAD_ARGUMENT: Self = Self(2);
    /// There is nothing in it.
    pub const EMPTY: Self = Self(7);
    /// Somebody else changed it meanwhile.
    pub const CHANGED: Self = Self(8);
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

/// Which way of an exchange is meant: from the client, or from the endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Direction {
    Request = 0,
    Response = 1,
}

/// An HTTP request of a filter's own.
#[derive(Clone, Debug)]
pub(crate) struct HttpCall<'a> {
    pub(crate) cluster: &'a str,
    /// Pseudo-headers first.
    pub(crate) headers: Vec<(&'a str, &'a str)>,
    pub(crate) body: &'a [u8],
    /// At least a millisecond: none at all means "no limit" to hosts.
    pub(crate) timeout: Duration,
}

/// A unary gRPC call.
#[derive(Clone, Debug)]
pub(crate) struct GrpcCall<'a> {
    pub(crate) cluster: &'a str,
    pub(crate) service: &'a str,
    pub(crate) method: &'a str,
    pub(crate) metadata: Vec<(&'a str, &'a [u8])>,
    pub(crate) message: &'a [u8],
    /// As an HTTP call's.
    pub(crate) timeout: Duration,
}

/// A gRPC stream.
#[derive(Clone, Debug)]
pub(crate) struct GrpcOpening<'a> {
    pub(crate) cluster: &'a str,
    pub(crate) service: &'a str,
    pub(crate) method: &'a str,
    pub(crate) metadata: Vec<(&'a str, &'a [u8])>,
}

/// A local response, in the ABI's form.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalResponse<'a> {
    pub(crate) status: u16,
    pub(crate) details: &'a str,
    pub(crate) body: &'a [u8],
    /// Serialized pairs.
    pub(crate) headers: &'a [u8],
    /// -1 for none.
    pub(crate) grpc_status: i32,
}
