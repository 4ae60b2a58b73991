//! What the service is told of a request: keys and values.

use std::cell::OnceCell;
use std::net::IpAddr;

use meshgate_sdk::{Request, property};

use crate::config::{DescriptorConfig, EntryConfig, Network, Source, Unit};
use crate::service::{Descriptor, Entry, Hits, Limit};

/// A request, of which each fact is read from the host once.
pub(crate) struct Facts {
    pub(crate) request: Request,
    trusted_hops: u8,
    address: OnceCell<Option<IpAddr>>,
}

impl Facts {
    pub(crate) fn new(request: Request, trusted_hops: u8) -> Self {
        Self { request, trusted_hops, address: OnceCell::new() }
    }

    fn address(&self) -> Option<IpAddr> {
        *self.address.get_or_init(|| self.request.client_address(self.trusted_hops))
    }

    /// The value, if the request has one.
    fn value(&self, source: &Source) -> Option<String> {
        let value = match source {
            Source::ClientAddress => self.address()?.to_canonical().to_string(),
            Source::ClientNetwork(network) => masked(self.address()?.to_canonical(), *network),
            Source::PeerIdentity => property::text("connection/uri_san_peer_certificate")?,
            Source::Method => self.request.method(),
            Source::Host => host(&self.request.authority()),
            Source::Path => self.request.path(),
            Source::Cluster => property::text("xds/cluster_name")?,
            Source::Route => property::text("xds/route_name")?,
            Source::Value(text) => text.clone(),
            Source::Header(name) => self.request.header(name)?,
            Source::Property(path) => property::text(path)?,
        };
        (!value.is_empty()).then_some(value)
    }
}

impl Source {
    /// The key, unless the configuration has another one: Envoy's, where it knows such a thing.
    fn key(&self) -> &str {
        match self {
            Self::ClientAddress => "remote_address",
            Self::ClientNetwork(_) => "masked_remote_address",
            Self::PeerIdentity => "peer_identity",
            Self::Method => "method",
            Self::Host => "host",
            Self::Path => "path",
            Self::Cluster => "destination_cluster",
            Self::Route => "route",
            Self::Value(_) => "generic_key",
            Self::Header(name) => name,
            Self::Property(path) => path,
        }
    }
}

/// What the service is told; `None` if the request lacks something that is counted by here.
pub(crate) fn describe(descriptor: &DescriptorConfig, facts: &Facts) -> Option<Descriptor> {
    let mut entries = Vec::with_capacity(descriptor.entries.len());
    for EntryConfig { from, key, default, optional } in &descriptor.entries {
        match facts.value(from).or_else(|| default.clone()) {
            Some(value) => {
                entries.push(Entry { key: key.as_deref().unwrap_or(from.key()).to_owned(), value });
            }
            None if *optional => {}
            None => return None,
        }
    }
    let limit = descriptor.limit.map(|limit| Limit {
        requests_per_unit: limit.requests,
        unit: unit(limit.per),
        name: String::new(),
    });
    let hits_addend = descriptor.hits.map(|value| Hits { value });
    (!entries.is_empty()).then_some(Descriptor { entries, limit, hits_addend })
}

/// As Envoy numbers them.
const fn unit(unit: Unit) -> i32 {
    match unit {
        Unit::Second => 1,
        Unit::Minute => 2,
        Unit::Hour => 3,
        Unit::Day => 4,
        Unit::Month => 5,
        Unit::Year => 6,
        Unit::Week => 7,
    }
}

/// The authority without its port, in lower case. The colons inside `[::1]` are not the port's.
fn host(authority: &str) -> String {
    let bare = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    bare.to_ascii_lowercase()
}

/// A network as `192.168.1.0/24`.
fn masked(address: IpAddr, Network { v4, v6 }: Network) -> String {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(v4.into())).unwrap_or(0);
            format!("{}/{v4}", std::net::Ipv4Addr::from_bits(address.to_bits() & mask))
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(v6.into())).unwrap_or(0);
            format!("{}/{v6}", std::net::Ipv6Addr::from_bits(address.to_bits() & mask))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_written_as_envoy_does() {
        let network = |address: &str, v4, v6| masked(address.parse().unwrap(), Network { v4, v6 });
        assert_eq!(network("192.168.1.7", 24, 64), "192.168.1.0/24");
        assert_eq!(network("192.168.1.7", 32, 64), "192.168.1.7/32");
        assert_eq!(network("192.168.1.7", 0, 64), "0.0.0.0/0");
        assert_eq!(network("2001:abcd:ef01:2345:6789:abcd:ef01:234", 32, 64), "2001:abcd:ef01:2345::/64");
        assert_eq!(network("2001:db8::1", 32, 128), "2001:db8::1/128");
        assert_eq!(network("2001:db8::1", 32, 0), "::/0");
    }

    #[test]
    fn a_host_has_no_port_and_no_case() {
        for (authority, expected) in [
            ("Shop.example:80", "shop.example"),
            ("a", "a"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
            ("", ""),
        ] {
            assert_eq!(host(authority), expected);
        }
    }
}
