//! TLS in the file: what a listener shows its clients, and what it asks of them. What is in the files that it names
//! is not looked at here: the proxy reads them when it builds a snapshot, and says what is wrong with them at the
//! places noted here.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::diagnostic::Report;
use crate::files::Files;
use crate::references::{lasting, whole};
use crate::tree::Node;
use crate::units::DurationText;
use crate::words::quoted;
use crate::{Position, formats};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_HANDSHAKES: usize = 1000;

/// A file, and where it is named.
#[derive(Clone, Debug)]
pub struct NamedFile {
    /// The file.
    pub path: PathBuf,
    /// Where it is named.
    pub at: Position,
}

impl PartialEq for NamedFile {
    /// Where it is named does not matter.
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path
    }
}

/// A certificate and the key that belongs to it.
#[derive(Clone, Debug, PartialEq)]
pub struct CertificateFiles {
    /// PEM: the certificate, then those between it and the root.
    pub certificate: NamedFile,
    /// PEM: its private key.
    pub key: NamedFile,
    /// The names it is shown for; empty for those in the certificate.
    pub names: Vec<String>,
}

/// TLS on a listener.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerTls {
    /// At least one.
    pub certificates: Vec<CertificateFiles>,
    /// What a client gets that asks for another name, or for none.
    pub unknown_names: UnknownNames,
    /// The protocols that are offered by ALPN, the preferred one first.
    pub alpn: Vec<String>,
    /// The oldest version.
    pub min_version: TlsVersion,
    /// The newest version.
    pub max_version: TlsVersion,
    /// How long a handshake may take, from accept.
    pub handshake_timeout: Duration,
    /// Most handshakes at a time on each worker.
    pub max_handshakes: usize,
    /// What is asked of clients; none if nothing.
    pub clients: Option<ClientCertificates>,
}

/// What is asked of clients.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientCertificates {
    /// Without a certificate there is no connection.
    pub required: bool,
    /// PEM: the roots that their certificates are checked against.
    pub ca: NamedFile,
    /// The SPIFFE IDs of which a certificate must have one; empty for any certificate that the roots vouch for.
    pub identities: Vec<String>,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, Ord, PartialEq, PartialOrd)]
pub enum TlsVersion {
    /// TLS 1.2.
    #[serde(rename = "tls1.2")]
    Tls12,
    /// TLS 1.3.
    #[serde(rename = "tls1.3")]
    Tls13,
}

/// What a client gets that asks for a name that no certificate is for, or for none.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum UnknownNames {
    /// The first certificate.
    #[default]
    Default,
    /// No connection.
    Refuse,
}

/// Whether clients are asked for a certificate.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ClientMode {
    /// They are not.
    None,
    /// They are asked for one, and need not have one; one that they have must be good.
    Optional,
    /// Without one there is no connection.
    #[default]
    Required,
}

/// `tls: {certificates: [{certificate: ./web.pem, key: ./web.key}]}`
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListenerTlsEntry {
    /// Certificates with their keys. A client gets the one for the name it asks for.
    #[schemars(length(min = 1))]
    certificates: Vec<CertificateEntry>,
    /// What a client gets that asks for a name that no certificate is for, or for none: the first certificate, or no
    /// connection. Default: default.
    #[serde(default)]
    unknown_names: UnknownNames,
    /// The protocols that are offered by ALPN, the preferred one first. Default: h2 and http/1.1; with `protocol: tcp`
    /// none.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    alpn: Option<Vec<String>>,
    /// The oldest version of TLS that is spoken. Default: tls1.2.
    #[serde(default)]
    #[schemars(with = "TlsVersion")]
    min_version: Option<TlsVersion>,
    /// The newest version of TLS that is spoken. Default: tls1.3.
    #[serde(default)]
    #[schemars(with = "TlsVersion")]
    max_version: Option<TlsVersion>,
    /// How long a handshake may take, from accept. Default: 5s.
    #[serde(default)]
    #[schemars(with = "DurationText")]
    handshake_timeout: Option<DurationText>,
    /// Most handshakes at a time on each worker; with one more, the oldest is given up. Default: 1000.
    #[serde(default)]
    #[schemars(with = "usize", range(min = 1, max = 1_000_000))]
    max_handshakes: Option<usize>,
    /// What is asked of clients. Default: nothing.
    #[serde(default)]
    #[schemars(with = "ClientCertificatesEntry")]
    client_certificates: Option<ClientCertificatesEntry>,
}

