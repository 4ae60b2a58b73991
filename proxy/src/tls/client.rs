//! A cluster's side of TLS: what is expected of endpoints, what is shown to them, and a handshake with one.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use meshgate_config::{Address, ClusterTls};
use meshgate_wasm::{Certificate, Tls};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::SingleCertAndKey;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256};
use tokio_rustls::TlsConnector;

use super::fingerprint::{Fingerprint, absorb};
use super::identity::Identities;
use super::inventory::Held;
use super::pair::Pair;
use super::{Facts, Refusal, Transport, files, provider, said, version_name, versions};
use crate::socket::Socket;

/// What a cluster's configuration makes, with what is in the files that it names.
pub struct ClientTls {
    /// One for each of [`Speak`].
    configs: [Arc<ClientConfig>; 3],
    /// What endpoints are asked for; none: they are known by their addresses.
    name: Option<ServerName<'static>>,
    local: Option<Arc<Certificate>>,
    handshake_timeout: Option<Duration>,
    failures: Arc<TlsFailures>,
    inventory: Vec<Held>,
    pub(super) fingerprint: Fingerprint,
}

/// What is to be spoken with an endpoint, as ALPN has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speak {
    /// Anything.
    Bytes,
    /// HTTP/1.1; an endpoint that does not use ALPN speaks it, too.
    Http1,
    /// HTTP/2, which an endpoint has to agree to.
    Http2,
}

/// The files of a cluster, read.
pub(super) struct Materials {
    roots: RootCertStore,
    root_certificates: Vec<CertificateDer<'static>>,
    pair: Option<Pair>,
}

impl Materials {
    /// Reads them.
    ///
    /// # Errors
    /// All that is wrong with them.
    pub(super) fn read(settings: &ClusterTls) -> Result<Materials, Vec<Refusal>> {
        let roots = match &settings.ca {
            Some(ca) => files::roots(ca),
            None => files::system_roots(settings.at),
        };
        let pair = settings.certificate.as_ref().map(Pair::read).transpose();
        match (roots, pair) {
            (Ok((roots, root_certificates)), Ok(pair)) => Ok(Materials { roots, root_certificates, pair }),
            (roots, pair) => Err(roots.err().into_iter().chain(pair.err()).collect()),
        }
    }

    /// Of these files with these settings. Connections made with others are not used any more.
    pub(super) fn fingerprint(&self, settings: &ClusterTls) -> Fingerprint {
        let mut hasher = Sha256::new();
        let expected = (&settings.server_name, &settings.names, &settings.identities);
        let others = (settings.min_version, settings.max_version, settings.handshake_timeout);
        absorb(&mut hasher, format!("{expected:?} {others:?}").as_bytes());
        for certificate in &self.root_certificates {
            absorb(&mut hasher, certificate);
        }
        absorb(&mut hasher, b"own");
        for certificate in self.pair.iter().flat_map(|pair| &pair.key.cert) {
            absorb(&mut hasher, certificate);
        }
        hasher.finalize().into()
    }

    /// Those that the configuration names; the system's roots are the system's to look after.
    pub(super) fn inventory(&self, settings: &ClusterTls) -> Vec<Held> {
        let own = settings.certificate.iter().zip(&self.pair);
        let own = own.map(|(files, pair)| Held::own(&files.certificate, pair));
        own.chain(settings.ca.iter().flat_map(|ca| Held::roots(ca, &self.root_certificates))).collect()
    }
}

