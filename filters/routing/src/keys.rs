//! What a client stays with: keys of requests, by which clusters (`sticky`) and endpoints (`hash`) are chosen.

use std::net::SocketAddr;

use meshgate_sdk::config::{Duration, is_token};
use meshgate_sdk::{ConfigError, Request, property};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::draw::Draw;

/// One key, or several: the first that a request has counts.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected one of header, cookie, query and source_address, or a list of them")]
pub(crate) enum KeysConfig {
    /// This one.
    One(KeyConfig),
    /// The first that a request has.
    First(#[schemars(length(min = 1))] Vec<KeyConfig>),
}

/// A part of a request.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum KeyConfig {
    /// The first value of a field.
    Header(String),
    /// The value of a cookie.
    Cookie(CookieConfig),
    /// The first value of a parameter of the query, as it stands in the URL.
    Query(String),
    /// The client's IP address.
    SourceAddress,
}

/// A cookie.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected the name of a cookie, or a map with name, ttl and path")]
pub(crate) enum CookieConfig {
    /// This one, for requests that have it.
    Name(String),
    /// One that clients may be given.
    Given(GivenCookie),
}

/// A cookie that clients may be given.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GivenCookie {
    /// Its name.
    name: String,
    /// A client without the cookie is given one that lasts so long; `0s`: until it closes. Left out: it is given none.
    ttl: Option<Duration>,
    /// For which paths it is given. Default: /.
    #[serde(default)]
    #[schemars(with = "String")]
    path: Option<String>,
}

/// A key, prepared.
#[derive(Debug)]
enum Key {
    Header(String),
    /// The cookie, and what else stands in `set-cookie` if clients are given it.
    Cookie(String, Option<String>),
    Query(String),
    SourceAddress,
}

/// Keys, prepared.
#[derive(Debug, Default)]
pub(crate) struct Keys(Box<[Key]>);

/// The cookies that the client of a request is given.
#[derive(Debug, Default)]
pub(crate) struct NewCookies {
    values: Vec<(String, String)>,
    /// What stands in `set-cookie`.
    pub(crate) fields: Vec<String>,
}

