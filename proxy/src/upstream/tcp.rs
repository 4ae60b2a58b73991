//! Connections to endpoints for TCP sessions: opened for one session, never pooled.

use std::rc::Rc;
use std::time::Instant;

use meshgate_wasm::{Address as Seen, Tls};

use super::cluster::Cluster;
use super::dial::Opened;
use super::endpoint::Endpoint;
use super::error::{UpstreamError, UpstreamErrorKind};
use super::limits::ConnectionSlot;
use super::outlier::Outcome;
use super::send::{Turn, Upstream};
use crate::message::proxy_protocol::Addresses;
use crate::tls::{Speak, Transport};

/// An open connection to an endpoint, counted there for as long as it lasts.
pub struct TcpConnection {
    transport: Transport,
    local_address: Option<Seen>,
    tls: Option<Rc<Tls>>,
    _slot: ConnectionSlot,
    _turn: Turn,
}

impl TcpConnection {
    /// What bytes go over.
    pub fn transport(&mut self) -> &mut Transport {
        &mut self.transport
    }

    /// Our side of it.
    pub fn local_address(&self) -> Option<Seen> {
        self.local_address
    }

    /// What its TLS handshake settled.
    pub fn tls(&self) -> Option<&Rc<Tls>> {
        self.tls.as_ref()
    }
}

impl Upstream {
    /// Opens a connection to an endpoint that [`Upstream::pick`] chose, within the cluster's connect timeout, for this client.
    ///
    /// # Errors
    /// It cannot be reached, or not in time; or the cluster has as many connections as it may have: a session cannot wait
    /// for another one's, which may last for days.
    pub async fn connect(
        &self,
        cluster: &Cluster,
        endpoint: &Rc<Endpoint>,
        client: Option<Addresses>,
    ) -> Result<TcpConnection, UpstreamError> {
        let turn = Turn::new(endpoint);
        let slot = endpoint.limits().connection().ok_or_else(|| {
            UpstreamError::new(UpstreamErrorKind::Overflow, Some(endpoint.address()), "too many connections")
        })?;
        let began = Instant::now();
        let greeting = cluster.greeting(client);
        let opened = endpoint.dialer().open(endpoint.address(), Speak::Bytes, greeting.as_deref()).await;
        let outcome = if opened.is_ok() { Outcome::Success } else { Outcome::NoAnswer };
        cluster.report(endpoint, outcome, began.elapsed());
        let Opened { transport, local_address, tls } = opened?;
        Ok(TcpConnection { transport, local_address, tls, _slot: slot, _turn: turn })
    }
}
