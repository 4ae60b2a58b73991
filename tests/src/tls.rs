//! Certificates made for a test, and clients and backends that shake hands with them.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, SanType,
};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    ClientConfig, DigitallySignedStruct, HandshakeKind, RootCertStore, ServerConfig, ServerConnection,
    SignatureScheme,
};
use sha2::{Digest, Sha256};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

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
        params.distinguished_name = DistinguishedName::new();
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

    /// The SHA-256 of the certificate, in hex.
    pub fn sha256(&self) -> String {
        sha256(&self.chain()[0])
    }

    /// The certificate's PEM as it stands in header fields.
    pub fn url_encoded(&self) -> String {
        let lines = self.certificate.replace("\r\n", "\n");
        let encoded = lines.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
        encoded.replace(' ', "%20").replace('\n', "%0A")
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

/// Ends TLS in front of a backend that knows nothing of it, and remembers whom it met.
pub struct TlsFront {
    address: SocketAddr,
    met: Arc<Mutex<Vec<Met>>>,
    accepting: AbortHandle,
}

/// One who shook hands with a [`TlsFront`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Met {
    /// The server name it asked for; "" for none.
    pub name: String,
    /// The protocol that ALPN settled; "" for none.
    pub protocol: String,
    /// The SHA-256 of the certificate it showed; "" for none.
    pub certificate: String,
    /// Whether it took up an earlier session.
    pub resumed: bool,
}

/// What a [`TlsFront`] is started with.
pub struct TlsFrontSetup {
    target: SocketAddr,
    issued: Issued,
    alpn: Vec<Vec<u8>>,
    clients: Option<String>,
    versions: Vec<&'static rustls::SupportedProtocolVersion>,
    hanging_up: usize,
}

impl TlsFront {
    /// In front of this address, with this certificate.
    pub fn to(target: SocketAddr, issued: &Issued) -> TlsFrontSetup {
        TlsFrontSetup {
            target,
            issued: issued.clone(),
            alpn: Vec::new(),
            clients: None,
            versions: vec![&rustls::version::TLS13, &rustls::version::TLS12],
            hanging_up: 0,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// All who shook hands until now, in that order.
    pub fn met(&self) -> Vec<Met> {
        self.met.lock().expect("nobody panics while pushing").clone()
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl TlsFrontSetup {
    /// Agrees to these protocols.
    pub fn alpn(mut self, protocols: &[&str]) -> TlsFrontSetup {
        self.alpn = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        self
    }

    /// Lets only those in who show a certificate of this authority.
    pub fn asking(mut self, authority: &Authority) -> TlsFrontSetup {
        self.clients = Some(authority.certificate());
        self
    }

    /// Speaks TLS 1.2 only.
    pub fn tls12(mut self) -> TlsFrontSetup {
        self.versions = vec![&rustls::version::TLS12];
        self
    }

    /// Ends the first connections in order as soon as hands are shaken: the client has no time to send anything. By TLS 1.2,
    /// where the server has the last word of the handshake, and says this with it.
    pub fn hanging_up(self, connections: usize) -> TlsFrontSetup {
        TlsFrontSetup { hanging_up: connections, ..self.tls12() }
    }

    /// Begins to listen.
    pub async fn start(self) -> TlsFront {
        let builder = ServerConfig::builder_with_provider(provider());
        let builder = builder.with_protocol_versions(&self.versions).expect("known versions");
        let builder = match &self.clients {
            Some(clients) => {
                let roots = Arc::new(roots(clients));
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build();
                builder.with_client_cert_verifier(verifier.expect("roots"))
            }
            None => builder.with_no_client_auth(),
        };
        let mut config =
            builder.with_single_cert(self.issued.chain(), self.issued.private_key()).expect("a pair");
        config.alpn_protocols = self.alpn;
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let met = Arc::new(Mutex::default());
        let remembered = Arc::clone(&met);
        let accepting = tokio::spawn(async move {
            for _ in 0..self.hanging_up {
                let (stream, _) = listener.accept().await.expect("accept");
                let stream = stream.into_std().expect("a socket");
                let config = Arc::clone(&config);
                // A client that leaves before has heard as little.
                let _ = tokio::task::spawn_blocking(move || hang_up(stream, config)).await;
            }
            accept(listener, TlsAcceptor::from(config), self.target, remembered).await;
        })
        .abort_handle();
        TlsFront { address, met, accepting }
    }
}

/// Shakes hands, and says goodbye in the same breath.
fn hang_up(mut stream: std::net::TcpStream, config: Arc<ServerConfig>) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    let mut connection = ServerConnection::new(config).map_err(std::io::Error::other)?;
    loop {
        connection.read_tls(&mut stream)?;
        connection.process_new_packets().map_err(std::io::Error::other)?;
        if !connection.is_handshaking() {
            break;
        }
        while connection.wants_write() {
            connection.write_tls(&mut stream)?;
        }
    }
    connection.send_close_notify();
    let mut last = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut last)?;
    }
    stream.write_all(&last)
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, target: SocketAddr, met: Arc<Mutex<Vec<Met>>>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.expect("accept");
        let (acceptor, met) = (acceptor.clone(), Arc::clone(&met));
        connections.spawn(async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let connection = stream.get_ref().1;
            let certificate = connection.peer_certificates().and_then(<[_]>::first);
            met.lock().expect("nobody panics while pushing").push(Met {
                name: connection.server_name().unwrap_or_default().to_owned(),
                protocol: String::from_utf8_lossy(connection.alpn_protocol().unwrap_or_default())
                    .into_owned(),
                certificate: certificate.map(|one| sha256(one)).unwrap_or_default(),
                resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
            });
            let mut backend = TcpStream::connect(target).await.expect("the backend");
            // Either side may leave as it likes.
            let _ = tokio::io::copy_bidirectional(&mut stream, &mut backend).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

fn sha256(certificate: &[u8]) -> String {
    Sha256::digest(certificate).iter().map(|byte| format!("{byte:02x}")).collect()
}
