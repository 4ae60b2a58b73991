//! Checking signatures by the host's cryptography.
//!
//! Meshgate has a function for it (`meshgate.verify`). Hosts with Envoy's `verify_signature` check RSA (PKCS #1) and ECDSA by
//! that; what a host cannot check is refused.

use std::fmt;

use meshgate_abi::{Verification, function};
use prost::Message;

use crate::error::Refused;
use crate::host::{self, Status};

/// An algorithm of JSON Web Signatures (RFC 7518, RFC 8037). Those with a shared secret are not among them.
///
/// ```
/// use meshgate_sdk::signature::Algorithm;
///
/// /// What the header of a token says, if it is an algorithm of ours.
/// fn accepted(name: &str) -> Option<Algorithm> {
///     Algorithm::named(name).filter(|algorithm| [Algorithm::Es256, Algorithm::EdDsa].contains(algorithm))
/// }
///
/// assert_eq!(accepted("ES256").map(Algorithm::name), Some("ES256"));
/// assert_eq!((accepted("RS256"), accepted("none")), (None, None));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// RSA, PKCS #1 version 1.5, with SHA-256.
    Rs256,
    /// RSA, PKCS #1 version 1.5, with SHA-384.
    Rs384,
    /// RSA, PKCS #1 version 1.5, with SHA-512.
    Rs512,
    /// RSA, PSS, with SHA-256.
    Ps256,
    /// RSA, PSS, with SHA-384.
    Ps384,
    /// RSA, PSS, with SHA-512.
    Ps512,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// ECDSA on P-521 with SHA-512.
    Es512,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::Es512,
        Self::EdDsa,
    ];

    /// The name, as the header of a token says it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Es512 => "ES512",
            Self::EdDsa => "EdDSA",
        }
    }

    /// The algorithm of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// The hash by the name that Envoy has for it, where its function can check the algorithm.
    fn of_envoy(self) -> Option<&'static str> {
        match self {
            Self::Rs256 | Self::Es256 => Some("sha256"),
            Self::Rs384 | Self::Es384 => Some("sha384"),
            Self::Rs512 | Self::Es512 => Some("sha512"),
            Self::Ps256 | Self::Ps384 | Self::Ps512 | Self::EdDsa => None,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A curve of ECDSA.
///
/// ```
/// use meshgate_sdk::signature::{Curve, PublicKey};
///
/// assert!(PublicKey::ecdsa(Curve::P384, &[5; 48], &[6; 48]).is_some());
/// assert!(PublicKey::ecdsa(Curve::P256, &[5; 48], &[6; 48]).is_none()); // too long
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Curve {
    /// P-256.
    P256,
    /// P-384.
    P384,
    /// P-521.
    P521,
}

/// A public key, ready to be used as often as needed.
///
/// ```
/// use meshgate_sdk::signature::PublicKey;
///
/// let key = PublicKey::ed25519(&[7; 32]);
/// assert_eq!(PublicKey::from_der(key.der()), key);
///
/// // `n` and `e` of a JSON Web Key, decoded.
/// let (modulus, exponent) = ([0xc5; 256], [1, 0, 1]);
/// let other = PublicKey::rsa(&modulus, &exponent);
/// assert_ne!(other, key);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey(Vec<u8>);

const RSA: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";
const P256: &[u8] = b"\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
const P384: &[u8] = b"\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22";
const P521: &[u8] = b"\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x23";
const ED25519: &[u8] = b"\x30\x05\x06\x03\x2b\x65\x70";

impl PublicKey {
    /// A key as `SubjectPublicKeyInfo` in DER.
    pub fn from_der(der: impl Into<Vec<u8>>) -> Self {
        Self(der.into())
    }

    /// A key of RSA by its modulus and its exponent, the highest byte first.
    pub fn rsa(modulus: &[u8], exponent: &[u8]) -> Self {
        let numbers = [number(modulus), number(exponent)].concat();
        Self::of(RSA, &element(0x30, &numbers))
    }

    /// A key of ECDSA by the coordinates of its point, the highest byte first. `None` if they are longer than the curve has it.
    pub fn ecdsa(curve: Curve, x: &[u8], y: &[u8]) -> Option<Self> {
        let (algorithm, size) = match curve {
            Curve::P256 => (P256, 32),
            Curve::P384 => (P384, 48),
            Curve::P521 => (P521, 66),
        };
        let mut point = vec![4];
        for coordinate in [x, y] {
            let missing = usize::checked_sub(size, coordinate.len())?;
            point.resize(point.len() + missing, 0);
            point.extend_from_slice(coordinate);
        }
        Some(Self::of(algorithm, &point))
    }

    /// A key of Ed25519.
    pub fn ed25519(key: &[u8]) -> Self {
        Self::of(ED25519, key)
    }

    fn of(algorithm: &[u8], key: &[u8]) -> Self {
        let bits = [&[0], key].concat();
        Self(element(0x30, &[algorithm, &element(0x03, &bits)].concat()))
    }

    /// The key as `SubjectPublicKeyInfo` in DER.
    pub fn der(&self) -> &[u8] {
        &self.0
    }

    /// Whether the signature, in the form of JSON Web Signatures, is this key's for this text.
    ///
    /// ```
    /// use meshgate_sdk::signature::{Algorithm, PublicKey};
    ///
    /// fn is_ours(key: &PublicKey, text: &[u8], signature: &[u8]) -> bool {
    ///     key.verify(Algorithm::Es256, text, signature).unwrap_or_else(|refused| {
    ///         meshgate_sdk::warn!("{refused}");
    ///         false
    ///     })
    /// }
    /// # assert!(!is_ours(&PublicKey::ed25519(&[]), b"", b""));
    /// ```
    ///
    /// # Errors
    /// `BAD_ARGUMENT`: it is no key for this algorithm. `UNIMPLEMENTED`: the host cannot check this algorithm.
    pub fn verify(&self, algorithm: Algorithm, text: &[u8], signature: &[u8]) -> Result<bool, Refused> {
        let argument = Verification {
            algorithm: algorithm.name().to_owned(),
            public_key: self.0.clone(),
            signature: signature.to_vec(),
            text: text.to_vec(),
        };
        let checked = match host::call_foreign_function(function::VERIFY, &argument.encode_to_vec()) {
            Ok(answer) => Ok(answer == [1]),
            Err(Status::NOT_FOUND | Status::UNIMPLEMENTED) => by_envoy(algorithm, argument),
            Err(status) => Err(status),
        };
        checked.map_err(|status| Refused::new(format!("cannot check a signature of {algorithm}"), status))
    }
}

/// Envoy's `VerifySignatureArguments`.
#[derive(Clone, PartialEq, Message)]
struct EnvoyArguments {
    #[prost(string, tag = "1")]
    hash_function: String,
    #[prost(bytes = "vec", tag = "2")]
    public_key: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    signature: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    text: Vec<u8>,
}

/// Envoy's `VerifySignatureResult`.
#[derive(Clone, PartialEq, Message)]
struct EnvoyResult {
    #[prost(bool, tag = "1")]
    result: bool,
}

fn by_envoy(algorithm: Algorithm, argument: Verification) -> Result<bool, Status> {
    let hash_function = algorithm.of_envoy().ok_or(Status::UNIMPLEMENTED)?.to_owned();
    let Verification { public_key, mut signature, text, .. } = argument;
    let size = match algorithm {
        Algorithm::Es256 => 64,
        Algorithm::Es384 => 96,
        Algorithm::Es512 => 132,
        _ => 0,
    };
    if size > 0 {
        // The two numbers one behind the other become a sequence of two in DER.
        if signature.len() != size {
            return Ok(false);
        }
        let (r, s) = signature.split_at(size / 2);
        signature = element(0x30, &[number(r), number(s)].concat());
    }
    let arguments = EnvoyArguments { hash_function, public_key, signature, text };
    match host::call_foreign_function("verify_signature", &arguments.encode_to_vec()) {
        Ok(answer) => EnvoyResult::decode(&*answer).map(|answer| answer.result).or(Ok(false)),
        Err(Status::NOT_FOUND) => Err(Status::UNIMPLEMENTED),
        Err(status) => Err(status),
    }
}

/// An element of DER.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let skipped = length.iter().take_while(|byte| **byte == 0).count();
    let mut bytes = vec![tag];
    match content.len() {
        0..=0x7f => bytes.extend(length.last()),
        _ => {
            let digits = length.get(skipped..).unwrap_or_default();
            bytes.push(0x80 | u8::try_from(digits.len()).unwrap_or_default());
            bytes.extend_from_slice(digits);
        }
    }
    bytes.extend_from_slice(content);
    bytes
}

