//! Connections to endpoints for TCP sessions: opened for one session, never pooled.

use std::net::SocketAddr;
use std::rc::Rc;

use tokio::net::TcpStream;

use super::cluster::Cluster;
use super::connect;
use super::endpoint::Endpoint;
use super::error::UpstreamError;
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
        let stream = connect::open(endpoint.address(), cluster.connect_timeout()).await?;
        Ok(TcpConnection { stream, _turn: turn })
    }
}
