//! Typed configuration: types for fields that mean something to the host, and errors that name the field.
//!
//! A filter's configuration is any type that serde can read and schemars can describe. The types here carry marks in
//! their schema: the host checks that a named cluster exists, builds sub-chains, and watches files.

mod units;

use std::any::TypeId;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapDeserializer;
use serde::de::{self, DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

pub use self::units::{Duration, Percent, Size};

/// Whether a text is a token (RFC 9110 section 5.6.2), as methods and fields' names are.
///
/// ```
/// use meshgate_sdk::config::is_token;
///
/// assert!(is_token("x-request-id"));
/// assert!(!is_token("") && !is_token("two words") && !is_token(":path"));
/// ```
pub fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// The configuration of a filter that has none: `{}` or nothing.
///
/// ```
/// # use meshgate_sdk::prelude::*;
/// # struct Simple;
/// # #[filter]
/// # impl Filter for Simple {
/// fn configure(_: Empty) -> Result<Self, ConfigError> {
///     Ok(Self)
/// }
/// # }
/// # fn main() {}
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Empty {}

/// Why a filter refuses its configuration.
///
/// ```
/// use meshgate_sdk::ConfigError;
///
/// let error = ConfigError::new("a share is at most 100").at("percent").within("delay");
/// assert_eq!(error.to_string(), "delay/percent: a share is at most 100");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    path: String,
    message: String,
}

impl ConfigError {
    /// The configuration is refused for this reason.
    pub fn new(message: impl fmt::Display) -> Self {
        Self { path: String::new(), message: message.to_string() }
    }

    /// Names the field that is wrong: keys and indexes with `/` between them, such as `routes/0/to`.
    #[must_use]
    pub fn at(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// Names the field that holds the one named so far.
    #[must_use]
    pub fn within(mut self, path: &str) -> Self {
        self.path = if self.path.is_empty() { path.to_owned() } else { format!("{path}/{}", self.path) };
        self
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => f.write_str(&self.message),
            path => write!(f, "{path}: {}", self.message),
        }
    }
}

impl std::error::Error for ConfigError {}

impl From<crate::Refused> for ConfigError {
    fn from(refused: crate::Refused) -> Self {
        Self::new(refused)
    }
}

/// Reads a plugin's configuration. No bytes at all count as `{}`.
pub(crate) fn parse<T: DeserializeOwned + 'static>(bytes: &[u8]) -> Result<T, ConfigError> {
    // Known when the filter is compiled: a module without a configuration need not contain a reader of JSON.
    if TypeId::of::<T>() == TypeId::of::<Empty>() {
        return nothing(bytes);
    }
    let json = if bytes.iter().all(u8::is_ascii_whitespace) { b"{}" } else { bytes };
    serde_json::from_slice(json).map_err(|error| refusal(json, &error))
}

/// The value of a type without fields.
fn nothing<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ConfigError> {
    let is_empty = bytes.iter().filter(|byte| !byte.is_ascii_whitespace()).eq(b"{}")
        || bytes.iter().all(u8::is_ascii_whitespace);
    let fields = std::iter::empty::<((), ())>();
    let value = T::deserialize(MapDeserializer::<_, de::value::Error>::new(fields)).ok();
    value.filter(|_| is_empty).ok_or_else(|| ConfigError::new("this filter takes no configuration"))
}

#[cold]
fn refusal(json: &[u8], error: &serde_json::Error) -> ConfigError {
    let text = error.to_string();
    // The position means little to people who wrote YAML; the path says the same better.
    let message = text.rsplit_once(" at line ").map_or(text.as_str(), |(message, _)| message);
    ConfigError::new(message).at(crate::json_path::at(json, error.line(), error.column()))
}

/// A cluster of the host's configuration, by its name. The host checks that it exists; a filter can [call](Self::get) it.
///
/// ```
/// use meshgate_sdk::Cluster;
///
/// #[derive(serde::Deserialize, schemars::JsonSchema)]
/// struct Config {
///     /// Who to ask.
///     service: Cluster,
/// }
///
/// let config: Config = serde_json::from_str(r#"{"service": "users"}"#).unwrap();
/// assert_eq!(config.service.as_str(), "users");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cluster(String);

/// A list of filters, in the form of a chain, that this filter can attach to an exchange by its route decision.
///
/// The host builds the chain when it loads the configuration; the filter only sees its key. See
/// [`Decision::chain`](crate::route::Builder::chain).
///
/// ```
/// #[derive(serde::Deserialize, schemars::JsonSchema)]
/// struct Config {
///     /// What runs for guests.
///     guests: meshgate_sdk::config::SubChain,
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SubChain(String);

/// A path to a file, relative to the configuration file. The host watches it.
///
/// ```
/// #[derive(serde::Deserialize, schemars::JsonSchema)]
/// struct Config {
///     /// The words that must not be said.
///     words: meshgate_sdk::config::FilePath,
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FilePath(String);

/// What is in a file. In the YAML stands the file's path, relative to the configuration file; the filter gets its content.
///
/// Meshgate reads the file whenever it loads the configuration, and watches it: when it changes, the filter is configured
/// anew, and a content that it refuses changes nothing. Other hosts give what stands in their configuration.
///
/// ```
/// #[derive(serde::Deserialize, schemars::JsonSchema)]
/// struct Config {
///     /// The words that must not be said, one in a line.
///     words: meshgate_sdk::config::FileText,
/// }
///
/// fn is_said(config: &Config, word: &str) -> bool {
///     config.words.as_str().lines().any(|line| line == word)
/// }
/// # assert!(is_said(&Config { words: "one\ntwo".into() }, "two"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FileText(String);

