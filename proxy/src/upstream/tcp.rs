//! Connections to endpoints for TCP sessions: opened for one session, never pooled.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use tokio::net::TcpStream;

use super::cluster::Cluster;
use super::connect;
use super::endpoint::Endpoint;
use super::error::UpstreamError;
use super::outlier::Outcome;
use super::send::{Turn, Upstream};

/// An open connection to an endpoint, counted there for as long as it lasts.
pub struct TcpConnection {
    stream: TcpStream,
    _turn: Turn,
}

impl TcpConnection {
    /// The socket.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Our side of it.
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.stream.local_addr().ok()
    }
}

impl Upstream {
    /// Opens a connection to an endpoint that [`Upstream::pick`] chose, within the cluster's connect timeout.
    ///
    /// # Errors
    /// It cannot be reached, or not in time.
    pub async fn connect(
        &self,
        cluster: &Cluster,
        endpoint: &Rc<Endpoint>,
    ) -> Result<TcpConnection, UpstreamError> {
        let turn = Turn::new(endpoint);
        let began = Instant::now();
        let opened = connect::open(endpoint.address(), cluster.connect_timeout()).await;
        let outcome = if opened.is_ok() { Outcome::Success } else { Outcome::NoAnswer };
        cluster.report(endpoint, outcome, began.elapsed());
        Ok(TcpConnection { stream: opened?, _turn: turn })
    }
}
