//! An exchange at its end, or a TCP connection, as metrics, spans and lines see it: what several of them ask for is asked of the
//! host once.

use std::cell::OnceCell;
use std::time::{Duration, SystemTime};

use meshgate_sdk::{Connection, Exchange, Refused, property};

use crate::Telemetry;
use crate::failures::Failures;
use crate::trace::Trace;

/// Flags of responses that were broken off, whatever their status: LR, UR, UC, UT, WT, WL.
const BROKEN_OFF: u64 = 0x8 | 0x10 | 0x40 | 0x4 | 1 << 40 | 1 << 41;
/// DC: the client went away.
const CLIENT_GONE: u64 = 0x4000;

/// Where a listener's traffic goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Neither to nor from an application beside the proxy: a gateway.
    Gateway,
    /// To the application.
    Inbound,
    /// From the application.
    Outbound,
}

impl Direction {
    /// The current exchange's.
    pub(crate) fn current() -> Self {
        match property::integer("xds/listener_direction") {
            Some(1) => Self::Inbound,
            Some(2) => Self::Outbound,
            _ => Self::Gateway,
        }
    }
}

/// What is looked at.
#[derive(Clone, Copy)]
enum Subject<'a> {
    /// It is over.
    Exchange(&'a Exchange<Telemetry>),
    /// It may go on.
    Connection(&'a Connection<Telemetry>),
}

/// The exchange that is over, or the connection.
pub(crate) struct Seen<'a> {
    subject: Subject<'a>,
    failures: &'a Failures,
    code: OnceCell<u16>,
    flags: OnceCell<u64>,
    grpc_status: OnceCell<Option<u32>>,
    is_grpc: OnceCell<bool>,
    direction: OnceCell<Direction>,
    duration: OnceCell<Option<Duration>>,
}

impl<'a> Seen<'a> {
    pub(crate) fn new(exchange: &'a Exchange<Telemetry>, failures: &'a Failures) -> Self {
        Self::of(Subject::Exchange(exchange), failures)
    }

    pub(crate) fn connection(connection: &'a Connection<Telemetry>, failures: &'a Failures) -> Self {
        Self::of(Subject::Connection(connection), failures)
    }

    fn of(subject: Subject<'a>, failures: &'a Failures) -> Self {
        Self {
            subject,
            failures,
            code: OnceCell::new(),
            flags: OnceCell::new(),
            grpc_status: OnceCell::new(),
            is_grpc: OnceCell::new(),
            direction: OnceCell::new(),
            duration: OnceCell::new(),
        }
    }

    /// The exchange; none of a TCP connection.
    pub(crate) fn exchange(&self) -> Option<&'a Exchange<Telemetry>> {
        match self.subject {
            Subject::Exchange(exchange) => Some(exchange),
            Subject::Connection(_) => None,
        }
    }

    /// Says how its entry in the access log reads.
    ///
    /// # Errors
    /// It is too long.
    pub(crate) fn log_line(&self, line: &[u8]) -> Result<(), Refused> {
        match self.subject {
            Subject::Exchange(exchange) => exchange.log_line(line),
            Subject::Connection(connection) => connection.log_line(line),
        }
    }

    /// When it began.
    pub(crate) fn started(&self) -> Option<SystemTime> {
        property::time("request/time")
    }

    /// Whether the client showed a certificate.
    pub(crate) fn is_mtls(&self) -> bool {
        property::boolean("connection/mtls").unwrap_or(false)
    }

    /// The status that the client got; 0, as in access logs: it went away before there was one, or there are none.
    pub(crate) fn code(&self) -> u16 {
        *self.code.get_or_init(|| self.exchange().and_then(Exchange::response_code).unwrap_or(0))
    }

    /// The response flags, as bits.
    pub(crate) fn flags(&self) -> u64 {
        *self.flags.get_or_init(|| property::integer("response/flags").map_or(0, i64::cast_unsigned))
    }

    /// Whether the request is one of gRPC.
    pub(crate) fn is_grpc(&self) -> bool {
        *self.is_grpc.get_or_init(|| self.exchange().is_some_and(is_grpc))
    }

    /// The status of a gRPC call.
    pub(crate) fn grpc_status(&self) -> Option<u32> {
        *self.grpc_status.get_or_init(|| {
            if !self.is_grpc() {
                return None;
            }
            u32::try_from(property::integer("response/grpc_status")?).ok()
        })
    }

    /// Where the listener's traffic goes.
    pub(crate) fn direction(&self) -> Direction {
        *self.direction.get_or_init(Direction::current)
    }

    /// Whether it counts as a failure.
    pub(crate) fn failed(&self) -> bool {
        let code = self.code();
        if self.flags() & BROKEN_OFF != 0 {
            return true;
        }
        match self.grpc_status() {
            Some(status) => self.failures.has_grpc(status),
            None if code == 0 => self.flags() & CLIENT_GONE == 0,
            None => self.failures.has(code),
        }
    }

    /// How long it took.
    pub(crate) fn duration(&self) -> Option<Duration> {
        *self.duration.get_or_init(|| property::duration("request/duration"))
    }

    /// Bytes of the request's body, or that came from the client of a connection. The host takes the announced length for the size, if there is one, and not all of it
    /// need have come.
    pub(crate) fn received(&self) -> Option<u64> {
        let (total, head) = (size("request/total_size"), size("request/headers_bytes"));
        match total.zip(head) {
            Some((total, head)) => Some(total.saturating_sub(head)),
            None => size("request/size"),
        }
    }

    /// Bytes of the response's body, or that went to the client of a connection.
    pub(crate) fn sent(&self) -> Option<u64> {
        size("response/size")
    }

    /// gRPC's messages of the request and of the response, if they were counted.
    pub(crate) fn messages(&self) -> Option<(u64, u64)> {
        let kept = &self.exchange()?.state;
        self.is_grpc().then(|| (kept.request_messages.get(), kept.response_messages.get()))
    }

    /// When the response's head was there, if that was asked for.
    pub(crate) fn response_at(&self) -> Option<SystemTime> {
        self.exchange()?.state.response_at.get()
    }

    /// From the request to the response's head.
    pub(crate) fn to_response(&self) -> Option<Duration> {
        self.response_at()?.duration_since(self.started()?).ok()
    }

    /// The trace that it belongs to.
    pub(crate) fn trace(&self) -> Option<&Trace> {
        self.exchange()?.state.trace.get()
    }
}

/// Whether the request is one of gRPC.
pub(crate) fn is_grpc(exchange: &Exchange<Telemetry>) -> bool {
    let kind = exchange.request().headers().get_bytes("content-type");
    kind.is_some_and(|kind| {
        kind.starts_with(b"application/grpc") && !kind.starts_with(b"application/grpc-web")
    })
}

fn size(path: &str) -> Option<u64> {
    property::integer(path).and_then(|number| u64::try_from(number).ok())
}
