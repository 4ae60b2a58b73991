//! Credentials in a request: where they stand, and how they are taken out.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::is_token;
use crate::error::Refused;
use crate::message::Request;

/// A place in a request where a credential may stand: a field, a parameter of the query, or a cookie.
///
/// It is a part of a filter's configuration: `{header: authorization, prefix: "Bearer "}`, `{header: x-api-key}`,
/// `{parameter: key}` or `{cookie: session}`.
///
/// ```
/// # use meshgate_sdk::prelude::*;
/// use meshgate_sdk::credential::Place;
///
/// #[derive(Deserialize, JsonSchema)]
/// struct Config {
///     /// Where the key stands.
///     from: Place,
/// }
///
/// # struct Keys { from: Place }
/// # #[filter]
/// # impl Filter for Keys {
/// # fn configure(config: Config) -> Result<Self, ConfigError> { Ok(Self { from: config.from }) }
/// fn on_request(&self, exchange: &Exchange<Self>) -> Outcome {
///     let request = exchange.request();
///     match self.from.find(&request) {
///         Ok(Some(key)) if key == "sesame" => Ok(self.from.clear(&request)?),
///         _ => Reply::new(401).into(),
///     }
/// }
/// # }
/// # fn main() {
/// # use meshgate_sdk::testing::{Proxy, Request};
/// let mut proxy = Proxy::new::<Keys>(r#"{"from": {"parameter": "key"}}"#);
/// let done = proxy.send(Request::get("/a?x=1&key=sesame"));
/// assert_eq!(done.upstream().unwrap().target(), "/a?x=1");
/// assert_eq!(proxy.send(Request::get("/a?key=sesame&key=other")).status(), 401);
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub enum Place {
    /// A field, and what stands there before the credential.
    Header {
        /// The field's name, in lower case.
        name: String,
        /// Compared without regard to case; may be empty.
        prefix: String,
    },
    /// A parameter of the query.
    Parameter(String),
    /// A cookie.
    Cookie(String),
}

/// A place as it is written in a configuration: one of `header`, `parameter` and `cookie`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Written {
    /// A field of the request.
    #[serde(default)]
    #[schemars(with = "String", length(min = 1))]
    header: Option<String>,
    /// What stands before it in that field, in any case, such as `Bearer `.
    #[serde(default)]
    #[schemars(with = "String", length(min = 1))]
    prefix: Option<String>,
    /// A parameter of the query.
    #[serde(default)]
    #[schemars(with = "String", length(min = 1))]
    parameter: Option<String>,
    /// A cookie.
    #[serde(default)]
    #[schemars(with = "String", length(min = 1))]
    cookie: Option<String>,
}

/// There are several where one was expected. Whoever reads the request next may take another one than the filter did.
///
/// ```
/// assert_eq!(meshgate_sdk::credential::Ambiguous.to_string(), "there is more than one");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ambiguous;

impl std::fmt::Display for Ambiguous {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("there is more than one")
    }
}

impl std::error::Error for Ambiguous {}

impl TryFrom<Written> for Place {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let Written { header, prefix, parameter, cookie } = written;
        match (header, parameter, cookie) {
            (Some(name), None, None) if is_token(&name) => {
                Ok(Self::Header { name: name.to_ascii_lowercase(), prefix: prefix.unwrap_or_default() })
            }
            (Some(name), None, None) => Err(format!("{name:?} is not a field name")),
            (None, ..) if prefix.is_some() => Err("only a header has a prefix".to_owned()),
            (None, Some(name), None) => Ok(Self::Parameter(name)),
            (None, None, Some(name)) => Ok(Self::Cookie(name)),
            _ => Err("it stands in one place: say `header`, `parameter` or `cookie`".to_owned()),
        }
    }
}

impl JsonSchema for Place {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Place".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        Written::json_schema(generator)
    }
}

impl Place {
    /// A field that holds nothing else.
    ///
    /// ```
    /// use meshgate_sdk::credential::Place;
    ///
    /// let place: Place = serde_json::from_str(r#"{"header": "x-api-key"}"#).unwrap();
    /// assert_eq!(place, Place::header("X-Api-Key"));
    /// ```
    pub fn header(name: &str) -> Self {
        Self::Header { name: name.to_ascii_lowercase(), prefix: String::new() }
    }

    /// `authorization: Bearer …`
    ///
    /// ```
    /// use meshgate_sdk::credential::Place;
    ///
    /// let place: Place = serde_json::from_str(r#"{"header": "authorization", "prefix": "Bearer "}"#).unwrap();
    /// assert_eq!(place, Place::bearer());
    /// ```
    pub fn bearer() -> Self {
        Self::Header { name: "authorization".to_owned(), prefix: "Bearer ".to_owned() }
    }

