//! A certificate and its key, read from files and found to belong together.

use meshgate_config::CertificateFiles;
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};

use super::{Facts, Refusal, files, provider};

/// A certificate and its key, which belong together.
pub(super) struct Pair {
    pub(super) key: CertifiedKey,
    pub(super) facts: Facts,
}

impl Pair {
    /// Reads both files.
    ///
    /// # Errors
    /// What is wrong with one of them, or with the two together.
    pub(super) fn read(files: &CertificateFiles) -> Result<Pair, Refusal> {
        let chain = files::certificates(&files.certificate)?;
        let key = files::key(&files.key)?;
        let (certificate, key_file) = (files::show(&files.certificate), files::show(&files.key));
        let about_certificate = |message| Refusal::new(files.certificate.at, message);
        let leaf = chain.first().map_or(Err("it is empty".to_owned()), |leaf| Facts::of(leaf));
        let facts = leaf.map_err(|error| {
            about_certificate(format!("the certificate in {certificate} is broken: {error}"))
        })?;
        let key = provider().key_provider.load_private_key(key).map_err(|error| {
            Refusal::new(files.key.at, format!("the key in {key_file} cannot be used: {error}"))
        })?;
        let key = CertifiedKey::new(chain, key);
        match key.keys_match() {
            Ok(()) => Ok(Pair { key, facts }),
            Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
                let message =
                    format!("the key in {key_file} does not belong to the certificate in {certificate}");
                let hint = "the certificate itself comes first in its file, before those above it";
                Err(Refusal::hinted(files.key.at, message, hint))
            }
            Err(error) => {
                Err(about_certificate(format!("the certificate in {certificate} cannot be used: {error}")))
            }
        }
    }
}
