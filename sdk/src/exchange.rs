//! One exchange, as a filter's callbacks see it.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use crate::attempts::Attempts;
use crate::body::{Arrived, Carries};
use crate::error::Refused;
use crate::filter::Filter;
use crate::hold::Held;
use crate::host::{BufferType, Direction};
use crate::message::{Request, Response};
use crate::property;
use crate::route::Decision;
use crate::runtime::half::Half;

/// One request and its response.
///
/// It is passed to every callback of the exchange. The messages stay in the host: what is not asked for is not copied.
///
/// ```
/// # use meshgate_sdk::prelude::*;
/// use std::cell::Cell;
///
/// /// What is kept for one exchange. Both of its ways may be under way at once, so what changes is in a `Cell` or `RefCell`.
/// #[derive(Default)]
/// struct Seen {
///     suspicious: Cell<bool>,
/// }
///
/// # struct Watch;
/// # #[filter]
/// # impl Filter for Watch {
/// # type State = Seen;
/// # fn configure(_: Empty) -> Result<Self, ConfigError> { Ok(Self) }
/// fn on_request(&self, exchange: &Exchange<Self>) -> Outcome {
///     exchange.state.suspicious.set(exchange.request().path().contains("/.."));
///     Ok(())
/// }
///
/// fn on_log(&self, exchange: &Exchange<Self>) {
///     if exchange.state.suspicious.get() {
///         meshgate_sdk::warn!("{:?} got {:?}", exchange.source_address(), exchange.response_code());
///     }
/// }
/// # }
/// # fn main() {}
/// ```
///
/// What the host knows of it beside its messages has functions of its own:
///
/// ```
/// # use meshgate_sdk::prelude::*;
/// # struct Names;
/// # #[filter]
/// # impl Filter for Names {
/// # fn configure(_: Empty) -> Result<Self, ConfigError> { Ok(Self) }
/// fn on_request(&self, exchange: &Exchange<Self>) -> Outcome {
///     let is_safe = exchange.is_mtls() && exchange.tls_version().as_deref() == Some("TLSv1.3");
///     if !is_safe || exchange.server_name() != Some(exchange.request().authority()) {
///         return Reply::new(421).details("wrong_name").into();
///     }
///     Ok(())
/// }
///
/// fn on_log(&self, exchange: &Exchange<Self>) {
///     let who = exchange.peer_identity().or_else(|| exchange.source_address()).unwrap_or_default();
///     let route = exchange.route_name().or_else(|| exchange.cluster_name()).unwrap_or_default();
///     let bytes = exchange.request_size().unwrap_or(0) + exchange.response_size().unwrap_or(0);
///     let (took, waited) = (exchange.duration(), exchange.upstream_duration());
///     meshgate_sdk::debug!("{took:?}, of it {waited:?} for {:?}", exchange.upstream_address());
///     meshgate_sdk::debug!("{:?} at {:?}", exchange.protocol(), exchange.destination_address());
///     meshgate_sdk::info!(
///         "since {:?}: {:?}", exchange.started(), exchange.response_details();
///         id = exchange.id().unwrap_or_default(), who = who, route = route, bytes = bytes,
///     );
/// }
/// # }
/// # fn main() {
/// # use meshgate_sdk::testing::{Proxy, Request};
/// # let mut proxy = Proxy::new::<Names>("");
/// # let request = Request::get("/").peer_identity("spiffe://mesh/ann").property("connection/tls_version", "TLSv1.3");
/// # let named = |name| request.clone().property("connection/requested_server_name", name);
/// # assert_eq!(proxy.send(named("example.com")).status(), 200);
/// # assert_eq!(proxy.send(named("example.net")).status(), 421);
/// # assert!(proxy.logs().last().unwrap().ends_with("id=\"\" who=spiffe://mesh/ann route=\"\" bytes=0"));
/// # }
/// ```
pub struct Exchange<F: Filter> {
    /// What the filter keeps for this exchange.
    pub state: F::State,
    /// `None` only on a host that sends requests to a plugin that refused its configuration.
    pub(crate) filter: Option<Rc<F>>,
    pub(crate) context: u32,
    pub(crate) plugin: u32,
    pub(crate) request: Half,
    pub(crate) response: Half,
    /// Its plugin knows it, since it has waited for something.
    pub(crate) has_waited: Cell<bool>,
    /// What it has of shared numbers, where the host does not take it back by itself.
    pub(crate) held: RefCell<Vec<Held>>,
}

impl<F: Filter> Exchange<F> {
    pub(crate) fn new(context: u32, plugin: u32, filter: Option<Rc<F>>) -> Self {
        Self {
            state: F::State::default(),
            filter,
            context,
            plugin,
            request: Half::new(),
            response: Half::new(),
            has_waited: Cell::new(false),
            held: RefCell::default(),
        }
    }

