//! Filters of TCP connections: the trait that one implements, and the connection as its callbacks see it.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::body::{Arrived, Body, Carries};
use crate::config::ConfigError;
use crate::error::{Outcome, Refused};
use crate::host::{BufferType, Direction};
use crate::property;
use crate::queue::SharedQueue;
use crate::reply::Reply;
use crate::route::Decision;
use crate::runtime::half::Half;

/// A filter of TCP connections, for listeners with `protocol: tcp`. It is to them what [`Filter`](crate::Filter) is to HTTP:
/// one value of the type serves all connections of a worker, callbacks that wait are `async`, and
/// [`#[filter]`](macro@crate::filter) fills in what is left out.
///
/// ```
/// # use meshgate_sdk::prelude::*;
/// use meshgate_sdk::route::Decision;
/// use meshgate_sdk::{Connection, TcpFilter};
///
/// #[derive(Deserialize, JsonSchema)]
/// struct Config {
///     /// Where clients go that greet.
///     greeters: Cluster,
///     /// Who knows which addresses may.
///     gatekeeper: Cluster,
/// }
///
/// struct Greeters {
///     decision: Decision,
///     gatekeeper: Cluster,
/// }
///
/// #[filter]
/// impl TcpFilter for Greeters {
///     fn configure(config: Config) -> Result<Self, ConfigError> {
///         let decision = Decision::to(&config.greeters).name("greeters").build();
///         Ok(Self { decision, gatekeeper: config.gatekeeper })
///     }
///
///     async fn on_connection(&self, connection: &Connection<Self>) -> Outcome {
///         let source = connection.source_address().unwrap_or_default();
///         self.gatekeeper.post("/may-come", source).send().await?.success()?;
///         Ok(())
///     }
///
///     async fn on_downstream_data(&self, connection: &Connection<Self>, data: &mut Body) -> Outcome {
///         if data.at_least(5).await?.starts_with(b"HELLO") {
///             connection.route(&self.decision)?;
///             return Ok(());
///         }
///         connection.close()
///     }
/// }
/// # fn main() {}
/// ```
///
/// In every callback, `?` on an error closes the connection. A failure is logged; a [`Reply`], which there is nobody to send
/// to, is not. A failed call has said in the log what became of it.
#[expect(async_fn_in_trait, reason = "a module has one thread: nobody needs to send these futures anywhere")]
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a filter of TCP connections",
    label = "not a filter",
    note = "write `#[filter] impl TcpFilter for {Self} {{ fn configure(…) … }}`"
)]
pub trait TcpFilter: Sized + 'static {
    /// The configuration, as a [`Filter`](crate::Filter)'s.
    type Config: DeserializeOwned + JsonSchema + 'static;

    /// What the filter keeps for one connection: `connection.state`. Both of its ways may be under way at once, so what
    /// changes in it is in a `Cell` or a `RefCell`.
    type State: Default + 'static;

    /// The callbacks that the filter has, as the ABI calls them. Written by [`#[filter]`](macro@crate::filter).
    #[doc(hidden)]
    const CALLBACKS: &'static [&'static str];

    /// Those of them that wait for something. Written by [`#[filter]`](macro@crate::filter).
    #[doc(hidden)]
    const AWAITS: &'static [&'static str];

    /// Makes the filter from its configuration.
    ///
    /// # Errors
    /// The configuration makes no sense. The host refuses the file that it stands in.
    fn configure(config: Self::Config) -> Result<Self, ConfigError>;

    /// A client has connected. Nothing is taken from it, and nobody is connected to, before this is done.
    async fn on_connection(&self, connection: &Connection<Self>) -> Outcome {
        let _ = connection;
        Ok(())
    }

    /// The client begins to send. Runs once; see [`Body`] for how to wait for the data and how to change them. What it does
    /// not wait for passes by. With `wait_for_data: true` on the listener this comes before the endpoint is connected to,
    /// so that it can decide the cluster.
    async fn on_downstream_data(&self, connection: &Connection<Self>, data: &mut Body) -> Outcome {
        let _ = (connection, data);
        Ok(())
    }

    /// The endpoint begins to send. Runs once, as [`on_downstream_data`](Self::on_downstream_data).
    ///
    /// ```
    /// # use std::cell::Cell;
    /// # use meshgate_sdk::prelude::*;
    /// # use meshgate_sdk::{Connection, TcpFilter};
    /// # struct Lines;
    /// # #[filter]
    /// # impl TcpFilter for Lines {
    /// # type State = Cell<usize>;
    /// # fn configure(_: Empty) -> Result<Self, ConfigError> { Ok(Self) }
    /// async fn on_upstream_data(&self, connection: &Connection<Self>, data: &mut Body) -> Outcome {
    ///     while let Some(part) = data.next().await? {
    ///         let lines = part.iter().filter(|byte| **byte == b'\n').count();
    ///         connection.state.set(connection.state.get() + lines);
    ///     }
    ///     Ok(())
    /// }
    /// # fn on_log(&self, connection: &Connection<Self>) {
    /// #     meshgate_sdk::info!("{} lines", connection.state.get());
    /// # }
    /// # }
    /// # fn main() {
    /// # use meshgate_sdk::testing::{Client, Proxy};
    /// # let mut proxy = Proxy::tcp::<Lines>("");
    /// # assert_eq!(proxy.connect(&Client::new()).endpoint_sends("a\nb\n"), b"a\nb\n");
    /// # assert_eq!(proxy.logs(), ["2 lines"]);
    /// # }
    /// ```
    async fn on_upstream_data(&self, connection: &Connection<Self>, data: &mut Body) -> Outcome {
        let _ = (connection, data);
        Ok(())
    }

    /// The client's connection is over.
    fn on_downstream_close(&self, connection: &Connection<Self>, by: ClosedBy) {
        let _ = (connection, by);
    }

    /// The endpoint's connection is over, or brings nothing more.
    fn on_upstream_close(&self, connection: &Connection<Self>, by: ClosedBy) {
        let _ = (connection, by);
    }

    /// All is over: there is nothing to wait for.
    fn on_log(&self, connection: &Connection<Self>) {
        let _ = connection;
    }

    /// Something was put into a queue that the filter has opened: see [`SharedQueue`]. While it waits for something, no other
    /// is called. An error is logged.
    async fn on_queue(&self, queue: SharedQueue) -> Outcome {
        let _ = queue;
        Ok(())
    }

    /// Some time has passed: see [`tick_every`](crate::tick_every). A tick that still waits when the next one is due takes
    /// its place. An error is logged.
    async fn on_tick(&self) -> Outcome {
        Ok(())
    }

    /// Some time has passed, and this connection is open: called for each of them with every [`tick`](Self::on_tick), some
    /// at a time. What the host knows of a connection can be looked at without looking at its bytes.
    ///
    /// ```
    /// # use meshgate_sdk::prelude::*;
    /// # use meshgate_sdk::{Connection, TcpFilter};
    /// # struct Long;
    /// # #[filter]
    /// # impl TcpFilter for Long {
    /// # fn configure(_: Empty) -> Result<Self, ConfigError> { Ok(Self) }
    /// fn on_connection_tick(&self, connection: &Connection<Self>) {
    ///     meshgate_sdk::debug!("{:?}: {:?} bytes", connection.source_address(), connection.received());
    /// }
    /// # }
    /// # fn main() {}
    /// ```
    fn on_connection_tick(&self, connection: &Connection<Self>) {
        let _ = connection;
    }

    /// It ends: its module or configuration was replaced, or the proxy stops. What it has kept for later it does now; calls and
    /// [`sleep`](crate::sleep) go on as before, and so do ticks. No connection comes any more. After a time that the host sets
    /// (Meshgate: `limits.done`, 5 seconds) it is over in any case. An error is logged.
    ///
    /// ```
    /// # use std::cell::Cell;
    /// # use meshgate_sdk::prelude::*;
    /// # use meshgate_sdk::{Connection, TcpFilter};
    /// # struct Count { collector: Cluster, unsent: Cell<u64> }
    /// impl Count {
    ///     async fn report(&self) -> Outcome {
    ///         self.collector.post("/count", self.unsent.take().to_string()).send().await?.success()?;
    ///         Ok(())
    ///     }
    /// }
    ///
    /// #[filter]
    /// impl TcpFilter for Count {
    /// #   fn configure(_: Empty) -> Result<Self, ConfigError> {
    /// #       meshgate_sdk::tick_every(Duration::from_secs(60))?;
    /// #       Ok(Self { collector: "collector".into(), unsent: Cell::new(0) })
    /// #   }
    ///     // …
    ///     fn on_log(&self, _: &Connection<Self>) {
    ///         self.unsent.set(self.unsent.get() + 1);
    ///     }
    ///
    ///     async fn on_tick(&self) -> Outcome {
    ///         self.report().await
    ///     }
    ///
    ///     async fn on_end(&self) -> Outcome {
    ///         self.report().await
    ///     }
    /// }
    /// # fn main() {
    /// # use meshgate_sdk::testing::{Client, Proxy, Response};
    /// # let mut proxy = Proxy::tcp::<Count>("");
    /// # proxy.upstream("collector", |_| Response::new(204));
    /// # drop(proxy.connect(&Client::new()));
    /// # proxy.advance(Duration::from_secs(60));
    /// # drop(proxy.connect(&Client::new()));
    /// # drop(proxy.connect(&Client::new()));
    /// # assert!(proxy.end());
    /// # let said: Vec<_> = proxy.calls("collector").iter().map(|call| call.text()).collect();
    /// # assert_eq!(said, ["1", "2"]);
    /// # }
    /// ```
    async fn on_end(&self) -> Outcome {
        Ok(())
    }
}

