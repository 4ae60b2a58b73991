//! What rules ask of a request or a connection. Each fact is read from the host when a rule first asks for it.

use std::cell::OnceCell;
use std::net::{IpAddr, SocketAddr};

use meshgate_sdk::{Request, property};
use serde_json::Value;

use crate::path;
use crate::pattern::without_port;

/// The facts of one request, or by default of one TCP connection.
#[derive(Default)]
pub(crate) struct Facts {
    /// None for a TCP connection, of which nothing is known that only HTTP says.
    request: Option<Request>,
    trusted_hops: u8,
    identity: OnceCell<Option<String>>,
    principal: OnceCell<Option<String>>,
    claims: OnceCell<Value>,
    address: OnceCell<Option<IpAddr>>,
    client_address: OnceCell<Option<IpAddr>>,
    host: OnceCell<Vec<u8>>,
    method: OnceCell<Vec<u8>>,
    path: OnceCell<Option<Vec<u8>>>,
    port: OnceCell<Option<i64>>,
    server_name: OnceCell<Option<String>>,
}

impl Facts {
    pub(crate) fn of_request(request: Request, trusted_hops: u8) -> Self {
        Self { request: Some(request), trusted_hops, ..Self::default() }
    }

    pub(crate) fn request(&self) -> Option<&Request> {
        self.request.as_ref()
    }

    /// The client's identity by its certificate.
    pub(crate) fn identity(&self) -> Option<&str> {
        self.identity.get_or_init(|| property::text("connection/uri_san_peer_certificate")).as_deref()
    }

    /// What follows `/ns/` in a SPIFFE ID.
    pub(crate) fn namespace(&self) -> Option<&str> {
        let (_, path) = self.identity()?.strip_prefix("spiffe://")?.split_once('/')?;
        path.strip_prefix("ns/")?.split('/').next().filter(|namespace| !namespace.is_empty())
    }

    /// The token's issuer and subject, which the filter `jwt` leaves.
    pub(crate) fn principal(&self) -> Option<&str> {
        let left = || property::text("jwt.principal").filter(|principal| !principal.is_empty());
        self.principal.get_or_init(left).as_deref()
    }

    /// A claim of the token, which the filter `jwt` leaves: by its name, or by names with dots between them.
    pub(crate) fn claim(&self, name: &str) -> Option<&Value> {
        let claims = self.claims.get_or_init(|| {
            let json = property::bytes("jwt.claims").unwrap_or_default();
            serde_json::from_slice(&json).unwrap_or_default()
        });
        claims.get(name).or_else(|| name.split('.').try_fold(claims, |value, name| value.get(name)))
    }

    /// Where the connection comes from.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        *self.address.get_or_init(|| {
            let address: SocketAddr = property::text("source/address")?.parse().ok()?;
            Some(address.ip())
        })
    }

    /// Where the request comes from, as the trusted proxies say; a connection comes from where it comes from.
    pub(crate) fn client_address(&self) -> Option<IpAddr> {
        match &self.request {
            Some(request) if self.trusted_hops > 0 => {
                *self.client_address.get_or_init(|| request.client_address(self.trusted_hops))
            }
            _ => self.address(),
        }
    }

    /// The authority without its port, in lower case.
    pub(crate) fn host(&self, request: &Request) -> &[u8] {
        self.host.get_or_init(|| {
            let authority = request.headers().get_bytes(":authority").unwrap_or_default();
            let host = without_port(&authority);
            host.strip_suffix(b".").unwrap_or(host).to_ascii_lowercase()
        })
    }

    pub(crate) fn method(&self, request: &Request) -> &[u8] {
        self.method.get_or_init(|| request.headers().get_bytes(":method").unwrap_or_default())
    }

    /// The path in its canonical form, if it has one.
    pub(crate) fn path(&self, request: &Request) -> Option<&[u8]> {
        let path = self.path.get_or_init(|| {
            let target = request.headers().get_bytes(":path").unwrap_or_default();
            path::canonical(&target)
        });
        path.as_deref()
    }

    /// The port that the client connected to.
    pub(crate) fn port(&self) -> Option<i64> {
        *self.port.get_or_init(|| property::integer("destination/port"))
    }

    /// The name that the client asked for in the TLS handshake, in lower case.
    pub(crate) fn server_name(&self) -> Option<&str> {
        self.server_name
            .get_or_init(|| {
                let name = property::text("connection/requested_server_name")?;
                Some(name.trim_end_matches('.').to_ascii_lowercase())
            })
            .as_deref()
    }

    /// Who wants what, for a line in the log.
    pub(crate) fn summary(&self) -> String {
        let mut summary = String::new();
        if let Some(request) = &self.request {
            for part in [self.method(request), b" ", self.host(request), request.path().as_bytes(), b" "] {
                summary.push_str(&String::from_utf8_lossy(part));
            }
        }
        summary.push_str("from ");
        summary.push_str(&property::text("source/address").unwrap_or_default());
        for who in [self.identity(), self.principal()].into_iter().flatten() {
            summary.push_str(", ");
            summary.push_str(who);
        }
        summary
    }
}
