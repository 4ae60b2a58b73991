//! Reading PEM: certificates, keys, roots. Every mistake is said with the file's name, and never with what is in a key.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use meshgate_config::{NamedFile, Position};
use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::Refusal;

/// A bundle of all public roots has a quarter of it.
const LARGEST: u64 = 1 << 20;

/// The certificates in a file, at least one.
pub(super) fn certificates(file: &NamedFile) -> Result<Vec<CertificateDer<'static>>, Refusal> {
    let bytes = contents(file)?;
    let parsed: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&bytes).collect();
    let certificates = parsed.map_err(|error| broken(file, &error))?;
    if certificates.is_empty() {
        return Err(nothing(file, &bytes, "certificate"));
    }
    Ok(certificates)
}

/// The private key in a file.
pub(super) fn key(file: &NamedFile) -> Result<PrivateKeyDer<'static>, Refusal> {
    let bytes = contents(file)?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| match error {
        pem::Error::NoItemsFound if find(&bytes, b"-----BEGIN ENCRYPTED PRIVATE KEY-----") => {
            let hint = "decrypt it with `openssl pkey`, and guard the file by its permissions";
            Refusal::hinted(file.at, format!("{} holds an encrypted key", show(file)), hint)
        }
        pem::Error::NoItemsFound => nothing(file, &bytes, "private key"),
        error => broken(file, &error),
    })
}

/// The roots in a file.
pub(super) fn roots(file: &NamedFile) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), Refusal> {
    let certificates = certificates(file)?;
    let mut roots = RootCertStore::empty();
    for (index, certificate) in certificates.iter().enumerate() {
        roots.add(certificate.clone()).map_err(|error| {
            let message = format!("certificate {} in {} cannot be a root: {error}", index + 1, show(file));
            Refusal::new(file.at, message)
        })?;
    }
    Ok((roots, certificates))
}

/// Where systems keep the roots that they trust.
const SYSTEM_ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The roots that the system trusts, or those in the file that `SSL_CERT_FILE` names.
pub(super) fn system_roots(at: Position) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), Refusal> {
    let named = std::env::var_os("SSL_CERT_FILE").filter(|name| !name.is_empty()).map(PathBuf::from);
    let found = named.or_else(|| SYSTEM_ROOTS.iter().map(PathBuf::from).find(|path| path.is_file()));
    let Some(path) = found else {
        let hint = "say by `ca` which roots are trusted";
        return Err(Refusal::hinted(at, "the system has no roots to check certificates against", hint));
    };
    let certificates = certificates(&NamedFile { path, at })?;
    let mut roots = RootCertStore::empty();
    // Among so many there may be one that webpki does not read; nothing is trusted because of it.
    roots.add_parsable_certificates(certificates.iter().cloned());
    Ok((roots, certificates))
}

/// The file's name in a message.
pub(super) fn show(file: &NamedFile) -> String {
    file.path.display().to_string()
}

fn contents(file: &NamedFile) -> Result<Vec<u8>, Refusal> {
    read(&file.path)
        .map_err(|error| Refusal::new(file.at, format!("cannot read {}: {}", show(file), said(&error))))
}

/// The system's words without its number.
fn said(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    // Reading a pipe or a device could take for ever.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(io::Error::other(format!("it is larger than {} MiB", LARGEST >> 20)));
    }
    Ok(bytes)
}

fn broken(file: &NamedFile, error: &pem::Error) -> Refusal {
    // The error may quote the file.
    let why = match error {
        pem::Error::MissingSectionEnd { .. } => "it ends in the middle of a section",
        pem::Error::Base64Decode(_) => "a section holds what is not base64",
        _ => "a section has no proper beginning",
    };
    Refusal::new(file.at, format!("{} is not whole PEM: {why}", show(file)))
}

fn nothing(file: &NamedFile, bytes: &[u8], what: &str) -> Refusal {
    let message = format!("{} holds no {what} in PEM", show(file));
    if bytes.first() == Some(&0x30) {
        return Refusal::hinted(file.at, message, "it looks like DER: convert it with `openssl`");
    }
    Refusal::hinted(file.at, message, "PEM begins with a line such as `-----BEGIN CERTIFICATE-----`")
}

fn find(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
