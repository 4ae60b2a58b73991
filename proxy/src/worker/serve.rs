//! A listener's part of a snapshot, as its connections ask for every request.

use std::future::Future;
use std::rc::Rc;

use http::{Request, Response};
use hyper::body::Incoming;

use crate::downstream::{ConnectionLimits, Serve};
use crate::exchange::{self, Closed};
use crate::message::{Body, Peer};
use crate::snapshot::Listener;

impl Serve for Listener {
    type Error = Closed;

    fn limits(&self) -> ConnectionLimits {
        ConnectionLimits::from(&self.config)
    }

    fn serve(
        self: Rc<Self>,
        peer: Rc<Peer>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<Body>, Closed>> {
        exchange::serve(self, peer, request)
    }
}