    /// The request.
    pub fn request(&self) -> Request {
        Request { has_more: self.request.has_more.get() }
    }

    /// The response. It has fields from [`on_response`](Filter::on_response) on.
    pub fn response(&self) -> Response {
        Response { has_more: self.response.has_more.get() }
    }

    /// Decides where the exchange goes. The last decision before the request is sent wins. On hosts other than Meshgate it
    /// is refused with `NOT_FOUND`.
    ///
    /// # Errors
    /// `BAD_ARGUMENT`: the host does not know the cluster or the chain. `NOT_FOUND`: the host is not Meshgate.
    pub fn route(&self, decision: &Decision) -> Result<(), Refused> {
        decision.decide()
    }

    /// Asks to be asked, in [`on_attempt`](Filter::on_attempt), whenever a try of this request has ended. The filter that says
    /// so last before the request is sent is the one that is asked. On hosts other than Meshgate it is refused with
    /// `NOT_FOUND`.
    ///
    /// # Errors
    /// `NOT_FOUND` or `UNIMPLEMENTED`: the host is not Meshgate.
    pub fn attempts(&self, attempts: &Attempts) -> Result<(), Refused> {
        attempts.watch()
    }

    /// The client's address and port, as the connection shows them or a proxy in front that is believed says them.
    pub fn source_address(&self) -> Option<String> {
        property::text("source/address")
    }

    /// The address and port that the client connected to.
    pub fn destination_address(&self) -> Option<String> {
        property::text("destination/address")
    }

    /// Who the client is by its certificate: the first URI among the certificate's names, such as `spiffe://mesh/ns/a/sa/b`.
    pub fn peer_identity(&self) -> Option<String> {
        property::text("connection/uri_san_peer_certificate")
    }

    /// Whether the client showed a certificate.
    pub fn is_mtls(&self) -> bool {
        property::boolean("connection/mtls").unwrap_or(false)
    }

    /// The version of TLS that the client speaks, such as `TLSv1.3`; `None` without TLS.
    pub fn tls_version(&self) -> Option<String> {
        property::text("connection/tls_version")
    }

    /// The name that the client asked for in the TLS handshake.
    pub fn server_name(&self) -> Option<String> {
        property::text("connection/requested_server_name")
    }

    /// The id by which this request is known in logs: `x-request-id`.
    pub fn id(&self) -> Option<String> {
        property::text("request/id")
    }

    /// The HTTP version of the request, such as `HTTP/1.1`.
    pub fn protocol(&self) -> Option<String> {
        property::text("request/protocol")
    }

    /// The name of the decided route.
    pub fn route_name(&self) -> Option<String> {
        property::text("xds/route_name")
    }

    /// The name of the decided cluster.
    pub fn cluster_name(&self) -> Option<String> {
        property::text("xds/cluster_name")
    }

    /// The address of the endpoint that the request was sent to last.
    pub fn upstream_address(&self) -> Option<String> {
        property::text("upstream/address")
    }

    /// The status that the client got; `None` if it got none.
    pub fn response_code(&self) -> Option<u16> {
        u16::try_from(property::integer("response/code")?).ok().filter(|code| *code != 0)
    }

    /// Why the response is as it is: one word, as in the access log.
    pub fn response_details(&self) -> Option<String> {
        property::text("response/code_details")
    }

    /// How many bytes the request's body had. Known in [`on_log`](Filter::on_log).
    pub fn request_size(&self) -> Option<u64> {
        u64::try_from(property::integer("request/size")?).ok()
    }

    /// How many bytes the response's body had. Known in [`on_log`](Filter::on_log).
    pub fn response_size(&self) -> Option<u64> {
        u64::try_from(property::integer("response/size")?).ok()
    }

    /// When the request's first byte arrived.
    pub fn started(&self) -> Option<SystemTime> {
        property::time("request/time")
    }

    /// How long the exchange took. Known in [`on_log`](Filter::on_log).
    pub fn duration(&self) -> Option<Duration> {
        property::duration("request/duration")
    }

    /// How long the endpoint took, until the response's head was there. On other hosts known in [`on_log`](Filter::on_log).
    pub fn upstream_duration(&self) -> Option<Duration> {
        property::duration("response/backend_latency")
    }
}

impl<F: Filter> Carries for Exchange<F> {
    fn arrived(&self, direction: Direction) -> &Arrived {
        match direction {
            Direction::Request => &self.request.body,
            Direction::Response => &self.response.body,
        }
    }

    fn buffer(&self, direction: Direction) -> BufferType {
        match direction {
            Direction::Request => BufferType::HttpRequestBody,
            Direction::Response => BufferType::HttpResponseBody,
        }
    }
}

impl<F: Filter> fmt::Debug for Exchange<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").field("context", &self.context).finish_non_exhaustive()
    }
}
