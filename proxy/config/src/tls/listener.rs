//! TLS on listeners: what clients are shown, and what is asked of them.

use std::collections::HashMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{CertificateFiles, NamedFile, TlsVersion, identities, named, note, versions};
use crate::diagnostic::Report;
use crate::files::Files;
use crate::references::{lasting, whole};
use crate::tree::Node;
use crate::units::DurationText;
use crate::words::quoted;
use crate::{Position, formats};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_HANDSHAKES: usize = 1000;

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
    /// Clients may speak in cleartext, too.
    pub permissive: bool,
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
    /// A request must be for the name that its connection's handshake asked for.
    pub match_authority: bool,
    /// What becomes of `x-forwarded-client-cert`.
    pub forward: ForwardCertificate,
    /// What is said in it of a client's certificate, beside its hash.
    pub forward_details: Vec<CertificateDetail>,
}

/// What becomes of `x-forwarded-client-cert` in a request that came with a client's certificate. In any other request it
/// is removed.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum ForwardCertificate {
    /// It is removed.
    #[default]
    Sanitize,
    /// It is passed on as it came.
    Forward,
    /// It is passed on with the client's certificate added.
    Append,
    /// It is made anew from the client's certificate.
    Set,
}

/// Something in a certificate.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum CertificateDetail {
    /// The certificate itself.
    Cert,
    /// The certificate and those above it that the client sent.
    Chain,
    /// Its subject.
    Subject,
    /// Its URIs.
    Uri,
    /// Its DNS names.
    Dns,
}

/// How clients are to be known on a listener.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mtls {
    /// By a certificate, all of them.
    Strict,
    /// By a certificate, if they speak TLS; they may speak in cleartext, too.
    Permissive,
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
    /// Whether a request of a client with a certificate must be for the server name that its handshake asked for; one for
    /// another is answered with 421. Default: true.
    #[serde(default)]
    match_authority: Option<bool>,
    /// What becomes of `x-forwarded-client-cert`, in Envoy's form: `sanitize` removes it, `forward` passes on what came,
    /// `append` adds the client's certificate to it, `set` puts that in its place. Without a client's certificate it is
    /// always removed. Default: sanitize.
    #[serde(default)]
    forward: ForwardCertificate,
    /// What `append` and `set` say of the certificate, beside its hash. Default: subject, uri and dns.
    #[serde(default)]
    #[schemars(with = "Vec<CertificateDetail>")]
    forward_details: Option<Vec<CertificateDetail>>,
}

impl ListenerTls {
    /// All files that it names.
    pub fn files(&self) -> impl Iterator<Item = &NamedFile> {
        let roots = self.clients.iter().map(|clients| &clients.ca);
        self.certificates.iter().flat_map(CertificateFiles::files).chain(roots)
    }
}

impl ListenerTlsEntry {
    /// The model of it; `node` is where it is written.
    pub(crate) fn resolve(self, node: &Node, http: bool, mtls: Option<Mtls>, files: &Files) -> ListenerTls {
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
                match_authority: clients.match_authority.unwrap_or(true),
                forward: clients.forward,
                forward_details: clients.forward_details.unwrap_or_else(|| {
                    vec![CertificateDetail::Subject, CertificateDetail::Uri, CertificateDetail::Dns]
                }),
            }),
            permissive: mtls == Some(Mtls::Permissive),
        }
    }
}

/// Checks what a JSON Schema cannot say about a listener's TLS.
pub(super) fn check(listener: &Node, files: &mut Files, report: &mut Report<'_>) {
    let http = listener.get("protocol").and_then(Node::as_text) != Some("tcp");
    mtls(listener, report);
    let Some(tls) = listener.get("tls") else { return };
    pairs(tls, files, report);
    versions(tls, report);
    protocols(tls, http, report);
    lasting(tls, "handshake_timeout", report);
    whole(tls, "max_handshakes", report);
    if let Some(clients) = tls.get("client_certificates") {
        note(clients, "ca", files);
        identities(clients, report);
        if !http {
            for key in ["match_authority", "forward", "forward_details"] {
                let written = clients.entries().iter().find(|entry| entry.key == key);
                if let Some(entry) = written {
                    let message =
                        format!("{} is for HTTP, and this listener has `protocol: tcp`", quoted(key));
                    report.error(entry.at, message);
                }
            }
        }
    }
}

/// Checks `mtls: strict | permissive` beside what `tls` says.
fn mtls(listener: &Node, report: &mut Report<'_>) {
    let Some(entry) = listener.entries().iter().find(|entry| entry.key == "mtls") else { return };
    let clients = listener.get("tls").and_then(|tls| tls.get("client_certificates"));
    let Some(clients) = clients else {
        let hint = "`tls: {certificates: …, client_certificates: {ca: …}}` says which";
        report.error_with(entry.at, "`mtls` needs to know the clients' certificates", hint);
        return;
    };
    let mode = clients.get("mode").and_then(|mode| Some((mode.as_text()?, mode.at)));
    match (entry.value.as_text(), mode) {
        (Some("strict"), Some((mode @ ("none" | "optional"), at)))
        | (Some("permissive"), Some((mode @ "none", at))) => {
            report.error(at, format!("{} contradicts `mtls` in line {}", quoted(mode), entry.at.line));
        }
        _ => {}
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