/// A number of DER that is not negative.
fn number(bytes: &[u8]) -> Vec<u8> {
    let skipped = bytes.iter().take_while(|byte| **byte == 0).count();
    let digits = bytes.get(skipped..).unwrap_or_default();
    // The first bit is the sign's.
    let sign: &[u8] = if digits.first().is_none_or(|byte| *byte >= 0x80) { &[0] } else { &[] };
    element(0x02, &[sign, digits].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_the_form_of_certificates() {
        let key = PublicKey::rsa(&[0x00, 0x81, 0x02], &[1, 0, 1]);
        let numbers = b"\x30\x0a\x02\x03\x00\x81\x02\x02\x03\x01\x00\x01";
        let expected = [&b"\x30\x1e"[..], RSA, b"\x03\x0d\x00", numbers].concat();
        assert_eq!(key.der(), expected);

        let key = PublicKey::ecdsa(Curve::P256, &[5], &[6; 32]).unwrap();
        let expected = [&b"\x30\x59"[..], P256, b"\x03\x42\x00\x04", &[0; 31], &[5], &[6; 32]].concat();
        assert_eq!(key.der(), expected);
        assert!(PublicKey::ecdsa(Curve::P256, &[5; 33], &[6; 32]).is_none());

        let expected = [&b"\x30\x2a"[..], ED25519, b"\x03\x21\x00", &[7; 32]].concat();
        assert_eq!(PublicKey::ed25519(&[7; 32]).der(), expected);
    }

    #[test]
    fn lengths_and_numbers_are_written_as_briefly_as_can_be() {
        assert_eq!(element(4, &[1; 0x7f])[..2], [4, 0x7f]);
        assert_eq!(element(4, &[1; 0x80])[..3], [4, 0x81, 0x80]);
        assert_eq!(element(4, &[1; 0x123])[..4], [4, 0x82, 0x01, 0x23]);
        assert_eq!(number(&[0, 0, 0x7f]), [2, 1, 0x7f]);
        assert_eq!(number(&[0x80]), [2, 2, 0, 0x80]);
        assert_eq!(number(&[0, 0]), [2, 1, 0]);
    }

    #[test]
    fn algorithms_are_known_by_their_names() {
        for algorithm in Algorithm::ALL {
            assert_eq!(Algorithm::named(algorithm.name()), Some(algorithm));
        }
        for other in ["none", "HS256", "rs256", ""] {
            assert_eq!(Algorithm::named(other), None);
        }
    }

    #[test]
    fn what_the_host_cannot_check_is_refused() {
        for algorithm in Algorithm::ALL {
            let refused = PublicKey::ed25519(&[7; 32]).verify(algorithm, b"text", &[0; 64]);
            match (algorithm.of_envoy(), refused) {
                // Not the length that the curve has: no need to ask.
                (Some(_), Ok(false)) => assert!(matches!(algorithm, Algorithm::Es384 | Algorithm::Es512)),
                (_, refused) => {
                    assert_eq!(refused.unwrap_err().status(), Status::UNIMPLEMENTED, "{algorithm}")
                }
            }
        }
    }
}
