//! One exchange, as a filter's callbacks see it.

use std::fmt;
use std::time::Duration;

use crate::call::{Call, CallFailed, CallResponse};
use crate::error::{Outcome, Refused};
use crate::filter::Filter;
use crate::host::Direction;
use crate::message::{Request, Response};
use crate::property;
use crate::route::Decision;

/// What runs when a call's response is there. See [`Exchange::call`].
pub(crate) type Continuation<F> =
    Box<dyn FnOnce(&F, &mut Exchange<F>, Result<CallResponse, CallFailed>) -> Outcome>;

/// One request and its response.
///
/// It is passed to every callback of the exchange. The messages stay in the host: what is not asked for is not copied.
pub struct Exchange<F: Filter> {
    /// What the filter keeps for this exchange.
    pub state: F::State,
    pub(crate) calls: Vec<(u32, Continuation<F>)>,
    /// The way in which a callback last answered `Pause`.
    pub(crate) paused: Option<Direction>,
}

impl<F: Filter> Exchange<F> {
    pub(crate) fn new() -> Self {
        Self { state: F::State::default(), calls: Vec::new(), paused: None }
    }

    /// The request.
    pub fn request(&self) -> Request {
        Request
    }

    /// The response. It has fields from `on_response_headers` on.
    pub fn response(&self) -> Response {
        Response
    }

    /// Decides where the exchange goes. The last decision before the request is sent wins.
    ///
    /// # Errors
    /// `BAD_ARGUMENT`: the host does not know the cluster or the chain. `NOT_FOUND`: the host is not Meshgate.
    pub fn route(&self, decision: &Decision) -> Result<(), Refused> {
        decision.decide()
    }

    /// Makes a call, and runs `then` when its response is there or has failed.
    ///
    /// The exchange only waits if the callback returns [`Flow::Pause`](crate::Flow::Pause); it goes on when `then` returns
    /// [`Flow::Continue`](crate::Flow::Continue). If the exchange ends before, `then` does not run.
    ///
    /// # Errors
    /// `BAD_ARGUMENT`: the host does not know the cluster. `INTERNAL_FAILURE`: it could not start the call.
    pub fn call(
        &mut self,
        call: &Call,
        then: impl FnOnce(&F, &mut Self, Result<CallResponse, CallFailed>) -> Outcome + 'static,
    ) -> Result<(), Refused> {
        let token = call.start()?;
        self.calls.push((token, Box::new(then)));
        Ok(())
    }

    /// The client's address and port, as the connection shows them.
    pub fn source_address(&self) -> Option<String> {
        property::text("source/address")
    }

    /// The name of the decided route.
    pub fn route_name(&self) -> Option<String> {
        property::text("xds/route_name")
    }

    /// The name of the decided cluster.
    pub fn cluster_name(&self) -> Option<String> {
        property::text("xds/cluster_name")
    }

    /// The status that the client got; `None` if it got none.
    pub fn response_code(&self) -> Option<u16> {
        u16::try_from(property::integer("response/code")?).ok().filter(|code| *code != 0)
    }

    /// How long the exchange took. Known in `on_log`.
    pub fn duration(&self) -> Option<Duration> {
        property::duration("request/duration")
    }
}

impl<F: Filter> fmt::Debug for Exchange<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").field("calls", &self.calls.len()).field("paused", &self.paused).finish()
    }
}
