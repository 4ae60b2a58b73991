//! Certificates made for a test, and clients and backends that shake hands with them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    SanType,
};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, HandshakeKind, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::client::Client;
use crate::deadline::within;

/// One who signs certificates.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// What a certificate says.
#[derive(Clone, Debug, Default)]
pub struct Says {
    names: Vec<String>,
    uris: Vec<String>,
    validity: Option<(SystemTime, SystemTime)>,
}

/// A certificate and its key, in PEM.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

impl Says {
    /// This host name, or IP address.
    pub fn name(name: &str) -> Says {
        Says::default().and_name(name)
    }

    /// This URI, such as a SPIFFE ID.
    pub fn uri(uri: &str) -> Says {
        Says { uris: vec![uri.to_owned()], ..Says::default() }
    }

    /// One more name.
    pub fn and_name(mut self, name: &str) -> Says {
        self.names.push(name.to_owned());
        self
    }

    /// One more URI.
    pub fn and_uri(mut self, uri: &str) -> Says {
        self.uris.push(uri.to_owned());
        self
    }

    /// It is over already.
    pub fn expired(mut self) -> Says {
        let day = Duration::from_secs(24 * 3600);
        let now = SystemTime::now();
        self.validity = Some((now - 2 * day, now - day));
        self
    }

    /// It is over after so long.
    pub fn valid_for(mut self, time: Duration) -> Says {
        let now = SystemTime::now();
        self.validity = Some((now - Duration::from_secs(3600), now + time));
        self
    }

    fn params(&self) -> CertificateParams {
        let mut params = CertificateParams::new(self.names.clone()).expect("names of hosts");
        let uris = self.uris.iter().map(|uri| SanType::URI(uri.as_str().try_into().expect("ASCII")));
        params.subject_alt_names.extend(uris);
        let common = self.names.first().or(self.uris.first()).cloned().unwrap_or_default();
        params.distinguished_name.push(DnType::OrganizationName, "Test, Inc.");
        params.distinguished_name.push(DnType::CommonName, common);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        if let Some((from, to)) = self.validity {
            params.not_before = from.into();
            params.not_after = to.into();
        }
        params
    }
}

impl Authority {
    /// A new one.
    pub fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        // Two authorities are told apart by their names, too.
        let name = format!("authority {:?}", &key.public_key_raw()[..8]);
        params.distinguished_name.push(DnType::CommonName, name);
        Authority { issuer: CertifiedIssuer::self_signed(params, key).expect("a certificate") }
    }

    /// Its own certificate, in PEM.
    pub fn certificate(&self) -> String {
        self.issuer.pem()
    }

    /// Signs a certificate, with a new key.
    pub fn issue(&self, says: &Says) -> Issued {
        let key = KeyPair::generate().expect("a key");
        let certificate = says.params().signed_by(&key, &self.issuer).expect("a certificate");
        Issued { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

impl Default for Authority {
    fn default() -> Authority {
        Authority::new()
    }
}

impl Issued {
    fn chain(&self) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(self.certificate.as_bytes()).map(|one| one.expect("PEM")).collect()
    }

    fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).expect("PEM")
    }
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn roots(certificate: &str) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(certificate.as_bytes()) {
        roots.add(root.expect("PEM")).expect("a root");
    }
    roots
}

/// A client's side of TLS, said in a sentence that ends with `connect`. Clones share what is kept of sessions.
#[derive(Clone)]
pub struct TlsClient {
    config: ClientConfig,
    name: String,
}

impl TlsClient {
    /// Asks for this name, and trusts this authority.
    pub fn new(name: &str, authority: &Authority) -> TlsClient {
        TlsClient::build(name, authority, None, &[&rustls::version::TLS13, &rustls::version::TLS12])
    }

    /// The same with a certificate of its own.
    pub fn with_certificate(name: &str, authority: &Authority, issued: &Issued) -> TlsClient {
        let versions = [&rustls::version::TLS13, &rustls::version::TLS12];
        TlsClient::build(name, authority, Some(issued), &versions)
    }

    /// The same that speaks TLS 1.2 only, with or without a certificate.
    pub fn tls12(name: &str, authority: &Authority, issued: Option<&Issued>) -> TlsClient {
        TlsClient::build(name, authority, issued, &[&rustls::version::TLS12])
    }

