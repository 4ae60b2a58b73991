//! A TCP connection between a client and an endpoint that a test plays.

use super::engine::{Part, Verdict, Way};
use super::{Client, Proxy};
use crate::tcp::ClosedBy;

/// A TCP connection through a filter: see [`Proxy::connect`].
///
/// When it is dropped, the filter is told that both sides are over.
///
/// ```
/// # use meshgate_sdk::prelude::*;
/// # use meshgate_sdk::route::Decision;
/// # use meshgate_sdk::{Connection, TcpFilter};
/// # struct Greeters { decision: Decision }
/// # #[filter]
/// # impl TcpFilter for Greeters {
/// #     fn configure(_: Empty) -> Result<Self, ConfigError> {
/// #         Ok(Self { decision: Decision::to(&"greeters".into()).build() })
/// #     }
/// #     async fn on_downstream_data(&self, connection: &Connection<Self>, data: &mut Body) -> Outcome {
/// #         if !data.at_least(5).await?.starts_with(b"HELLO") {
/// #             return connection.close();
/// #         }
/// #         meshgate_sdk::sleep(Duration::from_millis(20)).await?;
/// #         connection.route(&self.decision)?;
/// #         Ok(())
/// #     }
/// #     async fn on_upstream_data(&self, _: &Connection<Self>, data: &mut Body) -> Outcome {
/// #         data.at_least(1).await?;
/// #         meshgate_sdk::sleep(Duration::from_millis(20)).await?;
/// #         Ok(())
/// #     }
/// # }
/// # fn main() {
/// use meshgate_sdk::ClosedBy;
/// use meshgate_sdk::testing::{Client, Proxy, Response};
///
/// // `Greeters` lets those in that greet, takes its time, and sends them to `greeters`.
/// let mut proxy = Proxy::tcp::<Greeters>("");
/// proxy.upstream("greeters", |_| Response::new(200));
///
/// let mut connection = proxy.connect(&Client::new());
/// assert_eq!(connection.client_sends("HEL"), b"");
/// assert_eq!(connection.client_sends("LO"), b"");
/// assert_eq!(connection.to_endpoint(), b"HELLO");
/// assert_eq!(connection.cluster().as_deref(), Some("greeters"));
/// assert_eq!(connection.endpoint_sends("hello"), b"");
/// assert_eq!(connection.to_client(), b"hello");
/// assert_eq!((connection.client_ends(), connection.endpoint_ends()), (Vec::new(), Vec::new()));
/// connection.client_closed(ClosedBy::Peer);
/// connection.endpoint_closed(ClosedBy::Proxy);
/// assert!(connection.proxy().logs().is_empty());
/// drop(connection);
///
/// let mut connection = proxy.connect(&Client::new());
/// connection.client_sends("GET / HTTP/1.1");
/// assert!(connection.is_closed());
/// # }
/// ```
#[derive(Debug)]
pub struct Connected<'a> {
    proxy: &'a mut Proxy,
    id: u32,
    /// The filter closed it.
    closed: bool,
    /// Which ways are over.
    over: [bool; 2],
}

impl Proxy {
    /// A client connects to a filter for TCP, which lets it or closes the connection.
    ///
    /// ```
    /// # use meshgate_sdk::prelude::*;
    /// # use meshgate_sdk::{Connection, TcpFilter};
    /// # struct Members;
    /// # #[filter]
    /// # impl TcpFilter for Members {
    /// #     fn configure(_: Empty) -> Result<Self, ConfigError> { Ok(Self) }
    /// #     fn on_connection(&self, connection: &Connection<Self>) -> Outcome {
    /// #         if connection.is_mtls() { Ok(()) } else { connection.close() }
    /// #     }
    /// # }
    /// # fn main() {
    /// # use meshgate_sdk::testing::{Client, Proxy};
    /// // `Members` wants certificates.
    /// let mut proxy = Proxy::tcp::<Members>("");
    /// assert!(proxy.connect(&Client::new()).is_closed());
    /// assert!(!proxy.connect(&Client::new().peer_identity("spiffe://mesh/ann")).is_closed());
    /// # }
    /// ```
    ///
    /// # Panics
    /// The filter waits for something that will never happen, or fails.
    pub fn connect(&mut self, client: &Client) -> Connected<'_> {
        let id = self.engine.connect(client);
        let mut connected = Connected { proxy: self, id, closed: false, over: [false; 2] };
        let verdict = match connected.proxy.deliver(id, Way::Request, Part::Connection) {
            Verdict::Held => connected.proxy.wait(id, Way::Request),
            other => other,
        };
        connected.take(verdict);
        connected
    }
}

