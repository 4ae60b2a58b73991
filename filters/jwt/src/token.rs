//! Tokens: their parts, and what their claims must say (RFC 7515, RFC 7519).

use std::borrow::Cow;

use meshgate_sdk::encoding::base64_url;
use meshgate_sdk::signature::Algorithm;
use serde_json::{Map, Value};

use crate::failure::Failure;
use crate::object;

/// The longest token that is looked at.
pub(crate) const LONGEST: usize = 16 << 10;

/// A token, taken apart; nothing of it is verified.
pub(crate) struct Token<'a> {
    pub(crate) algorithm: String,
    pub(crate) key_id: Option<String>,
    /// Header and payload as they were signed.
    pub(crate) signed: &'a [u8],
    pub(crate) signature: Vec<u8>,
    /// The payload.
    pub(crate) json: Vec<u8>,
    pub(crate) claims: Claims,
}

impl<'a> Token<'a> {
    pub(crate) fn parse(text: &'a str) -> Result<Self, Failure> {
        if text.len() > LONGEST {
            return Err(Failure::Malformed("it is too long"));
        }
        let mut parts = text.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Failure::Malformed("it has not three parts"));
        };
        let decoded = |part: &str| base64_url(part.as_bytes()).ok_or(Failure::Malformed("it is not base64"));
        let json = decoded(payload)?;
        let (header_json, claims) = (object::parse(&decoded(header)?)?, Claims(object::parse(&json)?));
        let text_of = |name: &str| header_json.get(name).and_then(Value::as_str).map(str::to_owned);
        if header_json.contains_key("crit") {
            return Err(Failure::Malformed("it needs an extension (crit) that is not known"));
        }
        if header_json.get("kid").is_some_and(|id| !id.is_string()) {
            return Err(Failure::Malformed("its key id is no text"));
        }
        Ok(Self {
            algorithm: text_of("alg").ok_or(Failure::Malformed("it names no algorithm"))?,
            key_id: text_of("kid"),
            signed: text.get(..header.len() + 1 + payload.len()).unwrap_or_default().as_bytes(),
            signature: decoded(signature)?,
            json,
            claims,
        })
    }
}

/// What a token says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Claims(pub(crate) Map<String, Value>);

/// What claims must say.
#[derive(Debug)]
pub(crate) struct Expected {
    pub(crate) issuer: String,
    pub(crate) audiences: Option<Vec<String>>,
    /// Seconds.
    pub(crate) clock_skew: f64,
    pub(crate) require_expiry: bool,
    pub(crate) claims: Vec<(String, Vec<String>)>,
    pub(crate) algorithms: Vec<Algorithm>,
}

impl Claims {
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Value::as_str)
    }

    /// A claim by its name, or by names with dots between them.
    pub(crate) fn find(&self, name: &str) -> Option<&Value> {
        self.0.get(name).or_else(|| {
            let mut names = name.split('.');
            let first = self.0.get(names.next()?)?;
            names.try_fold(first, |value, name| value.get(name))
        })
    }

    /// Whether a claim is, or holds, one of these values; any will do if there are none.
    fn has(&self, name: &str, values: &[String]) -> bool {
        let is_one = |value: &Value| values.iter().any(|wanted| *wanted == *plain(value));
        match self.find(name) {
            None | Some(Value::Null) => false,
            Some(_) if values.is_empty() => true,
            Some(Value::Array(all)) => all.iter().any(is_one),
            Some(value) => is_one(value),
        }
    }

    /// Checks everything but the signature and the issuer. The time is in seconds since 1970; what is given back is
    /// when the token is no longer good.
    pub(crate) fn check(&self, expected: &Expected, now: f64) -> Result<f64, Failure> {
        let time = |name: &str| match self.0.get(name) {
            None => Ok(None),
            Some(value) => value.as_f64().map(Some).ok_or(Failure::Malformed("a time in it is no number")),
        };
        let until = match time("exp")? {
            Some(expires) => expires + expected.clock_skew,
            None if expected.require_expiry => return Err(Failure::Claim("exp".to_owned())),
            None => f64::INFINITY,
        };
        if now >= until {
            return Err(Failure::Expired);
        }
        if time("nbf")?.is_some_and(|from| from - expected.clock_skew > now) {
            return Err(Failure::NotYet);
        }
        if time("iat")?.is_some_and(|issued| issued - expected.clock_skew > now) {
            return Err(Failure::FromTheFuture);
        }
        if let Some(audiences) = &expected.audiences
            && !self.has("aud", audiences)
        {
            return Err(Failure::Audience);
        }
        match expected.claims.iter().find(|(name, values)| !self.has(name, values)) {
            Some((name, _)) => Err(Failure::Claim(name.clone())),
            None => Ok(until),
        }
    }
}

