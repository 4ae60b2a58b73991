//! TLS to clusters' endpoints: by what they are known, and what they are shown.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{CertificateFiles, NamedFile, TlsVersion, identities, named, note, versions};
use crate::diagnostic::Report;
use crate::files::Files;
use crate::references::lasting;
use crate::tree::Node;
use crate::units::DurationText;
use crate::words::quoted;
use crate::{Position, address, formats};

/// `tls: {server_name: api.example.com, ca: ./ca.pem}`
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClusterTlsEntry {
    /// The name that endpoints are asked for (SNI), and that their certificates must have. Default: the host name that they are
    /// written with; endpoints written as IP addresses are known by these.
    #[serde(default)]
    #[schemars(with = "String")]
    server_name: Option<String>,
    /// Names, of which a certificate must have one, instead of `server_name`.
    #[serde(default)]
    #[schemars(with = "Vec<String>", length(min = 1))]
    names: Option<Vec<String>>,
    /// SPIFFE IDs, of which a certificate must have one, in the forms that `client_certificates.identities` has. Without
    /// `names`, a certificate's names do not matter then.
    #[serde(default)]
    #[schemars(with = "Vec<String>", length(min = 1))]
    identities: Option<Vec<String>>,
    /// PEM file with the roots that certificates are checked against. Default: the system's.
    #[serde(default)]
    #[schemars(with = "String", length(min = 1))]
    ca: Option<String>,
    /// PEM file with the certificate that is shown to endpoints that ask for one. Default: none is.
    #[serde(default)]
    #[schemars(with = "String", length(min = 1))]
    certificate: Option<String>,
    /// PEM file with its private key.
    #[serde(default)]
    #[schemars(with = "String", length(min = 1))]
    key: Option<String>,
    /// The oldest version of TLS that is spoken. Default: tls1.2.
    #[serde(default)]
    #[schemars(with = "TlsVersion")]
    min_version: Option<TlsVersion>,
    /// The newest version of TLS that is spoken. Default: tls1.3.
    #[serde(default)]
    #[schemars(with = "TlsVersion")]
    max_version: Option<TlsVersion>,
    /// How long a handshake may take. Default: what `connect_timeout`, which counts for both, has left.
    #[serde(default)]
    #[schemars(with = "DurationText")]
    handshake_timeout: Option<DurationText>,
}

/// TLS to a cluster's endpoints.
#[derive(Clone, Debug)]
pub struct ClusterTls {
    /// What endpoints are asked for, and known by; none: their IP addresses.
    pub server_name: Option<String>,
    /// The names of which a certificate must have one; empty for `server_name`, unless there are `identities`.
    pub names: Vec<String>,
    /// The SPIFFE IDs of which a certificate must have one; empty for any.
    pub identities: Vec<String>,
    /// PEM: the roots that certificates are checked against; none: the system's.
    pub ca: Option<NamedFile>,
    /// What is shown to endpoints that ask for a certificate.
    pub certificate: Option<CertificateFiles>,
    /// The oldest version.
    pub min_version: TlsVersion,
    /// The newest version.
    pub max_version: TlsVersion,
    /// How long a handshake may take; none: as long as connecting may.
    pub handshake_timeout: Option<Duration>,
    /// Where it is written.
    pub at: Position,
}

impl ClusterTls {
    /// All files that it names.
    pub fn files(&self) -> impl Iterator<Item = &NamedFile> {
        self.certificate.iter().flat_map(CertificateFiles::files).chain(&self.ca)
    }
}

impl PartialEq for ClusterTls {
    /// Where it is written does not matter.
    fn eq(&self, other: &Self) -> bool {
        let all = |tls: &Self| {
            let Self { server_name, names, identities, ca, certificate, .. } = tls.clone();
            let rest = (tls.min_version, tls.max_version, tls.handshake_timeout);
            (server_name, names, identities, ca, certificate, rest)
        };
        all(self) == all(other)
    }
}