impl Keys {
    pub(crate) fn new(config: Option<&KeysConfig>) -> Result<Self, ConfigError> {
        match config {
            None => Ok(Self::default()),
            Some(KeysConfig::One(key)) => Ok(Self(Box::new([Key::new(key)?]))),
            Some(KeysConfig::First(keys)) if keys.is_empty() => {
                Err(ConfigError::new("an empty list names no key"))
            }
            Some(KeysConfig::First(keys)) => {
                let keys = keys.iter().enumerate();
                let keys =
                    keys.map(|(place, key)| Key::new(key).map_err(|error| error.within(&place.to_string())));
                Ok(Self(keys.collect::<Result<_, _>>()?))
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first key that a request has, or is given now.
    pub(crate) fn find(&self, request: &Request, draw: &Draw, cookies: &mut NewCookies) -> Option<Vec<u8>> {
        self.0.iter().find_map(|key| match key {
            Key::Header(name) => request.headers().get_bytes(name),
            Key::Query(name) => Some(request.target().raw_parameter(name)?.as_bytes().to_vec()),
            Key::SourceAddress => source(&property::text("source/address")?),
            Key::Cookie(name, attributes) => {
                let known = request.cookie(name).map(String::into_bytes);
                known.or_else(|| Some(cookies.give(name, attributes.as_ref()?, request, draw).into_bytes()))
            }
        })
    }
}

impl Key {
    fn new(config: &KeyConfig) -> Result<Self, ConfigError> {
        let token = |name: &str, what: &str, place: &str| {
            let refused = || ConfigError::new(format_args!("{name:?} is not the name of a {what}")).at(place);
            is_token(name).then_some(()).ok_or_else(refused)
        };
        Ok(match config {
            KeyConfig::SourceAddress => Self::SourceAddress,
            KeyConfig::Header(name) => {
                token(name, "field", "header")?;
                Self::Header(name.to_ascii_lowercase())
            }
            KeyConfig::Query(name) if name.is_empty() => {
                return Err(ConfigError::new("a parameter has a name").at("query"));
            }
            KeyConfig::Query(name) => Self::Query(name.clone()),
            KeyConfig::Cookie(CookieConfig::Name(name)) => {
                token(name, "cookie", "cookie")?;
                Self::Cookie(name.clone(), None)
            }
            KeyConfig::Cookie(CookieConfig::Given(cookie)) => {
                token(&cookie.name, "cookie", "cookie/name")?;
                let attributes = cookie.attributes().map_err(|error| error.within("cookie"))?;
                Self::Cookie(cookie.name.clone(), attributes)
            }
        })
    }
}

impl GivenCookie {
    /// What stands in `set-cookie` after the value.
    fn attributes(&self) -> Result<Option<String>, ConfigError> {
        let path = self.path.as_deref().unwrap_or("/");
        if !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b';') {
            return Err(ConfigError::new(format_args!("{path:?} is not a path")).at("path"));
        }
        let Some(ttl) = self.ttl else {
            return match self.path {
                Some(_) => Err(ConfigError::new("without `ttl` no client is given the cookie").at("path")),
                None => Ok(None),
            };
        };
        let lasting = match ttl.as_std().as_millis().div_ceil(1000) {
            0 => String::new(),
            seconds => format!("; Max-Age={seconds}"),
        };
        Ok(Some(format!("; Path={path}{lasting}; HttpOnly; SameSite=Lax")))
    }
}

impl NewCookies {
    /// Gives the client a cookie with a random value, the same one if it is asked for again.
    fn give(&mut self, name: &str, attributes: &str, request: &Request, draw: &Draw) -> String {
        if let Some((_, value)) = self.values.iter().find(|(known, _)| known == name) {
            return value.clone();
        }
        let value = format!("{:016x}", draw.next());
        let secure = if request.scheme() == "https" { "; Secure" } else { "" };
        self.fields.push(format!("{name}={value}{attributes}{secure}"));
        self.values.push((name.to_owned(), value.clone()));
        value
    }
}

/// The bytes of an IP address that is written with its port.
fn source(address: &str) -> Option<Vec<u8>> {
    // The load balancer's own key by address is made of the same bytes.
    Some(match address.parse::<SocketAddr>().ok()?.ip().to_canonical() {
        std::net::IpAddr::V4(address) => address.octets().to_vec(),
        std::net::IpAddr::V6(address) => address.octets().to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(config: &str) -> Result<Keys, String> {
        let config: KeysConfig = serde_json::from_str(config).map_err(|error| error.to_string())?;
        Keys::new(Some(&config)).map_err(|error| error.to_string())
    }

    #[test]
    fn keys_are_written_as_one_or_a_list() {
        assert_eq!(keys(r#""source_address""#).unwrap().0.len(), 1);
        assert_eq!(
            keys(r#"[{"header": "x-user"}, {"cookie": "user"}, "source_address"]"#).unwrap().0.len(),
            3
        );
        let given = keys(r#"{"cookie": {"name": "side", "ttl": "90m", "path": "/shop"}}"#).unwrap();
        let [Key::Cookie(name, Some(attributes))] = &*given.0 else { panic!("{given:?}") };
        assert_eq!((&**name, &**attributes), ("side", "; Path=/shop; Max-Age=5400; HttpOnly; SameSite=Lax"));
        let session = keys(r#"{"cookie": {"name": "side", "ttl": "0s"}}"#).unwrap();
        assert!(
            matches!(&*session.0, [Key::Cookie(_, Some(text))] if text == "; Path=/; HttpOnly; SameSite=Lax")
        );
    }

    #[test]
    fn addresses_are_keys_without_their_port() {
        assert_eq!(source("10.1.2.3:4567"), Some(vec![10, 1, 2, 3]));
        assert_eq!(source("[::ffff:10.1.2.3]:1"), Some(vec![10, 1, 2, 3]));
        assert_eq!(source("[::1]:1").map(|bytes| bytes.len()), Some(16));
        assert_eq!(source("@"), None);
    }

    #[test]
    fn wrong_keys_are_refused_with_their_place() {
        for (config, place) in [
            ("[]", "an empty list"),
            (r#"{"header": "a b"}"#, "header: "),
            (r#"{"query": ""}"#, "query: "),
            (r#"{"cookie": "a;b"}"#, "cookie: "),
            (r#"{"cookie": {"name": ""}}"#, "cookie/name: "),
            (r#"{"cookie": {"name": "a", "ttl": "1h", "path": "x"}}"#, "cookie/path: "),
            (r#"{"cookie": {"name": "a", "ttl": "1h", "path": "/a;b"}}"#, "cookie/path: "),
            (r#"{"cookie": {"name": "a", "path": "/"}}"#, "cookie/path: "),
            (r#"["source_address", {"header": ""}]"#, "1/header: "),
        ] {
            let error = keys(config).unwrap_err();
            assert!(error.starts_with(place), "{config}: {error}");
        }
    }
}
