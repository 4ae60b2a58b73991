//! Hashes of passwords.

use meshgate_sdk::encoding;
use sha2::{Digest, Sha256};

/// What is known of a password.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Password {
    /// SHA-256 of the password and the salt, one behind the other.
    hash: [u8; 32],
    salt: Vec<u8>,
}

impl Password {
    /// Reads `{SHA256}` with the base64 of the hash, or `{SSHA256}` with the base64 of the hash and the salt.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if let Some(name) = other_kind(text) {
            return Err(format!(
                "hashes of {name} take longer than a filter has: write {{SSHA256}}… or {{SHA256}}…"
            ));
        }
        let salted = text.strip_prefix("{SSHA256}");
        let known = salted
            .or_else(|| text.strip_prefix("{SHA256}"))
            .and_then(|text| encoding::base64(text.as_bytes()));
        let parts = known.as_deref().and_then(|bytes| bytes.split_first_chunk::<32>());
        match parts {
            Some((hash, salt)) if salted.is_some() != salt.is_empty() => {
                Ok(Self { hash: *hash, salt: salt.to_vec() })
            }
            _ => Err("not a hash of a password: write {SSHA256} or {SHA256} and base64".to_owned()),
        }
    }

    /// One that no password has.
    pub(crate) fn of_nobody() -> Self {
        Self { hash: [0; 32], salt: Vec::new() }
    }

    /// Whether it is this one. That takes the same time for any password of the same length.
    pub(crate) fn is(&self, password: &str) -> bool {
        let digest = Sha256::new().chain_update(password.as_bytes()).chain_update(&self.salt).finalize();
        digest.iter().zip(&self.hash).fold(0, |difference, (one, other)| difference | (one ^ other)) == 0
    }
}

/// What made a hash that we cannot check.
fn other_kind(text: &str) -> Option<&'static str> {
    let kinds = [
        ("$2", "bcrypt"),
        ("$apr1$", "APR1-MD5"),
        ("$1$", "MD5"),
        ("$5$", "SHA-crypt"),
        ("$6$", "SHA-crypt"),
        ("$argon2", "Argon2"),
        ("$y$", "yescrypt"),
        ("$7$", "scrypt"),
    ];
    kinds.iter().find(|(start, _)| text.starts_with(start)).map(|(_, name)| *name)
}