/// Who ended a connection.
///
/// ```
/// # use std::cell::Cell;
/// # use meshgate_sdk::prelude::*;
/// use meshgate_sdk::{ClosedBy, Connection, TcpFilter};
///
/// # struct Watch;
/// # #[filter]
/// # impl TcpFilter for Watch {
/// # type State = Cell<bool>;
/// # fn configure(_: Empty) -> Result<Self, ConfigError> { Ok(Self) }
/// fn on_downstream_close(&self, connection: &Connection<Self>, _: ClosedBy) {
///     connection.state.set(true);
/// }
///
/// fn on_upstream_close(&self, connection: &Connection<Self>, by: ClosedBy) {
///     if by == ClosedBy::Peer && !connection.state.get() {
///         meshgate_sdk::info!("the endpoint hung up");
///     }
/// }
/// # }
/// # fn main() {
/// # use meshgate_sdk::testing::{Client, Proxy};
/// # let mut proxy = Proxy::tcp::<Watch>("");
/// # let mut connection = proxy.connect(&Client::new());
/// # connection.client_closed(ClosedBy::Peer);
/// # connection.endpoint_closed(ClosedBy::Peer);
/// # drop(connection);
/// # assert!(proxy.logs().is_empty());
/// # proxy.connect(&Client::new()).endpoint_closed(ClosedBy::Peer);
/// # assert_eq!(proxy.logs(), ["the endpoint hung up"]);
/// # }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ClosedBy {
    /// The host does not say.
    Unknown,
    /// The proxy.
    Proxy,
    /// Whoever is at the other end of it.
    Peer,
}

