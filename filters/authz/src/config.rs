//! What a user writes under `authz:`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor};

/// The configuration of the filter `authz`: rules by name. Refusing rules come first, then those that let in.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// What matches one of these rules is refused, whatever other rules say.
    #[serde(default)]
    pub(crate) deny: Rules,
    /// What matches one of these rules is let in. With any rule here, whatever matches none of them is refused.
    #[serde(default)]
    pub(crate) allow: Rules,
    /// What matches one of these rules is counted and logged. They never decide.
    #[serde(default)]
    pub(crate) audit: Rules,
    /// What becomes of a request that no rule decides, where there are no rules under `allow`. Default: allow.
    #[serde(default)]
    #[schemars(with = "Fallback")]
    pub(crate) default: Option<Fallback>,
    /// Nothing is refused; what would be is counted and logged.
    #[serde(default)]
    pub(crate) dry_run: bool,
    /// How many proxies in front of this one are trusted to say in `x-forwarded-for` where a request comes from, for
    /// `client_addresses`. Default: none, which makes the client the one who connected.
    #[serde(default)]
    pub(crate) trusted_hops: u8,
}

/// What becomes of what no rule decides.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Fallback {
    /// It is let in.
    Allow,
    /// It is refused.
    Deny,
}

/// One rule. Who (`from`), what (`to`) and under which conditions (`when`) must all hold; a rule without any, `{}`, matches
/// everything.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    /// The rule does not decide; what it would have changed is counted and logged.
    #[serde(default)]
    pub(crate) dry_run: bool,
    /// Who asks: all conditions of a map, or of any map in a list.
    #[serde(default)]
    #[schemars(with = "Any<From>")]
    pub(crate) from: Option<Any<From>>,
    /// What is asked for: all conditions of a map, or of any map in a list.
    #[serde(default)]
    #[schemars(with = "Any<To>")]
    pub(crate) to: Option<Any<To>>,
    /// Further conditions: all of a map, or of any map in a list.
    #[serde(default)]
    #[schemars(with = "Any<When>")]
    pub(crate) when: Option<Any<When>>,
}

/// One map of conditions, or a list of maps of which one must hold.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a map of conditions or a list of such maps")]
#[schemars(inline)]
pub(crate) enum Any<T> {
    /// All conditions of one of the maps must hold. It stands first: serde would take an empty list for an empty map.
    Of(#[schemars(length(min = 1))] Vec<T>),
    /// All conditions must hold.
    One(T),
}

impl<T> Any<T> {
    pub(crate) fn alternatives(&self) -> &[T] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Of(list) => list,
        }
    }
}

/// A list of which one entry must hold; left out, there is no such condition.
pub(crate) type List = Option<Vec<String>>;

/// Who asks. In texts, a `*` at the end or at the beginning stands for anything, and alone for anything that is there.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct From {
    /// The client's identity by its certificate, such as `spiffe://mesh/ns/shop/sa/web`; `spiffe://` may be left out.
    #[serde(default)]
    #[schemars(with = "Vec<String>", length(min = 1))]
    pub(crate) identities: List,
    /// Not any of these identities. Holds for a client without a certificate, too.
    #[serde(default)]
    #[schemars(with = "Vec<String>", length(min = 1))]
    pub(crate) not_identities: List,
    /// The namespace in the client's identity: what follows `/ns/`.
    #[serde(default)]
    #[schemars(with = "Vec<String>", length(min = 1))]
    pub(crate) namespaces: List,
    /// Not any of these namespaces.
    #[serde(default)]
    #[schemars(with = "Vec<String>", length(min = 1))]
    pub(crate) not_namespaces: List,
    /// The token's issuer and subject, `ISSUER/SUBJECT`, as the filter `jwt` verified them.
    #[serde(default)]
    #[schemars(with = "Vec<String>", length(min = 1))]
    pub(crate) principals: List,
    /// Not any of these principals. Holds without a token, too.
    #[serde(default)]
    #[schemars(with = "Vec<String>", length(min = 1))]
    pub(crate) not_principals: List,
    /// The address that the host takes for the client's: the connection's, or what a proxy in front says that the listener
    /// believes (`forwarded`). Addresses and ranges such as `10.0.0.0/8`.
    #[serde(default)]
    #[schemars(with = "Vec<String>", length(min = 1))]
    pub(crate) addresses: List,
    /// Not any of these addresses.
    #[serde(default)]
    #[schemars(with = "Vec<String>", length(min = 1))]
    pub(crate) not_addresses: List,
    /// The address that the request comes from, as the proxies in front say it: see `trusted_hops`.
    #[serde(default)]
    #[schemars(with = "Vec<String>", length(min = 1))]
    pub(crate) client_addresses: List,
    /// Not any of these addresses of clients.
    #[serde(default)]
    #[schemars(with = "Vec<String>", length(min = 1))]
    pub(crate) not_client_addresses: List,
}

