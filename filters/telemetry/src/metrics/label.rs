//! Labels: their names, and where their values come from.

use meshgate_sdk::property;

use crate::format::{Format, Words, flags};
use crate::seen::{Direction, Seen};

/// The most bytes of a value. A host refuses values that are much longer, and nobody reads them.
const MOST: usize = 256;

/// The versions of TLS on both sides; none in cleartext.
pub(super) const CLIENT_TLS: &str = "connection/tls_version";
pub(super) const SERVER_TLS: &str = "upstream/tls_version";

/// A label of a set of metrics.
#[derive(Clone, Debug)]
pub(crate) struct Label {
    pub(crate) name: String,
    pub(crate) source: Source,
    /// The value if there is none.
    pub(crate) absent: &'static str,
}

/// Where a value comes from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// A property that is text.
    Property(&'static str),
    /// One property where traffic comes in to the application, and another one everywhere else. An empty path is none.
    Sided {
        inbound: &'static str,
        else_where: &'static str,
    },
    /// Of the application beside the proxy, where it is the source of the traffic or its destination; of the other side the
    /// namespace in the SPIFFE identity that the property is.
    Own {
        is_source: bool,
        value: String,
        peer: Option<&'static str>,
    },
    Code,
    /// `2xx`
    Class,
    Flags,
    /// Two words: for success and for failure.
    Outcome(&'static str, &'static str),
    GrpcStatus,
    /// `http`, `grpc` or `tcp`
    Kind,
    Method,
    /// Words for the gateway, inbound and outbound.
    Direction([&'static str; 3]),
    /// Whether the connection has mutual TLS, where the proxy is the server: words for yes, no, and elsewhere.
    Security([&'static str; 3]),
    /// `true` if the connection has TLS by whose version this property is.
    Tls(&'static str),
    /// `true` if the connection on the application's far side has TLS.
    FarTls,
    Fixed(&'static str),
    /// The cluster's service: what its metadata says, or its name; or a part of it.
    Service(ServicePart),
    Format(Format),
}

/// A part of a service's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServicePart {
    Host,
    Name,
    Namespace,
}

impl Label {
    pub(crate) fn new(name: &str, source: Source, absent: &'static str) -> Self {
        Self { name: name.to_owned(), source, absent }
    }

    /// Appends the value.
    pub(crate) fn write(&self, seen: &Seen<'_>, out: &mut Vec<u8>) {
        let start = out.len();
        self.source.write(seen, out);
        if out.len() == start {
            out.extend_from_slice(self.absent.as_bytes());
        }
        out.truncate(start + MOST);
    }
}

impl Source {
    fn write(&self, seen: &Seen<'_>, out: &mut Vec<u8>) {
        let mut put = |text: &str| out.extend_from_slice(text.as_bytes());
        match self {
            Self::Property(path) => out.extend(property::bytes(path).unwrap_or_default()),
            Self::Sided { inbound, else_where } => {
                let path = if seen.direction() == Direction::Inbound { inbound } else { else_where };
                if !path.is_empty() {
                    out.extend(property::bytes(path).unwrap_or_default());
                }
            }
            Self::Own { is_source, value, peer } => match peer {
                _ if *is_source == (seen.direction() != Direction::Inbound) => put(value),
                Some(path) => put(namespace(&property::text(path).unwrap_or_default())),
                None => {}
            },
            Self::Code => crate::escape::number(seen.code().into(), out),
            Self::Class => put(class(seen.code())),
            Self::Flags => put(&flags(seen.flags(), Words::Short)),
            Self::Outcome(success, failure) => put(if seen.failed() { failure } else { success }),
            Self::GrpcStatus => {
                if let Some(status) = seen.grpc_status() {
                    crate::escape::number(status.into(), out);
                }
            }
            Self::Kind => put(match seen.exchange() {
                None => "tcp",
                Some(_) if seen.is_grpc() => "grpc",
                Some(_) => "http",
            }),
            Self::Method => out.extend(method(seen)),
            Self::Direction([gateway, inbound, outbound]) => put(match seen.direction() {
                Direction::Gateway => gateway,
                Direction::Inbound => inbound,
                Direction::Outbound => outbound,
            }),
            Self::Security([mutual, none, elsewhere]) => put(match seen.direction() {
                Direction::Inbound if seen.is_mtls() => mutual,
                Direction::Inbound => none,
                _ => elsewhere,
            }),
            Self::Tls(path) => put(has_tls(path)),
            Self::FarTls => {
                let inbound = seen.direction() == Direction::Inbound;
                put(has_tls(if inbound { CLIENT_TLS } else { SERVER_TLS }));
            }
            Self::Fixed(value) => put(value),
            Self::Service(part) => put(&service(*part)),
            Self::Format(format) => format.plain(seen, out),
        }
    }
}

/// The request's method, if it is one that is known: clients may make up any.
fn method(seen: &Seen<'_>) -> Vec<u8> {
    const KNOWN: [&[u8]; 9] =
        [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"CONNECT", b"TRACE"];
    let method = seen.exchange().and_then(|exchange| exchange.request().headers().get_bytes(":method"));
    let method = method.unwrap_or_default();
    if KNOWN.contains(&&*method) { method } else { b"other".to_vec() }
}

fn has_tls(path: &str) -> &'static str {
    if property::bytes(path).is_some() { "true" } else { "false" }
}

fn class(code: u16) -> &'static str {
    match code / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        5 => "5xx",
        _ => "none",
    }
}

/// The namespace in `spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT`; empty if there is none.
fn namespace(identity: &str) -> &str {
    let path = identity.strip_prefix("spiffe://").and_then(|rest| rest.split_once("/ns/"));
    path.map_or("", |(_, rest)| rest.split('/').next().unwrap_or_default())
}

/// What a mesh says of the cluster under `istio`, or else its name, where `NAME.NAMESPACE.svc…` has the parts.
fn service(part: ServicePart) -> String {
    let said =
        |key: &str| property::text(&format!("xds/cluster_metadata/filter_metadata/istio/services/0/{key}"));
    let said = said(match part {
        ServicePart::Host => "host",
        ServicePart::Name => "name",
        ServicePart::Namespace => "namespace",
    });
    said.unwrap_or_else(|| {
        let cluster = property::text("xds/cluster_name").unwrap_or_default();
        part_of(&cluster, part).to_owned()
    })
}

fn part_of(cluster: &str, part: ServicePart) -> &str {
    let mut parts = cluster.splitn(4, '.');
    let (name, namespace, kind) = (parts.next(), parts.next(), parts.next());
    let split = name.zip(namespace).filter(|_| kind == Some("svc"));
    match (part, split) {
        (ServicePart::Host, _) | (ServicePart::Name, None) => cluster,
        (ServicePart::Name, Some((name, _))) => name,
        (ServicePart::Namespace, Some((_, namespace))) => namespace,
        (ServicePart::Namespace, None) => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart() {
        assert_eq!(namespace("spiffe://mesh.example/ns/shop/sa/cart"), "shop");
        assert_eq!(namespace("spiffe://mesh.example/cart"), "");
        assert_eq!(namespace("https://mesh.example/ns/shop/sa/cart"), "");
        let parts = |cluster| {
            [ServicePart::Host, ServicePart::Name, ServicePart::Namespace].map(|part| part_of(cluster, part))
        };
        assert_eq!(parts("cart.shop.svc.cluster.local"), ["cart.shop.svc.cluster.local", "cart", "shop"]);
        assert_eq!(parts("cart.example.com"), ["cart.example.com", "cart.example.com", ""]);
        assert_eq!(parts("cart"), ["cart", "cart", ""]);
    }

    #[test]
    fn classes() {
        assert_eq!([0, 101, 204, 302, 404, 599].map(class), ["none", "1xx", "2xx", "3xx", "4xx", "5xx"]);
    }
}
