//! Exchanges that change the protocol: the offer on its way up, the endpoint's answer on its way down, and the bytes that
//! follow. The heads run through the filters as any others do; the bytes are nobody's but the two sides', but filters may break
//! them off.

use std::cell::Cell;
use std::rc::Rc;
use std::task::Context;

use bytes::Bytes;
use http::header::UPGRADE;
use http::{HeaderMap, Response, StatusCode};
use meshgate_config::ClusterProtocol;
use meshgate_wasm::ResponseHead;

use super::error::ExchangeError;
use super::record::Exchange;
use super::tunnel::{self, End, Side, Sides};
use crate::filter::Stop;
use crate::message::{Body, Duplex, Rejection, ResponseFlag, Tunnel, Upgrade, upgrade};
use crate::upstream::{
    Cluster, UpstreamBody, UpstreamError, UpstreamErrorKind, UpstreamTunnel, switched_unasked,
};

/// The change of protocol that a client offered, as far as it has come.
#[derive(Default)]
pub(super) struct Offer {
    upgrade: Option<Upgrade>,
    /// The endpoint was asked.
    passed_on: Cell<bool>,
}

impl Offer {
    pub(super) fn new(upgrade: Option<Upgrade>) -> Offer {
        Offer { upgrade, passed_on: Cell::new(false) }
    }

    /// Whether there is one.
    pub(super) fn is_made(&self) -> bool {
        self.upgrade.is_some()
    }

    /// Passes the offer on in a request's fields, in the words of HTTP/1.1, unless a filter took it out of them.
    ///
    /// # Errors
    /// The client's question is missing, and an endpoint that speaks HTTP/2 does not ask for it.
    pub(super) fn pass_on(&self, cluster: &Cluster, headers: &mut HeaderMap) -> Result<(), ExchangeError> {
        let Some(offered) = &self.upgrade else { return Ok(()) };
        let may = headers.contains_key(UPGRADE);
        self.passed_on.set(may);
        if !may {
            upgrade::decline(headers);
            return Ok(());
        }
        offered.offer(headers);
        if cluster.protocol() == ClusterProtocol::Http2 && offered.lacks_key(headers) {
            let reason = "a WebSocket offer without its key";
            return Err(ExchangeError::Head(Rejection { status: StatusCode::BAD_REQUEST, reason }));
        }
        Ok(())
    }

    /// What follows an endpoint's head, if that changes the protocol.
    pub(super) async fn taken(
        &self,
        response: &mut Response<UpstreamBody>,
    ) -> Result<Option<UpstreamTunnel>, ExchangeError> {
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(None);
        }
        let endpoint = response.body().endpoint();
        let upgrade = self.upgrade.as_ref().filter(|_| self.passed_on.get());
        let upgrade = upgrade.ok_or_else(|| ExchangeError::Upstream(switched_unasked(endpoint)))?;
        if !upgrade.is_taken(response.headers()) {
            let details = "switched to another protocol than it was offered";
            let error = UpstreamError::new(UpstreamErrorKind::Protocol, Some(endpoint), details);
            return Err(ExchangeError::Upstream(error));
        }
        UpstreamTunnel::after(response).await.map(Some).map_err(ExchangeError::Upstream)
    }

    /// Whether a response with this status and no other protocol behind it would be taken for one that has: to a client that
    /// asks over HTTP/2, every success says that its offer is taken.
    pub(super) fn is_misled_by(&self, status: StatusCode) -> bool {
        status.is_success() && self.upgrade.as_ref().is_some_and(Upgrade::is_extended)
    }

    /// Says in a response's head that the protocol changes.
    fn take(&self, head: &mut ResponseHead) {
        if let Some(upgrade) = &self.upgrade {
            upgrade.take(&mut head.status, &mut head.headers);
        }
    }
}

/// The response that changes the protocol, as its filters left it, with what follows it.
pub(super) fn switch(
    exchange: &Rc<Exchange>,
    mut head: ResponseHead,
    endpoint: UpstreamTunnel,
) -> Response<Body> {
    exchange.offer.take(&mut head);
    exchange.is_answered_by(head.status);
    let switched = Switched::new(exchange, endpoint);
    let mut response =
        Response::new(Body::tunnel(Tunnel::new(|client, ahead| switched.carry(client, ahead))));
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    response
}

/// An exchange whose heads are through. It is logged when both sides have ended.
struct Switched {
    exchange: Rc<Exchange>,
    endpoint: Option<UpstreamTunnel>,
    begun: Cell<bool>,
}

impl Switched {
    fn new(exchange: &Rc<Exchange>, endpoint: UpstreamTunnel) -> Switched {
        Switched { exchange: Rc::clone(exchange), endpoint: Some(endpoint), begun: Cell::new(false) }
    }

    /// Passes bytes on until both sides have ended.
    async fn carry(mut self, client: Box<dyn Duplex>, from_client: Bytes) {
        let Some(endpoint) = self.endpoint.take() else { return };
        let UpstreamTunnel { stream, ahead: from_endpoint, lease: _lease } = endpoint;
        self.begun.set(true);
        self.exchange.listener.metrics.begin_upgrade();
        let sides = Sides { client, endpoint: stream, from_client, from_endpoint };
        let idle_timeout = self.exchange.listener.config.upgrade_idle_timeout;
        let stopped = |cx: &mut Context<'_>| self.exchange.stream.poll_broken_off(cx);
        let end = tunnel::join(sides, idle_timeout, stopped, |side, bytes| match side {
            Side::Client => self.exchange.count_received(bytes),
            Side::Endpoint => self.exchange.count_sent(bytes),
        })
        .await;
        if let End::Aborted(side, error) = &end {
            tracing::debug!(listener = %self.exchange.listener.name, ?side, %error, "broken off after its protocol changed");
        }
        self.note(end);
    }

    fn note(&self, end: End) {
        let flagged = match end {
            End::Over => None,
            End::Aborted(Side::Client, _) => {
                Some((ResponseFlag::DownstreamTermination, "downstream_remote_disconnect"))
            }
            End::Aborted(Side::Endpoint, _) => {
                Some((ResponseFlag::UpstreamTermination, "upstream_remote_reset"))
            }
            End::Idle => Some((ResponseFlag::StreamIdleTimeout, "idle_timeout")),
            End::Stopped(stop) => {
                self.exchange.note(&broken_off(stop));
                None
            }
        };
        if let Some((flag, details)) = flagged {
            self.exchange.flag(flag, details);
        }
        self.exchange.complete();
    }
}

/// What it means that filters broke it off.
fn broken_off(stop: Stop) -> ExchangeError {
    match stop {
        Stop::Failed(failure) => ExchangeError::Filter(failure),
        // An answer that comes now is a failure.
        Stop::Closed | Stop::Responded => ExchangeError::Closed,
    }
}

impl Drop for Switched {
    fn drop(&mut self) {
        if !self.begun.get() {
            // The client left before it had the head: the exchange says so.
            return;
        }
        self.exchange.listener.metrics.end_upgrade();
        if !self.exchange.is_complete() {
            // The process ends first.
            self.exchange.flag(ResponseFlag::LocalReset, "shutdown");
            self.exchange.complete();
        }
    }
}