impl Connected<'_> {
    /// The client sends: what goes on to the endpoint, nothing if the filter holds it.
    ///
    /// # Panics
    /// The filter fails.
    pub fn client_sends(&mut self, bytes: impl AsRef<[u8]>) -> Vec<u8> {
        self.deliver(Way::Request, Part::Data(Way::Request, bytes.as_ref().to_vec(), false))
    }

    /// The client has said all it had to say.
    ///
    /// # Panics
    /// The filter fails.
    pub fn client_ends(&mut self) -> Vec<u8> {
        self.deliver(Way::Request, Part::Data(Way::Request, Vec::new(), true))
    }

    /// The endpoint sends: what goes on to the client, nothing if the filter holds it.
    ///
    /// # Panics
    /// The filter fails.
    pub fn endpoint_sends(&mut self, bytes: impl AsRef<[u8]>) -> Vec<u8> {
        self.deliver(Way::Response, Part::Data(Way::Response, bytes.as_ref().to_vec(), false))
    }

    /// The endpoint has said all it had to say.
    ///
    /// # Panics
    /// The filter fails.
    pub fn endpoint_ends(&mut self) -> Vec<u8> {
        self.deliver(Way::Response, Part::Data(Way::Response, Vec::new(), true))
    }

    /// Lets happen what the filter waits for, until it lets go what it holds of what the client sent: what goes on.
    ///
    /// # Panics
    /// The filter waits for something that will never happen, or fails.
    pub fn to_endpoint(&mut self) -> Vec<u8> {
        self.wait(Way::Request)
    }

    /// As [`to_endpoint`](Self::to_endpoint), for what the endpoint sent.
    ///
    /// # Panics
    /// The filter waits for something that will never happen, or fails.
    pub fn to_client(&mut self) -> Vec<u8> {
        self.wait(Way::Response)
    }

    /// The client's connection is over: in order or not, by the peer or by the proxy.
    ///
    /// # Panics
    /// The filter fails.
    pub fn client_closed(&mut self, by: ClosedBy) {
        self.over(Way::Request, by);
    }

    /// The endpoint's connection is over.
    ///
    /// # Panics
    /// The filter fails.
    pub fn endpoint_closed(&mut self, by: ClosedBy) {
        self.over(Way::Response, by);
    }

    /// The cluster that the filter decided for.
    pub fn cluster(&self) -> Option<String> {
        self.proxy.engine.cluster(self.id)
    }

    /// Whether the filter closed the connection.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// The proxy around it.
    pub fn proxy(&mut self) -> &mut Proxy {
        self.proxy
    }

    fn deliver(&mut self, way: Way, part: Part) -> Vec<u8> {
        let verdict = self.proxy.deliver(self.id, way, part);
        self.take(verdict)
    }

    fn wait(&mut self, way: Way) -> Vec<u8> {
        let verdict = self.proxy.wait(self.id, way);
        self.take(verdict)
    }

    fn take(&mut self, verdict: Verdict) -> Vec<u8> {
        match verdict {
            Verdict::Passed(bytes) => bytes,
            Verdict::Closed(bytes) => {
                self.closed = true;
                bytes
            }
            Verdict::Held => Vec::new(),
            Verdict::Answered(_) => panic!("the filter answers what is no request"),
            Verdict::Failed(reason) => panic!("the filter fails: {reason}"),
        }
    }

    fn over(&mut self, way: Way, by: ClosedBy) {
        let over = match way {
            Way::Request => &mut self.over[0],
            Way::Response => &mut self.over[1],
        };
        if !std::mem::replace(over, true) {
            self.deliver(way, Part::Closed(way, by));
        }
    }
}

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        // A test that fails already need not hear more.
        if !std::thread::panicking() {
            let by = if self.closed { ClosedBy::Proxy } else { ClosedBy::Peer };
            self.over(Way::Response, by);
            self.over(Way::Request, by);
        }
        self.proxy.engine.close(self.id);
        let now = self.proxy.now;
        self.proxy.run_until(now);
    }
}
