//! The hostcalls, as safe functions: every status becomes a `Result`, and nothing panics. Used by every other file of the
//! SDK.
//!
//! In a module they are imports of the Proxy-Wasm ABI (`wasm.rs`). Natively they go to the simulated host that a test has
//! started on its thread (`native.rs`, `testing`), and find nothing where there is none.

use std::fmt;

#[cfg(not(target_arch = "wasm32"))]
mod native;
#[cfg(target_arch = "wasm32")]
mod wasm;

#[cfg(not(target_arch = "wasm32"))]
pub(crate) use native::*;
#[cfg(target_arch = "wasm32")]
pub use wasm::allocate;
#[cfg(target_arch = "wasm32")]
pub(crate) use wasm::*;

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
    GrpcMessage = 5,
    PluginConfiguration = 7,
    ForeignFunction = 8,
}

/// Which way of an exchange is meant. The numbers are the ABI's stream types.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum Direction {
    Request = 0,
    Response = 1,
}

impl Direction {
    pub(crate) const fn body(self) -> Buffer {
        match self {
            Self::Request => Buffer::RequestBody,
            Self::Response => Buffer::ResponseBody,
        }
    }
}

/// An HTTP request of a filter's own, in the ABI's form.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HttpCall<'a> {
    pub(crate) cluster: &'a str,
    /// Serialized pairs.
    pub(crate) headers: &'a [u8],
    pub(crate) body: &'a [u8],
    /// 0 means "no limit".
    pub(crate) timeout_ms: u32,
}

/// A unary gRPC call, in the ABI's form.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GrpcCall<'a> {
    pub(crate) cluster: &'a str,
    pub(crate) service: &'a str,
    pub(crate) method: &'a str,
    /// Serialized pairs.
    pub(crate) metadata: &'a [u8],
    pub(crate) message: &'a [u8],
    pub(crate) timeout_ms: u32,
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

/// What a callback returns so that the exchange goes on.
pub(crate) const CONTINUE: u32 = 0;
/// What a callback returns so that the exchange waits. Of a body: what has arrived stays in the buffer.
pub(crate) const PAUSE: u32 = 1;