/// `{certificate: ./web.pem, key: ./web.key}`
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CertificateEntry {
    /// PEM file with the certificate, followed by those between it and the root.
    #[schemars(length(min = 1))]
    certificate: String,
    /// PEM file with its private key.
    #[schemars(length(min = 1))]
    key: String,
    /// The names it is shown for: `shop.example.com`, or `*.example.com` for all names with one label more. Default:
    /// the DNS names in the certificate.
    #[serde(default)]
    #[schemars(with = "Vec<String>", length(min = 1))]
    names: Option<Vec<String>>,
}

/// `client_certificates: {mode: required, ca: ./clients.pem}`
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClientCertificatesEntry {
    /// Whether a client must have one. Default: required.
    #[serde(default)]
    mode: ClientMode,
    /// PEM file with the roots that clients' certificates are checked against.
    #[schemars(length(min = 1))]
    ca: String,
    /// SPIFFE IDs, of which a client's certificate must have one: `spiffe://example.org/ns/shop/sa/web`,
    /// `spiffe://example.org/ns/shop/*` for all below, or `spiffe://example.org` for a whole trust domain. Default: any
    /// certificate that the roots vouch for will do.
    #[serde(default)]
    #[schemars(with = "Vec<String>", length(min = 1))]
    identities: Option<Vec<String>>,
}

impl ListenerTlsEntry {
    /// The model of it; `node` is where it is written.
    pub(crate) fn resolve(self, node: &Node, http: bool, files: &Files) -> ListenerTls {
        let pairs = node.get("certificates").map(Node::items).unwrap_or_default();
        let certificates = self.certificates.into_iter().zip(pairs);
        let certificates = certificates.map(|(pair, node)| CertificateFiles {
            certificate: named(&pair.certificate, node, "certificate", files),
            key: named(&pair.key, node, "key", files),
            names: pair.names.unwrap_or_default(),
        });
        let protocols: &[&str] = if http { &["h2", "http/1.1"] } else { &[] };
        let clients = self.client_certificates.filter(|clients| clients.mode != ClientMode::None);
        ListenerTls {
            certificates: certificates.collect(),
            unknown_names: self.unknown_names,
            alpn: self.alpn.unwrap_or_else(|| protocols.iter().map(|&name| name.to_owned()).collect()),
            min_version: self.min_version.unwrap_or(TlsVersion::Tls12),
            max_version: self.max_version.unwrap_or(TlsVersion::Tls13),
            handshake_timeout: self.handshake_timeout.map_or(HANDSHAKE_TIMEOUT, |timeout| timeout.0),
            max_handshakes: self.max_handshakes.unwrap_or(MAX_HANDSHAKES),
            clients: clients.map(|clients| ClientCertificates {
                required: clients.mode == ClientMode::Required,
                ca: named(&clients.ca, node.get("client_certificates").unwrap_or(node), "ca", files),
                identities: clients.identities.unwrap_or_default(),
            }),
        }
    }
}

fn named(path: &str, node: &Node, key: &str, files: &Files) -> NamedFile {
    NamedFile { path: files.locate(path), at: node.get(key).map_or(node.at, |value| value.at) }
}

/// Checks what a JSON Schema cannot say about TLS, and notes the files that it names.
pub(crate) fn check(root: &Node, files: &mut Files, report: &mut Report<'_>) {
    for listener in root.get("listeners").map(Node::items).unwrap_or_default() {
        let Some(tls) = listener.get("tls") else { continue };
        let http = listener.get("protocol").and_then(Node::as_text) != Some("tcp");
        pairs(tls, files, report);
        versions(tls, report);
        protocols(tls, http, report);
        lasting(tls, "handshake_timeout", report);
        whole(tls, "max_handshakes", report);
        if let Some(clients) = tls.get("client_certificates") {
            note(clients, "ca", files);
            identities(clients, report);
        }
    }
}

fn note(map: &Node, key: &str, files: &mut Files) {
    if let Some(name) = map.get(key).and_then(Node::as_text).filter(|name| !name.is_empty()) {
        files.resolve(name);
    }
}