    fn build(
        name: &str,
        authority: &Authority,
        issued: Option<&Issued>,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> TlsClient {
        let builder = ClientConfig::builder_with_provider(provider());
        let builder = builder.with_protocol_versions(versions).expect("known versions");
        let builder = builder.with_root_certificates(roots(&authority.certificate()));
        let config = match issued {
            Some(issued) => {
                builder.with_client_auth_cert(issued.chain(), issued.private_key()).expect("a pair")
            }
            None => builder.with_no_client_auth(),
        };
        TlsClient { config, name: name.to_owned() }
    }

    /// Offers these protocols.
    pub fn alpn(mut self, protocols: &[&str]) -> TlsClient {
        self.config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        self
    }

    /// Says no name, and takes any certificate that the authority signed, whatever its name.
    pub fn nameless(mut self, authority: &Authority) -> TlsClient {
        self.config.enable_sni = false;
        self.any_name(authority)
    }

    /// Takes any certificate that the authority signed, whatever its name.
    pub fn any_name(mut self, authority: &Authority) -> TlsClient {
        let roots = Arc::new(roots(&authority.certificate()));
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider()).build().expect("roots");
        self.config.dangerous().set_certificate_verifier(Arc::new(AnyName(verifier)));
        self
    }

    /// Keeps nothing of sessions.
    pub fn forgetful(mut self) -> TlsClient {
        self.config.resumption = rustls::client::Resumption::disabled();
        self
    }

    /// Shakes hands.
    pub async fn try_connect(&self, address: SocketAddr) -> std::io::Result<Secured> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(self.name.clone()).expect("a name of a host");
        let connector = TlsConnector::from(Arc::new(self.config.clone()));
        let stream = within("a TLS handshake", connector.connect(name, stream)).await?;
        Ok(Secured { stream, name: self.name.clone() })
    }

    /// Shakes hands, which must go well.
    pub async fn connect(&self, address: SocketAddr) -> Secured {
        self.try_connect(address).await.unwrap_or_else(|error| panic!("TLS with {address}: {error}"))
    }

    /// Why there is no connection. With TLS 1.3, a client hears only after its handshake that it was refused.
    pub async fn refused(&self, address: SocketAddr) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut secured = match self.try_connect(address).await {
            Ok(secured) => secured,
            Err(error) => return error.to_string(),
        };
        let _ = secured.stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let mut answer = Vec::new();
        match within("the end of the connection", secured.stream.read_to_end(&mut answer)).await {
            Ok(_) => panic!("not refused: {}", String::from_utf8_lossy(&answer)),
            Err(error) => error.to_string(),
        }
    }

    /// An HTTP/1.1 client on a connection of its own.
    pub async fn http1(&self, address: SocketAddr) -> Client {
        self.clone().alpn(&["http/1.1"]).connect(address).await.http().await
    }

    /// An HTTP/2 client on a connection of its own.
    pub async fn http2(&self, address: SocketAddr) -> Client {
        self.clone().alpn(&["h2"]).connect(address).await.http().await
    }
}

/// A connection after its handshake.
pub struct Secured {
    /// What it is spoken over.
    pub stream: TlsStream<TcpStream>,
    name: String,
}

impl Secured {
    /// Whether the server showed this certificate.
    pub fn shows(&self, issued: &Issued) -> bool {
        let certificates = self.stream.get_ref().1.peer_certificates().expect("a certificate");
        certificates.first() == issued.chain().first()
    }

    /// The protocol that ALPN settled; "" if none.
    pub fn protocol(&self) -> String {
        let protocol = self.stream.get_ref().1.alpn_protocol().unwrap_or_default();
        String::from_utf8_lossy(protocol).into_owned()
    }

    /// The version, such as `TLSv1_3`.
    pub fn version(&self) -> String {
        format!("{:?}", self.stream.get_ref().1.protocol_version().expect("shaken hands"))
    }

    /// Whether a session was taken up again.
    pub fn resumed(&self) -> bool {
        self.stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// HTTP on it, of the version that ALPN settled.
    pub async fn http(self) -> Client {
        let (http2, name) = (self.protocol() == "h2", self.name.clone());
        Client::over(self.stream, http2, &name).await
    }
}

/// Webpki's checks, less that of the name.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        use rustls::CertificateError::{NotValidForName, NotValidForNameContext};
        match self.0.verify_server_cert(end_entity, intermediates, name, ocsp, now) {
            Err(rustls::Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. })) => {
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