/// One connection of a client, and the one to an endpoint that it is joined with. It is passed to every callback of a
/// [`TcpFilter`].
///
/// ```
/// # use meshgate_sdk::prelude::*;
/// use meshgate_sdk::{Connection, Flag, TcpFilter};
///
/// # struct Members;
/// # #[filter]
/// # impl TcpFilter for Members {
/// # fn configure(_: Empty) -> Result<Self, ConfigError> { Ok(Self) }
/// fn on_connection(&self, connection: &Connection<Self>) -> Outcome {
///     if connection.is_mtls() && connection.peer_identity().is_some_and(|name| name.starts_with("spiffe://mesh/")) {
///         return Ok(());
///     }
///     connection.set_flag(Flag::Unauthorized)?;
///     connection.log_field("members.asked_for", connection.server_name().unwrap_or_default())?;
///     connection.close()
/// }
///
/// fn on_log(&self, connection: &Connection<Self>) {
///     let source = connection.source_address().unwrap_or_default();
///     let bytes = connection.received().unwrap_or(0) + connection.sent().unwrap_or(0);
///     let endpoint = connection.upstream_address().or_else(|| connection.cluster_name());
///     meshgate_sdk::info!("over"; source = source, bytes = bytes, to = endpoint.unwrap_or_default());
///     meshgate_sdk::debug!("{:?} since {:?}", connection.duration(), connection.started());
///     let _ = connection.log_line(format!("{:?} {bytes}", connection.destination_address()).as_bytes());
/// }
/// # }
/// # fn main() {
/// # use meshgate_sdk::testing::{Client, Proxy};
/// # let mut proxy = Proxy::tcp::<Members>("");
/// # let client = Client::new().property("source/address", "192.0.2.7:555");
/// # assert!(proxy.connect(&client).is_closed());
/// # assert!(!proxy.connect(&client.peer_identity("spiffe://mesh/ann")).is_closed());
/// # assert_eq!(proxy.logs()[0], "over source=192.0.2.7:555 bytes=0 to=\"\"");
/// # }
/// ```
pub struct Connection<F: TcpFilter> {
    /// What the filter keeps for this connection.
    pub state: F::State,
    /// `None` only on a host that goes on with a plugin that refused its configuration.
    pub(crate) filter: Option<Rc<F>>,
    pub(crate) context: u32,
    pub(crate) plugin: u32,
    /// What comes from the client.
    pub(crate) downstream: Half,
    /// What comes from the endpoint.
    pub(crate) upstream: Half,
    /// Its plugin knows it, since it has waited for something.
    pub(crate) has_waited: Cell<bool>,
}

