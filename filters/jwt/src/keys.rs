//! JSON Web Key Sets: the public keys of a provider (RFC 7517, RFC 7518, RFC 8037).

use meshgate_sdk::encoding::base64_url;
use meshgate_sdk::signature::{Algorithm, Curve, PublicKey};
use serde_json::Value;

/// The most keys that are taken from a set: with none named, a token is tried with each.
const MOST: usize = 100;

/// The keys of a set that signatures can be checked with.
#[derive(Debug)]
pub(crate) struct KeySet(Vec<Key>);

#[derive(Debug)]
struct Key {
    id: Option<String>,
    /// The one algorithm that it is for, if the set says so.
    algorithm: Option<String>,
    kind: Kind,
    key: PublicKey,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Rsa,
    Ecdsa(Curve),
    Ed25519,
}

impl Kind {
    fn fits(self, algorithm: Algorithm) -> bool {
        use Algorithm as A;
        match self {
            Self::Rsa => matches!(algorithm, A::Rs256 | A::Rs384 | A::Rs512 | A::Ps256 | A::Ps384 | A::Ps512),
            Self::Ecdsa(Curve::P256) => algorithm == A::Es256,
            Self::Ecdsa(Curve::P384) => algorithm == A::Es384,
            Self::Ecdsa(Curve::P521) => algorithm == A::Es512,
            Self::Ed25519 => algorithm == A::EdDsa,
        }
    }
}

impl KeySet {
    /// Reads a set. Keys for other purposes, or of kinds that are not known, are passed over, as RFC 7517 wants it.
    ///
    /// # Errors
    /// Why it is no set, or holds no key that can be used.
    pub(crate) fn parse(json: &[u8]) -> Result<Self, String> {
        let set: Value = serde_json::from_slice(json).map_err(|error| format!("not JSON: {error}"))?;
        Self::read(&set)
    }

    /// As [`parse`](Self::parse).
    pub(crate) fn read(set: &Value) -> Result<Self, String> {
        let keys = set
            .get("keys")
            .and_then(Value::as_array)
            .ok_or("not a JSON Web Key Set: it has no list `keys`")?;
        let usable: Vec<_> = keys.iter().take(MOST).filter_map(key).collect();
        if usable.is_empty() {
            return Err(format!("none of its {} keys is a public key for signatures", keys.len()));
        }
        Ok(Self(usable))
    }

    /// The keys that a token may have been signed with.
    pub(crate) fn candidates<'a>(
        &'a self,
        id: Option<&'a str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = &'a PublicKey> {
        let of_id = move |key: &&Key| match (id, &key.id) {
            (Some(id), Some(known)) => id == known,
            _ => true,
        };
        let fits = move |key: &&Key| {
            key.kind.fits(algorithm) && key.algorithm.as_deref().is_none_or(|only| only == algorithm.name())
        };
        self.0.iter().filter(of_id).filter(fits).map(|key| &key.key)
    }
}

fn key(jwk: &Value) -> Option<Key> {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    let bytes = |name: &str| base64_url(text(name)?.as_bytes());
    let for_signatures = text("use").is_none_or(|usage| usage == "sig");
    let operations = jwk.get("key_ops").and_then(Value::as_array);
    let verifies = operations.is_none_or(|all| all.iter().any(|one| one == "verify"));
    if !for_signatures || !verifies {
        return None;
    }
    let (kind, key) = match (text("kty")?, text("crv")) {
        ("RSA", _) => (Kind::Rsa, PublicKey::rsa(&bytes("n")?, &bytes("e")?)),
        ("EC", Some(curve)) => {
            let curve = match curve {
                "P-256" => Curve::P256,
                "P-384" => Curve::P384,
                "P-521" => Curve::P521,
                _ => return None,
            };
            (Kind::Ecdsa(curve), PublicKey::ecdsa(curve, &bytes("x")?, &bytes("y")?)?)
        }
        ("OKP", Some("Ed25519")) => (Kind::Ed25519, PublicKey::ed25519(&bytes("x")?)),
        _ => return None,
    };
    Some(Key { id: text("kid").map(str::to_owned), algorithm: text("alg").map(str::to_owned), kind, key })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(set: &KeySet, id: Option<&str>, algorithm: Algorithm) -> usize {
        set.candidates(id, algorithm).count()
    }

    #[test]
    fn keys_are_chosen_by_id_and_algorithm() {
        let set = KeySet::parse(
            br#"{"keys": [
                {"kty": "RSA", "kid": "a", "n": "AQAB", "e": "AQAB"},
                {"kty": "RSA", "kid": "b", "n": "AQAB", "e": "AQAB", "alg": "RS512", "use": "sig"},
                {"kty": "EC", "crv": "P-256", "x": "AQ", "y": "AQ"},
                {"kty": "OKP", "crv": "Ed25519", "kid": "e", "x": "AQ", "key_ops": ["verify"]}
            ]}"#,
        )
        .unwrap();
        assert_eq!(count(&set, Some("a"), Algorithm::Rs256), 1);
        assert_eq!(count(&set, Some("b"), Algorithm::Rs256), 0, "the set says RS512");
        assert_eq!(count(&set, Some("b"), Algorithm::Rs512), 1);
        assert_eq!(count(&set, None, Algorithm::Rs512), 2);
        assert_eq!(count(&set, Some("any"), Algorithm::Es256), 1, "a key without an id may be the one");
        assert_eq!(count(&set, None, Algorithm::Es384), 0, "a key of another curve is no key for it");
        assert_eq!(count(&set, Some("e"), Algorithm::EdDsa), 1);
        assert_eq!(count(&set, Some("c"), Algorithm::EdDsa), 0);
    }

    #[test]
    fn sets_without_a_key_of_use_are_refused() {
        for (set, words) in [
            ("{", "not JSON"),
            ("[]", "no list `keys`"),
            (r#"{"keys": []}"#, "none of its 0 keys"),
            (r#"{"keys": [{"kty": "oct", "k": "AQAB"}]}"#, "none of its 1 keys"),
            (r#"{"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB", "use": "enc"}]}"#, "none of its 1 keys"),
            (
                r#"{"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB", "key_ops": ["sign"]}]}"#,
                "none of its 1 keys",
            ),
            (r#"{"keys": [{"kty": "EC", "crv": "secp256k1", "x": "AQ", "y": "AQ"}]}"#, "none of its 1 keys"),
            (r#"{"keys": [{"kty": "RSA", "n": "A!", "e": "AQAB"}, 7]}"#, "none of its 2 keys"),
        ] {
            let said = KeySet::parse(set.as_bytes()).unwrap_err();
            assert!(said.contains(words), "{set}: {said}");
        }
    }
}
