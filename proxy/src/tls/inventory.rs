//! The certificates that are in use, for whoever wants to know when they end.

use std::path::PathBuf;

use meshgate_config::NamedFile;
use rustls::pki_types::CertificateDer;

use super::Facts;
use super::pair::Pair;

/// A certificate that is in use.
#[derive(Clone, Debug)]
pub struct Held {
    /// The file it was read from.
    pub file: PathBuf,
    /// What it is used for.
    pub role: Role,
    /// What it says.
    pub facts: Facts,
}

/// What a certificate is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// To show who we are.
    Own,
    /// To check others' certificates against.
    Root,
}

impl Role {
    /// In one word.
    pub const fn label(self) -> &'static str {
        match self {
            Role::Own => "certificate",
            Role::Root => "ca",
        }
    }
}

impl Held {
    pub(super) fn own(file: &NamedFile, pair: &Pair) -> Held {
        Held { file: file.path.clone(), role: Role::Own, facts: pair.facts.clone() }
    }

    /// The roots in a file. One that cannot be read in full is used all the same, but there is nothing to say about it.
    pub(super) fn roots(file: &NamedFile, certificates: &[CertificateDer<'_>]) -> Vec<Held> {
        let facts = certificates.iter().filter_map(|certificate| Facts::of(certificate).ok());
        facts.map(|facts| Held { file: file.path.clone(), role: Role::Root, facts }).collect()
    }
}
