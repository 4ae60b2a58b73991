//! The clients' side: sockets that accept, connections that speak HTTP/1.1 and HTTP/2 on one port, and their end; and
//! connections that are handed over as they are, for TCP.
//!
//! It knows nothing of what a request means, nor a connection's bytes: whoever runs a listener implements `Serve`. Everything here runs on one
//! worker.

mod connection;
mod io;
mod listener;
mod listeners;
mod preface;
mod slots;
mod stats;

#[cfg(test)]
mod tests;

use std::error::Error;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::net::TcpStream;

use crate::message::{Body, Peer};

pub use listener::{Acceptor, bind};
pub use listeners::Listeners;
pub use stats::ListenerStats;

/// What a listener's requests are given to.
pub trait Serve: 'static {
    /// Why a request gets no response at all.
    type Error: Into<Box<dyn Error + Send + Sync>>;

    /// The limits for a connection that opens now.
    fn limits(&self) -> ConnectionLimits;

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

    /// Serves a whole connection. What it gives back is closed slowly enough for the client to read what was written.
    fn carry(self: Rc<Self>, peer: Rc<Peer>, client: TcpStream) -> impl Future<Output = Option<TcpStream>> {
        drop((peer, client));
        std::future::ready(None)
    }
}

/// How long and how much a client's connection may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// From the first byte of a request's head to its last; on a new connection from its opening.
    pub header_timeout: Duration,
    /// How long a connection may wait for its next request, and a response for its reader.
    pub idle_timeout: Duration,
    /// Most fields of a request's head.
    pub max_headers: usize,
    /// Most bytes of a request's head.
    pub max_header_bytes: usize,
    /// Most connections at a time on this listener and worker; more are closed as they come.
    pub max_connections: usize,
}

impl Default for ConnectionLimits {
    fn default() -> ConnectionLimits {
        ConnectionLimits {
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            max_headers: 100,
            max_header_bytes: 64 * 1024,
            max_connections: 20_000,
        }
    }
}

impl From<&meshgate_config::Listener> for ConnectionLimits {
    fn from(listener: &meshgate_config::Listener) -> ConnectionLimits {
        ConnectionLimits {
            header_timeout: listener.header_timeout,
            idle_timeout: listener.idle_timeout,
            max_headers: listener.max_headers,
            max_header_bytes: listener.max_header_bytes,
            max_connections: listener.max_connections,
        }
    }
}