impl<F: TcpFilter> Connection<F> {
    pub(crate) fn new(context: u32, plugin: u32, filter: Option<Rc<F>>) -> Self {
        Self {
            state: F::State::default(),
            filter,
            context,
            plugin,
            downstream: Half::new(),
            upstream: Half::new(),
            has_waited: Cell::new(false),
        }
    }

    /// Decides which cluster the connection goes to, with a name for logs and metrics. It can be decided until the endpoint
    /// is connected to. On hosts other than Meshgate it is refused with `NOT_FOUND`.
    ///
    /// # Errors
    /// `BAD_ARGUMENT`: the host does not know the cluster, the decision says more than cluster and name, or it comes too late.
    /// `NOT_FOUND`: the host is not Meshgate.
    pub fn route(&self, decision: &Decision) -> Result<(), Refused> {
        decision.decide()
    }

    /// What a callback returns that closes the connection, both to the client and to the endpoint: `return
    /// connection.close();`. What has been let through is still sent.
    ///
    /// # Errors
    /// Always: nothing more goes on.
    pub fn close(&self) -> Outcome {
        Reply::new(503).details("filter_closed").into()
    }

    /// The client's address and port.
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

    /// The name of the decided cluster.
    pub fn cluster_name(&self) -> Option<String> {
        property::text("xds/cluster_name")
    }

    /// The endpoint's address, once there is a connection to it.
    pub fn upstream_address(&self) -> Option<String> {
        property::text("upstream/address")
    }

    /// How many bytes have come from the client.
    pub fn received(&self) -> Option<u64> {
        u64::try_from(property::integer("request/size")?).ok()
    }

    /// How many bytes have gone to the client.
    pub fn sent(&self) -> Option<u64> {
        u64::try_from(property::integer("response/size")?).ok()
    }

    /// When the client connected.
    pub fn started(&self) -> Option<SystemTime> {
        property::time("request/time")
    }

    /// How long the connection lasted. Known in [`on_log`](TcpFilter::on_log).
    pub fn duration(&self) -> Option<Duration> {
        property::duration("request/duration")
    }
}

impl<F: TcpFilter> Carries for Connection<F> {
    fn arrived(&self, direction: Direction) -> &Arrived {
        match direction {
            Direction::Request => &self.downstream.body,
            Direction::Response => &self.upstream.body,
        }
    }

    fn buffer(&self, direction: Direction) -> BufferType {
        match direction {
            Direction::Request => BufferType::DownstreamData,
            Direction::Response => BufferType::UpstreamData,
        }
    }
}

impl<F: TcpFilter> fmt::Debug for Connection<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("context", &self.context).finish_non_exhaustive()
    }
}
