//! TLS, for both sides: from the files that the configuration names to what the sockets use. It knows neither listeners
//! nor clusters: `snapshot` has it build what they are given, `downstream` and `upstream` shake hands with it.
//!
//! Verification is webpki's, with more checks on top of it and none left out.

mod certificate;
mod client;
mod client_hello;
mod files;
mod fingerprint;
mod forward;
mod identity;
mod inventory;
mod names;
mod pair;
mod server;
mod store;
mod transport;

use std::io;
use std::sync::{Arc, OnceLock};

use meshgate_config::{Diagnostic, Position, Source};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{CertificateError, Error, OtherError};

pub use certificate::Facts;
pub use client::{ClientTls, Reason, Speak, TlsFailure, TlsFailures};
pub use client_hello::{Hello, HelloReader, NoHello};
pub use inventory::{Held, Role};
pub use names::Names;
pub use server::{ServerTls, Settled};
pub use store::TlsStore;
pub use transport::Transport;

/// Why a file, or what is in it, cannot be used.
#[derive(Debug)]
pub struct Refusal {
    /// Where the file is named.
    pub at: Position,
    /// Why.
    pub message: String,
    /// How it may be mended.
    pub hint: Option<String>,
}

impl Refusal {
    fn new(at: Position, message: impl Into<String>) -> Refusal {
        Refusal { at, message: message.into(), hint: None }
    }

    fn hinted(at: Position, message: impl Into<String>, hint: impl Into<String>) -> Refusal {
        Refusal { at, message: message.into(), hint: Some(hint.into()) }
    }

    /// The same as an error of the configuration.
    pub fn diagnostic(self, source: &Source) -> Diagnostic {
        source.diagnostic(self.at, self.message, self.hint)
    }
}

/// The cryptography: aws-lc-rs, with the key exchange first that a future quantum computer does not break.
fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| {
        let mut provider = aws_lc_rs::default_provider();
        let hybrid = aws_lc_rs::kx_group::X25519MLKEM768;
        provider.kx_groups.retain(|group| group.name() != hybrid.name());
        provider.kx_groups.insert(0, hybrid);
        Arc::new(provider)
    })
}

fn version_name(version: rustls::ProtocolVersion) -> Option<&'static str> {
    match version {
        rustls::ProtocolVersion::TLSv1_2 => Some("TLSv1.2"),
        rustls::ProtocolVersion::TLSv1_3 => Some("TLSv1.3"),
        _ => None,
    }
}

/// What went wrong in a handshake, without the words around it.
pub fn said(error: &io::Error) -> String {
    match error.get_ref().and_then(|error| error.downcast_ref::<Error>()) {
        Some(Error::InvalidCertificate(CertificateError::Other(OtherError(reason)))) => {
            format!("invalid peer certificate: {reason}")
        }
        Some(error) => error.to_string(),
        None => error.to_string(),
    }
}

/// The versions between these two, both included.
fn versions(
    min: meshgate_config::TlsVersion,
    max: meshgate_config::TlsVersion,
) -> Vec<&'static rustls::SupportedProtocolVersion> {
    use meshgate_config::TlsVersion::{Tls12, Tls13};
    let all = [(Tls13, &rustls::version::TLS13), (Tls12, &rustls::version::TLS12)];
    all.into_iter().filter(|(version, _)| (min..=max).contains(version)).map(|(_, version)| version).collect()
}
