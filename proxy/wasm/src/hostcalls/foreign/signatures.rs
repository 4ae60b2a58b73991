//! `verify_signature` and `sign`: RSA (PKCS #1 version 1.5) and ECDSA (P-256, P-384, P-521; in DER), as Envoy's.
//!
//! With RSA, SHA-224 is not offered, and SHA-1 only to verify: the library has neither.

use std::sync::LazyLock;

use aws_lc_rs::digest::{self, Digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    self, EcdsaKeyPair, EcdsaSigningAlgorithm, ParsedPublicKey, RsaEncoding, RsaKeyPair, UnparsedPublicKey,
    VerificationAlgorithm,
};
use prost::Message;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{PrivateKeyDer, SubjectPublicKeyInfoDer};

use crate::status::Status;

/// Bytes of the largest RSA modulus that is used to sign: beyond, a signature takes too long for a callback.
const MAX_SIGNING_MODULUS: usize = 512;

/// Envoy's `VerifySignatureArguments`. One of the keys is given.
#[derive(Clone, PartialEq, Message)]
struct VerifyArguments {
    #[prost(string, tag = "1")]
    hash_function: String,
    #[prost(bytes = "vec", tag = "2")]
    public_key: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    signature: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    text: Vec<u8>,
    #[prost(string, tag = "5")]
    public_key_pem: String,
}

/// Envoy's `VerifySignatureResult`.
#[derive(Clone, PartialEq, Message)]
struct VerifyResult {
    #[prost(bool, tag = "1")]
    result: bool,
    #[prost(string, tag = "2")]
    error: String,
}

/// Envoy's `SignArguments`. One of the keys is given.
#[derive(Clone, PartialEq, Message)]
struct SignArguments {
    #[prost(string, tag = "1")]
    hash_function: String,
    #[prost(bytes = "vec", tag = "2")]
    private_key: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    text: Vec<u8>,
    #[prost(string, tag = "4")]
    private_key_pem: String,
}

/// Envoy's `SignResult`.
#[derive(Clone, PartialEq, Message)]
struct SignResult {
    #[prost(bool, tag = "1")]
    result: bool,
    #[prost(bytes = "vec", tag = "2")]
    signature: Vec<u8>,
    #[prost(string, tag = "3")]
    error: String,
}

/// Whether the signature is the key's. A key that is none is told as the result, as Envoy does.
pub(super) fn verify(argument: &[u8]) -> Result<Vec<u8>, Status> {
    let arguments = VerifyArguments::decode(argument).map_err(|_| Status::BadArgument)?;
    let key = match (&arguments.public_key[..], &arguments.public_key_pem[..]) {
        (der, "") => PublicKey::of(der),
        ([], pem) => {
            SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes()).ok().and_then(|der| PublicKey::of(&der))
        }
        _ => None,
    };
    let verified = Hash::named(&arguments.hash_function)
        .and_then(|hash| key.ok_or_else(no_key)?.verify(hash, &arguments.text, &arguments.signature));
    let result = match verified {
        Ok(()) => VerifyResult { result: true, error: String::new() },
        Err(error) => VerifyResult { result: false, error },
    };
    Ok(result.encode_to_vec())
}

/// The signature by a private key (PKCS #8; in PEM also PKCS #1 and SEC 1). A key that is none is told as the
/// result.
pub(super) fn sign(argument: &[u8]) -> Result<Vec<u8>, Status> {
    let arguments = SignArguments::decode(argument).map_err(|_| Status::BadArgument)?;
    let key = match (&arguments.private_key[..], &arguments.private_key_pem[..]) {
        (der, "") => PrivateKey::of(der),
        ([], pem) => PrivateKeyDer::from_pem_slice(pem.as_bytes())
            .ok()
            .and_then(|der| PrivateKey::of(der.secret_der())),
        _ => None,
    };
    let signed = Hash::named(&arguments.hash_function)
        .and_then(|hash| key.ok_or_else(no_key)?.sign(hash, &arguments.text));
    let result = match signed {
        Ok(signature) => SignResult { result: true, signature, error: String::new() },
        Err(error) => SignResult { result: false, signature: Vec::new(), error },
    };
    Ok(result.encode_to_vec())
}

fn no_key() -> String {
    "Failed to import the key.".to_owned()
}

/// A hash function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hash {
    Sha1,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    fn named(name: &str) -> Result<Hash, String> {
        match name.to_ascii_lowercase().as_str() {
            "sha1" => Ok(Hash::Sha1),
            "sha224" => Ok(Hash::Sha224),
            "sha256" => Ok(Hash::Sha256),
            "sha384" => Ok(Hash::Sha384),
            "sha512" => Ok(Hash::Sha512),
            _ => Err(format!("{name} is not supported.")),
        }
    }

    fn algorithm(self) -> &'static digest::Algorithm {
        match self {
            Hash::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Hash::Sha224 => &digest::SHA224,
            Hash::Sha256 => &digest::SHA256,
            Hash::Sha384 => &digest::SHA384,
            Hash::Sha512 => &digest::SHA512,
        }
    }

    fn unsupported(self) -> String {
        format!("{self:?} is not supported with RSA keys.").to_ascii_lowercase()
    }
}

