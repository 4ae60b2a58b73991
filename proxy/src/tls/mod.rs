//! TLS, for both sides: from the files that the configuration names to what the sockets use. It knows neither listeners
//! nor clusters: `snapshot` has it build what they are given, `downstream` and `upstream` shake hands with it.
//!
//! Verification is webpki's, with more checks on top of it and none left out.

mod certificate;
mod files;
mod identity;
mod names;
mod server;
mod store;
mod transport;

use std::sync::{Arc, OnceLock};

use meshgate_config::{Diagnostic, Position, Source};
use rustls::crypto::{CryptoProvider, aws_lc_rs};

pub use certificate::Facts;
pub use server::ServerTls;
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

/// The versions between these two, both included.
fn versions(
    min: meshgate_config::TlsVersion,
    max: meshgate_config::TlsVersion,
) -> Vec<&'static rustls::SupportedProtocolVersion> {
    use meshgate_config::TlsVersion::{Tls12, Tls13};
    let all = [(Tls13, &rustls::version::TLS13), (Tls12, &rustls::version::TLS12)];
    all.into_iter().filter(|(version, _)| (min..=max).contains(version)).map(|(_, version)| version).collect()
}
