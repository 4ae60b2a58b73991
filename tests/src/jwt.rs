//! Issuers of JSON Web Tokens: keys of every kind, the sets that hold them, and tokens signed with them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING,
    EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512,
    RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
};
use serde_json::{Value, json};

/// A key that tokens are signed with.
pub struct SigningKey {
    id: String,
    pair: Pair,
}

enum Pair {
    Rsa(Box<RsaKeyPair>),
    Ecdsa(EcdsaKeyPair, &'static str, usize),
    Ed25519(Ed25519KeyPair),
}

impl SigningKey {
    /// A new key for this algorithm (`RS256`, `PS384`, `ES256`, `EdDSA` …). One of RSA is good for all of RSA's.
    pub fn new(id: &str, algorithm: &str) -> SigningKey {
        let ecdsa = |curve, name, size| {
            Pair::Ecdsa(EcdsaKeyPair::generate(curve).expect("a key of ECDSA"), name, size)
        };
        let pair = match algorithm {
            "ES256" => ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING, "P-256", 32),
            "ES384" => ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING, "P-384", 48),
            "ES512" => ecdsa(&ECDSA_P521_SHA512_FIXED_SIGNING, "P-521", 66),
            "EdDSA" => Pair::Ed25519(Ed25519KeyPair::generate().expect("a key of Ed25519")),
            _ => Pair::Rsa(Box::new(RsaKeyPair::generate(KeySize::Rsa2048).expect("a key of RSA"))),
        };
        SigningKey { id: id.to_owned(), pair }
    }

    /// The public key as a JSON Web Key.
    pub fn jwk(&self) -> Value {
        let kid = &self.id;
        match &self.pair {
            Pair::Rsa(pair) => {
                // 2048 bits of modulus and the exponent 65537 stand at the end of the key in DER.
                let der: PublicKeyX509Der<'_> = pair.public_key().as_der().expect("a public key");
                let end = der.as_ref().len() - 5;
                let modulus = &der.as_ref()[end - 256..end];
                json!({"kty": "RSA", "kid": kid, "use": "sig", "n": base64_url(modulus), "e": "AQAB"})
            }
            Pair::Ecdsa(pair, curve, size) => {
                let point = &pair.public_key().as_ref()[1..];
                let (x, y) = (base64_url(&point[..*size]), base64_url(&point[*size..]));
                json!({"kty": "EC", "kid": kid, "crv": curve, "x": x, "y": y})
            }
            Pair::Ed25519(pair) => {
                json!({"kty": "OKP", "kid": kid, "crv": "Ed25519", "x": base64_url(pair.public_key().as_ref())})
            }
        }
    }

    /// A token with these claims.
    pub fn sign(&self, algorithm: &str, claims: &Value) -> String {
        let header = json!({"alg": algorithm, "kid": self.id, "typ": "JWT"});
        let text = format!(
            "{}.{}",
            base64_url(header.to_string().as_bytes()),
            base64_url(claims.to_string().as_bytes())
        );
        let signature = match &self.pair {
            Pair::Rsa(pair) => {
                let encoding: &'static dyn RsaEncoding = match algorithm {
                    "RS384" => &RSA_PKCS1_SHA384,
                    "RS512" => &RSA_PKCS1_SHA512,
                    "PS256" => &RSA_PSS_SHA256,
                    "PS384" => &RSA_PSS_SHA384,
                    "PS512" => &RSA_PSS_SHA512,
                    _ => &RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                let signed = pair.sign(encoding, &SystemRandom::new(), text.as_bytes(), &mut signature);
                signed.expect("a signature");
                signature
            }
            Pair::Ecdsa(pair, ..) => {
                let signature = pair.sign(&SystemRandom::new(), text.as_bytes());
                signature.expect("a signature").as_ref().to_vec()
            }
            Pair::Ed25519(pair) => pair.sign(text.as_bytes()).as_ref().to_vec(),
        };
        format!("{text}.{}", base64_url(&signature))
    }
}

/// A JSON Web Key Set of these keys.
pub fn key_set(keys: &[&SigningKey]) -> Value {
    json!({"keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>()})
}

/// So many seconds from now, or before now, in seconds since 1970.
pub fn seconds_from_now(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    i64::try_from(now).expect("a time of this age") + seconds
}

fn base64_url(bytes: &[u8]) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - group.len()));
        for place in 0..=group.len() {
            text.push(char::from(LETTERS[(bits >> (18 - 6 * place) & 63) as usize]));
        }
    }
    text
}
