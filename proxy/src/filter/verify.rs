//! `meshgate.verify`: whether a signature is a key's. The names and forms are those of JSON Web Signatures.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, UnparsedPublicKey,
    VerificationAlgorithm,
};
use meshgate_abi::Verification;
use meshgate_wasm::Status;
use prost::Message;

/// Answers the function: one byte, 1 if the signature is the key's. `NotFound` for an algorithm that is not known, as if there
/// were no such function: guests try another one then. UNIMPLEMENTED is no status that all guests in Rust can take.
pub(super) fn verify(argument: &[u8]) -> Result<Vec<u8>, Status> {
    let verification = Verification::decode(argument).map_err(|_| Status::BadArgument)?;
    let algorithm = algorithm(&verification.algorithm).ok_or(Status::NotFound)?;
    let key = UnparsedPublicKey::new(algorithm, &verification.public_key);
    let key = key.parse().map_err(|_| Status::BadArgument)?;
    let valid = key.verify_sig(&verification.text, &verification.signature).is_ok();
    Ok(vec![u8::from(valid)])
}

fn algorithm(name: &str) -> Option<&'static dyn VerificationAlgorithm> {
    Some(match name {
        "RS256" => &RSA_PKCS1_2048_8192_SHA256,
        "RS384" => &RSA_PKCS1_2048_8192_SHA384,
        "RS512" => &RSA_PKCS1_2048_8192_SHA512,
        "PS256" => &RSA_PSS_2048_8192_SHA256,
        "PS384" => &RSA_PSS_2048_8192_SHA384,
        "PS512" => &RSA_PSS_2048_8192_SHA512,
        "ES256" => &ECDSA_P256_SHA256_FIXED,
        "ES384" => &ECDSA_P384_SHA384_FIXED,
        "ES512" => &ECDSA_P521_SHA512_FIXED,
        "EdDSA" => &ED25519,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::AsDer;
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING,
        EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512,
        RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
    };

    use super::*;

    const TEXT: &[u8] = b"what was signed";

    fn asked(algorithm: &str, key: &[u8], signature: &[u8], text: &[u8]) -> Result<Vec<u8>, Status> {
        let verification = Verification {
            algorithm: algorithm.to_owned(),
            public_key: key.to_vec(),
            signature: signature.to_vec(),
            text: text.to_vec(),
        };
        verify(&verification.encode_to_vec())
    }

    fn check(algorithm: &str, key: &[u8], signature: &[u8]) {
        assert_eq!(asked(algorithm, key, signature, TEXT), Ok(vec![1]), "{algorithm}");
        assert_eq!(asked(algorithm, key, signature, b"another"), Ok(vec![0]), "{algorithm}");
        assert_eq!(asked(algorithm, key, &signature[1..], TEXT), Ok(vec![0]), "{algorithm}");
        assert_eq!(asked(algorithm, &key[1..], signature, TEXT), Err(Status::BadArgument), "{algorithm}");
        assert_eq!(asked("HS256", key, signature, TEXT), Err(Status::NotFound));
    }

    #[test]
    fn signatures_of_rsa() {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let key = AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(pair.public_key()).unwrap();
        let encodings: [(&str, &'static dyn RsaEncoding); 6] = [
            ("RS256", &RSA_PKCS1_SHA256),
            ("RS384", &RSA_PKCS1_SHA384),
            ("RS512", &RSA_PKCS1_SHA512),
            ("PS256", &RSA_PSS_SHA256),
            ("PS384", &RSA_PSS_SHA384),
            ("PS512", &RSA_PSS_SHA512),
        ];
        for (name, encoding) in encodings {
            let mut signature = vec![0; pair.public_modulus_len()];
            pair.sign(encoding, &SystemRandom::new(), TEXT, &mut signature).unwrap();
            check(name, key.as_ref(), &signature);
        }
    }

    #[test]
    fn signatures_of_ecdsa() {
        for (name, curve) in [
            ("ES256", &ECDSA_P256_SHA256_FIXED_SIGNING),
            ("ES384", &ECDSA_P384_SHA384_FIXED_SIGNING),
            ("ES512", &ECDSA_P521_SHA512_FIXED_SIGNING),
        ] {
            let pair = EcdsaKeyPair::generate(curve).unwrap();
            let key = AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(pair.public_key()).unwrap();
            let signature = pair.sign(&SystemRandom::new(), TEXT).unwrap();
            check(name, key.as_ref(), signature.as_ref());
        }
    }

    #[test]
    fn signatures_of_ed25519() {
        let pair = Ed25519KeyPair::generate().unwrap();
        let key = AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(pair.public_key()).unwrap();
        check("EdDSA", key.as_ref(), pair.sign(TEXT).as_ref());
    }

    #[test]
    fn an_algorithm_takes_only_its_own_keys() {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let key = AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(pair.public_key()).unwrap();
        for other in ["RS256", "PS512", "ES384", "ES512", "EdDSA"] {
            assert_eq!(asked(other, key.as_ref(), &[0; 64], TEXT), Err(Status::BadArgument), "{other}");
        }
        assert_eq!(verify(&[0xff]), Err(Status::BadArgument));
    }
}