impl ClientTls {
    pub(super) fn build(
        settings: &ClusterTls,
        materials: Materials,
        failures: Arc<TlsFailures>,
    ) -> Result<ClientTls, Refusal> {
        let broken = |error: String| Refusal::new(settings.at, format!("TLS cannot be set up: {error}"));
        let fingerprint = materials.fingerprint(settings);
        let inventory = materials.inventory(settings);
        let server_name =
            |name: &String| ServerName::try_from(name.clone()).map_err(|error| broken(error.to_string()));
        let names = settings.names.iter().map(server_name).collect::<Result<Vec<_>, _>>()?;
        let name = settings.server_name.as_ref().map(server_name).transpose()?;
        let verifier = Verifier {
            roots: materials.roots,
            algorithms: provider().signature_verification_algorithms,
            names,
            identities: Identities::new(&settings.identities),
        };
        let builder = ClientConfig::builder_with_provider(Arc::clone(provider()))
            .with_protocol_versions(&versions(settings.min_version, settings.max_version))
            .map_err(|error| broken(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut local = None;
        let config = match materials.pair {
            Some(pair) => {
                local = pair.key.cert.first().map(|leaf| pair.facts.for_filters(leaf));
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(pair.key)))
            }
            None => builder.with_no_client_auth(),
        };
        let speaking = |protocol: &[u8]| {
            let mut config = config.clone();
            config.alpn_protocols = if protocol.is_empty() { Vec::new() } else { vec![protocol.to_vec()] };
            Arc::new(config)
        };
        Ok(ClientTls {
            configs: [speaking(b""), speaking(b"http/1.1"), speaking(b"h2")],
            name,
            local,
            handshake_timeout: settings.handshake_timeout,
            failures,
            inventory,
            fingerprint,
        })
    }

    /// A hash of everything it was made from.
    pub fn fingerprint(&self) -> &[u8] {
        &self.fingerprint
    }

    /// The certificates in it.
    pub fn inventory(&self) -> &[Held] {
        &self.inventory
    }

    /// How often handshakes failed.
    pub fn failures(&self) -> &Arc<TlsFailures> {
        &self.failures
    }

    /// Shakes hands with an endpoint.
    ///
    /// # Errors
    /// Why it is not to be spoken with.
    pub async fn connect(
        &self,
        socket: Socket,
        endpoint: Address,
        speak: Speak,
    ) -> Result<(Transport, Tls), TlsFailure> {
        let connected = self.try_connect(socket, endpoint, speak).await;
        if let Err(failure) = &connected {
            self.failures.count(failure.reason);
        }
        connected
    }

    async fn try_connect(
        &self,
        socket: Socket,
        endpoint: Address,
        speak: Speak,
    ) -> Result<(Transport, Tls), TlsFailure> {
        let by_address = || endpoint.ip().map(|address| ServerName::IpAddress(address.into()));
        let Some(name) = self.name.clone().or_else(by_address) else {
            let details =
                "an endpoint on a Unix socket has no name that its certificate could have".to_owned();
            return Err(TlsFailure { reason: Reason::Name, details });
        };
        let connecting = TlsConnector::from(Arc::clone(&self.configs[speak as usize])).connect(name, socket);
        let stream = match self.handshake_timeout {
            Some(timeout) => match tokio::time::timeout(timeout, connecting).await {
                Ok(connected) => connected,
                Err(_) => {
                    let details = format!("no TLS handshake within {timeout:?}");
                    return Err(TlsFailure { reason: Reason::Timeout, details });
                }
            },
            None => connecting.await,
        };
        let stream = stream.map_err(|error| TlsFailure::of(&error))?;
        let connection = stream.get_ref().1;
        if speak == Speak::Http2 && connection.alpn_protocol() != Some(b"h2") {
            let details = "the endpoint does not speak HTTP/2 (by ALPN)".to_owned();
            return Err(TlsFailure { reason: Reason::Protocol, details });
        }
        let peer = connection.peer_certificates().and_then(<[_]>::first);
        let peer = peer.and_then(|leaf| Some(Facts::of(leaf).ok()?.for_filters(leaf)));
        let settled = Tls {
            version: connection.protocol_version().and_then(version_name),
            server_name: self.name.as_ref().map(|name| name.to_str().as_ref().into()),
            local: self.local.clone(),
            peer,
        };
        Ok((Transport::from(stream), settled))
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Why a handshake came to nothing.
#[derive(Debug)]
pub struct TlsFailure {
    /// In one word, for counting.
    pub reason: Reason,
    /// In words, for the log.
    pub details: String,
}

/// Why a handshake came to nothing, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The endpoint's certificate is signed by nobody who is trusted.
    UnknownAuthority,
    /// Its certificate is too old, or too young.
    Expired,
    /// Its certificate is for another name.
    Name,
    /// Its certificate has no accepted SPIFFE ID.
    Identity,
    /// Its certificate is not good for another reason.
    Certificate,
    /// It refused us: mostly for want of a certificate that it trusts.
    Refused,
    /// It speaks no TLS that we speak, or not the protocol that is needed.
    Protocol,
    /// The connection broke.
    Closed,
    /// It took too long.
    Timeout,
}

impl Reason {
    /// All of them.
    pub const ALL: [Reason; 9] = [
        Reason::UnknownAuthority,
        Reason::Expired,
        Reason::Name,
        Reason::Identity,
        Reason::Certificate,
        Reason::Refused,
        Reason::Protocol,
        Reason::Closed,
        Reason::Timeout,
    ];