macro_rules! text_type {
    ($name:ident, $schema:tt) => {
        impl $name {
            /// As text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

text_type!(Cluster, {"type": "string", "x-meshgate": "cluster"});
text_type!(SubChain, {"type": "array", "x-meshgate": "chain"});
text_type!(FilePath, {"type": "string", "x-meshgate": "file"});
text_type!(FileText, {"type": "string", "x-meshgate": "file_text"});

/// A map whose keys name clusters, in the order of the configuration: `{reviews-v2: 90, reviews-v1: 10}`.
///
/// ```
/// use meshgate_sdk::config::ClusterMap;
///
/// let weights: ClusterMap<u32> = serde_json::from_str(r#"{"reviews-v2": 90, "reviews-v1": 10}"#).unwrap();
/// let (cluster, weight) = weights.iter().next().unwrap();
/// assert_eq!((cluster.as_str(), *weight), ("reviews-v2", 90));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterMap<V>(Vec<(Cluster, V)>);

impl<V> ClusterMap<V> {
    /// The entries in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Cluster, &V)> {
        self.0.iter().map(|(name, value)| (name, value))
    }
}

impl<'a, V> FromIterator<(&'a str, V)> for ClusterMap<V> {
    fn from_iter<I: IntoIterator<Item = (&'a str, V)>>(entries: I) -> Self {
        Self(entries.into_iter().map(|(name, value)| (name.into(), value)).collect())
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for ClusterMap<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<V>(PhantomData<V>);

        impl<'de, V: Deserialize<'de>> Visitor<'de> for Entries<V> {
            type Value = ClusterMap<V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from clusters")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(ClusterMap(entries))
            }
        }

        deserializer.deserialize_map(Entries(PhantomData))
    }
}

impl<V: JsonSchema> JsonSchema for ClusterMap<V> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("ClusterMap_of_{}", V::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let keys = generator.subschema_for::<Cluster>();
        let mut schema = BTreeMap::<String, V>::json_schema(generator);
        schema.insert("propertyNames".into(), keys.into());
        schema
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        #[serde(default)]
        wait: Duration,
        #[serde(default)]
        routes: Vec<Route>,
    }

    #[derive(Debug, PartialEq, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Route {
        to: ClusterMap<u32>,
        filters: Option<SubChain>,
    }

    fn error(json: &str) -> String {
        parse::<Sample>(json.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn nothing_is_an_empty_map() {
        assert_eq!(parse::<Empty>(b""), Ok(Empty {}));
        assert_eq!(parse::<Empty>(b" \n"), Ok(Empty {}));
        assert_eq!(parse::<Empty>(b" { }\n"), Ok(Empty {}));
        for something in ["{\"a\": 1}", "null", "{}{}", "1"] {
            let error = parse::<Empty>(something.as_bytes()).unwrap_err();
            assert_eq!(error.to_string(), "this filter takes no configuration", "{something}");
        }
        assert_eq!(parse::<Sample>(b""), Ok(Sample { wait: Duration::default(), routes: vec![] }));
    }

    #[test]
    fn errors_name_the_field() {
        assert_eq!(error(r#"{"wait": 3}"#), "wait: invalid type: integer `3`, expected a string");
        assert!(
            error(r#"{"wait": "3"}"#).starts_with("wait: invalid value: string \"3\", expected a duration")
        );
        assert!(error(r#"{"wiat": "3s"}"#).starts_with("wiat: unknown field `wiat`"));
        assert_eq!(error(r#"{"routes": [{"to": {}}, {}]}"#), "routes/1: missing field `to`");
        assert_eq!(
            error(r#"{"routes": [{"to": {"a": 1}}, {"to": {"a": 1, "b": -1}}]}"#),
            "routes/1/to/b: invalid value: integer `-1`, expected u32"
        );
        assert_eq!(error("3"), "invalid type: integer `3`, expected struct Sample");
    }

    #[test]
    fn cluster_maps_keep_their_order() {
        let sample: Sample =
            parse(br#"{"routes": [{"to": {"z": 1, "a": 2}, "filters": "routes/0/filters"}]}"#).unwrap();
        let names: Vec<_> =
            sample.routes[0].to.iter().map(|(name, weight)| (name.as_str(), *weight)).collect();
        assert_eq!(names, [("z", 1), ("a", 2)]);
        assert_eq!(sample.routes[0].filters, Some("routes/0/filters".into()));
    }

    #[test]
    fn schemas_carry_the_marks() {
        let schema = schemars::schema_for!(Sample).to_value();
        assert_eq!(schema["properties"]["wait"]["format"], "duration");
        let route = &schema["$defs"]["Route"]["properties"];
        assert_eq!(route["to"]["propertyNames"]["x-meshgate"], "cluster");
        assert_eq!(route["to"]["additionalProperties"]["type"], "integer");
        assert!(route["filters"].to_string().contains(r#""x-meshgate":"chain""#), "{route:#}");
    }
}
