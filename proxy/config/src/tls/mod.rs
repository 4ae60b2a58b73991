//! TLS in the file: what a listener shows its clients, and what it asks of them; and the same of a cluster's endpoints. What is in
//! the files that it names is not looked at here: the proxy reads them when it builds a snapshot, and says what is wrong with
//! them at the places noted here.

mod cluster;
mod listener;

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

pub use self::cluster::ClusterTls;
pub(crate) use self::cluster::ClusterTlsEntry;
pub use self::listener::{
    CertificateDetail, ClientCertificates, ForwardCertificate, ListenerTls, UnknownNames,
};
pub(crate) use self::listener::{ListenerTlsEntry, Mtls};
use crate::Position;
use crate::diagnostic::Report;
use crate::files::Files;
use crate::tree::Node;
use crate::words::quoted;

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

impl CertificateFiles {
    fn files(&self) -> [&NamedFile; 2] {
        [&self.certificate, &self.key]
    }
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

fn named(path: &str, node: &Node, key: &str, files: &Files) -> NamedFile {
    NamedFile { path: files.locate(path), at: node.get(key).map_or(node.at, |value| value.at) }
}

/// Checks what a JSON Schema cannot say about TLS, and notes the files that it names.
pub(crate) fn check(root: &Node, files: &mut Files, report: &mut Report<'_>) {
    for listener in root.get("listeners").map(Node::items).unwrap_or_default() {
        listener::check(listener, files, report);
    }
    for cluster in root.get("clusters").map(Node::items).unwrap_or_default() {
        cluster::check(cluster, files, report);
    }
}

fn note(map: &Node, key: &str, files: &mut Files) {
    if let Some(name) = map.get(key).and_then(Node::as_text).filter(|name| !name.is_empty()) {
        files.resolve(name);
    }
}

fn versions(tls: &Node, report: &mut Report<'_>) {
    let version = |key: &str| tls.get(key).and_then(|node| Some((node.as_text()?, node.at)));
    if let (Some(("tls1.3", _)), Some(("tls1.2", at))) = (version("min_version"), version("max_version")) {
        report.error(at, "`max_version` is older than `min_version`");
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
