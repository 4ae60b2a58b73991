//! The harness of Meshgate's end-to-end tests: a real `meshgate` process, scriptable upstreams, counting clients.
//!
//! The tests in `tests/e2e` use it so that a set-up is one sentence:
//! `Meshgate::chain("- telemetry: {}").cluster("one", &[&backend]).start().await`. Everything here fails a test by
//! panicking with what was expected, and every wait has a deadline; nothing sleeps to let something happen.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a harness fails its test by panicking, with a message that says what was expected"
)]

mod admin;
mod ask;
mod backend;
mod black_hole;
mod client;
mod command;
mod deadline;
mod dns;
mod envoy;
mod frames;
mod grpc;
mod hand_written;
mod hostile_guests;
mod imports;
mod jwt;
mod lines;
mod load;
mod meshgate;
mod modules;
mod otlp;
mod prometheus;
mod rate_limits;
mod readme;
mod setup;
mod socket;
mod statistics;
mod tls;
mod unix;
mod websocket;
mod wire;
mod work;

pub use admin::{Metrics, Reload};
pub use ask::{Ask, Body, BodySender, Unread, empty, full, streamed};
pub use backend::{Answer, Backend, Seen};
pub use black_hole::BlackHole;
pub use client::{Begun, Client, Reply};
pub use command::{Finished, binary, repository, run};
pub use deadline::{DEADLINE, until, within};
pub use dns::{DnsServer, Trouble};
pub use envoy::{Envoy, EnvoySetup, Facts};
pub use frames::{END, END_HEADERS, Frame, Frames, PREFACE, fields, frame, kind};
pub use grpc::{GrpcCall, GrpcCalls, Messages, framed, grpc_backend, messages};
pub use hand_written::{Misdeed, STREAM_CALLBACKS, hostile, stamp, written};
pub use hostile_guests::{HostileGuest, KEYS};
pub use imports::without_imports;
pub use jwt::{SigningKey, key_set, seconds_from_now};
pub use lines::Lines;
pub use load::{Load, Tally, Timed, Unanswered};
pub use meshgate::{Meshgate, Stopped};
pub use modules::{example, filter, foreign_example, foreign_guest, guest, with_custom_section};
pub use otlp::{LogRecord, OtlpReceiver, Span};
pub use prometheus::Prometheus;
pub use rate_limits::RateLimits;
pub use readme::{Shown, shown_commands};
pub use setup::Setup;
pub use socket::{Ended, Socket, SocketBackend};
pub use statistics::within_binomial_bounds;
pub use tls::{Authority, Issued, Met, Says, Secured, TlsClient, TlsFront, TlsFrontSetup};
pub use unix::UnixFront;
pub use websocket::{Message, WebSocket, WebSocketBackend};
pub use wire::{Chunked, RawBackend, RawReply, Wire};
pub use work::{busy, counting, waiting};
