//! What surrounds a cell: certificates, an endpoint that sends everything back, the proxy's configuration, a way in.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use http::Response;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use meshgate_tests::{
    Authority, Backend, Client, Issued, Meshgate, Says, Seen, Setup, TlsClient, TlsFront, WebSocketBackend,
    grpc_backend,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
    GrpcUnary,
    GrpcStream,
    WebSocket,
    Tcp,
}

impl Protocol {
    pub(super) fn is_http2(self) -> bool {
        matches!(self, Protocol::Http2 | Protocol::GrpcUnary | Protocol::GrpcStream)
    }

    fn alpn(self) -> &'static [&'static str] {
        match self {
            Protocol::Tcp => &[],
            _ if self.is_http2() => &["h2"],
            _ => &["http/1.1"],
        }
    }
}

/// What it is spoken through, on either side of the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Security {
    Cleartext,
    Tls,
    Mtls,
}

/// The name of the proxy, and of the endpoint.
pub(super) const NAME: &str = "web.example.com";
const ENDPOINT: &str = "endpoint.example.com";

/// The field that carries a call's number.
pub(super) const CALL: &str = "x-call";

/// Bytes in both directions.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

pub(super) struct World {
    protocol: Protocol,
    security: Security,
    servers: Authority,
    clients: Authority,
    /// Always there: in cleartext it is for the listener beside.
    tls: TlsClient,
    endpoint: Endpoint,
    front: Option<TlsFront>,
    first: (Issued, Issued),
}

impl World {
    pub(super) async fn new(protocol: Protocol, security: Security) -> Arc<World> {
        let (servers, clients) = (Authority::new(), Authority::new());
        let client = clients.issue(&Says::uri("spiffe://example.org/client"));
        let tls = match security {
            Security::Mtls => TlsClient::with_certificate(NAME, &servers, &client),
            _ => TlsClient::new(NAME, &servers),
        };
        let endpoint = Endpoint::start(protocol).await;
        let front = TlsFront::to(endpoint.address(), &servers.issue(&Says::name(ENDPOINT)));
        let front = front.alpn(protocol.alpn());
        let front = match security {
            Security::Cleartext => None,
            Security::Tls => Some(front.start().await),
            Security::Mtls => Some(front.asking(&clients).start().await),
        };
        let tls = tls.alpn(protocol.alpn());
        let first = (own(&servers), shown(&clients));
        Arc::new(World { protocol, security, servers, clients, tls, endpoint, front, first })
    }

    pub(super) fn protocol(&self) -> Protocol {
        self.protocol
    }

    pub(super) fn security(&self) -> Security {
        self.security
    }

    /// A certificate for the listener.
    pub(super) fn issue_own(&self) -> Issued {
        own(&self.servers)
    }

    /// A certificate for the cluster to show.
    pub(super) fn issue_client(&self) -> Issued {
        shown(&self.clients)
    }

    /// The proxy's configuration. Each version differs in its chain, its listener and its cluster.
    pub(super) fn setup(&self, version: u32) -> Setup {
        let setup = Meshgate::with(&self.yaml(version));
        let setup = setup.pair("web", &self.first.0).pair("own", &self.first.1);
        let setup = setup.file("servers.pem", self.servers.certificate());
        setup.file("clients.pem", self.clients.certificate())
    }

    fn yaml(&self, version: u32) -> String {
        let certificates = "certificates: [{certificate: web.pem, key: web.key}]";
        let unknown = ["refuse", "default"][version as usize % 2];
        let tls = match self.security {
            Security::Cleartext => String::new(),
            Security::Tls => format!("    tls: {{{certificates}, unknown_names: {unknown}}}\n"),
            Security::Mtls => format!(
                "    tls: {{{certificates}, unknown_names: {unknown}, client_certificates: {{ca: clients.pem}}}}\n"
            ),
        };
        let kind = match self.protocol {
            Protocol::Tcp => format!("    protocol: tcp\n    idle_timeout: 1{version}m\n"),
            _ => "    chain: web\n".to_owned(),
        };
        let beside = match self.security {
            Security::Cleartext => {
                format!(
                    "  - name: beside\n    address: 127.0.0.1:0\n    cluster: one\n    tls: {{{certificates}}}\n"
                )
            }
            _ => String::new(),
        };
        let shown = match self.security {
            Security::Mtls => ", certificate: own.pem, key: own.key",
            _ => "",
        };
        let to_endpoint = match &self.front {
            Some(_) => format!(", tls: {{ca: servers.pem, server_name: {ENDPOINT}{shown}}}"),
            None => String::new(),
        };
        let protocol = if self.protocol.is_http2() { "http2" } else { "http1" };
        let address = self.front.as_ref().map_or(self.endpoint.address(), TlsFront::address);
        format!(
            "admin: {{address: \"127.0.0.1:0\"}}\n\
             access_log: {{format: json}}\n\
             workers: 2\n\
             drain: {{timeout: 1m, spread: 300ms}}\n\
             listeners:\n  \
               - name: web\n    address: 127.0.0.1:0\n    cluster: one\n{kind}{tls}{beside}\
             chains:\n  \
               web:\n    - headers: {{response: {{set: {{x-version: \"{version}\"}}}}}}\n\
             clusters:\n  \
               - {{name: one, endpoints: [\"{address}\"], protocol: {protocol}, connect_timeout: 1{version}s{to_endpoint}}}\n"
        )
    }

