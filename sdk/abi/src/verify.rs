//! The message of `meshgate.verify`.

use prost::Message;

/// A signature to be checked. Argument of [`function::VERIFY`](crate::function::VERIFY).
///
/// ```proto
/// message Verification {
///   string algorithm = 1;
///   bytes public_key = 2;
///   bytes signature = 3;
///   bytes text = 4;
/// }
/// ```
#[derive(Clone, PartialEq, Message)]
pub struct Verification {
    /// The algorithm by its name in JSON Web Signatures, such as `RS256` or `EdDSA`.
    #[prost(string, tag = "1")]
    pub algorithm: String,
    /// The key, as `SubjectPublicKeyInfo` in DER.
    #[prost(bytes = "vec", tag = "2")]
    pub public_key: Vec<u8>,
    /// The signature in the form of JSON Web Signatures: of ECDSA the two numbers, one behind the other.
    #[prost(bytes = "vec", tag = "3")]
    pub signature: Vec<u8>,
    /// What was signed.
    #[prost(bytes = "vec", tag = "4")]
    pub text: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Worked out by hand from the comment.
    #[test]
    fn a_verification_has_the_documented_bytes() {
        let verification = Verification {
            algorithm: "a".into(),
            public_key: b"k".to_vec(),
            signature: b"s".to_vec(),
            text: b"t".to_vec(),
        };
        let bytes = b"\x0a\x01a\x12\x01k\x1a\x01s\x22\x01t";
        assert_eq!(verification.encode_to_vec(), bytes);
        assert_eq!(Verification::decode(&bytes[..]), Ok(verification));
    }
}