/// A claim's value as text: of a list, its entries with commas between them; of a map, JSON.
pub(crate) fn plain(value: &Value) -> Cow<'_, str> {
    match value {
        Value::String(text) => text.into(),
        Value::Array(values) => values.iter().map(plain).collect::<Vec<_>>().join(",").into(),
        other => other.to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claims(value: Value) -> Claims {
        let Value::Object(map) = value else { panic!("not a map") };
        Claims(map)
    }

    fn expected() -> Expected {
        Expected {
            issuer: "me".to_owned(),
            audiences: None,
            clock_skew: 60.0,
            require_expiry: true,
            claims: Vec::new(),
            algorithms: Vec::new(),
        }
    }

    #[test]
    fn times_are_checked_with_the_clocks_skew() {
        let at = |value: Value, now: f64| claims(value).check(&expected(), now);
        assert_eq!(at(json!({"exp": 100}), 159.0), Ok(160.0));
        assert_eq!(at(json!({"exp": 100}), 160.0), Err(Failure::Expired));
        assert_eq!(at(json!({"exp": 100.5}), 160.0), Ok(160.5));
        assert_eq!(at(json!({"exp": 1000, "nbf": 160}), 100.0), Ok(1060.0));
        assert_eq!(at(json!({"exp": 1000, "nbf": 161}), 100.0), Err(Failure::NotYet));
        assert_eq!(at(json!({"exp": 1000, "iat": 161}), 100.0), Err(Failure::FromTheFuture));
        assert_eq!(at(json!({}), 0.0), Err(Failure::Claim("exp".to_owned())));
        for no_number in [json!("100"), json!(null), json!(true), json!([100])] {
            assert!(matches!(at(json!({"exp": no_number}), 0.0), Err(Failure::Malformed(_))), "{no_number}");
            assert!(matches!(at(json!({"exp": 9, "nbf": no_number}), 0.0), Err(Failure::Malformed(_))));
        }
        // As far from now as numbers go, in both directions.
        assert_eq!(at(json!({"exp": 1e308, "nbf": -1e308}), 1e9), Ok(1e308));
        assert_eq!(at(json!({"exp": u64::MAX}), 1e9).map(|until| until > 1e19), Ok(true));
        assert_eq!(at(json!({"exp": -1e308}), 0.0), Err(Failure::Expired));
        assert_eq!(at(json!({"exp": i64::MIN}), 0.0), Err(Failure::Expired));
        assert_eq!(at(json!({"exp": 1e308, "nbf": 1e307}), 1e9), Err(Failure::NotYet));
        assert_eq!(at(json!({"exp": 1000, "nbf": 100.25}), 40.25), Ok(1060.0));
        assert_eq!(at(json!({"exp": 1000, "nbf": 100.25}), 40.0), Err(Failure::NotYet));
        let lax = Expected { require_expiry: false, ..expected() };
        assert_eq!(claims(json!({})).check(&lax, 5.0), Ok(f64::INFINITY));
    }

    #[test]
    fn audiences_and_claims_are_one_of_those_wanted() {
        let check = |value: Value, expected: Expected| claims(value).check(&expected, 0.0).err();
        let audience = || Expected { audiences: Some(vec!["a".to_owned(), "b".to_owned()]), ..expected() };
        assert_eq!(check(json!({"exp": 9, "aud": "b"}), audience()), None);
        assert_eq!(check(json!({"exp": 9, "aud": ["x", "a"]}), audience()), None);
        for other in [
            json!({"exp": 9}),
            json!({"exp": 9, "aud": "x"}),
            json!({"exp": 9, "aud": []}),
            json!({"exp": 9, "aud": "a,b"}),
        ] {
            assert_eq!(check(other, audience()), Some(Failure::Audience));
        }
        let wanted = |name: &str, values: &[&str]| {
            let values = values.iter().map(|value| (*value).to_owned()).collect();
            Expected { claims: vec![(name.to_owned(), values)], ..expected() }
        };
        let token = || json!({"exp": 9, "ok": true, "groups": ["x", "y"], "a": {"b": 7}, "none": null});
        for (name, values) in
            [("ok", &["true"][..]), ("groups", &["y", "z"]), ("a.b", &["7"]), ("groups", &[])]
        {
            assert_eq!(check(token(), wanted(name, values)), None, "{name}");
        }
        for (name, values) in
            [("ok", &["false"][..]), ("groups", &["x,y"]), ("a.c", &[]), ("none", &[]), ("a.b.c", &[])]
        {
            assert_eq!(check(token(), wanted(name, values)), Some(Failure::Claim(name.to_owned())), "{name}");
        }
    }

    #[test]
    fn what_is_not_a_token_is_told_so() {
        // {"alg":"RS256"} and {}
        for (text, words) in [
            ("", "three parts"),
            ("a.b", "three parts"),
            ("a.b.c.d", "three parts"),
            ("eyJhbGciOiJSUzI1NiJ9.e30.!", "base64"),
            ("eyJhbGciOiJSUzI1NiJ9.AQAB.", "JSON"),
            ("e30.e30.", "algorithm"),
            ("W10.e30.", "JSON"),
            // {"alg":"none","alg":"RS256"} and {"sub":"a","sub":"b"}
            ("eyJhbGciOiJub25lIiwiYWxnIjoiUlMyNTYifQ.e30.", "twice"),
            ("eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIiwic3ViIjoiYiJ9.", "twice"),
            // {"alg":"RS256","kid":7}
            ("eyJhbGciOiJSUzI1NiIsImtpZCI6N30.e30.", "key id"),
        ] {
            match Token::parse(text) {
                Err(Failure::Malformed(why)) => assert!(why.contains(words), "{text}: {why}"),
                _ => panic!("{text}"),
            }
        }
        assert!(matches!(Token::parse(&"a".repeat(LONGEST + 1)), Err(Failure::Malformed("it is too long"))));
        let token = Token::parse("eyJhbGciOiJSUzI1NiJ9.e30.AQAB").ok().unwrap();
        assert_eq!(
            (token.algorithm.as_str(), token.signed, &token.signature[..]),
            ("RS256", &b"eyJhbGciOiJSUzI1NiJ9.e30"[..], &[1, 0, 1][..])
        );
    }
}
