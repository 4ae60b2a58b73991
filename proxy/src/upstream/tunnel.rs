//! A connection to an endpoint, or a stream of HTTP/2, that has changed its protocol: HTTP is over on it. A connection never goes
//! back to the pool.

use bytes::Bytes;
use http::Response;

use super::connect::{Io, Socket};
use super::error::{UpstreamError, UpstreamErrorKind};
use super::send::{Lease, UpstreamBody};
use crate::message::Duplex;

impl Duplex for Socket {
    fn break_off(&self) {
        self.stream().socket().break_off();
    }
}

/// The endpoint's side of a tunnel.
pub struct UpstreamTunnel {
    /// Its bytes.
    pub stream: Box<dyn Duplex>,
    /// What it sent right after its head.
    pub ahead: Bytes,
    /// What it holds of the endpoint: the exchange counts there for as long as this lasts.
    pub lease: Option<Lease>,
}

impl UpstreamTunnel {
    /// What follows a response with the status 101.
    ///
    /// # Errors
    /// The connection ended right after the head.
    pub async fn after(response: &mut Response<UpstreamBody>) -> Result<UpstreamTunnel, UpstreamError> {
        let endpoint = response.body().endpoint();
        let lease = response.body_mut().take_lease();
        if let Some(stream) = response.body_mut().take_stream() {
            return Ok(UpstreamTunnel { stream: Box::new(stream), ahead: Bytes::new(), lease });
        }
        let failed = |details: String| {
            UpstreamError::new(UpstreamErrorKind::Reset { reused: false }, Some(endpoint), details)
        };
        let upgraded = hyper::upgrade::on(response).await.map_err(|error| failed(error.to_string()))?;
        let parts = upgraded.downcast::<Io>().map_err(|_| failed("no connection of ours".to_owned()))?;
        Ok(UpstreamTunnel { stream: Box::new(parts.io.into_inner()), ahead: parts.read_buf, lease })
    }
}
