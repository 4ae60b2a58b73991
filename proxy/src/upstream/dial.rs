//! Opening a connection to an endpoint, with or without TLS.

use std::fmt;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use meshgate_config::Address;
use meshgate_wasm::{Address as Seen, Tls};
use tokio::io::AsyncWriteExt as _;

use super::error::{UpstreamError, UpstreamErrorKind};
use crate::socket::Socket;
use crate::tls::{ClientTls, Speak, Transport};

/// How a cluster's endpoints are connected to.
#[derive(Clone)]
pub(super) struct Dialer {
    timeout: Duration,
    tls: Option<Arc<ClientTls>>,
}

/// An open connection.
pub(super) struct Opened {
    pub(super) transport: Transport,
    /// Our side of it.
    pub(super) local_address: Option<Seen>,
    /// What the TLS handshake settled, if there was one.
    pub(super) tls: Option<Rc<Tls>>,
}

impl Dialer {
    /// `timeout` counts for the connection and the handshake together.
    pub(super) fn new(timeout: Duration, tls: Option<Arc<ClientTls>>) -> Dialer {
        Dialer { timeout, tls }
    }

    /// How long it may take.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Whether endpoints are spoken to through TLS.
    pub(super) fn is_secure(&self) -> bool {
        self.tls.is_some()
    }

    /// Whether the other one does the same with the same certificates.
    pub(super) fn has_same_tls(&self, tls: Option<&Arc<ClientTls>>) -> bool {
        match (&self.tls, tls) {
            (Some(own), Some(other)) => Arc::ptr_eq(own, other),
            (own, other) => own.is_none() && other.is_none(),
        }
    }

    /// Opens a connection, and says `greeting` on it before anything else.
    pub(super) async fn open(
        &self,
        endpoint: Address,
        speak: Speak,
        greeting: Option<&[u8]>,
    ) -> Result<Opened, UpstreamError> {
        match tokio::time::timeout(self.timeout, self.dial(endpoint, speak, greeting)).await {
            Ok(opened) => opened,
            Err(_) => {
                let details = format!("no answer within {:?}", self.timeout);
                Err(failed(endpoint, UpstreamErrorKind::ConnectTimeout, details))
            }
        }
    }

    async fn dial(
        &self,
        endpoint: Address,
        speak: Speak,
        greeting: Option<&[u8]>,
    ) -> Result<Opened, UpstreamError> {
        let refused = |error: io::Error| failed(endpoint, connect_kind(&error), error.to_string());
        let mut socket = Socket::connect(endpoint).await.map_err(refused)?;
        let local_address = socket.local_address();
        if let Some(greeting) = greeting {
            socket.write_all(greeting).await.map_err(refused)?;
        }
        let Some(tls) = &self.tls else {
            return Ok(Opened { transport: Transport::from(socket), local_address, tls: None });
        };
        // Boxed: few requests open a connection, and all would carry the room for it.
        match Box::pin(tls.connect(socket, endpoint, speak)).await {
            Ok((transport, settled)) => Ok(Opened { transport, local_address, tls: Some(Rc::new(settled)) }),
            Err(failure) => Err(failed(endpoint, UpstreamErrorKind::TlsFailed, failure.details)),
        }
    }
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer").field("timeout", &self.timeout).field("tls", &self.tls.is_some()).finish()
    }
}

fn failed(endpoint: Address, kind: UpstreamErrorKind, details: String) -> UpstreamError {
    UpstreamError::new(kind, Some(endpoint), details)
}

fn connect_kind(error: &io::Error) -> UpstreamErrorKind {
    match error.kind() {
        io::ErrorKind::TimedOut => UpstreamErrorKind::ConnectTimeout,
        _ => UpstreamErrorKind::ConnectFailed,
    }
}