fn pairs(tls: &Node, files: &mut Files, report: &mut Report<'_>) {
    let mut seen: HashMap<String, Position> = HashMap::new();
    for pair in tls.get("certificates").map(Node::items).unwrap_or_default() {
        note(pair, "certificate", files);
        note(pair, "key", files);
        for node in pair.get("names").map(Node::items).unwrap_or_default() {
            let Some(name) = node.as_text() else { continue };
            if !formats::is_dns_name(name.strip_prefix("*.").unwrap_or(name)) {
                let hint = "write a host name such as `shop.example.com`, or `*.example.com`";
                report.error_with(node.at, format!("{} is not a name of a server", quoted(name)), hint);
            } else if let Some(first) = seen.insert(name.to_ascii_lowercase(), node.at) {
                let hint = format!("line {} has it already", first.line);
                report.error_with(node.at, format!("duplicate name {}", quoted(name)), hint);
            }
        }
    }
}

fn versions(tls: &Node, report: &mut Report<'_>) {
    let version = |key: &str| tls.get(key).and_then(|node| Some((node.as_text()?, node.at)));
    if let (Some(("tls1.3", _)), Some(("tls1.2", at))) = (version("min_version"), version("max_version")) {
        report.error(at, "`max_version` is older than `min_version`");
    }
}

fn protocols(tls: &Node, http: bool, report: &mut Report<'_>) {
    let mut seen = Vec::new();
    for node in tls.get("alpn").map(Node::items).unwrap_or_default() {
        let Some(name) = node.as_text() else { continue };
        if http && !matches!(name, "h2" | "http/1.1") {
            let hint = "`h2` and `http/1.1`; with `protocol: tcp`, anything";
            report.error_with(node.at, format!("this listener does not speak {}", quoted(name)), hint);
        } else if name.is_empty() || name.len() > 255 {
            report.error(node.at, "the name of a protocol has 1 to 255 bytes");
        } else if seen.contains(&name) {
            report.error(node.at, format!("{} is listed twice", quoted(name)));
        }
        seen.push(name);
    }
}

fn identities(map: &Node, report: &mut Report<'_>) {
    for node in map.get("identities").map(Node::items).unwrap_or_default() {
        if let Some(id) = node.as_text().filter(|id| !is_spiffe_pattern(id)) {
            let hint = "write `spiffe://TRUST-DOMAIN/PATH`, `spiffe://TRUST-DOMAIN/PATH/*` or `spiffe://TRUST-DOMAIN`";
            report.error_with(node.at, format!("{} is not a SPIFFE ID", quoted(id)), hint);
        }
    }
}

/// A SPIFFE ID, the beginning of one with `/*`, or a trust domain.
fn is_spiffe_pattern(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("spiffe://") else { return false };
    let (domain, path) = rest.split_once('/').map_or((rest, None), |(domain, path)| (domain, Some(path)));
    let is_domain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_');
    let is_segment = |segment: &str| {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        !matches!(segment, "" | "." | "..") && segment.bytes().all(is_allowed)
    };
    let path = path.map(|path| path.strip_suffix("/*").unwrap_or(path));
    text.len() <= 2048
        && !domain.is_empty()
        && domain.len() <= 255
        && domain.bytes().all(is_domain)
        && path.is_none_or(|path| path == "*" || path.split('/').all(is_segment))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spiffe_patterns() {
        for good in [
            "spiffe://example.org",
            "spiffe://example.org/*",
            "spiffe://example.org/ns/shop/sa/web",
            "spiffe://example.org/ns/shop/*",
            "spiffe://td/A-b_c.d",
        ] {
            assert!(is_spiffe_pattern(good), "{good}");
        }
        for bad in [
            "",
            "example.org",
            "https://example.org/a",
            "spiffe://",
            "spiffe:///a",
            "spiffe://Example.org",
            "spiffe://example.org/",
            "spiffe://example.org/a/",
            "spiffe://example.org//a",
            "spiffe://example.org/../a",
            "spiffe://example.org/a*",
            "spiffe://example.org/*/a",
            "spiffe://example.org:80/a",
            "spiffe://u@example.org/a",
            "spiffe://example.org/a?b",
        ] {
            assert!(!is_spiffe_pattern(bad), "{bad}");
        }
    }
}