    /// What stands there, if there is something.
    ///
    /// # Errors
    /// There are several.
    pub fn find(&self, request: &Request) -> Result<Option<String>, Ambiguous> {
        let found: Vec<String> = match self {
            Self::Header { name, prefix } => {
                let pairs = request.headers().pairs();
                pairs.all(name).filter_map(|value| after(value, prefix)).collect()
            }
            Self::Parameter(name) => {
                let target = request.target();
                let named = target.parameters().filter(|(known, _)| known == name);
                named.map(|(_, value)| value.into_owned()).collect()
            }
            Self::Cookie(name) => {
                let pairs = request.headers().pairs();
                let lines = pairs.all("cookie").map(String::from_utf8_lossy);
                lines.flat_map(|line| cookies(&line, name)).collect()
            }
        };
        if found.len() > 1 {
            return Err(Ambiguous);
        }
        Ok(found.into_iter().next())
    }

    /// Takes out what stands there, and leaves everything else as it was written.
    ///
    /// # Errors
    /// The request cannot be changed any more.
    pub fn clear(&self, request: &Request) -> Result<(), Refused> {
        let headers = request.headers();
        match self {
            Self::Header { name, prefix } => {
                let pairs = headers.pairs();
                headers.remove(name)?;
                for other in pairs.all(name).filter(|value| after(value, prefix).is_none()) {
                    headers.add(name, other)?;
                }
            }
            Self::Parameter(name) => {
                let target = request.target();
                let is_other =
                    |parameter: &&str| crate::Target::from(format!("?{parameter}")).parameter(name).is_none();
                let kept: Vec<&str> =
                    target.query().unwrap_or_default().split('&').filter(is_other).collect();
                let query = if kept.is_empty() { String::new() } else { format!("?{}", kept.join("&")) };
                request.set_target(&format!("{}{query}", target.path()))?;
            }
            Self::Cookie(name) => {
                let pairs = headers.pairs();
                headers.remove("cookie")?;
                for line in pairs.all("cookie").map(String::from_utf8_lossy) {
                    let is_other =
                        |pair: &&str| pair.split_once('=').is_none_or(|(known, _)| known != name.as_str());
                    let kept: Vec<&str> = line.split(';').map(str::trim).filter(is_other).collect();
                    if !kept.is_empty() {
                        headers.add("cookie", kept.join("; "))?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// What follows the prefix.
fn after(value: &[u8], prefix: &str) -> Option<String> {
    let (start, rest) = value.split_at_checked(prefix.len())?;
    let credential = std::str::from_utf8(rest).ok()?.trim();
    let begins = start.eq_ignore_ascii_case(prefix.as_bytes());
    (begins && !credential.is_empty()).then(|| credential.to_owned())
}

fn cookies(line: &str, name: &str) -> Vec<String> {
    let pairs = line.split(';').filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(|(known, _)| *known == name).map(|(_, value)| value.trim_matches('"').to_owned()).collect()
}

/// Whether bytes can be the value of a field: no line ends, and no other control characters but a tab.
///
/// ```
/// use meshgate_sdk::credential::is_field_value;
///
/// assert!(is_field_value(b"ann\t\xc3\xa9") && is_field_value(b"") && !is_field_value(b"ann\r\nx-admin: 1"));
/// ```
pub fn is_field_value(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == b'\t' || *byte >= b' ' && *byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(json: &str) -> Result<Place, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn a_place_is_one_of_three() {
        let header = Place::Header { name: "x-key".to_owned(), prefix: String::new() };
        assert_eq!(place(r#"{"header": "X-Key"}"#), Ok(header));
        assert_eq!(place(r#"{"header": "authorization", "prefix": "Bearer "}"#), Ok(Place::bearer()));
        assert_eq!(place(r#"{"parameter": "key"}"#), Ok(Place::Parameter("key".to_owned())));
        assert_eq!(place(r#"{"cookie": "key"}"#), Ok(Place::Cookie("key".to_owned())));
        for (wrong, words) in [
            ("{}", "it stands in one place"),
            (r#"{"header": "a", "cookie": "b"}"#, "it stands in one place"),
            (r#"{"header": "a b"}"#, "is not a field name"),
            (r#"{"cookie": "a", "prefix": "b"}"#, "only a header has a prefix"),
            (r#"{"heder": "a"}"#, "unknown field"),
        ] {
            assert!(place(wrong).unwrap_err().contains(words), "{wrong}");
        }
    }

    #[test]
    fn prefixes_have_no_case_and_what_follows_no_blanks() {
        assert_eq!(after(b"bearer  abc ", "Bearer ").as_deref(), Some("abc"));
        for other in [&b"Basic abc"[..], b"Bearer", b"Bearer ", b"", b"Bearer \xff"] {
            assert_eq!(after(other, "Bearer "), None);
        }
    }

    #[test]
    fn cookies_are_found_by_their_name() {
        assert_eq!(cookies("a=1; session=x=y; b=2; session=\"z\"", "session"), ["x=y", "z"]);
        assert!(cookies("a=1; xsession=1; session", "session").is_empty());
    }
}
