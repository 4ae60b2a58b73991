//! A listener's part of a snapshot, as its connections ask for every request.

use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use meshgate_config::{Protocol, ProxyProtocol};

use crate::downstream::{ConnectionLimits, Serve};
use crate::exchange::{self, Closed};
use crate::message::{Body, Peer};
use crate::session;
use crate::snapshot::Listener;
use crate::tls::{ServerTls, Transport};

impl Serve for Listener {
    type Error = Closed;

    fn limits(&self) -> ConnectionLimits {
        ConnectionLimits::from(&self.config)
    }

    fn tls(&self) -> Option<Arc<ServerTls>> {
        self.tls.clone()
    }

    fn proxy_protocol(&self) -> Option<&ProxyProtocol> {
        self.config.proxy_protocol.as_ref()
    }

    fn drain_spread(&self) -> Duration {
        self.drain_spread
    }

    fn has_the_terms_of(&self, old: &Listener) -> bool {
        let trust = |listener: &Listener| listener.tls.as_ref().map(|tls| tls.terms());
        trust(self) == trust(old)
            && self.config.protocol == old.config.protocol
            && self.config.proxy_protocol == old.config.proxy_protocol
    }

    fn serve(
        self: Rc<Self>,
        peer: Rc<Peer>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<Body>, Closed>> {
        exchange::serve(self, peer, request)
    }

    fn is_tcp(&self) -> bool {
        self.config.protocol == Protocol::Tcp
    }

    fn opaque(&self) -> Option<(Rc<Self>, Duration)> {
        Some((self.opaque.clone()?, self.config.opaque.as_ref()?.timeout))
    }

    fn passthrough(&self) -> Option<usize> {
        self.config.tls_passthrough.as_ref().map(|passthrough| passthrough.max_hello)
    }

    fn carry(
        self: Rc<Self>,
        peer: Rc<Peer>,
        client: Transport,
        ahead: Bytes,
    ) -> impl Future<Output = Option<Transport>> {
        session::serve(self, Rc::clone(&peer.connection), client, ahead)
    }
}