    /// A connection to the proxy.
    pub(super) async fn dial(&self, proxy: SocketAddr) -> io::Result<Box<dyn Stream>> {
        if self.security != Security::Cleartext {
            return Ok(Box::new(self.tls.try_connect(proxy).await?.stream));
        }
        let stream = TcpStream::connect(proxy).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }

    /// A connection to the proxy that speaks HTTP.
    pub(super) async fn dial_http(&self, proxy: SocketAddr) -> io::Result<Client> {
        let stream = self.dial(proxy).await?;
        let client = Client::try_over(stream, self.protocol.is_http2(), NAME).await;
        // Nothing was asked yet.
        client.map_err(|error| io::Error::new(io::ErrorKind::ConnectionAborted, error))
    }

    /// Whether new handshakes get this certificate.
    pub(super) async fn is_shown(&self, gate: &Meshgate, issued: &Issued) -> bool {
        let address = match self.security {
            Security::Cleartext => gate.listener("beside"),
            _ => gate.address(),
        };
        self.tls.clone().alpn(&[]).forgetful().connect(address).await.shows(issued)
    }

    /// Whether the endpoint was shown this certificate.
    pub(super) fn has_met(&self, issued: &Issued) -> bool {
        let met = self.front.as_ref().map(TlsFront::met).unwrap_or_default();
        met.iter().any(|met| met.certificate == issued.sha256())
    }

    /// The calls that came to the endpoint.
    pub(super) fn reached(&self) -> HashSet<u32> {
        let number = |text: &str| text.parse().ok();
        match &self.endpoint {
            Endpoint::Http(backend) => {
                backend.seen().iter().filter_map(|seen| number(seen.header(CALL))).collect()
            }
            Endpoint::WebSocket(backend) => {
                let seen = backend.seen();
                seen.iter().filter_map(|head| number(head.headers().get(CALL)?.to_str().ok()?)).collect()
            }
            Endpoint::Tcp(echo) => echo.seen.lock().unwrap().clone(),
        }
    }
}

fn own(servers: &Authority) -> Issued {
    servers.issue(&Says::name(NAME))
}

fn shown(clients: &Authority) -> Issued {
    clients.issue(&Says::uri("spiffe://example.org/proxy"))
}

/// Sends back what it gets.
enum Endpoint {
    Http(Backend),
    WebSocket(WebSocketBackend),
    Tcp(TcpEcho),
}

impl Endpoint {
    async fn start(protocol: Protocol) -> Endpoint {
        let echo = async |_: Seen, request: http::Request<Incoming>| {
            Ok(Response::new(request.into_body().map_err(io::Error::other).boxed()))
        };
        match protocol {
            Protocol::Http1 => Endpoint::Http(Backend::answering("one", echo).await),
            Protocol::Http2 => Endpoint::Http(Backend::http2("one", echo).await),
            Protocol::GrpcUnary | Protocol::GrpcStream => Endpoint::Http(grpc_backend("one").await),
            Protocol::WebSocket => Endpoint::WebSocket(WebSocketBackend::start().await),
            Protocol::Tcp => Endpoint::Tcp(TcpEcho::start().await),
        }
    }

    fn address(&self) -> SocketAddr {
        match self {
            Endpoint::Http(backend) => backend.address(),
            Endpoint::WebSocket(backend) => backend.address(),
            Endpoint::Tcp(echo) => echo.address,
        }
    }
}

/// A server that sends all bytes back, and remembers the first four of each connection as a number.
struct TcpEcho {
    address: SocketAddr,
    seen: Arc<Mutex<HashSet<u32>>>,
    accepting: AbortHandle,
}

impl TcpEcho {
    async fn start() -> TcpEcho {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, seen) = (listener.local_addr().unwrap(), Arc::default());
        let numbers = Arc::clone(&seen);
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                // A connection that breaks is for its client to tell.
                connections.spawn(echo(stream, Arc::clone(&numbers)));
                while connections.try_join_next().is_some() {}
            }
        });
        TcpEcho { address, seen, accepting: accepting.abort_handle() }
    }
}

impl Drop for TcpEcho {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn echo(mut stream: TcpStream, seen: Arc<Mutex<HashSet<u32>>>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let number = stream.read_u32().await?;
    seen.lock().unwrap().insert(number);
    stream.write_u32(number).await?;
    let (mut read, mut write) = stream.into_split();
    tokio::io::copy(&mut read, &mut write).await?;
    write.shutdown().await
}
