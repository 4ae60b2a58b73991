//! What can go wrong on the way to an endpoint, and whether it is safe to try again.

use std::fmt;

use meshgate_config::Address;

use crate::message::BodyError;

/// A request that got no response head.
#[derive(Clone, Debug)]
pub struct UpstreamError {
    /// What happened.
    pub kind: UpstreamErrorKind,
    /// The endpoint it happened with, once one was chosen.
    pub endpoint: Option<Address>,
    /// The cause in words, for the log; never shown to a client.
    pub details: Box<str>,
}

/// What happened to a request that got no response head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamErrorKind {
    /// The cluster has no endpoint to offer.
    NoEndpoint,
    /// The endpoint refused the connection or cannot be reached.
    ConnectFailed,
    /// The connection was not there in time.
    ConnectTimeout,
    /// The connection ended before anything of the request was written to it.
    Unsent,
    /// The endpoint was reached, and TLS with it came to nothing: one side did not accept the other.
    TlsFailed,
    /// One of the cluster's limits is met: too many requests are active, or wait for a connection, or this one has waited
    /// too long.
    Overflow,
    /// The endpoint says that it has not begun with the request (HTTP/2's REFUSED_STREAM, or GOAWAY): any request may be
    /// sent again as if it had not been sent.
    Refused,
    /// The endpoint reset the request's stream, with this code of HTTP/2.
    StreamReset {
        /// The code.
        code: u32,
    },
    /// The connection ended before a response head.
    Reset {
        /// The connection had served a request before: an endpoint that closes an idle connection looks like this,
        /// so an idempotent request without a body is worth a second try at once.
        reused: bool,
    },
    /// The request offers another protocol, and the endpoint has not said that its HTTP/2 streams may change it.
    NoUpgrades,
    /// The endpoint's answer is not HTTP, or exceeds the limits.
    Protocol,
    /// The request's own body broke; the endpoint is not to blame.
    RequestBody(BodyError),
}

impl UpstreamError {
    pub(crate) fn new(
        kind: UpstreamErrorKind,
        endpoint: Option<Address>,
        details: impl Into<Box<str>>,
    ) -> UpstreamError {
        UpstreamError { kind, endpoint, details: details.into() }
    }

    /// Nothing of the request left this process: any request may be tried again.
    pub fn nothing_sent(&self) -> bool {
        matches!(
            self.kind,
            UpstreamErrorKind::NoEndpoint
                | UpstreamErrorKind::Overflow
                | UpstreamErrorKind::ConnectFailed
                | UpstreamErrorKind::ConnectTimeout
                | UpstreamErrorKind::Unsent
                | UpstreamErrorKind::TlsFailed
                | UpstreamErrorKind::NoUpgrades
        )
    }
}

impl fmt::Display for UpstreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match &self.kind {
            UpstreamErrorKind::NoEndpoint => "no endpoint",
            UpstreamErrorKind::ConnectFailed => "connection failed",
            UpstreamErrorKind::ConnectTimeout => "connection timed out",
            UpstreamErrorKind::Unsent => "connection ended before the request",
            UpstreamErrorKind::TlsFailed => "TLS failed",
            UpstreamErrorKind::Overflow => "the cluster is at its limits",
            UpstreamErrorKind::Refused => "request refused before it was begun",
            UpstreamErrorKind::StreamReset { .. } => "stream reset before a response",
            UpstreamErrorKind::Reset { reused: false } => "connection ended before a response",
            UpstreamErrorKind::Reset { reused: true } => "reused connection ended before a response",
            UpstreamErrorKind::NoUpgrades => "its streams do not change their protocol",
            UpstreamErrorKind::Protocol => "response is not valid HTTP",
            UpstreamErrorKind::RequestBody(_) => "request body broke",
        };
        match self.endpoint {
            Some(endpoint) => write!(f, "{endpoint}: {what}")?,
            None => f.write_str(what)?,
        }
        if !self.details.is_empty() {
            write!(f, ": {}", self.details)?;
        }
        Ok(())
    }
}

impl std::error::Error for UpstreamError {}
