//! Where a cluster's endpoints come from when they are not written in the configuration: `dns` and `endpoints_file`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use crate::Diagnostics;
use crate::address::Address;
use crate::cluster::{Endpoint, EndpointForm};
use crate::diagnostic::Report;
use crate::document::read_checked;
use crate::files::Files;
use crate::references::{self, lasting, position_of};
use crate::schema::Checker;
use crate::tree::{Kind, Node};
use crate::units::{DurationText, parse_duration};

/// Where a cluster's endpoints come from.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Discovery {
    /// From the configuration.
    #[default]
    Static,
    /// From DNS.
    Dns(Dns),
    /// From a file of their own, which is watched.
    File(PathBuf),
}

/// How endpoints are asked for in DNS.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Dns {
    /// What is asked for.
    pub name: DnsName,
    /// Which addresses are asked for.
    pub family: AddressFamily,
    /// One endpoint only, which stays as long as the answers name it.
    pub logical: bool,
    /// An answer is believed at least for so long.
    pub min_ttl: Duration,
    /// An answer is believed at most for so long.
    pub max_ttl: Duration,
    /// How soon a failed question is asked again; twice as long after each further failure.
    pub retry: Duration,
    /// The name servers to ask; none: those of the system.
    pub resolvers: Vec<SocketAddr>,
}

/// A name in DNS.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum DnsName {
    /// A host, all of whose addresses are endpoints at this port.
    Host {
        /// The host.
        host: String,
        /// The endpoints' port.
        port: u16,
    },
    /// A service, whose SRV records say hosts, ports, priorities and weights.
    Srv(String),
}

/// Which addresses of a host are asked for.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, JsonSchema, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum AddressFamily {
    /// IPv4, and IPv6 if there is none.
    #[default]
    #[serde(rename = "v4_then_v6")]
    V4ThenV6,
    /// IPv4.
    V4,
    /// IPv6.
    V6,
    /// IPv4 and IPv6.
    Both,
}

/// `dns: {host: "reviews.internal:9000"}`
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DnsEntry {
    /// `HOST:PORT`: all addresses of the host are endpoints.
    #[serde(default)]
    #[schemars(with = "String", extend("format" = "endpoint"))]
    host: Option<String>,
    /// A service such as `_http._tcp.reviews.internal`: its SRV records say hosts, ports, priorities and weights.
    #[serde(default)]
    #[schemars(with = "String", regex(pattern = "^[A-Za-z0-9_-]+([.][A-Za-z0-9_-]+)*[.]?$"))]
    srv: Option<String>,
    /// Which addresses are asked for. Default: v4_then_v6.
    #[serde(default)]
    family: AddressFamily,
    /// One endpoint only, which stays as long as the answers name it: for names whose every answer holds a few of many
    /// addresses. Default: false.
    #[serde(default)]
    logical: bool,
    /// An answer is believed for at least so long, whatever its time to live. Default: 5s.
    #[serde(default)]
    #[schemars(with = "DurationText")]
    min_ttl: Option<DurationText>,
    /// An answer is believed for at most so long. Default: 5m.
    #[serde(default)]
    #[schemars(with = "DurationText")]
    max_ttl: Option<DurationText>,
    /// How soon a failed question is asked again; twice as long after each further failure, up to `max_ttl`. Default: 1s.
    #[serde(default)]
    #[schemars(with = "DurationText")]
    retry: Option<DurationText>,
    /// The name servers to ask, as `IP:PORT`. Default: those of the system.
    #[serde(default)]
    #[schemars(with = "Vec<AddressText>")]
    resolvers: Vec<SocketAddr>,
}

/// Schema of an address.
struct AddressText;

impl JsonSchema for AddressText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Address".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "socket-address"})
    }
}

impl DnsEntry {
    fn with_defaults(self) -> Dns {
        let lasting = |written: Option<DurationText>, default| written.map_or(default, |written| written.0);
        let name = match (self.host, self.srv) {
            (Some(host), _) => {
                let (host, port) = host.rsplit_once(':').unwrap_or((&host, ""));
                let host = host.trim_start_matches('[').trim_end_matches(']');
                // The form of both has been checked.
                DnsName::Host { host: host.to_owned(), port: port.parse().unwrap_or_default() }
            }
            (None, srv) => DnsName::Srv(srv.unwrap_or_default()),
        };
        Dns {
            name,
            family: self.family,
            logical: self.logical,
            min_ttl: lasting(self.min_ttl, MIN_TTL),
            max_ttl: lasting(self.max_ttl, MAX_TTL),
            retry: lasting(self.retry, Duration::from_secs(1)),
            resolvers: self.resolvers,
        }
    }
}

const MIN_TTL: Duration = Duration::from_secs(5);
const MAX_TTL: Duration = Duration::from_secs(300);

/// Where a cluster's endpoints come from, as its entry says.
pub(crate) fn of(dns: Option<DnsEntry>, file: Option<&str>, files: &Files) -> Discovery {
    match (dns, file) {
        (Some(dns), _) => Discovery::Dns(dns.with_defaults()),
        (None, Some(path)) => Discovery::File(files.locate(path)),
        (None, None) => Discovery::Static,
    }
}