    /// The label of a metric.
    pub const fn label(self) -> &'static str {
        match self {
            Reason::UnknownAuthority => "unknown_authority",
            Reason::Expired => "expired",
            Reason::Name => "name",
            Reason::Identity => "identity",
            Reason::Certificate => "certificate",
            Reason::Refused => "refused",
            Reason::Protocol => "protocol",
            Reason::Closed => "closed",
            Reason::Timeout => "timeout",
        }
    }

    fn of(error: &Error) -> Reason {
        use CertificateError as Bad;
        match error {
            Error::InvalidCertificate(bad) => match bad {
                Bad::UnknownIssuer | Bad::BadSignature => Reason::UnknownAuthority,
                Bad::Expired
                | Bad::ExpiredContext { .. }
                | Bad::NotValidYet
                | Bad::NotValidYetContext { .. } => Reason::Expired,
                Bad::NotValidForName | Bad::NotValidForNameContext { .. } => Reason::Name,
                Bad::Other(_) => Reason::Identity,
                _ => Reason::Certificate,
            },
            Error::AlertReceived(_) => Reason::Refused,
            _ => Reason::Protocol,
        }
    }
}

impl TlsFailure {
    fn of(error: &io::Error) -> TlsFailure {
        match error.get_ref().and_then(|error| error.downcast_ref::<Error>()) {
            Some(cause) => TlsFailure { reason: Reason::of(cause), details: format!("TLS: {}", said(error)) },
            None => TlsFailure { reason: Reason::Closed, details: format!("TLS: {error}") },
        }
    }
}

/// How often handshakes with a cluster's endpoints failed, by reason, on all workers and over reloads.
#[derive(Debug, Default)]
pub struct TlsFailures([AtomicU64; Reason::ALL.len()]);

impl TlsFailures {
    fn count(&self, reason: Reason) {
        self.0[reason as usize].fetch_add(1, Relaxed);
    }

    /// Reasons and how often each was one.
    pub fn counts(&self) -> impl Iterator<Item = (Reason, u64)> {
        Reason::ALL.into_iter().map(|reason| (reason, self.0[reason as usize].load(Relaxed)))
    }
}

/// Webpki's checks of an endpoint's certificate; the name is the connection's unless others are expected, and after
/// it comes the list of accepted IDs. Where only IDs are expected, they stand for the name.
#[derive(Debug)]
struct Verifier {
    roots: RootCertStore,
    algorithms: WebPkiSupportedAlgorithms,
    names: Vec<ServerName<'static>>,
    identities: Identities,
}

impl Verifier {
    fn check_name(&self, certificate: &ParsedCertificate<'_>, name: &ServerName<'_>) -> Result<(), Error> {
        if self.names.is_empty() {
            return if self.identities.is_empty() { verify_server_name(certificate, name) } else { Ok(()) };
        }
        let mut last = Ok(());
        for name in &self.names {
            last = verify_server_name(certificate, name);
            if last.is_ok() {
                break;
            }
        }
        last
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, algorithms)?;
        self.check_name(&certificate, server_name)?;
        self.identities.check(end_entity)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