impl ClusterTlsEntry {
    /// The model of it; `cluster` is the cluster that it is written in.
    pub(crate) fn resolve(self, node: &Node, cluster: &Node, files: &Files) -> ClusterTls {
        let certificate = self.certificate.zip(self.key).map(|(certificate, key)| CertificateFiles {
            certificate: named(&certificate, node, "certificate", files),
            key: named(&key, node, "key", files),
            names: Vec::new(),
        });
        ClusterTls {
            server_name: self.server_name.or_else(|| written_host(cluster).unwrap_or_default()),
            names: self.names.unwrap_or_default(),
            identities: self.identities.unwrap_or_default(),
            ca: self.ca.map(|ca| named(&ca, node, "ca", files)),
            certificate,
            min_version: self.min_version.unwrap_or(TlsVersion::Tls12),
            max_version: self.max_version.unwrap_or(TlsVersion::Tls13),
            handshake_timeout: self.handshake_timeout.map(|timeout| timeout.0),
            at: node.at,
        }
    }
}

/// The one host name that a cluster's endpoints are written with; none if they are IP addresses. `Err`: several.
fn written_host(cluster: &Node) -> Result<Option<String>, ()> {
    let mut found: Option<Option<&str>> = None;
    for entry in cluster.get("endpoints").map(Node::items).unwrap_or_default() {
        let Some(text) = entry.get("address").unwrap_or(entry).as_text() else { continue };
        let host = text.rsplit_once(':').map_or(text, |(host, _)| host);
        let host = (formats::is_dns_name(host) && !address::is_unix(text)).then_some(host);
        match found {
            None => found = Some(host),
            Some(known) if known == host => {}
            Some(_) => return Err(()),
        }
    }
    Ok(found.flatten().map(str::to_owned))
}

/// Checks what a JSON Schema cannot say about a cluster's TLS.
pub(super) fn check(cluster: &Node, files: &mut Files, report: &mut Report<'_>) {
    let Some(tls) = cluster.get("tls") else { return };
    for key in ["ca", "certificate", "key"] {
        note(tls, key, files);
    }
    versions(tls, report);
    identities(tls, report);
    lasting(tls, "handshake_timeout", report);
    endpoint_names(tls, cluster, report);
}

/// Checks by which names endpoints are to be known.
fn endpoint_names(tls: &Node, cluster: &Node, report: &mut Report<'_>) {
    let names = tls.get("names").map(Node::items).unwrap_or_default();
    for node in tls.get("server_name").into_iter().chain(names) {
        let is_name = |text: &&str| formats::is_dns_name(text) || text.parse::<std::net::IpAddr>().is_ok();
        if let Some(text) = node.as_text().filter(|text| !is_name(text)) {
            report.error(node.at, format!("{} is not a name of a server", quoted(text)));
        }
    }
    if tls.get("server_name").is_none() && written_host(cluster).is_err() {
        let hint = "say by `server_name` what all of them are asked for";
        report.error_with(tls.at, "the endpoints are written with different names", hint);
    }
    let endpoints = cluster.get("endpoints").map(Node::items).unwrap_or_default();
    let unix = endpoints
        .iter()
        .find(|entry| entry.get("address").unwrap_or(entry).as_text().is_some_and(address::is_unix));
    if let Some(endpoint) = unix.filter(|_| tls.get("server_name").is_none()) {
        let hint = "say by `server_name` what they are asked for";
        report.error_with(
            endpoint.at,
            "an endpoint on a Unix socket has no name for its certificate to have",
            hint,
        );
    }
    for (one, other) in [("certificate", "key"), ("key", "certificate")] {
        let written = tls.entries().iter().find(|entry| entry.key == one);
        if let Some(entry) = written.filter(|_| tls.get(other).is_none()) {
            report.error(entry.at, format!("{} needs {} beside it", quoted(one), quoted(other)));
        }
    }
}
