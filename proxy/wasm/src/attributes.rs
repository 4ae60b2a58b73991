//! What is known of an exchange beside its messages: what filters read as properties, and what they leave there.

use std::borrow::Cow;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::address::Address;
use crate::node::{Locality, Metadata};

/// The downstream connection an exchange came on.
#[derive(Debug)]
pub struct Connection {
    /// Unique in the process.
    pub id: u64,
    /// The address of who connected.
    pub source: Address,
    /// Our address, as the client reached it.
    pub destination: Address,
    /// What its TLS handshake settled, or what was seen of one that is passed through.
    pub tls: Option<Tls>,
    /// What filters set for as long as the connection lasts.
    pub custom: RefCell<CustomProperties>,
}

impl Connection {
    /// A cleartext connection.
    pub fn cleartext(id: u64, source: impl Into<Address>, destination: impl Into<Address>) -> Connection {
        let (source, destination) = (source.into(), destination.into());
        Connection { id, source, destination, tls: None, custom: RefCell::default() }
    }
}

/// What a TLS handshake settled: the one source of all properties about TLS.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// The negotiated version, such as `TLSv1.3`.
    pub version: Option<&'static str>,
    /// The server name that the client asked for.
    pub server_name: Option<Rc<str>>,
    /// The certificate we showed.
    pub local: Option<Arc<Certificate>>,
    /// The certificate that the other side showed and that we accept. On a downstream connection it makes the
    /// connection one with mutual TLS.
    pub peer: Option<Arc<Certificate>>,
}

/// What filters may know of a certificate. Our own are read once for all workers.
#[derive(Clone, Debug, Default)]
pub struct Certificate {
    /// The subject, as RFC 2253 writes it.
    pub subject: Box<str>,
    /// The first DNS name among the subject's alternative names.
    pub dns_san: Option<Box<str>>,
    /// The first URI among the subject's alternative names.
    pub uri_san: Option<Box<str>>,
    /// The SHA-256 of the certificate, in hex.
    pub sha256: Box<str>,
    /// The certificate in PEM, URL-encoded.
    pub pem: Box<str>,
}

/// What filters may know of the listener an exchange came in on.
#[derive(Clone, Debug, Default)]
pub struct ListenerFacts {
    /// Where its traffic goes, seen from the application beside the proxy.
    pub direction: Direction,
    /// What its configuration says of it, by the name of who reads it.
    pub metadata: Metadata,
}

/// What filters may know of an endpoint beside its address.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EndpointFacts {
    /// Where it is.
    pub locality: Locality,
    /// What its source says of it, by the name of who reads it.
    pub metadata: Metadata,
}

/// Where a listener's traffic goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Direction {
    /// Neither: a gateway.
    #[default]
    Unspecified = 0,
    /// To the application.
    Inbound = 1,
    /// From the application.
    Outbound = 2,
}

