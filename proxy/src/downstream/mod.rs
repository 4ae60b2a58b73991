//! The clients' side: sockets that accept, connections that speak HTTP/1.1 and HTTP/2 on one port, and their end; and
//! connections that are handed over as they are, for TCP.
//!
//! It knows nothing of what a request means, nor a connection's bytes: whoever runs a listener implements `Serve`. Everything here runs on one
//! worker.

mod accept;
mod addresses;
mod connection;
mod handshake;
mod hello;
mod io;
mod listener;
mod listeners;
mod preface;
mod proxied;
mod slots;
mod stats;

#[cfg(test)]
mod tests;

use std::error::Error;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use meshgate_config::ProxyProtocol;

use crate::message::{Body, Peer};
use crate::tls::{ServerTls, Transport};

pub use accept::{Bound, SocketFile, bind, bind_unix};
pub use addresses::ByAddress;
pub use listener::Acceptor;
pub use listeners::Listeners;
pub use stats::ListenerStats;

/// What a listener's requests are given to.
pub trait Serve: 'static {
    /// Why a request gets no response at all.
    type Error: Into<Box<dyn Error + Send + Sync>>;

    /// The limits for a connection that opens now.
    fn limits(&self) -> ConnectionLimits;

    /// What clients shake hands with on a connection that opens now; none in cleartext.
    fn tls(&self) -> Option<Arc<ServerTls>> {
        None
    }

    /// Who says for whom it connects, on a connection that opens now; none if nobody.
    fn proxy_protocol(&self) -> Option<&ProxyProtocol> {
        None
    }

    /// Over how long connections are told to leave when the listener drains, or when those that are open do not have its
    /// terms any more.
    fn drain_spread(&self) -> Duration {
        Duration::ZERO
    }

    /// Whether connections that were opened for `old` could have been opened for this one: requests on them may go on.
    fn has_the_terms_of(&self, old: &Self) -> bool {
        let _ = old;
        true
    }

    /// Serves one request. An error closes the connection (HTTP/1.1) or resets the stream (HTTP/2). The future is dropped
    /// when the client goes away.
    fn serve(
        self: Rc<Self>,
        peer: Rc<Peer>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<Body>, Self::Error>>;

    /// Whether a connection that opens now is handed over as it is, to [`Serve::carry`], instead of speaking HTTP.
    fn is_tcp(&self) -> bool {
        false
    }

    /// Who serves a connection that opens now and does not speak HTTP, as [`Serve::carry`] does, and for how long a client may say
    /// nothing until it is taken for one of these; none if there is nobody.
    fn opaque(&self) -> Option<(Rc<Self>, Duration)> {
        None
    }

    /// Most bytes that a client may need to say which server it wants, if its TLS is passed through: a connection that opens
    /// now is handed over when it has said that.
    fn passthrough(&self) -> Option<usize> {
        None
    }

    /// Serves a whole connection, of which `ahead` has been read. What it gives back is closed slowly enough for the client to
    /// read what was written.
    fn carry(
        self: Rc<Self>,
        peer: Rc<Peer>,
        client: Transport,
        ahead: Bytes,
    ) -> impl Future<Output = Option<Transport>> {
        drop((peer, client, ahead));
        std::future::ready(None)
    }
}

/// How long and how much a client's connection may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// From the first byte of a request's head to its last; on a new connection from its opening.
    pub header_timeout: Duration,
    /// How long a connection may wait for its next request.
    pub idle_timeout: Duration,
    /// Most fields of a request's head.
    pub max_headers: usize,
    /// Most bytes of a request's head.
    pub max_header_bytes: usize,
    /// Most connections at a time on this listener, over all workers; more are closed as they come.
    pub max_connections: usize,
    /// Most connections at a time of one client address on this listener, over all workers; none: as many as it likes.
    pub max_connections_per_address: Option<usize>,
    /// How long a client may take none of the bytes that wait for it.
    pub write_timeout: Duration,
    /// From accept to the end of the TLS handshake, or of its first message if that is passed through; none in cleartext.
    pub handshake_timeout: Option<Duration>,
    /// Most handshakes at a time on this listener and worker; with one more, the oldest is given up.
    pub max_handshakes: usize,
    /// HTTP/2: most requests at a time on a connection.
    pub max_streams: u32,
    /// HTTP/2: most frames in a row that carry nothing.
    pub max_control_frames: u32,
    /// HTTP/2: clients are told that a stream may go on in another protocol.
    pub may_upgrade: bool,
}

impl Default for ConnectionLimits {
    fn default() -> ConnectionLimits {
        ConnectionLimits {
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            max_headers: 100,
            max_header_bytes: 64 * 1024,
            max_connections: 20_000,
            max_connections_per_address: None,
            write_timeout: Duration::from_secs(60),
            handshake_timeout: None,
            max_handshakes: 1000,
            max_streams: 100,
            max_control_frames: 1000,
            may_upgrade: false,
        }
    }
}

impl From<&meshgate_config::Listener> for ConnectionLimits {
    fn from(listener: &meshgate_config::Listener) -> ConnectionLimits {
        let tls = listener.tls.as_ref().map(|tls| (tls.handshake_timeout, tls.max_handshakes));
        let passthrough = listener.tls_passthrough.as_ref();
        let handshakes = tls.or_else(|| passthrough.map(|tls| (tls.timeout, tls.max_waiting)));
        ConnectionLimits {
            header_timeout: listener.header_timeout,
            idle_timeout: listener.idle_timeout,
            max_headers: listener.max_headers,
            max_header_bytes: listener.max_header_bytes,
            max_connections: listener.max_connections,
            max_connections_per_address: listener.max_connections_per_address,
            write_timeout: listener.write_timeout,
            handshake_timeout: handshakes.map(|(timeout, _)| timeout),
            max_handshakes: handshakes.map_or(0, |(_, most)| most),
            max_streams: listener.max_streams,
            max_control_frames: listener.max_control_frames,
            may_upgrade: !listener.upgrades.is_empty(),
        }
    }
}