/// A curve, with the hash that the library knows it with. ECDSA takes a hash for a number and uses as many of its
/// leading bits as the curve has, so that any other can be brought into that one's form.
#[derive(Clone, Copy)]
struct Curve {
    verification: &'static dyn VerificationAlgorithm,
    signing: &'static EcdsaSigningAlgorithm,
    native: &'static digest::Algorithm,
    /// Bytes of the curve's order.
    bytes: usize,
}

static CURVES: LazyLock<[Curve; 3]> = LazyLock::new(|| {
    let curve = |verification, signing, native, bytes| Curve { verification, signing, native, bytes };
    [
        curve(
            &signature::ECDSA_P256_SHA256_ASN1,
            &signature::ECDSA_P256_SHA256_ASN1_SIGNING,
            &digest::SHA256,
            32,
        ),
        curve(
            &signature::ECDSA_P384_SHA384_ASN1,
            &signature::ECDSA_P384_SHA384_ASN1_SIGNING,
            &digest::SHA384,
            48,
        ),
        curve(
            &signature::ECDSA_P521_SHA512_ASN1,
            &signature::ECDSA_P521_SHA512_ASN1_SIGNING,
            &digest::SHA512,
            66,
        ),
    ]
});

impl Curve {
    fn digest(&self, hash: Hash, text: &[u8]) -> Result<Digest, String> {
        let digest = digest::digest(hash.algorithm(), text);
        let leading = &digest.as_ref()[..digest.as_ref().len().min(self.bytes)];
        let mut number = vec![0; self.native.output_len() - leading.len()];
        number.extend_from_slice(leading);
        Digest::import_less_safe(&number, self.native).map_err(|_| "Failed to compute the digest.".to_owned())
    }
}

/// A public key (`SubjectPublicKeyInfo`).
enum PublicKey {
    Rsa(Vec<u8>),
    Ecdsa(ParsedPublicKey, Curve),
}

impl PublicKey {
    fn of(der: &[u8]) -> Option<PublicKey> {
        let parse = |algorithm| UnparsedPublicKey::new(algorithm, der).parse().ok();
        if parse(&signature::RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY).is_some() {
            return Some(PublicKey::Rsa(der.to_vec()));
        }
        CURVES.iter().find_map(|curve| Some(PublicKey::Ecdsa(parse(curve.verification)?, *curve)))
    }

    fn verify(&self, hash: Hash, text: &[u8], signature: &[u8]) -> Result<(), String> {
        let verified = match self {
            PublicKey::Rsa(der) => {
                let algorithm = match hash {
                    Hash::Sha1 => &signature::RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY,
                    Hash::Sha256 => &signature::RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY,
                    Hash::Sha384 => &signature::RSA_PKCS1_2048_8192_SHA384,
                    Hash::Sha512 => &signature::RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY,
                    Hash::Sha224 => return Err(hash.unsupported()),
                };
                UnparsedPublicKey::new(algorithm, der).verify(text, signature)
            }
            PublicKey::Ecdsa(key, curve) => key.verify_digest_sig(&curve.digest(hash, text)?, signature),
        };
        verified.map_err(|_| "Failed to verify digest. Error code: 0".to_owned())
    }
}

/// A private key.
enum PrivateKey {
    Rsa(RsaKeyPair),
    Ecdsa(EcdsaKeyPair, Curve),
}

impl PrivateKey {
    fn of(der: &[u8]) -> Option<PrivateKey> {
        if let Ok(key) = RsaKeyPair::from_pkcs8(der).or_else(|_| RsaKeyPair::from_der(der)) {
            return Some(PrivateKey::Rsa(key));
        }
        let parse = |curve: &Curve| EcdsaKeyPair::from_private_key_der(curve.signing, der).ok();
        CURVES.iter().find_map(|curve| Some(PrivateKey::Ecdsa(parse(curve)?, *curve)))
    }

    fn sign(&self, hash: Hash, text: &[u8]) -> Result<Vec<u8>, String> {
        let failed = |_| "Failed to sign.".to_owned();
        match self {
            PrivateKey::Rsa(key) => {
                let encoding: &'static dyn RsaEncoding = match hash {
                    Hash::Sha256 => &signature::RSA_PKCS1_SHA256,
                    Hash::Sha384 => &signature::RSA_PKCS1_SHA384,
                    Hash::Sha512 => &signature::RSA_PKCS1_SHA512,
                    Hash::Sha1 | Hash::Sha224 => return Err(hash.unsupported()),
                };
                let mut signed = vec![0; key.public_modulus_len()];
                if signed.len() > MAX_SIGNING_MODULUS {
                    return Err("RSA keys of more than 4096 bits are not supported.".to_owned());
                }
                key.sign(encoding, &SystemRandom::new(), text, &mut signed).map_err(failed)?;
                Ok(signed)
            }
            PrivateKey::Ecdsa(key, curve) => key
                .sign_digest(&curve.digest(hash, text)?)
                .map(|signed| signed.as_ref().to_vec())
                .map_err(failed),
        }
    }
}