/// What is asked for.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct To {
    /// The authority without its port, in any case: `shop.example`, `*.example`.
    #[serde(default)]
    #[schemars(with = "Vec<String>", length(min = 1))]
    pub(crate) hosts: List,
    /// Not any of these hosts.
    #[serde(default)]
    #[schemars(with = "Vec<String>", length(min = 1))]
    pub(crate) not_hosts: List,
    /// The method.
    #[serde(default)]
    #[schemars(with = "Vec<String>", length(min = 1))]
    pub(crate) methods: List,
    /// Not any of these methods.
    #[serde(default)]
    #[schemars(with = "Vec<String>", length(min = 1))]
    pub(crate) not_methods: List,
    /// The path in its canonical form: `/login`, `/admin/*`, `*.png`, `/users/{*}/orders`, `/files/{**}`.
    #[serde(default)]
    #[schemars(with = "Vec<String>", length(min = 1))]
    pub(crate) paths: List,
    /// Not any of these paths.
    #[serde(default)]
    #[schemars(with = "Vec<String>", length(min = 1))]
    pub(crate) not_paths: List,
    /// The port that the client connected to.
    #[serde(default)]
    #[schemars(with = "Vec<u16>", length(min = 1))]
    pub(crate) ports: Option<Vec<u16>>,
    /// Not any of these ports.
    #[serde(default)]
    #[schemars(with = "Vec<u16>", length(min = 1))]
    pub(crate) not_ports: Option<Vec<u16>>,
}

/// Further conditions. Every name of a map must hold, with any of its values.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct When {
    /// Fields of the request: one value of the field is one of these.
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, Vec<String>>,
    /// No value of the field is one of these.
    #[serde(default)]
    pub(crate) not_headers: BTreeMap<String, Vec<String>>,
    /// Claims of the token, as the filter `jwt` verified it; `a.b` is `b` within `a`.
    #[serde(default)]
    pub(crate) claims: BTreeMap<String, Vec<String>>,
    /// The claim has none of these values.
    #[serde(default)]
    pub(crate) not_claims: BTreeMap<String, Vec<String>>,
    /// The server's name that the client asked for in the TLS handshake.
    #[serde(default)]
    #[schemars(with = "Vec<String>", length(min = 1))]
    pub(crate) server_names: List,
    /// Not any of these server names.
    #[serde(default)]
    #[schemars(with = "Vec<String>", length(min = 1))]
    pub(crate) not_server_names: List,
}

/// Rules by name, in the order of the configuration.
#[derive(Debug, Default)]
pub(crate) struct Rules(pub(crate) Vec<(String, Rule)>);

impl<'de> Deserialize<'de> for Rules {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Named;

        impl<'de> Visitor<'de> for Named {
            type Value = Rules;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from names to rules")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Rules, A::Error> {
                let mut rules = Vec::new();
                while let Some(rule) = map.next_entry()? {
                    rules.push(rule);
                }
                if rules.is_empty() {
                    return Err(de::Error::custom("no rules: leave the key out, or write `default: deny`"));
                }
                Ok(Rules(rules))
            }
        }

        deserializer.deserialize_map(Named)
    }
}

impl JsonSchema for Rules {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Rules".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = BTreeMap::<String, Rule>::json_schema(generator);
        schema.insert("minProperties".into(), 1.into());
        schema
    }
}