/// What a schema cannot say: there is one source of endpoints, and DNS is asked for one name.
pub(crate) fn check(cluster: &Node, report: &mut Report<'_>) {
    if !matches!(cluster.kind, Kind::Map(_)) {
        return;
    }
    let sources = ["endpoints", "dns", "endpoints_file"];
    let mut given = cluster.entries().iter().filter(|entry| sources.contains(&&*entry.key));
    match (given.next(), given.next()) {
        (None, _) => {
            let hint = "`endpoints: [HOST:PORT]`, `dns: {host: \"HOST:PORT\"}` or `endpoints_file: PATH`; `endpoints: []` for none";
            report.error_with(cluster.at, "a cluster needs to know where its endpoints are", hint);
        }
        (Some(first), Some(second)) => {
            let hint = format!("it has `{}`, in line {}", first.key, first.at.line);
            report.error_with(second.at, "a cluster has its endpoints from one place", hint);
        }
        _ => {}
    }
    let Some(dns) = cluster.get("dns").filter(|dns| matches!(dns.kind, Kind::Map(_))) else { return };
    match (dns.get("host"), dns.get("srv")) {
        (None, None) => {
            let hint = "`host: \"reviews.internal:9000\"`, or `srv: _http._tcp.reviews.internal`";
            report.error_with(dns.at, "nothing is asked of DNS", hint);
        }
        (Some(_), Some(srv)) => report.error(srv.at, "DNS is asked for `host` or for `srv`, not for both"),
        (Some(host), None) => {
            if let Some(text) = host.as_text().filter(|text| text.parse::<SocketAddr>().is_ok()) {
                report.error_with(
                    host.at,
                    format!("`{text}` is an address already"),
                    "write it in `endpoints`",
                );
            }
        }
        (None, Some(_)) => {}
    }
    for key in ["min_ttl", "max_ttl", "retry"] {
        lasting(dns, key, report);
    }
    let bound = |key: &str, default| {
        let written = dns.get(key).and_then(Node::as_text).and_then(|text| parse_duration(text).ok());
        written.unwrap_or(default)
    };
    if bound("min_ttl", MIN_TTL) > bound("max_ttl", MAX_TTL) {
        report.error(position_of(dns, "min_ttl"), "`min_ttl` is longer than `max_ttl`");
    }
}

/// Reads a file of endpoints: a list in the form of a cluster's `endpoints`, in YAML or JSON.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load_endpoints(path: &Path) -> Result<Vec<Endpoint>, Diagnostics> {
    static CHECKER: OnceLock<Result<Checker, String>> = OnceLock::new();
    let checker = CHECKER.get_or_init(|| Checker::new(schemars::schema_for!(Vec<EndpointForm>).to_value()));
    read_checked(path, ["file of endpoints", "the list of endpoints"], checker, |root, report| {
        references::endpoint_numbers(root, report);
        Some(references::endpoints_of(root, &mut Default::default(), report))
    })
}

/// The endpoints in a cluster's file, when the configuration is loaded. Mistakes in it are mistakes of the whole; and a file
/// that could not be used is watched, because to mend it mends the whole.
pub(crate) fn endpoints_in_file(
    cluster: &Node,
    files: &mut Files,
    report: &mut Report<'_>,
) -> Option<Vec<Endpoint>> {
    let path = cluster.get("endpoints_file").and_then(Node::as_text)?;
    match load_endpoints(&files.locate(path)) {
        Ok(endpoints) => Some(endpoints),
        Err(diagnostics) => {
            files.resolve(path);
            report.absorb(diagnostics);
            Some(Vec::new())
        }
    }
}

/// Where an endpoint is: from large to small, as far as it is known.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Locality {
    /// Such as a country's data centres.
    pub region: String,
    /// A part of it that fails by itself.
    pub zone: String,
    /// A part of that.
    pub subzone: String,
}

impl Locality {
    /// Reads `REGION/ZONE/SUBZONE`, of which the later ones may be left out.
    pub(crate) fn parse(text: &str) -> Locality {
        let mut parts = text.splitn(3, '/').map(str::to_owned);
        let mut next = || parts.next().unwrap_or_default();
        Locality { region: next(), zone: next(), subzone: next() }
    }

    /// How far it is from here: 0 in the same subzone, 1 in the same zone, 2 in the same region, else 3.
    pub fn distance(&self, here: &Locality) -> u32 {
        match () {
            () if self.region.is_empty() || self.region != here.region => 3,
            () if self.zone != here.zone => 2,
            () if self.subzone != here.subzone => 1,
            () => 0,
        }
    }
}

impl Endpoint {
    /// An endpoint of which nothing more is known.
    pub fn at(address: impl Into<Address>) -> Endpoint {
        Endpoint {
            address: address.into(),
            weight: 1,
            priority: 0,
            labels: Default::default(),
            locality: Locality::default(),
            host: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        let here = Locality::parse("eu/a/1");
        let far = |text: &str| Locality::parse(text).distance(&here);
        assert_eq!(
            ["eu/a/1", "eu/a/2", "eu/b/1", "us/a/1", "", "eu", "eu/a"].map(far),
            [0, 1, 2, 3, 3, 2, 1]
        );
    }
}
