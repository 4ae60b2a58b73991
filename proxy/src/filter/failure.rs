//! Why a filter ended an exchange, or the run through the chain.

use std::fmt;
use std::rc::Rc;

use meshgate_wasm::VmError;

use crate::message::BodyError;

/// Why the run through a chain stopped before its end.
#[derive(Debug)]
pub enum Stop {
    /// A filter answered by itself: the response is in the stream's `local_response`.
    Responded,
    /// A filter closed the stream.
    Closed,
    /// A filter failed, and its place in the chain says `on_error: deny`.
    Failed(FilterFailure),
}

/// Why a message's head did not get through its filters, while its body ran through some of them.
#[derive(Debug)]
pub enum Interrupted {
    /// A filter stopped it.
    Stop(Stop),
    /// The body broke.
    Body(BodyError),
    /// There was no more time.
    Expired,
}

impl From<Stop> for Interrupted {
    fn from(stop: Stop) -> Interrupted {
        Interrupted::Stop(stop)
    }
}

/// A filter that failed.
#[derive(Clone, Debug)]
pub struct FilterFailure {
    /// The filter's name in the configuration.
    pub filter: Rc<str>,
    /// What happened.
    pub fault: FilterFault,
}

/// How a filter failed.
#[derive(Clone, Debug)]
pub enum FilterFault {
    /// It trapped, or used more than its limits allow.
    Vm(Rc<VmError>),
    /// It paused the exchange and did not resume it in time.
    PauseTimeout,
    /// It held back more of the request's body than its limit.
    RequestBodyLimit(usize),
    /// It held back more of the response's body than its limit.
    ResponseBodyLimit(usize),
    /// It made the request's head larger than may be sent.
    RequestHeadLimit,
    /// It made the response's head larger than may be sent.
    ResponseHeadLimit,
    /// It held back more of what came on a TCP connection than its limit, or made more of it.
    DataLimit(usize),
    /// It changed the length of a body whose `content-length` was sent already.
    LengthChanged,
    /// It asked for a local response after the response had begun.
    ResponseBegun,
}

impl fmt::Display for FilterFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "filter {}: ", self.filter)?;
        match &self.fault {
            FilterFault::Vm(error) => error.fmt(f),
            FilterFault::PauseTimeout => f.write_str("paused the exchange and did not resume it in time"),
            FilterFault::RequestBodyLimit(limit) => {
                write!(f, "held back more than {limit} bytes of the request's body (limits.body)")
            }
            FilterFault::ResponseBodyLimit(limit) => {
                write!(f, "held back more than {limit} bytes of the response's body (limits.body)")
            }
            FilterFault::RequestHeadLimit => {
                f.write_str("made the request's head larger than twice what the listener accepts")
            }
            FilterFault::ResponseHeadLimit => {
                f.write_str("made the response's head larger than twice what the listener accepts of a request")
            }
            FilterFault::DataLimit(limit) => {
                write!(f, "held back or wrote more than {limit} bytes of a TCP connection's data (limits.body)")
            }
            FilterFault::LengthChanged => f.write_str(
                "changed a body's length after content-length was sent; remove content-length in the headers callback",
            ),
            FilterFault::ResponseBegun => {
                f.write_str("asked for a local response after the response had begun")
            }
        }
    }
}

/// What failed, in one word. All limits of a callback have the same: the log and the metrics say which.
pub fn vm_details(error: &VmError) -> &'static str {
    match error.cause() {
        "deadline" | "limit" => "wasm_limit",
        "quarantined" => "wasm_quarantined",
        "overload" => "wasm_overload",
        "cpu" => "wasm_cpu",
        _ => "wasm_trap",
    }
}