/// What is known of an exchange beside its messages. The embedder fills the fields in as it learns them.
#[derive(Clone, Debug)]
pub struct Attributes {
    /// The downstream connection.
    pub connection: Rc<Connection>,
    /// The client's address: the connection's, unless a proxy in front says for whom it asks.
    pub source: Address,
    /// When the request's head had arrived, by the wall clock.
    pub start: SystemTime,
    /// The same moment by the monotonic clock.
    pub started: Instant,
    /// Request body bytes received so far; of TCP: bytes from the client.
    pub request_bytes: u64,
    /// Response body bytes sent so far; of TCP: bytes to the client.
    pub response_bytes: u64,
    /// The name of the decided route.
    pub route: Option<Rc<str>>,
    /// The name of the decided cluster.
    pub cluster: Option<Rc<str>>,
    /// What the configuration says of that cluster, by the name of who reads it; none if nothing.
    pub cluster_metadata: Option<Rc<Metadata>>,
    /// What the configuration says of the listener; none if nothing.
    pub listener: Option<Rc<ListenerFacts>>,
    /// The endpoint that was connected to.
    pub upstream_address: Option<Address>,
    /// What is known of it beside; none if nothing.
    pub upstream_facts: Option<Rc<EndpointFacts>>,
    /// Our side of that connection.
    pub upstream_local_address: Option<Address>,
    /// How many endpoints the cluster has.
    pub upstream_endpoints: Option<u64>,
    /// How long it took until a connection was there for the request.
    pub upstream_ready_after: Option<Duration>,
    /// Why no connection to the endpoint could be made.
    pub upstream_failure: Option<Box<str>>,
    /// What the TLS handshake with the endpoint settled.
    pub upstream_tls: Option<Rc<Tls>>,
    /// How many times the request was sent upstream.
    pub attempts: u32,
    /// How many calls of filters led to this exchange: 0 for a client's. See [`crate::HttpCall::depth`].
    pub call_depth: u32,
    /// Response flags as a bit set (the embedder's numbering), served as `response.flags`.
    pub response_flags: u64,
    /// Why the response is what it is, served as `response.code_details`.
    pub response_code_details: Option<Cow<'static, str>>,
    /// How long the exchange took, once it has ended.
    pub duration: Option<Duration>,
    /// From the request's last byte sent upstream to the response's first byte.
    pub backend_latency: Option<Duration>,
    /// What filters set by `proxy_set_property`.
    pub custom: CustomProperties,
}

impl Attributes {
    /// The attributes of an exchange that begins now.
    pub fn new(connection: Rc<Connection>) -> Attributes {
        Attributes {
            source: connection.source,
            connection,
            start: SystemTime::now(),
            started: Instant::now(),
            request_bytes: 0,
            response_bytes: 0,
            route: None,
            cluster: None,
            cluster_metadata: None,
            listener: None,
            upstream_address: None,
            upstream_facts: None,
            upstream_local_address: None,
            upstream_endpoints: None,
            upstream_ready_after: None,
            upstream_failure: None,
            upstream_tls: None,
            attempts: 0,
            call_depth: 0,
            response_flags: 0,
            response_code_details: None,
            duration: None,
            backend_latency: None,
            custom: CustomProperties::default(),
        }
    }
}

/// A property set by a filter: raw path bytes and raw value bytes.
#[derive(Clone, Debug)]
struct CustomProperty {
    path: Box<[u8]>,
    value: Box<[u8]>,
}

/// Properties set by filters. Few per exchange, so a list.
#[derive(Clone, Debug, Default)]
pub struct CustomProperties {
    entries: Vec<CustomProperty>,
    bytes: usize,
}

impl CustomProperties {
    /// The most entries of one exchange.
    pub const MAX_ENTRIES: usize = 256;
    /// The most bytes of one exchange, paths and values.
    pub const MAX_BYTES: usize = 256 << 10;

    /// The value under exactly this path (segments separated by NUL).
    pub fn find(&self, path: &[u8]) -> Option<&[u8]> {
        self.entries.iter().find(|known| *known.path == *path).map(|known| &*known.value)
    }

    /// Sets a value; false if the exchange holds too many or too large ones already.
    pub fn set(&mut self, path: &[u8], value: &[u8]) -> bool {
        let existing = self.entries.iter().position(|known| *known.path == *path);
        let old = existing.map_or(0, |at| path.len() + self.entries[at].value.len());
        let bytes = self.bytes - old + path.len() + value.len();
        if bytes > Self::MAX_BYTES || (existing.is_none() && self.entries.len() >= Self::MAX_ENTRIES) {
            return false;
        }
        match existing {
            // Such as a flag or a counter, in its place. Not a shorter one: the room of the longer would stay, and is not counted.
            Some(at) if self.entries[at].value.len() == value.len() => {
                self.entries[at].value.copy_from_slice(value);
            }
            Some(at) => self.entries[at].value = value.into(),
            None => self.entries.push(CustomProperty { path: path.into(), value: value.into() }),
        }
        self.bytes = bytes;
        true
    }

    /// Bytes of all paths and values.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// All entries, in the order they were first set.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.entries.iter().map(|known| (&*known.path, &*known.value))
    }
}
