//! What is spoken on the way to the subject and on from it, and the certificates for that.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// The name of subject and backend alike.
pub(crate) const NAME: &str = "bench.example";

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// HTTP/1.1 in cleartext, on both sides.
    Http1,
    /// HTTP/2 in cleartext to the subject, HTTP/1.1 on from there.
    Http2,
    /// HTTP/1.1 through TLS 1.3 to the subject, in cleartext on from there: a gateway.
    Tls,
    /// HTTP/1.1 through TLS 1.3 on both sides, where each side has to show a certificate: a mesh.
    Mtls,
}

impl Link {
    /// Whether clients speak TLS to the subject.
    pub(crate) fn is_secure(self) -> bool {
        matches!(self, Self::Tls | Self::Mtls)
    }
}

/// Certificates of one authority, in files for the subjects and in memory for both ends.
pub(crate) struct Certificates {
    /// Where the files are.
    directory: PathBuf,
    /// For the generator, without and with a certificate of its own.
    client: [Arc<ClientConfig>; 2],
    /// For the backend, without and with certificates of its clients.
    server: [Arc<ServerConfig>; 2],
}

impl Certificates {
    /// Makes them.
    pub(crate) fn make(directory: &Path) -> Result<Self> {
        let directory = directory.join("certificates");
        fs::create_dir_all(&directory)?;
        let mut authority = CertificateParams::new(Vec::new())?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.distinguished_name.push(DnType::CommonName, "bench authority");
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
        fs::write(directory.join("ca.pem"), authority.pem())?;
        // The same certificate for the subject on both of its sides, for the generator and for the backend.
        let mut params = CertificateParams::new(vec![NAME.to_owned(), "127.0.0.1".to_owned()])?;
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &authority)?.pem();
        let key = key.serialize_pem();
        fs::write(directory.join("own.pem"), &certificate)?;
        fs::write(directory.join("own.key"), &key)?;
        // As HAProxy has it.
        fs::write(directory.join("both.pem"), format!("{certificate}{key}"))?;

        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes())?)?;
        let roots = Arc::new(roots);
        let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes())?];
        let own = || PrivateKeyDer::from_pem_slice(key.as_bytes()).context("the key just made");
        let provider = || Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let client = || {
            let builder = ClientConfig::builder_with_provider(provider());
            let builder = builder.with_protocol_versions(&[&rustls::version::TLS13])?;
            anyhow::Ok(builder.with_root_certificates(Arc::clone(&roots)))
        };
        let server = || {
            let builder = ServerConfig::builder_with_provider(provider());
            anyhow::Ok(builder.with_protocol_versions(&[&rustls::version::TLS13])?)
        };
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider()).build()?;
        Ok(Self {
            directory,
            client: [
                Arc::new(client()?.with_no_client_auth()),
                Arc::new(client()?.with_client_auth_cert(chain.clone(), own()?)?),
            ],
            server: [
                Arc::new(server()?.with_no_client_auth().with_single_cert(chain.clone(), own()?)?),
                Arc::new(server()?.with_client_cert_verifier(verifier).with_single_cert(chain, own()?)?),
            ],
        })
    }

    /// The path of one of the files `ca.pem`, `own.pem`, `own.key` and `both.pem`.
    pub(crate) fn file(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    /// What the generator shakes hands with; None in cleartext.
    pub(crate) fn client(&self, link: Link) -> Option<&Arc<ClientConfig>> {
        link.is_secure().then(|| &self.client[usize::from(link == Link::Mtls)])
    }

    /// What the backend shakes hands with.
    pub(crate) fn server(&self, link: Link) -> Option<&Arc<ServerConfig>> {
        link.is_secure().then(|| &self.server[usize::from(link == Link::Mtls)])
    }
}
